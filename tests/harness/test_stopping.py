"""Judging predictors and stopping rules: splits without leaks, searches that cost what they cost, measures by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr
from typer.testing import CliRunner

import nasharness as nh
from nasharness.benchmarks.convert.nats import convert
from nasharness.benchmarks.nats import open_nats
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.cli import app
from nasharness.harness.curves import curves_of, save_curves
from nasharness.harness.registry import RegistryError
from nasharness.harness.stopping import (
    Foreseen,
    StoppingStudy,
    _first_runs,
    _name_and_curves,
    common_groups,
    compare_stopping,
    decision_rows,
    make_folds,
    rank,
    reliability,
    resampled,
    simulate_rule,
    simulate_schedule,
    take,
    without,
)
from nasharness.predictors.base import (
    GO_ON,
    Curves,
    CurvesError,
    Decision,
    Prediction,
    Predictor,
    PredictorRule,
    Schedule,
    StoppingRule,
    must_go_on,
)
from nasharness.predictors.last_value import LastValue


def rng(seed=0):
    return np.random.default_rng(seed)


def curves(accuracy, seconds=None, **changes):
    """Complete curves of a space of 5 x 5 x 5 x 5 architectures, each in a class of its own."""
    accuracy = np.asarray(accuracy, dtype=np.float64)
    n, length = accuracy.shape
    made = Curves(
        accuracy=accuracy,
        max_epochs=length,
        arch=np.stack([np.arange(n) // 5**k % 5 for k in range(4)], axis=1),
        cardinalities=(5,) * 4,
        seconds=np.broadcast_to(np.arange(1.0, length + 1), (n, length)).copy() if seconds is None else seconds,
        train_loss=None,
        dataset=np.zeros(n, dtype=np.int64),
        group=np.arange(n),
    )
    return replace(made, **changes)


def some_curves(n=300, length=10, seed=0):
    """Curves that rise to different heights, with noise; early epochs say something of the end."""
    source = rng(seed)
    height, speed = source.uniform(0.2, 0.9, (n, 1)), source.uniform(0.2, 1.0, (n, 1))
    rise = height * (1 - np.exp(-speed * np.arange(1, length + 1)))
    accuracy = np.clip(rise + source.normal(0, 0.02, (n, length)), 0, 1)
    return curves(accuracy, np.cumsum(source.uniform(1, 2, (n, 1)) * np.ones((n, length)), axis=1))


# ------------------------------------------------------------------------------------------------- rules of these tests


class Below(StoppingRule):
    """Stops what is below a half of the incumbent's value at the same epoch."""

    def decide(self, observed, best):
        decision = must_go_on(observed, best)
        if decision is not None:
            return decision
        return Decision(bool(observed.accuracy[0, -1] < best.accuracy[0, observed.epochs - 1] / 2))


class Always(StoppingRule):
    def decide(self, observed, best):
        return Decision(True)


class Raises(StoppingRule):
    def decide(self, observed, best):
        raise RuntimeError("out of ideas")


class Vandal(StoppingRule):
    """Goes on always, and spoils all that it is given."""

    def decide(self, observed, best):
        for given_to_it in (observed, *([] if best is None else [best])):
            given_to_it.accuracy[:] = 0.0
        return GO_ON

    def tell(self, finished):
        finished.accuracy[:] = 0.0


