"""GP-BO and the encodings: kernels, regression and acquisition by hand, against slow versions, and on real data."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import PairwiseKernel

from nasharness import Budget, SearchSpace, Trial, load, run
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench101 import Graph, NASBench101Space
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace
from nasharness.benchmarks.spaces.subspace import Subspace
from nasharness.harness.registry import optimizer_spec
from nasharness.harness.testing import CHECKS
from nasharness.optimizers.encodings import INPUT, OUTPUT, cell_graphs, encode, has_paths, paths
from nasharness.optimizers.gp_bo import (
    GPBO,
    GaussianProcess,
    HammingKernel,
    History,
    WeisfeilerLehmanKernel,
    expected_improvement,
    largest,
    log_marginal_likelihood,
    standardise,
)

NB201, NB101, DARTS = NASBench201Space(), NASBench101Space(), DARTSSpace()
NAN = float("nan")
GP = "nasharness.optimizers.gp_bo:GPBO"
CHEAP = '(kernel="{}", pool=20, batch=10, max_points=40)'


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


def trial(arch, value):
    return Trial(arch, value, 1.0, 1, np.zeros(0, dtype=np.float32), "failed" if value != value else "complete")


def play(optimizer, n, value):
    """Let it ask and tell n times."""
    proposed = []
    for i in range(n):
        proposed.append(optimizer.ask().arch)
        optimizer.tell(trial(proposed[-1], value(i, proposed[-1])))
    return proposed


def samples(space, n, seed=0):
    rng = np.random.default_rng(seed)
    return [space.sample(rng) for _ in range(n)]


# ------------------------------------------------------------------------------------------------------------ encodings


def test_path_encoding_of_a_nasbench201_cell():
    """naszilla's columns, with avg_pool 0, conv1 1, conv3 2, none 3, skip 4.

    3<-0 avg_pool: column 0. 1<-0 conv3, 3<-1 conv1: 5 + 2 + 5*1 = 12. 2<-0 none, 3<-2 skip: 5 + 3 + 5*4 = 28.
    1<-0 conv3, 2<-1 skip, 3<-2 skip: 30 + 2 + 5*4 + 25*4 = 152.
    """
    arch = NB201.from_string("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|")
    full = encode(NB201, [arch], "path")
    assert full.shape == (1, 155) and full.dtype == np.float32
    assert np.flatnonzero(full[0]).tolist() == [0, 12, 28, 152]
    truncated = encode(NB201, [arch], "truncated_path")
    assert truncated.shape == (1, 30) and (truncated == full[:, :30]).all()


def test_path_encoding_of_a_nasbench101_cell():
    """Input to output: 0 operations, column 0. conv1: 1 + 1 = 2. conv1, then maxpool: 4 + 1 + 3*2 = 11."""
    edges = [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]
    arch = NB101.from_graph(Graph(4, sum(1 << x + y * (y - 1) // 2 for x, y in edges), (1, 2)))
    full = encode(NB101, [arch], "path")
    assert full.shape == (1, 364) and np.flatnonzero(full[0]).tolist() == [0, 2, 11]
    assert encode(NB101, [arch], "truncated_path").shape == (1, 40)


def test_path_encoding_of_a_darts_cell():
    """All nodes read inputs 0 and 1 by operation 0 (max_pool), but node 5 of the normal cell reads nodes 0 and 4 by 3 and 6.

    Columns of length 1 are 7 * group + op: 0, 7, 14, 21, and 3 for node 5. Of length 2, operations 0 and then 6 after input
    0 or 1 of the normal cell: 28 + 49 * group + 0 + 7*6 = 70 and 119.
    """
    normal = (0, 0, 0, 0, 0, 0, 3, 6, 0, 0, 3)  # the last: pair (0, 4) of node 5, after (0,1) (0,2) (0,3)
    arch = (*normal, *(0,) * 11)
    assert encode(DARTS, [arch], "path").shape == (1, 11_200)
    assert np.flatnonzero(encode(DARTS, [arch], "truncated_path")[0]).tolist() == [0, 3, 7, 14, 21, 70, 119]


def walk(graph, node, so_far, groups):
    """Depth first along the reversed edges of a cell graph: the slow way to its paths."""
    label = graph.labels[node]
    here = so_far if label in (OUTPUT, -3) else (label, *so_far)
    if not graph.inputs[node]:
        yield groups[label], here[1:]
    for other in graph.inputs[node]:
        yield from walk(graph, other, here, groups)


@pytest.mark.parametrize("space", [NB101, DARTS], ids=["nasbench101", "darts"])
def test_paths_are_those_of_the_graph(space):
    """Where no operation is a skip connection, which a graph does not show, both functions have the same paths."""
    for arch in samples(space, 200):
        if space is DARTS:
            arch = tuple(4 if c == 2 and d % 11 < 8 else c for d, c in enumerate(arch))
        slow = [
            path
            for c, graph in enumerate(cell_graphs(space, arch))
            for path in walk(graph, len(graph.labels) - 1, (), {INPUT: 2 * c, -4: 2 * c + 1})
        ]
        assert sorted(paths(space, arch)) == sorted(slow)


def test_graph_of_a_nasbench201_cell():
    """Skips are plain edges, and the pooling that only feeds a dead end is gone; `x + x` is an input twice.

    1<-0 conv3, 2<-0 skip, 2<-1 none, 3<-0 skip, 3<-1 conv1, 3<-2 skip: output = conv1(conv3(x)) + x + x.
    """
    arch = NB201.from_string("|nor_conv_3x3~0|+|skip_connect~0|none~1|+|skip_connect~0|nor_conv_1x1~1|skip_connect~2|")
    assert cell_graphs(NB201, arch) == (((INPUT, 3, 2, OUTPUT), ((), (0,), (1,), (0, 2, 0))),)
    dead = NB201.from_string("|avg_pool_3x3~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    assert cell_graphs(NB201, dead) == (((INPUT, 3, OUTPUT), ((), (0,), (1,))),)
    nothing = (0,) * 6
    assert cell_graphs(NB201, nothing) == (((INPUT, OUTPUT), ((), ())),)


def test_graphs_ignore_how_a_nasbench101_cell_is_spelt():
    """The kernel between two spellings of a cell is 1 at every depth."""
    kernel = WeisfeilerLehmanKernel(NB101)
    for arch in samples(NB101, 30):
        other = NB101.canonical(arch)
        for h in kernel.grid:
            assert kernel.matrix(kernel.learn([arch]), kernel.features([other]), h)[0, 0] == pytest.approx(1)


def test_encode_refuses_what_it_cannot_encode():
    """Unknown names, spaces without paths and architectures of another space."""
    with pytest.raises(ValueError, match="unknown encoding 'paths'"):
        encode(NB201, [], "paths")
    with pytest.raises(ValueError, match="no path encoding of grid"):
        encode(Grid(), [(0, 0)], "path")
    with pytest.raises(ValueError, match="no path encoding of grid"):
        list(paths(Grid(), (0, 0)))
    with pytest.raises(InvalidArchitecture):
        encode(NB201, [(9,) * 6], "path")
    assert encode(NB201, [], "path").shape == (0, 155) and encode(Grid(), []).shape == (0, 6)


def test_a_subspace_is_encoded_as_its_space():
    """A table that covers a part of NAS-Bench-101 has its paths, too."""
    archs = sorted({NB101.canonical(arch) for arch in samples(NB101, 5)})
    part = Subspace(NB101, archs)
    assert has_paths(part) and not has_paths(Grid()) and not has_paths(NATSSizeSpace())
    assert (encode(part, archs, "path") == encode(NB101, archs, "path")).all()
    assert cell_graphs(part, archs[0]) == cell_graphs(NB101, archs[0])


# -------------------------------------------------------------------------------------------------------------- kernels


def test_hamming_kernel():
    """On two dimensions: 0, 1 or 2 choices differ, d = 0, 1/2 or 1, and l = 0.4."""
    kernel = HammingKernel(Grid())
    matrix = kernel.matrix(kernel.learn([(0, 0)]), kernel.features([(0, 0), (0, 1), (2, 1)]), 0.4)
    assert matrix == pytest.approx(np.exp([[0, -1.25, -2.5]]))


def test_weisfeiler_lehman_kernel():
    """conv3 alone against avg_pool alone, input -> operation -> output.

    Round 0: {in, conv3, out} and {in, pool, out} share two labels of three: cosine 2/3.
    Round 1: {(in, ), (conv3, in), (out, conv3)} shares only the input's with the other: 3 of 6 labels.
    Round 2: again only the input's: 4 of 9. Round 3: 5 of 12.
    """
    one, other = (0, 0, 0, 3, 0, 0), (0, 0, 0, 4, 0, 0)
    kernel = WeisfeilerLehmanKernel(NB201)
    known, new = kernel.learn([one]), kernel.features([one, other])
    for h, expected in enumerate((2 / 3, 3 / 6, 4 / 9, 5 / 12)):
        assert kernel.matrix(known, new, h) == pytest.approx(np.array([[1, expected]]))


@pytest.mark.parametrize("space", [NB201, NB101, DARTS, NATSSizeSpace(), Grid()], ids=lambda s: s.name)
def test_kernels_are_positive_semidefinite_with_unit_diagonal(space):
    """For every hyper-parameter, on every kind of space."""
    archs = samples(space, 40)
    for kernel in (HammingKernel(space), WeisfeilerLehmanKernel(space)):
        features = kernel.learn(archs)
        for parameter in kernel.grid:
            matrix = kernel.matrix(features, features, parameter)
            assert matrix == pytest.approx(kernel.matrix(kernel.features(archs), features, parameter))
            assert np.diag(matrix) == pytest.approx(1)
            assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > -1e-9


# ------------------------------------------------------------------------------------------- regression and acquisition


def test_prediction_from_two_points():
    """(0, 0) with z = -1 and (2, 2) with z = 1; l = 0.4 and noise r = 0.01 are given.

    k between the two is a = exp(-1 / 0.4). z is an eigenvector of K + r I with the eigenvalue 1 + r - a, so the weights are
    z / (1 + r - a) and s^2 = z' weights / 2 = 1 / (1 + r - a). At (0, 1), with k = b = exp(-0.5 / 0.4) to the first and a to
    the second, the mean is (a - b) / (1 + r - a). At (1, 1), with k = a to both, it is 0, and since (a, a) is an eigenvector
    for 1 + r + a the variance is s^2 (1 - 2 a^2 / (1 + r + a)).
    """
    model = GaussianProcess(HammingKernel(Grid()))
    model.parameter, model.noise, model._chosen_at = 0.4, 0.01, 100
    model.fit([(0, 0), (2, 2)], np.array([-1.0, 1.0]))
    mean, deviation = model.predict([(0, 1), (1, 1)])
    a, b = math.exp(-2.5), math.exp(-1.25)
    signal = 1 / (1.01 - a)
    assert model.signal == pytest.approx(signal)
    assert mean == pytest.approx([(a - b) * signal, 0], abs=1e-12)
    assert deviation[1] == pytest.approx(math.sqrt(signal * (1 - 2 * a * a / (1.01 + a))))


def test_prediction_agrees_with_scikit_learn():
    """The same posterior as GaussianProcessRegressor with the same covariance."""
    archs, new = samples(NB201, 30), samples(NB201, 10, seed=1)
    z = standardise(np.random.default_rng(2).normal(size=30))
    kernel = HammingKernel(NB201)
    model = GaussianProcess(kernel)
    model.fit(archs, z)
    features = np.concatenate((kernel.features(archs), kernel.features(new)))
    gram = model.signal * kernel.matrix(features, features, model.parameter)
    # Rows stand for architectures: the linear kernel of the rows of a root of the covariance is the covariance.
    root = np.linalg.cholesky(gram + 1e-12 * np.eye(40))
    oracle = GaussianProcessRegressor(
        PairwiseKernel(metric="linear"), alpha=model.signal * model.noise, optimizer=None
    ).fit(root[:30], z)
    mean, deviation = oracle.predict(root[30:], return_std=True)
    assert model.predict(new)[0] == pytest.approx(mean, abs=1e-6)
    assert model.predict(new)[1] == pytest.approx(deviation, abs=1e-5)


def test_marginal_likelihood_is_the_normal_density_at_the_best_signal():
    """Against scipy, on a grid of signal variances around the closed form."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    gram, z = root @ root.T / 6, rng.normal(size=6)
    best = float(z @ np.linalg.solve(gram + 0.1 * np.eye(6), z)) / 6

    def density(signal):
        return multivariate_normal(np.zeros(6), signal * (gram + 0.1 * np.eye(6))).logpdf(z)

    assert log_marginal_likelihood(gram, 0.1, z) == pytest.approx(density(best))
    assert all(density(best * factor) < density(best) for factor in (0.8, 0.95, 1.05, 1.25))
    assert log_marginal_likelihood(gram, 0.1, np.zeros(6)) == -math.inf
    assert log_marginal_likelihood(np.array([[1.0, 2.0], [2.0, 1.0]]), 0.0, z[:2]) == -math.inf


