"""DARTS: both gradients against literal ones in double precision."""

from __future__ import annotations

import io

import pytest
import torch
from tiny_supernets import make, tiny_task
from torch.func import functional_call
from torch.nn import functional

import nasharness as nh
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.optimizers.darts import DARTS
from nasharness.optimizers.supernet.mix import soft


def _in_double(**given):
    """A search in double precision one step in, so that there is momentum, and two batches."""
    search = make(DARTS, **given)
    search.prepare()
    search.supernet.double()
    search.alphas = [torch.nn.Parameter(alpha.detach().double() * 300) for alpha in search.alphas]
    search.alpha_optimizer = search.make_alpha_optimizer(search.alphas)
    batches = [next(search.images.batches(part)) for part in ("weights", "architecture")]
    batches = [b._replace(images=b.images.double()) for b in batches]
    search.update_weights(search.loss(batches[0], search.mixes()))
    return search, *batches


def test_the_first_order_step_is_adam_on_the_held_out_gradient():
    search, batch, held_out = _in_double()
    alpha = search.alphas[0].detach().clone().requires_grad_()
    logits = search.supernet(held_out.images, [soft(torch.softmax(alpha, 1))])
    loss = -torch.log_softmax(logits, 1)[torch.arange(len(logits)), held_out.targets].mean()
    gradient = torch.autograd.grad(loss, alpha)[0] + search.recipe.alpha_weight_decay * alpha.detach()
    search.architecture_step(batch, held_out)
    # The first step of Adam: both corrected moments are those of the one gradient.
    expected = alpha.detach() - search.recipe.alpha_learning_rate * gradient / (gradient.abs() + 1e-8)
    assert torch.allclose(search.alphas[0], expected, rtol=1e-9, atol=1e-12)


def _exact_unrolled(search, batch, held_out):
    """Differentiate the held-out loss through w' = w - rate (gradient + momentum buffer + decay w)."""
    r = search.recipe
    rate = search.weight_optimizer.param_groups[0]["lr"]
    alpha = search.alphas[0].detach().clone().requires_grad_()
    weights = {n: p.detach().clone().requires_grad_() for n, p in search.supernet.named_parameters()}
    buffers = {n: search.weight_optimizer.state[p]["momentum_buffer"] for n, p in search.supernet.named_parameters()}

    def loss(w, part):
        logits = functional_call(search.supernet, w, (part.images, [soft(torch.softmax(alpha, 1))]))
        return functional.cross_entropy(logits, part.targets)

    gradients = torch.autograd.grad(loss(weights, batch), list(weights.values()), create_graph=True)
    moved = {
        n: w - rate * (g + r.momentum * buffers[n] + r.weight_decay * w)
        for (n, w), g in zip(weights.items(), gradients, strict=True)
    }
    return torch.autograd.grad(loss(moved, held_out), alpha)[0]


def test_the_second_order_gradient_is_that_through_a_virtual_step():
    """With smooth activations: the difference of equation 8 steps over kinks, which a mean over four pixels does not hide."""
    search, batch, held_out = _in_double(order=2)
    search.supernet.merge = False  # in the plain form activations are modules
    for module in search.supernet.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, name, torch.nn.Softplus())
    before = [p.detach().clone() for p in search.supernet.parameters()]
    (found,) = search.unrolled_gradient(batch, held_out)
    assert all(torch.equal(a, b) for a, b in zip(before, search.supernet.parameters(), strict=True))
    exact = _exact_unrolled(search, batch, held_out)
    assert torch.allclose(found, exact, rtol=0, atol=2e-2 * float(exact.abs().max()))
    print(float((found - exact).abs().max() / exact.abs().max()))
    # The part that makes it second order is far larger than the tolerance.
    search.weight_optimizer.param_groups[0]["lr"] = 0.0
    (first_order,) = search.unrolled_gradient(batch, held_out)
    assert float((first_order - exact).abs().max()) > 1e-1 * float(exact.abs().max())


def test_without_a_rate_the_two_orders_agree():
    search, batch, held_out = _in_double(order=2)
    search.weight_optimizer.param_groups[0]["lr"] = 0.0
    (found,) = search.unrolled_gradient(batch, held_out)
    expected = torch.autograd.grad(search.loss(held_out, search.mixes()), search.alphas)[0]
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_an_order_that_there_is_not():
    with pytest.raises(ValueError, match="1 or 2, not 3"):
        make(DARTS, order=3)


@pytest.mark.parametrize("order", [1, 2])
def test_a_resumed_search_ends_the_same(order):
    whole, first, second = (make(DARTS, order=order) for _ in range(3))
    proposals = [whole.ask().arch, whole.ask().arch]
    assert first.ask().arch == proposals[0]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.ask().arch == proposals[1]
    assert torch.equal(whole.alphas[0], second.alphas[0])
    assert all(
        torch.equal(a, b) for a, b in zip(whole.supernet.parameters(), second.supernet.parameters(), strict=True)
    )
    with pytest.raises(nh.SearchFinished):
        second.ask()


def test_second_order_without_cells_of_one_kind():
    """Two cells are both reduction cells: the held-out loss does not depend on the table of normal ones."""
    task = tiny_task(4, 8, darts=True)
    search = make(DARTS, space=DARTSSpace(), task=task, cells=2, channels=4, order=2, epochs=1)
    assert search.space.is_valid(search.ask().arch)
