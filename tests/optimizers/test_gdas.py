from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_supernets import make
from torch.nn import functional

from nasharness.benchmarks.spaces.nasbench201 import CONV3, EDGES, NONE, POOL, SKIP
from nasharness.optimizers.gdas import GDAS, gumbel, linear, relaxed_sample
from nasharness.optimizers.supernet.mix import hard, one_hot


def test_sample_is_the_softmax_of_noisy_log_probabilities() -> None:
    alpha = torch.tensor([[0.3, -0.7, 1.1], [0.0, 0.0, 0.0]])
    noise = gumbel((2, 3), torch.Generator().manual_seed(5))
    drawn = relaxed_sample(alpha, 0.7, torch.Generator().manual_seed(5))
    for e in range(2):
        total = sum(math.exp(a) for a in alpha[e].tolist())
        z = [
            math.exp((math.log(math.exp(a) / total) + g) / 0.7)
            for a, g in zip(alpha[e].tolist(), noise[e].tolist(), strict=True)
        ]
        assert drawn[e].tolist() == pytest.approx([v / sum(z) for v in z], abs=1e-6)


def test_choices_are_drawn_with_the_softmax_of_alpha() -> None:
    """The Gumbel-max law, at any temperature."""
    alpha = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(20000, 3)
    counts = relaxed_sample(alpha, 3.0, torch.Generator().manual_seed(0)).argmax(1).bincount(minlength=3) / 20000
    assert counts.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.015)


def test_noise_is_standard_gumbel() -> None:
    noise = gumbel((100000,), torch.Generator().manual_seed(1))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.05)


def test_temperature_falls_in_a_line() -> None:
    assert [linear(10.0, 0.1, e, 4) for e in range(4)] == pytest.approx([10.0, 6.7, 3.4, 0.1])
    assert linear(10.0, 0.1, 0, 1) == 10.0


def test_gradient_is_that_of_the_dense_form() -> None:
    """All operations computed and multiplied by the one-hot rows, where those not chosen contribute their weight alone."""
    search = make(GDAS)
    search.prepare()
    batch = next(iter(search.images.batches("architecture")))
    alpha = search.alphas[0]
    seed = torch.Generator().manual_seed(3)
    with torch.no_grad():
        alpha.copy_(torch.randn(alpha.shape, generator=seed))
    state = seed.get_state()
    weights = one_hot(relaxed_sample(alpha, 2.0, seed))
    (found,) = torch.autograd.grad(search.loss(batch, [hard(weights)]), [alpha])

    seed.set_state(state)
    weights = one_hot(relaxed_sample(alpha, 2.0, seed))
    chosen = weights.argmax(1).tolist()
    skeleton = search.supernet.skeleton
    x = skeleton.stem(batch.images)
    for part in skeleton.cells:
        if not hasattr(part, "edges"):
            x = part(x)
            continue
        nodes: list[Any] = [x, None, None, None]
        for e, (target, source) in enumerate(EDGES):
            op, h = chosen[e], nodes[source]
            if op == NONE:
                value = torch.zeros_like(h)
            elif op == SKIP:
                value = h
            elif op == POOL:
                value = functional.avg_pool2d(h, 3, stride=1, padding=1, count_include_pad=False)
            else:
                value = part.operation(e, op)(h)
            edge = sum(weights[e, o] * value if o == op else weights[e, o] for o in range(5))
            nodes[target] = edge if nodes[target] is None else nodes[target] + edge
        x = nodes[3]
    logits = skeleton.classifier(skeleton.lastact(x).mean(dim=(2, 3)))
    (expected,) = torch.autograd.grad(functional.cross_entropy(logits, batch.targets), [alpha])
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_weight_step_trains_the_drawn_operations_alone() -> None:
    search = make(GDAS)
    search.prepare()
    with torch.no_grad():
        search.alphas[0].fill_(-100.0)[:, CONV3] = 100.0
    before = {name: p.clone() for name, p in search.supernet.named_parameters()}
    search.weight_step(next(iter(search.images.batches("weights"))))
    changed = {name for name, p in search.supernet.named_parameters() if not torch.equal(p, before[name])}
    assert any(f".{CONV3}.op" in name for name in changed)
    assert not any(".2.op" in name and ".edges." in name for name in changed)


@pytest.mark.parametrize(
    "given", [{"tau_min": 0.0}, {"tau_max": -1.0}, {"tau_max": math.inf}, {"tau_max": 1, "tau_min": 2}]
)
def test_bad_temperatures(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tau_"):
        make(GDAS, **given)


def test_search_is_deterministic_and_resumes_exactly() -> None:
    whole, broken = make(GDAS, epochs=3), make(GDAS, epochs=3)
    ends = [whole.ask().arch for _ in range(3)]
    broken.ask()
    resumed = make(GDAS, seed=9, epochs=3)
    resumed.load_state_dict(broken.state_dict())
    assert [resumed.ask().arch for _ in range(2)] == ends[1:]
    assert torch.equal(resumed.alphas[0], whole.alphas[0])
    for a, b in zip(resumed.supernet.parameters(), whole.supernet.parameters(), strict=True):
        assert torch.equal(a, b)
    for arch in ends:
        whole.space.check(arch)


def test_temperature_of_the_search() -> None:
    search = make(GDAS, epochs=3)
    seen = []
    for _ in range(3):
        seen.append(search.tau)
        search.ask()
    assert seen[0] == 10.0
    assert seen[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(seen))
