"""DARTS-: the auxiliary skip connection as a term of its own, its decay, and resuming."""

from __future__ import annotations

import io
import math

import pytest
import torch
from tiny_supernets import make

from nasharness.benchmarks.spaces.nasbench201 import SKIP
from nasharness.optimizers.darts_minus import DARTSMinus


def test_the_decays():
    linear = make(DARTSMinus, epochs=4)
    assert [linear.beta(e) for e in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    cosine = make(DARTSMinus, epochs=4, decay="cosine", skip_beta=2.0)
    assert [cosine.beta(e) for e in range(5)] == pytest.approx([2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5), 0.0])
    assert make(DARTSMinus, decay="constant").beta(1) == 1.0


def test_an_edge_adds_beta_times_its_input():
    """The cell with an auxiliary term written out, against the one with the larger weight of the skip connection."""
    search = make(DARTSMinus, epochs=4)
    search.prepare()
    search.epoch = 1
    cell = search.supernet.skeleton.cells[0]
    x = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.softmax(search.alphas[0].detach(), 1)
    nodes = [x, None, None, None]
    for e, (target, source) in enumerate(search.topology.tables[0].edges):
        value = 0.75 * nodes[source]
        for op in range(1, 5):
            value = value + weights[e, op] * cell._operate(e, op, nodes[source])
        nodes[target] = value if nodes[target] is None else nodes[target] + value
    assert torch.allclose(cell(x, search.mixes()[0]), nodes[3], rtol=1e-4, atol=1e-5)


def test_beta_is_not_part_of_the_architecture():
    """Neither proposals nor the other operations see it."""
    search = make(DARTSMinus)
    search.prepare()
    with torch.no_grad():
        search.alphas[0].zero_()
        search.alphas[0][:, 3] = 0.1
    assert search.propose() == (3,) * 6
    weights, softmax = search.mixes()[0].weights, torch.softmax(search.alphas[0], 1)
    extra = weights - softmax
    assert torch.allclose(extra[:, SKIP], torch.ones(6))
    extra[:, SKIP] = 0
    assert not extra.any()


def test_a_resumed_search_ends_the_same():
    whole, first, second = (make(DARTSMinus) for _ in range(3))
    expected = [whole.ask().arch, whole.ask().arch]
    assert all(whole.space.is_valid(arch) for arch in expected)
    assert first.ask().arch == expected[0]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.ask().arch == expected[1]
    assert torch.equal(whole.alphas[0], second.alphas[0])
    assert [entry["beta"] for entry in second.log] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"skip_beta": -1.0}, "skip_beta must be a finite number from 0, not -1.0"),
        ({"skip_beta": math.inf}, "skip_beta must be a finite number from 0, not inf"),
        ({"decay": "step"}, "decay is one of linear, cosine, constant, not 'step'"),
    ],
)
def test_bad_hyper_parameters(given, message):
    with pytest.raises(ValueError, match=message):
        make(DARTSMinus, **given)
