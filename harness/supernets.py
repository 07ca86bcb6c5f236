"""Look into the training of supernets: do their inherited accuracies rank, where do the architecture parameters go?

    study = nh.supernets(["darts", "rsps"], "digits201", seeds=3, n=200)
    study.frame()               # a row per method, seed and epoch
    study.report("report/")     # Kendall tau with intervals, figures, CSV, LaTeX

A one-shot method rests on one assumption: that an architecture with the weights of the supernet is as good as its place among
the trained ones. `supernets` trains each method as `run` does, with the same chance, and at some epochs compares the inherited
accuracy of a fixed sample of architectures with the table's. After each epoch it also measures what is known to go wrong in
such searches: skip connections that take over, accuracy that is lost when the mixture becomes one architecture, and the
curvature by the architecture parameters. Measuring takes no part in the search: the proposals are those of `run`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import SearchSpace
from .checkpoint import Checkpoint, remove_checkpoint
from .registry import OptimizerSpec, load, optimizer_spec
from .run import generators, supernet_task
from .scorer import ScoreError
from .scoring import choose

if TYPE_CHECKING:
    import pandas as pd

    from ..benchmarks.base import Benchmark
    from ..optimizers.base import Optimizer, SupernetTask
    from ..optimizers.supernet.images import Batch
    from ..optimizers.supernet.training import SupernetOptimizer
    from .report.supernets import SupernetSummary

Floats: TypeAlias = npt.NDArray[np.float64]
Progress: TypeAlias = Callable[[int, int], None]
Mode: TypeAlias = Literal["batch", "recalibrated"]

MODES: tuple[Mode, ...] = ("batch", "recalibrated")
"""How batch normalisation is done where an inherited accuracy is measured."""
RUN_VERSION = 1
"""Raise it when the files of finished runs cannot be read any more, or would be different now."""
RECALIBRATION_IMAGES = 512
"""Training images by which the statistics of one architecture are estimated."""

_BLOCK = 25  # architectures that count as one unit of progress
_LISTED = 1_000_000  # architectures of the largest space that is listed
_SAMPLED = 10_000  # architectures that stand for a larger one
_DRAWS = 4  # of a mixture that is random
_HESSIAN_IMAGES = 64
_SERIES = (
    "epoch",
    "seconds",
    "test_accuracy",
    "validation_accuracy",
    "better_than_random",
    "skip_share",
    "alpha_entropy",
    "mixture_accuracy",
    "network_accuracy",
    "train_loss",
    "train_accuracy",
)


class SupernetError(ValueError):
    """A study of supernets that cannot be made; the message says what to change."""


@dataclass(frozen=True, eq=False)
class SupernetRun:
    """One training of one method.

    Attributes:
        method: label.
        seed: the repetition that the run's chance is derived from.
        proposals: int16 `(epochs, dimensions)`, what the search would have returned after each epoch.
        series: name -> float64 `(epochs,)`, all fractions; NaN where a method has no such thing:
            epoch; seconds (of the search alone, from its start); test_accuracy, validation_accuracy (the proposal's in the
            table); better_than_random (probability that the proposal's accuracy is above that of a uniformly random
            architecture, ties half); skip_share (of the proposal's edges); alpha_entropy (nats, mean over edges);
            mixture_accuracy, network_accuracy (held-out accuracy of the mixture and of the proposal, both with inherited
            weights and batch statistics); train_loss, train_accuracy (of the supernet's training batches).
        operations: table of cells -> names of its operations.
        weights: table of cells -> float64 `(epochs, operations)`, mean over the edges; empty for a method without such.
        points: int64 `(p,)`, the epochs after which architectures were evaluated.
        inherited: mode of the batch normalisation -> float64 `(p, n)`, inherited accuracy on the held-out images.
        eigenvalues: float64 `(p,)`, the dominant eigenvalue of the Hessian of the held-out loss by the architecture parameters.
        saved_bytes: kept for the backward pass in one training step; NaN where it is not known.
        peak_bytes: most memory in use: allocated on the GPU, or resident in the whole process; NaN where it is not known.
        seconds_per_step: mean over the search.
    """

    method: str
    seed: int
    proposals: npt.NDArray[np.int16]
    series: Mapping[str, Floats]
    operations: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, Floats]
    points: npt.NDArray[np.int64]
    inherited: Mapping[Mode, Floats]
    eigenvalues: Floats
    saved_bytes: float
    peak_bytes: float
    seconds_per_step: float

    def save(self, path: Path) -> None:
        """Write an NPZ file under a temporary name, then move it."""
        plain = {
            "method": self.method,
            "seed": self.seed,
            "operations": {table: list(names) for table, names in self.operations.items()},
            "saved_bytes": self.saved_bytes,
            "peak_bytes": self.peak_bytes,
            "seconds_per_step": self.seconds_per_step,
        }
        arrays: dict[str, Any] = {"proposals": self.proposals, "points": self.points, "eigenvalues": self.eigenvalues}
        for group in ("series", "weights", "inherited"):
            arrays |= {f"{group}.{name}": values for name, values in getattr(self, group).items()}
        with _moved(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, plain=np.array(json.dumps(plain)), **arrays)

    @classmethod
    def read(cls, path: Path) -> SupernetRun:
        """The inverse of `save`."""
        with np.load(path, allow_pickle=False) as file:
            plain = json.loads(str(file["plain"]))
            groups: dict[str, Any] = {"series": {}, "weights": {}, "inherited": {}}
            for key in file.files:
                group, _, name = key.partition(".")
                if group in groups:
                    groups[group][name] = file[key]
            plain["operations"] = {table: tuple(names) for table, names in plain["operations"].items()}
            return cls(
                proposals=file["proposals"], points=file["points"], eigenvalues=file["eigenvalues"], **groups, **plain
            )


@dataclass(frozen=True, eq=False)
class SupernetStudy:
    """What was measured while supernets were trained, beside what the table knows.

    Attributes:
        benchmark: where the accuracies are from.
        methods: labels, in the order in which they were given.
        runs: of every method and seed, method by method.
        archs: int16 `(n, dimensions)`, the architectures that were evaluated.
        test_accuracy, validation_accuracy: float64 `(n,)`, fractions, of these in the table; NaN where it has none.
        disconnected: bool `(n,)`: no path leads from the input to the output of some cell.
        optimum: best accuracy of the table on `split`, a fraction.
        split: of the accuracies that are reported: of the test or, where the benchmark has none, of the validation images.
        population: the evaluated architectures in words.
        reference: the architectures that a random one is drawn from in `better_than_random`, in words.
        specification: everything that was asked for.
    """

    benchmark: Benchmark
    methods: tuple[str, ...]
    runs: tuple[SupernetRun, ...]
    archs: npt.NDArray[np.int16]
    test_accuracy: Floats
    validation_accuracy: Floats
    disconnected: npt.NDArray[np.bool_]
    optimum: float
    split: Literal["test", "validation"]
    population: str
    reference: str
    specification: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<SupernetStudy of {', '.join(self.methods)} on {self.benchmark.id}, {len(self.runs)} runs>"

    @property
    def accuracy(self) -> Floats:
        """Of the evaluated architectures on `split`, `(n,)`."""
        return self.test_accuracy if self.split == "test" else self.validation_accuracy

    def runs_of(self, method: str) -> tuple[SupernetRun, ...]:
        """The runs of one method, by seed."""
        return tuple(run for run in self.runs if run.method == method)

    def regret(self, run: SupernetRun) -> Floats:
        """The proposal's regret on `split` after each epoch, a fraction, `(epochs,)`."""
        result: Floats = self.optimum - run.series[f"{self.split}_accuracy"]
        return result

    def summary(self) -> SupernetSummary:
        """Rank correlations with intervals and the other measurements, one row per method."""
        from .report.supernets import summarise

        return summarise(self)

    def report(self, folder: str | os.PathLike[str]) -> Path:
        """Write the page, figures and tables into a folder; returns the page's path."""
        from .report.supernets_page import write_supernet_report

        return write_supernet_report(self, Path(folder))

    def frame(self) -> pd.DataFrame:
        """A pandas DataFrame with a row per method, seed and epoch; points of evaluation have their Kendall taus."""
        import pandas as pd

        from .report.supernets import epoch_records

        return pd.DataFrame(epoch_records(self))


def supernets(
    methods: str | type[Optimizer] | OptimizerSpec | Iterable[str | type[Optimizer] | OptimizerSpec],
    benchmark: str | Benchmark = "digits201",
    *,
    seeds: int = 3,
    n: int | None = 200,
    points: int = 3,
    epochs: int | None = None,
    images: str | os.PathLike[str] | None = None,
    device: str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = lambda done, total: None,
) -> SupernetStudy:
    """Train the supernets of one-shot methods and measure them on the way.

    Args:
        methods: ids, such as "darts" or "gdas(epochs=50)", or classes, of optimizers that train a supernet.
        benchmark: an id or an opened benchmark, with networks, images and accuracies.
        seeds: runs of each method; the first is repetition 0 of `run`.
        n: how many architectures are evaluated, drawn without replacement; None for all.
        points: after how many of the epochs they are evaluated, evenly spaced, the last one included.
        epochs: of every method, in place of its own.
        images: where the images come from (see `benchmarks.datasets.open_images`); None for the benchmark's own.
        device: of every method, such as "cuda"; None for its own.
        seed: of the study: the sample of architectures and, with the repetition, the runs.
        out: a folder that keeps finished runs, and the state of the one that is interrupted; the same call goes on from them.
        progress: called with (units done, units in all): an epoch is one, and so are 25 evaluated architectures.

    Raises:
        RegistryError: an unknown id.
        SupernetError: a method without a supernet or given twice, a benchmark without images, nothing to evaluate.
        KeyboardInterrupt: passed on; with `out`, what was finished is kept.
    """
    for name, number, least in (
        ("seeds", seeds, 1),
        ("points", points, 1),
        ("seed", seed, 0),
        *((("n", n, 2),) if n is not None else ()),
        *((("epochs", epochs, 1),) if epochs is not None else ()),
    ):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
            raise SupernetError(f"{name} must be a whole number from {least}, not {number!r}")
    specs = _read_methods(methods, {"epochs": epochs, "device": device})
    opened = load(benchmark) if isinstance(benchmark, str) else benchmark
    if images is not None:
        from ..benchmarks.datasets import open_images

        opened = copy.copy(opened)  # the user's own stays as it is
        opened.attach_images(open_images(os.fspath(images)))
    task = supernet_task(opened)
    if task is None:
        raise SupernetError(
            f"{opened.id} has no networks, or no images to train them on: give it images with --images PATH, or choose"
            " another benchmark, such as digits201"
        )
    try:
        archs, population = choose(opened.space, n=n, among="all", seed=int(seed))
    except ScoreError as error:
        raise SupernetError(str(error)) from error
    table = _Table(opened, int(seed))
    final = opened.final_many(archs)
    truth = {"test": _floats(final.test_accuracy), "validation": _floats(final.val_accuracy)}
    known = ~np.isnan(truth[table.split])
    if not known.all():
        population += f", less {int((~known).sum())} without a known accuracy"
        archs, truth = archs[known], {split: values[known] for split, values in truth.items()}
    specification = {
        "benchmark": opened.id,
        "benchmark_sha256": opened.info.sha256,
        "methods": {spec.label: {k: _readable(v) for k, v in spec.parameters.items()} for spec in specs},
        "seeds": int(seeds),
        "architectures": len(archs),
        "points": int(points),
        "seed": int(seed),
        "images": task.images.describe(),
        "network": {k: _readable(v) for k, v in task.settings.items()},
        "recalibration_images": RECALIBRATION_IMAGES,
        **_where(device),
    }
    folder = None if out is None else Path(out) / "runs"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for spec in specs:
        for repetition in range(seeds):
            job = _Job(spec, repetition, int(seed), opened, task, table, archs, int(points), folder)
            jobs.append((job, job.check()))
    total = sum(units for _, units in jobs)
    done = 0
    runs = []
    progress(0, total)
    for job, units in jobs:
        before = done
        runs.append(job.run(lambda own, before=before: progress(before + own, total)))  # type: ignore[misc]
        done += units
        progress(done, total)
    return SupernetStudy(
        opened,
        tuple(spec.label for spec in specs),
        tuple(runs),
        archs,
        truth["test"],
        truth["validation"],
        disconnected(opened.space, archs),
        table.optimum,
        table.split,
        population,
        table.words,
        specification,
    )


def _read_methods(methods: Any, changed: Mapping[str, Any]) -> list[OptimizerSpec]:
    from ..optimizers.supernet.training import SupernetOptimizer

    if isinstance(methods, str | type | OptimizerSpec):
        methods = [methods]
    specs: list[OptimizerSpec] = []
    for one in methods:
        spec = optimizer_spec(one)
        if not issubclass(spec.factory, SupernetOptimizer):
            raise SupernetError(f"{spec.label} trains no supernet")
        if any(spec.label == other.label for other in specs):
            raise SupernetError(f"the method {spec.label!r} is given twice")
        given = {name: value for name, value in changed.items() if value is not None}
        specs.append(dataclasses.replace(spec, parameters={**spec.parameters, **given}))
    if not specs:
        raise SupernetError("no method given")
    return specs


def evaluation_points(epochs: int, points: int) -> list[int]:
    """The epochs after which architectures are evaluated: evenly spaced, the last one included.

    >>> evaluation_points(25, 3)
    [8, 17, 25]
    """
    return sorted({max(1, math.floor(epochs * (i + 1) / points + 0.5)) for i in range(points)})


def disconnected(space: SearchSpace, archs: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Which architectures have a cell in which nothing leads from the input to the output, `(n,)`."""
    from ..optimizers.supernet.topology import topology

    made = topology(space)
    return np.array(
        [
            not all(table.connected(row) for table, row in zip(made.tables, made.choices(tuple(arch)), strict=True))
            for arch in archs.tolist()
        ],
        dtype=bool,
    )


class _Table:
    """Accuracies of the benchmark, and where one stands among all architectures."""

    def __init__(self, benchmark: Benchmark, seed: int) -> None:
        self.benchmark = benchmark
        space, size = benchmark.space, benchmark.space.known_size
        if size is not None and size <= _LISTED and math.prod(space.cardinalities) <= _LISTED:
            archs = np.array(list(space), dtype=np.int16)
            self.words = f"all {len(archs):,} architectures of {space.name}"
        else:
            rng = np.random.default_rng(np.random.SeedSequence((seed, 0x5A3E)))
            archs = np.array([space.sample(rng) for _ in range(_SAMPLED)], dtype=np.int16)
            self.words = f"a random sample of {_SAMPLED:,} architectures of {space.name}"
        final = benchmark.final_many(archs)
        test, validation = _floats(final.test_accuracy), _floats(final.val_accuracy)
        self.split: Literal["test", "validation"] = "validation" if np.isnan(test).all() else "test"
        values = test if self.split == "test" else validation
        self._sorted = np.sort(values[~np.isnan(values)])
        if len(self._sorted) < 2:
            raise SupernetError(f"{benchmark.id} has no final accuracies to compare with")
        best = benchmark.optimum
        self.optimum = float(best.test_accuracy if self.split == "test" else best.val_accuracy)

    def look_up(self, arch: Sequence[int]) -> dict[str, float]:
        final = self.benchmark.final(tuple(arch))
        found = {"test_accuracy": float(final.test_accuracy), "validation_accuracy": float(final.val_accuracy)}
        value = found[f"{self.split}_accuracy"]
        below, up_to = (np.searchsorted(self._sorted, value, side=side) for side in ("left", "right"))
        share = math.nan if math.isnan(value) else float(below + up_to) / 2 / len(self._sorted)
        return {**found, "better_than_random": share}


# ------------------------------------------------------------------------------------------------------------- one run


class _Job:
    """One method with one seed: trained, measured, saved on the way."""

    def __init__(
        self,
        spec: OptimizerSpec,
        repetition: int,
        seed: int,
        benchmark: Benchmark,
        task: SupernetTask,
        table: _Table,
        archs: npt.NDArray[np.int16],
        points: int,
        folder: Path | None,
    ) -> None:
        self.spec, self.repetition, self.seed, self.benchmark = spec, repetition, seed, benchmark
        self.task, self.table, self.archs, self.wanted_points = task, table, archs, points
        key = json.dumps(
            [
                RUN_VERSION,
                spec.label,
                {name: _readable(value) for name, value in sorted(spec.parameters.items())},
                spec.source_sha256(),
                [repetition, seed, points],
                benchmark.id,
                benchmark.info.sha256,
                task.images.describe(),
                sorted(task.settings.items()),
                hashlib.sha256(np.ascontiguousarray(archs).tobytes()).hexdigest(),
            ],
            default=str,
        )
        slug = re.sub(r"\W+", "-", spec.label).strip("-")[:60]
        name = f"{slug}-{repetition}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        self.path = None if folder is None else folder / f"{name}.npz"
        self.checkpoint = None if folder is None else Checkpoint(folder / f"{name}.pt", {"run": key})

    def check(self) -> int:
        """Make the method once, so that what it refuses is said before hours of work; returns the units of the run."""
        made = self._make()
        if made.spaces is not None and self.benchmark.space.name not in made.spaces:
            raise SupernetError(
                f"{self.spec.label} searches {' and '.join(made.spaces)}, not {self.benchmark.space.name}"
            )
        self.points = evaluation_points(made.recipe.epochs, self.wanted_points)
        self.blocks = -(-len(self.archs) // _BLOCK)
        return made.recipe.epochs + len(self.points) * self.blocks

    def _make(self) -> SupernetOptimizer:
        rng, _ = generators(self.seed, self.benchmark.id, self.spec.seeded_by, self.repetition)
        try:
            made: Any = self.spec.make(self.benchmark.space, rng, fidelities=self.benchmark.fidelities, task=self.task)
        except (ValueError, TypeError) as error:
            raise SupernetError(f"{self.spec.label} could not be made: {error}") from error
        return made  # type: ignore[no-any-return]  # `_read_methods` has seen to its class

    def run(self, progress: Callable[[int], None]) -> SupernetRun:
        from ..optimizers.base import SearchFinished

        if self.path is not None and self.path.is_file():
            return SupernetRun.read(self.path)
        record = _Record(len(self.points), len(self.archs))
        optimizer = self._make()
        _check_device(optimizer.recipe.device)
        self._load(optimizer, record)
        if not record.epochs and math.isnan(record.saved_bytes):
            record.saved_bytes = _saved_bytes(self._make())
        _reset_peak(optimizer.recipe.device)
        with optimizer.computing():
            optimizer.prepare()
        while True:
            epoch = len(record.epochs)
            if epoch in self.points:
                self._evaluate(optimizer, record, self.points.index(epoch), progress)
            started = time.perf_counter()
            try:
                proposal = optimizer.ask()
            except SearchFinished:
                break
            seconds = time.perf_counter() - started
            with optimizer.computing(), undisturbed(optimizer):
                record.add(optimizer, proposal.arch, seconds, self.table)
            record.peak_bytes = np.fmax(record.peak_bytes, _peak_bytes(optimizer.recipe.device))
            self._save(optimizer, record)
            progress(self._units(record))
        if not record.epochs:
            raise SupernetError(f"{self.spec.label} ended without a single epoch")
        finished = record.finished(self.spec.label, self.repetition, optimizer, self.points)
        if self.path is not None:
            finished.save(self.path)
        if self.checkpoint is not None:
            remove_checkpoint(self.checkpoint.path)
        return finished

    def _units(self, record: _Record) -> int:
        seen = np.isfinite(record.inherited["recalibrated"]).sum(axis=1)
        return len(record.epochs) + sum(-(-int(count) // _BLOCK) for count in seen)

    def _evaluate(
        self, optimizer: SupernetOptimizer, record: _Record, point: int, progress: Callable[[int], None]
    ) -> None:
        """The inherited accuracies of one point, from where an interrupted run left them."""
        rows = {mode: record.inherited[mode][point] for mode in MODES}
        if not np.isnan(rows["recalibrated"]).any():
            return
        held_out = optimizer.images.fixed("architecture")
        training = optimizer.images.fixed("weights", RECALIBRATION_IMAGES)
        if math.isnan(record.eigenvalues[point]):
            with optimizer.computing(), undisturbed(optimizer):
                record.eigenvalues[point] = _eigenvalue(optimizer, held_out[0])
        left = np.flatnonzero(np.isnan(rows["recalibrated"])).tolist()
        for start in range(0, len(left), _BLOCK):
            with optimizer.computing(), undisturbed(optimizer):
                for i in left[start : start + _BLOCK]:
                    arch = tuple(self.archs[i].tolist())
                    rows["batch"][i] = optimizer.inherited(arch, held_out)
                    rows["recalibrated"][i] = optimizer.inherited(arch, held_out, recalibrate=training)
            self._save(optimizer, record)
            progress(self._units(record))

    def _save(self, optimizer: SupernetOptimizer, record: _Record) -> None:
        """A checkpoint, if the last one is some time ago; the run is worth more than one that cannot be written."""
        if self.checkpoint is not None and self.checkpoint.due:
            try:
                self.checkpoint.write({"optimizer": optimizer.state_dict(), "record": record.state_dict()})
            except OSError:
                self.checkpoint = None

    def _load(self, optimizer: SupernetOptimizer, record: _Record) -> None:
        state = None if self.checkpoint is None else self.checkpoint.read()
        if self.checkpoint is None or state is None:
            return
        try:
            with optimizer.computing():
                optimizer.load_state_dict(state["optimizer"])
        except (ValueError, KeyError) as error:
            raise SupernetError(
                f"{self.checkpoint.path} cannot be gone on with ({error}): delete it to start afresh"
            ) from error
        record.load_state_dict(state["record"])


class _Record:
    """What is measured of one run while it goes on."""

    def __init__(self, points: int, n: int) -> None:
        self.epochs: list[dict[str, float]] = []
        self.archs: list[list[int]] = []
        self.weights: list[list[list[float]]] = []
        self.inherited: dict[Mode, Floats] = {mode: np.full((points, n), np.nan) for mode in MODES}
        self.eigenvalues = np.full(points, np.nan)
        self.saved_bytes = math.nan
        self.peak_bytes = math.nan

    def add(self, optimizer: SupernetOptimizer, arch: Sequence[int], seconds: float, table: _Table) -> None:
        """The epoch that has just ended."""
        log = optimizer.log[-1] if optimizer.log else {}
        before = self.epochs[-1]["seconds"] if self.epochs else 0.0
        entry = dict.fromkeys(_SERIES, math.nan)
        entry |= {
            "epoch": float(len(self.epochs) + 1),
            "seconds": before + seconds,
            "skip_share": skip_share(optimizer, arch),
            "alpha_entropy": float(log.get("alpha_entropy", math.nan)),
            "train_loss": float(log.get("loss", math.nan)),
            "train_accuracy": float(log.get("accuracy", math.nan)),
            **table.look_up(arch),
            **_discretisation(optimizer, arch),
        }
        self.epochs.append(entry)
        self.archs.append([int(choice) for choice in arch])
        if hasattr(optimizer, "strengths"):
            tables = [np.asarray(values, dtype=np.float64) for values in optimizer.strengths()]
            self.weights.append([np.where(np.isfinite(v), v, 0.0).mean(axis=0).tolist() for v in tables])

    def state_dict(self) -> dict[str, Any]:
        import torch

        return {
            "epochs": self.epochs,
            "archs": self.archs,
            "weights": self.weights,
            "inherited": {mode: torch.tensor(values) for mode, values in self.inherited.items()},
            "eigenvalues": torch.tensor(self.eigenvalues),
            "saved_bytes": float(self.saved_bytes),
            "peak_bytes": float(self.peak_bytes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("epochs", "archs", "weights", "saved_bytes", "peak_bytes"):
            setattr(self, name, state[name])
        self.inherited = {mode: state["inherited"][mode].numpy() for mode in MODES}
        self.eigenvalues = state["eigenvalues"].numpy()

    def finished(self, method: str, seed: int, optimizer: SupernetOptimizer, points: Sequence[int]) -> SupernetRun:
        tables = optimizer.topology.tables
        full = len(self.weights) == len(self.epochs)
        steps = max(1, optimizer.images.steps() * len(self.epochs))
        trained = [p for p in points if p <= len(self.epochs)]
        return SupernetRun(
            method,
            seed,
            np.array(self.archs, dtype=np.int16),
            {name: np.array([entry[name] for entry in self.epochs]) for name in _SERIES},
            {table.name: table.operations for table in tables},
            {table.name: np.array([w[t] for w in self.weights]) for t, table in enumerate(tables)} if full else {},
            np.array(trained, dtype=np.int64),
            {mode: values[: len(trained)] for mode, values in self.inherited.items()},
            self.eigenvalues[: len(trained)],
            float(self.saved_bytes),
            float(self.peak_bytes),
            sum(entry.get("seconds", math.nan) for entry in optimizer.log) / steps,
        )


def skip_share(optimizer: SupernetOptimizer, arch: Sequence[int]) -> float:
    """The share of skip connections among the edges of an architecture; in the DARTS space of the 16 that it has."""
    found = optimizer.topology.choices(tuple(arch))
    edges = sum(map(len, found))
    if optimizer.space.name == "darts":  # there `none` is an edge that the architecture does not have
        edges -= sum(row.count(t.none) for t, row in zip(optimizer.topology.tables, found, strict=True))
    return optimizer.topology.skips(tuple(arch)) / max(1, edges)


def _discretisation(optimizer: SupernetOptimizer, arch: Sequence[int]) -> dict[str, float]:
    """Held-out accuracy of the mixture and of the proposal, both with the supernet's weights and batch statistics."""
    held_out = optimizer.images.fixed("architecture")
    found = {"network_accuracy": optimizer.inherited(tuple(arch), held_out)}
    mixes = getattr(optimizer, "mixes", None)
    if mixes is not None:
        import torch

        before = optimizer.generator.get_state()
        with torch.no_grad():
            passes = [mixes()]
            if not torch.equal(before, optimizer.generator.get_state()):  # it is drawn, so take a few
                passes += [mixes() for _ in range(_DRAWS - 1)]
        found["mixture_accuracy"] = float(np.mean([optimizer.accuracy(one, held_out) for one in passes]))
    return found


@contextmanager
def undisturbed(optimizer: SupernetOptimizer) -> Iterator[None]:
    """Inside, measurements may draw random numbers; the search goes on as if they had not."""
    numbers, state = copy.deepcopy(optimizer.rng.bit_generator.state), optimizer.generator.get_state()
    try:
        yield
    finally:
        optimizer.rng.bit_generator.state = numbers
        optimizer.generator.set_state(state)


def _eigenvalue(optimizer: SupernetOptimizer, batch: Batch) -> float:
    """The dominant eigenvalue by the architecture parameters; NaN for a method without them or with one path at a time."""
    from ..optimizers.supernet.training import DifferentiableOptimizer

    if not isinstance(optimizer, DifferentiableOptimizer):
        return math.nan
    from ..optimizers.supernet.hessian import architecture_hessian, largest_eigenvalue

    if any(mix.is_path or mix.carry for mix in optimizer.mixes()):  # a drawn path has no second derivatives to speak of
        return math.nan
    few = type(batch)(batch.images[:_HESSIAN_IMAGES], batch.targets[:_HESSIAN_IMAGES])
    try:
        return largest_eigenvalue(architecture_hessian(optimizer.supernet, optimizer.mixes, optimizer.alphas, [few]))
    except (RuntimeError, ValueError):  # a mixture that cannot be differentiated twice
        return math.nan


def _saved_bytes(optimizer: SupernetOptimizer) -> float:
    """Most bytes kept for one backward pass in a training step, of a search that is thrown away afterwards."""
    import torch

    from ..optimizers.supernet.memory import saved_bytes

    found = [math.nan]
    with optimizer.computing():
        optimizer.prepare()
        plain = optimizer.loss

        def counted(*arguments: Any, **options: Any) -> torch.Tensor:
            if not torch.is_grad_enabled():
                return plain(*arguments, **options)
            losses: list[torch.Tensor] = []

            def step() -> torch.Tensor:
                losses.append(plain(*arguments, **options))
                return losses[0]

            found.append(float(saved_bytes(step, parameters=optimizer.supernet)))
            return losses[0]

        optimizer.loss = counted  # type: ignore[method-assign]
        optimizer.epoch = min(optimizer.recipe.warm_up, optimizer.recipe.epochs - 1)
        optimizer.images.start_epoch(optimizer.epoch)
        optimizer.supernet.train()
        batches = (next(optimizer.images.endless(part)) for part in ("weights", "architecture"))
        with suppress(Exception):  # what cannot be measured is not known; the search itself will say what is wrong
            optimizer.step(*batches)
    return float(np.fmax.reduce(found))


def _check_device(device: str) -> None:
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SupernetError(f"torch knows no device {device!r}: {str(error).splitlines()[0]}") from error
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise SupernetError(f"device {device!r}: torch sees no GPU on this machine")


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # Linux: the high-water mark of the resident set starts again
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated(device))
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        match = None
    return 1024.0 * int(match[1]) if match else math.nan


def _where(device: str | None) -> dict[str, Any]:
    import platform

    import torch

    found = {"device": device or "as each method has it", "torch": torch.__version__, "host": platform.node()}
    found["processor"] = platform.processor() or platform.machine()
    if device is not None and device.startswith("cuda") and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _readable(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else repr(value)


@contextmanager
def _moved(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, moved there at the end, so that a reader never sees half of a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
