"""A user's own table of trained architectures as a benchmark, and tables of further metrics.

`import_table` reads a CSV or Parquet file with one row per architecture and writes a file of columns (`benchmarks/columns.py`):

    arch                    int16 (n, dimensions)   sorted lexicographically; canonical where the space has canonical identity
    val_accuracy, test_accuracy, seconds            float64 (n,), of the full schedule; NaN where unknown
    search_val_accuracy, search_seconds             float64 (n,), what a search sees and pays; only if the table has them
    params, flops                                   float64 (n,); only if the table has them
    metric.NAME                                     float64 (n,), every other numeric column

Accuracies are fractions. The metadata names the space, the table's file and its sha256, and counts what was missing.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import itertools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .base import Benchmark, Curve, Evaluation, Evaluations, Final, Floats, Info, best_of
from .columns import Columns, TableError, open_columns, write_columns
from .spaces.base import Architecture, InvalidArchitecture, SearchSpace
from .spaces.subspace import Subspace

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

BENCHMARK_KIND = "imported"
METRICS_KIND = "imported-metrics"

SPACES: Mapping[str, str] = {
    "nasbench101": "nasharness.benchmarks.spaces.nasbench101:NASBench101Space",
    "nasbench201": "nasharness.benchmarks.spaces.nasbench201:NASBench201Space",
    "nats_size": "nasharness.benchmarks.spaces.nats_size:NATSSizeSpace",
    "darts": "nasharness.benchmarks.spaces.darts:DARTSSpace",
}
"""The spaces that have an id of their own."""

_CLASSES = {"nasbench101": 423_624}
"""Number of different architectures where several vectors are one: there `size` counts vectors."""

ACCURACIES = ("val_accuracy", "test_accuracy", "search_val_accuracy")
_SEARCH = ("search_val_accuracy", "search_seconds")
_COUNTS = ("params", "flops")
_KNOWN = ("val_accuracy", "test_accuracy", "seconds", *_SEARCH, *_COUNTS)
_CHOICES = re.compile(r"\d+(-\d+)*")
_FEW = 100_000  # rows: up to here a dict takes some 20 MB
_SMALL = 10_000_000  # choice vectors: up to here a look-up by rank is one array of at most 40 MB


class ImportTableError(ValueError):
    """A table that cannot be imported; the message names the row and the value, and the way out."""


def load_space(name: str) -> SearchSpace:
    """The space of this id, or found at `package.module:Class`, which is imported from the current folder, too.

    Raises:
        ImportTableError: there is none, it is no SearchSpace, or it needs arguments.
    """
    target = SPACES.get(name, name)
    module, colon, attribute = target.partition(":")
    if not colon:
        close = difflib.get_close_matches(name, SPACES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(SPACES)}."
        raise ImportTableError(f"unknown space {name!r}: {hint} One of your own is 'package.module:Class'")
    if str(Path.cwd()) not in sys.path:  # a console script does not have it there
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        if isinstance(found, SearchSpace):
            return found
        if isinstance(found, type) and issubclass(found, SearchSpace):
            return found()
    except Exception as error:
        raise ImportTableError(f"the space {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    raise ImportTableError(f"{name!r} is {found!r}, not a nasharness.SearchSpace")


def _space_id(space: SearchSpace) -> str:
    """By what `load_space` finds the space again."""
    target = f"{type(space).__module__}:{type(space).__qualname__}"
    if "<locals>" in target or target.startswith("__main__:"):
        raise ImportTableError(
            f"the space {target} has to be in a module of its own, from where it can be loaded again"
        )
    return next((name for name, known in SPACES.items() if known == target), target)


@dataclass(frozen=True)
class ImportReport:
    """What an import found.

    Attributes:
        path: the written file.
        name: of the table.
        space: its id.
        rows: rows of the table.
        architectures: different ones.
        duplicates: rows that repeat another one.
        missing: architectures of the space that have no row; None: the space does not say how many it has.
        failed: architectures whose val_accuracy is NaN: their training failed.
        absent: of each kept column with NaN, how many.
        metrics: further columns that were kept.
        ignored: columns that were not, since they are not numeric or another was taken instead.
        notes: sentences on what to look at twice.
    """

    path: Path
    name: str
    space: str
    rows: int
    architectures: int
    duplicates: int
    missing: int | None
    failed: int
    absent: Mapping[str, int]
    metrics: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report in words."""
        lines = [f"{self.architectures:,} architectures of {self.space} from {self.rows:,} rows"]
        if self.duplicates:
            lines.append(f"{self.duplicates:,} rows repeat another one and were merged")
        if self.missing:
            lines.append(
                f"{self.missing:,} architectures of the space have no row: a search stays within those that have one"
            )
        if self.failed:
            lines.append(f"{self.failed:,} architectures have no val_accuracy: they count as failed trainings")
        lines += [f"{column}: unknown (NaN) for {count:,} architectures" for column, count in self.absent.items()]
        if self.metrics:
            lines.append(f"further metrics: {', '.join(self.metrics)}")
        if self.ignored:
            lines.append(f"ignored columns: {', '.join(self.ignored)}")
        return [*lines, *self.notes]


