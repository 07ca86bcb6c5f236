"""The readers of surrogate models: exact against official predictions and slow readers, and safe on damaged files."""

import contextlib
import json
import pickle
import struct
import sys
import time
import tracemalloc
import types
from collections import OrderedDict, defaultdict
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness.benchmarks.formats import lightgbm, xgboost
from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.gin import build_gin, read_gin, weight_shapes
from nasharness.benchmarks.gin import graphs
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.trees import TreeEnsemble, Trees, check_trees

SPACE = DARTSSpace()
FEATURES = 5


# Random trees as nested tuples, (feature, threshold, left, right) or a number; slow prediction; and writers of each format.


def random_tree(rng, depth, leaf=lambda rng: rng.normal()):
    if depth == 0 or rng.random() < 0.2:
        return float(np.float32(leaf(rng)))
    threshold = float(np.float32(rng.choice([0.0, 0.5, 1.5, 2.0, 3.3, -1.0, 1e-35])))
    children = random_tree(rng, depth - 1, leaf), random_tree(rng, depth - 1, leaf)
    return (int(rng.integers(FEATURES)), threshold, *children)


def random_model(rng, trees=4, depth=4):
    return [random_tree(rng, depth) for _ in range(trees)]


def random_rows(rng, n=40):
    return rng.choice([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, float(np.float32(3.3))], size=(n, FEATURES))


def slow_predict(trees, row, dtype, left_if, base=0.0, base_last=False):
    total = dtype(0) if base_last else dtype(base)
    for tree in trees:
        while isinstance(tree, tuple):
            feature, threshold, left, right = tree
            x, t = dtype(row[feature]), dtype(threshold)
            tree = left if (x < t if left_if == "<" else x <= t) else right
        total = dtype(total + dtype(tree))
    return dtype(total + dtype(base)) if base_last else total


def numbered(tree, rng, deleted=0):
    """Nodes [left, right, feature, number] of a tree in a random order behind the root, with some that nothing reaches."""
    nodes = []

    def collect(part):
        node = [-1, -1, 0, part] if not isinstance(part, tuple) else [part[2], part[3], part[0], part[1]]
        nodes.append((part, node))
        if isinstance(part, tuple):
            collect(part[2])
            collect(part[3])

    collect(tree)
    order = [0, *(1 + rng.permutation(len(nodes) + deleted - 1))]
    place = {id(part): order[k] for k, (part, _) in enumerate(nodes)}
    rows = [[-1, -1, FEATURES + 7, 1e9] for _ in range(len(order))]
    for part, (left, right, feature, number) in nodes:
        if left != -1:
            left, right = int(place[id(left)]), int(place[id(right)])
        rows[place[id(part)]] = [left, right, feature, number]
    return rows


def unshared(tree):
    """The same tree with every leaf an object of its own, so that `id` names a place."""
    return (*tree[:2], unshared(tree[2]), unshared(tree[3])) if isinstance(tree, tuple) else float(str(tree))


def xgboost_binary(trees, rng, base=0.5, header=b"binf", deleted=2, features=FEATURES, objective=b"reg:squarederror"):
    def text(value):
        return struct.pack("<Q", len(value)) + value

    out = struct.pack("<fIiiiII", base, features, 0, 1, 1, 1, 2) + bytes(108)
    out += text(objective) + text(b"gbtree") + struct.pack("<i", len(trees)) + bytes(156)
    for tree in trees:
        rows = numbered(unshared(tree), rng, deleted)
        out += struct.pack("<6i", 1, len(rows), deleted, 0, features, 0) + bytes(124)
        for left, right, feature, number in rows:
            out += struct.pack("<iiiIf", -1, left, right, feature | (int(rng.integers(2)) << 31), number)
        out += bytes(16 * len(rows))
    out += bytes(4 * len(trees)) + struct.pack("<Q", 1) + text(b"metrics") + text(b"rmse;")
    model = header + out
    return b"CONFIG-offset:" + struct.pack("<q", len(model)) + model + b'{"learner":{}}'


