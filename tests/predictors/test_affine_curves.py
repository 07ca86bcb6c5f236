"""Affine maps of previous curves: the minimum, the discards, recovered maps, and mean and spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from nasharness.harness.registry import stopping_spec
from nasharness.predictors.affine_curves import AffineCurves
from nasharness.predictors.base import Curves, CurvesError


def curves_from(accuracy, max_epochs=None):
    accuracy = np.asarray(accuracy, dtype=np.float64)
    n, m = accuracy.shape
    return Curves(
        accuracy=accuracy,
        max_epochs=max_epochs or m,
        arch=np.zeros((n, 1), dtype=np.int64),
        cardinalities=(1,),
        seconds=np.cumsum(np.ones((n, m)), axis=1),
        train_loss=None,
        dataset=np.zeros(n, dtype=np.int64),
        group=np.arange(n),
    )


def make(**parameters):
    return AffineCurves(np.random.default_rng(0), **parameters)


def fitted(previous, **parameters):
    predictor = make(**parameters)
    predictor.fit(curves_from(previous), ())
    return predictor


def objective(ab, c, p, weights, tie):
    a, b = ab
    return np.sum(weights * (c - a * p - b) ** 2) / (2 * len(c)) + tie / 2 * (1 - a) ** 2


def test_two_epochs_by_hand():
    # p = (0.2, 0.4), c = (0.3, 0.7): centred (-.1, .1) and (-.2, .2); variance .01, covariance .02, no tie: a = 2, b = -.1.
    a, b = make(tie=0).fit_affine(np.array([[0.3, 0.7]]), np.array([[0.2, 0.4]]))
    np.testing.assert_allclose([a[0, 0], b[0, 0]], [2.0, -0.1])
    # With the tie e^-2 the scale is (.02 + e^-2) / (.01 + e^-2) and the line still goes through the means.
    a, b = make().fit_affine(np.array([[0.3, 0.7]]), np.array([[0.2, 0.4]]))
    scale = (0.02 + np.exp(-2)) / (0.01 + np.exp(-2))
    np.testing.assert_allclose([a[0, 0], b[0, 0]], [scale, 0.5 - 0.3 * scale])


@given(st.integers(0, 10_000), st.integers(2, 12), st.booleans(), st.sampled_from([0.0, 1.0, 5.0]))
@settings(max_examples=25, deadline=None)
def test_it_is_the_minimum_of_the_objective(seed, m, recency, tie):
    rng = np.random.default_rng(seed)
    c, p = rng.random((2, m))
    predictor = make(tie=tie, tie_decay=0.3, recency=recency)
    a, b = (x[0, 0] for x in predictor.fit_affine(c[None], p[None]))
    weights = 10.0 ** (np.arange(m) / m) if recency else np.ones(m)
    arguments = c, p, weights, tie * np.exp(-0.3 * m)
    numeric = minimize(objective, (1.0, 0.0), args=arguments, tol=1e-14)
    assert objective((a, b), *arguments) <= numeric.fun + 1e-9
    # and it is no lower anywhere near
    for step in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        assert objective((a, b), *arguments) < objective((a + step[0], b + step[1]), *arguments)


def test_recovers_the_maps_that_the_curves_were_drawn_from():
    rng = np.random.default_rng(1)
    previous = 0.8 - 0.6 * np.exp(-rng.uniform(0.05, 0.2, (10, 1)) * np.arange(1, 41))
    scale, shift = rng.uniform(0.7, 1.1, 10), rng.uniform(-0.05, 0.1, 10)
    running = scale[:, None] * previous + shift[:, None]
    a, b = make().fit_affine(running[:, :20], previous[:, :20])  # e^-20 ties nothing
    np.testing.assert_allclose(np.diag(a), scale, atol=1e-5)
    np.testing.assert_allclose(np.diag(b), shift, atol=1e-5)
    # Previous curves that are all of one shape predict the end exactly, without spread.
    family = np.linspace(0.5, 1.0, 6)[:, None] * previous[0]
    prediction = fitted(family).predict(curves_from(running[:1, :20], 40))
    assert prediction.mean[0] == pytest.approx(running[0, -1], abs=1e-6)
    assert prediction.std[0] < 1e-6


def test_one_epoch_shifts_the_previous_curves():
    previous = [[0.2, 0.5], [0.3, 0.5], [0.1, 0.4], [0.2, 0.6]]
    prediction = fitted(previous).predict(curves_from([[0.4]], 2))
    ends = [0.7, 0.6, 0.7, 0.8]  # p_2 + 0.4 - p_1
    assert prediction.mean[0] == pytest.approx(np.mean(ends))
    assert prediction.std[0] == pytest.approx(np.std(ends))


def test_golden():
    t = np.arange(1, 11)
    previous = [0.9 - 0.5 / t, 0.8 - 0.5 * 0.7**t, 0.7 - 0.4 * 0.8**t, 0.85 - 0.6 / np.sqrt(t)]
    running = (0.8 - 0.5 / t**0.8)[None, :5]
    prediction = fitted(previous).predict(curves_from(running, 10))
    np.testing.assert_allclose([prediction.mean[0], prediction.std[0]], [0.7462521470, 0.0250202431], atol=1e-9)
    prediction = fitted(previous, recency=True).predict(curves_from(running, 10))
    np.testing.assert_allclose([prediction.mean[0], prediction.std[0]], [0.7476885571, 0.0280929140], atol=1e-9)


def test_maps_that_end_below_what_was_reached_are_discarded():
    # Shifted, the ends are 0.7, 0.3 and 0.2; the training stood at 0.4 already. Two are needed.
    assert not fitted([[0.2, 0.5], [0.3, 0.2], [0.4, 0.2], [0.5, 0.2]]).predict(curves_from([[0.4]], 2)).ok[0]
    prediction = fitted([[0.2, 0.5], [0.3, 0.5], [0.4, 0.2], [0.5, 0.2]]).predict(curves_from([[0.4]], 2))
    assert prediction.mean[0] == pytest.approx(0.65)


def test_ends_beyond_one_are_discarded():
    prediction = fitted([[0.1, 0.9], [0.2, 0.3], [0.2, 0.4], [0.1, 0.8]]).predict(curves_from([[0.5]], 2))
    assert prediction.mean[0] == pytest.approx((0.6 + 0.7) / 2)


def test_only_the_best_fits_are_kept():
    rng = np.random.default_rng(2)
    t = np.arange(1, 31)
    alike = 0.8 - 0.5 * np.exp(-0.1 * t) + 0.001 * rng.standard_normal((3, 30))
    others = 0.6 - 0.5 * np.exp(-rng.uniform(0.03, 0.07, (20, 1)) * t)  # they rise for longer
    running = curves_from((0.8 - 0.5 * np.exp(-0.1 * t))[None, :15], 30)
    few = fitted(np.concatenate((others, alike)), keep=3).predict(running)
    assert few.mean[0] == pytest.approx(0.8 - 0.5 * np.exp(-3), abs=0.005)
    everything = fitted(np.concatenate((others, alike))).predict(running)
    assert everything.std[0] > 3 * few.std[0]


def test_a_constant_previous_curve_is_only_shifted():
    a, b = make().fit_affine(np.array([[0.1, 0.3] * 400]), np.full((1, 800), 0.5))  # e^-800 is 0
    np.testing.assert_allclose([a[0, 0], b[0, 0]], [1.0, -0.3], atol=1e-12)


def test_rows_do_not_depend_on_each_other(monkeypatch):
    rng = np.random.default_rng(3)
    predictor = fitted(np.sort(rng.random((12, 9)), axis=1))
    running = curves_from(np.sort(rng.random((7, 5)), axis=1) * 0.6, 9)
    together = predictor.predict(running)
    for row in range(7):
        np.testing.assert_allclose(predictor.predict(running.rows([row])).mean[0], together.mean[row], rtol=1e-12)
    monkeypatch.setattr("nasharness.predictors.affine_curves._ROWS", 100)  # in parts of one row
    np.testing.assert_allclose(predictor.predict(running).mean, together.mean, rtol=1e-12)


def test_diverged_trainings():
    previous = np.array([[0.2, 0.5], [0.3, 0.5], [0.1, 0.4], [0.2, 0.6]])
    with_nan = fitted(np.vstack((previous, [[0.2, np.nan]])))
    running = curves_from([[0.4], [np.nan]], 2)
    prediction = with_nan.predict(running)
    assert prediction.ok.tolist() == [True, False]
    assert prediction.mean[0] == fitted(previous).predict(running).mean[0]


def test_errors():
    with pytest.raises(CurvesError, match="after it was fitted"):
        make().predict(curves_from([[0.4]], 2))
    with pytest.raises(CurvesError, match="needs 4 complete curves"):
        make().fit(curves_from([[0.1, 0.2]]), ())
    with pytest.raises(CurvesError, match="have 2 epochs, these trainings 3"):
        fitted([[0.1, 0.2]] * 4).predict(curves_from([[0.4]], 3))
    with pytest.raises(ValueError, match="keep"):
        make(keep=1)
    with pytest.raises(ValueError, match="negative"):
        make(tie=-1.0)


def test_rule_with_preset():
    rule = stopping_spec("affine_curves@recency(tie=2.0)").make(np.random.default_rng(0))
    assert rule.predictor.recency
    assert rule.needs_curves == 4
    t = np.arange(1, 21)
    for speed in (0.1, 0.2, 0.3, 0.4, 0.5):
        rule.tell(curves_from((0.9 - 0.7 * np.exp(-speed * t))[None]))
    best = curves_from((0.9 - 0.7 * np.exp(-0.5 * t))[None])
    slow, fast = (curves_from((end - 0.5 * np.exp(-0.3 * t))[None, :10], 20) for end in (0.6, 0.92))
    assert rule.decide(slow, best).stop
    assert not rule.decide(fast, best).stop


@pytest.mark.slow
def test_ranks_real_curves_better_than_the_last_value(shared_data):
    path = shared_data / "spiking201_curves_cifar10.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {shared_data}")
    with np.load(path) as file:
        accuracy = file["val_acc"] / 1e4
    for draw in range(3):
        chosen = accuracy[np.random.default_rng(draw).permutation(len(accuracy))[:600]]
        prediction = fitted(chosen[:100]).predict(curves_from(chosen[100:, :25], 100))
        score = np.where(prediction.ok, prediction.mean, -1)
        assert prediction.ok.mean() > 0.95
        assert spearmanr(score, chosen[100:, -1])[0] > spearmanr(chosen[100:, 24], chosen[100:, -1])[0]
