"""The tree-structured Parzen estimator: a trace by hand, a slow implementation, and spaces that make trouble."""

import math

import numpy as np
import pytest

from nasharness import Budget, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.tpe import TPE

NAME = "nasharness.optimizers.tpe:TPE"
NAN = float("nan")
NONE = np.zeros(0, dtype=np.float32)


class Box(SearchSpace):
    """A space of given cardinalities."""

    name = "box"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class OneOf64(Box):
    """Six bits, of which only the zeros are valid."""

    def is_valid(self, arch):
        return super().is_valid(arch) and not any(arch)


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else math.prod(np.atleast_1d(size)))]
        return drawn[0] if size is None else np.array(drawn).reshape(size)


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check):
    """TPE keeps every rule of the conformance suite."""
    check(optimizer_spec(NAME))


def test_the_trace_on_paper():
    """Three choices times two; four random trials, two candidates, ceil(1 * sqrt(n)) good ones.

    Random draws give (0, 0) 0.9, (0, 1) 0.8, (1, 0) 0.2 and (2, 1), which fails. Of n = 4, ceil(sqrt(4)) = 2 are good: the
    first two. With one pseudo-observation of each choice:
        dimension 0: l = (2+1, 0+1, 0+1)/5 = (.6, .2, .2), g = (0+1, 1+1, 1+1)/5 = (.2, .4, .4), l/g = 3, 1/2, 1/2
        dimension 1: l = (1+1, 1+1)/4 = (.5, .5),          g = (1+1, 1+1)/4 = (.5, .5),         l/g = 1, 1
    5. Draws 0.7 and 0.4: 0.7 is between 0.6 and 0.8, choice 1; 0.4 is below 0.5, choice 0: (1, 0) with l/g = 1/2.
       Draws 0.59 and 0.5: (0, 1) with l/g = 3, which is proposed. Its value is 0.95.
    Of n = 5, ceil(sqrt(5)) = 3 are good: (0, 1) 0.95, (0, 0) 0.9 and (0, 1) 0.8.
        dimension 0: l = (4, 1, 1)/6, g = (1, 2, 2)/5;  dimension 1: l = (2, 3)/5 = (.4, .6), g = (.5, .5)
    6. Draws 0.1 and 0.39: (0, 0) with l/g = 10/3 * 4/5. Draws 0.66 and 0.41: 0.66 is below 4/6, so (0, 1) with 10/3 * 6/5.
       It gets 0.1. Of n = 6, ceil(sqrt(6)) = 3 are good, the same; the bad are (1, 0), (2, 1) and (0, 1).
        dimension 0: l/g = (4/6)/(2/6), (1/6)/(2/6), (1/6)/(2/6) = 2, 1/2, 1/2
        dimension 1: l/g = (2/5)/(2/5), (3/5)/(3/5) = 1, 1
    7. Draws 0.9 and 0.0: (2, 0) with 1/2. Draws 0.84 and 0.9: 0.84 is above 5/6, so (2, 1) with 1/2. A tie: the first.
    """
    rng = Script(0.0, 0.0, 0.0, 0.5, 0.4, 0.0, 0.9, 0.9)
    rng.draws += [0.7, 0.4, 0.59, 0.5]
    rng.draws += [0.1, 0.39, 0.66, 0.41]
    rng.draws += [0.9, 0.0, 0.84, 0.9]
    tpe = TPE(Box(3, 2), rng, n_startup=4, candidates=2, gamma=1.0)
    proposed = []
    for value in (0.9, 0.8, 0.2, NAN, 0.95, 0.1, 0.5):
        proposed.append(tpe.ask().arch)
        tell(tpe, proposed[-1], value)
    assert proposed == [(0, 0), (0, 1), (1, 0), (2, 1), (0, 1), (0, 1), (2, 0)]
    assert rng.draws == []