def xgboost_json(trees, rng, base="5E-1", deleted=2):
    def document(tree):
        left, right, feature, number = zip(*numbered(unshared(tree), rng, deleted), strict=True)
        return {
            "left_children": left,
            "right_children": right,
            "split_indices": feature,
            "split_conditions": [float(str(np.float32(x))) for x in number],
            "tree_param": {"num_nodes": str(len(left)), "num_feature": str(FEATURES), "size_leaf_vector": "0"},
        }

    model = {"tree_info": [0] * len(trees), "trees": [document(tree) for tree in trees]}
    learner = {
        "learner_model_param": {"base_score": base, "num_class": "0", "num_feature": str(FEATURES)},
        "gradient_booster": {"name": "gbtree", "model": model},
        "objective": {"name": "reg:squarederror"},
    }
    whole = {"Config": {}, "Model": {"learner": learner, "version": [1, 3, 3]}}
    return json.dumps(whole).encode()


def lightgbm_text(trees):
    blocks = []
    for number, tree in enumerate(trees):
        inner, leaves = [], []

        def collect(part, inner=inner, leaves=leaves):
            if not isinstance(part, tuple):
                leaves.append(part)
                return -len(leaves)
            place = len(inner)
            inner.append([*part[:2], 0, 0])
            inner[place][2] = collect(part[2])
            inner[place][3] = collect(part[3])
            return place

        collect(tree)
        block = f"Tree={number}\nnum_leaves={len(leaves)}\nnum_cat=0\n"
        if inner:
            feature, threshold, left, right = (" ".join(map(repr, column)) for column in zip(*inner, strict=True))
            block += f"split_feature={feature}\nthreshold={threshold}\ndecision_type={' '.join('2' for _ in inner)}\n"
            block += f"left_child={left}\nright_child={right}\n"
        blocks.append(block + f"leaf_value={' '.join(map(repr, leaves))}\nshrinkage=1\n\n")
    head = "tree\nversion=v3\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
    head += f"max_feature_idx={FEATURES - 1}\nobjective=regression\ntree_sizes={' '.join('1' for _ in trees)}\n\n"
    return head + "\n".join(blocks) + "\nend of trees\n\nparameters:\n[boosting: gbdt]\nend of parameters\n"


def booster_pickle(module, protocol=4, **state):
    """As the libraries pickle their Booster, without having them."""
    package = module.split(".")[0]
    kind = type("Booster", (), {"__module__": module})
    fake = types.ModuleType(module)
    fake.Booster = kind
    before = {name: sys.modules.get(name) for name in (package, module)}
    sys.modules.update({package: types.ModuleType(package), module: fake})
    try:
        booster = kind()
        booster.__dict__.update(state)
        return pickle.dumps(booster, protocol=protocol)
    finally:
        for name, value in before.items():
            sys.modules.pop(name)
            if value is not None:
                sys.modules[name] = value


def predict(trees, rows, left_if, **options):
    return TreeEnsemble.build([trees], left_if).predict(rows, **options)[0]


SEEDS = st.integers(0, 2**32 - 1)


# XGBoost


@given(SEEDS, st.sampled_from([b"binf", b""]))
@settings(max_examples=40, deadline=None)
def test_xgboost_binary_models_predict_as_a_slow_reader(seed, header):
    rng = np.random.default_rng(seed)
    model, rows = random_model(rng), random_rows(rng)
    trees = xgboost.read_payload(xgboost_binary(model, rng, base=0.7, header=header), "model")
    for base_last in (False, True):
        expected = [slow_predict(model, row, np.float32, "<", np.float32(0.7), base_last) for row in rows]
        predicted = predict(trees, rows, "<", base_last=base_last)
        assert predicted.dtype == np.float32
        assert predicted.tolist() == [float(x) for x in expected]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_xgboost_json_and_binary_models_are_the_same(seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    a = xgboost.read_payload(xgboost_binary(model, np.random.default_rng(1), deleted=0), "binary")
    b = xgboost.read_payload(xgboost_json(model, np.random.default_rng(1), deleted=0), "json")
    assert a.base == b.base == 0.5
    for x, y in zip(a[:6], b[:6], strict=True):
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)


