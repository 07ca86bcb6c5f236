import json

import numpy as np
import pytest
import torch
from torch import nn

from nasharness.benchmarks.networks.cost import count_flops, count_parameters
from nasharness.benchmarks.networks.nasbench201 import Cell, NASBench201Network
from nasharness.benchmarks.spaces.base import InvalidArchitecture
from nasharness.benchmarks.spaces.nasbench201 import (
    CONV1,
    CONV3,
    NONE,
    POOL,
    SKIP,
    NASBench201Space,
    network_classes,
)

SPACE = NASBench201Space()
BEST = (CONV3, CONV3, CONV3, SKIP, CONV3, CONV3)


def tiny(arch, **settings):
    return NASBench201Network(arch, **{"channels": 2, "cells": 1, "input_channels": 1, **settings})


@pytest.fixture(scope="module")
def vectors(shared_data):
    """Numbers of the official models."""
    return json.loads((shared_data / "official" / "nb201_networks.json").read_text())


@pytest.fixture(scope="module")
def classes_of_several():
    """Sixty network classes of several members, drawn once: a list of lists of at most five architectures."""
    members = {}
    for arch, number in zip(SPACE, network_classes(), strict=True):
        members.setdefault(number, []).append(arch)
    several = [archs for archs in members.values() if len(archs) > 1]
    rng = np.random.default_rng(5)
    picks = [several[i] for i in rng.choice(len(several), 60, replace=False)]
    return [[archs[i] for i in rng.permutation(len(archs))[:5]] for archs in picks]


# -------------------------------------------------------------------------------------------------- official numbers


@pytest.mark.parametrize(
    ("dataset", "classes", "side"), [("cifar10", 10, 32), ("cifar100", 100, 32), ("ImageNet16-120", 120, 16)]
)
def test_parameters_and_flops_are_the_official_ones(vectors, dataset, classes, side):
    """Parameters and FLOPs of 40 official networks, exactly."""
    expected, actual = {}, {}
    for case in vectors["cases"]:
        network = NASBench201Network(SPACE.from_string(case["arch"]), num_classes=classes)
        actual[case["index"]] = count_parameters(network), count_flops(network, (3, side, side))
        wanted = case["nets"][dataset]
        expected[case["index"]] = round(wanted["params_M"] * 1e6), round(wanted["flops_M"] * 1e6)
    assert len(expected) == 40
    assert expected == actual


