"""ProxylessNAS: gates, the update by pairs and the latency against literal versions; two paths and no more in memory."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_supernets import make
from torch import Tensor

from nasharness.benchmarks.networks.nasbench201 import ReLUConvBN
from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3
from nasharness.optimizers.proxyless import ProxylessNAS
from nasharness.optimizers.supernet.mix import path, soft


def _begun(**given: Any) -> Any:
    search = make(ProxylessNAS, **given)
    search.prepare()
    return search


def _stored(search: Any, mixes: Any) -> int:
    """Bytes that autograd keeps for the backward pass."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = next(search.images.batches("architecture"))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = search.loss(batch, mixes)  # holds on to what was packed, so that no address is used twice
    weights = {p.untyped_storage().data_ptr() for p in search.supernet.parameters()}
    del loss
    return sum(size for pointer, size in seen.items() if pointer not in weights)


# ------------------------------------------------------------------------------------------------------------------- gates


def test_a_draw_has_two_operations_one_of_them_open() -> None:
    search = _begun()
    for _ in range(20):
        draw = search.draw(0)
        assert draw.gates.is_leaf
        for pair, gates in zip(draw.pair.tolist(), draw.gates.tolist(), strict=True):
            assert pair[0] != pair[1]
            assert gates == [float(op == pair[0]) for op in range(5)]


def test_draws_follow_the_probabilities() -> None:
    search = _begun()
    p = torch.tensor([0.05, 0.5, 0.2, 0.15, 0.1])
    search.alphas[0] = p.log().repeat(4000, 1)  # as many edges as draws
    search.topology.tables = (
        dataclasses.replace(search.topology.tables[0], outputs=(0, 1, 2, 3)),
    )  # any draw is connected
    pairs = search.draw(0).pair
    # Literal: draw two without replacement, then one of the two by their rescaled probabilities.
    open_, drawn = torch.zeros(5), torch.zeros(5)
    for i in range(5):
        for j in range(5):
            if i != j:
                both = p[i] * p[j] / (1 - p[i])
                drawn[i] += both
                drawn[j] += both
                open_[i] += both * p[i] / (p[i] + p[j])
                open_[j] += both * p[j] / (p[i] + p[j])
    torch.testing.assert_close(pairs[:, 0].bincount(minlength=5) / 4000, open_, atol=0.03, rtol=0)
    torch.testing.assert_close(pairs.flatten().bincount(minlength=5) / 4000, drawn, atol=0.03, rtol=0)


def test_no_draw_is_disconnected() -> None:
    search = _begun()
    with torch.no_grad():
        search.alphas[0][:, 0] += 1.5  # mostly none
    for _ in range(30):
        opened = search.draw(0).pair[:, 0].tolist()
        (mix,) = search.mixes()
        for row in (opened, [ops[0] for ops in mix.active]):
            a, b, c, d, e, f = (op != 0 for op in row)
            assert d or (e and a) or (f and (b or (a and c)))
            assert search.topology.tables[0].connected(row)
    assert not search.topology.tables[0].connected([3, 3, 3, 0, 0, 0])
    assert not search.topology.tables[0].connected([0, 0, 3, 0, 3, 3])
    assert search.topology.tables[0].connected([3, 0, 3, 0, 0, 3])


def test_weights_are_trained_on_one_path() -> None:
    search = _begun()
    (mix,) = search.mixes()
    assert mix.is_path
    assert mix.weights is None
    counts = np.zeros((6, 5))
    with torch.no_grad():
        search.alphas[0][:, 2] += 3.0
    for _ in range(50):
        for e, ops in enumerate(search.mixes()[0].active):
            counts[e, ops[0]] += 1
    assert (counts.argmax(axis=1) == 2).all()


def test_exactly_the_two_paths_are_computed() -> None:
    search = _begun()
    search.supernet.merge = False  # operation by operation, so that each can be seen
    cells = [part for part in search.supernet.skeleton.cells if hasattr(part, "edges")]
    called: list[tuple[int, int, int]] = []
    for c, cell in enumerate(cells):
        for e in range(6):
            for op in (CONV1, CONV3):
                cell.operation(e, op).register_forward_hook(
                    lambda module, args, out, key=(c, e, op): called.append(key)
                )
    draw = search.draw(0)
    search.loss(next(search.images.batches("architecture")), [soft(draw.gates, draw.pair.tolist())])
    wanted = [(c, e, op) for c in range(3) for e in range(6) for op in draw.pair[e].tolist() if op in (CONV1, CONV3)]
    assert sorted(called) == sorted(wanted)
    assert isinstance(cells[0].operation(0, CONV1), ReLUConvBN)


@pytest.mark.parametrize("merge", [True, False])
def test_the_memory_is_that_of_two_paths(merge: bool) -> None:
    search = _begun()
    search.supernet.merge = merge
    two = torch.zeros(6, 5)
    two[:, CONV3] = 1.0
    alone = _stored(search, [path([CONV3] * 6)])
    pair = _stored(search, [soft(two.requires_grad_(), [[CONV1, CONV3]] * 6)])
    every = _stored(search, [soft(torch.full((6, 5), 0.2).requires_grad_())])
    assert alone < pair < every
    step = search.draw(0)
    assert _stored(search, [soft(step.gates, step.pair.tolist())]) <= pair