def test_json_decimals_round_to_the_nearest_float32():
    """0.5 ulp of float32 plus less than float64 can tell: rounding twice would round it to even, the wrong way."""
    one, after = np.float32(1), np.nextafter(np.float32(1), np.float32(2))
    middle = (Fraction(float(one)) + Fraction(float(after))) / 2
    assert middle == Fraction(1) + Fraction(1, 2**24)
    digits = "1.000000059604644775390625"
    assert Fraction(digits) == middle
    for text, expected in ((digits, one), (digits + "1", after), (digits[:-1] + "4999", one)):
        assert np.float32(xgboost._nearest(text)) == expected
    assert np.float32(float(digits + "1")) == one  # what rounding twice gives


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_xgboost_pickles_of_every_protocol(protocol):
    rng = np.random.default_rng(0)
    model, rows = random_model(rng), random_rows(rng)
    payload = xgboost_binary(model, rng)
    data = booster_pickle(
        "xgboost.core", protocol, handle=bytearray(payload), booster="gbtree", best_iteration=3, feature_names=["a"]
    )
    expected = predict(xgboost.read_payload(payload, "payload"), rows, "<")
    assert np.array_equal(predict(xgboost.read_booster(data, "model"), rows, "<"), expected)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x00\x00\x00\x3f" + bytes(300), "0.90"),
        (b"{L\x00\x00", "newer xgboost"),
        (b"CONFIG-offset:" + struct.pack("<q", 10**12) + b"binf", "1000000000000 bytes"),
        (b"CONFIG-offset:" + struct.pack("<q", -1) + b"binf", "-1 bytes"),
        (b"", "starts with b''"),
        (b'{"learner": 3}', "damaged"),
        (b"{" * 100_000, "damaged"),
    ],
)
def test_other_xgboost_payloads_are_refused(payload, message):
    with pytest.raises(FormatError, match=message):
        xgboost.read_payload(payload, "model")


def change(data, old, new):
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("objective", "message"),
    [(b"reg:logistic", "reg:logistic"), (b"binary:logistic", "binary:logistic"), (b"count:poisson", "count:poisson")],
)
def test_objectives_that_transform_are_refused(objective, message):
    rng = np.random.default_rng(0)
    with pytest.raises(FormatError, match=message):
        xgboost.read_payload(xgboost_binary(random_model(rng), rng, objective=objective), "model")


def test_other_boosters_and_bad_trees_are_refused():
    rng = np.random.default_rng(0)
    good = xgboost_binary([(0, 0.5, 1.0, (4, 1.5, 2.0, 3.0))], np.random.default_rng(3), deleted=0)
    xgboost.read_payload(good, "model")
    with pytest.raises(FormatError, match="gblinear"):
        xgboost.read_payload(change(xgboost_json(random_model(rng), rng), b'"gbtree"', b'"gblinear"'), "model")
    with pytest.raises(FormatError, match="booster 'dart"):
        xgboost.read_payload(change(good, b"gbtree", b"dartxx"), "model")
    with pytest.raises(FormatError, match="feature 4, but the model has 4"):
        xgboost.read_payload(xgboost_binary([(4, 0.5, 1.0, 2.0)], rng, features=4, deleted=0), "model")
    with pytest.raises(FormatError, match="finite"):
        xgboost.read_payload(xgboost_binary([(0, float("nan"), 1.0, 2.0)], rng, deleted=0), "model")
    with pytest.raises(FormatError, match="finite"):
        xgboost.read_payload(xgboost_binary([float("inf")], rng, deleted=0), "model")
    length = struct.unpack_from("<q", good, 14)[0]
    longer = good[:14] + struct.pack("<q", length + 3) + good[22 : 22 + length] + b"abc"
    with pytest.raises(FormatError, match="cut off in the metrics .* 3 left"):
        xgboost.read_payload(longer, "model")
    with pytest.raises(FormatError, match="says that it has 1 trees"):
        xgboost.read_payload(good[:14] + struct.pack("<q", 400) + good[22:422], "model")


