"""What a search space is: a vector of choices with a validity test.

Every space in nasharness is `cardinalities` (the number of choices in each dimension) and `is_valid`. Everything that
an optimizer needs (sampling, neighbours, mutation, encodings) follows from these two, so every optimizer works on every
space and a space of your own is a few lines:

    class Widths(SearchSpace):
        name = "widths"
        cardinalities = (4, 4, 4)
"""

from __future__ import annotations

import itertools
import math
from abc import ABC
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Architecture: TypeAlias = tuple[int, ...]
"""One choice per dimension of a space: the only form in which an architecture travels through nasharness."""


class InvalidArchitecture(ValueError):
    """An architecture that its space does not contain; the message names the value and the reason."""


class SearchSpace(ABC):
    """A finite set of architectures: choice vectors of given cardinalities that pass `is_valid`.

    Attributes:
        name: the id under which the space is registered.
        cardinalities: number of choices in each dimension, each at least 1.
        canonical_identity: several choice vectors may spell one and the same architecture, so tables are looked up by
            `canonical`; otherwise isomorphic architectures have rows of their own.
    """

    name: str
    cardinalities: tuple[int, ...]
    canonical_identity: bool = False

    def is_valid(self, arch: Architecture) -> bool:
        """Tell whether `arch` has one choice per dimension, each in range. A constrained space adds its test to this."""
        cardinalities = self.cardinalities
        if len(arch) != len(cardinalities):
            return False
        for choice, n in zip(arch, cardinalities, strict=True):  # noqa: SIM110  a plain loop: this runs once per trial
            if not 0 <= choice < n:
                return False
        return True

    def check(self, arch: object) -> Architecture:
        """Return `arch` as a plain tuple of Python ints.

        Raises:
            InvalidArchitecture: it is not a sequence of whole numbers, has another length, a choice is out of range,
                or the space's own constraint refuses it.
        """
        if not isinstance(arch, Sequence | np.ndarray) or isinstance(arch, str | bytes):
            raise InvalidArchitecture(
                f"an architecture of {self.name} is a tuple of {len(self.cardinalities)} ints, not {arch!r}"
                + (" (use from_string for an architecture string)" if isinstance(arch, str) else "")
            )
        if any(isinstance(x, bool) or not isinstance(x, int | np.integer) for x in arch):
            raise InvalidArchitecture(f"every choice of an architecture must be an int: {arch!r}")
        plain = tuple(int(x) for x in arch)
        if len(plain) != len(self.cardinalities):
            raise InvalidArchitecture(
                f"{plain} has {len(plain)} choices; {self.name} has {len(self.cardinalities)} dimensions"
            )
        for d, (choice, n) in enumerate(zip(plain, self.cardinalities, strict=True)):
            if not 0 <= choice < n:
                raise InvalidArchitecture(
                    f"{plain} is not in {self.name}: choice {choice} in dimension {d} is not in 0..{n - 1}"
                )
        if not self.is_valid(plain):
            raise InvalidArchitecture(f"{plain} is not a valid architecture of {self.name}")
        return plain

    @property
    def size(self) -> int:
        """Number of valid architectures. A large constrained space overrides this; a small one is counted.

        Raises:
            NotImplementedError: a constrained space of more than a million choice vectors does not say its size.
        """
        total = math.prod(self.cardinalities)
        if type(self).is_valid is SearchSpace.is_valid:
            return total
        if total > 1_000_000:
            raise NotImplementedError(f"{type(self).__name__} has too many choice vectors to count; give it a size")
        return sum(1 for _ in self)

    @property
    def known_size(self) -> int | None:
        """`size`, or None where it is not known."""
        try:
            return self.size
        except NotImplementedError:
            return None

    def __iter__(self) -> Iterator[Architecture]:
        """All valid architectures in lexicographic order, so `rank` counts along it where nothing is invalid."""
        return (arch for arch in itertools.product(*map(range, self.cardinalities)) if self.is_valid(arch))

    def rank(self, arch: Architecture) -> int:
        """Position of `arch` among all choice vectors in lexicographic order: a mixed-radix number."""
        rank = 0
        for choice, n in zip(arch, self.cardinalities, strict=True):
            if not 0 <= choice < n:
                raise InvalidArchitecture(f"{arch!r} has a choice that is not in 0..{n - 1}")
            rank = rank * n + choice
        return rank

    def ranks(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """`rank` of many architectures `(n, dimensions)` at once, `(n,)`, each checked.

        Raises:
            InvalidArchitecture: one of them is not in the space.
        """
        try:
            choices = np.asarray(archs)
        except ValueError:  # of several lengths
            for arch in archs:
                self.check(arch)
            raise
        dimensions = len(self.cardinalities)
        if choices.shape == (0,):  # an empty list
            choices = choices.astype(np.int64).reshape(0, dimensions)
        if choices.ndim != 2 or choices.shape[1] != dimensions or choices.dtype.kind not in "iu":
            raise InvalidArchitecture(
                f"architectures of {self.name} are ints of shape (n, {dimensions}),"
                f" not {choices.dtype} of shape {choices.shape}"
            )
        # Column by column: rows of a few numbers are what NumPy is slowest at.
        ranks = np.zeros(len(choices), dtype=np.int64)
        valid = np.ones(len(choices), dtype=bool)
        for column, n in zip(choices.T, self.cardinalities, strict=True):
            valid &= (column >= 0) & (column < n)
            ranks *= n
            ranks += column.astype(np.int64, copy=False)
        if not valid.all():
            self.check(choices[valid.argmin()])
        if type(self).is_valid is not SearchSpace.is_valid:  # a constrained space
            for arch in np.unique(choices, axis=0):
                self.check(arch)
        return ranks

    def unrank(self, rank: int) -> Architecture:
        """The inverse of `rank`."""
        if not 0 <= rank < math.prod(self.cardinalities):
            raise InvalidArchitecture(f"rank {rank} is not in 0..{math.prod(self.cardinalities) - 1} of {self.name}")
        choices = []
        for n in reversed(self.cardinalities):
            rank, choice = divmod(rank, n)
            choices.append(choice)
        return tuple(reversed(choices))

    def sample(self, rng: np.random.Generator) -> Architecture:
        """Draw one valid architecture, each with the same probability (by rejection where there are constraints)."""
        # rng.random() is several times faster than a scalar rng.integers(); the bias of the floor is below 2**-50.
        random, cardinalities = rng.random, self.cardinalities
        while True:
            arch = tuple([int(random() * n) for n in cardinalities])
            if self.is_valid(arch):
                return arch

    def neighbours(self, arch: Architecture) -> list[Architecture]:
        """All valid architectures that differ from `arch` in exactly one dimension, in a fixed order."""
        return [
            other
            for d, n in enumerate(self.cardinalities)
            for choice in range(n)
            if choice != arch[d] and self.is_valid(other := (*arch[:d], choice, *arch[d + 1 :]))
        ]

    def mutate(self, arch: Architecture, rng: np.random.Generator) -> Architecture:
        """Return a random neighbour: a random dimension, then one of its other choices, redrawn until it is valid.

        Raises:
            InvalidArchitecture: `arch` has no neighbour (every dimension has a single choice, or all are invalid).
        """
        cardinalities = self.cardinalities
        for _ in range(1000):
            d = int(rng.random() * len(cardinalities))
            n = cardinalities[d]
            if n > 1:
                choice = int(rng.random() * (n - 1))
                other = (*arch[:d], choice + (choice >= arch[d]), *arch[d + 1 :])
                if self.is_valid(other):
                    return other
        if not (neighbours := self.neighbours(arch)):  # a rare corner: settle it by listing them
            raise InvalidArchitecture(f"{arch} has no neighbour in {self.name}")
        return neighbours[int(rng.random() * len(neighbours))]

    def canonical(self, arch: Architecture) -> Architecture:
        """The representative of the isomorphism class of `arch`: the same value for isomorphic architectures."""
        return arch

    def identity(self, arch: Architecture) -> Architecture:
        """What all spellings of one architecture have in common: the key of tables and of what was seen before."""
        return self.canonical(arch) if self.canonical_identity else arch

    def to_string(self, arch: Architecture) -> str:
        """The architecture in the space's own grammar; by default the choices joined by '-'."""
        return "-".join(map(str, arch))

    def from_string(self, text: str) -> Architecture:
        """The inverse of `to_string`.

        Raises:
            InvalidArchitecture: the text does not follow the grammar.
        """
        try:
            return self.check(tuple(int(part) for part in text.split("-")))
        except ValueError as error:
            raise InvalidArchitecture(f"{text!r} is not an architecture string of {self.name}: {error}") from None

    def one_hot(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Encode architectures `(n, dimensions)` as a float32 array `(n, sum(cardinalities))` with one 1 per dimension."""
        choices = np.asarray(archs, dtype=np.int64).reshape(-1, len(self.cardinalities))
        if ((choices < 0) | (choices >= self.cardinalities)).any():
            raise InvalidArchitecture(f"one_hot: a choice is out of range for {self.name}")
        starts = np.cumsum((0, *self.cardinalities[:-1]))
        encoded = np.zeros((len(choices), sum(self.cardinalities)), dtype=np.float32)
        encoded[np.arange(len(choices))[:, None], choices + starts] = 1.0
        return encoded

    def to_configspace(self, seed: int | None = None) -> Any:
        """The space as a `ConfigSpace.ConfigurationSpace`, see `benchmarks/spaces/configspace.py`; needs ConfigSpace."""
        from .configspace import to_configspace

        return to_configspace(self, seed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"
