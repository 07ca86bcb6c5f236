"""The words of nasharness as types: what travels between an optimizer, a benchmark and the harness.

Nothing here depends on the rest of the package but the definition of an architecture, so optimizers may import it.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture

Status: TypeAlias = Literal["complete", "stopped", "failed"]
STATUSES: tuple[Status, ...] = ("complete", "stopped", "failed")


class Proposal(NamedTuple):
    """What an optimizer asks for.

    Attributes:
        arch: the architecture to evaluate.
        epochs: how long to train it; None means the benchmark's full schedule.
        resume: go on with the latest training of this architecture in the run, up to `epochs` in all, and pay the
            difference. It starts from nothing, at the full price, where there is no shorter training to go on with, and
            on a benchmark whose shorter trainings have schedules of their own.
    """

    arch: Architecture
    epochs: int | None = None
    resume: bool = False


class Metrics(Mapping[str, float]):
    """Quantities of an architecture by name, such as `{"flops": 7.8e6}`; read-only, and unlike `MappingProxyType` picklable."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Metrics({self._values!r})"


NO_METRICS = Metrics({})


class Trial(NamedTuple):
    """A proposal with its outcome.

    Attributes:
        arch: the architecture that was evaluated.
        value: validation accuracy that the search sees, a fraction in [0, 1], higher is better; NaN if it failed.
        seconds: simulated training seconds that it cost: of a resumed training, those of the further epochs.
        epochs: epochs trained in all.
        curve: validation accuracy after each of these epochs, `(epochs,)`, read-only; empty where there is none.
        status: `complete`, `stopped` (trained for less than the full schedule) or `failed`.
        metrics: what the optimizer asked for by its attribute `metrics`: costs of the network itself, such as FLOPs, in the
            benchmark's unit; NaN where the benchmark does not know it. Empty for an optimizer that asked for none.
    """

    arch: Architecture
    value: float
    seconds: float
    epochs: int
    curve: npt.NDArray[np.float32]
    status: Status = "complete"
    metrics: Mapping[str, float] = NO_METRICS


_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BUDGET = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """When a run ends: after so many simulated seconds, so many evaluations, or whichever comes first.

    A trial that would end after the budget's seconds is not part of the run: nobody would have seen its result in time.
    The optimizer's own computing time is measured and reported, but not taken from the budget, so that a run is the same
    on a slow and on a fast machine.

    Raises:
        ValueError: no limit, or one that is not positive (seconds also have to be finite).
    """

    seconds: float | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.evaluations is None:
            raise ValueError("a budget needs seconds, evaluations or both, such as Budget(seconds=20_000)")
        seconds: object = self.seconds  # whatever was given; NumPy's numbers are as good as Python's
        evaluations: object = self.evaluations
        if seconds is not None:
            number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
            if not number or not 0 < float(seconds) < math.inf:  # type: ignore[arg-type]
                raise ValueError(f"a budget's seconds must be positive and finite, not {seconds!r}")
            object.__setattr__(self, "seconds", float(seconds))  # type: ignore[arg-type]
        if evaluations is not None:
            whole = isinstance(evaluations, numbers.Integral) and not isinstance(evaluations, bool)
            if not whole or int(evaluations) < 1:  # type: ignore[call-overload]
                raise ValueError(f"a budget's evaluations must be a whole number from 1, not {evaluations!r}")
            object.__setattr__(self, "evaluations", int(evaluations))  # type: ignore[call-overload]

    @classmethod
    def of(cls, budget: Budget | str | int) -> Budget:
        """A budget as it is, a string that `parse` reads, or a number of evaluations."""
        return budget if isinstance(budget, Budget) else cls.parse(str(budget))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read '20000s', '2h', '300' or '300 evaluations', or two of them joined by a comma.

        Raises:
            ValueError: anything else.
        """
        seconds: float | None = None
        evaluations: int | None = None
        for part in text.split(","):
            match = _BUDGET.fullmatch(part)
            unit = match[2].lower() if match else ""
            if match and unit in _SECONDS and seconds is None:
                seconds = float(match[1]) * _SECONDS[unit]
            elif (
                match and unit in ("", "evaluations", "evals", "trials") and evaluations is None and match[1].isdigit()
            ):
                evaluations = int(match[1])
            else:
                raise ValueError(
                    f"cannot read the budget {text!r}: write seconds as '20000s' or '2h', evaluations as '300',"
                    " or both as '2h,300'"
                )
        return cls(seconds=seconds, evaluations=evaluations)

    def __str__(self) -> str:
        parts = [f"{self.seconds!r}s".replace(".0s", "s")] if self.seconds is not None else []
        parts += [f"{self.evaluations}"] if self.evaluations is not None else []
        return ",".join(parts)
