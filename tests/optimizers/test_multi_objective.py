"""NSGA-II and the reward of MnasNet: traces worked out by hand, slow definitions, corner cases, and what they are for."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness import Budget, RunError, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.harness import metrics
from nasharness.harness.core import Metrics
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.mnasnet import MnasNet
from nasharness.optimizers.nsga2 import NSGA2, crowded_best, crowding_distance, non_dominated_sort

NSGA2_ID = "nasharness.optimizers.nsga2:NSGA2"
MNASNET_ID = "nasharness.optimizers.mnasnet:MnasNet"
NAN, INF = math.nan, math.inf
NONE = np.zeros(0, dtype=np.float32)


class Space(SearchSpace):
    name = "of these cardinalities"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class Islands(Space):
    """Only vectors of equal choices: no two are neighbours, and uniform crossover of two of them leaves the space."""

    def is_valid(self, arch):
        return super().is_valid(arch) and len(set(arch)) == 1


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else size)]
        return drawn[0] if size is None else np.array(drawn)


def tell(optimizer, arch, value, cost):
    status = "failed" if value != value else "complete"
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, status, Metrics({"flops": cost})))


def play(optimizer, answer, trials):
    """Alternate ask and tell; `answer(i, arch)` is accuracy and cost."""
    proposed = []
    for i in range(trials):
        arch = optimizer.ask().arch
        assert optimizer.space.is_valid(arch)
        tell(optimizer, arch, *answer(i, arch))
        proposed.append(arch)
    return proposed


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [NSGA2_ID, MNASNET_ID, f"{MNASNET_ID}@hard"])
def test_conformance(name, check):
    """Both keep every rule of the conformance suite."""
    check(optimizer_spec(name))


# -------------------------------------------------------------------------------------------------------------- NSGA-II


def test_nsga2_on_paper():
    """N = 2 on five choices.

    1. and 2. random: 0.3 -> 1 (accuracy 0.9, cost 5), 0.5 -> 2 (0.5, 1). Neither dominates: parents [1, 2], both at an end.
    3. Tournaments: draws 0.1, 0.9 are members 0 and 1, the first stands higher: 1. Draws 0.8, 0.7 are 1 and 1: 2. 0.5 < 0.9:
       crossover; its coin 0.6 takes the second parent's choice: 2. Mutation: the third (0.6) of 0, 1, 3, 4: 3. (0.7, 3).
    4. Draws 0.6, 0.8: parent 2; 0.95: no crossover. Mutation: the first (0.1) of 0, 1, 3, 4: 0. (0.95, 4).
       Errors and costs: 1 (.1, 5), 2 (.5, 1), 3 (.3, 3), 0 (.05, 4). 0 dominates 1. The front 2, 3, 0 is one too many: 2 and
       0 are its ends, 3 has the finite distance (.5 - .05) / .45 + (4 - 1) / 3 = 2 and dies. Parents [2, 0].
    5. Draws 0.2, 0.3: parent 2, no crossover; 0.6 -> 3, proposed before. Again: 0.7, 0.6: parent 0; the last (0.9) of 1, 2,
       3, 4: 4.
    """
    rng = Script(
        *(0.3, 0.5),
        *(0.1, 0.9, 0.8, 0.7, 0.5, 0.6, 0.0, 0.6),
        *(0.6, 0.8, 0.0, 0.0, 0.95, 0.0, 0.1),
        *(0.2, 0.3, 0.0, 0.0, 0.95, 0.0, 0.6),
        *(0.7, 0.6, 0.0, 0.0, 0.95, 0.0, 0.9),
    )
    answers = [(0.9, 5.0), (0.5, 1.0), (0.7, 3.0), (0.95, 4.0), (0.6, 2.0)]
    assert play(NSGA2(Space(5), rng, population=2), lambda i, arch: answers[i], 5) == [(1,), (2,), (3,), (0,), (4,)]
    assert rng.draws == []


def test_sorting_on_paper():
    """Of (1, 4) (2, 2) (4, 1) (3, 3) (4, 4) the first three are not dominated; (2, 2) dominates (3, 3), that one (4, 4).

    Crowding in the first front: the ends infinite, the middle (4 - 1) / 3 + (4 - 1) / 3 = 2. Best three: the ends, then it.
    """
    costs = np.array([(1, 4), (2, 2), (4, 1), (3, 3), (4, 4)], dtype=float)
    assert list(non_dominated_sort(costs)) == [[0, 1, 2], [3], [4]]
    assert crowding_distance(costs[:3]).tolist() == [INF, 2.0, INF]
    assert crowded_best(costs, 3) == [0, 2, 1]
    assert crowded_best(costs, 2) == [0, 2]
    assert crowded_best(costs, 5) == [0, 2, 1, 3, 4]


def test_crowding_where_costs_are_infinite_or_equal():
    """An unknown cost counts as the largest known; nothing is NaN where all are unknown, or equal."""
    one_unknown = np.array([(0.1, INF), (0.2, 9.0), (0.3, 5.0), (0.5, 1.0)])
    # errors: (.3 - .1) / .4 + (.5 - .2) / .4; costs 9, 9, 5, 1: (9 - 5) / 8 + (9 - 1) / 8
    assert crowding_distance(one_unknown)[1:3] == pytest.approx([0.5 + 0.5, 0.75 + 1.0])
    assert not np.isnan(crowding_distance(np.full((5, 2), INF))).any()
    assert crowding_distance(np.full((4, 2), 0.5)).tolist() == [INF, 0, 0, INF]
    assert crowding_distance(np.array([(0.5, 1.0)])).tolist() == [INF]


POINTS = st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, INF])] * 3), min_size=1, max_size=25)


@given(POINTS)
def test_sorting_is_its_definition(points):
    """Fronts by definition: again and again what nobody that is left dominates, for three objectives, with ties."""

    def dominates(p, q):
        return all(a <= b for a, b in zip(p, q, strict=True)) and p != q

    left, expected = set(range(len(points))), []
    while left:
        expected.append(sorted(i for i in left if not any(dominates(points[j], points[i]) for j in left)))
        left -= set(expected[-1])
    assert list(non_dominated_sort(np.array(points))) == expected


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_what_survives_is_never_dominated_by_what_dies(seed):
    """After many generations the parents hold the whole front of all trials, where it has room."""
    rng = np.random.default_rng(seed)
    search, told = NSGA2(Space(4, 4, 4), rng, population=20), []

    def answer(i, arch):
        told.append((float(rng.integers(5)) / 5, float(rng.integers(5))))
        return told[-1]

    play(search, answer, 60)
    front = {told[i] for i in metrics.pareto_front([c for _, c in told], [a for a, _ in told])}
    kept = {(round(1 - error, 6), cost) for error, cost in search._parent_costs.tolist()}
    assert {(round(a, 6), c) for a, c in front} <= kept


def test_failed_trials_and_unknown_costs_rank_last():
    """Of eight told, the two that failed, whatever they cost, and the worse of unknown cost are not among four parents."""
    search = NSGA2(Space(8), np.random.default_rng(0), population=4)
    answers = [(NAN, 0.0), (0.2, 5.0), (0.9, NAN), (0.8, NAN), (NAN, NAN), (0.5, 6.0), (0.6, 7.0), (0.3, 5.5)]
    play(search, lambda i, arch: answers[i], 8)
    assert np.isfinite(search._parent_costs[:, 0]).all()
    assert 0.2 not in search._parent_costs[:, 0].round(6)  # (0.8, unknown) is dominated by (0.9, unknown)


@pytest.mark.parametrize("value", [NAN, 0.5])
@pytest.mark.parametrize("cost", [NAN, 1.0])
@pytest.mark.parametrize("space", [Space(1), Space(1, 2, 1), Islands(3, 3)], ids=["one", "two", "islands"])
def test_tiny_spaces_are_searched_for_ever(space, value, cost):
    """One architecture, fewer than the population, no neighbours, all failed or equal: architectures are repeated."""
    proposed = play(NSGA2(space, np.random.default_rng(0), population=4), lambda i, arch: (value, cost), 16)
    assert len(set(proposed)) == space.size


@pytest.mark.parametrize("space", [DARTSSpace(), NASBench101Space()], ids=["darts", "nasbench101"])
@pytest.mark.parametrize("factory", [NSGA2, MnasNet])
def test_huge_and_constrained_spaces(space, factory):
    """Every proposal is valid beyond the warm-up, and nothing enumerates the space."""
    search = factory(space, np.random.default_rng(0), population=10)
    play(search, lambda i, arch: (sum(arch) % 97 / 97, 1.0 + sum(arch) % 13), 60)


def test_nsga2_proposes_nothing_twice_while_there_is_more():
    """600 proposals on digits201, three quarters of them from parents: no two alike."""
    trials = run(NSGA2_ID, "digits201", Budget(evaluations=600)).trials
    assert len(np.unique(trials.arch, axis=0)) == 600


@pytest.mark.parametrize(
    ("factory", "parameters", "message"),
    [
        (NSGA2, {"population": 0}, "population must be at least 1"),
        (NSGA2, {"crossover": 1.5}, "probability"),
        (MnasNet, {"target": 0.0}, "positive and finite, in the unit of flops"),
        (MnasNet, {"target": NAN}, "positive and finite"),
        (MnasNet, {"alpha": 0.1}, "alpha must be 0 or less"),
        (MnasNet, {"beta": NAN}, "beta must be 0 or less"),
        (MnasNet, {"population": 0}, "at least 1"),
    ],
)
def test_hyper_parameters_are_checked(factory, parameters, message):
    """What makes no sense is refused by name."""
    with pytest.raises(ValueError, match=message):
        factory(Space(3), np.random.default_rng(0), **parameters)


@pytest.mark.parametrize("name", [NSGA2_ID, MNASNET_ID])
def test_an_unknown_objective_is_refused_by_the_run(name):
    """The message says what there is."""
    with pytest.raises(RunError, match="no metric 'watts'; its metrics are: params, flops"):
        run(f"{name}(objective='watts')", "digits201", Budget(evaluations=3))


# -------------------------------------------------------------------------------------------------------------- MnasNet


def test_mnasnet_reward_on_paper():
    """Equations 2 and 3 with T = 100.

    Soft: accuracy 0.8 at cost 200: 0.8 * 2 ** -0.07 = 0.8 * 0.95264 = 0.76211; at 50: 0.8 * 2 ** 0.07 = 0.83977; twice the
    cost for 5 % more accuracy is an even trade: 1.05 * 0.95264 = 1.0003.
    Hard: at 50 and at 100 the accuracy itself, 0.8; at 200 half of it.
    """

    def reward(search, value, cost):
        return search._reward(Trial((0,), value, 1.0, 1, NONE, metrics=Metrics({"flops": cost})))

    soft = MnasNet(Space(2), np.random.default_rng(0), target=100.0)
    assert reward(soft, 0.8, 100.0) == 0.8
    assert reward(soft, 0.8, 200.0) == pytest.approx(0.76211, abs=1e-5)
    assert reward(soft, 0.8, 50.0) == pytest.approx(0.83977, abs=1e-5)
    assert reward(soft, 0.7 * 1.05, 200.0) == pytest.approx(reward(soft, 0.7, 100.0), rel=5e-4)
    hard = MnasNet(Space(2), np.random.default_rng(0), target=100.0, **MnasNet.presets["hard"])
    assert [reward(hard, 0.8, cost) for cost in (50.0, 100.0, 200.0)] == [0.8, 0.8, 0.4]
    for value, cost in ((NAN, 100.0), (0.8, NAN), (0.8, 0.0), (0.8, -1.0), (0.8, INF)):
        assert math.isnan(reward(soft, value, cost))


def test_mnasnet_tournament_on_paper():
    """P = S = 2 on three choices, hard, no target given.

    Random: 0.1 -> 0 (accuracy 0.9, cost 40), 0.5 -> 1 (0.6, 20): T is the median cost, 30, the rewards are 0.9 * 30 / 40 =
    0.675 and 0.6. The tournament 0.1, 0.9 is between both; 0 wins and is mutated to the second (0.7) of 1, 2: 2 (0.7, 20),
    reward 0.7. Alive [1: 0.6, 2: 0.7]; the tournament 0.2, 0.8 goes to 2, mutated to the first (0.2) of 0, 1: 0.
    """
    rng = Script(0.1, 0.5, 0.1, 0.9, 0.0, 0.7, 0.2, 0.8, 0.0, 0.2)
    search = MnasNet(Space(3), rng, population=2, sample=2, alpha=0.0, beta=-1.0)
    answers = [(0.9, 40.0), (0.6, 20.0), (0.7, 20.0), (0.5, 10.0)]
    assert play(search, lambda i, arch: answers[i], 4) == [(0,), (1,), (2,), (0,)]
    assert search.target == 30.0
    assert rng.draws == []


def test_mnasnet_without_any_known_cost_goes_on():
    """No cost in the first populations: there is no target yet, and it is found as soon as costs are known."""
    search = MnasNet(Space(4, 4), np.random.default_rng(0), population=5, sample=3)
    play(search, lambda i, arch: (0.5, NAN), 23)
    assert search.target is None
    play(search, lambda i, arch: (0.5, 7.0), 10)
    assert search.target == 7.0


def test_the_target_of_a_soft_constraint_is_a_common_factor():
    """With alpha = beta any target gives the same search; with the hard constraint it decides where the search goes."""

    def archs(parameters, accuracy=lambda arch: (sum(arch) * 37 % 101) / 101):
        spec = f"{MNASNET_ID}({parameters})"
        space = load("digits201").space
        search = optimizer_spec(spec).make(space, np.random.default_rng(5))
        return np.array(play(search, lambda i, arch: (accuracy(arch), 1.0 + sum(arch)), 300))

    assert (archs("target=4.0") == archs("target=16.0")).all()
    assert (archs("target=4.0") == archs("")).all()
    for target in (8.0, 16.0):  # costs are 1 to 25; the more the better, but a tenth more costs a tenth of the reward
        late = archs(f"target={target}, alpha=0.0, beta=-1.0", lambda arch: 0.5 + sum(arch) / 50)[200:]
        assert 1 + late.sum(axis=1).mean() == pytest.approx(target, abs=1.5)


# ------------------------------------------------------------------------------------------------------------ real data

GOLDEN = {
    NSGA2_ID: "4ce3cac36e045f59",
    f"{NSGA2_ID}(objective='params', population=20)": "ec055e207ea9287b",
    MNASNET_ID: "6f3bd937e75463d6",
    f"{MNASNET_ID}@hard": "aae06f93d6505649",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_run(name):
    """A run of 260 trials on digits201 is what it was when it was first recorded."""
    assert run(name, "digits201", Budget(evaluations=260), seed=1).fingerprint()[:16] == GOLDEN[name]


def _better(ours, theirs):
    """The two-sample z statistic of the difference of means."""
    return (np.mean(ours) - np.mean(theirs)) / math.sqrt(
        np.var(ours, ddof=1) / len(ours) + np.var(theirs, ddof=1) / len(theirs)
    )


def test_nsga2_covers_more_than_random_search():
    """Hypervolume of validation accuracy and parameters on digits201, 500 evaluations, 100 runs each: z > 3.8, p < 1e-4."""
    benchmark = load("digits201")
    max_cost = float(benchmark.metric("params", list(benchmark.space)).max())

    def volumes(name):
        runs = [run(name, benchmark, Budget(evaluations=500), repetition=r).trials for r in range(100)]
        return [metrics.hypervolume(benchmark.metric("params", t.arch), t.value, max_cost=max_cost) for t in runs]

    ours = volumes(f"{NSGA2_ID}(objective='params', population=20)")
    assert _better(ours, volumes("random_search")) > 3.8


def test_mnasnet_finds_a_higher_reward_than_random_search():
    """Best soft reward with FLOPs on digits201, 300 evaluations, 50 runs each: z > 3.8, p < 1e-4."""
    benchmark = load("digits201")

    def rewards(name):
        runs = [run(name, benchmark, Budget(evaluations=300), repetition=r).trials for r in range(50)]
        return [(t.value * (benchmark.metric("flops", t.arch) / 1e6) ** -0.07).max() for t in runs]

    assert _better(rewards(MNASNET_ID), rewards("random_search")) > 3.8
