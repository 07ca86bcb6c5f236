"""One run: one optimizer on one benchmark with one seed, everything recorded."""

from __future__ import annotations

import functools
import hashlib
import math
import operator
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, InvalidArchitecture
from .checkpoint import Checkpoint
from .core import NO_METRICS, STATUSES, Budget, Metrics, Proposal, Status, Trial
from .early_stopping import Stopper
from .registry import OptimizerSpec, load, optimizer_spec

if TYPE_CHECKING:
    from ..benchmarks.base import Benchmark, Evaluation
    from ..optimizers.base import Optimizer, SupernetTask
    from .scorer import BenchmarkScorer

MAX_EVALUATIONS = 5_000_000
"""Where a run without a limit on evaluations is ended: an optimizer whose proposals cost nothing would go on for ever."""


class RunError(RuntimeError):
    """A run that could not be finished; the message names the optimizer, the trial and the reason."""


@dataclass(frozen=True)
class Trials:
    """The trials of a run by column, in the order in which they were told.

    Attributes:
        arch: int16 `(n, dimensions)`.
        value: float64 `(n,)`, the validation accuracy that the search saw; NaN where the trial failed.
        seconds: float64 `(n,)`, simulated seconds of each trial.
        epochs: int32 `(n,)`.
        status: int8 `(n,)`, an index into `STATUSES`.
        optimizer_seconds: float64 `(n,)`, measured seconds that the optimizer's own ask and tell took, with the scores of
            untrained networks (known ones at what they cost when they were made) and the rule that ends trainings. The only
            column that differs from one machine to the next.
    """

    arch: npt.NDArray[np.int16]
    value: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    epochs: npt.NDArray[np.int32]
    status: npt.NDArray[np.int8]
    optimizer_seconds: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"<{len(self)} trials>"


TrialsColumn = Literal["arch", "value", "seconds", "epochs", "status", "optimizer_seconds"]
COLUMNS: tuple[TrialsColumn, ...] = ("arch", "value", "seconds", "epochs", "status", "optimizer_seconds")


@dataclass(frozen=True)
class Run:
    """The record of one run.

    Attributes:
        optimizer: label of the optimizer.
        benchmark: id of the benchmark.
        seed: study seed.
        repetition: number of the run within its study.
        trials: what was evaluated.
        finished_early: the optimizer had nothing left to propose before the budget ended.
        charged: False for a method that trains inside `ask`: its proposals say what it would return now, and the values of
            its trials are for the record only.
    """

    optimizer: str
    benchmark: str
    seed: int
    repetition: int
    trials: Trials
    finished_early: bool = False
    charged: bool = True

    def __repr__(self) -> str:
        return (
            f"<Run of {self.optimizer} on {self.benchmark}, seed {self.seed}, repetition {self.repetition}:"
            f" {len(self.trials)} trials, incumbent {self.incumbent}>"
        )

    @cached_property
    def incumbents(self) -> npt.NDArray[np.intp]:
        """Index of the trial that the search would return after each trial, `(n,)`; -1 before the first that did not fail.

        It is the best so far by the value that the search saw; of a run that is not `charged` it is the latest. Values
        after different numbers of epochs are not compared: a longer training replaces a shorter one. Of equally good
        trials the first stays.
        """
        t = self.trials
        if not self.charged:
            return np.arange(len(t))
        _, place = np.unique(np.stack((t.epochs, np.nan_to_num(t.value))), axis=1, return_inverse=True)
        best = np.maximum.accumulate(np.where(np.isnan(t.value), -np.inf, place.ravel()))
        improved = np.concatenate(([True], best[1:] > best[:-1])) & np.isfinite(best)
        return np.maximum.accumulate(np.where(improved, np.arange(len(t)), -1))

    @property
    def incumbent(self) -> Architecture | None:
        """The architecture with the best value that the search saw; None if every trial failed."""
        last = int(self.incumbents[-1])
        return None if last < 0 else tuple(self.trials.arch[last].tolist())

    @cached_property
    def gpu_seconds(self) -> npt.NDArray[np.float64]:
        """GPU time at the end of each trial, `(n,)`: simulated seconds plus the optimizer's own."""
        return np.cumsum(self.trials.seconds + self.trials.optimizer_seconds)

    @property
    def simulated_seconds(self) -> float:
        return float(self.trials.seconds.sum())

    @property
    def optimizer_seconds(self) -> float:
        return float(self.trials.optimizer_seconds.sum())

    def regret(self, benchmark: Benchmark, split: Literal["test", "validation"] = "test") -> npt.NDArray[np.float64]:
        """The incumbent's regret after each trial, a fraction, `(n,)`; NaN while there is no incumbent.

        `optimum - final(incumbent)` on the split, where both are means over the benchmark's training runs. The incumbent is
        chosen by what the search saw, never by the split that is reported.
        """
        field = operator.attrgetter("test_accuracy" if split == "test" else "val_accuracy")
        chosen, position = np.unique(self.incumbents, return_inverse=True)
        accuracies = np.full(len(chosen), np.nan)
        known = chosen >= 0
        if known.any():
            accuracies[known] = field(benchmark.final_many(self.trials.arch[chosen[known]]))
        return np.asarray(field(benchmark.optimum) - accuracies[position], dtype=np.float64)

    def fingerprint(self) -> str:
        """SHA-256 over everything but measured seconds: equal for equal specifications, on any machine."""
        digest = hashlib.sha256(repr((self.optimizer, self.benchmark, self.seed, self.repetition)).encode())
        for name in COLUMNS[:-1]:
            digest.update(np.ascontiguousarray(getattr(self.trials, name)).tobytes())
        return digest.hexdigest()


