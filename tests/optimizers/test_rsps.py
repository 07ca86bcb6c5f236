"""RSPS: uniform paths, the best of n, and evolution against a literal version."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from tiny_supernets import finish, make, resumed

from nasharness.benchmarks.spaces.nasbench201 import EDGES, NONE
from nasharness.optimizers.rsps import RSPS, crossed, mutated

SMALL = {"candidates": 4, "quick": 2, "population": 4, "generations": 2, "parents": 2, "crossover": 2, "mutants": 2}


def weights(optimizer):
    return torch.cat([p.detach().flatten() for p in optimizer.supernet.parameters()])


def test_a_step_is_sgd_on_the_drawn_architecture():
    """One step without momentum: w - rate * (gradient + decay * w) on the path, nothing elsewhere."""
    optimizer, twin = (make(RSPS, momentum=0.0, clip=0.0, **SMALL) for _ in range(2))
    for each in (optimizer, twin):
        each.prepare()
    batch = optimizer.images.fixed("weights", 16)[0]
    optimizer.step(batch, batch)
    arch = twin.space.sample(twin.rng)  # what the same generator draws
    logits = twin.supernet(batch.images, twin.supernet.paths(arch))
    loss = torch.nn.functional.cross_entropy(logits, batch.targets)
    before = list(twin.supernet.parameters())
    gradients = torch.autograd.grad(loss, before, allow_unused=True)
    for now, w, g in zip(optimizer.supernet.parameters(), before, gradients, strict=True):
        wanted = w if g is None else w - 0.1 * (g + 5e-4 * w)
        torch.testing.assert_close(now, wanted)
    assert any(g is None for g in gradients)


def test_paths_are_uniform():
    optimizer = make(RSPS, **SMALL)
    optimizer.prepare()
    seen = Counter((e, ops[0]) for _ in range(2000) for e, ops in enumerate(optimizer.draw()[0].active))
    assert len(seen) == 30
    assert all(abs(n / 2000 - 0.2) < 0.05 for n in seen.values())  # five standard deviations


def test_per_cell_every_cell_has_a_path_of_its_own_that_reaches_all_nodes():
    """And the number of nodes that would be cut off otherwise is not nought, so the test tests."""
    optimizer = make(RSPS, per_cell=True, **SMALL)
    optimizer.prepare()
    for _ in range(100):
        mixes = optimizer.draw()
        assert len(mixes) == len(optimizer.supernet.cell_tables) == 3
        for mix in mixes:
            for node in (1, 2, 3):
                assert any(mix.active[e] != (NONE,) for e, (target, _) in enumerate(EDGES) if target == node)
    assert len({mix.active for mix in optimizer.draw()}) > 1
    assert len(finish(optimizer)) == 2


def test_best_of_takes_the_first_of_the_best():
    optimizer = make(RSPS, **SMALL)
    rng = np.random.default_rng(0)
    drawn = [optimizer.space.sample(rng) for _ in range(50)]
    most = max(sum(arch) for arch in drawn)
    assert optimizer.best_of(50, np.random.default_rng(0), sum) == next(a for a in drawn if sum(a) == most)


def test_evolution_never_judges_twice_and_keeps_the_best():
    optimizer = make(RSPS, finish="evolution", population=20, generations=5, parents=5, crossover=10, mutants=10)
    judged = []

    def judge(arch):
        judged.append(arch)
        return -sum((a - b) ** 2 for a, b in zip(arch, (3, 3, 1, 3, 1, 3), strict=True))

    found = optimizer.evolve(np.random.default_rng(1), judge)
    assert len(judged) == len(set(judged)) == 20 + 5 * 20
    assert judge(found) == max(map(judge, list(judged)))
    assert judge(found) > max(map(judge, judged[:20]))  # children are better than the random first generation


def test_evolution_ends_where_the_space_does():
    optimizer = make(RSPS, population=10, generations=3, parents=2, crossover=2, mutants=2)

    class Corner(type(optimizer.space)):
        cardinalities = (2, 2, 1, 1, 1, 1)

    optimizer.space = Corner()
    assert optimizer.evolve(np.random.default_rng(0), sum) == (1, 1, 0, 0, 0, 0)


def test_children():
    """A crossover takes each choice from a parent; a mutation redraws about the given part of the choices."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert set(crossed([(0,) * 6, (1,) * 6], rng)) <= {0, 1}
    space = make(RSPS).space
    changed = np.mean([np.count_nonzero(mutated([(2,) * 6], space, 0.5, rng)) != 0 for _ in range(100)])
    assert changed > 0.9
    differ = np.mean([np.not_equal(mutated([(2,) * 6], space, 0.5, rng), 2) for _ in range(2000)])
    assert abs(differ - 0.5 * 4 / 5) < 0.03


@pytest.mark.parametrize("given", [{}, {"per_cell": True}, {"finish": "evolution", "recalibrate": 16}])
def test_a_search_goes_on_where_it_was_interrupted(given):
    whole = make(RSPS, epochs=3, **SMALL, **given)
    archs = finish(whole)
    for stop in (1, 2):
        first = make(RSPS, epochs=3, **SMALL, **given)
        for _ in range(stop):
            first.ask()
        second = resumed(first, make(RSPS, epochs=3, **SMALL, **given))
        assert finish(second) == archs[stop:]
        assert torch.equal(weights(second), weights(whole))


def test_it_is_deterministic_and_proposing_again_changes_nothing():
    one, other = make(RSPS, **SMALL), make(RSPS, **SMALL)
    found = [one.ask().arch]
    assert one.propose() == found[0]
    assert found + finish(one) == finish(other)
    assert torch.equal(weights(one), weights(other))
    assert all(one.space.is_valid(arch) for arch in found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("finish", "magic"),
        ("candidates", 0),
        ("quick", 0),
        ("judged", 0),
        ("recalibrate", -1),
        ("population", 0),
        ("parents", 0),
        ("generations", -1),
        ("crossover", -1),
        ("mutants", -1),
        ("mutation", 0.0),
        ("mutation", 1.5),
    ],
)
def test_bad_hyper_parameters(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        make(RSPS, **{name: value})


@pytest.mark.parametrize("preset", RSPS.presets)
def test_presets_are_hyper_parameters(preset):
    RSPS(make(RSPS).space, np.random.default_rng(0), **RSPS.presets[preset])
