"""The training loop that all one-shot methods share."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from tiny_supernets import make, tiny_task

from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace
from nasharness.optimizers.darts import DARTS
from nasharness.optimizers.proxyless import ProxylessNAS
from nasharness.optimizers.snas import SNAS
from nasharness.optimizers.supernet.training import DifferentiableOptimizer


class Sharp(DifferentiableOptimizer):
    """A method of a user: the gate alone."""

    def gate(self, alpha):
        return torch.softmax(alpha / 0.5, dim=1)


def test_a_gate_is_a_method():
    search = make(Sharp)
    archs = [search.ask().arch for _ in range(2)]
    assert all(search.space.is_valid(arch) for arch in archs)
    weights = search.mixes()[0].weights
    assert torch.allclose(weights, torch.softmax(2 * search.alphas[0], 1))


def test_the_rate_falls_by_a_cosine():
    search = make(DARTS, epochs=4, learning_rate=0.5, min_learning_rate=0.1)
    search.prepare()
    for epochs, expected in ((0, 0.5), (2, 0.3), (4, 0.1), (1, 0.3 + 0.2 * math.sqrt(0.5))):
        search._schedule(epochs)
        assert search.weight_optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_gradients_are_clipped():
    search = make(DARTS, clip=1e-3)
    search.prepare()
    search.update_weights(1e3 * search.loss(next(search.images.batches("weights")), search.mixes()))
    grads = [p.grad for p in search.supernet.parameters() if p.grad is not None]
    assert float(torch.sqrt(sum(g.square().sum() for g in grads))) == pytest.approx(1e-3, rel=1e-2)


def test_a_checkpoint_is_read_back_without_pickles():
    search, other = make(DARTS), make(DARTS)
    search.ask()
    file = io.BytesIO()
    torch.save(search.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other.load_state_dict(state)
    assert other.ask().arch == search.ask().arch
    with pytest.raises(ValueError, match="version 99"):
        other.load_state_dict({**state, "checkpoint": 99})


def test_the_log():
    search = make(DARTS)
    search.ask()
    assert set(search.log[0]) >= {"epoch", "loss", "accuracy", "seconds", "alpha_entropy", "skips"}
    assert search.log[0]["epoch"] == 1.0
    assert 0.0 <= search.log[0]["accuracy"] <= 1.0


def test_words_that_there_are_not():
    with pytest.raises(TypeError, match="did you mean 'epochs'"):
        make(DARTS, epoch=3)
    with pytest.raises(ValueError, match="epochs must be a whole number from 1, not 0"):
        make(DARTS, epochs=0)


def test_no_images_and_no_supernet():
    with pytest.raises(ValueError, match="images"):
        DARTS(NASBench201Space(), np.random.default_rng(0)).ask()
    with pytest.raises(ValueError, match="nasbench201 and darts, not"):
        make(DARTS, space=NATSSizeSpace(), task=tiny_task()).ask()


def test_half_precision():
    search = make(DARTS, precision="bfloat16", epochs=1, pretext="classify")
    assert search.space.is_valid(search.ask().arch)
    assert math.isfinite(search.log[0]["loss"])


def test_removed_operations_are_not_proposed():
    search = make(DARTS)
    search.prepare()
    with torch.no_grad():
        search.alphas[0][:, 1] = 9.0
    search.removed[0] = [{1, 0} for _ in range(6)]
    assert not {0, 1} & set(search.propose())
    assert search.active(0) == ((2, 3, 4),) * 6


@pytest.mark.parametrize("method", [DARTS, SNAS, ProxylessNAS])
def test_an_overflow_in_half_precision_leaves_the_architecture_parameters_alone(method):
    search = make(method, precision="float16")
    search.prepare()
    search.scaler = search.keep("scaler", torch.amp.GradScaler("cpu", init_scale=2.0**60))
    before = search.alphas[0].detach().clone()
    batch, held_out = search.images.fixed("weights", 16)[0], search.images.fixed("architecture", 16)[0]
    search.step(batch, held_out)
    assert torch.equal(search.alphas[0], before)
    assert search.scaler.get_scale() < 2.0**60
