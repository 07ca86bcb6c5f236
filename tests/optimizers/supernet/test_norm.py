"""Whose statistics a supernet normalises by."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasharness.optimizers.supernet.norm import PathNorm, estimated, replace_norms, set_mode


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(8, 2, 3, 3, generator=generator) + i for i in range(3)]


def by_hand(x, mean, var, eps=1e-5):
    return (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + eps)


@pytest.mark.parametrize("training", [True, False])
def test_batch_mode_normalises_by_the_batch_and_keeps_nothing(batches, training):
    norm = PathNorm(2).train(training)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    for x in batches:
        expected = by_hand(x, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))
        torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_estimate_weighs_every_batch_equally(batches):
    norm = PathNorm(2, affine=False)
    with estimated(norm):
        for x in batches:
            expected = by_hand(x, x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0))
            torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in batches]).mean(0))


@pytest.mark.parametrize("training", [True, False])
def test_fixed_normalises_by_the_average(batches, training):
    norm = PathNorm(2, affine=False).train(training)
    with estimated(norm):
        for x in batches:
            norm(x)
    assert norm.mode == "fixed"
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    x = batches[0][:1] + 7
    torch.testing.assert_close(norm(x), by_hand(x, mean, var), rtol=1e-5, atol=1e-5)
    assert torch.equal(norm.running_mean, mean)


def test_a_second_estimate_starts_from_nothing_even_after_infinity(batches):
    norm = PathNorm(2, affine=False)
    with estimated(norm):
        norm(batches[0] * torch.inf)
    with estimated(norm):
        norm(batches[1])
    torch.testing.assert_close(norm.running_mean, batches[1].mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, batches[1].var((0, 2, 3)))


def test_an_estimate_keeps_no_graph_and_ends_after_an_error(batches):
    norm = PathNorm(2)
    with estimated(norm):
        assert not norm(batches[0]).requires_grad
    with pytest.raises(KeyError), estimated(norm):
        raise KeyError
    assert norm.mode == "fixed"


def test_every_batch_normalisation_inside_is_replaced():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)))
    replace_norms(network)
    first, second = (m for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert isinstance(first, PathNorm) and isinstance(second, PathNorm)
    assert (first.num_features, first.affine) == (3, True)
    assert (second.num_features, second.affine) == (4, False)
    set_mode(network, "fixed")
    assert first.mode == second.mode == "fixed"
