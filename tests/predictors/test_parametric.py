"""Parametric curves: the eleven formulas, recovered curves, dropped families, the combination, and the sampler."""

from __future__ import annotations

import importlib.util
import sys
import types

import numpy as np
import pytest
from scipy.stats import kstest

from nasharness.harness.registry import stopping_spec
from nasharness.predictors import parametric
from nasharness.predictors.base import Curves, CurvesError
from nasharness.predictors.parametric import ELEVEN, FAMILIES, FOUR, Fit, Parametric, Posterior, fit_family, mixture

T = 50


def curves_from(accuracy, max_epochs=T):
    accuracy = np.asarray(accuracy, dtype=np.float64)
    n, m = accuracy.shape
    return Curves(
        accuracy=accuracy,
        max_epochs=max_epochs,
        arch=np.zeros((n, 1), dtype=np.int64),
        cardinalities=(1,),
        seconds=np.cumsum(np.ones((n, m)), axis=1),
        train_loss=None,
        dataset=np.zeros(n, dtype=np.int64),
        group=np.arange(n),
    )


def make(**parameters):
    return Parametric(np.random.default_rng(0), **parameters)


X = np.arange(1.0, T + 1)

# Parameters of plausible curves, apart from where the fits start.
DRAWN = {
    "vapor_pressure": (-0.5, -0.9, 0.03),
    "pow3": (0.85, 0.6, 0.5),
    "log_log_linear": (0.2, 1.3),
    "hill3": (0.9, 0.8, 3.0),
    "log_power": (0.85, 1.5, -0.9),
    "pow4": (0.9, 2.0, 1.0, 0.6),
    "mmf": (0.85, 0.2, 0.15, 1.2),
    "exp4": (0.8, 0.5, -0.4, 0.6),
    "janoschek": (0.82, 0.15, 0.25, 0.7),
    "weibull": (0.82, 0.15, 0.12, 0.7),
    "ilog2": (0.9, 0.45),
}

# Each formula at epoch 4 with the first parameters, worked out by hand from the published form.
BY_HAND = {
    "vapor_pressure": ((-0.5, -0.4, 0.5), 2 * np.exp(-0.6)),
    "pow3": ((0.9, 0.4, 0.5), 0.7),
    "log_log_linear": ((1 / np.log(4), 1.0), np.log(2)),
    "hill3": ((0.9, 0.5, 1.0), 0.6),
    "log_power": ((0.9, np.log(2), -1.0), 0.6),
    "pow4": ((0.9, 1.0, 5.0, 0.5), 0.9 - 1 / 3),
    "mmf": ((0.9, 0.1, 0.5, 2.0), 0.9 - 0.8 / 5),
    "exp4": ((0.9, 0.5, 0.2, 0.5), 0.9 - np.exp(-0.8)),
    "janoschek": ((0.9, 0.1, 0.5, 0.5), 0.9 - 0.8 * np.exp(-1)),
    "weibull": ((0.9, 0.1, 0.5, 2.0), 0.9 - 0.8 * np.exp(-4)),
    "ilog2": ((0.9, np.log(5)), -0.1),
}


def test_there_are_eleven_with_36_parameters():
    assert len(ELEVEN) == 11
    assert sum(len(family.start) for family in FAMILIES.values()) == 36
    assert set(FOUR) < set(ELEVEN)


@pytest.mark.parametrize("name", ELEVEN)
def test_formula_by_hand(name):
    parameters, expected = BY_HAND[name]
    assert FAMILIES[name].curve(4.0, *parameters) == pytest.approx(expected, rel=1e-12)


def test_second_starts_are_the_same_curves_in_another_form():
    for name, other in (("mmf", "hill3"), ("weibull", "janoschek")):
        np.testing.assert_allclose(
            FAMILIES[name].curve(X, *FAMILIES[name].second), FAMILIES[other].curve(X, *FAMILIES[other].start)
        )


@pytest.mark.parametrize("name", ELEVEN)
def test_recovers_the_end_of_a_noiseless_curve_of_the_family(name):
    curve = FAMILIES[name].curve(X, *DRAWN[name])
    fit = fit_family(name, curve[:25], T)
    assert fit.end == pytest.approx(curve[-1], abs=5e-3)
    assert np.abs(fit.residuals).max() < 1e-3


