import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import halfnorm

from nasharness.predictors import lc_pfn, lc_pfn_training
from nasharness.predictors.base import Curves
from nasharness.predictors.lc_pfn import LCPFN, BarPrediction, Bars, features, forward, load_weights, thinned
from nasharness.predictors.lc_pfn_training import curve_values, draw_prior, evaluate, prior_curves


def curves_from(accuracy, max_epochs=None):
    accuracy = np.asarray(accuracy, dtype=np.float64)
    n, m = accuracy.shape
    nothing = np.zeros(n, dtype=np.int64)
    seconds = np.tile(np.arange(1.0, m + 1), (n, 1))
    return Curves(accuracy, max_epochs or m, nothing[:, None], (1,), seconds, None, nothing, np.arange(n))


@pytest.fixture
def predictor():
    return LCPFN(np.random.default_rng(0))


# ------------------------------------------------------------------------------------------------------------- prior


def test_families_by_hand():
    rest = {"pow3": (0.8, 0.5, 1.0), "ilog2": (0.9, 0.2), "janoschek": (0.7, 0.1, 0.5, 2.0)}
    inner = [*rest["pow3"], *rest["ilog2"], *rest["janoschek"]]
    parameters = np.array([[1, 0, 0, *inner], [0, 1, 0, *inner], [0, 0, 1, *inner], [0.5, 1, 2, *inner]])
    pow3 = np.array([0.8 - 0.5, 0.8 - 0.25])  # 0.5 / t at t = 1, 2
    ilog2 = np.array([0.9 - 0.2 / 0.693147, 0.9 - 0.2 / 1.098612])
    janoschek = np.array([0.7 - 0.6 * 0.606531, 0.7 - 0.6 * 0.135335])  # exp(-1/2), exp(-2)
    expected = [pow3, ilog2, janoschek, 0.5 * pow3 + ilog2 + 2 * janoschek]
    np.testing.assert_allclose(curve_values(parameters, np.array([1.0, 2.0])), expected, atol=1e-5)


def test_prior_rises_within_bounds_and_has_its_noise():
    draw = draw_prior(np.random.default_rng(1), 3000)
    assert draw.clean.shape == draw.noisy.shape == (3000, 100)
    assert draw.clean.min() >= 0 and draw.clean.max() <= 1
    assert (draw.clean[:, -1] > draw.clean[:, 0]).all()
    measured = np.log((draw.noisy - draw.clean).std(axis=1))
    assert abs(measured.mean() + 4) < 0.06 and abs(measured.std() - 1) < 0.05
    # Rejection is what it says: the same proposals, judged one by one.
    proposals = lc_pfn_training._proposals(np.random.default_rng(2), 2000)
    values = curve_values(proposals, np.arange(1, 101.0))
    fine = [v[-1] > v[0] and v.min() >= 0 and v.max() <= 1 for v in values]
    assert 0.19 < np.mean(fine) < 0.23


def test_coarser_grids_show_the_same_curves():
    whole, parts = (draw_prior(np.random.default_rng(3), 50, epochs).clean for epochs in (100, 20))
    np.testing.assert_allclose(parts, whole[:, 4::5])


# -------------------------------------------------------------------------------------------------------------- bars

BORDERS = np.array([0.1, 0.3, 0.4, 0.8, 0.9])


def test_bars_by_hand():
    bars = Bars(BORDERS)
    masses = np.array([[0.0, 0.25, 0.75, 0.0]])
    mean, std = bars.moments(masses)
    assert mean[0] == pytest.approx(0.25 * 0.35 + 0.75 * 0.6)
    second = 0.25 * (0.35**2 + 0.1**2 / 12) + 0.75 * (0.6**2 + 0.4**2 / 12)
    assert std[0] == pytest.approx(np.sqrt(second - mean[0] ** 2))
    assert bars.above(masses, 0.5)[0] == pytest.approx(0.75 * 0.75)
    assert bars.above(masses, [0.35])[0] == pytest.approx(0.75 + 0.125)
    assert bars.log_density(masses, np.array([0.5]))[0] == pytest.approx(np.log(0.75 / 0.4))


