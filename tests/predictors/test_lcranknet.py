"""LCRankNet: its parts beside torch's, what it learns of made-up and of real curves, and what it must not look at."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

import nasharness as nh
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.curves import curves_of, groups
from nasharness.harness.registry import stopping_spec
from nasharness.predictors.base import Curves, CurvesError, PredictorRule
from nasharness.predictors.calibration import STEP
from nasharness.predictors.lcranknet import LCRankNet, _hold_out, _Network

torch = pytest.importorskip("torch")

SMALL = {"filters": 8, "embedding": 4, "hidden": 8, "units": 16, "steps": 120, "pairs": 64}


def curves_from(accuracy, arch, cardinalities=(4, 3), dataset=0, first_group=0):
    n, epochs = accuracy.shape
    seconds = np.tile(np.arange(1.0, epochs + 1), (n, 1))
    dataset = np.broadcast_to(dataset, n).astype(np.int64)
    return Curves(accuracy, epochs, arch, cardinalities, seconds, None, dataset, np.arange(n) + first_group)


def made_up(n, rng, *, shift=0.0, scale=1.0, epochs=12, dataset=0):
    """Curves that all look alike at first in height: those of a slow start end higher, and so do those of choice 3."""
    arch = np.stack([rng.integers(0, 4, n), rng.integers(0, 3, n)], axis=1)
    gain = rng.random(n)
    t = np.arange(1, epochs + 1) / epochs
    height = 0.5 - 0.3 * gain[:, None] * (1 - t) ** 2 + 0.3 * gain[:, None] * t**2 + 0.1 * arch[:, :1] * t**4
    accuracy = shift + scale * (height + rng.normal(0, 0.002, height.shape))
    return curves_from(accuracy, arch, dataset=dataset)


def trained(curves, seed=0, meta=None, checks=(4,), **settings):
    predictor = LCRankNet(np.random.default_rng(seed), **(SMALL | settings))
    predictor.fit(curves, checks, meta)
    return predictor


def network(filters=3, datasets=2, cardinalities=(4, 3)):
    settings = LCRankNet(np.random.default_rng(0), filters=filters, embedding=4, hidden=5, units=6)
    return _Network(settings, datasets, cardinalities, torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def predictor():
    return trained(made_up(100, np.random.default_rng(0)), steps=300)


def test_features_by_hand():
    """One filter per kernel. Kernel 2 with weights (1, -1): y_t-1 - y_t is -1, -2, 1 for 1, 3, 2: the maximum is 1."""
    net = network(filters=1)
    with torch.no_grad():
        net.kernel.zero_()
        net.bias.zero_()
        net.kernel[3:, 0] = torch.tensor([1.0, -1.0])
        # Kernel 5: minus the sum so far, -1, -4, -6; the leaky ReLU leaves a tenth of the maximum.
        net.kernel[:, 3] = -1.0
        net.bias[1] = 0.5
        net.kernel[:2, 0] = 100.0  # outside the kernel
        found = net.features(torch.tensor([[1.0, 3.0, 2.0]]))
    assert found[0].tolist() == pytest.approx([1.0, 0.5, 0.0, -0.1])


@pytest.mark.parametrize("m", [1, 2, 4, 11])
def test_features_are_causal_convolutions(m):
    """Beside torch's own, one kernel after the other, with gradients."""
    from torch.nn import functional

    net = network()
    net.mean, net.scale = 0.4, 0.2
    curve = torch.rand((6, m), generator=torch.Generator().manual_seed(m))
    expected = []
    for i, k in enumerate((2, 3, 4, 5)):
        columns = slice(3 * i, 3 * i + 3)
        weight = net.kernel[5 - k :, columns].T[:, None]
        padded = functional.pad((curve - 0.4) / 0.2, (k - 1, 0))[:, None]
        expected.append(functional.conv1d(padded, weight, net.bias[columns]).amax(dim=2))
    expected = functional.leaky_relu(torch.cat(expected, dim=1), 0.1)
    assert torch.allclose(net.features(curve), expected, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(net.features(curve), expected, atol=1e-6)
    mix = torch.rand(expected.shape, generator=torch.Generator().manual_seed(0))
    ours = torch.autograd.grad((net.features(curve) * mix).sum(), (net.kernel, net.bias))
    theirs = torch.autograd.grad((expected * mix).sum(), (net.kernel, net.bias))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_reconstruction_chooses_among_the_choices_of_a_dimension():
    """With all weights of the last layer zero every choice is as probable: log 4 and log 3."""
    net = network()
    with torch.no_grad():
        net.speaker.weight.zero_()
        net.speaker.bias.zero_()
        encoded, tokens = net.encode(torch.tensor([[3, 2], [0, 0]]))
        assert tokens.tolist() == [[3, 6], [0, 4]]
        assert float(net.surprise(encoded, tokens)) == pytest.approx((np.log(4) + np.log(3)) / 2)


def test_it_learns_what_the_last_value_does_not_show(predictor):
    test = made_up(150, np.random.default_rng(1))
    last = spearmanr(test.accuracy[:, 3], test.final)[0]
    found = spearmanr(predictor.predict(test.observed(4)).score, test.final)[0]
    assert last < 0 and found > 0.85
    only_arch = dataclasses.replace(test.observed(4), accuracy=np.full((150, 4), 0.4))
    assert spearmanr(predictor.predict(only_arch).score, test.arch[:, 0])[0] > 0.8


def test_it_transfers_across_accuracy_ranges():
    """Two datasets with accuracies around 0.2 and 0.8; none of the task, which is between."""
    rng = np.random.default_rng(2)
    low, high = made_up(60, rng, scale=0.4, dataset=1), made_up(60, rng, shift=0.6, scale=0.4, dataset=2)
    meta = join_with_groups(low, high)
    task = made_up(80, rng, shift=0.3, scale=0.4)
    predictor = trained(task.rows([]), meta=meta, steps=300)
    assert spearmanr(predictor.predict(task.observed(4)).score, task.final)[0] > 0.7


def join_with_groups(*parts):
    """Datasets with the same architectures would have the same groups: here they have none in common."""
    from nasharness.predictors.base import join

    return join([dataclasses.replace(p, group=p.group + 1000 * i) for i, p in enumerate(parts)])


def test_datasets_are_never_paired(monkeypatch):
    """Task and meta with the same number are two datasets; a single curve has no partner; five suffice for an own row."""
    rng = np.random.default_rng(3)
    task = made_up(6, rng, dataset=7)
    meta = join_with_groups(made_up(4, rng, dataset=7), made_up(3, rng, dataset=2), made_up(1, rng, dataset=5))
    seen = []
    monkeypatch.setattr(
        _Network, "train", lambda self, accuracy, arch, dataset, *rest: seen.append((accuracy, dataset))
    )
    predictor = trained(task, meta=meta)
    (accuracy, dataset), = seen  # fmt: skip
    assert len(dataset) == 13 and np.bincount(dataset).tolist() == [6, 3, 0, 4]
    assert np.allclose(accuracy[:6], task.accuracy)
    assert predictor._own == {7: 0} and predictor._network.unknown == 4
    predictor.fit(task.rows(range(4)), (4,), meta)
    assert predictor._own == {}


def test_ties_are_not_learnt():
    """Where eps is above all differences, the scores drift together."""
    train = made_up(60, np.random.default_rng(4))
    spread = [np.std(trained(train, eps=eps, alpha=1.0).predict(train.observed(4)).score) for eps in (0.0, 1.0)]
    assert spread[1] < 0.2 * spread[0]


def test_p_better(predictor):
    test = made_up(150, np.random.default_rng(5))
    best = test.rows([int(np.argsort(test.final)[-20])])
    assert predictor._calibrations[4] is not STEP
    p = predictor.p_better(test.observed(4), best)
    assert ((p >= 0) & (p <= 1)).all()
    assert p[test.final > best.final].mean() > p[test.final < best.final].mean() + 0.3
    order = np.argsort(predictor.predict(test.observed(4)).score)
    assert (np.diff(p[order]) >= 0).all()


def test_what_calibrates_is_not_learnt_from(monkeypatch):
    learnt = []
    monkeypatch.setattr(LCRankNet, "learn", lambda self, curves, checks, meta: learnt.append((curves, meta)))
    asked = []
    predict = LCRankNet.predict
    monkeypatch.setattr(LCRankNet, "predict", lambda self, c: asked.append(c) or predict(self, c))
    rng = np.random.default_rng(6)
    task, meta = made_up(50, rng), made_up(50, rng, dataset=1)  # the same architectures, by their groups
    LCRankNet(rng).fit(task, (4,), meta)
    (curves, others), unseen = learnt[0], asked[-1]
    assert len(curves) == len(others) == 40 and len(unseen) == 10
    assert not set(unseen.group) & (set(curves.group) | set(others.group))
    LCRankNet(rng).fit(task.rows(range(19)), (4,), None)
    assert len(learnt[1][0]) == 19


@given(st.lists(st.integers(0, 30), max_size=80), st.integers(0, 5))
def test_hold_out(group, seed):
    group = np.array(group, dtype=np.int64)
    held = np.isin(group, _hold_out(group, np.random.default_rng(seed))).sum()
    assert held == 0 or max(10, 0.2 * len(group)) <= held <= len(group) / 2
    if len(group) < 20:
        assert held == 0


def test_what_is_missing():
    rng = np.random.default_rng(7)
    task = made_up(30, rng)
    predictor = LCRankNet(rng, **SMALL)
    assert not predictor.predict(task.observed(4)).ok.any()
    with pytest.raises(CurvesError, match="needs 5"):
        predictor.fit(task.rows(range(4)), (4,))
    predictor.fit(task.rows([0]), (4,), made_up(1, rng, dataset=1))  # nothing to pair
    assert not predictor.predict(task.observed(4)).ok.any()
    diverged = dataclasses.replace(task, accuracy=task.accuracy.copy())
    diverged.accuracy[:2, 3:] = np.nan
    predictor.fit(diverged, (4,))
    found = predictor.predict(diverged.observed(4))
    assert found.ok.tolist() == [False] * 2 + [True] * 28 and np.isnan(found.mean).all()
    assert predictor.predict(diverged.observed(3)).ok.all()
    assert len(predictor.predict(task.rows([]).observed(4))) == 0


def test_a_row_does_not_depend_on_its_company(predictor):
    test = made_up(40, np.random.default_rng(8))
    together = predictor.predict(test.observed(5)).score
    alone = [predictor.predict(test.rows([i]).observed(5)).score[0] for i in range(40)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_same_seed_same_numbers_and_no_global_state():
    train = made_up(30, np.random.default_rng(9))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = [trained(train, seed, steps=20).predict(train.observed(4)).score for seed in (5, 5, 6)]
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any()
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_golden():
    """Float32, so machines may differ in the last digits."""
    train = made_up(30, np.random.default_rng(10))
    score = trained(train, steps=20).predict(train.observed(4)).score[:3]
    assert score == pytest.approx([0.62872845, 0.75324178, 1.73838985], abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"filters": 0}, {"steps": 0}, {"pairs": 0}, {"alpha": 0.0}, {"alpha": 1.1}, {"longest": 0.0}, {"unknown": 1.0},
        {"dropout": -0.1}, {"eps": -0.1}, {"learning_rate": 0.0}, {"weight_decay": -1.0}, {"own": 0},
    ],
)  # fmt: skip
def test_wrong_parameters(wrong):
    with pytest.raises(ValueError, match="must"):
        LCRankNet(np.random.default_rng(0), **wrong)


