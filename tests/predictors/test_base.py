"""Curves, predictions, the rule made of a predictor, and the calibration of scores."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from nasharness.harness.predictor_testing import made_up
from nasharness.harness.registry import stopping_spec
from nasharness.predictors.base import (
    Curves,
    CurvesError,
    Decision,
    Prediction,
    Predictor,
    PredictorRule,
    StoppingRule,
    join,
    must_go_on,
)
from nasharness.predictors.calibration import STEP, Calibration, fit_calibration
from nasharness.predictors.last_value import LastValue


def curves(accuracy, max_epochs=None):
    accuracy = np.array(accuracy, dtype=np.float64)
    n, m = accuracy.shape
    return Curves(
        accuracy=accuracy,
        max_epochs=max_epochs or m,
        arch=np.arange(2 * n).reshape(n, 2) % 3,
        cardinalities=(3, 3),
        seconds=np.cumsum(np.ones((n, m)), axis=1),
        train_loss=1 - accuracy,
        dataset=np.zeros(n, dtype=np.int64),
        group=np.arange(n),
    )


class Normal(Predictor):
    """Says what it is told to, and notes what it was fitted with."""

    needs_curves = 2
    min_epochs = 2
    delta = 0.1

    def __init__(self, rng, *, mean=0.5, std=0.1):
        super().__init__(rng)
        self.mean, self.std = mean, std
        self.fitted = []

    def learn(self, given, checks, meta):
        self.fitted.append((len(given), tuple(checks), None if meta is None else len(meta)))

    def predict(self, observed):
        return Prediction.of_normal(np.full(len(observed), self.mean), self.std)


RNG = np.random.default_rng(0)


# ---------------------------------------------------------------------------------------------------------------- Curves


def test_observed_is_a_copy_of_the_first_epochs():
    whole = curves([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    part = whole.observed(2)
    assert part.accuracy.tolist() == [[0.1, 0.2], [0.4, 0.5]]
    assert (part.epochs, part.max_epochs, part.complete) == (2, 3, False)
    for name in ("accuracy", "seconds", "train_loss"):
        array = getattr(part, name)
        assert array.shape == (2, 2)
        assert not np.shares_memory(array, getattr(whole, name))
        array[:] = 9
    assert whole.accuracy.max() == 0.6
    assert whole.observed(3).complete
    for epochs in (0, 4):
        with pytest.raises(CurvesError, match=r"1\.\.3"):
            whole.observed(epochs)


def test_final_is_known_of_complete_curves_only():
    whole = curves([[0.1, 0.2], [0.4, 0.3]])
    assert whole.final.tolist() == [0.2, 0.3]
    with pytest.raises(CurvesError, match="only 1 of 2 epochs"):
        _ = whole.observed(1).final


@pytest.mark.parametrize("which", [[2, 0], np.array([2, 0]), np.array([True, False, True])])
def test_rows(which):
    whole = curves([[0.1, 0.2], [0.4, 0.3], [0.5, 0.6]])
    some = whole.rows(which)
    expected = [2, 0] if not (isinstance(which, np.ndarray) and which.dtype == bool) else [0, 2]
    assert some.group.tolist() == expected
    for name in ("accuracy", "arch", "seconds", "train_loss", "dataset"):
        assert np.array_equal(getattr(some, name), getattr(whole, name)[expected])


@pytest.mark.parametrize("nothing", [[], range(0), np.zeros(0, dtype=np.int64)])
def test_no_rows(nothing):
    none = curves([[0.1, 0.2]]).rows(nothing)
    assert len(none) == 0
    assert none.accuracy.shape == (0, 2)
    assert none.arch.shape == (0, 2)


def test_one_hot():
    whole = replace(curves([[0.1], [0.2]]), arch=np.array([[2, 1], [0, 0]]), cardinalities=(3, 2))
    assert whole.one_hot().tolist() == [[0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]


def test_join_undoes_rows():
    whole = made_up(9)
    again = join([whole.rows(range(4)), whole.rows([]), whole.rows(range(4, 9))])
    for name in ("accuracy", "arch", "seconds", "train_loss", "dataset", "group"):
        assert np.array_equal(getattr(again, name), getattr(whole, name))


def test_join_refuses_what_differs():
    with pytest.raises(CurvesError, match="no curves"):
        join([])
    with pytest.raises(CurvesError, match="same epochs"):
        join([made_up(2), made_up(2).observed(3)])
    with pytest.raises(CurvesError, match="same space"):
        join([made_up(2), replace(made_up(2), cardinalities=(6,) * 6)])
    assert join([made_up(2), replace(made_up(2), train_loss=None)]).train_loss is None


@pytest.mark.parametrize("name", ["arch", "seconds", "dataset", "group", "train_loss"])
def test_arrays_have_to_fit_together(name):
    whole = made_up(3)
    with pytest.raises(CurvesError, match=name):
        replace(whole, **{name: getattr(whole, name)[:2]})


def test_curves_are_not_longer_than_the_training():
    with pytest.raises(CurvesError, match="of 3 epochs"):
        curves([[0.1, 0.2, 0.3]], max_epochs=2)


# ------------------------------------------------------------------------------------------------------------ predictions


def test_what_is_not_finite_is_not_ok():
    assert Prediction.of_score([1, np.nan, np.inf, 0]).ok.tolist() == [True, False, False, True]
    assert Prediction.of_score([1.0, 2.0], ok=[False, True]).ok.tolist() == [False, True]
    given = Prediction.of_normal([0.5, np.nan, 0.5], [0.1, 0.1, np.nan])
    assert given.ok.tolist() == [True, False, False]
    assert np.array_equal(given.score, given.mean, equal_nan=True)
    assert len(Prediction.of_normal([0.1, 0.2], 0.3)) == 2


def test_p_better_of_a_normal_distribution():
    """1 - Phi(1) = 0.1587 for an incumbent one standard deviation above the mean, and 1/2 at it."""
    p = Normal(RNG, mean=0.5, std=0.1)
    observed = curves([[0.3, 0.4]], max_epochs=3)
    assert p.p_better(observed, curves([[0.1, 0.2, 0.6]])) == pytest.approx([0.158655], abs=1e-6)
    assert p.p_better(observed, curves([[0.1, 0.2, 0.5]])) == pytest.approx([0.5])
    certain = Normal(RNG, mean=0.5, std=0.0)
    assert certain.p_better(observed, curves([[0.1, 0.2, 0.4]])) == pytest.approx([1.0])
    assert certain.p_better(observed, curves([[0.1, 0.2, 0.6]])) == pytest.approx([0.0])


def test_p_better_of_a_score_without_calibration_is_a_step():
    incumbent = curves([[0.3, 0.4, 0.9]])
    p = LastValue(RNG).p_better(curves([[0.0, 0.5], [0.0, 0.4], [0.9, 0.3], [0.5, np.nan]], max_epochs=3), incumbent)
    assert np.array_equal(p, [1.0, 0.5, 0.0, np.nan], equal_nan=True)


def test_nothing_can_be_said_against_an_incumbent_of_which_nothing_can_be_said():
    class Picky(LastValue):
        def predict(self, observed):
            return Prediction.of_score(np.where(observed.accuracy[:, 0] > 0.5, observed.accuracy[:, -1], np.nan))

    assert np.isnan(Picky(RNG).p_better(curves([[0.9]], max_epochs=2), curves([[0.1, 0.2]]))).all()


def test_fit_checks_what_it_is_given():
    with pytest.raises(CurvesError, match="complete curves"):
        LastValue(RNG).fit(made_up(5).observed(4), [1])
    with pytest.raises(CurvesError, match="complete curves"):
        LastValue(RNG).fit(made_up(5), [1], made_up(5).observed(4))
    with pytest.raises(CurvesError, match="Normal needs 2 complete curves of the task, there are 1"):
        Normal(RNG).fit(made_up(1), [2])


def test_a_fitted_score_gets_a_probability_that_rises_with_it():
    whole = made_up(60)
    predictor = LastValue(RNG)
    predictor.fit(whole, [5])
    best = whole.rows([int(np.argsort(whole.final)[30])])
    observed = whole.observed(5)
    p = predictor.p_better(observed, best)
    assert ((p > 0) & (p < 1)).all()
    order = np.argsort(observed.accuracy[:, -1])
    assert (np.diff(p[order]) >= 0).all()
    # At other epochs it was not calibrated.
    assert set(predictor.p_better(whole.observed(6), best)) <= {0.0, 0.5, 1.0}


# ------------------------------------------------------------------------------------------------------------ calibration


def sample(n, seed):
    """Finals from a normal distribution, and scores that are the finals with as much noise, times three."""
    rng = np.random.default_rng(seed)
    final = rng.normal(0, 1, n)
    return 3 * (final + rng.normal(0, 1, n)), final


def pairs(score, final):
    """Differences of scores of every training to each of the best twentieth, and whether it is better."""
    best = np.argsort(-final, kind="stable")[: max(3, round(len(final) / 20))]
    others = np.arange(len(final))[:, None] != best
    return (score[:, None] - score[best])[others], (final[:, None] > final[best])[others]


def test_calibration_is_the_most_likely_logistic_function():
    """Against an independent optimizer of the same likelihood, with Platt's targets."""
    x, better = pairs(*sample(120, 1))
    target = np.where(better, (better.sum() + 1) / (better.sum() + 2), 1 / ((~better).sum() + 2))

    def loss(w):
        z = w[0] * x + w[1]
        return np.sum(np.logaddexp(0, z) - target * z)

    expected = minimize(loss, [0.1, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
    fitted = fit_calibration(*sample(120, 1))
    assert (fitted.slope, fitted.offset) == pytest.approx(tuple(expected), rel=1e-3)


def test_calibrated_probabilities_are_right():
    """On fresh trainings of the same kind the share of better pairs is the probability, in every bin."""
    fitted = fit_calibration(*sample(200, 2))
    x, better = pairs(*sample(2000, 3))
    p = fitted.probability(x)
    assert p.mean() == pytest.approx(better.mean(), abs=0.02)
    edges = np.linspace(0, 1, 6)
    for low, high in itertools.pairwise(edges):
        inside = (p >= low) & (p < high)
        if inside.sum() > 2000:
            assert better[inside].mean() == pytest.approx(p[inside].mean(), abs=0.07), (low, high)


def test_probability_of_a_calibration():
    c = Calibration(2.0, -1.0)
    assert c.probability([0.0, 0.5, 50.0]) == pytest.approx([expit(-1.0), 0.5, 1.0])
    assert np.array_equal(STEP.probability([-1, 0, 2, np.nan]), [0, 0.5, 1, np.nan], equal_nan=True)


def test_nothing_to_calibrate_on_gives_the_step():
    assert fit_calibration(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3])) == STEP
    assert fit_calibration(np.ones(9), np.arange(9.0)) == STEP
    assert fit_calibration(np.arange(9.0), np.ones(9)) == STEP
    assert fit_calibration(np.array([1, 2, 3, np.nan, np.inf]), np.arange(5.0)) == STEP


