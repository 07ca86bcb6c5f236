"""Tables of one's own: what is read, what is refused, and what the benchmark answers."""

import math
import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nasharness
from nasharness.benchmarks import imported
from nasharness.benchmarks.columns import TableError, open_columns, write_columns
from nasharness.benchmarks.imported import (
    ImportTableError,
    import_table,
    load_space,
    open_imported,
    open_metrics,
    verify,
)
from nasharness.benchmarks.spaces.base import InvalidArchitecture, SearchSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.subspace import Subspace


class Widths(SearchSpace):
    name = "widths"
    cardinalities = (2, 3)


class Bags(SearchSpace):
    """The order of the letters does not matter."""

    name = "bags"
    cardinalities = (3, 3)
    canonical_identity = True

    def canonical(self, arch):
        return tuple(sorted(arch))


ALL = list(Widths())
NAN = math.nan


def table(rows=ALL, **columns):
    """A good table of the whole space, with these columns instead of or beside the usual ones."""
    n = len(rows)
    usual = {
        "architecture": ["-".join(map(str, arch)) for arch in rows],
        "val_accuracy": np.linspace(0.5, 0.9, n),
        "test_accuracy": np.linspace(0.45, 0.8, n)[::-1],
        "seconds": np.arange(n) + 100.0,
    }
    return pd.DataFrame({name: column for name, column in {**usual, **columns}.items() if column is not None})


@pytest.fixture
def bring(tmp_path):
    """Writes a frame as CSV, imports it, and returns report and opened file."""

    def run(frame, space=None, suffix=".csv", **options):
        space = space or Widths()
        source = tmp_path / f"table{suffix}"
        if suffix == ".csv":
            frame.to_csv(source, index=False)
        else:
            frame.to_parquet(source)
        report = import_table(space, source, tmp_path / "mine.safetensors", name="mine", **options)
        opened = (open_metrics if options.get("metrics_only") else open_imported)(report.path, space=space)
        return report, opened

    return run


def refused(bring, frame, message, **options):
    with pytest.raises(ImportTableError, match=message):
        bring(frame, **options)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_complete_table(bring, suffix):
    """Every number comes back, by query, by many, as final and as curve."""
    frame = table(params=range(1000, 1006), flops=np.arange(6) * 1e5 + 1e6, latency=[1.5, 2, 3, 4, 5, 6]).sample(
        frac=1, random_state=1
    )
    report, benchmark = bring(frame, suffix=suffix, epochs=7)
    assert (report.architectures, report.duplicates, report.missing, report.failed) == (6, 0, 0, 0)
    assert report.metrics == ("latency",)
    assert report.notes == ()
    assert type(benchmark.space) is Widths
    assert (benchmark.id, benchmark.max_epochs, benchmark.metrics) == ("mine", 7, ("params", "flops", "latency"))
    for row in frame.itertuples():
        arch = tuple(map(int, row.architecture.split("-")))
        value, seconds, epochs, curve = benchmark.query(arch)
        assert (value, seconds, epochs) == (row.val_accuracy, row.seconds, 7)
        assert curve.shape == (7,)
        assert curve.dtype == np.float32
        assert np.isnan(curve[:-1]).all()
        assert curve[-1] == np.float32(value)
        assert not curve.flags.writeable
        assert benchmark.query(list(arch), 7).val_accuracy == value
        assert benchmark.query(np.array(arch)).val_accuracy == value
        final = benchmark.final(arch)
        assert final == (row.val_accuracy, row.test_accuracy, row.seconds, row.params, row.flops)
        full = benchmark.curve(arch)
        assert [len(column) for column in full] == [7] * 5
        assert full.val_accuracy[-1] == np.float32(row.val_accuracy)
        assert full.seconds[-1] == np.float32(row.seconds)
        assert np.isnan(full.train_loss).all()
        assert np.isnan(full.val_accuracy[:-1]).all()
        assert benchmark.metric("latency", [arch])[0] == row.latency
        assert benchmark.metric("params", [arch])[0] == row.params
    many = benchmark.query_many(np.array(ALL), 7)
    assert many.val_accuracy.tolist() == [benchmark.query(arch).val_accuracy for arch in ALL]
    assert many.seconds.tolist() == [benchmark.query(arch).seconds for arch in ALL]
    assert benchmark.optimum == (0.9, 0.8, 100, 1000, 1e6)
    with pytest.raises(ValueError, match="no metric 'energy'"):
        benchmark.metric("energy", ALL)


