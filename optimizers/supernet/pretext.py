"""Targets that need no labels: what a supernet can be trained on in place of the classes.

Liu, Dollár, He, Girshick, Yuille and Xie, "Are Labels Necessary for Neural Architecture Search?", ECCV 2020, section 3.
https://arxiv.org/abs/2003.12056

A pretext task makes images and targets out of images alone. Rotation: by how many quarter turns was the image turned?
Jigsaw: in which order are its four quarters? Colourisation: given its grey version, of what colour was it? The paper finds
that such targets rank architectures much like class labels do.

Where this file differs from the paper and its code (facebookresearch/unnas):
    * Colourisation predicts one class for the whole image, its mean hue in sectors, because the networks here classify
      images. The paper predicts the colour of every pixel, as one of 313 bins of the Lab colour space.
    * Hue is the direction of the standardised colours in the plane across grey; the constants by which a source standardises
      its pixels are not undone.
    * Every image gets one draw per pass; the paper's augmentations are not reproduced.
"""

from __future__ import annotations

import difflib
import itertools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Pretext(ABC):
    """Makes images and targets out of images.

    Attributes:
        num_classes: number of targets.
    """

    num_classes: int

    def channels(self, input_channels: int) -> int:
        """How many channels the images have that the network sees.

        Raises:
            ValueError: the task cannot be made of such images.
        """
        return input_channels

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees and what it is to answer.

        Args:
            images: `(n, channels, height, width)`, on any device.
            generator: on the CPU, the only source of chance.

        Returns:
            Images and targets `(n,)` of whole numbers below `num_classes`, on the same device.

        Raises:
            ValueError: the task cannot be made of such images.
        """


class Rotation(Pretext):
    """By how many quarter turns, anticlockwise, each image was turned: four classes."""

    num_classes = 4

    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        _, _, height, width = images.shape
        if height != width:
            raise ValueError(f"rotation needs square images, not {height} x {width}: choose another pretext")
        turns = torch.randint(0, 4, (len(images),), generator=generator).to(images.device)
        # Every image is turned in all four ways, which is cheap, so that nothing waits for the draw on a GPU.
        every = torch.stack([images.rot90(k, (2, 3)) for k in range(4)], dim=1)
        return every[torch.arange(len(images), device=images.device), turns], turns


class Jigsaw(Pretext):
    """In which order the four quarters of each image are: 24 classes, in the order of `itertools.permutations`.

    Quarters change places as they are. The middle row or column of an odd side stays where it is.
    """

    num_classes = 24
    orders: tuple[tuple[int, ...], ...] = tuple(itertools.permutations(range(4)))

    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n, _, height, width = images.shape
        h, w = height // 2, width // 2
        if not h or not w:
            raise ValueError(f"jigsaw needs images of at least 2 x 2 pixels, not {height} x {width}")
        targets = torch.randint(0, self.num_classes, (n,), generator=generator)
        order = torch.tensor(self.orders)[targets].to(images.device)  # (n, 4): which quarter comes to each place
        places = [(y, x) for y in (slice(0, h), slice(height - h, None)) for x in (slice(0, w), slice(width - w, None))]
        quarters = torch.stack([images[:, :, y, x] for y, x in places], dim=1)
        first = torch.arange(n, device=images.device)
        shuffled = images.clone()
        for place, (y, x) in enumerate(places):
            shuffled[:, :, y, x] = quarters[first, order[:, place]]
        return shuffled, targets.to(images.device)


class Colourisation(Pretext):
    """Of which mean hue each image was, given its grey version: a circle of hues in equal sectors.

    The three channels are averaged for the network; the target is the direction of the mean colour in the plane across grey.
    Nothing is drawn. An image without any colour counts as of the first hue.

    Args:
        hues: number of sectors.

    Raises:
        ValueError: fewer than two hues.
    """

    def __init__(self, hues: int = 8) -> None:
        if hues < 2:
            raise ValueError(f"hues must be at least 2, not {hues!r}")
        self.num_classes = hues

    def channels(self, input_channels: int) -> int:
        if input_channels != 3:
            raise ValueError(
                f"colourisation needs images of three channels, not {input_channels}: choose rotation or jigsaw"
            )
        return 1

    def __call__(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        del generator
        grey = images.mean(dim=1, keepdim=True).expand(-1, self.channels(images.shape[1]), -1, -1)
        red, green, blue = images.float().mean(dim=(2, 3)).unbind(dim=1)
        across, along = (red - green) / math.sqrt(2.0), (red + green - 2.0 * blue) / math.sqrt(6.0)
        turn = torch.atan2(across, along) / (2.0 * math.pi)  # from -1/2 to 1/2
        targets = torch.remainder(torch.floor(turn * self.num_classes), self.num_classes).long()
        return grey, targets


PRETEXTS: dict[str, type[Pretext]] = {"rotation": Rotation, "jigsaw": Jigsaw, "colourisation": Colourisation}


def make_pretext(name: str) -> Pretext:
    """The pretext task of this name: rotation, jigsaw or colourisation.

    Raises:
        ValueError: there is no such task.
    """
    if name not in PRETEXTS:
        close = difflib.get_close_matches(str(name), ["classify", *PRETEXTS], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"choose classify, {', '.join(PRETEXTS)}"
        raise ValueError(f"there is no pretext {name!r}; {hint}")
    return PRETEXTS[name]()
