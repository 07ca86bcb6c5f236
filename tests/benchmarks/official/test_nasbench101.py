"""The official API on a converted file, against what the official code answered."""

import json
import random

import numpy as np
import pytest

from nasharness.benchmarks.columns import TableError, open_columns
from nasharness.benchmarks.convert.nasbench101 import convert
from nasharness.benchmarks.nasbench101 import NASBench101Table
from nasharness.benchmarks.official.nasbench101 import ModelSpec, NASBench, OutOfDomainError

CHAIN = [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
OPS = ["input", "conv3x3-bn-relu", "output"]


@pytest.fixture(scope="module")
def official(shared_data):
    return shared_data / "official"


@pytest.fixture(scope="module")
def answers(official):
    return json.loads((official / "nb101_synthetic_queries.json").read_text())


@pytest.fixture(scope="module")
def facts(official):
    return json.loads((official / "nb101_spec_hashes.json").read_text())


@pytest.fixture(scope="module")
def specs(facts):
    return {spec["name"]: spec for spec in facts["specs"]}


@pytest.fixture(scope="module")
def path(official, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "nasbench101.safetensors"
    convert(official / "nb101_synthetic_full.tfrecord", path)
    return path


@pytest.fixture
def nasbench(path):
    return NASBench(path, rng=random.Random(42))


def test_the_official_sequence_of_queries(nasbench, answers, specs):
    """The official class with seed 42, query by query: results, their types, and the budget after each."""
    assert answers["seed"] == 42 and len(answers["queries"]) == 92
    for query in answers["queries"]:
        spec = specs[query["spec"]]
        before = nasbench.get_budget_counters()
        data = nasbench.query(ModelSpec(spec["matrix"], spec["ops"]), query["epochs"], query["stop_halfway"])
        expected = query["result"]
        assert list(data) == list(expected)
        adjacency = data.pop("module_adjacency")
        assert adjacency.dtype == np.int8 and adjacency.tolist() == expected["module_adjacency"]
        assert data == {k: v for k, v in expected.items() if k != "module_adjacency"}
        assert type(data["trainable_parameters"]) is int and type(data["module_operations"]) is list
        assert type(data["training_time"]) is type(data["test_accuracy"]) is float
        assert nasbench.get_budget_counters() == tuple(query["budget_after"]) != before


def test_first_index(nasbench, answers):
    assert [random.Random(42).randint(0, 2)] == answers["first_random_indices_seed42"]
    state = nasbench.rng.getstate()
    nasbench.get_metrics_from_spec(ModelSpec(CHAIN, OPS))
    nasbench.is_valid(ModelSpec(CHAIN, OPS))
    assert nasbench.rng.getstate() == state  # only queries draw
    with pytest.raises(OutOfDomainError):
        nasbench.query(ModelSpec(CHAIN, OPS), epochs=5)
    assert nasbench.rng.getstate() == state


def test_everything_by_hash(nasbench, answers):
    assert list(nasbench.hash_iterator()) == answers["hash_order"]
    assert len(nasbench.hash_iterator()) == 42 and answers["hash_order"][3] in nasbench.hash_iterator()
    for module_hash, by_epochs in answers["all_computed"].items():
        fixed, computed = nasbench.get_metrics_from_hash(module_hash)
        assert list(fixed) == ["module_adjacency", "module_operations", "trainable_parameters"]
        assert computed == {int(epochs): runs for epochs, runs in by_epochs.items()}
        assert {type(x) for runs in computed.values() for run in runs for x in run.values()} == {float}
    fixed, _ = nasbench.get_metrics_from_hash(answers["hash_order"][0])
    fixed["module_adjacency"] = fixed["module_adjacency"].tolist()
    assert fixed == answers["fixed_first"]
    assert nasbench.get_budget_counters() == (0.0, 0)


def test_answers_are_copies(nasbench, answers):
    module_hash = answers["hash_order"][0]
    fixed, computed = nasbench.get_metrics_from_hash(module_hash)
    fixed["module_adjacency"][:] = 7
    fixed["module_operations"].clear()
    computed[108][0].clear()
    fixed, computed = nasbench.get_metrics_from_hash(module_hash)
    assert fixed["module_adjacency"].max() == 1 and len(fixed["module_operations"]) == 7
    assert len(computed[108][0]) == 8


def test_specs(nasbench, facts):
    assert len(facts["specs"]) == 48
    for expected in facts["specs"]:
        spec = ModelSpec(matrix=expected["matrix"], ops=expected["ops"])
        assert spec.valid_spec is expected["valid_spec"], expected["name"]
        assert nasbench.is_valid(spec) is expected["is_valid"]
        assert spec.original_matrix.tolist() == expected["matrix"] and spec.original_ops == expected["ops"]
        if spec.valid_spec:
            assert spec.matrix.tolist() == expected["pruned_matrix"] and spec.ops == expected["pruned_ops"]
            assert spec.hash_spec(nasbench.config["available_ops"]) == spec.hash_spec() == expected["hash"]
        else:
            assert spec.matrix is None and spec.ops is None
            with pytest.raises(ValueError, match="no hash"):
                spec.hash_spec()


def test_number_types_make_no_difference(nasbench, facts, specs):
    spec = specs[facts["matrix_dtype_pitfall"]["name"]]
    for dtype in (float, np.float32, bool, np.int8, np.uint8, np.int64, int):
        found = ModelSpec(np.array(spec["matrix"], dtype=dtype), spec["ops"])
        assert found.hash_spec() == facts["matrix_dtype_pitfall"]["int_hash"]
        assert nasbench.get_metrics_from_spec(found)[0]["trainable_parameters"] == spec["trainable_parameters"]
    assert facts["matrix_dtype_pitfall"]["float_hash"] != facts["matrix_dtype_pitfall"]["int_hash"]


def test_a_spec_keeps_its_own_copies():
    matrix, ops = np.array(CHAIN), list(OPS)
    spec = ModelSpec(matrix, ops, data_format="channels_first")
    matrix[:] = 0
    ops.clear()
    assert spec.matrix.tolist() == spec.original_matrix.tolist() == CHAIN and spec.ops == spec.original_ops == OPS
    spec.matrix[:] = 0
    assert spec.original_matrix.tolist() == CHAIN and spec.data_format == "channels_first"


def message(kind, call, *arguments, **options):
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    return f"{type(caught.value).__name__}: {caught.value}"


def test_error_texts(nasbench, facts, answers, official, tmp_path):
    """Those that the official code was made to raise."""
    told = {name: text.split("api.")[-1].split("builtins.")[-1] for name, text in facts["errors"].items()}
    assert message(ValueError, ModelSpec, [[0, 1]], ["input", "output"]) == told["not square"]
    assert message(ValueError, ModelSpec, [[0, 1], [0]], ["input", "output"]) == told["not square"]
    assert message(ValueError, ModelSpec, CHAIN, OPS[:2]) == told["len(ops) mismatch"]
    for x, y in ((1, 0), (1, 1)):
        matrix = np.array(CHAIN)
        matrix[x, y] = 1
        assert message(ValueError, ModelSpec, matrix, OPS) == told["not upper triangular"]
    loose = ModelSpec(np.zeros((3, 3), dtype=int), OPS)
    ask = nasbench.get_metrics_from_spec
    assert message(OutOfDomainError, ask, loose) == told["invalid spec get_metrics_from_spec"]
    many = ModelSpec(np.triu(np.ones((5, 5)), 1), ["input", *OPS[1:2] * 3, "output"])
    assert message(OutOfDomainError, ask, many) == told["10 edges get_metrics_from_spec"]
    assert "OutOfDomainError: " in answers["error_epochs_50"]
    query = nasbench.query
    fifty = message(OutOfDomainError, query, loose, epochs=50)  # the epochs are looked at first
    assert fifty == answers["error_epochs_50"].removeprefix("nasbench.api.")
    convert(official / "nb101_synthetic_only108.tfrecord", tmp_path / "only108")
    short = NASBench(str(tmp_path / "only108"), rng=random.Random(0))
    four = message(OutOfDomainError, short.query, ModelSpec(CHAIN, OPS), epochs=4)
    assert four == answers["error_epochs4_on_only108"].removeprefix("nasbench.api.")
    assert nasbench.get_budget_counters() == short.get_budget_counters() == (0.0, 0)


def test_out_of_domain(nasbench, facts):
    chain = np.eye(8, k=1, dtype=int)
    eight = ModelSpec(chain, ["input", *OPS[1:2] * 6, "output"])
    assert not nasbench.is_valid(eight)  # officially a TypeError
    assert "got 8" in message(OutOfDomainError, nasbench.get_metrics_from_spec, eight)
    pruned = np.eye(8, k=1, dtype=int)
    pruned[0] = [0, 1, 0, 0, 0, 0, 0, 1]
    pruned[1] = 0
    assert nasbench.is_valid(ModelSpec(pruned, ["input", *OPS[1:2] * 6, "output"]))  # of two vertices, once pruned
    for ops, part in (
        (["input", "conv5x5-bn-relu", "output"], "unsupported operation 'conv5x5-bn-relu'"),
        (["conv3x3-bn-relu", "conv3x3-bn-relu", "output"], "first operation must be 'input'"),
        (["input", "conv3x3-bn-relu", "conv3x3-bn-relu"], "last operation must be 'output'"),
    ):
        spec = ModelSpec(CHAIN, ops)
        assert spec.valid_spec and not nasbench.is_valid(spec)
        assert part in message(OutOfDomainError, nasbench.query, spec)
    assert facts["errors"]["unknown op is_valid"] == facts["errors"]["first op not input is_valid"] == "False"
    # An operation that pruning removes is not looked at.
    loose = ModelSpec([[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], ["input", "a", "b", "output"])
    assert nasbench.is_valid(loose)


def test_a_module_that_the_file_lacks(nasbench):
    spec = ModelSpec(np.triu(np.ones((4, 4)), 1), ["input", "maxpool3x3", "maxpool3x3", "output"])
    assert nasbench.is_valid(spec)
    for call in (nasbench.query, nasbench.get_metrics_from_spec):
        with pytest.raises(KeyError) as caught:
            call(spec)
        assert caught.value.args == (spec.hash_spec(),)
    assert nasbench.get_budget_counters() == (0.0, 0)


def test_entries_other_than_0_and_1():
    for entry in (2, 0.5, -1, float("nan")):
        matrix = np.array(CHAIN, dtype=float)
        matrix[0, 2] = entry
        assert "zeros and ones" in message(ValueError, ModelSpec, matrix, OPS)
    assert "zeros and ones" in message(ValueError, ModelSpec, [["0", "1"], ["0", "0"]], ["input", "output"])


def test_another_order_of_operations_has_no_hash():
    with pytest.raises(ValueError, match="number the operations"):
        ModelSpec(CHAIN, OPS).hash_spec(["maxpool3x3", "conv1x1-bn-relu", "conv3x3-bn-relu"])


def test_counters(nasbench, specs):
    spec = ModelSpec(CHAIN, OPS)
    seconds = nasbench.query(spec)["training_time"]
    assert nasbench.get_budget_counters() == (seconds, 108)
    half = nasbench.query(spec, epochs=36, stop_halfway=True)["training_time"]
    assert nasbench.get_budget_counters() == (seconds + half, 126)
    nasbench.reset_budget_counters()
    assert nasbench.get_budget_counters() == (0.0, 0)
    assert (nasbench.training_time_spent, nasbench.total_epochs_spent) == (0.0, 0)


def test_constructor(path, tmp_path, official):
    table = NASBench101Table(open_columns(path))
    assert NASBench(table, rng=random.Random(1)).table is table
    assert NASBench(str(path), rng=random.Random(1)).valid_epochs == {4, 12, 36, 108}
    with pytest.raises(TypeError):
        NASBench(path)
    with pytest.raises(TableError, match="is the official file: convert it"):
        NASBench(official / "nb101_synthetic_full.tfrecord", rng=random.Random(1))
    one, other = (NASBench(table, rng=random.Random(7)) for _ in range(2))
    spec = ModelSpec(CHAIN, OPS)
    assert [one.query(spec)["training_time"] for _ in range(20)] == [
        other.query(spec)["training_time"] for _ in range(20)
    ]


def test_the_global_generator_is_left_alone(nasbench):
    state = random.getstate()
    nasbench.query(ModelSpec(CHAIN, OPS))
    assert random.getstate() == state
