"""GraSP: how much the norm of the gradient would change if single weights were removed.

Wang, Zhang and Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.
https://arxiv.org/abs/2002.07376
As a score of architectures: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, equation 1. Reference
code: SamsungLabs/zero-cost-nas, `foresight/pruners/measures/grasp.py`.

    score = sum over weights w of - w (H g)_w          g = dL/dw, H the Hessian of L

L: cross-entropy. Input: 64 labelled training images. Layers: convolutions and linear layers, weights only. Sign: higher is
better, as in the reference code; the values have both signs and a few are very large.

Where this file differs from the reference code:
    * One forward pass instead of two. The code computes g, and then again, as a function of the weights, to differentiate
      g' stop(g). The second pass has the values of the first (but for dropout), so they are detached from it.
    * Batch normalisation has second derivatives of its own, see `_Normalise`: a score takes three quarters of the time.
      (Forward-mode differentiation of the gradient in the direction of the weights is as fast, but fewer operations have it.)
    * A layer that does not take part counts 0, as there. So a disconnected network has the score 0, which is not the lowest:
      its gradient is 0 everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .base import Proxy, finite
from .layers import BatchNorm, restored, weighted_layers


class GraSP(Proxy):
    """Minus the product of the weights, the Hessian of the loss and its gradient.

    Args:
        rng: not used.
        batch_size: images.
    """

    uses_labels = True

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 64) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        weights = [layer.weight for layer in weighted_layers(network)]
        with restored(network), torch.enable_grad(), _normalised(network):
            network.train()
            network.requires_grad_(False)  # leaves the rest, such as batch normalisation's scales, out of the graph
            for weight in weights:
                weight.requires_grad_()
            loss = functional.cross_entropy(network(images), labels)
            if not loss.requires_grad:
                return 0.0
            gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
            squares = torch.stack([(g.detach() * g).sum() for g in gradients if g is not None]).sum()
            if not squares.requires_grad:
                return 0.0
            products = torch.autograd.grad(squares, weights, allow_unused=True)
            pairs = zip(weights, products, strict=True)
            return finite(-sum(float((w.detach() * p).sum()) for w, p in pairs if p is not None))


@contextmanager
def _normalised(network: nn.Module) -> Iterator[None]:
    """Every batch normalisation computes with `_Normalise`."""

    def forward(norm: Any, x: Tensor) -> Tensor:
        if not norm.training or x.numel() == x.shape[1]:  # one value per channel: an error
            return BatchNorm.forward(norm, x)
        y: Tensor = _Normalise.apply(x, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
        return y

    norms: list[Any] = [m for m in network.modules() if type(m).forward is BatchNorm.forward]
    for norm in norms:
        norm.forward = forward.__get__(norm)  # shadows the class's method until it is deleted below
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


class _Normalise(Function):
    """Batch normalisation by the batch, without running statistics and without gradients of scale and shift.

    With c = scale / sd, z the normalised input and P(u) = u - mean(u) - z mean(u z), each channel for itself, the
    derivative for a gradient g of the output is c P(g), and P is symmetric. Differentiated again, for a gradient v of that:

        by g   c P(v)
        by z   h = - c (mean(g z) v + mean(v z) g), and so by x  P(h) / sd
        by sd  - sum(v P(g)) c / sd, and the derivative of sd by x is z / n, n values in the channel

    Since P is linear, the derivative by x is a sum of multiples of v, g, x and 1: a few passes through memory, where the
    operations that PyTorch puts together for it take some forty.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
        y, mean, inverse = torch.native_batch_norm(x, scale, shift, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, scale, mean, inverse)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        dx: Tensor = _Gradient.apply(g, *ctx.saved_tensors, ctx.eps)  # type: ignore[no-untyped-call]
        return dx, None, None, None


class _Gradient(Function):
    """The derivative of `_Normalise`, as a function of g and x."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, inverse: Tensor, eps: float
    ) -> Tensor:
        dx, sum_gz, sum_g = _derivative(g, x, scale, mean, inverse, eps)
        ctx.save_for_backward(g, x, scale, mean, inverse, sum_gz, sum_g)
        ctx.eps = eps
        return dx

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        g, x, scale, mean, inverse, sum_gz, sum_g = ctx.saved_tensors
        by_g, sum_vz, sum_v = _derivative(v, x, scale, mean, inverse, ctx.eps)
        n = x.numel() // x.shape[1]
        c = inverse if scale is None else inverse * scale
        gz, vz, mean_g, mean_v = sum_gz / n, sum_vz / n, sum_g / n, sum_v / n
        mean_vpg = (v * g).sum([0, *range(2, x.dim())]) / n - mean_v * mean_g - vz * gz
        of_v, of_g = -inverse * c * gz, -inverse * c * vz
        of_z = -2 * of_v * vz - inverse * c * mean_vpg
        of_x = of_z * inverse
        rest = -of_v * mean_v - of_g * mean_g - of_x * mean

        def each(value: Tensor) -> Tensor:
            return value.reshape(1, -1, *[1] * (x.dim() - 2))

        by_x = torch.addcmul(each(rest), v, each(of_v)).addcmul_(g, each(of_g)).addcmul_(x, each(of_x))
        return by_g, by_x, None, None, None, None


def _derivative(
    g: Tensor, x: Tensor, scale: Tensor | None, mean: Tensor, inverse: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The derivative of batch normalisation by x, sum of g z, sum of g."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_batch_norm_backward(
        g, x, scale, None, None, mean, inverse, True, eps, [True, True, True]
    )
    return found
