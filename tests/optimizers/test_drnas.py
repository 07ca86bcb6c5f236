from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import betainc
from scipy.stats import beta as beta_distribution
from tiny_supernets import make

from nasharness.optimizers.drnas import DrNAS, draw_dirichlet


def test_gradient_of_a_draw_by_the_distribution_function() -> None:
    """Two components are a beta variable: dx/da is minus the slope of its distribution function in a, by its density."""
    a, b, step = 1.3, 0.8, 1e-5
    concentration = torch.tensor([[a, b]], dtype=torch.float64, requires_grad=True)
    drawn = draw_dirichlet(concentration, torch.Generator().manual_seed(2))
    drawn[0, 0].backward()
    x = float(drawn[0, 0].detach())
    density = beta_distribution.pdf(x, a, b)
    by_a = -(betainc(a + step, b, x) - betainc(a - step, b, x)) / (2 * step) / density
    by_b = -(betainc(a, b + step, x) - betainc(a, b - step, x)) / (2 * step) / density
    assert concentration.grad is not None
    assert concentration.grad[0].tolist() == pytest.approx([by_a, by_b], rel=1e-3)


def test_mean_of_draws_and_of_their_gradients() -> None:
    concentration = torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    value = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    rows = concentration.expand(50000, 3).clone().requires_grad_()
    drawn = draw_dirichlet(rows, torch.Generator().manual_seed(0))
    (drawn * value).sum().backward()
    total = float(concentration.sum())
    assert torch.allclose(drawn.sum(1), torch.ones(50000, dtype=torch.float64))
    assert drawn.mean(0).tolist() == pytest.approx((concentration / total).tolist(), abs=0.005)
    mean = float((concentration * value).sum()) / total
    assert rows.grad is not None
    assert rows.grad.mean(0).tolist() == pytest.approx([(v - mean) / total for v in value.tolist()], abs=0.01)


def test_concentrations_start_at_the_anchor() -> None:
    search = make(DrNAS, alpha_init=0.0)
    search.prepare()
    assert torch.equal(search.concentrations(0), torch.ones(6, 5))
    assert float(search.regulariser().detach()) == 0.0
    with torch.no_grad():
        search.alphas[0][0, :2] = torch.tensor([2.0, -1.0])
    assert search.concentrations(0)[0, :2].tolist() == pytest.approx([3.0, math.exp(-1.0)])


def test_regularisers_by_hand() -> None:
    for anchor in ("l2", "kl"):
        search = make(DrNAS, anchor=anchor, anchor_weight=0.1)
        search.prepare()
        with torch.no_grad():
            search.alphas[0].fill_(1.0)
        if anchor == "l2":
            expected = 0.1 * 0.5 * 30
        else:  # digamma(2) - digamma(10) = -(1/2 + ... + 1/9)
            digamma = -sum(1 / k for k in range(2, 10))
            expected = 0.1 * 6 * (math.lgamma(10) - math.lgamma(5) + 5 * digamma)
        assert float(search.regulariser().detach()) == pytest.approx(expected, rel=1e-4)


def test_half_of_the_operations_on_twice_the_channels() -> None:
    search = make(DrNAS, epochs=4, progressive=True, partial=4)
    search.ask()
    assert (search.supernet.partial, search.removed) == (4, [[set() for _ in range(6)]])
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    search.epoch = 2
    order = [np.argsort(-row, kind="stable") for row in search.strengths()[0]]
    search.prune()
    search.widen()
    assert search.supernet.partial == 2
    for gone, row in zip(search.removed[0], order, strict=True):
        assert gone == set(row[3:].tolist())
    grown = 0
    for name, wide in search.supernet.state_dict().items():
        old = before[name]
        assert torch.equal(wide[tuple(slice(0, n) for n in old.shape)], old)
        if wide.shape != old.shape and wide.ndim == 4:
            grown += 1
            for channel in wide:  # every output is one of before
                assert any(torch.equal(channel[: old.shape[1]], o) for o in old)
    assert grown
    weights = search.operation_weights(0)
    assert torch.allclose(weights.sum(1), torch.ones(6))
    assert ((weights > 0).sum(1) == 3).all()
    drawn = search.mixes()[0]
    assert drawn.active == search.active(0)
    assert (drawn.weights[weights == 0] == 0).all()


@pytest.mark.parametrize("after", [1, 2, 3])
def test_progressive_search_resumes_exactly(after: int) -> None:
    given: dict[str, Any] = {"epochs": 4, "progressive": True, "partial": 4, "warm_up": 1}
    whole, broken = make(DrNAS, **given), make(DrNAS, **given)
    ends = [whole.ask().arch for _ in range(4)]
    for _ in range(after):
        broken.ask()
    resumed = make(DrNAS, seed=9, **given)
    if after == 3:
        resumed.ask()  # a search that has begun in the first stage can be put into the second
    resumed.load_state_dict(broken.state_dict())
    assert [resumed.ask().arch for _ in range(4 - after)] == ends[after:]
    assert torch.equal(resumed.alphas[0], whole.alphas[0])
    for a, b in zip(resumed.supernet.parameters(), whole.supernet.parameters(), strict=True):
        assert torch.equal(a, b)
    for arch, gone in zip(ends[-1], whole.removed[0], strict=True):
        assert arch not in gone


def test_plain_search_resumes_exactly() -> None:
    whole, broken = make(DrNAS), make(DrNAS)
    ends = [whole.ask().arch for _ in range(2)]
    broken.ask()
    resumed = make(DrNAS, seed=9)
    resumed.load_state_dict(broken.state_dict())
    assert resumed.ask().arch == ends[1]
    assert torch.equal(resumed.alphas[0], whole.alphas[0])


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"anchor": "l1"}, "anchor is"),
        ({"anchor_weight": -1.0}, "anchor_weight"),
        ({"partial": 0}, "partial must"),
        ({"partial": 1, "progressive": True}, "even"),
    ],
)
def test_bad_hyper_parameters(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(DrNAS, **given)
