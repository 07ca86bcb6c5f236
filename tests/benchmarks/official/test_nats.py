"""The official NATS-Bench and NAS-Bench-201 answers, one to one, from a converted table."""

import json
import math
import random

import pytest

from nasharness.benchmarks.columns import open_columns
from nasharness.benchmarks.convert.nats import convert
from nasharness.benchmarks.nats import NATSTable
from nasharness.benchmarks.official.nats import NASBench201, NATSBench


def _table(source, folder, name):
    target = folder / f"{name}.safetensors"
    convert(source, target)
    return NATSTable(open_columns(target, kind="nats"))


@pytest.fixture(scope="module")
def tss(shared_data, tmp_path_factory):
    source = shared_data / "official" / "NATS-tss-v1_0-3ffb9-simple"
    answers = json.loads((shared_data / "official" / "nats_tss_queries.json").read_text())
    return _table(source, tmp_path_factory.mktemp("tss"), "nasbench201"), answers


@pytest.fixture(scope="module")
def sss(shared_data, tmp_path_factory):
    source = shared_data / "official" / "NATS-sss-v1_0-50262-simple"
    answers = json.loads((shared_data / "official" / "nats_sss_queries.json").read_text())
    return _table(source, tmp_path_factory.mktemp("sss"), "nats-size"), answers


@pytest.fixture(scope="module")
def pth(shared_data, tmp_path_factory):
    source = shared_data / "official" / "nb201_legacy_pth_layout_3archs.pth"
    answers = json.loads((shared_data / "official" / "nb201_old_api_queries.json").read_text())
    return _table(source, tmp_path_factory.mktemp("pth"), "nasbench201"), answers


@pytest.fixture(params=["tss", "sss"])
def nats(request):
    return request.getfixturevalue(request.param)


def _without_comment(info):
    return {key: value for key, value in info.items() if key != "comment"}


def _equal(ours, theirs):
    """Exactly, and with NaN equal to NaN."""
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == value or (math.isnan(ours[key]) and math.isnan(value)), key


def test_every_get_more_info(nats):
    table, answers = nats
    api = NATSBench(table, rng=random.Random(0))
    assert len(api) == answers["len"]
    for q in answers["get_more_info"]:
        info = api.get_more_info(q["index"], q["dataset"], q["iepoch"], q["hp"], q["is_random"])
        assert ("comment" in info) == (q["dataset"] in ("cifar10-valid", "cifar10"))
        _equal(_without_comment(info), q["info"])


def test_costs_configurations_seeds_and_strings(nats):
    table, answers = nats
    api = NATSBench(table, rng=random.Random(0))
    for q in answers["get_cost_info"]:
        _equal(api.get_cost_info(q["index"], q["dataset"], q["hp"]), q["info"])
    for q in answers["get_net_config"]:
        assert api.get_net_config(q["index"], q["dataset"]) == q["config"]
    for key, seeds in answers["dataset_seeds"].items():
        index, hp = key.split("/")
        assert api.query_meta_info_by_index(int(index), hp).dataset_seed == seeds
    for index, text in answers["arch_strings"].items():
        assert api.arch(int(index)) == api[int(index)] == text
        assert api.query_index_by_arch(text) == int(index)


def test_random_draws_are_the_official_ones(nats):
    table, answers = nats
    drawn = answers["simulate_train_eval"]
    api = NATSBench(table, rng=random.Random(drawn["random_seed"]))
    for q in drawn["calls"]:
        assert list(api.simulate_train_eval(q["index"], q["dataset"], q["iepoch"], q["hp"])) == q["result"], q
    assert api.used_time == drawn["calls"][-1]["result"][3]
    api.reset_time()
    assert api.used_time == 0
    drawn = answers["get_more_info_random"]
    api = NATSBench(table, rng=random.Random(drawn["random_seed"]))
    for q in drawn["calls"]:
        info = api.get_more_info(q["index"], q["dataset"], q.get("iepoch"), q["hp"], is_random=True)
        _equal(_without_comment(info), q["info"])


def test_find_best(nats):
    table, answers = nats
    api = NATSBench(table, rng=random.Random(0))
    for key, best in answers["find_best_over_3"].items():
        dataset, split, hp = key.split("/")
        assert list(api.find_best(dataset, split, hp=hp)) == best, key


