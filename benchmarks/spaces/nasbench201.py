"""The NAS-Bench-201 cell space (the topology space of NATS-Bench).

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020, section 2.1.
https://arxiv.org/abs/2001.00326

A cell has four nodes: node 0 is the input, node 3 the output, and every pair i < j is an edge with one of five
operations. Node j is the sum of its edges. An architecture lists the operations of the edges in the order of the
official string: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.

Three notions of "the same cell" are in use, from the official one to the exact one:

* `canonical` / `unique_string`: the official 6,466 classes, with the quirk that a zero input is not propagated through
  a node that has more than one edge.
* `unique_string(..., propagate_zero=True)`: the same with zeros removed everywhere, 5,390 classes.
* `network_class`: the same layers in the same wiring, 5,260 classes. The string forms above expand a shared node into
  one copy per use, so they call `c(x)` used twice and two separate convolutions of `x` the same although the weights
  differ, and they tell `(a + b) + c` from `a + (b + c)`; this one does neither. Members of a class, with their dead
  operations removed (`prune`), are the same network, so training one of them trains all.
"""

from __future__ import annotations

import itertools
import random
import re
from functools import cache, lru_cache
from typing import Final as Constant

from .base import Architecture, InvalidArchitecture, SearchSpace

OPERATIONS: Constant = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES: Constant = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(target, source) of each dimension, in the order of the official string."""

NONE, SKIP, CONV1, CONV3, POOL = range(5)
_WEIGHTED = (CONV1, CONV3)
_TERM = re.compile(r"([a-z0-9_]+)~([0-9]+)")


class NASBench201Space(SearchSpace):
    """All 5**6 = 15,625 cells of NAS-Bench-201."""

    name = "nasbench201"
    cardinalities = (5, 5, 5, 5, 5, 5)

    def to_string(self, arch: Architecture) -> str:
        """The official architecture string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        arch = self.check(arch)
        terms = [f"{OPERATIONS[op]}~{source}" for op, (_, source) in zip(arch, EDGES, strict=True)]
        return f"|{terms[0]}|+|{terms[1]}|{terms[2]}|+|{terms[3]}|{terms[4]}|{terms[5]}|"

    def from_string(self, text: str) -> Architecture:
        nodes = text.strip().split("+")
        if len(nodes) != 3:
            raise InvalidArchitecture(f"{text!r} has {len(nodes)} nodes joined by '+'; a NAS-Bench-201 cell has 3")
        arch: list[int] = []
        for target, node in enumerate(nodes, start=1):
            terms = node.strip("|").split("|")
            if not (node.startswith("|") and node.endswith("|")) or len(terms) != target:
                raise InvalidArchitecture(
                    f"node {target} of {text!r} must list {target} edge(s) as '|op~source|', not {node!r}"
                )
            for source, term in enumerate(terms):
                match = _TERM.fullmatch(term)
                if match is None or int(match[2]) != source:
                    raise InvalidArchitecture(f"edge {term!r} of {text!r}: expected 'op~{source}'")
                if match[1] not in OPERATIONS:
                    raise InvalidArchitecture(
                        f"unknown operation {match[1]!r} in {text!r}; known: {', '.join(OPERATIONS)}"
                    )
                arch.append(OPERATIONS.index(match[1]))
        return tuple(arch)

    def index(self, arch: Architecture) -> int:
        """Position of the architecture in the official files (0..15624)."""
        return official_positions()[self.rank(arch)]

    def from_index(self, index: int) -> Architecture:
        """The architecture at a position of the official files."""
        if not 0 <= index < self.size:
            raise InvalidArchitecture(f"index {index} is not in 0..{self.size - 1}")
        return self.unrank(_official_order()[index])

    def canonical(self, arch: Architecture) -> Architecture:
        """The first architecture (lexicographic) of the official isomorphism class of `arch`, one of 6,466."""
        return _canonical_by_unique_string()[unique_string(arch)]

    def network_class(self, arch: Architecture) -> int:
        """Number of the class of cells that are the same network once pruned, 0..5259 by first member."""
        return network_classes()[self.rank(arch)]

    def prune(self, arch: Architecture) -> Architecture:
        """Replace every dead operation by `none`.

        An edge is dead if nothing reaches its source from the input, or its target does not reach the output. (With
        affine batch normalisation a convolution of a zero node learns a constant per channel, so removing it is a choice
        and not an identity of the trained networks: `benchmarks/networks` keeps dead operations unless told otherwise.)
        """
        alive = [op != NONE for op in arch]
        reached = [True, False, False, False]
        for e, (target, source) in enumerate(EDGES):
            reached[target] |= alive[e] and reached[source]
        useful = [False, False, False, True]
        for e, (target, source) in reversed(list(enumerate(EDGES))):
            useful[source] |= alive[e] and useful[target]
        return tuple(
            op if reached[source] and useful[target] else NONE for op, (target, source) in zip(arch, EDGES, strict=True)
        )


@cache
def _official_order() -> list[int]:
    """Rank of the architecture at each official position: `random.seed(88); random.shuffle(all cells)`."""
    order = list(range(5**6))
    random.Random(88).shuffle(order)
    return order


