"""How sharply the held-out loss bends in the architecture parameters: their exact Hessian and its largest eigenvalue.

Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020, section 4: when the largest
eigenvalue of this Hessian grows, rounding the mixture to one architecture costs more and more.
https://arxiv.org/abs/1909.09656

The parameters are few (30 in NAS-Bench-201, 224 in the DARTS space), so the matrix is computed row by row: one gradient with
a graph, and one pass back through that graph per parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .images import Batch
from .mix import Mix
from .network import Supernet


def hessian(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The second derivatives of a loss, `(n, n)`, for n numbers in the parameters, table by table and row by row.

    Args:
        loss: a number with a graph to the parameters that can be differentiated twice.
        parameters: those that the loss does not depend on have rows and columns of 0.
    """
    first = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    gradient = torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, first, strict=True)]
    )
    rows = []
    for entry in gradient.unbind():
        if not entry.requires_grad:  # the loss does not depend on the parameter, or linearly
            rows.append(torch.zeros_like(gradient, requires_grad=False))
            continue
        second = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True)
        rows.append(
            torch.cat(
                [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, second, strict=True)]
            )
        )
    return torch.stack(rows).detach()


def largest_eigenvalue(matrix: Tensor) -> float:
    """The largest eigenvalue of a matrix that is symmetric but for rounding; not the largest in size."""
    whole = matrix.double().cpu()
    return float(torch.linalg.eigvalsh((whole + whole.T) / 2)[-1])


def architecture_hessian(
    supernet: Supernet, mixes: Callable[[], Sequence[Mix]], alphas: Sequence[Tensor], batches: Sequence[Batch]
) -> Tensor:
    """The Hessian of the mean loss of a soft supernet by its architecture parameters, in full precision.

    Args:
        supernet: with weights as they are; nothing of it changes.
        mixes: makes the pass from `alphas`; called once per batch, as every batch has a graph of its own.
        alphas: the architecture parameters.
        batches: on whose images the loss is measured; every image counts the same.
    """
    total = sum(len(batch.targets) for batch in batches)
    found: Tensor | None = None
    for batch in batches:
        loss = functional.cross_entropy(supernet(batch.images, mixes()), batch.targets, reduction="sum") / total
        part = hessian(loss, alphas)
        found = part if found is None else found + part
    assert found is not None
    return found