@pytest.mark.parametrize("name", ["pow3", "log_log_linear", "hill3", "log_power", "mmf", "ilog2", "janoschek"])
def test_recovers_the_parameters(name):
    fit = fit_family(name, FAMILIES[name].curve(X, *DRAWN[name])[:40], T)
    np.testing.assert_allclose(fit.parameters, DRAWN[name], rtol=1e-3)


def test_variance_of_the_end_is_that_over_repetitions():
    """Linear error propagation, against new noise on the same curve: the standardised error is about normal."""
    rng = np.random.default_rng(0)
    curve = FAMILIES["hill3"].curve(X, *DRAWN["hill3"])
    z = []
    for _ in range(150):
        noisy = curve + 0.003 * rng.standard_normal(T)
        fit = fit_family("hill3", noisy[:25], T)
        z.append((noisy[-1] - fit.end) / np.sqrt(fit.variance))
    assert kstest(z, "norm").pvalue > 0.01
    # Noise alone would be much too small.
    assert np.sqrt(fit.variance) > 1.3 * 0.003


def test_families_need_one_epoch_more_than_parameters():
    curve = FAMILIES["hill3"].curve(X, *DRAWN["hill3"])
    assert {name for name in ELEVEN if fit_family(name, curve[:3], T)} <= {"log_log_linear", "ilog2"}
    assert [fit.name for fit in make().fit_families(curve[:4], T)] == ["log_log_linear", "hill3", "log_power"]
    assert [fit.name for fit in make().fit_families(curve[:5], T)] == ["mmf", "log_log_linear", "hill3", "log_power"]
    assert Parametric.min_epochs == 4
    assert make().predict(curves_from([curve[:4]])).ok[0]
    assert not make().predict(curves_from([curve[:2]])).ok[0]


def test_a_falling_curve_drops_families_and_nothing_is_said():
    falling = 0.6 - 0.01 * np.arange(20)
    assert len(make().fit_families(falling, T)) < 2
    assert not make().predict(curves_from([falling])).ok[0]


def test_one_surviving_family_is_not_enough(monkeypatch):
    curve = FAMILIES["hill3"].curve(X, *DRAWN["hill3"])[:20]
    real = fit_family
    monkeypatch.setattr(parametric, "fit_family", lambda name, *rest: real(name, *rest) if name == "hill3" else None)
    predictor = make()
    assert len(predictor.fit_families(curve, T)) == 1
    assert not predictor.predict(curves_from([curve])).ok[0]


def test_a_flat_curve_is_predicted_to_stay():
    flat = 0.1 + 1e-4 * np.random.default_rng(0).standard_normal(20)
    prediction = make().predict(curves_from([flat]))
    assert prediction.ok[0]
    assert prediction.mean[0] == pytest.approx(0.1, abs=0.03)
    assert make().p_better(curves_from([flat]), curves_from([np.full(T, 0.9)]))[0] < 1e-4


def test_mixture_by_hand():
    # Residuals of the same size and as many parameters: equal weights. Variance .01 and .03, ends .4 and .6.
    fits = [Fit(n, np.zeros(2), np.full(10, 0.01), end, v) for n, end, v in (("a", 0.4, 0.01), ("b", 0.6, 0.03))]
    mean, std = mixture(fits, np.zeros(10), T)
    assert mean == pytest.approx(0.5)
    assert std**2 == pytest.approx(0.02 + 0.01)
    # AICc = 10 ln(1e-4) + 2*3 + 2*3*4/(10-3-1)
    assert fits[0].aicc == pytest.approx(10 * np.log(1e-4) + 6 + 4)
    # A family whose residuals are larger by the factor e^.1 has a mean square larger by e^.2: weight 1 to e^-1.
    worse = fits[1]._replace(residuals=np.full(10, 0.01 * np.exp(0.1)))
    share = np.exp(-1) / (1 + np.exp(-1))
    assert mixture([fits[0], worse], np.zeros(10), T)[0] == pytest.approx(0.4 + 0.2 * share)


def test_ends_are_clipped():
    fits = [Fit(n, np.zeros(2), np.full(10, 0.01), 7.0, np.inf) for n in "ab"]
    assert mixture(fits, np.zeros(10), T) == (1.0, 0.5)


@pytest.mark.parametrize("families", [FOUR, ELEVEN])
def test_predictions_are_distributions_of_accuracies(families):
    rng = np.random.default_rng(1)
    steps = rng.random((20, 12)) * rng.choice([0.002, 0.02, 0.05], (20, 1))
    prediction = make(families=families).predict(curves_from(np.cumsum(steps, axis=1) + 0.1))
    ok = prediction.ok
    assert ok.sum() >= 15
    assert ((prediction.mean[ok] >= 0) & (prediction.mean[ok] <= 1)).all()
    assert ((prediction.std[ok] > 0) & (prediction.std[ok] <= np.sqrt(0.5))).all()


