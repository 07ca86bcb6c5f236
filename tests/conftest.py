"""Fixtures that every test file may use."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nasharness.benchmarks.base import Info
from nasharness.benchmarks.spaces.base import SearchSpace
from nasharness.benchmarks.table import TableBenchmark

ROOT = Path(__file__).resolve().parent.parent


class TinySpace(SearchSpace):
    name = "tiny"
    cardinalities = (3, 2, 4)


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory):
    """No test sees or touches the tables that the user has converted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NASHARNESS_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def shared_data():
    """Folder of third-party benchmark data that is not part of the repository; the test is skipped without it."""
    folder = Path(os.environ.get("NASHARNESS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no third-party data at {folder} (set NASHARNESS_SHARED_DATA)")
    return folder


@pytest.fixture
def tiny_columns():
    """Fresh columns of a table over a (3, 2, 4) space: 24 architectures in 10 classes, 3 seeds, 4 epochs, all random."""
    rng = np.random.default_rng(12345)
    classes, seeds, epochs = 10, 3, 4
    curves = {
        name: rng.random((classes, seeds, epochs)).astype(np.float32)
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    }
    seconds = np.cumsum(rng.uniform(0.5, 2.0, (classes, seeds, epochs)), axis=2).astype(np.float32)
    ends = {name: rng.random((classes, seeds)).astype(np.float32) for name in ("test_loss", "test_accuracy")}
    counts = {name: rng.integers(1, 10**6, classes) for name in ("params", "flops")}
    class_of = rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, 24 - classes)]))
    return {**curves, "seconds": seconds, **ends, **counts, "class_of": class_of.astype(np.int16)}


@pytest.fixture
def tiny_benchmark(tiny_columns):
    """A `TableBenchmark` over `tiny_columns`."""
    info = Info("tiny-v1", "random numbers", "none", "", "v1: made for tests")
    return TableBenchmark("tiny-v1", TinySpace(), tiny_columns, info)
