"""Score untrained networks with zero-cost proxies, and compare the scores with the accuracy that training reaches.

    scores = nh.score(["naswot", "synflow", "params"], "digits201", n=500)
    scores.frame()               # a row per architecture
    scores.report("report/")     # Kendall tau with intervals, figures, CSV, LaTeX

Which architectures are scored moves Kendall's tau by up to 0.25 on NAS-Bench-201, so the set is part of the result.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import math
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.workers import InProcess, in_flight, one_torch_thread, processes
from .registry import ProxySpec, RegistryError, entry_points, load, portable, proxy_spec
from .score_cache import CacheError, Known, ScoreCache, open_cache
from .scorer import Floats, Recipe, ScoreError, Scoring, lowest_if_undefined

if TYPE_CHECKING:
    import pandas as pd

    from ..benchmarks.base import Benchmark
    from ..proxies.base import Proxy
    from .report.scores import ScoreSummary

Among: TypeAlias = Literal["all", "unique", "live"]
Progress: TypeAlias = Callable[[int, int], None]

ALL = "all"
"""In place of a proxy id: every registered proxy."""
TABLE = "metric:"
"""Before the name of a metric of the benchmark: scores from a table, such as published ones, are judged like a proxy's."""
_PEAKS = 3  # architectures of which the memory is measured
_LISTED = 1_000_000  # choice vectors of the largest space that is listed


@dataclass(frozen=True, eq=False)
class Scores:
    """What proxies say of architectures, beside what training them reaches.

    Attributes:
        benchmark: where the accuracies are from.
        archs: int16 `(n, dimensions)`.
        proxies: labels, in the order in which they were given.
        values: label -> float64 `(n,)`, higher is better; -inf for a network that could not be scored, never NaN.
        parts: label -> name -> float64 `(n,)`: the quantities that a rank proxy adds up the places of; empty for the others.
        seconds: label -> float64 `(n,)`, measured: what the proxy takes alone, with building the network. 0 from a table.
        peak_bytes: label -> most memory in use of the first few networks; NaN where it is not known.
        errors: label -> index of the architecture -> message, where a proxy raised.
        accuracy: float64 `(n,)`, fractions: the mean accuracy of the full schedule.
        split: whether that is of the test or, where the benchmark has no test accuracies, of the validation images.
        population: the set of architectures in words.
        specification: everything that was asked for.
    """

    benchmark: Benchmark
    archs: npt.NDArray[np.int16]
    proxies: tuple[str, ...]
    values: Mapping[str, Floats]
    parts: Mapping[str, Mapping[str, Floats]]
    seconds: Mapping[str, Floats]
    peak_bytes: Mapping[str, float]
    errors: Mapping[str, Mapping[int, str]]
    accuracy: Floats
    split: Literal["test", "validation"]
    population: str
    specification: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.archs)

    def __repr__(self) -> str:
        return f"<Scores of {len(self)} architectures of {self.benchmark.id} by {', '.join(self.proxies)}>"

    def summary(self) -> ScoreSummary:
        """Rank correlations with intervals and the other statistics, one row per proxy."""
        from .report.scores import summarise

        return summarise(self)

    def report(self, folder: str | os.PathLike[str]) -> Path:
        """Write the page, figures and tables into a folder; returns the page's path."""
        from .report.score_page import write_score_report

        return write_score_report(self, Path(folder))

    def frame(self) -> pd.DataFrame:
        """A pandas DataFrame with a row per architecture: its string, accuracy, and each proxy's score."""
        import pandas as pd

        space = self.benchmark.space
        return pd.DataFrame(
            {
                "architecture": [space.to_string(tuple(arch.tolist())) for arch in self.archs],
                f"{self.split}_accuracy": self.accuracy,
                **{label: self.values[label] for label in self.proxies},
            }
        )


