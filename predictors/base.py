"""What a learning-curve predictor and a stopping rule are.

    class LastValue(Predictor):
        def predict(self, observed):
            return Prediction.of_score(observed.accuracy[:, -1])

A predictor looks at the first epochs of trainings (`Curves` with fewer epochs than `max_epochs`) and says what they will reach:
a mean with a standard deviation, or only a score that ranks them. `p_better` turns that into the probability that a training
will end better than the incumbent, the best training that was completed. A `StoppingRule` ends trainings; `PredictorRule`
makes one of any predictor: it stops where that probability is at most `delta`.

What every rule keeps (learning-curve methods differ in everything else): a training goes on where there is no incumbent, where
it has already reached the incumbent's value, before the first check point, and where the predictor could say nothing; it ends
where its accuracy is NaN. Nobody is ever handed an epoch that was not observed: `Curves.observed` is a copy.

Accuracies are fractions in [0, 1], higher is better; epochs count from 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from .calibration import STEP, Calibration, fit_calibration

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class CurvesError(ValueError):
    """Curves that do not fit together, or that a predictor cannot work with; the message says what is missing."""


@dataclass(frozen=True, eq=False)
class Curves:
    """Learning curves of n trainings over their first m epochs, of `max_epochs` in all.

    Attributes:
        accuracy: float64 `(n, m)`, validation accuracy after each epoch; NaN where a training diverged.
        max_epochs: length T of the full training.
        arch: int64 `(n, dimensions)`, the architectures.
        cardinalities: choices per dimension of their space.
        seconds: float64 `(n, m)`, of the training up to each epoch: cumulative.
        train_loss: float64 `(n, m)`, mean training loss of each epoch; None where it is not known.
        dataset: int64 `(n,)`, number of the dataset that each was trained on.
        group: int64 `(n,)`, number of the class of architectures that are the same: never on both sides of a split.
    """

    accuracy: Floats
    max_epochs: int
    arch: Ints
    cardinalities: tuple[int, ...]
    seconds: Floats
    train_loss: Floats | None
    dataset: Ints
    group: Ints

    def __post_init__(self) -> None:
        n, m = self.accuracy.shape
        if not 1 <= m <= self.max_epochs:
            raise CurvesError(f"curves of {m} epochs cannot be part of trainings of {self.max_epochs}")
        shapes = {
            "arch": (n, len(self.cardinalities)),
            "seconds": (n, m),
            "dataset": (n,),
            "group": (n,),
            **({} if self.train_loss is None else {"train_loss": (n, m)}),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise CurvesError(f"{name} must have the shape {shape}, not {getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.accuracy)

    @property
    def epochs(self) -> int:
        """Observed epochs m."""
        return int(self.accuracy.shape[1])

    @property
    def complete(self) -> bool:
        return self.epochs == self.max_epochs

    @property
    def final(self) -> Floats:
        """Accuracy after the full training, `(n,)`.

        Raises:
            CurvesError: the curves are not complete.
        """
        if not self.complete:
            raise CurvesError(f"only {self.epochs} of {self.max_epochs} epochs were observed: the end is not known")
        return self.accuracy[:, -1]

    def observed(self, epochs: int) -> Curves:
        """A copy that knows the first `epochs` epochs and nothing else."""
        if not 1 <= epochs <= self.epochs:
            raise CurvesError(f"epochs must be in 1..{self.epochs}, not {epochs}")
        return replace(
            self,
            accuracy=self.accuracy[:, :epochs].copy(),
            seconds=self.seconds[:, :epochs].copy(),
            train_loss=None if self.train_loss is None else self.train_loss[:, :epochs].copy(),
        )

    def rows(self, which: npt.NDArray[np.integer] | npt.NDArray[np.bool_] | Sequence[int]) -> Curves:
        """Some of the trainings."""
        index = np.asarray(which) if len(which) else np.zeros(0, dtype=np.int64)  # an empty list has no integers
        return replace(
            self,
            accuracy=self.accuracy[index],
            arch=self.arch[index],
            seconds=self.seconds[index],
            train_loss=None if self.train_loss is None else self.train_loss[index],
            dataset=self.dataset[index],
            group=self.group[index],
        )

    def one_hot(self) -> Floats:
        """The architectures, `(n, sum(cardinalities))`."""
        starts = np.cumsum((0, *self.cardinalities[:-1]))
        encoded = np.zeros((len(self), sum(self.cardinalities)))
        encoded[np.arange(len(self))[:, None], self.arch + starts] = 1.0
        return encoded


def join(parts: Sequence[Curves]) -> Curves:
    """Curves of the same lengths and space, one after the other.

    Raises:
        CurvesError: they differ in length or space, or there is none.
    """
    if not parts:
        raise CurvesError("there are no curves to join")
    first = parts[0]
    for other in parts[1:]:
        if (other.epochs, other.max_epochs, other.cardinalities) != (
            first.epochs,
            first.max_epochs,
            first.cardinalities,
        ):
            raise CurvesError("only curves of the same epochs and the same space can be joined")
    losses = [p.train_loss for p in parts if p.train_loss is not None]
    return replace(
        first,
        accuracy=np.concatenate([p.accuracy for p in parts]),
        arch=np.concatenate([p.arch for p in parts]),
        seconds=np.concatenate([p.seconds for p in parts]),
        train_loss=np.concatenate(losses) if len(losses) == len(parts) else None,
        dataset=np.concatenate([p.dataset for p in parts]),
        group=np.concatenate([p.group for p in parts]),
    )


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a predictor says of n trainings.

    Attributes:
        mean: float64 `(n,)`, expected final accuracy; NaN of a predictor that only ranks.
        std: float64 `(n,)`, its standard deviation; NaN where the predictor gives none.
        score: float64 `(n,)`, what ranks the trainings, higher is better; the mean where there is one.
        ok: bool `(n,)`, False where nothing can be said, because a fit failed.
    """

    mean: Floats
    std: Floats
    score: Floats
    ok: npt.NDArray[np.bool_]

    @classmethod
    def of_score(cls, score: npt.ArrayLike, ok: npt.ArrayLike | None = None) -> Prediction:
        """A prediction that only ranks. What is not finite is not ok."""
        values = np.asarray(score, dtype=np.float64)
        unknown = np.full(len(values), np.nan)
        fine = np.isfinite(values) if ok is None else np.isfinite(values) & np.asarray(ok, dtype=bool)
        return cls(unknown, unknown, values, fine)

    @classmethod
    def of_normal(cls, mean: npt.ArrayLike, std: npt.ArrayLike, ok: npt.ArrayLike | None = None) -> Prediction:
        """A normal distribution of the final accuracy. What is not finite is not ok."""
        m = np.asarray(mean, dtype=np.float64)
        s = np.broadcast_to(np.asarray(std, dtype=np.float64), m.shape).copy()
        fine = np.isfinite(m) & np.isfinite(s)
        return cls(m, s, m, fine if ok is None else fine & np.asarray(ok, dtype=bool))

    def __len__(self) -> int:
        return len(self.score)


