"""Scoring one architecture after the other: building its network, handing out images and chance, remembering scores.

Everything random is derived from the seed of the recipe and the architecture alone, so a score is the same alone, in a
study, in a search, in any order and in any process.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.workers import GLOBAL_GENERATOR, one_torch_thread
from .registry import ProxySpec, load_once, proxy_spec, source_sha256
from .score_cache import Known, ScoreCache

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..benchmarks.base import Benchmark
    from ..benchmarks.datasets import ImageSource
    from ..proxies.passes import Measured

Floats = npt.NDArray[np.float64]
_SCHEMA = 1  # raise it when scores change for a reason that no proxy's version tells: the order of images, how chance is derived
_HOW = (
    "so name some: --images PATH, or BENCHMARK(images='PATH') where a benchmark is asked for; a folder with CIFAR-10's python"
    " batches, an .npz or .parquet file, or a folder of class folders"
)


class ScoreError(ValueError):
    """Architectures that cannot be scored as asked; the message says why, and what to do."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What is scored, but for proxies and architectures.

    Attributes:
        benchmark: an id, or an opened benchmark.
        images: where the images come from, as for `benchmarks.datasets.open_images`; None for the benchmark's own.
        settings: of the networks, in place of the benchmark's (`Benchmark.network_settings`).
        seed: of weights, images and the proxies' random draws.
        device: where networks are scored, such as "cpu" or "cuda".
    """

    benchmark: str | Benchmark
    images: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"


class Scoring:
    """A recipe with its benchmark and images opened.

    Raises:
        ScoreError: the benchmark has no networks, there are no images, or a setting that its networks do not have.
    """

    def __init__(self, recipe: Recipe) -> None:
        from ..benchmarks.datasets import open_images

        self.recipe = recipe
        self.benchmark = load_once(recipe.benchmark) if isinstance(recipe.benchmark, str) else recipe.benchmark
        known = self.benchmark.network_settings
        if not known:
            raise ScoreError(f"{self.benchmark.id} has no networks to score")
        if unknown := set(recipe.settings) - set(known):
            raise ScoreError(
                f"the networks of {self.benchmark.id} have no setting {', '.join(sorted(unknown))}; they have"
                f" {', '.join(known)}"
            )
        self.images: ImageSource | None
        try:
            self.images = open_images(recipe.images) if recipe.images is not None else self.benchmark.image_source()
        except NotImplementedError:  # enough for proxies that look at none
            self.images = None
        shape = self.benchmark.image_shape if self.images is None else self.images.shape
        if shape is None:
            raise ScoreError(f"{self.benchmark.id} has no images, {_HOW}")
        self.shape = shape
        self._given = dict(recipe.settings)
        for name, value in self._given.items():
            if isinstance(known[name], int) and not isinstance(known[name], bool) and not value >= 1:
                raise ScoreError(f"{name} must be at least 1, not {value!r}")
        if self.images is not None:
            for name, value in (("num_classes", self.images.num_classes), ("input_channels", self.shape[0])):
                if name in known:
                    self._given.setdefault(name, value)
        # Dead operations stay: the published scores count them, also where the benchmark trained the network without.
        self.settings = {**known, **({"prune": False} if "prune" in known else {}), **self._given}
        self._batches: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    # ---------------------------------------------------------------------------------------------------- identities

    def representative(self, arch: Architecture) -> Architecture:
        """The architecture whose network stands for that of `arch`: of pruned cells the first that is the same network."""
        space = self.benchmark.space
        arch = tuple(map(int, arch))  # NumPy's integers are spelled differently
        if self.settings.get("prune") and hasattr(space, "network_class"):
            return _first_of_class(space, arch)
        return space.identity(arch)

    def key(self, spec: ProxySpec, arch: Architecture) -> bytes:
        """Digest of everything that a score depends on."""
        prefix = self._prefix(spec)
        return hashlib.sha256(prefix + repr(self.representative(arch)).encode()).digest()

    @functools.cached_property
    def _prefixes(self) -> dict[tuple[str, str], bytes]:
        return {}

    def _prefix(self, spec: ProxySpec) -> bytes:
        name = f"{spec.factory.__module__}:{spec.factory.__qualname__}"
        at = (name, repr(sorted(spec.parameters.items())))
        if at not in self._prefixes:
            proxy = spec.make()
            # Ours carry a version; of others the file counts too, so that an edited proxy is not met by its old scores.
            own = spec.factory.__module__.startswith("nasharness.")
            shape = list(self.shape)
            parts = [
                _SCHEMA,
                *at,
                spec.factory.version,
                "" if own else _code(spec.factory),
                self.benchmark.space.name,
                repr(sorted(self.settings.items())),
                [self._source().fingerprint, shape, proxy.n_images] if proxy.n_images else shape,
                "" if spec.factory.deterministic else self.recipe.seed,
                self.recipe.device.split(":")[0],
            ]
            if not type(self.benchmark).__module__.startswith(
                "nasharness."
            ):  # it may build its networks in its own way
                parts += [
                    f"{type(self.benchmark).__module__}:{type(self.benchmark).__qualname__}",
                    _code(type(self.benchmark)),
                ]
            self._prefixes[at] = hashlib.sha256(json.dumps(parts).encode()).digest()
        return self._prefixes[at]

    # ------------------------------------------------------------------------------------------------------ measuring

    def batch(self, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first n of the recipe's training images, standardised, and their labels; a smaller n is a prefix.

        Raises:
            ScoreError: there are fewer.
        """
        import torch

        if n not in self._batches:
            if n == 0:  # a proxy without images still asks for their shape
                drawn = np.empty((0, *self.shape), dtype=np.float32), np.empty(0, dtype=np.int64)
            else:
                source = self._source()
                if n > source.size("train"):
                    raise ScoreError(f"{n} images are wanted, {source.name} has {source.size('train')} for training")
                rng = np.random.default_rng(np.random.SeedSequence((self.recipe.seed, 0x1AB5)))
                drawn = source.sample(n, rng, "train")
            images, labels = (torch.from_numpy(np.array(array)).to(self.recipe.device) for array in drawn)
            self._batches[n] = images.contiguous(memory_format=torch.channels_last), labels
        return self._batches[n]

    def _source(self) -> ImageSource:
        if self.images is None:
            raise ScoreError(f"{self.benchmark.id} has no images, {_HOW}")
        return self.images

    def measure(self, specs: Sequence[ProxySpec], arch: Architecture) -> list[Measured]:
        """What each proxy measures of the network of `arch`; seconds with building it. Errors are kept, not raised."""
        arch = self.representative(arch)
        return self._measure(specs, lambda: self.benchmark.network(arch, **self.settings), repr(arch))

    def measure_mixture(self, specs: Sequence[ProxySpec], choices: Sequence[Sequence[int]]) -> list[Measured]:
        """`measure` of a network in which every dimension has several choices; its size is `Benchmark.mixture`'s own."""
        kept = [[int(c) for c in dimension] for dimension in choices]
        # With one seed for all: what is compared are mixtures that differ in a choice, so they share their other weights' chance.
        return self._measure(specs, lambda: self.benchmark.mixture(kept, **self._given), "mixture")

    def _measure(self, specs: Sequence[ProxySpec], build: Callable[[], nn.Module], name: str) -> list[Measured]:
        from ..proxies.passes import measure_together

        start = time.process_time()
        network = self._built(build, name)
        building = time.process_time() - start
        proxies = [spec.make(self._generator("proxy", name)) for spec in specs]
        images, labels = self.batch(max((proxy.n_images for proxy in proxies), default=0))
        found = measure_together(proxies, network, images, labels, catch=True)
        for measured in found:
            measured.seconds += building
        return found

    def peak_bytes(self, spec: ProxySpec, arch: Architecture) -> float:
        """Most memory that a proxy needs for one network, with building it; NaN where the system does not say."""
        import torch

        from ..proxies.memory import peak_memory

        return peak_memory(torch.device(self.recipe.device), lambda: self.measure([spec], arch))

    def _built(self, build: Callable[[], nn.Module], name: str) -> nn.Module:
        import torch

        with GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):  # torch's initialisers know no other generator
            torch.manual_seed(_seed("weights", self.recipe.seed, name))
            network = build()
        return network.to(self.recipe.device)

    def _generator(self, purpose: str, name: str) -> torch.Generator:
        import torch

        return torch.Generator().manual_seed(
            _seed(purpose, self.recipe.seed, name)
        )  # of the CPU, wherever the network is