def test_a_score_that_ranks_the_wrong_way_round_says_nothing():
    fitted = fit_calibration(-np.arange(20.0), np.arange(20.0))
    assert fitted.slope == 0
    assert 0 < float(fitted.probability(3.0)) == float(fitted.probability(-3.0)) < 0.5


# ------------------------------------------------------------------------------------------------------------------ rules


@pytest.mark.parametrize(
    ("every", "epochs", "expected"),
    [
        (0.05, 100, tuple(range(5, 100, 5))),
        (0.05, 6, (1, 2, 3, 4, 5)),
        (0.25, 10, (2, 5, 8)),  # 2.5 and 7.5 are rounded to even
        (0.3, 10, (3, 6, 9)),
        (1.0, 10, ()),
        (0.05, 1, ()),
        (0.5, 2, (1,)),
    ],
)
def test_check_points(every, epochs, expected):
    assert PredictorRule(RNG, LastValue(RNG), every=every).checks(epochs) == expected


def test_must_go_on():
    best = curves([[0.2, 0.4, 0.6]])
    low, reached = curves([[0.1, 0.2]], 3), curves([[0.6, 0.1]], 3)
    assert must_go_on(low, None).stop is False
    assert must_go_on(low, best) is None
    assert must_go_on(reached, best).stop is False
    assert must_go_on(curves([[0.1, np.nan]], 3), best) == Decision(True, 0.0)
    assert must_go_on(curves([[0.7, np.nan]], 3), None).stop is True
    assert must_go_on(curves([[np.nan, 0.1]], 3), best) is None  # it recovered