def test_predicts_a_combination_with_noise():
    rng = np.random.default_rng(2)
    curve = 0.5 * FAMILIES["mmf"].curve(X, *DRAWN["mmf"]) + 0.5 * FAMILIES["hill3"].curve(X, *DRAWN["hill3"])
    noisy = curve + 0.004 * rng.standard_normal((20, T))
    prediction = make().predict(curves_from(noisy[:, :20]))
    assert prediction.ok.all()
    assert np.mean(np.abs(prediction.mean - curve[-1]) < 2.5 * prediction.std) >= 0.9
    assert np.abs(prediction.mean - curve[-1]).mean() < 0.5 * abs(curve[19] - curve[-1])


def test_golden():
    t = np.arange(1, 21)
    accuracy = 0.85 * t / (3 + t) + 0.01 * np.sin(5 * t)
    prediction = make().predict(curves_from([accuracy]))
    np.testing.assert_allclose([prediction.mean[0], prediction.std[0]], [0.7996708, 0.0129943], atol=1e-4)
    prediction = make(families=ELEVEN).predict(curves_from([accuracy]))
    np.testing.assert_allclose([prediction.mean[0], prediction.std[0]], [0.7980530, 0.0163525], atol=1e-4)


def test_rows_do_not_depend_on_each_other_or_on_the_generator():
    curve = FAMILIES["hill3"].curve(X, *DRAWN["hill3"])
    batch = curves_from([curve[:15], np.full(15, np.nan), curve[:15] * 0.9])
    together = Parametric(np.random.default_rng(7)).predict(batch)
    assert together.ok.tolist() == [True, False, True]
    assert make().predict(batch.rows([2])).mean[0] == together.mean[2]


def test_errors():
    with pytest.raises(ValueError, match="unknown families \\['cubic'\\]"):
        make(families=("hill3", "cubic"))
    with pytest.raises(ValueError, match="two or more"):
        make(families=("hill3", "hill3"))
    with pytest.raises(ValueError, match="sampler must be"):
        make(sampler="nuts")
    with pytest.raises(ValueError, match="burn_in"):
        make(steps=10, burn_in=10)
    with pytest.raises(CurvesError, match="complete"):
        make().fit(curves_from([[0.1, 0.2]]), ())


def test_fit_predicts_nothing(monkeypatch):
    """With a sampler of seconds per curve, nobody may predict all training curves at all check points."""
    predictor = make()
    monkeypatch.setattr(predictor, "predict", lambda observed: pytest.fail("predicted"))
    predictor.fit(curves_from(np.full((3, T), 0.5)), (5, 10))


def test_rule_from_the_preset():
    rule = stopping_spec("parametric@eleven").make(np.random.default_rng(0))
    assert rule.predictor.families == ELEVEN
    assert rule.delta == 0.05
    best = curves_from([0.9 - 0.5 / X])
    rule.tell(best)
    weak, strong = (curves_from([end - 0.5 / X[:20]]) for end in (0.6, 0.95))
    assert rule.decide(weak, best).stop
    assert not rule.decide(strong, best).stop
    assert not rule.decide(weak.observed(3), best).stop  # fewer epochs than it needs


# ----------------------------------------------------------------------------------------------------------- sampling


def noisy_hill(m=20, noise=0.005, seed=3):
    curve = FAMILIES["hill3"].curve(X, *DRAWN["hill3"])
    return curve, curve[:m] + noise * np.random.default_rng(seed).standard_normal(m)


def test_posterior_by_hand():
    # Two families that are constant: c - 0/ln(x+1) and c - 0 x^-1. Weights 1 and 3.
    posterior = Posterior(["ilog2", "pow3"], np.array([0.5, 0.6]), T)
    sample = np.array([0.4, 0.0, 0.6, 0.0, 1.0, 0.1, 1.0, 3.0])
    combined = 0.25 * 0.4 + 0.75 * 0.6
    expected = -2 * np.log(0.1) - ((0.5 - combined) ** 2 + (0.6 - combined) ** 2) / (2 * 0.01)
    assert posterior.log_density(sample[None])[0] == pytest.approx(expected)
    ends, noise = posterior.ends(sample[None])
    assert ends[0] == pytest.approx(combined)
    assert noise[0] == 0.1


