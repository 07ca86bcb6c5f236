import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import multivariate_normal, spearmanr

from nasharness.predictors.base import Curves, CurvesError
from nasharness.predictors.lc_net import LCNet, Sampler, condition, curve_layer

torch = pytest.importorskip("torch")

QUICK = {"chains": 3, "burn_in": 120, "steps": 20, "keep_every": 5}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn_from_model(rng, n, epochs=20, noise=0.01):
    """Curves of the learning-curve layer, whose outputs are linear in the architecture."""
    cardinalities = (3, 4, 2)
    arch = np.stack([rng.integers(0, c, n) for c in cardinalities], axis=1)
    empty = np.zeros(n, dtype=np.int64)
    seconds = np.tile(np.arange(1.0, epochs + 1), (n, 1))
    curves = Curves(np.zeros((n, epochs)), epochs, arch, cardinalities, seconds, None, empty, np.arange(n))
    linear = torch.from_numpy(np.random.default_rng(99).normal(0, 0.8, (9, 13)))
    mean, _ = curve_layer(torch.from_numpy(curves.one_hot()) @ linear, torch.arange(1, epochs + 1) / epochs)
    curves.accuracy[:] = mean.numpy() + rng.normal(0, noise, mean.shape)
    return curves


# ------------------------------------------------------------------------------------------------------ the last layer


def test_layer_by_hand():
    """All outputs 0: end 1/2, equal weights, all parameters of the bases 1/2."""
    mean, log_noise = curve_layer(
        torch.zeros(1, 13, dtype=torch.float64), torch.tensor([0.25, 1.0], dtype=torch.float64)
    )
    vapor = math.exp(-1 - 0.05 / 0.25 + 0.25 * math.log(0.25)) - math.exp(-1 - 0.05)
    logarithm = 0.5 * (math.log(1 + 0.25 * 10) / math.log(11) - 1)
    hill = 0.5 * (1 / ((0.1 / 0.25) ** 1.6 + 1) - 1 / (0.1**1.6 + 1))
    np.testing.assert_allclose(mean[0], [0.5 + math.tanh((vapor + logarithm + hill) / 3), 0.5], atol=1e-12)
    assert log_noise.item() == -4


def test_layer_rises_to_its_end():
    outputs = torch.randn((500, 13), generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    mean, _ = curve_layer(outputs, torch.arange(1, 201) / 200)
    assert (mean.diff(dim=1) > -1e-12).all()
    np.testing.assert_allclose(mean[:, -1], torch.sigmoid(outputs[:, 0]), atol=1e-12)


# --------------------------------------------------------------------------------------------------------- the sampler


def test_sampler_recovers_a_normal_distribution():
    total, centre, deviation = 50, torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.5])
    theta = torch.zeros(3000, 2)
    sampler = Sampler(theta, total, 0.1, 0.2, torch.Generator().manual_seed(1))
    for step in range(900):
        sampler.step((theta - centre) / deviation**2 / total, adapt=step < 300)
    np.testing.assert_allclose(theta.mean(dim=0), centre, atol=0.08)
    np.testing.assert_allclose(theta.std(dim=0), deviation, rtol=0.06)


# -------------------------------------------------------------------------------------------------------- conditioning


def test_conditioning_by_hand():
    """Two drawn networks, one observed epoch: a line through two points, shrunk by the noise."""
    means = np.array([[[0.4, 0.6]], [[0.6, 1.0]]])  # variances 0.02, 0.08, covariance 0.04
    mean, std = condition(means, np.array([0.02]), np.array([[0.54]]))
    assert mean[0] == pytest.approx(0.8 + 0.04 / (0.02 + 0.02) * 0.04)
    assert std[0] == pytest.approx(math.sqrt(0.08 - 0.04**2 / 0.04 + 0.02))


