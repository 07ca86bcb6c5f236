"""BANANAS: its iteration by hand, its networks against PyTorch, odd spaces and values, and real data."""

import itertools

import numpy as np
import pytest
import torch

from nasharness import Budget, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.bananas import Bananas, MLPEnsemble

NB201, NB101, DARTS = NASBench201Space(), NASBench101Space(), DARTSSpace()
NAN = float("nan")
BANANAS = "nasharness.optimizers.bananas:Bananas"
SMALL = {"k": 20, "layers": 2, "width": 5, "ensemble": 3, "epochs": 4}
CHEAP = BANANAS + "(k=40, layers=2, width=8, ensemble=3, epochs=5, candidates=60, max_points=96)"


class Grid(SearchSpace):
    name = "grid"
    cardinalities = (3, 3)


class Single(SearchSpace):
    name = "single"
    cardinalities = (1, 1)


class Line(SearchSpace):
    name = "line"
    cardinalities = (4,)


class Script:
    """A generator whose draws are written down beforehand."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self):
        return self.draws.pop(0)

    def normal(self, mean, deviation):
        return mean + deviation * np.array(self.draws.pop(0))


class Told:
    """Networks that have their predictions written down."""

    def __init__(self, predictions):
        self.predictions = predictions

    def fit(self, x, y, rng):
        self.x, self.y = x, y

    def predict(self, x):
        self.candidates = x
        return np.array(self.predictions)


def trial(arch, value):
    return Trial(arch, value, 1.0, 1, np.zeros(0, dtype=np.float32), "failed" if value != value else "complete")


def play(optimizer, n, value):
    """Let it ask and tell n times."""
    proposed = []
    for i in range(n):
        proposed.append(optimizer.ask().arch)
        optimizer.tell(trial(proposed[-1], value(i, proposed[-1])))
    return proposed


def test_iteration_follows_algorithm_1():
    """num_init 2, k = 2, three candidates from one parent, two networks, on a 3 x 3 grid.

    Random: draws 0.1, 0.1 -> (0, 0), accuracy 0.8; 0.9, 0.9 -> (2, 2), fails, so counts as 0.8, too: standardised 0, 0.
    Mutations of (0, 0), each a dimension and one of its other choices: (0.0, 0.0) -> (1, 0); (0.0, 0.9) -> (2, 0);
    (0.0, 0.0) -> (1, 0), known; (0.5, 0.9) -> (0, 2).
    The networks say 1 and 3, 4 and 4, and 0 and 2: means 2, 4, 1, deviations 1, 0, 1. Standard normal draws 3, 9, -1
    give the samples 5, 4, 0: the first two are proposed, (1, 0) before (2, 0).
    """
    rng = Script(0.1, 0.1, 0.9, 0.9, 0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.5, 0.9, [3.0, 9.0, -1.0])
    search = Bananas(Grid(), rng, num_init=2, k=2, candidates=3, parents=1)
    search.networks = networks = Told([[1.0, 4.0, 0.0], [3.0, 4.0, 2.0]])
    assert play(search, 4, lambda i, arch: (0.8, NAN, 0.7, 0.6)[i]) == [(0, 0), (2, 2), (1, 0), (2, 0)]
    assert rng.draws == []
    assert networks.y.tolist() == [0, 0] and networks.x.tolist() == [[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]]
    assert networks.candidates[2].tolist() == [1, 0, 0, 0, 0, 1]


def test_candidates_that_run_short_are_random():
    """On a line of four all neighbours of the best are candidates; of two known ones two are left, and the third is random.

    Random: 0.1 -> 0, 0.3 -> 1. Mutations of 0, dimension and choice: at most 2 * 4 draws, here all of choice 1, known. Of
    the second parent there is none with `parents=1`. Random, 2 * 2 + 20 draws: 0.6 -> 2, 0.9 -> 3, and that is enough.
    """
    rng = Script(0.1, 0.3, *[0.0, 0.0] * 8, 0.6, 0.9, [0.0, 0.0])
    search = Bananas(Line(), rng, num_init=2, k=2, candidates=4, parents=1)
    search.networks = Told([[0.0, 1.0]])
    assert play(search, 4, lambda i, arch: 0.9 - 0.1 * i) == [(0,), (1,), (3,), (2,)]
    assert rng.draws == []


def test_gradient_by_hand():
    """One unit: h = max(0, 2 x + 1), f = 3 h - 1. At x = 1, h = 3, f = 8 > y = 0: |f - y| grows by 1 per unit of f.

    df/dv = h = 3 and df/dc = 1 for the output's weight v and bias c; df/dw = v x = 3 and df/db = v = 3 for the unit's. At
    x = -1 the unit is off, h = 0, f = -1 < 0: the bias c alone has a slope, -1. Of both, the mean.
    """
    network = MLPEnsemble(1, 1, 1, 1, 2, 0.1)
    parameters = network.initialise(1, np.random.default_rng(0))
    parameters[:] = (2, 1, 3, -1)
    assert network.predict(np.array([[1.0], [-1.0]])).tolist() == [[8, -1]]
    gradient = np.empty(4)
    network.backward(np.array([[[1.0], [-1.0]]]), np.zeros((1, 2, 1)), network._views(gradient, [1, 1, 1]))
    assert gradient.tolist() == [1.5, 1.5, 1.5, 0.0]


def test_training_agrees_with_pytorch():
    """Three networks at once give what torch.nn.Linear, autograd and torch.optim.Adam give one at a time."""
    rng = np.random.default_rng(0)
    x, y = rng.random((11, 7)), rng.normal(size=11)
    ensemble = MLPEnsemble(3, 4, 6, 5, 4, 0.01)
    ensemble.fit(x, y, np.random.default_rng(1))

    replay = np.random.default_rng(1)  # the same draws
    widths = [7, 6, 6, 6, 6, 1]
    weights = []
    for a, b in itertools.pairwise(widths):
        bound = np.sqrt(6 / (a + b))
        weights.append(replay.uniform(-bound, bound, (3, a, b)))
    orders = [replay.permuted(np.tile(np.arange(11), (3, 1)), axis=1) for _ in range(5)]
    for e in range(3):
        modules = []
        for (a, b), drawn in zip(itertools.pairwise(widths), weights, strict=True):
            linear = torch.nn.Linear(a, b, dtype=torch.float64)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(drawn[e].T))
                linear.bias.zero_()
            modules += [linear, torch.nn.ReLU()]
        network = torch.nn.Sequential(*modules[:-1])
        adam = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.9, 0.99), eps=1e-8)
        for order in orders:
            for start in (0, 4, 8):
                rows = order[e, start : start + 4]
                loss = (network(torch.from_numpy(x[rows]))[:, 0] - torch.from_numpy(y[rows])).abs().mean()
                adam.zero_grad()
                loss.backward()
                adam.step()
        expected = network(torch.from_numpy(x))[:, 0].detach().numpy()
        assert ensemble.predict(x)[e] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_networks_learn():
    """Trained on 200 cells with an additive accuracy, the mean prediction ranks 200 others (correlation above 0.8)."""
    rng = np.random.default_rng(0)
    archs = np.array([NB201.sample(rng) for _ in range(400)])
    y = archs @ np.array([1.0, -0.5, 0.3, 0.8, -0.2, 0.6])
    y = (y - y.mean()) / y.std()
    x = NB201.one_hot(archs).astype(float)
    ensemble = MLPEnsemble(5, 10, 20, 100, 32, 0.01)
    ensemble.fit(x[:200], y[:200], rng)
    assert np.corrcoef(ensemble.predict(x[200:]).mean(axis=0), y[200:])[0, 1] > 0.8


def test_encoding_follows_the_space():
    """Truncated paths by default; one-hot where there are no paths."""
    rng = np.random.default_rng(0)
    assert Bananas(NB201, rng)._encode([(0,) * 6]).shape == (1, 30)
    assert Bananas(NB201, rng, encoding="path")._encode([(0,) * 6]).shape == (1, 155)
    assert Bananas(DARTS, rng)._encode([(0,) * 22]).shape == (1, 224)
    assert Bananas(Grid(), rng)._encode([(0, 0)]).shape == (1, 6)


@pytest.mark.parametrize("space", [Single(), Line(), Grid(), NB101, DARTS], ids=lambda s: s.name)
def test_any_space(space):
    """One architecture, a few, 10^18: nothing is enumerated, and an exhausted space is not the end."""
    search = Bananas(space, np.random.default_rng(0), **SMALL)
    proposed = play(search, 50, lambda i, arch: 0.5 + sum(arch) / 1000)
    assert len(set(proposed)) == min(space.size, 50)


def test_constant_perfect_or_failed():
    """No spread, no error, no success."""
    for value in (0.5, 1.0, 0.0, NAN):
        search = Bananas(NB201, np.random.default_rng(0), **SMALL)
        assert len(set(play(search, 50, lambda i, arch, value=value: value))) == 50


def test_cost_is_bounded():
    """The networks are never trained on more than max_points architectures."""
    search = Bananas(NB201, np.random.default_rng(0), num_init=40, k=5, max_points=30)
    search.networks = networks = Told(np.zeros((2, 100)))
    search.rng = np.random.default_rng(0)
    networks.predict = lambda x: np.zeros((2, len(x)))
    play(search, 60, lambda i, arch: sum(arch) / 100)
    assert networks.x.shape == (30, 30)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({name: 0}, "at least 1") for name in ("num_init", "k", "candidates", "parents", "ensemble", "layers", "width")]
    + [({name: 0}, "at least 1") for name in ("epochs", "batch_size")]
    + [
        ({"random_candidates": -1}, "must not be negative"),
        ({"max_points": 1}, "at least 2"),
        ({"encoding": "paths"}, "encoding must be one of"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": NAN}, "learning_rate must be positive"),
    ],
)
def test_hyper_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        Bananas(Grid(), np.random.default_rng(0), **parameters)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check):
    """Every rule of the conformance suite, with small networks."""
    check(optimizer_spec(CHEAP))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance_at_length(check):
    """With a preset that is good enough to use."""
    check(optimizer_spec(BANANAS + "@fast"))


GOLDEN = {BANANAS: "9f60051a6b3e8288", BANANAS + "@fast": "4aa41000f4f0e977"}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_run(name):
    """A run of 40 trials is what it was when it was first recorded."""
    assert run(name, "digits201", Budget(evaluations=40), seed=1).fingerprint()[:16] == GOLDEN[name]


def test_rounding_does_not_reach_the_choice():
    """Another machine rounds differently: data that differ by 1e-15 move predictions of 1 by less than 1e-6."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(2, size=(60, 30)).astype(float), rng.normal(size=60)
    predictions = []
    for noise in (0.0, 1e-15):
        ensemble = MLPEnsemble(5, 10, 20, 150, 32, 0.01)
        ensemble.fit(x * (1 + noise), y, np.random.default_rng(1))
        predictions.append(ensemble.predict(x))
    assert np.abs(predictions[0] - predictions[1]).max() < 1e-6


@pytest.mark.parametrize("name", [BANANAS + "@fast"])
def test_model_chooses_better_than_chance(name):
    """On digits201, mean accuracy of trials 11 to 60: above random search's in each of 14 paired runs (p = 2^-14 < 1e-4)."""
    benchmark = load("digits201")
    for r in range(14):
        runs = [
            run(optimizer, benchmark, Budget(evaluations=60), repetition=r) for optimizer in ("random_search", name)
        ]
        random, model = (np.nanmean(r.trials.value[10:]) for r in runs)
        assert model > random


@pytest.mark.slow
@pytest.mark.parametrize("name", [BANANAS, BANANAS + "@fast"])
def test_regret_is_below_that_of_random_search(name):
    """On digits201, after 100 evaluations, 40 paired runs: by t > 4.2 with 39 degrees of freedom (p < 1e-4)."""
    benchmark = load("digits201")

    def regrets(optimizer):
        runs = [run(optimizer, benchmark, Budget(evaluations=100), repetition=r) for r in range(40)]
        return np.array([r.regret(benchmark, "validation")[-1] for r in runs])

    difference = regrets("random_search") - regrets(name)
    assert difference.mean() / (difference.std(ddof=1) / np.sqrt(40)) > 4.2
