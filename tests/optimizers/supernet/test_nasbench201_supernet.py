"""The NAS-Bench-201 supernet: its two forms, its gradients, and the networks that come out of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP, NASBench201Space
from nasharness.optimizers.supernet.factory import build_supernet
from nasharness.optimizers.supernet.mix import Mix, hard, one_hot, path, soft
from nasharness.optimizers.supernet.nasbench201 import SearchCell
from nasharness.optimizers.supernet.network import channel_shuffle
from nasharness.optimizers.supernet.norm import PathNorm, estimated

SPACE = NASBench201Space()
SETTINGS = {"num_classes": 4, "channels": 4, "cells": 1, "input_channels": 1}
ACTIVE = ((1, 2, 3, 4), (0, 1, 2, 3, 4), (2, 3), (3,), (), (0, 1, 4))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def supernet(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_supernet(SPACE, SETTINGS, **options).double()
        for module in net.modules():  # scales and shifts that are not 1 and 0
            if isinstance(module, PathNorm) and module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias)
    return net


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs_and_gradients(net, images, mix, leaves):
    logits = net(images, [mix])
    wanted = [*leaves, *net.parameters()]
    found = torch.autograd.grad(
        functional.cross_entropy(logits, torch.arange(len(logits)) % 4), wanted, allow_unused=True
    )
    return [logits, *[torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("partial", [1, 2])
@pytest.mark.parametrize("active", [None, ACTIVE], ids=["all", "some"])
@pytest.mark.parametrize("edges", [False, True])
def test_the_merged_form_is_the_plain_form(affine, partial, active, edges):
    net = supernet(affine=affine, partial=partial)
    weights = numbers(6, 5).softmax(1).requires_grad_()
    factors = numbers(6, seed=1).exp().requires_grad_() if edges else None
    leaves = [weights] if factors is None else [weights, factors]
    found = []
    for net.merge in (True, False):
        found.append(outputs_and_gradients(net, numbers(6, 1, 8, 8), soft(weights, active, edges=factors), leaves))
    for merged, plain in zip(*found, strict=True):
        torch.testing.assert_close(merged, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("merge", [True, False])
def test_the_gradient_of_a_mixture_by_finite_differences(merge):
    net = supernet(affine=True)
    net.merge = merge
    images = numbers(6, 1, 8, 8)

    def loss(weights):
        return functional.cross_entropy(net(images, [soft(weights)]), torch.arange(6) % 4)

    weights = numbers(6, 5).softmax(1).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(weights), weights)
    assert torch.all(gradient[:, NONE] == 0)
    with torch.no_grad():
        for e in range(6):
            for op in range(1, 5):
                step = torch.zeros(6, 5, dtype=torch.float64)
                step[e, op] = 1e-6
                slope = (loss(weights + step) - loss(weights - step)) / 2e-6
                assert float(slope) == pytest.approx(float(gradient[e, op]), rel=1e-4, abs=1e-8)


ARCHITECTURES = [
    (0, 0, 0, 0, 0, 0),
    (0, 3, 3, 0, 3, 2),  # node 1 gets nothing, but is read
    (1, 1, 1, 1, 1, 1),
    (2, 2, 2, 2, 2, 2),
    (3, 3, 3, 3, 3, 3),
    (4, 4, 4, 4, 4, 4),
    (3, 0, 2, 0, 0, 0),  # the output gets nothing
    *(SPACE.sample(np.random.default_rng(seed)) for seed in range(12)),
]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_path_is_the_stand_alone_network_bit_for_bit(affine, layout):
    net = supernet(affine=affine).float().to(memory_format=layout).eval()
    images = numbers(8, 1, 8, 8).float().to(memory_format=layout)
    for arch in ARCHITECTURES:
        with estimated(net):
            for shift in (0, 1):
                net(images + shift, net.paths(arch))
        network = net.extract(arch)
        assert isinstance(network, NASBench201Network) and not network.training
        with torch.no_grad():
            assert torch.equal(network(images), net(images, net.paths(arch))), arch
        fresh = NASBench201Network(arch, **SETTINGS)
        assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in fresh.parameters())
        net.use_batch_statistics()


def test_what_is_extracted_is_a_copy():
    net = supernet()
    arch = (3,) * 6
    network = net.extract(arch)
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    assert all(p.abs().sum() > 0 for name, p in net.named_parameters() if name.endswith("op.1.weight"))


def test_a_path_is_the_mixture_with_one_hot_weights():
    net = supernet(affine=True)
    images = numbers(6, 1, 8, 8)
    for arch in ARCHITECTURES:
        hot = torch.nn.functional.one_hot(torch.tensor(arch), 5).double()
        torch.testing.assert_close(net(images, net.paths(arch)), net(images, [soft(hot)]), rtol=0, atol=1e-10)


def test_one_hot_has_the_value_of_the_largest_and_the_gradient_of_all():
    alpha = numbers(6, 5).requires_grad_()
    hot = one_hot(alpha.softmax(1))
    assert torch.allclose(hot.detach(), torch.nn.functional.one_hot(alpha.argmax(1), 5).double())
    (given,) = torch.autograd.grad((hot * numbers(6, 5, seed=1)).sum(), alpha)
    (expected,) = torch.autograd.grad((alpha.softmax(1) * numbers(6, 5, seed=1)).sum(), alpha)
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("edges", [False, True])
def test_what_is_carried_is_zero_and_has_the_gradient_of_a_number(edges):
    """In value a carried weight adds nothing; its gradient is that of a number added to every element of the edge."""
    net = supernet(affine=True)
    images = numbers(6, 1, 8, 8)
    arch = (3, 0, 2, 1, 4, 2)
    hot = torch.nn.functional.one_hot(torch.tensor(arch), 5).double().requires_grad_()
    factors = numbers(6, seed=3).exp() if edges else torch.ones(6, dtype=torch.float64)

    def loss(weights):
        choice = hard(hot, carry=True)
        mix = Mix(choice.active, weights, factors if edges else None, carry=True)
        return functional.cross_entropy(net(images, [mix]), torch.arange(6) % 4)

    without = Mix(hard(hot).active, hot, factors if edges else None, carry=False)
    torch.testing.assert_close(loss(hot), functional.cross_entropy(net(images, [without]), torch.arange(6) % 4))
    (gradient,) = torch.autograd.grad(loss(hot), hot)
    assert gradient[1, NONE] == 0  # chosen, and not computed
    with torch.no_grad():
        for e in range(6):
            for op in range(5):
                step = torch.zeros(6, 5, dtype=torch.float64)
                step[e, op] = 1e-6
                slope = (loss(hot + step) - loss(hot - step)) / 2e-6
                assert float(slope) == pytest.approx(float(gradient[e, op]), rel=1e-4, abs=1e-8)


def slow_partial_cell(cell: SearchCell, x, weights, factors, k):
    """PC-DARTS word by word: every edge mixes the first channels, appends the others and shuffles."""
    nodes = [x]
    for node in range(1, 4):
        total = torch.zeros_like(x)
        for e, (target, source) in enumerate(EDGES):
            if target != node:
                continue
            own, rest = nodes[source].split([x.shape[1] // k, x.shape[1] - x.shape[1] // k], dim=1)
            mixed = torch.zeros_like(own)
            mixed = mixed + weights[e, SKIP] * own
            mixed = mixed + weights[e, POOL] * functional.avg_pool2d(own, 3, 1, 1, count_include_pad=False)
            for op in (CONV1, CONV3):
                mixed = mixed + weights[e, op] * cell.operation(e, op)(own)
            joined = torch.cat((mixed, rest), dim=1)
            n, c, h, w = joined.shape
            total = total + factors[e] * joined.view(n, k, c // k, h, w).transpose(1, 2).reshape(n, c, h, w)
        nodes.append(total)
    return nodes[3]


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("merge", [True, False])
def test_partial_channels_against_a_slow_version(k, merge):
    net = supernet(affine=True, partial=k)
    net.merge = merge
    cell = next(part for part in net.modules() if isinstance(part, SearchCell))
    x, weights, factors = numbers(3, 4, 5, 5), numbers(6, 5, seed=1).softmax(1), numbers(6, seed=2).exp()
    torch.testing.assert_close(
        cell(x, soft(weights, edges=factors)), slow_partial_cell(cell, x, weights, factors, k), rtol=0, atol=1e-10
    )


def test_the_shuffle_interleaves_groups():
    x = torch.arange(8.0).view(1, 8, 1, 1)
    assert channel_shuffle(x, 4).flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


def test_partial_channels_have_nothing_to_extract():
    with pytest.raises(ValueError, match="partial=3 does not divide the 4 channels"):
        supernet(partial=3)
    with pytest.raises(ValueError, match="1 / 2 of the channels"):
        supernet(partial=2).extract((3,) * 6)


def test_an_operation_left_out_adds_nothing_and_the_others_stay():
    net = supernet(affine=True)
    images = numbers(6, 1, 8, 8)
    weights = numbers(6, 5).softmax(1)
    zeroed = weights.clone()
    zeroed[2, CONV3] = 0
    mix = soft(weights)
    first = net(images, [mix])  # what the mix remembers of this pass must not reach the next
    left_out = mix.without(2, CONV3)
    assert left_out.active[2] == (0, 1, 2, 4)
    assert left_out.active[1] == mix.active[1] == (0, 1, 2, 3, 4)
    torch.testing.assert_close(net(images, [left_out]), net(images, [soft(zeroed)]), rtol=0, atol=1e-10)
    assert torch.equal(net(images, [mix]), first)


def test_a_chosen_operation_left_out_is_not_carried_as_a_number():
    net = supernet(affine=True)
    images = numbers(6, 1, 8, 8)
    hot = torch.nn.functional.one_hot(torch.tensor((3, 1, 2, 3, 4, 2)), 5).double()
    expected = net(images, [path((3, 1, 0, 3, 4, 2))])
    torch.testing.assert_close(net(images, [hard(hot).without(2, CONV1)]), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("merge", [True, False])
def test_a_mix_that_was_evaluated_without_gradients_still_has_them(merge):
    net = supernet()
    net.merge = merge
    images = numbers(6, 1, 8, 8)
    alpha = numbers(6, 5).requires_grad_()
    mix = soft(alpha.softmax(1))
    with torch.no_grad():
        net(images, [mix])
    (gradient,) = torch.autograd.grad(net(images, [mix]).square().sum(), alpha)
    assert torch.all(gradient.abs().sum(1) > 0)


def test_dropout_of_skips_in_training_only():
    net = supernet()
    net.generator = torch.Generator().manual_seed(0)
    net.skip_dropout = 0.25
    x = torch.ones(100, 4, 5, 5)
    dropped = net.train().drop(x)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)  # the generator's seed is fixed
    assert net.eval().drop(x) is x
