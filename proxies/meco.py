"""MeCo: how far from collinear the channels of every feature map are.

Jiang, Wang and Bie, "MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of Correlation", NeurIPS
2023. https://proceedings.neurips.cc/paper_files/paper/2023/hash/bfa815ac6f08f4ada34fe22be054f2b9-Abstract-Conference.html
Reference code: HamsterMimi/MeCo, `correlation/foresight/pruners/measures/meco.py` and `correlation/NAS_Bench_201.py`.

    score = sum over modules m of lambda_min(P_m), P_m the Pearson correlations between the channels of m's output, over its
    positions
    MeCo_opt: of 8 random channels only, times channels / 8

Input: one image of Gaussian noise, 64 x 64; no data. Layers: every module, containers too. Sign: higher is better (in
NAS-Bench-201; strongly negative in the size space of NATS-Bench).

Where this file differs from the reference code:
    * Symmetric eigenvalues in float64 instead of the real parts of general ones.
    * A container whose output is that of its last module shares its eigenvalue.
    * Correlations with a constant channel are 0, as there, and so is then the smallest eigenvalue; outputs that are no feature
      maps (the logits) have it, too, and are passed over.
    * MeCo_opt takes all channels where there are fewer than 8.
    * The script for NAS-Bench-201 takes an image of the training set at its own size instead of noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import Proxy, ProxyError, finite
from .layers import gaussian, hooked, restored


class MeCo(Proxy):
    """Sum of the smallest eigenvalues of the correlations between channels.

    Args:
        rng: the image, and the channels of MeCo_opt.
        size: height and width of the image; None for those of the data set.
        channels: how many random channels MeCo_opt looks at; None for all, which is MeCo.

    Presets: `opt` is MeCo_opt.

    Raises:
        ValueError: a number below 1.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"opt": {"channels": 8}}
    n_images = 0

    def __init__(
        self, rng: torch.Generator | None = None, *, size: int | None = 64, channels: int | None = None
    ) -> None:
        super().__init__(rng)
        if (size is not None and size < 1) or (channels is not None and channels < 1):
            raise ValueError(f"size and channels must be at least 1, not {size} and {channels}")
        self.size = size
        self.channels = channels

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del labels
        total = 0.0
        seen = False
        last: tuple[Tensor, int, float] | None = None

        def look(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal total, seen, last
            if not isinstance(output, Tensor) or output.dim() < 3:
                return
            seen = True
            if last is None or last[0] is not output or last[1] != output._version:
                last = output, output._version, self._smallest(output[0].flatten(1))
            total += last[2]

        with restored(network), torch.no_grad():
            network.train()
            picture = gaussian(self.rng, images, 1, self.size)
            with hooked(list(network.modules()), look):
                try:
                    network(picture)
                except RuntimeError as error:
                    raise ProxyError(
                        f"{type(network).__name__} does not take one image of {picture.shape[2]} x {picture.shape[3]}; set"
                        f" `size` to what it takes, or to None ({error})"
                    ) from error
        if not seen:
            raise ProxyError(f"no module of {type(network).__name__} has feature maps as its output")
        return finite(total)

    def _smallest(self, features: Tensor) -> float:
        """The smallest eigenvalue of the correlations between the rows, 0 where there is none."""
        scale = 1.0
        if self.channels is not None and len(features) > self.channels:
            scale = len(features) / self.channels
            chosen = torch.randperm(len(features), generator=self.rng)[: self.channels]
            features = features[chosen.to(features.device)]
        return scale * float(torch.linalg.eigvalsh(correlations(features))[0])


def correlations(rows: Tensor) -> Tensor:
    """Pearson correlations between the rows `(n, positions)`, float64 `(n, n)`; 0 with a row that is constant."""
    rows = rows.double()
    centred = rows - rows.mean(1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    # Rounding leaves a little of a constant row behind; it is not divided by.
    scaled = torch.where(length > 1e-12 * torch.linalg.vector_norm(rows, dim=1, keepdim=True), centred / length, 0.0)
    return scaled @ scaled.T
