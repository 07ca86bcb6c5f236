"""RSPS: train one set of shared weights on random paths, then return the best of many architectures by these weights.

Li and Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019, section 3 (random search with
weight sharing). https://arxiv.org/abs/1902.07638
Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, sections 3.1 and 3.4 and
Algorithm 1 (SPOS; `finish="evolution"`). https://arxiv.org/abs/1904.00420
Dong and Yang, "NAS-Bench-201", ICLR 2020, appendix (its RSPS; `per_cell`). https://arxiv.org/abs/2001.00326

Each step draws an architecture uniformly and trains the weights on it alone; nothing is learned about architectures. When
the weights are trained, architectures are compared by the held-out accuracy that they have with these weights: the best of
`candidates` random ones, or the best that evolution finds. Evolution keeps the `parents` best so far; a generation is bred
from them by crossover (each choice from one of two parents) and by mutation (each choice redrawn with probability
`mutation`), and every candidate is judged with statistics of batch normalisation that were estimated for it.

Where this file differs from the papers and their code (liamcli/randomNAS_release, megvii-model/SinglePathOneShot,
AutoDL-Projects):
    * After every epoch but the last the proposal is the best of `quick` random architectures: the full finish costs as much
      as several epochs.
    * The best of n is of one round on `judged` held-out images, the same for all, as in NAS-Bench-201, whose candidates however
      get a batch each; Li and Talwalkar take 1,000 on a batch and the 10 best of them on all images.
    * The published NAS-Bench-201 code has momentum and weight decay also move operations off the path (their gradients are
      zero, not absent); here they stay as they are.
    * Without `recalibrate` images batch normalisation goes by the batch (`supernet/norm.py`).
    * Guo et al. constrain candidates by their FLOPs and their evolution runs over the choice blocks of another space; here it
      runs over the choices of the space's vectors. The constraint is left out.
    * A generation that finds too few new children within a number of tries is filled with random architectures, which the SPOS
      code does as well, and if the space has nothing new left it is smaller.
    * The default recipe is short; `@paper` is that of the NAS-Bench-201 code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from ..benchmarks.spaces.base import Architecture, SearchSpace
from .base import SupernetTask
from .supernet.images import Batch
from .supernet.mix import Mix
from .supernet.training import SupernetOptimizer

_TRIES = 20  # draws per child that is wanted, before the rest is drawn at random


class RSPS(SupernetOptimizer):
    """Random search with parameter sharing, and single-path one-shot.

    Args:
        per_cell: draw a path for every cell of the network instead of one for all, and none with a node that nothing reaches.
        finish: "random" or "evolution": how the architecture is sought when the weights are trained.
        candidates: random architectures that the finish compares.
        quick: the same after every epoch but the last.
        judged: held-out images that an architecture is judged by; None for all.
        recalibrate: training images by which the statistics of batch normalisation are estimated for each candidate of
            the evolution (paper: 20,000); 0 normalises by the batch.
        population: of evolution; the first one is random.
        generations: of evolution.
        parents: the best so far, from which a generation is bred.
        crossover, mutants: children of each kind in a generation.
        mutation: probability that a mutation redraws a choice.
        task, recipe: see `supernet.training.SupernetOptimizer`.

    Raises:
        ValueError: a hyper-parameter is out of range.
    """

    own_recipe: ClassVar[Mapping[str, Any]] = {"epochs": 40}  # of a single path each: as long as 10 of a mixture
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"epochs": 250, "learning_rate": 0.025, "per_cell": True, "judged": 512, "quick": 100},
        "spos": {"finish": "evolution"},
    }

    def __init__(
        self,
        space: SearchSpace,
        rng: np.random.Generator,
        *,
        per_cell: bool = False,
        finish: Literal["random", "evolution"] = "random",
        candidates: int = 100,
        quick: int = 5,
        judged: int | None = 400,
        recalibrate: int = 256,
        population: int = 50,
        generations: int = 20,
        parents: int = 10,
        crossover: int = 25,
        mutants: int = 25,
        mutation: float = 0.1,
        task: SupernetTask | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(space, rng, task=task, **recipe)
        if finish not in ("random", "evolution"):
            raise ValueError(f"finish is 'random' or 'evolution', not {finish!r}")
        for name, value in {
            "candidates": candidates,
            "quick": quick,
            "judged": 1 if judged is None else judged,
            "population": population,
            "parents": parents,
        }.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for name, value in {
            "recalibrate": recalibrate,
            "generations": generations,
            "crossover": crossover,
            "mutants": mutants,
        }.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, not {value}")
        if not 0.0 < mutation <= 1.0:
            raise ValueError(f"mutation must be a probability above 0, not {mutation}")
        self.per_cell, self.finish, self.candidates, self.quick = per_cell, finish, candidates, quick
        self.judged, self.recalibrate = judged, recalibrate
        self.population, self.generations, self.parents = population, generations, parents
        self.crossover, self.mutants, self.mutation = crossover, mutants, mutation

    def begin(self) -> None:
        self.finish_seed = int(
            self.rng.integers(2**31)
        )  # proposals draw from their own numbers: training stays the same

    # ------------------------------------------------------------------------------------------------------- the weights

    def step(self, batch: Batch, held_out: Batch) -> None:
        del held_out
        self.update_weights(self.loss(batch, self.draw(), per_cell=self.per_cell, count=True))

    def draw(self) -> list[Mix]:
        """The path of a step: one per table, or one per cell."""
        if not self.per_cell:
            return self.supernet.paths(self.space.sample(self.rng))
        return [self.supernet.paths(self._connected())[t] for t in self.supernet.cell_tables]

    def _connected(self) -> Architecture:
        """A random architecture without a node that no operation but `none` leads to."""
        while True:
            arch = self.space.sample(self.rng)
            if all(
                any(row[e] != table.none for e in table.edges_into(node))
                for table, row in zip(self.topology.tables, self.topology.choices(arch), strict=True)
                for node in table.nodes
            ):
                return arch

    # ------------------------------------------------------------------------------------------------- the architecture

    def propose(self) -> Architecture:
        rng = np.random.default_rng([self.finish_seed, self.epoch])
        batches = self.images.fixed("architecture", self.judged)
        if self.epoch < self.recipe.epochs:
            return self.best_of(self.quick, rng, lambda arch: self.inherited(arch, batches))
        if self.finish == "random":
            return self.best_of(self.candidates, rng, lambda arch: self.inherited(arch, batches))
        estimate = self.images.fixed("weights", self.recalibrate) if self.recalibrate else None
        return self.evolve(rng, lambda arch: self.inherited(arch, batches, recalibrate=estimate))

    def best_of(self, n: int, rng: np.random.Generator, judge: Callable[[Architecture], float]) -> Architecture:
        """The best of n random architectures, the first of equals."""
        return max([self.space.sample(rng) for _ in range(n)], key=judge)

    def evolve(self, rng: np.random.Generator, judge: Callable[[Architecture], float]) -> Architecture:
        """Algorithm 1 of Guo et al.; the best architecture that it judged."""
        space = self.space
        seen: set[Architecture] = set()
        best: list[tuple[float, Architecture]] = []

        def new(n: int, make: Callable[[], Architecture]) -> list[Architecture]:
            made: list[Architecture] = []
            for _ in range(_TRIES * n):
                if len(made) == n:
                    break
                arch = make()
                if space.is_valid(arch) and space.identity(arch) not in seen:
                    seen.add(space.identity(arch))
                    made.append(arch)
            return made

        def bred(parents: list[Architecture]) -> list[Architecture]:
            children = new(self.crossover, lambda: crossed(parents, rng))
            children += new(self.mutants, lambda: mutated(parents, space, self.mutation, rng))
            return children + new(self.crossover + self.mutants - len(children), lambda: space.sample(rng))

        children = new(self.population, lambda: space.sample(rng))
        for generation in range(self.generations + 1):
            best += [(judge(arch), arch) for arch in children]
            best = sorted(best, key=lambda pair: -pair[0])[: self.parents]  # stable: the older of equals stays ahead
            if generation < self.generations:
                children = bred([arch for _, arch in best])
        return best[0][1]

    # ------------------------------------------------------------------------------------------------------- checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {"finish_seed": self.finish_seed}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        self.finish_seed = state["finish_seed"]


def crossed(parents: Sequence[Architecture], rng: np.random.Generator) -> Architecture:
    """Each choice from one of two random parents."""
    one, other = (parents[int(i)] for i in rng.integers(len(parents), size=2))
    return tuple(a if first else b for a, b, first in zip(one, other, rng.random(len(one)) < 0.5, strict=True))


def mutated(
    parents: Sequence[Architecture], space: SearchSpace, probability: float, rng: np.random.Generator
) -> Architecture:
    """A random parent with each choice redrawn with a probability."""
    arch = parents[int(rng.integers(len(parents)))]
    redrawn = rng.random(len(arch)) < probability
    fresh = rng.integers(space.cardinalities)
    return tuple(int(f) if again else a for a, f, again in zip(arch, fresh, redrawn, strict=True))