def generators(
    seed: int, benchmark: str, optimizer: str, repetition: int
) -> tuple[np.random.Generator, np.random.Generator]:
    """The two generators of a run: the optimizer's and the benchmark's (which trained network answers a query).

    They depend on these four values alone, so a run is the same alone, in a study, in any order and in any process.
    """
    if isinstance(seed, bool) or int(seed) != seed or seed < 0 or repetition < 0:
        raise ValueError(f"seed and repetition must be whole numbers from 0, not {seed!r} and {repetition!r}")
    words = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") for text in (benchmark, optimizer)]
    for_optimizer, for_benchmark = np.random.SeedSequence((int(seed), *words, int(repetition))).spawn(2)
    return np.random.default_rng(for_optimizer), np.random.default_rng(for_benchmark)


def run(
    optimizer: str | type[Optimizer] | OptimizerSpec,
    benchmark: str | Benchmark,
    budget: Budget | str | int,
    *,
    seed: int = 0,
    repetition: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Run:
    """Run one optimizer until the budget ends.

    Args:
        optimizer: an id, such as "regularized_evolution@nats", or a class.
        benchmark: an id, such as "digits201", or an opened benchmark.
        budget: when to stop; also a string that `Budget.parse` reads, or a number of evaluations.
        seed, repetition: what the run's generators are derived from, beside the two ids.
        checkpoint: file in which a method that trains by itself keeps its state now and then; if it is there from the same
            run, the run goes on from it. Other runs are over in seconds and keep none. The caller deletes it.

    Raises:
        RegistryError: an unknown id.
        RunError: the optimizer raised, proposed something outside the space, never stopped or wants a metric that the
            benchmark does not have, or the budget is too small for a single trial.
    """
    budget = Budget.of(budget)
    spec = optimizer_spec(optimizer)
    opened = load(benchmark) if isinstance(benchmark, str) else benchmark
    for_optimizer, for_benchmark = generators(seed, opened.id, spec.seeded_by, repetition)
    where = f"{spec.label} on {opened.id}, repetition {repetition}"
    scorer = _scorer(opened) if spec.takes("scorer") else None
    task = supernet_task(opened) if spec.takes("task") else None
    try:
        instance = spec.make(opened.space, for_optimizer, fidelities=opened.fidelities, scorer=scorer, task=task)
    except (Exception, SystemExit) as error:
        raise RunError(f"{where}: the optimizer could not be made: {_raised(error, '')}") from error
    stopper = None
    if spec.stop is not None:
        if not instance.charges_evaluations:
            raise RunError(f"{where}: there are no trainings to stop, the optimizer trains by itself")
        for_rule, _ = generators(seed, opened.id, spec.label, repetition)
        try:
            stopper = Stopper(spec.stop.make(for_rule), opened)
        except (ValueError, TypeError) as error:
            raise RunError(f"{where}: {error}") from error
    kept: Checkpoint | None = None
    if checkpoint is not None and not instance.charges_evaluations and hasattr(instance, "load_state_dict"):
        kept = Checkpoint(
            checkpoint,
            {
                "run": [spec.label, repr(sorted(spec.parameters.items())), spec.source_sha256(), str(budget)],
                "benchmark": [opened.id, opened.info.sha256],
                "seed": [int(seed), int(repetition)],
            },
        )
    trials, finished_early = _loop(instance, opened, budget, for_benchmark, where, scorer, stopper, kept)
    return Run(spec.label, opened.id, int(seed), int(repetition), trials, finished_early, instance.charges_evaluations)


def _scorer(benchmark: Benchmark) -> BenchmarkScorer:
    """What scores untrained networks for optimizers that ask for it, with the scores that this user knows already."""
    from .score_cache import CacheError, open_cache
    from .scorer import BenchmarkScorer

    try:
        return BenchmarkScorer(benchmark, cache=open_cache())
    except CacheError as error:
        raise RunError(str(error)) from error


def supernet_task(benchmark: Benchmark) -> SupernetTask | None:
    """What supernets of a benchmark's space are trained on; None where it has no networks or no images."""
    from ..optimizers.base import SupernetTask

    try:
        images = benchmark.image_source()
    except NotImplementedError:
        return None
    return SupernetTask(images, benchmark.network_settings) if benchmark.network_settings else None


def _loop(
    optimizer: Optimizer,
    benchmark: Benchmark,
    budget: Budget,
    rng: np.random.Generator,
    where: str,
    scorer: BenchmarkScorer | None = None,
    stopper: Stopper | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Trials, bool]:
    """The search itself. Everything here runs once per trial, so what can be bound or derived outside is."""
    from ..optimizers.base import SearchFinished

    clock, ask, tell, query = time.perf_counter, optimizer.ask, optimizer.tell, benchmark.query
    check, charges = benchmark.space.check, optimizer.charges_evaluations
    full = benchmark.fidelities[-1]
    trainings = _Trainings(benchmark, rng)
    look_up = _metrics(optimizer, benchmark, where)
    metrics: Mapping[str, float] = NO_METRICS
    limit = math.inf if budget.seconds is None else budget.seconds
    most = MAX_EVALUATIONS if budget.evaluations is None else budget.evaluations
    archs: list[Architecture] = []
    values: list[float] = []
    costs: list[float] = []
    epochs: list[int] = []
    own: list[float] = []
    spent = 0.0
    finished_early = False
    cut_off = False
    columns = {"archs": archs, "values": values, "costs": costs, "epochs": epochs, "own": own}
    if checkpoint is not None and (saved := checkpoint.read()) is not None:
        _restore(optimizer, saved["optimizer"], where)
        for name, column in columns.items():
            column.extend(map(tuple, saved[name]) if name == "archs" else saved[name])  # type: ignore[attr-defined]
        spent, rng.bit_generator.state = saved["spent"], saved["rng"]
    for _ in range(len(values), most):
        start = clock()
        try:
            proposal = ask()
        except SearchFinished:
            finished_early = True
            break
        except (Exception, SystemExit) as error:
            raise RunError(f"{where}: ask raised {_raised(error, f' at trial {len(values)}')}") from error
        asked = clock()
        if type(proposal) is not Proposal:
            raise RunError(
                f"{where}: ask returned {proposal!r} at trial {len(values)};"
                " it must return a nasharness.Proposal, such as Proposal(arch)"
            )
        arch = proposal.arch
        try:
            if type(arch) is not tuple:
                arch = check(arch)
            if stopper is not None:
                (value, seconds, trained, curve), price = stopper.train(
                    trainings, arch, proposal.epochs, proposal.resume
                )
            elif proposal.epochs is None:
                value, seconds, trained, curve = query(arch, None, rng)
                price = seconds
            else:
                (value, seconds, trained, curve), price = trainings.query(arch, proposal.epochs, proposal.resume)
        except (ValueError, TypeError, IndexError) as error:
            raise RunError(
                f"{where}: trial {len(values)} cannot be evaluated: {_explain(benchmark, proposal, error)}"
            ) from error
        except Exception as error:
            raise RunError(f"{where}: the benchmark raised {_raised(error, f' at trial {len(values)}')}") from error
        if not charges:
            price = 0.0
        if not price >= 0:
            raise RunError(f"{where}: the benchmark says that trial {len(values)} took {price!r} seconds")
        due = price if charges else asked - start
        if spent + due > limit:
            cut_off = True
            break
        spent += due
        if look_up is not None and charges:
            try:
                metrics = look_up(arch)
            except Exception as error:
                raise RunError(f"{where}: the benchmark raised {_raised(error, f' at trial {len(values)}')}") from error
        before = clock()
        if charges:  # else the trial was not paid for, and the search does not get to see its value
            try:
                status: Status = "failed" if value != value else "complete" if trained >= full else "stopped"
                tell(Trial(arch, value, price, trained, curve, status, metrics))
            except (Exception, SystemExit) as error:
                raise RunError(f"{where}: tell raised {_raised(error, f' at trial {len(values)}')}") from error
        own.append(asked - start + clock() - before)
        if stopper is not None:
            own[-1] += stopper.take_seconds()
        if scorer is not None:  # a score that was known is paid for as if it had been computed now
            own[-1] += scorer.saved_seconds
            scorer.saved_seconds = 0.0
        archs.append(arch)
        values.append(value)
        costs.append(price)
        epochs.append(trained)
        if checkpoint is not None and checkpoint.due:
            state = {"optimizer": optimizer.state_dict(), "spent": spent, "rng": rng.bit_generator.state}  # type: ignore[attr-defined]
            try:
                checkpoint.write({**state, **columns})
            except OSError:  # the run is worth more than its checkpoint
                checkpoint = None
    else:
        if budget.evaluations is None:
            raise RunError(
                f"{where}: {MAX_EVALUATIONS:,} evaluations used only {spent:.3g} of {limit:g} s; add evaluations to the budget"
            )
    if not values:
        if cut_off:
            raise RunError(
                f"{where}: the budget of {limit:g} s is too small for the first trial, which takes {due:.4g} s"
            )
        raise RunError(f"{where}: the optimizer finished without a single proposal")
    value_column, epochs_column = np.array(values, dtype=np.float64), np.array(epochs, dtype=np.int32)
    statuses = np.where(epochs_column >= full, STATUSES.index("complete"), STATUSES.index("stopped"))
    return (
        Trials(
            arch=np.array(archs, dtype=np.int16),
            value=value_column,
            seconds=np.array(costs, dtype=np.float64),
            epochs=epochs_column,
            status=np.where(np.isnan(value_column), STATUSES.index("failed"), statuses).astype(np.int8),
            optimizer_seconds=np.array(own, dtype=np.float64),
        ),
        finished_early,
    )


def _restore(optimizer: Optimizer, state: Mapping[str, Any], where: str) -> None:
    try:
        optimizer.load_state_dict(state)  # type: ignore[attr-defined]
    except Exception as error:
        raise RunError(f"{where}: the checkpoint cannot be gone on from: {_raised(error, '')}; delete it") from error


def _metrics(
    optimizer: Optimizer, benchmark: Benchmark, where: str
) -> Callable[[Architecture], Mapping[str, float]] | None:
    """The look-up of the metrics that the optimizer asks for, each architecture once; None if it asks for none."""
    names: object = optimizer.metrics
    if not isinstance(names, tuple | list) or any(not isinstance(name, str) for name in names):
        raise RunError(f"{where}: the optimizer's metrics must be a tuple of names, such as ('flops',), not {names!r}")
    for name in names:
        if name not in benchmark.metrics:
            known = ", ".join(benchmark.metrics) or "none"
            raise RunError(f"{where}: {benchmark.id} has no metric {name!r}; its metrics are: {known}")

    @functools.cache
    def look_up(arch: Architecture) -> Metrics:
        return Metrics({name: float(benchmark.metric(name, [arch])[0]) for name in names})

    return look_up if names else None


class _Trainings:
    """The trainings of a run that named their epochs, so that one of them can go on where it stopped."""

    def __init__(self, benchmark: Benchmark, rng: np.random.Generator) -> None:
        self._query, self._resumable, self._rng = benchmark.query, benchmark.resumable, rng
        self._latest: dict[Architecture, tuple[Any, int, float]] = {}  # the generator's state, epochs, seconds

    def query(self, arch: Architecture, epochs: int, resume: bool) -> tuple[Evaluation, float]:
        """The answer, and what it costs beyond what was paid before."""
        before = self._latest.get(arch) if resume and self._resumable else None
        if before is not None and not before[1] < epochs:
            before = None
        source = self._rng.bit_generator
        now = source.state
        if before is None:
            answer = self._query(arch, epochs, self._rng)
        else:  # the same draws as before meet the same training run of the table
            source.state = before[0]
            try:
                answer = self._query(arch, epochs, self._rng)
            finally:
                source.state = now
        _, seconds, trained, _ = answer
        self._latest[arch] = (now if before is None else before[0], trained, seconds)
        return answer, seconds if before is None else max(0.0, seconds - before[2])


def _raised(error: BaseException, when: str) -> str:
    """`KeyError at trial 3: 'x' (my_optimizer.py, line 17)`: in a study nobody sees the traceback."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}{when}: {error} ({frame.filename}, line {frame.lineno})"


def _explain(benchmark: Benchmark, proposal: Proposal, error: Exception) -> str:
    """The space's own words on a bad architecture, where that is the reason."""
    try:
        benchmark.space.check(proposal.arch)
    except InvalidArchitecture as reason:
        return str(reason)
    return str(error)
