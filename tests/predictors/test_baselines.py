"""Predictors without anything to learn: last value, best so far, mean of the curve, sum of training losses."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

import nasharness as nh
from nasharness.harness.curves import curves_of
from nasharness.harness.predictor_testing import made_up
from nasharness.harness.registry import stopping_spec
from nasharness.predictors.base import Curves, CurvesError
from nasharness.predictors.best_so_far import BestSoFar
from nasharness.predictors.mean_of_curve import MeanOfCurve
from nasharness.predictors.tse import TSE

RNG = np.random.default_rng(0)


def curves(accuracy, loss=None, max_epochs=10):
    accuracy = np.array(accuracy, dtype=np.float64)
    n, m = accuracy.shape
    return Curves(
        accuracy=accuracy,
        max_epochs=max_epochs,
        arch=np.zeros((n, 1), dtype=np.int64),
        cardinalities=(1,),
        seconds=np.cumsum(np.ones((n, m)), axis=1),
        train_loss=None if loss is None else np.array(loss, dtype=np.float64),
        dataset=np.zeros(n, dtype=np.int64),
        group=np.arange(n),
    )


@pytest.fixture(scope="module")
def digits():
    benchmark = nh.load("digits201")
    rng = np.random.default_rng(0)
    return curves_of(benchmark, [benchmark.space.sample(rng) for _ in range(300)])


def score(name, observed):
    return stopping_spec(name).make(RNG).predictor.predict(observed).score


def test_by_hand():
    """Accuracies 0.1, 0.5, 0.3 with losses 2, 1, 0.5."""
    observed = curves([[0.1, 0.5, 0.3]], [[2.0, 1.0, 0.5]])
    assert score("last_value", observed) == pytest.approx([0.3])
    assert score("best_so_far", observed) == pytest.approx([0.5])
    assert score("mean_of_curve", observed) == pytest.approx([0.3])
    assert score("tse", observed) == pytest.approx([-3.5])
    assert score("tse@last", observed) == pytest.approx([-0.5])
    assert score("tse(form='last', last=2)", observed) == pytest.approx([-1.5])
    assert score("tse(form='last', last=9)", observed) == pytest.approx([-3.5])  # all there are
    assert score("tse(form='ema', decay=0.5)", observed) == pytest.approx([-(2 * 0.25 + 1 * 0.5 + 0.5)])
    assert score("tse@ema", observed) == pytest.approx([-(2 * 0.999**2 + 0.999 + 0.5)])


def test_after_one_epoch_all_forms_are_the_same():
    whole = made_up(20).observed(1)
    assert np.array_equal(score("best_so_far", whole), score("last_value", whole))
    assert np.array_equal(score("mean_of_curve", whole), score("last_value", whole))
    for form in ("last", "ema"):
        assert np.array_equal(score(f"tse@{form}", whole), score("tse", whole))


def test_laws():
    """last <= best so far, mean <= best so far; the moving average runs from the last loss to the sum as the decay does."""
    whole = made_up(20)
    for m in (1, 4, 20):
        part = whole.observed(m)
        best = score("best_so_far", part)
        assert (score("last_value", part) <= best).all()
        assert (score("mean_of_curve", part) <= best).all()
        assert score("tse(form='ema', decay=1.0)", part) == pytest.approx(score("tse", part))
        assert score("tse(form='ema', decay=1e-9)", part) == pytest.approx(score("tse@last", part), abs=1e-6)
        assert score(f"tse(form='last', last={m})", part) == pytest.approx(score("tse", part))


@pytest.mark.parametrize("name", ["best_so_far", "mean_of_curve", "tse", "tse@last", "tse@ema"])
def test_of_a_diverged_training_nothing_is_said(name):
    observed = curves([[0.1, 0.2], [0.9, np.nan], [np.nan, np.nan]], [[1.0, 1.0], [1.0, np.nan], [np.nan, np.nan]])
    assert stopping_spec(name).make(RNG).predictor.predict(observed).ok.tolist() == [True, False, False]


def test_a_loss_that_is_not_used_may_be_unknown():
    observed = curves([[0.1, 0.2, 0.3]], [[np.nan, 1.0, 0.5]])
    assert TSE(RNG, form="last").predict(observed).score == pytest.approx([-0.5])
    assert not TSE(RNG).predict(observed).ok[0]


def test_tse_says_that_losses_are_missing():
    for learn in (True, False):
        without = replace(made_up(5), train_loss=None)
        with pytest.raises(CurvesError, match="training losses"):
            TSE(RNG).fit(without, []) if learn else TSE(RNG).predict(without.observed(3))


@pytest.mark.parametrize("wrong", [{"form": "mean"}, {"last": 0}, {"decay": 0.0}, {"decay": 1.1}])
def test_tse_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TSE(RNG, **wrong)


def test_they_only_rank():
    part = made_up(3).observed(4)
    for predictor in (BestSoFar(RNG), MeanOfCurve(RNG), TSE(RNG)):
        given = predictor.predict(part)
        assert np.isnan(given.mean).all()
        assert np.isnan(given.std).all()
        assert given.ok.all()


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("last_value", (0.2839, 0.4135, 0.8996)),
        ("best_so_far", (0.2839, 0.4642, 0.9037)),
        ("mean_of_curve", (0.2839, 0.4967, 0.7883)),
        ("tse", (0.3033, 0.7495, 0.8863)),
        ("tse@last", (0.3033, 0.8287, 0.936)),
        ("tse@ema", (0.3033, 0.7496, 0.8866)),
    ],
)
def test_rank_correlation_on_the_embedded_benchmark(digits, name, after):
    """Golden: Spearman with the accuracy after all 6 epochs, after 1, 3 and 5, of 300 random architectures."""
    found = [spearmanr(score(name, digits.observed(m)), digits.final)[0] for m in (1, 3, 5)]
    assert found == pytest.approx(after, abs=5e-4)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("last_value", (0.3115, 0.6562, 0.9318)),
        ("best_so_far", (0.3115, 0.6949, 0.9637)),
        ("mean_of_curve", (0.3115, 0.5689, 0.8427)),
    ],
)
def test_rank_correlation_on_real_curves(shared_data, name, after):
    """Golden: Spearman with the accuracy after 100 epochs, after 1, 10 and 50, of all 15,625 spiking networks."""
    with np.load(shared_data / "spiking201_curves_cifar10.npz") as file:
        whole = curves(file["val_acc"] / 1e4, max_epochs=100)
    found = [spearmanr(score(name, whole.observed(m)), whole.final)[0] for m in (1, 10, 50)]
    assert found == pytest.approx(after, abs=5e-4)
