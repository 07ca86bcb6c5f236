"""BANANAS: Bayesian optimization with an ensemble of neural networks on the path encoding.

White, Neiswanger and Savani, "BANANAS: Bayesian Optimization with Neural Architectures for Neural Architecture Search",
AAAI 2021, Algorithm 1. https://arxiv.org/abs/1910.11858
The authors' code is naszilla, https://github.com/naszilla/naszilla; the defaults are its.

After `num_init` random architectures, an iteration
    1. trains an ensemble of feed-forward networks to predict the accuracy of an architecture from its encoding;
    2. mutates the best architectures into a hundred candidates;
    3. draws for every candidate one number from the normal distribution with the mean and the standard deviation of the
       networks' predictions, and proposes the k candidates with the largest (independent Thompson sampling).

Where this file differs from the paper:
    * The networks learn standardised accuracies; the paper's learn errors in percent.
    * A mutation changes exactly one choice of the space. naszilla redraws every edge of a NAS-Bench-201 cell with
      probability 1/4, so about one and a half of them.
    * Candidates that run short, since most neighbours of the best architectures are known, are made up for by random ones;
      `random_candidates` adds some in any case (naszilla's `mutation_random`; 0, as there, is the default).
    * At most `max_points` architectures are trained on, so that the cost of an iteration is bounded.
    * On spaces without paths the encoding is one-hot; the truncated encoding of darts is described in `encodings`.
    * A failed trial (NaN) counts as the worst value that was seen, so that the search leaves the region.

Networks as small as these spend their time between operations and not in them. The ensemble is therefore trained as one
network of three-dimensional arrays, with the gradient written out. It is in double precision: training amplifies rounding
errors, which differ from one machine to the next, and with so many digits to spare they seldom reach an architecture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .encodings import ENCODINGS, Encoding, encode, has_paths
from .gp_bo import History, standardise

Array = npt.NDArray[np.float64]


class Bananas(Optimizer):
    """Neural ensemble, independent Thompson sampling, candidates that are mutations of the best.

    An iteration costs `epochs * min(n, max_points) / batch_size` training steps for n trials so far.

    Args:
        num_init: random architectures at the start.
        k: architectures that an iteration proposes.
        candidates: how many mutated architectures the k are chosen from.
        parents: how many of the best architectures are mutated, the best first until there are enough candidates.
        random_candidates: how many random architectures they are chosen from in addition.
        encoding: `truncated_path`, `path` or `one_hot`; on a space without paths always one-hot.
        ensemble: number of networks.
        layers: hidden layers of a network.
        width: units of a hidden layer.
        epochs: passes over the data per training.
        batch_size: architectures per training step.
        learning_rate: of Adam.
        max_points: train on so many architectures at most, the best half and the most recent half of what is left.

    Presets: `fast` trains shallower networks for fewer epochs.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"fast": {"layers": 3, "epochs": 50}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        num_init: int = 10,
        k: int = 10,
        candidates: int = 100,
        parents: int = 5,
        random_candidates: int = 0,
        encoding: Encoding = "truncated_path",
        ensemble: int = 5,
        layers: int = 10,
        width: int = 20,
        epochs: int = 150,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        max_points: int = 500,
    ) -> None:
        super().__init__(space, rng)
        if min(num_init, k, candidates, parents, ensemble, layers, width, epochs, batch_size) < 1:
            raise ValueError(
                "num_init, k, candidates, parents, ensemble, layers, width, epochs and batch_size must be at least 1, not"
                f" {num_init}, {k}, {candidates}, {parents}, {ensemble}, {layers}, {width}, {epochs} and {batch_size}"
            )
        if random_candidates < 0 or max_points < 2:
            raise ValueError(
                "random_candidates must not be negative and max_points at least 2, not"
                f" {random_candidates} and {max_points}"
            )
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r}")
        if not 0 < learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive and finite, not {learning_rate}")
        self.num_init = num_init
        self.k = k
        self.candidates = candidates
        self.parents = parents
        self.random_candidates = random_candidates
        self.encoding: Encoding = encoding if has_paths(space) else "one_hot"
        self.networks = MLPEnsemble(ensemble, layers, width, epochs, batch_size, learning_rate)
        self.max_points = max_points
        self._told = History(space)
        self._queue: deque[Architecture] = deque()
        self._n_asked = 0

    def ask(self) -> Proposal:
        """A random architecture `num_init` times, then the k architectures of an iteration one by one.

        An architecture that was told before is no candidate. Where mutating and drawing at random find nothing else, as in
        a space that is exhausted, the proposal is a random architecture again.
        """
        self._n_asked += 1
        if self._n_asked <= self.num_init or not self._told.any_success:
            return Proposal(self._told.sample_new(self.rng))
        if not self._queue:
            self._queue.extend(self._iteration())
        return Proposal(self._queue.popleft())

    def tell(self, trial: Trial) -> None:
        self._told.add(trial)

    def _iteration(self) -> list[Architecture]:
        candidates = self._told.mutations(self.rng, self.parents, self.candidates, self.candidates)
        randoms = max(self.random_candidates, self.k - len(candidates))
        candidates += self._told.random(self.rng, randoms, but=candidates)
        if len(candidates) <= 1:  # nothing to choose from
            return candidates or [self.space.sample(self.rng)]
        archs, values = self._told.points(self.max_points)
        self.networks.fit(self._encode(archs), standardise(values), self.rng)
        predicted = self.networks.predict(self._encode(candidates))
        samples = self.rng.normal(predicted.mean(axis=0), predicted.std(axis=0))
        return [candidates[i] for i in np.argsort(-samples, kind="stable")[: self.k]]

    def _encode(self, archs: Sequence[Architecture]) -> Array:
        return encode(self.space, archs, self.encoding).astype(np.float64)


