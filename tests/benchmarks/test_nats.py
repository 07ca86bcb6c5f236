"""The benchmarks over a NATS table: what a search sees, what a report uses, and what is never mixed up."""

import functools
import json
import pickle
import random
import warnings

import numpy as np
import pytest

from nasharness.benchmarks.base import Final
from nasharness.benchmarks.columns import TableError, open_columns, write_columns
from nasharness.benchmarks.convert.nats import convert
from nasharness.benchmarks.nats import NATSBenchmark, NATSTable, official_set, open_nats
from nasharness.benchmarks.official.nats import NATSBench
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.harness.study import compare

DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
INDEXES = (0, 11, 284)


@pytest.fixture(scope="module")
def tss(shared_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("tss") / "nasbench201.safetensors"
    convert(shared_data / "official" / "NATS-tss-v1_0-3ffb9-simple", path)
    return path


@pytest.fixture(scope="module")
def sss(shared_data, tmp_path_factory):
    path = tmp_path_factory.mktemp("sss") / "nats-size.safetensors"
    convert(shared_data / "official" / "NATS-sss-v1_0-50262-simple", path)
    return path


@pytest.fixture(scope="module")
def table(tss):
    return NATSTable(open_columns(tss, kind="nats"))


def _bench(table, dataset="cifar10", **options):
    return NATSBenchmark(table, dataset, id=f"nasbench201-v1/{dataset}", **options)


def test_the_ground_truth_of_index_284(table):
    """What peers return under the wrong name: the real numbers of one architecture after 200 epochs."""
    arch = table.space.from_index(284)

    def percent(dataset, split):
        return round(100 * table.accuracy(arch, dataset, split, schedule=200), 2)

    assert percent("cifar10-valid", "valid") == 86.05
    assert percent("cifar10-valid", "test") == 85.64
    assert percent("cifar10", "test") == 88.79
    assert percent("cifar100", "valid") == 61.68
    assert percent("cifar100", "test") == 62.14
    assert percent("cifar100", "valtest") == 61.91


def test_a_split_never_answers_for_another(table):
    arch = table.space.from_index(284)
    with pytest.raises(ValueError, match="cifar10 has no split 'valid'.*ask cifar10-valid"):
        table.accuracy(arch, "cifar10", "valid", schedule=200)
    with pytest.raises(ValueError, match="has no split 'valtest'"):
        table.accuracy(arch, "cifar10-valid", "valtest", schedule=200)
    with pytest.raises(ValueError, match="no valid accuracy after epoch 100.*only measured after epoch 200.*valtest"):
        table.accuracy(arch, "cifar100", "valid", schedule=200, epoch=100)
    assert 0 < table.accuracy(arch, "cifar100", "valtest", schedule=200, epoch=100) < 1
    with pytest.raises(ValueError, match="unknown dataset"):
        official_set("cifar", "valid")


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_search_sees_what_simulate_train_eval_answers(table, dataset):
    bench = _bench(table, dataset)
    searched = "cifar10-valid" if dataset == "cifar10" else dataset
    api = NATSBench(table, rng=random.Random(0))
    for index in INDEXES:
        arch = bench.space.from_index(index)
        for epochs in (1, 5, 12):
            official = set()
            for seed in table.seeds(arch, searched, "12"):
                info = api.get_more_info(index, searched, epochs - 1, "12", seed)
                official.add((info["valid-accuracy"] / 100, info["train-all-time"] + info["valid-per-time"]))
            seen = set()
            for draw in range(20):
                answer = bench.query(arch, None if epochs == 12 else epochs, np.random.default_rng(draw))
                seen.add((answer.val_accuracy, answer.seconds))
                assert answer.epochs == epochs == len(answer.curve)
                assert answer.curve[-1] == np.float32(answer.val_accuracy)
                assert answer.curve.base is None or isinstance(answer.curve.base, bytes)
                assert not answer.curve.flags.writeable
            assert seen == official


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_report_uses_the_means_of_the_full_schedule(table, dataset):
    bench = _bench(table, dataset)
    api = NATSBench(table, rng=random.Random(0))
    for index in INDEXES:
        final = bench.final(bench.space.from_index(index))
        tested = api.get_more_info(index, dataset, None, "200", is_random=False)
        valid = api.get_more_info(index, "cifar10-valid" if dataset == "cifar10" else dataset, None, "200", False)
        cost = api.get_cost_info(index, dataset, "200")
        assert final.val_accuracy == pytest.approx(valid["valid-accuracy"] / 100, rel=1e-15)
        assert final.test_accuracy == pytest.approx(tested["test-accuracy"] / 100, rel=1e-15)
        assert final.seconds == pytest.approx(valid["train-all-time"], rel=1e-12)
        assert (final.params, final.flops) == (round(1e6 * cost["params"]), round(1e6 * cost["flops"]))
        latency = bench.metric("latency", [bench.space.from_index(index)])
        assert latency == pytest.approx([cost["latency"]], rel=1e-15)


def test_params_and_flops_are_those_of_the_network(table):
    from nasharness.benchmarks.networks.cost import count_flops, count_parameters

    for dataset, side in (("cifar10", 32), ("ImageNet16-120", 16)):
        bench = _bench(table, dataset)
        arch = bench.space.from_index(11)
        network = bench.network(arch)
        final = bench.final(arch)
        assert count_parameters(network) == final.params
        assert count_flops(network, (3, side, side)) == final.flops


def test_query_many_agrees_with_query(table):
    bench = _bench(table, "cifar100")
    archs = [bench.space.from_index(i) for i in INDEXES] * 5
    for epochs in (None, 4):
        many = bench.query_many(archs, epochs)
        singles = [bench.query(arch, epochs) for arch in archs]
        assert many.val_accuracy.tolist() == [s.val_accuracy for s in singles]
        assert many.seconds.tolist() == [s.seconds for s in singles]
    drawn = _bench(table).query_many(archs * 40, rng=np.random.default_rng(1))
    assert len(set(drawn.val_accuracy[::15].tolist())) == 2  # both trials of one architecture are drawn


def test_the_long_schedule(table):
    bench = _bench(table, schedule=200)
    arch = bench.space.from_index(284)
    assert bench.max_epochs == 200
    curve = bench.curve(arch, seed=777)
    assert curve.val_accuracy[0] == np.float32(0.19392000001220705)
    assert curve.val_accuracy.shape == (200,)
    assert not np.isnan(curve.val_accuracy).any()
    answer = bench.query(arch, 100)
    assert answer.val_accuracy == table.accuracy(arch, "cifar10-valid", "valid", schedule=200, epoch=100, seed=777)
    assert np.float32(answer.seconds) == curve.seconds[99]
    mean = np.mean([bench.curve(arch, seed).val_loss for seed in (777, 888, 999)], axis=0)
    assert bench.curve(arch).val_loss == pytest.approx(mean, rel=1e-6)


def test_the_mixture_is_not_handed_to_a_search(table):
    bench = _bench(table, "cifar100", schedule=200)
    arch = bench.space.from_index(284)
    with pytest.raises(ValueError, match="no validation accuracy after epoch 100, only after epoch 200.*valtest"):
        bench.query(arch, 100)
    curve = bench.curve(arch)
    assert np.isnan(curve.val_accuracy[:-1]).all()
    assert curve.val_accuracy[-1] == np.float32(bench.final(arch).val_accuracy)
    assert not np.isnan(curve.train_accuracy).any()


def test_bad_questions(table):
    bench = _bench(table)
    arch = bench.space.from_index(284)
    for epochs in (0, 13, 1.5, True):
        with pytest.raises(ValueError, match=r"epochs must be a whole number in 1..12"):
            bench.query(arch, epochs)
    with pytest.raises(InvalidArchitecture, match="has no trial of"):
        bench.query(bench.space.from_index(1))
    with pytest.raises(InvalidArchitecture, match="has no trial of"):
        bench.query_many([arch, bench.space.from_index(1)])
    for bad in ((9, 0, 0, 0, 0, 0), (0, 0), "x", (0.5,) * 6):
        with pytest.raises(InvalidArchitecture):
            bench.query(bad)
    with pytest.raises(ValueError, match=r"training seeds .* are \[777, 888, 999\], not 1"):
        table.accuracy(arch, "cifar10", "test", schedule=200, seed=1)
    with pytest.raises(ValueError, match=r"training seeds"):
        bench.curve(arch, seed=1)
    with pytest.raises(ValueError, match="has no trials of 7/cifar10"):
        table.accuracy(arch, "cifar10", "test", schedule=7)
    with pytest.raises(ValueError, match=r"epochs 1..12, not 13"):
        table.loss(arch, "cifar10", "test", schedule=12, epoch=13)
    with pytest.raises(ValueError, match="unknown dataset 'svhn'"):
        _bench(table, "svhn")
    with pytest.raises(TableError, match="no trials of 50/cifar10-valid"):
        _bench(table, schedule=50)
    with pytest.raises(ValueError, match="interpolation is 'step' or 'linear'"):
        _bench(table, interpolation="cubic")
    with pytest.raises(ValueError, match="has no metric 'colour'; it has params, flops, latency"):
        bench.metric("colour", [arch])


def test_seconds_and_losses_by_name(table):
    arch = table.space.from_index(284)
    api = NATSBench(table, rng=random.Random(0))
    info = api.get_more_info(284, "cifar10-valid", 5, "12", 111)
    assert table.seconds(arch, "cifar10-valid", "train", schedule=12, epochs=6, seed=111) == info["train-all-time"]
    assert table.seconds(arch, "cifar10-valid", "valid", schedule=12, epochs=6, seed=111) == info["valid-all-time"]
    assert table.loss(arch, "cifar10-valid", "valid", schedule=12, epoch=6, seed=111) == info["valid-loss"]
    assert (
        table.accuracy(arch, "cifar10-valid", "train", schedule=12, epoch=6, seed=111) == info["train-accuracy"] / 100
    )


def test_the_size_space(sss, shared_data):
    answers = json.loads((shared_data / "official" / "nats_sss_queries.json").read_text())
    costs = {(q["index"], q["dataset"], q["hp"]): q["info"] for q in answers["get_cost_info"]}
    for dataset in DATASETS:
        bench = open_nats(sss, dataset, id=f"nats-size-v1/{dataset}")
        for index in INDEXES:
            arch = bench.space.from_index(index)
            final = bench.final(arch)
            cost = costs[(index, dataset, "90")]
            assert (final.params, final.flops) == (round(1e6 * cost["params"]), round(1e6 * cost["flops"]))
            answer = bench.query(arch, rng=np.random.default_rng(0))
            assert answer.epochs == 12
            assert 0 < answer.val_accuracy < final.val_accuracy < 1


def test_the_optimum_of_a_partial_table(table):
    bench = _bench(table)
    finals = bench.final_many([bench.space.from_index(i) for i in INDEXES])
    best = bench.optimum
    assert isinstance(best, Final)
    assert best.test_accuracy == finals.test_accuracy.max()
    assert best.params == finals.params.min()


@pytest.mark.parametrize(("dataset", "schedule"), [("cifar10", 12), ("cifar100", 200)])
def test_a_search_stays_within_a_partial_table(table, dataset, schedule):
    """Sampling, mutation and neighbours give what the file has; asking for anything else is an error, never NaN."""
    bench = _bench(table, dataset, schedule=schedule)
    assert bench.space.size == 3
    assert sorted(map(bench.space.index, bench.space)) == list(INDEXES)
    rng = np.random.default_rng(0)
    for _ in range(20):
        arch = bench.space.mutate(bench.space.sample(rng), rng)
        assert bench.query(arch, rng=rng).val_accuracy > 0
    stranger = [bench.space.from_index(1)]
    for ask in (bench.query_many, bench.final_many, *(functools.partial(bench.metric, m) for m in bench.metrics)):
        assert not np.isnan(ask(list(bench.space))).any()
        with pytest.raises(InvalidArchitecture, match="no trial of|not one of the 3 that are in this table"):
            ask(stranger)
    assert "holds 3 architectures of nasbench201 and not all" in bench.info.caution
    study = compare(["random_search", "regularized_evolution"], bench, 10, repetitions=3)
    assert [row.repetitions for row in study.summary().rows] == [3, 3]


def test_a_complete_table_has_the_full_space(tmp_path):
    """Nothing stands between a search and the space then: a part of it would be slower."""
    n = 15_625
    columns, groups = {}, {}
    for name in ("12/cifar10-valid", "200/cifar10-valid", "200/cifar10"):
        groups[name] = {"epochs": 1, "sets": {"x-valid": [0], "ori-test": [0]}}
        columns[f"{name}/first"] = np.arange(n + 1, dtype=np.int32)
        columns[f"{name}/seed"] = np.full(n, 777, dtype=np.int32)
        columns |= {f"{name}/{column}": np.arange(1.0, n + 1) for column in ("params", "flops", "latency")}
        for part in ("train", "x-valid", "ori-test"):
            columns |= {f"{name}/{part}/{c}": np.linspace(1, 2, n)[:, None] for c in ("accuracy", "loss", "seconds")}
    metadata = {"space": "nasbench201", "groups": groups, "source": "made up", "source_sha256": ""}
    write_columns(tmp_path / "full.safetensors", columns, kind="nats", metadata=metadata)
    bench = open_nats(tmp_path / "full.safetensors", "cifar10", id="full")
    assert bench.space is bench.table.space
    assert bench.info.caution == ""
    assert bench.final_many(list(bench.space)).test_accuracy.max() == bench.optimum.test_accuracy == 0.02
    arch = bench.space.from_index(7)
    assert bench.metric("latency", [arch]).tolist() == [8.0]
    assert bench.query(arch).val_accuracy == pytest.approx(np.linspace(1, 2, n)[7] / 100)


@pytest.fixture
def changed(tss, tmp_path):
    """Writes the table again with some columns changed or groups left out, and opens one of its datasets."""

    def change(alter=lambda columns: None, keep=lambda group: True, **options):
        opened = open_columns(tss)
        columns = {name: array for name, array in opened.items() if keep("/".join(name.split("/")[:2]))}
        alter(columns)
        groups = {name: text for name, text in opened.metadata["groups"].items() if keep(name)}
        metadata = {**opened.metadata, "groups": groups}
        write_columns(tmp_path / "changed.safetensors", columns, kind="nats", metadata=metadata)
        return open_nats(tmp_path / "changed.safetensors", "cifar10", id="changed", **options)

    return change


def test_a_table_that_reports_cannot_use_is_refused_when_it_is_opened(changed):
    """And not after the runs of a study, when the report asks for it."""
    with pytest.raises(TableError, match="no trials of 200/cifar10-valid"):
        changed(keep=lambda group: group.startswith("12/"))
    with pytest.raises(TableError, match="no trials of 200/cifar10;"):
        changed(keep=lambda group: group != "200/cifar10")


def test_a_schedule_without_times(changed):
    """The 200 epochs of version 1.0: a search of 12 epochs is paid for and reported, one of 200 cannot be."""

    def alter(columns):
        for name in [n for n in columns if n.startswith("200/") and n.endswith("/seconds")]:
            columns[name] = np.full_like(columns[name], np.nan)

    bench = changed(alter)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(bench.optimum.seconds)
    assert bench.optimum.test_accuracy > 0
    with pytest.raises(TableError, match="how long an epoch on train takes in 200/cifar10-valid"):
        changed(alter, schedule=200)


def test_an_architecture_without_a_final_accuracy_is_not_searched(changed):
    """An architecture with trials of 12 epochs only could win a search, and its regret would be NaN."""

    def alter(columns):
        first = columns["200/cifar10/first"].copy()
        first[285:] = first[284]  # the last of the three
        columns["200/cifar10/first"] = first

    bench = changed(alter)
    assert sorted(map(bench.space.index, bench.space)) == [0, 11]
    assert bench.optimum.val_accuracy == max(bench.final(arch).val_accuracy for arch in bench.space)


def test_a_schedule_of_one_epoch(sss):
    """The files call it "01", which Python does not take for a number."""
    bench = open_nats(sss, "cifar10", id="one", schedule=1)
    assert (bench.max_epochs, bench.schedule) == (1, "01")
    arch = bench.space.from_index(284)
    seen = bench.table.accuracy(arch, "cifar10-valid", "valid", schedule="01", seed=777)
    assert bench.query(arch).val_accuracy == seen


def test_costs_of_a_trial_that_carries_another_networks():
    """Where the trials of an architecture disagree, seed 888 is right; where they only differ by rounding, the mean."""
    from nasharness.benchmarks.nats import Group

    group = object.__new__(Group)
    group.first = np.array([0, 3, 6, 6, 8])
    group.seed = np.array([777, 888, 999, 777, 888, 999, 777, 999])
    column = np.array([0.6, 0.8, 0.6, 0.1, 0.1, 0.1000000001, 0.3, 0.5])
    costs = group.network_costs(column)
    assert costs[0] == 0.8
    assert costs[1] == pytest.approx(0.1, rel=1e-8)
    assert np.isnan(costs[2])
    assert costs[3] == pytest.approx(0.4)  # no seed 888 to settle it


def test_a_benchmark_travels_by_its_path(table):
    """A worker process maps the file itself; id, protocol and attached metrics come along."""
    bench = _bench(table, "cifar100", schedule=200, interpolation="linear")
    data = pickle.dumps(bench)
    assert len(data) < 5_000
    again = pickle.loads(data)
    arch = bench.space.from_index(284)
    assert again.query(arch)[:3] == bench.query(arch)[:3]
    assert (again.id, again.info, again.interpolation) == (bench.id, bench.info, "linear")