def test_a_table_of_whole_numbers_is_an_index(bring):
    """Where the space has one, an integer is a position in the official files."""
    cells = NASBench201Space()
    frame = table(architecture=[5, 3, 15624, 0, 77, 1])
    report, benchmark = bring(frame, space=cells)
    assert report.missing == 15_619
    assert benchmark.query(cells.from_index(15624)).seconds == 102
    assert list(benchmark.space) == sorted(map(cells.from_index, [5, 3, 15624, 0, 77, 1]))
    refused(bring, frame, "widths has no index")
    refused(bring, table(architecture=[5, 3, 15625, 0, 77, 1]), "row 3: index 15625", space=cells)


def test_strings_in_the_spaces_grammar(bring):
    """And choices joined by '-' where the space has a grammar of its own."""
    cells = NASBench201Space()
    archs = [cells.from_index(i) for i in range(6)]
    strings = [cells.to_string(arch) for arch in archs[:3]] + ["-".join(map(str, arch)) for arch in archs[3:]]
    _, benchmark = bring(table(architecture=strings), space=cells)
    assert [benchmark.query(arch).seconds for arch in archs] == [100, 101, 102, 103, 104, 105]


def test_a_cheaper_schedule_for_the_search(bring):
    """What a search sees and pays, and what a report uses, are two pairs of columns; each search column may come alone."""
    search = {"search_val_accuracy": np.linspace(0.1, 0.2, 6), "search_seconds": np.arange(6) + 1.0}
    _, both = bring(table(**search), epochs=200, search_epochs=12)
    assert both.query((0, 0))[:3] == (0.1, 1.0, 12)
    assert both.query((0, 0), 12).curve.shape == (12,)
    assert both.final((0, 0))[:3] == (0.5, 0.8, 100)
    assert both.curve((0, 0)).val_accuracy[-1] == np.float32(0.5)
    assert both.max_epochs == 200
    for epochs in (1, 11, 200, 0, True):
        with pytest.raises(ValueError, match="after 12 epochs only"):
            both.query((0, 0), epochs)
        with pytest.raises(ValueError, match="after 12 epochs only"):
            both.query_many([(0, 0)], epochs)
    _, value = bring(table(search_val_accuracy=search["search_val_accuracy"]), epochs=200, search_epochs=12)
    assert value.query((0, 0))[:3] == (0.1, 100.0, 12)
    _, cost = bring(table(search_seconds=search["search_seconds"]), epochs=200, search_epochs=12)
    assert cost.query((0, 0))[:3] == (0.5, 1.0, 12)
    assert cost.final((0, 0)).seconds == 100
    report, free = bring(table(search_seconds=search["search_seconds"], seconds=None), epochs=200, search_epochs=12)
    assert math.isnan(free.final((0, 0)).seconds)
    assert "the table has no seconds: reports cannot say it" in report.lines()
    refused(bring, table(**search), "say with --search-epochs", epochs=200)
    refused(bring, table(), "needs a column search_val_accuracy", epochs=200, search_epochs=12)
    refused(bring, table(**search), "search_epochs in 1..epochs", epochs=10, search_epochs=12)


