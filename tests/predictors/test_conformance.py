"""Every learning-curve method of the registry keeps the conformance suite, and the suite catches what it is there for.

Each mutant breaks one rule, and its check says so.
"""

import importlib.util
import random

import numpy as np
import pytest

from nasharness import CheckError, check
from nasharness.harness import predictor_testing, testing
from nasharness.harness.predictor_testing import (
    PREDICTOR_CHECKS,
    RULE_CHECKS,
    SCHEDULE_CHECKS,
    ListTrainer,
    made_up,
    search,
    stopping_checks,
)
from nasharness.harness.registry import entry_points, stopping_spec
from nasharness.harness.testing import run_checks
from nasharness.predictors.base import (
    GO_ON,
    CurvesError,
    Decision,
    Prediction,
    Predictor,
    Schedule,
    StoppingRule,
    must_go_on,
)
from nasharness.predictors.i_epoch import IEpoch
from nasharness.predictors.last_value import LastValue
from nasharness.predictors.median_rule import MedianRule

# Small settings of what takes long to fit; the checks are on behaviour, not on quality.
SMALL = {
    "nu_svr": "nu_svr(draws=2)",
    "lcranknet": "lcranknet(steps=5)",
    "power_law": "power_law(steps=5)",
    "lc_net": "lc_net(burn_in=10, steps=10, keep_every=5)",
}
SLOW = {"nu_svr", "parametric", "lcranknet", "power_law", "lc_net", "lc_pfn"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in entry_points("predictors")],
)
def test_registered(name):
    module = entry_points("predictors")[name].module
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there yet")
    given = stopping_spec(SMALL.get(name, name))
    for each in stopping_checks(given):
        each(given)


@pytest.mark.parametrize(
    "given", ["tse@last", "tse@ema", "tse(form='last', last=3)", "asha(eta=2, r0=2)", "pasha(eta=2)"]
)
def test_other_settings(given):
    for each in stopping_checks(stopping_spec(given)):
        each(stopping_spec(given))


def test_nothing_is_registered_twice():
    """No two of the baselines say the same of ordinary trainings."""
    names = ["last_value", "best_so_far", "mean_of_curve", "tse", "tse@last"]
    said = {repr(predictor_testing._all_predictions(stopping_spec(name))) for name in names}
    assert len(said) == len(names)


# --------------------------------------------------------------------------------------------------------------- good ones


class Good(Predictor):
    """Straight line from the first to the last observed epoch, with a spread that is learned and a random weight."""

    presets = {"narrow": {"scale": 0.5}}
    needs_curves = 3

    def __init__(self, rng, *, scale=1.0):
        super().__init__(rng)
        self.scale = scale
        self.weight = float(rng.random()) * 0.01
        self.std = 0.1

    def learn(self, curves, checks, meta):
        y = curves.accuracy[~np.isnan(curves.accuracy).any(axis=1)]
        self.std = 0.01 + float(y[:, -1].std()) + self.weight if len(y) else 0.1

    def predict(self, observed):
        y = observed.accuracy
        return Prediction.of_normal(y[:, -1] + (y[:, -1] - y[:, 0]) * 0.1, self.scale * self.std)


class GoodRule(StoppingRule):
    """Stops what is below a share of the incumbent that is drawn."""

    def __init__(self, rng, *, share=0.5, every=0.2):
        super().__init__(rng, every=every)
        self.share = share * rng.uniform(0.8, 1.0)
        self.told = 0

    def decide(self, observed, best):
        decision = must_go_on(observed, best)
        if decision is not None:
            return decision
        m = observed.epochs
        return Decision(bool(observed.accuracy[0, -1] < self.share * best.accuracy[0, m - 1]))

    def tell(self, finished):
        self.told += 1


