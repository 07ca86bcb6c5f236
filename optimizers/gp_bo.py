"""Bayesian optimization with a Gaussian process, on choice vectors or on cell graphs (NAS-BOWL).

Ru, Wan, Dong and Osborne, "Interpretable Neural Architecture Search via Bayesian Optimisation with Weisfeiler-Lehman
Kernels", ICLR 2021, sections 2 and 3.1. https://arxiv.org/abs/2006.07556
Shervashidze, Schweitzer, van Leeuwen, Mehlhorn and Borgwardt, "Weisfeiler-Lehman Graph Kernels", JMLR 2011, section 3.2.
Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, algorithm 2.1 (prediction) and section 5.4.

The model is z = f(arch) + noise, where z is the logarithm of the validation error, standardised, and f a Gaussian process
with mean 0 and covariance s^2 k(arch, arch'). After `n_init` random architectures every proposal is the candidate with the
largest expected improvement over the best z so far. Candidates are mutations of the best architectures and random ones.

Two kernels k, both 1 for equal architectures:
    * `hamming`, for any space: exp(-d / l), where d is the share of dimensions in which two choice vectors differ. It is a
      product over dimensions, so good choices in separate places of an architecture are learnt separately.
    * `wl`, the Weisfeiler-Lehman subtree kernel. Every node of the cell's graph starts with its operation as its label, and
      h times takes the pair (own label, sorted labels of its inputs) as its new one: a label of round h is the computation
      of h layers that ends in the node. The kernel is the cosine of the counts of all labels of rounds 0 to h.
The length scale l, or the depth h, and the ratio of noise to signal are those of a small grid with the largest marginal
likelihood, where the signal variance s^2 is at its optimum in closed form.

Where this file differs from the paper:
    * `wl` without the optimal-assignment variant (the paper's for NAS-Bench-101), the noise from a grid and not by gradient,
      and a node's neighbours are its inputs. The cosine of darts is the mean of its two cells'.
    * `kernel="hamming"`, one at a time (the preset `nas_bowl` has five), and a cap on the size of the model.
    * Proposals are new architectures while the candidates have any; see `ask`.
    * A failed trial (NaN) counts as the worst value that was seen, so that the search leaves the region.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Container, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.sparse import csr_array
from scipy.special import ndtr

from ..benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .encodings import cell_graphs

Array = npt.NDArray[np.float64]

_SMALLEST_ERROR = 1e-4  # of which the logarithm is taken: one validation image in ten thousand
_NOISES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # variance of the noise over that of the signal
_LENGTH_SCALES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # in shares of dimensions
_DEPTHS = (0, 1, 2, 3)
_GROWTH = 1.1  # the hyper-parameters are chosen anew when there are so many times as many points


class GPBO(Optimizer):
    """Gaussian process, expected improvement, a pool of mutated and random candidates.

    An `ask` that needs the model costs O(max_points^3), and never more: beyond `max_points` the model has the best half and
    the most recent half of what is left. The grid of hyper-parameters is searched when the points have grown by a tenth.

    Args:
        kernel: `hamming` or `wl`. On a space that is not one of cells `wl` compares chains of choices.
        n_init: random architectures at the start (paper: 10).
        batch: proposals from one model, those with the largest expected improvement (paper: 5).
        pool: candidates (paper: 200), half of them mutations.
        parents: how many of the best architectures are mutated (the authors' code: 10).
        max_points: at most so many points in the model.

    Presets: `nas_bowl` is the paper's setting.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"nas_bowl": {"kernel": "wl", "batch": 5}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        kernel: Literal["hamming", "wl"] = "hamming",
        n_init: int = 10,
        batch: int = 1,
        pool: int = 200,
        parents: int = 10,
        max_points: int = 500,
    ) -> None:
        super().__init__(space, rng)
        if kernel not in ("hamming", "wl"):
            raise ValueError(f"kernel must be 'hamming' or 'wl', not {kernel!r}")
        if min(n_init, batch, parents) < 1 or min(pool, max_points) < 2:
            raise ValueError(
                "n_init, batch and parents must be at least 1, and pool and max_points at least 2, not"
                f" {n_init}, {batch}, {parents}, {pool} and {max_points}"
            )
        if batch > pool:
            raise ValueError(f"a batch of {batch} cannot come from a pool of {pool}")
        self.kernel = kernel
        self.n_init = n_init
        self.batch = batch
        self.pool = pool
        self.parents = parents
        self.max_points = max_points
        family: Kernel[Any] = WeisfeilerLehmanKernel(space) if kernel == "wl" else HammingKernel(space)
        self._model = GaussianProcess(family)
        self._told = History(space)
        self._queue: deque[Architecture] = deque()
        self._n_asked = 0

    def ask(self) -> Proposal:
        """A random architecture `n_init` times, then the candidate with the largest expected improvement.

        An architecture that was told before is no candidate. Where mutating and drawing at random find nothing else, as in
        a space that is exhausted, the proposal is a random architecture again.
        """
        self._n_asked += 1
        if self._n_asked <= self.n_init or not self._told.any_success:
            return Proposal(self._told.sample_new(self.rng))
        if not self._queue:
            self._queue.extend(self._choose())
        return Proposal(self._queue.popleft())

    def tell(self, trial: Trial) -> None:
        self._told.add(trial)

    def _choose(self) -> list[Architecture]:
        mutants = self.pool // 2
        per_parent = -(-mutants // self.parents)
        candidates = self._told.mutations(self.rng, self.parents, per_parent, mutants)
        candidates += self._told.random(self.rng, self.pool - len(candidates), but=candidates)
        if not candidates:
            return [self.space.sample(self.rng)]
        archs, values = self._told.points(self.max_points)
        z = standardise(np.log(np.maximum(1.0 - values, _SMALLEST_ERROR)))
        self._model.fit(archs, z)
        mean, deviation = self._model.predict(candidates)
        return [candidates[i] for i in largest(expected_improvement(mean, deviation, z.min()), self.batch)]


def standardise(values: Array) -> Array:
    """Values with mean 0 and standard deviation 1; zeros where they are all the same."""
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """E[max(best - z, 0)] for normal z, where small z are good: (best - m) Phi(u) + s phi(u) with u = (best - m) / s."""
    u = (best - mean) / deviation
    density = np.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)
    improvement: Array = deviation * (u * ndtr(u) + density)
    return np.maximum(improvement, 0.0)


