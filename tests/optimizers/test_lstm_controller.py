"""The recurrent controller against traces worked out by hand, an LSTM written out in NumPy, and finite differences."""

import itertools

import numpy as np
import pytest
import torch

from nasharness import Budget, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.lstm_controller import LSTMController

ID = "nasharness.optimizers.lstm_controller:LSTMController"
CHEAP = f"{ID}(batch=20, layers=1, learning_rate=0.003, units=8)"
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
    """A generator whose draws are written down beforehand, and whose initial weights are all zero."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, shape):
        return np.array([self.draws.pop(0) for _ in range(np.prod(shape))]).reshape(shape)

    def uniform(self, low, high, shape):
        return np.zeros(shape)


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


def controller(space, seed=0, **parameters):
    return LSTMController(space, np.random.default_rng(seed), **parameters)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "name", [CHEAP, *(pytest.param(name, marks=pytest.mark.slow) for name in (ID, f"{ID}@nasnet"))]
)
def test_conformance(name, check):
    """Every rule of the conformance suite."""
    check(optimizer_spec(name))


def test_two_batches_by_hand():
    """Two arms, batches of two, learning rate 0.1, rewards as they are, all weights zero.

    Then the LSTM's output is zero, the logits are the bias, and only the bias has a gradient.

    Batch 1: pi = (.5, .5); draws .2, .9 -> choices 0, 1; rewards .2, .8, their mean .5 is the baseline, advantages -.3, .3.
        Gradient of the loss: -1/2 [-.3 (1 - .5, -.5) + .3 (-.5, 1 - .5)] = (.15, -.15).
        Adam's first step is the learning rate: bias (-.1, .1), pi_1 = 1 / (1 + exp(-.2)) = .5498340.
    Batch 2: draws .44, .46 around pi_0 = .450166 -> choices 0 and 1; rewards 1 and 1. The baseline is still .5, advantages .5.
        Gradient: -1/2 [.5 (1 - .450166, -.549834) + .5 (-.450166, 1 - .549834)] = -.25 (.0996680, -.0996680)
        = (-.0249170, .0249170). Adam, step 2: mean (.9 * .015 - .1 * .0249170) / .19 = .0579384;
        square (.999 * .0000225 + .001 * .000620857) / .001999 = .0115551, root .1074946; ratio .5389890.
        Bias -+ (.1 + .0538989), pi_1 = 1 / (1 + exp(-.3077978)) = .5763477.
    The baseline becomes .95 * .5 + .05 * 1 = .525.
    """
    search = LSTMController(Uneven(2), Script(0.2, 0.9, 0.44, 0.46), batch=2, learning_rate=0.1, power=1.0)
    for arch, value in (((0,), 0.2), ((1,), 0.8)):
        assert search.ask().arch == arch
        tell(search, arch, value)
    assert search.probabilities([(1,)]) == pytest.approx([0.5498340], abs=1e-6)
    for arch in ((0,), (1,)):
        assert search.ask().arch == arch
        tell(search, arch, 1.0)
    assert search.probabilities([(0,), (1,)]) == pytest.approx([1 - 0.5763477, 0.5763477], abs=1e-6)
    assert search._baseline == pytest.approx(0.525)


def test_the_reward_is_cubed():
    """Accuracies .5 and 1 are rewards .125 and 1, so the first baseline is .5625."""
    search = LSTMController(Uneven(2), Script(0.2, 0.9), batch=2)
    tell(search, (0,), 0.5)
    tell(search, (1,), 1.0)
    assert search._baseline == pytest.approx((0.125 + 1) / 2)


def by_hand(search, arch):
    """Probability of one architecture, from the equations of the LSTM, layer by layer."""
    policy, lstm = search._controller, search._controller.lstm

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    states = [(np.zeros(lstm.hidden_size), np.zeros(lstm.hidden_size)) for _ in range(lstm.num_layers)]
    probability, token = 1.0, 0
    for t, (choice, n) in enumerate(zip(arch, search.space.cardinalities, strict=True)):
        x = policy.embedding.weight[token].detach().numpy()
        for layer, (h, c) in enumerate(states):
            w_x, w_h, b_x, b_h = (p.detach().numpy() for p in lstm.all_weights[layer])
            i, f, g, o = np.split(w_x @ x + b_x + w_h @ h + b_h, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c)
            states[layer] = (x, c)
        logits = (x @ policy.weight[t].detach().numpy() + policy.bias[t, 0].detach().numpy())[:n]
        probability *= np.exp(logits[choice]) / np.exp(logits).sum()
        token = 1 + t * max(search.space.cardinalities) + choice
    return probability


def test_probabilities_are_those_of_an_lstm_written_out():
    """On cardinalities (3, 1, 4, 2) with large weights: each architecture's probability, and 1 in all."""
    search = controller(Uneven(3, 1, 4, 2), init=1.0, units=5)
    archs = list(search.space)
    probabilities = search.probabilities(archs)
    assert probabilities == pytest.approx([by_hand(search, arch) for arch in archs], rel=1e-9)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.max() > 2 * probabilities.min()


