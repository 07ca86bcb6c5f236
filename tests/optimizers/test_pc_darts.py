from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tiny_supernets import make

from nasharness.optimizers.pc_darts import PCDARTS
from nasharness.optimizers.supernet.memory import saved_bytes


def test_edges_into_a_node_share_one_softmax() -> None:
    search = make(PCDARTS)
    search.prepare()
    beta = [0.3, -0.2, 0.5, 1.0, 0.0, -1.0]
    with torch.no_grad():
        search.betas[0].copy_(torch.tensor(beta))
    expected = []
    for first, last in ((0, 1), (1, 3), (3, 6)):
        z = [math.exp(b) for b in beta[first:last]]
        expected += [v / sum(z) for v in z]
    assert search.mixes()[0].edges.tolist() == pytest.approx(expected, abs=1e-6)
    assert search.supernet.partial == 4


def test_warm_up_keeps_the_architecture() -> None:
    search = make(PCDARTS, epochs=2, warm_up=1)
    search.prepare()
    start = [p.detach().clone() for p in search.architecture_parameters()]
    search.ask()
    assert all(torch.equal(a, b) for a, b in zip(start, search.architecture_parameters(), strict=True))
    search.ask()
    # The one edge into the first node always has weight 1: no gradient but that of the decay.
    assert all(not torch.equal(a, b) for a, b in zip(start, search.architecture_parameters(), strict=True))


def test_search_resumes_exactly() -> None:
    given: dict[str, Any] = {"epochs": 3, "warm_up": 1}
    whole, broken = make(PCDARTS, **given), make(PCDARTS, **given)
    ends = [whole.ask().arch for _ in range(3)]
    broken.ask()
    broken.ask()
    resumed = make(PCDARTS, seed=9, **given)
    resumed.load_state_dict(broken.state_dict())
    assert resumed.ask().arch == ends[2]
    assert torch.equal(resumed.alphas[0], whole.alphas[0])
    assert torch.equal(resumed.betas[0], whole.betas[0])
    for arch in ends:
        whole.space.check(arch)


@pytest.mark.parametrize("partial", [0, -1, 1.5, True])
def test_bad_partial(partial: Any) -> None:
    with pytest.raises(ValueError, match="partial must"):
        make(PCDARTS, partial=partial)


def test_partial_has_to_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        make(PCDARTS, partial=3).prepare()


def test_a_quarter_of_the_channels_takes_less_than_half_of_the_memory() -> None:
    """What a step keeps for its backward pass: the operations' share falls to a quarter, what goes past them stays."""
    kept = {}
    for partial in (1, 4):
        search = make(PCDARTS, partial=partial, channels=16, warm_up=0)
        search.prepare()
        batch = next(search.images.batches("weights"))
        kept[partial] = saved_bytes(lambda s=search, b=batch: s.loss(b, s.mixes()), parameters=search.supernet)
    assert kept[4] < 0.5 * kept[1]
