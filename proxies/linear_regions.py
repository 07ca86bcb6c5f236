"""linear_regions: into how many linear pieces a network cuts its inputs.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective" (TE-NAS),
ICLR 2021, section 3.1.2, after Xiong et al., "On the Number of Linear Regions of Convolutional Neural Networks", ICML 2020.
https://arxiv.org/abs/2102.11535
Reference code: VITA-Group/TENAS, `lib/procedures/linear_region_counter.py` and `prune_tenas.py`.

    pattern of an input = which ReLU units are active
    score = number of different patterns among the inputs, averaged over initialisations (Kaiming normal, fan-in)

Input: small random crops of real training images. Layers: every ReLU on feature maps. Sign: higher is better.

Where this file differs from the reference code:
    * That code counts in a special network: one channel, one cell per stage, no stem, one channel of the image. Counted in the
      whole network, nearly every input has a pattern of its own. So the patterns are those of a random share of the units of
      each ReLU, at least one; the special network has about 1/80 of them.
    * 1,000 crops of 4 x 4, 1/320 of the units and one initialisation. That code has 3,000 crops of 3 x 3 and 3 initialisations;
      the preset `paper` has that and 1/80. Many networks, among them those of NAS-Bench-101 and DARTS, cannot halve an odd
      side twice.
    * Crops come from 128 images, several from each, and go through the network as one batch.
    * Every kind of ReLU counts, not only nn.ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .base import Proxy, ProxyError
from .layers import hooked, kaiming_fan_in, relus, restored


class LinearRegions(Proxy):
    """Number of different activation patterns.

    Args:
        rng: weights, crops and units.
        batch_size: images that the crops are taken from.
        samples: crops.
        size: height and width of a crop; None, or more than there is, for whole images, of which each is taken once.
        share: of the units of each ReLU.
        repeats: initialisations; the score is their mean.

    Presets: `paper` comes close to the setting of the published code.

    Raises:
        ValueError: a number below 1, or a share that is not in (0, 1].
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"samples": 3000, "size": 3, "share": 1 / 80, "repeats": 3},
    }

    def __init__(
        self,
        rng: torch.Generator | None = None,
        *,
        batch_size: int = 128,
        samples: int = 1000,
        size: int | None = 4,
        share: float = 1 / 320,
        repeats: int = 1,
    ) -> None:
        super().__init__(rng)
        if min(batch_size, samples, repeats, 1 if size is None else size) < 1:
            raise ValueError("batch_size, samples, size and repeats must be at least 1")
        if not 0 < share <= 1:
            raise ValueError(f"share has to be in (0, 1], not {share}")
        self.n_images = batch_size
        self.samples = samples
        self.size = size
        self.share = share
        self.repeats = repeats

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del labels
        layers = relus(network)
        if not layers:
            raise ProxyError(f"{type(network).__name__} has no ReLU module")
        total = 0
        with restored(network), torch.no_grad():
            network.train()
            for _ in range(self.repeats):
                kaiming_fan_in(network, self.rng)
                total += self._count(network, layers, self._crops(images[: self.n_images]))
        return total / self.repeats

    def _crops(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        size = max(height, width) if self.size is None else self.size
        if size >= max(height, width):
            return images[: self.samples]
        rows, columns = min(size, height), min(size, width)
        which = torch.randint(n, (self.samples,), generator=self.rng)
        top = torch.randint(height - rows + 1, (self.samples,), generator=self.rng)
        left = torch.randint(width - columns + 1, (self.samples,), generator=self.rng)
        y = top[:, None, None] + torch.arange(rows)[:, None]
        x = left[:, None, None] + torch.arange(columns)
        crops = images.cpu()[which[:, None, None], :, y, x]  # (samples, rows, columns, channels)
        return crops.permute(0, 3, 1, 2).to(images.device)

    def _count(self, network: nn.Module, layers: list[nn.Module], inputs: Tensor) -> int:
        patterns: list[Tensor] = []

        def look(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.dim() != 4:
                return
            active = (output > 0).flatten(1)
            if self.share < 1:
                units = max(1, round(self.share * active.shape[1]))
                chosen = torch.randperm(active.shape[1], generator=self.rng)[:units]
                active = active[:, chosen.to(active.device)]
            patterns.append(active.cpu())

        with hooked(layers, look):
            try:
                network(inputs)
            except RuntimeError as error:
                raise ProxyError(
                    f"{type(network).__name__} takes no images of {inputs.shape[2]} x {inputs.shape[3]}; set `size` to a"
                    f" larger crop, or to None for whole images ({error})"
                ) from error
        if not patterns:
            raise ProxyError(f"no ReLU of {type(network).__name__} is called with feature maps")
        return distinct(torch.cat(patterns, dim=1))


def distinct(patterns: Tensor) -> int:
    """Number of different rows of a matrix of booleans."""
    return len({row.tobytes() for row in np.packbits(patterns.numpy(), axis=1)})
