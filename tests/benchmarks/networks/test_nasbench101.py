import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nasharness.benchmarks.networks.cost import count_flops, count_parameters
from nasharness.benchmarks.networks.nasbench101 import Cell, ConvBNReLU, NASBench101Network
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nasbench101 import (
    CONV1,
    CONV3,
    POOL,
    Graph,
    NASBench101Space,
    count_cost,
    graph_from_matrix,
    prune,
    vertex_channels,
)

SPACE = NASBench101Space()
LINE = Graph(2, 1, ())


@pytest.fixture(scope="module")
def specs(shared_data):
    """Cells with the official number of trainable parameters."""
    vectors = json.loads((shared_data / "official" / "nb101_spec_hashes.json").read_text())
    return [spec for spec in vectors["specs"] if spec["is_valid"]]


def tiny(arch, **arguments):
    return NASBench101Network(arch, **{"channels": 5, "stacks": 2, "modules": 1, "input_channels": 1, **arguments})


def draw(seed, n):
    rng = np.random.default_rng(seed)
    return [SPACE.sample(rng) for _ in range(n)]


graphs = st.integers(2, 7).flatmap(
    lambda v: st.builds(
        Graph, st.just(v), st.integers(0, 2 ** (v * (v - 1) // 2) - 1), st.tuples(*[st.integers(0, 2)] * (v - 2))
    )
)


# ------------------------------------------------------------------------------------------------------------ counts


def test_official_parameters(specs):
    """Trainable parameters of 46 official networks, exactly; counted from the layers, on the meta device."""
    expected, actual = {}, {}
    for spec in specs:
        with torch.device("meta"):
            network = NASBench101Network(graph_from_matrix(spec["matrix"], spec["ops"]))
        actual[spec["name"]] = count_parameters(network)
        expected[spec["name"]] = spec["trainable_parameters"]
    assert len(expected) == 46
    assert actual == expected


@settings(max_examples=40, deadline=None)
@given(
    graphs,
    st.fixed_dictionaries(
        {
            "num_classes": st.integers(1, 12),
            "channels": st.integers(5, 40),
            "stacks": st.integers(1, 3),
            "modules": st.integers(1, 2),
            "input_channels": st.integers(1, 4),
        }
    ),
    st.integers(1, 33),
)
def test_analytic_cost_is_that_of_the_network(graph, arguments, side):
    """`count_cost` without torch gives the parameters and FLOPs that hooks count on the real layers."""
    assume(prune(graph) is not None)
    with torch.device("meta"):
        network = NASBench101Network(graph, **arguments)
        counted = count_parameters(network), count_flops(network, (arguments["input_channels"], side, side))
    assert count_cost(graph, image_size=side, **arguments) == counted


@pytest.mark.parametrize("arch", draw(1, 10))
def test_analytic_cost_of_the_official_setting(arch):
    """The defaults of `count_cost` and of the network are the same, and an architecture costs what its cell does."""
    with torch.device("meta"):
        network = NASBench101Network(arch)
        counted = count_parameters(network), count_flops(network, (3, 32, 32))
    assert count_cost(SPACE.graph(arch)) == counted


# ------------------------------------------------------------------------------------------------------ forward pass


def reference_cell(graph, cell, x):
    """The cell's output by recursion from the output, with plain functions and the cell's own parameters."""
    matrix = graph.matrix
    last = graph.vertices - 1
    widths = vertex_channels(graph, x.shape[1], cell.channels[-1])

    def layer(block, value):
        conv, norm = block[0], block[1]
        padded = F.pad(value, [conv.kernel_size[0] // 2] * 4)
        value = F.conv2d(padded, conv.weight)
        scale = norm.weight / torch.sqrt(norm.running_var + 1e-5)
        return torch.clamp(
            (value - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None], min=0
        )

    def value(t):
        total = torch.zeros(len(x), widths[t], *x.shape[2:], dtype=x.dtype)
        for s in range(1, t):
            if matrix[s, t]:
                total += value(s)[:, : widths[t]]
        if matrix[0, t]:
            total += layer(cell.projections[str(t)], x)
        if graph.labels[t - 1] != POOL:
            return layer(cell.operations[t - 1], total)
        padded = F.pad(total, [1] * 4, value=-math.inf)
        side = [slice(i, i + n) for i, n in itertools.product(range(3), total.shape[2:3])]
        across = [slice(i, i + n) for i, n in itertools.product(range(3), total.shape[3:4])]
        return torch.stack([padded[:, :, a, b] for a in side for b in across]).amax(0)

    output = torch.zeros(len(x), widths[last], *x.shape[2:], dtype=x.dtype)
    start = 0
    for s in range(1, last):
        if matrix[s, last]:
            output[:, start : start + widths[s]] = value(s)
            start += widths[s]
    assert start in (0, widths[last])
    return output + layer(cell.projections[str(last)], x) if matrix[0, last] else output


@pytest.mark.parametrize("inputs", [7, 14])
def test_cell_is_the_reference(inputs):
    """Cells with uneven channels, all parameters and statistics random, against an independent recursion."""
    rng = np.random.default_rng(inputs)
    truncating = 0
    cells = [LINE, *(SPACE.graph(arch) for arch in draw(inputs, 25))]
    while len(cells) < 60:  # and dense ones, which sampling seldom gives
        graph = prune(Graph(7, int(rng.integers(2**21)) & int(rng.integers(2**21)) | 1, tuple(rng.integers(0, 3, 5))))
        if graph is not None and graph.vertices >= 6:
            cells.append(graph)
    for graph in cells:
        cell = Cell(graph, inputs, 14).double().eval()
        for tensor in (*cell.parameters(), *(b for b in cell.buffers() if b.is_floating_point())):
            tensor.data = torch.rand_like(tensor) + 0.1 - (0.5 if tensor.ndim == 4 else 0)
        x = torch.randn(2, inputs, 5, 4, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(cell(x), reference_cell(graph, cell, x))
        widths = cell.channels
        truncating += any(
            widths[s] > widths[t] for t in range(1, graph.vertices - 1) for s in range(1, t) if graph.matrix[s, t]
        )
    assert truncating > 2


def test_network_is_stem_stacks_and_classifier():
    """The whole network, assembled by hand from its own parts: pooling before each further stack, the mean, the classifier."""
    network = tiny(SPACE.from_graph(Graph(3, 0b111, (CONV3,))), stacks=3, modules=2, channels=4).eval()
    images = torch.randn(2, 1, 9, 9)
    cells = [layer for layer in network.cells if isinstance(layer, Cell)]
    assert [(cell.channels[0], cell.channels[-1]) for cell in cells] == [
        (4, 4),
        (4, 4),
        (4, 8),
        (8, 8),
        (8, 16),
        (16, 16),
    ]
    with torch.no_grad():
        x = network.stem(images)
        assert x.shape == (2, 4, 9, 9)
        sides = []
        for i, cell in enumerate(cells):
            if i in (2, 4):
                x = F.max_pool2d(F.pad(x, [0, x.shape[3] % 2, 0, x.shape[2] % 2], value=-math.inf), 2)
            x = cell(x)
            sides.append(x.shape[-1])
        assert sides == [9, 9, 5, 5, 3, 3]
        torch.testing.assert_close(network.features(images), x.mean((2, 3)))
        logits = F.linear(x.mean((2, 3)), network.classifier.weight, network.classifier.bias)
        torch.testing.assert_close(network(images), logits)


@pytest.mark.parametrize("arch", draw(2, 4))
@pytest.mark.parametrize(("channels", "stacks", "classes", "side"), [(8, 3, 10, 8), (5, 1, 3, 7), (16, 2, 1, 1)])
def test_shapes(arch, channels, stacks, classes, side):
    network = tiny(arch, channels=channels, stacks=stacks, num_classes=classes, input_channels=3).eval()
    images = torch.randn(2, 3, side, side)
    assert network.features(images).shape == (2, channels * 2 ** (stacks - 1))
    assert network(images).shape == (2, classes)


@pytest.mark.parametrize("arch", draw(3, 4))
def test_every_parameter_gets_a_gradient(arch):
    """No layer of a pruned cell is idle."""
    network = tiny(arch, channels=8).train()
    network(torch.randn(16, 1, 6, 6)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_pruned_cell_and_its_architecture_give_one_network():
    """An architecture, its unpruned cell and its pruned cell build the same layers."""
    for arch in draw(4, 5):
        shapes = []
        for what in (arch, SPACE.graph(arch), np.array(arch)):
            with torch.device("meta"):
                shapes.append([(n, p.shape) for n, p in NASBench101Network(what).named_parameters()])
        assert shapes[0] == shapes[1] == shapes[2]


def test_a_larger_cell_than_the_space_has_can_be_built():
    """A chain of eight operations."""
    edges = sum(1 << y - 1 + y * (y - 1) // 2 for y in range(1, 10))
    chain = Graph(10, edges, (CONV1,) * 8)
    assert tiny(chain)(torch.randn(2, 1, 4, 4)).shape == (2, 10)
    assert count_parameters(tiny(chain)) == count_cost(chain, channels=5, stacks=2, modules=1, input_channels=1)[0]


# ---------------------------------------------------------------------------------------------------- initialisation


def test_constants_of_the_layers():
    """Batch normalisation of the official model, no bias in convolutions."""
    network = tiny(draw(5, 1)[0])
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum, norm.affine) for norm in norms} == {(1e-5, 0.003, True)}
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))


def test_initialisation():
    """Convolutions: variance 1 / fan-in, cut at two deviations before rescaling. Classifier: Glorot uniform, no bias."""
    network = NASBench101Network(Graph(3, 0b111, (CONV3,)), channels=64, stacks=2, modules=1)
    weights = [m for m in network.modules() if isinstance(m, ConvBNReLU)]
    assert len(weights) == 1 + 2 * 3
    for block in weights:
        weight = block[0].weight
        fan_in = weight[0].numel()
        n = weight.numel()
        assert abs(weight.var().item() * fan_in - 1) < 6 * math.sqrt(2 / n)
        assert abs(weight.mean().item()) < 5 / math.sqrt(fan_in * n)
        largest = weight.abs().max().item() * math.sqrt(fan_in)
        assert 2.0 < largest <= 2 / 0.8796 + 1e-3
    bound = math.sqrt(6 / (128 + 10))
    assert 0.97 * bound < network.classifier.weight.abs().max().item() <= bound
    assert not network.classifier.bias.any()


def test_initialisation_follows_the_global_generator():
    """The same seed gives the same network, another seed another."""
    arch = draw(6, 1)[0]

    def first(seed):
        torch.manual_seed(seed)
        return tiny(arch).stem[0].weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


# ----------------------------------------------------------------------------------------------------------- refusal


def test_refuses_what_is_no_cell():
    with pytest.raises(InvalidArchitecture, match="no path"):
        NASBench101Network((0,) * 26)
    with pytest.raises(ValueError, match="no path"):
        NASBench101Network(Graph(3, 1, (CONV1,)))
    with pytest.raises(ValueError, match="4 vertices feed the output"):
        tiny(Graph(6, sum(1 << y * (y - 1) // 2 for y in range(1, 5)) | 0b11110 << 10, (CONV1,) * 4), channels=3)
    for bad in ({"stacks": 0}, {"modules": 0}, {"channels": 0}):
        with pytest.raises(ValueError, match="at least one channel, stack and module"):
            tiny(LINE, **bad)
