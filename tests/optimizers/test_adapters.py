"""Optimizers and search spaces of other packages: Optuna, Nevergrad and ConfigSpace, where they are installed."""

import sys

import numpy as np
import pytest

from nasharness import Budget, InvalidArchitecture, Proposal, RunError, SearchSpace, Trial, run
from nasharness.benchmarks.spaces.configspace import from_configuration, to_configspace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.ask_tell import AskTell, Nevergrad
from nasharness.optimizers.optuna import OptunaSampler

OPTUNA = "nasharness.optimizers.optuna:OptunaSampler"
NEVERGRAD = "nasharness.optimizers.ask_tell:Nevergrad"
NAN = float("nan")
NONE = np.zeros(0, dtype=np.float32)


class Box(SearchSpace):
    """A space of given cardinalities."""

    name = "box"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class Odd(Box):
    """Choices with an odd sum."""

    def is_valid(self, arch):
        return super().is_valid(arch) and sum(arch) % 2 == 1


class OneOf64(Box):
    """Six bits, of which only the zeros are valid."""

    def is_valid(self, arch):
        return super().is_valid(arch) and not any(arch)


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


@pytest.fixture
def missing(monkeypatch):
    """Make a package look as if it were not installed."""
    return lambda package: monkeypatch.setitem(sys.modules, package, None)


# ---------------------------------------------------------------------------------------------------- anything with ask and tell


class Listed:
    """Proposes from a list and writes down what it is told."""

    def __init__(self, *candidates):
        self.candidates = list(candidates)
        self.told = []

    def ask(self):
        return self.candidates.pop(0) if len(self.candidates) > 1 else self.candidates[0]

    def tell(self, candidate, loss):
        self.told.append((candidate, loss))


def test_losses_are_errors_and_invalid_candidates_the_worst():
    """Of the candidates (0, 0), (0, 1), (1, 1), (1, 0), those with an even sum are told a loss of 1 and passed over."""
    listed = Listed([0, 0], np.array([0, 1]), (1, 1), (1, 0))
    search = AskTell(Odd(2, 2), np.random.default_rng(0), make=lambda space, rng: listed)
    assert search.ask() == Proposal((0, 1))
    tell(search, (0, 1), 0.75)
    assert search.ask() == Proposal((1, 0))
    tell(search, (1, 0), NAN)
    assert [loss for _, loss in listed.told] == [1.0, 0.25, 1.0, 1.0]


def test_only_invalid_candidates_end_in_a_random_architecture():
    """A hundred of them are told; the random architecture is not, because it is not the object's."""
    listed = Listed((1, 1))
    search = AskTell(Odd(2, 2), np.random.default_rng(0), make=lambda space, rng: listed)
    arch = search.ask().arch
    assert sum(arch) == 1
    tell(search, arch, 0.5)
    assert listed.told == [((1, 1), 1.0)] * 100


@pytest.mark.parametrize("candidate", [(0,), (0, 1, 0), (0, 2), (-1, 0)])
def test_candidates_of_another_space_are_refused(candidate):
    """Too few choices, too many, or one out of range: the adapter is wrong, and the message says where."""
    search = AskTell(Odd(2, 2), np.random.default_rng(0), make=lambda space, rng: Listed(candidate))
    with pytest.raises(InvalidArchitecture, match=r"box"):
        search.ask()


def test_choices_are_read_from_candidates():
    """`make` gets the space and the generator, `choices` every candidate."""
    seen = []

    def make(space, rng):
        seen.append((space, rng))
        return Listed({"a": 1, "b": 0})

    space, rng = Box(2, 2), np.random.default_rng(0)
    search = AskTell(space, rng, make=make, choices=lambda candidate: (candidate["a"], candidate["b"]))
    assert search.ask() == Proposal((1, 0))
    assert seen == [(space, rng)]


# ------------------------------------------------------------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("name", "package", "extra"), [(OPTUNA, "optuna", "optuna"), (NEVERGRAD, "nevergrad", "nevergrad")]
)
def test_a_missing_package_is_named(missing, name, package, extra):
    """With what to type."""
    missing(package)
    with pytest.raises(RunError, match=rf"not installed: pip install 'nasharness\[{extra}\]'"):
        run(name, "digits201", 1)


def test_missing_configspace_is_named(missing):
    """With what to type."""
    missing("ConfigSpace")
    with pytest.raises(ImportError, match=r"not installed: pip install 'nasharness\[configspace\]'"):
        to_configspace(Box(2))


SEARCHES = [
    pytest.param(OPTUNA, "optuna", id="TPESampler"),
    pytest.param(f"{OPTUNA}(sampler='NSGAIISampler')", "optuna", id="NSGAIISampler"),
    pytest.param(f"{OPTUNA}(sampler='RandomSampler')", "optuna", id="RandomSampler"),
    pytest.param(NEVERGRAD, "nevergrad", id="OnePlusOne"),
    pytest.param(f"{NEVERGRAD}(optimizer='DE')", "nevergrad", id="DE"),
]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "package"), SEARCHES)
def test_conformance(name, package, check):
    """Searches of other packages keep every rule of the conformance suite."""
    pytest.importorskip(package)
    check(optimizer_spec(name))


