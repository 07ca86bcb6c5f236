"""ASAP: annealing and pruning, by hand and by literal loops."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed, same

from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.optimizers.asap import ASAP


def _tiny(seed: int = 0, **given: Any) -> ASAP:
    search: ASAP = make(ASAP, seed, **{"epochs": 4, "temperature": 1.0, "alpha_learning_rate": 0.1, **given})
    return search


def _set(search: ASAP, rows: list[list[float]]) -> None:
    with torch.no_grad():
        search.alphas[0].copy_(torch.tensor(rows))


def test_weights_are_an_annealed_softmax_of_what_is_left() -> None:
    search = _tiny(temperature=0.5)
    search.prepare()
    _set(search, [[0.1, 0.2, 0.3, 0.4, 0.5]] * 6)
    search.removed[0][2] = {0, 4}
    weights = search.operation_weights(0).tolist()
    every = [math.exp(v / 0.5) for v in (0.1, 0.2, 0.3, 0.4, 0.5)]
    assert weights[0] == pytest.approx([v / sum(every) for v in every], abs=1e-6)
    left = every[1:4]
    assert weights[2] == pytest.approx([0.0, *(v / sum(left) for v in left), 0.0], abs=1e-6)


def test_pruning_is_that_of_a_literal_loop() -> None:
    search = _tiny(threshold=0.4)
    search.prepare()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 5)) * 1.5
    _set(search, rows.tolist())
    search.removed[0][3] = {1}
    expected = []
    for e in range(6):
        ops = [op for op in range(5) if op not in search.removed[0][e]]
        total = sum(math.exp(rows[e, op]) for op in ops)
        expected.append(tuple(op for op in ops if math.exp(rows[e, op]) / total >= 0.4 / len(ops)))
    search.prune()
    assert search.active(0) == tuple(expected)
    assert 6 < search.operations_left() < 29


def test_half_is_dropped_and_every_edge_keeps_its_strongest() -> None:
    search = _tiny()
    search.prepare()
    # The last edge is sure of itself: all but one of its operations are among the weakest, like most of the third's.
    rows = [[0.0, 0.1, 0.2, 0.3, 0.4]] * 5 + [[9.0, 0.0, 0.0, 0.0, 0.0]]
    _set(search, rows)
    weights = search.operation_weights(0).detach().numpy()
    search.drop_half()
    assert search.operations_left() == 15
    kept = [weights[e, op] for e, ops in enumerate(search.active(0)) for op in ops]
    gone = [weights[e, op] for e, ops in enumerate(search.removed[0]) for op in ops]
    assert min(kept) >= max(gone)
    assert search.active(0)[5] == (0,)
    for ops in search.active(0)[:5]:
        assert 4 in ops
    search.drop_half()  # nothing more to drop
    assert search.operations_left() == 15


def test_temperature_grace_and_half() -> None:
    search = _tiny(temperature=1.6, annealing=0.8, grace_temperature=1.1, epochs=6, drop_half_at=0.5, threshold=0.0)
    search.prepare()
    start = search.alphas[0].detach().clone()
    finish(search)
    assert [entry["temperature"] for entry in search.log] == pytest.approx([1.6 * 0.8**n for n in range(6)])
    assert [entry["operations"] for entry in search.log] == [30, 30, 15, 15, 15, 15]
    assert not torch.equal(start, search.alphas[0])
    resting = _tiny(temperature=1.6, annealing=0.8, grace_temperature=1.1, epochs=6)
    resting.prepare()
    start = resting.alphas[0].detach().clone()
    resting.ask()
    resting.ask()  # 1.6 and 1.28 are above 1.1
    assert torch.equal(start, resting.alphas[0])
    resting.ask()
    assert not torch.equal(start, resting.alphas[0])


def test_memory_of_a_step_falls_when_half_is_dropped() -> None:
    search = _tiny(threshold=0.0)
    finish(search)
    before, after = search.log[1]["memory_before"], search.log[1]["memory"]
    assert search.log[0]["memory"] == before
    assert 0 < after < before
    assert [entry["memory"] for entry in search.log[2:]] == [after, after]


def test_memory_is_measured_without_a_trace() -> None:
    search = _tiny()
    search.prepare()
    state = search.generator.get_state()
    weights = [p.detach().clone() for p in search.supernet.parameters()]
    first = search.measure()
    assert search.measure() == first
    assert torch.equal(state, search.generator.get_state())
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(weights, search.supernet.parameters(), strict=True))
    search.removed[0] = [{0, 1, 2, 4} for _ in range(6)]
    assert search.measure() < first


def test_removed_operations_stay_removed_and_are_never_proposed() -> None:
    search = _tiny(epochs=6, alpha_learning_rate=0.3, annealing=0.6)
    gone: set[tuple[int, int]] = set()
    for _ in range(6):
        arch = search.ask().arch
        now = {(e, op) for e, ops in enumerate(search.removed[0]) for op in ops}
        assert gone <= now
        assert not now & set(enumerate(arch))
        gone = now
    assert len(gone) > 15


@cache
def _whole() -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    """The proposals and the last state of a search that nothing interrupts."""
    search = _tiny()
    archs = finish(search)
    return archs, search.state_dict()


@pytest.mark.parametrize("interrupted", [1, 2])
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
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"grace_temperature": -1.0}, "grace_temperature must be above 0"),
        ({"annealing": 1.1}, "annealing must be above 0 and at most 1, not 1.1"),
        ({"threshold": 1.0}, "threshold must be from 0 and below 1, not 1.0"),
        ({"drop_half_at": 0.0}, "drop_half_at is a part of the search above 0"),
    ],
)
def test_bad_hyper_parameters_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(ASAP, **given)


def test_searches_repeat_and_are_valid() -> None:
    archs, end = _whole()
    again = _tiny()
    assert archs == finish(again)
    assert same(again.state_dict(), end)
    assert all(NASBench201Space().is_valid(arch) for arch in archs)