def test_percent(bring):
    """All accuracies are divided, and nothing else; without the option the hint names it."""
    percents = {
        "val_accuracy": [50.0, 60, 70, 80, 90, 100],
        "test_accuracy": [1.0] * 6,
        "search_val_accuracy": [10.0] * 6,
    }
    report, benchmark = bring(table(**percents, score=[50.0] * 6), percent=True)
    assert benchmark.query((0, 0)).val_accuracy == 0.1
    assert benchmark.final((1, 2))[:3] == (1.0, 0.01, 105)
    assert benchmark.metric("score", [(0, 0)])[0] == 50
    assert "no test_accuracy is above 1 percent: is the table really in percent?" in report.lines()
    refused(bring, table(**percents), "row 1: val_accuracy is 50, which is not in 0..1; --percent")
    refused(bring, table(val_accuracy=[0.5, 0.5, 101, 1, 1, 1]), "row 3: val_accuracy is 101, which is not in 0..1$")
    refused(
        bring, table(val_accuracy=[50, 50, 101, 1, 1, 1]), "row 3: .* is 101, which is not in 0..100$", percent=True
    )
    refused(bring, table(test_accuracy=[0.5, -0.1, 1, 1, 1, 1]), "row 2: test_accuracy is -0.1")
    refused(bring, table(val_accuracy=[0.5, np.inf, 1, 1, 1, 1]), "row 2: val_accuracy is inf")


def test_counts_in_millions_are_pointed_out(bring):
    """They are not changed, but the largest value gives them away."""
    report, _ = bring(table(params=np.linspace(0.1, 1.5, 6), flops=np.linspace(1, 200, 6)))
    assert report.notes == (
        "the largest params is 1.5: params are plain counts, not millions",
        "the largest flops is 200: flops are plain counts, not millions",
    )


def test_failed_trainings(bring):
    """NaN is seen as NaN; its seconds are charged where they are known."""
    frame = table(val_accuracy=[NAN, NAN, 0.7, 0.6, 0.5, 0.4], seconds=[10, NAN, 1, 2, 3, 4])
    report, benchmark = bring(frame)
    assert report.failed == 2
    assert "2 architectures have no val_accuracy: they count as failed trainings" in report.lines()
    assert "seconds: unknown (NaN) for 1 architectures" in report.lines()
    failed = benchmark.query((0, 0))
    assert math.isnan(failed.val_accuracy)
    assert math.isnan(failed.curve[-1])
    assert failed.seconds == 10
    assert benchmark.query((0, 1)).seconds == 0
    assert benchmark.query_many([(0, 0), (0, 1)]).seconds.tolist() == [10, 0]
    assert benchmark.optimum.val_accuracy == 0.7
    assert benchmark.optimum.seconds == 1
    assert math.isnan(benchmark.optimum.params)
    refused(bring, table(val_accuracy=[NAN] * 6), "no row has a val_accuracy")


def test_an_unknown_cost_is_never_free(bring):
    """Refused, or with the option charged at the mean and said in every report."""
    frame = table(seconds=[10, NAN, 20, 30, 40, NAN])
    refused(bring, frame, "2 architectures have an accuracy but no seconds, such as 0-1.*--fill-seconds")
    report, benchmark = bring(frame, fill_seconds=True)
    assert benchmark.query((0, 1)).seconds == 25
    assert benchmark.query((0, 0)).seconds == 10
    assert math.isnan(benchmark.final((0, 1)).seconds)
    assert "2 architectures had no seconds: a search is charged the mean of the others, 25 s" in report.notes
    assert "charged the mean of the others, 25 s" in benchmark.info.caution
    refused(bring, table(seconds=[NAN] * 6), "there is no mean to charge", fill_seconds=True)


def test_missing_test_accuracy(bring):
    """A table without it can be searched, and says so."""
    report, benchmark = bring(table(test_accuracy=None))
    assert "the table has no test_accuracy: reports cannot say it" in report.lines()
    assert math.isnan(benchmark.final((0, 0)).test_accuracy)
    assert math.isnan(benchmark.optimum.test_accuracy)
    assert benchmark.metrics == ()


