"""REINFORCE with independent softmax policies: the policy-gradient baseline of NAS-Bench-201.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020, section 5,
https://arxiv.org/abs/2001.00326, with the settings of NATS-Bench (TPAMI 2021), https://arxiv.org/abs/2009.00437. The rule is
that of Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", Machine
Learning 8, 1992.

The method
    One row of logits per dimension d of the space, the policy pi_d = softmax(alpha_d), and an architecture a draws every
    choice on its own: log p(a) = sum_d log pi_d(a_d). The gradient of the expected reward is E[(r - b) grad log p(a)] for
    any baseline b that does not depend on a. With d log pi_d(a_d) / d alpha_d = onehot(a_d) - pi_d, the loss
    -(r - b) log p(a) of one architecture has the gradient

        g_d = (r - b) (pi_d - onehot(a_d)),

    and one step of Adam (Kingma and Ba, ICLR 2015, algorithm 1) per trial follows it. The baseline is the exponential moving
    average of the rewards, corrected for its start at zero, and it takes in a reward before it is compared with it:

        b_t = sum_{i <= t} beta^(t-i) r_i / sum_{i <= t} beta^(t-i).

    So b_t does depend on a, but only scales the step: r_t - b_t = (1 - w) (r_t - the average before), where w is the weight
    of r_t in b_t. The first trial, w = 1, changes nothing.

Where this file differs from the papers:
    * The reward is the accuracy as a fraction; the papers' is in percent. Adam divides the scale out again, all but its epsilon.
    * In a constrained space an architecture is drawn until it is valid, and uniformly from the space after `_TRIES`
      draws. The gradient stays that of the unconditioned log p(a).
    * A failed trial (NaN) is rewarded as the worst trial so far; before the first success it changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer

_INITIAL_STD = 1e-3  # of the logits: nearly the uniform policy
_TRIES = 1000

Array = npt.NDArray[np.float64]


class Adam:
    """Kingma and Ba, algorithm 1, with their constants: the step that follows a loss downhill, for one array."""

    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._mean: Array | float = 0.0  # of the gradients
        self._square: Array | float = 0.0  # mean of their squares
        self._steps = 0

    def step(self, gradient: Array) -> Array:
        """What to add to the parameters, given the gradient of the loss."""
        self._steps += 1
        self._mean = self.beta1 * self._mean + (1 - self.beta1) * gradient
        self._square = self.beta2 * self._square + (1 - self.beta2) * (gradient * gradient)
        size = self._learning_rate / (1 - self.beta1**self._steps)
        correction = math.sqrt(1 - self.beta2**self._steps)
        change: Array = -size * self._mean / (np.sqrt(self._square) / correction + self.epsilon)
        return change


class Reinforce(Optimizer):
    """Policy gradient over independent choices. It goes on for ever, and repeats architectures as the policy narrows.

    Args:
        learning_rate: of Adam (NATS-Bench: 0.01). Logits move by about this much per trial.
        momentum: beta of the baseline's moving average, in [0, 1).

    Presets: `nats` is the setting of NATS-Bench, which is also the default. The NAS-Bench-201 paper swept the learning rate
    and its scripts do not say which one its table has: what it reports lies between 0.02 and 0.05 on its own data, where
    0.001 is random search and 0.5 settles too soon.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"nats": {"learning_rate": 0.01, "momentum": 0.9}}

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(space, rng)
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, not {learning_rate}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {momentum}")
        self.learning_rate = learning_rate
        self.momentum = momentum
        self._rows = np.arange(len(space.cardinalities))
        widest = max(space.cardinalities)
        exists = np.arange(widest) < np.array(space.cardinalities)[:, None]
        initial = _INITIAL_STD * rng.standard_normal((len(self._rows), widest))
        self._logits: Array = np.where(exists, initial, -np.inf)  # padded: a probability of zero has no gradient either
        self._adam = Adam(learning_rate)
        self._rewards, self._weights = 0.0, 0.0  # numerator and denominator of the baseline
        self._worst = math.nan
        self._follow_logits()

    @property
    def policy(self) -> Array:
        """Probability of each choice, `(dimensions, largest cardinality)`; zero beyond a dimension's choices."""
        return self._policy.copy()

    def ask(self) -> Proposal:
        """An architecture drawn from the policy."""
        random, n, is_valid = self.rng.random, len(self._rows), self.space.is_valid
        for _ in range(_TRIES):
            # The cumulative probability of the last choice is 1 but for rounding, hence the factor.
            drawn = random(n) * self._cumulative[:, -1]
            arch = tuple((self._cumulative <= drawn[:, None]).sum(axis=1).tolist())
            if is_valid(arch):
                return Proposal(arch)
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial: Trial) -> None:
        """One step of Adam along (r - b) grad log p(a)."""
        reward = trial.value
        if reward != reward:
            reward = self._worst
            if reward != reward:
                return
        elif not self._worst <= reward:  # also true of the first
            self._worst = reward
        self._rewards = self.momentum * self._rewards + (1 - self.momentum) * reward
        self._weights = self.momentum * self._weights + (1 - self.momentum)
        advantage = reward - self._rewards / self._weights
        gradient = advantage * self._policy
        gradient[self._rows, trial.arch] -= advantage
        self._logits += self._adam.step(gradient)
        self._follow_logits()

    def _follow_logits(self) -> None:
        powers = np.exp(self._logits - self._logits.max(axis=1, keepdims=True))
        self._policy: Array = powers / powers.sum(axis=1, keepdims=True)
        self._cumulative: Array = self._policy.cumsum(axis=1)
