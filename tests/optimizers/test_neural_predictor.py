"""The neural predictor: its graphs, its regression model and its search against values worked out by hand."""

import itertools

import numpy as np
import pytest
import torch

from nasharness import Proposal, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces import darts, nasbench101, nasbench201
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.subspace import Subspace
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.graphs import Graphs, graph_encoder
from nasharness.optimizers.neural_predictor import GraphConvolutionalRegressor, NeuralPredictor

QUICK = "nasharness.optimizers.neural_predictor:NeuralPredictor@quick"
FAST = {"check_constructor", "check_presets", "check_any_space", "check_leaves_trial_alone", "check_constant_objective"}
NONE = np.zeros(0, dtype=np.float32)
TINY = {"initial": 4, "top": 3, "pool": 50, "layers": 1, "width": 3, "hidden": 3, "epochs": 2}


class Grid(SearchSpace):
    name = "grid"
    cardinalities = (3, 3)


class Single(SearchSpace):
    name = "single"
    cardinalities = (1, 1)


class Script:
    """A generator whose draws are written down beforehand, so that a trace can be followed on paper."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def random(self, size=None):
        drawn = [self.draws.pop(0) for _ in range(1 if size is None else size)]
        return drawn[0] if size is None else np.array(drawn)

    def integers(self, high):
        return 7


def tell(optimizer, arch, value):
    optimizer.tell(Trial(arch, value, 1.0, 1, NONE, "failed" if value != value else "complete"))


def sampled(space, n, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


# ------------------------------------------------------------------------------------------------------------ graphs


def edges(graphs, i=0):
    return {(int(a), int(b)) for a, b in zip(*np.nonzero(graphs.adjacency[i]), strict=True)}


def test_graph_of_a_nasbench201_cell():
    """Operations 1 to 6 are on the edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3; the input is node 0 and the output node 7."""
    graphs = graph_encoder(NASBench201Space())([(0, 1, 2, 3, 4, 0)])
    from_input = {(0, 1), (0, 2), (0, 4)}
    through_1 = {(1, 3), (1, 5)}  # 0-1 feeds 1-2 and 1-3
    through_2 = {(2, 6), (3, 6)}  # 0-2 and 1-2 feed 2-3
    assert edges(graphs) == from_input | through_1 | through_2 | {(4, 7), (5, 7), (6, 7)}
    assert graphs.types[0].argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5, 1, 6]


def test_graph_of_a_darts_cell():
    """Node 2 is operations 2 and 3 of the cell's graph; node 3 reads inputs 1 and 2: operations 4 (of 1) and 5 (of node 2)."""
    space = DARTSSpace()
    cell = (0, 1, 2, 3, 4, 5, 6, 0, darts.PAIRS[3].index((1, 2)), darts.PAIRS[4].index((0, 1)), 0)
    graphs = graph_encoder(space)([cell * 2])
    first = {(a, b) for a, b in edges(graphs) if a < 11}
    inner = {(0, 2), (1, 3), (1, 4), (2, 5), (3, 5), (0, 6), (1, 7), (0, 8), (1, 9)}
    assert first == inner | {(operation, 10) for operation in range(2, 10)}
    assert edges(graphs) == first | {(a + 11, b + 11) for a, b in first}
    types = graphs.types[0].argmax(axis=1).tolist()
    assert types[:11] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 2, 9]
    assert types[11:] == [t + 10 for t in types[:11]]


def test_darts_graphs_agree_with_genotypes():
    """Slowly, operation by operation, from the field's own form."""
    space = DARTSSpace()
    archs = sampled(space, 20)
    graphs = graph_encoder(space)(archs)
    for i, arch in enumerate(archs):
        genotype = space.genotype(arch)
        expected = set()
        for first, cell in ((0, genotype.normal), (11, genotype.reduce)):
            for position, (_, source) in enumerate(cell):
                feeders = [source] if source < 2 else [2 * source - 2, 2 * source - 1]
                expected |= {(first + f, first + 2 + position) for f in feeders} | {(first + 2 + position, first + 10)}
        assert edges(graphs, i) == expected


def test_nasbench101_graphs_are_the_pruned_cells():
    """Without the padding, the adjacency matrix and the operations are those of the space's own pruned graph."""
    space = NASBench101Space()
    archs = sampled(space, 200)
    graphs = graph_encoder(space)(archs)
    sizes = set()
    for arch, adjacency, types in zip(archs, graphs.adjacency, graphs.types, strict=True):
        kept = types.any(axis=1)
        expected = space.graph(arch)
        sizes.add(expected.vertices)
        assert (adjacency[np.ix_(kept, kept)] == expected.matrix).all()
        assert adjacency.sum() == expected.num_edges
        assert types[kept].argmax(axis=1).tolist() == [0, *(label + 1 for label in expected.labels), 4]
    assert len(sizes) > 2


