"""Ours against the official packages, on the same files in the same process, on questions drawn at random."""

import math
import random

import pytest

from nasharness.benchmarks.columns import open_columns
from nasharness.benchmarks.convert.nats import convert
from nasharness.benchmarks.nats import NATSTable
from nasharness.benchmarks.official.nats import NASBench201, NATSBench

INDEXES = (0, 11, 284)
DATASETS = ("cifar10-valid", "cifar10", "cifar100", "ImageNet16-120")
ARCHIVES = {"tss": "NATS-tss-v1_0-3ffb9-simple", "sss": "NATS-sss-v1_0-50262-simple"}


@pytest.fixture(scope="module", params=["tss", "sss"])
def apis(request, shared_data, tmp_path_factory):
    """The official API and ours over one archive; both draw from generators in the same state."""
    nats_bench = pytest.importorskip("nats_bench", reason="nats-bench is not installed")
    source = shared_data / "official" / ARCHIVES[request.param]
    target = tmp_path_factory.mktemp(request.param) / "converted.safetensors"
    convert(source, target)
    official = nats_bench.create(str(source), request.param, fast_mode=True, verbose=False)
    return official, NATSTable(open_columns(target, kind="nats"))


@pytest.fixture
def global_generator():
    """The official code draws from Python's global generator; leave it as it was."""
    state = random.getstate()
    yield random
    random.setstate(state)


def _same(ours, theirs):
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            if key != "comment":  # prose
                _same(ours[key], theirs[key])
    elif isinstance(theirs, float) and math.isnan(theirs):
        assert math.isnan(ours)
    else:
        assert ours == theirs


def _outcome(call, *arguments):
    try:
        return call(*arguments)
    except (ValueError, KeyError) as error:
        return type(error), str(error).split(" not in ")[0]  # what follows lists keys in the order of the file


def test_nats_bench_on_random_questions(apis, global_generator):
    official, table = apis
    questions = random.Random(7)
    global_generator.seed(99)
    ours = NATSBench(table, rng=random.Random(99))
    official.reset_time()
    for _ in range(150):
        index, dataset = questions.choice(INDEXES), questions.choice(DATASETS)
        hp = questions.choice(ours.avaliable_hps)
        iepoch = questions.choice([None, questions.randrange(int(hp)), questions.randrange(-1, 201)])
        how = questions.choice([True, False, 777, 888, 111])
        _same(
            _outcome(ours.get_more_info, index, dataset, iepoch, hp, how),
            _outcome(official.get_more_info, index, dataset, iepoch, hp, how),
        )
        _same(ours.get_cost_info(index, dataset, hp), official.get_cost_info(index, dataset, hp))
        epoch = questions.choice([None, questions.randrange(int(hp))])
        target = questions.choice(DATASETS[1:])
        _same(
            ours.simulate_train_eval(official.arch(index), target, epoch, hp),
            official.simulate_train_eval(official.arch(index), target, epoch, hp),
        )
        setname = questions.choice(["train", "x-valid", "x-test", "ori-test", "valid"])
        _same(
            _outcome(ours.query_by_index(index, hp=hp).get_metrics, dataset, setname, epoch, how),
            _outcome(official.query_by_index(index, hp=hp).get_metrics, dataset, setname, epoch, how),
        )
    assert ours.used_time == official.used_time
    assert ours.avaliable_hps == sorted(official.avaliable_hps)
    assert ours.random() == official.random()


def test_nats_bench_strings(apis):
    official, table = apis
    ours = NATSBench(table, rng=random.Random(0))
    for index in random.Random(3).sample(range(len(official)), 300):
        assert ours.arch(index) == official.arch(index)
        assert ours.query_index_by_arch(official.arch(index)) == index
    if ours.is_topology:
        for index in range(0, 15625, 997):
            text = official.arch(index)
            assert ours.get_unique_str(text) == official.get_unique_str(text)
            assert ours.str2lists(text) == official.str2lists(text)
            assert (ours.str2matrix(text) == official.str2matrix(text)).all()


def test_nas_bench_201_on_random_questions(shared_data, tmp_path, global_generator, monkeypatch):
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("nas_201_api", reason="nas-bench-201 is not installed")
    source = shared_data / "official" / "nb201_legacy_pth_layout_3archs.pth"
    convert(source, tmp_path / "converted.safetensors")
    table = NATSTable(open_columns(tmp_path / "converted.safetensors", kind="nats"))
    load = torch.load  # the package predates weights_only=True, the default since torch 2.6
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: load(*args, weights_only=False, **kwargs))
    official = package.NASBench201API(str(source), verbose=False)
    questions = random.Random(8)
    global_generator.seed(98)
    ours = NASBench201(table, rng=random.Random(98))
    for _ in range(60):
        index, dataset = questions.choice(INDEXES), questions.choice(DATASETS)
        hp, how = questions.choice(["12", "200"]), questions.choice([True, False])
        answer = ours.get_more_info(index, dataset, None, hp, how)
        assert answer == pytest.approx(official.get_more_info(index, dataset, None, hp, how), rel=1e-12)
        cost = official.get_cost_info(index, dataset, hp)
        assert ours.get_cost_info(index, dataset, hp) == pytest.approx(cost, rel=1e-12)
        target = questions.choice(DATASETS[1:])
        seen = ours.simulate_train_eval(index, target, hp)
        assert list(seen) == pytest.approx(list(official.simulate_train_eval(index, target, hp)), rel=1e-12)
