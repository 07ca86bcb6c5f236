"""Grid search, and evolution without aging."""

import time
from collections import Counter

import numpy as np
import pytest

from nasharness import Budget, Proposal, SearchSpace, Trial, run
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.base import SearchFinished
from nasharness.optimizers.grid_search import GridSearch
from nasharness.optimizers.regularized_evolution import RegularizedEvolution

NAN = float("nan")
NONE = np.zeros(0, dtype=np.float32)
GRID = "nasharness.optimizers.grid_search:GridSearch"


class Box(SearchSpace):
    name = "box"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class Odd(SearchSpace):
    """Choices with an odd sum."""

    name = "odd"
    cardinalities = (2, 1, 3)

    def is_valid(self, arch):
        return super().is_valid(arch) and sum(arch) % 2 == 1


def exhaust(search):
    archs = []
    while True:
        try:
            archs.append(search.ask().arch)
        except SearchFinished:
            return archs
        search.tell(Trial(archs[-1], NAN, 1.0, 1, NONE, "failed"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [GRID, f"{GRID}(shuffled=True)", "regularized_evolution@non_aging"])
def test_conformance(name, check):
    """Each keeps every rule of the conformance suite."""
    check(optimizer_spec(name))


def test_grid_search_is_lexicographic():
    """The last choice varies fastest; what is invalid is passed over; then it finishes, and stays finished."""
    grid = GridSearch(Box(2, 1, 3), np.random.default_rng(0))
    assert exhaust(grid) == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0), (1, 0, 1), (1, 0, 2)]
    with pytest.raises(SearchFinished):
        grid.ask()
    assert exhaust(GridSearch(Odd(), np.random.default_rng(0))) == [(0, 0, 1), (1, 0, 0), (1, 0, 2)]
    assert exhaust(GridSearch(Box(1), np.random.default_rng(0))) == [(0,)]


def test_grid_search_without_shuffling_draws_nothing():
    assert GridSearch(Box(2, 3), None).ask() == Proposal((0, 0))


