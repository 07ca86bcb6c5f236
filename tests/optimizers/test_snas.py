from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_supernets import make

from nasharness.optimizers.snas import SNAS, multiply_adds
from nasharness.optimizers.supernet.mix import soft


def test_weights_and_architecture_descend_the_same_loss() -> None:
    search = make(SNAS, clip=0.0)
    search.prepare()
    batch = next(iter(search.images.batches("weights")))
    state = search.generator.get_state()
    weight, alpha = search.supernet.skeleton.classifier.weight, search.alphas[0]
    expected = torch.autograd.grad(search.loss(batch, search.mixes()), [weight, alpha])
    search.generator.set_state(state)
    search.step(batch, None)
    torch.testing.assert_close(weight.grad, expected[0])
    torch.testing.assert_close(alpha.grad, expected[1])


def test_resources_by_hand() -> None:
    assert multiply_adds("nor_conv_3x3", 4) == 144
    assert multiply_adds("sep_conv_5x5", 4) == 2 * (25 * 4 + 16)
    assert multiply_adds("dil_conv_3x3", 4) == 9 * 4 + 16
    assert multiply_adds("avg_pool_3x3", 4) == 0
    search = make(SNAS)
    search.prepare()
    weights = torch.zeros(6, 5)
    weights[:3, 3] = 1.0  # three 3x3 convolutions
    weights[3:, 2] = 1.0  # and three 1x1 convolutions of a ninth of their cost
    assert float(search.resources([soft(weights)])) == pytest.approx((1 + 1 / 9) / 2)


def test_search_resumes_exactly() -> None:
    given: dict[str, Any] = {"epochs": 3, "resource": 0.1}
    whole, broken = make(SNAS, **given), make(SNAS, **given)
    ends = [whole.ask().arch for _ in range(3)]
    broken.ask()
    resumed = make(SNAS, seed=9, **given)
    resumed.load_state_dict(broken.state_dict())
    assert [resumed.ask().arch for _ in range(2)] == ends[1:]
    assert torch.equal(resumed.alphas[0], whole.alphas[0])
    for arch in ends:
        whole.space.check(arch)


@pytest.mark.parametrize("given", [{"tau_min": 0.0}, {"tau_max": 1, "tau_min": 2}, {"resource": -1.0}])
def test_bad_hyper_parameters(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tau_|resource"):
        make(SNAS, **given)
