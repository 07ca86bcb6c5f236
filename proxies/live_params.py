"""live_params: the number of parameters through which a signal gets from the image to the output.

No paper. In NAS-Bench-201, a cell may contain operations that read zeros only, or whose result nobody uses; its official
number of parameters includes them.

    score = number of parameters of the layers that are live
    a convolution or linear layer is live if sum |w dR/dw| > 0 in the pass of synflow: absolute weights, an image of ones, no
    batch normalisation, R the sum of the outputs
    any other layer with parameters of its own, such as batch normalisation, is live if sum |x dR/dx| > 0, x its output

Input: one image of ones; no data. Layers: every module with parameters of its own. Sign: higher is better.

What to know:
    * Nothing in the pass is negative, so nothing cancels, and the sums are zero only where every path is cut. Layers live or
      die as a whole; single dead channels are not looked for.
    * A disconnected network has the score 0: not even its classifier receives a signal. (The official count of a pruned
      network without a path includes stem, reductions and classifier.)
    * A bias is a signal, too: what lies behind a cut layer with a bias is live.
    * A module's parameters count once, however often it is called.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .passes import Pass, PassProxy, Watch


class LiveParams(PassProxy):
    """Number of parameters that matter for the output.

    Args:
        rng: not used.
    """

    deterministic = True
    n_images = 0

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        del images
        live: set[nn.Module] = set()

        def look(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                live.add(module)
            elif not output.requires_grad:  # there are no weights between the image and here
                if _any(output):
                    live.add(module)
            else:
                value = output.detach().clone()  # the network may go on to write into the output

                def arrive(gradient: Tensor) -> None:
                    handle.remove()
                    if _any(value * gradient):
                        live.add(module)

                handle = output.register_hook(arrive)  # type: ignore[no-untyped-call]

        others = [
            m
            for m in network.modules()
            if not isinstance(m, nn.Conv2d | nn.Linear) and any(True for _ in m.parameters(recurse=False))
        ]
        result = yield Pass("flow", hooks=[(module, look) for module in others])
        for layer, weight, gradient in zip(result.layers, result.weights, result.gradients, strict=True):
            if _any(weight * gradient):
                live.add(layer)
        parameters = {p: p.numel() for module in live for p in module.parameters(recurse=False)}
        return float(sum(parameters.values()))


def _any(signal: Tensor) -> bool:
    """Whether anything is not zero; what has overflowed is not either, for it was large before."""
    return bool(torch.count_nonzero(signal))