def test_architectures_are_drawn_with_these_probabilities():
    """6,000 draws: chi-squared of 24 cells stays below 49.7 (23 degrees of freedom, p = 0.001)."""
    search = controller(Uneven(3, 1, 4, 2), init=1.0, units=5, batch=6000)
    archs = list(search.space)
    index = {arch: i for i, arch in enumerate(archs)}
    counts = np.bincount([index[arch] for arch in search._sample()], minlength=len(archs))
    expected = 6000 * search.probabilities(archs)
    assert expected.min() > 5
    assert ((counts - expected) ** 2 / expected).sum() < 49.7


def test_the_update_follows_the_gradient_of_the_objective():
    """Finite differences of (1/m) sum (R - b) log p + w H, in 20 random coordinates, H the entropy of the joint policy.

    Adam's first step is -lr g / (|g| + epsilon), so with one huge epsilon it is the gradient itself.
    """
    search = controller(Uneven(3, 2), init=0.5, units=4, batch=4, power=1.0, entropy=0.3, learning_rate=1e6)
    search._adam.epsilon = 1e6
    told = [((0, 1), 0.3), ((2, 0), 0.9), ((1, 1), 0.6), ((2, 1), 0.8)]
    advantages = np.array([value for _, value in told]) - 0.65
    theta = search._controller.theta
    before = theta.copy()

    def objective():
        log_policy = search._controller(np.array([arch for arch, _ in told])).detach().exp().numpy()
        entropy = -(log_policy * np.log(np.maximum(log_policy, 1e-300))).sum() / 4  # padding has p = 0
        return (advantages * np.log(search.probabilities([arch for arch, _ in told]))).mean() + 0.3 * entropy

    expected = []
    coordinates = np.random.default_rng(1).integers(len(theta), size=20)
    for k in coordinates:
        values = []
        for change in (1e-5, -1e-5):
            theta[k] = before[k] + change
            values.append(objective())
        theta[k] = before[k]
        expected.append((values[0] - values[1]) / 2e-5)
    for arch, value in told:
        tell(search, arch, value)
    assert np.abs(expected).max() > 1e-3
    assert (theta - before)[coordinates] == pytest.approx(expected, abs=1e-7, rel=1e-4)


def test_ppo_with_one_epoch_is_reinforce():
    """Its first step has ratio 1, where the gradient of the ratio is that of log p."""
    one, other = (controller(Uneven(3, 4), algorithm=a, epochs=1) for a in ("reinforce", "ppo"))
    for search in (one, other):
        for _ in range(40):
            arch = search.ask().arch
            tell(search, arch, 0.1 + 0.2 * arch[0])
    assert one._controller.theta == pytest.approx(other._controller.theta, abs=1e-12)


def test_ppo_stops_where_it_clips():
    """Two arms at .5, rewards 0 and 1, weights zero: with clip .2 both terms stop pulling beyond .6 and .4.

    Then Adam coasts on its momentum: after 150 epochs of about .004 a logit the probability is between .6 and .65, where
    with a clip out of reach it is above .7.
    """

    def after(clip):
        search = LSTMController(
            Uneven(2), Script(), batch=2, algorithm="ppo", epochs=150, learning_rate=0.004, clip=clip, power=1.0
        )
        tell(search, (0,), 0.0)
        tell(search, (1,), 1.0)
        return search.probabilities([(1,)])[0]

    assert 0.6 < after(0.2) < 0.65
    assert after(100.0) > 0.7


@pytest.mark.parametrize(("algorithm", "pulls"), [("reinforce", 1200), ("ppo", 400)])
def test_the_policy_settles_on_the_best_arm(algorithm, pulls):
    """A bandit of five arms with noise: after so many pulls the best has more than 90 % in each of three runs.

    The best arm leads by 0.1, the noise has a standard deviation of 0.05.
    """
    means = (0.3, 0.5, 0.6, 0.4, 0.2)
    for seed in range(3):
        noise = np.random.default_rng(1000 + seed)
        search = controller(Uneven(5), seed, learning_rate=0.01, algorithm=algorithm)
        for _ in range(pulls):
            arch = search.ask().arch
            tell(search, arch, means[arch[0]] + 0.05 * noise.standard_normal())
        assert search.probabilities([(2,)])[0] > 0.9