def test_borders_are_quantiles_of_the_prior(monkeypatch):
    monkeypatch.setattr(lc_pfn_training, "_BORDER_CURVES", 20_000)
    borders = lc_pfn_training.prior_borders(np.random.default_rng(10), 20)
    ends = draw_prior(np.random.default_rng(11), 20_000).noisy[:, -1]
    which, _ = Bars(borders).locate(ends)
    np.testing.assert_allclose(np.bincount(which, minlength=20) / 20_000, 0.05, atol=0.008)
    outside = np.mean(ends < borders[0]), np.mean(ends > borders[-1])
    np.testing.assert_allclose(outside, 0.025, atol=0.006)


def test_tails_are_half_normal():
    bars = Bars(BORDERS)
    high = halfnorm(loc=0.8, scale=0.1 / halfnorm.ppf(0.5))
    top = np.array([[0.0, 0, 0, 1]])
    low = halfnorm(loc=0, scale=0.2 / halfnorm.ppf(0.5))  # below 0.3, turned round
    bottom = np.array([[1.0, 0, 0, 0]])
    for value in (0.0, 0.1, 0.25, 0.5, 0.85, 0.9, 1.1):
        assert bars.above(top, value)[0] == pytest.approx(high.sf(value))
        assert bars.above(bottom, value)[0] == pytest.approx(low.cdf(0.3 - value))
    assert bars.above(top, 0.9)[0] == pytest.approx(0.5)
    for masses, mean, std in ((top, high.mean(), high.std()), (bottom, 0.3 - low.mean(), low.std())):
        np.testing.assert_allclose(np.concatenate(bars.moments(masses)), (mean, std))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_mass_above_is_the_integral_of_the_density(weights, a, b):
    a, b = sorted((a, b))
    bars = Bars(BORDERS)
    masses = np.array([weights]) / sum(weights)
    inside = [x for x in BORDERS[1:-1] if a < x < b]
    steps = [a, *inside, b]
    area = sum(quad(lambda y: np.exp(bars.log_density(masses, np.array([y]))[0]), u, v)[0] for u, v in pairwise(steps))
    between = bars.above(masses, a)[0] - bars.above(masses, b)[0]
    assert between >= 0
    assert between == pytest.approx(area, abs=1e-6)


# ----------------------------------------------------------------------------------------------------------- network


def test_numpy_and_torch_compute_the_same_at_every_epoch():
    torch = pytest.importorskip("torch")
    shape = {"width": 16, "layers": 3, "hidden": 24, "bins": 7}
    generator = torch.Generator().manual_seed(5)
    weights = lc_pfn_training.initial_weights(generator, shape, np.linspace(0, 1, 8))
    weights = {k: w + 0.3 * torch.randn(w.shape, generator=generator) for k, w in weights.items()}
    accuracy = np.random.default_rng(6).random((5, 9))
    x = features(accuracy, np.arange(1, 10) * 10.0).astype(np.float32)
    logits = lc_pfn_training.forward(weights, torch.from_numpy(x))
    arrays = {k: w.numpy() for k, w in weights.items()}
    for m in range(1, 10):
        np.testing.assert_allclose(forward(arrays, x[:, :m]), torch.softmax(logits[:, m - 1], -1), atol=2e-5)
    prefix = features(accuracy[:, :4], np.arange(1, 5) * 10.0)  # features of an epoch do not depend on later ones
    np.testing.assert_array_equal(prefix.astype(np.float32), x[:, :4])