def score(
    proxies: str | type[Proxy] | ProxySpec | Iterable[str | type[Proxy] | ProxySpec],
    benchmark: str | Benchmark = "digits201",
    *,
    n: int | None = 100,
    among: Among = "all",
    images: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    jobs: int = 1,
    device: str = "cpu",
    cache: bool | ScoreCache = True,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """Score architectures of a benchmark.

    Args:
        proxies: ids, such as "naswot" or "zico(batch_size=32)", "metric:NAME" for a metric of the benchmark, or classes;
            "all" is every registered proxy.
        benchmark: an id or an opened benchmark.
        n: how many architectures, drawn without replacement; None for all of the set.
        among: the set that they are drawn from: all architectures; one of each class of isomorphic ones ("unique"); or
            those in which no operation is dead ("live").
        images: where the images come from (see `benchmarks.datasets.open_images`); None for the benchmark's own.
        settings: of the networks, such as {"prune": True} to leave out dead operations or {"cells": 1} for a smaller
            skeleton; see `Benchmark.network_settings`.
        seed: of the sample, the images, the weights and the proxies' random draws.
        jobs: worker processes with one thread each; 1 scores in this process.
        device: "cpu", or a GPU as torch names it; then several jobs put several networks on it at once.
        cache: keep scores in the data folder and take known ones from there.
        executor: any `concurrent.futures.Executor` in place of `jobs` local processes.
        progress: called with (architectures done, architectures in all).

    Raises:
        RegistryError: an unknown id, a proxy named twice.
        ScoreError: nothing to score, no networks, no images.
        KeyboardInterrupt: passed on; with a cache, finished scores are kept.
    """
    for name, number in (("jobs", jobs), *((("n", n),) if n is not None else ())):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise ScoreError(f"{name} must be a whole number from 1, not {number!r}")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ScoreError(f"seed must be a whole number from 0, not {seed!r}")
    opened = load(benchmark) if isinstance(benchmark, str) else benchmark
    wanted = _read_proxies(proxies)
    for label, spec in wanted.items():
        if spec is None and label.removeprefix(TABLE) not in opened.metrics:
            known = ", ".join(opened.metrics) or "none"
            raise RegistryError(f"{opened.id} has no metric {label.removeprefix(TABLE)!r}; its metrics are: {known}")
    archs, population = choose(opened.space, n=n, among=among, seed=int(seed))
    final = opened.final_many(archs)
    split: Literal["test", "validation"] = "validation" if np.isnan(final.test_accuracy).all() else "test"
    accuracy = np.asarray(final.test_accuracy if split == "test" else final.val_accuracy, dtype=np.float64)
    known_accuracy = ~np.isnan(accuracy)
    if not known_accuracy.any():
        raise ScoreError(f"{opened.id} has no final accuracies to compare scores with")
    if not known_accuracy.all():
        population += f", less {int((~known_accuracy).sum())} without a known accuracy"
        archs, accuracy = archs[known_accuracy], accuracy[known_accuracy]

    source = benchmark if isinstance(benchmark, str) else str(opened.info.details.get("path", opened.id))
    given = None if images is None else os.fspath(images)
    chosen = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in (settings or {}).items()
    }
    specs = {label: spec for label, spec in wanted.items() if spec is not None}
    tuples: list[Architecture] = [tuple(arch) for arch in archs.tolist()]
    specification: dict[str, Any] = {
        "benchmark": opened.id,
        "benchmark_sha256": opened.info.sha256,
        "proxies": {label: _describe(spec) for label, spec in wanted.items()},
        "architectures": len(tuples),
        "among": among,
        "seed": int(seed),
        "device": device,
        "jobs": jobs,
        "host": platform.node(),
    }
    measured: dict[str, list[Known | str]] = {}
    peaks: dict[str, float] = {}
    if specs:
        import torch

        try:
            wanted_device = torch.device(device)
        except RuntimeError as error:
            raise ScoreError(f"torch knows no device {device!r}: {str(error).splitlines()[0]}") from error
        if wanted_device.type == "cuda" and not torch.cuda.is_available():
            raise ScoreError(f"device {device!r}: torch sees no GPU on this machine")
        recipe = Recipe(opened, given, chosen, int(seed), device)
        scoring = Scoring(recipe)
        for spec in specs.values():  # before hours of work, not after them
            scoring.batch(_made(spec).n_images)
        specification |= {
            "images": "none" if scoring.images is None else scoring.images.describe(),
            "network": scoring.settings,
            "torch": torch.__version__,
            "processor": platform.processor() or platform.machine(),
        }
        with ExitStack() as stack:
            store = cache if isinstance(cache, ScoreCache) else stack.enter_context(open_cache(cache))
            run = _Runner(recipe, scoring, opened, source, executor, jobs, stack)
            measured = _score(specs, tuples, scoring, store, run, progress)
            peaks = _peaks(specs, tuples, scoring, store, run)
    values: dict[str, Floats] = {}
    parts: dict[str, dict[str, Floats]] = {}
    seconds: dict[str, Floats] = {}
    errors: dict[str, dict[int, str]] = {}
    for label, spec in wanted.items():
        parts[label] = {}
        errors[label] = {}
        if spec is None:
            values[label] = lowest_if_undefined(opened.metric(label.removeprefix(TABLE), archs))
            seconds[label] = np.zeros(len(tuples))
            peaks[label] = math.nan
            continue
        names = spec.factory.parts
        unknown = Known((-math.inf,) * len(names), math.nan)
        column = [unknown if isinstance(k, str) else k for k in measured[label]]
        errors[label] = {i: k for i, k in enumerate(measured[label]) if isinstance(k, str)}
        table = np.array([k.values for k in column], dtype=np.float64).reshape(len(tuples), len(names))
        values[label] = lowest_if_undefined(spec.make().aggregate(table))
        seconds[label] = np.array([k.seconds for k in column])
        if len(names) > 1:
            parts[label] = {name: table[:, i] for i, name in enumerate(names)}
    return Scores(
        opened,
        archs,
        tuple(wanted),
        values,
        parts,
        seconds,
        peaks,
        errors,
        accuracy,
        split,
        population,
        specification,
    )


