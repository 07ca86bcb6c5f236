import json
import os

import numpy as np
import pytest
from safetensors.numpy import save, save_file
from scipy import stats

from nasharness.benchmarks.base import Info
from nasharness.benchmarks.columns import SCHEMA_VERSION, TableError
from nasharness.benchmarks.spaces.base import InvalidArchitecture, SearchSpace
from nasharness.benchmarks.table import TableBenchmark, read_table, write_table

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
FIELDS = ("val_accuracy", "test_accuracy", "seconds", "params", "flops")
METADATA = {"space": "tiny", "spec": {"seeds": [0, 1, 2]}}
CHOICES = [(a, b, c) for a in range(3) for b in range(2) for c in range(4)]  # lexicographic, as `class_of` counts
EPOCHS = [1, 2, 3, 4]


class Picks:
    """A generator whose next draws in [0, 1) are given."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, n=None):
        return self.draws.pop(0) if n is None else np.array([self.draws.pop(0) for _ in range(n)])


def write(path, columns, metadata=METADATA):
    rest = {name: column for name, column in columns.items() if name != "class_of"}
    write_table(path, class_of=columns["class_of"], columns=rest, metadata=metadata)
    return path


@pytest.fixture
def file(tmp_path, tiny_columns):
    """A good table file."""
    return write(tmp_path / "tiny.safetensors", tiny_columns)


# ------------------------------------------------------------------------------------------------------------ the file


def test_reading_gives_what_was_written(file, tiny_columns):
    """Columns keep values, types and shapes; the metadata gains the schema; the hash is that of the bytes."""
    import hashlib

    columns, metadata, sha256 = read_table(file)
    assert set(tiny_columns) == set(columns)
    for name, column in tiny_columns.items():
        assert column.dtype == columns[name].dtype
        np.testing.assert_array_equal(column, columns[name])
    digest = metadata.pop("data_sha256")
    assert len(digest) == 64
    assert {**METADATA, "schema": SCHEMA_VERSION} == metadata
    assert hashlib.sha256(file.read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_bit_in_the_columns_is_noticed(file, where):
    """Damage behind the header would be read as other accuracies; the checksum of the columns catches it."""
    content = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + int(where * (len(content) - start))] ^= 4
    file.write_bytes(content)
    with pytest.raises(TableError, match="damaged|points outside"):
        read_table(file)


def test_columns_without_a_digest_get_one(tiny_benchmark):
    """Two tables of one id and other numbers are told apart, also where nobody gave a digest."""
    columns = dict(tiny_benchmark._columns)
    other = {**columns, "seconds": columns["seconds"] * 2}
    info = Info("tiny-v1")
    digests = {TableBenchmark("t", tiny_benchmark.space, c, info).info.sha256 for c in (columns, dict(columns), other)}
    assert len(digests) == 2
    assert "" not in digests


def test_a_file_answers_as_the_columns_do(file, tiny_benchmark):
    """A benchmark opened from the file gives the answers of the one in memory."""
    columns, _, sha256 = read_table(file)
    opened = TableBenchmark("tiny-v1", tiny_benchmark.space, columns, Info("tiny-v1", "", "", sha256, ""))
    for arch in tiny_benchmark.space:
        assert opened.final(arch) == tiny_benchmark.final(arch)


def test_writing_takes_columns_that_are_not_contiguous(tmp_path, tiny_columns):
    """A transposed view is written with its values, not with its memory."""
    tiny_columns["val_loss"] = np.asfortranarray(tiny_columns["val_loss"])
    columns, _, _ = read_table(write(tmp_path / "t.safetensors", tiny_columns))
    np.testing.assert_array_equal(tiny_columns["val_loss"], columns["val_loss"])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(file, tiny_columns, monkeypatch):
    """The table is written under another name first: if moving it fails, the old file is whole and no other is left."""
    before = file.read_bytes()

    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        write(file, tiny_columns, {"space": "changed"})
    assert ([file.name], before) == (os.listdir(file.parent), file.read_bytes())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("val_loss", lambda a: a[:, :, :-1], r"column val_loss has shape \(10, 3, 3\), expected \(10, 3, 4\)"),
        ("test_loss", lambda a: a[:-1], r"column test_loss has shape \(9, 3\), expected \(10, 3\)"),
        ("params", lambda a: a[:, None], r"column params has shape \(10, 1\), expected \(10,\)"),
        ("val_accuracy", lambda a: a[0], r"column"),
        ("class_of", lambda a: a[:, None], r"column class_of has shape \(24, 1\), expected \(24,\)"),
        ("class_of", lambda a: np.where(a == 0, 10, a), "class_of points outside the 10 classes"),
        ("class_of", lambda a: np.where(a == 0, -1, a), "class_of points outside the 10 classes"),
        ("flops", None, "columns are missing: flops"),
    ],
    ids=["epochs", "classes", "dimensions", "two dimensions", "matrix", "too big", "negative", "missing"],
)
def test_wrong_columns_are_refused_on_both_sides(tmp_path, tiny_columns, name, change, message):
    """A table whose columns do not fit each other is neither written nor read; the message names file and column."""
    path = tmp_path / "bad.safetensors"
    if change is None:
        del tiny_columns[name]
    else:
        tiny_columns[name] = change(tiny_columns[name])
    with pytest.raises(TableError, match=message):
        write(path, tiny_columns)
    assert [] == os.listdir(tmp_path)
    contiguous = {k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in tiny_columns.items()}
    path.write_bytes(save(contiguous, {"nasharness": json.dumps({"schema": 1})}))
    with pytest.raises(TableError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(0, 3, 4), (10, 0, 4), (10, 3, 0)])
def test_an_empty_table_is_refused(tmp_path, tiny_columns, shape):
    """A table without classes, seeds or epochs answers nothing."""
    for name in CURVES:
        tiny_columns[name] = np.zeros(shape, np.float32)
    with pytest.raises(TableError, match="shape"):
        write(tmp_path / "empty.safetensors", tiny_columns)


def test_an_empty_class_of_is_refused(tmp_path, tiny_columns):
    """A table that maps no architecture is a TableError."""
    tiny_columns["class_of"] = np.zeros(0, np.int16)
    with pytest.raises(TableError):
        write(tmp_path / "empty.safetensors", tiny_columns)


@pytest.mark.parametrize(("name", "dtype"), [("class_of", np.float32), ("val_accuracy", np.int32), ("params", float)])
def test_columns_of_another_type_are_refused(tmp_path, tiny_columns, name, dtype):
    """The layout states the type of each column; another type is refused."""
    tiny_columns[name] = tiny_columns[name].astype(dtype)
    with pytest.raises(TableError, match=name):
        write(tmp_path / "bad.safetensors", tiny_columns)


# --------------------------------------------------------------------------------------------------------- bad files


def test_a_missing_file_is_named(tmp_path):
    """The message says which file cannot be read, and why."""
    path = tmp_path / "nothing.safetensors"
    with pytest.raises(TableError, match=f"cannot read the benchmark file {path}: No such file"):
        read_table(path)


def test_a_folder_is_no_file(tmp_path):
    """A folder in place of a file is a TableError too."""
    with pytest.raises(TableError, match="cannot read the benchmark file"):
        read_table(tmp_path)


@pytest.mark.parametrize("sixteenths", range(16))
def test_a_truncated_file_is_refused(file, sixteenths):
    """A file cut at any sixteenth of its length is damaged or foreign, never a table."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * sixteenths // 16])
    with pytest.raises(TableError, match=str(file)):
        read_table(file)


