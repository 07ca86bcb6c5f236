"""A recurrent controller trained by reinforcement: the method that began neural architecture search.

Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017, sections 3.1, 3.2 and 4.1.
https://arxiv.org/abs/1611.01578
Zoph, Vasudevan, Shlens and Le, "Learning Transferable Architectures for Scalable Image Recognition", CVPR 2018 (NASNet),
appendix A, which trains it by proximal policy optimization. https://arxiv.org/abs/1707.07012
Schulman et al., "Proximal Policy Optimization Algorithms", 2017, equation 7. https://arxiv.org/abs/1707.06347

The method
    The controller decides one dimension after the other: a two-layer LSTM reads the embedding of the choice before (at first
    a learned start token), and a softmax of its own for each dimension gives the policy pi(a_t | a_1, ..., a_t-1). It samples
    m children, which are evaluated, and learns from all of them in one step of Adam. With rewards R_k, the accuracy cubed,
    and a baseline b, the exponential moving average of the rewards of earlier batches, it follows (section 3.2)

        (1/m) sum_k sum_t (R_k - b) grad log pi(a_t | a_1, ..., a_t-1).

    `algorithm="ppo"` takes several such steps on the same children. With the ratio rho_t of the policy's probability of a
    choice to that under which it was drawn, and A_k = R_k - b, each step raises

        (1/m) sum_k sum_t min(rho_t A_k, clip(rho_t, 1 - clip, 1 + clip) A_k),

    which stops pulling at a choice whose probability has changed by more than `clip`. Its first step is that of REINFORCE.

Where this file differs from the papers:
    * The paper's decisions are the filters, strides and skip connections of a growing network; here they are the dimensions
      of a space, each with its own number of choices.
    * One controller updates from its m children; the paper has 100 replicas, each with m = 8, that share parameters
      asynchronously.
    * The reward is the accuracy that the search sees, cubed; the paper's is the best of the last five epochs, cubed.
    * The paper does not give the baseline's momentum; that of NASNet is taken. The first batch is compared with its own mean.
    * In a constrained space batches are drawn until m children are valid; what is missing after `_TRIES` batches is drawn
      uniformly from the space. The gradient stays that of the unconditioned policy.
    * A failed trial (NaN) is rewarded as the worst so far, its batch included; it is left out if nothing has succeeded yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer
from .reinforce import Adam, Array

_TRIES = 50
_NO_SUCH_CHOICE = -1e9  # logit of the padding; minus infinity would make its term of the entropy NaN

Recurrent = tuple[Tensor, Tensor]


class Controller(nn.Module):
    """The policy over sequences of T choices, in float64 so that a run is the same on machines that round differently.

    Its parameters are views of one flat array, `theta`: whoever changes that array in place changes the policy.

    Args:
        cardinalities: number of choices at each of the T decisions; W is the largest.
        units, layers: of the LSTM; embeddings have the width `units`, too.
    """

    def __init__(self, cardinalities: Sequence[int], units: int, layers: int) -> None:
        super().__init__()
        steps, self.widest = len(cardinalities), max(cardinalities)
        exists = torch.arange(self.widest) < torch.tensor(cardinalities)[:, None]
        self.padding = torch.where(exists, 0.0, _NO_SUCH_CHOICE).double()[:, None]
        with torch.random.fork_rng(devices=[]):  # the modules draw weights that are overwritten below
            self.embedding = nn.Embedding(1 + steps * self.widest, units, dtype=torch.float64)  # 0: start
            self.lstm = nn.LSTM(units, units, layers, dtype=torch.float64)
        self.weight = nn.Parameter(torch.zeros(steps, units, self.widest, dtype=torch.float64))
        self.bias = nn.Parameter(torch.zeros(steps, 1, self.widest, dtype=torch.float64))
        self.theta: Array = np.zeros(sum(p.numel() for p in self.parameters()))
        nn.utils.vector_to_parameters(torch.from_numpy(self.theta), self.parameters())

    @torch.no_grad()
    def sample(self, uniforms: Array) -> npt.NDArray[np.int64]:
        """Draw m sequences of choices, `(m, T)`, from uniform numbers `(T, m)`: each inverts a cumulative distribution."""
        state: Recurrent | None = None
        tokens = torch.zeros(uniforms.shape[1], dtype=torch.int64)
        drawn = []
        for t, u in enumerate(torch.from_numpy(uniforms)):
            hidden, state = self.lstm(self.embedding(tokens)[None], state)
            logits = torch.addmm(self.bias[t] + self.padding[t], hidden[0], self.weight[t])
            cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
            choices = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(dim=-1)
            tokens = 1 + t * self.widest + choices
            drawn.append(choices)
        return torch.stack(drawn, dim=1).numpy()

    def forward(self, archs: npt.NDArray[np.int64]) -> Tensor:
        """Log-probability of every possible choice, given the choices of `archs` `(m, T)` before it: `(T, m, W)`."""
        choices = torch.from_numpy(archs.T.copy())
        tokens = torch.zeros_like(choices)  # what each decision reads: the choice before it
        tokens[1:] = 1 + self.widest * torch.arange(len(tokens) - 1)[:, None] + choices[:-1]
        hidden, _ = self.lstm(self.embedding(tokens))
        return torch.baddbmm(self.bias + self.padding, hidden, self.weight).log_softmax(dim=-1)

    def gradient(self, loss: Tensor) -> Array:
        """Of the loss, with respect to `theta`."""
        gradients = torch.autograd.grad(loss, list(self.parameters()))
        return cast(Array, torch.cat([g.flatten() for g in gradients]).numpy())


class LSTMController(Optimizer):
    """Zoph and Le's controller. It goes on for ever, and repeats architectures as the policy narrows.

    Args:
        units, layers: of the LSTM (paper: 35 and 2).
        init: all weights are drawn from U(-init, init) (paper: 0.08).
        learning_rate: of Adam (paper: 0.0006).
        batch: children m per update (paper: 8).
        momentum: of the baseline, in [0, 1).
        power: the reward is accuracy ** power (paper: 3).
        entropy: weight of the policy's entropy, summed over the decisions, beside the reward (paper: none, 0).
        algorithm: "reinforce" or "ppo".
        clip: how far PPO may change the probability of a choice per update, as a fraction of it.
        epochs: steps of PPO on the same children.

    Presets: `nasnet` is the controller of the NASNet paper, appendix A.2 and A.3; it leaves `clip` and `epochs` of PPO open.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nasnet": {
            "units": 100,
            "layers": 1,
            "init": 0.1,
            "learning_rate": 0.00035,
            "batch": 20,
            "momentum": 0.95,
            "power": 1.0,
            "entropy": 1e-5,
            "algorithm": "ppo",
        }
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        units: int = 35,
        layers: int = 2,
        init: float = 0.08,
        learning_rate: float = 0.0006,
        batch: int = 8,
        momentum: float = 0.95,
        power: float = 3.0,
        entropy: float = 0.0,
        algorithm: Literal["reinforce", "ppo"] = "reinforce",
        clip: float = 0.2,
        epochs: int = 4,
    ) -> None:
        super().__init__(space, rng)
        if min(units, layers, batch, epochs) < 1:
            raise ValueError(
                f"units, layers, batch and epochs must be at least 1: {units}, {layers}, {batch}, {epochs}"
            )
        for name, value in {"init": init, "learning_rate": learning_rate, "power": power, "clip": clip}.items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        if not 0 <= entropy < math.inf:
            raise ValueError(f"entropy must be a finite number from 0, not {entropy}")
        if algorithm not in ("reinforce", "ppo"):
            raise ValueError(f"algorithm must be 'reinforce' or 'ppo', not {algorithm!r}")
        self.batch = batch
        self.momentum = momentum
        self.power = power
        self.entropy = entropy
        self.clip = clip if algorithm == "ppo" else math.inf
        self.epochs = epochs if algorithm == "ppo" else 1  # the first step of PPO is the one of REINFORCE
        self._controller = Controller(space.cardinalities, units, layers)
        self._controller.theta[:] = rng.uniform(-init, init, self._controller.theta.shape)
        self._adam = Adam(learning_rate)
        self._baseline: float | None = None
        self._worst = math.inf  # reward so far
        self._children: list[Architecture] = []  # waiting to be proposed
        self._told: list[tuple[Architecture, float]] = []

    def ask(self) -> Proposal:
        """The next child of the batch; a new batch is sampled when all were proposed."""
        if not self._children:
            self._children = self._sample()[::-1]
        return Proposal(self._children.pop())

    def tell(self, trial: Trial) -> None:
        """Collect the reward; the controller learns when the batch is complete."""
        self._told.append((trial.arch, trial.value))
        if len(self._told) == self.batch:
            self._learn(self._told)
            self._told = []

    def probabilities(self, archs: Sequence[Architecture]) -> Array:
        """The controller's probability of each of these architectures, `(n,)`."""
        choices = np.array(archs, dtype=np.int64)
        with torch.no_grad():
            log_policy = self._controller(choices)
        return cast(Array, _chosen(log_policy, choices).sum(dim=0).exp().numpy())

    def _sample(self) -> list[Architecture]:
        children: list[Architecture] = []
        for _ in range(_TRIES):
            drawn = self._controller.sample(self.rng.random((len(self.space.cardinalities), self.batch)))
            children += [arch for arch in map(tuple, drawn.tolist()) if self.space.is_valid(arch)]
            if len(children) >= self.batch:
                return children[: self.batch]
        return children + [self.space.sample(self.rng) for _ in range(self.batch - len(children))]

    def _learn(self, told: list[tuple[Architecture, float]]) -> None:
        rewards = np.array([value for _, value in told]) ** self.power
        failed = np.isnan(rewards)
        self._worst = min([self._worst, *rewards[~failed].tolist()])
        if self._worst == math.inf:
            return
        rewards[failed] = self._worst
        choices = np.array([arch for arch, _ in told], dtype=np.int64)
        mean = float(rewards.mean())
        baseline = mean if self._baseline is None else self._baseline
        self._baseline = self.momentum * baseline + (1 - self.momentum) * mean
        advantages = torch.from_numpy(rewards - baseline)
        drawn_with: Tensor | None = None  # log-probabilities of the choices when they were drawn
        for _ in range(self.epochs):
            log_policy = self._controller(choices)
            log_chosen = _chosen(log_policy, choices)
            if drawn_with is None:
                drawn_with = log_chosen.detach()
            ratio = (log_chosen - drawn_with).exp()
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            gain = torch.minimum(ratio * advantages, clipped * advantages).sum() / len(told)
            entropy = -(log_policy.exp() * log_policy).sum() / len(told)
            gradient = self._controller.gradient(-(gain + self.entropy * entropy))
            self._controller.theta += self._adam.step(gradient)


def _chosen(log_policy: Tensor, archs: npt.NDArray[np.int64]) -> Tensor:
    """From log-probabilities of all choices `(T, m, W)` those of the choices of `archs` `(m, T)`: `(T, m)`."""
    return log_policy.gather(2, torch.from_numpy(archs.T.copy())[:, :, None])[:, :, 0]