def largest(scores: Array, n: int) -> list[int]:
    """Positions of the n largest scores, best first; of scores that differ by rounding errors only, the first counts.

    Candidates that a kernel cannot tell apart are common, and which of them has the larger last digit is a matter of the
    machine.
    """
    scale = float(np.abs(scores).max()) or 1.0
    order: list[int] = np.argsort(-np.round(scores / scale, 9), kind="stable").tolist()
    return order[:n]


# ------------------------------------------------------------------------------------------------- what was told


class History:
    """What a model-based strategy was told, and the architectures that it was not: shared with `bananas`.

    Architectures are told apart by `space.canonical` where the space looks its tables up by it, otherwise as vectors.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._name = space.identity
        self._known: set[Architecture] = set()
        self._archs: list[Architecture] = []
        self._values: list[float] = []  # NaN where it failed
        self._worst = math.inf

    @property
    def any_success(self) -> bool:
        return self._worst < math.inf

    def add(self, trial: Trial) -> None:
        """Take a trial in."""
        self._known.add(self._name(trial.arch))
        self._archs.append(trial.arch)
        self._values.append(trial.value)
        if trial.value < self._worst:  # never true of NaN
            self._worst = trial.value

    def points(self, limit: int) -> tuple[list[Architecture], Array]:
        """Architectures and values `(n,)` for a model: the best half and the most recent half if there are more than `limit`.

        A failed trial has the worst value that was seen.
        """
        values = np.array(self._values)
        values[np.isnan(values)] = self._worst
        if len(values) <= limit:
            return list(self._archs), values
        by_value = np.argsort(-values, kind="stable")
        best, others = by_value[: limit // 2], np.sort(by_value[limit // 2 :])
        chosen = np.sort(np.concatenate((best, others[-(limit - limit // 2) :])))
        return [self._archs[i] for i in chosen], values[chosen]

    def best(self, n: int) -> list[Architecture]:
        """The n best different architectures that did not fail, best first; of equally good ones the first."""
        order = np.argsort(-np.array(self._values), kind="stable")  # NaN comes last
        found: dict[Architecture, Architecture] = {}
        for i in order.tolist():
            if len(found) == n or self._values[i] != self._values[i]:
                break
            found.setdefault(self._name(self._archs[i]), self._archs[i])
        return list(found.values())

    def mutations(self, rng: np.random.Generator, parents: int, per_parent: int, limit: int) -> list[Architecture]:
        """At most `limit` new architectures: up to `per_parent` of each of the best, the best one's first."""
        found: dict[Architecture, Architecture] = {}
        for parent in self.best(parents):
            wanted = min(limit, len(found) + per_parent)
            for _ in range(2 * per_parent):  # some are known already
                if len(found) >= wanted:
                    break
                try:
                    self._offer(self.space.mutate(parent, rng), found)
                except InvalidArchitecture:  # it has no neighbour
                    break
        return list(found.values())

    def random(self, rng: np.random.Generator, n: int, but: Sequence[Architecture] = ()) -> list[Architecture]:
        """At most n new random architectures; fewer where 2 n + 20 draws do not give more."""
        others = {self._name(arch) for arch in but}
        found: dict[Architecture, Architecture] = {}
        for _ in range(2 * n + 20):
            if len(found) >= n:
                break
            self._offer(self.space.sample(rng), found, others)
        return list(found.values())

    def sample_new(self, rng: np.random.Generator) -> Architecture:
        """A new random architecture; one that is known where 22 draws in a row are."""
        return (self.random(rng, 1) or [self.space.sample(rng)])[0]

    def _offer(
        self, arch: Architecture, found: dict[Architecture, Architecture], others: Container[Architecture] = ()
    ) -> None:
        name = self._name(arch)
        if name not in self._known and name not in others:
            found.setdefault(name, arch)