def test_part_of_a_space(bring):
    """The space shrinks to the table, and the reports say so."""
    rows = [(0, 0), (0, 2), (1, 2)]
    report, benchmark = bring(table(rows))
    assert report.missing == 3
    assert isinstance(benchmark.space, Subspace)
    assert list(benchmark.space) == rows
    assert "3 architectures of widths and not all" in benchmark.info.caution
    for call in (benchmark.query, lambda a: benchmark.query_many([a]), benchmark.final, benchmark.curve):
        with pytest.raises(InvalidArchitecture, match="not one of the 3 that are in this table"):
            call((1, 1))
        with pytest.raises(InvalidArchitecture, match="choice 3 in dimension 1"):
            call((1, 3))
    with pytest.raises(InvalidArchitecture, match="has 3 choices"):
        benchmark.query((1, 1, 1))
    with pytest.raises(InvalidArchitecture, match="must be an int"):
        benchmark.query((1.5, 1))
    assert len(benchmark.query_many([]).seconds) == 0


def test_duplicates(bring):
    """Equal rows are merged and counted, also where both are NaN; different ones are refused with both row numbers."""
    frame = table(val_accuracy=[0.5, NAN, 0.6, 0.7, 0.8, 0.9])
    report, benchmark = bring(pd.concat([frame, frame.iloc[[1, 4]]]))
    assert (report.rows, report.architectures, report.duplicates) == (8, 6, 2)
    assert "2 rows repeat another one and were merged" in report.lines()
    assert benchmark.query((1, 1)).val_accuracy == 0.8
    other = frame.iloc[[4]].assign(seconds=1.0)
    refused(
        bring,
        pd.concat([frame, other]),
        "rows 5 and 7 are the same architecture, 1-1, but differ in seconds: 104 and 1",
    )


def test_a_class_is_one_architecture(bring):
    """Where the space says so, isomorphic rows are duplicates and every member of a class finds its row."""
    rows = [(1, 0), (2, 2), (2, 1), (0, 0)]
    report, benchmark = bring(table(rows), space=Bags())
    assert report.architectures == 4
    assert list(benchmark.space) == [(0, 0), (0, 1), (1, 2), (2, 2)]
    assert benchmark.query((0, 1))[:2] == benchmark.query((1, 0))[:2]
    assert benchmark.query((1, 2)).seconds == 102
    assert benchmark.query_many(np.array([(1, 2), (2, 1), (0, 0)])).seconds.tolist() == [102, 102, 103]
    with pytest.raises(InvalidArchitecture, match="not one of the 4"):
        benchmark.query((2, 0))
    refused(bring, table([(1, 0), (0, 1)]), "rows 1 and 2 are the same architecture", space=Bags())


def test_part_of_nasbench101(bring, monkeypatch):
    """Cells in the dataset's spelling; every vector of a cell finds its row, and what is missing is counted in cells."""
    space, rng = NASBench101Space(), np.random.default_rng(0)
    archs = [space.sample(rng) for _ in range(5)]
    report, benchmark = bring(table(archs, architecture=[space.to_string(arch) for arch in archs]), space=space)
    assert (report.space, report.architectures, report.missing) == ("nasbench101", 5, 423_619)
    assert [benchmark.query(arch).seconds for arch in archs] == [100, 101, 102, 103, 104]
    assert list(benchmark.space) == sorted(map(space.canonical, archs))
    assert benchmark.space.is_valid(benchmark.space.mutate(archs[0], rng))