def test_a_longer_file_is_refused(file):
    """Bytes after the last column are damage."""
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(TableError, match="damaged"):
        read_table(file)


def outcome_of_flip(path, content, position, bit):
    """Flip one bit and read: the error, or the columns."""
    damaged = bytearray(content)
    damaged[position] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        return read_table(path)[0]
    except TableError:
        return None


def header_length(content):
    return 8 + int.from_bytes(content[:8], "little")


def test_a_flipped_bit_in_the_length_of_the_header_is_refused(file):
    """Each of the 64 bits of the header's length matters."""
    content = file.read_bytes()
    for position in range(8):
        for bit in range(8):
            assert outcome_of_flip(file, content, position, bit) is None, (position, bit)


def test_a_flipped_bit_in_the_header_never_changes_a_column(file, tiny_columns):
    """Bits flipped throughout the header: each is a TableError, or it only touched metadata and all columns are intact."""
    content, wrong = file.read_bytes(), []
    for position in range(8, header_length(content)):
        for bit in (position % 7, 3 if position % 7 != 3 else 5):  # two bits of each byte, all bits over the header
            try:
                columns = outcome_of_flip(file, content, position, bit)
            except Exception as error:
                wrong.append((position, bit, repr(error)))
                continue
            if columns is not None and not all(
                name in columns and columns[name].dtype == column.dtype and np.array_equal(columns[name], column)
                for name, column in tiny_columns.items()
            ):
                wrong.append((position, bit, "columns changed"))
    assert [] == wrong


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"PK\x03\x04" + bytes(50),
        b"\x80\x04." + bytes(20),
        bytes(100),
        b"\x02" + bytes(7) + b"[]",
        b"\xff" * 64,
    ],
    ids=["empty", "one byte", "zip", "pickle", "zeros", "list header", "ones"],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, content):
    """Any other file is refused by name."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(TableError, match=str(path)):
        read_table(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path, metadata):
    """A safetensors file of somebody else's is no benchmark; the message says what makes one."""
    path = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3)}, path, metadata)
    with pytest.raises(TableError, match="is not a nasharness benchmark file .*nasharness build"):
        read_table(path)


