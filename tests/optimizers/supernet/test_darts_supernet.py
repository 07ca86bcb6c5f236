"""The DARTS supernet: its two forms, its gradients, and the networks that come out of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_supernets import make, tiny_task
from torch.nn import functional

from nasharness.benchmarks.networks.darts import DARTSNetwork
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.optimizers.darts import DARTS
from nasharness.optimizers.supernet.darts import DARTSSupernet, SearchCell
from nasharness.optimizers.supernet.factory import build_supernet
from nasharness.optimizers.supernet.mix import Mix, hard, path, soft
from nasharness.optimizers.supernet.norm import PathNorm, estimated

SPACE = DARTSSpace()
SETTINGS = {
    "num_classes": 4,
    "channels": 4,
    "layers": 3,
    "input_channels": 1,
    "stem_multiplier": 3,
    "auxiliary": True,  # has no effect
}
OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    *tuple(f"{kind}_conv_{size}x{size}" for kind in ("sep", "dil") for size in (3, 5)),
)
ACTIVE = ((1, 2, 3), (0, 4, 5, 6, 7), (3,), (), (0,), (6, 4), (2, 3), *[tuple(range(8))] * 7)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def supernet(*, layers=3, channels=4, **options) -> DARTSSupernet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_supernet(SPACE, {**SETTINGS, "layers": layers, "channels": channels}, **options).double()
        for module in net.modules():  # scales and shifts that are not 1 and 0
            if isinstance(module, PathNorm) and module.affine:
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias)
    return net


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGES = numbers(4, 1, 8, 8)
TARGETS = torch.arange(4)


def test_cells_and_their_tables():
    net = supernet(layers=5)
    assert net.cell_tables == (0, 1, 0, 1, 0)
    assert tuple(net.cells[0].table.operations) == OPERATIONS
    assert [cell.width for cell in net.cells] == [4, 8, 8, 16, 16]
    assert supernet(layers=8).cell_tables == (0, 0, 1, 0, 0, 1, 0, 0)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("partial", [1, 2])
@pytest.mark.parametrize("some", [False, True])
def test_the_merged_form_is_the_plain_form(affine, partial, some):
    layout = torch.channels_last if affine == some else torch.contiguous_format
    net = supernet(affine=affine, partial=partial, pool_norm=not some).to(memory_format=layout)
    images = IMAGES.to(memory_format=layout)
    weights = [numbers(14, 8, seed=seed).softmax(1).requires_grad_() for seed in (1, 2)]
    factors = [numbers(14, seed=seed).exp().requires_grad_() if some else None for seed in (3, 4)]
    leaves = [*weights, *(f for f in factors if f is not None), *net.parameters()]
    found = []
    for net.merge in (True, False):
        mixes = [soft(w, ACTIVE if some else None, edges=f) for w, f in zip(weights, factors, strict=True)]
        logits = net(images, mixes)
        gradients = torch.autograd.grad(functional.cross_entropy(logits, TARGETS), leaves, allow_unused=True)
        found.append([logits, *(torch.zeros(1) if g is None else g for g in gradients)])
    for merged, plain in zip(*found, strict=True):
        torch.testing.assert_close(merged, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("merge", [False, True])
def test_the_gradient_of_a_mixture_by_finite_differences(merge):
    net = supernet(affine=True)
    net.merge = merge

    def loss(weights):
        return functional.cross_entropy(net(IMAGES, [soft(w) for w in weights]), TARGETS)

    weights = [numbers(14, 8, seed=seed).softmax(1).requires_grad_() for seed in (1, 2)]
    gradients = torch.autograd.grad(loss(weights), weights)
    assert all(torch.all(g[:, 0] == 0) for g in gradients)
    with torch.no_grad():
        for t, e, op in [(0, 0, 4), (0, 13, 7), (1, 2, 3), (1, 4, 2), (1, 9, 5)]:
            sides = []
            for sign in (1, -1):
                moved = [w.clone() for w in weights]
                moved[t][e, op] += sign * 1e-6
                sides.append(float(loss(moved)))
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(gradients[t][e, op]), rel=1e-4, abs=1e-8)


def architectures(pooling):
    """One per operation on all edges, and random ones."""
    found = [(op,) * 8 + (0,) * 3 + (op,) * 8 + (2, 3, 4) for op in range(7)]
    found += [SPACE.sample(np.random.default_rng(seed)) for seed in range(2)]
    convolutions = [tuple(max(c, 2) if i % 11 < 8 else c for i, c in enumerate(arch)) for arch in found]
    return found if pooling else sorted(set(convolutions))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("pool_norm", [False, True])
def test_a_path_is_the_stand_alone_network_bit_for_bit(affine, pool_norm):
    layout = torch.channels_last if affine == pool_norm else torch.contiguous_format
    net = supernet(affine=affine, pool_norm=pool_norm).float().to(memory_format=layout).eval()
    images = IMAGES.float().to(memory_format=layout)
    for arch in architectures(not pool_norm):
        with estimated(net):
            for shift in (0, 1):
                net(images + shift, net.paths(arch))
        network = net.extract(arch)
        assert isinstance(network, DARTSNetwork) and not network.training
        with torch.no_grad():
            assert torch.equal(network(images), net(images, net.paths(arch))), arch
        fresh = DARTSNetwork(arch, **{**SETTINGS, "auxiliary": False})
        assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in fresh.parameters())
        assert list(network.state_dict()) == list(fresh.state_dict())
        net.use_batch_statistics()


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_other_depths_are_extracted_too(layers):
    net = supernet(layers=layers, affine=True, pool_norm=False).float().eval()
    images = IMAGES.float()
    arch = SPACE.sample(np.random.default_rng(1))
    with estimated(net):
        net(images, net.paths(arch))
    with torch.no_grad():
        assert torch.equal(net.extract(arch)(images), net(images, net.paths(arch)))


def test_a_path_is_the_mixture_with_one_hot_weights():
    net = supernet(affine=True)
    for arch in architectures(True)[::3]:
        hot = [functional.one_hot(torch.tensor(row), 8).double() for row in net.topology.choices(arch)]
        torch.testing.assert_close(
            net(IMAGES, net.paths(arch)), net(IMAGES, [soft(h) for h in hot]), rtol=0, atol=1e-10
        )


def test_what_has_no_stand_alone_network_is_refused():
    pooling = (0,) + (3,) * 7 + (0,) * 3 + (3,) * 8 + (0,) * 3
    with pytest.raises(ValueError, match="max_pool_3x3 is followed by a batch normalisation"):
        supernet().extract(pooling)
    supernet(pool_norm=False).extract(pooling)
    with pytest.raises(ValueError, match="1 / 2 of the channels"):
        supernet(partial=2).extract((3,) * 8 + (0,) * 3 + (3,) * 8 + (0,) * 3)


def test_sizes_that_make_no_sense_are_refused():
    for partial in (0, 3):
        with pytest.raises(ValueError, match=f"partial={partial} does not divide the 4 channels"):
            supernet(partial=partial)
    with pytest.raises(ValueError, match="at least one layer"):
        supernet(layers=0)
    with pytest.raises(ValueError, match="images of 8 x 6 cannot be halved 2 time"):
        net = supernet()
        net(numbers(2, 1, 8, 6), [path((3,) * 14)] * 2)


def test_edges_without_operations_are_zero():
    net = supernet().eval()
    nothing = [path((0,) * 14)] * 2
    expected = net.classifier(torch.zeros(4, net.classifier.in_features, dtype=torch.float64))
    # From the third cell on even the inputs are zero: normalised they stay so.
    torch.testing.assert_close(net(IMAGES, nothing), expected)
    weights = torch.ones(14, 8, dtype=torch.float64)
    torch.testing.assert_close(net(IMAGES, [soft(weights, ((),) * 14)] * 2), expected)


@pytest.mark.parametrize("edges", [False, True])
def test_what_is_carried_is_zero_and_has_the_gradient_of_a_number(edges):
    net = supernet(affine=True)
    rows = (0, 4, 3, 1, 5, 2, 6, 7, 0, 3, 3, 4, 1, 2)
    hots = [functional.one_hot(torch.tensor(row), 8).double().requires_grad_() for row in (rows, rows[::-1])]
    factors = numbers(14, seed=3).exp() if edges else None

    def loss(weights, carry=True):
        active = [hard(hot).active for hot in hots]
        mixes = [Mix(a, w, factors, carry=carry) for a, w in zip(active, weights, strict=True)]
        return functional.cross_entropy(net(IMAGES, mixes), TARGETS)

    torch.testing.assert_close(loss(hots), loss(hots, carry=False))
    gradients = torch.autograd.grad(loss(hots), hots)
    assert gradients[0][0, 0] == 0  # `none` was chosen, and is not computed
    with torch.no_grad():
        for t, e, op in [(0, 0, 3), (0, 1, 0), (0, 1, 4), (0, 12, 5), (1, 0, 1), (1, 3, 4), (1, 13, 6), (1, 8, 2)]:
            sides = []
            for sign in (1, -1):
                moved = [hot.clone() for hot in hots]
                moved[t][e, op] += sign * 1e-6
                sides.append(float(loss(moved)))
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(gradients[t][e, op]), rel=1e-4, abs=1e-8)


def slow_partial_cell(cell: SearchCell, before, last, weights, factors, k):
    """PC-DARTS word by word: every edge mixes the first channels, appends the others and shuffles."""
    nodes = [cell.preprocess0(before), cell.preprocess1(last)]
    for node in range(2, 6):
        total = 0
        for e, (target, source) in enumerate(cell.table.edges):
            if target != node:
                continue
            x = nodes[source]
            own, rest = x[:, : x.shape[1] // k], x[:, x.shape[1] // k :]
            mixed = sum(weights[e, op] * cell.operation(e, op)(own) for op in range(1, 8))
            if mixed.shape[2] != rest.shape[2]:
                rest = functional.max_pool2d(rest, 2, 2)
            joined = torch.cat((mixed, rest), dim=1)
            n, c, h, w = joined.shape
            total = total + factors[e] * joined.view(n, k, c // k, h, w).transpose(1, 2).reshape(n, c, h, w)
        nodes.append(total)
    return torch.cat(nodes[2:], dim=1)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("merge", [False, True])
def test_partial_channels_against_a_slow_version(k, merge):
    net = supernet(affine=True, partial=k)
    net.merge = merge
    before = last = net.stem(IMAGES)
    weights, factors = numbers(14, 8, seed=1).softmax(1), numbers(14, seed=2).exp()
    for cell in net.cells:  # normal, reduction, and reduction after reduction
        result = cell(before, last, soft(weights, edges=factors))
        expected = slow_partial_cell(cell, before, last, weights, factors, k)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
        before, last = last, result


def test_an_operation_left_out_adds_nothing_and_the_others_stay():
    net = supernet()
    weights = numbers(14, 8).softmax(1)
    zeroed = weights.clone()
    zeroed[3, 1] = 0
    left_out = net(IMAGES, [soft(weights).without(3, 1), soft(weights)])
    torch.testing.assert_close(left_out, net(IMAGES, [soft(zeroed), soft(weights)]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("merge", [False, True])
def test_dropout_reaches_identities_in_training_only(merge):
    net = supernet()
    net.merge, net.generator, net.skip_dropout = merge, torch.Generator().manual_seed(0), 0.5
    skip, other = torch.zeros(14, 8, dtype=torch.float64), torch.zeros(14, 8, dtype=torch.float64)
    skip[:, 3], other[:, 4] = 1, 1

    def twice(*tables):
        return [net(IMAGES, [soft(t) for t in tables]) for _ in range(2)]

    first, second = twice(skip, other)
    assert not torch.equal(first, second)
    assert torch.equal(*twice(other, other))
    only_strided = tuple((3,) if source < 2 else (4,) for _, source in net.cells[0].table.edges)
    reduce = soft(torch.ones(14, 8, dtype=torch.float64), only_strided)
    assert torch.equal(net(IMAGES, [soft(other), reduce]), net(IMAGES, [soft(other), reduce]))
    net.eval()
    assert torch.equal(*twice(skip, other))


def test_a_copy_belongs_to_itself():
    net = supernet()
    twin = copy.deepcopy(net)
    assert all(cell._owner[0] is twin for cell in twin.cells)
    weights = [soft(numbers(14, 8).softmax(1))] * 2
    assert torch.equal(net(IMAGES, weights), twin(IMAGES, weights))


def test_a_search_of_the_darts_space():
    task = tiny_task(16, 4, darts=True)
    proposed = []
    for _ in range(2):
        search = make(DARTS, space=SPACE, task=task, epochs=1)
        proposed.append(SPACE.check(search.ask().arch))
        assert np.isfinite(search.log[0]["loss"])
    assert proposed[0] == proposed[1]
