"""NAS-Bench-101: the converter and the benchmark, on files in the official layout and on official answers."""

import hashlib
import json
import pickle
import random
import re
import shutil

import numpy as np
import pytest

from nasharness.benchmarks.columns import Columns, TableError, open_columns, write_columns
from nasharness.benchmarks.convert.nasbench101 import convert, costs, verify
from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.nasbench101 import decode_record, encode_record
from nasharness.benchmarks.formats.tfrecord import frame, read_records
from nasharness.benchmarks.nasbench101 import Metrics, NASBench101Table, open_nasbench101
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nasbench101 import Graph, NASBench101Space, count_cost, graph_from_matrix

SPACE = NASBench101Space()
KEYS = ("training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
CHAIN = SPACE.from_graph(Graph(3, 0b101, (0,)))  # input -> conv3x3 -> output
SKIP = SPACE.from_graph(Graph(2, 1, ()))


def record(arch=CHAIN, epochs=108, numbers=None, parameters=None, module_hash=None, adjacency=None):
    """A framed record; `numbers` are the eight metrics half way and at the end."""
    graph = SPACE.graph(arch)
    half, end = np.reshape(np.arange(8) / 8 if numbers is None else numbers, (2, 4)).tolist()
    payload = encode_record(
        module_hash or SPACE.hash(arch),
        epochs,
        adjacency or "".join(map(str, graph.matrix.ravel().tolist())),
        ",".join(graph.operations),
        count_cost(graph)[0] if parameters is None else parameters,
        99.0,
        [(0.0, 0.0, 0.1, 0.1, 0.1), (epochs / 2, *half), (float(epochs), *end)],
    )
    return frame(payload)


def made(folder, *records, **options):
    (folder / "source.tfrecord").write_bytes(b"".join(records))
    convert(folder / "source.tfrecord", folder / "target.safetensors", **options)
    return open_columns(folder / "target.safetensors", kind="nasbench101")


@pytest.fixture(scope="module")
def official(shared_data):
    return shared_data / "official"


@pytest.fixture(scope="module")
def answers(official):
    return json.loads((official / "nb101_synthetic_queries.json").read_text())


@pytest.fixture(scope="module")
def specs(official):
    """Every cell of the synthetic files as an architecture, by hash."""
    found = json.loads((official / "nb101_spec_hashes.json").read_text())["specs"]
    return {
        spec["hash"]: SPACE.from_graph(graph_from_matrix(spec["matrix"], spec["ops"]))
        for spec in found
        if spec["is_valid"]
    }


@pytest.fixture(scope="module")
def full(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("full") / "full.safetensors"
    convert(official / "nb101_synthetic_full.tfrecord", path)
    return path


@pytest.fixture(scope="module")
def only108(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("only108") / "only108.safetensors"
    convert(official / "nb101_synthetic_only108.tfrecord", path)
    return path


@pytest.fixture
def bench(full):
    return open_nasbench101(full)


# ---------------------------------------------------------------------------------------------------------- converter


def test_columns(full, official, answers):
    columns = open_columns(full, kind="nasbench101")
    source = (official / "nb101_synthetic_full.tfrecord").read_bytes()
    assert [row.tobytes().hex() for row in columns["hash"]] == answers["hash_order"]
    assert columns["metrics"].shape == (42, 4, 3, 2, 4) and columns["metrics"].dtype == np.float32
    assert {name: columns[name].dtype.name for name in ("vertices", "edges", "labels", "params", "flops")} == {
        "vertices": "uint8",
        "edges": "uint32",
        "labels": "uint8",
        "params": "int32",
        "flops": "int64",
    }
    assert columns.metadata["epochs"] == [4, 12, 36, 108] == sorted(answers["valid_epochs"])
    assert columns.metadata["records"] == 504
    assert columns.metadata["source"] == "nb101_synthetic_full.tfrecord"
    assert columns.metadata["source_sha256"] == hashlib.sha256(source).hexdigest()


def test_every_number(full, answers):
    columns = open_columns(full)
    for row, module_hash in enumerate(answers["hash_order"]):
        for position, epochs in enumerate((4, 12, 36, 108)):
            for repeat, run in enumerate(answers["all_computed"][module_hash][str(epochs)]):
                stored = columns["metrics"][row, position, repeat].tolist()
                assert stored == [[run[f"{when}_{key}"] for key in KEYS] for when in ("halfway", "final")]


def test_progress(official, tmp_path):
    calls = []
    source = official / "nb101_synthetic_full.tfrecord"
    convert(source, tmp_path / "new folder" / "target", progress=lambda *call: calls.append(call))
    assert calls[-1] == (source.stat().st_size, source.stat().st_size)
    assert calls == sorted(calls)


@pytest.mark.parametrize("chunk", [1000, 4096])
def test_chunks_and_threads_make_no_difference(full, official, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("nasharness.benchmarks.convert.nasbench101._CHUNK", chunk)
    for jobs in (1, 2):
        convert(official / "nb101_synthetic_full.tfrecord", tmp_path / f"{jobs}", jobs=jobs)
        assert (tmp_path / f"{jobs}").read_bytes() == full.read_bytes()
    with pytest.raises(ValueError, match="jobs must be at least 1, not 0"):
        convert(official / "nb101_synthetic_full.tfrecord", tmp_path / "none", jobs=0)


@pytest.mark.parametrize("seed", range(5))
def test_records_in_any_order(official, tmp_path, monkeypatch, seed):
    """Modules in order of first appearance; repeats in order of appearance within (hash, epochs)."""
    monkeypatch.setattr("nasharness.benchmarks.convert.nasbench101._CHUNK", 9000)
    source = (official / "nb101_synthetic_full.tfrecord").read_bytes()
    payloads = [payload for payloads in read_records([source], where="file") for payload in payloads]
    random.Random(seed).shuffle(payloads)
    columns = made(tmp_path, *map(frame, payloads))
    runs = {}
    for payload in payloads:
        r = decode_record(payload, where="file")
        runs.setdefault(r.module.hash, {}).setdefault(r.module.epochs, []).append(r.metrics)
    assert [row.tobytes() for row in columns["hash"]] == list(runs)
    expected = [[of_module[e] for e in (4, 12, 36, 108)] for of_module in runs.values()]
    assert columns["metrics"].reshape(42, 4, 3, 8).tolist() == [[list(map(list, r)) for r in m] for m in expected]


def test_graph_and_parameters_are_those_of_the_first_record(tmp_path):
    other = SPACE.from_graph(Graph(3, 0b111, (2,)))
    module_hash = SPACE.hash(CHAIN)
    columns = made(tmp_path, record(CHAIN, parameters=5), record(other, parameters=6, module_hash=module_hash))
    assert columns["params"].tolist() == [5] and columns["edges"].tolist() == [0b101]
    assert columns["labels"].tolist() == [[0, 0, 0, 0, 0]] and columns["metrics"].shape == (1, 1, 2, 2, 4)


def test_float64_where_float32_is_not_exact(tmp_path):
    numbers = [0.1, 0.2, 0.3, 0.4, 1e300, float("inf"), float("nan"), -0.0]
    columns = made(tmp_path, record(numbers=np.arange(8) / 8), record(SKIP, numbers=numbers))
    assert columns["metrics"].dtype == np.float64
    np.testing.assert_array_equal(columns["metrics"].reshape(2, 8), [np.arange(8) / 8, numbers])
    columns = made(tmp_path, record(numbers=[float("nan"), float("inf"), 0.5, 0, 0, 0, 0, 0]))
    assert columns["metrics"].dtype == np.float32


def test_other_numbers_of_repeats_and_epochs(tmp_path):
    columns = made(tmp_path, *(record(arch, e) for arch in (CHAIN, SKIP) for e in (7, 1) for _ in range(2)))
    assert columns.metadata["epochs"] == [1, 7] and columns["metrics"].shape == (2, 2, 2, 2, 4)
    bench = open_nasbench101(columns.path)
    assert bench.max_epochs == 7 and bench.query(CHAIN, 1).curve.tolist() == [0.75]


REFUSED = {
    "empty": ([], "holds no record"),
    "a run is missing": ([record(), record(), record(SKIP)], "has 1 runs of 108 epochs, others have 2"),
    "a length is missing": ([record(), record(epochs=4), record(SKIP)], "3 records are too few for 2 modules"),
    "many lengths": ([record(epochs=e) for e in range(1, 300)], "more than 255 different numbers of epochs"),
    "not pruned": ([record(adjacency="001000000")], "not on a path from input to output"),
    "no target": ([record(adjacency="011000000")], "not on a path from input to output"),
    "no TFRecord": ([b"hello, world, how are you"], "no TFRecord file"),
    "cut off": ([record(), record()[:-1]], "cut off"),
    "other records": ([frame(b"[]")], "not a JSON array of five"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, name):
    content, message = REFUSED[name]
    (tmp_path / "target.safetensors").write_bytes(b"what was there")
    with pytest.raises(FormatError, match=message) as caught:
        made(tmp_path, *content)
    assert str(tmp_path / "source.tfrecord") in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.tfrecord", "target.safetensors"]
    assert (tmp_path / "target.safetensors").read_bytes() == b"what was there"


@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupted(official, tmp_path, jobs):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(official / "nb101_synthetic_full.tfrecord", tmp_path / "target", jobs=jobs, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_missing_source(tmp_path):
    with pytest.raises(FileNotFoundError):
        convert(tmp_path / "none", tmp_path / "target")


def columns_of(graphs):
    labels = [tuple(g.labels) + (0,) * (5 - len(g.labels)) for g in graphs]
    return np.array([g.vertices for g in graphs]), np.array([g.edges for g in graphs]), np.array(labels)


def test_costs_are_those_counted_one_by_one(official):
    rng = np.random.default_rng(0)
    graphs = [SPACE.graph(SPACE.sample(rng)) for _ in range(1000)]
    sample = json.loads((official / "nb101_enumeration.json").read_text())["sample"]
    graphs += [Graph(v, bits, tuple(map(int, labels))) for _, v, bits, labels in sample]
    params, flops = costs(*columns_of([*graphs, Graph(2, 1, ())]))
    assert list(zip(params.tolist(), flops.tolist(), strict=True)) == [
        *map(count_cost, graphs),
        count_cost(Graph(2, 1, ())),
    ]


def test_known_parameters(official):
    """Trainable parameters that were counted from the official model builder."""
    found = json.loads((official / "nb101_spec_hashes.json").read_text())["specs"]
    valid = [spec for spec in found if spec["is_valid"]]
    graphs = [graph_from_matrix(spec["pruned_matrix"], spec["pruned_ops"]) for spec in valid]
    assert costs(*columns_of(graphs))[0].tolist() == [spec["trainable_parameters"] for spec in valid]


def test_verify_a_part(full):
    facts = dict(verify(open_columns(full)))
    failed = [fact for fact, holds in facts.items() if not holds]
    assert "42 of 423,624 modules" in failed
    assert any(fact.startswith("best mean test accuracy after 108 epochs 0.838") for fact in failed)
    assert len(failed) == 5 and len(facts) == 10  # the whole, its digest, two optima, the first run (made-up numbers)
    assert facts["42 of 42 sampled graphs have their module's hash"]
    assert facts["0 modules have other parameters than their graph's network"]
    assert facts["42 of 42 sampled costs are those counted layer by layer"]
    assert facts["module 00005c14 has 8,555,530 parameters"]


def test_verify_the_real_first_record(official, tmp_path):
    convert(official / "nb101_first_real_record.tfrecord", tmp_path / "first")
    facts = dict(verify(open_columns(tmp_path / "first")))
    holds = [fact for fact, h in facts.items() if h]
    assert any("its first run of 4 epochs" in fact and "0.3489583432674408" in fact for fact in holds)
    assert "1 of 1 sampled graphs have their module's hash" in holds
    assert not facts["runs of 108 epochs (it has 4)"]


def test_verify_notices(tmp_path):
    columns = made(tmp_path, record(SKIP, module_hash="0" * 32, parameters=1), record(CHAIN))
    facts = dict(verify(columns))
    assert facts["1 of 2 sampled graphs have their module's hash"] is False
    assert facts["1 modules have other parameters than their graph's network"] is False
    assert facts["module 00005c14 is there"] is False


# -------------------------------------------------------------------------------------------------------------- table


def test_every_official_number_by_architecture(full, answers, specs):
    table = NASBench101Table(open_columns(full))
    assert len(table) == 42 and table.epochs == (4, 12, 36, 108) and table.repeats == 3
    asked = 0
    for module_hash, by_epochs in answers["all_computed"].items():
        assert table.hash(table.row(specs[module_hash])) == module_hash
        for epochs, runs in by_epochs.items():
            for repeat, run in enumerate(runs):
                for halfway, when in ((False, "final"), (True, "halfway")):
                    found = table.metrics(specs[module_hash], epochs=int(epochs), repeat=repeat, halfway=halfway)
                    assert found == Metrics(*(run[f"{when}_{key}"] for key in KEYS))
                    assert all(type(x) is float for x in found)
                    asked += 1
    assert asked == 42 * 4 * 3 * 2


def test_metrics_refuses(full):
    table = NASBench101Table(open_columns(full))
    with pytest.raises(ValueError, match="runs of 4, 12, 36, 108 epochs, not 50"):
        table.metrics(CHAIN, epochs=50)
    for repeat in (3, -1, 0.0, True, None):
        with pytest.raises(ValueError, match=re.escape(f"training runs 0..2, not {repeat!r}")):
            table.metrics(CHAIN, repeat=repeat)


def test_isomorphic_architectures_share_a_row(full, specs):
    table = NASBench101Table(open_columns(full))
    inception = specs["28cfc7874f6d200472e1a9dcd8650aa0"]
    assert table.row(inception) == table.row(SPACE.canonical(inception)) == 0
    dangling = SPACE.from_graph(Graph(4, 0b010101, (0, 2)))  # the chain with a pooling that leads nowhere
    assert dangling != CHAIN and table.row(dangling) == table.row(CHAIN)


def test_rows_of_hashes_that_share_their_first_half(tmp_path):
    hashes = [("ab" * 8) + f"{i:016x}" for i in (5, 1, 9)] + ["00" * 16, "ff" * 16]
    columns = made(tmp_path, *(record(module_hash=h) for h in hashes))
    table = NASBench101Table(columns)
    assert [table.row_of_hash(h) for h in hashes] == [0, 1, 2, 3, 4]
    for missing in ("ab" * 8 + "0" * 16, "ff" * 15 + "fe", "0" * 31 + "1", "ab" * 8, "", "hello"):
        with pytest.raises(KeyError) as caught:
            table.row_of_hash(missing)
        assert caught.value.args == (missing,)


def test_rows(full, specs):
    table = NASBench101Table(open_columns(full))
    archs = list(specs.values())
    expected = [table.row(arch) for arch in archs]
    assert table.rows(archs).tolist() == table.rows(np.array(archs)).tolist() == expected
    assert table.rows([list(a) for a in archs]).tolist() == expected
    assert table.row(np.array(archs[3])) == table.row(list(archs[3])) == expected[3]
    assert table.rows([]).shape == table.rows(np.zeros((0, 26), dtype=int)).shape == (0,)


# ---------------------------------------------------------------------------------------------------------- benchmark


def test_info(bench, full, official):
    assert bench.id == "nasbench101-v1" and bench.max_epochs == 108 and bench.repeats == 3
    assert bench.info.sha256 == open_columns(full).sha256 and bench.info.licence == "Apache-2.0"
    assert bench.info.details["path"] == str(full) and bench.info.details["modules"] == 42
    assert "nb101_synthetic_full.tfrecord" in bench.info.source
    assert "holds 42 architectures of nasbench101 and not all" in bench.info.caution
    assert open_nasbench101(full, "mine").id == "mine"
    assert isinstance(bench.table.space, NASBench101Space) and "108 epochs" in repr(bench)
    assert bench.space.size == 42 == len(list(bench.space))
    rng = np.random.default_rng(0)
    for _ in range(20):  # a search stays within the file
        arch = bench.space.sample(rng)
        assert bench.query(arch).seconds > 0
        assert bench.query(bench.space.mutate(arch, rng)).seconds > 0


def test_query(bench, answers, specs):
    for module_hash, by_epochs in answers["all_computed"].items():
        for epochs, runs in by_epochs.items():
            found = bench.query(specs[module_hash], int(epochs))
            assert found.val_accuracy == runs[0]["final_validation_accuracy"]
            assert found.seconds == runs[0]["final_training_time"]
            assert found.epochs == int(epochs) and found.curve.shape == (int(epochs),)
            known = {int(epochs) // 2 - 1: "halfway", int(epochs) - 1: "final"}
            assert np.flatnonzero(~np.isnan(found.curve)).tolist() == sorted(known)
            for place, when in known.items():
                assert found.curve[place] == runs[0][f"{when}_validation_accuracy"]
            assert found.curve.dtype == np.float32 and not found.curve.flags.writeable
        assert bench.query(specs[module_hash])[:3] == bench.query(specs[module_hash], 108)[:3]


def test_query_types(bench):
    found = bench.query(CHAIN, np.int64(4), np.random.default_rng(0))
    assert [type(x) for x in found[:3]] == [float, float, int] and found.epochs == 4


def test_query_draws_a_repeat(bench, answers, specs):
    runs = answers["all_computed"]["28cfc7874f6d200472e1a9dcd8650aa0"]["36"]
    arch = specs["28cfc7874f6d200472e1a9dcd8650aa0"]
    pairs = [(run["final_validation_accuracy"], run["final_training_time"]) for run in runs]
    rng = np.random.default_rng(5)
    drawn = [pairs.index(bench.query(arch, 36, rng)[:2]) for _ in range(3000)]
    assert (np.abs(np.bincount(drawn) - 1000) < 5 * np.sqrt(3000 * 2 / 9)).all()
    again = np.random.default_rng(5)
    assert drawn[:50] == [pairs.index(bench.query(arch, 36, again)[:2]) for _ in range(50)]


def test_query_many_is_query(bench, specs):
    archs = list(specs.values())
    for epochs in (None, 4, 36):
        many = bench.query_many(archs, epochs, np.random.default_rng(3))
        rng = np.random.default_rng(3)
        one = [bench.query(arch, epochs, rng) for arch in archs]
        assert many.val_accuracy.tolist() == [x.val_accuracy for x in one]
        assert many.seconds.tolist() == [x.seconds for x in one]
        assert bench.query_many(archs, epochs).seconds.tolist() == [bench.query(a, epochs).seconds for a in archs]
    assert bench.query_many([]).seconds.shape == (0,)


@pytest.mark.parametrize("epochs", [0, 50, 109, -4, 4.5, True, "4", [4]])
def test_epochs_that_the_file_has_not(bench, epochs):
    message = re.escape(f"training runs of 4, 12, 36, 108 epochs, not {epochs!r}")
    with pytest.raises(ValueError, match=message):
        bench.query(CHAIN, epochs)
    with pytest.raises(ValueError, match=message):
        bench.query_many([CHAIN], epochs)


def test_only108(only108, answers, specs):
    bench = open_nasbench101(only108)
    assert bench.epochs == (108,) and bench.max_epochs == 108
    for module_hash, by_epochs in answers["all_computed"].items():
        run = by_epochs["108"][0]
        assert bench.query(specs[module_hash])[:2] == (run["final_validation_accuracy"], run["final_training_time"])
    with pytest.raises(ValueError, match="training runs of 108 epochs, not 4"):
        bench.query(CHAIN, 4)


def test_final_and_optimum(bench, answers, specs):
    finals = []
    for module_hash, by_epochs in answers["all_computed"].items():
        runs, arch = by_epochs["108"], specs[module_hash]
        found = bench.final(arch)
        means = [sum(run[f"final_{key}"] for run in runs) / 3 for key in KEYS]
        assert found == (means[2], means[3], means[0], *count_cost(SPACE.graph(arch)))
        finals.append(found)
    columns = list(zip(*finals, strict=True))
    assert bench.optimum == (max(columns[0]), max(columns[1]), min(columns[2]), min(columns[3]), min(columns[4]))
    many = bench.final_many([specs[h] for h in answers["all_computed"]])
    assert [column.tolist() for column in many] == [list(column) for column in columns]
    assert bench.metric("flops", [CHAIN]).tolist() == [count_cost(SPACE.graph(CHAIN))[1]]


def test_curve(bench, answers, specs):
    module_hash = "edb7648dd596405eddc9a5c607b494a6"
    runs = answers["all_computed"][module_hash]["108"]
    for seed in (0, 1, 2, None):
        curve = bench.curve(specs[module_hash], seed)
        for field, key in (("train_accuracy", KEYS[1]), ("val_accuracy", KEYS[2]), ("seconds", KEYS[0])):
            values = getattr(curve, field)
            assert values.shape == (108,) and values.dtype == np.float32
            assert np.flatnonzero(~np.isnan(values)).tolist() == [53, 107]
            for place, when in ((53, "halfway"), (107, "final")):
                chosen = [run[f"{when}_{key}"] for run in runs]
                assert values[place] == np.float32(np.mean(chosen) if seed is None else chosen[seed])
        assert np.isnan(curve.train_loss).all() and np.isnan(curve.val_loss).all() and len(curve.val_loss) == 108
    for seed in (3, -1, True, 1.0, "0"):
        with pytest.raises(ValueError, match=f"training runs 0..2, not {seed!r}"):
            bench.curve(specs[module_hash], seed)


def test_an_architecture_that_the_file_lacks(bench):
    missing = SPACE.from_graph(Graph(4, 0b111111, (2, 2)))
    for ask in (bench.query, bench.final, bench.curve, lambda arch: bench.query_many([CHAIN, arch])):
        with pytest.raises(InvalidArchitecture, match="has only 42 of the .* lacks [0-9a-f]{32}|not one of the 42"):
            ask(missing)


@pytest.mark.parametrize("arch", [(0,) * 26, (1,) * 26, (0,) * 25, "chain", None, 5, (2, *CHAIN[1:]), [*CHAIN[:-1], 3]])
def test_what_is_no_architecture(bench, arch):
    for ask in (bench.query, bench.final, bench.curve, lambda arch: bench.query_many([arch])):
        with pytest.raises(InvalidArchitecture):
            ask(arch)


def test_one_architecture_is_not_many(bench):
    with pytest.raises(InvalidArchitecture, match=r"shape \(n, 26\), not \(26,\)"):
        bench.query_many(np.array(CHAIN))


@pytest.mark.parametrize("text", [None, "", "x", "0" * 32, "EDB7648DD596405EDDC9A5C607B494A6", "edb7 " * 8])
def test_hashes_are_spelt_as_in_the_dataset(bench, text):
    assert bench.table.row_of_hash("edb7648dd596405eddc9a5c607b494a6") >= 0
    with pytest.raises(KeyError):
        bench.table.row_of_hash(text)


def test_floats_are_no_architectures(bench):
    with pytest.raises(InvalidArchitecture, match="ints, not float64"):
        bench.query_many(np.array([CHAIN], dtype=float))


def test_pickle(bench, specs):
    again = pickle.loads(pickle.dumps(bench))
    assert again.id == bench.id and again.info == bench.info
    arch = specs["28cfc7874f6d200472e1a9dcd8650aa0"]
    assert again.query(arch)[:3] == bench.query(arch)[:3]


def test_network(bench):
    torch = pytest.importorskip("torch")
    from nasharness.benchmarks.networks.cost import count_parameters

    network = bench.network(CHAIN)
    assert count_parameters(network) == bench.final(CHAIN).params
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_other_files_are_refused(full, tmp_path):
    columns = open_columns(full)
    arrays = {name: columns[name] for name in columns}
    metadata = {"epochs": [4, 12, 36, 108]}

    def attempt(arrays, metadata, kind="nasbench101"):
        write_columns(tmp_path / "file", arrays, kind=kind, metadata=metadata)
        open_nasbench101(tmp_path / "file")

    attempt(arrays, metadata)
    with pytest.raises(TableError, match="kind 'nats', not 'nasbench101'"):
        attempt(arrays, metadata, kind="nats")
    for name in arrays:
        with pytest.raises(TableError, match="has no column"):
            attempt({k: v for k, v in arrays.items() if k != name} | {"other": arrays["params"]}, metadata)
    for epochs in ([108], None, "4567"):
        with pytest.raises(TableError, match="metrics have shape"):
            attempt(arrays, {"epochs": epochs})
    for name in ("hash", "labels"):
        with pytest.raises(TableError, match="16 bytes"):
            attempt({**arrays, name: arrays[name][:, :4]}, metadata)
    with pytest.raises(TableError, match="cannot read"):
        open_nasbench101(tmp_path / "none")
    shutil.copy(full, tmp_path / "copy")
    assert isinstance(open_nasbench101(tmp_path / "copy").table.columns, Columns)


def test_a_part_is_searched_within_itself(bench, specs):
    """Sampling, mutation and neighbours stay among the 42 modules; a mutation is another module."""
    assert bench.space.size == len(list(bench.space)) == 42
    assert {SPACE.hash(arch) for arch in bench.space} == set(specs)
    assert bench.table.architectures() == [SPACE.canonical(specs[bench.table.hash(row)]) for row in range(42)]
    assert "holds 42 architectures of nasbench101 and not all" in bench.info.caution
    rng = np.random.default_rng(0)
    for _ in range(20):
        arch = bench.space.sample(rng)
        for other in (bench.space.mutate(arch, rng), *bench.space.neighbours(arch)):
            assert bench.query(other).epochs == 108
            assert SPACE.hash(other) != SPACE.hash(arch)


def test_cells_outside_the_space_are_refused(full, tmp_path):
    """Ten edges: by the converter, and by the benchmark over a file that has them."""
    matrix = np.triu(np.ones((5, 5), dtype=int), 1)
    bits = "".join(map(str, matrix.ravel().tolist()))
    operations = "input,maxpool3x3,maxpool3x3,maxpool3x3,output"
    payload = encode_record("0" * 32, 108, bits, operations, 5, 1.0, [(0.0,) * 5] * 3)
    with pytest.raises(FormatError, match="module 0{32} has 10 edges; NAS-Bench-101 allows 9"):
        made(tmp_path, frame(payload))
    columns = open_columns(full)
    arrays = {name: np.array(columns[name]) for name in columns}
    arrays["edges"][arrays["vertices"] == 5] = 2**10 - 1
    write_columns(tmp_path / "file", arrays, kind="nasbench101", metadata=columns.metadata)
    with pytest.raises(TableError, match="holds a cell that is not one of NAS-Bench-101: .* has 10 edges"):
        open_nasbench101(tmp_path / "file")


class Latencies:
    """Stands in for a table of metrics."""

    space, names = SPACE, ("latency",)

    def lookup(self, name, archs):
        return np.full(len(archs), 0.5)


def test_a_copy_keeps_attached_metrics(bench):
    """What was added after opening travels to another process, too."""
    bench.attach(Latencies())
    again = pickle.loads(pickle.dumps(bench))
    assert again.metrics == bench.metrics == ("params", "flops", "latency")
    assert again.metric("latency", [CHAIN, CHAIN]).tolist() == [0.5, 0.5]
