"""NAO: architectures become points of a continuous space, and gradient ascent there leads to better ones.

Luo, Tian, Qin, Chen and Liu, "Neural Architecture Optimization", NeurIPS 2018, Algorithm 1 and section 3.
https://arxiv.org/abs/1808.07233

An LSTM encoder reads the choices of an architecture; its hidden states are the embedding H = (h_1, ..., h_T). A predictor maps
their mean to the accuracy, and an LSTM decoder with attention to H spells the architecture again. All three are trained
together on the loss

    lambda * squared error of the predictor + (1 - lambda) * cross-entropy of the decoder.      (equation 1)

    1. Train random architectures.
    2. Fit encoder, predictor and decoder to everything trained so far.
    3. Move the embedding of each of the best architectures by a gradient step, h_t + eta * df/dh_t (equation 2), and decode it.
    4. Train the new architectures; go on with 2.

Where this file differs from the paper:
    * Rounds go on until the budget ends; the paper stops after a few. A round has `batch` proposals, or half as many as there
      were trials before it where that is more, so that the time for the fits per trial stays the same however long the search.
    * As in the authors' code, the step grows, eta, 2 eta, 3 eta, ..., until there are enough new architectures, at most
      `max_steps` times; hidden states and their mean are scaled to length one, which gives eta its scale. What is missing then
      are mutations of the best architectures.
    * The predictor is linear in the mean embedding, as in the settings of the authors' code, and accuracies are standardized;
      the authors scale them to [0, 1] and end in a sigmoid, whose gradient fades where it matters.
    * Attention comes after the decoder's LSTM and is not fed back, as in the authors' code.
    * A token is a choice in a dimension; the paper's blocks share their tokens. At each step the decoder can only say what
      its dimension can choose, so that it never spells nonsense. Where the space forbids the decoded architecture, it does not
      count as new.
    * N = 100, 50 best, smaller steps, and fits that are smaller and shorter. The preset `paper` has the values of the
      paper and, where it is silent, of the authors' code.
    * No data augmentation, no dropout and no weight decay.
    * An architecture that was evaluated, or failed, is not proposed again. Once none is left to find, proposals are random.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmarks.spaces.base import Architecture, InvalidArchitecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .drawing import TRIES, sample_new

_GRADIENT_NORM = 5.0  # where the authors' code clips gradients


class AutoEncoder(nn.Module):
    """The encoder, the predictor and the decoder, in double precision.

    In double precision, rounding, which differs from one machine to the next, does not decide what is decoded.

    Args:
        cardinalities: of the space.
        embedding: length of a token's embedding.
        hidden: length of the hidden states of both LSTMs.
        generator: what the weights are drawn from.
    """

    starts: Tensor  # of the dimensions' tokens, (dimensions,)
    forbidden: Tensor  # whether a dimension cannot choose a token, (dimensions, tokens)

    def __init__(
        self, cardinalities: tuple[int, ...], *, embedding: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        starts = list(itertools.accumulate(cardinalities, initial=0))
        self.register_buffer("starts", torch.tensor(starts[:-1]))
        tokens = torch.arange(starts[-1])
        allowed = [(tokens >= start) & (tokens < start + n) for start, n in zip(starts, cardinalities, strict=False)]
        self.register_buffer("forbidden", ~torch.stack(allowed))
        # Made without values, so that no generator but ours is drawn from.
        double: dict[str, Any] = {"dtype": torch.float64, "device": "meta"}
        self.tokens = nn.Embedding(starts[-1] + 1, embedding, **double)  # the last one starts a sentence
        self.encoder = nn.LSTM(embedding, hidden, batch_first=True, **double)
        self.predictor = nn.Linear(hidden, 1, **double)
        self.decoder = nn.LSTM(embedding, hidden, batch_first=True, **double)
        self.attended = nn.Linear(2 * hidden, hidden, **double)
        self.speaker = nn.Linear(hidden, starts[-1], **double)
        for module in self.children():
            module.to_empty(device="cpu")
        for name, parameter in self.named_parameters():
            bound = 1.0 if name.startswith("tokens") else hidden**-0.5
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def encode(self, archs: Tensor) -> Tensor:
        """The embedding `(n, dimensions, hidden)` of choices `(n, dimensions)`."""
        states, _ = self.encoder(self.tokens(archs + self.starts))
        return functional.normalize(states, dim=2)

    def predict(self, states: Tensor) -> Tensor:
        """Standardized accuracies `(n,)` of embeddings."""
        output: Tensor = self.predictor(functional.normalize(states.mean(dim=1), dim=1))
        return output[:, 0]

    def decode(self, states: Tensor, archs: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-probabilities `(n, dimensions, tokens)` and the most probable choices `(n, dimensions)`.

        Args:
            states: embeddings.
            archs: what the decoder reads as its own words so far (teacher forcing); by default what it really said.
        """
        n, dimensions, _ = states.shape
        memory = (states[:, -1][None].contiguous(), torch.zeros(1, n, states.shape[2], dtype=states.dtype))
        start = torch.full((n, 1), self.tokens.num_embeddings - 1)
        if archs is not None:
            heard = torch.cat((start, (archs + self.starts)[:, :-1]), dim=1)
            said, _ = self._speak(heard, memory, states, 0)
            return said, said.argmax(dim=2) - self.starts
        word, words = start, []
        for d in range(dimensions):
            said, memory = self._speak(word, memory, states, d)
            words.append(said)
            word = said.argmax(dim=2)
        said = torch.cat(words, dim=1)
        return said, said.argmax(dim=2) - self.starts

    def _speak(
        self, heard: Tensor, memory: tuple[Tensor, Tensor], states: Tensor, first: int
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Log-probabilities of the words after those heard, which are for the dimensions from `first` on."""
        spoken, memory = self.decoder(self.tokens(heard), memory)
        attention = torch.softmax(spoken @ states.mT, dim=2)
        mixed = torch.tanh(self.attended(torch.cat((attention @ states, spoken), dim=2)))
        scores = self.speaker(mixed).masked_fill(self.forbidden[first : first + heard.shape[1]], -torch.inf)
        return torch.log_softmax(scores, dim=2), memory

    def fit(
        self,
        archs: Tensor,
        values: Tensor,
        generator: torch.Generator,
        *,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        trade_off: float,
    ) -> None:
        """Minimize equation 1 by Adam.

        Args:
            archs: choices `(n, dimensions)`.
            values: their standardized accuracies `(n,)`.
            generator: the only source of chance.
            epochs, batch_size, learning_rate: of Adam.
            trade_off: the paper's lambda.
        """
        parameters = list(self.parameters())
        adam = torch.optim.Adam(parameters, learning_rate, fused=True)
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(archs), generator=generator), batch_size):
                states = self.encode(archs[batch])
                error = ((self.predict(states) - values[batch]) ** 2).mean()
                said, _ = self.decode(states, archs[batch])
                surprise = functional.nll_loss(said.flatten(0, 1), (archs[batch] + self.starts).flatten())
                adam.zero_grad()
                (trade_off * error + (1 - trade_off) * surprise).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(parameters, _GRADIENT_NORM)
                adam.step()


class NAO(Optimizer):
    """Encode the best architectures, move them uphill along the predictor's gradient, and decode where they arrive.

    Args:
        initial: random architectures before the first fit (authors' code: 600).
        batch: the fewest proposals of a round (authors' code: 300).
        seeds: the best architectures, from which the gradient steps start (authors' code: 100).
        eta: step size in the embedding (paper: 10).
        max_steps: how often the step grows by eta before mutations take over (authors' code: 50).
        trade_off: share of the predictor in the loss, in (0, 1) (lambda; paper: 0.9).
        embedding: length of a token's embedding (paper: 32).
        hidden: length of the hidden states (paper: 96).
        epochs, batch_size, learning_rate: of the fit by Adam (paper: 1000 and 0.001; 100 in the authors' code).

    Presets: `paper` has the values of the paper and its code; `quick` is a small model for trying things out, not for results.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "initial": 600,
            "batch": 300,
            "seeds": 100,
            "eta": 10.0,
            "max_steps": 50,
            "hidden": 96,
            "epochs": 1000,
            "batch_size": 100,
            "learning_rate": 1e-3,
        },
        "quick": {"initial": 30, "batch": 40, "seeds": 20, "embedding": 8, "hidden": 12, "epochs": 10, "max_steps": 5},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        initial: int = 100,
        batch: int = 50,
        seeds: int = 50,
        eta: float = 1.0,
        max_steps: int = 20,
        trade_off: float = 0.9,
        embedding: int = 32,
        hidden: int = 32,
        epochs: int = 100,
        batch_size: int = 50,
        learning_rate: float = 0.01,
    ) -> None:
        super().__init__(space, rng)
        counts = {"initial": initial, "batch": batch, "seeds": seeds, "max_steps": max_steps, "embedding": embedding}
        for name, count in (counts | {"hidden": hidden, "epochs": epochs, "batch_size": batch_size}).items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        if not eta > 0 or not learning_rate > 0:
            raise ValueError(f"eta and learning_rate must be positive, not {eta} and {learning_rate}")
        if not 0 < trade_off < 1:
            raise ValueError(f"trade_off must be between 0 and 1, not {trade_off}")
        self.initial, self.batch, self.seeds = initial, batch, seeds
        self.eta, self.max_steps, self.trade_off = eta, max_steps, trade_off
        self.embedding, self.hidden = embedding, hidden
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self._seen: set[Architecture] = set()  # told, by `space.identity`
        self._archs: list[Architecture] = []  # of the trials that did not fail
        self._values: list[float] = []
        self._n_told = 0
        self._round: deque[Architecture] = deque()

    def ask(self) -> Proposal:
        """A random architecture until N were told, then the next of the round's new architectures."""
        if self._n_told < self.initial or not self._values:
            return Proposal(sample_new(self.space, self.rng, self._seen))
        if not self._round:
            size = max(self.batch, self._n_told // 2)
            new: dict[Architecture, Architecture] = {}  # by `space.identity`
            seeds = self._best()
            for arch in itertools.chain(self._ascents(seeds), self._mutations(seeds, TRIES + 10 * size)):
                if (identity := self.space.identity(arch)) not in self._seen:
                    new.setdefault(identity, arch)
                    if len(new) == size:
                        break
            self._round.extend(new.values())
            self._round.extend(sample_new(self.space, self.rng, self._seen) for _ in range(size - len(new)))
        return Proposal(self._round.popleft())

    def tell(self, trial: Trial) -> None:
        self._n_told += 1
        self._seen.add(self.space.identity(trial.arch))
        if trial.value == trial.value:
            self._archs.append(trial.arch)
            self._values.append(trial.value)

    def _best(self) -> list[Architecture]:
        """The best architectures told, each once, ties at random."""
        order = np.lexsort((self.rng.random(len(self._values)), -np.array(self._values))).tolist()
        return list(dict.fromkeys(self._archs[i] for i in order))[: self.seeds]

    def _ascents(self, seeds: Sequence[Architecture]) -> Iterator[Architecture]:
        """Fit the model and decode what lies one step uphill from each seed, then two steps, ..."""
        values = np.array(self._values)
        standardized = torch.from_numpy((values - values.mean()) / (values.std() or 1.0))
        generator = torch.Generator().manual_seed(int(self.rng.integers(1 << 62)))
        model = AutoEncoder(self.space.cardinalities, embedding=self.embedding, hidden=self.hidden, generator=generator)
        model.fit(
            torch.tensor(self._archs),
            standardized,
            generator,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            trade_off=self.trade_off,
        )
        starts = model.encode(torch.tensor(seeds)).detach().requires_grad_()
        (uphill,) = torch.autograd.grad(model.predict(starts).sum(), starts)
        with torch.no_grad():
            for step in range(1, self.max_steps + 1):
                _, decoded = model.decode(starts + step * self.eta * uphill)
                yield from filter(self.space.is_valid, map(tuple, decoded.tolist()))

    def _mutations(self, seeds: Sequence[Architecture], n: int) -> Iterator[Architecture]:
        """`n` mutations of the seeds, which take turns."""
        for seed in itertools.islice(itertools.cycle(seeds), n):
            with contextlib.suppress(InvalidArchitecture):  # it has no neighbour
                yield self.space.mutate(seed, self.rng)