def test_likelihood_finds_the_length_scale():
    """Of 300 values drawn from the process with l = 0.2 or 1.6 and noise 0.01, the grid's l is the same or a neighbour."""
    archs = samples(NB201, 300)
    kernel = HammingKernel(NB201)
    features = kernel.learn(archs)
    for scale in (0.2, 1.6):
        gram = kernel.matrix(features, features, scale) + 0.01 * np.eye(300)
        z = np.linalg.cholesky(gram) @ np.random.default_rng(0).normal(size=300)
        model = GaussianProcess(kernel)
        model.fit(archs, z)
        assert abs(kernel.grid.index(model.parameter) - kernel.grid.index(scale)) <= 1


def test_hyper_parameters_are_kept_until_the_points_grew_by_a_tenth():
    """Chosen at 20 points; not at 21, again at 22."""
    model = GaussianProcess(HammingKernel(NB201))
    archs = samples(NB201, 22)
    z = np.random.default_rng(0).normal(size=22)
    for n, chosen_at in ((20, 20), (21, 20), (22, 22)):
        model.fit(archs[:n], z[:n])
        assert model._chosen_at == chosen_at


def test_expected_improvement():
    """phi(0) = 0.3989 at the best value; against the integral elsewhere; never negative far away."""
    assert expected_improvement(np.zeros(1), np.ones(1), 0.0) == pytest.approx(norm.pdf(0))
    z = np.linspace(-12, 12, 200_001)
    for mean, deviation, best in ((0.3, 0.7, -0.2), (-1.0, 0.5, 0.4)):
        integral = np.trapezoid(np.maximum(best - z, 0) * norm.pdf(z, mean, deviation), z)
        found = expected_improvement(np.array([mean]), np.array([deviation]), best)
        assert found == pytest.approx(integral, rel=1e-6)
    assert expected_improvement(np.array([50.0]), np.array([0.1]), 0.0) == 0