def arrays(left, right, feature=None, value=None):
    n = len(left)
    return Trees(
        np.array([0, n]),
        np.array(left, dtype=np.int32),
        np.array(right, dtype=np.int32),
        np.array(feature or [0] * n, dtype=np.int32),
        np.array(value or [0.0] * n, dtype=np.float32),
        np.array(value or [0.0] * n, dtype=np.float32),
        0.0,
        2,
    )


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        ([1, 0, -1], [2, 2, -1], "share a child|ancestor"),  # a cycle through the root
        ([1, -1, -1], [1, -1, -1], "share a child"),
        ([1, -1, -1], [3, -1, -1], "children"),
        ([-2, -1, -1], [2, -1, -1], "children"),
        ([1, -1], [-1, -1], "one child"),
        ([0], [0], "share a child|ancestor"),
    ],
)
def test_graphs_that_are_no_trees_are_refused(left, right, message):
    with pytest.raises(FormatError, match=message):
        check_trees(arrays(left, right), "model")


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_checked_trees_have_their_children_side_by_side(seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng, trees=3)
    trees = xgboost.read_payload(xgboost_binary(model, rng, deleted=int(rng.integers(4))), "model")
    inner = trees.left >= 0
    assert np.array_equal(trees.right[inner], trees.left[inner] + 1)
    size = lambda tree: 1 + size(tree[2]) + size(tree[3]) if isinstance(tree, tuple) else 1  # noqa: E731
    assert np.diff(trees.start).tolist() == [size(tree) for tree in model]
    again = check_trees(trees, "again")
    assert all(np.array_equal(a, b) for a, b in zip(trees[:6], again[:6], strict=True))


# LightGBM


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_lightgbm_models_predict_as_a_slow_reader(seed):
    rng = np.random.default_rng(seed)
    model, rows = random_model(rng, depth=int(rng.integers(5))), random_rows(rng)
    trees = lightgbm.read_text(lightgbm_text(model), "model")
    predicted = predict(trees, rows, "<=")
    assert predicted.dtype == np.float64
    assert predicted.tolist() == [float(slow_predict(model, row, np.float64, "<=")) for row in rows]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("decision_type=2", "decision_type=1", "decision_type 1"),
        ("decision_type=2", "decision_type=10", "decision_type 10"),
        ("decision_type=2", "decision_type=0", "decision_type 0"),
        ("num_cat=0", "num_cat=1", "categorical"),
        ("num_cat=0", "num_cat=0\nis_linear=1", "linear"),
        ("objective=regression", "objective=regression sqrt", "sqrt"),
        ("objective=regression", "objective=binary sigmoid:1", "binary"),
        ("objective=regression", "objective=poisson", "poisson"),
        ("num_class=1", "num_class=3", "several outputs"),
        ("version=v3", "version=v1", "v1"),
        ("label_index=0", "average_output", "random forests"),
        ("end of trees", "end of tre", "cut off"),
        ("Tree=1", "Tree=7", "'7'"),
        ("\nTree=1", "", "Tree|trees|twice"),
        ("left_child=", "left_child=9", "outside|share|children"),
        ("max_feature_idx=4", "max_feature_idx=0", "feature"),
        ("max_feature_idx=4", "max_feature_idx=99999999", "100000000 features"),
        ("threshold=", "threshold=nan ", "threshold"),
        ("num_leaves=", "num_leaves=9999999999", "leaf_value"),
        ("split_feature=", "split_feature=9999999999", "feature"),
    ],
)
def test_lightgbm_models_that_are_not_exact_are_refused(old, new, message):
    model = [(4, 0.5, (3, 1.5, 1.0, 2.0), 3.0), (1, 0.5, 1.0, (2, 1.5, 1.0, 2.0))]
    text = lightgbm_text(model)
    lightgbm.read_text(text, "model")
    with pytest.raises(FormatError, match=message):
        lightgbm.read_text(change(text, old, new), "model")


@pytest.mark.parametrize("key", ["handle", "_handle"])  # of version 3 and before, of version 4
def test_lightgbm_pickles(key):
    rng = np.random.default_rng(0)
    model, rows = random_model(rng), random_rows(rng)
    scores = defaultdict(OrderedDict, valid=OrderedDict(rmse=1.0))
    state = {key: lightgbm_text(model), "best_score": scores, "params": {"a": [1]}, "best": np.float64(3.0)}
    trees = lightgbm.read_booster(booster_pickle("lightgbm.basic", **state), "model")
    assert predict(trees, rows, "<=").tolist() == [float(slow_predict(model, row, np.float64, "<=")) for row in rows]
    with pytest.raises(FormatError, match="no pickled lightgbm Booster"):
        lightgbm.read_booster(booster_pickle("lightgbm.basic", **{key: None}), "model")


# Both: hostile and damaged files