def test_columns_by_other_names(bring):
    """--column maps ours to theirs, for metrics, too; a column that loses its name is said to be ignored."""
    frame = table(seconds=None).rename(columns={"architecture": "arch", "val_accuracy": "acc"})
    frame = frame.assign(val_accuracy=0.0, time=7.0, comment="x", ms=3.0)
    columns = {"architecture": "arch", "val_accuracy": "acc", "seconds": "time", "latency": "ms"}
    report, benchmark = bring(frame, columns=columns)
    assert benchmark.query((0, 0))[:2] == (0.5, 7)
    assert report.metrics == ("latency",)
    assert report.ignored == ("val_accuracy", "comment")
    assert "ignored columns: val_accuracy, comment" in report.lines()
    refused(bring, frame, "has no column 'tme' .*did you mean 'time'", columns={**columns, "seconds": "tme"})
    refused(bring, frame, "no column 'architecture': .*--column architecture=arch")
    both = {**columns, "test_accuracy": "acc"}  # a validation accuracy is no test accuracy
    refused(bring, frame, "column 'acc' .* is given for both val_accuracy and test_accuracy", columns=both)
    refused(bring, table(seconds=None), "no column 'seconds': .*--column seconds=")
    refused(bring, table(val_accuracy=None), "no column 'val_accuracy': .*--column val_accuracy=")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"architecture": ["0-0", "0-1", "0-9", "1-0", "1-1", "1-2"]}, "row 3: .*choice 9"),
        ({"architecture": ["0-0", "0-1", "what", "1-0", "1-1", "1-2"]}, "row 3: 'what' is not an architecture string"),
        ({"architecture": ["0-0", "0-1", None, "1-0", "1-1", "1-2"]}, "row 3: nan is neither"),
        ({"val_accuracy": [0.1, 0.2, "0,3", 0.4, 0.5, 0.6]}, "row 3: val_accuracy is '0,3', not a number"),
        ({"seconds": [1, -2, 3, 4, 5, 6]}, "row 2: seconds is -2"),
        ({"seconds": [1, 2, np.inf, 4, 5, 6]}, "row 3: seconds is inf"),
        ({"params": [1, 2, 3, -4, 5, 6]}, "row 4: params is -4"),
    ],
)
def test_rows_that_are_wrong(bring, columns, message):
    """The number of the row, and the value."""
    refused(bring, table(**columns), message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("architecture,val_accuracy,val_accuracy,seconds\n0-0,.5,.6,1\n", "two columns named 'val_accuracy'"),
        ("architecture;val_accuracy;seconds\n0-0;.5;1\n", "columns separated by ';': separate them by commas"),
    ],
)
def test_headers_that_are_wrong(tmp_path, text, message):
    """Nothing is guessed: which of two columns was meant, and what separates them."""
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ImportTableError, match=message):
        import_table(Widths(), tmp_path / "t.csv", tmp_path / "x.safetensors", name="x")


