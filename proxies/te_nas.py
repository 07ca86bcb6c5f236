"""TE-NAS: trainability and expressivity, ranked among the candidates.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective", ICLR 2021,
section 3.2. https://arxiv.org/abs/2102.11535
Reference code: VITA-Group/TENAS, `prune_tenas.py`.

    score among the candidates = rank by the condition number of the neural tangent kernel, small is good
                               + rank by the number of linear regions, large is good

Input: real training images, see ntk.py and linear_regions.py. Layers: see there. Sign: higher is better. One network alone has
no score, and scores from different sets of candidates do not compare.

Where this file differs from the reference code:
    * That code ranks the operations that could be taken out of a supernet, by how much both quantities change. As a score of
      whole architectures the ranks are of the quantities themselves, as AZ-NAS and others compare it.
    * Ranks start at 1 for the worst, and equal values share the mean of their ranks.
    * Both quantities are measured in smaller settings; see there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .base import RankProxy, ranks
from .linear_regions import LinearRegions
from .ntk import NTK


class TENAS(RankProxy):
    """Sum of the ranks by `ntk` and `linear_regions`.

    Args:
        rng: weights, crops and units.
        batch_size: images of the neural tangent kernel.
        repeats: initialisations of both.
        samples, size, share: crops and units of the linear regions, see there.

    Presets: `paper` comes close to the setting of the published code for NAS-Bench-201.

    Raises:
        ValueError: a number out of range.
    """

    parts = ("ntk", "linear_regions")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**NTK.presets["paper"], **LinearRegions.presets["paper"]}
    }

    def __init__(
        self,
        rng: torch.Generator | None = None,
        *,
        batch_size: int = 8,
        repeats: int = 1,
        samples: int = 1000,
        size: int | None = 4,
        share: float = 1 / 320,
    ) -> None:
        super().__init__(rng)
        self.kernel = NTK(self.rng, batch_size=batch_size, repeats=repeats)
        self.regions = LinearRegions(self.rng, samples=samples, size=size, share=share, repeats=repeats)
        self.n_images = max(self.kernel.n_images, self.regions.n_images)

    def measure(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, ...]:
        """The negative condition number, and the number of regions."""
        return self.kernel.score(network, images, labels), self.regions.score(network, images, labels)

    def aggregate(self, measured: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum of the ranks by the two columns."""
        return ranks(measured[:, 0]) + ranks(measured[:, 1])