def test_other_spaces_are_chains_and_parts_are_like_the_whole():
    """Three and three choices: six types; the second dimension's begin at 3."""
    graphs = graph_encoder(Grid())([(2, 1), (0, 0)])
    assert edges(graphs) == {(0, 1)}
    assert graphs.types.argmax(axis=2).tolist() == [[2, 4], [0, 3]]
    space = NASBench201Space()
    archs = sampled(space, 5)
    for whole, part in zip(graph_encoder(space)(archs), graph_encoder(Subspace(space, archs))(archs), strict=True):
        assert (whole == part).all()
    assert nasbench201.EDGES[3] == (3, 0)
    assert nasbench101.MAX_VERTICES == 7


# ------------------------------------------------------------------------------------------------------- the regressor


def test_graph_convolution_by_hand():
    """Two nodes, 0 -> 1, of types 0 and 1; one feature and one hidden unit.

    With self-loops and rows that sum to one, the forward matrix is [[1/2, 1/2], [0, 1]] and the backward one
    [[1, 0], [1/2, 1/2]]. W = [1, 3] gives 1 and 3, gathered forwards: 2 and 3. U = [2, -4] gives 2 and -4, gathered backwards:
    2 and -1, by ReLU 2 and 0. Half of each: 2 and 1.5; the mean over the nodes is 1.75, times 2 is 3.5, times -1 is -3.5.
    With accuracies of mean 0.5 and standard deviation 0.1 that is 0.15.
    """
    regressor = GraphConvolutionalRegressor(layers=1, width=1, hidden=1, dropout=0.5)
    regressor._weights = [
        torch.tensor([[1.0, 2.0], [3.0, -4.0]], dtype=torch.float64),  # columns W and U
        torch.tensor([[2.0]], dtype=torch.float64),
        torch.tensor([[-1.0]], dtype=torch.float64),
    ]
    regressor._mean, regressor._std = 0.5, 0.1
    graph = Graphs(np.array([[[False, True], [False, False]]]), np.eye(2, dtype=np.float32)[None])
    np.testing.assert_allclose(regressor.predict(graph), [0.15])


def slow_prediction(regressor, adjacency, types):
    """The same network for one graph, node by node, in NumPy."""
    *convolutions, to_hidden, to_output = [w.detach().numpy() for w in regressor._weights]
    nodes = [v for v in range(len(types)) if types[v].any()]
    states = {v: types[v].astype(float) for v in nodes}
    for weight in convolutions:
        there, back = weight[:, : regressor.width], weight[:, regressor.width :]
        states = {
            v: (
                np.maximum(np.mean([states[u] @ there for u in nodes if u == v or adjacency[v, u]], axis=0), 0)
                + np.maximum(np.mean([states[u] @ back for u in nodes if u == v or adjacency[u, v]], axis=0), 0)
            )
            / 2
            for v in nodes
        }
    pooled = np.mean([states[v] for v in nodes], axis=0)
    return float((np.maximum(pooled @ to_hidden, 0) @ to_output)[0]) * regressor._std + regressor._mean


@pytest.mark.parametrize("space", [NASBench101Space(), DARTSSpace()], ids=lambda s: s.name)
def test_predictions_agree_with_a_slow_implementation(space):
    archs = sampled(space, 12)
    graphs = graph_encoder(space)(archs)
    regressor = GraphConvolutionalRegressor(layers=2, width=5, hidden=4, dropout=0.1)
    regressor.fit(
        graphs,
        np.random.default_rng(0).random(12),
        torch.Generator().manual_seed(0),
        epochs=3,
        batch_size=5,
        learning_rate=0.01,
        weight_decay=1e-3,
    )
    expected = [slow_prediction(regressor, a, t) for a, t in zip(*graphs, strict=True)]
    np.testing.assert_allclose(regressor.predict(graphs), expected, rtol=1e-9)


def test_regressor_learns_what_it_can_see():
    """The share of 3 x 3 convolutions in a cell: the rank correlation on unseen cells is above 0.9."""
    space = NASBench201Space()
    archs = sampled(space, 300)
    share = np.array([arch.count(nasbench201.CONV3) / 6 for arch in archs])
    graphs = graph_encoder(space)(archs)
    regressor = GraphConvolutionalRegressor(layers=2, width=16, hidden=16, dropout=0.0)
    part = Graphs(graphs.adjacency[:100], graphs.types[:100])
    settings = {"epochs": 30, "batch_size": 20, "learning_rate": 0.01, "weight_decay": 0.0}
    regressor.fit(part, share[:100], torch.Generator().manual_seed(0), **settings)
    assert np.corrcoef(regressor.predict(graphs)[100:], share[100:])[0, 1] > 0.9


# ---------------------------------------------------------------------------------------------------------- the search


class Oracle:
    """A regression model whose predictions are written down beforehand; the types of a grid cell are its two choices."""

    def __init__(self, predictions):
        self.predictions, self.fits = predictions, []

    def fit(self, graphs, values, generator, **settings):
        self.fits.append((len(graphs.types), values.tolist()))

    def predict(self, graphs):
        a, b = graphs.types.argmax(axis=2).T
        return np.array([self.predictions[x, y - 3] for x, y in zip(a, b, strict=True)])