def test_a_newer_schema_is_refused(tmp_path, tiny_columns):
    """A file of a later version names both schemas and says what to do."""
    path = tmp_path / "new.safetensors"
    path.write_bytes(save(tiny_columns, {"nasharness": json.dumps({"schema": SCHEMA_VERSION + 1})}))
    with pytest.raises(
        TableError, match=rf"schema {SCHEMA_VERSION + 1}, .* up to {SCHEMA_VERSION}: upgrade nasharness"
    ):
        read_table(path)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "3", '{"schema": "1"}', '{"schema": null}'])
def test_damaged_metadata_is_refused(tmp_path, tiny_columns, text):
    """Metadata that is no JSON object with a schema number is damage, reported as such."""
    path = tmp_path / "bad.safetensors"
    path.write_bytes(save(tiny_columns, {"nasharness": text}))
    with pytest.raises(TableError, match=str(path)):
        read_table(path)


def test_a_table_of_another_space_is_refused(tiny_columns):
    """As many ranks as the space has choice vectors, or no benchmark."""

    class Other(SearchSpace):
        name = "other"
        cardinalities = (5, 5)

    with pytest.raises(TableError, match="the table has 24 ranks, other has"):
        TableBenchmark("x", Other(), tiny_columns, Info("x", "", "", "", ""))


# -------------------------------------------------------------------------------------------------------------- queries


def test_query_equals_a_slow_look_up(tiny_benchmark, tiny_columns):
    """Every architecture, seed and number of epochs: value, cost and curve are those at class_of[position of the arch]."""
    for position, arch in enumerate(CHOICES):
        row = int(tiny_columns["class_of"][position])
        for seed in range(3):
            curve = tiny_columns["val_accuracy"][row][seed].tolist()
            seconds = tiny_columns["seconds"][row][seed].tolist()
            for epochs in [None, *EPOCHS]:
                answer = tiny_benchmark.query(arch, epochs, Picks((seed + 0.5) / 3))
                n = epochs or 4
                assert (curve[n - 1], seconds[n - 1], n, curve[:n]) == (*answer[:3], answer.curve.tolist())
                assert [float, float, int] == [type(x) for x in answer[:3]]


def test_query_without_a_generator_is_the_first_seed(tiny_benchmark, tiny_columns):
    """Without `rng` a query answers with the first training run."""
    row = tiny_columns["class_of"][7]
    assert float(tiny_columns["val_accuracy"][row, 0, -1]) == tiny_benchmark.query(CHOICES[7]).val_accuracy


@pytest.mark.parametrize("epochs", [None, *EPOCHS])
@pytest.mark.parametrize("form", [list, np.array])
def test_query_many_equals_query(tiny_benchmark, epochs, form):
    """Many at once give the numbers of one by one, with and without a generator in the same state."""
    archs = CHOICES * 2
    for make in (lambda: None, lambda: np.random.default_rng(3)):
        rng = make()
        expected = [tiny_benchmark.query(arch, epochs, rng) for arch in archs]
        values, seconds = tiny_benchmark.query_many(form(archs), epochs, make())
        assert (np.float64, np.float64) == (values.dtype, seconds.dtype)
        assert [a.val_accuracy for a in expected] == values.tolist()
        assert [a.seconds for a in expected] == seconds.tolist()


