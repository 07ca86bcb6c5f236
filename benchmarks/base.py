"""What a benchmark answers: what training an architecture would have cost and reached.

Accuracies are fractions in [0, 1], times are seconds, parameters and FLOPs are plain counts. Validation accuracy is what a
search sees; test accuracy is what a report uses; they are never one number under two names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .spaces.base import Architecture, SearchSpace

if TYPE_CHECKING:
    from torch import nn

    from .datasets import ImageSource
    from .images import Images, SplitName

Floats = npt.NDArray[np.float64]


class Evaluation(NamedTuple):
    """The answer to one query: one training run of an architecture, as a search sees it.

    Attributes:
        val_accuracy: validation accuracy after `epochs`.
        seconds: training plus validation seconds up to then.
        epochs: epochs trained.
        curve: float32 `(epochs,)`, read-only: validation accuracy after each of these epochs.
    """

    val_accuracy: float
    seconds: float
    epochs: int
    curve: npt.NDArray[np.float32]


class Evaluations(NamedTuple):
    """The answers to many queries at once; each field is float64 `(n,)`, as in `Evaluation`."""

    val_accuracy: Floats
    seconds: Floats


class Curve(NamedTuple):
    """A learning curve; every field is `(max_epochs,)`. `seconds` is cumulative."""

    train_loss: npt.NDArray[np.float32]
    train_accuracy: npt.NDArray[np.float32]
    val_loss: npt.NDArray[np.float32]
    val_accuracy: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.float32]


class Final(NamedTuple):
    """What the full schedule reaches, averaged over the benchmark's training seeds: what reports use.

    From `Benchmark.final` every field is a float; from `final_many` every field is float64 `(n,)`.
    """

    val_accuracy: Any
    test_accuracy: Any
    seconds: Any
    params: Any
    flops: Any


def best_of(finals: Final) -> Final:
    """The highest accuracies and the lowest costs, what is NaN left out; NaN where there is nothing else."""
    known = [column[~np.isnan(column)] for column in finals]
    best = [c.max() if len(c) else np.nan for c in known[:2]] + [c.min() if len(c) else np.nan for c in known[2:]]
    return Final(*map(float, best))


@dataclass(frozen=True)
class Info:
    """Where a benchmark's numbers come from.

    Attributes:
        id: versioned id.
        source, licence: in words.
        sha256: digest of the file or data; a study is only continued and reported on the same. Empty: a TableBenchmark
            takes that of its columns, another benchmark is not protected.
        version_history: what changed from version to version.
        caution: a sentence that every report on this benchmark repeats.
        details: whatever else is known, such as how a table was trained.
    """

    id: str
    source: str = ""
    licence: str = ""
    sha256: str = ""
    version_history: str = ""
    caution: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


class MetricSource(Protocol):
    """A table of metrics by architecture, such as an imported one."""

    @property
    def space(self) -> SearchSpace: ...
    @property
    def names(self) -> Sequence[str]: ...
    def lookup(self, name: str, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Floats:
        """One metric of many architectures, float64 `(n,)`."""


class Benchmark(ABC):
    """Answers queries about the architectures of one space under one protocol.

    Attributes:
        id: versioned id, such as "digits201-v1".
        space: the architectures it knows.
        max_epochs: length of the full schedule.
        info: where its numbers come from.
        metrics: names of the quantities that `metric` answers.
        resumable: a longer training passes through the shorter ones, so that it can go on from them at the price of the
            difference; False where each length has a schedule of its own.
        interpolation: how reports read regret between two trials: of the incumbent ("step"), or on the straight line
            between the two ("linear").
        image_shape: channels, height and width of the images that the networks were trained on; None where it is not known.
    """

    id: str
    space: SearchSpace
    max_epochs: int
    info: Info
    metrics: tuple[str, ...] = ("params", "flops")
    interpolation: Literal["step", "linear"] = "step"
    resumable: bool = True
    image_shape: tuple[int, int, int] | None = None
    _attached: tuple[MetricSource, ...] = ()
    _image_source: ImageSource | None = None

    @abstractmethod
    def query(
        self, arch: Architecture, epochs: int | None = None, rng: np.random.Generator | None = None
    ) -> Evaluation:
        """What one training run of `arch` for `epochs` (None: the full schedule) costs and reaches.

        Where the benchmark holds several training runs of an architecture, `rng` picks one; without `rng` it is the first.

        Raises:
            InvalidArchitecture: `arch` is not in the space.
            ValueError: `epochs` is not in 1..max_epochs.
        """

    @abstractmethod
    def final_many(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Final:
        """`Final` for many architectures `(n, dimensions)` at once; its fields are arrays `(n,)`."""

    @abstractmethod
    def curve(self, arch: Architecture, seed: int | None = None) -> Curve:
        """The full learning curve of the run with this training seed (None: the mean over seeds)."""

    @property
    @abstractmethod
    def optimum(self) -> Final:
        """The best value of each field over the whole space (highest accuracy, lowest cost).

        The best validation and the best test accuracy usually belong to different architectures.
        """

    @property
    def fidelities(self) -> Sequence[int]:
        """The numbers of epochs that a query may ask for, ascending; multi-fidelity strategies are told them."""
        return range(1, self.max_epochs + 1)

    def final(self, arch: Architecture) -> Final:
        """Mean over the training seeds at the full schedule."""
        return Final(*(float(column[0]) for column in self.final_many([self.space.check(arch)])))

    def query_many(
        self,
        archs: Sequence[Architecture] | npt.NDArray[np.integer],
        epochs: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> Evaluations:
        """`query` for many architectures."""
        answers = [self.query(tuple(int(x) for x in arch), epochs, rng) for arch in archs]
        return Evaluations(np.array([a.val_accuracy for a in answers]), np.array([a.seconds for a in answers]))

    def metric(self, name: str, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> Floats:
        """One of `metrics` for many architectures, float64 `(n,)`: costs of the network itself, such as its latency.

        Raises:
            ValueError: the benchmark has no metric of this name.
        """
        for table in self._attached:
            if name in table.names:
                return table.lookup(name, archs)
        if name not in self.metrics:
            raise ValueError(f"{self.id} has no metric {name!r}; it has {', '.join(self.metrics)}")
        final = self.final_many(archs)
        return np.asarray(final.params if name == "params" else final.flops, dtype=np.float64)

    def attach(self, table: MetricSource) -> None:
        """Add the metrics of a table, such as latencies measured on other devices.

        Raises:
            ValueError: it is about another space, or one of its names is taken.
        """
        if table.space.name != self.space.name:
            raise ValueError(f"{self.id} is about {self.space.name}, the table of metrics about {table.space.name}")
        if taken := set(table.names) & set(self.metrics):
            raise ValueError(f"{self.id} already has the metric {', '.join(sorted(taken))}")
        self._attached = (*self._attached, table)
        self.metrics = (*self.metrics, *table.names)

    def network(self, arch: Architecture, **settings: Any) -> nn.Module:
        """The freshly initialised network behind `arch` (initialised from torch's global generator).

        Args:
            arch: an architecture of the space.
            settings: replace those of `network_settings`, such as `cells=1` for a smaller skeleton.

        Raises:
            NotImplementedError: the benchmark has no networks.
            ValueError: a setting that the benchmark's networks do not have.
        """
        raise NotImplementedError(f"{self.id} has no networks")

    @property
    def network_settings(self) -> Mapping[str, Any]:
        """What `network` takes, with the values of the networks that were trained; empty where nothing can be set."""
        return {}

    def mixture(self, choices: Sequence[Sequence[int]], **settings: Any) -> nn.Module:
        """A network in which every dimension still has the given choices, added up: a supernet without weights of its own.

        Raises:
            NotImplementedError: the benchmark has no such networks.
        """
        raise NotImplementedError(f"{self.id} has no mixtures of architectures")

    def images(self, split: SplitName) -> Images:
        """The images that the benchmark's networks were trained, validated or tested on, or that were attached in their place.

        Raises:
            NotImplementedError: there are none.
        """
        if self._image_source is None:
            raise NotImplementedError(f"{self.id} has no images of its own")
        return self._image_source.split(split)

    def attach_images(self, source: ImageSource) -> None:
        """Give the benchmark images, such as CIFAR-10's for a table that was made with them."""
        self._image_source = source

    def image_source(self) -> ImageSource:
        """What `images` answers from, with sizes, classes, and samples of which no more is decoded than is asked for.

        Raises:
            NotImplementedError: there are no images.
        """
        from .datasets import BenchmarkImages

        return self._image_source or BenchmarkImages(self)

    def _state(self) -> dict[str, Any]:
        """What a benchmark that another process opens by its file has to be told besides."""
        return {name: getattr(self, name) for name in ("info", "metrics", "_attached", "_image_source")}

    def __repr__(self) -> str:
        return f"<{self.id}: {self.space.size} architectures, {self.max_epochs} epochs>"
