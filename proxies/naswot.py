"""NASWOT: how differently a network's ReLUs treat the images of a batch.

Mellor, Turner, Storkey and Crowley, "Neural Architecture Search without Training", ICML 2021, section 3.
https://arxiv.org/abs/2006.04647
Reference code: BayesWatch/nas-without-training.

    c_i = which ReLU units are active for image i, one bit per unit
    K_ij = N - d_H(c_i, c_j)          N units in all, d_H the Hamming distance
    score = log |det K|

Input: 128 real training images, the same for every network. Layers: every ReLU. Sign: higher is better.

Where this file differs from the paper's code:
    * One forward pass. The code makes a forward and a backward pass before, to leave out ReLUs that no gradient reaches; in
      cell spaces, where an absent operation multiplies by zero, it leaves out none.
    * K is N - n_i - n_j + 2 G_ij with G = C C^T and n its diagonal: one product per layer instead of two, and exact, since
      sums of zeros and ones are whole numbers below 2^24. ReLUs that read the same tensor share theirs.
    * Every ReLU counts once. The code looks for modules whose class name contains "ReLU" and so counts those twice that are
      inside a block named `ReLUConvBN`, as all but the last of NAS-Bench-201's are.
    * A determinant of zero (two images with one code, as in a disconnected cell) gives -inf and ranks last; the paper's script
      drops such networks. Rounding leaves a little of an eigenvalue of zero: what is below its size counts as zero.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor, nn

from .base import UNSCORABLE, ProxyError
from .layers import relus
from .passes import Pass, PassProxy, Watch


class NASWOT(PassProxy):
    """Log-determinant of the similarity of binary activation codes.

    Args:
        rng: not used.
        batch_size: images; the score grows with it, so scores of different sizes do not compare.
    """

    def __init__(self, rng: torch.Generator | None = None, *, batch_size: int = 128) -> None:
        super().__init__(rng)
        self.n_images = batch_size

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        n = len(images)
        gram = torch.zeros(n, n, dtype=torch.float64, device=images.device)
        units = 0
        seen: list[tuple[weakref.ref[Tensor], int, Tensor, int]] = []  # tensor, version, its products, its units

        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal units
            source = inputs[0] if inputs else output
            known = next((entry for entry in seen if entry[0]() is source and entry[1] == source._version), None)
            if known is None:
                # The output is positive exactly where the input is, also where the ReLU worked in place.
                codes = output.detach().sign().clamp_(min=0).reshape(n, -1)
                known = weakref.ref(source), source._version, (codes @ codes.T).double(), codes.shape[1]
                seen[:] = [entry for entry in seen if entry[0]() is not None] + [known]
            gram.add_(known[2])
            units += known[3]

        layers = relus(network)
        if not layers:
            raise ProxyError(f"{type(network).__name__} has no module whose class name contains 'ReLU'")
        yield Pass("forward", hooks=[(layer, look) for layer in layers])
        active = gram.diagonal()
        return log_determinant(units - active[:, None] - active[None, :] + 2 * gram)


def log_determinant(similarity: Tensor) -> float:
    """The logarithm of |det| of a symmetric positive semi-definite matrix, float64; -inf where it is singular."""
    eigenvalues = torch.linalg.eigvalsh(similarity)
    rounding = float(eigenvalues[-1]) * len(similarity) * torch.finfo(torch.float64).eps
    return float(eigenvalues.log().sum()) if float(eigenvalues[0]) > rounding else UNSCORABLE