def slow_proposal(history, space, rng, *, n_startup, candidates, gamma, max_good, prior_weight):
    """The method in loops, from all trials anew."""
    succeeded = sorted((t for t in history if t[1] == t[1]), key=lambda t: -t[1])  # stable: of equal values the oldest
    good = succeeded[: min(math.ceil(gamma * math.sqrt(len(history))), max_good)]
    bad = succeeded[len(good) :] + [t for t in history if t[1] != t[1]]
    if len(history) < n_startup or not good:
        return space.sample(rng)

    def probability(group, d, choice):
        count = sum(arch[d] == choice for arch, _ in group)
        return (count + prior_weight) / (len(group) + prior_weight * space.cardinalities[d])

    for _ in range(20):
        drawn = []
        for draws in rng.random((candidates, len(space.cardinalities))).tolist():
            arch, ratio = [], 0.0
            for d, u in enumerate(draws):
                choice, total = 0, probability(good, d, 0)
                while u >= total and choice < space.cardinalities[d] - 1:
                    choice += 1
                    total += probability(good, d, choice)
                arch.append(choice)
                ratio += math.log(probability(good, d, choice) / probability(bad, d, choice))
            drawn.append((round(ratio, 9), tuple(arch)))
        if valid := [c for c in drawn if space.is_valid(c[1])]:
            return max(valid, key=lambda c: c[0])[1]
    return space.sample(rng)


class Odd(Box):
    """Choices with an odd sum: half of a space, so that candidates are refused now and then."""

    def is_valid(self, arch):
        return super().is_valid(arch) and sum(arch) % 2 == 1


@pytest.mark.parametrize("space", [Box(5, 5, 5, 5), Odd(2, 3, 1, 4), Box(1, 7)])
@pytest.mark.parametrize("parameters", [{}, {"gamma": 0.9, "max_good": 7, "prior_weight": 0.3, "candidates": 5}])
def test_counts_are_kept_as_if_counted_anew(space, parameters):
    """For 150 trials with ties and failures, the proposals are those of a slow implementation that keeps no state."""
    settings = {"n_startup": 10, "candidates": 24, "gamma": 0.25, "max_good": 25, "prior_weight": 1.0} | parameters
    tpe = TPE(space, np.random.default_rng(3), **settings)
    rng, values, history = np.random.default_rng(3), np.random.default_rng(4), []
    for i in range(150):
        arch = tpe.ask().arch
        assert arch == slow_proposal(history, space, rng, **settings), i
        value = NAN if values.random() < 0.2 else round(sum(arch) / 30 + values.random() / 5, 2)
        history.append((arch, value))
        tell(tpe, arch, value)


@pytest.mark.parametrize("space", [Box(1), Box(1, 1, 1), Box(2), OneOf64(2, 2, 2, 2, 2, 2), Box(*[8] * 28)])
@pytest.mark.parametrize("value", [NAN, 0.5, None])
def test_any_space_and_any_values(space, value):
    """One architecture, a single valid one, or 8**28; all trials fail, are equal or differ; more trials than architectures."""
    tpe = TPE(space, np.random.default_rng(0))
    for _ in range(100):
        arch = tpe.ask().arch
        space.check(arch)
        tell(tpe, arch, sum(arch) / 200 if value is None else value)


def test_nasbench101():
    """Twenty-six dimensions and a constraint."""
    space = NASBench101Space()
    tpe = TPE(space, np.random.default_rng(0))
    for _ in range(200):
        arch = tpe.ask().arch
        space.check(arch)
        tell(tpe, arch, sum(arch) / 30)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_startup": -1},
        {"candidates": 0},
        {"max_good": 0},
        {"gamma": 0.0},
        {"gamma": NAN},
        {"prior_weight": 0.0},
        {"prior_weight": math.inf},
    ],
)
def test_hyper_parameters_are_checked(parameters):
    """Values that make no densities are refused, and the message names the parameter."""
    with pytest.raises(ValueError, match=next(iter(parameters))):
        TPE(Box(3, 2), np.random.default_rng(0), **parameters)


def test_golden_run():
    """A run on digits201 is what it was when it was first recorded."""
    assert run(NAME, "digits201", Budget(evaluations=200), seed=1).fingerprint()[:16] == "cd351bf833943dff"


def test_beats_random_search():
    """On digits201, validation regret after 300 evaluations, 160 paired runs: TPE is better at z > 3.8 (p < 1e-4)."""
    benchmark = load("digits201")

    def regrets(name):
        runs = [run(name, benchmark, Budget(evaluations=300), repetition=r) for r in range(160)]
        return np.array([r.regret(benchmark, "validation")[-1] for r in runs])

    difference = regrets("random_search") - regrets(NAME)
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
    assert z > 3.8, z
