"""SMASH: which kernels are written, the chain rule through them, and the search that follows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed
from torch.func import functional_call

from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3
from nasharness.optimizers.smash import SMASH, HyperNetwork

SMALL = {"units": 8, "embedding": 3, "piece": 7, "candidates": 3, "perturbed": 1, "chain": 2, "quick": 2}


def test_the_hypernetwork_is_that_of_its_formula():
    """Piece by piece, number by number."""
    torch.manual_seed(0)
    net = HyperNetwork(4, [(2, 3), (5, 1, 2)], units=6, embedding=3, piece=4)
    code = torch.tensor([1.0, 0.0, 0.0, 1.0])
    found = net(code, [1])
    place = net.places[2:]  # two pieces for the six weights of the first, three for the ten of the second
    assert place.shape == (3, 3)

    def leaky(x):
        return torch.where(x > 0, x, 0.02 * x)

    flat = []
    for z in place:
        x = leaky(net.of_place.weight @ z + net.of_place.bias + net.of_code.weight @ code)
        x = leaky(net.hidden.weight @ x + net.hidden.bias)
        flat.append(net.out.weight @ x + net.out.bias)
    flat = torch.cat(flat)[:10]
    torch.testing.assert_close(found[0], (flat / flat.norm() * math.sqrt(5)).view(5, 1, 2))
    torch.testing.assert_close(net(code, [0, 1])[1], found[0])
    assert net(code, []) == []


def test_every_operation_has_its_own_kernels():
    """Those that the supernet itself names by cell, edge and operation."""
    optimizer = make(SMASH, **SMALL)
    optimizer.prepare()
    names = {id(p): name for name, p in optimizer.supernet.named_parameters()}
    for (t, e, op), numbers in optimizer.owned.items():
        assert t == 0
        owned = [names[id(optimizer.kernels[k])] for k in numbers]
        assert len(owned) == (3 if op in (CONV1, CONV3) else 0)
        assert all(f"edges.{e}.{op}." in name for name in owned)
    assert len(optimizer.kernels) == 3 * 6 * 2
    assert sum(p.numel() for p in [*optimizer.kernels, *optimizer.free]) == sum(
        p.numel() for p in optimizer.supernet.parameters()
    )


def test_a_step_follows_the_gradient_through_the_written_kernels():
    """As a pass in which the kernels are the hypernetwork's output gives it at once; then one step of Adam."""
    optimizer, twin = make(SMASH, clip=0.0, **SMALL), make(SMASH, clip=0.0, **SMALL)
    for each in (optimizer, twin):
        each.prepare()
    arch = (CONV3, CONV1, CONV3, 1, 2, CONV1)
    batch = twin.images.fixed("weights", 16)[0]
    optimizer.hyper_step(arch, batch)

    names = {id(p): name for name, p in twin.supernet.named_parameters()}
    wanted = [
        k for k, p in enumerate(twin.kernels) if any(f"edges.{e}.{op}." in names[id(p)] for e, op in enumerate(arch))
    ]
    assert twin.used(arch) == wanted
    kernels = twin.hypernetwork(twin.code(arch), wanted)
    replaced = {names[id(twin.kernels[k])]: kernel for k, kernel in zip(wanted, kernels, strict=True)}
    logits = functional_call(twin.supernet, replaced, (batch.images, twin.supernet.paths(arch)))
    loss = torch.nn.functional.cross_entropy(logits, batch.targets)
    hyper = list(twin.hypernetwork.parameters())
    gradients = torch.autograd.grad(loss, [*hyper, *twin.free])
    for parameter, g in zip([*optimizer.hypernetwork.parameters(), *optimizer.free], gradients, strict=True):
        torch.testing.assert_close(
            parameter.grad if parameter.grad is not None else torch.zeros_like(g), g, rtol=1e-3, atol=1e-6
        )
    for now, before, g in zip(optimizer.hypernetwork.parameters(), hyper, gradients, strict=False):
        moved = before - 0.003 * g / (g.abs() + 1e-8)
        clear = g.abs() > 1e-5  # elsewhere rounding decides the sign
        torch.testing.assert_close(now[clear], moved[clear], rtol=1e-3, atol=1e-5)


