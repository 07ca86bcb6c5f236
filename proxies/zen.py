"""Zen-score: how much the features of a Gaussian network change with its input.

Lin, Wang, Sun, Chen, Sun, Qian, Li and Jin, "Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition", ICCV 2021.
https://arxiv.org/abs/2102.01063
Reference code: idstcv/ZenNAS, `ZeroShotProxy/compute_zen_score.py`.

    x, e ~ N(0, 1), weights ~ N(0, 1), f: the features before global pooling
    score = log E || f(x) - f(x + 0.01 e) ||_1 + sum over batch normalisations of log sqrt(mean over channels of variance)

Input: Gaussian noise of the shape of the images; no data. Layers: all up to global pooling. Sign: higher is better.

The features are the last four-dimensional output of any module, global pooling itself and what follows it at a single
position left out. Some networks average without a module; then they are simply the last.

Where this file differs from the reference code:
    * A batch of 64 and one repetition, the setting of NASLib and NAS-Bench-Suite-Zero; the preset `paper` is the command
      line's (16 and 32).
    * As in that code and unlike in the paper, the norm is L1, and the variance is the running one: with momentum 0.1, after
      the two passes 0.81 of what it was before, 1 at first, and 0.09 and 0.1 of the two batches'. It is not reset between
      repetitions. `variance="batch"` takes that of the batch x, as the theory has it.
    * Where a batch normalisation has no running variance, that of the batch x serves. One that reads only zeros, as behind an
      operation without input, then has the variance 0, and the network the score -inf.
    * Networks are scored as they are. That code leaves out the residual connections of its own search spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .base import Proxy, ProxyError, finite
from .layers import batch_norms, gaussian, hooked, normal_init, restored


class Zen(Proxy):
    """Gaussian complexity of the features, corrected for batch normalisation.

    Args:
        rng: weights and inputs.
        batch_size: inputs.
        repeats: initialisations; the score is their mean.
        noise: size of the perturbation.
        variance: of batch normalisation, see the head of this file.

    Presets: `paper` is the command line of the published code, `theory` the variance of the batch.

    Raises:
        ValueError: `variance` is neither "running" nor "batch", or a number below 1.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"batch_size": 16, "repeats": 32},
        "theory": {"variance": "batch"},
    }
    n_images = 0

    def __init__(
        self,
        rng: torch.Generator | None = None,
        *,
        batch_size: int = 64,
        repeats: int = 1,
        noise: float = 0.01,
        variance: Literal["running", "batch"] = "running",
    ) -> None:
        super().__init__(rng)
        if variance not in ("running", "batch"):
            raise ValueError(f'variance is "running" or "batch", not {variance!r}')
        if batch_size < 1 or repeats < 1:
            raise ValueError(f"batch_size and repeats must be at least 1, not {batch_size} and {repeats}")
        self.batch_size = batch_size
        self.repeats = repeats
        self.noise = noise
        self.variance = variance

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        del labels
        total = 0.0
        with restored(network), torch.no_grad():
            network.train()
            for _ in range(self.repeats):
                normal_init(network, self.rng)
                x = gaussian(self.rng, images, self.batch_size)
                nudged = x + self.noise * gaussian(self.rng, images, self.batch_size)
                variances: dict[nn.Module, Tensor] = {}
                norms = batch_norms(network)
                of_batch = norms if self.variance == "batch" else [m for m in norms if m.running_var is None]
                with hooked(of_batch, partial(_variance, variances)):
                    features = before_pooling(network, x)
                change = (features - before_pooling(network, nudged)).abs().flatten(1).sum(1).mean()
                total += float(change.log())
                for norm in norms:
                    spread = norm.running_var if norm not in of_batch else variances.get(norm)
                    if isinstance(spread, Tensor):  # else it was never called
                        total += 0.5 * float(spread.mean().log())
        return finite(total / self.repeats)


def _variance(into: dict[nn.Module, Tensor], module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
    """Keep the variance of every channel of a module's input, over images and positions."""
    into[module] = inputs[0].transpose(0, 1).flatten(1).var(1, correction=0)


def before_pooling(network: nn.Module, images: Tensor) -> Tensor:
    """The features `(n, channels, height, width)` that global pooling reads; see the head of this file.

    Raises:
        ProxyError: no module has a four-dimensional output.
    """
    found: Tensor | None = None
    pooled = False

    def look(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal found, pooled
        if not isinstance(output, Tensor) or output.dim() != 4:
            return
        single = output.shape[2:] == (1, 1)
        if pooled and single:
            return
        source = inputs[0] if inputs else None
        if single and isinstance(module, _POOLS) and isinstance(source, Tensor) and source.shape[2:] != (1, 1):
            found, pooled = source, True
        else:  # also after the pooling inside of a squeeze-and-excitation block
            found, pooled = output, False

    with hooked(list(network.modules()), look):
        network(images)
    if found is None:
        raise ProxyError(
            f"no module of {type(network).__name__} has an output of four dimensions, so there are no feature maps"
        )
    return found


_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.AvgPool2d, nn.MaxPool2d)
