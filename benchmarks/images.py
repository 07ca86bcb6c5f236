"""Image classification tasks that need no download: scikit-learn's digits, plain and cluttered.

A task has three fixed splits, made from disjoint handwritten digits, and a stream of training epochs. Everything random
comes from generators derived from fixed seeds, so every process on every machine sees the same images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Images(NamedTuple):
    """A set of labelled images.

    Attributes:
        images: float32 `(n, channels, height, width)`, roughly standardised.
        labels: int64 `(n,)`, class numbers from 0.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


class ImageTask(ABC):
    """A classification task with fixed splits.

    Attributes:
        name: id of the task.
        num_classes: number of classes.
        shape: channels, height and width of an image.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]

    def __eq__(self, other: object) -> bool:  # equal tasks share cached images
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), repr(sorted(vars(self).items()))))

    @abstractmethod
    def split(self, name: SplitName) -> Images:
        """The fixed images of a split."""

    def epoch(self, seed: int, epoch: int) -> Images:
        """The training images of one epoch of the run with this seed; without augmentation the training split itself."""
        del seed, epoch
        return self.split("train")


@lru_cache(maxsize=1)
def _digits() -> dict[SplitName, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """The 1,797 handwritten 8 x 8 digits in [0, 1], shuffled once: 1,000 / 400 / 397."""
    from sklearn.datasets import load_digits  # ships inside scikit-learn; imported here because it takes a second

    bunch = load_digits()
    order = np.random.default_rng(201).permutation(len(bunch.target))
    pixels = (bunch.images[order] / 16.0).astype(np.float32)
    labels = bunch.target[order].astype(np.int64)
    bounds: dict[SplitName, slice] = {
        "train": slice(0, 1000),
        "validation": slice(1000, 1400),
        "test": slice(1400, None),
    }
    pixels.flags.writeable = labels.flags.writeable = False
    return {name: (pixels[part], labels[part]) for name, part in bounds.items()}


class Digits(ImageTask):
    """Handwritten digits, 8 x 8, one channel. Easy: nearly every architecture reaches 97 to 99 %."""

    name = "digits"
    num_classes = 10
    shape = (1, 8, 8)

    def split(self, name: SplitName) -> Images:
        pixels, labels = _digits()[name]
        return Images((pixels[:, None] - np.float32(0.305)) / np.float32(0.376), labels)


class ClutteredDigits(ImageTask):
    """An 8 x 8 digit somewhere on a 12 x 12 canvas, with a 4 x 4 fragment of another digit and noise.

    Hard enough to tell architectures apart. Training images are placed afresh every epoch; validation and test are fixed
    and show every digit of their split in two and in five placements. The idea is the cluttered MNIST of Mnih et al.,
    "Recurrent Models of Visual Attention", NeurIPS 2014, section 4.1.
    """

    name = "cluttered-digits"
    num_classes = 10
    shape = (1, 12, 12)

    placements: ClassVar[Mapping[SplitName, int]] = {"train": 1, "validation": 2, "test": 5}
    fragments = 1
    noise = 0.1

    def split(self, name: SplitName) -> Images:
        return _cluttered_split(self, name)

    def epoch(self, seed: int, epoch: int) -> Images:
        return _cluttered_epoch(self, seed, epoch)

    def _place(
        self, pixels: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> Images:
        n, canvas_side = len(pixels), self.shape[1]
        canvas = np.zeros((n, canvas_side, canvas_side), dtype=np.float32)
        _paste(canvas, pixels, rng)
        for _ in range(self.fragments):
            other = (np.arange(n) + rng.integers(1, n, size=n)) % n  # never the same image
            corner = rng.integers(0, 5, size=(n, 2))
            rows = corner[:, 0, None, None] + np.arange(4)[None, :, None]
            columns = corner[:, 1, None, None] + np.arange(4)[None, None, :]
            _paste(canvas, pixels[other[:, None, None], rows, columns], rng)
        canvas += rng.normal(0.0, self.noise, size=canvas.shape).astype(np.float32)
        placed = Images((canvas[:, None] - np.float32(0.2)) / np.float32(0.35), labels)
        for array in placed:
            array.flags.writeable = False  # it is cached, and handed to many
        return placed


@lru_cache(maxsize=8)
def _cluttered_split(task: ClutteredDigits, name: SplitName) -> Images:
    pixels, labels = _digits()[name]
    copies = task.placements[name]
    rng = np.random.default_rng((0xD161, SPLITS.index(name), 0xF1ED))
    return task._place(np.tile(pixels, (copies, 1, 1)), np.tile(labels, copies), rng)


@lru_cache(maxsize=64)  # one training run's images serve every network that is trained with the same seed
def _cluttered_epoch(task: ClutteredDigits, seed: int, epoch: int) -> Images:
    return task._place(*_digits()["train"], np.random.default_rng((0xD161, seed, epoch)))


TASKS: dict[str, type[ImageTask]] = {task.name: task for task in (Digits, ClutteredDigits)}


def image_task(name: str) -> ImageTask:
    """The image task of this id.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in TASKS:
        raise ValueError(f"unknown images {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name]()


def _paste(canvas: npt.NDArray[np.float32], patches: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    """Paste one square patch `(n, side, side)` at a random place of each canvas, keeping the brighter pixel."""
    n, side = patches.shape[:2]
    corner = rng.integers(0, canvas.shape[1] - side + 1, size=(n, 2))
    rows = corner[:, 0, None, None] + np.arange(side)[None, :, None]
    columns = corner[:, 1, None, None] + np.arange(side)[None, None, :]
    index = (np.arange(n)[:, None, None], rows, columns)
    canvas[index] = np.maximum(canvas[index], patches)