class _Evil:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.parametrize("reader", [xgboost, lightgbm])
def test_other_pickles_are_refused(reader):
    for value in (_Evil(), {"handle": b"CONFIG-offset:"}, [1], None, bytearray(b"abc"), {1, 2}):
        with pytest.raises(FormatError):
            reader.read_booster(pickle.dumps(value), "model")
    for module in ("xgboost.core", "lightgbm.basic"):
        with pytest.raises(FormatError):
            reader.read_booster(booster_pickle(module, handle=3), "model")
        with pytest.raises(FormatError, match="refused"):
            reader.read_booster(booster_pickle(module, handle=_Evil()), "model")


def test_a_bytearray_of_a_size_is_not_allocated():
    data = b"\x80\x04\x8c\x08builtins\x8c\tbytearray\x93\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."  # bytearray(2**40)
    with pytest.raises(FormatError, match="bytearray"):
        xgboost.read_booster(data, "model")


def damage(data, rng):
    """A copy that is cut off, or has some bits, bytes or runs of bytes changed."""
    kind = rng.integers(4)
    if kind == 0:
        return data[: int(rng.integers(len(data)))]
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(changed)))
        if kind == 1:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            changed[at : at + 4] = rng.bytes(4)
        else:
            changed[at : at + int(rng.integers(1, 9))] = b"\xff" * int(rng.integers(9))
    return bytes(changed)


def survives(read, data, left_if):
    """Read damaged data: a FormatError, or a model that predicts; quickly, and in little memory."""
    tracemalloc.start()
    began = time.perf_counter()
    try:
        trees = read(data)
        with np.errstate(over="ignore", invalid="ignore"):  # sums of huge leaves
            predict(trees, np.zeros((3, trees.features)), left_if)
    except FormatError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.perf_counter() - began < 5
    assert peak < 30e6 + 100 * len(data)


@pytest.mark.parametrize("form", ["binary", "json", "xgboost pickle", "lightgbm text", "lightgbm pickle"])
def test_damaged_models_are_refused_or_valid(form):
    rng = np.random.default_rng(20240229)
    model = random_model(rng, trees=3)
    binary, text = xgboost_binary(model, rng), lightgbm_text(model)
    data, read, left_if = {
        "binary": (binary, lambda data: xgboost.read_payload(data, "f"), "<"),
        "json": (xgboost_json(model, rng), lambda data: xgboost.read_payload(data, "f"), "<"),
        "xgboost pickle": (
            booster_pickle("xgboost.core", handle=bytearray(binary), a=[1, "b"]),
            lambda data: xgboost.read_booster(data, "f"),
            "<",
        ),
        "lightgbm text": (text.encode(), lambda data: lightgbm.read_text(data.decode("latin-1"), "f"), "<="),
        "lightgbm pickle": (
            booster_pickle("lightgbm.basic", handle=text),
            lambda data: lightgbm.read_booster(data, "f"),
            "<=",
        ),
    }[form]
    read(data)
    for _ in range(150):
        survives(read, damage(data, rng), left_if)


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_garbage_is_refused(data):
    for read in (
        lambda: xgboost.read_booster(data, "f"),
        lambda: lightgbm.read_booster(data, "f"),
        lambda: xgboost.read_payload(b"CONFIG-offset:" + struct.pack("<q", len(data)) + data, "f"),
        lambda: lightgbm.read_text("tree\n" + data.decode("latin-1") + "\nend of trees", "f"),
    ):
        with pytest.raises(FormatError):
            read()


# Ensembles


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_blocks_and_members_do_not_change_predictions(seed):
    rng = np.random.default_rng(seed)
    members = [random_model(rng, trees=int(rng.integers(1, 6))) for _ in range(4)]
    rows = random_rows(rng, n=30)
    ensemble = TreeEnsemble.build((xgboost.read_payload(xgboost_binary(m, rng), "m") for m in members), "<")
    ensemble.check()
    expected = [[float(slow_predict(m, row, np.float32, "<", 0.5)) for row in rows] for m in members]
    for block, inputs in ((1, 1), (7, 3), (30, 30), (100, 7), (1 << 15, 512)):
        with mock.patch.multiple("nasharness.benchmarks.trees", _BLOCK=block, _INPUTS=inputs):
            assert ensemble.predict(rows).tolist() == expected
    assert ensemble.select([2, 0]).predict(rows).tolist() == [expected[2], expected[0]]
    assert ensemble.predict(rows[:0]).shape == (4, 0)
    columns = ensemble.columns("a.")
    again = TreeEnsemble.from_columns(columns, "a.", left_if="<", features=FEATURES)
    assert again.predict(rows).tolist() == expected