def test_a_predictors_rule_stops_at_delta():
    best = curves([[0.3, 0.4, 0.6]])
    row = curves([[0.1, 0.2]], 3)
    for delta, stop in ((0.15, False), (0.16, True)):
        rule = PredictorRule(RNG, Normal(RNG, mean=0.5, std=0.1), delta=delta)
        for known in (best, best):
            rule.tell(known)
        decision = rule.decide(row, best)
        assert decision.p_better == pytest.approx(0.158655, abs=1e-6)
        assert decision.stop is stop
    assert PredictorRule(RNG, Normal(RNG)).delta == 0.1


def test_a_predictors_rule_waits_for_what_the_predictor_needs():
    best, row = curves([[0.3, 0.4, 0.9]]), curves([[0.1, 0.2]], 3)
    rule = PredictorRule(RNG, Normal(RNG, mean=0.1))
    assert rule.needs_curves == 2
    assert not rule.decide(row, best).stop
    rule.tell(best)
    rule.tell(row)  # stopped: of no use to learn from
    rule.tell(curves([[0.1, 0.2, np.nan]]))
    assert not rule.decide(row, best).stop
    rule.tell(best)
    assert rule.decide(row, best).stop
    assert not rule.decide(row.observed(1), best).stop  # before the predictor's min_epochs
    assert PredictorRule(RNG, Normal(RNG), warm_up=7).needs_curves == 7


