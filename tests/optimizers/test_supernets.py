"""Every registered method that trains by itself keeps the conformance suite, runs on digits201, and pays in measured time."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_supernets import tiny_task

import nasharness as nh
from nasharness.benchmarks.spaces.darts import DARTSSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.spaces.nats_size import NATSSizeSpace
from nasharness.harness.registry import entry_points, optimizer_spec
from nasharness.harness.testing import CHECKS, check_other_process

NAMES = [name for name in entry_points("optimizers") if not optimizer_spec(name).factory.charges_evaluations]


@pytest.mark.parametrize("name", NAMES)
def test_conformance(name):
    """All rules but the one that starts other processes."""
    for check in CHECKS:
        if check is not check_other_process:
            check(optimizer_spec(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "gdas", "drnas", "enas", "weight_inheritance"])
def test_the_same_search_in_another_process(name):
    """A mixture, hard and soft draws, a controller, and one without a supernet: starting a process takes long."""
    check_other_process(optimizer_spec(name))


@pytest.mark.parametrize(
    "name",
    [
        # 224 architecture parameters, and a pass through the graph of the gradient for each
        pytest.param(name, marks=pytest.mark.slow if name == "robust_darts" else ())
        for name in NAMES
        if "darts" in (optimizer_spec(name).factory.spaces or ())
    ],
)
def test_the_darts_space(name):
    """Two epochs, and what comes after the last one, on the two cells of the DARTS space."""
    space = DARTSSpace()
    task = tiny_task(16, 8, darts=True)
    optimizer = optimizer_spec(f"{name}(epochs=2, batch_size=16)").make(space, np.random.default_rng(0), task=task)
    proposed = [optimizer.ask().arch]
    with pytest.raises(nh.SearchFinished):
        while True:
            proposed.append(optimizer.ask().arch)
    assert all(space.is_valid(arch) for arch in proposed)


@pytest.mark.parametrize("name", NAMES)
def test_a_space_without_a_supernet_is_refused(name):
    """The message names the space and the ones that would do."""
    spec = optimizer_spec(name)
    space = NATSSizeSpace() if "nats_size" not in (spec.factory.spaces or ()) else DARTSSpace()
    optimizer = spec.make(space, np.random.default_rng(0), task=tiny_task())
    with pytest.raises(ValueError, match=f"nasbench201.*{space.name}"):
        optimizer.ask()


@pytest.mark.parametrize("name", NAMES)
def test_without_images_it_says_what_to_do(name):
    optimizer = optimizer_spec(name).make(NASBench201Space(), np.random.default_rng(0))
    with pytest.raises(ValueError, match="images"):
        optimizer.ask()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_on_digits201(name):
    """A shortened search on the real images: nothing simulated is spent, its own seconds are."""
    digits = nh.load("digits201")
    run = nh.run(f"{name}(epochs=3)", digits, 300)
    assert not run.charged
    assert run.finished_early
    assert run.simulated_seconds == 0
    assert run.optimizer_seconds > 0
    assert np.isfinite(run.regret(digits)).all()