class Halves(Schedule):
    """All for one epoch, the better half for two, the best of these in full."""

    def search(self, trainer):
        first = [trainer.train(i, 1).accuracy[0, -1] for i in range(trainer.n)]
        half = sorted(range(trainer.n), key=lambda i: -first[i])[: trainer.n // 2]
        second = {i: trainer.train(i, 2).accuracy[0, -1] for i in half}
        trainer.train(max(half, key=second.get), trainer.max_epochs)


class Nothing(Schedule):
    def search(self, trainer):
        trainer.train(0, 1)


class TooLong(Schedule):
    def search(self, trainer):
        trainer.train(0, trainer.max_epochs + 1)


class Mean(Predictor):
    """A normal distribution about the last value, which fails where that is small."""

    min_epochs = 2
    delta = 0.2

    def predict(self, observed):
        last = observed.accuracy[:, -1]
        return Prediction.of_normal(last + 0.1, 0.05 + 0.1 * last, ok=last > 0.1)


class Hungry(Predictor):
    needs_curves = 50

    def fit(self, known, checks, meta=None):
        self.known = self.meta = None
        super().fit(known, checks, meta)
        self.known, self.meta = known, meta

    def learn(self, known, checks, meta):
        pass

    def predict(self, observed):
        if self.known is None:  # calibrates itself on what it learned from
            return Prediction.of_score(observed.accuracy[:, -1])
        assert not set(observed.group.tolist()) & set(self.known.group.tolist())
        assert self.meta is None or not set(observed.group.tolist()) & set(self.meta.group.tolist())
        return Prediction.of_score(observed.accuracy[:, -1])


# ------------------------------------------------------------------------------------------------------------ simulator

HAND = [  # four epochs; the first is complete, the second is stopped, the third wins, the fourth goes on and loses
    [0.20, 0.40, 0.50, 0.60],
    [0.05, 0.10, 0.70, 0.80],
    [0.30, 0.40, 0.60, 0.70],
    [0.30, 0.35, 0.40, 0.65],
]


def test_a_search_by_hand():
    """The second is below half of the incumbent after one epoch: 4 + 1 + 4 + 4 epochs of 16, 10 points below the best."""
    course = simulate_rule(Below(rng(), every=0.25), curves(HAND))
    assert course.epochs.tolist() == [4, 1, 4, 4]
    assert course.incumbent.tolist() == [-1, 0, 0, 2]
    assert course.selected == 2
    assert course.seconds == course.restart_seconds == 13.0


def test_no_early_termination_trains_everything_and_finds_the_best():
    course = without(curves(HAND))
    assert course.epochs.tolist() == [4] * 4
    assert course.incumbent.tolist() == [-1, 0, 1, 1]
    assert (course.selected, course.seconds) == (1, 16.0)


def test_the_last_value_by_hand():
    """Without calibration a lower value at the same epoch is stopped, an equal one goes on (its probability is 1/2)."""
    c = curves([*HAND, [0.30, 0.40, 0.60, 0.65], [0.30, np.nan, np.nan, np.nan]])
    predictor = LastValue(rng())
    foreseen = Foreseen(predictor, {m: predictor.predict(c.observed(m)) for m in (1, 2, 3)}, c, (1, 2, 3))
    course = foreseen.course(0.05)
    assert course.epochs.tolist() == [4, 1, 4, 2, 4, 2]
    assert course.selected == 2
    assert course.seconds == 17.0
    assert foreseen.p_better(2)[4].tolist() == [0.5, 0.5, 0.5]
    # At 1/2 a tie is stopped: the third ties with the first after two epochs, and so does the fifth.
    assert foreseen.course(0.5).epochs.tolist() == [4, 1, 2, 2, 2, 2]


class Fitted(PredictorRule):
    """With the predictor as it is: the plain loop that `Foreseen` has to equal."""

    def _refit(self, max_epochs):
        pass


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 30),
    length=st.integers(2, 12),
    delta=st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.9]),
    warm_up=st.integers(0, 6),
    kind=st.sampled_from([LastValue, Mean]),
    learned=st.booleans(),
)
def test_foreseen_decides_like_the_rule(seed, n, length, delta, warm_up, kind, learned):
    """Epochs, incumbents, selection and bill are those of `decide` asked again and again, also with failed trainings."""
    source = rng(seed)
    accuracy = np.round(source.uniform(0, 1, (n, length)), 1)  # with ties
    for i in np.flatnonzero(source.random(n) < 0.2):
        accuracy[i, source.integers(length) :] = np.nan
    accuracy[source.integers(n)] = source.uniform(0, 1, length)  # one that can be selected
    c = curves(accuracy, np.cumsum(source.uniform(1, 2, (n, length)), axis=1))
    predictor = kind(rng())
    rule = Fitted(rng(), predictor, delta=delta, warm_up=warm_up, every=0.3)
    checks = rule.checks(length)
    if learned:
        predictor.fit(some_curves(20, length, seed), checks)
    plain = simulate_rule(rule, c)
    predictions = {m: predictor.predict(c.observed(m)) for m in checks if m >= predictor.min_epochs}
    quick = Foreseen(predictor, predictions, c, checks, warm_up).course(delta)
    assert quick.epochs.tolist() == plain.epochs.tolist()
    assert quick.incumbent.tolist() == plain.incumbent.tolist()
    assert quick.selected == plain.selected
    assert quick.seconds == pytest.approx(plain.seconds)


