"""SETN: weights on uniform paths, parameters on the mixture, likely candidates in the end."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed

from nasharness.optimizers.setn import SETN

SMALL = {"candidates": 4, "quick": 2}


def test_a_step_is_the_weights_on_a_path_and_then_adam_on_the_mixture():
    optimizer, twin = (make(SETN, momentum=0.0, clip=0.0, alpha_learning_rate=0.01, **SMALL) for _ in range(2))
    for each in (optimizer, twin):
        each.prepare()
    batch, held_out = twin.images.fixed("weights", 16)[0], twin.images.fixed("architecture", 16)[0]
    optimizer.step(batch, held_out)

    network = twin.supernet
    weights = list(network.parameters())
    arch = twin.space.sample(twin.rng)
    loss = torch.nn.functional.cross_entropy(network(batch.images, network.paths(arch)), batch.targets)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            w -= 0 if g is None else 0.1 * (g + 5e-4 * w)
    for now, w in zip(optimizer.supernet.parameters(), weights, strict=True):
        torch.testing.assert_close(now, w)

    from nasharness.optimizers.supernet.mix import soft

    alpha = twin.alphas[0]
    logits = network(held_out.images, [soft(torch.softmax(alpha, 1))])
    g = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, held_out.targets), alpha)[0] + 1e-3 * alpha
    wanted = alpha - 0.01 * g / (g.abs() + 1e-8)  # the first step of Adam is the sign of the gradient
    # the sign of a gradient that is next to nothing, such as that of `none`, is left out
    clear = g.abs() > 1e-5
    torch.testing.assert_close(optimizer.alphas[0][clear], wanted[clear], rtol=1e-3, atol=1e-5)


def test_the_weights_do_not_care_about_the_parameters():
    """Whatever the parameters are, the same architectures are trained."""
    one, other = make(SETN, warm_up=2, **SMALL), make(SETN, warm_up=2, **SMALL)
    other.prepare()
    with torch.no_grad():
        other.alphas[0][:, 3] += 5.0
    finish(one), finish(other)
    for a, b in zip(one.supernet.parameters(), other.supernet.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_likeliest_are_those_of_a_list_of_all():
    optimizer = make(SETN, **SMALL)
    optimizer.prepare()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        optimizer.alphas[0].copy_(torch.randn(6, 5, generator=generator))
    p = torch.softmax(optimizer.alphas[0].detach().double(), 1).tolist()
    everything = list(itertools.product(range(5), repeat=6))
    probability = [math.prod(p[e][op] for e, op in enumerate(arch)) for arch in everything]
    wanted = [everything[i] for i in np.argsort(probability)[::-1][:20]]
    assert optimizer.likely(20) == wanted
    assert wanted[0] == tuple(int(np.argmax(row)) for row in p)


def test_a_removed_operation_is_no_candidate():
    optimizer = make(SETN, **SMALL)
    optimizer.prepare()
    optimizer.removed[0][2] = {0, 1, 2, 4}
    for draw in ("likeliest", "sampled"):
        optimizer.draw = draw
        assert {arch[2] for arch in optimizer.likely(50)} == {3}


def test_samples_follow_the_softmax():
    optimizer = make(SETN, draw="sampled", **SMALL)
    optimizer.prepare()
    with torch.no_grad():
        optimizer.alphas[0].copy_(torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0]).expand(6, 5))
    p = torch.softmax(optimizer.alphas[0][0].detach(), 0).numpy()
    drawn = np.array(optimizer.likely(3000))
    for e in range(6):
        assert np.abs(np.bincount(drawn[:, e], minlength=5) / 3000 - p).max() < 0.05


@pytest.mark.parametrize("draw", ["likeliest", "sampled"])
def test_a_search_goes_on_where_it_was_interrupted(draw):
    whole = make(SETN, epochs=3, draw=draw, **SMALL)
    archs = finish(whole)
    for stop in (1, 2):
        first = make(SETN, epochs=3, draw=draw, **SMALL)
        for _ in range(stop):
            first.ask()
        second = resumed(first, make(SETN, epochs=3, draw=draw, **SMALL))
        assert finish(second) == archs[stop:]
        assert torch.equal(second.alphas[0], whole.alphas[0])
        for a, b in zip(second.supernet.parameters(), whole.supernet.parameters(), strict=True):
            assert torch.equal(a, b)


def test_it_is_deterministic_and_proposing_again_changes_nothing():
    one, other = make(SETN, **SMALL), make(SETN, **SMALL)
    found = [one.ask().arch]
    assert one.propose() == found[0]
    found += finish(one)
    assert found == finish(other)
    assert all(one.space.is_valid(arch) for arch in found)
    assert set(one.log[-1]) >= {"alpha_entropy", "skips"}


@pytest.mark.parametrize(("name", "value"), [("candidates", 0), ("quick", 0), ("judged", 0), ("draw", "lots")])
def test_bad_hyper_parameters(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        make(SETN, **{name: value})


def test_the_preset_is_of_hyper_parameters():
    SETN(make(SETN).space, np.random.default_rng(0), **SETN.presets["paper"])
