"""BOHB: Hyperband that draws its architectures from a density model.

Falkner, Klein and Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018, section 3.2 and
Algorithm 2. https://arxiv.org/abs/1807.01774

Hyperband decides how many architectures are trained and how long, the model decides which: of the trials at the highest
number of epochs that has enough of them, l(x) is the density of the good ones and g(x) that of the others; the best l(x) / g(x)
among candidates drawn from l is what a bracket starts with next.

Where this file differs from the paper:
    * Every dimension of a space here is categorical, so the kernel is Aitchison and Aitken's ("Multivariate binary
      discrimination by the kernel method", Biometrika 1976) in all of them, and the paper's bandwidth factor, which widens
      continuous dimensions only, does not occur.
    * As in HpBandSter, the authors' code: the good and the bad trials are disjoint, so a model needs twice `min_points`
      trials where the paper needs two more than `min_points`; brackets have its rounding of sizes; and a candidate keeps each
      choice of a good architecture with probability 1 - h, else the choice is drawn from all k.
    * The bandwidth h of a dimension is the normal reference rule that HpBandSter takes from statsmodels: 1.06 s n**(-1 / (4 + d))
      for n architectures of d dimensions, where s is the standard deviation of the choices' numbers. It is cut off at
      (k - 1) / k, where the kernel of k choices is uniform; HpBandSter's is not, and beyond that it prefers what the good ones
      do not have. k is the number of choices in the space, not of those that were seen. The rule is made for numbers: where a
      choice's number is but a name, h is often near its limit, and the model says little.
    * A failed trial (NaN) is a bad one.
    * In a constrained space, candidates that are not valid are passed over, and drawn again where none is valid.
    * One evaluation at a time. An architecture may be proposed again, also after the whole space was seen.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .brackets import Bracket, hyperband_brackets, rungs

_REDRAWS = 20  # rounds of candidates without a valid one before a random architecture is proposed
_DECIMALS = 9  # of log-ratios: beyond them the last digit of a logarithm, which is a machine's own, would settle ties


class BOHB(Optimizer):
    """Hyperband brackets, started with architectures that a kernel density estimate finds good.

    Args:
        fidelities: numbers of epochs that the benchmark can train, ascending. `brackets.rungs` picks from them; where there
            is a single one, every bracket is one full training and BOHB is a search with the model alone.
        eta: each rung keeps 1 / eta of its architectures and trains them about eta times as long (paper: 3).
        min_points: architectures that the good and the bad must have each (None: dimensions + 1, the paper's; it is the
            least that HpBandSter accepts).
        good_fraction: share of trials that are good, if that is more than `min_points` (paper: 0.15).
        num_samples: candidates drawn from the good ones (paper: 64).
        random_fraction: share of architectures drawn at random regardless of the model (paper: 1/3).
        min_bandwidth: least bandwidth of a kernel (paper: 1e-3).
        resume: go on with the shorter training of an architecture that is promoted; False trains it anew and pays in full.

    A proposal's computing time grows with the number of trials at the model's epochs, all of which g is made of.

    Presets: `nasbench201` is the setting of the NAS-Bench-201 and NATS-Bench papers.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nasbench201": {"num_samples": 4, "random_fraction": 0.0, "min_bandwidth": 0.3, "resume": False}
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        fidelities: Sequence[int] = range(1, 13),
        eta: float = 3,
        min_points: int | None = None,
        good_fraction: float = 0.15,
        num_samples: int = 64,
        random_fraction: float = 1 / 3,
        min_bandwidth: float = 1e-3,
        resume: bool = True,
    ) -> None:
        super().__init__(space, rng)
        if min_points is None:
            min_points = len(space.cardinalities) + 1
        if min_points < 1 or num_samples < 1:
            raise ValueError(f"min_points and num_samples must be at least 1, not {min_points} and {num_samples}")
        if not 0 < good_fraction < 1 or not 0 < min_bandwidth < 1:
            raise ValueError(
                f"good_fraction and min_bandwidth must be between 0 and 1, not {good_fraction} and {min_bandwidth}"
            )
        if not 0 <= random_fraction <= 1:
            raise ValueError(f"random_fraction must be from 0 to 1, not {random_fraction}")
        self.min_points = min_points
        self.good_fraction = good_fraction
        self.num_samples = num_samples
        self.random_fraction = random_fraction
        self.resume = resume
        self.min_bandwidth = min_bandwidth
        self._plans = hyperband_brackets(rungs(fidelities, eta), eta, sizes="hpbandster")
        self._n_brackets = 0
        self._bracket = Bracket(())
        self._epochs = 0  # of the last proposal
        # Per number of epochs, the most first: (-value, number, architecture), the best first and those that failed last.
        self._ranked: dict[int, list[tuple[float, int, Architecture]]] = {
            epochs: [] for _, epochs in reversed(self._plans[0])
        }
        self._model: tuple[KernelDensity, KernelDensity] | None = None  # l and g
        self._model_epochs = 0

    def ask(self) -> Proposal:
        """What the bracket trains next; a new bracket begins when one is done, and after the last of them the first again."""
        if self._bracket.done:
            self._bracket = Bracket(self._plans[self._n_brackets % len(self._plans)])
            self._n_brackets += 1
        job = self._bracket.next()
        if job is None:
            raise RuntimeError("ask was called twice without a tell in between")
        arch, self._epochs = job
        if arch is None:
            return Proposal(self._new(), self._epochs)
        return Proposal(arch, self._epochs, self.resume)

    def tell(self, trial: Trial) -> None:
        self._bracket.report(trial.arch, self._epochs, trial.value)
        ranked = self._ranked[self._epochs]
        bisect.insort(ranked, (math.inf if trial.value != trial.value else -trial.value, len(ranked), trial.arch))
        if self._epochs >= self._model_epochs:  # trials of fewer epochs than the model's do not matter any more
            self._model = None

    def _new(self) -> Architecture:
        """The candidate with the largest l / g, or a random architecture: now and then, and while there is no model."""
        if self.rng.random() >= self.random_fraction and self._fit():
            assert self._model is not None
            good, bad = self._model
            for _ in range(_REDRAWS):
                candidates = good.sample(self.num_samples, self.rng)
                scores = np.log(good.density(candidates) / bad.density(candidates)).round(_DECIMALS)
                for i in np.argsort(-scores, kind="stable").tolist():
                    arch = tuple(candidates[i].tolist())
                    if self.space.is_valid(arch):
                        return arch
        return self.space.sample(self.rng)

    def _fit(self) -> bool:
        """Bring l and g up to date; tell whether there are any."""
        if self._model is None:
            for epochs, ranked in self._ranked.items():
                n_good = max(self.min_points, int(self.good_fraction * len(ranked) + 1e-9))
                if len(ranked) - n_good >= self.min_points and ranked[n_good - 1][0] < math.inf:
                    archs = np.array([arch for _, _, arch in ranked])
                    good, bad = (
                        KernelDensity(part, self.space.cardinalities, self.min_bandwidth)
                        for part in (archs[:n_good], archs[n_good:])
                    )
                    self._model, self._model_epochs = (good, bad), epochs
                    break
        return self._model is not None