class MLPEnsemble:
    """Feed-forward networks with ReLU, each trained by itself to the least mean absolute error, all at the same time.

    Every array of parameters or activations has the networks as its first axis. Networks differ in their initial weights
    (uniform, Glorot and Bengio 2010; biases 0) and in the order in which they see the data. The optimizer is Adam with
    beta_2 = 0.99, as in naszilla. The arguments are those of `Bananas`.
    """

    def __init__(
        self, ensemble: int, layers: int, width: int, epochs: int, batch_size: int, learning_rate: float
    ) -> None:
        self.ensemble, self.layers, self.width = ensemble, layers, width
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self._layers: list[
            tuple[Array, Array]
        ] = []  # weights (ensemble, inputs, outputs) and biases (ensemble, 1, outputs)

    def initialise(self, columns: int, rng: np.random.Generator) -> Array:
        """Draw weights. Returns all parameters as one vector; the layers are views of it."""
        widths = [columns, *[self.width] * self.layers, 1]
        parameters = np.zeros(self.ensemble * sum((a + 1) * b for a, b in pairwise(widths)))
        self._layers = self._views(parameters, widths)
        for weights, _ in self._layers:
            bound = np.sqrt(6.0 / (weights.shape[1] + weights.shape[2]))
            weights[:] = rng.uniform(-bound, bound, weights.shape)
        return parameters

    def fit(self, x: Array, y: Array, rng: np.random.Generator) -> None:
        """Train anew on `x`, `(n, columns)`, and `y`, `(n,)`."""
        n, columns = x.shape
        parameters = self.initialise(columns, rng)
        gradient = np.zeros_like(parameters)
        slopes = self._views(gradient, [columns, *[self.width] * self.layers, 1])
        first, second, step = np.zeros_like(parameters), np.zeros_like(parameters), 0
        for _ in range(self.epochs):
            order = rng.permuted(np.tile(np.arange(n), (self.ensemble, 1)), axis=1)
            for start in range(0, n, self.batch_size):
                rows = order[:, start : start + self.batch_size]  # (ensemble, batch)
                self.backward(x[rows], y[rows][..., None], slopes)
                step += 1  # Adam: Kingma and Ba 2015, algorithm 1
                first += 0.1 * (gradient - first)
                second += 0.01 * (gradient * gradient - second)
                rate = self.learning_rate / (1 - 0.9**step)
                parameters -= rate * first / (np.sqrt(second / (1 - 0.99**step)) + 1e-8)

    def forward(self, x: Array) -> list[Array]:
        """The inputs `(ensemble, n, columns)` and the output of every layer, the last of which is `(ensemble, n, 1)`."""
        outputs = [x]
        for i, (weights, biases) in enumerate(self._layers):
            outputs.append(outputs[-1] @ weights + biases)
            if i < self.layers:
                np.maximum(outputs[-1], 0.0, out=outputs[-1])
        return outputs

    def backward(self, x: Array, y: Array, slopes: Sequence[tuple[Array, Array]]) -> None:
        """Write the gradient of every network's mean |prediction - y| to `slopes`, shaped as the layers."""
        outputs = self.forward(x)
        delta = np.sign(outputs.pop() - y) / y.shape[1]
        for (weights, _), (by_weights, by_biases) in zip(reversed(self._layers), reversed(slopes), strict=True):
            inputs = outputs.pop()
            np.matmul(inputs.transpose(0, 2, 1), delta, out=by_weights)
            np.sum(delta, axis=1, keepdims=True, out=by_biases)
            if outputs:
                delta = (delta @ weights.transpose(0, 2, 1)) * (inputs > 0)

    def predict(self, x: Array) -> Array:
        """The prediction of every network for n rows, `(ensemble, n)`."""
        return self.forward(np.broadcast_to(x, (self.ensemble, *x.shape)))[-1][..., 0]

    def _views(self, parameters: Array, widths: Sequence[int]) -> list[tuple[Array, Array]]:
        views, end = [], 0
        for a, b in pairwise(widths):
            start, middle, end = end, end + self.ensemble * a * b, end + self.ensemble * (a + 1) * b
            views.append(
                (
                    parameters[start:middle].reshape(self.ensemble, a, b),
                    parameters[middle:end].reshape(self.ensemble, 1, b),
                )
            )
        return views