class GoodSchedule(Schedule):
    """The best of a few that are drawn after half of the training."""

    def __init__(self, rng, *, few=20):
        super().__init__(rng)
        self.few = few

    def search(self, trainer):
        half = max(1, trainer.max_epochs // 2)
        chosen = [int(i) for i in self.rng.permutation(trainer.n)[: self.few]]
        values = [trainer.train(i, half).accuracy[0, -1] for i in chosen]
        trainer.train(chosen[int(np.argmax(np.nan_to_num(values, nan=-1)))], trainer.max_epochs)


@pytest.mark.parametrize("good", [Good, GoodRule, GoodSchedule])
def test_good_ones_pass(good):
    results = check(good)
    assert len(results) == len(stopping_checks(stopping_spec(good)))


# ----------------------------------------------------------------------------------------------------- mutants: for all


class RngSecond(GoodSchedule):
    def __init__(self, few=20, rng=None):
        super().__init__(rng, few=few)


class LosesRng(GoodSchedule):
    def __init__(self, rng):
        super().__init__(np.random.default_rng(0))


class BadPreset(GoodRule):
    presets = {"big": {"size": 3}}


class UsesWeights(Good):
    uses = frozenset({"weights"})


class BadDelta(Good):
    delta = 1.5


class GlobalChance(Good):
    def predict(self, observed):
        return Prediction.of_normal(observed.accuracy[:, -1], 0.1 + 0.01 * self.noise)

    def learn(self, curves, checks, meta):
        self.noise = random.random()


class GlobalChanceRule(GoodRule):
    def tell(self, finished):
        np.random.random()  # noqa: NPY002  result not used, but the state moves


class ErrorHandling(Good):
    def learn(self, curves, checks, meta):
        np.seterr(over="ignore")


class OnTheClass(Good):
    seen = 0

    def learn(self, curves, checks, meta):
        type(self).seen += 1
        self.std = 0.1 + 0.01 * self.seen


class OnTheClassOfSchedule(GoodSchedule):
    calls = []

    def search(self, trainer):
        self.calls.append(1)
        super().search(trainer)
        trainer.train(len(self.calls) % trainer.n, 1)


# ---------------------------------------------------------------------------------------------------- mutants: predictors


class WrongShape(Good):
    def predict(self, observed):
        return Prediction.of_normal(observed.accuracy, 0.1)


class NegativeSpread(Good):
    def predict(self, observed):
        return Prediction.of_normal(observed.accuracy[:, -1], -0.1)


class ReturnsScores(Good):
    def predict(self, observed):
        return super().predict(observed) if len(observed) > 1 else observed.accuracy[:, -1]


class SaysNothing(Good):
    def predict(self, observed):
        return Prediction.of_score(observed.accuracy[:, -1], ok=np.zeros(len(observed), dtype=bool))


class LowerIsBetter(LastValue):
    def predict(self, observed):
        return Prediction.of_score(-observed.accuracy[:, -1])


class LooksAhead(LastValue):
    def predict(self, observed):
        whole = observed.accuracy if observed.accuracy.base is None else observed.accuracy.base
        return Prediction.of_score(whole[:, -1] if whole.shape[0] == len(observed) else observed.accuracy[:, -1])


class Remembers(LastValue):
    def __init__(self, rng):
        super().__init__(rng)
        self.longest = {}

    def predict(self, observed):
        score = []
        for arch, curve in zip(observed.arch, observed.accuracy, strict=True):
            kept = self.longest.setdefault(tuple(arch), curve.copy())
            if len(curve) > len(kept):
                kept = self.longest[tuple(arch)] = curve.copy()
            score.append(kept[-1])
        return Prediction.of_score(score)


class DrawsWhilePredicting(LastValue):
    def predict(self, observed):
        return Prediction.of_score(observed.accuracy[:, -1] + 0.01 * self.rng.random())


class Standardizes(LastValue):
    def predict(self, observed):
        y = observed.accuracy[:, -1]
        return Prediction.of_score(y - np.nanmean(y) if not np.isnan(y).all() else y)


class WritesObserved(LastValue):
    def predict(self, observed):
        observed.accuracy[:, 0] = 0.5
        return Prediction.of_score(observed.accuracy[:, -1])


class WritesTraining(LastValue):
    def learn(self, curves, checks, meta):
        if len(curves):
            curves.accuracy[0, 0] = 0.123


class WritesMeta(LastValue):
    def learn(self, curves, checks, meta):
        if meta is not None:
            meta.seconds[:] = 0


class ProbabilityAboveOne(Good):
    def p_better(self, observed, incumbent):
        return super().p_better(observed, incumbent) * 2


class NoFlatCurves(Good):
    def learn(self, curves, checks, meta):
        assert not len(curves) or np.ptp(curves.accuracy) > 0, "flat"


class ForgetsNaN(LastValue):
    def predict(self, observed):
        return Prediction.of_score(np.nan_to_num(observed.accuracy[:, -1]))


class TakesFewer(Good):
    def fit(self, curves, checks, meta=None):
        if not curves.complete:
            raise CurvesError("not complete")
        self.learn(curves, checks, meta)


class TakesIncomplete(LastValue):
    def fit(self, curves, checks, meta=None):
        pass


class NeedsOthers(Good):
    uses = frozenset({"accuracy", "meta"})

    def learn(self, curves, checks, meta):
        if len(curves) < 3:
            raise CurvesError("not enough")


class SecretLosses(LastValue):
    def predict(self, observed):
        loss = 0 if observed.train_loss is None else observed.train_loss[:, -1]
        return Prediction.of_score(observed.accuracy[:, -1] - 0.1 * loss)


class SecretArchitecture(LastValue):
    def predict(self, observed):
        return Prediction.of_score(observed.accuracy[:, -1] + 0.001 * observed.arch.sum(axis=1))


# --------------------------------------------------------------------------------------------------------- mutants: rules


class ChecksTheEnd(GoodRule):
    def checks(self, max_epochs):
        return tuple(range(1, max_epochs + 1))


class NumpyEpochs(GoodRule):
    def checks(self, max_epochs):
        return tuple(np.arange(1, max_epochs))


class NeedsNoIncumbent(GoodRule):
    def decide(self, observed, best):
        return Decision(bool(observed.accuracy[0, -1] < 0.2)) if best is None else super().decide(observed, best)


class StopsWinners(GoodRule):
    def decide(self, observed, best):
        if best is None or np.isnan(observed.accuracy[0, -1]):
            return super().decide(observed, best)
        return Decision(bool(observed.accuracy[0, -1] < 0.9 * best.accuracy[0, observed.epochs - 1]))


class KeepsDiverged(GoodRule):
    def decide(self, observed, best):
        return GO_ON


class NumpyBool(GoodRule):
    def decide(self, observed, best):
        return Decision(np.bool_(super().decide(observed, best).stop))


class LooksAheadRule(GoodRule):
    def decide(self, observed, best):
        decision = must_go_on(observed, best)
        whole = observed.accuracy if observed.accuracy.base is None else observed.accuracy.base
        return decision or Decision(bool(whole[0, -1] < 0.5))


class WritesBest(GoodRule):
    def decide(self, observed, best):
        if best is not None:
            best.accuracy[0, 0] = 0.0
        return super().decide(observed, best)


class WritesTold(GoodRule):
    def tell(self, finished):
        finished.accuracy[0, 0] = 0.0


class NoNaN(GoodRule):
    def tell(self, finished):
        assert not np.isnan(finished.accuracy[0, 0])


# ----------------------------------------------------------------------------------------------------- mutants: schedules


class NothingInFull(GoodSchedule):
    def search(self, trainer):
        trainer.train(0, max(1, trainer.max_epochs - 1))


class OutOfRange(GoodSchedule):
    def search(self, trainer):
        trainer.train(0, trainer.max_epochs + 1)


class Peeks(GoodSchedule):
    def search(self, trainer):
        trainer.train(int(np.argmax(trainer.curves.accuracy[:, -1])), trainer.max_epochs)


class NaNWins(Schedule):
    def search(self, trainer):
        values = [trainer.train(i, 1).accuracy[0, 0] for i in range(trainer.n)]
        trainer.train(int(np.argsort(values)[-1]), trainer.max_epochs)  # NaN is sorted to the end


@pytest.mark.parametrize(
    ("mutant", "caught_by", "message"),
    [
        (RngSecond, "check_constructor", "must take rng first"),
        (LosesRng, "check_constructor", "self.rng is not the generator"),
        (BadPreset, "check_presets", "preset 'big' cannot be made"),
        (UsesWeights, "check_declarations", "uses must be a frozenset"),
        (BadDelta, "check_declarations", "delta is a probability"),
        (GlobalChance, "check_same_seed_same_answer", "Python's global generator changed|two answers"),
        (GlobalChanceRule, "check_same_seed_same_answer", "NumPy's global generator changed"),
        (ErrorHandling, "check_same_seed_same_answer", "NumPy's error handling changed"),
        (OnTheClass, "check_order_independent", "keep state on the instance"),
        (OnTheClassOfSchedule, "check_order_independent", "keep state on the instance"),
        (OnTheClass, "check_other_process", "in another process"),
        (WrongShape, "check_predictions", "shape"),
        (NegativeSpread, "check_predictions", "is negative"),
        (ReturnsScores, "check_predictions", "must return a Prediction"),
        (SaysNothing, "check_predictions", "nothing could be said"),
        (LowerIsBetter, "check_higher_is_better", "higher scores must be better"),
        (LooksAhead, "check_future", "depends on later ones"),
        (Remembers, "check_stateless", "must not remember"),
        (DrawsWhilePredicting, "check_stateless", "must not draw"),
        (Standardizes, "check_row_by_row", "without statistics over the rows"),
        (WritesObserved, "check_leaves_curves_alone", "observed.accuracy"),
        (WritesTraining, "check_leaves_curves_alone", "curves.accuracy"),
        (WritesMeta, "check_leaves_curves_alone", "meta.seconds"),
        (ProbabilityAboveOne, "check_p_better", r"a probability is in \[0, 1\]"),
        (NoFlatCurves, "check_hard_curves", "fit on flat curves"),
        (ForgetsNaN, "check_hard_curves", "must not be ok"),
        (TakesFewer, "check_hard_curves", "fit took 2 curves where needs_curves is 3"),
        (TakesIncomplete, "check_hard_curves", "not complete"),
        (NeedsOthers, "check_meta", "in place of the task's"),
        (SecretLosses, "check_uses", "another train_loss changed"),
        (SecretArchitecture, "check_uses", "another arch changed"),
        (ChecksTheEnd, "check_check_points", "must ascend within"),
        (NumpyEpochs, "check_check_points", "tuple of ints"),
        (NeedsNoIncumbent, "check_goes_on", "where there is no incumbent"),
        (StopsWinners, "check_goes_on", "already reached"),
        (KeepsDiverged, "check_stops_diverged", "has diverged"),
        (NumpyBool, "check_goes_on", "use bool"),
        (LooksAheadRule, "check_rule_future", "not observed"),
        (WritesBest, "check_rule_leaves_curves_alone", "best.accuracy"),
        (WritesTold, "check_rule_leaves_curves_alone", "observed.accuracy"),
        (NoNaN, "check_survives_searches", "diverges at once"),
        (NothingInFull, "check_trains_in_full", "none was trained in full"),
        (OutOfRange, "check_trains_in_full", "of trainings of"),
        (Peeks, "check_schedule_future", "had not seen"),
        (NaNWins, "check_schedule_hard_curves", "NaN must rank last"),
    ],
)
def test_mutants_are_caught(mutant, caught_by, message):
    given = stopping_spec(mutant)
    by = {each.__name__: each for each in stopping_checks(given)}[caught_by]
    before = np.geterr()
    try:
        with pytest.raises(AssertionError, match=message):
            by(given)
    finally:
        np.seterr(**before)


def test_a_rule_that_stops_on_failed_fits_is_caught():
    """Of a predictor's rule; the rule is made by the spec, so the mutant is a predictor whose rule cannot tell."""

    class TurnsNaNToZero(LastValue):
        def p_better(self, observed, incumbent):
            return np.nan_to_num(super().p_better(observed, incumbent))

    with pytest.raises(AssertionError, match="could say nothing"):
        predictor_testing.check_failed_fit(stopping_spec(TurnsNaNToZero))


def test_every_check_has_a_mutant():
    """Beside what `test_a_rule_that_stops_on_failed_fits_is_caught` covers."""
    marks = next(m for m in test_mutants_are_caught.pytestmark if m.name == "parametrize")
    covered = {caught_by for _, caught_by, _ in marks.args[1]} | {"check_failed_fit"}
    everything = {each.__name__ for each in (*PREDICTOR_CHECKS, *RULE_CHECKS, *SCHEDULE_CHECKS)}
    assert covered == everything


# ------------------------------------------------------------------------------------------------------------ dispatching


def test_ids_go_to_the_checks_of_their_kind():
    """Names that an optimizer has, too, are the optimizer's: the path says which is meant."""
    path = "nasharness.predictors.median_rule:MedianRule"
    for given, expected in (
        ("last_value", PREDICTOR_CHECKS),
        ("tse@ema", PREDICTOR_CHECKS),
        ("tse(form='last')", PREDICTOR_CHECKS),
        (stopping_spec("tse"), PREDICTOR_CHECKS),
        (path, RULE_CHECKS),
        (MedianRule, RULE_CHECKS),
        (f"{path}(completed=3)", RULE_CHECKS),
        ("i_epoch", SCHEDULE_CHECKS),
        (IEpoch, SCHEDULE_CHECKS),
    ):
        assert testing._group(given) == "predictors", given
        assert stopping_checks(stopping_spec(given)) is expected, given
    assert [testing._group(name) for name in ("asha", "naswot", "zzz")] == ["optimizers", "proxies", "optimizers"]
    assert testing._group("nasharness.predictors.asha:ASHA") == "predictors"
    assert [r.name for r in run_checks("i_epoch")] == [each.__name__ for each in SCHEDULE_CHECKS]


def test_check_says_what_fails():
    with pytest.raises(CheckError, match="check_higher_is_better: after"):
        check(LowerIsBetter)


# ------------------------------------------------------------------------------------------------------------- its tools


def test_made_up_curves():
    curves = made_up(50)
    assert curves.complete
    assert 0 <= curves.accuracy.min() <= curves.accuracy.max() <= 1
    assert np.array_equal(made_up(50).accuracy, curves.accuracy)
    assert not np.array_equal(made_up(50, seed=1).accuracy, curves.accuracy)
    assert np.corrcoef(curves.accuracy[:, 4], curves.final)[0, 1] > 0.5


def test_search_by_hand():
    """The first has no incumbent; then what is behind the incumbent at a check point ends there, unless it is ahead once."""
    whole = made_up(3, 4)
    whole.accuracy[:] = [[0.2, 0.3, 0.4, 0.5], [0.1, 0.9, 0.9, 0.9], [0.3, 0.85, 0.9, 0.95]]
    rule = stopping_spec("last_value(delta=0.5)").make(np.random.default_rng(0))
    log = search(rule, whole)
    assert [(epochs, stopped) for epochs, _, stopped in log] == [(4, False), (1, True), (4, False)]
    assert [p for _, p, _ in log][1] == 0.0


def test_list_trainer_goes_on_where_it_was():
    trainer = ListTrainer(made_up(2, 5))
    assert trainer.train(1, 3).epochs == 3
    assert trainer.train(1, 2).epochs == 3
    assert trainer.train(1, 5).complete
    assert trainer.log == [(1, 3), (1, 2), (1, 5)]
