"""Strategies that score untrained networks: warm-up, evolution on scores, TE-NAS's pruning, and the filter."""

import hashlib
import itertools
import zlib
from collections import Counter

import numpy as np
import pytest

from nasharness import Optimizer, Proposal, SearchSpace, Trial, run
from nasharness.benchmarks.spaces.nasbench201 import NONE, NASBench201Space
from nasharness.harness.registry import RegistryError, expand, optimizer_spec
from nasharness.harness.testing import CHECKS, MadeUpScorer, _play
from nasharness.optimizers.base import SearchFinished
from nasharness.optimizers.grid_search import GridSearch
from nasharness.optimizers.nsga2 import NSGA2
from nasharness.optimizers.proxy_filter import ProxyFilter
from nasharness.optimizers.random_search import RandomSearch
from nasharness.optimizers.regularized_evolution import RegularizedEvolution
from nasharness.optimizers.te_nas_pruning import TENASPruning
from nasharness.optimizers.zero_cost_evolution import ZeroCostEvolution
from nasharness.optimizers.zero_cost_warmup import ZeroCostWarmup

INF, NAN = float("inf"), float("nan")
NO_CURVE = np.zeros(0, dtype=np.float32)
CLASSES = (ZeroCostWarmup, ZeroCostEvolution, TENASPruning, ProxyFilter)
FAST = [
    "zero_cost_warmup",
    "zero_cost_warmup@evolution",
    "zero_cost_evolution(steps=300)",
    "te_nas_pruning",
    "te_nas_pruning(restarts=5)",
    "proxy_filter(candidates=2)",
]


class Box(SearchSpace):
    name = "box"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class Different(SearchSpace):
    """Three choices that are all different: six of 27 are valid."""

    name = "different"
    cardinalities = (3, 3, 3)

    def is_valid(self, arch):
        return super().is_valid(arch) and len(set(arch)) == 3


class Scores:
    """Scores by a function of the architecture, and a record of what was asked.

    Args:
        places: give places among the candidates of a call instead, as a RankProxy does.
    """

    def __init__(self, function, *, places=False):
        self.function, self.places = function, places
        self.calls = []

    def __call__(self, proxy, archs, *, seed):
        self.calls.append((proxy, list(archs), seed))
        scores = np.array([self.function(arch) for arch in archs], dtype=float)
        return np.argsort(np.argsort(scores, kind="stable")) + 1.0 if self.places else scores

    def mixtures(self, proxy, choices, *, seed):
        self.calls.append((proxy, [[list(left) for left in mixture] for mixture in choices], seed))
        return np.array([self.function(mixture) for mixture in choices], dtype=float)


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else size)]
        return drawn[0] if size is None else np.array(drawn)

    def permutation(self, n):
        order = self.draws.pop(0)
        assert sorted(order) == list(range(n))
        return np.array(order)


def tell(optimizer, arch, value=0.5):
    optimizer.tell(Trial(arch, value, 1.0, 1, NO_CURVE, "failed" if value != value else "complete"))


def play(optimizer, n=1000, value=lambda arch: 0.5):
    archs = []
    for _ in range(n):
        try:
            archs.append(optimizer.ask().arch)
        except SearchFinished:
            break
        tell(optimizer, archs[-1], value(archs[-1]))
    return archs


# -------------------------------------------------------------------------------------------------------- all four


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", FAST)
def test_conformance(name, check):
    """Each keeps every rule of the conformance suite."""
    check(optimizer_spec(name))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "name", ["zero_cost_evolution", "proxy_filter", "proxy_filter(base='bohb', proxy='naswot', candidates=3)"]
)
def test_conformance_of_the_slow_ones(name, check):
    check(optimizer_spec(name))


@pytest.mark.parametrize("factory", CLASSES)
def test_without_a_scorer_it_says_where_to_run(factory):
    """At the first ask, not before: an optimizer is made to be looked at, too."""
    optimizer = factory(Box(3, 3), np.random.default_rng(0))
    for _ in range(2):
        with pytest.raises(ValueError, match="benchmark that has networks and images, such as digits201"):
            optimizer.ask()


@pytest.mark.parametrize("factory", CLASSES)
def test_score_seed(factory):
    """Drawn once per run, so that runs differ in it, or given; every score of a run has the same."""
    seeds = set()
    for seed in range(3):
        scorer = MadeUpScorer(Box(3, 3))
        optimizer = factory(scorer.space, np.random.default_rng(seed), scorer=scorer)
        seeds.add(optimizer.score_seed)
    assert len(seeds) == 3
    scorer = Scores(lambda _: 1.0)
    play(factory(Box(3, 3), np.random.default_rng(0), scorer=scorer, score_seed=7, proxy="naswot"), 5)
    assert {(proxy, seed) for proxy, _, seed in scorer.calls} == {("naswot", 7)}


