"""A proxy filter around any other optimizer: of several proposals that it could make next, the one that scores best is made.

Abdelfattah, Mehrotra, Dudziak and Lane, "Zero-Cost Proxies for Lightweight NAS", ICLR 2021, section 5 (zero-cost move).
https://arxiv.org/abs/2101.08134

Before each evaluation the base optimizer is copied `candidates` times. The copies know the same and differ in their random
draws from here on only; each makes its next proposal. The one whose proposal scores best goes on as the base and is told the
outcome, the others are forgotten. So the base is never told of an architecture that it did not propose, whatever it keeps
about its own proposals, and what it had chosen without any chance (the next rung of a promising training, the best of a
model) stays its choice: then the copies agree, and nothing is scored.

Where this file differs from the paper:
    * The paper filters the mutations of aging evolution: it scores all architectures that differ from the winner of one
      tournament in one choice. Here each candidate is the mutated winner of a tournament of its own, `candidates` of them.
    * Proposals with the same architecture and epochs are one candidate; of equal scores the first stays.
    * A gradient that assumes that the proposals are drawn from the policy, as in reinforce, is biased by any such filter.
    * A proposal takes the base's own time `candidates` times, and a copy of all it knows each time.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import numpy as np

from ..benchmarks.spaces.base import SearchSpace
from ..harness.core import Proposal, Trial
from .base import Optimizer, Scorer, SearchFinished
from .regularized_evolution import RegularizedEvolution
from .scoring import ScoringOptimizer

Make: TypeAlias = Callable[[SearchSpace, np.random.Generator], Optimizer]


class ProxyFilter(ScoringOptimizer):
    """Of `candidates` proposals that another optimizer could make next, make the one that scores best.

    Args:
        base: the other optimizer. In an id, its own id as a string: `proxy_filter(base='bohb(eta=4)', proxy='naswot')`; the
            harness looks it up and gives it the fidelities and the scorer as if it ran alone. In Python also a class, or a
            function of a space and a generator.
        proxy: id of the proxy that chooses.
        candidates: proposals to choose from; 1 is the base alone.
        scorer, score_seed: see `scoring.ScoringOptimizer`.

    Attributes:
        wraps: the hyper-parameter that names another optimizer, for the harness.

    Raises:
        ValueError: candidates below 1, a base that is not charged for evaluations or was not looked up; by `ask`, without a
            scorer or with a base that cannot be copied, such as grid_search.
    """

    wraps: ClassVar[str] = "base"

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        base: str | Make = RegularizedEvolution,
        proxy: str = "synflow",
        candidates: int = 10,
        scorer: Scorer | None = None,
        score_seed: int | None = None,
    ) -> None:
        super().__init__(space, rng, proxy=proxy, scorer=scorer, score_seed=score_seed)
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, not {candidates}")
        if isinstance(base, str):
            raise ValueError(
                f"base {base!r} is an id, which only the harness looks up: give a class, such as RandomSearch"
            )
        self.candidates = candidates
        self._base = base(space, np.random.default_rng(int(rng.integers(2**63))))
        if not self._base.charges_evaluations:
            raise ValueError(f"{type(self._base).__name__} evaluates nothing on the way, so there is nothing to filter")
        self.metrics = self._base.metrics

    def ask(self) -> Proposal:
        """The best of the candidates.

        Raises:
            SearchFinished: no copy of the base has anything left to propose.
        """
        self._needed()
        found: dict[Proposal, Optimizer] = {}
        for base in [*self._copies(self.candidates - 1), self._base]:
            # Whatever the base draws comes from this one object, which its parts share.
            base.rng.bit_generator.state = np.random.default_rng(int(self.rng.integers(2**63))).bit_generator.state
            try:
                found.setdefault(base.ask(), base)
            except SearchFinished:
                continue
        if not found:
            raise SearchFinished
        proposals = list(found)
        best = 0 if len(proposals) == 1 else int(self._scores([p.arch for p in proposals]).argmax())
        self._base = found[proposals[best]]
        return proposals[best]

    def tell(self, trial: Trial) -> None:
        self._base.tell(trial)

    def _copies(self, n: int) -> list[Optimizer]:
        """Copies of the base with all it knows; only the space and the scorer, which nobody changes, are shared."""
        if n == 0:
            return []
        shared: dict[int, Any] = {id(thing): thing for thing in (self.space, self.scorer)}
        buffer = io.BytesIO()
        try:  # written once and read n times it is many times faster than n deep copies
            _Writer(buffer, shared).dump(self._base)
            return [_Reader(io.BytesIO(buffer.getbuffer()), shared).load() for _ in range(n)]
        except Exception:  # noqa: S110  a local class or a lambda is nothing that pickle takes: go on with deep copies
            pass
        try:
            return [copy.deepcopy(self._base, dict(shared)) for _ in range(n)]
        except (TypeError, copy.Error) as error:
            raise ValueError(
                f"{type(self._base).__name__} cannot be filtered: each candidate is asked of a copy of it, and it cannot be"
                f" copied ({error})"
            ) from error


class _Writer(pickle.Pickler):
    """Writes an object; what is shared is written as its number."""

    def __init__(self, file: io.BytesIO, shared: dict[int, Any]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._shared = shared

    def persistent_id(self, thing: Any) -> int | None:
        return id(thing) if id(thing) in self._shared else None


class _Reader(pickle.Unpickler):
    """Reads in this process what `_Writer` has just written."""

    def __init__(self, file: io.BytesIO, shared: dict[int, Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, number: int) -> Any:
        return self._shared[number]
