"""ntk: the condition number of the neural tangent kernel.

Chen, Gong and Wang, "Neural Architecture Search on ImageNet in Four GPU Hours: A Theoretically Inspired Perspective" (TE-NAS),
ICLR 2021, section 3.1.1, after Xiao, Pennington and Schoenholz, "Disentangling Trainability and Generalization in Deep Neural
Networks", ICML 2020. https://arxiv.org/abs/2102.11535
Reference code: VITA-Group/TENAS, `lib/procedures/ntk.py` and `prune_tenas.py`.

    g_i = gradient of the sum of the logits of image i with respect to all weights
    Theta_ij = < g_i, g_j >
    score = - lambda_max(Theta) / lambda_min(Theta), averaged over initialisations (Kaiming normal, fan-out)

Input: real training images. Layers: every parameter whose name contains "weight", those of batch normalisation included.
Sign: higher is better, since the condition number is to be small.

Where this file differs from the reference code:
    * 8 images and one initialisation; the preset `paper` has that code's 72 images for NAS-Bench-201 and 3 initialisations. One
      backward pass per image goes through the whole batch, so the time grows with the square of the number of images.
    * The network is scored as it is; that code has one of 3 channels and one cell per stage.
    * Theta is summed up in float64. The gradients are float32, so a kernel whose smallest eigenvalue is below 1e-7 of its
      largest is singular, and the network ranks last.
    * As there, batch normalisation is by the batch, so the logits of an image depend on the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import UNSCORABLE, Proxy, ProxyError, finite
from .layers import kaiming_fan_out, restored


class NTK(Proxy):
    """Negative condition number of the empirical neural tangent kernel.

    Args:
        rng: weights.
        batch_size: images.
        repeats: initialisations; the score is their mean.

    Presets: `paper` is the setting of the published code for NAS-Bench-201.

    Raises:
        ValueError: fewer than two images or one initialisation.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"batch_size": 72, "repeats": 3}}

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 8, repeats: int = 1) -> None:
        super().__init__(rng)
        if batch_size < 2 or repeats < 1:
            raise ValueError(f"at least two images and one initialisation, not {batch_size} and {repeats}")
        self.n_images = batch_size
        self.repeats = repeats

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del labels
        images = images[: self.n_images]
        total = 0.0
        with restored(network):
            network.train()
            for _ in range(self.repeats):
                kaiming_fan_out(network, self.rng)
                total += condition_number(tangent_kernel(network, images))
        return finite(-total / self.repeats)


def tangent_kernel(network: nn.Module, images: Tensor) -> Tensor:
    """Inner products of the images' gradients, float64 `(n, n)`.

    Raises:
        ProxyError: the logits depend on no weight.
    """
    weights = [p for name, p in network.named_parameters() if "weight" in name and p.requires_grad]
    n = len(images)
    with torch.enable_grad():
        sums = network(images).flatten(1).sum(1)
    if not weights or not sums.requires_grad:
        raise ProxyError(f"the output of {type(network).__name__} depends on no parameter whose name contains 'weight'")
    rows = [torch.zeros(n, w.numel(), device=w.device) for w in weights]
    for i in range(n):
        found = torch.autograd.grad(sums[i], weights, retain_graph=i < n - 1, allow_unused=True)
        for row, gradient in zip(rows, found, strict=True):
            if gradient is not None:
                row[i] = gradient.flatten()
    kernel = torch.zeros(n, n, dtype=torch.float64, device=images.device)
    for row in rows:
        wide = row.double()
        kernel.addmm_(wide, wide.T)
    return kernel


def condition_number(kernel: Tensor) -> float:
    """Largest by smallest eigenvalue of a symmetric matrix; infinite where it is singular up to the rounding of float32."""
    if not torch.isfinite(kernel).all():
        return -UNSCORABLE
    values = torch.linalg.eigvalsh(kernel)
    smallest, largest = float(values[0]), float(values[-1])
    return largest / smallest if smallest > torch.finfo(torch.float32).eps * largest else -UNSCORABLE
