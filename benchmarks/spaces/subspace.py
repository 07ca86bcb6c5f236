"""Some of the architectures of a space: what a table that does not cover its space can be searched in."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .base import Architecture, InvalidArchitecture, SearchSpace

_TRIES = 10
_STEPS = 100


class Subspace(SearchSpace):
    """The members of a list, with the neighbourhoods of the full space.

    Where the full space has `canonical_identity = True`, its architectures are the same if their `canonical` is, and a member
    stands for its whole class: every vector of the class is valid, `sample` and iteration give the canonical one, `size`
    counts classes, and neighbours and mutations are of another class: where few classes are members, most of the full
    space's neighbours that are valid would be the architecture itself.

    Everything else (strings, indices, classes, ...) is the full space's; what these methods return need not be a member.

    Args:
        full: the space that the members are from.
        members: duplicates count once.
        checked: the members are known to be in the full space, and canonical where that matters: do not look again.

    Raises:
        InvalidArchitecture: a member is not in the full space.
        ValueError: there is no member.
    """

    def __init__(self, full: SearchSpace, members: Iterable[Architecture], *, checked: bool = False) -> None:
        self.full = full
        self.name = full.name
        self.cardinalities = full.cardinalities
        self.canonical_identity = self._by_class = full.canonical_identity
        if not checked:
            members = map(full.check, members)
            if self._by_class:
                members = map(full.canonical, members)
        self._members = sorted(set(members))
        if not self._members:
            raise ValueError(f"a part of {full.name} needs at least one architecture")
        self._known = frozenset(self._members)

    def __getattr__(self, name: str) -> Any:  # only asked for what this class does not have
        if name.startswith("__") or name == "full":  # while it is being unpickled there is no full space yet
            raise AttributeError(name)
        return getattr(self.full, name)

    @property
    def size(self) -> int:
        return len(self._members)

    @property
    def caution(self) -> str:
        """What a report on these architectures alone has to say."""
        return (
            f"The table holds {self.size:,} architectures of {self.name} and not all: the search was confined to them, and"
            " regret is the distance to the best of them."
        )

    def __iter__(self) -> Iterator[Architecture]:
        """The members in lexicographic order."""
        return iter(self._members)

    def is_valid(self, arch: Architecture) -> bool:
        """Tell whether `arch` is a member."""
        arch = tuple(arch)
        return (not self._by_class or self.full.is_valid(arch)) and self._member(arch) in self._known

    def _member(self, arch: Architecture) -> Architecture:
        """What `arch`, an architecture of the full space, is called if it is a member."""
        return self.full.canonical(arch) if self._by_class else tuple(arch)

    def check(self, arch: object) -> Architecture:
        plain = self.full.check(arch)
        if not self.is_valid(plain):
            raise InvalidArchitecture(
                f"{plain} is an architecture of {self.name}, but not one of the {self.size:,} that are in this table"
            )
        return plain

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw one member, each with the same probability."""
        return self._members[int(rng.random() * len(self._members))]

    def neighbours(self, arch: Architecture) -> list[Architecture]:
        """The members among the neighbours that `arch` has in the full space, in its order."""
        here, known = self._member(arch), self._known
        return [other for other in self.full.neighbours(arch) if (m := self._member(other)) in known and m != here]

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a random neighbour that is a member, or where there is none the next best.

        The full space's mutation is drawn again until it gives a member; after ten draws one of `neighbours` is taken, each
        with the same probability. If there is no such neighbour, the mutations of the full space are followed from one
        architecture to the next until they meet another member, at most 100 steps; then any other member is taken, each
        with the same probability.

        Raises:
            InvalidArchitecture: there is no other member.
        """
        here, known = self._member(arch), self._known
        for _ in range(_TRIES):
            other = self.full.mutate(arch, rng)
            if (member := self._member(other)) in known and member != here:
                return other
        if neighbours := self.neighbours(arch):
            return neighbours[int(rng.random() * len(neighbours))]
        others = len(self._members) - (here in known)
        if not others:
            raise InvalidArchitecture(f"{arch} is the only architecture of {self.name} in this table")
        walker = tuple(arch)
        for _ in range(_STEPS):
            walker = self.full.mutate(walker, rng)
            if (member := self._member(walker)) in known and member != here:
                return walker
        place = int(rng.random() * others)
        return self._members[place + (here in known and place >= bisect.bisect_left(self._members, here))]

    def canonical(self, arch: Architecture) -> Architecture:
        return self.full.canonical(arch)

    def to_string(self, arch: Architecture) -> str:
        return self.full.to_string(arch)

    def from_string(self, text: str) -> Architecture:
        """The architecture of this string.

        Raises:
            InvalidArchitecture: the text does not follow the full space's grammar, or the architecture is no member.
        """
        return self.check(self.full.from_string(text))

    def __repr__(self) -> str:
        return f"Subspace({self.full!r}, size={self.size})"
