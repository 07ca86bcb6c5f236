"""REINFORCE against a trace worked out by hand, torch's gradients and Adam, and the published numbers."""

from pathlib import Path

import numpy as np
import pytest

from nasharness import Budget, Proposal, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.reinforce import Adam, Reinforce

ID = "nasharness.optimizers.reinforce:Reinforce"
NONE = np.zeros(0, dtype=np.float32)
NAN = float("nan")


class Uneven(SearchSpace):
    name = "uneven"

    def __init__(self, *cardinalities):
        self.cardinalities = cardinalities


class Same(Uneven):
    """Valid only where all choices are equal."""

    def is_valid(self, arch):
        return super().is_valid(arch) and len(set(arch)) == 1


class Script:
    """A generator whose uniform numbers are written down beforehand, and whose normal ones are all zero."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, n):
        return np.array([self.draws.pop(0) for _ in range(n)])

    def standard_normal(self, shape):
        return np.zeros(shape)


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [ID, f"{ID}(learning_rate=0.5, momentum=0.0)"])
def test_conformance(name, check):
    """Every rule of the conformance suite, also where the policy settles within a run."""
    check(optimizer_spec(name))


def test_three_trials_by_hand():
    """Two arms, all logits zero, learning rate 0.1.

    1. pi = (.5, .5), cumulative (.5, 1); draw 0.3 -> choice 0, reward .6. Baseline: .1 * .6 / .1 = .6, the advantage is 0
       and nothing moves, but Adam has made its first step.
    2. Draw 0.7 -> choice 1, reward .8. Baseline: (.9 * .06 + .1 * .8) / (.9 * .1 + .1) = .134 / .19 = .7052632; advantage
       .0947368. Gradient: .0947368 * (.5 - 0, .5 - 1) = (.0473684, -.0473684) =: (g, -g).
       Adam, step 2: mean .1 g / (1 - .9^2) = .5263158 g; square .001 g^2 / (1 - .999^2) = .5002501 g^2, its root .7072836 g;
       so the logits move by -+ .1 * .5263158 / .7072836 = -+ .0744137. pi_1 = 1 / (1 + exp(-.1488274)) = .5371383.
    3. pi_0 = .4628617, so a draw of 0.46 is choice 0 and one of 0.47 is choice 1.
    """
    search = Reinforce(Uneven(2), Script(0.3, 0.7, 0.46, 0.47), learning_rate=0.1)
    assert search.ask() == Proposal((0,))
    tell(search, (0,), 0.6)
    assert search.policy.tolist() == [[0.5, 0.5]]
    assert search.ask() == Proposal((1,))
    tell(search, (1,), 0.8)
    assert search.policy[0, 1] == pytest.approx(0.5371383, abs=1e-6)  # Adam's epsilon moves the seventh digit
    assert [search.ask().arch, search.ask().arch] == [(0,), (1,)]


def test_gradient_and_adam_are_those_of_torch():
    """100 trials on cardinalities (3, 1, 4): the loss -(r - b) log p(a) of torch, by autograd and torch.optim.Adam."""
    torch = pytest.importorskip("torch")
    space = Uneven(3, 1, 4)
    rng = np.random.default_rng(0)
    search = Reinforce(space, np.random.default_rng(1), learning_rate=0.05, momentum=0.8)
    logits = [torch.tensor(np.log(p[:n]), requires_grad=True) for p, n in zip(search.policy, (3, 1, 4), strict=True)]
    adam = torch.optim.Adam(logits, lr=0.05)
    rewards = []
    for _ in range(100):
        arch = search.ask().arch
        rewards.append(rng.random())
        weights = 0.8 ** np.arange(len(rewards))[::-1]
        baseline = np.dot(weights, rewards) / weights.sum()  # the definition, anew for every trial
        log_p = sum(row.log_softmax(dim=0)[choice] for row, choice in zip(logits, arch, strict=True))
        adam.zero_grad()
        (-(rewards[-1] - baseline) * log_p).backward()
        adam.step()
        tell(search, arch, rewards[-1])
        for row, ours in zip(logits, search.policy, strict=True):
            expected = row.softmax(dim=0).detach().numpy()
            assert ours[: len(expected)] == pytest.approx(expected, abs=1e-9)
            assert not ours[len(expected) :].any()


def test_adam_steps_by_the_learning_rate_at_first():
    """Step 1: mean g and root of the square |g|, so every coordinate moves by the learning rate against its gradient."""
    assert Adam(0.01).step(np.array([5.0, -0.2, 0.0])) == pytest.approx([-0.01, 0.01, 0.0], abs=1e-9)


def test_choices_are_drawn_with_the_probabilities_of_the_policy():
    """6,000 draws from a policy far from uniform: chi-squared of six cells stays below 20.5 (p = 0.001)."""
    search = Reinforce(Uneven(3, 2), np.random.default_rng(0), learning_rate=0.5)
    for arch, value in (((0, 0), 0.1), ((1, 1), 0.9), ((2, 1), 0.3)):
        tell(search, arch, value)
    expected = 6000 * np.outer(search.policy[0], search.policy[1, :2])
    assert expected.max() > 2 * expected.min()
    counts = np.zeros((3, 2))
    for _ in range(6000):
        counts[search.ask().arch] += 1
    assert ((counts - expected) ** 2 / expected).sum() < 20.5


def test_the_policy_settles_on_the_best_arm():
    """A bandit of five arms with noise: after 2,000 pulls the best has more than 95 % in each of five runs.

    The best arm leads by 0.1, the noise has a standard deviation of 0.05.
    """
    means = (0.3, 0.5, 0.6, 0.4, 0.2)
    for seed in range(5):
        noise = np.random.default_rng(1000 + seed)
        search = Reinforce(Uneven(5), np.random.default_rng(seed), learning_rate=0.02)
        for _ in range(2000):
            arch = search.ask().arch
            tell(search, arch, means[arch[0]] + 0.05 * noise.standard_normal())
        assert search.policy[0, 2] > 0.95


def test_a_failed_trial_counts_as_the_worst_so_far():
    """A NaN after .5 and .7 does what .5 does; NaNs before the first success do nothing."""
    failing, worst = (Reinforce(Uneven(4, 3), np.random.default_rng(0), learning_rate=0.1) for _ in range(2))
    for _ in range(3):
        tell(failing, (0, 0), NAN)
    for search, value in ((failing, NAN), (worst, 0.5)):
        for arch, seen in (((1, 2), 0.7), ((2, 2), 0.5), ((3, 1), value), ((0, 1), 0.6)):
            tell(search, arch, seen)
    assert failing.policy.tolist() == worst.policy.tolist()


@pytest.mark.parametrize("value", [0.3, NAN])
def test_nothing_to_learn_leaves_the_policy_alone(value):
    """Equal rewards and failures everywhere: the policy stays uniform but for its first 1e-3."""
    search = Reinforce(NASBench201Space(), np.random.default_rng(0), learning_rate=0.5)
    for _ in range(300):
        tell(search, search.ask().arch, value)
    assert search.policy == pytest.approx(np.full((6, 5), 0.2), abs=2e-3)


@pytest.mark.parametrize("space", [Uneven(1, 1), Uneven(1, 3), DARTSSpace(), NASBench101Space(), Same(3, 3)])
def test_every_space(space):
    """A single architecture, dimensions without choice, 10^18 architectures, and constraints; also once it is exhausted."""
    search = Reinforce(space, np.random.default_rng(0), learning_rate=0.3)
    for i in range(200):
        arch = search.ask().arch
        assert space.check(arch) == arch
        tell(search, arch, 0.5 + 0.001 * (sum(arch) + i % 3))
    assert np.isfinite(search.policy).all()
    assert search.policy.sum(axis=1) == pytest.approx(1)


def test_a_policy_that_draws_nothing_valid_still_proposes():
    """Where the two dimensions agree on nothing (probabilities below 1e-40), the proposal is drawn from the space."""
    search = Reinforce(Same(2, 2), np.random.default_rng(0))
    search._logits = np.array([[100.0, 0.0], [0.0, 100.0]])
    search._follow_logits()
    assert {search.ask().arch for _ in range(20)} == {(0, 0), (1, 1)}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive"),
        ({"learning_rate": NAN}, "learning_rate must be positive"),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"momentum": -0.1}, "momentum must be in"),
    ],
)
def test_hyper_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        Reinforce(Uneven(2), np.random.default_rng(0), **parameters)


def test_golden_run():
    """A run of 300 trials on digits201 is what it was when it was first recorded."""
    assert run(ID, "digits201-v1", Budget(evaluations=300), seed=1).fingerprint()[:16] == "7ea17d2893c65c5f"


def test_beats_random_search_on_real_data():
    """On digits201, final validation accuracy after 1,000 evaluations, 40 runs each: better at z > 3.8 (p < 1e-4)."""
    benchmark = load("digits201-v1")

    def accuracies(name):
        chosen = [run(name, benchmark, Budget(evaluations=1000), repetition=r).incumbent for r in range(40)]
        return benchmark.final_many(chosen).val_accuracy

    ours, random = accuracies(ID), accuracies("random_search")
    error = np.sqrt((ours.var(ddof=1) + random.var(ddof=1)) / 40)
    assert ours.mean() - random.mean() > 3.8 * error


@pytest.mark.slow
def test_published_accuracy_on_nasbench201(shared_data, tmp_path, monkeypatch):
    """NATS-Bench, table 4 (CIFAR-10, 20,000 simulated seconds): 91.12 +- 0.25 validation, 93.90 +- 0.26 test, 500 runs.

    Two means of 200 and 500 runs differ by a standard error of 0.022; 0.066 is three of them (p = 0.003 each).
    """
    pytest.importorskip("pyarrow", reason="reading parquet needs pyarrow")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs"))
    from nasbench201_protocol import as_benchmark

    benchmark = as_benchmark(shared_data / "nb201.parquet", tmp_path)
    runs = [run(f"{ID}@nats", benchmark, Budget(seconds=20_000), repetition=r) for r in range(200)]
    finals = benchmark.final_many([r.incumbent for r in runs])
    assert 100 * finals.val_accuracy.mean() == pytest.approx(91.12, abs=0.066)
    assert 100 * finals.test_accuracy.mean() == pytest.approx(93.90, abs=0.066)
