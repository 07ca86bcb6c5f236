from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_supernets import make

from nasharness.benchmarks.spaces.nasbench201 import NONE
from nasharness.optimizers.fair_darts import FairDARTS


def begun(**given: Any) -> Any:
    search = make(FairDARTS, **given)
    search.prepare()
    return search


@pytest.mark.parametrize(("separation", "expected"), [("l2", -10 * 0.2**2), ("l1", -10 * 0.2)])
def test_zero_one_loss_by_hand(separation: str, expected: float) -> None:
    """Gates of 0.7 and 0.3, all 0.2 from 1/2; `none` does not count."""
    search = begun(separation=separation)
    with torch.no_grad():
        search.alphas[0].fill_(float(torch.logit(torch.tensor(0.7))))
        search.alphas[0][:3].neg_()
        search.alphas[0][:, NONE] = 50.0
    assert float(search.regulariser().detach()) == pytest.approx(expected, rel=1e-5)


def test_zero_one_loss_pushes_gates_apart() -> None:
    search = begun()
    with torch.no_grad():
        search.alphas[0].copy_(torch.linspace(-2.0, 2.0, 30).view(6, 5))
    (gradient,) = torch.autograd.grad(search.regulariser(), search.alphas)
    for alpha, slope in zip(search.alphas[0][:, 1:].flatten(), gradient[:, 1:].flatten(), strict=True):
        assert float((-slope * alpha).detach()) > 0  # a step of descent leads away from 0
    assert (gradient[:, NONE] == 0).all()


def test_gates_do_not_compete() -> None:
    search = begun()
    weights = search.mixes()[0].weights
    slopes = torch.autograd.grad(weights[0, 1], search.alphas)[0]
    assert slopes.nonzero().tolist() == [[0, 1]]


def test_architecture_step_is_adam_on_both_losses() -> None:
    search = begun(alpha_weight_decay=0.0)
    held_out = next(iter(search.images.batches("architecture")))
    alpha = search.alphas[0]
    before = alpha.detach().clone()
    gates = torch.sigmoid(alpha)
    loss = search.loss(held_out, search.mixes()) - 10 * (gates[:, 1:] - 0.5).square().mean()
    (gradient,) = torch.autograd.grad(loss, [alpha])
    search.architecture_step(held_out, held_out)
    moved = gradient.abs() > 1e-6
    assert moved[:, 1:].any()
    assert not moved[:, NONE].any()
    # The first step of Adam has the length of its learning rate.
    assert (alpha - before)[moved].tolist() == pytest.approx((-0.01 * gradient.sign())[moved].tolist(), rel=0.02)


def test_edges_of_shut_gates_are_none() -> None:
    never, shut = begun(), begun(threshold=0.85)
    for search in (never, shut):
        with torch.no_grad():
            search.alphas[0].fill_(-3.0)
            search.alphas[0][:, NONE] = 9.0
            search.alphas[0][1, 3] = 3.0
    assert NONE not in never.propose()
    assert never.propose()[1] == 3
    assert shut.propose() == (NONE, 3, NONE, NONE, NONE, NONE)


def test_search_is_deterministic_and_resumes_exactly() -> None:
    whole, broken = make(FairDARTS), make(FairDARTS)
    ends = [whole.ask().arch for _ in range(2)]
    broken.ask()
    resumed = make(FairDARTS, seed=9)
    resumed.load_state_dict(broken.state_dict())
    assert resumed.ask().arch == ends[1]
    assert torch.equal(resumed.alphas[0], whole.alphas[0])
    assert all(NONE not in whole.space.check(arch) for arch in ends)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"zero_one": -1.0}, "zero_one"),
        ({"separation": "l3"}, "separation"),
        ({"threshold": 1.0}, "threshold"),
    ],
)
def test_bad_hyper_parameters(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(FairDARTS, **given)