def test_it_learns_what_independent_choices_cannot():
    """Reward 1 where two choices of four are equal, else 0: the policy puts its mass there, on more than one architecture.

    Uniform is .25. A product of two distributions that has .9 there has one architecture with at least .8.
    """
    search = controller(Uneven(4, 4), learning_rate=0.01, entropy=0.3, power=1.0)
    for _ in range(2400):
        arch = search.ask().arch
        tell(search, arch, float(arch[0] == arch[1]))
    equal = search.probabilities([(i, i) for i in range(4)])
    assert equal.sum() > 0.9
    assert equal.max() < 0.8


def test_a_failed_child_counts_as_the_worst_so_far():
    """A NaN beside .5, in the same batch or later, does what .5 does; a batch of NaNs at the start does nothing."""
    failing, worst = (controller(Uneven(4, 3), batch=2) for _ in range(2))
    before = failing._controller.theta.copy()
    for _ in range(4):
        tell(failing, (0, 0), NAN)
    assert (failing._controller.theta == before).all()
    for search, value in ((failing, NAN), (worst, 0.5)):
        for arch, seen in (((1, 2), 0.5), ((2, 2), value), ((3, 1), value), ((0, 1), 0.6)):
            tell(search, arch, seen)
    assert failing._controller.theta.tolist() == worst._controller.theta.tolist()
    assert (failing._controller.theta != before).any()


def test_equal_rewards_leave_the_policy_alone():
    """No advantage, no change beyond rounding."""
    search = controller(Uneven(3, 3))
    before = search.probabilities(list(search.space))
    for _ in range(80):
        tell(search, search.ask().arch, 0.3)
    assert search.probabilities(list(search.space)) == pytest.approx(before, abs=1e-6)


@pytest.mark.parametrize("space", [Uneven(1, 1), Uneven(1, 3), DARTSSpace(), NASBench101Space(), Same(3, 3)])
def test_every_space(space):
    """A single architecture, dimensions without choice, 10^18 architectures, and constraints; also once it is exhausted."""
    search = controller(space, learning_rate=0.01)
    for i in range(48):
        arch = search.ask().arch
        assert space.check(arch) == arch
        assert all(type(choice) is int for choice in arch)
        tell(search, arch, 0.5 + 0.001 * (sum(arch) + i % 3))
    assert np.isfinite(search._controller.theta).all()


def test_a_policy_that_draws_nothing_valid_still_proposes():
    """Where the two decisions agree on nothing (probabilities below 1e-40), proposals are drawn from the space."""
    search = controller(Same(2, 2))
    with torch.no_grad():
        search._controller.bias[:, 0] = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    assert {search.ask().arch for _ in range(24)} == {(0, 0), (1, 1)}


def test_torch_is_left_as_it_was():
    """The generator of torch is neither used nor moved."""
    state = torch.get_rng_state()
    search = controller(Uneven(3, 3))
    for _ in range(16):
        tell(search, search.ask().arch, 0.3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    first = controller(Uneven(3, 3))._controller.theta
    torch.manual_seed(2)
    assert (controller(Uneven(3, 3))._controller.theta == first).all()
    torch.set_rng_state(state)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        *(({name: 0}, "must be at least 1") for name in ("units", "layers", "batch", "epochs")),
        *(
            ({name: value}, f"{name} must be positive")
            for name, value in itertools.product(("init", "learning_rate", "power", "clip"), (0.0, NAN))
        ),
        ({"momentum": 1.0}, "momentum must be in"),
        ({"entropy": -1.0}, "entropy must be a finite number"),
        ({"entropy": NAN}, "entropy must be a finite number"),
        ({"algorithm": "a2c"}, "'reinforce' or 'ppo'"),
    ],
)
def test_hyper_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        controller(Uneven(2), **parameters)


@pytest.mark.parametrize(("name", "golden"), [(ID, "39dc68b6e277fdf8"), (f"{ID}@nasnet", "86cf76c0a2fda2a3")])
def test_golden_run(name, golden):
    """A run of 200 trials on digits201 is what it was when it was first recorded."""
    assert run(name, "digits201-v1", Budget(evaluations=200), seed=1).fingerprint()[:16] == golden


@pytest.mark.slow
def test_beats_random_search_on_real_data():
    """On digits201, mean accuracy of what is proposed in trials 500 to 1,000, 20 runs each: better at z > 4 (p < 1e-4)."""
    benchmark = load("digits201-v1")

    def late(name):
        runs = [run(name, benchmark, Budget(evaluations=1000), repetition=r) for r in range(20)]
        return np.array([r.trials.value[500:].mean() for r in runs])

    ours, random = late(ID), late("random_search")
    assert ours.mean() - random.mean() > 4 * np.sqrt((ours.var(ddof=1) + random.var(ddof=1)) / 20)
