"""P-DARTS: its stages, what they drop, its dropout and its limit of skip connections."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed, same

from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.optimizers.p_darts import PDARTS


def _tiny(seed: int = 0, **given: Any) -> PDARTS:
    search: PDARTS = make(PDARTS, seed, **{"epochs": 6, "warm_up": 1, **given})
    return search


def test_stages_grow_and_lose_operations() -> None:
    search = _tiny()
    found = []
    for _ in range(6):
        search.ask()
        entry = search.log[-1]
        found.append((entry["stage"], len(search.supernet.cell_tables), entry["operations"]))
    assert found == [(1, 3, 5)] * 2 + [(2, 6, 3)] * 2 + [(3, 9, 2)] * 2


def test_published_numbers_of_operations() -> None:
    search = _tiny()
    assert [search.operations_kept(stage, 8) for stage in range(3)] == [8, 5, 3]
    assert [search.operations_kept(stage, 5) for stage in range(3)] == [5, 3, 2]
    assert [_tiny(keep=(4, 2)).operations_kept(stage, 5) for stage in range(3)] == [5, 4, 2]


def test_the_weakest_operations_of_an_edge_are_dropped() -> None:
    search = _tiny()
    search.prepare()
    rows = [[1.0, 5.0, 3.0, 2.0, 4.0], [0.0, -1.0, -2.0, -3.0, -4.0]] * 3
    with torch.no_grad():
        search.alphas[0].copy_(torch.tensor(rows))
    search.drop_operations(1)
    assert search.active(0) == ((1, 2, 4), (0, 1, 2)) * 3
    e = [math.exp(v) for v in (5.0, 3.0, 4.0)]
    by_hand = [0.0, e[0] / sum(e), e[1] / sum(e), 0.0, e[2] / sum(e)]
    assert search.operation_weights(0)[0].tolist() == pytest.approx(by_hand, abs=1e-6)
    search.drop_operations(2)
    assert search.active(0) == ((1, 4), (0, 1)) * 3


def test_a_stage_begins_anew() -> None:
    search = _tiny()
    search.ask()
    search.ask()
    old = search.supernet
    before = search.alphas[0].detach().clone()
    search._train_epoch()  # the first epoch of a stage leaves the architecture alone
    assert search.supernet is not old
    assert search.stage == 1
    assert float(search.alphas[0].detach().abs().max()) < 0.01
    assert not torch.equal(before, search.alphas[0])
    started = search.alphas[0].detach().clone()
    search._train_epoch()
    assert not torch.equal(started, search.alphas[0])


def test_dropout_fades_out_within_a_stage() -> None:
    search = _tiny(epochs=75, warm_up=10, skip_dropout=(0.1, 0.4, 0.7))
    search.stage = 1
    # As in the published script: linear over 25 epochs while the architecture rests, then exp(-0.2 n).
    assert search.dropout(0, 25) == pytest.approx(0.4 * 24 / 25)
    assert search.dropout(9, 25) == pytest.approx(0.4 * 15 / 25)
    assert search.dropout(10, 25) == pytest.approx(0.4)
    assert search.dropout(13, 25) == pytest.approx(0.4 * math.exp(-0.6))
    assert search.dropout(24, 25) == pytest.approx(0.4 * math.exp(-2.8))


def test_dropout_and_learning_rate_reach_the_training() -> None:
    search = _tiny(skip_dropout=(0.5, 0.0, 0.0), learning_rate=0.2, min_learning_rate=0.0)
    search.ask()
    assert search.supernet.skip_dropout == pytest.approx(0.25)
    search._schedule(1.0)
    assert search.weight_optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("most", [0, 1, 2, 6, None])
def test_the_weakest_skip_connections_give_way(most: int | None) -> None:
    search = _tiny(max_skips=most)
    search.prepare()
    with torch.no_grad():
        search.alphas[0].zero_()
        search.alphas[0][:, 3] = 1.0
        search.alphas[0][:4, 1] = torch.tensor([2.0, 4.0, 3.0, 5.0])
    skips = {0: [], 1: [3], 2: [1, 3], 6: [0, 1, 2, 3], None: [0, 1, 2, 3]}[most]
    assert search.propose() == tuple(1 if e in skips else 3 for e in range(6))


def test_a_skip_connection_stays_where_nothing_else_is_left() -> None:
    search = _tiny(max_skips=0)
    search.prepare()
    search.removed[0] = [{0, 2, 3, 4} for _ in range(6)]
    assert search.propose() == (1,) * 6


@cache
def _whole() -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    """The proposals and the last state of a search that nothing interrupts."""
    search = _tiny()
    archs = finish(search)
    return archs, search.state_dict()


@pytest.mark.parametrize("interrupted", [1, 2, 5])
def test_resume_is_exact(interrupted: int) -> None:
    archs, end = _whole()
    part = _tiny()
    for _ in range(interrupted):
        part.ask()
    again = resumed(part, _tiny())
    assert finish(again) == archs[interrupted:]
    assert same(again.state_dict(), end)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"add_cells": ()}, "add_cells are"),
        ({"add_cells": (0, -1, 2)}, r"not \(0, -1, 2\)"),
        ({"skip_dropout": (0.1, 0.2)}, r"3 probabilities below 1, not \(0.1, 0.2\)"),
        ({"skip_dropout": (0.0, 0.4, 1.0)}, "probabilities below 1"),
        ({"keep": (3,)}, "keep are 2 falling numbers from 2"),
        ({"keep": (3, 3)}, "keep are 2 falling numbers"),
        ({"keep": (3, 1)}, r"not \(3, 1\)"),
        ({"max_skips": -1}, "max_skips must be at least 0, not -1"),
    ],
)
def test_bad_hyper_parameters_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(PDARTS, **given)


def test_searches_repeat_and_are_valid() -> None:
    archs, end = _whole()
    again = _tiny()
    assert archs == finish(again)
    assert same(again.state_dict(), end)
    assert all(NASBench201Space().is_valid(arch) and np.sum(np.array(arch) == 1) <= 2 for arch in archs)


def test_fewer_epochs_than_stages() -> None:
    search = _tiny(epochs=2)
    assert len(finish(search)) == 2
    assert search.stage == 2
