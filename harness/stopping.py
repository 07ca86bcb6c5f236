"""Judge learning-curve predictors and stopping rules on curves that are known to the end.

    study = nh.compare_stopping(["last_value", "median_rule", "hyperband"], "digits201", orderings=50)
    study.frame("searches")      # a row per rule and simulated search
    study.report("report/")

Three studies, all on architectures that a predictor has not learned from:

    ranking    how well predictions from the first epochs rank the final accuracies
    decisions  whether the probabilities of ending above the incumbent are right
    searches   early-stopped random search: the architectures of an ordering are trained one after the other, the rule is asked
               at its check points, a training that it stops is never resumed, and the best of those trained in full is selected

The classes of architectures that are the same network are cut into folds. A predictor learns once per fold, from `n_train`
complete curves of the other folds, and is then used for all orderings of the fold. Every rule meets the same folds, training
curves and orderings. Datasets to transfer from (`meta`) lose the architectures of the fold, too: the same cells rank alike on
all datasets, so a model that has seen them elsewhere would look the answer up.

A search costs the seconds of the epochs that were trained, as the curves have them, never this machine's time. Its regret is the
difference, in points of accuracy, of the best final value of the ordering and of the selected training: 0 without early
termination.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import kendalltau, rankdata, spearmanr

from ..benchmarks.base import Benchmark
from ..benchmarks.workers import InProcess, in_flight, one_thread, processes
from ..predictors.base import Curves, CurvesError, Prediction, Predictor, PredictorRule, Schedule, StoppingRule, join
from .curves import curves_of, groups, load_curves
from .registry import RegistryError, StoppingSpec, entry_points, load, stopping_spec
from .run import RunError
from .scoring import choose

if TYPE_CHECKING:
    import pandas as pd

    from .report.stopping import StoppingSummary

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Progress: TypeAlias = Callable[[int, int], None]
Given: TypeAlias = str | os.PathLike[str] | Benchmark | Curves

NONE = "none"
"""The label of random search without early termination."""
ALL = "all"
"""In place of a rule's id: every registered one."""
_MOST = 20_000  # architectures of a larger space that are drawn
_META = 1000  # curves of each other dataset that are learned from
_JUDGED = 1000  # architectures of a fold that the ranking study looks at: pairs are many
_RANKED = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5)  # observed shares of the ranking study, beside one epoch
_DELTAS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
_SWEPT = "i"  # the parameter of i_epoch that is varied
_EPOCHS_SWEPT = (1, 2, 3, 5, 10, 20, 50)
_LEAST = 1e-6  # likelihood of what happened, in the log-loss


# ------------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class RankingRow:
    """How well a predictor ranks the architectures of one fold after some epochs.

    Attributes:
        rule: label.
        fraction: observed share of the full training, `epochs / max_epochs`.
        epochs: observed epochs.
        fold: number of the fold.
        n_train: complete curves of the task that it learned from.
        spearman, tau: Spearman's rho and Kendall's tau-b with the final accuracy.
        pairwise: share of pairs that it orders rightly; a tie of scores counts half. Only pairs that are further apart than two
            training runs of one architecture usually are, where a benchmark has several; else those that differ at all.
        recall_top: share of the truly best 5 % that is among the best 10 % predicted.
        spearman_top: Spearman's rho within the truly best 10 %.
        r2: coefficient of determination of the predicted mean; NaN of a predictor that only ranks.
    """

    rule: str
    fraction: float
    epochs: int
    fold: int
    n_train: int
    spearman: float
    tau: float
    pairwise: float
    recall_top: float
    spearman_top: float
    r2: float


@dataclass(frozen=True)
class DecisionRow:
    """How right the probabilities of ending above the incumbent are, at one check point.

    Every predictor is asked the same: about each training and the incumbent that a search without early termination has by then,
    unless the training diverged or has reached the incumbent's value, also where the rule would have stopped it earlier.

    Attributes:
        rule: label.
        epochs: the check point.
        n: probabilities given, over all orderings.
        brier: mean squared difference from what happened.
        log_loss: mean negative logarithm of the probability of what happened, which is taken as at least 1e-6.
        p_mean: mean probability.
        share_better: share of the trainings that did end above the incumbent.
    """

    rule: str
    epochs: int
    n: int
    brier: float
    log_loss: float
    p_mean: float
    share_better: float