def test_a_schedule_pays_for_going_on_and_for_starting_anew():
    """4 x 1, then 2 to epoch 2, then 1 to epoch 4: 4 + 2 + 2 epochs going on, 4 + 4 + 4 where each starts anew."""
    course = simulate_schedule(Halves(rng()), curves(HAND))
    assert course.epochs.tolist() == [1, 1, 4, 2]
    assert course.selected == 2
    assert (course.seconds, course.restart_seconds) == (8.0, 12.0)


def test_asking_again_for_what_was_trained_is_free():
    class Again(Schedule):
        def search(self, trainer):
            assert trainer.train(1, 4).epochs == 4
            assert trainer.train(1, 2).epochs == 4

    course = simulate_schedule(Again(rng()), curves(HAND))
    assert (course.seconds, course.restart_seconds) == (4.0, 4.0)


def test_impossible_searches_are_refused():
    with pytest.raises(CurvesError, match="completed no training"):
        simulate_rule(Always(rng()), curves(HAND))
    with pytest.raises(CurvesError, match="completed no training"):
        simulate_schedule(Nothing(rng()), curves(HAND))
    with pytest.raises(CurvesError, match="5 epochs"):
        simulate_schedule(TooLong(rng()), curves(HAND))


def test_rows_of_a_prediction_keep_what_a_subclass_adds():
    from dataclasses import dataclass

    @dataclass(frozen=True, eq=False)
    class More(Prediction):
        masses: np.ndarray
        name: str = "x"

    one = More(*(np.arange(3.0) for _ in range(4)), np.arange(6).reshape(3, 2))
    assert take(one, [2, 0]).masses.tolist() == [[4, 5], [0, 1]]
    assert take(one, [2]).score.tolist() == [2.0]


# ---------------------------------------------------------------------------------------------------------------- splits


def pairs_of(c):
    return {tuple(a) for a in c.arch.tolist()}