def test_ties_go_to_the_first():
    """Also where the last digit says otherwise."""
    assert largest(np.array([0.1, 0.5, np.nextafter(0.5, 1), 0.7]), 3) == [3, 1, 2]
    assert largest(np.zeros(3), 2) == [0, 1]


def test_standardise():
    """A constant is zeros, also where its mean is rounded."""
    assert standardise(np.array([1.0, 3.0])).tolist() == [-1, 1]
    assert not standardise(np.full(7, 0.1)).any()


# ----------------------------------------------------------------------------------------------------------- the search


def test_trace():
    """n_init 2, a pool of two: one mutation, one random architecture, on a 3 x 3 grid.

    Random: draws 0, 0 -> (0, 0), accuracy 0.9; 0.9, 0.9 -> (2, 2), accuracy 0.1. z = -1 and 1.
    Mutation of the best: dimension 1 (draw 0.5), choice 1 (draw 0.0 of the others 1, 2): (0, 1).
    Random: draws 0, 0 -> (0, 0), known; 0.4, 0.4 -> (1, 1). As in the test above, the mean is lower at (0, 1), which is
    close to the best, by more than its smaller deviation matters.
    """
    rng = Script(0.0, 0.0, 0.9, 0.9, 0.5, 0.0, 0.0, 0.0, 0.4, 0.4)
    search = GPBO(Grid(), rng, n_init=2, pool=2, parents=1)
    assert play(search, 3, lambda i, arch: (0.9, 0.1, 0.5)[i]) == [(0, 0), (2, 2), (0, 1)]
    assert rng.draws == []