class KernelDensity:
    """A density of architectures: the mean of one product of Aitchison-Aitken kernels around each of n of them.

    The kernel of a dimension with k choices is 1 - h for the choice of the architecture and h / (k - 1) for each other one.

    Args:
        archs: `(n, d)`, at least one.
        cardinalities: k of each dimension.
        min_bandwidth: lower limit of h.

    Attributes:
        bandwidth: h of each dimension, `(d,)`, by the normal reference rule, at most (k - 1) / k.
    """

    def __init__(self, archs: npt.NDArray[np.int64], cardinalities: Sequence[int], min_bandwidth: float) -> None:
        n, d = archs.shape
        k = np.array(cardinalities)
        h = np.maximum(1.06 * archs.std(axis=0) * n ** (-1 / (4 + d)), min_bandwidth)
        self.bandwidth: npt.NDArray[np.float64] = np.minimum(h, (k - 1) / k)
        self._archs, self._k = archs, k
        # Of each dimension the kernel at every choice around every architecture, (k, n).
        self._kernels = [
            np.where(np.arange(choices)[:, None] == column, 1 - h, h / max(choices - 1, 1))
            for choices, column, h in zip(cardinalities, archs.T, self.bandwidth, strict=True)
        ]

    def density(self, archs: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The density at each of `(m, d)`, `(m,)`; one that is too small for a float is the smallest float above 0."""
        product = np.ones((len(archs), len(self._archs)))
        for kernel, column in zip(self._kernels, archs.T, strict=True):
            product *= kernel[column]
        density: npt.NDArray[np.float64] = product.mean(axis=1)
        return density.clip(np.finfo(np.float64).tiny)

    def sample(self, m: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Candidates `(m, d)`: each is one of the architectures, whose choices are redrawn with probability h."""
        chosen = self._archs[(rng.random(m) * len(self._archs)).astype(np.int64)]
        kept = rng.random(chosen.shape) < 1 - self.bandwidth
        redrawn = (rng.random(chosen.shape) * self._k).astype(np.int64)
        return np.where(kept, chosen, redrawn)
