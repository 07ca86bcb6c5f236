"""The edges of a cell and the operations that each can have: what architecture parameters are about.

An architecture is a vector of choices (`benchmarks/spaces`); a one-shot method has a table of numbers, one row per edge and
one column per operation. A `Topology` translates between the two. NAS-Bench-201 has one table; the DARTS space has one for
the normal and one for the reduction cell, and an edge that its architecture does not have counts as `none` there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...benchmarks.spaces import darts, nasbench201
from ...benchmarks.spaces.base import Architecture, SearchSpace

Choices: TypeAlias = tuple[tuple[int, ...], ...]
"""One operation per edge, table by table: a single path through the supernet."""


@dataclass(frozen=True)
class Table:
    """One kind of cell.

    Attributes:
        name: of the cell.
        edges: (target, source) of each edge, in the order of the rows.
        operations: names, in the order of the columns.
        outputs: the nodes that make the output of the cell.
    """

    name: str
    edges: tuple[tuple[int, int], ...]
    operations: tuple[str, ...]
    outputs: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.edges), len(self.operations)

    @property
    def none(self) -> int:
        """Column of the zero operation."""
        return self.operations.index("none")

    @property
    def skip(self) -> int:
        """Column of the skip connection."""
        return self.operations.index("skip_connect")

    def edges_into(self, node: int) -> list[int]:
        """Rows of the edges that end in a node."""
        return [e for e, (target, _) in enumerate(self.edges) if target == node]

    def connected(self, row: Sequence[int]) -> bool:
        """Whether operations, one per edge, carry anything from the inputs of the cell to its output."""
        reached = {source for _, source in self.edges} - set(self.nodes)
        for node in self.nodes:
            if any(row[e] != self.none and self.edges[e][1] in reached for e in self.edges_into(node)):
                reached.add(node)
        return not reached.isdisjoint(self.outputs)

    @property
    def nodes(self) -> list[int]:
        """The nodes that have incoming edges, ascending."""
        return sorted({target for target, _ in self.edges})


class Topology(ABC):
    """The tables of a cell space.

    Attributes:
        space: the space.
        tables: one per kind of cell.
    """

    space: SearchSpace
    tables: tuple[Table, ...]

    @abstractmethod
    def choices(self, arch: Architecture) -> Choices:
        """The operation of every edge of an architecture, table by table."""

    @abstractmethod
    def arch(self, choices: Sequence[Sequence[int]]) -> Architecture:
        """The inverse of `choices`.

        Raises:
            InvalidArchitecture: no architecture of the space has these operations.
        """

    @abstractmethod
    def discretise(
        self,
        strengths: Sequence[npt.NDArray[np.floating]],
        edge_strengths: Sequence[npt.NDArray[np.floating]] | None = None,
    ) -> Architecture:
        """The strongest architecture.

        Args:
            strengths: per table `(edges, operations)`; -inf for an operation that is out of the question.
            edge_strengths: per table `(edges,)`, where edges compete by more than their strongest operation.
        """

    def skips(self, arch: Architecture) -> int:
        """Number of skip connections of an architecture."""
        return sum(row.count(t.skip) for t, row in zip(self.tables, self.choices(arch), strict=True))


class NASBench201Topology(Topology):
    """Six edges with five operations; the architecture is the table's row of choices itself."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.tables = (Table("cell", nasbench201.EDGES, nasbench201.OPERATIONS, (3,)),)

    def choices(self, arch: Architecture) -> Choices:
        return (self.space.check(arch),)

    def arch(self, choices: Sequence[Sequence[int]]) -> Architecture:
        return self.space.check(choices[0])

    def discretise(
        self,
        strengths: Sequence[npt.NDArray[np.floating]],
        edge_strengths: Sequence[npt.NDArray[np.floating]] | None = None,
    ) -> Architecture:
        """The strongest operation of every edge, `none` included (Dong and Yang, ICLR 2020, appendix)."""
        del edge_strengths  # every edge stays, so edges do not compete
        return self.space.check(np.argmax(strengths[0], axis=1).tolist())


class DARTSTopology(Topology):
    """Two cells with 14 edges and eight operations, `none` first, in the order of the official PRIMITIVES."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        edges = tuple((node, source) for node in darts.NODES for source in range(node))
        self.tables = tuple(Table(name, edges, ("none", *darts.OPERATIONS), darts.CONCAT) for name in darts.CELLS)

    def choices(self, arch: Architecture) -> Choices:
        assert isinstance(self.space, darts.DARTSSpace)
        genotype = self.space.genotype(arch)
        found = []
        for table, pairs in zip(self.tables, (genotype.normal, genotype.reduce), strict=True):
            row = [table.none] * len(table.edges)
            for i, (name, source) in enumerate(pairs):
                row[table.edges.index((darts.NODES[i // 2], source))] = table.operations.index(name)
            found.append(tuple(row))
        return tuple(found)

    def arch(self, choices: Sequence[Sequence[int]]) -> Architecture:
        assert isinstance(self.space, darts.DARTSSpace)
        cells = [
            tuple(
                (table.operations[op], source)
                for (_, source), op in zip(table.edges, row, strict=True)
                if op != table.none
            )
            for table, row in zip(self.tables, choices, strict=True)
        ]
        return self.space.from_genotype(darts.Genotype(cells[0], darts.CONCAT, cells[1], darts.CONCAT))

    def discretise(
        self,
        strengths: Sequence[npt.NDArray[np.floating]],
        edge_strengths: Sequence[npt.NDArray[np.floating]] | None = None,
    ) -> Architecture:
        """Per node the two edges whose best operation but `none` is strongest, with that operation (Liu et al., 2.4).

        With `edge_strengths` an edge counts with the product of the two (PC-DARTS, section 3.3).
        """
        choices = []
        for t, table in enumerate(self.tables):
            values = np.array(strengths[t], dtype=np.float64)
            values[:, table.none] = -np.inf
            best = values.argmax(axis=1)
            rank = values.max(axis=1)
            if edge_strengths is not None:
                possible = np.isfinite(rank)  # -inf times 0 is no number
                rank[possible] *= np.asarray(edge_strengths[t], dtype=np.float64)[possible]
            row = [table.none] * len(table.edges)
            for node in table.nodes:
                into = table.edges_into(node)
                for e in sorted(into, key=lambda e: (-rank[e], e))[:2]:
                    row[e] = int(best[e])
            choices.append(tuple(row))
        return self.arch(choices)


def topology(space: SearchSpace) -> Topology:
    """The tables of a space.

    Raises:
        ValueError: it is no space of cells with operations on edges.
    """
    if space.name == "nasbench201":
        return NASBench201Topology(space)
    if space.name == "darts":
        return DARTSTopology(space)
    raise ValueError(
        f"there is no supernet of the space {space.name!r}, only of nasbench201 and darts: choose a benchmark of one of"
        " these, such as digits201, or a strategy that trains no supernet"
    )
