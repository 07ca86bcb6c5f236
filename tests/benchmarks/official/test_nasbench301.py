"""The official NAS-Bench-301 calls on a converted file give the official answers."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasharness.benchmarks.columns import TableError, open_columns, write_columns
from nasharness.benchmarks.convert.nasbench301 import convert
from nasharness.benchmarks.official import nasbench301 as nb
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import FEATURE_NAMES

CELL = "NetworkSelectorDatasetInfo:darts:"
LEARNING_RATE = "OptimizerSelector:sgd:learning_rate"


@pytest.fixture(scope="module")
def vectors(shared_data):
    read = lambda name: json.loads((shared_data / "official" / name).read_text())  # noqa: E731
    return read("nb301_synth_predictions.json"), read("nb301_genotype_vectors.json")


@pytest.fixture(scope="module")
def file(shared_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "nasbench301.safetensors"
    convert(shared_data / "official" / "nb_models_synth", path)
    return path


@pytest.fixture(scope="module")
def cases(vectors):
    """(genotype, configuration, expected) of every official case."""
    predictions, genotypes = vectors
    return [
        (nb.Genotype(case["normal"], [2, 3, 4, 5], case["reduce"], [2, 3, 4, 5]), case["config"], expected)
        for case, expected in zip(genotypes["cases"], predictions["predictions"], strict=True)
    ]


def test_every_official_prediction_exactly(file, vectors, cases):
    ensemble = nb.load_ensemble(file, "xgb", order=vectors[0]["xgb_member_order"])
    assert len(cases) == 43
    for genotype, config, expected in cases:
        members = ensemble.predict_members(genotype)
        assert all(member.shape == (1,) and member.dtype == np.float32 for member in members)
        assert [float(member[0]) for member in members] == expected["members"]
        mean = ensemble.predict(genotype, with_noise=False)
        assert type(mean) is np.float32
        assert float(mean) == expected["mean"]
        assert float(np.std(members)) == expected["std"]
        noisy = ensemble.predict(config=genotype, representation="genotype", rng=np.random.RandomState(5))
        assert type(noisy) is np.float64
        assert float(noisy) == expected["noisy_after_seed5"]
        assert ensemble.predict(config, "configspace", with_noise=False) == mean


def test_every_official_runtime(file, cases):
    ensemble = nb.load_ensemble(file, "lgb_runtime")
    for genotype, _, expected in cases:
        members = ensemble.predict_members(genotype)
        assert all(member.shape == (1,) and member.dtype == np.float64 for member in members)
        assert sorted(float(member[0]) for member in members) == sorted(expected["runtime_members"])
        mean = ensemble.predict(genotype, with_noise=False)
        assert type(mean) is np.float64
        assert mean == pytest.approx(expected["runtime_mean"], rel=1e-15)
        places = [[float(m[0]) for m in members].index(value) for value in expected["runtime_members"]]
        ordered = nb.load_ensemble(file, "lgb_runtime", order=[ensemble.members[place] for place in places])
        assert float(ordered.predict(genotype, with_noise=False)) == expected["runtime_mean"]


def test_noise_is_drawn_as_officially(file, cases):
    ensemble = nb.load_ensemble(file, "lgb_runtime")
    genotype = cases[0][0]
    rng, again = np.random.RandomState(9), np.random.RandomState(9)
    members = ensemble.predict_members(genotype)
    for _ in range(3):
        expected = np.mean(members) + again.normal(0, np.std(members), 1)[0]
        assert ensemble.predict(genotype, rng=rng) == expected
    with pytest.raises(ValueError, match="pass rng"):
        ensemble.predict(genotype)


def test_base_last_sums_in_the_other_order(file, cases):
    """Sums that end with the base differ in the last bits only, and in some of them they do."""
    a, b = nb.load_ensemble(file, "xgb"), nb.load_ensemble(file, "xgb", base_last=True)
    for genotype, _, _ in cases:
        assert b.predict(genotype, with_noise=False) == pytest.approx(a.predict(genotype, with_noise=False), rel=1e-6)
    with pytest.raises(ValueError, match="no base score"):
        nb.load_ensemble(file, "lgb_runtime", base_last=True)


def test_orders_and_names(file):
    members = nb.load_ensemble(file, "xgb").members
    ensemble = nb.load_ensemble(open_columns(file), "xgb", order=[f"xgb_v0.9/{name}" for name in reversed(members)])
    assert ensemble.members == members[::-1]
    for order in (members[:-1], [*members[:-1], members[0]], [*members, "11/xgb/x"], ["1"] * 10):
        with pytest.raises(ValueError, match="each of"):
            nb.load_ensemble(file, "xgb", order=order)
    with pytest.raises(ValueError, match="unknown model 'svr'"):
        nb.load_ensemble(file, "svr")
    with pytest.raises(TableError, match="lacks the model gnn_gin"):
        nb.load_ensemble(file, "gnn_gin")
    with pytest.raises(TableError, match="cannot read"):
        nb.load_ensemble("nowhere", "xgb")
    with pytest.raises(TableError, match="is a folder of official models: convert it"):
        nb.load_ensemble(".", "xgb")


def test_fixed_hyperparameters_have_the_official_features(vectors):
    genotypes = vectors[1]
    constants = {genotypes["parameter_order"][int(k)]: value for k, value in genotypes["constant_positions"].items()}
    assert len(constants) == 22
    assert {
        name: nb.hyperparameter_feature(name, value) for name, value in nb.FIXED_HYPERPARAMETERS.items()
    } == constants
    choices = genotypes["choices"]
    for name in constants:
        for index, choice in enumerate(choices.get(name, [])):
            assert nb.hyperparameter_feature(name, choice) == index


def test_a_full_sample_replaces_hyperparameters(file, cases):
    ensemble = nb.load_ensemble(file, "xgb")
    _, config, expected = cases[0]
    full = {**nb.FIXED_HYPERPARAMETERS, **{CELL + name: value for name, value in config.items()}}
    mean = ensemble.predict(full, "configspace", with_noise=False)
    assert mean == pytest.approx(expected["mean"], rel=1e-6)

    class Configuration:
        def get_dictionary(self):
            return full

    assert ensemble.predict(Configuration(), "configspace", with_noise=False) == mean


def test_changed_hyperparameters_reach_the_trees(file, cases, tmp_path):
    """With a model that asks for the learning rate: here all questions are made to."""
    columns = open_columns(file)
    asked = np.full_like(columns["xgb.question_feature"], FEATURE_NAMES.index(LEARNING_RATE))
    thresholds = np.full_like(columns["xgb.question_threshold"], math.log(0.01))
    changed = {**columns, "xgb.question_feature": asked, "xgb.question_threshold": thresholds}
    write_columns(tmp_path / "file", changed, kind="nasbench301", metadata=columns.metadata)
    ensemble = nb.load_ensemble(tmp_path / "file", "xgb")
    config = cases[0][1]
    usual = ensemble.predict(config, "configspace", with_noise=False)
    low = ensemble.predict({**config, LEARNING_RATE: 0.005}, "configspace", with_noise=False)
    assert ensemble.predict({**config, LEARNING_RATE: 0.02}, "configspace", with_noise=False) == usual
    assert low != usual


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", 0.1, "no hyper-parameter"),
        (LEARNING_RATE, 0.0, "positive"),
        (LEARNING_RATE, "0.1", "number"),
        (LEARNING_RATE, float("nan"), "positive"),
        (CELL + "layers", 0, "1..10000"),
        (CELL + "layers", 8.5, "whole"),
        (CELL + "layers", True, "number"),
        ("layers", 10_001, "1..10000"),
        (CELL + "drop_path_prob", 0.3, "0.2"),
        ("CreateImageDataLoader:batch_size", 129, "64..128"),
        ("OptimizerSelector:sgd:momentum", 1.0, "0.1..0.99"),
        ("OptimizerSelector:optimizer", "adam", "'sgd'"),
        ("ImageAugmentation:cutout", False, "True"),
        ("ImageAugmentation:autoaugment", 0, "False, True"),
        ("edge_normal_0", "none", "none"),
        (CELL + "edge_reduce_13", "skip_connect", "edge_reduce_13"),
        ("inputs_node_normal_3", "1_1", "1_1"),
    ],
)
def test_illegal_configurations_are_refused(file, cases, name, value, message):
    ensemble = nb.load_ensemble(file, "xgb")
    with pytest.raises(ValueError, match=message):
        ensemble.predict({**cases[0][1], name: value}, "configspace", with_noise=False)


def test_illegal_genotypes_are_refused(file, cases):
    ensemble = nb.load_ensemble(file, "xgb")
    genotype = cases[0][0]
    normal = [list(pair) for pair in genotype.normal]
    normal[0][0] = "none"
    for bad in (genotype._replace(normal=normal), genotype._replace(normal=normal[:7]), "Genotype", 3):
        with pytest.raises(InvalidArchitecture):
            ensemble.predict(bad, with_noise=False)
    for representation in ("BANANAS", "arch"):
        with pytest.raises(ValueError, match="unknown representation"):
            ensemble.predict(genotype, representation, with_noise=False)
    with pytest.raises(InvalidArchitecture, match="mapping"):
        ensemble.predict([1, 2], "configspace", with_noise=False)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_log_normal_features_are_logarithms(a, b):
    feature = lambda value: nb.hyperparameter_feature(LEARNING_RATE, value)  # noqa: E731
    assert math.exp(feature(a)) == pytest.approx(a)
    assert (feature(a) < feature(b)) == (math.log(a) < math.log(b))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("CreateImageDataLoader:batch_size", 64, 128),
        (CELL + "layers", 1, 10_000),
        ("OptimizerSelector:sgd:momentum", 0.1, 0.99),
    ],
)
def test_ranges_are_scaled_to_the_unit_interval(name, low, high):
    ends = nb.hyperparameter_feature(name, low), nb.hyperparameter_feature(name, high)
    assert 0 <= ends[0] < 0.02
    assert 0.98 < ends[1] <= 1
