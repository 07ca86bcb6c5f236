"""power_law: its posterior beside brute force, curves drawn from its model, real curves."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.curves import groups
from nasharness.harness.registry import stopping_spec
from nasharness.predictors.base import Curves, CurvesError, PredictorRule
from nasharness.predictors.power_law import (
    _EXPONENTS,
    PowerLaw,
    _basis,
    _folds,
    centre_and_covariance,
    fit_power_law,
    posterior,
    power_laws,
    shapes,
)

SILU_1 = 0.7310585786300049  # silu(1)
PRECISION = np.linalg.inv(np.array([[0.01, 0.002, 0.0], [0.002, 0.02, 0.01], [0.0, 0.01, 0.25]]))


def curves_from(accuracy, arch, cardinalities=(4, 4, 3)):
    n, epochs = accuracy.shape
    seconds = np.tile(np.arange(1.0, epochs + 1), (n, 1))
    numbers = np.arange(n)
    return Curves(accuracy, epochs, arch, cardinalities, seconds, None, np.zeros(n, dtype=np.int64), numbers)


def drawn_from_model(n, rng, epochs=30, noise=0.004):
    """Power laws whose final error and exponent depend on the architecture, and a part of the final error on nothing."""
    arch = np.stack([rng.integers(0, c, n) for c in (4, 4, 3)], axis=1)
    end = 0.1 + 0.03 * arch[:, 0] + rng.normal(0, 0.01, n)
    fall = 0.3 + 0.05 * arch[:, 2]
    exponent = 0.25 + 0.25 * arch[:, 1]
    h = _basis(epochs)[np.searchsorted(_EXPONENTS, exponent)]
    error = end[:, None] + fall[:, None] * h + rng.normal(0, noise, (n, epochs))
    return curves_from(1 - error, arch), 1 - end


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    train, _ = drawn_from_model(80, rng)
    test, truth = drawn_from_model(200, rng)
    predictor = PowerLaw(np.random.default_rng(1), steps=300)
    predictor.fit(train, (3, 6, 15))
    return predictor, train, test, truth


def test_by_hand():
    """Two epochs: b = 1/2 and 1; beta = gamma = 1, whose silu is 0.7311, and 0.1 + 0.7311 * 2^0.7311 = 1.3135."""
    assert power_laws(np.array([0.1, 1.0, 1.0]), 2) == pytest.approx(
        [0.1 + SILU_1 * 2**SILU_1, 0.1 + SILU_1], abs=1e-12
    )
    assert power_laws(np.array([0.1, 1.0, 1.0]), 2)[0] == pytest.approx(1.3135, abs=1e-4)


@given(
    st.floats(-1, 1),
    st.floats(-0.5, 0.5),
    st.floats(-1, 3),
    st.integers(2, 100),
)
def test_shapes_say_the_same_as_the_parameters(alpha, beta, gamma, epochs):
    parameters = np.array([alpha, beta, gamma])
    law = power_laws(parameters, epochs)
    end, fall, exponent = shapes(parameters, epochs)
    assert end == pytest.approx(law[-1])
    assert fall == pytest.approx(np.clip(law[0] - law[-1], -1, 1), abs=1e-9) or exponent == _EXPONENTS[0]
    assert _EXPONENTS[0] <= exponent <= _EXPONENTS[-1]


def test_basis():
    h = _basis(20)
    assert h[:, 0] == pytest.approx(1) and h[:, -1] == pytest.approx(0, abs=1e-12)
    b = np.arange(1, 21) / 20
    assert h[list(_EXPONENTS).index(0.0)] == pytest.approx(np.log(b) / np.log(b[0]), abs=1e-6)
    assert h[list(_EXPONENTS).index(2.0)] == pytest.approx((b**-2 - 1) / (20**2 - 1))
    assert (_basis(1) == 0).all()


@given(
    st.floats(0, 0.9),
    st.floats(0.01, 0.9),
    st.sampled_from(list(_EXPONENTS)),
    st.integers(5, 60),
)
def test_least_squares_recover_a_power_law(end, fall, exponent, epochs):
    error = end + fall * _basis(epochs)[list(_EXPONENTS).index(exponent)]
    found, curve = fit_power_law(error[None])
    assert curve[0] == pytest.approx(error, abs=1e-9)
    assert found[0] == pytest.approx([end, fall, exponent], abs=1e-6)


def test_exponents_between_those_of_the_grid_hardly_matter():
    b = np.arange(1, 51) / 50
    h = (b**-0.53 - 1) / (50**0.53 - 1)
    (end, fall, exponent), _ = (found[0] for found in fit_power_law((0.2 + 0.5 * h)[None]))
    assert end == pytest.approx(0.2, abs=3e-3) and fall == pytest.approx(0.5, abs=0.01)
    assert exponent == pytest.approx(0.53, abs=1 / 16)


def test_posterior_of_the_level_by_hand():
    """Fall and exponent known: the final error is the precision-weighted mean of the prior and of what each epoch says."""
    epochs, noise, variance = 10, 0.01, 0.04
    precision = np.diag([1 / variance, 1e12, 1e12])
    j = list(_EXPONENTS).index(1.0)
    h = _basis(epochs)[j]
    prior = np.array([[0.3, 0.5, 1.0]])
    error = np.array([[0.75, 0.5, 0.4]])
    said = error[0] - 0.5 * h[:3]
    mean, found = posterior(error, prior, precision, np.full(3, noise), epochs)
    exact = (0.3 / variance + said.sum() / noise) / (1 / variance + 3 / noise)
    assert mean[0] == pytest.approx(exact, abs=1e-6)
    assert found[0] == pytest.approx(1 / (1 / variance + 3 / noise), rel=1e-4)


def test_posterior_beside_brute_force():
    """Sums over a grid of all three, of the unnormalized density."""
    prior, epochs = np.array([0.2, 0.5, 0.6]), 12
    noise = np.array([0.05, 0.03, 0.03, 0.02]) ** 2
    error = 0.25 + 0.45 * _basis(epochs)[20][:4] + np.array([0.01, -0.02, 0.0, 0.01])
    a, c = np.linspace(-0.4, 0.8, 161), np.linspace(-0.3, 1.3, 161)
    density = np.zeros(len(a))
    for g, h in zip(_EXPONENTS, _basis(epochs)[:, :4], strict=True):
        u = np.stack(np.broadcast_arrays(a[:, None], c[None], g), axis=2) - prior
        misfit = error - (a[:, None, None] + c[:, None] * h)
        cost = np.einsum("acj,jk,ack->ac", u, PRECISION, u) + (misfit**2 / noise).sum(axis=2)
        density += np.exp(-cost / 2).sum(axis=1)
    density /= density.sum()
    mean, variance = posterior(error[None], prior[None], PRECISION, noise, epochs)
    assert mean[0] == pytest.approx(density @ a, abs=1e-5)
    assert variance[0] == pytest.approx(density @ a**2 - (density @ a) ** 2, rel=1e-3)


def test_posterior_golden():
    error = np.array([[0.7, 0.5, 0.42, 0.38], [0.6, 0.55, 0.5, 0.48]])
    prior = np.array([[0.2, 0.5, 0.5], [0.3, 0.4, 0.2]])
    mean, variance = posterior(error, prior, PRECISION, np.full(4, 1e-3), 20)
    assert mean == pytest.approx([0.20634665, 0.31288813], abs=1e-6)
    assert np.sqrt(variance) == pytest.approx([0.0615781, 0.05913200], abs=1e-6)


def test_centre_and_covariance_do_not_follow_outliers():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (500, 3)) * [0.1, 0.2, 0.3] + [1.0, 2.0, 3.0]
    centre, scatter = centre_and_covariance(np.concatenate((x, np.full((15, 3), 30.0))))
    assert centre == pytest.approx([1, 2, 3], abs=0.05)
    # Of normal variables the t distribution is narrower; with the outliers the plain covariance is above 20.
    assert np.sqrt(np.diag(scatter)) == pytest.approx([0.1, 0.2, 0.3], rel=0.3)


def test_centre_and_covariance_of_t_variables():
    rng = np.random.default_rng(1)
    t = rng.normal(0, 1, (4000, 2)) / np.sqrt(rng.chisquare(4, (4000, 1)) / 4)
    centre, scatter = centre_and_covariance(t @ np.array([[1.0, 0.5], [0.0, 1.0]]))
    assert centre == pytest.approx([0, 0], abs=0.06)
    assert scatter == pytest.approx(np.array([[1.0, 0.5], [0.5, 1.25]]), abs=0.1)


def test_posterior_without_noise_is_the_curve():
    error = 0.15 + 0.6 * _basis(40)[12]
    mean, variance = posterior(error[None, :12], np.array([[0.4, 0.3, 1.0]]), PRECISION, np.full(12, 1e-10), 40)
    assert mean[0] == pytest.approx(0.15, abs=1e-4)
    assert 0 < variance[0] < 1e-6


def test_curves_of_the_model_are_recovered(fitted):
    """The noise of an epoch is 0.004: the truth is seen better than a single epoch shows it, and the intervals hold."""
    predictor, _, test, truth = fitted
    before = np.inf
    for m, bound in ((3, 0.02), (6, 0.012), (15, 0.008)):
        found = predictor.predict(test.observed(m))
        error = np.abs(found.mean - truth).mean()
        assert error < bound and error < before
        before = error
        z = (test.final - found.mean) / found.std
        assert 0.65 < np.mean(np.abs(z) < 1.2816) < 0.95  # 80 % intervals
    assert np.abs(test.accuracy[:, 14] - test.final).mean() > 5 * error


def test_uncertainty_falls(fitted):
    predictor, _, test, _ = fitted
    std = [predictor.predict(test.observed(m)).std.mean() for m in (2, 6, 15, 25)]
    assert std == sorted(std, reverse=True)


def test_p_better(fitted):
    predictor, train, test, _ = fitted
    best = train.rows([int(np.argmax(train.final))])
    p = predictor.p_better(test.observed(15), best)
    assert ((p >= 0) & (p <= 1)).all()
    assert p[test.final > best.final + 0.02].min(initial=1) > 0.5
    assert p[test.final < best.final - 0.1].max() < 0.01


def test_the_shared_deviation_is_taken_out():
    """All curves jump up at two thirds, as where the learning rate falls; no power law foresees that, other curves do."""
    rng = np.random.default_rng(3)
    train, _ = drawn_from_model(60, rng)
    test, _ = drawn_from_model(60, rng)
    train.accuracy[:, 20:] += 0.08
    test.accuracy[:, 20:] += 0.08
    predictor = PowerLaw(np.random.default_rng(0), steps=200)
    predictor.fit(train, ())
    found = predictor.predict(test.observed(10))
    assert abs(np.mean(found.mean - test.final)) < 0.01
    assert spearmanr(found.mean, test.final)[0] > 0.8


def test_lambda_grows_where_errors_are_not_independent():
    rng = np.random.default_rng(4)
    train, _ = drawn_from_model(60, rng)
    slow = np.cumsum(rng.normal(0, 0.004, train.accuracy.shape), axis=1)
    found = []
    for accuracy in (train.accuracy, train.accuracy + slow):
        predictor = PowerLaw(np.random.default_rng(0), steps=200)
        predictor.fit(dataclasses.replace(train, accuracy=accuracy), (10, 20))
        found.append(predictor._lambda)
    assert found[0][20] <= 3
    assert found[1][20] > found[0][20]


def test_what_is_missing():
    rng = np.random.default_rng(0)
    train, _ = drawn_from_model(12, rng, epochs=8)
    predictor = PowerLaw(rng, steps=20)
    with pytest.raises(CurvesError, match="needs 10"):
        predictor.fit(train.rows(range(9)), (4,))
    assert not predictor.predict(train.observed(4)).ok.any()
    diverged = dataclasses.replace(train, accuracy=train.accuracy.copy())
    diverged.accuracy[:3, 5:] = np.nan
    predictor.fit(diverged, (4,))  # nine are left
    assert not predictor.predict(train.observed(4)).ok.any()
    diverged.accuracy[2] = train.accuracy[2]
    predictor.fit(diverged, (4,))
    assert predictor.predict(diverged.observed(6)).ok.tolist() == [False] * 2 + [True] * 10
    assert len(predictor.predict(train.rows([]).observed(4))) == 0


def test_same_seed_same_numbers_and_no_global_state(fitted):
    import torch

    _, train, test, _ = fitted
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = []
    for seed in (5, 5, 6):
        predictor = PowerLaw(np.random.default_rng(seed), steps=60)
        predictor.fit(train, (6,))
        found.append(predictor.predict(test.observed(6)).mean)
    assert (found[0] == found[1]).all() and (found[0] != found[2]).any()
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_check_points_need_not_be_announced(fitted):
    predictor, train, test, _ = fitted
    other = PowerLaw(np.random.default_rng(1), steps=300)
    other.fit(train, ())
    assert (other.predict(test.observed(6)).mean == predictor.predict(test.observed(6)).mean).all()


@given(st.lists(st.integers(0, 12), min_size=10, max_size=40), st.integers(2, 6))
def test_folds(group, members):
    fold = _folds(np.array(group), members, np.random.default_rng(0))
    assert set(fold.tolist()) == set(range(members))  # each leaves some out
    if len(set(group)) >= members:
        assert all(len(set(fold[np.array(group) == g])) == 1 for g in group)


@pytest.mark.parametrize(
    "wrong", [{"members": 1}, {"members": 11}, {"units": 0}, {"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}]
)
def test_wrong_parameters(wrong):
    with pytest.raises(ValueError, match="members must be"):
        PowerLaw(np.random.default_rng(0), **wrong)


def test_as_a_rule():
    rng = np.random.default_rng(2)
    runs, _ = drawn_from_model(30, rng)
    rule = stopping_spec("power_law@quick(delta=0.05)").make(np.random.default_rng(0))
    assert isinstance(rule, PredictorRule) and rule.needs_curves == 10
    order = np.argsort(runs.final)
    for i in order[8:20]:
        rule.tell(runs.rows([int(i)]))
    best = runs.rows([int(order[-1])])
    assert rule.decide(runs.rows([int(order[0])]).observed(15), best).stop
    assert not rule.decide(best.observed(15), runs.rows([int(order[20])])).stop


@pytest.mark.slow
def test_real_curves(shared_data):
    """CIFAR-10, 100 epochs: nearer the end than the last value, which also lacks what all trainings still gain."""
    train, test = real_curves(shared_data, seed=11)
    predictor = PowerLaw(np.random.default_rng(0))
    predictor.fit(train, (10, 30, 50))
    for m in (10, 30, 50):
        found, last = predictor.predict(test.observed(m)), test.accuracy[:, m - 1]
        assert np.abs(found.mean - test.final).mean() < 0.5 * np.abs(last - test.final).mean()
        assert np.mean(np.abs(found.mean - test.final) < 1.2816 * found.std) > 0.7  # 80 % intervals
        assert spearmanr(found.score, test.final)[0] > 0.3


def real_curves(shared_data, seed, n_train=200, n_test=500):
    """Training and test curves whose cells are not isomorphic. Its edges are ordered by source, the space's by target."""
    with np.load(shared_data / "spiking201_curves_cifar10.npz") as file:
        rows = np.random.default_rng(seed).permutation(len(file["index"]))[: n_train + 2 * n_test]
        number = file["index"][rows].astype(np.int64)
        accuracy = file["val_acc"][rows] / 1e4
    arch = np.stack([number // 5**k % 5 for k in (0, 1, 3, 2, 4, 5)], axis=1)
    curves = curves_from(accuracy, arch, (5,) * 6)
    curves = dataclasses.replace(curves, group=groups(NASBench201Space(), list(map(tuple, arch.tolist()))))
    train, rest = curves.rows(range(n_train)), curves.rows(range(n_train, len(curves)))
    return train, rest.rows(np.flatnonzero(~np.isin(rest.group, train.group))[:n_test])
