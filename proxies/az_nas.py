"""AZ-NAS: expressivity, progressivity, trainability and complexity, ranked among the candidates.

Lee and Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024.
https://arxiv.org/abs/2403.19232
Reference code: cvlab-yonsei/AZ-NAS, `NB201/ZeroShotProxy/compute_az_nas_score.py`.

    f_0 ... f_L: the features after the stem and after each cell and reduction
    s_l = entropy of the normalised eigenvalues of the covariance of the channels of f_l over images and positions
    expressivity = sum of s_l;  progressivity = min of s_l - s_{l-1}
    A_l = G_in^T G_out / positions, G_out random signs at f_l, G_in what they are at f_{l-1} after the backward pass
    trainability = mean of - sigma - 1 / (sigma + 1e-6) + 2, sigma the largest singular value of A_l
    complexity = FLOPs
    score among m candidates = sum over the four of log(rank / m), rank 1 for the worst

Input: 64 images of Gaussian noise, Kaiming normal weights (fan-in); no data. Sign: higher is better. One network alone has no
score, and scores from different sets of candidates do not compare.

The features are the outputs of these modules, where they have four dimensions:
    * those named by the hyper-parameter `modules`, if there is one;
    * of a network with attributes `stem` and `cells` (a ModuleList or Sequential), as all networks of this package: the stem and
      each item of `cells`;
    * of any other network: its children, with the items of a ModuleList or Sequential, at any depth, in place of the list.

Where this file differs from the reference code:
    * Complexity is computed (see flops.py) instead of looked up in NAS-Bench-201.
    * A stride that does not divide the features' sides is taken as the next that does, with zeros beyond the border, where
      the gradient at f_{l-1} is folded to the resolution of f_l.
    * Eigenvalues below zero, which are rounding errors, are zero; covariances are decomposed in float64.
    * Features that do not depend on those before them have the gradient 0.
    * The features are copied before the next module reads them, so modules may work in place. The pairs are taken in that code's
      order, from the last.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import UNSCORABLE, ProxyError, RankProxy, finite, ranks
from .flops import multiply_accumulates
from .layers import gaussian, hooked, kaiming_fan_in, restored


class AZNAS(RankProxy):
    """The four scores of AZ-NAS; `aggregate` adds up the logarithms of their ranks.

    Args:
        rng: weights, inputs and random signs.
        batch_size: inputs.
        modules: names of the modules whose outputs are the features, separated by commas, as in `named_modules()`; a name
            that ends in ".*" stands for the children of a module. None for the rule at the head of this file.

    Raises:
        ValueError: batch_size below 1.
    """

    parts = ("expressivity", "progressivity", "trainability", "complexity")
    n_images = 0

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 64, modules: str | None = None) -> None:
        super().__init__(rng)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.modules = modules

    def measure(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, ...]:
        """Expressivity, progressivity, trainability and FLOPs, -inf where one is not finite.

        Raises:
            ProxyError: there are fewer than two features, or no module of a name in `modules`.
        """
        del labels
        watched = stages(network) if self.modules is None else _named(network, self.modules)
        features: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if not isinstance(output, Tensor) or output.dim() != 4:
                return None
            features.append(output)
            return output.clone()

        complexity = float(multiply_accumulates(network, images))
        with restored(network), torch.enable_grad():
            network.train()
            kaiming_fan_in(network, self.rng)
            with hooked(watched, keep):
                network(gaussian(self.rng, images, self.batch_size))
            if len(features) < 2:
                raise ProxyError(
                    f"AZ-NAS compares the features of successive modules, but of {type(network).__name__} it sees"
                    f" {len(features)}: name them by the hyper-parameter `modules`"
                )
            entropies = np.array([entropy(f.detach()) for f in features])
            # From the end, so that each part of the graph can be freed once it was used.
            parts = [self._trainability(a, b) for a, b in reversed(list(pairwise(features)))]
        return (
            finite(float(entropies.sum())),
            finite(float(np.diff(entropies).min())),
            finite(float(np.mean(parts))),
            complexity,
        )

    def aggregate(self, measured: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Sum over the columns of log(rank / number of candidates)."""
        places = np.stack([ranks(column) for column in measured.T], axis=1)
        return np.asarray(np.log(places / max(1, len(measured))).sum(axis=1), dtype=np.float64)

    def _trainability(self, before: Tensor, after: Tensor) -> float:
        signs = torch.randint(2, after.shape, generator=self.rng, dtype=torch.int8).to(after)
        signs = 2 * signs - 1
        arrived = None
        if after.requires_grad and before.requires_grad:
            (arrived,) = torch.autograd.grad(after, before, signs, allow_unused=True)
        if arrived is None:
            arrived = torch.zeros_like(before)
        if arrived.shape == signs.shape and torch.equal(arrived, signs):
            return UNSCORABLE  # nothing but an identity
        matrix = _channels(_folded(arrived, signs.shape[2:])).T @ _channels(signs) / (len(signs) * signs[0, 0].numel())
        sigma = float(torch.linalg.matrix_norm(matrix.double(), 2))
        return -sigma - 1 / (sigma + 1e-6) + 2


def entropy(features: Tensor) -> float:
    """Entropy of the normalised eigenvalues of the channels' covariance, with 1e-8 inside the logarithm; NaN for constants.

    Args:
        features: `(n, channels, height, width)`.
    """
    rows = _channels(features)
    rows = rows - rows.mean(0)
    covariance = (rows.T @ rows / len(rows)).double()
    if not torch.isfinite(covariance).all():
        return math.nan
    p = torch.linalg.eigvalsh(covariance).clamp(min=0)
    p = p / p.sum()
    return float(-(p * (p + 1e-8).log()).sum())


def stages(network: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the features; see the head of this file."""
    stem, cells = getattr(network, "stem", None), getattr(network, "cells", None)
    if isinstance(stem, nn.Module) and isinstance(cells, nn.ModuleList | nn.Sequential):
        return [stem, *cells]
    return _items(network)


def _items(module: nn.Module) -> list[nn.Module]:
    """The children, with those of lists in their place."""
    return [
        item
        for child in module.children()
        for item in (_items(child) if isinstance(child, nn.ModuleList | nn.Sequential) else [child])
    ]


def _named(network: nn.Module, names: str) -> list[nn.Module]:
    found: list[nn.Module] = []
    known = dict(network.named_modules())
    for name in (name.strip() for name in names.split(",")):
        stem = name.removesuffix(".*")
        if stem not in known:
            raise ProxyError(f"{type(network).__name__} has no module {stem!r}")
        found.extend(known[stem].children() if stem != name else [known[stem]])
    return found


def _channels(features: Tensor) -> Tensor:
    """`(n, channels, height, width)` as `(n * height * width, channels)`."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _folded(gradient: Tensor, sides: torch.Size) -> Tensor:
    """Bring a gradient to a lower resolution: neighbouring positions become channels.

    Raises:
        ProxyError: the resolution is a higher one.
    """
    height, width = gradient.shape[2:]
    if (height, width) == tuple(sides):
        return gradient
    stride = max(-(-height // sides[0]), -(-width // sides[1]))
    right, below = stride * sides[1] - width, stride * sides[0] - height
    if stride < 2 or right < 0 or below < 0:
        raise ProxyError(
            f"features of {height} x {width} are followed by some of {sides[0]} x {sides[1]}; AZ-NAS is defined only where the"
            " resolution falls"
        )
    return functional.pixel_unshuffle(functional.pad(gradient, (0, right, 0, below)), stride)