def test_history():
    """Failed trials have the worst value and no offspring; beyond a limit the best and the most recent half stay."""
    told = History(Line())
    told.add(trial((0,), NAN))
    assert not told.any_success and told.best(5) == []
    for arch, value in (((1,), 0.5), ((2,), 0.9), ((1,), 0.2), ((3,), NAN)):
        told.add(trial(arch, value))
    assert told.any_success
    assert told.points(10)[1].tolist() == [0.2, 0.5, 0.9, 0.2, 0.2]
    assert told.best(5) == [(2,), (1,)] and told.best(1) == [(2,)]
    archs, values = told.points(4)  # the best: 2, 1; the most recent of the others: 1 again, 3
    assert archs == [(1,), (2,), (1,), (3,)] and values.tolist() == [0.5, 0.9, 0.2, 0.2]
    assert told.random(np.random.default_rng(0), 3) == [] == told.mutations(np.random.default_rng(0), 5, 3, 3)


def test_one_cell_is_proposed_once_however_it_is_spelt():
    """On NAS-Bench-101, whose tables are looked up by isomorphism class."""
    search = GPBO(NB101, np.random.default_rng(0), n_init=10, batch=10)
    proposed = play(search, 60, lambda i, arch: 0.5 + sum(arch[21:]) / 20)
    assert len({NB101.canonical(arch) for arch in proposed}) == 60


