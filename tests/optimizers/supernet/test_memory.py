"""Bytes kept for the backward pass, against graphs that can be counted by hand."""

import pytest
import torch

from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.optimizers.supernet.factory import build_supernet
from nasharness.optimizers.supernet.memory import saved_bytes
from nasharness.optimizers.supernet.mix import soft


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_products_keep_both_factors():
    a, b = (torch.ones(10, requires_grad=True) for _ in range(2))
    assert saved_bytes(lambda: (a * b).sum()) == 2 * 40


def test_shared_memory_counts_once():
    a = torch.ones(10, requires_grad=True)
    assert saved_bytes(lambda: (a * a).sum()) == 40
    assert saved_bytes(lambda: (a[:3] * a[3:6]).sum()) == 40, "two views of one memory"


def test_results_that_are_kept():
    a = torch.ones(100, dtype=torch.float64, requires_grad=True)
    assert saved_bytes(lambda: a.exp().exp().sum()) == 2 * 800, "exp keeps its result"
    assert saved_bytes(lambda: (a + 1.0).sum()) == 0, "a sum keeps nothing"


def test_parameters_do_not_count():
    layer = torch.nn.Linear(4, 3)
    x = torch.ones(2, 4)
    assert saved_bytes(lambda: layer(x).sum(), parameters=layer) == 2 * 4 * 4
    assert saved_bytes(lambda: layer(x).sum(), parameters=[*layer.parameters(), x]) == 0


def test_memory_that_is_freed_during_the_step():
    """The graph of the first product is gone when the second is made; both are counted, always the same."""
    a = torch.ones(1000, requires_grad=True)

    def step():
        (a * torch.full((1000,), 2.0)).sum()
        return (a * torch.full((1000,), 3.0)).sum()

    assert saved_bytes(step, parameters=[a]) == saved_bytes(step, parameters=[a]) == 2 * 4000


def test_no_gradient():
    with pytest.raises(ValueError, match="no gradient"):
        saved_bytes(lambda: torch.ones(3).sum())


def kept(*, merge=True, gradient=True, **options):
    torch.manual_seed(0)
    net = build_supernet(
        NASBench201Space(), {"num_classes": 4, "channels": 8, "cells": 1, "input_channels": 1}, **options
    )
    net.merge = merge
    net = net.to(memory_format=torch.channels_last)
    images = torch.randn(4, 1, 8, 8)
    alpha = torch.zeros(6, 5, requires_grad=gradient)
    return saved_bytes(lambda: net(images, [soft(torch.softmax(alpha, 1))]).square().sum(), parameters=net)


def test_supernets():
    """Deterministic; merged operations and partial channels keep less, and so does a step of the weights alone."""
    assert kept() == kept()
    assert kept() < kept(merge=False)
    assert kept(gradient=False) < kept()
    assert kept(partial=4) < 0.6 * kept()