def test_ensembles_refuse_what_they_cannot_do():
    rng = np.random.default_rng(0)
    a = xgboost.read_payload(xgboost_binary(random_model(rng), rng), "a")
    b = xgboost.read_payload(xgboost_binary(random_model(rng), rng, features=FEATURES + 1), "b")
    with pytest.raises(FormatError, match="5 and 6"):
        TreeEnsemble.build([a, b], "<")
    with pytest.raises(FormatError, match="at least one"):
        TreeEnsemble.build([], "<")
    ensemble = TreeEnsemble.build([a], "<")
    with pytest.raises(ValueError, match=r"\(n, 5\), not \(2, 6\)"):
        ensemble.predict(np.zeros((2, 6)))
    with pytest.raises(ValueError, match="NaN"):
        ensemble.predict(np.full((1, 5), np.nan))


@pytest.mark.parametrize("name", ["left", "question", "root", "depth", "members", "question_feature", "value"])
def test_damaged_arrays_are_found(name):
    rng = np.random.default_rng(0)
    columns = TreeEnsemble.build([xgboost.read_payload(xgboost_binary(random_model(rng), rng), "a")], "<").columns("")
    changed = columns[name].copy()
    changed[0] = np.nan if name == "value" else 60_000 if name == "question" else 20_000
    broken = TreeEnsemble.from_columns({**columns, name: changed}, "", left_if="<", features=FEATURES)
    with pytest.raises(FormatError, match="contradict"):
        broken.check()


# The graph network


@pytest.fixture(scope="module")
def gin_vectors(shared_data):
    vectors = json.loads((shared_data / "official" / "nb301_gin_synth.json").read_text())
    genotypes = json.loads((shared_data / "official" / "nb301_genotype_vectors.json").read_text())
    by_name = {case["name"]: SPACE.from_configspace(case["config"]) for case in genotypes["cases"]}
    return vectors, by_name


def test_gin_graphs_are_the_official_ones(gin_vectors):
    vectors, archs = gin_vectors
    cases = [case for case in vectors["cases"] if not case["self_loops"]]
    assert len(cases) == 16
    for case in cases:
        graph = graphs([archs[case["name"]]], undirected=case["undirected_graph"])
        assert graph.degree[0].tolist() == [degree for _, degree in case["x"]]
        assert [graph.source[0].tolist(), graph.target[0].tolist()] == case["edge_index"]
        assert graph.operation[0].tolist() == case["edge_attr"]


def test_gin_predictions_are_the_official_ones(gin_vectors, shared_data):
    vectors, archs = gin_vectors
    for undirected in (False, True):
        cases = [c for c in vectors["cases"] if not c["self_loops"] and c["undirected_graph"] == undirected]
        config = {**vectors["model_config"], "graph_preprocessing:undirected_graph": undirected}
        network = read_gin(shared_data / "official" / "nb301_gin_synth_state.pt", config)
        predicted = network.predict([archs[case["name"]] for case in cases])
        assert predicted.dtype == np.float32
        assert predicted == pytest.approx([case["prediction"][0] for case in cases], rel=1e-5)


def gin_state(layers, width, rng):
    state = {}
    for name, shape in weight_shapes(layers, width).items():
        values = rng.normal(scale=0.3, size=shape)
        state[name] = (np.abs(values) + 0.5 if name.endswith("running_var") else values).astype(np.float32)
    return state


def gin_config(layers, width, **more):
    return {"model": "gnn_gin", "num_gnn_layers": layers, "gnn_hidden_dimensions": width, "virtual_node": True, **more}