# ----------------------------------------------------------------------------------------------------- the kernels

Features = TypeVar("Features")


class Kernel(Protocol[Features]):
    """A family of kernels with k(a, a) = 1, by a hyper-parameter."""

    @property
    def grid(self) -> tuple[float, ...]:
        """The values of the hyper-parameter to choose from."""

    def learn(self, archs: Sequence[Architecture]) -> Features:
        """Features of the points of the model, which later calls of `features` refer to."""

    def features(self, archs: Sequence[Architecture]) -> Features:
        """Features of other architectures."""

    def matrix(self, a: Features, b: Features, parameter: float) -> Array:
        """The kernel between n and m architectures, `(n, m)`."""


class HammingKernel:
    """exp(-d / l), where d is the share of dimensions that differ."""

    grid = _LENGTH_SCALES

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def learn(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float32]:
        return self.features(archs)

    def features(self, archs: Sequence[Architecture]) -> npt.NDArray[np.float32]:
        return self._space.one_hot(archs)

    def matrix(self, a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], parameter: float) -> Array:
        agree = (a @ b.T).astype(np.float64)  # whole numbers: exact
        return np.exp((agree / len(self._space.cardinalities) - 1.0) / parameter)


Labels = dict[object, int]
"""Number of nodes with each label."""


def subtree_labels(space: SearchSpace, arch: Architecture, depth: int) -> list[list[Labels]]:
    """The labels of every cell in rounds 0 to `depth` of the Weisfeiler-Lehman test, counted."""
    cells = []
    for graph in cell_graphs(space, arch):
        current: Sequence[Any] = graph.labels
        rounds = []
        for h in range(depth + 1):
            if h:
                current = [
                    (own, tuple(sorted([current[x] for x in inputs])))
                    for own, inputs in zip(current, graph.inputs, strict=True)
                ]
            counts: Labels = {}
            for label in current:
                counts[label] = counts.get(label, 0) + 1
            rounds.append(counts)
        cells.append(rounds)
    return cells