def test_find_best_under_limits(tss):
    api = NATSBench(tss[0], rng=random.Random(0))
    flops = {index: api.get_cost_info(index, "cifar10", "200")["flops"] for index in (0, 11, 284)}
    second = sorted(flops.values())[1]
    found, _ = api.find_best("cifar10", "test", flop_max=second, hp="200")
    assert flops[found] <= second
    assert api.find_best("cifar10", "test", flop_max=0.0) == (-1, None)
    assert api.find_best("cifar10", "test", param_max=1e9, hp="200") == api.find_best("cifar10", "test", hp="200")


def _raises(expected, call):
    kind = {"ValueError": ValueError, "KeyError": KeyError}[expected["raises"]]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == expected["message"]


def test_errors_word_for_word(nats):
    table, answers = nats
    api = NATSBench(table, rng=random.Random(0))
    errors = answers["errors"]
    last = api.avaliable_hps[-1]
    _raises(errors["bad_seed"], lambda: api.get_more_info(0, "cifar10", None, last, is_random=1))
    _raises(errors["bad_index"], lambda: api.query_index_by_arch(100000))
    assert api.query_index_by_arch("|nonsense~0|") == errors["unknown_arch_string_index"]
    _raises(errors["missing_hp"], lambda: api.query_by_index(0, hp="7"))
    _raises(errors["iepoch_out_of_range"], lambda: api.get_more_info(0, "cifar10", 12, "12", is_random=False))
    _raises(errors["simulate_cifar10valid"], lambda: api.simulate_train_eval(0, "cifar10-valid"))
    trials = api.query_by_index(0, "cifar10", "12")
    _raises(errors["get_metrics_x_valid_on_cifar10"], lambda: next(iter(trials.values())).get_eval("x-valid", 11))
    assert api.get_more_info(0, "cifar10", None, 12, False) == api.get_more_info(0, "cifar10", None, "12", False)


def test_the_topology_api_knows_its_strings(tss):
    table, answers = tss
    api = NATSBench(table, rng=random.Random(0))
    assert (api.search_space_name, api.full_train_epochs, api.avaliable_hps) == ("topology", 200, ["12", "200"])
    for text, unique in answers["index"]["unique_str_samples"].items():
        assert api.get_unique_str(text) == unique
    assert api.statistics("cifar10", 200) == {3: 3}
    assert 0 <= api.random() < 15625


def test_the_api_of_nas_bench_201(pth):
    table, answers = pth
    api = NASBench201(table, rng=random.Random(0))
    assert api.avaliable_hps == answers["avaliable_hps"]
    assert len(api) == answers["len"]
    for q in answers["get_more_info"]:
        info = api.get_more_info(q["index"], q["dataset"], q["iepoch"], q["hp"], q["is_random"])
        assert info == pytest.approx(q["info"], rel=1e-12)
    for q in answers["get_cost_info"]:
        assert api.get_cost_info(q["index"], q["dataset"], q["hp"]) == pytest.approx(q["info"], rel=1e-12)
    drawn = answers["simulate_train_eval"]
    api = NASBench201(table, rng=random.Random(drawn["random_seed"]))
    for q in drawn["calls"]:
        result = api.simulate_train_eval(q["index"], q["dataset"], q["hp"])
        assert list(result) == pytest.approx(q["result"], rel=1e-12)
    for key, best in answers["find_best"].items():
        dataset, split, hp = key.split("/")
        assert list(api.find_best(dataset, split, hp=hp)) == pytest.approx(best, rel=1e-12)
    for text, matrix in answers["str2matrix"].items():
        assert api.str2matrix(text).tolist() == matrix
    for text, nodes in answers["str2lists"].items():
        assert [[list(term) for term in node] for node in api.str2lists(text)] == nodes


def test_archive_and_pth_hold_the_same(tss, pth):
    """The .pth test file is the same three architectures in the older layout."""
    new, old = (NATSBench(t, rng=random.Random(0)) for t in (tss[0], pth[0]))
    for hp in ("12", "200"):
        for dataset in ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"):
            assert new.get_more_info(284, dataset, None, hp, False) == old.get_more_info(284, dataset, None, hp, False)
