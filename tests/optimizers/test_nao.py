"""NAO: the gradient step by hand, the decoder, and the search against a trace worked out by hand."""

import itertools

import numpy as np
import pytest
import torch

from nasharness import SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.subspace import Subspace
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.nao import NAO, AutoEncoder

QUICK = "nasharness.optimizers.nao:NAO@quick"
FAST = {"check_constructor", "check_presets", "check_any_space", "check_leaves_trial_alone"}
NONE = np.zeros(0, dtype=np.float32)
TINY = {"initial": 4, "batch": 3, "seeds": 3, "embedding": 3, "hidden": 4, "epochs": 2, "max_steps": 3}


class Grid(SearchSpace):
    name = "grid"
    cardinalities = (3, 3)


class Single(SearchSpace):
    name = "single"
    cardinalities = (1, 1)


class Uneven(SearchSpace):
    name = "uneven"
    cardinalities = (2, 1, 4, 3)


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


def model_of(space, seed=0, hidden=4):
    generator = torch.Generator().manual_seed(seed)
    return AutoEncoder(space.cardinalities, embedding=3, hidden=hidden, generator=generator), generator


# ------------------------------------------------------------------------------------------------------------- model


def test_gradient_step_by_hand():
    """Equation 2 with h_1 = (3, 0), h_2 = (0, 4) and a predictor that reads the first number: w = (1, 0).

    The mean is m = (1.5, 2) of length 2.5, so u = (0.6, 0.8) and f = 0.6. df/dm = (w - (w . u) u) / 2.5 =
    ((1, 0) - (0.36, 0.48)) / 2.5 = (0.256, -0.192), of which each h_t gets half: (0.128, -0.096).
    """
    model, _ = model_of(Grid(), hidden=2)
    with torch.no_grad():
        model.predictor.weight.copy_(torch.tensor([[1.0, 0.0]]))
        model.predictor.bias.zero_()
    states = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]], dtype=torch.float64, requires_grad=True)
    predicted = model.predict(states)
    (uphill,) = torch.autograd.grad(predicted.sum(), states)
    np.testing.assert_allclose(predicted.detach(), [0.6])
    np.testing.assert_allclose(uphill[0], [[0.128, -0.096]] * 2)


def test_decoder_hears_its_own_words():
    """Word by word, it says what it says when the whole sentence is given to it at once."""
    space = Uneven()
    model, _ = model_of(space)
    states = model.encode(torch.tensor(sampled(space, 10)))
    said, archs = model.decode(states)
    at_once, same = model.decode(states, archs)
    np.testing.assert_allclose(said.exp().detach(), at_once.exp().detach(), atol=1e-12)
    assert (archs == same).all()


def test_attention_agrees_with_a_slow_implementation():
    """The first word of one sentence, in NumPy: softmax attention to the embedding, then a tanh layer, then the choices."""
    space = Uneven()
    model, _ = model_of(space)
    states = model.encode(torch.tensor([(1, 0, 3, 2)]))
    start = model.tokens(torch.tensor([[10]]))  # after 2 + 1 + 4 + 3 choices
    spoken, _ = model.decoder(start, (states[:, -1][None].contiguous(), torch.zeros(1, 1, 4, dtype=torch.float64)))
    h, s = states[0].detach().numpy(), spoken[0, 0].detach().numpy()
    weights = np.exp(h @ s) / np.exp(h @ s).sum()
    mixed = np.concatenate((weights @ h, s))
    mixed = np.tanh(model.attended.weight.detach().numpy() @ mixed + model.attended.bias.detach().numpy())
    scores = (model.speaker.weight.detach().numpy() @ mixed + model.speaker.bias.detach().numpy())[:2]
    said, _ = model.decode(states)
    np.testing.assert_allclose(said[0, 0, :2].exp().detach(), np.exp(scores) / np.exp(scores).sum(), rtol=1e-9)
    assert (said[0, 0, 2:] == -torch.inf).all()


def test_decoder_speaks_no_nonsense():
    """Whatever embedding it is given, each choice is one that its dimension has."""
    space = Uneven()
    model, generator = model_of(space)
    states = 100 * torch.randn(200, 4, 4, generator=generator, dtype=torch.float64)
    _, archs = model.decode(states)
    assert all(space.is_valid(tuple(arch)) for arch in archs.tolist())


def test_model_learns_to_spell_and_to_predict():
    """After fitting 80 cells, it spells them all but for a few choices and knows their accuracies."""
    space = NASBench201Space()
    archs = torch.tensor(sampled(space, 80))
    values = (archs == 3).sum(dim=1).double()
    values = (values - values.mean()) / values.std()
    generator = torch.Generator().manual_seed(0)
    model = AutoEncoder(space.cardinalities, embedding=16, hidden=24, generator=generator)
    model.fit(archs, values, generator, epochs=40, batch_size=20, learning_rate=0.02, trade_off=0.5)
    with torch.no_grad():
        states = model.encode(archs)
        assert (model.decode(states)[1] == archs).double().mean() > 0.9
        assert np.corrcoef(model.predict(states), values)[0, 1] > 0.95


# ------------------------------------------------------------------------------------------------------------ search


class Guided(NAO):
    """NAO whose model decodes what is written down."""

    decoded = ()

    def _ascents(self, seeds):
        self.started_from = list(seeds)
        return iter(self.decoded)