class WeisfeilerLehmanKernel:
    """The cosine between counts of subtree labels of rounds 0 to h; with several cells, the mean of their cosines.

    Features are the counts. For an h they become sparse rows, those of each cell scaled so that rows have length 1 and
    their products are the kernel. Columns are the labels of the points of the model; a label that only another architecture
    has counts for its length alone.
    """

    grid = _DEPTHS

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._labels: dict[Architecture, list[list[Labels]]] = {}  # of the points of the model
        self._columns: dict[object, int] = {}
        self._points: list[list[list[Labels]]] = []
        self._rows: dict[int, csr_array] = {}  # of the points, by depth

    def learn(self, archs: Sequence[Architecture]) -> list[list[list[Labels]]]:
        known = self._labels
        self._labels = {
            arch: known.get(arch) or subtree_labels(self._space, arch, max(self.grid)) for arch in dict.fromkeys(archs)
        }
        self._columns = {}
        for cells in self._labels.values():
            for c, rounds in enumerate(cells):
                for h, counts in enumerate(rounds):
                    for label in counts:
                        self._columns.setdefault((c, h, label), len(self._columns))
        self._points, self._rows = [self._labels[arch] for arch in archs], {}
        return self._points

    def features(self, archs: Sequence[Architecture]) -> list[list[list[Labels]]]:
        return [subtree_labels(self._space, arch, max(self.grid)) for arch in archs]

    def matrix(self, a: list[list[list[Labels]]], b: list[list[list[Labels]]], parameter: float) -> Array:
        products = self._scaled(a, int(parameter)) @ self._scaled(b, int(parameter)).T
        return np.asarray(products.toarray(), dtype=np.float64)

    def _scaled(self, counted: list[list[list[Labels]]], depth: int) -> csr_array:
        if counted is self._points and depth in self._rows:
            return self._rows[depth]
        values: list[float] = []
        places: list[int] = []
        ends = [0]
        for cells in counted:
            for c, rounds in enumerate(cells):
                squares = sum([n * n for counts in rounds[: depth + 1] for n in counts.values()])
                scale = 1.0 / math.sqrt(len(cells) * squares)
                for h, counts in enumerate(rounds[: depth + 1]):
                    for label, n in counts.items():
                        if (column := self._columns.get((c, h, label))) is not None:
                            places.append(column)
                            values.append(n * scale)
            ends.append(len(places))
        rows = csr_array((values, places, ends), shape=(len(counted), len(self._columns)))
        if counted is self._points:
            self._rows[depth] = rows
        return rows


# ---------------------------------------------------------------------------------------------------- the regression


class GaussianProcess:
    """Regression with mean 0 and covariance s^2 (k + r I), where s^2 follows from the data and k, r from a grid.

    Attributes:
        parameter: the kernel's hyper-parameter, the one of its grid with the largest marginal likelihood.
        noise: r, ditto.
        signal: s^2, the variance with the largest marginal likelihood; 1 if all targets are 0.
    """

    def __init__(self, kernel: Kernel[Any]) -> None:
        self._kernel = kernel
        self.parameter, self.noise, self.signal = kernel.grid[-1], _NOISES[-1], 1.0
        self._chosen_at = 0  # points

    def fit(self, archs: Sequence[Architecture], z: Array) -> None:
        """Take the points in; choose hyper-parameters if there are a tenth more points than when they were last chosen."""
        self._features = self._kernel.learn(archs)
        if len(z) >= _GROWTH * self._chosen_at:
            self._chosen_at = len(z)
            best = -math.inf
            for parameter in self._kernel.grid:
                gram = self._kernel.matrix(self._features, self._features, parameter)
                for noise in _NOISES:
                    if (likelihood := log_marginal_likelihood(gram, noise, z)) > best:
                        best, self.parameter, self.noise = likelihood, parameter, noise
        gram = self._kernel.matrix(self._features, self._features, self.parameter)
        self._factor = cho_factor(gram + self.noise * np.eye(len(z)), lower=True, check_finite=False)
        self._weights = cho_solve(self._factor, z, check_finite=False)
        self.signal = float(z @ self._weights) / len(z) or 1.0

    def predict(self, archs: Sequence[Architecture]) -> tuple[Array, Array]:
        """Mean and standard deviation of f at n architectures, `(n,)` each; the noise is not part of it."""
        cross = self._kernel.matrix(self._features, self._kernel.features(archs), self.parameter)
        explained = (cross * cho_solve(self._factor, cross, check_finite=False)).sum(axis=0)
        return cross.T @ self._weights, np.sqrt(self.signal * np.maximum(1.0 - explained, 1e-9))


def log_marginal_likelihood(gram: Array, noise: float, z: Array) -> float:
    """The logarithm of p(z) under the covariance s^2 (gram + noise I) with the best s^2.

    With s^2 = z' (gram + noise I)^-1 z / n it is -(n log(2 pi s^2) + log det(gram + noise I) + n) / 2. It is -infinity where
    rounding leaves no positive definite matrix, and where z is 0 everywhere, so that every s^2 > 0 is too large.
    """
    n = len(z)
    try:
        factor = cho_factor(gram + noise * np.eye(n), lower=True, check_finite=False)
    except LinAlgError:
        return -math.inf
    signal = float(z @ cho_solve(factor, z, check_finite=False)) / n
    if signal <= 0:
        return -math.inf
    log_det = 2.0 * float(np.log(np.diag(factor[0])).sum())
    return -0.5 * (n * math.log(2 * math.pi * signal) + log_det + n)