@pytest.mark.parametrize(("name", "package"), SEARCHES)
def test_same_seed_same_run(name, package):
    """On digits201, the same again and another one with another seed."""
    pytest.importorskip(package)
    first, again, other = (
        run(name, "digits201", Budget(evaluations=30), seed=seed).fingerprint() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(("name", "package"), SEARCHES)
@pytest.mark.parametrize("space", [Box(1), Box(2, 1), Odd(2, 3, 1, 4), OneOf64(2, 2, 2, 2, 2, 2), NASBench101Space()])
def test_any_space(name, package, space):
    """One architecture, a single valid one, many constraints; every third trial fails."""
    pytest.importorskip(package)
    search = optimizer_spec(name).make(space, np.random.default_rng(0))
    for i in range(7):
        arch = search.ask().arch
        space.check(arch)
        assert all(type(choice) is int for choice in arch)
        tell(search, arch, NAN if i % 3 == 0 else sum(arch) / 40)


def test_optuna_is_told_the_values():
    """Accuracies as they are, a failed trial as 0, an invalid suggestion as pruned; parameters are categorical."""
    optuna = pytest.importorskip("optuna")
    search = OptunaSampler(Odd(3, 3), np.random.default_rng(0), sampler="RandomSampler")
    archs = []
    for value in (0.5, NAN, 0.25):
        archs.append(search.ask().arch)
        tell(search, archs[-1], value)
    trials = search._study.trials
    done = [t for t in trials if t.state.name == "COMPLETE"]
    assert [(t.params["d0"], t.params["d1"]) for t in done] == archs
    assert [t.value for t in done] == [0.5, 0.0, 0.25]
    assert all(sum(t.params.values()) % 2 == 0 for t in trials if t.state.name == "PRUNED")
    assert done[0].distributions["d0"] == optuna.distributions.CategoricalDistribution((0, 1, 2))


def test_optuna_is_quiet_and_stays_as_it_is(capfd):
    """No line of its log per run, no warning of an experimental option, and its verbosity is put back."""
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    run(f"{OPTUNA}(sampler_parameters={{'multivariate': True}})", "digits201", 15)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sampler": "TpeSampler"}, r"no sampler 'TpeSampler'; it has .*NSGAIISampler.*TPESampler"),
        ({"sampler": "BaseSampler"}, r"no sampler 'BaseSampler'"),
        ({"sampler": "CmaEsSampler"}, r"no categorical parameters"),
        ({"sampler": "GridSampler"}, r"use grid_search"),
        ({"sampler_parameters": {"seed": 1}}, r"must not have a seed"),
        ({"sampler_parameters": {"depth": 1}}, r"cannot be made from {'depth': 1}.*unexpected keyword"),
    ],
)
def test_optuna_samplers_are_checked(parameters, message):
    """An unknown sampler, one that would only draw at random, and parameters that it does not take."""
    pytest.importorskip("optuna")
    with pytest.raises(ValueError, match=message):
        OptunaSampler(Box(3, 2), np.random.default_rng(0), **parameters)


def test_nevergrad_optimizers_are_checked():
    """An unknown one is refused with those that are spelled alike."""
    pytest.importorskip("nevergrad")
    with pytest.raises(ValueError, match=r"no optimizer 'OnePlusOn'; among its \d+ are .*OnePlusOne"):
        Nevergrad(Box(3, 2), np.random.default_rng(0), optimizer="OnePlusOn")


def test_nevergrad_knows_its_budget():
    """NGOpt chooses by it."""
    pytest.importorskip("nevergrad")
    search = Nevergrad(Box(3, 2), np.random.default_rng(0), optimizer="NGOpt", budget=50)
    assert search._wrapped.budget == 50


# ----------------------------------------------------------------------------------------------------------------- ConfigSpace


def test_configspace_there_and_back():
    """Names of the dimensions, their choices, and 50 configurations as architectures."""
    package = pytest.importorskip("ConfigSpace")
    space = Box(*range(1, 13))
    converted = to_configspace(space, seed=1)
    assert set(converted) == {f"d{d}" for d in range(12)}
    assert all(type(p) is package.CategoricalHyperparameter for p in converted.values())
    assert all(tuple(converted[f"d{d}"].choices) == tuple(range(n)) for d, n in enumerate(space.cardinalities))
    archs = {from_configuration(space, configuration) for configuration in converted.sample_configuration(50)}
    assert len(archs) > 40
    for arch in archs:
        assert space.check(arch) == arch
        assert type(arch[-1]) is int
        assert from_configuration(space, {f"d{d}": choice for d, choice in enumerate(arch)}) == arch


def test_configurations_that_break_a_constraint_are_refused():
    """ConfigSpace cannot know it."""
    with pytest.raises(InvalidArchitecture, match="not a valid architecture"):
        from_configuration(Odd(2, 2), {"d0": 1, "d1": 1})


@pytest.mark.parametrize(
    "configuration", [{}, {"d0": 0}, {"d0": 0, "d1": 0, "d2": 0}, {"d0": 0, "x": 0}, {"d0": 0, "d1": "0"}]
)
def test_configurations_of_another_space_are_refused(configuration):
    """A dimension is missing, another one is there, or its choice is no number."""
    with pytest.raises(InvalidArchitecture):
        from_configuration(Box(2, 2), configuration)


def test_nasbench201_as_a_configspace():
    """15,625 configurations."""
    pytest.importorskip("ConfigSpace")
    assert to_configspace(NASBench201Space()).estimate_size() == 15_625
    assert NASBench201Space().to_configspace() == to_configspace(NASBench201Space())