def test_the_open_path_alone_is_the_output() -> None:
    search = _begun()
    draw = search.draw(0)
    batch = next(search.images.batches("architecture"))
    both = search.loss(batch, [soft(draw.gates, draw.pair.tolist())])
    alone = search.loss(batch, [path(draw.pair[:, 0].tolist())])
    torch.testing.assert_close(both, alone)


# ------------------------------------------------------------------------------------------------------------------ update


def _literal_update(alpha: np.ndarray, pair: list[list[int]], by_gates: np.ndarray, rate: float) -> np.ndarray:
    """The first step of Adam without momentum, gradient by gradient, then the shift."""
    new = alpha.copy()
    for e, (a, b) in enumerate(pair):
        both = [a, b]
        total = math.exp(alpha[e, a]) + math.exp(alpha[e, b])
        p = [math.exp(alpha[e, i]) / total for i in both]
        for k, i in enumerate(both):
            gradient = sum(by_gates[e, j] * p[m] * ((k == m) - p[k]) for m, j in enumerate(both))
            new[e, i] -= rate * gradient / (abs(gradient) + 1e-8)
        offset = math.log((math.exp(new[e, a]) + math.exp(new[e, b])) / total)
        for i in both:
            new[e, i] -= offset
    return new


def test_the_update_is_the_literal_one() -> None:
    search = _begun(alpha_learning_rate=0.1)
    rng = np.random.default_rng(0)
    alpha, by_gates = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    pair = [[0, 1], [1, 0], [2, 4], [3, 2], [4, 0], [1, 3]]
    with torch.no_grad():
        search.alphas[0].copy_(torch.tensor(alpha))
    search.update_pairs([torch.tensor(pair)], [torch.tensor(by_gates, dtype=torch.float32)], torch.tensor(1.0))
    wanted = _literal_update(alpha, pair, by_gates, 0.1)
    np.testing.assert_allclose(search.alphas[0].detach().numpy(), wanted, rtol=0, atol=1e-5)


def test_by_hand_for_equal_parameters() -> None:
    # p = (1/2, 1/2), gate gradients 3 and 1: d/d alpha = 3/2 * 1/2 - 1/2 * 1/2 = 1/2 and -1/2.
    search = _begun()
    seen: list[Tensor] = []
    with torch.no_grad():
        search.alphas[0].zero_()
    search.alpha_optimizer.step = lambda: seen.append(search.alphas[0].grad.clone())
    by_gates = torch.zeros(6, 5)
    by_gates[:, 1], by_gates[:, 3] = 3.0, 1.0
    search.update_pairs([torch.tensor([[1, 3]] * 6)], [by_gates], torch.tensor(2.0))
    wanted = torch.zeros(6, 5)
    wanted[:, 1], wanted[:, 3] = 0.5, -0.5
    torch.testing.assert_close(seen[0], wanted)


@pytest.mark.parametrize("given", [{}, {"alpha_beta1": 0.9, "alpha_weight_decay": 0.1}])
def test_what_was_not_drawn_keeps_its_probability(given: dict[str, float]) -> None:
    search = _begun(alpha_learning_rate=0.1, **given)
    batch = next(search.images.batches("architecture"))
    for _ in range(3):
        before = torch.softmax(search.alphas[0].detach(), dim=1)
        state = search.generator.get_state()
        pair = search.draw(0).pair
        search.generator.set_state(state)
        search.architecture_step(batch, batch)
        after = torch.softmax(search.alphas[0].detach(), dim=1)
        rest = torch.ones(6, 5, dtype=torch.bool).scatter_(1, pair, False)
        torch.testing.assert_close(before[rest], after[rest])
        assert not torch.equal(before, after)


def test_the_gates_gradient_is_that_of_a_difference() -> None:
    search = _begun()
    search.supernet.double()
    with torch.no_grad():
        search.alphas[0][:, 0] = -20.0  # none would leave a node at 0, where normalisation bends most
    draw = search.draw(0)
    batch = next(search.images.batches("architecture"))
    batch = batch._replace(images=batch.images.double())
    pair, start = draw.pair.tolist(), draw.gates.detach().double()
    leaf = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(search.loss(batch, [soft(leaf, pair)]), [leaf])
    for e, (_, shut) in enumerate(pair):
        sides = []
        for sign in (1.0, -1.0):
            gates = start.clone()
            gates[e, shut] += sign * 1e-4
            sides.append(float(search.loss(batch, [soft(gates, pair)]).detach()))
        assert float(gradient[e, shut]) == pytest.approx((sides[0] - sides[1]) / 2e-4, abs=1e-2)


# ----------------------------------------------------------------------------------------------------------------- latency