def slow_gin(state, layers, graph):
    """One graph, node by node and edge by edge, in float64."""
    s = {name: value.astype(float) for name, value in state.items()}
    relu = lambda x: np.maximum(x, 0)  # noqa: E731

    def linear(name, x):
        return s[name + ".weight"] @ x + s[name + ".bias"]

    def norm(name, x):
        spread = np.sqrt(s[name + ".running_var"] + 1e-5)
        return s[name + ".weight"] * (x - s[name + ".running_mean"]) / spread + s[name + ".bias"]

    kinds = [0, 1, 2, 2, 2, 2, 3] * 2
    encoder = "gnn_node.node_encoder."
    h = [
        s[encoder + "type_encoder.weight"][kind] + s[encoder + "attribute_encoder.weight"][degree]
        for kind, degree in zip(kinds, graph.degree[0], strict=True)
    ]
    virtual = s["gnn_node.virtualnode_embedding.weight"][0]
    for layer in range(layers):
        h = [x + virtual for x in h]
        conv = f"gnn_node.convs.{layer}."
        new = []
        for node in range(14):
            total = (1 + s[conv + "eps"][0]) * h[node]
            for a, b, op in zip(graph.source[0], graph.target[0], graph.operation[0], strict=True):
                if b == node:
                    total = total + relu(h[a] + s[conv + "edge_encoder.weight"][op])
            x = linear(conv + "mlp.3", relu(norm(conv + "mlp.1", linear(conv + "mlp.0", total))))
            x = norm(f"gnn_node.batch_norms.{layer}", x)
            new.append(x if layer == layers - 1 else relu(x))
        if layer < layers - 1:
            mlp = f"gnn_node.mlp_virtualnode_list.{layer}."
            x = relu(norm(mlp + "1", linear(mlp + "0", sum(h) + virtual)))
            virtual = relu(norm(mlp + "4", linear(mlp + "3", x)))
        h = new
    return 100 / (1 + np.exp(-linear("graph_pred_linear", sum(h) / 14)[0]))


@pytest.mark.parametrize("undirected", [False, True])
def test_gin_predicts_as_a_slow_network(undirected):
    rng = np.random.default_rng(5)
    state = gin_state(3, 6, rng)
    network = build_gin(state, gin_config(3, 6, **{"graph_preprocessing:undirected_graph": undirected}), "test")
    archs = [SPACE.sample(rng) for _ in range(8)]
    expected = [slow_gin(state, 3, graphs([arch], undirected=undirected)) for arch in archs]
    assert network.predict(archs) == pytest.approx(expected, rel=1e-4)
    assert network.predict(archs[:0]).shape == (0,)
    many = [SPACE.sample(rng) for _ in range(300)]  # more than a batch
    assert network.predict(many)[[0, 299]] == pytest.approx([network.predict([many[i]])[0] for i in (0, 299)], rel=1e-5)


def test_every_architecture_has_degrees_that_the_network_knows():
    rng = np.random.default_rng(0)
    extreme = (*[0] * 8, 0, 0, 0) * 2, (*[6] * 8, 2, 5, 9) * 2
    archs = np.array([*extreme, *(SPACE.sample(rng) for _ in range(2000))])
    graph = graphs(archs)
    assert graph.degree.min() >= 1
    assert graph.degree.max() <= 7
    edges = graph.source * 14 + graph.target
    assert all(len(set(row)) == len(row) for row in edges[:200].tolist())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"graph_preprocessing:self_loops": True}, "self_loops"),
        ({"model": "xgb"}, "'xgb'"),
        ({"graph_pooling": "sum"}, "'sum'"),
        ({"virtual_node": False}, "virtual_node"),
        ({"num_gnn_layers": 10**9}, "1000000000 layers"),
        ({"num_gnn_layers": None}, "None layers"),
        ({"num_gnn_layers": 4}, "convs.3"),
        ({"num_gnn_layers": 2}, "does not belong"),
        ({"gnn_hidden_dimensions": 7}, "shape"),
    ],
)
def test_other_gin_models_are_refused(config, message):
    state = gin_state(3, 6, np.random.default_rng(0))
    with pytest.raises(FormatError, match=message):
        build_gin(state, {**gin_config(3, 6), **config}, "test")


def test_damaged_gin_weights_are_refused(tmp_path):
    import torch

    rng = np.random.default_rng(0)
    state = gin_state(2, 4, rng)
    config = gin_config(2, 4)
    for name, value, message in (
        ("graph_pred_linear.bias", np.array([np.nan], dtype=np.float32), "not finite"),
        ("graph_pred_linear.bias", np.zeros(1), "float64"),
        ("graph_pred_linear.bias", None, "missing"),
        ("gnn_node.batch_norms.0.running_var", np.full(4, -1, dtype=np.float32), "negative"),
        ("surprise", np.zeros(1, dtype=np.float32), "surprise"),
    ):
        broken = {**state, name: value}
        if value is None:
            del broken[name]
        with pytest.raises(FormatError, match=message):
            build_gin(broken, config, "test")
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    archs = [SPACE.sample(rng) for _ in range(3)]
    for zipped in (False, True):
        path = tmp_path / f"{zipped}.model"
        torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
        expected = build_gin(state, config, "test").predict(archs)
        assert np.array_equal(read_gin(path, config).predict(archs), expected)
        data = path.read_bytes()
        for _ in range(60):
            path.write_bytes(damage(data, rng))
            with contextlib.suppress(FormatError):
                read_gin(path, config)