def test_without_reconstruction():
    train = made_up(40, np.random.default_rng(11))
    predictor = trained(train, alpha=1.0)
    assert spearmanr(predictor.predict(train.observed(4)).score, train.final)[0] > 0.8


def test_as_a_rule():
    rng = np.random.default_rng(12)
    runs, meta = made_up(40, rng), made_up(40, rng, dataset=1)
    spec = stopping_spec("lcranknet@quick(delta=0.2, every=0.25)")
    assert spec.make(rng).needs_curves == 5
    rule = spec.make(np.random.default_rng(0), meta=meta)
    assert isinstance(rule, PredictorRule) and rule.needs_curves == 1 and rule.delta == 0.2
    order = np.argsort(runs.final)
    best = runs.rows([int(order[-10])])
    rule.tell(best)
    stopped = [rule.decide(runs.rows([int(i)]).observed(3), best).stop for i in order]
    assert sum(stopped[:10]) >= 8 and sum(stopped[-5:]) <= 3


def test_the_embedded_benchmark():
    """Six epochs, of 100 trainings: better than chance after one epoch, with architectures not seen."""
    benchmark = nh.load("digits201")
    rng = np.random.default_rng(13)
    curves = curves_of(benchmark, [benchmark.space.sample(rng) for _ in range(200)], seed=None)
    train, test = curves.rows(range(100)), curves.rows(range(100, 200))
    test = test.rows(np.flatnonzero(~np.isin(test.group, train.group)))
    predictor = trained(train, checks=(1, 3), steps=100)
    assert spearmanr(predictor.predict(test.observed(1)).score, test.final)[0] > 0.3