@pytest.mark.parametrize("kernel", ["hamming", "wl"])
@pytest.mark.parametrize("space", [Single(), Line(), Grid(), DARTS, NATSSizeSpace()], ids=lambda s: s.name)
def test_any_space(space, kernel):
    """One architecture, a few, 10^18: nothing is enumerated, and an exhausted space is not the end."""
    search = GPBO(space, np.random.default_rng(0), kernel=kernel, batch=5, pool=20)
    proposed = play(search, 40, lambda i, arch: 0.5 + sum(arch) / 1000)
    assert len(set(proposed)) == min(space.size, 40)


@pytest.mark.parametrize("kernel", ["hamming", "wl"])
def test_constant_perfect_or_failed(kernel):
    """No spread, no error, no success."""
    for value in (0.5, 1.0, 0.0, NAN):
        search = GPBO(NB201, np.random.default_rng(0), kernel=kernel, batch=5, pool=20)
        assert len(set(play(search, 40, lambda i, arch, value=value: value))) == 40


def test_cost_is_bounded():
    """The model never has more than max_points points."""
    search = GPBO(NB201, np.random.default_rng(0), batch=10, pool=20, max_points=30)
    play(search, 100, lambda i, arch: sum(arch) / 100)
    assert len(search._model._weights) == 30


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kernel": "rbf"}, "kernel must be"),
        ({"n_init": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"parents": 0}, "at least 1"),
        ({"pool": 1}, "at least 2"),
        ({"max_points": 1}, "at least 2"),
        ({"pool": 10, "batch": 11}, "cannot come from"),
    ],
)
def test_hyper_parameters_are_checked(parameters, message):
    with pytest.raises(ValueError, match=message):
        GPBO(Grid(), np.random.default_rng(0), **parameters)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check):
    """Every rule of the conformance suite, with a small model."""
    check(optimizer_spec(GP + CHEAP.format("hamming")))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [GP, GP + CHEAP.format("wl")])
def test_conformance_at_length(name, check):
    """The defaults, and the graph kernel."""
    check(optimizer_spec(name))


GOLDEN = {GP: "c83baaec60994725", GP + "@nas_bowl": "ddf7745c09da9818"}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_run(name):
    """A run of 40 trials is what it was when it was first recorded."""
    assert run(name, "digits201", Budget(evaluations=40), seed=1).fingerprint()[:16] == GOLDEN[name]


@pytest.mark.parametrize("name", [GP, pytest.param(GP + "@nas_bowl", marks=pytest.mark.slow)])
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
@pytest.mark.parametrize("name", [GP, GP + "@nas_bowl"])
def test_regret_is_below_that_of_random_search(name):
    """On digits201, after 100 evaluations, 40 paired runs: by t > 4.2 with 39 degrees of freedom (p < 1e-4)."""
    benchmark = load("digits201")

    def regrets(optimizer):
        runs = [run(optimizer, benchmark, Budget(evaluations=100), repetition=r) for r in range(40)]
        return np.array([r.regret(benchmark, "validation")[-1] for r in runs])

    difference = regrets("random_search") - regrets(name)
    assert difference.mean() / (difference.std(ddof=1) / np.sqrt(40)) > 4.2
