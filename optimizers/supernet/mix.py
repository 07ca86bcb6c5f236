"""How one pass goes through a cell: which operations are computed, and with which weights they are added up.

Everything that one-shot methods do to a supernet is one of these:

    soft(weights)                  every operation, weighted (DARTS, DrNAS, SNAS, FairDARTS, ...)
    soft(weights, active)          the same with operations left out (progressive pruning, perturbation)
    path(choices)                  one operation per edge, unweighted (RSPS, SPOS, ENAS, SETN)
    hard(weights)                  one operation per edge by a one-hot row with gradients (GDAS)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mix:
    """One pass through the cells of one table.

    Attributes:
        active: for each edge the columns of the operations that are computed.
        weights: `(edges, operations)`, what each operation's output is multiplied by; None for 1.
        edges: `(edges,)`, what the whole edge is multiplied by, with what bypasses it in a supernet of partial channels; None
            for 1.
        carry: add the weights of the operations that are not computed to the edge, as numbers: one-hot weights are 0 there
            but have a gradient.
    """

    active: tuple[tuple[int, ...], ...]
    weights: Tensor | None = None
    edges: Tensor | None = None
    carry: bool = False
    _columns: dict[tuple[tuple[int, ...], int, bool], Tensor] = field(default_factory=dict, repr=False)

    @property
    def is_path(self) -> bool:
        """No edge has more than one operation."""
        return all(len(ops) <= 1 for ops in self.active)

    def column(self, edges: tuple[int, ...], op: int) -> Tensor | None:
        """The factors of one operation on some edges, `(len(edges),)`; None for 1. The same tensor for all cells of a pass."""
        if self.weights is None and self.edges is None:
            return None
        key = (
            edges,
            op,
            torch.is_grad_enabled(),
        )  # what was made without gradients must not serve a pass that needs them
        if key not in self._columns:
            total = self.edges if self.weights is None else self.weights[:, op]
            if self.weights is not None and self.edges is not None:
                total = total * self.edges  # type: ignore[operator]
            assert total is not None
            self._columns[key] = total[list(edges)]
        return self._columns[key]

    def scalar(self, edge: int, op: int) -> Tensor | None:
        """The factor of one operation on one edge, 0-dimensional; None for 1."""
        found = self.column((edge,), op)
        return None if found is None else found[0]

    def carried(self, edge: int) -> Tensor:
        """The sum of the weights of an edge whose operations are not computed, 0-dimensional."""
        assert self.weights is not None
        left_out = [op for op in range(self.weights.shape[1]) if op not in self.active[edge]]
        total = self.weights[edge, left_out].sum()
        return total if self.edges is None else total * self.edges[edge]

    def without(self, edge: int, op: int) -> Mix:
        """The same pass with one operation left out, the weights of the others as they are."""
        active = tuple(tuple(o for o in ops if (e, o) != (edge, op)) for e, ops in enumerate(self.active))
        weights = self.weights
        if self.carry and weights is not None:  # as a number it would be added, for a chosen operation 1
            kept = torch.ones_like(weights)
            kept[edge, op] = 0.0
            weights = weights * kept
        return replace(self, active=active, weights=weights, _columns={})


def soft(weights: Tensor, active: Sequence[Sequence[int]] | None = None, *, edges: Tensor | None = None) -> Mix:
    """All operations, or those named, weighted.

    Args:
        weights: `(edges, operations)`.
        active: for each edge the columns that are computed; None for all.
        edges: `(edges,)`, factors of whole edges.
    """
    every = tuple(range(weights.shape[1]))
    kept = tuple(every for _ in range(len(weights))) if active is None else tuple(tuple(ops) for ops in active)
    return Mix(kept, weights, edges)


def path(choices: Sequence[int]) -> Mix:
    """One operation per edge, unweighted."""
    return Mix(tuple((int(op),) for op in choices))


def hard(weights: Tensor, *, carry: bool = True) -> Mix:
    """The largest weight of each edge alone is computed; the others carry gradients (GDAS, section 3.2).

    Args:
        weights: `(edges, operations)`, one-hot in value.
        carry: see `Mix.carry`.
    """
    chosen = weights.detach().argmax(dim=1).tolist()
    return Mix(tuple((op,) for op in chosen), weights, carry=carry)


def one_hot(soft_weights: Tensor) -> Tensor:
    """The one-hot rows of the largest entries, with the gradient of the soft rows (straight-through)."""
    largest = soft_weights.argmax(dim=1, keepdim=True)
    hot = torch.zeros_like(soft_weights).scatter_(1, largest, 1.0)
    return hot - soft_weights.detach() + soft_weights