def _read_proxies(proxies: Any) -> dict[str, ProxySpec | None]:
    """Label -> proxy, None for a metric of the benchmark."""
    if isinstance(proxies, str | type | ProxySpec):
        proxies = [proxies]
    wanted: dict[str, ProxySpec | None] = {}
    for given in proxies:
        for one in entry_points("proxies") if given == ALL else [given]:
            if isinstance(one, str) and one.startswith(TABLE):
                label, spec = one, None
            else:
                spec = proxy_spec(one)
                label = spec.label
            if label in wanted:
                raise RegistryError(f"the proxy {label!r} is given twice")
            wanted[label] = spec
    if not wanted:
        raise RegistryError("no proxy given")
    return wanted


def _made(spec: ProxySpec) -> Proxy:
    try:
        proxy = spec.make()
    except Exception as error:
        raise RegistryError(f"the proxy {spec.label} cannot be made: {type(error).__name__}: {error}") from error
    n: object = proxy.n_images
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise RegistryError(f"n_images of the proxy {spec.label} must be a whole number from 0, not {n!r}")
    return proxy


def _describe(spec: ProxySpec | None) -> Any:
    if spec is None:
        return "a metric of the benchmark"
    parameters = {
        name: value if isinstance(value, int | float | str | None) else repr(value)
        for name, value in spec.parameters.items()
    }
    return {
        "class": f"{spec.factory.__module__}:{spec.factory.__qualname__}",
        "version": spec.factory.version,
        "parameters": parameters,
    }


# ------------------------------------------------------------------------------------------------- which architectures


def choose(space: SearchSpace, *, n: int | None, among: Among, seed: int) -> tuple[npt.NDArray[np.int16], str]:
    """Architectures of a space `(n, dimensions)`, and the set in words.

    Args:
        space: to draw from.
        n: how many; None for all.
        among: see `score`.
        seed: of the sample.

    Raises:
        ScoreError: a set that the space does not have, or a space too large to be listed where all of it is wanted.
    """
    if among not in get_args(Among):
        raise ScoreError(f"unknown set {among!r}: choose from {', '.join(get_args(Among))}")
    if among == "live" and not hasattr(space, "prune"):
        raise ScoreError(f"{space.name} does not say which operations are dead, so there is no set 'live'")
    name = {
        "all": "architectures",
        "unique": "classes of isomorphic architectures",
        "live": "architectures without a dead operation",
    }[among]
    rng = np.random.default_rng(np.random.SeedSequence((seed, 0xA2C4)))
    size = space.known_size
    if size is not None and (n is None or math.prod(space.cardinalities) <= _LISTED or size <= _LISTED):
        if size > _LISTED:
            raise ScoreError(f"{space.name} has {size:,} architectures: say how many to draw")
        members = [arch for arch in space if _belongs(space, arch, among)]
        if n is None or n >= len(members):
            return np.array(members, dtype=np.int16), f"all {len(members):,} {name} of {space.name}"
        chosen = np.sort(rng.choice(len(members), size=n, replace=False))
        archs = np.array([members[i] for i in chosen], dtype=np.int16)
        return archs, f"a random sample of {n:,} of the {len(members):,} {name} of {space.name}, seed {seed}"
    if n is None:
        raise ScoreError(f"{space.name} is too large to be scored whole: say how many architectures to draw")
    drawn: dict[Architecture, None] = {}
    for _ in range(1000 * n):
        arch = space.identity(space.sample(rng))
        if among == "unique":
            arch = space.canonical(arch)
        if among != "live" or _belongs(space, arch, among):
            drawn[arch] = None
        if len(drawn) == n:
            break
    return np.array(
        list(drawn), dtype=np.int16
    ), f"a random sample of {len(drawn):,} {name} of {space.name}, seed {seed}"


def _belongs(space: SearchSpace, arch: Architecture, among: Among) -> bool:
    if among == "unique":
        return space.canonical(arch) == arch
    return among == "all" or space.prune(arch) == arch  # type: ignore[attr-defined]


# --------------------------------------------------------------------------------------------------------- the scoring

_Task: TypeAlias = Sequence[tuple[int, Architecture, Sequence[int]]]  # index, architecture, which of the proxies


@lru_cache(maxsize=2)
def _opened(benchmark: str, images: str | None, settings: str, seed: int, device: str) -> Scoring:
    return Scoring(Recipe(benchmark, images, ast.literal_eval(settings), seed, device))