class Predictor(ABC):
    """Base class of learning-curve predictors.

    Args:
        rng: the only source of chance.

    Subclasses add keyword hyper-parameters with defaults.

    Attributes:
        presets: named sets of hyper-parameters.
        needs_curves: complete curves without which `fit` cannot work; 0 for a predictor that needs none.
        min_epochs: epochs that have to be observed.
        uses: which fields of `Curves` it looks at, of "accuracy", "train_loss" and "arch"; and "meta" where curves of other
            datasets can take the place of the task's.
        delta: the probability of being better at or below which a rule made of it stops, unless told otherwise.
        growth: a rule made of it fits it again when there are so many times more complete trainings; larger where fitting takes
            long.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs_curves: ClassVar[int] = 0
    min_epochs: ClassVar[int] = 1
    uses: ClassVar[frozenset[str]] = frozenset({"accuracy"})
    delta: ClassVar[float] = (
        0.01  # of 200 random trainings the next one improves on the best with a probability of some 3 %
    )
    growth: ClassVar[float] = 1.5

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._calibrations: dict[int, Calibration] = {}

    def fit(self, curves: Curves, checks: Sequence[int], meta: Curves | None = None) -> None:
        """Learn from complete curves; what this method does not use is ignored.

        Args:
            curves: complete, of the task at hand; may be none.
            checks: the epochs at which `predict` will be asked: what can be prepared is prepared for these.
            meta: complete curves of other datasets, of the same space and length; None without.

        Raises:
            CurvesError: fewer than `needs_curves` curves, or some are not complete.
        """
        for given in (curves, meta):
            if given is not None and not given.complete:
                raise CurvesError("a predictor learns from complete curves")
        if len(curves) < self.needs_curves and not ("meta" in self.uses and meta is not None and len(meta)):
            raise CurvesError(
                f"{type(self).__name__} needs {self.needs_curves} complete curves of the task, there are {len(curves)}"
            )
        self.learn(curves, checks, meta)
        # On the task itself where it has enough trainings, else on the other datasets' best substitute.
        known = curves if meta is None or len(curves) >= _CALIBRATE else meta
        self._calibrations = {}
        for m in checks:
            if m >= self.min_epochs and len(known):
                prediction = self.predict(known.observed(m))
                if np.isnan(prediction.std).any():
                    score = np.where(prediction.ok, prediction.score, np.nan)
                    self._calibrations[m] = fit_calibration(score, known.final)

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:  # noqa: B027  optional
        """What `fit` does for this method beyond calibration; nothing by default. Arguments are those of `fit`, checked."""

    @abstractmethod
    def predict(self, observed: Curves) -> Prediction:
        """Predict the end of trainings of which the first `observed.epochs` epochs are known."""

    def compare(self, prediction: Prediction, best_value: float, best: Prediction, epochs: int) -> Floats:
        """Probability `(n,)` that each training ends above the incumbent; NaN where nothing can be said.

        A normal distribution gives 1 - Phi((best_value - mean) / std). A score is compared with the incumbent's score after
        as many epochs, by the logistic function that `fit` calibrated for that epoch; without one, better is 1, equal 1/2
        and worse 0.

        Args:
            prediction: of the trainings.
            best_value: final accuracy of the incumbent.
            best: what is predicted of the incumbent from the same number of epochs, one row.
            epochs: that number.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            normal = ndtr((prediction.mean - best_value) / np.maximum(prediction.std, 1e-12))
        ranked = self._calibrations.get(epochs, STEP).probability(prediction.score - best.score[0])
        ranked = np.where(best.ok[0], ranked, np.nan)
        return np.where(prediction.ok, np.where(np.isnan(prediction.std), ranked, normal), np.nan)

    def p_better(self, observed: Curves, incumbent: Curves) -> Floats:
        """Probability `(n,)` that each training ends above the incumbent, which is one complete training."""
        m = observed.epochs
        return self.compare(self.predict(observed), float(incumbent.final[0]), self.predict(incumbent.observed(m)), m)


