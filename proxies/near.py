"""NEAR: the effective rank of every layer's output.

Husistein, Reiher and Eckhoff, "NEAR: A Training-Free Pre-Estimator of Machine Learning Model Performance", ICLR 2025,
definitions 3.1 and 3.2. https://arxiv.org/abs/2408.08776
Reference code: ReiherGroup/NEAR, `src/near_score/near_score.py`.

    Z: C rows of the matrix (images * positions) x C of a layer's outputs, C the number of its channels
    p = singular values of Z, divided by their sum
    score = sum over layers of exp( - sum p log p )

Input: 32 real images. Layers: every module with weights, batch normalisation included, and every activation function of
torch.nn. Sign: higher is better. Needs no ReLU.

Where this file differs from the reference code:
    * One initialisation, the network's own, which is that code's default, so the forward pass is shared with NASWOT. (The
      code can average over several.)
    * The C rows are a contiguous block, image after image and column after column, whose start is random among those that
      leave C rows; in that code a block may run over the end and is then shorter.
    * A layer with fewer rows than channels in the whole batch is taken with the rows that there are; that code reads more
      images.
    * A module that is called several times counts the first time. An output of zeros has the effective rank 0, as there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules import activation

from .base import ProxyError
from .passes import Pass, PassProxy, Watch

_ACTIVATIONS = tuple(getattr(activation, name) for name in activation.__all__)


class NEAR(PassProxy):
    """Sum of the effective ranks of the outputs of all layers.

    Args:
        rng: which rows are looked at.
        batch_size: images.
    """

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 32) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        del images
        seen: dict[nn.Module, float] = {}

        def look(module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> None:
            if isinstance(output, tuple):
                output = output[0]
            if module not in seen and isinstance(output, Tensor) and output.dim() > 1:
                seen[module] = effective_rank(self._rows(output.detach()))

        layers = [m for m in network.modules() if hasattr(m, "weight") or isinstance(m, _ACTIVATIONS)]
        if not layers:
            raise ProxyError(f"{type(network).__name__} has neither layers with weights nor activation functions")
        yield Pass("forward", hooks=[(layer, look) for layer in layers])
        return sum(seen.values())

    def _rows(self, output: Tensor) -> Tensor:
        """As many rows as the output has channels."""
        if output.dim() == 4:
            output = output.permute(0, 3, 2, 1)
        channels, step = output.shape[-1], output.shape[-2] if output.dim() > 2 else output.shape[-1]
        n = output[..., 0].numel()
        starts = max(0, n - channels) // step + 1
        start = step * int(torch.randint(starts, (), generator=self.rng))
        each = n // len(output)  # rows of an image; only the images of the block are copied
        first = start // each
        block = output[first : -(-(start + channels) // each)].reshape(-1, channels)
        return block[start - first * each :][:channels]


def effective_rank(matrix: Tensor) -> float:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli, EUSIPCO 2007); 0 for zeros."""
    values = torch.linalg.svdvals(matrix.double())
    total = values.sum()
    if not total > 0:
        return 0.0
    return float(torch.special.entr(values / total).sum().exp())
