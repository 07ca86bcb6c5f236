"""DARTS-PT: decisions against supernets without the operation, computed by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed, same, tiny_task
from torch.nn import functional

from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.optimizers.darts_pt import DARTSPT
from nasharness.optimizers.supernet.mix import soft


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_a_decision_is_that_of_a_literal_comparison(criterion: str) -> None:
    search = make(DARTSPT, epochs=9, criterion=criterion)
    search.ask()
    search.removed[0][2] = {0, 1, 2, 4}  # an edge that was decided before: it counts with weight 1
    images, labels = search.images.part("architecture")
    search.supernet.merge = False
    with torch.no_grad():
        weights = torch.softmax(search.alphas[0], dim=1)
        weights[2] = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0])
        worth = []
        for op in range(5):
            without = weights.clone()
            without[4, op] = 0.0
            logits = search.supernet(images, [soft(without)])
            loss = float(functional.cross_entropy(logits, labels))
            accuracy = float((logits.argmax(1) == labels).double().mean())
            worth.append((accuracy, -loss) if criterion == "accuracy" else (-loss, accuracy))
    assert min(a[1] for a in worth) != max(a[1] for a in worth)
    chosen = search.decide_edge(0, 4, search.images.fixed("architecture"))
    assert chosen == min(range(5), key=lambda op: worth[op])
    assert search.active(0)[4] == (chosen,)


def test_a_decided_edge_is_a_path_of_weight_one() -> None:
    search = make(DARTSPT, epochs=9)
    search.ask()
    for e, op in enumerate((3, 1, 0, 2, 4, 3)):
        search.removed[0][e] = set(range(5)) - {op}
    arch = search.propose()
    assert arch == (3, 1, 0, 2, 4, 3)
    images, _ = search.images.part("architecture")
    with torch.no_grad():
        torch.testing.assert_close(
            search.supernet(images, search.mixes()), search.supernet(images, search.supernet.paths(arch))
        )


def test_rounds_end_with_the_search() -> None:
    search = make(DARTSPT, epochs=20, tune=2)
    search.prepare()
    assert search.due() == [10, 12, 14, 16, 18, 20]
    short = make(DARTSPT, epochs=3)
    short.prepare()
    assert short.due() == [1, 1, 1, 1, 2, 3]


def test_one_edge_after_another_is_decided_and_stays() -> None:
    search = make(DARTSPT, epochs=7)
    decided: dict[int, int] = {}
    for epoch, arch in enumerate(finish(search), start=1):
        entry = search.log[epoch - 1]
        assert entry["decided"] == max(0, epoch - 1)
        assert all(arch[e] == op for e, op in decided.items())
        if epoch == 7:
            assert all(len(ops) == 1 for ops in search.active(0))
            assert arch == tuple(ops[0] for ops in search.active(0))
        decided = {e: ops[0] for e, ops in enumerate(search.active(0)) if len(ops) == 1} if epoch == 7 else decided


def test_the_learning_rate_falls_twice() -> None:
    search = make(DARTSPT, epochs=20, tune=2, learning_rate=0.2, min_learning_rate=0.0)
    search.prepare()
    rates = []
    for epoch in (0, 5, 10, 15, 20):
        search._schedule(epoch)
        rates.append(search.weight_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.2, 0.1, 0.02, 0.01, 0.0])


def test_fixed_alpha_never_moves() -> None:
    search = make(DARTSPT, epochs=3, fixed_alpha=True)
    search.prepare()
    before = search.alphas[0].detach().clone()
    finish(search)
    assert torch.equal(search.alphas[0], before)
    moving = make(DARTSPT, epochs=3)
    moving.prepare()
    before = moving.alphas[0].detach().clone()
    moving.ask()
    assert not torch.equal(moving.alphas[0], before)


@cache
def _whole() -> tuple[list[tuple[int, ...]], dict[str, Any]]:
    """The proposals and the last state of a search that nothing interrupts."""
    search = make(DARTSPT, epochs=7)
    archs = finish(search)
    return archs, search.state_dict()


@pytest.mark.parametrize("interrupted", [1, 4])
def test_resume_is_exact(interrupted: int) -> None:
    archs, end = _whole()
    part = make(DARTSPT, epochs=7)
    for _ in range(interrupted):
        part.ask()
    again = resumed(part, make(DARTSPT, epochs=7))
    assert finish(again) == archs[interrupted:]
    assert same(again.state_dict(), end)


def test_nodes_of_the_darts_space_keep_the_two_edges_that_are_missed_most(monkeypatch: pytest.MonkeyPatch) -> None:
    space = DARTSSpace()
    search = DARTSPT(space, np.random.default_rng(0), task=tiny_task(darts=True), epochs=20)
    search.prepare()
    table = search.topology.tables[0]
    assert len(search.due()) == 14 + 3
    worth = {(t, e): ((5 * e + t) % 14 / 14, 0.0) for t in range(2) for e in range(14)}
    monkeypatch.setattr(search, "value_without", lambda t, e, op, batches: (worth[t, e][0] + op / 1000, 0.0))
    for _ in range(17):
        search.decide()
    for t in range(2):
        for node in table.nodes:
            # Without its operation 1 an edge is worth least, so 1 was chosen; then the edges that are worth least without.
            into = sorted(table.edges_into(node), key=lambda e: worth[t, e])
            assert search.edges_left(t, node) == sorted(into[:2])
    choices = search.topology.choices(search.propose())
    for t, row in enumerate(choices):
        assert row == tuple(ops[0] for ops in search.active(t))
        assert set(row) == {table.none, 1}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tune": 0}, "tune must be at least 1, not 0"),
        ({"tune_rate": 0.0}, "tune_rate must be above 0, not 0.0"),
        ({"criterion": "auc"}, "not 'auc'"),
        ({"decision_images": 0}, "decision_images must be at least 1, not 0"),
    ],
)
def test_bad_hyper_parameters_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(DARTSPT, **given)


def test_searches_repeat_and_differ_by_seed() -> None:
    archs, end = _whole()
    again, other = make(DARTSPT, epochs=7), make(DARTSPT, 1, epochs=7)
    assert archs == finish(again)
    assert same(again.state_dict(), end)
    other.ask()
    assert not torch.equal(again.alphas[0], other.alphas[0])
    assert all(NASBench201Space().is_valid(arch) for arch in archs)


def test_the_published_recipe_has_plain_momentum() -> None:
    search = make(DARTSPT, **DARTSPT.presets["paper"])
    search.prepare()
    group = search.weight_optimizer.param_groups[0]
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, False, 3e-4)
