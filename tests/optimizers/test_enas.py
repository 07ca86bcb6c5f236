"""ENAS: the controller's policy, its gradient and its baseline against literal versions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed

from nasharness.optimizers.enas import ENAS, Controller

SMALL = {"units": 4, "controller_steps": 2, "aggregate": 3, "candidates": 4, "quick": 2}


def controller(cardinalities, seed=0):
    torch.manual_seed(seed)
    return Controller(cardinalities, units=4, layers=2, tanh=2.5, temperature=5.0)


def literal(policy, arch):
    """Log-probability and entropy of an architecture, a decision at a time, with the cells of the LSTM written out."""
    units = 4
    h = [torch.zeros(units) for _ in range(2)]
    c = [torch.zeros(units) for _ in range(2)]
    x, log_p, entropy = policy.start, torch.zeros(()), torch.zeros(())
    for n, choice in zip(policy.cardinalities, arch, strict=True):
        for layer in range(2):
            p = {
                name: getattr(policy.lstm, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            gates = p["weight_ih"] @ x + p["bias_ih"] + p["weight_hh"] @ h[layer] + p["bias_hh"]
            i, f, g, o = gates.chunk(4)
            c[layer] = torch.sigmoid(f) * c[layer] + torch.sigmoid(i) * torch.tanh(g)
            h[layer] = x = torch.sigmoid(o) * torch.tanh(c[layer])
        head = policy.heads[str(n)]
        q = torch.softmax(2.5 * torch.tanh((head.weight @ x + head.bias) / 5.0), 0)
        log_p = log_p + q[choice].log()
        entropy = entropy - (q * q.log()).sum()
        x = policy.embeddings[str(n)].weight[choice]
    return log_p, entropy


def test_the_policy_is_that_of_its_formula():
    policy = controller((5, 3, 5))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter *= 10  # away from uniform
    samples = policy.sample(6, torch.Generator().manual_seed(0))
    for arch, log_p, entropy in zip(samples.choices.tolist(), samples.log_probs, samples.entropies, strict=True):
        wanted, certainty = literal(policy, arch)
        torch.testing.assert_close(log_p, wanted)
        torch.testing.assert_close(entropy, certainty)


def test_samples_come_as_often_as_the_policy_says():
    policy = controller((3, 2))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter *= 20
    archs = list(itertools.product(range(3), range(2)))
    p = torch.stack([literal(policy, arch)[0] for arch in archs]).exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    drawn = policy.sample(5000, torch.Generator().manual_seed(0)).choices
    often = torch.bincount(drawn[:, 0] * 2 + drawn[:, 1], minlength=6) / 5000
    assert (often - p).abs().max() < 0.04


def test_no_decision_is_ever_certain():
    """The tangent bounds logits by 2.5, so of five choices each has at least 1 / (1 + 4 exp(5))."""
    policy = controller((5,) * 6)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter *= 1e4
    assert policy.logits(torch.full((1, 4), 1e3), 5).abs().max() <= 2.5


def test_decisions_with_equally_many_choices_share_a_layer():
    policy = controller((5, 3, 5, 3))
    assert sorted(policy.heads) == sorted(policy.embeddings) == ["3", "5"]
    assert all(p.abs().max() <= 0.1 for p in policy.parameters())


def test_the_baseline_moves_first():
    """By hand, with a decay of 0.5: from the mean 0.4 to 0.3, 0.55, 0.375."""
    optimizer = make(ENAS, baseline_decay=0.5, **SMALL)
    optimizer.prepare()
    assert optimizer.advantages([0.2, 0.8, 0.2]) == pytest.approx([-0.1, 0.25, -0.175])
    assert optimizer.baseline == pytest.approx(0.375)
    assert optimizer.advantages([0.475]) == pytest.approx([0.05])


def test_an_update_is_reinforce():
    """The gradient of -mean(log p * advantage), with log p of the literal policy; one step of Adam without momentum."""
    optimizer, twin = make(ENAS, **SMALL), make(ENAS, **SMALL)
    for each in (optimizer, twin):
        each.prepare()
    held_out = optimizer.images.fixed("architecture", 16)
    optimizer.controller_step(iter(held_out * 3))
    samples = twin.controller.sample(3, twin.generator)
    batch = twin.images.fixed("architecture", 16)[0]
    rewards = []
    for arch, entropy in zip(samples.choices.tolist(), samples.entropies, strict=True):
        logits = twin.supernet(batch.images, twin.supernet.paths(tuple(arch)))
        rewards.append((logits.argmax(1) == batch.targets).float().mean().item() + 1e-4 * entropy.item())
    advantages = twin.advantages(rewards)
    loss = (
        -sum(literal(twin.controller, a)[0] * b for a, b in zip(samples.choices.tolist(), advantages, strict=True)) / 3
    )
    parameters = list(twin.controller.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    assert torch.cat([g.flatten() for g in gradients]).norm() < 5.0  # so that nothing is clipped
    for now, before, g in zip(optimizer.controller.parameters(), parameters, gradients, strict=True):
        torch.testing.assert_close(now, before - 0.01 * g / (g.abs() + 1e-3), rtol=1e-4, atol=1e-6)


def test_the_controller_learns_what_is_rewarded():
    """Rewarded for conv3x3, it samples more of it."""
    optimizer = make(ENAS, units=8, aggregate=20, controller_steps=1, controller_learning_rate=0.02, baseline_decay=0.9)
    optimizer.prepare()
    optimizer.accuracies = lambda archs, held_out: torch.tensor([arch.count(3) / 6 for arch in archs])
    for _ in range(60):
        optimizer.controller_step(iter(()))
    drawn = np.array(optimizer.draw(500, torch.Generator().manual_seed(0)))
    assert (drawn == 3).mean() > 0.5


def test_the_weights_alone_are_trained_in_a_warm_up():
    optimizer = make(ENAS, warm_up=2, **SMALL)
    optimizer.prepare()
    before = [p.detach().clone() for p in optimizer.controller.parameters()]
    finish(optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.controller.parameters(), strict=True))
    assert optimizer.baseline is None


def test_a_constrained_space_gets_valid_samples():
    optimizer = make(ENAS, **SMALL)
    optimizer.prepare()
    optimizer.space.is_valid = lambda arch: arch[0] == 3
    assert {arch[0] for arch in optimizer.draw(20, torch.Generator().manual_seed(0))} == {3}
    optimizer.controller_step(optimizer.images.endless("architecture"))


def test_a_search_goes_on_where_it_was_interrupted():
    whole = make(ENAS, epochs=3, **SMALL)
    archs = finish(whole)
    for stop in (1, 2):
        first = make(ENAS, epochs=3, **SMALL)
        for _ in range(stop):
            first.ask()
        second = resumed(first, make(ENAS, epochs=3, **SMALL))
        assert finish(second) == archs[stop:]
        assert second.baseline == whole.baseline
        for name in ("supernet", "controller"):
            for a, b in zip(getattr(second, name).parameters(), getattr(whole, name).parameters(), strict=True):
                assert torch.equal(a, b)


def test_it_is_deterministic_and_proposing_again_changes_nothing():
    one, other = make(ENAS, **SMALL), make(ENAS, **SMALL)
    found = [one.ask().arch]
    assert one.propose() == found[0]
    found += finish(one)
    assert found == finish(other)
    assert all(one.space.is_valid(arch) for arch in found)
    assert set(one.log[-1]) >= {"reward", "policy_entropy"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("units", "layers", "controller_steps", "aggregate", "candidates", "quick", "judged")),
        *((name, 0.0) for name in ("tanh", "temperature", "controller_learning_rate", "controller_clip")),
        ("entropy", -1.0),
        ("entropy", float("nan")),
        ("baseline_decay", 1.0),
    ],
)
def test_bad_hyper_parameters(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        make(ENAS, **{name: value})


def test_the_preset_is_of_hyper_parameters():
    ENAS(make(ENAS).space, np.random.default_rng(0), **ENAS.presets["paper"])