@pytest.mark.parametrize(
    ("place", "value"),
    [(5, -0.1), (5, 1.0), (6, -1e-9), (7, 100.1), (0, -0.2), (0, np.nan), (1, -0.5)],
    ids=["noise", "noise", "weight", "weight", "negative end", "not finite", "falls"],
)
def test_outside_of_the_prior_there_is_no_density(place, value):
    posterior = Posterior(["ilog2", "pow3"], np.array([0.5, 0.6]), T)
    sample = np.array([0.4, 0.1, 0.6, 0.1, 1.0, 0.1, 1.0, 3.0])
    assert np.isfinite(posterior.log_density(sample[None])[0])
    sample[place] = value
    assert posterior.log_density(sample[None])[0] == -np.inf


@pytest.mark.parametrize("families", [FOUR, ELEVEN])
def test_chains_start_inside_the_prior(families):
    _, accuracy = noisy_hill()
    predictor = make(families=families)
    fits = predictor.fit_families(accuracy, T)
    assert len(fits) == len(families)
    posterior = Posterior([fit.name for fit in fits], accuracy, T)
    start = posterior.start(fits)
    walkers = start + 1e-6 * np.random.default_rng(0).standard_normal((100, len(start)))
    assert np.isfinite(posterior.log_density(walkers)).mean() > 0.9
    assert len(start) == sum(len(FAMILIES[name].start) for name in families) + 1 + len(families)


def test_without_emcee_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(ImportError, match=r"pip install 'nasharness\[emcee\]'"):
        make(sampler="emcee")


class StretchSampler:
    """The affine-invariant stretch move (Goodman and Weare 2010) behind as much of emcee's interface as is used."""

    def __init__(self, walkers, dimension, log_density, vectorize):
        assert vectorize
        assert walkers >= 2 * dimension
        self.log_density = log_density
        self.random_state = None

    def run_mcmc(self, first, steps, skip_initial_state_check):
        random = np.random.RandomState()
        random.set_state(self.random_state)
        x, density = first.copy(), self.log_density(first)
        n, d = x.shape
        chain = []
        for _ in range(steps):
            for half in (np.arange(n) < n // 2, np.arange(n) >= n // 2):
                z = (random.rand(half.sum()) + 1) ** 2 / 2
                partner = x[~half][random.randint((~half).sum(), size=half.sum())]
                proposal = partner + z[:, None] * (x[half] - partner)
                new = self.log_density(proposal)
                accept = np.log(random.rand(half.sum())) < (d - 1) * np.log(z) + new - density[half]
                rows = np.flatnonzero(half)[accept]
                x[rows], density[rows] = proposal[accept], new[accept]
            chain.append(x.copy())
        self.chain = np.array(chain)

    def get_chain(self, discard, thin, flat):
        return self.chain[discard + thin - 1 :: thin].reshape(-1, self.chain.shape[2])


def test_sampling_with_a_sampler_of_the_same_interface(monkeypatch):
    monkeypatch.setitem(sys.modules, "emcee", types.SimpleNamespace(EnsembleSampler=StretchSampler))
    curve, accuracy = noisy_hill()
    predictor = make(sampler="emcee", steps=400, burn_in=200)
    prediction = predictor.predict(curves_from([accuracy]))
    assert prediction.ok[0]
    assert abs(prediction.mean[0] - curve[-1]) < 3 * prediction.std[0]
    assert 0.004 < prediction.std[0] < 0.1
    again = make(sampler="emcee", steps=400, burn_in=200).predict(curves_from([accuracy]))
    assert again.mean[0] == prediction.mean[0]  # the same generator, the same chains


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("emcee") is None, reason="needs emcee: pip install 'nasharness[emcee]'")
def test_sampling_with_emcee():
    curve, accuracy = noisy_hill()
    predictor = make(sampler="emcee")
    prediction = predictor.predict(curves_from([accuracy]))
    assert prediction.ok[0]
    assert abs(prediction.mean[0] - curve[-1]) < 3 * prediction.std[0]
    assert 0.004 < prediction.std[0] < 0.1
    assert make(sampler="emcee").predict(curves_from([accuracy])).mean[0] == prediction.mean[0]
    fitted = make().predict(curves_from([accuracy]))
    assert prediction.mean[0] == pytest.approx(fitted.mean[0], abs=0.05)