def test_black_box_strategies_do_not_score():
    """`all-black-box` leaves out what looks at networks, which many benchmarks do not have."""
    names = expand(["all-black-box"])
    assert "regularized_evolution" in names
    assert not {"zero_cost_warmup", "zero_cost_evolution", "te_nas_pruning", "proxy_filter"} & set(names)


@pytest.mark.parametrize(
    ("factory", "parameters", "words"),
    [
        (ZeroCostWarmup, {"pool": 0}, "pool must be at least 1"),
        (ZeroCostWarmup, {"then": "evolution"}, "then is 'random_search' or"),
        (ZeroCostWarmup, {"population": 0}, "at least 1"),
        (ZeroCostEvolution, {"steps": 0}, "at least 1"),
        (ZeroCostEvolution, {"population": 0}, "at least 1"),
        (ZeroCostEvolution, {"mutations": 0}, "at least 1"),
        (TENASPruning, {"restarts": -1}, "at least 0"),
        (ProxyFilter, {"candidates": 0}, "at least 1"),
        (ProxyFilter, {"base": "bohb"}, "only the harness looks up"),
    ],
)
def test_hyper_parameters_are_checked(factory, parameters, words):
    with pytest.raises(ValueError, match=words):
        factory(Box(3, 3), np.random.default_rng(0), **parameters)


