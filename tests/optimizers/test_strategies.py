"""Each strategy against a trace worked out by hand, and the registry against the conformance suite."""

from pathlib import Path

import numpy as np
import pytest

from nasharness import Benchmark, Budget, Evaluation, Final, Proposal, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import entry_points, optimizer_spec
from nasharness.harness.testing import CHECKS, check_no_two_alike
from nasharness.optimizers.local_search import LocalSearch
from nasharness.optimizers.random_search import RandomSearch
from nasharness.optimizers.regularized_evolution import RegularizedEvolution

NAMES = ("random_search", "regularized_evolution", "local_search")
NONE = np.zeros(0, dtype=np.float32)


class Line(SearchSpace):
    """One dimension of `n` choices: every two architectures are neighbours."""

    name = "line"

    def __init__(self, n=4):
        self.cardinalities = (n,)


class Grid(SearchSpace):
    name = "grid"
    cardinalities = (3, 3)


class Script:
    """A generator whose draws are written down beforehand, so that a trace can be followed on paper."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else size)]
        return drawn[0] if size is None else np.array(drawn)

    def permutation(self, n):
        order = self.draws.pop(0)
        assert sorted(order) == list(range(n))
        return np.array(order)


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*NAMES, "regularized_evolution@nats", "local_search(first_improvement=False)"])
def test_conformance(name, check):
    """Every registered strategy keeps every rule of the conformance suite."""
    check(optimizer_spec(name))


def test_every_strategy_has_tests_of_its_own():
    """Conformance and a hand-worked trace are in the file of its topic."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for name, point in entry_points("optimizers").items():
        module, _, factory = point.value.partition(":")
        assert name in NAMES or f"{module}:{factory}" in text or f"{module} import" in text, name


@pytest.mark.slow
def test_no_two_strategies_run_alike():
    """Beyond every warm-up, no registered strategy is another one under a second name."""
    check_no_two_alike()


def test_random_search_proposes_what_the_generator_draws():
    """Draws 0.1, 0.7 over three choices each are 0 and 2; 0.4, 0.99 are 1 and 2."""
    search = RandomSearch(Grid(), Script(0.1, 0.7, 0.4, 0.99))
    assert [search.ask(), search.ask()] == [Proposal((0, 2)), Proposal((1, 2))]


def test_regularized_evolution_follows_algorithm_1():
    """P = 2, S = 2 on four choices: the winner is mutated and the oldest dies, also when it is the best.

    1. and 2. random: 0.3 -> choice 1 (value 0.9), 0.6 -> choice 2 (value 0.5). Alive, oldest first: [1: .9, 2: .5].
    3. Tournament draws 0.1, 0.8 -> members 0 and 1; architecture 1 wins. Mutation: dimension 0 (draw 0.0), the third
       (draw 0.9) of its other choices 0, 2, 3 -> 3, value 0.4. The oldest, the best so far, dies: alive [2: .5, 3: .4].
    4. Tournament draws 0.9, 0.2 -> members 1 and 0; architecture 2 wins. Mutation: the first (draw 0.1) of 0, 1, 3 -> 0,
       value NaN. Alive [3: .4, 0: NaN].
    5. Tournament draws 0.7, 0.1 -> the failed member, then 3, which wins. Mutation: the second (draw 0.5) of 0, 1, 2 -> 1.
    """
    rng = Script(0.3, 0.6, 0.1, 0.8, 0.0, 0.9, 0.9, 0.2, 0.0, 0.1, 0.7, 0.1, 0.0, 0.5)
    evolution = RegularizedEvolution(Line(), rng, population=2, sample=2)
    proposed = []
    for value in (0.9, 0.5, 0.4, float("nan"), 0.7):
        proposed.append(evolution.ask().arch)
        tell(evolution, proposed[-1], value)
    assert proposed == [(1,), (2,), (3,), (0,), (1,)]
    assert rng.draws == []


