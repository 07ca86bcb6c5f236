"""A study: several optimizers, many repetitions each, on one benchmark.

The planner cuts the grid into tasks (one optimizer, a block of repetitions). A task is a pure function from its
specification to runs, so it gives the same result in any process and any order; the process that called `compare` is the
only one that writes. Going on with an interrupted study is a set difference: what the store holds is not run again.
"""

from __future__ import annotations

import inspect
import os
import pickle
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks.workers import InProcess, processes
from .checkpoint import checkpoint_path, remove_checkpoint
from .core import STATUSES, Budget
from .registry import OptimizerSpec, RegistryError, StoppingSpec, expand, load, load_once, optimizer_spec, portable
from .run import Run, RunError, run
from .store import Store, StoreError

if TYPE_CHECKING:
    import pandas as pd

    from ..benchmarks.base import Benchmark
    from ..optimizers.base import Optimizer
    from .report.summary import Summary

BLOCK = 100
"""Repetitions per task: a run of 200 trials takes a few milliseconds, about as long as handing over a task."""
BLOCK_SECONDS = 2.0
"""A task hands in what it has after this time, and the rest is planned again: a kill loses little more than this much work."""

MAX_FAILURES = 3
"""After so many failed repetitions an optimizer is given up: what is wrong with it is wrong everywhere."""

Progress = Callable[[int, int], None]
"""Called with (runs finished, runs in all) whenever some have finished."""


class StudyError(RuntimeError):
    """Some runs of a study failed. The others are finished and kept.

    Attributes:
        study: what was finished.
    """

    def __init__(self, message: str, study: Study) -> None:
        super().__init__(message)
        self.study = study