def test_query_many_of_nothing(tiny_benchmark):
    """No architectures, no answers."""
    assert [(0,), (0,)] == [a.shape for a in tiny_benchmark.query_many([])]


@pytest.mark.parametrize("many", [False, True])
def test_seeds_are_drawn_uniformly(tiny_benchmark, many):
    """With a generator each training run answers equally often (chi-square, false alarm 1e-6 under a fresh seed)."""
    arch, n, rng = (1, 1, 2), 6000, np.random.default_rng(11)
    if many:
        values = tiny_benchmark.query_many([arch] * n, rng=rng)[0].tolist()
    else:
        values = [tiny_benchmark.query(arch, rng=rng).val_accuracy for _ in range(n)]
    runs = [float(tiny_benchmark.curve(arch, seed).val_accuracy[-1]) for seed in range(3)]
    counts = [values.count(run) for run in runs]
    assert sum(counts) == n
    assert stats.chisquare(counts).pvalue > 1e-6


def test_a_query_hands_out_no_future_and_nothing_to_change(tiny_benchmark):
    """The curve is read-only and has the epochs asked for, also when its base is looked at."""
    for epochs in EPOCHS:
        curve = tiny_benchmark.query((0, 0, 0), epochs).curve
        assert (epochs,) == curve.shape
        with pytest.raises(ValueError, match="read-only"):
            curve[0] = 1.0


def test_the_future_is_not_behind_a_partial_curve(tiny_benchmark):
    """No array that a partial answer refers to holds more epochs than were asked for."""
    curve = tiny_benchmark.query((0, 0, 0), 2).curve
    assert curve.base is None or curve.base.size <= 2


def test_a_seed_is_drawn_only_where_there_is_a_choice(tiny_columns, tiny_benchmark):
    """A table of one training run leaves the generator alone."""
    one = {k: v[:, :1] if v.ndim > 1 else v for k, v in tiny_columns.items()}
    bench = TableBenchmark("one", tiny_benchmark.space, one, tiny_benchmark.info)
    rng = np.random.default_rng(0)
    bench.query((0, 0, 0), rng=rng)
    bench.query_many(CHOICES, rng=rng)
    assert np.random.default_rng(0).bit_generator.state == rng.bit_generator.state


# --------------------------------------------------------------------------------------- curves, finals and the optimum


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curve_is_the_row_of_one_run(tiny_benchmark, tiny_columns, seed):
    """Each field of a curve is its column at (class, seed)."""
    for position, arch in enumerate(CHOICES):
        curve = tiny_benchmark.curve(arch, seed)
        for name in CURVES:
            expected = tiny_columns[name][tiny_columns["class_of"][position], seed]
            np.testing.assert_array_equal(expected, getattr(curve, name))


def test_curve_without_a_seed_is_the_mean(tiny_benchmark, tiny_columns):
    """Without a seed a curve is the mean over the runs, epoch by epoch."""
    row = tiny_columns["class_of"][5]
    curve = tiny_benchmark.curve(CHOICES[5])
    for name in CURVES:
        expected = [sum(float(tiny_columns[name][row, s, e]) for s in range(3)) / 3 for e in range(4)]
        assert expected == pytest.approx(getattr(curve, name).tolist(), rel=1e-6)


@pytest.mark.parametrize("seed", [-1, 3])
def test_a_seed_that_was_not_trained_is_refused(tiny_benchmark, seed):
    """The message lists the runs that there are."""
    with pytest.raises(ValueError, match=rf"tiny-v1 has the training runs 0\.\.2, not {seed}"):
        tiny_benchmark.curve((0, 0, 0), seed)