class Bytes:
    """A generator of the given numbers as bytes."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def bytes(self, length):
        return self.numbers.pop(0).to_bytes(length, "little")


def test_shuffled_grid_on_paper():
    """Fisher and Yates on 0 1 2 3 with draws 2, 2, 1, 0.

    i = 0, j = 0 + 2 % 4 = 2: give 2, the array is 2 1 0 3. i = 1, j = 1 + 2 % 3 = 3: give 3, 2 3 0 1.
    i = 2, j = 2 + 1 % 2 = 3: give 1, 2 3 1 0. i = 3: give 0.
    """
    assert exhaust(GridSearch(Box(4), Bytes(2, 2, 1, 0), shuffled=True)) == [(2,), (3,), (1,), (0,)]


def test_shuffled_grid_gives_every_architecture_once():
    for space in (Box(2, 3, 4, 1, 5), Odd(), Box(1)):
        archs = exhaust(GridSearch(space, np.random.default_rng(3), shuffled=True))
        assert sorted(archs) == list(space)
    assert archs == [(0,)]


def test_shuffled_grid_is_uniform():
    """2400 shuffles of 4: each of the 24 orders about 100 times; chi-squared with 23 degrees below 56.3 (p = 1.3e-4)."""
    rng = np.random.default_rng(4)
    counts = Counter(tuple(exhaust(GridSearch(Box(2, 2), rng, shuffled=True))) for _ in range(2400))
    assert len(counts) == 24
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 56.3


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("space", [DARTSSpace(), Box(*[7] * 40)], ids=["10**18", "10**33"])
def test_huge_spaces_are_not_enumerated(space, shuffled):
    """2000 different architectures of a space that nobody can enumerate, at once."""
    start = time.process_time()
    search = GridSearch(space, np.random.default_rng(0), shuffled=shuffled)
    archs = [search.ask().arch for _ in range(2000)]
    assert time.process_time() - start < 2
    assert len(set(archs)) == 2000
    assert all(space.is_valid(arch) for arch in archs)
    assert len({arch[0] for arch in archs}) == (7 if shuffled else 1)


def test_a_run_of_grid_search_finishes_early():
    """digits201 has 15,625 architectures; the run ends there, with the best value of the whole table."""
    record = run(GRID, "digits201", Budget(evaluations=20_000))
    assert record.finished_early
    assert len(np.unique(record.trials.arch, axis=0)) == len(record.trials) == 15_625


GOLDEN = {
    GRID: "db2a45d3d1a1905f",
    f"{GRID}(shuffled=True)": "17d22c88759bbc19",
    "regularized_evolution@non_aging": "618f956b972223e3",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_run(name):
    """A run of 260 trials on digits201 is what it was when it was first recorded."""
    assert run(name, "digits201", Budget(evaluations=260), seed=1).fingerprint()[:16] == GOLDEN[name]


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else size)]
        return drawn[0] if size is None else np.array(drawn)


def test_non_aging_evolution_on_paper():
    """P = 3, S = 2 on ten choices: the best of a tournament is mutated, its worst dies.

    1. to 3. random: 0.05 -> 0 (value .5), 0.15 -> 1 (.9), 0.25 -> 2 (.7). Alive: 0: .5, 1: .9, 2: .7.
    4. Tournament 0.1, 0.9 -> members 0 and 2: 2 wins, 0 dies. Mutation of 2: the fourth (0.35) of 0 1 3 4 ... -> 4, NaN.
       Alive: 1: .9, 2: .7, 4: failed. Aging would have killed 0 as well, being the oldest.
    5. Tournament 0.4, 0.8 -> members 1 and 2: 2 wins, the failed one dies. Mutation: the first (0.0) -> 0, value .6.
       Alive: 1: .9, 2: .7, 0: .6. Aging would have killed 1, the best.
    6. Tournament 0.0, 0.1 -> member 0 twice: it wins and dies. Mutation of 1: the last (0.99) of 0 2 3 ... 9 -> 9.
    """
    draws = (0.05, 0.15, 0.25, 0.1, 0.9, 0.0, 0.35, 0.4, 0.8, 0.0, 0.0, 0.0, 0.1, 0.0, 0.99)
    evolution = RegularizedEvolution(Box(10), Script(*draws), population=3, sample=2, aging=False)
    proposed = []
    for value in (0.5, 0.9, 0.7, NAN, 0.6, 0.1):
        proposed.append(evolution.ask().arch)
        evolution.tell(Trial(proposed[-1], value, 1.0, 1, NONE))
    assert proposed == [(0,), (1,), (2,), (4,), (0,), (9,)]
    assert [arch for _, arch in evolution._alive] == [(2,), (0,), (9,)]


def test_without_aging_the_best_lives_for_ever():
    """S = 25 of P = 100: the best dies only if a tournament is nobody but it, with probability 100**-25."""
    best = (2.0, (0, 0))  # better than any accuracy
    for aging in (True, False):
        evolution = RegularizedEvolution(Box(30, 30), np.random.default_rng(1), aging=aging)
        for i in range(500):
            if i == 150:
                evolution._alive[50] = best
            arch = evolution.ask().arch
            evolution.tell(Trial(arch, sum(arch) / 60, 1.0, 1, NONE))
        assert (best in evolution._alive) is not aging
        assert len(evolution._alive) == 100


@pytest.mark.parametrize("aging", [True, False])
def test_evolution_in_a_space_of_one_architecture(aging):
    evolution = RegularizedEvolution(Box(1, 1), np.random.default_rng(0), population=2, sample=2, aging=aging)
    for value in (0.5, NAN, 0.5, 0.5, NAN):
        assert evolution.ask() == Proposal((0, 0))
        evolution.tell(Trial((0, 0), value, 1.0, 1, NONE))