def test_rounds_propose_the_best_predictions():
    """N = 3 and K = 2 on a 3 x 3 grid.

    1. to 3. random: draws (0.1, 0.1) -> (0, 0), (0.5, 0.9) -> (1, 2) and (0.9, 0.1) -> (2, 0), which fails.
    Round 1: the model is fitted to the two that did not fail and predicts 3 i + j for the six unknown (i, j): (2, 2), 8, and
       (2, 1), 7, are best. It has max(2, 3 // 4) = 2 proposals.
    Round 2, fitted to four: (1, 1), 4, and (1, 0), 3.
    """
    ties = [0.0] * 6 + [0.0] * 4
    search = NeuralPredictor(Grid(), Script(0.1, 0.1, 0.5, 0.9, 0.9, 0.1, *ties), initial=3, top=2)
    search.regressor = Oracle({(i, j): 3 * i + j for i in range(3) for j in range(3)})
    proposed = []
    for value in (0.5, 0.6, float("nan"), 0.7, 0.8, 0.9, 1.0):
        proposed.append(search.ask())
        tell(search, proposed[-1].arch, value)
    assert proposed == [Proposal(arch) for arch in ((0, 0), (1, 2), (2, 0), (2, 2), (2, 1), (1, 1), (1, 0))]
    assert search.regressor.fits == [(2, [0.5, 0.6]), (4, [0.5, 0.6, 0.7, 0.8])]
    assert search.rng.draws == []


def test_rounds_grow_with_the_search():
    """Between the fits of a long search there are a fourth as many trials as before, so their cost per trial is bounded."""
    search = NeuralPredictor(NASBench201Space(), np.random.default_rng(0), **TINY)
    fitted = []
    fit = search.regressor.fit
    search.regressor.fit = lambda graphs, *rest, **settings: (
        fitted.append(len(graphs.types)),
        fit(graphs, *rest, **settings),
    )
    for _ in range(400):
        tell(search, search.ask().arch, 0.5)
    assert fitted[:3] == [4, 7, 10]
    assert all(after - before == max(3, before // 4) for before, after in itertools.pairwise(fitted))
    assert len(fitted) < 25


@pytest.mark.parametrize("space", [Single(), Grid(), Subspace(DARTSSpace(), sampled(DARTSSpace(), 30))], ids=repr)
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_exhausted_space_is_repeated(space, value):
    """Every architecture is proposed once before any is proposed again; the search neither stops nor hangs."""
    search = NeuralPredictor(space, np.random.default_rng(0), **TINY)
    proposed = []
    for _ in range(40):
        proposed.append(search.ask().arch)
        tell(search, proposed[-1], value)
    if value == value:
        assert len(set(proposed[: space.size])) == space.size


@pytest.mark.parametrize("space", [DARTSSpace(), NASBench101Space()], ids=lambda s: s.name)
def test_huge_and_constrained_spaces(space):
    """Nothing is enumerated; spellings of one NAS-Bench-101 cell count as one."""
    search = NeuralPredictor(space, np.random.default_rng(0), **TINY)
    proposed = []
    for i in range(30):
        proposed.append(search.ask().arch)
        assert space.is_valid(proposed[-1])
        tell(search, proposed[-1], float("nan") if i % 5 == 0 else 0.5 + i / 100)
    assert len({space.canonical(arch) for arch in proposed}) == 30


def test_global_generator_of_torch_is_left_alone():
    before = torch.get_rng_state()
    search = NeuralPredictor(Grid(), np.random.default_rng(0), **TINY)
    for i in range(8):
        tell(search, search.ask().arch, i / 10)
    assert (torch.get_rng_state() == before).all()


@pytest.mark.parametrize(
    "parameters",
    [
        *({name: 0} for name in ("initial", "top", "pool", "layers", "width", "hidden", "epochs", "batch_size")),
        *({"learning_rate": rate} for rate in (0.0, float("nan"))),
        *({"weight_decay": -1.0}, {"dropout": 1.0}),
    ],
    ids=str,
)
def test_hyper_parameters_are_checked(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        NeuralPredictor(Grid(), np.random.default_rng(0), **parameters)


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
    assert run(QUICK, "digits201", 120, seed=1).fingerprint()[:16] == "0432d421879ff1ec"


@pytest.mark.slow
def test_beats_random_search_on_real_data():
    """On digits201, mean validation regret after 300 evaluations, 20 paired runs: it is better at z > 3.72 (p < 1e-4)."""
    benchmark = load("digits201")

    def regrets(name):
        return np.array(
            [run(name, benchmark, 300, repetition=r).regret(benchmark, "validation")[-1] for r in range(20)]
        )

    difference = regrets("random_search") - regrets(QUICK)
    assert difference.mean() / (difference.std(ddof=1) / np.sqrt(20)) > 3.72