def import_table(
    space: SearchSpace,
    table: Path,
    target: Path,
    *,
    name: str,
    columns: Mapping[str, str] | None = None,
    percent: bool = False,
    epochs: int = 1,
    search_epochs: int | None = None,
    metrics_only: bool = False,
    fill_seconds: bool = False,
    source: str = "",
    licence: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Turn a CSV or Parquet file into a benchmark file, or with `metrics_only` into a file of metrics.

    The table has one row per architecture. Column `architecture` holds the space's own strings, choices joined by '-', or
    whole numbers where the space has an index. `val_accuracy` and `seconds` are needed; `test_accuracy`,
    `search_val_accuracy`, `search_seconds`, `params` and `flops` are not. Every other numeric column becomes a metric.

    Args:
        space: what the architectures are from.
        table: ends in .csv or .parquet.
        target: the file to write.
        name: of the benchmark.
        columns: from the names above (or a metric's name of your choice) to the names in the table, where they differ.
        percent: the accuracies of the table are in percent.
        epochs: length of the full schedule.
        search_epochs: length of the schedule that `search_val_accuracy` and `search_seconds` are of. None: the full one.
        metrics_only: the table has no accuracies; every numeric column is a metric.
        fill_seconds: where a search would not know what an evaluation costs, charge the mean of those that are known.
        source, licence: where the numbers come from, in words, for the reports.
        progress: called with (rows read, rows in all).

    Raises:
        ImportTableError: a column is missing or holds something else, an architecture is not in the space, two rows of one
            architecture differ, or a value is out of range.
    """
    if epochs < 1 or (search_epochs is not None and not 1 <= search_epochs <= epochs):
        raise ImportTableError(
            f"epochs must be at least 1 and search_epochs in 1..epochs, not {epochs}, {search_epochs}"
        )
    if metrics_only and (percent or fill_seconds or epochs != 1 or search_epochs is not None):
        raise ImportTableError("a table of metrics only has no accuracies, epochs or seconds: leave these options out")
    frame = _read(table)
    if not len(frame):
        raise ImportTableError(f"{table} has no rows")
    frame, ignored = _renamed(frame, columns or {}, metrics_only, table)
    values: dict[str, Floats] = {}
    metrics = []
    for column in frame.columns:
        if column == "architecture":
            continue
        known = column in _KNOWN and not metrics_only
        array = _numbers(frame[column], required=known)
        if array is None:
            ignored.append(column)
            continue
        values[column if known else f"metric.{column}"] = array
        if not known:
            metrics.append(column)
    notes: list[str] = []
    if metrics_only:
        if not metrics:
            raise ImportTableError(f"{table} has no numeric column besides the architecture")
    else:
        _check_values(values, percent, epochs, search_epochs, table, notes)
    keys = _keys(space, frame["architecture"], progress)
    kept = _merge(keys, values, [str(text) for text in frame["architecture"].tolist()])
    order = sorted(kept)
    rows = np.array([kept[key] for key in order], dtype=np.intp)
    values = {column: array[rows] for column, array in values.items()}
    failed = 0 if metrics_only else int(np.isnan(values["val_accuracy"]).sum())
    if not metrics_only:
        notes += _mend_seconds(values, fill_seconds, order, space)
    size = _CLASSES.get(_space_id(space)) if space.canonical_identity else _size(space)
    missing = None if size is None else size - len(order)
    report = ImportReport(
        path=target,
        name=name,
        space=_space_id(space),
        rows=len(frame),
        architectures=len(order),
        duplicates=len(frame) - len(order),
        missing=missing,
        failed=failed,
        absent={
            column.removeprefix("metric."): int(count)
            for column, array in values.items()
            if column != "val_accuracy" and (count := np.isnan(array).sum())
        },
        metrics=tuple(metrics),
        ignored=tuple(ignored),
        notes=tuple(notes),
    )
    if max(space.cardinalities) > np.iinfo(np.int16).max:
        raise ImportTableError(
            f"{space.name} has a dimension of {max(space.cardinalities)} choices; 32,767 is the most"
        )
    with table.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    write_columns(
        target,
        {"arch": np.array(order, dtype=np.int16).reshape(len(order), len(space.cardinalities)), **values},
        kind=METRICS_KIND if metrics_only else BENCHMARK_KIND,
        metadata={
            "name": name,
            "space": report.space,
            "complete": missing == 0,
            "source": source or table.name,
            "source_file": table.name,
            "source_sha256": digest,
            "licence": licence,
            "epochs": epochs,
            "search_epochs": search_epochs or epochs,
            "metrics": metrics,
            "rows": report.rows,
            "architectures": report.architectures,
            "duplicates": report.duplicates,
            "missing": missing,
            "failed": failed,
            "absent": dict(report.absent),
            "notes": notes,
        },
    )
    return report


def _size(space: SearchSpace) -> int | None:
    try:
        return space.size
    except NotImplementedError:
        return None


def _read(table: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        if table.suffix == ".csv":
            frame = pd.read_csv(table)
            header = pd.read_csv(table, header=None, nrows=1, dtype=str).iloc[0]
            if twice := sorted(header[header.duplicated()].dropna()):  # pandas would call the second "NAME.1"
                raise ImportTableError(f"{table} has two columns named {twice[0]!r}: rename or remove one")
            if len(header) == 1 and (found := set(";\t|") & set(str(header[0]))):
                raise ImportTableError(f"{table} has its columns separated by {found.pop()!r}: separate them by commas")
            return frame
        if table.suffix == ".parquet":
            return pd.read_parquet(table)
    except ImportError as error:
        raise ImportTableError(
            f"reading {table} needs pyarrow: pip install 'nasharness[parquet]' (or save the table as CSV)"
        ) from error
    except ImportTableError:
        raise
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        raise ImportTableError(f"{table} cannot be read: {error}") from error
    raise ImportTableError(f"{table} must end in .csv or .parquet")


def _renamed(
    frame: pd.DataFrame, columns: Mapping[str, str], metrics_only: bool, table: Path
) -> tuple[pd.DataFrame, list[str]]:
    """The table under our names, and the columns that lost theirs to another."""
    frame = frame.rename(columns=str)
    for ours, theirs in columns.items():
        if theirs not in frame.columns:
            close = difflib.get_close_matches(theirs, frame.columns, n=1)
            raise ImportTableError(
                f"{table} has no column {theirs!r} (given for {ours})"
                + (f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(frame.columns)}")
            )
    for ours, theirs in columns.items():
        if other := next((o for o, t in columns.items() if t == theirs and o != ours), None):
            raise ImportTableError(
                f"column {theirs!r} of {table} is given for both {ours} and {other}: it can only be one"
            )
    ignored = [c for c in frame.columns if c in columns and columns[c] != c and c not in columns.values()]
    used = set(columns.values())
    renamed = {theirs: theirs for theirs in frame.columns if theirs not in used and theirs not in columns}
    chosen = frame[list(renamed)].copy()
    for ours, theirs in columns.items():
        chosen[ours] = frame[theirs]
    for needed in ("architecture",) if metrics_only else ("architecture", "val_accuracy", "seconds"):
        if needed not in chosen.columns and not (needed == "seconds" and "search_seconds" in chosen.columns):
            close = [c for c in frame.columns if c in needed or needed in c] or difflib.get_close_matches(
                needed, frame.columns, n=1
            )
            raise ImportTableError(
                f"{table} has no column {needed!r}: name the one that holds it with"
                f" --column {needed}={close[0] if close else 'NAME'} (it has {', '.join(map(repr, frame.columns))})"
            )
    return chosen, ignored


def _numbers(column: pd.Series[Any], *, required: bool) -> Floats | None:
    """The column as float64; None if it is not numeric.

    Raises:
        ImportTableError: it is required and not numeric.
    """
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    if column.isna().all():  # an empty column of a CSV file may be of any type
        return np.full(len(column), np.nan)
    if not required:
        return None
    row = int((pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy().argmax())
    raise ImportTableError(f"row {row + 1}: {column.name} is {column.iloc[row]!r}, not a number")


def _check_values(
    values: dict[str, Floats],
    percent: bool,
    epochs: int,
    search_epochs: int | None,
    table: Path,
    notes: list[str],
) -> None:
    """Complete and check the known columns in place."""
    given = [column for column in _SEARCH if column in values]
    if given and search_epochs is None and epochs > 1:
        raise ImportTableError(
            f"{table} has {' and '.join(given)}: say with --search-epochs how many of the {epochs} epochs a search trains"
        )
    if search_epochs is not None and not given:
        raise ImportTableError(
            f"--search-epochs needs a column search_val_accuracy or search_seconds; {table} has none"
        )
    for column in ACCURACIES:
        if column not in values:
            continue
        if percent:
            values[column] = values[column] / 100
        array = values[column]
        wrong = ~(np.isnan(array) | ((array >= 0) & (array <= 1)))
        if wrong.any():
            row = int(wrong.argmax())
            shown = array[row] * 100 if percent else array[row]
            hint = "; --percent is for accuracies in percent" if not percent and 1 < array[row] <= 100 else ""
            raise ImportTableError(
                f"row {row + 1}: {column} is {shown:g}, which is not in 0..{100 if percent else 1}{hint}"
            )
        if percent and np.nanmax(array, initial=0) <= 0.01:
            notes.append(f"no {column} is above 1 percent: is the table really in percent?")
    for column in ("seconds", "search_seconds", *_COUNTS):
        if column in values:
            array = values[column]
            wrong = ~(np.isnan(array) | ((array >= 0) & np.isfinite(array)))
            if wrong.any():
                row = int(wrong.argmax())
                raise ImportTableError(f"row {row + 1}: {column} is {array[row]:g}; it must be finite and not negative")
    for column in _COUNTS:
        if column in values and 0 < np.nanmax(values[column], initial=0) < 1000:
            largest = np.nanmax(values[column])
            notes += [f"the largest {column} is {largest:g}: {column} are plain counts, not millions"]
    for column in ("test_accuracy", "seconds"):
        if column not in values:
            values[column] = np.full(len(values["val_accuracy"]), np.nan)
            notes.append(f"the table has no {column}: reports cannot say it")
    if np.isnan(values["val_accuracy"]).all():
        raise ImportTableError(f"{table}: no row has a val_accuracy")


def _mend_seconds(
    values: dict[str, Floats], fill: bool, order: Sequence[Architecture], space: SearchSpace
) -> list[str]:
    """See that a search knows the cost of every evaluation that succeeds; what was done, in words."""
    column = "search_seconds" if "search_seconds" in values else "seconds"
    seen = values["search_val_accuracy"] if "search_val_accuracy" in values else values["val_accuracy"]
    unknown = np.isnan(values[column]) & ~np.isnan(seen)
    if not unknown.any():
        return []
    example = space.to_string(order[int(unknown.argmax())])
    if not fill:
        raise ImportTableError(
            f"{unknown.sum():,} architectures have an accuracy but no {column}, such as {example}: a search would not know"
            " what they cost. Remove their rows, or charge the mean of the others with --fill-seconds"
        )
    known = values[column][~np.isnan(values[column])]
    if not len(known):
        raise ImportTableError(f"no architecture has {column}: there is no mean to charge")
    if column == "seconds":  # the column itself stays as it is: reports must not show what was filled in
        values["search_seconds"] = values["seconds"].copy()
    values["search_seconds"][unknown] = known.mean()
    return [
        f"{unknown.sum():,} architectures had no {column}: a search is charged the mean of the others, {known.mean():.6g} s"
    ]


def _keys(
    space: SearchSpace, architectures: pd.Series[Any], progress: Callable[[int, int], None] | None
) -> list[Architecture]:
    """The architecture of each row; canonical where the space has canonical identity."""
    import pandas as pd

    integers = pd.api.types.is_integer_dtype(architectures)
    from_index = getattr(space, "from_index", None)
    if integers and from_index is None and len(space.cardinalities) > 1:
        raise ImportTableError(
            f"the architectures are whole numbers, but {space.name} has no index: write strings or choices joined by '-'"
        )
    keys: list[Architecture] = []
    for row, value in enumerate(architectures.tolist()):
        try:
            if integers:
                arch = space.check(from_index(value) if from_index is not None else (value,))
            elif not isinstance(value, str):
                raise InvalidArchitecture(f"{value!r} is neither a string nor a whole number")
            else:
                arch = _parse(space, value.strip())
        except ValueError as error:
            raise ImportTableError(f"row {row + 1}: {error}") from error
        keys.append(space.identity(arch))
        if progress is not None and (row % 1000 == 999 or row + 1 == len(architectures)):
            progress(row + 1, len(architectures))
    return keys


def _parse(space: SearchSpace, text: str) -> Architecture:
    if _CHOICES.fullmatch(text) and text.count("-") + 1 == len(space.cardinalities):
        return space.check(tuple(int(choice) for choice in text.split("-")))
    return space.check(space.from_string(text))


def _merge(keys: list[Architecture], values: Mapping[str, Floats], texts: list[str]) -> dict[Architecture, int]:
    """The first row of each architecture.

    Raises:
        ImportTableError: two rows of one architecture differ.
    """
    first: dict[Architecture, int] = {}
    for row, key in enumerate(keys):
        other = first.setdefault(key, row)
        if other != row:
            for column, array in values.items():
                if array[row] != array[other] and not (math.isnan(array[row]) and math.isnan(array[other])):
                    raise ImportTableError(
                        f"rows {other + 1} and {row + 1} are the same architecture, {texts[row]}, but differ in"
                        f" {column.removeprefix('metric.')}: {array[other]:.10g} and {array[row]:.10g}."
                        " Average them, or remove one"
                    )
    return first


class _Box(SearchSpace):
    """All choice vectors of a space: its ranks without its constraint."""

    def __init__(self, space: SearchSpace) -> None:
        self.name, self.cardinalities = space.name, space.cardinalities


class _Rows:
    """Where each architecture's row is: in an array by lexicographic rank if the space is small, in a dict otherwise.

    A dict is faster for one architecture, an array for many; a small table has both.
    """

    def __init__(self, space: SearchSpace, archs: npt.NDArray[np.integer]) -> None:
        self.by_class = space.canonical_identity
        self.space, self.box = space, _Box(space)
        self.members: list[Architecture] = list(map(tuple, archs.tolist()))
        self.of_rank: npt.NDArray[np.int32] | None = None
        self.of_arch: dict[Architecture, int] = {}
        if not self.by_class and math.prod(space.cardinalities) <= _SMALL:
            self.of_rank = np.full(math.prod(space.cardinalities), -1, dtype=np.int32)
            self.of_rank[self.box.ranks(archs)] = np.arange(len(archs))
            self.item = self.of_rank.item
        if self.of_rank is None or len(archs) <= _FEW:
            self.of_arch = {arch: row for row, arch in enumerate(self.members)}

    def one(self, arch: Architecture) -> int:
        """The row of one architecture, or -1."""
        if self.by_class:
            return self.of_arch.get(self.space.canonical(arch), -1)
        if self.of_arch:
            return self.of_arch.get(arch, -1)
        rank = 0
        for choice, n in zip(arch, self.box.cardinalities, strict=True):
            if not 0 <= choice < n:
                return -1
            rank = rank * n + choice
        return self.item(rank)

    def many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        """The rows of many architectures, -1 where there is none.

        Raises:
            InvalidArchitecture: a choice is out of range, or the shape is wrong.
        """
        if self.of_rank is not None:
            return self.of_rank[self.box.ranks(archs)].astype(np.intp)
        plain = [self.box.check(arch) for arch in archs]
        return np.fromiter((self.one(arch) for arch in plain), dtype=np.intp, count=len(plain))


class ImportedBenchmark(Benchmark):
    """A benchmark over an imported table: one training run per architecture.

    A query without `epochs`, or with `search_epochs`, answers what a search sees: `search_val_accuracy` and
    `search_seconds` where the table has them, else those of the full schedule. There is nothing in between, so every other
    number of epochs is refused, and a learning curve is NaN but for its end. A failed training (NaN) costs its seconds, or
    nothing where they are unknown.

    Args:
        columns: an opened file of kind "imported".
        space: the full space.

    Attributes:
        search_epochs: epochs behind a query.
        report: the metadata of the import.
    """

    def __init__(self, columns: Columns, space: SearchSpace) -> None:
        self.report = columns.metadata
        self.id = str(self.report["name"])
        self.max_epochs = int(self.report["epochs"])
        self.search_epochs = int(self.report["search_epochs"])
        self.image_shape = (3, 32, 32) if self.network_settings else None  # of the official benchmarks of our spaces
        self._rows = _Rows(space, columns["arch"])
        self.space = space if self.report["complete"] else Subspace(space, self._rows.members, checked=True)
        n = len(columns["arch"])
        self._final = Final(
            *(
                np.asarray(columns[c]) if c in columns else np.full(n, np.nan)
                for c in ("val_accuracy", "test_accuracy", "seconds", *_COUNTS)
            )
        )
        self._further = {metric: columns[f"metric.{metric}"] for metric in self.report["metrics"]}
        self.metrics = (*(c for c in _COUNTS if c in columns), *self._further)
        self._val = np.asarray(columns.get("search_val_accuracy", self._final.val_accuracy))
        cost = np.asarray(columns.get("search_seconds", self._final.seconds))
        self._cost = np.where(np.isnan(cost), 0.0, cost)  # unknown only where the training failed
        # Plain lists: one look-up is several times faster than indexing an array.
        self._values: list[float] = self._val.tolist()
        self._costs: list[float] = self._cost.tolist()
        self._blank = np.full(self.search_epochs - 1, np.nan, dtype=np.float32).tobytes()
        self._ends = self._val.astype(np.float32).tobytes()
        self._one = self._rows.one
        self.info = Info(
            id=self.id,
            source=str(self.report["source"]),
            licence=str(self.report["licence"]),
            sha256=columns.sha256,
            caution=self._caution(),
            details={**self.report, "path": str(columns.path.resolve())},
        )

    def _caution(self) -> str:
        sentences = []
        if isinstance(self.space, Subspace):
            sentences.append(self.space.caution)
        sentences += [f"{note[0].upper()}{note[1:]}." for note in self.report["notes"] if "charged the mean" in note]
        return " ".join(sentences)

    @property
    def fidelities(self) -> tuple[int, ...]:
        return (self.search_epochs,)

    def query(
        self,
        arch: Architecture,
        epochs: int | None = None,
        rng: np.random.Generator | None = None,  # noqa: ARG002  there is one run to choose from
    ) -> Evaluation:
        if epochs is not None:
            self._check_epochs(epochs)
        try:
            row = self._one(arch)
        except (ValueError, TypeError, IndexError):
            row = -1
        if row < 0:
            row = int(self._found([self.space.check(arch)])[0])  # a list will do; else this says what is wrong with it
        # An array over bytes is read-only and leads nowhere else.
        curve = np.frombuffer(self._blank + self._ends[4 * row : 4 * row + 4], dtype=np.float32)
        return Evaluation(self._values[row], self._costs[row], self.search_epochs, curve)

    def _check_epochs(self, epochs: int) -> None:
        if isinstance(epochs, bool) or epochs != self.search_epochs:
            raise ValueError(
                f"{self.id} knows what a search sees after {self.search_epochs} epochs only, not after {epochs!r}"
            )

    def _found(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
        rows = self._rows.many(archs)
        if len(rows) and rows.min() < 0:
            self.space.check(archs[int(rows.argmin())])
            raise InvalidArchitecture(f"{self.id} has no row for {archs[int(rows.argmin())]!r}")
        return rows

    def query_many(
        self,
        archs: Sequence[Architecture] | npt.NDArray[np.integer],
        epochs: int | None = None,
        rng: np.random.Generator | None = None,  # noqa: ARG002
    ) -> Evaluations:
        if epochs is not None:
            self._check_epochs(epochs)
        rows = self._found(archs)
        return Evaluations(self._val[rows], self._cost[rows])

    def final_many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Final:
        rows = self._found(archs)
        return Final(*(column[rows] for column in self._final))

    def metric(self, name: str, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Floats:
        if name in self._further:
            return np.asarray(self._further[name])[self._found(archs)]
        return super().metric(name, archs)

    def curve(self, arch: Architecture, seed: int | None = None) -> Curve:
        """The full schedule's end; all else is NaN."""
        if seed not in (None, 0):
            raise ValueError(f"{self.id} has one training run per architecture, 0, not {seed!r}")
        row = self._found([self.space.check(arch)])[0]
        empty = np.full(self.max_epochs, np.nan, dtype=np.float32)
        val_accuracy, seconds = empty.copy(), empty.copy()
        val_accuracy[-1], seconds[-1] = self._final.val_accuracy[row], self._final.seconds[row]
        return Curve(empty, empty.copy(), empty.copy(), val_accuracy, seconds)

    @functools.cached_property
    def _optimum(self) -> Final:
        return best_of(self._final)

    @property
    def optimum(self) -> Final:
        """The best value of each field over the table; NaN where the table does not have it."""
        return self._optimum

    def network(self, arch: Architecture, **settings: Any) -> nn.Module:
        """See `Benchmark.network`: only spaces with an id of their own have networks.

        The table does not say how its networks were built: without settings they are those of the official benchmark.
        """
        from .networks.factory import build_network

        if not self.network_settings:
            return super().network(arch, **settings)
        return build_network(self.report["space"], arch, **settings)

    @property
    def network_settings(self) -> Mapping[str, Any]:
        from .networks.factory import SETTINGS

        return SETTINGS.get(self.report["space"], {})


class MetricTable:
    """Metrics of architectures without their accuracies, such as latencies measured on several devices.

    Attributes:
        space: what the architectures are from.
        names: of the metrics.
    """

    def __init__(self, columns: Columns, space: SearchSpace) -> None:
        self.space = space
        self.names: tuple[str, ...] = tuple(columns.metadata["metrics"])
        self.sha256 = columns.sha256
        self._columns = {name: columns[f"metric.{name}"] for name in self.names}
        self._rows = _Rows(space, columns["arch"])

    def lookup(self, name: str, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Floats:
        """One metric of many architectures, float64 `(n,)`; NaN where the table has no row.

        Raises:
            ValueError: there is no metric of this name.
            InvalidArchitecture: a choice is out of range.
        """
        if name not in self._columns:
            raise ValueError(f"the table has no metric {name!r}; it has {', '.join(self.names)}")
        rows = self._rows.many(archs)
        return np.where(rows >= 0, self._columns[name][rows], np.nan)


def open_imported(path: Path, *, space: SearchSpace | None = None) -> ImportedBenchmark:
    """Open a file that `import_table` wrote.

    Args:
        path: the file.
        space: what its architectures are from. None: the space that the file names, which is imported if it is one of a
            user's own.

    Raises:
        TableError: the file is missing, damaged or foreign.
        ImportTableError: its space cannot be loaded.
    """
    return ImportedBenchmark(*_open(path, BENCHMARK_KIND, space))


def open_metrics(path: Path, *, space: SearchSpace | None = None) -> MetricTable:
    """Open a file that `import_table` wrote with `metrics_only`; as `open_imported`."""
    return MetricTable(*_open(path, METRICS_KIND, space))


def _open(path: Path, kind: str, space: SearchSpace | None) -> tuple[Columns, SearchSpace]:
    columns = open_columns(path, kind=kind)
    if missing := {"name", "space", "metrics", "complete", "epochs", "search_epochs"} - set(columns.metadata):
        raise TableError(f"{path} is damaged: it does not say its {', '.join(sorted(missing))}")
    space = load_space(columns.metadata["space"]) if space is None else space
    shape = columns["arch"].shape if "arch" in columns else ()
    if len(shape) != 2 or shape[1] != len(space.cardinalities):
        raise TableError(f"{path} does not fit {space.name}: its architectures are of shape {shape}")
    for name, column in columns.items():
        if name != "arch" and column.shape != shape[:1]:
            raise TableError(f"{path} is damaged: column {name} is of shape {column.shape}, there are {shape[0]} rows")
    return columns, space


def verify(columns: Columns) -> list[tuple[str, bool]]:
    """What must hold of an imported file: (fact, holds)."""
    space = load_space(columns.metadata["space"])
    archs = list(map(tuple, columns["arch"].tolist()))
    facts = [
        (f"{len(archs):,} architectures, as recorded", len(archs) == columns.metadata["architectures"]),
        (f"every one is in {space.name}", all(map(space.is_valid, archs))),
        ("they are sorted, and none is there twice", all(a < b for a, b in itertools.pairwise(archs))),
    ]
    if space.canonical_identity:
        facts.append(("each is canonical", all(space.canonical(arch) == arch for arch in archs)))
    for column in ACCURACIES:
        if column in columns:
            array = columns[column]
            facts.append(
                (f"{column} is a fraction or NaN", bool((np.isnan(array) | ((array >= 0) & (array <= 1))).all()))
            )
    return facts
