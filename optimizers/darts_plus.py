"""DARTS+: stop DARTS early, as soon as skip connections begin to take over or the ranking of operations has settled.

Liang, Zhang, Sun, He, Huang, Zhuang and Li, "DARTS+: Improved Differentiable Architecture Search with Early Stopping", 2019,
section 3. https://arxiv.org/abs/1909.06035

While a supernet fits its images, the weights of later epochs help operations without weights more and more. The search stops
at the end of the first epoch in which a criterion holds:

    "skips"   the architecture has two or more skip connections in the normal cell (criterion 1 of the paper);
    "stable"  the ranking of the operations with weights has been the same for ten epochs (criterion 2).

Where this file differs from the paper, which has no public code:
    * The ranking is that of the operations with weights (convolutions) on every edge, all edges together; how the paper
      takes the edges together is not known to us.
    * In NAS-Bench-201 the cell takes the place of the normal cell.
    * `start_epoch`: parameters that were drawn at random say nothing, so the skip criterion waits for some epochs. The paper
      has no such number; `@paper` sets it to 0.
    * The recipe of `@paper` is that of DARTS; the number of epochs is an upper limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from ..harness.core import Proposal
from .base import SearchFinished, SupernetTask
from .darts import DARTS
from .supernet.recipe import PAPER, check_whole

CRITERIA = ("skips", "stable", "either")


class DARTSPlus(DARTS):
    """DARTS with early stopping by what it would propose.

    Args:
        criterion: "skips", "stable" or "either"; see above.
        skips: so many skip connections in the normal cell stop the search.
        patience: so many epochs in a row without a change of the ranking stop it.
        start_epoch: epochs after which skip connections are looked at for the first time.
        order: see `darts.DARTS`.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: a criterion that there is not, skips or patience below 1, a negative start_epoch, or a bad order.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**PAPER, "criterion": "skips", "skips": 2, "patience": 10, "start_epoch": 0}
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        criterion: str = "skips",
        skips: int = 2,
        patience: int = 10,
        start_epoch: int = 5,
        order: int = 1,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, order=order, task=task, **recipe)
        if criterion not in CRITERIA:
            raise ValueError(f"criterion is one of {', '.join(CRITERIA)}, not {criterion!r}")
        for name, value, least in (("skips", skips, 1), ("patience", patience, 1), ("start_epoch", start_epoch, 0)):
            check_whole(name, value, least)
        self.criterion = criterion
        self.skips = skips
        self.patience = patience
        self.start_epoch = start_epoch
        self.stopped = False
        self._ranking: list[list[list[int]]] = []
        self._unchanged = 0  # epochs in a row

    def ask(self) -> Proposal:
        if self.stopped:
            raise SearchFinished
        return super().ask()

    def ranking(self) -> list[list[list[int]]]:
        """The columns of the operations with weights, best first, by edge and table."""
        found = []
        for table, strengths in zip(self.topology.tables, self.strengths(), strict=True):
            learnable = [op for op, name in enumerate(table.operations) if "conv" in name]
            found.append([sorted(learnable, key=lambda op: -row[op]) for row in strengths.tolist()])
        return found

    def end_epoch(self) -> Mapping[str, float]:
        entry = dict(super().end_epoch())
        table, row = self.topology.tables[0], self.topology.choices(self.propose())[0]
        entry["normal_skips"] = float(row.count(table.skip))
        if self.epoch > self.recipe.warm_up:
            ranking = self.ranking()
            self._unchanged = self._unchanged + 1 if ranking == self._ranking else 0
            self._ranking = ranking
            settled = self._unchanged >= self.patience
            taken_over = self.epoch >= self.start_epoch and entry["normal_skips"] >= self.skips
            self.stopped = (taken_over and self.criterion != "stable") or (settled and self.criterion != "skips")
        entry["unchanged"] = float(self._unchanged)
        entry["stopped"] = float(self.stopped)
        return entry

    def extra_state(self) -> dict[str, Any]:
        return {
            **super().extra_state(),
            "ranking": self._ranking,
            "unchanged": self._unchanged,
            "stopped": self.stopped,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        self._ranking = [[list(edge) for edge in table] for table in state["ranking"]]
        self._unchanged = state["unchanged"]
        self.stopped = state["stopped"]