def test_final_is_the_mean_over_seeds(tiny_benchmark, tiny_columns):
    """Final values are means over the runs after the last epoch, as Python floats; counts are those of the class."""
    c = tiny_columns
    for position, arch in enumerate(CHOICES):
        row = c["class_of"][position]
        mean = {name: sum(c[name][row, s, -1].item() for s in range(3)) / 3 for name in ("val_accuracy", "seconds")}
        mean["test_accuracy"] = sum(c["test_accuracy"][row, s].item() for s in range(3)) / 3
        final = tiny_benchmark.final(arch)
        assert {float} == {type(x) for x in final}
        assert [
            mean["val_accuracy"],
            mean["test_accuracy"],
            mean["seconds"],
            int(c["params"][row]),
            int(c["flops"][row]),
        ] == pytest.approx(list(final), rel=1e-12)


@pytest.mark.parametrize("form", [list, np.array])
def test_final_many_equals_final(tiny_benchmark, form):
    """Many finals at once are float64 columns of the single ones."""
    finals = tiny_benchmark.final_many(form(CHOICES))
    assert {np.dtype(np.float64)} == {column.dtype for column in finals}
    for i, name in enumerate(FIELDS):
        assert [tiny_benchmark.final(arch)[i] for arch in CHOICES] == getattr(finals, name).tolist()


def test_optimum_is_the_best_of_each_field(tiny_benchmark):
    """Highest accuracies, lowest costs, each over all architectures."""
    finals = [tiny_benchmark.final(arch) for arch in CHOICES]
    best = (max, max, min, min, min)
    assert [pick(f[i] for f in finals) for i, pick in enumerate(best)] == list(tiny_benchmark.optimum)


def test_optimum_and_finals_pass_over_nan(tiny_benchmark, tiny_columns):
    """A class that was never trained is NaN where it is asked for, and is never the optimum."""
    best = int(np.argmax(tiny_columns["val_accuracy"][:, :, -1].mean(axis=1)))
    columns = {k: v.copy() for k, v in tiny_columns.items()}
    columns["val_accuracy"][best, 1, -1] = np.nan
    bench = TableBenchmark("nan", tiny_benchmark.space, columns, tiny_benchmark.info)
    arch = CHOICES[tiny_columns["class_of"].tolist().index(best)]
    assert np.isnan(bench.final(arch).val_accuracy)
    assert np.isnan(bench.query(arch, rng=Picks(0.5)).val_accuracy)
    others = [bench.final(a).val_accuracy for i, a in enumerate(CHOICES) if tiny_columns["class_of"][i] != best]
    assert max(others) == bench.optimum.val_accuracy


def test_a_column_that_is_all_nan_is_refused_or_quietly_nan(tiny_columns, tiny_benchmark):
    """A table without a single test accuracy must not fail with a warning of numpy's."""
    columns = {**tiny_columns, "test_accuracy": np.full_like(tiny_columns["test_accuracy"], np.nan)}
    try:
        optimum = TableBenchmark("nan", tiny_benchmark.space, columns, tiny_benchmark.info).optimum
    except TableError:
        return
    assert np.isnan(optimum.test_accuracy)


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "arch",
    [(3, 0, 0), (0, 0, -1), (0, 0), (0, 0, 0, 0), (), "no"],
    ids=["too big", "negative", "short", "long", "empty", "text"],
)
@pytest.mark.parametrize("method", ["query", "curve", "final"])
def test_an_invalid_architecture_is_refused(tiny_benchmark, method, arch):
    """Every question about an architecture that the space does not contain is refused."""
    with pytest.raises(InvalidArchitecture):
        getattr(tiny_benchmark, method)(arch)


@pytest.mark.parametrize("arch", [(0.0, 0.0, 1.0), (0, 0.5, 0), "abc", ("0", "0", "0"), 5, None])
def test_query_refuses_what_is_no_vector_of_ints(tiny_benchmark, arch):
    """Something that is no vector of whole numbers is refused in the same words as one out of range."""
    with pytest.raises(InvalidArchitecture):
        tiny_benchmark.query(arch)


@pytest.mark.parametrize("method", ["query_many", "final_many"])
@pytest.mark.parametrize("arch", [(3, 0, 0), (0, 0, -1)])
def test_an_invalid_architecture_among_many_is_named(tiny_benchmark, method, arch):
    """The message names the first bad architecture among many."""
    with pytest.raises(InvalidArchitecture, match=rf"\({arch[0]}, {arch[1]}, {arch[2]}\) is not in tiny"):
        getattr(tiny_benchmark, method)([(0, 0, 0), arch, (1, 1, 1)])


