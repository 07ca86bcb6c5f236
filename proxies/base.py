"""What a zero-cost proxy is: a score of an untrained network, higher is better.

    class Depth(Proxy):
        '''Counts convolutions.'''

        def score(self, network, images, labels):
            return float(sum(isinstance(m, nn.Conv2d) for m in network.modules()))

`nasharness score --proxies my_module:Depth` scores it, `nasharness check my_module:Depth` holds it to the rules:
    * the same generator, network and images give the same score, and `rng` is the only source of chance;
    * the network may be changed while it is scored (it is put back), the images may not;
    * a network that cannot be scored (NaN, infinite) ranks last: whatever is not finite becomes -inf.

Several proxies look at the same pass through the network. Such a proxy is a `PassProxy` (`passes.py`): it asks for the pass
instead of making it, and `measure_together` makes every pass once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

UNSCORABLE = -math.inf
"""The score of a network that cannot be scored."""


class ProxyError(ValueError):
    """A network or images that a proxy is not defined on; the message says what is missing."""


class Proxy(ABC):
    """Base class of zero-cost proxies.

    Args:
        rng: the only source of chance: random inputs, initialisations, directions; a generator of the CPU, also for a
            network on a GPU. The default is seeded with 0.

    Subclasses add keyword hyper-parameters with defaults.

    Attributes:
        version: raised when the scores change; scores are kept by it.
        presets: named sets of hyper-parameters; `name@preset` selects one wherever a proxy id is accepted.
        n_images: how many images the published setting reads, 0 for a proxy that looks at none. A caller hands over as many.
        uses_labels: False where the labels make no difference.
        parts: names of the numbers that `measure` returns. Most proxies have one; those that rank several quantities
            within the set of candidates have more, and override `measure` and `aggregate`.
        deterministic: True where the score depends on the network's structure only and not on weights, images or chance.
    """

    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    parts: ClassVar[tuple[str, ...]] = ("score",)
    uses_labels: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False
    n_images: int = 64

    def __init__(self, rng: torch.Generator | None = None) -> None:
        self.rng = torch.Generator().manual_seed(0) if rng is None else rng

    @abstractmethod
    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        """The score of a freshly initialised network; higher is better.

        Args:
            network: any classifier of the images, in train mode, with gradients enabled for its parameters.
            images: float32 `(n, channels, height, width)`.
            labels: int64 `(n,)`.

        Raises:
            ProxyError: the proxy is not defined on such a network.
        """

    def measure(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, ...]:
        """The numbers named by `parts`."""
        return (self.score(network, images, labels),)

    def aggregate(self, measured: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Scores `(n,)` of n candidates from what was measured of each, `(n, parts)`."""
        return measured[:, 0]


class RankProxy(Proxy):
    """A proxy whose score is a place among candidates: it ranks several quantities and adds up the places."""

    @abstractmethod
    def measure(self, network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, ...]: ...

    @abstractmethod
    def aggregate(self, measured: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        raise ProxyError(
            f"{type(self).__name__} ranks candidates among each other, so one network alone has no score:"
            " call measure() for each and aggregate() for all, or use nasharness.score"
        )


def ranks(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Places 1 (worst) to n (best), `(n,)`; equal values share the mean of their places, what is not finite is worst."""
    array = np.asarray(values, dtype=np.float64)
    _, group, count = np.unique(np.where(np.isfinite(array), array, -np.inf), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[group], dtype=np.float64)


def finite(value: float | Tensor) -> float:
    """A score as a float; NaN and infinities become `UNSCORABLE`.

    Raises:
        ProxyError: it is no number.
    """
    if isinstance(value, bool | str) or value is None:
        raise ProxyError(f"a score is a number, not {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ProxyError(f"a score is one number, not {value!r}: {error}") from error
    return number if math.isfinite(number) else UNSCORABLE
