"""Searches small enough for a test: 4 x 4 pixels, a network of 4 channels with one cell per stage."""

from __future__ import annotations

from typing import Any

import numpy as np

from nasharness.benchmarks.datasets import TaskImages
from nasharness.benchmarks.images import Images, ImageTask, SplitName
from nasharness.benchmarks.spaces.base import SearchSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.optimizers.base import SupernetTask


class TinyImages(ImageTask):
    """Noise with a bright quarter that tells the class, `(n, 1, side, side)`."""

    name = "tiny"
    num_classes = 4

    def __init__(self, n: int = 32, side: int = 4, channels: int = 1) -> None:
        self.n, self.side, self.shape = n, side, (channels, side, side)

    def split(self, name: SplitName) -> Images:
        rng = np.random.default_rng(("train", "validation", "test").index(name))
        labels = rng.integers(0, 4, self.n)
        images = rng.normal(size=(self.n, *self.shape)).astype(np.float32)
        half = self.side // 2
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 2)
            image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 2.0
        return Images(images, labels.astype(np.int64))


def tiny_task(n: int = 32, side: int = 4, *, channels: int = 1, darts: bool = False) -> SupernetTask:
    """Images and the settings of the smallest networks; of the DARTS space if wanted (then `side` is at least 4)."""
    settings: dict[str, Any] = {"channels": 4, "num_classes": 4, "input_channels": channels}
    settings |= {"layers": 3, "auxiliary": False, "stem_multiplier": 3} if darts else {"cells": 1, "prune": False}
    return SupernetTask(TaskImages(TinyImages(n, side, channels)), settings)


def make(cls: Any, seed: int = 0, *, space: SearchSpace | None = None, task: SupernetTask | None = None, **given: Any) -> Any:
    """A method on the tiny task: two epochs, batches of 16, unless told otherwise."""
    given = {"epochs": 2, "batch_size": 16, **given}
    return cls(space or NASBench201Space(), np.random.default_rng(seed), task=task or tiny_task(), **given)
