"""Neural predictor: a graph convolutional network learns to rank architectures, and the best of its ranking are trained.

Wen, Liu, Chen, Li, Bender and Kindermans, "Neural Predictor for Neural Architecture Search", ECCV 2020, sections 3 and 4.1.
https://arxiv.org/abs/1912.00848

    1. Train N random architectures.
    2. Fit the regression model to them.
    3. Predict the accuracy of many architectures and train the K that are predicted to be best.

Where this file differs from the paper:
    * The paper stops after step 3, with N and K fixed beforehand. Here steps 2 and 3 are repeated until the budget ends; each
      round fits a new model to all trials so far. A round has K proposals, or a fourth of all trials told so far where that
      is more: the fit takes time in proportion to the trials, so its time per trial stays the same however long the search.
    * N = 100 and a network of 64 features instead of 144, trained for 100 epochs instead of 300 at a higher learning rate. It
      ranks the cells of digits201 as well (Spearman correlation 0.63 after 150 random ones, the paper's setting 0.65) in an
      eighth of the time. The preset `paper` has the paper's values, among them N = 172.
    * One regressor. On NAS-Bench-101 the paper first sorts out what a second network classifies as below 91 % accuracy.
    * Step 3 predicts the whole space if it has at most `pool` architectures, otherwise as many random ones (four times the
      round where that is more), anew in each round. The paper predicts all 423,624 cells of NAS-Bench-101, and 112,000 random
      networks of its ImageNet space.
    * Accuracies are standardized before the fit; weights start from Xavier's uniform distribution; there is dropout after
      every graph convolution and after the hidden layer. The paper is silent on these.
    * An architecture that was evaluated, or failed, is not proposed again. Once none is left to find, proposals are random.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .drawing import can_enumerate, sample_new
from .graphs import Graphs, graph_encoder

_CHUNK = 1000  # graphs that are predicted at once


class GraphConvolutionalRegressor:
    """The paper's regression model: directed graph convolutions, the mean over the nodes, one hidden layer.

    A graph convolution lets information flow both ways along the edges (section 3.2, equation 2),

        V' = ReLU(A V W) / 2 + ReLU(A' V U) / 2,

    where A and A' are the adjacency matrix and its transpose, each with self-loops and rows that sum to one.

    It computes in double precision, so that rounding, which differs from one machine to the next, does not decide a ranking.

    Args:
        layers: number of graph convolutions.
        width: their number of features per node.
        hidden: units of the fully connected layer.
        dropout: probability of dropout, in [0, 1).
    """

    def __init__(self, *, layers: int, width: int, hidden: int, dropout: float) -> None:
        self.layers, self.width, self.hidden, self.dropout = layers, width, hidden, dropout
        self._weights: list[Tensor] = []
        self._mean, self._std = 0.0, 1.0

    def fit(
        self,
        graphs: Graphs,
        values: npt.NDArray[np.float64],
        generator: torch.Generator,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        """Minimize the squared error by Adam, whose learning rate falls to zero along a cosine.

        Args:
            graphs: n of them.
            values: their accuracies, `(n,)`, finite.
            generator: the only source of chance.
            epochs, batch_size, learning_rate, weight_decay: of Adam.
        """
        self._mean, self._std = float(values.mean()), float(values.std()) or 1.0
        types, forward, backward = _tensors(graphs)
        target = torch.from_numpy((values - self._mean) / self._std)
        shapes = [(types.shape[2], 2 * self.width), *[(self.width, 2 * self.width)] * (self.layers - 1)]
        self._weights = [
            *(_xavier(rows, columns, columns // 2, generator) for rows, columns in shapes),
            _xavier(self.width, self.hidden, self.hidden, generator),
            _xavier(self.hidden, 1, 1, generator),
        ]
        adam = torch.optim.Adam(self._weights, learning_rate, weight_decay=weight_decay, fused=True)
        for epoch in range(epochs):
            adam.param_groups[0]["lr"] = learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2
            for batch in torch.split(torch.randperm(len(target), generator=generator), batch_size):
                predicted = self._forward(types[batch], forward[batch], backward[batch], generator)
                loss = ((predicted - target[batch]) ** 2).mean()
                adam.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                adam.step()

    @torch.no_grad()
    def predict(self, graphs: Graphs) -> npt.NDArray[np.float64]:
        """Predicted accuracies, `(n,)`."""
        parts = [
            self._forward(*_tensors(Graphs(graphs.adjacency[i : i + _CHUNK], graphs.types[i : i + _CHUNK])), None)
            for i in range(0, len(graphs.types), _CHUNK)
        ]
        return np.asarray(torch.cat(parts).numpy() * self._std + self._mean)

    def _forward(self, types: Tensor, forward: Tensor, backward: Tensor, generator: torch.Generator | None) -> Tensor:
        """Standardized predictions, `(n,)`; without a generator there is no dropout."""
        *convolutions, to_hidden, to_output = self._weights
        present = types.sum(dim=2)
        states = types
        for weight in convolutions:
            there, back = torch.split(states @ weight, self.width, dim=2)
            states = self._drop((torch.relu(forward @ there) + torch.relu(backward @ back)) / 2, generator)
        pooled = states.sum(dim=1) / present.sum(dim=1, keepdim=True)
        return (self._drop(torch.relu(pooled @ to_hidden), generator) @ to_output)[:, 0]

    def _drop(self, states: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is None or not self.dropout:
            return states
        keep = torch.rand(states.shape, generator=generator) >= self.dropout
        return states * keep / (1 - self.dropout)


def _tensors(graphs: Graphs) -> tuple[Tensor, Tensor, Tensor]:
    """Node types, and the adjacency matrices of both directions with self-loops and rows that sum to one."""
    types = torch.from_numpy(graphs.types).double()
    adjacency = torch.from_numpy(graphs.adjacency.astype(np.float64))
    loops = torch.diag_embed(types.sum(dim=2))  # none for padding

    def normalized(matrix: Tensor) -> Tensor:
        return matrix / matrix.sum(dim=2, keepdim=True).clamp(min=1)

    # Row i of the forward matrix gathers what node i feeds, that of the backward matrix what feeds it.
    return types, normalized(adjacency + loops), normalized(adjacency.mT + loops)


def _xavier(rows: int, columns: int, fan_out: int, generator: torch.Generator) -> Tensor:
    bound = math.sqrt(6 / (rows + fan_out))
    uniform = torch.rand(rows, columns, dtype=torch.float64, generator=generator)
    return ((2 * uniform - 1) * bound).requires_grad_()


class NeuralPredictor(Optimizer):
    """Random architectures first, then rounds of the best predictions of a graph convolutional network.

    Args:
        initial: random architectures before the first fit (N; paper: 172 on NAS-Bench-101).
        top: the fewest proposals of a round (K).
        pool: architectures that are predicted in each round; a space with no more than that is predicted in whole.
        layers: graph convolutions (paper: 3).
        width: features per node (paper: 144).
        hidden: units of the fully connected layer (paper: 128).
        epochs, batch_size, learning_rate, weight_decay: of the fit by Adam (paper: 300, 10, 1e-4 and 1e-3).
        dropout: probability of dropout (paper: 0.1).

    Presets: `paper` has the paper's values; `quick` is a small network for trying things out, not for results.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "initial": 172,
            "width": 144,
            "hidden": 128,
            "epochs": 300,
            "batch_size": 10,
            "learning_rate": 1e-4,
        },
        "quick": {
            "initial": 20,
            "top": 25,
            "pool": 300,
            "layers": 2,
            "width": 12,
            "hidden": 12,
            "epochs": 15,
            "batch_size": 20,
            "learning_rate": 0.02,
        },
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        initial: int = 100,
        top: int = 25,
        pool: int = 20_000,
        layers: int = 3,
        width: int = 64,
        hidden: int = 64,
        epochs: int = 100,
        batch_size: int = 20,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(space, rng)
        counts = {"initial": initial, "top": top, "pool": pool, "layers": layers, "width": width, "hidden": hidden}
        for name, count in (counts | {"epochs": epochs, "batch_size": batch_size}).items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        if not learning_rate > 0 or not weight_decay >= 0:
            raise ValueError(
                f"learning_rate must be positive and weight_decay not negative, not {learning_rate} and {weight_decay}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), not {dropout}")
        self.initial, self.top, self.pool = initial, top, pool
        self.epochs, self.batch_size = epochs, batch_size
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.regressor = GraphConvolutionalRegressor(layers=layers, width=width, hidden=hidden, dropout=dropout)
        self._encode = graph_encoder(space)
        self._seen: set[Architecture] = set()  # told, by `space.identity`
        self._archs: list[Architecture] = []  # of the trials that did not fail
        self._values: list[float] = []
        self._n_told = 0
        self._round: deque[Architecture] = deque()
        self._whole: list[Architecture] | None = None  # the space, if it fits into the pool

    def ask(self) -> Proposal:
        """A random architecture until N were told, then the next of the round's best predictions."""
        if self._n_told < self.initial or not self._values:
            return Proposal(sample_new(self.space, self.rng, self._seen))
        if not self._round:
            size = max(self.top, self._n_told // 4)
            self._round.extend(self._best_predictions(size))
            if not self._round:  # everything in the pool is known
                self._round.extend(sample_new(self.space, self.rng, self._seen) for _ in range(size))
        return Proposal(self._round.popleft())

    def tell(self, trial: Trial) -> None:
        self._n_told += 1
        self._seen.add(self.space.identity(trial.arch))
        if trial.value == trial.value:
            self._archs.append(trial.arch)
            self._values.append(trial.value)

    def _best_predictions(self, size: int) -> list[Architecture]:
        """Fit the network and return the unknown architectures of the pool that it predicts to be best, at most `size`."""
        pool = [arch for arch in self._pool(4 * size) if arch not in self._seen]
        if not pool:
            return []
        self.regressor.fit(
            self._encode(self._archs),
            np.array(self._values),
            torch.Generator().manual_seed(int(self.rng.integers(1 << 62))),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )
        predicted = self.regressor.predict(self._encode(pool))
        ranking = np.lexsort((self.rng.random(len(pool)), -predicted)).tolist()  # ties at random
        return list(_first(size, self._new(pool[i] for i in ranking)))

    def _pool(self, at_least: int) -> list[Architecture]:
        if self._whole is not None:
            return self._whole
        if can_enumerate(self.space, self.pool):
            self._whole = list(self.space)
            return self._whole
        return list(dict.fromkeys(self.space.sample(self.rng) for _ in range(max(self.pool, at_least))))

    def _new(self, archs: Iterable[Architecture]) -> Iterator[Architecture]:
        """Those that were not told yet, each once."""
        taken: set[Architecture] = set()
        for arch in archs:
            identity = self.space.identity(arch)
            if identity not in self._seen and identity not in taken:
                taken.add(identity)
                yield arch


def _first(n: int, archs: Iterator[Architecture]) -> Iterator[Architecture]:
    return (arch for _, arch in zip(range(n), archs, strict=False))
