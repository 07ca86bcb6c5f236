"""Beta-DARTS: the penalty, its schedule, and resuming."""

from __future__ import annotations

import io
import math

import pytest
import torch
from tiny_supernets import make

from nasharness.optimizers.beta_darts import BetaDARTS, beta_decay


def test_the_penalty_by_hand():
    """Two edges: log(1 + 1) and log(e + e^3)."""
    alpha = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    loss = beta_decay([alpha])
    assert float(loss.detach()) == pytest.approx((math.log(2) + math.log(math.e + math.e**3)) / 2)
    (gradient,) = torch.autograd.grad(loss, alpha)
    assert torch.allclose(gradient, torch.softmax(alpha, 1) / 2)


def test_the_mean_is_over_the_edges_of_all_tables():
    a, b = torch.randn(2, 3), torch.randn(4, 3)
    assert torch.allclose(beta_decay([a, b]), beta_decay([torch.cat([a, b])]))


def test_gradient_steps_bring_the_weights_together():
    alpha = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    before = torch.softmax(alpha, 1).max()
    for _ in range(20):
        (gradient,) = torch.autograd.grad(beta_decay([alpha]), alpha)
        alpha = (alpha - 0.1 * gradient).detach().requires_grad_()
    assert torch.softmax(alpha, 1).max() < before


def test_the_coefficient_grows_linearly_from_zero():
    search = make(BetaDARTS, epochs=4, coefficient=20.0)
    assert [search.strength(epoch) for epoch in range(4)] == [0.0, 5.0, 10.0, 15.0]
    assert make(BetaDARTS, epochs=100).strength(37) == pytest.approx(50 * 37 / 100)
    assert search.regulariser() == 0.0


def test_the_architecture_step_adds_the_penalty():
    search = make(BetaDARTS, epochs=4, coefficient=20.0)
    search.prepare()
    search.epoch = 2
    batch = next(search.images.batches("architecture"))
    alpha = search.alphas[0].detach().clone()
    loss = search.loss(batch, search.mixes())
    expected = torch.autograd.grad(loss, search.alphas)[0] + 10.0 * torch.softmax(alpha, 1) / len(alpha)
    search.architecture_step(batch, batch)
    assert torch.allclose(search.alphas[0].grad, expected, rtol=1e-4, atol=1e-6)


def test_without_a_coefficient_it_is_darts():
    from nasharness.optimizers.darts import DARTS

    ours, plain = make(BetaDARTS, coefficient=0.0), make(DARTS)
    assert [ours.ask().arch for _ in range(2)] == [plain.ask().arch for _ in range(2)]
    assert torch.equal(ours.alphas[0], plain.alphas[0])


def test_a_resumed_search_ends_the_same():
    whole, first, second = (make(BetaDARTS) for _ in range(3))
    expected = [whole.ask().arch, whole.ask().arch]
    assert first.ask().arch == expected[0]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.ask().arch == expected[1]
    assert torch.equal(whole.alphas[0], second.alphas[0])
    assert whole.log[-1]["coefficient"] == 25.0


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_bad_coefficients(value):
    with pytest.raises(ValueError, match="coefficient must be a finite number from 0"):
        make(BetaDARTS, coefficient=value)