def test_it_is_fitted_again_when_completed_trainings_have_grown_by_half():
    whole = made_up(30)
    row, best = made_up(1, seed=3).observed(4), replace(made_up(1), accuracy=np.full((1, 20), 0.99))
    rule = PredictorRule(RNG, Normal(RNG))
    for i in range(30):
        rule.tell(whole.rows([i]))
        rule.decide(row, best)
    assert [n for n, _, _ in rule.predictor.fitted] == [2, 3, 5, 8, 12, 18, 27]
    assert all(checks == rule.checks(20) and meta is None for _, checks, meta in rule.predictor.fitted)


def test_a_predictor_that_learns_from_other_datasets_needs_none_of_the_task():
    class Transfer(Normal):
        uses = frozenset({"accuracy", "meta"})

    meta = made_up(5, dataset=1)
    assert PredictorRule(RNG, Transfer(RNG), meta=meta, warm_up=0).needs_curves == 0
    assert PredictorRule(RNG, Normal(RNG), meta=meta, warm_up=0).needs_curves == 2
    assert PredictorRule(RNG, Transfer(RNG), meta=meta.rows([]), warm_up=0).needs_curves == 2
    transfer = Transfer(RNG)
    transfer.fit(meta.rows([]), [2], meta)
    assert transfer.fitted == [(0, (2,), 5)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"delta": 1.0}, "delta"), ({"delta": -0.1}, "delta"), ({"warm_up": -1}, "warm_up"), ({"every": 0}, "every")],
)
def test_a_rule_refuses(wrong, message):
    with pytest.raises(ValueError, match=message):
        PredictorRule(RNG, LastValue(RNG), **wrong)


def test_ids_of_predictors_take_the_parameters_of_the_rule():
    rule = stopping_spec("tse(delta=0.2, warm_up=3, form='last')").make(RNG)
    assert isinstance(rule, StoppingRule)
    assert (rule.delta, rule.needs_curves, rule.predictor.form) == (0.2, 3, "last")
    assert rule.uses == frozenset({"train_loss"})