@pytest.mark.parametrize("method", ["query_many", "final_many"])
@pytest.mark.parametrize(
    "archs",
    [
        [(0, 0, 0, 1, 1, 1)],
        [(0, 0), (0, 1), (1, 1)],
        [(0.9, 0, 0)],
        [(True, False, False)],
        [(0, 0, 0), (0, 0)],
    ],
    ids=["long", "short", "float", "bool", "ragged"],
)
def test_many_architectures_of_another_shape_are_refused(tiny_benchmark, method, archs):
    """Vectors of another length or type are refused, not read as other architectures."""
    with pytest.raises(InvalidArchitecture):
        getattr(tiny_benchmark, method)(archs)


@pytest.mark.parametrize("method", ["query_many", "final_many"])
def test_many_architectures_are_held_to_the_constraint_of_the_space(tiny_columns, method):
    """Where `query` refuses a vector in range that the space does not contain, `query_many` does too."""

    class Constrained(SearchSpace):
        name = "constrained"
        cardinalities = (3, 2, 4)

        def is_valid(self, arch):
            return super().is_valid(arch) and arch[0] != arch[2]

    bench = TableBenchmark("c", Constrained(), tiny_columns, Info("c", "", "", "", ""))
    with pytest.raises(InvalidArchitecture):
        bench.query((1, 0, 1))
    with pytest.raises(InvalidArchitecture):
        getattr(bench, method)([(1, 0, 1)])


WRONG_EPOCHS = [0, -1, 5, True, 2.0, 2.5, "2", np.float64(1)]


@pytest.mark.parametrize("epochs", WRONG_EPOCHS)
@pytest.mark.parametrize("method", ["query", "query_many"])
def test_epochs_outside_the_schedule_are_refused(tiny_benchmark, method, epochs):
    """Epochs are a whole number in 1..max_epochs; the message names the range and the value."""
    archs = (0, 0, 0) if method == "query" else [(0, 0, 0)]
    with pytest.raises(ValueError, match=r"epochs must be a whole number in 1\.\.4 for tiny-v1, not"):
        getattr(tiny_benchmark, method)(archs, epochs)


@pytest.mark.parametrize("epochs", [4.0, np.float32(4)])
def test_the_full_schedule_as_a_float_is_refused(tiny_benchmark, epochs):
    """4.0 epochs are as wrong as 2.0, and come back as `Evaluation.epochs` nowhere."""
    with pytest.raises(ValueError, match="epochs must be a whole number"):
        tiny_benchmark.query((0, 0, 0), epochs)


def test_numpy_integers_are_epochs(tiny_benchmark):
    """Epochs from an array are accepted."""
    assert (
        tiny_benchmark.query((0, 0, 0), 2).curve.tolist() == tiny_benchmark.query((0, 0, 0), np.int64(2)).curve.tolist()
    )


def test_architectures_from_arrays_are_looked_up(tiny_benchmark):
    """A row of an array of architectures is an architecture."""
    row = np.array([[2, 1, 3]])[0]
    assert tiny_benchmark.query((2, 1, 3))[:3] == tiny_benchmark.query(row)[:3]


@pytest.mark.parametrize(
    "dtype",
    [
        np.uint8,
        np.int8,
        np.int32,
        np.uint64,
    ],
)
def test_arrays_of_any_integer_type_are_looked_up(tiny_benchmark, dtype):
    """The integer type of an array of architectures does not matter."""
    expected, actual = (tiny_benchmark.query_many(np.array(CHOICES, dtype=t)) for t in (np.int64, dtype))
    assert expected[0].tolist() == actual[0].tolist()


def test_repr_shows_id_size_and_epochs(tiny_benchmark):
    """`repr` says what it is."""
    assert repr(tiny_benchmark) == "<tiny-v1: 24 architectures, 4 epochs>"


def test_a_plain_table_has_no_networks_and_no_images(tiny_benchmark):
    """A table alone says that it has neither."""
    with pytest.raises(NotImplementedError, match="tiny-v1 has no networks"):
        tiny_benchmark.network((0, 0, 0))
    with pytest.raises(NotImplementedError, match="tiny-v1 has no images"):
        tiny_benchmark.images("train")
