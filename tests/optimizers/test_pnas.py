"""PNAS: what a block is, the surrogate, and the search against traces worked out by hand."""

import itertools

import numpy as np
import pytest
import torch

from nasharness import SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces import darts, nasbench201
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace
from nasharness.benchmarks.spaces.subspace import Subspace
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.pnas import PNAS, PerceptronEnsemble, blocks

QUICK = "nasharness.optimizers.pnas:PNAS@quick"
FAST = {"check_constructor", "check_presets", "check_any_space", "check_leaves_trial_alone", "check_constant_objective"}
NONE = np.zeros(0, dtype=np.float32)
TINY = {"beam": 4, "batch": 3, "pool": 60, "members": 2, "hidden": 3, "epochs": 2}
SPACES = [NASBench201Space(), NASBench101Space(), DARTSSpace(), NATSSizeSpace()]


class Grid(SearchSpace):
    name = "grid"
    cardinalities = (3, 3)


class Single(SearchSpace):
    name = "single"
    cardinalities = (1, 1)


class Odd(SearchSpace):
    """Only (i, j, k) with an odd sum: what is at rest is forbidden."""

    name = "odd"
    cardinalities = (2, 2, 2)

    def is_valid(self, arch):
        return super().is_valid(arch) and sum(arch) % 2 == 1


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else size)]
        return drawn[0] if size is None else np.array(drawn)


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