# Official vectors


@pytest.fixture(scope="module")
def official(shared_data):
    folder = shared_data / "official"
    predictions = json.loads((folder / "nb301_synth_predictions.json").read_text())
    genotypes = json.loads((folder / "nb301_genotype_vectors.json").read_text())
    return folder / "nb_models_synth", predictions, np.array([case["vector"] for case in genotypes["cases"]])


def model_file(folder):
    (found,) = folder.rglob("surrogate_model.model")
    return found.read_bytes()


def test_official_xgboost_members_exactly(official):
    folder, vectors, features = official
    models = [xgboost.read_booster(model_file(folder / name), name) for name in vectors["xgb_member_order"]]
    predicted = TreeEnsemble.build(models, "<").predict(features)
    expected = np.array([case["members"] for case in vectors["predictions"]], dtype=np.float32).T
    assert predicted.dtype == np.float32
    assert np.array_equal(predicted, expected)


def test_official_lightgbm_members_exactly(official):
    """The vectors do not say the members' order, so each is looked for."""
    folder, vectors, features = official
    names = sorted(path.name for path in (folder / "lgb_runtime_v0.9").iterdir())
    models = [lightgbm.read_booster(model_file(folder / "lgb_runtime_v0.9" / name), name) for name in names]
    predicted = TreeEnsemble.build(models, "<=").predict(features)
    expected = np.array([case["runtime_members"] for case in vectors["predictions"]]).T
    assert sorted(map(tuple, predicted.tolist())) == sorted(map(tuple, expected.tolist()))


def slow_official_reader(payload, rows):
    """A second reader of the binary form: node by node with struct, nothing vectorised."""
    at = 22
    length = struct.unpack_from("<q", payload, 14)[0]
    model = payload[at : at + length]
    at = 4
    base = np.float32(struct.unpack_from("<f", model, at)[0])
    at += 136
    for _ in range(2):
        at += 8 + struct.unpack_from("<Q", model, at)[0]
    (trees,) = struct.unpack_from("<i", model, at)
    at += 160
    forest = []
    for _ in range(trees):
        (count,) = struct.unpack_from("<i", model, at + 4)
        at += 148
        forest.append([struct.unpack_from("<iiiIf", model, at + 20 * k) for k in range(count)])
        at += 36 * count
    answers = []
    for row in rows:
        total = base
        for nodes in forest:
            node = 0
            while nodes[node][1] != -1:
                _, left, right, split, threshold = nodes[node]
                node = left if np.float32(row[split & 0x7FFFFFFF]) < np.float32(threshold) else right
            total = np.float32(total + np.float32(nodes[node][4]))
        answers.append(total)
    return answers


def test_official_xgboost_models_on_random_architectures(official):
    folder, vectors, _ = official
    rng = np.random.default_rng(0)
    rows = SPACE.features([SPACE.sample(rng) for _ in range(200)])
    for name in vectors["xgb_member_order"][:3]:
        data = model_file(folder / name)
        payload = data[data.index(b"CONFIG-offset:") :]
        predicted = predict(xgboost.read_booster(data, name), rows, "<")
        assert predicted.tolist() == [float(x) for x in slow_official_reader(payload, rows)]


def test_damaged_official_models_are_refused_or_valid(official):
    folder, vectors, _ = official
    rng = np.random.default_rng(1)
    first = model_file(folder / vectors["xgb_member_order"][0])
    second = model_file(folder / "lgb_runtime_v0.9" / "1")
    for _ in range(60):
        survives(lambda data: xgboost.read_booster(data, "f"), damage(first, rng), "<")
        survives(lambda data: lightgbm.read_booster(data, "f"), damage(second, rng), "<=")
