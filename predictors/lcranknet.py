"""LCRankNet: a network learns which of two trainings ends higher, from the beginnings of both, also across datasets.

Wistuba and Pedapati, "Learning to Rank Learning Curves", ICML 2020.
https://arxiv.org/abs/2006.03361
The ranking loss: Burges et al., "Learning to Rank using Gradient Descent", ICML 2005 (RankNet).

    score s = f(y_1..m, architecture, dataset)
    p_ij    = 1 / (1 + exp(-(s_i - s_j)))
    loss    = alpha * mean over pairs of -P log p_ij - (1 - P) log(1 - p_ij) + (1 - alpha) * reconstruction

with P = 1 where i ends higher, 0 where j does, 1/2 where they end within `eps`. Pairs are trainings on the same dataset, both
cut after the same number of epochs m, so that accuracies of different datasets or lengths are never compared.

    curve         causal convolutions of 2, 3, 4 and 5 epochs, maximum over time, leaky ReLU, dropout
    architecture  embedding of the choices, LSTM, its last state; a second LSTM spells the architecture again (reconstruction)
    dataset       embedding of length 2, one for "unknown"; training replaces the dataset by it at random
    score         the three together, a hidden layer with leaky ReLU, one number

Looks at: validation accuracy and the architecture. Needs: complete curves, of the task or of other datasets (`meta`), or both.

Where this file differs from the paper:
    * The parts, the loss and the transfer are the paper's. Its numbers of filters and units, optimizer, steps, lengths m, ties
      and weights of the losses were not at hand: those here are this file's own.
    * There is no input for training hyper-parameters: a benchmark trains all architectures alike.
    * Accuracies are standardized by the mean and the standard deviation of all training accuracies.
    * All rows of a batch have the same m, so there is nothing to mask. The maximum is over windows that begin with zeros
      before the first epoch: one observed epoch is enough.
    * The paper compares p_ij with delta, which is not calibrated. Here the score differences are calibrated for each check
      point (see calibration.py), from 20 trainings on with trainings that the network did not learn from.
    * A dataset's own embedding is used from `own` complete trainings on.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..benchmarks.workers import one_torch_thread
from .base import Curves, Prediction, Predictor
from .calibration import fit_calibration

if TYPE_CHECKING:
    import torch

_KERNELS = (2, 3, 4, 5)
_LONGEST = max(_KERNELS)
_SLOPE = 0.1  # of the leaky ReLU below zero
_DATASET = 2  # length of a dataset's embedding
_HELD_OUT = 0.2  # share of the trainings that calibrate only, at least 10, where there are 20
_ROWS = 1024  # predicted at once


class LCRankNet(Predictor):
    """Scores of a network that was trained to rank learning curves pairwise.

    Without enough curves to pair, nothing can be said of any training.

    Args:
        rng: seeds weights, batches and dropout, and chooses what is held out.
        filters: of each of the four convolutions.
        embedding: length of the embedding of a choice.
        hidden: length of the LSTM's state, and of the decoder's.
        units: of the layer before the score.
        alpha: share of the ranking loss, in (0, 1]; the rest is that of the reconstruction, which 1 leaves out.
        eps: difference of two final accuracies up to which they count as equal, a fraction: the noise of a training's seed.
        longest: curves are cut after 1 to `longest` epochs for training, as a share of the full training.
        unknown: probability that training hides which dataset a pair is of.
        own: complete trainings of the task from which on its own dataset embedding is used.
        dropout: of the curve's features.
        steps, pairs, learning_rate, weight_decay: of the training by Adam; pairs are per step.

    Presets: `quick` is a small network for trying things out, not for results.

    Raises:
        ValueError: a hyper-parameter is out of its range.
    """

    growth = 4.0
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"filters": 8, "embedding": 4, "hidden": 8, "units": 16, "steps": 150, "pairs": 64}
    }
    needs_curves: ClassVar[int] = 5
    uses: ClassVar[frozenset[str]] = frozenset({"accuracy", "arch", "meta"})

    def __init__(
        self,
        rng: np.random.Generator,
        *,
        filters: int = 32,
        embedding: int = 8,
        hidden: int = 32,
        units: int = 64,
        alpha: float = 0.8,
        eps: float = 0.001,
        longest: float = 0.6,
        unknown: float = 0.4,
        own: int = 5,
        dropout: float = 0.1,
        steps: int = 800,
        pairs: int = 128,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__(rng)
        counts = {"filters": filters, "embedding": embedding, "hidden": hidden, "units": units, "own": own}
        for name, count in (counts | {"steps": steps, "pairs": pairs}).items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        for name, share in {"alpha": alpha, "longest": longest}.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {share}")
        for name, probability in {"unknown": unknown, "dropout": dropout}.items():
            if not 0 <= probability < 1:
                raise ValueError(f"{name} must be in [0, 1), not {probability}")
        if eps < 0 or weight_decay < 0 or not learning_rate > 0:
            raise ValueError("eps and weight_decay must not be negative, and learning_rate must be positive")
        self.filters, self.embedding, self.hidden, self.units = filters, embedding, hidden, units
        self.alpha, self.eps, self.longest, self.unknown, self.own = alpha, eps, longest, unknown, own
        self.dropout, self.steps, self.pairs = dropout, steps, pairs
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._network: _Network | None = None
        self._own: dict[int, int] = {}  # dataset of the task -> row of its embedding

    def fit(self, curves: Curves, checks: Sequence[int], meta: Curves | None = None) -> None:
        """As `Predictor.fit`, but trainings that the network does not learn from calibrate, where there are enough."""
        of_task = meta is None or len(curves) >= 10
        known = curves if of_task or meta is None else meta
        held = _hold_out(known.group, self.rng) if known.complete else np.empty(0, dtype=np.int64)
        if not len(held):
            super().fit(curves, checks, meta)
            return
        # An architecture that is held out is held out on every dataset.
        super().fit(
            curves.rows(~np.isin(curves.group, held)),
            checks,
            None if meta is None else meta.rows(~np.isin(meta.group, held)),
        )
        unseen = known.rows(np.isin(known.group, held))
        for m in self._calibrations:
            prediction = self.predict(unseen.observed(m))
            score = np.where(prediction.ok, prediction.score, np.nan)
            self._calibrations[m] = fit_calibration(score, unseen.final)

    def learn(self, curves: Curves, checks: Sequence[int], meta: Curves | None) -> None:
        self._network, self._own = None, {}
        parts = [curves] if meta is None else [curves, meta]
        accuracy = np.concatenate([part.accuracy for part in parts])
        arch = np.concatenate([part.arch for part in parts])
        usable = np.isfinite(accuracy).all(axis=1)
        # The task may have the number of another dataset: the two stay apart.
        dataset = np.concatenate([np.stack((np.full(len(p), i), p.dataset), axis=1) for i, p in enumerate(parts)])
        names, of, size = np.unique(dataset[usable], axis=0, return_inverse=True, return_counts=True)
        of = of.reshape(-1)
        paired = size[of] > 1
        if not paired.any():
            return
        self._own = {
            int(name): row
            for row, ((part, name), n) in enumerate(zip(names, size, strict=True))
            if part == 0 and n >= self.own
        }
        import torch

        generator = torch.Generator().manual_seed(int(self.rng.integers(1 << 62)))
        with one_torch_thread():
            network = _Network(self, len(names), curves.cardinalities, generator)
            network.train(
                torch.tensor(accuracy[usable][paired], dtype=torch.float32),
                torch.tensor(arch[usable][paired]),
                torch.tensor(of[paired]),
                generator,
                self,
            )
        self._network = network

    def predict(self, observed: Curves) -> Prediction:
        network = self._network
        if network is None:
            return Prediction.of_score(np.full(len(observed), np.nan))
        import torch

        accuracy = np.nan_to_num(observed.accuracy)
        dataset = np.array([self._own.get(int(d), network.unknown) for d in observed.dataset], dtype=np.int64)
        score = np.empty(len(observed))
        with one_torch_thread(), torch.inference_mode():
            for start in range(0, len(observed), _ROWS):
                rows = slice(start, start + _ROWS)
                curve = torch.tensor(accuracy[rows], dtype=torch.float32)
                arch = torch.tensor(observed.arch[rows])
                score[rows] = network.score(curve, network.encode(arch)[0], torch.tensor(dataset[rows])).numpy()
        return Prediction.of_score(score, np.isfinite(observed.accuracy).all(axis=1))


def _hold_out(group: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Groups with about a fifth of the trainings and at least 10; none where there are too few."""
    if len(group) < 20:
        return np.empty(0, dtype=np.int64)
    groups, sizes = np.unique(group, return_counts=True)
    order = rng.permutation(len(groups))
    n = int(np.searchsorted(np.cumsum(sizes[order]), max(10, _HELD_OUT * len(group)))) + 1
    # One huge group cannot be on both sides.
    return groups[order[:n]] if sizes[order[:n]].sum() <= len(group) / 2 else np.empty(0, dtype=np.int64)