def sampled(space, n, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


# ------------------------------------------------------------------------------------------------------------ blocks


def test_blocks_of_nasbench201():
    """Edges in order 0-1, 0-2, 1-2, 0-3, 1-3, 2-3: first 0-3, then node 1 (0-1, 1-3), then node 2 (0-2, 1-2, 2-3)."""
    assert blocks(NASBench201Space()) == ([(3,), (0, 4), (1, 2, 5)], (nasbench201.NONE,) * 6)


def test_blocks_of_nasbench101():
    """The first is the edge 0-6, choice 5, and vertex 1: edges 0-1 and 1-6, choices 0 and 10, and its operation, 21."""
    order, rest = blocks(NASBench101Space())
    assert order[0] == (5, 0, 10, 21)
    assert order[1] == (1, 6, 14, 22)  # vertex 2: edges 0-2, 1-2, 2-6
    assert rest == (0,) * 26


def test_blocks_of_darts():
    """Node 2 of the normal and of the reduction cell, then node 3 with its input pairs; skip connections at rest."""
    order, rest = blocks(DARTSSpace())
    assert order[:4] == [(0, 1), (11, 12), (2, 3, 8), (13, 14, 19)]
    skip = darts.OPERATIONS.index("skip_connect")
    assert rest == ((skip,) * 8 + (0,) * 3) * 2


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_blocks_are_all_choices_once(space):
    order, rest = blocks(space)
    assert sorted(itertools.chain(*order)) == list(range(len(space.cardinalities)))
    assert len(rest) == len(space.cardinalities)
    assert blocks(Subspace(space, sampled(space, 3))) == (order, rest)


def test_simple_cells_work():
    """In NAS-Bench-201 and -101 the cells of each level do something: after pruning an edge reaches the output."""
    space = NASBench201Space()
    assert space.prune((0, 0, 0, 3, 0, 0)) == (0, 0, 0, 3, 0, 0)
    assert space.prune((2, 0, 0, 3, 1, 0)) == (2, 0, 0, 3, 1, 0)
    search = PNAS(NASBench101Space(), np.random.default_rng(0), beam=1000)
    search.ask()
    assert {search.space.graph(arch).vertices for arch in search._beam} == {2, 3}


# --------------------------------------------------------------------------------------------------------- surrogate


def test_inputs_by_hand():
    """Dimensions of 2, 3 and 2 choices: the one-hot vector, then the shares of the pairs' choices and of the triple's."""

    class Mixed(SearchSpace):
        name = "mixed"
        cardinalities = (2, 3, 2)

    ensemble = PerceptronEnsemble(Mixed(), members=1, hidden=2)
    assert ensemble._inputs([(1, 2, 0), (1, 0, 1)]).tolist() == [
        [0, 1, 0, 0, 1, 1, 0, 0.5, 0.5, 0, 0, 1],
        [0, 1, 1, 0, 0, 0, 1, 0.0, 1.0, 1, 0, 0],
    ]


def test_predictions_agree_with_a_slow_implementation():
    """Member by member and architecture by architecture, in NumPy."""
    space = NASBench201Space()
    archs = sampled(space, 20)
    ensemble = PerceptronEnsemble(space, members=3, hidden=4)
    values = np.random.default_rng(1).random(20)
    ensemble.fit(archs, values, np.random.default_rng(2), epochs=5, learning_rate=0.01)
    w1, b1, w2, b2, w3, b3 = (w.detach().numpy() for w in ensemble._weights)
    expected = []
    for arch in archs:
        x = np.concatenate((np.eye(5)[list(arch)].ravel(), [arch.count(op) / 6 for op in range(5)]))
        members = []
        for m in range(3):
            h = np.maximum(x @ w1[m] + b1[m][0], 0)
            h = np.maximum(h @ w2[m] + b2[m][0], 0)
            members.append((h @ w3[m] + b3[m][0])[0])
        expected.append(np.mean(members) * values.std() + values.mean())
    np.testing.assert_allclose(ensemble.predict(archs), expected, rtol=1e-9)


def test_surrogate_extrapolates_to_the_next_block():
    """An operation that did well on one edge is expected to do well on an edge where it was never tried.

    Fitted to the 25 cells with choices on edges 0-3 and 0-1 alone, whose accuracy is the number of 3 x 3 convolutions.
    """
    space = NASBench201Space()
    archs = [(a, 0, 0, b, 0, 0) for a in range(5) for b in range(5)]
    values = np.array([arch.count(nasbench201.CONV3) / 6 for arch in archs])
    ensemble = PerceptronEnsemble(space, members=5, hidden=20)
    ensemble.fit(archs, values, np.random.default_rng(0), epochs=300, learning_rate=0.01)
    unseen = [(0, 0, 0, 3, 0, op) for op in range(1, 5)]
    assert ensemble.predict(unseen).argmax() == nasbench201.CONV3 - 1


# ------------------------------------------------------------------------------------------------------------ search


class Oracle:
    """A surrogate whose predictions are written down beforehand."""

    def __init__(self, prediction):
        self.prediction, self.fits = prediction, []

    def fit(self, archs, values, rng, **settings):
        self.fits.append(dict(zip(archs, values.tolist(), strict=True)))

    def predict(self, archs):
        return np.array([self.prediction(arch) for arch in archs])


def test_levels_by_hand():
    """K = 2 on a 3 x 3 grid; its blocks are the two dimensions and (0, 0) is at rest.

    Level 1: the extensions of (0, 0) are (0, 0), (1, 0), (2, 0). Nothing is known; the draws 0.7, 0.2, 0.4 put (1, 0) and
       (2, 0) first. They get 0.5 and 0.6.
    Level 2: each has three extensions. The surrogate predicts 3 i + j: (2, 2), 8, and (2, 1), 7, are best. (2, 2) fails.
    Then rounds of 2 in the whole space: of the five unknown ones (1, 2), 5, and (1, 1), 4, then (0, 2), 2, and (0, 1), 1.
    """
    ties = [0.0] * 6 + [0.0] * 5 + [0.0] * 3
    search = PNAS(Grid(), Script(0.7, 0.2, 0.4, *ties), beam=2, batch=2)
    search.surrogate = Oracle(lambda arch: 3 * arch[0] + arch[1])
    proposed = []
    for value in (0.5, 0.6, float("nan"), 0.8, 0.7, 0.7, 0.3, 0.2):
        proposed.append(search.ask().arch)
        tell(search, proposed[-1], value)
    assert proposed == [(1, 0), (2, 0), (2, 2), (2, 1), (1, 2), (1, 1), (0, 2), (0, 1)]
    two = {(1, 0): 0.5, (2, 0): 0.6}
    assert search.surrogate.fits == [two, two | {(2, 1): 0.8}, two | {(2, 1): 0.8, (1, 2): 0.7, (1, 1): 0.7}]
    assert search.rng.draws == []


def test_known_extensions_stay_in_the_beam_and_failed_ones_leave_it():
    """Level 2 of the grid with K = 3: (1, 0) is among the best again and is not trained again; (2, 0) failed.

    Draws put (0, 0), (1, 0), (2, 0) in this order. The surrogate prefers small j, so that of the six extensions of (0, 0) and
    (1, 0) the best are (1, 0) and (0, 0), known, and (1, 1).
    """
    search = PNAS(Grid(), Script(0.1, 0.2, 0.3, *[0.0] * 6), beam=3)
    search.surrogate = Oracle(lambda arch: arch[0] - 2 * arch[1])
    for expected, value in (((0, 0), 0.5), ((1, 0), 0.6), ((2, 0), float("nan"))):
        assert search.ask().arch == expected
        tell(search, expected, value)
    assert search.ask().arch == (1, 1)
    assert search._beam == [(1, 0), (0, 0), (1, 1)]


def test_levels_go_from_simple_to_complex():
    """On NAS-Bench-201 with K = 4: four cells of one edge, then cells of node 1, then all; never more than K per level."""
    search = PNAS(NASBench201Space(), np.random.default_rng(0), **TINY)
    levels = []
    for i in range(12):
        arch = search.ask().arch
        levels.append(search._level)
        at_rest = [d for later in search._blocks[search._level :] for d in later]
        assert all(arch[d] == nasbench201.NONE for d in at_rest)
        tell(search, arch, 0.5 + i / 100)
    assert levels == sorted(levels)
    assert all(levels.count(level) <= 4 for level in (1, 2, 3))


def test_forbidden_extensions_are_left_out():
    """Of (0, 0, 0) and (1, 0, 0) only the second is odd; of its extensions (1, 0, 0), known, and then (1, 0, 0) again.

    All three levels bring one architecture, and the search goes on in the whole space.
    """
    search = PNAS(Odd(), np.random.default_rng(0), **TINY)
    assert search.ask().arch == (1, 0, 0)
    assert not search._queue
    tell(search, (1, 0, 0), 0.5)
    assert search.ask().arch in {(0, 1, 0), (0, 0, 1), (1, 1, 1)}
    assert search._level == 3


def test_forbidden_rest_gets_random_choices():
    """Where everything at rest is forbidden, extensions are completed at random and keep their own choices."""

    class Last(Grid):
        def is_valid(self, arch):
            return super().is_valid(arch) and arch[1] > 0

    search = PNAS(Last(), np.random.default_rng(0), **TINY)
    first = [search.ask().arch, *search._queue]
    assert len(first) == 4
    assert all(arch[1] > 0 for arch in first)
    assert len({arch[0] for arch in first}) > 1


def test_rounds_grow_with_the_search():
    """Between the fits of a long search there are a fourth as many trials as before, so their cost per trial is bounded."""
    search = PNAS(NASBench201Space(), np.random.default_rng(0), **TINY)
    fitted = []
    fit = search.surrogate.fit
    search.surrogate.fit = lambda archs, *rest, **settings: (fitted.append(len(archs)), fit(archs, *rest, **settings))
    for i in range(400):
        tell(search, search.ask().arch, i / 400)
    steps = list(itertools.pairwise(fitted[3:]))
    assert all(after - before == max(3, before // 4) for before, after in steps)
    assert len(fitted) < 25


@pytest.mark.parametrize(
    "space", [Single(), Grid(), Odd(), Subspace(DARTSSpace(), sampled(DARTSSpace(), 30))], ids=repr
)
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_exhausted_space_is_repeated(space, value):
    """Every architecture is proposed once before any is proposed again; the search neither stops nor hangs."""
    search = PNAS(space, np.random.default_rng(0), **TINY)
    proposed = []
    for _ in range(40):
        proposed.append(search.ask().arch)
        tell(search, proposed[-1], value)
    assert len(set(proposed[: space.size])) == space.size


@pytest.mark.parametrize("space", [DARTSSpace(), NASBench101Space()], ids=lambda s: s.name)
def test_huge_and_constrained_spaces(space):
    """Nothing is enumerated; spellings of one NAS-Bench-101 cell count as one."""
    search = PNAS(space, np.random.default_rng(0), **TINY)
    proposed = []
    for i in range(60):
        proposed.append(search.ask().arch)
        assert space.is_valid(proposed[-1])
        tell(search, proposed[-1], float("nan") if i % 5 == 0 else 0.5 + i / 100)
    assert search._level == len(search._blocks)
    assert len({space.canonical(arch) if space.canonical_identity else arch for arch in proposed}) == 60


def test_global_generator_of_torch_is_left_alone():
    before = torch.get_rng_state()
    search = PNAS(Grid(), np.random.default_rng(0), **TINY)
    for i in range(8):
        tell(search, search.ask().arch, i / 10)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize(
    "parameters",
    [
        *({name: 0} for name in ("beam", "batch", "pool", "members", "hidden", "epochs")),
        *({"learning_rate": rate} for rate in (0.0, float("nan"))),
    ],
    ids=str,
)
def test_hyper_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        PNAS(Grid(), np.random.default_rng(0), **parameters)


@pytest.mark.parametrize(
    "check",
    [check if check.__name__ in FAST else pytest.param(check, marks=pytest.mark.slow) for check in CHECKS],
    ids=lambda check: check.__name__,
)
def test_conformance(check):
    """It keeps every rule of the conformance suite."""
    check(optimizer_spec(QUICK))


def test_golden_run():
    """A run of 120 trials on digits201 is what it was when it was first recorded."""
    assert run(QUICK, "digits201", 120, seed=1).fingerprint()[:16] == "d46edfbed82265f5"


@pytest.mark.slow
def test_beats_random_search_on_real_data():
    """On digits201, mean validation regret after 300 evaluations, 20 paired runs: it is better at z > 3.72 (p < 1e-4)."""
    benchmark = load("digits201")

    def regrets(name):
        return np.array(
            [run(name, benchmark, 300, repetition=r).regret(benchmark, "validation")[-1] for r in range(20)]
        )

    difference = regrets("random_search") - regrets(QUICK)
    assert difference.mean() / (difference.std(ddof=1) / np.sqrt(20)) > 3.72