def test_folds_leave_architectures_and_their_likes_out():
    """No class is on both sides, and meta loses what is in the fold: by class, and by architecture where it has no classes."""
    task = replace(some_curves(300), group=np.arange(300) // 3)
    seen = some_curves(625, 7, seed=1)
    folds = make_folds(task, [seen], n=20, orderings=12, folds=5, n_train=30, seed=0)
    assert sorted(o for fold in folds for o in fold.orderings) == list(range(12))
    tested = []
    for fold in folds:
        assert not set(fold.train.group) & set(fold.test.group)
        assert not set(fold.meta.group) & set(fold.test.group)
        # Classes of the task are three neighbours; the meta curves do not know that.
        number = {tuple(a): i // 3 for i, a in enumerate(task.arch.tolist())}
        classes = {number[a] for a in pairs_of(fold.test)}
        assert not classes & {number[a] for a in pairs_of(fold.meta) if a in number}
        assert (fold.meta.max_epochs, set(fold.meta.dataset), set(fold.train.dataset)) == (10, {1}, {0})
        assert len(fold.train) == 30
        for rows in fold.orderings.values():
            assert len(set(rows.tolist())) == 20
        tested.append(classes)
    assert not set.intersection(*tested)


def test_what_folds_show_is_what_the_curves_are():
    """Orderings are rows of the task, whatever the order in which they are kept."""
    task = some_curves(100)
    where = {tuple(a): i for i, a in enumerate(task.arch.tolist())}
    for fold in make_folds(task, [], n=10, orderings=5, folds=5, n_train=10, seed=3):
        for part in (fold.test, fold.train):
            index = [where[tuple(a)] for a in part.arch.tolist()]
            assert (part.accuracy == task.accuracy[index]).all()
            assert (part.seconds == task.seconds[index]).all()
        used = np.unique(np.concatenate(list(fold.orderings.values())))
        assert used.tolist() == list(range(len(fold.test)))


def test_folds_that_cannot_be_made():
    task = some_curves(100)
    given = {"n": 10, "orderings": 5, "folds": 5, "n_train": 10, "seed": 0}
    for change, message in (
        ({"n": 30}, "fold of 20"),
        ({"n_train": 81}, "80 curves are left"),
        ({"folds": 101}, "100 classes"),
    ):
        with pytest.raises(CurvesError, match=message):
            make_folds(task, [], **{**given, **change})
    with pytest.raises(CurvesError, match="of a space"):
        make_folds(task, [replace(task, cardinalities=(6, 5, 5, 5))], **given)


def test_common_groups_join_what_any_source_joins():
    """The first source knows that 0 and 1 are one, the second that 1 and 2 are; 3 is alone."""
    one = curves(np.zeros((4, 2)), group=np.array([7, 7, 8, 9]))
    other = replace(curves(np.zeros((4, 2))), group=np.array([1, 5, 5, 7])).rows([3, 2, 1])
    a, b = common_groups([one, other])
    assert len({*a.group[:3].tolist(), *b.group[1:].tolist()}) == 1
    assert a.group[3] == b.group[0] != a.group[0]


def test_resampling_by_hand():
    """From four epochs to two and to eight: the ends stay, what lies between is on the line."""
    c = curves([[0.2, 0.4, 0.8, np.nan], [0.2, 0.4, 0.5, 0.6]])
    two = resampled(c, 2)
    assert np.array_equal(two.accuracy, [[0.4, np.nan], [0.4, 0.6]], equal_nan=True)
    assert two.seconds[0].tolist() == [2.0, 4.0]
    eight = resampled(c, 8)
    assert eight.accuracy[1] == pytest.approx([0.2, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6])
    assert eight.accuracy[0, 5] == 0.8
    assert eight.seconds[0] == pytest.approx(np.arange(1, 9) / 2)
    assert resampled(c, 4) is c


# -------------------------------------------------------------------------------------------------------------- measures


def test_ranking_agrees_with_scipy_and_counts_by_hand():
    source = rng(5)
    final = source.permutation(40) / 40
    score = final + source.normal(0, 0.2, 40)
    row = rank(Prediction.of_normal(score, 0.1), final, "x", 3, 12, 1, 100)
    assert row.spearman == pytest.approx(spearmanr(score, final).statistic)
    assert row.tau == pytest.approx(kendalltau(score, final).statistic)
    assert row.pairwise == pytest.approx((row.tau + 1) / 2)  # without ties
    top = np.argsort(-final)[:2]
    assert row.recall_top == np.isin(top, np.argsort(-score)[:4]).mean()
    best = np.argsort(-final)[:4]
    assert row.spearman_top == pytest.approx(spearmanr(score[best], final[best]).statistic)
    assert row.r2 == pytest.approx(1 - ((score - final) ** 2).sum() / ((final - final.mean()) ** 2).sum())
    assert (row.rule, row.fraction, row.epochs, row.fold, row.n_train) == ("x", 0.25, 3, 1, 100)


def test_ranking_at_the_edges():
    final = np.arange(20) / 20
    perfect = rank(Prediction.of_score(final), final, "x", 1, 2, 0, 0)
    assert (perfect.spearman, perfect.pairwise, perfect.recall_top) == (1.0, 1.0, 1.0)
    assert math.isnan(perfect.r2)
    constant = rank(Prediction.of_score(np.zeros(20)), final, "x", 1, 2, 0, 0)
    assert math.isnan(constant.spearman) and math.isnan(constant.tau)
    assert constant.pairwise == 0.5
    failed = rank(Prediction.of_score(-final, ok=final > 0.7), final, "x", 1, 2, 0, 0)
    assert failed.recall_top == 0.0  # the best is last of the five that are ok, of which two are looked at
    diverged = rank(Prediction.of_score([*final, 5.0]), np.append(final, np.nan), "x", 1, 2, 0, 0)
    assert diverged.spearman == 1.0


def test_pairs_within_the_noise_do_not_count():
    """Of 0, 0.1 and 1 only the last is apart from the others by more than sqrt(2) * 0.1."""
    row = rank(Prediction.of_score([1.0, 0.0, 2.0]), np.array([0.0, 0.1, 1.0]), "x", 1, 2, 0, 0, noise=0.1)
    assert row.pairwise == 1.0
    assert rank(Prediction.of_score([1.0, 0.0, 2.0]), np.array([0.0, 0.1, 1.0]), "x", 1, 2, 0, 0).pairwise == 2 / 3


def test_decisions_by_hand():
    rows = decision_rows("x", np.array([0.1, 0.6, 1.0]), np.array([2, 2, 5]), np.array([False, True, False]))
    assert [(r.epochs, r.n) for r in rows] == [(2, 2), (5, 1)]
    assert rows[0].brier == pytest.approx((0.01 + 0.16) / 2)
    assert rows[0].log_loss == pytest.approx(-(math.log(0.9) + math.log(0.6)) / 2)
    assert (rows[0].p_mean, rows[0].share_better) == (0.35, 0.5)
    assert rows[1].log_loss == pytest.approx(-math.log(1e-6))  # bounded


def test_reliability_of_right_probabilities_is_the_diagonal():
    p = rng(1).random(20_000)
    diagram = reliability("x", p, rng(2).random(20_000) < p)
    assert diagram.count.sum() == 20_000
    assert np.abs(diagram.frequency - diagram.p_mean).max() < 0.04
    assert ((diagram.edges[:-1] <= diagram.p_mean) & (diagram.p_mean <= diagram.edges[1:])).all()
    few = reliability("x", np.array([0.0, 0.05, 1.0]), np.array([False, True, True]))
    assert few.count.tolist() == [2] + [0] * 8 + [1]
    assert (few.frequency[0], few.frequency[9]) == (0.5, 1.0)
    assert np.isnan(few.p_mean[1:9]).all()


# --------------------------------------------------------------------------------------------------------- the comparison

SMALL = {"n": 20, "orderings": 6, "folds": 3, "n_train": 50}


@pytest.fixture(scope="module")
def study():
    rules = ["last_value", Mean, Hungry, Below, Halves, Raises, Always]
    return compare_stopping(rules, some_curves(), **SMALL)


def test_a_study_holds_what_it_says(study):
    assert study.rules == ("none", "last_value", "Mean", "Hungry", "Below", "Halves")
    assert study.curves_words == "300 learning curves of 10 epochs given by the caller"
    searches = study.frame("searches")
    assert searches.groupby("rule").ordering.apply(sorted).map(tuple).nunique() == 1
    assert (searches.regret >= 0).all()
    assert (searches.seconds <= searches.full_seconds + 1e-9).all()
    assert (searches.restart_seconds >= searches.seconds - 1e-9).all()
    none = searches[searches.rule == "none"]
    assert (none.regret == 0).all() and (none.epochs_share == 1).all() and (none.trained_in_full == 20).all()
    assert (none.seconds == none.full_seconds).all()
    # Common random numbers: every rule meets the same orderings.
    assert searches.groupby("ordering")[["full_seconds", "fold"]].nunique().eq(1).all(axis=None)
    paid = searches.groupby("rule").training_seconds.max()
    assert (paid[["last_value", "Hungry"]] > 0).all()
    assert (paid[["none", "Mean", "Below", "Halves"]] == 0).all()  # Mean neither learns nor is calibrated
    assert searches[searches.rule == "Halves"].trained_in_full.eq(1).all()
    assert np.isnan(searches[searches.rule == "Below"].delta).all()
    assert (searches[searches.rule == "Mean"].delta == 0.2).all()


def test_a_rule_that_fails_is_left_out_with_its_reason(study):
    assert study.errors == {
        "Raises": "RuntimeError: out of ideas",
        "Always": "the rule completed no training, so it selects none",
    }
    alone = compare_stopping(Hungry, some_curves(), **{**SMALL, "n_train": 10})
    assert alone.rules == ("none",)
    assert "needs 50 complete curves" in alone.errors["Hungry"]


def test_the_killed(study):
    assert study.killed["none"] == (0.0, 0.0)
    searches = study.frame("searches")
    for label, (rate, lost) in study.killed.items():
        assert lost == (searches[searches.rule == label].regret > 0).mean()
        assert math.isnan(rate) == (label == "Halves")
        assert math.isnan(rate) or 0 <= rate <= 1


def test_ranking_and_decisions_are_of_predictors(study):
    ranking = study.frame("ranking")
    assert set(ranking.rule) == {"last_value", "Mean", "Hungry"}
    assert ranking[ranking.rule == "last_value"].epochs.unique().tolist() == [1, 2, 3, 5]
    assert ranking[ranking.rule == "Mean"].epochs.unique().tolist() == [2, 3, 5]
    assert ranking[ranking.rule == "Mean"].r2.notna().all() and ranking[ranking.rule != "Mean"].r2.isna().all()
    later = ranking[ranking.rule == "last_value"].groupby("epochs").spearman.mean()
    assert later.is_monotonic_increasing and later[5] > 0.8
    assert set(study.reliability) == {"last_value", "Mean", "Hungry"}
    decisions = study.frame("decisions")
    for label, diagram in study.reliability.items():
        assert diagram.count.sum() == decisions[decisions.rule == label].n.sum()
    one, other = (decisions[decisions.rule == label].reset_index() for label in ("last_value", "Hungry"))
    assert (one.n == other.n).all() and (one.share_better == other.share_better).all()  # the same questions


def test_a_sweep_trades_cost_for_regret(study):
    """A larger delta stops more; the own delta is among the searches and not in the sweep."""
    sweeps = study.frame("sweeps")
    assert set(sweeps.rule) == {"last_value", "Mean", "Hungry"}
    mean = sweeps[sweeps.rule == "Mean"].groupby("delta")[["seconds", "regret"]].mean()
    assert mean.index.min() == 0.01 and mean.index.max() == 0.5
    assert mean.seconds.iloc[0] > mean.seconds.iloc[-1]
    assert mean.regret.iloc[0] <= mean.regret.iloc[-1]
    own = study.frame("searches").query("rule == 'Mean'").reset_index(drop=True)
    same = sweeps.query("rule == 'Mean' and delta == 0.2").reset_index(drop=True)
    pd.testing.assert_frame_equal(own.drop(columns="cpu_seconds"), same.drop(columns="cpu_seconds"))
    assert compare_stopping("last_value", some_curves(), **SMALL, sweep=False).sweeps == ()


def test_i_epoch_is_swept_over_i():
    swept = compare_stopping("i_epoch", some_curves(), **SMALL).frame("sweeps")
    assert sorted(swept.delta.unique()) == [1, 2, 3, 5]
    assert set(swept.rule) == {"i_epoch"}
    cost = swept.groupby("delta").epochs_share.mean()
    assert cost.is_monotonic_increasing
    assert cost[2.0] == pytest.approx((20 * 2 + 8) / 200)  # 20 trained for 2 of 10 epochs, one of them for 8 more


def test_what_is_said_with_the_label_holds():
    """`delta`, `every` and `warm_up` of a rule are its own; company changes nothing."""
    c = some_curves()
    searches = compare_stopping(["last_value(delta=0.4)", "last_value"], c, **SMALL).frame().drop(columns="cpu_seconds")
    alone = compare_stopping("last_value(delta=0.4)", c, **SMALL).frame().drop(columns="cpu_seconds")
    pd.testing.assert_frame_equal(
        searches[searches.rule == "last_value(delta=0.4)"].reset_index(drop=True),
        alone[alone.rule == "last_value(delta=0.4)"].reset_index(drop=True),
    )
    warm = compare_stopping("last_value(delta=0.9,warm_up=20)", c, **SMALL).frame()
    assert (warm.trained_in_full == 20).all()
    once = compare_stopping("last_value(every=0.5)", c, **SMALL)
    assert set(once.frame("decisions").epochs) == {5}


def test_without_training_curves_scores_are_compared_as_they_are():
    """The classic rule: stop below the incumbent's value at the same epoch; nothing is charged."""
    rows = compare_stopping("last_value", some_curves(), **{**SMALL, "n_train": 0}).frame()
    assert (rows.training_seconds == 0).all()
    assert rows[rows.rule == "last_value"].epochs_share.mean() < 0.5


def test_nobody_can_spoil_the_curves():
    c = some_curves()
    before = c.accuracy.copy()
    found = compare_stopping([Vandal], c, **SMALL).frame()
    assert (c.accuracy == before).all()
    assert (found[found.rule == "Vandal"].full_seconds.to_numpy() == found[found.rule == "none"].full_seconds).all()


@pytest.mark.slow
def test_processes_change_nothing():
    rules = [
        "last_value",
        "median_rule",
        "random_stop",
        "hyperband",
        "tse",
    ]  # there are no training losses for the last
    one, two = (compare_stopping(rules, some_curves(), **SMALL, jobs=jobs) for jobs in (1, 2))
    for which in ("ranking", "decisions", "searches", "sweeps"):
        frames = (study.frame(which).drop(columns="cpu_seconds", errors="ignore") for study in (one, two))
        pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert one.errors == two.errors
    assert set(one.errors) == {"tse"}


def test_the_seed_decides():
    one, same, other = (
        compare_stopping(Below, some_curves(), **SMALL, seed=seed).frame().full_seconds.tolist() for seed in (1, 1, 2)
    )
    assert one == same != other


def test_progress_and_interruption():
    seen = []
    compare_stopping(Below, some_curves(), **SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 6) for i in range(7)]

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_stopping(Below, some_curves(), **SMALL, progress=interrupt)


def test_curves_that_cannot_be_judged():
    c = some_curves(60)
    few = {"n": 5, "orderings": 2, "folds": 2, "n_train": 5}
    gaps = c.accuracy.copy()
    gaps[:20, 3] = np.nan
    study = compare_stopping(Below, replace(c, accuracy=gaps), **few)
    assert study.curves_words.startswith("40 learning curves") and "less 20 with missing epochs" in study.curves_words
    gaps[:, 3] = np.nan
    with pytest.raises(CurvesError, match="no curve with"):
        compare_stopping(Below, replace(c, accuracy=gaps), **few)
    with pytest.raises(CurvesError, match="not complete"):
        compare_stopping(Below, c.observed(3), **few)
    with pytest.raises(CurvesError, match="several datasets"):
        compare_stopping(Below, replace(c, dataset=np.arange(60) % 2), **few)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"n": 0}, "n must be"), ({"folds": 1}, "folds"), ({"jobs": True}, "jobs"), ({"every": 0.0}, "every")],
)
def test_wrong_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        compare_stopping(Below, some_curves(50), **{**SMALL, **change})


