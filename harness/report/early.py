"""What ending trainings early saved, and what it cost: strategies with a stopping rule beside the same ones without.

A strategy that was compared with and without a rule drew the same chance in the same repetition, so the differences are taken
run by run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import STATUSES
from ..registry import split_ids

if TYPE_CHECKING:
    from .summary import Estimate, Measured

_STOPPED = STATUSES.index("stopped")


@dataclass(frozen=True)
class EarlyRow:
    """One strategy with a rule; means over the repetitions that both have, with 95 % bootstrap intervals.

    Attributes:
        optimizer: label of the strategy with its rule.
        without: label of the strategy without.
        repetitions: that both have.
        stopped: share of the trainings that were not completed.
        saved: share of the simulated seconds of the strategy without the rule; negative where the rule spent more, as a search
            can that goes elsewhere.
        regret: what the rule added to the final regret, percentage points; negative where it helped.
        rule_seconds: measured seconds that the rule took beyond the optimizer's own, mean over runs.
        split: of the regret.
    """

    optimizer: str
    without: str
    repetitions: int
    stopped: Estimate
    saved: Estimate
    regret: Estimate
    rule_seconds: float
    split: str

    def sentence(self) -> str:
        """What can be said, in words."""
        cost = "cannot be told apart from none"
        if self.regret.low > 0:
            cost = "is worse"
        elif self.regret.high < 0:
            cost = "is better"
        saved, stopped = self.saved, self.stopped
        interval = f" [{100 * saved.low:.0f}, {100 * saved.high:.0f}]" if saved.has_interval else ""
        change = f"a {self.split} regret change of {self.regret.text()} points" + (
            f", which {cost}" if self.regret.has_interval else ""
        )
        return (
            f"{self.optimizer} ended {100 * stopped.value:.0f} % of its trainings early: {100 * saved.value:.0f} %{interval} of"
            f" the simulated time of {self.without} saved, at {change}."
        )


def early_rows(
    groups: Mapping[str, Sequence[Measured]], estimated: Callable[[Any, Any], Estimate]
) -> tuple[EarlyRow, ...]:
    """One row per strategy with a rule that was also run without; see `EarlyRow`.

    Args:
        groups: the runs of each strategy by label.
        estimated: makes a number with its interval of values and a statistic.
    """
    rows = []
    for label, group in groups.items():
        parts = split_ids(label, "+")
        without = "+".join(parts[:-1])
        if len(parts) < 2 or without not in groups:
            continue
        plain = {(m.run.seed, m.run.repetition): m for m in groups[without]}
        pairs = [(m, plain[m.run.seed, m.run.repetition]) for m in group if (m.run.seed, m.run.repetition) in plain]
        if not pairs:
            continue
        rows.append(
            EarlyRow(
                optimizer=label,
                without=without,
                repetitions=len(pairs),
                stopped=estimated(np.array([np.mean(m.run.trials.status == _STOPPED) for m, _ in pairs]), np.mean),
                saved=estimated(
                    np.array([1 - m.run.simulated_seconds / o.run.simulated_seconds for m, o in pairs]), np.mean
                ),
                regret=estimated(np.array([m.regret[-1] - o.regret[-1] for m, o in pairs]), np.mean),
                rule_seconds=float(
                    np.mean([m.run.optimizer_seconds for m, _ in pairs])
                    - np.mean([o.run.optimizer_seconds for _, o in pairs])
                ),
                split=group[0].split,
            )
        )
    return tuple(rows)