GOLDEN = {
    "zero_cost_warmup": "148f5f2610037495",
    "zero_cost_warmup@evolution": "8f8543fe635eb861",
    "zero_cost_evolution(steps=300)": "169449e0212ffefa",
    "te_nas_pruning(restarts=5)": "1c85c5008e804fe6",
    "proxy_filter(candidates=2)": "77cf0d8144150fbc",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_run(name):
    """260 trials with made-up scores and answers are what they were when they were first recorded."""
    proposals = [(p.arch, p.epochs, p.resume) for p in _play(optimizer_spec(name), seed=1)]
    assert hashlib.sha256(repr(proposals).encode()).hexdigest()[:16] == GOLDEN[name]


def test_on_real_networks():
    """On digits201 with params: the proposals of the warm-up stand in the order of their parameters."""
    import nasharness

    benchmark = nasharness.load("digits201")
    found = run("zero_cost_warmup(pool=30, proxy='params')", benchmark, 30)
    params = [
        sum(p.numel() for p in benchmark.network(tuple(a), prune=False).parameters())
        for a in found.trials.arch.tolist()
    ]
    assert params == sorted(params, reverse=True)
    assert len(set(params)) > 5
    assert found.optimizer_seconds > 0


# -------------------------------------------------------------------------------------------------------- warm-up


def test_warmup_on_paper():
    """Four of ten choices are drawn: 0.15 -> 1, 0.95 -> 9, 0.15 -> 1 again, 0.55 -> 5, 0.05 -> 0.

    Scores 1: 3, 9: -inf, 5: 4, 0: 3. Best first, and the first drawn of equal ones: 5, 1, 0, 9. Then 0.55 -> 5, known, and
    0.25 -> 2 are drawn: 2.
    """
    scorer = Scores({(1,): 3, (9,): -INF, (5,): 4, (0,): 3}.get)
    rng = Script(0.15, 0.95, 0.15, 0.55, 0.05, 0.55, 0.25)
    warmup = ZeroCostWarmup(Box(10), rng, pool=4, proxy="p", scorer=scorer, score_seed=6)
    assert play(warmup, 5) == [(5,), (1,), (0,), (9,), (2,)]
    assert scorer.calls == [("p", [(1,), (9,), (5,), (0,)], 6)]
    assert rng.draws == []


def test_warmup_of_a_whole_space():
    """A pool that is not smaller than the space is the space, in random order where scores are equal."""
    orders = set()
    for seed in range(5):
        warmup = ZeroCostWarmup(Box(2, 3), np.random.default_rng(seed), scorer=Scores(lambda arch: arch[0]))
        archs = play(warmup, 6)
        assert sorted(archs) == list(Box(2, 3))
        assert [arch[0] for arch in archs] == [1, 1, 1, 0, 0, 0]
        orders.add(tuple(archs))
        assert play(warmup, 3)  # everything is known: it goes on
    assert len(orders) > 1


def test_warmup_of_evolution():
    """The best P of the pool are the initial population, and what follows are mutations of tournament winners."""
    space, score = NASBench201Space(), Scores(lambda arch: sum(arch) + arch[0] / 10)
    warmup = ZeroCostWarmup(
        space,
        np.random.default_rng(2),
        pool=200,
        then="regularized_evolution",
        population=10,
        sample=5,
        scorer=score,
    )
    archs = play(warmup, 60, value=lambda arch: NAN if arch[1] == 0 else sum(arch) / 30)
    pool = sorted(score.calls[0][1], key=score.function, reverse=True)
    assert [score.function(a) for a in archs[:10]] == [score.function(a) for a in pool[:10]]
    for i, arch in enumerate(archs[10:], start=10):
        assert any(sum(a != b for a, b in zip(arch, old, strict=True)) == 1 for old in archs[i - 10 : i])
    assert len(score.calls) == 1


def test_warmup_of_evolution_by_a_small_pool():
    """Where the pool is smaller than the population, random architectures fill it up."""
    space = Box(9, 9)
    warmup = ZeroCostWarmup(
        space, np.random.default_rng(2), pool=3, then="regularized_evolution", population=20, scorer=Scores(sum)
    )
    archs = play(warmup, 40)
    assert [sum(a) for a in archs[:3]] == sorted((sum(a) for a in archs[:3]), reverse=True)
    assert len(set(archs[3:20])) > 5


# ------------------------------------------------------------------------------------------------ evolution on scores


def test_evolution_on_paper():
    """N = 2, T = 5 on ten choices whose score is the choice, 7 excepted, which cannot be scored.

    Pool: 0.25 -> 2, 0.45 -> 4; the check for places scores the best and the worst alone.
    Step 3: member 0 (0.1) is 2; its mutation 0.0, 0.95 -> the last of the other nine: 9. Alive 2 4 9; the lowest, 2, leaves.
    Step 4: member 1 (0.9) is 9; 0.0, 0.45 -> the fifth of 0 .. 8: 4, known: nothing happens.
    Step 5: member 0 (0.2) is 4; 0.0, 0.7 -> the seventh of 0 1 2 3 5 6 7 8 9: 7, -inf; it leaves at once.
    Best first: 9, 4, 2, 7.
    """
    scorer = Scores(lambda arch: -INF if arch[0] == 7 else arch[0])
    rng = Script(0.25, 0.45, 0.1, 0.0, 0.95, 0.9, 0.0, 0.45, 0.2, 0.0, 0.7)
    evolution = ZeroCostEvolution(Box(10), rng, population=2, steps=5, scorer=scorer, score_seed=0)
    assert play(evolution) == [(9,), (4,), (2,), (7,)]
    assert [archs for _, archs, _ in scorer.calls] == [[(2,), (4,)], [(4,)], [(2,)], [(9,)], [(7,)]]
    assert rng.draws == []
    with pytest.raises(SearchFinished):
        evolution.ask()


@pytest.mark.parametrize("places", [False, True])
def test_evolution_climbs(places):
    """It finds the best of 4,096 by 400 scores, also by places among candidates; what it scored comes best first."""
    space = Box(*[4] * 6)
    scorer = Scores(lambda arch: sum(arch) + arch[0] / 10, places=places)
    archs = play(ZeroCostEvolution(space, np.random.default_rng(3), population=16, steps=400, scorer=scorer))
    values = [scorer.function(arch) for arch in archs]
    assert archs[0] == (3,) * 6
    assert values == sorted(values, reverse=True)
    assert len(set(archs)) == len(archs) <= 400
    scored = Counter(arch for _, batch, _ in scorer.calls for arch in batch)
    assert set(scored) == set(archs)
    # Beyond the two of the check, a score that means something alone is asked for once.
    assert (sum(scored.values()) == len(archs) + 2) is not places


def test_evolution_of_a_small_space():
    """Fewer architectures than members: each comes once; one without neighbours is no trouble."""
    for space in (Box(2, 2), Box(1), Different()):
        archs = play(ZeroCostEvolution(space, np.random.default_rng(0), mutations=2, scorer=Scores(sum)))
        assert sorted(archs) == list(space)


def test_all_scores_equal_are_no_places():
    scorer = Scores(lambda arch: 0.0)
    evolution = ZeroCostEvolution(Box(5, 5), np.random.default_rng(0), population=4, steps=10, scorer=scorer)
    assert len(play(evolution)) == sum(len(batch) for _, batch, _ in scorer.calls)


# --------------------------------------------------------------------------------------------------- TE-NAS's pruning


def test_pruning_on_paper():
    """Two dimensions of three and two choices; a network scores minus the sum of what is left, 2 in dimension 0 counts 5.

    Round 1, removals and scores of what is left (whole: 0 1 2 | 0 1 with 1 + 5 + 1 = 7): without 0: -7, 1: -6, 2: -2 | 0: -7,
    1: -6. Dimension 0 loses 2, dimension 1 loses 1: 0 1 | 0.
    Round 2, only dimension 0 has two: without 0: -1, without 1: 0. It loses 1: (0, 0).
    """
    scorer = Scores(lambda mixture: -sum(5 if c == 2 else c for c in mixture[0]) - sum(mixture[1]))
    pruning = TENASPruning(Box(3, 2), np.random.default_rng(0), scorer=scorer, score_seed=4)
    assert play(pruning) == [(0, 0)]
    first = [[[1, 2], [0, 1]], [[0, 2], [0, 1]], [[0, 1], [0, 1]], [[0, 1, 2], [1]], [[0, 1, 2], [0]]]
    assert scorer.calls == [("te_nas", first, 4), ("te_nas", [[[1], [0]], [[0], [0]]], 4)]


def test_pruning_measures_as_often_as_published():
    """24, 18 and 12 networks in NAS-Bench-201, in none of which an edge is `none`."""
    scorer = Scores(lambda mixture: zlib.crc32(repr(mixture).encode()))
    (arch,) = play(TENASPruning(NASBench201Space(), np.random.default_rng(0), scorer=scorer))
    assert [len(batch) for _, batch, _ in scorer.calls] == [24, 18, 12]
    assert not any(NONE in left for _, batch, _ in scorer.calls for mixture in batch for left in mixture)
    assert NONE not in arch


def test_restarts_have_other_seeds():
    """Each further search takes the next seed; after the last it finishes."""
    scorer = MadeUpScorer(NASBench201Space())
    many = play(TENASPruning(scorer.space, np.random.default_rng(0), scorer=scorer, score_seed=5, restarts=3))
    assert len(many) == 4
    assert len(set(many)) > 1
    for i, arch in enumerate(many):
        assert play(TENASPruning(scorer.space, np.random.default_rng(1), scorer=scorer, score_seed=5 + i)) == [arch]


def test_pruning_keeps_an_architecture():
    """In a constrained space no removal may leave nothing, whatever the scores."""
    for seed in range(20):
        scorer = MadeUpScorer(Different())
        (arch,) = play(TENASPruning(scorer.space, np.random.default_rng(seed), scorer=scorer))
        assert scorer.space.is_valid(arch)


# ------------------------------------------------------------------------------------------------------- the filter


class Witness(Optimizer):
    """Random search that insists on being told of what it proposed, in turn."""

    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.asked, self.told = [], []

    def ask(self):
        assert len(self.asked) == len(self.told)
        self.asked.append(self.space.sample(self.rng))
        return Proposal(self.asked[-1])

    def tell(self, trial):
        assert trial.arch == self.asked[-1]
        self.told.append(trial.arch)


class Unpicklable(Witness):
    """Cannot be pickled, but copied."""

    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.key = lambda arch: arch


@pytest.mark.parametrize("base", [Witness, Unpicklable])
def test_filter_chooses_by_score_and_tells_the_truth(base):
    """The proposal is the best of what was scored, and the base that goes on is the one that proposed it."""
    space, scorer = Box(9, 9), Scores(sum)
    optimizer = ProxyFilter(space, np.random.default_rng(0), base=base, candidates=4, scorer=scorer)
    archs = play(optimizer, 50)
    assert optimizer._base.told == archs
    assert [max(batch, key=sum) for _, batch, _ in scorer.calls] == archs
    assert Counter(len(batch) for _, batch, _ in scorer.calls).most_common(1)[0][0] == 4
    assert optimizer._base.space is space


def test_the_best_of_four_is_better_than_one():
    """400 proposals have the mean of the maximum of four sums of two of 0 .. 8, from its distribution; of one it is 8."""
    below = np.cumsum([9 - abs(8 - total) for total in range(17)]) / 81
    for candidates in (1, 4):
        mean = sum(1 - below**candidates) - (1 - below[16])
        optimizer = ProxyFilter(
            Box(9, 9), np.random.default_rng(1), base=RandomSearch, candidates=candidates, scorer=Scores(sum)
        )
        archs = np.array(play(optimizer, 400))
        assert archs.sum(axis=1).mean() == pytest.approx(mean, abs=0.75)  # the standard error of one is 0.18
    assert mean > 11


def test_the_filter_leaves_a_choice_without_chance_alone():
    """Hyperband's promotions are as they would be: they carry on with an architecture, at more epochs."""
    space, scorer = NASBench201Space(), Scores(sum)
    optimizer = optimizer_spec("proxy_filter(base='hyperband', candidates=3)").make(
        space, np.random.default_rng(0), fidelities=range(1, 28), scorer=scorer
    )
    seen, epochs = {}, []
    for _ in range(80):
        before = len(scorer.calls)
        proposal = optimizer.ask()
        if proposal.arch in seen:
            assert len(scorer.calls) == before
            assert proposal.epochs > seen[proposal.arch]
        else:
            assert len(scorer.calls) == before + 1
        seen[proposal.arch] = proposal.epochs
        epochs.append(proposal.epochs)
        optimizer.tell(Trial(proposal.arch, sum(proposal.arch) / 30, 1.0, proposal.epochs, NO_CURVE, "stopped"))
    assert len(set(epochs)) > 2
    assert len(seen) < 80


def test_one_candidate_is_the_base_alone():
    """It is neither scored nor copied."""
    scorer = Scores(sum)
    optimizer = ProxyFilter(Box(3, 3), np.random.default_rng(0), base=GridSearch, candidates=1, scorer=scorer)
    assert play(optimizer) == list(Box(3, 3))
    assert scorer.calls == []


def test_bases_that_cannot_be_filtered():
    """One that cannot be copied, one that trains on its own account, and one that nobody knows."""
    optimizer = ProxyFilter(Box(3, 3), np.random.default_rng(0), base=GridSearch, scorer=Scores(sum))
    with pytest.raises(ValueError, match="GridSearch cannot be filtered.*cannot be copied"):
        optimizer.ask()
    supernet = type("Supernet", (RandomSearch,), {"charges_evaluations": False})
    with pytest.raises(ValueError, match="Supernet evaluates nothing"):
        ProxyFilter(Box(3, 3), np.random.default_rng(0), base=supernet)
    with pytest.raises(RegistryError, match="did you mean hyperband"):
        optimizer_spec("proxy_filter(base='hyperbandd')")


def test_a_base_by_its_id():
    """It is given hyper-parameters, fidelities, the scorer and a generator of its own; the label says what was asked for."""
    spec = optimizer_spec("proxy_filter(proxy='naswot', base='zero_cost_warmup@evolution(pool=30)')")
    assert spec.label == "proxy_filter(base='zero_cost_warmup@evolution(pool=30)', proxy='naswot')"
    scorer = MadeUpScorer(NASBench201Space())
    optimizer = spec.make(scorer.space, np.random.default_rng(0), scorer=scorer)
    assert (optimizer._base.pool, optimizer._base.scorer) == (30, scorer)
    assert optimizer._base.rng is not optimizer.rng
    assert len(play(optimizer, 5)) == 5
    assert optimizer._base.scorer is scorer
    assert optimizer_spec("proxy_filter(base='bohb')").make(
        scorer.space, np.random.default_rng(0), fidelities=[3, 9, 27], scorer=scorer
    ).ask().epochs in (3, 9, 27)
    default = optimizer_spec("proxy_filter").make(scorer.space, np.random.default_rng(0), scorer=scorer)
    assert isinstance(default._base, RegularizedEvolution)


def test_the_metrics_of_the_base_are_asked_for():
    """A multi-objective base is told its metric."""
    assert ProxyFilter(Box(3, 3), np.random.default_rng(0), base=NSGA2).metrics == ("flops",)


def test_a_base_that_finishes_ends_the_search():
    class Three(Witness):
        def ask(self):
            if len(self.asked) == 3:
                raise SearchFinished
            return super().ask()

    optimizer = ProxyFilter(Box(9, 9), np.random.default_rng(0), base=Three, candidates=3, scorer=Scores(sum))
    assert len(play(optimizer)) == 3


def test_filtered_evolution_mutates_towards_the_score():
    """With a score that agrees with the objective, filtered evolution is ahead of evolution after 150 trials."""
    space = Box(*[4] * 8)

    def mean(candidates):
        archs = itertools.chain.from_iterable(
            play(
                ProxyFilter(
                    space,
                    np.random.default_rng(seed),
                    base=lambda space, rng: RegularizedEvolution(space, rng, population=20, sample=5),
                    candidates=candidates,
                    scorer=Scores(sum),
                ),
                150,
                value=lambda arch: sum(arch) / 24,
            )[100:]
            for seed in range(4)
        )
        return np.mean([sum(arch) for arch in archs])

    assert mean(5) > mean(1) + 1