def test_rounds_propose_what_was_decoded_and_then_mutations():
    """N = 3, a round of 3, and 2 seeds on a 3 x 3 grid.

    1. to 3. random: draws (0.1, 0.1) -> (0, 0), 0.5; (0.5, 0.9) -> (1, 2), fails; (0.9, 0.1) -> (2, 0), 0.6.
    The seeds are the best, (2, 0) and (0, 0). What is decoded: (2, 0) and (1, 2) are known, (2, 1) is new, then again. Two
    more are needed: mutations of the seeds in turn. (2, 0), dimension 1 (draw 0.6), second of its other choices 1, 2 (draw 0.6)
    -> (2, 2), new. (0, 0), dimension 0 (draw 0.1), second of 1, 2 (draw 0.9) -> (2, 0), known. (2, 0), dimension 0 (draw 0.0),
    second of 0, 1 (draw 0.7) -> (1, 0), new.
    """
    rng = Script(0.1, 0.1, 0.5, 0.9, 0.9, 0.1, *[0.0] * 2, 0.6, 0.6, 0.1, 0.9, 0.0, 0.7)
    search = Guided(Grid(), rng, initial=3, batch=3, seeds=2)
    search.decoded = [(2, 0), (1, 2), (2, 1), (2, 1)]
    proposed = []
    for value in (0.5, float("nan"), 0.6, 0.7, 0.8, 0.9):
        proposed.append(search.ask().arch)
        tell(search, proposed[-1], value)
    assert proposed == [(0, 0), (1, 2), (2, 0), (2, 1), (2, 2), (1, 0)]
    assert search.started_from == [(2, 0), (0, 0)]
    assert rng.draws == []


def test_steps_grow_until_there_are_enough():
    """Each further step is decoded only when it is needed, and the starting point at step 0 is nearly always spelt right."""
    search = NAO(NASBench201Space(), np.random.default_rng(0), **(TINY | {"hidden": 8, "epochs": 30, "eta": 1e-9}))
    for arch in sampled(search.space, 40):
        tell(search, arch, 0.5 + arch.count(3) / 20)
    seeds = search._best()
    decoded = list(search._ascents(seeds))
    assert len(decoded) == 3 * 3  # seeds times steps
    assert decoded[:3] == decoded[3:6]  # at a step of nothing
    search.eta = 1000.0
    assert list(search._ascents(seeds))[:3] != decoded[:3]


def test_ascent_leads_to_better_architectures():
    """Accuracy is the share of choice 3: of 60 random cells, those decoded uphill of the best 10 have more than the best 10."""
    search = NAO(NASBench201Space(), np.random.default_rng(0), hidden=16, epochs=40, seeds=10, max_steps=10)
    for arch in sampled(search.space, 60):
        tell(search, arch, arch.count(3) / 6)
    seeds = search._best()
    new = set(search._ascents(seeds)) - set(seeds)
    assert np.mean([arch.count(3) for arch in new]) > np.mean([arch.count(3) for arch in seeds])


def test_rounds_grow_with_the_search():
    """Between the fits of a long search there are half as many trials as before, so their cost per trial is bounded."""
    search = NAO(NASBench201Space(), np.random.default_rng(0), **TINY)
    fitted = []
    ascents = search._ascents
    search._ascents = lambda seeds: (fitted.append(search._n_told), ascents(seeds))[1]
    for i in range(300):
        tell(search, search.ask().arch, i / 300)
    assert all(after - before == max(3, before // 2) for before, after in itertools.pairwise(fitted))
    assert len(fitted) < 15


@pytest.mark.parametrize("space", [Single(), Grid(), Subspace(DARTSSpace(), sampled(DARTSSpace(), 12))], ids=repr)
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_exhausted_space_is_repeated(space, value):
    """The search neither stops nor hangs after every architecture was evaluated, and finds them all first."""
    search = NAO(space, np.random.default_rng(0), **TINY)
    proposed = []
    for _ in range(40):
        proposed.append(search.ask().arch)
        tell(search, proposed[-1], value)
    assert len(set(proposed)) == space.size


@pytest.mark.parametrize("space", [DARTSSpace(), NASBench101Space()], ids=lambda s: s.name)
def test_huge_and_constrained_spaces(space):
    """Nothing is enumerated; spellings of one NAS-Bench-101 cell count as one."""
    search = NAO(space, np.random.default_rng(0), **TINY)
    proposed = []
    for i in range(30):
        proposed.append(search.ask().arch)
        assert space.is_valid(proposed[-1])
        tell(search, proposed[-1], float("nan") if i % 5 == 0 else 0.5 + i / 100)
    assert len({space.canonical(arch) for arch in proposed}) == 30


def test_global_generator_of_torch_is_left_alone():
    before = torch.get_rng_state()
    search = NAO(Grid(), np.random.default_rng(0), **TINY)
    for i in range(8):
        tell(search, search.ask().arch, i / 10)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize(
    "parameters",
    [
        *({name: 0} for name in ("initial", "batch", "seeds", "max_steps", "embedding", "hidden", "epochs")),
        *({"batch_size": 0}, {"eta": 0.0}, {"eta": float("nan")}, {"learning_rate": 0.0}),
        *({"trade_off": 0.0}, {"trade_off": 1.0}),
    ],
    ids=str,
)
def test_hyper_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        NAO(Grid(), np.random.default_rng(0), **parameters)


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
    assert run(QUICK, "digits201", 120, seed=1).fingerprint()[:16] == "e873f9daa1f15710"


@pytest.mark.slow
def test_beats_random_search_on_real_data():
    """On digits201, mean accuracy of the last 200 of 300 trials, 10 paired runs: it is better at z > 3.72 (p < 1e-4)."""
    benchmark = load("digits201")

    def means(name):
        return np.array([run(name, benchmark, 300, repetition=r).trials.value[100:].mean() for r in range(10)])

    difference = means("nasharness.optimizers.nao:NAO") - means("random_search")
    assert difference.mean() / (difference.std(ddof=1) / np.sqrt(10)) > 3.72
