"""Learning curves to judge predictors on: of a benchmark, or of a file.

A file of curves is an `.npz` with the fields of `predictors.base.Curves` as arrays: `accuracy` (n, epochs), `arch`
(n, dimensions), `cardinalities` (dimensions,), `seconds` (n, epochs) cumulative, and optionally `train_loss`, `dataset`, `group`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..predictors.base import Curves, CurvesError

if TYPE_CHECKING:
    from ..benchmarks.base import Benchmark


def curves_of(
    benchmark: Benchmark,
    archs: Sequence[Architecture] | npt.NDArray[np.integer],
    *,
    seed: int | None = None,
    dataset: int = 0,
) -> Curves:
    """The learning curves of architectures.

    Args:
        benchmark: one that has learning curves.
        archs: `(n, dimensions)`.
        seed: the training seed; None for the mean over seeds, which no single training is: say one where there are several.
        dataset: number to give to the benchmark's dataset.

    Raises:
        CurvesError: the benchmark has no learning curves.
    """
    space = benchmark.space
    tuples = [space.check(arch) for arch in archs]
    found = [benchmark.curve(arch, seed) for arch in tuples]
    accuracy = np.array([c.val_accuracy for c in found], dtype=np.float64)
    if accuracy.ndim != 2 or accuracy.shape[1] < 2 or np.isnan(accuracy[:, :-1]).all():
        raise CurvesError(f"{benchmark.id} has no learning curves")
    loss = np.array([c.train_loss for c in found], dtype=np.float64)
    return Curves(
        accuracy=accuracy,
        max_epochs=accuracy.shape[1],
        arch=np.array(tuples, dtype=np.int64).reshape(len(tuples), len(space.cardinalities)),
        cardinalities=tuple(space.cardinalities),
        seconds=np.array([c.seconds for c in found], dtype=np.float64),
        train_loss=None if np.isnan(loss).all() else loss,
        dataset=np.full(len(tuples), dataset, dtype=np.int64),
        group=groups(space, tuples),
    )


def groups(space: SearchSpace, archs: Sequence[Architecture]) -> npt.NDArray[np.int64]:
    """Numbers of the classes of architectures that are the same network, or at least isomorphic, `(n,)`."""
    if hasattr(space, "network_class"):
        return np.array([space.network_class(arch) for arch in archs], dtype=np.int64)
    numbers: dict[Architecture, int] = {}
    return np.array([numbers.setdefault(space.canonical(arch), len(numbers)) for arch in archs], dtype=np.int64)


def load_curves(path: Path) -> Curves:
    """Read a file of curves; see the head of this file.

    Raises:
        CurvesError: it is missing, no such file, or its arrays do not fit together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CurvesError(f"{path} cannot be read as a file of curves (.npz): {error}") from error
    if missing := {"accuracy", "arch", "cardinalities", "seconds"} - set(arrays):
        raise CurvesError(f"{path} lacks {', '.join(sorted(missing))}; it has {', '.join(arrays) or 'nothing'}")
    accuracy = np.asarray(arrays["accuracy"], dtype=np.float64)
    if accuracy.ndim != 2 or not accuracy.size:
        raise CurvesError(f"{path}: accuracy must have the shape (n, epochs), not {accuracy.shape}")
    if np.nanmin(accuracy) < 0 or np.nanmax(accuracy) > 1:
        raise CurvesError(f"{path}: accuracies must be fractions in [0, 1], not up to {np.nanmax(accuracy):g}")
    n = len(accuracy)
    arch = np.asarray(arrays["arch"], dtype=np.int64)
    if "group" not in arrays:  # without more knowledge every architecture is another one
        arrays["group"] = np.unique(arch, axis=0, return_inverse=True)[1].reshape(-1)
    return Curves(
        accuracy=accuracy,
        max_epochs=accuracy.shape[1],
        arch=arch,
        cardinalities=tuple(int(c) for c in arrays["cardinalities"]),
        seconds=np.asarray(arrays["seconds"], dtype=np.float64),
        train_loss=np.asarray(arrays["train_loss"], dtype=np.float64) if "train_loss" in arrays else None,
        dataset=np.asarray(arrays.get("dataset", np.zeros(n)), dtype=np.int64),
        group=np.asarray(arrays["group"], dtype=np.int64),
    )


def save_curves(curves: Curves, path: Path) -> None:
    """Write complete curves as `load_curves` reads them."""
    fields = {name: getattr(curves, name) for name in ("accuracy", "arch", "seconds", "dataset", "group")}
    if curves.train_loss is not None:
        fields["train_loss"] = curves.train_loss
    np.savez_compressed(path, cardinalities=np.array(curves.cardinalities), **fields)