def test_files_that_are_wrong(tmp_path):
    """A missing file, a wrong suffix, no rows, nothing at all, and no Parquet."""
    target = tmp_path / "x.safetensors"

    def run(source, **options):
        return import_table(Widths(), source, target, name="x", **options)

    with pytest.raises(FileNotFoundError):
        run(tmp_path / "none.csv")
    for name, content, message in [
        ("a.txt", "x", "must end in .csv or .parquet"),
        ("b.csv", "architecture,val_accuracy,seconds\n", "has no rows"),
        ("c.csv", "", "cannot be read"),
        ("d.parquet", "not parquet", "cannot be read"),
        ("e.csv", 'a,b\n"1,2\n', "cannot be read|no column"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(ImportTableError, match=message):
            run(tmp_path / name)
    assert not target.exists()
    with pytest.raises(ImportTableError, match="epochs must be at least 1"):
        run(tmp_path / "a.csv", epochs=0)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    """The command that installs it."""
    table().to_parquet(tmp_path / "a.parquet")
    for module in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises ImportError
    with pytest.raises(ImportTableError, match=r"pip install 'nasharness\[parquet\]'"):
        import_table(Widths(), tmp_path / "a.parquet", tmp_path / "x.safetensors", name="x")


def test_metrics_only(bring):
    """A table of metrics, that another benchmark takes over; NaN where it has no row."""
    rows = [(0, 0), (1, 1), (1, 2)]
    frame = pd.DataFrame(
        {"architecture": ["0-0", "1-1", "1-2"], "ms": [1.0, 2, NAN], "mj": [4, 5, 6], "x": list("abc")}
    )
    report, metrics = bring(frame, metrics_only=True)
    assert report.metrics == metrics.names == ("ms", "mj")
    assert report.ignored == ("x",)
    assert report.absent == {"ms": 1}
    assert metrics.lookup("mj", rows).tolist() == [4, 5, 6]
    found = metrics.lookup("ms", [(1, 1), (0, 1), (1, 2), (0, 0)])
    assert found.dtype == np.float64
    assert np.array_equal(found, [2, NAN, NAN, 1], equal_nan=True)
    with pytest.raises(ValueError, match="no metric 's'; it has ms, mj"):
        metrics.lookup("s", rows)
    with pytest.raises(InvalidArchitecture):
        metrics.lookup("ms", [(9, 9)])
    with pytest.raises(TableError, match="kind 'imported-metrics'"):
        open_imported(report.path, space=Widths())
    refused(bring, frame[["architecture", "x"]], "no numeric column", metrics_only=True)
    refused(bring, frame, "leave these options out", metrics_only=True, percent=True)


def test_metrics_are_attached(bring):
    """A benchmark takes over the metrics of its space."""
    report, metrics = bring(table(val_accuracy=None, seconds=None, test_accuracy=None, ms=range(6)), metrics_only=True)
    assert report.missing == 0
    _, benchmark = bring(table())
    benchmark.attach(metrics)
    assert benchmark.metrics == ("ms",)
    assert benchmark.metric("ms", [(1, 2), (0, 1)]).tolist() == [5, 1]


def test_the_space_is_found_again(tmp_path, monkeypatch):
    """A registered space by its id, one's own by module and class, also from the current folder."""
    (tmp_path / "my_spaces_for_import.py").write_text(
        "from nasharness.benchmarks.spaces.base import SearchSpace\n"
        "class Mine(SearchSpace):\n    name = 'mine'\n    cardinalities = (2, 3)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    space = load_space("my_spaces_for_import:Mine")
    table().to_csv("t.csv", index=False)
    report = import_table(space, tmp_path / "t.csv", tmp_path / "m.safetensors", name="m")
    assert report.space == "my_spaces_for_import:Mine"
    assert open_imported(report.path).query((1, 2)).seconds == 105
    assert all(holds for _, holds in verify(open_columns(report.path)))
    assert type(load_space("nasbench201")) is NASBench201Space
    for name, message in [
        ("nasbench21", "did you mean nasbench201"),
        ("xyz", "known: nasbench101, nasbench201"),
        ("no_such_module:Space", "cannot be loaded: ModuleNotFoundError"),
        ("my_spaces_for_import:Yours", "cannot be loaded: AttributeError"),
        ("math:pi", "not a nasharness.SearchSpace"),
        ("nasharness.benchmarks.spaces.subspace:Subspace", "cannot be loaded: TypeError"),
    ]:
        with pytest.raises(ImportTableError, match=message):
            load_space(name)

    class Local(SearchSpace):
        name = "local"
        cardinalities = (2, 3)

    with pytest.raises(ImportTableError, match="in a module of its own"):
        import_table(Local(), tmp_path / "t.csv", tmp_path / "m.safetensors", name="m")


def test_the_file_says_where_it_is_from(bring):
    """Metadata, digests, and a file that was tampered with."""
    report, benchmark = bring(table(), source="my cluster", licence="CC0")
    metadata = open_columns(report.path).metadata
    assert metadata["source_file"] == "table.csv"
    assert len(metadata["source_sha256"]) == 64
    assert benchmark.info.source == "my cluster"
    assert benchmark.info.licence == "CC0"
    assert benchmark.info.sha256 == open_columns(report.path).sha256
    columns = dict(open_columns(report.path))
    del metadata["kind"], metadata["schema"], metadata["data_sha256"]
    for changed, message in [
        ({**columns, "arch": columns["arch"][:, :1]}, "does not fit widths"),
        ({**columns, "seconds": columns["seconds"][:3]}, "column seconds is of shape"),
    ]:
        write_columns(report.path, changed, kind="imported", metadata=metadata)
        with pytest.raises(TableError, match=message):
            open_imported(report.path, space=Widths())
    write_columns(report.path, columns, kind="imported", metadata={"name": "x"})
    with pytest.raises(TableError, match="does not say its complete, epochs"):
        open_imported(report.path, space=Widths())


def test_verify_finds_what_is_wrong(bring):
    """Each fact fails on a file that breaks it."""
    cells = NASBench201Space()
    report, _ = bring(table(architecture=range(6)), space=cells)
    metadata = {**open_columns(report.path).metadata}
    columns = dict(open_columns(report.path))
    assert [holds for _, holds in verify(open_columns(report.path))] == [True] * 5

    def failing(changed):
        write_columns(report.path, {**columns, **changed}, kind="imported", metadata=metadata)
        return [fact for fact, holds in verify(open_columns(report.path)) if not holds]

    assert failing({"arch": columns["arch"][::-1]}) == ["they are sorted, and none is there twice"]
    assert failing({"arch": columns["arch"][:5]}) == ["5 architectures, as recorded"]
    assert failing({"arch": columns["arch"] + np.int16(3)})[0] == "every one is in nasbench201"
    assert failing({"val_accuracy": columns["val_accuracy"] * 2}) == ["val_accuracy is a fraction or NaN"]


def test_large_tables_without_a_dict(bring, monkeypatch):
    """Beyond a hundred thousand rows single look-ups go by rank, with the same answers and errors."""
    frame = table([(0, 0), (0, 2), (1, 2)])
    _, small = bring(frame)
    monkeypatch.setattr(imported, "_FEW", 0)
    _, large = bring(frame)
    monkeypatch.setattr(imported, "_SMALL", 0)
    _, wide = bring(frame)
    for arch in small.space:
        assert small.query(arch)[:3] == large.query(arch)[:3] == wide.query(arch)[:3]
    archs = np.array(list(small.space))
    assert small.query_many(archs).seconds.tolist() == wide.query_many(archs).seconds.tolist()
    for benchmark in (small, large, wide):
        for strange in ((0, 1), (0, 3), (-1, 2), (0,), (0, 0, 0), "00", (0.5, 0)):
            with pytest.raises(InvalidArchitecture):
                benchmark.query(strange)
        with pytest.raises(InvalidArchitecture):
            benchmark.query_many([(0, 0), (0, 1)])


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from(ALL), st.tuples(st.floats(0, 1), st.floats(0, 1e9)), min_size=1))
def test_an_import_is_faithful(tmp_path_factory, rows):
    """Whatever is in the table is what queries answer, to the last bit, and nothing else can be asked."""
    folder = tmp_path_factory.mktemp("faithful")
    frame = table(list(rows), val_accuracy=[v for v, _ in rows.values()], seconds=[s for _, s in rows.values()])
    frame.to_parquet(folder / "t.parquet")
    import_table(Widths(), folder / "t.parquet", folder / "t.safetensors", name="t")
    benchmark = open_imported(folder / "t.safetensors", space=Widths())
    assert set(benchmark.space) == set(rows)
    for arch in ALL:
        if arch in rows:
            assert benchmark.query(arch)[:2] == rows[arch]
        else:
            with pytest.raises(InvalidArchitecture):
                benchmark.query(arch)
    assert benchmark.optimum.val_accuracy == max(v for v, _ in rows.values())
    again = pickle.loads(pickle.dumps(benchmark))
    assert again.query(min(rows))[:2] == rows[min(rows)]


def test_a_search_runs_on_it(bring):
    """Strategies see failed trainings as such and stay within the table."""
    cells, rng = NASBench201Space(), np.random.default_rng(3)
    frame = table(
        architecture=rng.choice(15625, 300, replace=False), val_accuracy=None, test_accuracy=None, seconds=None
    )
    frame = frame.assign(val_accuracy=rng.random(300), test_accuracy=rng.random(300), seconds=rng.random(300) + 1)
    frame.loc[:20, "val_accuracy"] = NAN
    _, benchmark = bring(frame, space=cells)
    members = set(benchmark.space)
    for optimizer in ("random_search", "regularized_evolution", "local_search"):
        run = nasharness.run(optimizer, benchmark, nasharness.Budget(evaluations=60))
        assert {tuple(arch) for arch in run.trials.arch.tolist()} <= members


def test_the_real_table_of_nasbench201(shared_data, tmp_path):
    """15,625 architectures, the 12-epoch schedule for the search and 200 epochs for the report."""
    frame = pd.read_parquet(shared_data / "nb201.parquet")
    cells = NASBench201Space()
    columns = {
        "architecture": "arch",
        "val_accuracy": "cifar10_val_200",
        "test_accuracy": "cifar10_test_200",
        "search_val_accuracy": "cifar10_val_12",
        "search_seconds": "cifar10-valid_train_time_12_s",
        "seconds": "cifar10_train_time_200_s",
    }
    options = {"name": "real", "percent": True, "epochs": 200, "search_epochs": 12}
    path = tmp_path / "real.safetensors"
    report = import_table(cells, shared_data / "nb201.parquet", path, columns=columns, **options)
    assert (report.architectures, report.missing, report.duplicates, report.failed) == (15625, 0, 0, 0)
    assert report.absent["seconds"] == report.absent["cifar10_latency_s"] == 11
    benchmark = open_imported(path)
    archs = [cells.from_string(text) for text in frame["arch"]]
    answers = benchmark.query_many(archs)
    assert np.array_equal(answers.val_accuracy, frame["cifar10_val_12"].to_numpy() / 100)
    assert np.array_equal(answers.seconds, frame["cifar10-valid_train_time_12_s"].to_numpy())
    finals = benchmark.final_many(archs)
    assert np.array_equal(finals.test_accuracy, frame["cifar10_test_200"].to_numpy() / 100)
    assert np.array_equal(finals.seconds, frame["cifar10_train_time_200_s"].to_numpy(), equal_nan=True)
    assert np.array_equal(benchmark.metric("index", archs), np.arange(15625))
    for arch in archs[::500]:
        assert benchmark.query(arch)[:2] == (benchmark.query_many([arch])[0][0], benchmark.query_many([arch])[1][0])
    assert benchmark.optimum.test_accuracy == pytest.approx(0.943733333, abs=1e-9)
    full = {**columns, "search_seconds": "cifar10-valid_train_time_12_s"}
    del full["search_seconds"]
    with pytest.raises(ImportTableError, match="11 architectures have an accuracy but no seconds"):
        import_table(cells, shared_data / "nb201.parquet", path, columns=full, **options)
    filled = import_table(cells, shared_data / "nb201.parquet", path, columns=full, fill_seconds=True, **options)
    assert any("11 architectures had no seconds" in note for note in filled.notes)


def test_the_real_table_of_devices(shared_data, tmp_path):
    """HW-NAS-Bench: ten metrics of all cells, and their tuples as text are ignored."""
    source = shared_data / "nb201_hardware_cifar10.parquet"
    path = tmp_path / "devices.safetensors"
    columns = {"architecture": "arch"}
    report = import_table(NASBench201Space(), source, path, name="devices", columns=columns, metrics_only=True)
    assert report.ignored == ("net",)
    assert len(report.metrics) == 10
    frame = pd.read_parquet(source)
    metrics = open_metrics(path)
    archs = [metrics.space.from_string(text) for text in frame["arch"]]
    for name in metrics.names:
        assert np.array_equal(metrics.lookup(name, archs), frame[name].to_numpy())
