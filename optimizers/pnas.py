"""PNAS: from simple to complex architectures, a surrogate model deciding which of the extensions are worth training.

Liu, Zoph, Neumann, Shlens, Hua, Li, Fei-Fei, Yuille, Huang and Murphy, "Progressive Neural Architecture Search", ECCV 2018,
Algorithm 1 and section 4. https://arxiv.org/abs/1712.00559

    1. Train all cells of one block.
    2. Fit the surrogate to everything trained so far.
    3. Extend every cell of the beam by one block in all ways, predict all of these, and train the K best: the new beam.
    4. Repeat 2 and 3 until the cells have B blocks.

Where this file differs from the paper:
    * The paper's cells really have fewer blocks at first. Here an architecture always makes every choice of its space, so that
      a simple one is one whose later blocks are at rest: they make the space's plainest choices. `blocks` says what a block is.
      NAS-Bench-201: the edge from the input to the output, then node 1 and node 2, each with all its edges; at rest an edge
      is `none`. NAS-Bench-101: vertices 1 to 5 with all their edges and their operation; at rest a vertex has no edges, and is
      pruned. DARTS: nodes 2 to 5 in turn, of the normal and then of the reduction cell; at rest a node is the sum of skip
      connections of its first two possible inputs. Any other space: one dimension after the other; at rest its choice is 0.
    * An extension that the space forbids is left out. If all are forbidden, each is tried with random choices in place of the
      blocks at rest, 20 times.
    * Of more than `pool` extensions, `pool` random ones are predicted. The paper predicts all.
    * After the last block the search goes on until the budget ends: rounds of the best predictions of the whole space, if it
      has at most `pool` architectures, otherwise of `pool` / 2 random ones and as many mutations of the K best. A round has
      `batch` proposals, or a fourth of all trials told so far where that is more, so that the time for the fits per trial
      stays the same however long the search.
    * K = 64; the paper's 256 is the preset `paper`.
    * The surrogate is the paper's ensemble of five multilayer perceptrons, each fitted to a random four fifths of the trials
      with the L1 loss, but its input is linear in the choices: a one-hot vector, which the paper does not have, and how often
      each choice occurs, which stands for the paper's mean over the blocks of embeddings that all blocks share. The weights
      of the one-hot vector start at zero: a choice that no trial has made yet, such as every choice of the next block, is
      judged by how it did elsewhere. It is fitted anew each time, to standardized accuracies with a linear output; the paper
      goes on with the last one and has a sigmoid.
    * An architecture that was evaluated is not proposed again; if it is among the K best, it is part of the beam all the same.
      One that failed is not extended. Once none is left to find, proposals are random.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..benchmarks.spaces import darts, nasbench101, nasbench201
from ..benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
from ..benchmarks.spaces.subspace import Subspace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .drawing import can_enumerate, sample_new

_COMPLETIONS = 20


def blocks(space: SearchSpace) -> tuple[list[tuple[int, ...]], Architecture]:
    """How architectures of a space grow: the dimensions of each block, in order, and the architecture at rest."""
    while isinstance(space, Subspace):
        space = space.full
    dimensions = len(space.cardinalities)
    if isinstance(space, nasbench201.NASBench201Space):
        edge = nasbench201.EDGES.index
        order = [(edge((3, 0)),)] + [(*(edge((v, s)) for s in range(v)), edge((3, v))) for v in (1, 2)]
        return order, (nasbench201.NONE,) * dimensions
    if isinstance(space, nasbench101.NASBench101Space):
        last = nasbench101.MAX_VERTICES - 1
        pairs = list(itertools.combinations(range(last + 1), 2))
        order = [
            (*(d for d, (s, t) in enumerate(pairs) if t == v or (s, t) == (v, last)), len(pairs) + v - 1)
            for v in range(1, last)
        ]
        order[0] = (pairs.index((0, last)), *order[0])  # with one vertex comes the edge that avoids it
        return order, (0,) * dimensions
    if isinstance(space, darts.DARTSSpace):
        half, num_operations = dimensions // 2, 2 * len(darts.NODES)
        order = []
        for k in range(len(darts.NODES)):
            for first in (0, half):
                pair = (first + num_operations + k - 1,) if k else ()
                order.append((first + 2 * k, first + 2 * k + 1, *pair))
        skip = darts.OPERATIONS.index("skip_connect")
        cell = (skip,) * num_operations + (0,) * (half - num_operations)
        return order, cell * 2
    return [(d,) for d in range(dimensions)], (0,) * dimensions


class PerceptronEnsemble:
    """Multilayer perceptrons that are trained at the same time, each on its own random four fifths of the data.

    It computes in double precision, so that rounding, which differs from one machine to the next, does not decide a ranking.

    Args:
        space: whose architectures are predicted.
        members: number of perceptrons.
        hidden: units of each of their two hidden layers.
    """

    def __init__(self, space: SearchSpace, *, members: int, hidden: int) -> None:
        self.space, self.members, self.hidden = space, members, hidden
        sizes = sorted(set(space.cardinalities))
        self._shared = np.zeros((sum(space.cardinalities), sum(sizes)))  # from a choice to the choice in any dimension
        starts = dict(zip(sizes, itertools.accumulate(sizes, initial=0), strict=False))
        row = 0
        for n in space.cardinalities:
            for choice in range(n):
                self._shared[row + choice, starts[n] + choice] = 1 / space.cardinalities.count(n)
            row += n
        self._weights: list[Tensor] = []
        self._mean, self._std = 0.0, 1.0

    def fit(
        self,
        archs: Sequence[Architecture],
        values: npt.NDArray[np.float64],
        rng: np.random.Generator,
        *,
        epochs: int,
        learning_rate: float,
    ) -> None:
        """Minimize the mean absolute error by Adam; each epoch is one step on all of a member's data.

        Args:
            archs: n architectures.
            values: their accuracies, `(n,)`, finite.
            rng: the only source of chance.
            epochs, learning_rate: of Adam.
        """
        self._mean, self._std = float(values.mean()), float(values.std()) or 1.0
        n, kept = len(archs), math.ceil(len(archs) * 4 / 5)
        parts = np.stack([rng.permutation(n)[:kept] for _ in range(self.members)])  # (members, kept)
        inputs = torch.from_numpy(self._inputs(archs)[parts])
        target = torch.from_numpy(((values - self._mean) / self._std)[parts])
        sizes = (inputs.shape[2], self.hidden, self.hidden, 1)
        self._weights = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            weight = rng.standard_normal((self.members, fan_in, fan_out)) * math.sqrt(2 / fan_in)
            if not self._weights:
                weight[:, : len(self._shared)] = 0.0  # the one-hot vector
            self._weights += [torch.from_numpy(weight), torch.zeros(self.members, 1, fan_out, dtype=torch.float64)]
        for parameter in self._weights:
            parameter.requires_grad_()
        adam = torch.optim.Adam(self._weights, learning_rate, fused=True)
        for _ in range(epochs):
            # The sum over members: each is trained as if it were alone.
            loss = (self._forward(inputs) - target).abs().mean(dim=1).sum()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()

    @torch.no_grad()
    def predict(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """Mean of the members' predicted accuracies, `(n,)`."""
        outputs = self._forward(torch.from_numpy(self._inputs(archs))[None])
        return np.asarray(outputs.mean(dim=0).numpy() * self._std + self._mean)

    def _inputs(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float64]:
        """The one-hot vector, and for each choice the share of the dimensions with as many choices that make it."""
        one_hot = self.space.one_hot(archs).astype(np.float64)
        return np.hstack((one_hot, one_hot @ self._shared))

    def _forward(self, states: Tensor) -> Tensor:
        """Standardized predictions `(members, n)` of inputs `(members or 1, n, features)`."""
        w1, b1, w2, b2, w3, b3 = self._weights
        states = torch.relu(states @ w1 + b1)
        states = torch.relu(states @ w2 + b2)
        return (states @ w3 + b3)[:, :, 0]