@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram, over all check points.

    Attributes:
        rule: label.
        edges: `(11,)`, of the bins of the probability.
        count: int64 `(10,)`, probabilities in each bin.
        p_mean: `(10,)`, their mean; NaN of an empty bin.
        frequency: `(10,)`, share of the trainings that did end above the incumbent; NaN of an empty bin.
    """

    rule: str
    edges: Floats
    count: Ints
    p_mean: Floats
    frequency: Floats


@dataclass(frozen=True)
class SearchRow:
    """One simulated search.

    Attributes:
        rule: label.
        delta: the probability at or below which it stopped; the varied parameter in a sweep; NaN where there is none.
        fold, ordering: which; the same for every rule.
        regret: points of accuracy below the best of the ordering.
        seconds: of the epochs trained, a training that is taken up again going on where it was.
        restart_seconds: the same where taking up again starts anew; equal for a rule that never does.
        full_seconds: of training everything in full.
        cpu_seconds: measured on this machine: fitting, once, and predicting at every check point, or deciding.
        training_seconds: of the curves of the task that were learned from, which are the same for all orderings of a fold.
        trained_in_full: architectures.
        epochs_share: epochs trained of all.
    """

    rule: str
    delta: float
    fold: int
    ordering: int
    regret: float
    seconds: float
    restart_seconds: float
    full_seconds: float
    cpu_seconds: float = field(compare=False)  # no two runs measure the same
    training_seconds: float
    trained_in_full: int
    epochs_share: float


@dataclass(frozen=True, eq=False)
class StoppingStudy:
    """What `compare_stopping` found.

    Attributes:
        name: of the benchmark, or of the file of curves.
        curves_words: the curves in words.
        max_epochs: length of the full training.
        rules: labels: "none", which is no early termination, then those given, less those that failed.
        ranking: of predictors.
        decisions: of predictors, by check point.
        reliability: label -> diagram, of predictors.
        killed: label -> (share of the trainings better than the incumbent that were stopped, which is NaN where a rule has no
            incumbents or never met one; share of the orderings of which the best architecture was not trained in full).
        searches: by rule and ordering, each rule at its own setting.
        sweeps: the same under other settings: `delta` of predictors, `i` of i_epoch; the label is that of the rule.
        errors: label -> what went wrong.
        specification: everything that was asked for.
    """

    name: str
    curves_words: str
    max_epochs: int
    rules: tuple[str, ...]
    ranking: tuple[RankingRow, ...]
    decisions: tuple[DecisionRow, ...]
    reliability: Mapping[str, Reliability]
    killed: Mapping[str, tuple[float, float]]
    searches: tuple[SearchRow, ...]
    sweeps: tuple[SearchRow, ...]
    errors: Mapping[str, str]
    specification: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<StoppingStudy of {', '.join(self.rules)} on {self.curves_words}>"

    def frame(self, which: Literal["ranking", "decisions", "searches", "sweeps"] = "searches") -> pd.DataFrame:
        """One of the tables as a pandas DataFrame, with a column per attribute of its rows.

        Raises:
            ValueError: there is no such table.
        """
        import pandas as pd

        kinds = {"ranking": RankingRow, "decisions": DecisionRow, "searches": SearchRow, "sweeps": SearchRow}
        if which not in kinds:
            raise ValueError(f"unknown table {which!r}: choose from {', '.join(kinds)}")
        names = [f.name for f in dataclasses.fields(kinds[which])]
        return pd.DataFrame([[getattr(row, name) for name in names] for row in getattr(self, which)], columns=names)

    def summary(self) -> StoppingSummary:
        """The table of the report: one row per rule."""
        from .report.stopping import summarise

        return summarise(self)

    def report(self, folder: str | os.PathLike[str]) -> Path:
        """Write the page, figures and tables into a folder; returns the page's path."""
        from .report.stopping_page import write_stopping_report

        return write_stopping_report(self, Path(folder))


# ------------------------------------------------------------------------------------------------- what is judged on


