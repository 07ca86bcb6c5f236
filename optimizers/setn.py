"""SETN: train the weights on uniformly random paths and architecture parameters on the mixture, then compare likely candidates.

Dong and Yang, "One-Shot Neural Architecture Search via Self-Evaluated Template Network", ICCV 2019, section 3.
https://arxiv.org/abs/1910.05733
Dong and Yang, "NAS-Bench-201", ICLR 2020, appendix (its SETN). https://arxiv.org/abs/2001.00326

A step trains the weights on one architecture drawn uniformly, so that all candidates are treated alike, whatever the
architecture parameters say. Then the parameters descend the gradient of the held-out loss of the mixture of all operations,
weighted by their softmax, as in DARTS. In the end the parameters only say which architectures are likely to be good: the
likely ones are judged by their held-out accuracy with the shared weights, and the best is returned.

Where this file differs from the papers and their code (AutoDL-Projects):
    * The candidates are the `candidates` most probable architectures, as in the code; `draw="sampled"` samples them from the
      softmax. A space that is too large to list is always sampled from. In the DARTS space the operations of an edge are
      drawn from the softmax without `none`, and edges compete by the perturbed logarithm of their operation's probability.
    * All candidates are judged on the same `judged` held-out images; the code gives every one its own batch.
    * After every epoch but the last only `quick` candidates are judged; the code judges all every time.
    * In the code momentum and weight decay also move operations off the path; here they stay as they are.
    * Batch normalisation goes by the batch (`supernet/norm.py`).
    * The default recipe is short; `@paper` is that of the NAS-Bench-201 code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import SupernetTask
from .drawing import can_enumerate
from .supernet.images import Batch
from .supernet.training import DifferentiableOptimizer

_LISTED = 100_000  # architectures that can be ranked one by one


class SETN(DifferentiableOptimizer):
    """Self-evaluated template network.

    Args:
        candidates: likely architectures that are judged when the search ends.
        quick: the same after every epoch but the last.
        draw: "likeliest" or "sampled": which candidates.
        judged: held-out images that a candidate is judged by; None for all.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {
        "alpha_learning_rate": 0.001
    }  # faster, the likely ones are soon all alike
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 250,
            "learning_rate": 0.025,
            "alpha_learning_rate": 3e-4,
            "clip": 0.0,
            "judged": 512,
            "quick": 100,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        candidates: int = 100,
        quick: int = 10,
        draw: Literal["likeliest", "sampled"] = "likeliest",
        judged: int | None = None,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        for name, value in {
            "candidates": candidates,
            "quick": quick,
            "judged": 1 if judged is None else judged,
        }.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if draw not in ("likeliest", "sampled"):
            raise ValueError(f"draw is 'likeliest' or 'sampled', not {draw!r}")
        self.candidates, self.quick, self.draw, self.judged = candidates, quick, draw, judged

    def begin(self) -> None:
        super().begin()
        self.finish_seed = int(
            self.rng.integers(2**31)
        )  # proposals draw from their own numbers: training stays the same

    def step(self, batch: Batch, held_out: Batch) -> None:
        self.weight_step(batch)
        if self.epoch >= self.recipe.warm_up:
            self.architecture_step(batch, held_out)

    def weight_step(self, batch: Batch) -> None:
        """On one uniformly random architecture."""
        mixes = self.supernet.paths(self.space.sample(self.rng))
        self.update_weights(self.loss(batch, mixes, count=True))

    def propose(self) -> Architecture:
        batches = self.images.fixed("architecture", self.judged)
        wanted = self.candidates if self.epoch >= self.recipe.epochs else self.quick
        return max(self.likely(wanted), key=lambda arch: self.inherited(arch, batches))

    def likely(self, n: int) -> list[Architecture]:
        """The n most probable architectures, most probable first; or n samples."""
        with np.errstate(divide="ignore"):  # a removed operation
            log_p = [np.log(np.maximum(s, 0.0)) for s in self.strengths()]
        if self.draw == "likeliest" and self.space.name == "nasbench201" and can_enumerate(self.space, _LISTED):
            everything = list(self.space)
            choices = np.array(everything)
            total = log_p[0][np.arange(choices.shape[1]), choices].sum(axis=1)
            return [everything[i] for i in np.argsort(-total, kind="stable")[:n]]
        # The largest entry after adding Gumbel noise is a draw from the softmax.
        rng = np.random.default_rng([self.finish_seed, self.epoch])
        return [self.topology.discretise([row + rng.gumbel(size=row.shape) for row in log_p]) for _ in range(n)]

    def end_epoch(self) -> Mapping[str, float]:
        weights = [np.maximum(s, 0.0) for s in self.strengths()]
        entropy = [-(w * np.log(np.maximum(w, 1e-12))).sum(axis=1).mean() for w in weights]
        likeliest = self.topology.discretise(self.strengths())
        return {"alpha_entropy": float(np.mean(entropy)), "skips": float(self.topology.skips(likeliest))}

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "finish_seed": self.finish_seed}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self.finish_seed = state["finish_seed"]