def test_rules_are_named_once():
    with pytest.raises(RegistryError, match="given twice"):
        compare_stopping(["last_value", "last_value"], some_curves(50))
    with pytest.raises(RegistryError, match="no rule"):
        compare_stopping([], some_curves(50))
    with pytest.raises(ValueError, match="unknown table 'x'"):
        compare_stopping(Below, some_curves(60), n=5, orderings=2, folds=2, n_train=5).frame("x")


# ------------------------------------------------------------------------------------------------------------ real curves


def test_a_benchmark_with_several_runs_gives_the_first(tiny_benchmark):
    """Not the mean of three, which no search could have trained; the runs say how far apart two of them are."""
    study = compare_stopping("last_value", tiny_benchmark, n=4, orderings=4, folds=2, n_train=6)
    first = curves_of(tiny_benchmark, np.array(list(tiny_benchmark.space)), seed=0)
    some = study.frame().full_seconds.iloc[0]
    assert some <= first.seconds[:, -1].max() * 4
    finals = np.array(
        [[tiny_benchmark.curve(a, s).val_accuracy[-1] for s in range(3)] for a in tiny_benchmark.space], dtype=float
    )
    assert study.specification["noise"] == pytest.approx(np.sqrt(finals.var(axis=1, ddof=1).mean()))
    assert study.name == "tiny-v1"
    assert np.array_equal(_name_and_curves(tiny_benchmark, 0)[1].accuracy, first.accuracy)