def _name_and_curves(given: Given, seed: int) -> tuple[str, Curves, str, dict[str, Any]]:
    """Name, curves, the curves in words, and what else the specification is to say of them."""
    more: dict[str, Any] = {}
    if isinstance(given, Curves):
        name, curves, of = "curves", given, "given by the caller"
    elif isinstance(given, os.PathLike) or (isinstance(given, str) and given.endswith(".npz")):
        path = Path(given)
        name, curves, of = path.stem, load_curves(path), f"of {path.name}"
        more["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        benchmark = load(given) if isinstance(given, str) else given
        size = benchmark.space.known_size
        archs, _ = choose(benchmark.space, n=None if size and size <= _MOST else _MOST, among="all", seed=seed)
        name, curves, of = benchmark.id, _first_runs(benchmark, archs), f"of {benchmark.id}, one training seed"
        more |= {"sha256": benchmark.info.sha256, "noise": _noise(benchmark, archs), "caution": benchmark.info.caution}
    if not curves.complete:
        raise CurvesError(f"the curves of {name} are not complete")
    if len(np.unique(curves.dataset)) > 1:
        raise CurvesError(f"{name} holds curves of several datasets: one search is on one dataset")
    # A training that diverged stays NaN; where a number follows, epochs are missing.
    gaps = np.isnan(curves.accuracy[:, :-1]).any(axis=1) & np.isfinite(curves.final)
    usable = ~gaps & np.isfinite(curves.seconds).all(axis=1)
    if not usable.any():
        raise CurvesError(f"{name} has no curve with the accuracy and the seconds of every epoch")
    if not usable.all():
        of += f", less {int((~usable).sum()):,} with missing epochs"
        curves = curves.rows(usable)
    return name, curves, f"{len(curves):,} learning curves of {curves.max_epochs} epochs {of}", more


def _first_runs(benchmark: Benchmark, archs: npt.NDArray[np.integer]) -> Curves:
    """The curves of the first training run of each architecture: the mean over runs is no run that a search could pay for."""
    seeds = getattr(benchmark, "seeds", None)
    if seeds is None:
        try:
            return curves_of(benchmark, archs, seed=0)
        except CurvesError:
            raise
        except ValueError as error:
            raise CurvesError(f"{benchmark.id} has no learning curves of single trainings: {error}") from error
    first = np.array([seeds(tuple(arch))[0] for arch in archs.tolist()])  # trials that go by their real seeds
    parts = {s: np.flatnonzero(first == s) for s in np.unique(first).tolist()}
    joined = join([curves_of(benchmark, archs[index], seed=s) for s, index in parts.items()])
    back = np.argsort(np.concatenate(list(parts.values())))
    return replace(joined.rows(back), group=groups(benchmark.space, [tuple(arch) for arch in archs.tolist()]))


def _noise(benchmark: Benchmark, archs: npt.NDArray[np.integer]) -> float:
    """Standard deviation of the final validation accuracy between training runs; 0 where only one is known."""
    runs = int(getattr(benchmark, "n_seeds", 1))
    if runs < 2:
        return 0.0
    some = [tuple(arch) for arch in archs[:: max(1, len(archs) // 500)].tolist()]
    final = [[benchmark.curve(arch, s).val_accuracy[-1] for s in range(runs)] for arch in some]
    return float(np.sqrt(np.nanmean(np.var(np.array(final, dtype=np.float64), axis=1, ddof=1))))


def resampled(curves: Curves, max_epochs: int) -> Curves:
    """Complete curves as if their training had had another number of epochs: what was reached at each share of it.

    Linear between epochs, and constant before the first; the end stays the end.
    """
    if curves.max_epochs == max_epochs:
        return curves
    at = np.arange(1, max_epochs + 1) / max_epochs * curves.max_epochs  # 1 is the end of the first epoch
    low = np.floor(at + 1e-9).astype(np.int64)
    share = np.clip(at - low, 0.0, 1.0)
    share[share < 1e-9] = 0.0

    def read(values: Floats, start: Floats) -> Floats:
        padded = np.concatenate((start[:, None], values), axis=1)
        after = padded[:, np.minimum(low + 1, curves.max_epochs)]
        return np.where(share == 0, padded[:, low], (1 - share) * padded[:, low] + share * after)

    return replace(
        curves,
        accuracy=read(curves.accuracy, curves.accuracy[:, 0]),
        seconds=read(curves.seconds, np.zeros(len(curves))),
        train_loss=None if curves.train_loss is None else read(curves.train_loss, curves.train_loss[:, 0]),
        max_epochs=max_epochs,
    )


def common_groups(sources: Sequence[Curves]) -> list[Curves]:
    """The same curves with one numbering of groups: architectures that are one in any of the sources get one number.

    Sources number their groups as they like, and one may know classes where another only knows architectures.
    """
    archs = np.concatenate([c.arch for c in sources])
    _, arch = np.unique(archs, axis=0, return_inverse=True)
    own = [np.unique(c.group, return_inverse=True)[1] for c in sources]
    starts = np.cumsum([0, *(int(g.max(initial=-1)) + 1 for g in own)])
    group = np.concatenate([g + start for g, start in zip(own, starts[:-1], strict=True)])
    size = int(arch.max()) + 1
    links = coo_array((np.ones(len(group)), (arch.reshape(-1), size + group)), shape=(size + starts[-1],) * 2)
    number = connected_components(links, directed=False)[1][arch.reshape(-1)].astype(np.int64)
    ends = np.cumsum([len(c) for c in sources])[:-1]
    return [replace(c, group=g) for c, g in zip(sources, np.split(number, ends), strict=True)]


@dataclass(frozen=True, eq=False)
class Fold:
    """What one task needs of a fold.

    Attributes:
        number: of the fold.
        train: complete curves of the task to learn from.
        test: complete curves of the architectures of the fold that occur in an ordering.
        meta: complete curves of other datasets, without the architectures of the fold; None without.
        orderings: number of each ordering -> its rows of `test`, int64 `(n,)`.
    """

    number: int
    train: Curves
    test: Curves
    meta: Curves | None
    orderings: Mapping[int, Ints]


def make_folds(
    task: Curves, meta: Sequence[Curves], *, n: int, orderings: int, folds: int, n_train: int, seed: int
) -> list[Fold]:
    """Cut the classes of architectures into folds and draw training curves and orderings, the same for every rule.

    Args:
        task: complete.
        meta: complete curves of other datasets, each of which gives at most 1,000 to learn from.
        n, orderings, folds, n_train, seed: see `compare_stopping`.

    Raises:
        CurvesError: too few curves, or another space.
    """
    for other in meta:
        if other.cardinalities != task.cardinalities:
            raise CurvesError(
                f"meta curves are of a space {other.cardinalities}, those of the task of {task.cardinalities}"
            )
    task, *others = common_groups([task, *(resampled(other, task.max_epochs) for other in meta)])
    task = replace(task, dataset=np.zeros(len(task), dtype=np.int64))
    datasets = 1
    for i, other in enumerate(others):
        numbers, dataset = np.unique(other.dataset, return_inverse=True)
        others[i] = replace(other, dataset=dataset.reshape(-1).astype(np.int64) + datasets)
        datasets += len(numbers)
    classes = np.unique(task.group)
    if len(classes) < folds:
        raise CurvesError(f"{len(classes)} classes of architectures cannot be cut into {folds} folds")
    parts = np.array_split(_generator(seed, "folds").permutation(classes), folds)
    made = []
    for number, part in enumerate(parts):
        mine = [o for o in range(orderings) if o % folds == number]
        if not mine:
            continue
        rng = _generator(seed, "fold", number)
        inside = np.isin(task.group, part)
        test, train = np.flatnonzero(inside), np.flatnonzero(~inside)
        if len(test) < n:
            raise CurvesError(f"a fold of {len(test)} of the {len(task)} curves is too small for orderings of {n}")
        if len(train) < n_train:
            raise CurvesError(f"{len(train)} curves are left to learn from, not {n_train}")
        drawn = [rng.choice(test, size=n, replace=False) for _ in mine]
        used, places = np.unique(np.concatenate(drawn), return_inverse=True)
        # In random order: what is taken from the head of the rows is then a sample.
        order = rng.permutation(len(used))
        places = np.argsort(order)[places.reshape(len(mine), n)]
        kept = []
        for other in others:
            allowed = np.flatnonzero(~np.isin(other.group, part))
            kept.append(other.rows(rng.permutation(allowed)[:_META]))
        made.append(
            Fold(
                number,
                task.rows(rng.choice(train, size=n_train, replace=False)),
                task.rows(used[order]),
                join(kept) if kept else None,
                dict(zip(mine, places, strict=True)),
            )
        )
    return made


def _generator(seed: int, purpose: str, *numbers: int) -> np.random.Generator:
    word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    return np.random.default_rng(np.random.SeedSequence((seed, word, *numbers)))


# ----------------------------------------------------------------------------------------------------------- simulator


@dataclass(frozen=True, eq=False)
class Course:
    """How the trainings of an ordering went.

    Attributes:
        epochs: int64 `(n,)`, trained.
        incumbent: int64 `(n,)`, place of the best complete training before each; -1 while there is none.
        selected: place of the best of those trained in full.
        seconds, restart_seconds: see `SearchRow`.
        cpu_seconds: measured: of the decisions.
    """

    epochs: Ints
    incumbent: Ints
    selected: int
    seconds: float
    restart_seconds: float
    cpu_seconds: float = 0.0


def follow(curves: Curves, stops: Callable[[int], Ints]) -> Course:
    """Train an ordering with a rule of which the decisions are known for every incumbent.

    Args:
        curves: complete, in the order of the search.
        stops: incumbent's place, -1 for none -> epochs after which each training ends, `(n,)`.

    Raises:
        CurvesError: no training was completed.
    """
    n, length = len(curves), curves.max_epochs
    final = curves.final
    epochs, incumbent = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    best, start = -1, 0
    while start < n:
        ends = stops(best)
        value = -np.inf if best < 0 else final[best]
        record = np.flatnonzero((ends[start:] == length) & (final[start:] > value))  # NaN is no record
        stop = n if len(record) == 0 else start + int(record[0]) + 1
        epochs[start:stop], incumbent[start:stop] = ends[start:stop], best
        if len(record):
            best = stop - 1
        start = stop
    return _course(curves, epochs, incumbent)


def without(curves: Curves) -> Course:
    """Train an ordering without early termination."""
    full = np.full(len(curves), curves.max_epochs, dtype=np.int64)
    return follow(curves, lambda incumbent: full)


def _course(curves: Curves, epochs: Ints, incumbent: Ints) -> Course:
    """The bill of trainings that were never taken up again."""
    seconds = float(curves.seconds[np.arange(len(curves)), epochs - 1].sum())
    return Course(epochs, incumbent, _selected(curves, epochs), seconds, seconds)


def _selected(curves: Curves, epochs: Ints) -> int:
    value = np.where((epochs == curves.max_epochs) & np.isfinite(curves.final), curves.final, -np.inf)
    if not np.isfinite(value).any():
        raise CurvesError("the rule completed no training, so it selects none")
    return int(np.argmax(value))


def simulate_rule(rule: StoppingRule, curves: Curves) -> Course:
    """Train an ordering and ask a rule at its check points.

    Args:
        rule: fresh.
        curves: complete, in the order of the search.

    Raises:
        CurvesError: no training was completed.
    """
    n, length = len(curves), curves.max_epochs
    checks = rule.checks(length)
    epochs, incumbent = np.full(n, length, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    best: Curves | None = None
    place = -1
    cpu = time.process_time()
    for i in range(n):
        row = curves.rows([i])
        incumbent[i] = place
        for m in checks:
            if rule.decide(row.observed(m), best).stop:
                epochs[i] = m
                break
        rule.tell(row.observed(int(epochs[i])))
        final = row.final[0]
        if epochs[i] == length and np.isfinite(final) and (best is None or final > best.final[0]):
            best, place = row, i
    return replace(_course(curves, epochs, incumbent), cpu_seconds=time.process_time() - cpu)


class _TableTrainer:
    """Trains from the table, see `Trainer`; keeps both bills."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self.n, self.max_epochs = len(curves), curves.max_epochs
        self.epochs = np.zeros(self.n, dtype=np.int64)
        self.seconds = self.restart_seconds = 0.0

    def train(self, which: int, epochs: int) -> Curves:
        if not 0 <= which < self.n or not 1 <= epochs <= self.max_epochs:
            raise CurvesError(
                f"architecture {which} and {epochs} epochs: there are {self.n} architectures and {self.max_epochs} epochs"
            )
        before = int(self.epochs[which])
        if epochs > before:
            until = self._curves.seconds[which]
            self.seconds += float(until[epochs - 1] - (until[before - 1] if before else 0.0))
            self.restart_seconds += float(until[epochs - 1])
            self.epochs[which] = epochs
        return self._curves.rows([which]).observed(int(self.epochs[which]))


def simulate_schedule(schedule: Schedule, curves: Curves) -> Course:
    """Let a schedule train an ordering.

    Raises:
        CurvesError: no training was completed, or epochs were asked for that there are not.
    """
    trainer = _TableTrainer(curves)
    cpu = time.process_time()
    schedule.search(trainer)
    cpu = time.process_time() - cpu
    none = np.full(len(curves), -1, dtype=np.int64)
    return Course(
        trainer.epochs, none, _selected(curves, trainer.epochs), trainer.seconds, trainer.restart_seconds, cpu
    )


class Foreseen:
    """What a fitted predictor says of an ordering at each check point, and the courses that follow from it.

    Decides as `PredictorRule` does with that predictor, without asking it again for every training.

    Args:
        predictor: fitted.
        predictions: check point -> prediction of every training of the ordering.
        curves: complete, in the order of the search.
        checks: check points, ascending.
        warm_up: trainings that are completed first.
    """

    def __init__(
        self,
        predictor: Predictor,
        predictions: Mapping[int, Prediction],
        curves: Curves,
        checks: Sequence[int],
        warm_up: int = 1,
    ) -> None:
        self.curves, self.checks = curves, tuple(checks)
        self._predictor, self._predictions = predictor, predictions
        columns = np.array(self.checks, dtype=np.int64) - 1
        self._diverged = np.isnan(curves.accuracy[:, columns])
        self._reached = np.fmax.accumulate(curves.accuracy, axis=1)[:, columns]
        complete = np.cumsum(np.isfinite(curves.final))
        self._warm = np.concatenate(([0], complete[:-1])) < warm_up
        self._known: dict[int, Floats] = {}

    def p_better(self, incumbent: int) -> Floats:
        """Probability of ending above the incumbent, `(n, checks)`.

        NaN where the predictor is not asked (a training diverged or has reached the incumbent's value) or says nothing.
        """
        if incumbent not in self._known:
            value = float(self.curves.final[incumbent])
            p = np.full((len(self.curves), len(self.checks)), np.nan)
            for column, m in enumerate(self.checks):
                if m in self._predictions:
                    every = self._predictions[m]
                    p[:, column] = self._predictor.compare(every, value, take(every, [incumbent]), m)
            p[self._diverged | (self._reached >= value)] = np.nan
            self._known[incumbent] = p
        return self._known[incumbent]

    def course(self, delta: float) -> Course:
        """The search that stops at probabilities up to `delta`."""

        def stops(incumbent: int) -> Ints:
            stop = self._diverged
            if incumbent >= 0:
                stop = stop | (~self._warm[:, None] & (self.p_better(incumbent) <= delta))
            ends: Ints = np.array([*self.checks, self.curves.max_epochs], dtype=np.int64)
            first = np.concatenate((stop, np.ones((len(stop), 1), dtype=bool)), axis=1).argmax(axis=1)
            chosen: Ints = ends[first]
            return chosen

        return follow(self.curves, stops)


def take(prediction: Prediction, index: Ints | Sequence[int]) -> Prediction:
    """Some rows of a prediction, also of a subclass with more arrays of a row per training."""
    n, which = len(prediction), np.asarray(index)
    if hasattr(prediction, "rows"):  # a subclass that knows better
        chosen: Prediction = prediction.rows(which)
        return chosen
    arrays = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
    return replace(prediction, **{k: v[which] for k, v in arrays.items() if isinstance(v, np.ndarray) and len(v) == n})


# ------------------------------------------------------------------------------------------------------------- one task


@dataclass(frozen=True)
class _Asked:
    """What every task is told."""

    seed: int
    every: float
    sweep: bool
    noise: float


@dataclass
class _Found:
    """What one rule did on one fold."""

    ranking: list[RankingRow] = field(default_factory=list)
    p: list[Floats] = field(default_factory=list)  # probabilities, with
    at: list[Ints] = field(default_factory=list)  # their check points, and
    better: list[Bools] = field(default_factory=list)  # whether the training did end above the incumbent
    records: int = 0  # trainings better than the incumbent
    stopped: int = 0  # of these, how many were stopped
    lost: int = 0  # orderings of which the best was not trained in full
    searches: list[SearchRow] = field(default_factory=list)
    sweeps: list[SearchRow] = field(default_factory=list)
    error: str = ""


def _judge(spec: StoppingSpec | None, fold: Fold, asked: _Asked) -> _Found:
    """Worker: everything about one rule on one fold. None is no early termination."""
    found = _Found()
    try:
        with one_thread():
            if spec is None:
                for number, rows in fold.orderings.items():
                    curves = fold.test.rows(rows)
                    _note(found, NONE, fold, number, curves, without(curves))
            elif issubclass(spec.factory, Predictor):
                _judge_predictor(spec, fold, asked, found)
            else:
                _judge_rule(spec, fold, asked, found)
    except Exception as error:  # a method may fail in any way; the others go on
        found.error = str(error) if isinstance(error, CurvesError) else f"{type(error).__name__}: {error}"
    return found


def _judge_rule(spec: StoppingSpec, fold: Fold, asked: _Asked, found: _Found) -> None:
    """A rule or a schedule: fresh for every ordering."""
    settings: list[tuple[StoppingSpec, float]] = [(spec, math.nan)]
    if asked.sweep and not spec.takes("every") and spec.takes(_SWEPT):
        values = [i for i in _EPOCHS_SWEPT if i < fold.test.max_epochs]
        settings += [(StoppingSpec(spec.label, spec.factory, {**spec.parameters, _SWEPT: i}), i) for i in values]
    for number, rows in fold.orderings.items():
        curves = fold.test.rows(rows)
        for variant, value in settings:
            meta = None if fold.meta is None else _copy(fold.meta)
            made = variant.make(_generator(asked.seed, spec.label, fold.number, number), meta=meta)
            course = simulate_rule(made, curves) if isinstance(made, StoppingRule) else simulate_schedule(made, curves)
            _note(found, spec.label, fold, number, curves, course, value, swept=not math.isnan(value))


def _judge_predictor(spec: StoppingSpec, fold: Fold, asked: _Asked, found: _Found) -> None:
    """A predictor: fitted once, asked once for every architecture and check point."""
    # Copies: what a method does to the arrays that it is given must not reach the next.
    train, test, meta = _copy(fold.train), _copy(fold.test), None if fold.meta is None else _copy(fold.meta)
    rule = spec.make(_generator(asked.seed, spec.label, fold.number), meta=meta)
    assert isinstance(rule, PredictorRule)
    predictor, length = rule.predictor, test.max_epochs
    checks = rule.checks(length)
    ranked = sorted({1, *(max(1, round(share * length)) for share in _RANKED)} - {length})
    every = sorted({*checks, *ranked})
    cpu = time.process_time()
    predictor.fit(train, every, meta)
    fitted = time.process_time() - cpu
    cpu = time.process_time()
    predictions = {m: predictor.predict(test.observed(m)) for m in every if m >= predictor.min_epochs}
    predicted = time.process_time() - cpu
    # One that neither learns nor is calibrated needs no curves: what it was offered is not charged.
    learned = type(predictor).learn is not Predictor.learn or bool(predictor._calibrations)
    n_train = len(fold.train) if learned else 0
    paid = float(fold.train.seconds[:, -1].sum()) if learned else 0.0
    for m in ranked:
        if m in predictions:
            some = np.arange(min(len(test), _JUDGED))
            found.ranking.append(
                rank(
                    take(predictions[m], some),
                    test.final[some],
                    spec.label,
                    m,
                    length,
                    fold.number,
                    n_train,
                    asked.noise,
                )
            )
    warm_up = int(spec.parameters.get("warm_up", 1))
    for number, rows in fold.orderings.items():
        curves = test.rows(rows)
        cpu = time.process_time()
        foreseen = Foreseen(
            predictor, {m: take(predictions[m], rows) for m in checks if m in predictions}, curves, checks, warm_up
        )
        course = foreseen.course(rule.delta)
        cpu = fitted + predicted * len(rows) / len(test) + time.process_time() - cpu
        _note(found, spec.label, fold, number, curves, replace(course, cpu_seconds=cpu), rule.delta, paid=paid)
        # The same questions for all: those of the search without early termination.
        held = without(curves).incumbent
        for incumbent in np.unique(held[held >= 0]).tolist():
            challengers = held == incumbent
            p = foreseen.p_better(incumbent)[challengers]
            better = curves.final[challengers] > curves.final[incumbent]
            row, column = np.nonzero(np.isfinite(p))
            found.p.append(p[row, column])
            found.at.append(np.array(checks, dtype=np.int64)[column])
            found.better.append(better[row])
        if asked.sweep:
            for delta in _DELTAS:
                course = replace(foreseen.course(delta), cpu_seconds=cpu)
                _note(found, spec.label, fold, number, curves, course, delta, paid=paid, swept=True)


def _copy(curves: Curves) -> Curves:
    return curves.rows(np.arange(len(curves)))


def _note(
    found: _Found,
    label: str,
    fold: Fold,
    ordering: int,
    curves: Curves,
    course: Course,
    delta: float = math.nan,
    *,
    paid: float = 0.0,
    swept: bool = False,
) -> None:
    """Write a search down, and, unless it is of a sweep, what became of the good architectures."""
    final = np.where(np.isfinite(curves.final), curves.final, -np.inf)
    full = course.epochs == curves.max_epochs
    regret = 100 * float(final.max() - final[course.selected])
    row = SearchRow(
        rule=label,
        delta=delta,
        fold=fold.number,
        ordering=ordering,
        regret=regret,
        seconds=course.seconds,
        restart_seconds=course.restart_seconds,
        full_seconds=float(curves.seconds[:, -1].sum()),
        cpu_seconds=course.cpu_seconds,
        training_seconds=paid,
        trained_in_full=int(full.sum()),
        epochs_share=float(course.epochs.sum()) / (len(curves) * curves.max_epochs),
    )
    if swept:
        found.sweeps.append(row)
        return
    found.searches.append(row)
    found.lost += int(final[course.selected] < final.max())
    record = (course.incumbent >= 0) & (final > final[course.incumbent])
    found.records += int(record.sum())
    found.stopped += int((record & ~full).sum())


# ------------------------------------------------------------------------------------------------------------- measures


def rank(
    prediction: Prediction,
    final: Floats,
    label: str,
    epochs: int,
    max_epochs: int,
    fold: int,
    n_train: int,
    noise: float = 0.0,
) -> RankingRow:
    """How well a prediction ranks final accuracies, those of diverged trainings left out.

    What is not ok comes last, all of it equal. Correlations of something constant are NaN.

    Args:
        prediction: of n trainings, in random order: of equal scores the first is the better.
        final: `(n,)`.
        label, epochs, max_epochs, fold, n_train: see `RankingRow`.
        noise: standard deviation of a final accuracy between training runs; pairs that are no further apart than the
            difference of two runs, which is sqrt(2) times that, do not count.
    """
    known = np.isfinite(final)
    score, y = np.where(prediction.ok, prediction.score, -np.inf)[known], final[known]
    mean = np.where(prediction.ok, prediction.mean, np.nan)[known]
    places = rankdata(score)
    n = len(y)
    best = np.argsort(-y, kind="stable")
    chosen = np.argsort(-places, kind="stable")[: math.ceil(0.1 * n)]
    top = best[: math.ceil(0.05 * n)]
    with_mean = np.isfinite(mean)
    r2 = math.nan
    if with_mean.sum() > 1 and np.ptp(y[with_mean]) > 0:
        true = y[with_mean]
        r2 = 1 - float(((true - mean[with_mean]) ** 2).sum() / ((true - true.mean()) ** 2).sum())
    difference = y[:, None] - y[None, :]
    counts = difference > max(math.sqrt(2) * noise, 0.0)
    won = np.sign(places[:, None] - places[None, :])[counts]
    return RankingRow(
        rule=label,
        fraction=epochs / max_epochs,
        epochs=epochs,
        fold=fold,
        n_train=n_train,
        spearman=_correlation(spearmanr, places, y),
        tau=_correlation(kendalltau, places, y),
        pairwise=float((won + 1).mean() / 2) if len(won) else math.nan,
        recall_top=float(np.isin(top, chosen).mean()) if n else math.nan,
        spearman_top=_correlation(spearmanr, places[best[: math.ceil(0.1 * n)]], y[best[: math.ceil(0.1 * n)]]),
        r2=r2,
    )


def _correlation(measure: Callable[..., Any], x: Floats, y: Floats) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(measure(x, y).statistic)


def decision_rows(label: str, p: Floats, at: Ints, better: Bools) -> list[DecisionRow]:
    """Scores of probabilities, by check point.

    Args:
        label: of the rule.
        p: `(n,)`.
        at: `(n,)`, the check point of each.
        better: `(n,)`, whether it happened.
    """
    rows = []
    for m in np.unique(at).tolist():
        q, true = p[at == m], better[at == m]
        likelihood = np.maximum(np.where(true, q, 1 - q), _LEAST)
        rows.append(
            DecisionRow(
                rule=label,
                epochs=int(m),
                n=len(q),
                brier=float(np.mean((q - true) ** 2)),
                log_loss=float(-np.log(likelihood).mean()),
                p_mean=float(q.mean()),
                share_better=float(true.mean()),
            )
        )
    return rows


def reliability(label: str, p: Floats, better: Bools) -> Reliability:
    """The reliability diagram of probabilities `(n,)`, in ten bins of equal width; 1 is in the last."""
    edges = np.linspace(0.0, 1.0, 11)
    place = np.minimum((p * 10).astype(np.int64), 9)
    count = np.bincount(place, minlength=10)
    with np.errstate(invalid="ignore"):
        p_mean = np.bincount(place, weights=p, minlength=10) / count
        frequency = np.bincount(place, weights=better, minlength=10) / count
    return Reliability(label, edges, count, p_mean, frequency)


# ---------------------------------------------------------------------------------------------------------- comparison


def compare_stopping(
    rules: str | type | StoppingSpec | Iterable[str | type | StoppingSpec],
    benchmark_or_curves: Given = "digits201",
    *,
    meta: Given | Sequence[Given] = (),
    n: int = 200,
    orderings: int = 100,
    folds: int = 5,
    n_train: int = 100,
    seed: int = 0,
    jobs: int = 1,
    every: float = 0.05,
    sweep: bool = True,
    progress: Progress = lambda done, total: None,
) -> StoppingStudy:
    """Judge learning-curve predictors, stopping rules and schedules; see the head of this file.

    Args:
        rules: ids, such as "last_value" or "nu_svr(delta=0.01)", or classes; "all" is every registered one. Random search
            without early termination is always there, as "none".
        benchmark_or_curves: a benchmark or its id, complete curves, or a file of them (`.npz`). Of a benchmark with several
            training runs the first is taken, never the mean, which no search could pay for with one training.
        meta: the same, of other datasets with the same space, for predictors that learn from them.
        n: architectures in an ordering.
        orderings: simulated searches per rule, spread over the folds.
        folds: from 2.
        n_train: complete curves of the task that a predictor learns from; 0 for none.
        seed: of folds, training curves, orderings and the rules' own chance.
        jobs: worker processes, one thread each; the results are the same for any number.
        every: check points as a share of the full training, for rules that do not choose their own.
        sweep: also search with other values of `delta`, and of the `i` of i_epoch.
        progress: called with (tasks done, tasks in all); a task is a rule on a fold.

    Raises:
        RegistryError: an unknown id, or a rule named twice.
        CurvesError: the benchmark has no learning curves, the curves are too few or do not fit together.
        RunError: a worker process died.
        KeyboardInterrupt: passed on; workers are ended.
    """
    numbers = {"n": (n, 1), "orderings": (orderings, 1), "folds": (folds, 2), "n_train": (n_train, 0)}
    for name, (number, least) in {**numbers, "jobs": (jobs, 1), "seed": (seed, 0)}.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
            raise ValueError(f"{name} must be a whole number from {least}, not {number!r}")
    if not 0 < every <= 1:
        raise ValueError(f"every is a share of the full training in (0, 1], not {every!r}")
    specs = _read_rules(rules, every)
    name, task, words, more = _name_and_curves(benchmark_or_curves, seed)
    sources: Sequence[Given] = [meta] if isinstance(meta, str | os.PathLike | Benchmark | Curves) else meta
    others = [_name_and_curves(other, seed) for other in sources]
    made = make_folds(
        task, [c for _, c, _, _ in others], n=n, orderings=orderings, folds=folds, n_train=n_train, seed=seed
    )
    asked = _Asked(int(seed), every, sweep, float(more.get("noise", 0.0)))
    labels = [NONE, *specs]
    arguments = [(label, fold, asked, specs.get(label)) for label in labels for fold in made]
    found: dict[str, dict[int, _Found]] = {label: {} for label in labels}
    done = 0
    progress(done, len(arguments))
    try:
        with ExitStack() as stack:
            executor = InProcess() if jobs == 1 else stack.enter_context(processes(jobs))
            for label, number, result in in_flight(executor, _task, arguments, 1 if jobs == 1 else 2 * jobs):
                found[label][number] = result
                done += 1
                progress(done, len(arguments))
    except BrokenExecutor as error:
        reason = str(error).strip().splitlines()
        raise RunError(f"a worker process died: {reason[0] if reason else type(error).__name__}") from error
    specification: dict[str, Any] = {
        "name": name,
        "curves": words,
        **more,
        "meta": [w for _, _, w, _ in others],
        "rules": {label: _describe(spec) for label, spec in specs.items()},
        "n": int(n),
        "orderings": int(orderings),
        "folds": int(folds),
        "n_train": int(n_train),
        "seed": int(seed),
        "every": every,
        "sweep": sweep,
        "jobs": int(jobs),
        "host": platform.node(),
    }
    return _gather(name, words, task.max_epochs, found, specification)


def _task(label: str, fold: Fold, asked: _Asked, spec: StoppingSpec | None) -> tuple[str, int, _Found]:
    return label, fold.number, _judge(spec, fold, asked)


def _gather(
    name: str, words: str, max_epochs: int, found: Mapping[str, Mapping[int, _Found]], specification: Mapping[str, Any]
) -> StoppingStudy:
    errors: dict[str, str] = {}
    kept: dict[str, list[_Found]] = {}
    for label, by_fold in found.items():
        parts = [by_fold[number] for number in sorted(by_fold)]  # workers finish in any order
        if wrong := next((part.error for part in parts if part.error), ""):
            errors[label] = wrong
        else:
            kept[label] = parts
    decisions: list[DecisionRow] = []
    diagrams: dict[str, Reliability] = {}
    killed: dict[str, tuple[float, float]] = {}
    for label, parts in kept.items():
        records, searches = sum(part.records for part in parts), sum(len(part.searches) for part in parts)
        rate = sum(part.stopped for part in parts) / records if records else math.nan
        killed[label] = (rate, sum(part.lost for part in parts) / searches)
        if any(part.p for part in parts):
            p, at, better = (
                np.concatenate([a for part in parts for a in getattr(part, key)]) for key in ("p", "at", "better")
            )
            decisions += decision_rows(label, p, at, better)
            diagrams[label] = reliability(label, p, better)

    def by_ordering(rows: Iterable[SearchRow]) -> list[SearchRow]:
        return sorted(rows, key=lambda row: (row.ordering, row.delta if math.isfinite(row.delta) else 0.0))

    return StoppingStudy(
        name=name,
        curves_words=words,
        max_epochs=max_epochs,
        rules=tuple(kept),
        ranking=tuple(row for parts in kept.values() for part in parts for row in part.ranking),
        decisions=tuple(decisions),
        reliability=diagrams,
        killed=killed,
        searches=tuple(r for parts in kept.values() for r in by_ordering(r for part in parts for r in part.searches)),
        sweeps=tuple(r for parts in kept.values() for r in by_ordering(r for part in parts for r in part.sweeps)),
        errors=errors,
        specification=specification,
    )


def _read_rules(rules: Any, every: float) -> dict[str, StoppingSpec]:
    """Label -> rule, with the check points that were asked for where the rule does not choose its own."""
    if isinstance(rules, str | type | StoppingSpec):
        rules = [rules]
    wanted: dict[str, StoppingSpec] = {}
    for given in rules:
        for one in entry_points("predictors") if given == ALL else [given]:
            spec = stopping_spec(one)
            if spec.label in wanted or spec.label == NONE:
                raise RegistryError(f"the rule {spec.label!r} is given twice")
            if issubclass(spec.factory, Predictor) or spec.takes("every"):
                spec = StoppingSpec(spec.label, spec.factory, {"every": every, **spec.parameters})
            wanted[spec.label] = spec
    if not wanted:
        raise RegistryError("no rule given")
    return wanted


def _describe(spec: StoppingSpec) -> dict[str, Any]:
    parameters = {
        name: value if isinstance(value, int | float | str | None) else repr(value)
        for name, value in spec.parameters.items()
    }
    return {"class": f"{spec.factory.__module__}:{spec.factory.__qualname__}", "parameters": parameters}