def test_local_search_climbs_and_restarts():
    """First improvement on a 3 x 3 grid.

    Start: draws 0.5, 0.5 -> (1, 1), value 0.5. Its neighbours in order: (0,1) (2,1) (1,0) (1,2); visited from the end of
    the permutation [0, 1, 2, 3]: (1,2) 0.4 no; (1,0) 0.6 better, move there. Neighbours of (1,0): (0,0) (2,0) (1,1) (1,2);
    permutation [2, 3, 1, 0]: (0,0) 0.1 no; (2,0) NaN no; (1,2) and (1,1) are known and worse: a local optimum.
    Restart: draws 0.5, 0.0 -> (1, 0), known; 0.9, 0.9 -> (2, 2).
    """
    rng = Script(0.5, 0.5, [0, 1, 2, 3], [2, 3, 1, 0], 0.5, 0.0, 0.9, 0.9)
    search = LocalSearch(Grid(), rng)
    proposed = []
    for value in (0.5, 0.4, 0.6, 0.1, float("nan")):
        proposed.append(search.ask().arch)
        tell(search, proposed[-1], value)
    proposed.append(search.ask().arch)
    assert proposed == [(1, 1), (1, 2), (1, 0), (0, 0), (2, 0), (2, 2)]
    assert rng.draws == []


def test_local_search_best_improvement_looks_at_the_whole_neighbourhood():
    """Algorithm 1: from (1, 1) at 0.5 with neighbours 0.6, 0.9, 0.7 and 0.2 it moves to the one of 0.9, not the first."""
    rng = Script(0.5, 0.5, [0, 1, 2, 3], [0, 1, 2, 3])
    search = LocalSearch(Grid(), rng, first_improvement=False)
    values = {(1, 1): 0.5, (1, 2): 0.6, (1, 0): 0.9, (2, 1): 0.7, (0, 1): 0.2}
    for _ in range(5):
        arch = search.ask().arch
        tell(search, arch, values.pop(arch))
    assert search.ask().arch == (2, 0)  # a neighbour of (1, 0): (1, 2), the last of the four, is known
    assert rng.draws == []


def test_local_search_goes_on_where_everything_is_known():
    """On a space of two architectures it neither stops nor hangs after both were evaluated."""
    search = LocalSearch(Line(2), np.random.default_rng(0))
    for _ in range(10):
        arch = search.ask().arch
        tell(search, arch, float(arch[0]))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("regularized_evolution", {"population": 0}), ("regularized_evolution", {"sample": 0})],
)
def test_hyper_parameters_are_checked(name, parameters):
    """A population or a tournament of nobody is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        optimizer_spec(name).factory(Grid(), np.random.default_rng(0), **parameters)


GOLDEN = {
    "random_search": "5a8ae87e64a30e10",
    "regularized_evolution": "f8eb1b127c1ebcfc",
    "regularized_evolution@nats": "4a6d4f49173b5450",
    "local_search": "494435a53be33d2b",
}


class Failing(Benchmark):
    """NAS-Bench-201 cells with made-up accuracies; those whose first edge is an average pooling fail."""

    id = "failing-v1"
    space = NASBench201Space()
    max_epochs = 1
    optimum = Final(1.0, 1.0, 1.0, 1.0, 1.0)

    def query(self, arch, epochs=None, rng=None):
        trend = sum(choice * (d + 2) for d, choice in enumerate(arch)) / 61
        rugged = (sum((choice + 1) * (d * d + 7) for d, choice in enumerate(arch)) * 2654435761) % 1000 / 1000
        return Evaluation(float("nan") if arch[0] == 4 else 0.2 + 0.5 * trend + 0.2 * rugged, 1.0, 1, NONE)

    def final_many(self, archs):
        raise NotImplementedError

    def curve(self, arch, seed=None):
        raise NotImplementedError


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_run(name):
    """A run of 260 trials with failures in it is what it was when it was first recorded."""
    assert run(name, Failing(), Budget(evaluations=260), seed=1).fingerprint()[:16] == GOLDEN[name]


def test_evolution_beats_random_search_on_real_data():
    """On digits201, mean test regret after 300 evaluations, 60 paired runs: evolution is better at z > 3 (p < 0.002)."""
    benchmark = load("digits201")

    def regrets(name):
        runs = [run(name, benchmark, Budget(evaluations=300), repetition=r) for r in range(60)]
        return np.array([r.regret(benchmark, "validation")[-1] for r in runs])

    difference = regrets("random_search") - regrets("regularized_evolution")
    assert difference.mean() / (difference.std(ddof=1) / np.sqrt(60)) > 3