@pytest.mark.slow
def test_real_curves(shared_data):
    """CIFAR-10, 100 epochs: early on the architecture says more than the accuracy, and the network uses it."""
    with np.load(shared_data / "spiking201_curves_cifar10.npz") as file:
        rows = np.random.default_rng(11).permutation(len(file["index"]))[:1200]
        number = file["index"][rows].astype(np.int64)
        accuracy = file["val_acc"][rows] / 1e4
    # Edges are ordered by their source there, by their target in the space.
    arch = np.stack([number // 5**k % 5 for k in (0, 1, 3, 2, 4, 5)], axis=1)
    curves = curves_from(accuracy, arch, (5,) * 6)
    curves = dataclasses.replace(curves, group=groups(NASBench201Space(), list(map(tuple, arch.tolist()))))
    train, test = curves.rows(range(200)), curves.rows(range(200, 1200))
    test = test.rows(np.flatnonzero(~np.isin(test.group, train.group))[:500])
    predictor = LCRankNet(np.random.default_rng(0))
    predictor.fit(train, (5, 20))
    for m, more in ((5, 0.15), (20, 0.0)):
        last = spearmanr(test.accuracy[:, m - 1], test.final)[0]
        assert spearmanr(predictor.predict(test.observed(m)).score, test.final)[0] > last + more
