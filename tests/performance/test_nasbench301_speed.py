"""Speeds of the surrogate models. Nothing here fails on a slow machine; `make test` runs each once, untimed."""

import numpy as np
import pytest

from nasharness.benchmarks.formats.gin import build_gin, weight_shapes
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.trees import TreeEnsemble, Trees, check_trees

SPACE = DARTSSpace()
CELLS = [10, 11, 12, 13, *range(15, 21), *range(32, 56)]
"""The features that describe cells."""


def members(count, trees, depth, rng):
    """Random trees of this depth, three quarters of whose nodes have children."""
    for _ in range(count):
        left, feature, start = [], [], [0]
        for _ in range(trees):
            level, nodes = [0], 1
            tree = [-1]
            for _ in range(depth):
                below = []
                for node in level:
                    if rng.random() < 0.75 or nodes == 1:
                        tree[node] = nodes
                        tree += [-1, -1]
                        below += [nodes, nodes + 1]
                        nodes += 2
                level = below
            left += tree
            start.append(len(left))
        left = np.array(left, dtype=np.int32)
        n = len(left)
        feature = rng.choice(CELLS, n).astype(np.int32)
        threshold = (rng.integers(-1, 7, n) + 0.5).astype(np.float32)
        value = rng.normal(scale=0.01, size=n).astype(np.float32)
        right = np.where(left >= 0, left + 1, -1).astype(np.int32)
        yield check_trees(Trees(np.array(start), left, right, feature, threshold, value, 0.5, 56), "made up")


@pytest.fixture(scope="module", params=[(12, 5), (100, 10)], ids=["12 trees of depth 5", "100 trees of depth 10"])
def ensemble(request):
    return TreeEnsemble.build(members(10, *request.param, np.random.default_rng(0)), "<")


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(1)
    return SPACE.features([SPACE.sample(rng) for _ in range(2048)])


def record(benchmark, n):
    if benchmark.stats:
        benchmark.extra_info["architectures_per_second"] = round(n / benchmark.stats.stats.min)


@pytest.mark.benchmark(group="ten members of boosted trees")
def test_batches(benchmark, ensemble, features):
    benchmark(ensemble.predict, features)
    record(benchmark, len(features))


@pytest.mark.benchmark(group="ten members of boosted trees")
def test_single_rows(benchmark, ensemble, features):
    benchmark(ensemble.predict, features[:1])
    record(benchmark, 1)


def by_conditions(ensemble, x):
    """The obvious alternative: per tree, ask every node about every input, and walk with fancy indexing."""
    result = np.repeat(ensemble.base[:, None], len(x), axis=1)
    inner = ensemble.question < len(ensemble.question_feature)
    question = np.where(inner, ensemble.question, 0)
    feature, threshold = ensemble.question_feature[question], ensemble.question_threshold[question]
    x = x.astype(np.float32)
    rows = np.arange(len(x))
    for member, (first, last) in enumerate(zip(ensemble.members[:-1], ensemble.members[1:], strict=True)):
        for tree in range(first, last):
            node = np.full(len(x), ensemble.root[tree])
            for _ in range(ensemble.depth[tree]):
                node = ensemble.left[node] + (inner[node] & (x[rows, feature[node]] >= threshold[node]))
            result[member] += ensemble.value[node]
    return result


@pytest.mark.benchmark(group="ten members of boosted trees")
def test_baseline(benchmark, ensemble, features):
    """Baseline of the group."""
    expected = ensemble.predict(features)
    assert np.array_equal(benchmark(by_conditions, ensemble, features), expected)
    record(benchmark, len(features))


@pytest.mark.benchmark(group="graph network")
def test_graph_network(benchmark):
    rng = np.random.default_rng(0)
    weights = {name: np.abs(rng.normal(size=shape)).astype(np.float32) for name, shape in weight_shapes(8, 24).items()}
    config = {"model": "gnn_gin", "num_gnn_layers": 8, "gnn_hidden_dimensions": 24}
    network = build_gin(weights, config, "made up")
    archs = [SPACE.sample(rng) for _ in range(256)]
    benchmark(network.predict, archs)
    record(benchmark, len(archs))
