"""ENAS: a recurrent controller samples the paths that train the shared weights, and learns from the accuracy they have with them.

Pham, Guan, Zoph, Le and Dean, "Efficient Neural Architecture Search via Parameter Sharing", ICML 2018, sections 2.2 and 2.4.
https://arxiv.org/abs/1802.03268
Dong and Yang, "NAS-Bench-201", ICLR 2020, appendix (its ENAS, whose controller this is). https://arxiv.org/abs/2001.00326

The controller decides one choice of an architecture after the other: an LSTM reads the embedding of the choice before, and
a linear layer gives the probabilities of the next. An epoch trains the weights, each step on an architecture that the
controller samples. Then the controller takes `controller_steps` steps of REINFORCE: each samples `aggregate` architectures,
whose reward is the accuracy with the shared weights on a held-out batch, plus `entropy` times the entropy of the decisions,
less a moving average of the rewards. In the end the best of `candidates` samples on held-out images is returned.

Where this file differs from the papers and their code (melodyguan/enas, AutoDL-Projects):
    * The decisions are the dimensions of a space. Dimensions with equally many choices share the linear layer and the
      embedding, so in NAS-Bench-201 all edges do, as published; the DARTS space gets one pair for its operations and one for
      each number of input pairs.
    * The samples of a step are drawn side by side; the code draws one after the other. Each has its own held-out batch.
    * The baseline moves with every sample, as in melodyguan/enas; in AutoDL-Projects with the last one of an epoch only. It
      begins at the mean of the first rewards.
    * The entropy is part of the reward as a number; in the codes its gradient, too, goes into the loss.
    * All parameters of the controller start from U(-0.1, 0.1); in AutoDL-Projects biases and the second layer do not.
    * The candidates of a proposal are judged on the same `judged` held-out images; in the code each has its own batch. After
      every epoch but the last there are only `quick` of them, as in the code.
    * The cosine of the learning rate runs over the whole search; the published recipe restarts it every 10 epochs.
    * The default recipe is short: few steps of the controller, with a higher learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.training import SupernetOptimizer

_TRIES = 50  # batches of samples before what is missing is drawn uniformly (a constrained space)


class Samples(NamedTuple):
    """Architectures `(m, dimensions)`, with the sums over their decisions of log-probabilities and entropies, `(m,)`."""

    choices: Tensor
    log_probs: Tensor
    entropies: Tensor


class Controller(nn.Module):
    """The policy: an LSTM over the dimensions of a space.

    Args:
        cardinalities: number of choices of each decision.
        units, layers: of the LSTM.
        tanh: logits are this times a hyperbolic tangent, so no decision is ever certain.
        temperature: divides the logits inside the tangent.
    """

    def __init__(
        self, cardinalities: Sequence[int], *, units: int, layers: int, tanh: float, temperature: float
    ) -> None:
        super().__init__()
        self.cardinalities = tuple(cardinalities)
        self.tanh, self.temperature = tanh, temperature
        kinds = sorted(set(self.cardinalities))
        self.start = nn.Parameter(torch.empty(units))
        self.lstm = nn.LSTM(units, units, layers)
        self.embeddings = nn.ModuleDict({str(n): nn.Embedding(n, units) for n in kinds})
        self.heads = nn.ModuleDict({str(n): nn.Linear(units, n) for n in kinds})
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)

    def logits(self, hidden: Tensor, n: int) -> Tensor:
        """Of a decision between n choices, `(m, n)`."""
        found: Tensor = self.tanh * torch.tanh(self.heads[str(n)](hidden) / self.temperature)
        return found

    def sample(self, m: int, generator: torch.Generator) -> Samples:
        """Draw m architectures."""
        inputs, state = self.start.expand(1, m, -1), None
        choices, log_probs, entropies = [], [], []
        for n in self.cardinalities:
            hidden, state = self.lstm(inputs, state)
            log_p = self.logits(hidden[0], n).log_softmax(dim=1)
            p = log_p.detach().exp()
            chosen = torch.multinomial(p, 1, generator=generator)
            choices.append(chosen)
            log_probs.append(log_p.gather(1, chosen)[:, 0])
            entropies.append(-(p * log_p.detach()).sum(dim=1))
            inputs = self.embeddings[str(n)](chosen[:, 0])[None]
        return Samples(torch.cat(choices, dim=1), torch.stack(log_probs).sum(0), torch.stack(entropies).sum(0))


class ENAS(SupernetOptimizer):
    """Efficient neural architecture search.

    Args:
        units, layers: of the controller's LSTM.
        tanh: largest logit of the controller.
        temperature: divides its logits before the tangent.
        controller_learning_rate: of its Adam.
        controller_steps: updates of the controller after each epoch (paper: 50).
        aggregate: samples of an update (paper: 20).
        entropy: weight of the entropy in the reward.
        baseline_decay: of the moving average of the rewards.
        controller_clip: largest norm of the controller's gradient.
        candidates: samples that are judged when the search ends.
        quick: the same after every epoch but the last.
        judged: held-out images that a candidate is judged by; None for all.
        task, recipe: see `supernet.training.SupernetOptimizer`. The controller learns when `warm_up` epochs are over.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "epochs": 250,
            "batch_size": 128,
            "learning_rate": 0.05,
            "min_learning_rate": 0.0005,
            "weight_decay": 2.5e-4,
            "controller_learning_rate": 0.001,
            "controller_steps": 50,
            "aggregate": 20,
            "judged": 512,
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        units: int = 32,
        layers: int = 2,
        tanh: float = 2.5,
        temperature: float = 5.0,
        controller_learning_rate: float = 0.01,
        controller_steps: int = 5,
        aggregate: int = 10,
        entropy: float = 1e-4,
        baseline_decay: float = 0.99,
        controller_clip: float = 5.0,
        candidates: int = 100,
        quick: int = 10,
        judged: int | None = None,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        for name, count in {
            "units": units,
            "layers": layers,
            "controller_steps": controller_steps,
            "aggregate": aggregate,
            "candidates": candidates,
            "quick": quick,
            "judged": 1 if judged is None else judged,
        }.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        for name, value in {
            "tanh": tanh,
            "temperature": temperature,
            "controller_learning_rate": controller_learning_rate,
            "controller_clip": controller_clip,
        }.items():
            if not 0.0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if not 0.0 <= entropy < float("inf"):
            raise ValueError(f"entropy must be a finite number from 0, not {entropy}")
        if not 0.0 <= baseline_decay < 1.0:
            raise ValueError(f"baseline_decay must be in [0, 1), not {baseline_decay}")
        self.units, self.layers, self.tanh, self.temperature = units, layers, tanh, temperature
        self.controller_learning_rate, self.controller_clip = controller_learning_rate, controller_clip
        self.controller_steps, self.aggregate = controller_steps, aggregate
        self.entropy, self.baseline_decay = entropy, baseline_decay
        self.candidates, self.quick, self.judged = candidates, quick, judged

    def begin(self) -> None:
        # The controller stays on the CPU, whatever the device: its matrices are tiny and its choices are needed there.
        self.controller: Controller = self.keep(
            "controller",
            self.initialised(
                lambda: Controller(
                    self.space.cardinalities,
                    units=self.units,
                    layers=self.layers,
                    tanh=self.tanh,
                    temperature=self.temperature,
                )
            ).cpu(),
        )
        self.controller_optimizer = self.keep(
            "controller optimizer",
            torch.optim.Adam(self.controller.parameters(), self.controller_learning_rate, betas=(0.0, 0.999), eps=1e-3),
        )
        self.baseline: float | None = None
        self.finish_seed = int(torch.randint(2**31, (1,), generator=self.generator))

    # ----------------------------------------------------------------------------------------------- the shared weights

    def step(self, batch: Batch, held_out: Batch) -> None:
        del held_out
        arch = self.draw(1, self.generator)[0]
        self.update_weights(self.loss(batch, self.supernet.paths(arch), count=True))

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> list[Architecture]:
        """Architectures from the policy; in a constrained space those of its samples that are valid."""
        found: list[Architecture] = []
        for _ in range(_TRIES):
            found += self._valid(self.controller.sample(n - len(found), generator))[0]
            if len(found) == n:
                return found
        return found + [self.space.sample(self.rng) for _ in range(n - len(found))]

    def _valid(self, samples: Samples) -> tuple[list[Architecture], list[int]]:
        archs = [tuple(row) for row in samples.choices.tolist()]
        kept = [i for i, arch in enumerate(archs) if self.space.is_valid(arch)]
        return [archs[i] for i in kept], kept

    # --------------------------------------------------------------------------------------------------- the controller

    def end_epoch(self) -> Mapping[str, float]:
        if self.epoch <= self.recipe.warm_up:
            return {}
        held_out = self.images.endless("architecture")
        rewards, entropies = zip(*(self.controller_step(held_out) for _ in range(self.controller_steps)), strict=True)
        return {"reward": float(np.mean(rewards)), "policy_entropy": float(np.mean(entropies))}

    def controller_step(self, held_out: Iterator[Batch]) -> tuple[float, float]:
        """One update; the mean reward and entropy of its samples."""
        samples = self.controller.sample(self.aggregate, self.generator)
        archs, kept = self._valid(samples)
        if not archs:
            return self.baseline or 0.0, float(samples.entropies.mean())
        entropies = samples.entropies[kept]
        rewards = self.accuracies(archs, held_out) + self.entropy * entropies
        advantages = torch.tensor(self.advantages(rewards.tolist()))
        self.update_controller(-(samples.log_probs[kept] * advantages).mean())
        return float(rewards.mean()), float(entropies.mean())

    @torch.no_grad()
    def accuracies(self, archs: Sequence[Architecture], held_out: Iterator[Batch]) -> Tensor:
        """Accuracy of each architecture on a batch of its own, `(m,)`; the device is waited for once."""
        found = []
        for arch in archs:
            batch = next(held_out)
            with self.autocast():
                logits = self.supernet(batch.images, self.supernet.paths(arch))
            found.append((logits.argmax(1) == batch.targets).float().mean())
        return torch.stack(found).cpu()

    def advantages(self, rewards: Sequence[float]) -> list[float]:
        """Rewards less the baseline, which each of them moves first."""
        baseline = float(np.mean(rewards)) if self.baseline is None else self.baseline
        found = []
        for reward in rewards:
            baseline -= (1.0 - self.baseline_decay) * (baseline - reward)
            found.append(reward - baseline)
        self.baseline = baseline
        return found

    def update_controller(self, loss: Tensor) -> None:
        """One clipped step of Adam."""
        self.controller_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.controller.parameters(), self.controller_clip)
        self.controller_optimizer.step()

    # ------------------------------------------------------------------------------------------------- the architecture

    def propose(self) -> Architecture:
        batches = self.images.fixed("architecture", self.judged)
        wanted = self.candidates if self.epoch >= self.recipe.epochs else self.quick
        generator = torch.Generator().manual_seed(self.finish_seed + self.epoch)  # training stays the same
        judged: dict[Architecture, float] = {}
        for arch in self.draw(wanted, generator):  # a policy that has narrowed repeats itself
            if arch not in judged:
                judged[arch] = self.inherited(arch, batches)
        return max(judged, key=lambda arch: judged[arch])

    # ------------------------------------------------------------------------------------------------------- checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {"baseline": self.baseline, "finish_seed": self.finish_seed}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.baseline, self.finish_seed = state["baseline"], state["finish_seed"]
