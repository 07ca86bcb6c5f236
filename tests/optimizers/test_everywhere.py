"""Every strategy that needs no networks on benchmarks of other shapes than the one that it was tuned on."""

import pytest

from nasharness import Budget, run
from nasharness.harness.registry import expand, optimizer_spec


def _cheap(name):
    """The name with its cheapest preset."""
    presets = optimizer_spec(name).factory.presets
    return f"{name}@{next(p for p in ('quick', 'fast', '') if p in presets or not p)}".rstrip("@")


@pytest.fixture(scope="module")
def surrogate(shared_data, tmp_path_factory):
    """NAS-Bench-301 in the official format: 10**18 architectures, a single fidelity."""
    from nasharness.benchmarks.convert.nasbench301 import convert
    from nasharness.benchmarks.nasbench301 import open_nasbench301

    target = tmp_path_factory.mktemp("nb301") / "nasbench301.safetensors"
    convert(shared_data / "official" / "nb_models_synth", target)
    return open_nasbench301(target)


@pytest.fixture(scope="module")
def cells(shared_data, tmp_path_factory):
    """A NAS-Bench-101 file of 42 cells: a constrained space, fewer cells than evaluations, schedules with gaps."""
    from nasharness.benchmarks.convert.nasbench101 import convert
    from nasharness.benchmarks.nasbench101 import open_nasbench101

    target = tmp_path_factory.mktemp("nb101") / "nasbench101.safetensors"
    convert(shared_data / "official" / "nb101_synthetic_full.tfrecord", target)
    return open_nasbench101(target)


@pytest.mark.slow
@pytest.mark.parametrize("name", expand(["all-black-box"]))
def test_on_a_surrogate_of_a_huge_space(name, surrogate):
    found = run(_cheap(name), surrogate, Budget(evaluations=60))
    assert len(found.trials) == 60
    assert surrogate.space.is_valid(found.incumbent)


@pytest.mark.slow
@pytest.mark.parametrize("name", expand(["all-black-box"]))
def test_on_a_space_that_is_soon_exhausted(name, cells):
    """It goes on with what it knows, or says that it has finished; what it returns is in the space."""
    found = run(_cheap(name), cells, Budget(evaluations=120))
    assert len(found.trials) == 120 or found.finished_early
    assert set(found.trials.epochs.tolist()) <= {4, 12, 36, 108}
    assert cells.space.is_valid(found.incumbent)
