"""The images of a supernet: one part trains the weights, the other the architecture.

The parts are the source's training and validation images, as in NAS-Bench-201's `cifar10-valid`, whose validation accuracy
is also what a tabular search sees. A source without validation images is split in two halves by a fixed seed, as DARTS
splits CIFAR-10.

All images lie on the device; a batch is a selection of them. Tasks that draw their training images afresh every epoch do so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from ..base import LabelledImages
    from .pretext import Pretext

Part = Literal["weights", "architecture"]
_SPLIT_SEED = 0x5B11


class Batch(NamedTuple):
    """Images `(n, channels, height, width)` and their targets."""

    images: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random crops and flips, drawn on the CPU.

    Attributes:
        padding: zeros on each side before the crop; 0 for none.
        flip: mirror half of the images.
    """

    padding: int = 0
    flip: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = images.shape
        if self.padding:
            p = self.padding
            corner = torch.randint(0, 2 * p + 1, (n, 2), generator=generator).to(images.device)
            padded = functional.pad(images, (p, p, p, p))
            rows = corner[:, 0, None] + torch.arange(height, device=images.device)
            columns = corner[:, 1, None] + torch.arange(width, device=images.device)
            first = torch.arange(n, device=images.device)[:, None, None]
            # Advanced indices around a slice move to the front: (n, height, width, channels), channels_last as it is.
            images = padded[first, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.flip:
            mirrored = (torch.rand(n, generator=generator) < 0.5).to(images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images


class SupernetImages:
    """Images of both parts on a device.

    Args:
        source: where they come from.
        generator: shuffles and augments, on the CPU.
        device: where the images lie.
        batch_size: images of a training batch.
        augmentation: of training images, unless the source varies them by itself.
        pretext: replaces the class labels as the target; None to classify.
        limit: use no more than so many images of either part; None for all.
        seed: of images that the source draws afresh every epoch.
    """

    def __init__(
        self,
        source: LabelledImages,
        generator: torch.Generator,
        *,
        device: str = "cpu",
        batch_size: int = 64,
        augmentation: Augmentation | None = None,
        pretext: Pretext | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.source, self.generator, self.device, self.batch_size = source, generator, device, batch_size
        self.augmentation, self.pretext, self.seed = augmentation, pretext, seed
        self.num_classes = source.num_classes if pretext is None else pretext.num_classes
        train = source.split("train")
        order = np.random.default_rng(_SPLIT_SEED).permutation(len(train.labels))
        if "validation" in source.splits:
            other = source.split("validation")
            self._ids = np.arange(len(train.labels))[:limit] if limit is None else np.sort(order[:limit])
            other_ids = np.random.default_rng(_SPLIT_SEED).permutation(len(other.labels))[:limit]
            self._architecture = self._put(other.images[other_ids], other.labels[other_ids])
        else:
            half = len(order) // 2
            self._ids = np.sort(order[:half][:limit])
            other_ids = order[half:][:limit]
            self._architecture = self._put(train.images[other_ids], train.labels[other_ids])
        self._weights = self._put(train.images[self._ids], train.labels[self._ids])
        first = source.epoch(seed, 0).images
        self._fresh = first is not train.images and not np.array_equal(first, train.images)
        if self._fresh:
            self.augmentation = None

    def _put(self, images: np.ndarray, labels: np.ndarray) -> Batch:
        x = torch.tensor(images).to(self.device, memory_format=torch.channels_last)
        return Batch(x, torch.tensor(labels).to(self.device))

    def part(self, part: Part) -> Batch:
        """All images of a part, as they are, with class labels; those that are drawn afresh as of the latest epoch."""
        return self._weights if part == "weights" else self._architecture

    def size(self, part: Part) -> int:
        return len(self.part(part).targets)

    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.size("weights") // self.batch_size)

    def start_epoch(self, epoch: int) -> None:
        """Draw the training images of an epoch, where the source does so."""
        if self._fresh:
            drawn = self.source.epoch(self.seed, epoch)
            self._weights = self._put(drawn.images[self._ids], drawn.labels[self._ids])

    def batches(self, part: Part) -> Iterator[Batch]:
        """The part once in random order, in batches; augmented, and with the pretext's targets."""
        images, labels = self.part(part)
        for chosen in torch.split(torch.randperm(len(labels), generator=self.generator), self.batch_size):
            yield self.prepare(images[chosen.to(self.device)], labels[chosen.to(self.device)])

    def endless(self, part: Part) -> Iterator[Batch]:
        """`batches` for ever."""
        while True:
            yield from self.batches(part)

    def prepare(self, images: Tensor, labels: Tensor, *, augment: bool = True) -> Batch:
        """A batch as it is trained on."""
        if augment and self.augmentation is not None:
            images = self.augmentation(images, self.generator)
        if self.pretext is not None:
            images, labels = self.pretext(images, self.generator)
        return Batch(images.contiguous(memory_format=torch.channels_last), labels)

    def fixed(self, part: Part, n: int | None = None) -> list[Batch]:
        """The first n images of a part (None: all) for evaluation: not augmented, the same at every call.

        In batches of about one size, up to 256: where each is normalised by itself, a small rest would be noisy.
        """
        images, labels = (of_part[:n] for of_part in self.part(part))
        parts = -(-len(labels) // 256)
        generator, self.generator = self.generator, torch.Generator().manual_seed(_SPLIT_SEED)
        try:
            return [
                self.prepare(x, y, augment=False)
                for x, y in zip(torch.tensor_split(images, parts), torch.tensor_split(labels, parts), strict=True)
            ]
        finally:
            self.generator = generator
