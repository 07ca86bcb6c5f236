"""Rules and schedules without a model: median, random, i-Epoch, successive halving, Hyperband, ASHA, PASHA."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nasharness.harness.predictor_testing import ListTrainer, made_up, search
from nasharness.harness.registry import stopping_spec
from nasharness.predictors.base import Curves
from nasharness.predictors.hyperband import Hyperband
from nasharness.predictors.pasha import criss_crossing, ranked_differently
from nasharness.predictors.successive_halving import best_first, rungs

NAN = np.nan


def curves(accuracy, max_epochs=None):
    accuracy = np.array(accuracy, dtype=np.float64)
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


def straight(finals, epochs):
    """Curves that rise in a straight line to these values: they rank alike at every epoch."""
    return curves(np.outer(finals, np.arange(1, epochs + 1) / epochs))


def make(name, seed=0):
    return stopping_spec(name).make(np.random.default_rng(seed))


def told(name, whole):
    rule = make(name)
    for i in range(len(whole)):
        rule.tell(whole.rows([i]))
    return rule


def plan(name, whole):
    trainer = ListTrainer(whole)
    make(name).search(trainer)
    return trainer.log


def reached(log):
    """Architecture -> epochs that it was trained in all."""
    found = {}
    for which, epochs in log:
        found[which] = max(found.get(which, 0), epochs)
    return found


@pytest.fixture(scope="module")
def spiking(shared_data):
    """200 real curves of 100 epochs."""
    with np.load(shared_data / "spiking201_curves_cifar10.npz") as file:
        chosen = np.random.default_rng(0).permutation(len(file["val_acc"]))[:200]
        return curves(file["val_acc"][chosen] / 1e4)


# ------------------------------------------------------------------------------------------------------------ median rule


def test_median_rule_by_hand():
    """Running averages after 2 epochs are 0.25, 0.375 and 0.5: the median is 0.375, and the best value so far counts."""
    rule = told("median_rule(completed=3)", curves([[0.0, 0.5, 0.9], [0.25, 0.5, 0.8], [0.5, 0.5, 0.7]]))
    best = curves([[0.0, 0.5, 0.9]])
    for row, stop in (([0.37, 0.1], True), ([0.375, 0.1], False), ([0.1, 0.38], False), ([0.0, 0.0], True)):
        assert rule.decide(curves([row], 3), best).stop is stop, row
    assert np.isnan(rule.decide(curves([[0.0, 0.0]], 3), best).p_better)
    # After one epoch the median is 0.25.
    assert rule.decide(curves([[0.24]], 3), best).stop
    assert not rule.decide(curves([[0.25]], 3), best).stop


def test_median_rule_counts_completed_trainings_only():
    best, row = curves([[0.1, 0.2, 0.9]]), curves([[0.0]], 3)
    rule = make("median_rule(completed=2)")
    for known in (best, best.observed(2), curves([[0.5, NAN, NAN]]), curves([[NAN, 0.5, 0.5]])):
        rule.tell(known)
        assert not rule.decide(row, best).stop
    rule.tell(best)
    assert rule.decide(row, best).stop
    assert make("median_rule").needs_curves == 5


def test_median_rule_on_straight_curves():
    """They rank alike at every epoch, so what is stopped is what ends below the median of the completed, at the first check."""
    whole = straight(np.random.default_rng(0).uniform(0, 1, 300), 16)  # a power of two: no rounding
    completed, expected = [], []
    for final in whole.final:
        stop = len(completed) >= 5 and final < np.median(completed)
        expected.append((1 if stop else 16, stop))
        completed += [] if stop else [final]
    assert [(epochs, stop) for epochs, _, stop in search(make("median_rule"), whole)] == expected


# ------------------------------------------------------------------------------------------------------------ random stop


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_random_stop_ends_the_share(share):
    """Of 500 trainings that never reach the incumbent; three standard deviations."""
    rule, best, row = make(f"random_stop(share={share})"), curves(np.ones((1, 20))), curves(np.zeros((1, 20)))
    n = 500
    stopped = sum(any(rule.decide(row.observed(m), best).stop for m in rule.checks(20)) for _ in range(n))
    assert stopped / n == pytest.approx(share, abs=3 * np.sqrt(share * (1 - share) / n) + 1e-9)


def test_random_stop_looks_at_nothing():
    best, rng = curves(np.ones((1, 20))), np.random.default_rng(1)
    one = [make("random_stop", s).decide(curves(np.zeros((1, 20))).observed(7), best).stop for s in range(50)]
    other = [
        make("random_stop", s).decide(curves(rng.random((1, 20)) * 0.99).observed(7), best).stop for s in range(50)
    ]
    assert one == other
    assert len(set(one)) == 2


# -------------------------------------------------------------------------------------------- i-Epoch and successive halving


def test_best_first():
    assert best_first([7, 8, 9, 5], [0.1, NAN, 0.3, 0.3]) == [9, 5, 7, 8]
    assert best_first([], []) == []


@pytest.mark.parametrize(
    ("r0", "eta", "epochs", "expected"),
    [(1, 3, 100, (1, 3, 9, 27, 81)), (1, 3, 81, (1, 3, 9, 27)), (2, 4, 40, (2, 8, 32)), (5, 2, 5, ()), (1, 2, 1, ())],
)
def test_rungs(r0, eta, epochs, expected):
    assert rungs(r0, eta, epochs) == expected


def test_i_epoch_by_hand():
    whole = curves([[0.1, 0.2, 0.9], [0.3, 0.1, 0.4], [NAN, NAN, NAN], [0.3, 0.3, 0.3]])
    assert plan("i_epoch", whole) == [(0, 1), (1, 1), (2, 1), (3, 1), (1, 3)]
    assert plan("i_epoch(i=2, k=2)", whole)[4:] == [(3, 3), (0, 3)]
    assert plan("i_epoch(i=3)", whole) == plan("i_epoch(i=99)", whole) == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_i_epoch_costs_what_it_says():
    whole = made_up(50)
    for i, k in ((1, 1), (5, 3), (10, 60)):
        done = reached(plan(f"i_epoch(i={i}, k={k})", whole))
        k = min(k, 50)
        assert sum(done.values()) == 50 * i + k * (20 - i)
        full = [which for which, epochs in done.items() if epochs == 20]
        assert sorted(full) == sorted(np.argsort(-whole.accuracy[:, i - 1], kind="stable")[:k])


def test_if_the_best_diverges_the_next_is_trained():
    whole = curves([[0.5, NAN, NAN], [0.4, NAN, NAN], [0.3, 0.4, 0.5], [0.2, 0.3, 0.4], [NAN, NAN, NAN]])
    assert plan("i_epoch", whole)[5:] == [(0, 3), (1, 3), (2, 3)]
    assert plan("successive_halving(eta=5)", whole)[5:] == [(0, 3), (1, 3), (2, 3)]
    hopeless = curves(np.full((4, 3), NAN))
    assert plan("i_epoch", hopeless)[4:] == [(0, 3)]
    assert plan("successive_halving(eta=5)", hopeless)[4:] == [(0, 3)]


def test_successive_halving_by_hand():
    """Nine straight curves, eta = 3: the best three go on to epoch 3, the best one to the end at 9."""
    finals = [0.1, 0.9, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.5]
    log = plan("successive_halving", straight(finals, 9))
    assert log == [*((i, 1) for i in range(9)), (1, 3), (5, 3), (3, 3), (1, 9)]


@pytest.mark.parametrize(("n", "eta", "r0"), [(200, 3, 1), (200, 4, 2), (7, 2, 1), (1, 3, 1)])
def test_successive_halving_keeps_one_in_eta(n, eta, r0):
    whole = made_up(n, 100)
    log = plan(f"successive_halving(eta={eta}, r0={r0})", whole)
    counts = Counter(epochs for _, epochs in log)
    expected, epochs = n, r0
    while epochs < 100:
        assert counts[epochs] == expected
        expected, epochs = max(1, expected // eta), epochs * eta
    assert counts[100] == expected
    assert len(log) == sum(counts.values())


def test_curves_that_never_cross_are_searched_without_regret():
    whole = straight(np.random.default_rng(3).uniform(0, 1, 90), 30)
    for name in ("i_epoch", "successive_halving", "hyperband"):
        full = [which for which, epochs in plan(name, whole) if epochs == 30]
        assert int(np.argmax(whole.final)) in full, name
    for name in ("asha", "pasha", "median_rule"):
        log = search(make(name), whole)
        assert not log[int(np.argmax(whole.final))][2], name


# --------------------------------------------------------------------------------------------------------------- Hyperband


def test_brackets_of_200_epochs():
    """The brackets that the formulas of the paper give for R = 200, eta = 3, and their costs with and without resuming."""
    assert Hyperband(np.random.default_rng(0)).brackets(200) == [
        (81, (2, 7, 22, 67, 200)),
        (34, (7, 22, 67, 200)),
        (15, (22, 67, 200)),
        (8, (67, 200)),
        (5, (200,)),
    ]
    log = plan("hyperband", made_up(143, 200))
    per_rung = [81, 27, 9, 3, 1, 34, 11, 3, 1, 15, 5, 1, 8, 2, 5]
    epochs = [2, 7, 22, 67, 200, 7, 22, 67, 200, 22, 67, 200, 67, 200, 200]
    assert [m for _, m in log] == [m for n, m in zip(per_rung, epochs, strict=True) for _ in range(n)]
    assert sum(reached(log).values()) == 3861
    assert sum(m for _, m in log) == 4632


@pytest.mark.parametrize(
    ("epochs", "eta", "expected"), [(81, 3, 5), (80, 3, 4), (243, 3, 6), (1, 3, 1), (2, 3, 1), (64, 2, 7)]
)
def test_number_of_brackets(epochs, eta, expected):
    """floor(log_eta R) + 1, exactly where R is a power of eta."""
    found = Hyperband(np.random.default_rng(0), eta=eta).brackets(epochs)
    assert len(found) == expected
    assert all(rungs_[-1] == epochs and min(rungs_) >= 1 for _, rungs_ in found)
    assert all(len(set(rungs_)) == len(rungs_) for _, rungs_ in found)


def test_hyperband_takes_the_list_in_its_order_until_it_is_used_up():
    """Nine epochs: brackets of 9, 5 and 3. Three of 20 are left for a second pass: one of them is trained in full."""
    assert Hyperband(np.random.default_rng(0)).brackets(9) == [(9, (1, 3, 9)), (5, (3, 9)), (3, (9,))]
    log = plan("hyperband", made_up(20, 9))
    assert [epochs for which, epochs in log if which >= 17] == [1, 1, 1, 3, 9]
    first_seen = list(dict.fromkeys(which for which, _ in log))
    assert first_seen == list(range(20))
    full = [which for which, epochs in log if epochs == 9]
    assert [sum(low <= which < high for which in full) for low, high in ((0, 9), (9, 14), (14, 17), (17, 20))] == [
        1,
        1,
        3,
        1,
    ]


def test_hyperband_with_a_larger_first_rung():
    assert Hyperband(np.random.default_rng(0), r0=5).brackets(100) == [(9, (11, 33, 100)), (5, (33, 100)), (3, (100,))]


@pytest.mark.parametrize("name", ["successive_halving", "hyperband", "asha", "pasha"])
@pytest.mark.parametrize("wrong", [{"eta": 1}, {"eta": 2.5}, {"r0": 0}, {"r0": 1.5}])
def test_rungs_that_cannot_be(name, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        stopping_spec(name).factory(np.random.default_rng(0), **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        "i_epoch(i=0)",
        "i_epoch(k=0)",
        "median_rule(completed=0)",
        "random_stop(share=1.1)",
        "random_stop(share=-0.1)",
        "pasha(percentile=101)",
        "median_rule(every=0)",
    ],
)
def test_what_rules_refuse(wrong):
    with pytest.raises(ValueError, match=wrong.partition("(")[2].partition("=")[0]):
        make(wrong)


# -------------------------------------------------------------------------------------------------------------------- ASHA


def test_asha_by_hand():
    """0.1 ... 0.8 were seen at epoch 1. A ninth training goes on if it is in the best three of nine, or equal to the third."""
    rule = told("asha", straight(np.arange(1, 9) / 10 * 9, 9).observed(1))
    best = curves(np.full((1, 9), 9.9))
    assert rule.checks(9) == (1, 3)
    for value, stop in ((0.05, True), (0.55, True), (0.6, False), (0.65, False), (0.95, False)):
        assert rule.decide(curves([[value]], 9), best).stop is stop, value
    # Nothing was seen at epoch 3 yet: the first goes on.
    assert not rule.decide(curves([[0.01, 0.01, 0.01]], 9), best).stop


def test_asha_with_few_trainings_keeps_the_best():
    rule, best = told("asha(eta=4)", curves([[0.5]], 9)), curves(np.full((1, 9), 0.9))
    for value, stop in ((0.4, True), (0.5, False), (0.6, False)):
        assert rule.decide(curves([[value]], 9), best).stop is stop


def test_asha_is_successive_halving_in_the_long_run():
    """Of many straight curves in random order about one in three passes each rung: one in 27 ends in full at 27 epochs."""
    log = search(make("asha"), straight(np.random.default_rng(1).uniform(0, 1, 3000), 27))
    ended = Counter(epochs for epochs, _, _ in log)
    assert ended[1] / 3000 == pytest.approx(2 / 3, abs=0.03)
    assert ended[3] / (ended[3] + ended[9] + ended[27]) == pytest.approx(2 / 3, abs=0.05)
    assert ended[27] / 3000 == pytest.approx(1 / 27, abs=0.015)


def test_diverged_trainings_count_as_the_worst():
    whole = curves([[NAN, NAN, NAN]] * 6 + [[0.1, 0.2, 0.3]] * 1)
    best = curves([[0.2, 0.3, 0.9]])
    for name in ("asha", "pasha"):
        rule = told(name, whole)
        assert not rule.decide(curves([[0.05]], 3), best).stop, name  # second of eight
        assert rule.decide(curves([[NAN]], 3), best).stop, name


def test_decisions_are_repeatable():
    """Asking does not count: only trainings that are over are seen at a rung."""
    for name in ("asha", "pasha", "median_rule"):
        rule = told(name, made_up(20))
        best, row = replace(made_up(1), accuracy=np.ones((1, 20))), made_up(1, seed=4)
        for m in rule.checks(20):
            assert len({rule.decide(row.observed(m), best).stop for _ in range(4)}) == 1


# ------------------------------------------------------------------------------------------------------------------- PASHA


def test_criss_crossing_by_hand():
    """The first two cross and cross back, 0.02 apart at the end; the third lies above both; the fourth crosses the third once."""
    whole = np.array([[0.10, 0.30, 0.30], [0.20, 0.20, 0.32], [0.50, 0.50, 0.50], [0.40, 0.40, 0.60]])
    assert criss_crossing(whole) == pytest.approx([0.02])
    assert len(criss_crossing(whole[:1])) == 0
    assert len(criss_crossing(whole[1:])) == 0
    noisy = np.random.default_rng(0).normal(0.5, 0.01, (12, 40))  # nothing but noise: every pair
    assert len(criss_crossing(noisy)) == 12 * 11 / 2


@pytest.mark.parametrize(
    ("lower", "higher", "eps", "expected"),
    [
        ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], 0.0, False),
        ([0.1, 0.2, 0.3], [0.4, 0.6, 0.5], 0.0, True),
        ([0.1, 0.29, 0.3], [0.4, 0.6, 0.5], 0.02, False),  # only neighbours within eps changed places
        ([0.1, 0.29, 0.3], [0.6, 0.4, 0.5], 0.02, True),
        ([0.2, 0.2], [0.1, 0.9], 0.0, False),  # equal ones have no order
        ([0.3], [0.1], 0.0, False),
    ],
)
def test_ranked_differently(lower, higher, eps, expected):
    assert ranked_differently(np.array(lower), np.array(higher), eps) is expected


def test_pasha_opens_no_rung_while_rankings_agree():
    """Straight curves: epochs 1 and 3 are all it needs, and only the best so far at epoch 3 is trained in full."""
    whole = straight(np.random.default_rng(2).uniform(0, 1, 300), 81)
    rule = make("pasha")
    log = search(rule, whole)
    assert (rule.open, rule.eps) == (2, 0.0)
    assert {epochs for epochs, _, _ in log} == {1, 3, 81}
    full = [i for i, (epochs, _, _) in enumerate(log) if epochs == 81]
    records = [i for i in range(300) if whole.final[i] == whole.final[: i + 1].max()]
    assert full == records


def test_pasha_opens_a_rung_when_rankings_change():
    """Two trainings that change places between epochs 1 and 3 open epoch 9."""
    rule = make("pasha")
    first, second = np.linspace(0.3, 0.5, 27), np.linspace(0.2, 0.9, 27)
    second[2] = first[2] + 0.1
    whole = curves([first, second])
    rule.tell(whole.rows([0]))
    assert rule.open == 2
    rule.tell(whole.rows([1]).observed(3))
    assert rule.open == 3
    # Epoch 9 has seen one training, the first: there a training now goes on if it is better than that.
    best = curves(np.full((1, 27), 0.99))
    for value, stop in ((first[8] + 0.01, False), (first[8], True), (first[8] - 0.01, True)):
        assert rule.decide(curves([[*first[:8], value]], 27), best).stop is stop


def test_pasha_with_all_rungs_open_is_asha():
    pasha, asha = make("pasha"), make("asha")
    pasha.open = 99
    whole = made_up(150, 81)
    assert repr(search(pasha, whole)) == repr(search(asha, whole))


def test_pasha_takes_criss_crossing_for_noise():
    """Equal trainings with noise of 0.01: eps is about the size of their differences."""
    rng = np.random.default_rng(4)
    whole = curves(np.clip(np.linspace(0.2, 0.8, 243) + rng.normal(0, 0.01, (300, 243)), 0, 1))
    with_eps = make("pasha(r0=3)")
    search(with_eps, whole)
    assert 0.005 < with_eps.eps < 0.06


# ------------------------------------------------------------------------------------------------------------- real curves


@pytest.mark.parametrize(
    ("name", "epochs", "regret", "full"),
    [
        ("median_rule", 19255, 0.0, 189),
        ("random_stop", 14555, 0.0, 108),
        ("asha", 814, 0.0, 2),
        ("pasha", 887, 0.0, 3),
        ("i_epoch", 299, 0.92, 1),
        ("i_epoch(i=5, k=3)", 1285, 0.35, 3),
        ("successive_halving", 717, 0.0, 1),
        ("hyperband", 2211, 0.0, 11),
    ],
)
def test_search_among_real_curves(spiking, name, epochs, regret, full):
    """Golden: epochs trained (with resuming), regret in points and trainings in full, among 200 spiking networks."""
    if "i_epoch" in name or name in ("successive_halving", "hyperband"):
        lengths = reached(plan(name, spiking))
    else:
        lengths = {i: m for i, (m, _, _) in enumerate(search(make(name, 1), spiking))}
    done = [i for i, m in lengths.items() if m == 100]
    found = (sum(lengths.values()), round(100 * float(spiking.final.max() - spiking.final[done].max()), 2), len(done))
    assert found == (epochs, regret, full)