def _scoring(what: Recipe | Scoring) -> Scoring:
    """The opened recipe; a worker keeps it from task to task where the benchmark has a name."""
    if isinstance(what, Scoring):
        return what
    if isinstance(what.benchmark, str):
        return _opened(what.benchmark, what.images, repr(dict(what.settings)), what.seed, what.device)
    return Scoring(what)


def _score_block(
    what: Recipe | Scoring, specs: Sequence[ProxySpec], task: _Task
) -> list[tuple[int, Sequence[int], list[Known | str]]]:
    """Worker: a few architectures. An exception of a proxy is its message."""
    with one_torch_thread():
        scoring = _scoring(what)
        return [
            (
                index,
                which,
                [m.error or Known(m.values, m.seconds) for m in scoring.measure([specs[i] for i in which], arch)],
            )
            for index, arch, which in task
        ]


def _peak_block(
    what: Recipe | Scoring, label: str, spec: ProxySpec, archs: Sequence[Architecture]
) -> tuple[str, float]:
    """Worker: the most memory that a proxy needs for one of these networks."""
    with one_torch_thread():
        scoring = _scoring(what)
        return label, max(scoring.peak_bytes(spec, arch) for arch in archs)


class _Runner:
    """Where the work is done: in this process, in `jobs` others that are started for the first task, or by an executor."""

    def __init__(
        self,
        recipe: Recipe,
        scoring: Scoring,
        benchmark: Benchmark,
        source: str,
        executor: Executor | None,
        jobs: int,
        stack: ExitStack,
    ) -> None:
        self.jobs, self._executor, self._stack = jobs, executor, stack
        self._here = executor is None and jobs == 1
        self._what = scoring if self._here else dataclasses.replace(recipe, benchmark=portable(benchmark, source))

    def __call__(self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterable[Any]:
        """The results of `function(recipe, *task)`, as they are ready."""
        if not tasks:
            return ()
        if self._executor is None:
            self._executor = InProcess() if self._here else self._stack.enter_context(processes(self.jobs))
        arguments = [(self._what, *task) for task in tasks]
        return in_flight(self._executor, function, arguments, 1 if self._here else 2 * self.jobs)


def _score(
    specs: Mapping[str, ProxySpec],
    archs: Sequence[Architecture],
    scoring: Scoring,
    store: ScoreCache,
    run: _Runner,
    progress: Progress,
) -> dict[str, list[Known | str]]:
    """Label -> what was measured of each architecture, or why it was not."""
    ordered = list(specs.values())
    keys = [[scoring.key(spec, arch) for spec in ordered] for arch in archs]
    known = store.find(list({key for row in keys for key in row}))
    failed: dict[bytes, str] = {}
    todo: list[tuple[int, Architecture, list[int]]] = []
    claimed = set(known)
    for index, (arch, row) in enumerate(zip(archs, keys, strict=True)):
        if missing := [i for i, key in enumerate(row) if key not in claimed]:
            claimed.update(row)
            todo.append((index, arch, missing))
    done = len(archs) - len(todo)
    progress(done, len(archs))
    # Small blocks: an interruption loses little, and the workers end together.
    block = max(1, min(16, len(todo) // (20 * run.jobs)))
    try:
        for results in run(_score_block, [(ordered, todo[i : i + block]) for i in range(0, len(todo), block)]):
            fresh: dict[bytes, Known] = {}
            for index, which, found in results:
                for i, one in zip(which, found, strict=True):
                    if isinstance(one, str):
                        failed[keys[index][i]] = one
                    else:
                        fresh[keys[index][i]] = one
            store.keep(fresh)
            known |= fresh
            done += len(results)
            progress(done, len(archs))
    except BrokenExecutor as error:
        raise CacheError(
            "a worker process died, killed for its memory perhaps; use fewer jobs if memory is short."
            " Finished scores are kept, unless the cache is off"
        ) from error
    return {
        label: [known[key] if (key := row[i]) in known else failed[key] for row in keys]
        for i, label in enumerate(specs)
    }


def _peaks(
    specs: Mapping[str, ProxySpec], archs: Sequence[Architecture], scoring: Scoring, store: ScoreCache, run: _Runner
) -> dict[str, float]:
    """Label -> most memory of the first few architectures."""
    few = archs[:_PEAKS]
    keys = {
        label: hashlib.sha256(b"peak" + b"".join(scoring.key(spec, arch) for arch in few)).digest()
        for label, spec in specs.items()
    }
    known = store.find(list(keys.values()))
    peaks = {label: known[key].values[0] for label, key in keys.items() if key in known}
    for label, peak in run(_peak_block, [(label, spec, few) for label, spec in specs.items() if label not in peaks]):
        peaks[label] = peak
        if not math.isnan(peak):
            store.keep({keys[label]: Known((peak,), 0.0)})
    return peaks
