"""The conformance suite for proxies catches what it is there for: each mutant breaks one rule, and its check says so."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nasharness import CheckError, check
from nasharness.harness import proxy_testing
from nasharness.harness.proxy_testing import NEED_THE_SAME_SCORE, PROXY_CHECKS
from nasharness.harness.registry import entry_points, proxy_spec
from nasharness.harness.testing import CHECKS, run_checks
from nasharness.optimizers.random_search import RandomSearch
from nasharness.proxies.base import Proxy, ProxyError, RankProxy, ranks
from nasharness.proxies.naswot import NASWOT


class Good(Proxy):
    """Weighs the network on a random line, reads the images, and refuses what has no batch normalisation."""

    presets = {"long": {"scale": 2.0}}
    n_images = 8

    def __init__(self, rng=None, *, scale=1.0):
        super().__init__(rng)
        self.scale = scale

    def score(self, network, images, labels):
        if not any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
            raise ProxyError("there is no batch normalisation in this network")
        line = torch.randn(10, generator=self.rng)
        with torch.no_grad():
            return self.scale * float((network(images) @ line).mean() + images.abs().mean())


class GoodRank(RankProxy):
    parts = ("size", "mean")
    n_images = 0

    def measure(self, network, images, labels):
        weights = [p.detach() for p in network.parameters()]
        return float(sum(w.numel() for w in weights)), float(sum(w.mean() for w in weights))

    def aggregate(self, measured):
        return ranks(measured[:, 0]) + ranks(measured[:, 1])


class RngSecond(Good):
    def __init__(self, scale=1.0, rng=None):
        super().__init__(rng, scale=scale)


class NeedsArgument(Good):
    def __init__(self, rng=None, *, depth=None):
        super().__init__(None)


class BadPreset(Good):
    presets = {"big": {"size": 3}}


class ReturnsTensor(Good):
    def score(self, network, images, labels):
        return torch.tensor(1.0)


class ReturnsNaN(Good):
    def score(self, network, images, labels):
        spread = images.std()
        return float(spread / spread)


class NeedsColour(Good):
    def score(self, network, images, labels):
        return float(images[:, 2].mean())


class CannotBeDisconnected(Good):
    def score(self, network, images, labels):
        outputs = network(images)
        return math.log(float((outputs - outputs.mean(0)).detach().abs().sum()) - 1e-3)


class RefusesTwoImages(Good):
    def score(self, network, images, labels):
        if len(images) < 8:
            raise ProxyError("too few images")
        return super().score(network, images, labels)


class TooFewParts(Good):
    parts = ("one", "two")


class BadParts(Good):
    parts = ["one"]


class BadNumber(Good):
    n_images = None


class GlobalTorch(Good):
    def score(self, network, images, labels):
        return float(torch.randn(1))


class SeedsTorch(Good):
    """Reproducible, at everybody else's cost."""

    def score(self, network, images, labels):
        torch.manual_seed(0)
        return float(torch.randn(1))


class SeedsNumPy(Good):
    def score(self, network, images, labels):
        np.random.seed(0)  # noqa: NPY002, TID251
        return float(np.random.random())  # noqa: NPY002


class PlainRandom(Good):
    def score(self, network, images, labels):
        return random.random()


class SharedState(Good):
    count = [0]

    def score(self, network, images, labels):
        self.count[0] += 1
        return float(self.count[0])


class KeepsTheLargest(Good):
    """Scores by the largest network that the class has seen."""

    largest = [0.0]

    def score(self, network, images, labels):
        size = float(sum(p.numel() for p in network.parameters()))
        self.largest[0] = max(self.largest[0], size)
        return size / self.largest[0]


class LeavesHook(Good):
    def score(self, network, images, labels):
        network.register_forward_hook(lambda *_: None)
        return 1.0


class ReplacesForward(Good):
    def score(self, network, images, labels):
        network.forward = lambda x: x
        return 1.0


class ChangesClass(Good):
    def score(self, network, images, labels):
        network.classifier.__class__ = type("Other", (nn.Linear,), {})
        return 1.0


class ChangesImages(Good):
    def score(self, network, images, labels):
        images.zero_()
        return 1.0


class ChangesLabels(Good):
    def score(self, network, images, labels):
        labels.zero_()
        return 1.0


class ReadsLabels(Good):
    def score(self, network, images, labels):
        return float(labels.sum())


class ReadsImages(Good):
    n_images = 0

    def score(self, network, images, labels):
        return float(images.sum())


class NotDeterministic(Good):
    deterministic = True


class AggregatesNaN(GoodRank):
    def aggregate(self, measured):
        return (measured[:, 0] - measured[:, 0].mean()) / measured[:, 0].std()


class AggregatesByPlace(GoodRank):
    def aggregate(self, measured):
        return np.arange(len(measured)) + 0.0


class AggregatesTooMuch(GoodRank):
    def aggregate(self, measured):
        return measured


class AggregatesInPlace(GoodRank):
    def aggregate(self, measured):
        measured[:, 0] += 1
        return ranks(measured[:, 0])


class SetOrder(Good):
    """Adds up over a set of strings, whose order depends on the process."""

    def score(self, network, images, labels):
        names = {name for name, _ in network.named_parameters()}
        return float(sum(i * len(name) for i, name in enumerate(names)))