def test_trials_that_go_by_their_seeds_give_the_first(shared_data, tmp_path):
    """In the official files trials have the seeds 777, 888, 999; the first is what a query without chance answers."""
    source = shared_data / "official" / "NATS-tss-v1_0-3ffb9-simple"
    convert(source, tmp_path / "table")
    table = open_nats(tmp_path / "table", "cifar10", id="x", schedule="200")
    archs = np.array([table.table.space.from_index(i) for i in (284, 0, 11)])
    found = _first_runs(table, archs)
    assert (found.arch == archs).all()
    for row, arch in enumerate(archs.tolist()):
        answer = table.query(tuple(arch))
        assert found.accuracy[row] == pytest.approx(answer.curve, nan_ok=True)
        assert found.seconds[row, -1] == pytest.approx(answer.seconds)


def test_files_and_other_datasets(tmp_path):
    """A file is judged like curves in memory, and the rule `Hungry` asserts that it has seen none of what it predicts."""
    save_curves(some_curves(), tmp_path / "task.npz")
    save_curves(some_curves(400, 25, seed=1), tmp_path / "other.npz")
    study = compare_stopping(Hungry, tmp_path / "task.npz", meta=str(tmp_path / "other.npz"), **SMALL)
    assert study.errors == {} and study.name == "task"
    assert study.curves_words == "300 learning curves of 10 epochs of task.npz"
    assert study.specification["meta"] == ["400 learning curves of 25 epochs of other.npz"]


