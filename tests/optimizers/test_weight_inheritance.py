"""Weight inheritance: which moves keep the function, what the others keep, and the evolution around them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from tiny_supernets import make, tiny_task
from torch import Tensor, nn

from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.networks.nats_size import NATSSizeNetwork
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3, NONE, POOL, SKIP
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace
from nasharness.optimizers.weight_inheritance import WeightInheritance, inherit


def _seen(make_network: Any, seed: int = 0) -> Any:
    """A network with weights, scales and statistics that are not those of the beginning."""
    torch.manual_seed(seed)
    network = make_network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
    return network


def _cell(arch: tuple[int, ...], seed: int = 0) -> Any:
    return _seen(lambda: NASBench201Network(arch, num_classes=4, channels=4, cells=1, input_channels=1), seed)


def _size(arch: tuple[int, ...], seed: int = 0) -> Any:
    return _seen(lambda: NATSSizeNetwork(arch, num_classes=4, input_channels=1), seed)


def _images(n: int = 16, side: int = 8) -> Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(5))


def _both(parent: nn.Module, child: nn.Module, images: Tensor, *, train: bool = False) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return parent.train(train)(images), child.train(train)(images)


# ------------------------------------------------------------------------------------------------------------- size space


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("child", [(2, 1, 0, 1, 1), (0, 3, 0, 1, 1), (0, 1, 0, 1, 3), (0, 1, 4, 1, 1), (1, 2, 3, 2, 1)])
def test_wider_is_the_same_function(child: tuple[int, ...], noise: float) -> None:
    old, new = _size((0, 1, 0, 1, 1)), _size(child, 1)
    inherit(old, new, _images(), noise=noise, generator=torch.Generator().manual_seed(0))
    before, after = _both(old, new, _images())
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_wider_is_the_same_function_in_training() -> None:
    old, new = _size((0, 1, 0, 2, 1)), _size((0, 3, 0, 4, 1), 1)
    inherit(old, new, _images(), noise=0.2)
    before, after = _both(old, new, _images(), train=True)
    torch.testing.assert_close(before, after, rtol=1e-3, atol=1e-3)


def test_shares_of_a_copied_channel_add_up() -> None:
    old, new = _size((0, 1, 0, 1, 1)), _size((0, 1, 0, 1, 2), 1)  # 16 to 24 channels before the classifier
    inherit(old, new, _images(), noise=0.5)
    theirs, own = old.classifier.weight, new.classifier.weight
    filters = new.lastact[0].bias  # a copy has its original's shift
    for channel in range(16):
        copies = filters == old.lastact[0].bias[channel]
        torch.testing.assert_close(own[:, copies].sum(dim=1), theirs[:, channel])
    assert any(not torch.equal(own[:, 16 + i], own[:, j]) for i in range(8) for j in range(16))


def test_a_new_projection_is_the_identity() -> None:
    old, new = _size((0, 1, 1, 1, 1)), _size((0, 2, 1, 1, 1), 1)  # the third block's skip becomes a projection
    assert isinstance(old.cells[2].layers[3], nn.Identity)
    inherit(old, new, _images())
    before, after = _both(old, new, _images())
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_narrower_keeps_what_is_read_most() -> None:
    old, new = _size((0, 1, 0, 1, 1)), _size((0, 1, 0, 1, 0), 1)  # 16 to 8 channels at the end
    with torch.no_grad():
        for name, value in old.state_dict().items():
            if name in ("classifier.weight", "cells.4.layers.2.op.1.weight", "cells.4.layers.4.op.1.weight"):
                value[:, 1::2] *= 1e-3
            if name == "cells.4.layers.5.op.1.weight":
                value[:, 1::2] *= 1e-3
    inherit(old, new, _images())
    assert torch.equal(new.classifier.weight, old.classifier.weight[:, 0::2])
    assert torch.equal(new.lastact[0].running_var, old.lastact[0].running_var[0::2])
    assert torch.equal(new.cells[4].layers[0].op[1].weight, old.cells[4].layers[0].op[1].weight[0::2])
    assert torch.equal(new.cells[3].conv_a.op[1].weight, old.cells[3].conv_a.op[1].weight)


# ------------------------------------------------------------------------------------------------------------------ cells


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("edge", range(6))
@pytest.mark.parametrize(("old_op", "op"), [(CONV1, CONV3), (NONE, CONV1), (NONE, CONV3)])
def test_moves_that_keep_the_function(old_op: int, op: int, edge: int, train: bool) -> None:
    arch = [CONV3, SKIP, CONV1, POOL, CONV3, CONV1]
    arch[edge] = old_op
    old = _cell(tuple(arch))
    arch[edge] = op
    new = _cell(tuple(arch), 1)
    inherit(old, new, _images())
    before, after = _both(old, new, _images(), train=train)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", [CONV1, CONV3])
def test_a_skip_becomes_the_identity_of_what_is_not_negative(op: int) -> None:
    old = _cell((SKIP, NONE, NONE, CONV3, CONV1, NONE))
    new = _cell((op, NONE, NONE, CONV3, CONV1, NONE), 1)
    inherit(old, new, _images())
    x = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        made = new.eval().cells[0].layers[0](x)
    torch.testing.assert_close(made, x.clamp(min=0), rtol=1e-4, atol=1e-4)
    # Here the node behind it is read through a ReLU alone, so that the whole network is the same.
    before, after = _both(old, new, _images())
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_pooling_becomes_a_mean_of_nine_pixels_inside() -> None:
    old, new = _cell((POOL, NONE, NONE, CONV3, CONV1, NONE)), _cell((CONV3, NONE, NONE, CONV3, CONV1, NONE), 1)
    inherit(old, new, _images())
    x = torch.rand(4, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mine, theirs = new.eval().cells[0].layers[0](x), old.cells[0].layers[0](x)
    torch.testing.assert_close(mine[:, :, 1:-1, 1:-1], theirs[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


def test_the_rest_is_inherited_by_name() -> None:
    old, new = _cell((CONV3, CONV1, CONV3, SKIP, CONV1, CONV3)), _cell((CONV3, CONV1, CONV1, SKIP, CONV1, CONV3), 1)
    inherit(old, new, _images())
    theirs, own = old.state_dict(), new.state_dict()
    for name in own:
        if "layers.2.op.1" not in name:
            assert torch.equal(own[name], theirs[name]), name
    kernel = theirs["cells.0.layers.2.op.1.weight"]
    assert torch.equal(own["cells.0.layers.2.op.1.weight"], kernel[:, :, 1:2, 1:2])


def test_no_inheritance_between_spaces() -> None:
    with pytest.raises(TypeError, match="from NASBench201Network to NATSSizeNetwork"):
        inherit(_cell((3, 3, 3, 3, 3, 3)), _size((0, 0, 0, 0, 0)), _images())


# ---------------------------------------------------------------------------------------------------------------- search


def _search(seed: int = 0, **given: Any) -> Any:
    return make(
        WeightInheritance, seed, **{"epochs": 6, "population": 3, "child_epochs": 1, "task": tiny_task(16), **given}
    )


@pytest.mark.parametrize("space", [None, NATSSizeSpace()])
def test_a_search_proposes_the_best_so_far(space: Any) -> None:
    search, again = _search(space=space), _search(space=space)
    archs, best = [], -1.0
    for _ in range(6):
        archs.append(search.ask().arch)
        best = max(best, search.log[-1]["held_out"])
        assert search.best.accuracy == best
        assert archs[-1] == search.space.check(search.best.arch)
    assert [again.ask().arch for _ in range(6)] == archs
    assert len(search.members) == 3
    assert [entry["held_out"] for entry in search.log] == [entry["held_out"] for entry in again.log]


def test_the_better_has_a_child_and_the_worse_dies() -> None:
    search = _search(sample=3)
    for _ in range(3):
        search.ask()
    ranked = sorted(search.members, key=lambda m: m.accuracy)
    before = list(search.members)
    search.ask()
    child = search.members[-1]
    parents = [m for m in before if m.accuracy == ranked[-1].accuracy]
    assert any(child.arch in search.space.neighbours(m.arch) for m in parents)
    assert len([m for m in before if any(m is n for n in search.members)]) == 2
    gone = next(m for m in before if all(m is not n for n in search.members))
    assert gone.accuracy == ranked[0].accuracy


@pytest.mark.parametrize("at", [2, 4])
def test_going_on_is_exact(at: int) -> None:
    whole, first, second = _search(), _search(), _search()
    archs = [whole.ask().arch for _ in range(6)]
    for _ in range(at):
        first.ask()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert [second.ask().arch for _ in range(6 - at)] == archs[at:]
    for mine, theirs in zip(second.members, whole.members, strict=True):
        assert (mine.arch, mine.accuracy) == (theirs.arch, theirs.accuracy)
        assert all(torch.equal(value, theirs.state[name]) for name, value in mine.state.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"population": 1}, "population must be a whole number from 2, not 1"),
        ({"sample": 4}, "sample=4 is more than the population of 3"),
        ({"child_epochs": 0}, "child_epochs must be a whole number from 1, not 0"),
        ({"noise": 1.0}, "noise must be in"),
    ],
)
def test_bad_hyper_parameters(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _search(**given)


def test_it_needs_networks_of_a_space_it_knows() -> None:
    with pytest.raises(ValueError, match="searches nasbench201 and nats_size, not darts"):
        _search(space=DARTSSpace()).ask()
    search = _search()
    search.task = None
    with pytest.raises(ValueError, match="has networks and images"):
        search.ask()