MUTANTS = {
    RngSecond: ("check_constructor", "must take rng first"),
    NeedsArgument: ("check_constructor", r"super\(\).__init__\(rng\)"),
    BadPreset: ("check_presets", "preset 'big' cannot be made"),
    ReturnsTensor: ("check_scores", "a Python float, not tensor"),
    ReturnsNaN: ("check_scores", "images that are all alike: the score is NaN"),
    NeedsColour: ("check_scores", "one channel: IndexError"),
    CannotBeDisconnected: ("check_scores", "a cell whose output nothing reaches: ValueError"),
    RefusesTwoImages: ("check_scores", "two images: ProxyError: too few"),
    TooFewParts: ("check_scores", "one number each for one, two"),
    BadParts: ("check_scores", "tuple of names"),
    BadNumber: ("check_scores", "whole number from 0"),
    GlobalTorch: ("check_same_seed_same_score", "generator=self.rng"),
    SeedsTorch: ("check_same_seed_same_score", "seeds torch's global generator"),
    SeedsNumPy: ("check_same_seed_same_score", "seeds NumPy's global generator"),
    PlainRandom: ("check_same_seed_same_score", "Python's"),
    SharedState: ("check_same_seed_same_score", "the same seed gave"),
    KeepsTheLargest: ("check_order_independent", "after another was scored"),
    LeavesHook: ("check_leaves_network_alone", "hooks of the network changed"),
    ReplacesForward: ("check_leaves_network_alone", "attributes of the network changed"),
    ChangesClass: ("check_leaves_network_alone", "class of module 'classifier' changed"),
    ChangesImages: ("check_leaves_network_alone", "images changed"),
    ChangesLabels: ("check_leaves_network_alone", "labels changed"),
    ReadsLabels: ("check_uses_labels", "set uses_labels = True"),
    ReadsImages: ("check_n_images", "declare them by n_images"),
    NotDeterministic: ("check_deterministic", "set deterministic = False"),
    AggregatesNaN: ("check_aggregate", "what is not finite in the table"),
    AggregatesByPlace: ("check_aggregate", "order of the candidates"),
    AggregatesTooMuch: ("check_aggregate", r"shape \(5, 2\), not \(5,\)"),
    AggregatesInPlace: ("check_aggregate", "changed the table"),
    SetOrder: ("check_other_process", "iterates over a set"),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # AggregatesNaN computes with infinities
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_mutants_are_caught(mutant, monkeypatch):
    """Each broken proxy fails the check that is about it, with words that say what to fix."""
    name, words = MUTANTS[mutant]
    KeepsTheLargest.largest[0] = 0.0
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # a fresh process must be able to import this file
    with pytest.raises(AssertionError, match=words):
        getattr(proxy_testing, name)(proxy_spec(mutant))


def test_every_check_has_a_mutant():
    assert {name for name, _ in MUTANTS.values()} == {check.__name__ for check in PROXY_CHECKS}


@pytest.mark.parametrize("check", [c for c in PROXY_CHECKS if "process" not in c.__name__], ids=lambda c: c.__name__)
@pytest.mark.parametrize("proxy", [Good, GoodRank, NASWOT], ids=lambda p: p.__name__)
def test_good_proxies_pass(proxy, check):
    check(proxy_spec(proxy))


def test_check_takes_a_class():
    """`nasharness.check` sends a proxy to the checks for proxies, all of them."""
    assert [r.name for r in check(Good)] == [c.__name__ for c in PROXY_CHECKS]
    with pytest.raises(CheckError, match=r"(?s)2 of 11 checks failed:.*check_presets.*check_uses_labels"):
        check(type("Both", (ReadsLabels,), {"presets": {"big": {"size": 3}}, "n_images": 4}))


def test_what_needs_a_reproducible_score_is_skipped_without_one():
    results = list(run_checks(GlobalTorch))
    assert {r.name for r in results if r.skipped} == {c.__name__ for c in NEED_THE_SAME_SCORE}


def test_ids_go_to_the_checks_of_their_kind(monkeypatch):
    """A name, a preset, parameters, a module's class, a spec; of a name that is both, the optimizer's."""
    path = "nasharness.proxies.naswot:NASWOT"
    for proxy in ("naswot", "params", path, f"{path}(  )", proxy_spec("naswot"), NASWOT):
        assert next(run_checks(proxy)).name == PROXY_CHECKS[0].__name__
        assert next(run_checks(proxy)).name not in {check.__name__ for check in CHECKS} - {"check_constructor"}
    from nasharness.harness import testing

    assert testing._group("naswot") == "proxies"
    for optimizer in (
        "random_search",
        "optuna:TPESampler",
        "nasharness.optimizers.random_search:RandomSearch",
        RandomSearch,
        "zzz",
    ):
        assert testing._group(optimizer) == "optimizers"
    both = {**entry_points("optimizers"), "naswot": entry_points("optimizers")["random_search"]}
    monkeypatch.setattr(testing, "entry_points", lambda group: both if group == "optimizers" else entry_points(group))
    assert testing._group("naswot") == "optimizers"


def test_the_command_takes_a_proxy(capsys):
    """`nasharness check naswot` runs the proxies' checks."""
    from typer.testing import CliRunner

    from nasharness.harness.cli import app

    done = CliRunner().invoke(app, ["check", "params", "--json"])
    assert done.exit_code == 0
    assert set(json.loads(done.output)["checks"]) == {c.__name__ for c in PROXY_CHECKS}


@pytest.mark.slow
@pytest.mark.parametrize("name", entry_points("proxies"))
def test_every_registered_proxy_conforms(name):
    check(name)