def test_the_same_operation_gets_other_weights_in_another_architecture():
    optimizer = make(SMASH, **SMALL)
    optimizer.prepare()
    _, one = optimizer.write((CONV3, 0, 0, 1, 1, 1))
    _, other = optimizer.write((CONV3, 0, 0, 1, 1, 2))
    _, again = optimizer.write((CONV3, 0, 0, 1, 1, 1))
    assert not torch.equal(one[0], other[0])
    assert torch.equal(one[0], again[0])
    assert one[0].norm().item() == pytest.approx(math.sqrt(len(one[0])), rel=1e-5)


def test_an_architecture_without_kernels_trains_what_is_common():
    optimizer = make(SMASH, **SMALL)
    optimizer.prepare()
    before = [p.detach().clone() for p in optimizer.hypernetwork.parameters()]
    batch = optimizer.images.fixed("weights", 16)[0]
    for arch in ((1,) * 6, (0,) * 6, (CONV3, 0, 0, 0, 0, 0)):  # the last one's convolution leads nowhere
        optimizer.hyper_step(arch, batch)
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.hypernetwork.parameters(), strict=True))


def test_the_chain_only_climbs():
    """The value of what is judged from is the best so far; the search ends with the best that it judged."""
    optimizer = make(SMASH, **{**SMALL, "candidates": 10, "perturbed": 5, "chain": 30})
    judged = []

    def judge(arch):
        judged.append(arch)
        return arch.count(3)

    found = optimizer.search(np.random.default_rng(0), judge)
    assert len(judged) == 10 + 5 + 30
    assert found.count(3) == max(arch.count(3) for arch in judged) > max(arch.count(3) for arch in judged[:10])


def test_perturbations_are_valid_and_differ():
    optimizer = make(SMASH, **SMALL)
    rng = np.random.default_rng(0)
    arch = (0, 1, 2, 3, 4, 0)
    around = [optimizer.perturb(arch, rng) for _ in range(300)]
    assert all(optimizer.space.is_valid(other) and other != arch for other in around)
    assert {sum(a != b for a, b in zip(arch, other, strict=True)) for other in around} >= {1, 2}


def test_the_supernet_holds_the_weights_of_what_is_proposed():
    optimizer = make(SMASH, **SMALL)
    arch = optimizer.ask().arch
    _, written = optimizer.write(arch)
    held = [optimizer.kernels[k].detach().clone() for k in optimizer.used(arch)]
    assert all(torch.equal(a, b) for a, b in zip(written, held, strict=True))


def test_a_search_goes_on_where_it_was_interrupted():
    whole = make(SMASH, epochs=3, **SMALL)
    archs = finish(whole)
    for stop in (1, 2):
        first = make(SMASH, epochs=3, **SMALL)
        for _ in range(stop):
            first.ask()
        second = resumed(first, make(SMASH, epochs=3, **SMALL))
        assert finish(second) == archs[stop:]
        for name in ("supernet", "hypernetwork"):
            for a, b in zip(getattr(second, name).parameters(), getattr(whole, name).parameters(), strict=True):
                assert torch.equal(a, b)


def test_it_is_deterministic_and_proposing_again_changes_nothing():
    one, other = make(SMASH, **SMALL), make(SMASH, **SMALL)
    found = [one.ask().arch]
    assert one.propose() == found[0]
    found += finish(one)
    assert found == finish(other)
    assert all(one.space.is_valid(arch) for arch in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("units", "embedding", "piece", "candidates", "quick", "judged")),
        ("perturbed", -1),
        ("chain", -1),
        ("perturbation", 1.5),
    ],
)
def test_bad_hyper_parameters(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        make(SMASH, **{name: value})


def test_the_preset_is_of_hyper_parameters():
    SMASH(make(SMASH).space, np.random.default_rng(0), **SMASH.presets["paper"])