_CALIBRATE = 10  # complete trainings of the task from which on these calibrate, and not those of other datasets


# ------------------------------------------------------------------------------------------------------ stopping rules


class Decision(NamedTuple):
    """What a rule decided at a check point.

    Attributes:
        stop: end the training.
        p_better: its probability of ending above the incumbent; NaN of a rule that has none.
    """

    stop: bool
    p_better: float = math.nan


GO_ON = Decision(False)


class StoppingRule(ABC):
    """Ends trainings one after the other: any optimizer can search with it.

    Args:
        rng: the only source of chance.
        every: check points as a share of the full training: at 5 % each of 5 %, 10 %, ... of the epochs, rounded, and always
            at whole epochs from 1 on.

    Subclasses add keyword hyper-parameters with defaults.

    Attributes:
        needs_curves: complete trainings before it can stop one.
        uses: see `Predictor`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs_curves: int = 0
    uses: frozenset[str] = frozenset({"accuracy"})

    def __init__(self, rng: np.random.Generator, *, every: float = 0.05) -> None:
        if not 0 < every <= 1:
            raise ValueError(f"every is a share of the full training in (0, 1], not {every!r}")
        self.rng = rng
        self.every = every

    def checks(self, max_epochs: int) -> tuple[int, ...]:
        """The epochs at which `decide` is asked, ascending, all below `max_epochs`."""
        marks = np.arange(1, math.ceil(1 / self.every) + 1) * self.every * max_epochs
        return tuple(sorted({max(1, round(float(mark))) for mark in marks} & set(range(1, max_epochs))))

    @abstractmethod
    def decide(self, observed: Curves, best: Curves | None) -> Decision:
        """Whether to end a training.

        Args:
            observed: one row, up to a check point.
            best: the incumbent, the best complete training so far, one row; None while there is none.
        """

    def tell(self, finished: Curves) -> None:  # noqa: B027  optional
        """Learn how a training went that is over: one row, complete, or up to where it was stopped. Nothing by default."""


def must_go_on(observed: Curves, best: Curves | None) -> Decision | None:
    """What every rule keeps: a decision where there is nothing to weigh, else None."""
    accuracy = observed.accuracy[0]
    if np.isnan(accuracy[-1]):
        return Decision(True, 0.0)  # it diverged
    if best is None or np.nanmax(accuracy) >= best.final[0]:
        return GO_ON
    return None


class PredictorRule(StoppingRule):
    """Stops a training whose probability of beating the incumbent is at most `delta`, as a predictor sees it.

    The predictor is fitted on the trainings that were completed, and again whenever their number has grown by its `growth`.

    Args:
        rng: handed to the predictor, too.
        predictor: fitted or not.
        delta: in [0, 1); None for the predictor's own.
        warm_up: trainings that are completed first whatever happens; at least what the predictor needs.
        meta: complete curves of other datasets, for a predictor that learns from them.
        every: see `StoppingRule`.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        predictor: Predictor,
        *,
        delta: float | None = None,
        warm_up: int = 1,
        meta: Curves | None = None,
        every: float = 0.05,
    ) -> None:
        super().__init__(rng, every=every)
        self.delta = predictor.delta if delta is None else delta
        if not 0 <= self.delta < 1:
            raise ValueError(f"delta is a probability in [0, 1), not {delta!r}")
        if warm_up < 0:
            raise ValueError(f"warm_up must not be negative, not {warm_up!r}")
        self.predictor = predictor
        self.meta = meta
        self.uses = predictor.uses
        replaced = "meta" in predictor.uses and meta is not None and len(meta) > 0
        self.needs_curves = max(warm_up, 0 if replaced else predictor.needs_curves)
        self._complete: list[Curves] = []
        self._fitted_with = -1

    def decide(self, observed: Curves, best: Curves | None) -> Decision:
        decision = must_go_on(observed, best)
        if decision is not None:
            return decision
        assert best is not None
        if len(self._complete) < self.needs_curves or observed.epochs < self.predictor.min_epochs:
            return GO_ON
        self._refit(observed.max_epochs)
        return self.weigh(float(self.predictor.p_better(observed, best)[0]))

    def weigh(self, p_better: float) -> Decision:
        """The decision on a probability; NaN, which is a failed fit, goes on."""
        return Decision(p_better <= self.delta, p_better)

    def tell(self, finished: Curves) -> None:
        if finished.complete and np.isfinite(finished.final[0]):
            self._complete.append(finished)

    def _refit(self, max_epochs: int) -> None:
        n = len(self._complete)
        if self._fitted_with >= 0 and n < max(
            self._fitted_with + 1, math.ceil(self.predictor.growth * self._fitted_with)
        ):
            return
        self.predictor.fit(join(self._complete), self.checks(max_epochs), self.meta)
        self._fitted_with = n


# ---------------------------------------------------------------------------------------------------------- schedules


class Trainer(Protocol):
    """Trains the architectures of a list, as far as it is told, and keeps the bill.

    Attributes:
        n: how many architectures.
        max_epochs: length of the full training.
    """

    n: int
    max_epochs: int

    def train(self, which: int, epochs: int) -> Curves:
        """Train one architecture up to `epochs` in all, going on where it was, and return all that was observed: one row."""


class Schedule(ABC):
    """Trains a given list of architectures by a plan of its own, such as successive halving; no rule for single trainings.

    The best of those that it trained in full is what it returns.

    Args:
        rng: the only source of chance.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    uses: ClassVar[frozenset[str]] = frozenset({"accuracy"})

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    @abstractmethod
    def search(self, trainer: Trainer) -> None:
        """Train as the plan has it; at least one architecture in full."""
