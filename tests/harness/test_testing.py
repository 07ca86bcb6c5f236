"""The conformance suite catches what it is there for: each mutant breaks one rule, and the check for it says so."""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from nasharness import CheckError, Optimizer, Proposal, check
from nasharness.harness.testing import run_checks
from nasharness.optimizers.regularized_evolution import RegularizedEvolution


def sampling(**methods):
    """A random search in which some methods are replaced."""
    return type(
        "Mutant",
        (Optimizer,),
        {"ask": lambda self: Proposal(self.space.sample(self.rng)), "tell": lambda self, trial: None, **methods},
    )


class HiddenSource(RegularizedEvolution):
    def ask(self):
        return Proposal(tuple(np.random.randint(0, n) for n in self.space.cardinalities))  # noqa: NPY002


class HiddenPythonRandom(RegularizedEvolution):
    def ask(self):
        arch = super().ask().arch
        return Proposal((random.choice(range(self.space.cardinalities[0])), *arch[1:]))


class SeedIgnored(RegularizedEvolution):
    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.rng_given, self.rng = rng, rng
        self.own = np.random.default_rng(0)

    def ask(self):
        return Proposal(self.space.sample(self.own))


class SetOrder(Optimizer):
    """Iterates over a set of strings, whose order depends on the process."""

    def ask(self):
        seen = {self.space.to_string(self.space.sample(self.rng)) for _ in range(20)}
        return Proposal(self.space.from_string(next(iter(seen))))

    def tell(self, trial):
        pass


class LeavesTheSpace(RegularizedEvolution):
    def ask(self):
        arch = super().ask().arch
        return Proposal((arch[0] + 1, *arch[1:]))


class NaNWins(RegularizedEvolution):
    """A tournament by `max` over pairs in which NaN ranks first."""

    def tell(self, trial):
        self._alive.append((2.0 if math.isnan(trial.value) else trial.value, trial.arch))


class NaNRaises(RegularizedEvolution):
    def tell(self, trial):
        self._alive.append((int(trial.value * 1000), trial.arch))


class SortsNaN(Optimizer):
    """Mutates the last of a sorted history, and NaN leaves a list half sorted."""

    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.history = []

    def ask(self):
        if len(self.history) < 20:
            return Proposal(self.space.sample(self.rng))
        return Proposal(self.space.mutate(sorted(self.history, key=lambda pair: pair[0])[-1][1], self.rng))

    def tell(self, trial):
        self.history.append((trial.value, trial.arch))


class PlainRandom(Optimizer):
    """Seeds Python's own generator, which everybody shares."""

    def __init__(self, space, rng):
        super().__init__(space, rng)
        random.seed(int(rng.integers(2**31)))  # noqa: TID251

    def ask(self):
        return Proposal(tuple(random.randrange(n) for n in self.space.cardinalities))

    def tell(self, trial):
        pass


class SharedState(Optimizer):
    """Keeps its count on the class."""

    count = [0]

    def ask(self):
        self.count[0] += 1
        arch = self.space.sample(self.rng)
        return Proposal(arch if self.count[0] % 2 else tuple(0 for _ in arch))

    def tell(self, trial):
        pass


class NumpyInts(Optimizer):
    def ask(self):
        return Proposal(tuple(np.array(self.space.sample(self.rng))))

    def tell(self, trial):
        pass


class ChangesTrial(Optimizer):
    def ask(self):
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial):
        trial.curve[:] = 0


class ChangesSpace(Optimizer):
    def ask(self):
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial):
        self.space.cardinalities = (*self.space.cardinalities[:-1], 1)


class NoSuper(Optimizer):
    def __init__(self, space, rng):
        self.s, self.r = space, rng

    def ask(self):
        return Proposal(self.s.sample(self.r))

    def tell(self, trial):
        pass


class NeedsArgument(RegularizedEvolution):
    def __init__(self, space, rng, depth):
        super().__init__(space, rng)


class BadPreset(RegularizedEvolution):
    presets = {"big": {"size": 3}}


class AssumesEqualCardinalities(Optimizer):
    def ask(self):
        return Proposal(
            tuple(int(x) for x in self.rng.integers(0, max(self.space.cardinalities), len(self.space.cardinalities)))
        )

    def tell(self, trial):
        pass


MUTANTS = {
    HiddenSource: ("check_same_seed_same_run", "draw only from self.rng"),
    HiddenPythonRandom: ("check_same_seed_same_run", "draw only from self.rng"),
    SeedIgnored: ("check_seed_matters", "four seeds gave one run"),
    SetOrder: ("check_other_process", "iterates over a set"),
    LeavesTheSpace: ("check_proposals", "which is not in"),
    NaNWins: ("check_failed_never_wins", "count a failed trial as the worst"),
    NaNRaises: ("check_failed_trials", "cannot convert float NaN"),
    SortsNaN: ("check_failed_disturb_nothing", "count a failed trial as the worst"),
    PlainRandom: ("check_same_seed_same_run", "not from `random`"),
    SharedState: ("check_order_independent", "keep state on the instance"),
    NumpyInts: ("check_proposals", "plain tuple of Python ints"),
    ChangesTrial: ("check_leaves_trial_alone", "read-only"),
    ChangesSpace: ("check_leaves_trial_alone", "changed the space"),
    NoSuper: ("check_constructor", "super().__init__"),
    NeedsArgument: ("check_constructor", "missing a required argument"),
    BadPreset: ("check_presets", "preset 'big' cannot be made"),
    AssumesEqualCardinalities: ("check_any_space", "which is not in"),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_caught(mutant, monkeypatch):
    """Each broken optimizer fails the check that is about it, with words that say what to fix."""
    name, words = MUTANTS[mutant]
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # a fresh process must be able to import this file
    if mutant is NeedsArgument:
        with pytest.raises(ValueError, match=words):
            list(run_checks(mutant))
        return
    problems = {r.name: r.problem for r in run_checks(mutant) if r.problem is not None}
    assert name in problems
    assert words in problems[name]


def test_what_needs_a_reproducible_run_is_skipped_without_one():
    """A hidden source of chance is reported once, and not again under other names."""
    results = list(run_checks(HiddenSource))
    assert "check_same_seed_same_run" in {r.name for r in results if r.problem}
    assert {"check_constant_objective", "check_other_process"} <= {r.name for r in results if r.skipped}


def test_check_raises_with_every_failure():
    """`check` raises one error that lists all failed checks."""
    with pytest.raises(CheckError, match=r"(?s)checks failed:.*check_proposals.*check_any_space"):
        check(LeavesTheSpace)


def test_check_returns_outcomes_of_a_good_optimizer():
    """A conforming class passes everything."""
    assert all(r.problem is None for r in check(sampling()))