@dataclass(frozen=True)
class Study:
    """The runs of a study and what they were asked to do.

    Attributes:
        specification: benchmark, its file's sha256, optimizers with their hyper-parameters, budget, repetitions, seed.
        benchmark: the opened benchmark.
        runs: by optimizer in the order of the specification, then by repetition.
        measured: for each run, host and wall and CPU seconds; not part of its result.
    """

    specification: Mapping[str, Any]
    benchmark: Benchmark
    runs: Sequence[Run]
    measured: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return "<Study of {} on {}: {} runs, budget {}, seed {}>".format(
            ", ".join(self.specification["optimizers"]),
            self.benchmark.id,
            len(self.runs),
            self.specification["budget"],
            self.specification["seed"],
        )

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Study:
        """Read the study in a folder.

        Raises:
            StoreError: there is none, it holds no finished run, or its benchmark has changed since.
            RegistryError: its benchmark is not installed here.
        """
        with Store(Path(folder), create=False) as store:
            specification = store.specification()
            if specification is None:
                raise StoreError(f"the study in {folder} was never started")
            if not {"benchmark", "benchmark_source", "benchmark_sha256", "optimizers", "repetitions"} <= set(
                specification
            ):
                raise StoreError(f"the specification of the study in {folder} is damaged")
            benchmark = load(specification["benchmark_source"])
            if benchmark.info.sha256 != specification["benchmark_sha256"]:
                raise StoreError(
                    f"the study in {folder} was made on another version of {benchmark.id}"
                    f" (sha256 {specification['benchmark_sha256'][:12]}, here {benchmark.info.sha256[:12]})"
                )
            study = cls._gather(specification, benchmark, store.runs())
        if not study.runs:
            raise StoreError(
                f"the study in {folder} has no finished run yet; run the same `nasharness compare` again to go on"
            )
        return study

    @classmethod
    def _gather(
        cls, specification: Mapping[str, Any], benchmark: Benchmark, results: Iterable[tuple[Run, Mapping[str, Any]]]
    ) -> Study:
        labels = list(specification["optimizers"])
        wanted = [r for r in results if r[0].optimizer in labels and r[0].repetition < specification["repetitions"]]
        wanted.sort(key=lambda r: (labels.index(r[0].optimizer), r[0].repetition))
        return cls(specification, benchmark, tuple(r for r, _ in wanted), tuple(m for _, m in wanted))

    def summary(self) -> Summary:
        """The table of the report: one row per optimizer."""
        from .report.summary import summarise

        return summarise(self.runs, self.benchmark)

    @property
    def objectives(self) -> list[str]:
        """The hyper-parameter `objective` of those optimizers that have one: what they search for beside accuracy."""
        specified = (o.get("objective") for o in self.specification["optimizers"].values())
        return list(dict.fromkeys(objective for objective in specified if objective))

    def report(self, folder: str | os.PathLike[str], *, objective: str | None = None) -> Path:
        """Write index.html, figures, CSV and LaTeX into `folder`; returns the path of index.html.

        Args:
            folder: made if it is missing.
            objective: a metric of the benchmark, such as "flops", whose trade-off with accuracy the page is to show; None
                shows that of each of `objectives`.

        Raises:
            ValueError: the benchmark has no such metric.
        """
        from .report import write_report

        hosts = sorted({str(m.get("host")) for m in self.measured if m.get("host")})
        environment = {**environment_versions(), "hosts": ", ".join(hosts)}
        return write_report(
            list(self.runs),
            self.benchmark,
            Path(folder),
            specification=self.specification,
            environment=environment,
            objectives=self.objectives if objective is None else [objective],
        )

    def frame(self) -> pd.DataFrame:
        """Every trial of every run as one pandas DataFrame, one row per trial."""
        import numpy as np
        import pandas as pd

        parts = []
        for r in self.runs:
            t = r.trials
            parts.append(
                pd.DataFrame(
                    {
                        "benchmark": r.benchmark,
                        "seed": r.seed,
                        "optimizer": r.optimizer,
                        "repetition": r.repetition,
                        "trial": np.arange(len(t)),
                        "architecture": [tuple(a) for a in t.arch.tolist()],
                        "value": t.value,
                        "seconds": t.seconds,
                        "epochs": t.epochs,
                        "status": np.asarray(STATUSES)[t.status],
                        "optimizer_seconds": t.optimizer_seconds,
                        "gpu_seconds": r.gpu_seconds,
                        "test_regret": r.regret(self.benchmark, "test"),
                        "validation_regret": r.regret(self.benchmark, "validation"),
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)


def environment_versions() -> dict[str, str]:
    """Versions that a report names."""
    names = ("nasharness", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


# ------------------------------------------------------------------------------------------------------------ planning


def _specification(
    specs: Sequence[OptimizerSpec], benchmark: Benchmark, source: str, budget: Budget, repetitions: int, seed: int
) -> dict[str, Any]:
    return {
        "benchmark": benchmark.id,
        "benchmark_source": str(Path(source).resolve()) if source.endswith(".safetensors") else source,
        "benchmark_sha256": benchmark.info.sha256,
        "budget": str(budget),
        "seed": seed,
        "repetitions": repetitions,
        "optimizers": {
            spec.label: {
                "class": f"{spec.factory.__module__}:{spec.factory.__qualname__}",
                "parameters": {name: repr(value) for name, value in spec.parameters.items()},
                "source_sha256": spec.source_sha256(),
                **({} if spec.stop is None else {"stop": spec.stop.label, "without": spec.seeded_by}),
                **_objective(spec),
            }
            for spec in specs
        },
    }


def _objective(spec: OptimizerSpec) -> dict[str, str]:
    """The metric that an optimizer is told beside accuracy, for the report: its hyper-parameter of this name."""
    parameter = inspect.signature(spec.factory).parameters.get("objective")
    value = None if parameter is None else spec.parameters.get("objective", parameter.default)
    return {"objective": value} if isinstance(value, str) else {}


def _merge(old: Mapping[str, Any] | None, new: dict[str, Any], with_runs: set[str], where: Path) -> dict[str, Any]:
    """The specification to store: repetitions and optimizers may be added, nothing that has runs may change."""
    if old is None:
        return new
    for key in ("benchmark", "benchmark_sha256", "budget", "seed"):
        if old[key] != new[key]:
            raise StoreError(f"{where} holds a study with {key} {old[key]!r}, not {new[key]!r}: choose another --out")
    for label, there in old["optimizers"].items():
        here = new["optimizers"].get(label, there) if label in with_runs else there
        for key in ("class", "parameters", "source_sha256"):
            if here[key] != there[key]:
                what = "source code" if key == "source_sha256" else key
                raise StoreError(
                    f"the {what} of {label} has changed since its runs in {where} were made: choose another --out,"
                    " or move that folder away"
                )
    return {
        **new,
        "repetitions": max(old["repetitions"], new["repetitions"]),
        "optimizers": {**old["optimizers"], **new["optimizers"]},
    }


# ----------------------------------------------------------------------------------------------------------- execution


def _run_block(
    spec: OptimizerSpec,
    benchmark: str | Benchmark,
    budget: Budget,
    seed: int,
    repetitions: Sequence[int],
    out: str | None = None,
) -> tuple[list[tuple[Run, dict[str, Any]]], str | None]:
    """A task: run repetitions until all are done, `BLOCK_SECONDS` have passed or one fails.

    Runs that take long keep a checkpoint in `out`. Returns the finished runs, each with what was measured, and the error if one
    failed.
    """
    opened = load_once(benchmark) if isinstance(benchmark, str) else benchmark
    results: list[tuple[Run, dict[str, Any]]] = []
    start = time.monotonic()
    for repetition in repetitions:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            kept = None if out is None else checkpoint_path(out, spec.label, repetition)
            finished = run(spec, opened, budget, seed=seed, repetition=repetition, checkpoint=kept)
        except RunError as error:
            return results, str(error)
        measured = {
            "host": platform.node(),
            "device": str(spec.parameters.get("device", "cpu")),
            "wall_seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
        }
        results.append((finished, measured))
        if time.monotonic() - start > BLOCK_SECONDS:
            break
    return results, None


def compare(
    optimizers: Iterable[str | type[Optimizer] | OptimizerSpec],
    benchmark: str | Benchmark = "digits201",
    budget: Budget | str | int | None = None,
    *,
    repetitions: int = 20,
    jobs: int = 1,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    stop: Iterable[str | type | StoppingSpec] = (),
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> Study:
    """Run every optimizer `repetitions` times on the benchmark.

    Args:
        optimizers: ids, such as "random_search" or "regularized_evolution(population=50)", or classes.
        benchmark: an id or an opened benchmark.
        budget: of each run, also as a string such as "2h", or a number of evaluations; 300 evaluations if not given.
        repetitions: runs per optimizer.
        jobs: worker processes; 1 runs everything in this process. The results are the same for any number.
        seed: of the study.
        out: folder of the results. A study that is there and has the same specification is continued; more repetitions and
            further optimizers are added to it. None keeps the results in memory only.
        stop: rules that end trainings early, such as "nu_svr(delta=0.01)"; every optimizer runs without and with each of
            them, with the same chance, and the report says what that saved and cost.
        executor: any `concurrent.futures.Executor` (a cluster's, say) instead of `jobs` local processes; `jobs` then says
            how many tasks to keep in flight.
        progress: called as runs finish.

    Raises:
        RegistryError: an unknown id, an optimizer named twice.
        StoreError: the results cannot be written, or `out` holds another study.
        StudyError: runs failed; the others are in its `study` and in `out`.
        KeyboardInterrupt: passed on; finished runs are in `out`.
    """
    if isinstance(optimizers, str | type | OptimizerSpec):
        optimizers = [optimizers]
    plain = [optimizer_spec(o) for o in expand(optimizers)]
    rules = [stop] if isinstance(stop, str | type | StoppingSpec) else list(stop)
    specs = [spec for o in plain for spec in (o, *(o.with_stop(rule) for rule in rules))]
    labels = [spec.label for spec in specs]
    if not specs:
        raise RegistryError("no optimizer given")
    if len(set(labels)) < len(labels):
        raise RegistryError(
            f"two optimizers have one name: {', '.join(labels)} (a class goes by its own name; 'package.module:Class' tells"
            " two of one name apart)"
        )
    for name, number in (("repetitions", repetitions), ("jobs", jobs)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be a whole number from 1, not {number!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0, not {seed!r}")
    opened = load(benchmark) if isinstance(benchmark, str) else benchmark
    budget = Budget(evaluations=300) if budget is None else Budget.of(budget)
    source = benchmark if isinstance(benchmark, str) else str(opened.info.details.get("path", opened.id))
    specification = _specification(specs, opened, source, budget, repetitions, seed)

    with ExitStack() as stack:
        store: Store | None = None
        finished: set[tuple[str, int]] = set()
        if out is not None:
            store = stack.enter_context(Store(Path(out), create=True))
            finished = store.update_specification(
                lambda old, runs: _merge(old, specification, {label for label, _ in runs}, Path(out))
            )
        todo = {spec.label: [r for r in range(repetitions) if (spec.label, r) not in finished] for spec in specs}
        in_memory: list[tuple[Run, dict[str, Any]]] = []
        failures: list[str] = []
        if any(todo.values()):
            sent = opened if executor is None and jobs == 1 else portable(opened, source)
            if executor is None:
                executor = InProcess() if jobs == 1 else stack.enter_context(processes(jobs))
            total = len(specs) * repetitions
            done = total - sum(map(len, todo.values()))
            progress(done, total)
            try:
                for results, failure in _execute(
                    executor, specs, todo, sent, budget, seed, jobs, None if out is None else str(Path(out).resolve())
                ):
                    for finished_run, measured in results:
                        if store is not None:
                            store.write(finished_run, measured)
                            if not finished_run.charged and out is not None:
                                remove_checkpoint(checkpoint_path(out, finished_run.optimizer, finished_run.repetition))
                        else:
                            in_memory.append((finished_run, measured))
                    done += len(results)
                    if failure is not None:
                        failures.append(failure)
                    progress(done, total)
            except BrokenExecutor as error:
                reason = str(error).strip().splitlines()
                failures.append(f"a worker process died: {reason[0] if reason else type(error).__name__}")
        study = Study._gather(specification, opened, in_memory if store is None else store.runs())
    if failures:
        kept = f" The {len(study.runs)} finished runs are kept" + (f" in {out}." if out is not None else ".")
        raise StudyError("\n".join(failures) + f"\nNot all runs could be finished.{kept}", study)
    return study


def _execute(
    executor: Executor,
    specs: Sequence[OptimizerSpec],
    todo: Mapping[str, list[int]],
    benchmark: str | Benchmark,
    budget: Budget,
    seed: int,
    jobs: int,
    out: str | None = None,
) -> Iterable[tuple[list[tuple[Run, dict[str, Any]]], str | None]]:
    """Yield the results of tasks as they finish, planning again what a task left undone.

    An optimizer of which `MAX_FAILURES` repetitions have failed is not tried further.
    """
    queue = [(spec, todo[spec.label][i : i + BLOCK]) for spec in specs for i in range(0, len(todo[spec.label]), BLOCK)]
    queue.reverse()
    failed: Counter[str] = Counter()
    running: dict[Future[Any], tuple[OptimizerSpec, list[int]]] = {}
    try:
        while queue or running:
            while queue and len(running) < 2 * jobs:
                spec, repetitions = queue.pop()
                if failed[spec.label] < MAX_FAILURES:
                    future = executor.submit(_run_block, spec, benchmark, budget, seed, repetitions, out)
                    running[future] = (spec, repetitions)
                if isinstance(executor, InProcess):
                    break  # its task is already done: hand the result on before the next
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                spec, repetitions = running.pop(future)
                try:
                    results, failure = future.result()
                    gone = failure is not None
                except pickle.PicklingError as error:  # a class or a parameter that no other process can be given
                    results, failure, gone = [], f"{spec.label} cannot be sent to a worker process: {error}", True
                    failed[spec.label] = MAX_FAILURES - 1
                rest = repetitions[len(results) + gone :]
                if failure is not None:
                    failed[spec.label] += 1
                    failure = failure if failed[spec.label] <= MAX_FAILURES else None
                if rest and failed[spec.label] < MAX_FAILURES:  # slow or interrupted: share it out among idle workers
                    pieces = max(1, jobs - len(queue))
                    queue += [(spec, part) for i in range(pieces) if (part := rest[i::pieces])]
                yield results, failure
    finally:
        for future in running:
            future.cancel()
