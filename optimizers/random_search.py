"""Random search: every proposal is drawn uniformly from the space.

Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019, section 3 (without weight
sharing). https://arxiv.org/abs/1902.07638

Where this file differs from the paper:
    * Architectures are drawn with replacement, as the NAS benchmarks do, so one may be evaluated twice.
"""

from __future__ import annotations

from ..harness.core import Proposal, Trial
from .base import Optimizer


class RandomSearch(Optimizer):
    """Propose independent uniform samples."""

    def ask(self) -> Proposal:
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial: Trial) -> None:
        """Nothing to learn: the harness keeps the incumbent."""