def test_expected_latency_by_hand() -> None:
    search = _begun(latency=[0.0, 1.0, 2.0, 4.0, 8.0])
    with torch.no_grad():
        search.alphas[0].zero_()
    assert float(search.expected_latency().detach()) == pytest.approx(3.0)
    assert search.reference == pytest.approx(3.0)
    pairs = [torch.tensor([[1, 3]] * 6)]
    expected = search.expected_latency(pairs)
    assert float(expected.detach()) == pytest.approx(3.0)
    (gradient,) = torch.autograd.grad(expected, search.alphas)
    # Of the two: p = (1/2, 1/2), latencies 1 and 4: -+ 3/4 by the two parameters, a sixth of it for each edge.
    wanted = torch.zeros(6, 5)
    wanted[:, 1], wanted[:, 3] = -0.75 / 6, 0.75 / 6
    torch.testing.assert_close(gradient, wanted)


def test_the_two_forms() -> None:
    pairs = [torch.tensor([[1, 3]] * 6)]
    product = _begun(latency=[0.0, 1.0, 2.0, 4.0, 8.0], target=7.0)
    total = _begun(latency=[0.0, 1.0, 2.0, 4.0, 8.0], target=7.0, form="add#linear", latency_lambda=0.5)
    for search in (product, total):
        with torch.no_grad():
            search.alphas[0].zero_()
    loss = torch.tensor(2.0)
    # log(1 + 3) / log(1 + 7) = 2 / 3
    assert float(product.with_latency(loss, pairs).detach()) == pytest.approx(0.2 * 2.0 * (2 / 3) ** 0.3)
    assert float(total.with_latency(loss, pairs).detach()) == pytest.approx(2.0 + 0.5 * (3.0 - 7.0) / 7.0)
    assert _begun().with_latency(loss, pairs) is loss


@pytest.mark.parametrize("form", ["mul#log", "add#linear"])
def test_latency_prefers_the_faster_operation(form: str) -> None:
    search = _begun(latency={"nor_conv_3x3": 10.0, "nor_conv_1x1": 1.0}, form=form)
    pairs = [torch.tensor([[CONV1, CONV3]] * 6)]
    before = float(search.expected_latency().detach())
    for _ in range(5):
        search.update_pairs(pairs, [torch.zeros(6, 5)], torch.tensor(1.0))
    assert float(search.expected_latency().detach()) < before
    assert (search.alphas[0][:, CONV1] > search.alphas[0][:, CONV3]).all()


# ------------------------------------------------------------------------------------------------------------------ search


def test_parameters_rest_between_updates_and_in_the_warm_up() -> None:
    search = _begun(architecture_every=3, warm_up=1)
    batch = next(search.images.batches("weights"))
    moved = []
    search.epoch = 0
    for epoch in (0, 0, 0, 1, 1, 1, 1, 1, 1):
        search.epoch = epoch
        before = search.alphas[0].detach().clone()
        search.step(batch, batch)
        moved.append(not torch.equal(before, search.alphas[0].detach()))
    assert moved == [False, False, False, False, False, True, False, False, True]


def test_a_search_proposes_architectures_and_repeats() -> None:
    once, again, other = (make(ProxylessNAS, seed, latency=[0, 0, 1, 2, 1], architecture_every=2) for seed in (0, 0, 1))
    for search in (once, again, other):
        for _ in range(2):
            search.space.check(search.ask().arch)
    assert torch.equal(once.alphas[0], again.alphas[0])
    assert not torch.equal(once.alphas[0], other.alphas[0])
    assert {"loss", "alpha_entropy", "latency"} <= set(once.log[-1])


@pytest.mark.parametrize("at", [1, 2])
def test_going_on_is_exact(at: int) -> None:
    given = {"epochs": 3, "architecture_every": 3, "alpha_beta1": 0.5}
    whole = make(ProxylessNAS, **given)
    archs = [whole.ask().arch for _ in range(3)]
    first, second = make(ProxylessNAS, **given), make(ProxylessNAS, **given)
    for _ in range(at):
        first.ask()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [second.ask().arch for _ in range(3 - at)] == archs[at:]
    assert second.steps == whole.steps
    assert torch.equal(second.alphas[0], whole.alphas[0])
    for name, value in whole.supernet.state_dict().items():
        assert torch.equal(value, second.supernet.state_dict()[name]), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture_every": 0}, "architecture_every must be a whole number from 1, not 0"),
        ({"form": "mul"}, "form is one of"),
        ({"latency_beta": -1.0}, "latency_beta must be"),
        ({"target": 0.0}, "target must be a positive number"),
        ({"latency": [1.0, 2.0]}, "latency has 2 numbers, but there are 5"),
        ({"latency": {"nor_conv_5x5": 1.0}}, "did you mean 'nor_conv"),
        ({"latency": {}}, "not all 0"),
        ({"latency": [0, 0, 0, 0, -1]}, "finite numbers from 0"),
    ],
)
def test_bad_hyper_parameters(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(ProxylessNAS, **given)


def test_the_published_recipe() -> None:
    search = make(ProxylessNAS, **ProxylessNAS.presets["paper"] | {"epochs": 160})
    assert search.architecture_every == 5
    assert (search.recipe.alpha_beta1, search.recipe.alpha_learning_rate) == (0.0, 1e-3)