class PNAS(Optimizer):
    """Grow architectures block by block, training at each level only the extensions that a surrogate expects most of.

    Args:
        beam: architectures trained, and then extended, at each level (K; paper: 256).
        batch: the fewest proposals of a round after the last level.
        pool: the most architectures that are predicted at once.
        members: perceptrons of the surrogate (paper: 5).
        hidden: units of each of their two hidden layers (paper: 100).
        epochs, learning_rate: of the fit by Adam (paper: 0.01 at the first level, 0.002 later).

    Presets: `paper` has the paper's K; `quick` is a small surrogate for trying things out, not for results.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"beam": 256},
        "quick": {"beam": 16, "pool": 300, "members": 3, "hidden": 12, "epochs": 20, "learning_rate": 0.03},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        beam: int = 64,
        batch: int = 25,
        pool: int = 20_000,
        members: int = 5,
        hidden: int = 100,
        epochs: int = 200,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(space, rng)
        counts = {"beam": beam, "batch": batch, "pool": pool, "members": members, "hidden": hidden, "epochs": epochs}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        if not learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, not {learning_rate}")
        self.beam, self.batch, self.pool = beam, batch, pool
        self.epochs, self.learning_rate = epochs, learning_rate
        self.surrogate = PerceptronEnsemble(space, members=members, hidden=hidden)
        self._blocks, at_rest = blocks(space)
        self._level = 0  # blocks decided so far
        self._beam: list[Architecture] = [at_rest]  # to extend by the next block
        self._values: dict[
            Architecture, float
        ] = {}  # the latest of every architecture told, by `space.identity`; NaN if it failed
        self._n_told = 0
        self._queue: deque[Architecture] = deque()
        self._whole: list[Architecture] | None = None  # the space, if it fits into the pool
        self._archs: list[Architecture] = []  # of the trials that did not fail
        self._accuracies: list[float] = []

    def ask(self) -> Proposal:
        """The next of the level's K best extensions; after the last level, of the round's best predictions."""
        while not self._queue and self._level < len(self._blocks):
            self._next_level()
        if not self._queue:
            size = max(self.batch, self._n_told // 4)
            unknown = [arch for arch in self._candidates(4 * size) if arch not in self._values]
            ranking = (arch for arch in self._ranked(unknown) if self.space.identity(arch) not in self._values)
            self._queue.extend(itertools.islice(self._distinct(ranking), size))
            if not self._queue:
                self._queue.extend(sample_new(self.space, self.rng, self._values) for _ in range(size))
        return Proposal(self._queue.popleft())

    def tell(self, trial: Trial) -> None:
        self._n_told += 1
        self._values[self.space.identity(trial.arch)] = trial.value
        if trial.value == trial.value:
            self._archs.append(trial.arch)
            self._accuracies.append(trial.value)

    def _next_level(self) -> None:
        """Extend the beam by a block: the K best extensions are the new beam, and the unknown ones among them are queued."""
        parents = self._beam
        if self._level:  # all but the first were trained
            parents = [arch for arch in parents if not math.isnan(self._values[self.space.identity(arch)])]
        extensions = self._extensions(parents)
        self._beam = list(itertools.islice(self._distinct(self._ranked(extensions)), self.beam))
        self._level += 1
        self._queue.extend(arch for arch in self._beam if self.space.identity(arch) not in self._values)

    def _extensions(self, parents: list[Architecture]) -> list[Architecture]:
        """The parents with every choice of the next block, at most `pool` of these tried."""
        block = self._blocks[self._level]
        sizes = [self.space.cardinalities[d] for d in block]
        per_parent = math.prod(sizes)
        total = len(parents) * per_parent
        numbers: Iterable[int] = range(total)
        if total > self.pool:
            numbers = sorted({int(self.rng.random() * total) for _ in range(self.pool)})
        extensions: list[Architecture] = []
        for number in numbers:
            parent, rest = divmod(number, per_parent)
            choices = list(parents[parent])
            for d, n in zip(block, sizes, strict=True):
                rest, choices[d] = divmod(rest, n)
            extensions.append(tuple(choices))
        if not any(map(self.space.is_valid, extensions)):
            extensions = [arch for plain in extensions for arch in self._random_completions(plain)]
        return list(dict.fromkeys(filter(self.space.is_valid, extensions)))

    def _random_completions(self, arch: Architecture) -> Iterator[Architecture]:
        """A few architectures with the choices of `arch` up to the block to decide next, and random ones after it."""
        at_rest = {d for later in self._blocks[self._level + 1 :] for d in later}
        for _ in range(_COMPLETIONS):
            yield tuple(
                int(self.rng.random() * n) if d in at_rest else choice
                for d, (choice, n) in enumerate(zip(arch, self.space.cardinalities, strict=True))
            )

    def _candidates(self, at_least: int) -> list[Architecture]:
        """The whole space, or a random half and a half of mutations of the K best."""
        if self._whole is None and can_enumerate(self.space, self.pool):
            self._whole = list(self.space)
        if self._whole is not None:
            return self._whole
        best = np.lexsort((self.rng.random(len(self._accuracies)), -np.array(self._accuracies)))[: self.beam].tolist()
        candidates: dict[Architecture, None] = {}
        for i in range(max(self.pool, at_least)):
            arch = self.space.sample(self.rng)
            if best and i % 2:
                with contextlib.suppress(InvalidArchitecture):  # it has no neighbour
                    arch = self.space.mutate(self._archs[best[i // 2 % len(best)]], self.rng)
            candidates[arch] = None
        return list(candidates)

    def _ranked(self, archs: list[Architecture]) -> list[Architecture]:
        """Best prediction first, ties at random; in random order as long as nothing can be learned."""
        predicted = np.zeros(len(archs))
        if archs and len(self._archs) > 1:
            self.surrogate.fit(
                self._archs,
                np.array(self._accuracies),
                self.rng,
                epochs=self.epochs,
                learning_rate=self.learning_rate,
            )
            predicted = self.surrogate.predict(archs)
        return [archs[i] for i in np.lexsort((self.rng.random(len(archs)), -predicted)).tolist()]

    def _distinct(self, archs: Iterable[Architecture]) -> Iterator[Architecture]:
        """Each architecture once, under its first spelling."""
        taken: set[Architecture] = set()
        for arch in archs:
            if (identity := self.space.identity(arch)) not in taken:
                taken.add(identity)
                yield arch