@pytest.fixture
def tiny_training(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(lc_pfn_training, "SHAPE", {"width": 8, "layers": 1, "hidden": 8, "bins": 10})
    monkeypatch.setattr(lc_pfn_training, "_BORDER_CURVES", 500)


def test_training_goes_on_where_it_was_killed(tiny_training, tmp_path, monkeypatch, capsys):
    lc_pfn_training.train(tmp_path / "whole", steps=6, tokens=300, save_every=2)
    draw, calls = lc_pfn_training._batch, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw(*args)

    monkeypatch.setattr(lc_pfn_training, "_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        lc_pfn_training.train(tmp_path / "parts", steps=6, tokens=300, save_every=2)
    assert not (tmp_path / "parts").exists()
    lc_pfn_training.train(tmp_path / "parts", steps=6, tokens=300, save_every=2)
    assert len(calls) == 4 + 4  # steps 1-4, of which two were saved; then 3-6
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    assert "step 6 of 6" in capsys.readouterr().out


def test_training_lowers_the_loss(tiny_training, tmp_path, capsys):
    curves = prior_curves(np.random.default_rng(0), 300)
    nats = []
    for steps in (1, 40):
        made = lc_pfn_training.train(tmp_path / f"{steps}", steps=steps, tokens=1000, rate=0.02)
        nats.append(evaluate(LCPFN(np.random.default_rng(0), weights=str(made)), curves, [50])[0].nats)
    assert nats[1] < nats[0] - 0.3
    capsys.readouterr()


# --------------------------------------------------------------------------------------------------------- predictor


def test_file_of_weights():
    assert lc_pfn._WEIGHTS.stat().st_size < 2_000_000
    weights = load_weights(lc_pfn._WEIGHTS)
    assert all(np.isfinite(array).all() for array in weights.values())
    assert (np.diff(weights["borders"]) > 0).all()
    assert len(weights["borders"]) == len(weights["bins.bias"]) + 1 == lc_pfn_training.SHAPE["bins"] + 1
    assert lc_pfn.layers_of(weights) == lc_pfn_training.SHAPE["layers"]


def test_golden(predictor):
    prediction = predictor.predict(curves_from([GOLDEN_CURVE], 100))
    np.testing.assert_allclose((prediction.mean[0], prediction.std[0]), GOLDEN, atol=1e-4)


GOLDEN_CURVE = [0.30, 0.42, 0.48, 0.53, 0.55, 0.58, 0.60, 0.61, 0.62, 0.63]
GOLDEN = (0.73286, 0.07029)


def test_beliefs_make_sense(predictor):
    # Level for 60 of 100 epochs: it stays there. Rising: it ends above where it stands. One epoch: nearly anything.
    level = 0.7 + 0.01 * np.random.default_rng(0).standard_normal((20, 60))
    flat = predictor.predict(curves_from(level, 100))
    assert abs(flat.mean.mean() - 0.7) < 0.01 and flat.std.mean() < 0.05
    rising = predictor.predict(curves_from([0.2 + 0.01 * np.arange(30)], 100))
    assert rising.mean[0] > 0.49
    first = predictor.predict(curves_from([[0.3]], 100))
    assert first.std[0] > 0.1


def test_compare_uses_the_mass_of_the_bins(predictor):
    observed = curves_from([GOLDEN_CURVE, [0.1] * 10], 100)
    prediction = predictor.predict(observed)
    assert isinstance(prediction, BarPrediction)
    np.testing.assert_allclose(prediction.masses.sum(axis=1), 1)
    values = np.linspace(-0.2, 1.2, 40)
    p = np.array([predictor.compare(prediction, v, prediction, 10) for v in values])
    assert (np.diff(p, axis=0) <= 1e-12).all() and (p[0] > 0.999).all() and (p[-1] < 0.001).all()
    # The mean is the integral of the mass above, less that of the mass below 0.
    mean = -3 + np.trapezoid(
        [predictor.bars.above(prediction.masses, v) for v in np.linspace(-3, 3, 6001)], dx=1e-3, axis=0
    )
    np.testing.assert_allclose(mean, prediction.mean, atol=1e-4)
    incumbent = curves_from([[*GOLDEN_CURVE, *[0.65] * 90]])
    expected = predictor.bars.above(prediction.masses, 0.65)
    np.testing.assert_array_equal(predictor.p_better(observed, incumbent), expected)


def test_rows_do_not_depend_on_each_other(predictor, monkeypatch):
    curves = prior_curves(np.random.default_rng(4), 7).observed(12)
    together = predictor.predict(curves)
    alone = [predictor.predict(curves.rows([i])).mean[0] for i in range(7)]
    np.testing.assert_allclose(together.mean, alone, atol=1e-5)
    monkeypatch.setattr(lc_pfn, "_ROWS", 3)
    np.testing.assert_allclose(predictor.predict(curves).masses, together.masses, atol=1e-5)


def test_nan_is_not_ok_and_a_complete_curve_is_certain(predictor):
    curves = prior_curves(np.random.default_rng(5), 3, 20)
    known = predictor.predict(curves)
    np.testing.assert_array_equal(known.mean, curves.final)
    assert (predictor.compare(known, curves.final[1] - 1e-6, known, 20)[1], known.std[1]) == (1, 0)
    broken = curves.observed(5)
    broken.accuracy[1, 2] = np.nan
    prediction = predictor.predict(broken)
    np.testing.assert_array_equal(prediction.ok, [True, False, True])
    p = predictor.compare(prediction, 0.5, prediction, 5)
    np.testing.assert_array_equal(np.isnan(p), [False, True, False])


@pytest.mark.parametrize(
    ("epochs", "max_epochs", "kept", "steps"),
    [
        (3, 6, [0, 1, 2], [100 / 6, 200 / 6, 50]),
        (3, 100, [0, 1, 2], [1, 2, 3]),
        (5, 200, [1, 3, 4], [1, 2, 2.5]),
        (1, 200, [0], [1]),  # no earlier than the prior's first step
        (7, 300, [2, 5, 6], [1, 2, 7 / 3]),
    ],
)
def test_any_length_on_the_scale_of_the_prior(epochs, max_epochs, kept, steps):
    where, t = thinned(epochs, max_epochs)
    assert where.tolist() == kept
    np.testing.assert_allclose(t, steps)


@pytest.mark.parametrize("max_epochs", [2, 6, 100, 12, 200, 999])
def test_predicts_from_any_number_of_epochs(predictor, max_epochs):
    curves = prior_curves(np.random.default_rng(6), 2, max_epochs)
    for m in {1, max_epochs // 2, max_epochs - 1}:
        prediction = predictor.predict(curves.observed(m))
        assert prediction.ok.all() and (prediction.std > 0).all()


def test_torch_is_not_loaded():
    code = """
import sys, numpy as np
from nasharness.predictors.base import Curves
from nasharness.predictors.lc_pfn import LCPFN
n = np.zeros(1, dtype=np.int64)
c = Curves(np.full((1, 3), 0.5), 10, n[:, None], (1,), np.ones((1, 3)), None, n, n)
assert LCPFN(np.random.default_rng(0)).predict(c).ok.all()
assert 'torch' not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


# ----------------------------------------------------------------------------------------------------------- quality


def test_calibrated_on_the_prior_and_better_than_the_last_value(predictor):
    rows = evaluate(predictor, prior_curves(np.random.default_rng(7), 600), [5, 20, 50])
    for row in rows:
        assert 0.74 < row.coverage < 0.87  # sd of a share of 600 is 0.016
        assert row.nats < min(0, row.nats_last) and row.rmse < row.rmse_last


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [100, 20, 6])
def test_calibrated_on_the_prior_at_every_length(predictor, epochs):
    checks = sorted({max(1, epochs * share // 100) for share in (1, 10, 50, 80)})
    for row in evaluate(predictor, prior_curves(np.random.default_rng(8), 4000, epochs), checks):
        assert 0.75 < row.coverage < 0.85
        assert row.nats < min(0, row.nats_last) and row.rmse < row.rmse_last


@pytest.mark.slow
@pytest.mark.parametrize("curve", [[0.4], [0.30, 0.36, 0.43], [0.62, 0.66, 0.64, 0.67]])
def test_close_to_the_posterior_by_brute_force(predictor, curve):
    draw = draw_prior(np.random.default_rng(9), 300_000)
    m = len(curve)
    error = (np.array(curve) - draw.clean[:, :m]) / draw.noise[:, None]
    weight = np.exp(-0.5 * (error**2).sum(axis=1)) / draw.noise**m
    weight /= weight.sum()
    assert 1 / (weight**2).sum() > 200  # effective draws
    prediction = predictor.predict(curves_from([curve], 100))
    mean = weight @ draw.clean[:, -1]
    std = np.sqrt(weight @ (draw.clean[:, -1] ** 2 + draw.noise**2) - mean**2)
    np.testing.assert_allclose(prediction.mean[0], mean, atol=0.03)
    np.testing.assert_allclose(prediction.std[0], std, atol=0.03)


@pytest.mark.slow
def test_real_curves(predictor, shared_data):
    with np.load(shared_data / "spiking201_curves_cifar10.npz") as file:
        accuracy = file["val_acc"] / 1e4
    curves = curves_from(accuracy[np.random.default_rng(0).permutation(len(accuracy))[100:600]])
    for row in evaluate(predictor, curves, [10, 20, 50]):
        assert row.nats < row.nats_last and row.rmse < 0.6 * row.rmse_last and row.coverage > 0.7