@cache
def official_positions() -> list[int]:
    """Position in the official files of the architecture at each lexicographic rank."""
    positions = [0] * 5**6
    for position, rank in enumerate(_official_order()):
        positions[rank] = position
    return positions


def unique_string(arch: Architecture, *, propagate_zero: bool = False) -> str:
    """The cell as a nested sum, with skips resolved: equal strings are "isomorphic" cells.

    Args:
        arch: a NAS-Bench-201 architecture.
        propagate_zero: False is the official `to_unique_str(consider_zero=True)`: 6,466 distinct strings, where a node
            with several zero inputs is "#+#" and no longer counts as zero. True drops every zero: 5,390.
    """
    nodes = ["0"]
    edge = iter(arch)
    for target in (1, 2, 3):
        terms = []
        for source in range(target):
            op, child = next(edge), nodes[source]
            if op == NONE or child == "#":
                if not propagate_zero:
                    terms.append("#")
            else:
                terms.append(child if op == SKIP else f"({child})@{OPERATIONS[op]}")
        nodes.append("+".join(sorted(terms)) or "#")
    return nodes[3]


# A sum is the tuple of its terms. A term is "x" (the cell input) or (operation, edge of its weights or -1, argument sum).
_Sum = tuple["_Term", ...]
_Term = str | tuple[int, int, "_Sum"]


def network_string(arch: Architecture) -> str:
    """The cell's output as a sum of layers in which each convolution carries a letter that stands for its weights.

    Two cells get the same string exactly if, without their dead operations, they have the same layers in the same
    wiring. The letters are chosen so that the string is the smallest possible; only convolutions that look alike
    when letters are ignored can trade places, which leaves at most 3! orders to try.
    """
    nodes: list[_Sum] = [("x",)]
    edges = enumerate(arch)
    for target in (1, 2, 3):
        terms: list[_Term] = []
        for source in range(target):
            edge, op = next(edges)
            if op == SKIP:
                terms.extend(nodes[source])
            elif op != NONE and nodes[source]:
                terms.append((op, edge if op in _WEIGHTED else -1, nodes[source]))
        nodes.append(tuple(terms))
    output = nodes[3]

    alike: dict[str, set[int]] = {}
    _collect(output, alike)
    groups = [sorted(alike[key]) for key in sorted(alike)]
    return min(
        _format(output, {edge: "abcdef"[i] for order in orders for i, edge in enumerate(order)})
        for orders in itertools.product(*map(itertools.permutations, groups))
    )


def _format(terms: _Sum, letters: dict[int, str]) -> str:
    return (
        "+".join(
            sorted(
                t if isinstance(t, str) else f"{OPERATIONS[t[0]]}{letters.get(t[1], '')}({_format(t[2], letters)})"
                for t in terms
            )
        )
        or "0"
    )


def _collect(terms: _Sum, alike: dict[str, set[int]]) -> None:
    """Group the weighted edges below `terms` by how they look without letters."""
    for term in terms:
        if not isinstance(term, str):
            if term[1] >= 0:
                alike.setdefault(_format((term,), {}), set()).add(term[1])
            _collect(term[2], alike)


@lru_cache(maxsize=1)
def network_classes() -> list[int]:
    """Class number of every cell by rank, numbered by first appearance (see `NASBench201Space.network_class`)."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(network_string(arch), len(numbers)) for arch in NASBench201Space()]


@cache
def _canonical_by_unique_string() -> dict[str, Architecture]:
    first: dict[str, Architecture] = {}
    for arch in NASBench201Space():
        first.setdefault(unique_string(arch), arch)
    return first


def count_cost(
    arch: Architecture,
    *,
    num_classes: int = 10,
    channels: int = 16,
    cells: int = 5,
    image_size: int = 32,
    input_channels: int = 3,
) -> tuple[int, int]:
    """Parameters and FLOPs of the network of `arch`, from formulas: what `NASBench201Network` with these settings counts.

    Dead operations are counted, as in the official numbers (`prune` the architecture first to leave them out).

    Args:
        arch: an architecture of NASBench201Space.
        num_classes: outputs of the classifier.
        channels: channels of the first stage.
        cells: cells per stage.
        image_size: side of the square image.
        input_channels: channels of the images.
    """
    arch = NASBench201Space().check(arch)
    if channels < 1 or cells < 0 or image_size < 1:
        raise ValueError(
            f"{cells} cells of {channels} channels on an image of side {image_size}: the number of cells must not be"
            f" negative, and channels and side must be positive"
        )
    ones, threes = arch.count(CONV1), arch.count(CONV3)
    width, side = channels, image_size
    params = 9 * input_channels * width + 2 * width
    flops = 9 * input_channels * width * side**2
    for stage in range(3):
        if stage:  # a residual block: two 3 x 3 convolutions and a 1 x 1 on the shortcut
            side = (side + 1) // 2
            weights = 9 * width * 2 * width + 9 * (2 * width) ** 2 + width * 2 * width
            width *= 2
            params += weights + 2 * 2 * width
            flops += weights * side**2
        weights = cells * (ones + 9 * threes) * width**2
        params += weights + cells * (ones + threes) * 2 * width
        flops += weights * side**2
    return params + 2 * width + (width + 1) * num_classes, flops + (width + 1) * num_classes