@pytest.mark.parametrize("number", range(4))
def test_forward_pass_is_the_official_one(vectors, number):
    """Logits and pooled features of four official networks with parameters by recipe, to 1e-5 relative."""
    expected = vectors["forward_check"]["results"][number]
    network = NASBench201Network(SPACE.from_index(expected["index"]))
    names = [name for name, _ in network.named_parameters()]
    assert expected["first_param_names"] == names[:6]
    assert expected["n_named_parameters"] == len(names)
    for k, (name, parameter) in enumerate(network.named_parameters()):
        values = np.sin(0.37 * np.arange(parameter.numel()) + k) * 0.1
        if parameter.ndim == 1 and "weight" in name:
            values += 1.0
        parameter.data = torch.tensor(values.astype(np.float32)).reshape(parameter.shape)
    network.double().eval()
    images = torch.sin(0.01 * torch.arange(2 * 3 * 32 * 32, dtype=torch.float64)).reshape(2, 3, 32, 32)
    with torch.no_grad():
        features, logits = network.features(images), network(images)
    np.testing.assert_allclose(logits.numpy(), expected["logits"], rtol=1e-5)
    np.testing.assert_allclose(features.sum().item(), expected["feature_sum"], rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------ pruning


def test_pruned_members_of_a_class_have_the_same_cost(classes_of_several):
    """All members of a network class have, once pruned, the same parameters and FLOPs."""
    for archs in classes_of_several:
        networks = [tiny(arch, prune=True) for arch in archs]
        costs = {(count_parameters(network), count_flops(network, (1, 8, 8))) for network in networks}
        assert len(costs) == 1, archs


def test_pruning_changes_no_logit_at_initialisation(classes_of_several):
    """With the same weights, pruned and unpruned networks agree in evaluation mode before any training.

    (Batch normalisation starts with mean 0 and bias 0, so a convolution of zero still is zero.)
    """
    images = torch.randn(2, 1, 8, 8)
    for archs in classes_of_several:
        full = tiny(archs[-1]).eval()
        pruned = tiny(archs[-1], prune=True).eval()
        left_out = pruned.load_state_dict(full.state_dict(), strict=False)
        assert left_out.missing_keys == []
        with torch.no_grad():
            torch.testing.assert_close(pruned(images), full(images), rtol=1e-5, atol=1e-6)


def test_pruning_removes_the_parameters_of_dead_operations():
    """A convolution of a node that nothing reaches costs parameters officially, and none when pruned."""
    arch = (NONE, SKIP, CONV3, CONV1, CONV1, SKIP)  # edges 2<-1 and 3<-1 start at node 1, which is never reached
    full, pruned = tiny(arch), tiny(arch, prune=True)
    per_cell = {channels: 9 * channels**2 + channels**2 + 2 * 2 * channels for channels in (2, 4, 8)}
    assert sum(per_cell.values()) == count_parameters(full) - count_parameters(pruned)
    assert pruned.arch == (NONE, SKIP, NONE, CONV1, NONE, SKIP)


@pytest.mark.parametrize("kind", [CONV1, CONV3])
def test_a_dead_convolution_contributes_its_bias(kind):
    """Unpruned, a convolution of a node that is zero adds exactly the bias of its batch normalisation."""
    cell = Cell((NONE, NONE, NONE, SKIP, kind, NONE), 3).eval()
    bias = torch.tensor([0.5, -1.0, 2.0])
    cell.layers[4].op[2].bias.data.copy_(bias)
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(cell(x), x + bias[:, None, None], rtol=0, atol=0)


@pytest.mark.parametrize("prune", [False, True])
def test_a_cell_that_nothing_passes_is_zero(prune):
    """Where no path reaches the output, the cell is zero: the logits do not depend on the image."""
    network = tiny((CONV3, CONV3, CONV3, NONE, NONE, NONE), prune=prune).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(torch.randn(1, 1, 8, 8)), network(torch.randn(1, 1, 8, 8)), rtol=0, atol=0)


def test_gradients_reach_every_parameter_of_a_pruned_network(classes_of_several):
    """In a pruned network whose cells pass something on, every parameter gets a gradient."""
    images = torch.randn(4, 1, 8, 8)
    reached = [archs[0] for archs in classes_of_several if any(SPACE.prune(archs[0]))]
    assert len(reached) > 50
    for arch in reached:
        network = tiny(arch, prune=True)
        network(images).square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None] == [], arch


# ------------------------------------------------------------------------------------------------------------ the cell


def test_cell_by_hand():
    """Node j is the sum of its edges; average pooling leaves the padding out; `none` is nothing."""
    cell = Cell((SKIP, POOL, SKIP, NONE, SKIP, SKIP), 1).eval()
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    pooled = torch.full((1, 1, 2, 2), 3.0)  # every 3 x 3 window holds all four pixels: their mean is 3
    torch.testing.assert_close(cell(x), x + (pooled + x))  # node 1 + node 2


def test_convolution_edge_is_relu_convolution_normalisation():
    """A 1 x 1 convolution edge computes BN(W relu(x)); at initialisation BN divides by sqrt(1 + 1e-5)."""
    cell = Cell((NONE, NONE, NONE, CONV1, NONE, NONE), 1).eval()
    cell.layers[3].op[1].weight.data.fill_(2.0)
    x = torch.tensor([[[[-1.0, 0.5]]]])
    with torch.no_grad():
        torch.testing.assert_close(cell(x), torch.tensor([[[[0.0, 1.0]]]]) / (1 + 1e-5) ** 0.5)