def test_conditioning_is_bayes_rule_on_normal_samples():
    """Against weighting draws by the likelihood, which is exact in the limit."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(0, 0.1, (4, 4))
    draws = 0.5 + rng.normal(size=(200_000, 4)) @ mixing
    observed, s2 = np.array([0.55, 0.42, 0.5]), 0.01
    weight = multivariate_normal(observed, s2 * np.eye(3)).pdf(draws[:, :3])
    weight /= weight.sum()
    mean = weight @ draws[:, 3]
    variance = weight @ (draws[:, 3] - mean) ** 2 + s2
    got = condition(draws[:, None, :], np.array([s2]), observed[None])
    np.testing.assert_allclose([got[0][0], got[1][0]], [mean, math.sqrt(variance)], atol=2e-3)


def test_far_from_the_data_noise_decides():
    means = np.random.default_rng(3).normal(0.5, 0.1, (50, 1, 6))
    observed = np.full((1, 5), 0.7)
    ignored = condition(means, np.array([1e6]), observed)[0][0]
    assert ignored == pytest.approx(means[:, 0, -1].mean(), abs=1e-4)


# ------------------------------------------------------------------------------------------------------------- as a whole


def test_same_seed_same_answer_and_no_global_state():
    curves = drawn_from_model(np.random.default_rng(4), 12)
    state = torch.get_rng_state()
    answers = []
    for seed in (1, 1, 2):
        predictor = LCNet(np.random.default_rng(seed), **QUICK)
        predictor.fit(curves, [5])
        answers.append(predictor.predict(curves.observed(5)).mean)
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - answers[2]).max() > 1e-6
    assert torch.equal(torch.get_rng_state(), state)
    assert not predictor._samples["0.weight"].requires_grad and len(predictor._samples["0.weight"]) == 12


def test_what_cannot_be_said_is_not_ok():
    curves = drawn_from_model(np.random.default_rng(5), 12)
    predictor = LCNet(np.random.default_rng(0), **QUICK)
    assert not predictor.predict(curves.observed(3)).ok.any()
    curves.accuracy[0] = np.nan  # one that diverged is left out
    predictor.fit(curves, [3])
    np.testing.assert_array_equal(predictor.predict(curves.observed(3)).ok, [False] + [True] * 11)
    np.testing.assert_array_equal(predictor.predict(curves.rows([1])).mean, curves.final[[1]])
    predictor._samples["3.bias"][0, 0, 1] += 10  # one network with a noise of e^6
    assert not predictor.predict(curves.observed(3)).ok.any()
    predictor._samples["3.bias"] *= torch.nan
    assert not predictor.predict(curves.observed(3)).ok.any()


def test_rows_do_not_depend_on_each_other(monkeypatch):
    curves = drawn_from_model(np.random.default_rng(6), 12)
    predictor = LCNet(np.random.default_rng(0), **QUICK)
    predictor.fit(curves, [3])
    together = predictor.predict(curves.observed(7))
    monkeypatch.setattr("nasharness.predictors.lc_net._VALUES", 1)
    np.testing.assert_allclose(predictor.predict(curves.observed(7)).mean, together.mean, atol=1e-5)


def test_errors():
    curves = drawn_from_model(np.random.default_rng(7), 12)
    with pytest.raises(CurvesError, match="needs 10 complete curves"):
        LCNet(np.random.default_rng(0)).fit(curves.rows([0]), [1])
    curves.accuracy[1:] = np.nan
    with pytest.raises(CurvesError, match="without NaN"):
        LCNet(np.random.default_rng(0)).fit(curves, [1])
    for wrong in ({"chains": 0}, {"steps": 49, "chains": 8}, {"rate": 0}, {"decay": 1}, {"burn_in": -1}):
        with pytest.raises(ValueError, match="must be|have to be"):
            LCNet(np.random.default_rng(0), **wrong)


def test_importing_it_does_not_load_torch():
    code = "import sys, nasharness.predictors.lc_net; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


GOLDEN = (0.4188, 0.3820)


def test_golden():
    curves = drawn_from_model(np.random.default_rng(8), 12)
    predictor = LCNet(np.random.default_rng(0), **QUICK)
    predictor.fit(curves, [5])
    prediction = predictor.predict(curves.observed(5))
    np.testing.assert_allclose((prediction.mean[0], prediction.std[0]), GOLDEN, atol=0.02)


@pytest.mark.slow
def test_recovers_curves_of_the_model():
    """The ends of architectures that were never seen, before and after their first epochs were."""
    rng = np.random.default_rng(9)
    curves, others = drawn_from_model(rng, 60), drawn_from_model(rng, 200)
    predictor = LCNet(np.random.default_rng(0), steps=500, keep_every=25)
    predictor.fit(curves, [1])
    errors = []
    for m in (1, 5, 15):
        prediction = predictor.predict(others.observed(m))
        error = prediction.mean - others.final
        errors.append(np.sqrt(np.mean(error**2)))
        assert 0.65 < np.mean(np.abs(error) < 1.2816 * prediction.std) < 0.97
    assert errors[0] < 0.25 * others.final.std() and errors[2] < errors[0]
    assert errors[2] < 1.5 * 0.01 * math.sqrt(1 + 1 / 15)  # the noise of the end cannot be known
    assert 0.004 < math.exp(0.5 * np.log(predictor._curves(others, [20])[1]).mean()) < 0.025


@pytest.mark.slow
def test_real_curves(shared_data):
    with np.load(shared_data / "spiking201_curves_cifar10.npz") as file:
        number, accuracy = file["index"].astype(np.int64), file["val_acc"] / 1e4
    chosen = np.random.default_rng(0).permutation(len(number))[:400]
    n = len(chosen)
    arch = number[chosen][:, None] // 5 ** np.arange(6) % 5
    seconds = np.tile(np.arange(1.0, 101), (n, 1))
    curves = Curves(accuracy[chosen], 100, arch, (5,) * 6, seconds, None, np.zeros(n, dtype=np.int64), number[chosen])
    predictor = LCNet(np.random.default_rng(1))
    predictor.fit(curves.rows(range(100)), [10])
    rest = curves.rows(range(100, n))
    prediction = predictor.predict(rest.observed(5))
    assert prediction.ok.all()
    assert spearmanr(prediction.mean, rest.final)[0] > spearmanr(rest.accuracy[:, 4], rest.final)[0]
    assert 0.7 < np.mean(np.abs(prediction.mean - rest.final) < 1.2816 * prediction.std) < 0.97