_unknown_code: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()


def _code(factory: type) -> str:
    """Digest of a class's source; where Python does not know it (an interactive session), a word for this very class object."""
    digest = source_sha256(factory)
    if digest == "unknown" or "<locals>" in factory.__qualname__:  # one function can make many different classes
        return _unknown_code.setdefault(factory, os.urandom(16).hex())
    return digest


def _seed(*words: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "little") >> 1


def _first_of_class(space: SearchSpace, arch: Architecture) -> Architecture:
    return _first_members()[space.network_class(arch)]  # type: ignore[attr-defined]


@functools.cache
def _first_members() -> dict[int, Architecture]:
    from ..benchmarks.spaces.nasbench201 import NASBench201Space, network_classes

    space = NASBench201Space()
    first: dict[int, Architecture] = {}
    for rank, number in enumerate(network_classes()):
        first.setdefault(number, space.unrank(rank))
    return first


class BenchmarkScorer:
    """The `Scorer` that the harness hands to optimizers.

    Attributes:
        saved_seconds: what scores cost when they were made that were known before this scorer; whoever reads it sets it
            back to 0.
    """

    def __init__(
        self,
        benchmark: str | Benchmark,
        *,
        images: str | None = None,
        settings: Mapping[str, Any] | None = None,
        cache: ScoreCache | None = None,
    ) -> None:
        self._benchmark, self._images, self._settings = benchmark, images, dict(settings or {})
        self._cache = cache or ScoreCache(None)
        self._scorings: dict[int, Scoring] = {}
        self._paid: set[bytes] = set()
        self.saved_seconds = 0.0

    def __call__(self, proxy: str, archs: Sequence[Architecture], *, seed: int) -> Floats:
        """See `optimizers.base.Scorer`."""
        if not len(archs):
            return np.empty(0)
        spec, scoring = proxy_spec(proxy), self._scoring(seed)
        keys = [scoring.key(spec, arch) for arch in archs]
        known = self._cache.find(list(dict.fromkeys(keys)))
        self.saved_seconds += sum(k.seconds for key, k in known.items() if key not in self._paid)
        self._paid.update(keys)
        fresh: dict[bytes, Known] = {}
        with one_torch_thread():
            for key, arch in zip(keys, archs, strict=True):
                if key not in known and key not in fresh:
                    fresh[key] = self._checked(proxy, scoring.measure([spec], arch)[0])
        self._cache.keep(fresh)
        known |= fresh
        table = np.array([known[key].values for key in keys], dtype=np.float64).reshape(len(archs), -1)
        return lowest_if_undefined(spec.make().aggregate(table))

    def mixtures(self, proxy: str, choices: Sequence[Sequence[Sequence[int]]], *, seed: int) -> Floats:
        """See `optimizers.base.Scorer`."""
        if not len(choices):
            return np.empty(0)
        spec, scoring = proxy_spec(proxy), self._scoring(seed)
        try:
            with one_torch_thread():
                found = [self._checked(proxy, scoring.measure_mixture([spec], c)[0]) for c in choices]
        except NotImplementedError as error:
            raise ScoreError(str(error)) from error
        return lowest_if_undefined(spec.make().aggregate(np.array([k.values for k in found], dtype=np.float64)))

    def _scoring(self, seed: int) -> Scoring:
        if seed not in self._scorings:
            self._scorings[seed] = Scoring(Recipe(self._benchmark, self._images, self._settings, seed))
        return self._scorings[seed]

    @staticmethod
    def _checked(proxy: str, measured: Measured) -> Known:
        if measured.error:
            raise ScoreError(f"{proxy} failed: {measured.error}")
        return Known(measured.values, measured.seconds)


def lowest_if_undefined(scores: npt.ArrayLike) -> Floats:
    """Scores with -inf in place of everything that is not finite."""
    array = np.asarray(scores, dtype=np.float64)
    return np.where(np.isfinite(array), array, -math.inf)