# ------------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (5, 12), (1, 3)])
@pytest.mark.parametrize(("channels", "classes", "inputs", "cells"), [(2, 10, 1, 1), (3, 7, 4, 2)])
def test_output_shapes(height, width, channels, classes, inputs, cells):
    """Any image size, channels, classes and depth: logits are (n, classes), features (n, 4 * channels)."""
    network = NASBench201Network(BEST, num_classes=classes, channels=channels, cells=cells, input_channels=inputs)
    images = torch.randn(3, inputs, height, width)
    assert ((3, 4 * channels), (3, classes)) == (tuple(network.features(images).shape), tuple(network(images).shape))


@pytest.mark.parametrize(("side", "expected"), [(8, [8, 4, 2]), (7, [7, 4, 2]), (12, [12, 6, 3]), (5, [5, 3, 2])])
def test_a_stage_halves_the_side_and_rounds_up(side, expected):
    """The three stages see the side, its half and its quarter, rounded up."""
    network, sides = tiny(BEST), []
    for module in network.modules():
        if isinstance(module, Cell):
            module.register_forward_hook(lambda _, __, output: sides.append(output.shape[-1]))
    network(torch.randn(2, 1, side, side))
    assert expected == sides


def test_state_dict_has_the_official_names():
    """The names of the official model: stem, cells (with residual blocks between the stages), lastact, classifier."""
    network = tiny((CONV1, NONE, SKIP, NONE, POOL, CONV3))
    bn = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    cell = [[f"layers.{e}.op.1.weight", *(f"layers.{e}.op.2.{n}" for n in bn)] for e in (0, 5)]
    block = [[f"conv_{c}.op.1.weight", *(f"conv_{c}.op.2.{n}" for n in bn)] for c in "ab"]
    expected = ["stem.0.weight", *(f"stem.1.{n}" for n in bn)]
    for position, parts in enumerate(
        [cell, [*block, ["downsample.1.weight"]], cell, [*block, ["downsample.1.weight"]], cell]
    ):
        expected += [f"cells.{position}.{name}" for part in parts for name in part]
    expected += [*(f"lastact.0.{n}" for n in bn), "classifier.weight", "classifier.bias"]
    assert sorted(expected) == sorted(network.state_dict())


@pytest.mark.parametrize("arch", [(0, 0, 0), (5, 0, 0, 0, 0, 0), "|none~0|", (True,) * 6])
def test_invalid_architecture_is_refused(arch):
    """A network is built for architectures of the space only."""
    with pytest.raises(InvalidArchitecture):
        tiny(arch)


# --------------------------------------------------------------------------------------------------------------- cost


def test_flops_by_hand():
    """Multiply-accumulates of one small network, written out."""
    network = tiny((NONE, NONE, NONE, CONV3, NONE, NONE))  # one 3x3 convolution per cell; 2, 4, 8 channels; 8 x 8 image
    stem = 8 * 8 * 9 * 1 * 2
    cells = 9 * (64 * 2 * 2 + 16 * 4 * 4 + 4 * 8 * 8)
    first_block = 16 * (9 * 2 * 4 + 9 * 4 * 4 + 2 * 4)
    second_block = 4 * (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8)
    classifier = 8 * 10 + 10
    assert stem + cells + first_block + second_block + classifier == count_flops(network, (1, 8, 8))


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), 25 * 6 * (2 * 9 + 1)),
        (nn.Conv2d(4, 6, (1, 5), padding=(0, 2), bias=False), 25 * 6 * 4 * 5),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 3)), 303),
        (nn.Sequential(nn.Flatten(), nn.Linear(100, 3, bias=False)), 300),
        (nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2)), 0),
    ],
    ids=["grouped with bias", "1x5", "linear", "linear without bias", "free layers"],
)
def test_flops_of_single_layers(module, expected):
    """Groups divide, kernels need not be square, a bias counts once per output, the rest is free."""
    assert expected == count_flops(module, (4, 5, 5))


def test_counting_flops_leaves_the_network_as_it_was():
    """Counting keeps the mode, the running statistics and the hooks."""
    network = tiny(BEST).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    count_flops(network, (1, 8, 8))
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())


def test_frozen_parameters_are_not_counted():
    """Parameters are the trainable ones."""
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert count_parameters(layer) == 6
