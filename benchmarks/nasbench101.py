"""`nasbench101-v1`: NAS-Bench-101, 423,624 cells trained on CIFAR-10. Needs the converted official file.

Ying et al., "NAS-Bench-101: Towards Reproducible Neural Architecture Search", ICML 2019. https://arxiv.org/abs/1902.09635

Protocol
    A search sees the final validation accuracy of one of an architecture's training runs, drawn at random, and pays that
    run's training time (the official `query`; the times exclude evaluation). It may ask for any run length that the file
    has, 4, 12, 36 or 108 epochs; these are separate runs with their own learning rate schedules, so a short one is not the
    beginning of a long one. A report uses the mean test accuracy over the runs of 108 epochs. The best mean test accuracy is
    0.943175752957662, the best mean validation accuracy 0.9505542318026224; since a search sees single runs, its validation
    regret can be negative. A few runs diverged to an accuracy of about 0.1: they belong to the benchmark. A file that
    lacks some of the modules is searched within those that it has.

Version history
    v1  `nasbench_full.tfrecord` or `nasbench_only108.tfrecord` as published in 2019.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .base import Benchmark, Curve, Evaluation, Evaluations, Final, Info, best_of
from .columns import Columns, TableError, open_columns
from .spaces.base import Architecture, InvalidArchitecture, SearchSpace
from .spaces.nasbench101 import NUM_CLASSES, Graph, NASBench101Space
from .spaces.subspace import Subspace

if TYPE_CHECKING:
    from torch import nn

_HALFWAY, _FINAL = 0, 1
_SECONDS, _TRAIN, _VALIDATION, _TEST = range(4)
_COLUMNS = {"hash": 2, "vertices": 1, "edges": 1, "labels": 2, "params": 1, "flops": 1, "metrics": 5}
_REMEMBERED = 1 << 18  # architectures whose row is kept: some 100 MB


class Metrics(NamedTuple):
    """One evaluation of one training run, as in the official file.

    Attributes:
        training_time: seconds of training up to then, without evaluations.
        train_accuracy: on 10,000 of the training images.
        validation_accuracy: on the 10,000 held-out images.
        test_accuracy: on the 10,000 test images.
    """

    training_time: float
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float


class NASBench101Table:
    """The official numbers by architecture, without any randomness.

    Args:
        columns: an opened file of kind "nasbench101"; `convert/nasbench101.py` describes its columns.

    Attributes:
        columns: the file.
        space: the architectures.
        epochs: the lengths of the training runs, ascending.
        repeats: number of runs of each length.

    Raises:
        TableError: a column is missing, or of another shape than the layout asks for.
    """

    def __init__(self, columns: Columns) -> None:
        for name, ndim in _COLUMNS.items():
            if name not in columns or columns[name].ndim != ndim or len(columns[name]) != len(columns["hash"]):
                raise TableError(f"{columns.path} has no column {name} of {ndim} dimensions: convert its source again")
        epochs, shape = columns.metadata.get("epochs"), columns["metrics"].shape
        if not isinstance(epochs, list) or shape[1] != len(epochs) or shape[3:] != (2, 4) or 0 in shape:
            raise TableError(f"{columns.path}: its metrics have shape {shape}, its epochs are {epochs!r}")
        if columns["hash"].shape[1] != 16 or columns["labels"].shape[1] != 5:
            raise TableError(f"{columns.path}: a hash has 16 bytes and a cell 5 labels: convert its source again")
        self.columns = columns
        self.space = NASBench101Space()
        self.epochs: tuple[int, ...] = tuple(epochs)
        self.repeats = int(shape[2])
        self._metrics = columns["metrics"]
        self._remembered = lru_cache(maxsize=_REMEMBERED)(self._look_up)

    def __len__(self) -> int:
        return len(self.columns["hash"])

    def row(self, arch: Architecture) -> int:
        """The row of an architecture's class. The hash takes about a tenth of a millisecond, the second time nothing.

        Raises:
            InvalidArchitecture: it is not in the space, or a file of a part of the dataset lacks it.
        """
        try:
            return self._remembered(arch)
        except TypeError:  # a list or an array
            return self._remembered(self.space.check(arch))

    def rows(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        """`row` of many architectures `(n, 26)`, intp `(n,)`."""
        if isinstance(archs, np.ndarray):
            if archs.size and (archs.dtype.kind not in "iu" or archs.ndim != 2):
                raise InvalidArchitecture(
                    f"architectures of {self.space.name} are ints, not {archs.dtype}, and of shape (n, 26), not {archs.shape}"
                )
            archs = [tuple(arch) for arch in archs.tolist()]
        return np.array([self.row(arch) for arch in archs], dtype=np.intp)

    def row_of_hash(self, module_hash: str) -> int:
        """The row of a class.

        Raises:
            KeyError: the file lacks it.
        """
        try:
            wanted = bytes.fromhex(module_hash)
        except (ValueError, TypeError):
            raise KeyError(module_hash) from None
        if wanted.hex() != module_hash:  # capital letters or spaces
            raise KeyError(module_hash)
        prefixes, order = self._index
        if len(wanted) == 16:
            at = int(np.searchsorted(prefixes, np.uint64(int.from_bytes(wanted[:8], "big"))))
            while at < len(order) and prefixes[at].tobytes()[::-1] == wanted[:8]:
                row = int(order[at])
                if self.columns["hash"][row].tobytes() == wanted:
                    return row
                at += 1
        raise KeyError(module_hash)

    def hash(self, row: int) -> str:
        """The module hash of a row, 32 hexadecimal digits."""
        return str(self.columns["hash"][row].tobytes().hex())

    def graph(self, row: int) -> Graph:
        """The cell of a row as the dataset has it; an architecture of this class may number its vertices otherwise."""
        vertices = int(self.columns["vertices"][row])
        labels = self.columns["labels"][row, : vertices - 2].tolist()
        return Graph(vertices, int(self.columns["edges"][row]), tuple(labels))

    def architectures(self) -> list[Architecture]:
        """The canonical architecture of every row; some 20 microseconds each.

        Raises:
            TableError: a row's cell is not in the space.
        """
        try:
            return [self.space.canonical(self.space.from_graph(self.graph(row))) for row in range(len(self))]
        except InvalidArchitecture as error:
            raise TableError(f"{self.columns.path} holds a cell that is not one of NAS-Bench-101: {error}") from error

    def metrics(self, arch: Architecture, *, epochs: int = 108, repeat: int = 0, halfway: bool = False) -> Metrics:
        """The official numbers, exactly.

        Args:
            arch: the architecture.
            epochs: the length of the training run, one of `epochs`.
            repeat: which run of this length, in the order of the official file.
            halfway: the evaluation after half of the run instead of that at its end.

        Raises:
            InvalidArchitecture: see `row`.
            ValueError: there is no run of this length, or no such repeat.
        """
        row, position = self.row(arch), self.position(epochs)
        self.check_repeat(repeat)
        return Metrics(*self._metrics[row, position, repeat, _HALFWAY if halfway else _FINAL].tolist())

    def check_repeat(self, repeat: int) -> None:
        """Raise a ValueError if there is no such repeat."""
        if isinstance(repeat, bool) or not isinstance(repeat, int | np.integer) or not 0 <= repeat < self.repeats:
            raise ValueError(f"this NAS-Bench-101 file has the training runs 0..{self.repeats - 1}, not {repeat!r}")

    def position(self, epochs: int) -> int:
        """Where `epochs` stands in the file's run lengths.

        Raises:
            ValueError: it is none of them.
        """
        if isinstance(epochs, bool) or not isinstance(epochs, int | np.integer) or epochs not in self.epochs:
            raise ValueError(
                f"this NAS-Bench-101 file has training runs of {', '.join(map(str, self.epochs))} epochs, not {epochs!r}"
            )
        return self.epochs.index(int(epochs))

    def _look_up(self, arch: Architecture) -> int:
        try:
            return self.row_of_hash(module_hash := self.space.hash(arch))
        except KeyError:
            raise InvalidArchitecture(
                f"{arch} is in {self.space.name}, but {self.columns.path} has only {len(self):,} of the"
                f" {NUM_CLASSES:,} modules and lacks {module_hash}: convert the whole official file"
            ) from None

    @functools.cached_property
    def _index(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.intp]]:
        """The first halves of all hashes as numbers, ascending, and their rows."""
        prefixes = np.ascontiguousarray(self.columns["hash"][:, :8]).view(">u8")[:, 0].astype("<u8")
        order = np.argsort(prefixes, kind="stable")
        return prefixes[order], order


class NASBench101(Benchmark):
    """The benchmark over a table: see the top of this file for its protocol.

    Attributes:
        table: the official numbers.
        space: all of NAS-Bench-101, or the modules of a file that lacks some.
        epochs: lengths that a query can ask for.
        repeats: runs of each length.
    """

    image_shape = (3, 32, 32)
    resumable = False  # each length has a learning rate schedule of its own

    def __init__(self, table: NASBench101Table, id: str = "nasbench101-v1") -> None:
        columns = table.columns
        self.id = id
        self.table = table
        self.space: SearchSpace = table.space
        self.epochs, self.repeats = table.epochs, table.repeats
        self.max_epochs = self.epochs[-1]
        caution = ""
        if len(table) < NUM_CLASSES:  # sampling, mutation and neighbours stay within what the file has
            self.space = Subspace(table.space, table.architectures(), checked=True)
            caution = self.space.caution
        self.info = Info(
            id=id,
            source=f"NAS-Bench-101 (Ying et al., ICML 2019), {columns.metadata.get('source', 'of unknown name')}",
            licence="Apache-2.0",
            sha256=columns.sha256,
            version_history="v1: the official file of 2019",
            caution=caution,
            details={
                "path": str(columns.path.resolve()),
                "modules": len(table),
                "epochs": list(self.epochs),
                "repeats": self.repeats,
                "source_sha256": columns.metadata.get("source_sha256", ""),
            },
        )
        self._metrics = columns["metrics"]
        self._blank = {length: np.full(length, np.nan, dtype=np.float32) for length in self.epochs}
        self._lengths: dict[int | None, tuple[int, int]] = {e: (i, e) for i, e in enumerate(self.epochs)}
        self._lengths[None] = self._lengths[self.max_epochs]

    @property
    def fidelities(self) -> tuple[int, ...]:
        return self.epochs

    def query(
        self, arch: Architecture, epochs: int | None = None, rng: np.random.Generator | None = None
    ) -> Evaluation:
        """One training run: see `Benchmark.query`.

        `seconds` are the run's training seconds; its `curve` is NaN but half way and at the end, where it was evaluated.

        Raises:
            InvalidArchitecture: `arch` is not in the space, or a file of a part of the dataset lacks it.
            ValueError: the file has no runs of `epochs`.
        """
        row = self.table.row(arch)
        position, length = self._length(epochs)
        repeat = int(rng.random() * self.repeats) if rng is not None and self.repeats > 1 else 0
        half, final = self._metrics[row, position, repeat].tolist()
        curve = self._blank[length].copy()
        curve[length // 2 - 1] = half[_VALIDATION]
        curve[-1] = final[_VALIDATION]
        curve.flags.writeable = False
        return Evaluation(final[_VALIDATION], final[_SECONDS], length, curve)

    def _length(self, epochs: int | None) -> tuple[int, int]:
        try:
            if epochs is not True:
                return self._lengths[epochs]
        except (KeyError, TypeError):
            pass
        assert epochs is not None
        return self.table.position(epochs), int(epochs)

    def query_many(
        self,
        archs: Sequence[Architecture] | npt.NDArray[np.integer],
        epochs: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Evaluations:
        rows = self.table.rows(archs)
        position, _ = self._length(epochs)
        draw = rng is not None and self.repeats > 1
        repeats = (rng.random(len(rows)) * self.repeats).astype(np.intp) if draw and rng is not None else 0
        final = self._metrics[rows, position, repeats, _FINAL].astype(np.float64)
        return Evaluations(final[:, _VALIDATION], final[:, _SECONDS])

    def final_many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Final:
        return self._finals(self.table.rows(archs))

    def _finals(self, rows: npt.NDArray[np.intp] | slice) -> Final:
        columns = self.table.columns
        means = self._metrics[rows, -1, :, _FINAL].mean(axis=1, dtype=np.float64)
        return Final(
            means[:, _VALIDATION],
            means[:, _TEST],
            means[:, _SECONDS],
            columns["params"][rows].astype(np.float64),
            columns["flops"][rows].astype(np.float64),
        )

    def curve(self, arch: Architecture, seed: int | None = None) -> Curve:
        """What is known of a run of the full schedule: accuracies and seconds half way and at the end; all else is NaN.

        Raises:
            ValueError: `seed`, the number of the repeat, is not in 0..repeats-1.
        """
        if seed is not None:
            self.table.check_repeat(seed)
        runs = self._metrics[self.table.row(self.table.space.check(arch)), -1]
        points = runs.mean(axis=0, dtype=np.float64) if seed is None else runs[seed]
        curves = np.full((5, self.max_epochs), np.nan, dtype=np.float32)
        for field, metric in ((1, _TRAIN), (3, _VALIDATION), (4, _SECONDS)):  # 0 and 2 are losses
            curves[field, [self.max_epochs // 2 - 1, -1]] = points[:, metric]
        return Curve(*curves)

    @functools.cached_property
    def _optimum(self) -> Final:
        return best_of(self._finals(slice(None)))

    @property
    def optimum(self) -> Final:
        return self._optimum

    def network(self, arch: Architecture, **settings: Any) -> nn.Module:
        from .networks.factory import build_network

        return build_network("nasbench101", arch, **settings)

    @property
    def network_settings(self) -> Mapping[str, Any]:
        from .networks.factory import SETTINGS

        return SETTINGS["nasbench101"]

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            open_nasbench101,
            (self.table.columns.path, self.id),
            self._state(),
        )  # another process maps the file itself


def open_nasbench101(path: Path, id: str = "nasbench101-v1") -> NASBench101:
    """Open a converted file; it is mapped, not read.

    Raises:
        TableError: it is missing, damaged, or not a converted NAS-Bench-101 file.
    """
    return NASBench101(NASBench101Table(open_columns(path, kind="nasbench101")), id)