class _Network:
    """The weights, and what is computed with them.

    Args:
        settings: the hyper-parameters.
        datasets: how many there are, besides "unknown".
        cardinalities: of the space. Each choice of each dimension is a token of its own; one more starts the spelling.
        generator: what the weights are drawn from.
    """

    def __init__(
        self, settings: LCRankNet, datasets: int, cardinalities: tuple[int, ...], generator: torch.Generator
    ) -> None:
        import torch
        from torch import nn

        self.unknown = datasets
        starts = list(itertools.accumulate(cardinalities, initial=0))
        self.n_tokens = starts[-1]
        self.starts = torch.tensor(starts[:-1])
        tokens = torch.arange(self.n_tokens)
        self.forbidden = torch.stack(
            [(tokens < start) | (tokens >= start + n) for start, n in zip(starts, cardinalities, strict=False)]
        )
        filters, embedding, hidden = settings.filters, settings.embedding, settings.hidden
        # Made without values, so that no generator but ours is drawn from.
        self.tokens = nn.Embedding(self.n_tokens + 1, embedding, device="meta")
        self.datasets = nn.Embedding(datasets + 1, _DATASET, device="meta")
        self.encoder = nn.LSTM(embedding, hidden, batch_first=True, device="meta")
        self.decoder = nn.LSTM(embedding, hidden, batch_first=True, device="meta")
        self.speaker = nn.Linear(hidden, self.n_tokens, device="meta")
        features = len(_KERNELS) * filters
        self.inner = nn.Linear(features + hidden + _DATASET, settings.units, device="meta")
        self.outer = nn.Linear(settings.units, 1, device="meta")
        modules: list[tuple[nn.Module, float]] = [
            (self.tokens, 1.0),
            (self.datasets, 1.0),
            (self.encoder, hidden**-0.5),
            (self.decoder, hidden**-0.5),
            (self.speaker, hidden**-0.5),
            (self.inner, self.inner.in_features**-0.5),
            (self.outer, settings.units**-0.5),
        ]
        self.parameters: list[nn.Parameter] = []
        for module, bound in modules:
            module.to_empty(device="cpu")
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
                self.parameters.append(parameter)
        # The four convolutions in one of the longest kernel: a shorter one has zeros at the earliest epochs.
        lengths = torch.tensor(_KERNELS).repeat_interleave(filters)
        self.taps = (torch.arange(_LONGEST)[:, None] >= _LONGEST - lengths).float()  # (5, features)
        draws = torch.rand((_LONGEST + 1, features), generator=generator) * 2 - 1
        self.kernel = nn.Parameter(draws[:-1] * lengths**-0.5)
        self.bias = nn.Parameter(draws[-1] * lengths**-0.5)
        self.parameters += [self.kernel, self.bias]
        self.mean, self.scale = 0.0, 1.0  # of the accuracies
        self.dropout = settings.dropout

    def features(self, curve: torch.Tensor) -> torch.Tensor:
        """Maximum over time of the convolutions of curves `(n, m)`: `(n, features)`."""
        import torch
        from torch.nn import functional

        padded = functional.pad((curve - self.mean) / self.scale, (_LONGEST - 1, 0))
        windows = padded.unfold(1, _LONGEST, 1)  # (n, m, 5)
        kernel = self.kernel * self.taps
        if not torch.is_grad_enabled():
            return functional.leaky_relu((windows @ kernel).amax(dim=1) + self.bias, _SLOPE)
        # Only the window of the maximum has a gradient: the others are not kept for it.
        with torch.no_grad():
            where = (windows @ kernel).argmax(dim=1)  # (n, features)
        best = windows[torch.arange(len(curve))[:, None], where]  # (n, features, 5)
        return functional.leaky_relu((best * kernel.T).sum(dim=2) + self.bias, _SLOPE)

    def encode(self, arch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The encoder's last state `(n, hidden)`, and the tokens `(n, dimensions)`, of architectures."""
        tokens = arch + self.starts
        return self.encoder(self.tokens(tokens))[0][:, -1], tokens

    def score(
        self,
        curve: torch.Tensor,
        encoded: torch.Tensor,
        dataset: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Scores `(n,)`; with a generator, for training, some features are dropped."""
        import torch
        from torch.nn import functional

        features = self.features(curve)
        if generator is not None and self.dropout:
            kept = torch.rand(features.shape, generator=generator) >= self.dropout
            features = features * kept / (1 - self.dropout)
        joined = torch.cat((features, encoded, self.datasets(dataset)), dim=1)
        scores: torch.Tensor = self.outer(functional.leaky_relu(self.inner(joined), _SLOPE))
        return scores[:, 0]

    def surprise(self, encoded: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of spelling the architectures from their encodings, word after word."""
        import torch
        from torch.nn import functional

        start = torch.full((len(tokens), 1), self.n_tokens)
        heard = self.tokens(torch.cat((start, tokens[:, :-1]), dim=1))
        memory = (encoded[None].contiguous(), torch.zeros_like(encoded)[None])
        said = self.speaker(self.decoder(heard, memory)[0]).masked_fill(self.forbidden, -torch.inf)
        return functional.cross_entropy(said.flatten(0, 1), tokens.flatten())

    def train(
        self,
        accuracy: torch.Tensor,
        arch: torch.Tensor,
        dataset: torch.Tensor,
        generator: torch.Generator,
        settings: LCRankNet,
    ) -> None:
        """Minimize the loss by Adam.

        Args:
            accuracy: complete curves `(n, epochs)`, finite.
            arch: `(n, dimensions)`.
            dataset: rows of the datasets' embeddings `(n,)`; no dataset has one curve only.
            generator: the only source of chance.
            settings: the hyper-parameters.
        """
        import torch
        from torch.nn import functional

        n, epochs = accuracy.shape
        order = torch.argsort(
            dataset, stable=True
        )  # a dataset's curves one after the other: a partner is a rotation away
        accuracy, arch, dataset = accuracy[order], arch[order], dataset[order]
        sizes = torch.bincount(dataset)
        first = (sizes.cumsum(0) - sizes)[dataset]
        size = sizes[dataset]
        final = accuracy[:, -1].double()
        self.mean, self.scale = float(accuracy.mean()), float(accuracy.std(correction=0)) or 1.0
        most = max(1, round(settings.longest * epochs))
        adam = torch.optim.Adam(self.parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        for _ in range(settings.steps):
            m = int(torch.randint(1, most + 1, (), generator=generator))
            i = torch.randint(n, (settings.pairs,), generator=generator)
            turn = (torch.rand(settings.pairs, generator=generator) * (size[i] - 1)).long() + 1  # 1..size - 1
            j = first[i] + (i - first[i] + turn) % size[i]
            difference = final[i] - final[j]
            target = torch.where(difference.abs() <= settings.eps, 0.5, (difference > 0).double()).float()
            hidden = torch.rand(settings.pairs, generator=generator) < settings.unknown
            of = torch.where(hidden, self.unknown, dataset[i])
            both = torch.cat((i, j))
            encoded, tokens = self.encode(arch[both])
            score = self.score(accuracy[both, :m], encoded, torch.cat((of, of)), generator)
            loss = functional.binary_cross_entropy_with_logits(
                score[: settings.pairs] - score[settings.pairs :], target
            )
            if settings.alpha < 1:
                loss = settings.alpha * loss + (1 - settings.alpha) * self.surprise(encoded, tokens)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