@pytest.fixture(scope="module")
def digits():
    """Every 8th cell of the embedded benchmark."""
    return curves_of(nh.load("digits201"), np.array(list(NASBench201Space()))[::8], seed=0)


def test_golden_values_on_the_embedded_benchmark(digits):
    """Measured once, to notice a change; `none` is summed from the table."""
    study = compare_stopping(["last_value", Below], digits, n=100, orderings=10)
    found = study.frame().groupby("rule")[["regret", "epochs_share"]].mean().round(4)
    assert found.loc["none"].tolist() == [0.0, 1.0]
    assert found.loc["last_value"].tolist() == GOLDEN["last_value"]
    assert found.loc["Below"].tolist() == GOLDEN["Below"]


GOLDEN = {"last_value": [0.075, 0.6195], "Below": [0.325, 0.7387]}


@pytest.fixture(scope="module")
def spiking(shared_data):
    """Real curves of 100 epochs, of every 5th cell of a space."""
    file = np.load(shared_data / "spiking201_curves_cifar10.npz")
    return file["val_acc"][::5].astype(np.float64) / 10_000, file["index"][::5].astype(np.int64)


@pytest.mark.slow
def test_real_curves_of_a_hundred_epochs(spiking):
    """More epochs rank better, and the last value after half of them ranks well."""
    accuracy, number = spiking
    c = curves(accuracy, arch=np.stack([number // 5**k % 5 for k in range(6)], axis=1), cardinalities=(5,) * 6)
    study = compare_stopping(["last_value", "i_epoch"], c, n=100, orderings=10)
    ranking = study.frame("ranking").groupby("epochs").spearman.mean()
    assert ranking.index.tolist() == [1, 5, 10, 15, 20, 25, 30, 50]
    assert ranking[50] > ranking[10] > ranking[1]
    assert ranking[50] > 0.9


# ------------------------------------------------------------------------------------------------------------ the command


class _Summary:
    """In place of the report's."""

    def rows_for_display(self, *, brief):
        return ["rule", "regret"], [["last_value", "0.1"]]

    def verdicts(self):
        return ["Nothing is known."]

    def records(self):
        return [{"rule": "last_value", "regret": math.nan}]


@pytest.fixture
def stop(tmp_path, monkeypatch):
    """Runs `nasharness stop` on curves in a file, without writing a page."""
    save_curves(some_curves(), tmp_path / "mine.npz")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StoppingStudy, "report", lambda self, folder: folder / "index.html")
    monkeypatch.setattr(StoppingStudy, "summary", lambda self: _Summary())
    small = ["--n", "20", "--orderings", "6", "--n-train", "50"]
    return lambda *options: CliRunner().invoke(app, ["stop", *small, *options])


def test_stop_prints_the_table(stop):
    done = stop("--curves", "mine.npz", "--rules", "last_value,median_rule(completed=3)")
    assert done.exit_code == 0, done.output
    assert "300 learning curves of 10 epochs of mine.npz" in " ".join(done.output.split())
    assert done.output.rstrip().endswith("Nothing is known.\nReport: nasharness-results/stopping-mine/index.html")
    assert stop("--curves", "mine.npz", "--rules", "last_value", "--quiet").output == ""


def test_stop_as_json_says_what_failed(stop):
    """tse has no training losses to look at; the other rule is still reported."""
    done = stop("--curves", "mine.npz", "--rules", "last_value,tse", "--json", "--out", "x")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["report"] == "x/index.html"
    assert found["rules"] == [{"rule": "last_value", "regret": None}]
    assert list(found["errors"]) == ["tse"]
    assert "tse failed: " in done.stderr


def test_stop_refuses_what_it_cannot_read(stop):
    for options, message in (
        (("--curves", "mine.npz", "--benchmark", "digits201"), "exclude each other"),
        (("--curves", "mine.csv"), "npz file"),
        (("--curves", "mine.npz", "--rules", "nonsense"), "unknown predictor 'nonsense'"),
        (("--curves", "missing.npz", "--rules", "last_value"), "cannot be read"),
    ):
        assert message in str(stop(*options).exception)
