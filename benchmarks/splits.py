"""The official splits of NAS-Bench-201's images: which ids are for training, validation and test.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020, section 2.2.
https://arxiv.org/abs/2001.00326

CIFAR-10's training images are divided in two; CIFAR-100 and ImageNet16-120 divide their test images into validation and test.
The first division follows from a seed. The other two do not; their lists are in the authors' repository (AutoDL-Projects,
configs/nas-benchmark), and `check_split` tells whether a list read from there or elsewhere is the official one.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

SHA256: Mapping[tuple[str, str], str] = {
    ("cifar10", "train"): "b32573c51d975768a11c0d1540e625040790e2287a603c857413bd78ca68eb94",
    ("cifar10", "valid"): "fe150dfa5a16fd2cab96300e44d12835a5427d45b6aa3dc7f039b0df1539f5ce",
    ("cifar100", "valid"): "156797fd0d0b32af68c9a5e76c8b320c65c129ad5abeed3d03d87d7dfd124923",
    ("cifar100", "test"): "6dad6139c248a3ed8346c479821e4e410fb1d83026e9dc3a62fbebf8ce9859e1",
    ("ImageNet16-120", "valid"): "7859ce235eea793f3e17ad52becef181179998a1977f88e1870ee83b6a8769e6",
    ("ImageNet16-120", "test"): "effac827470ee17228cbd31a3d5008976446f6d8d5a19f571fddd60d8972c5a4",
}
"""Digest of the ids of each part, ascending, in decimal, joined by commas."""


def cifar10_split() -> tuple[Ids, Ids]:
    """Ids of CIFAR-10's 50,000 training images on which `cifar10-valid` trains and validates, ascending, `(25000,)` each."""
    ids = list(range(50_000))
    random.Random(1021).shuffle(ids)
    return np.sort(np.array(ids[:25_000])), np.sort(np.array(ids[25_000:]))


def check_split(dataset: str, part: str, ids: Sequence[int] | npt.NDArray[np.integer]) -> None:
    """Make sure that `ids` are the official ones of this part, in any order.

    Raises:
        ValueError: they are not, or there is no such part.
    """
    if (dataset, part) not in SHA256:
        known = ", ".join(f"{name} {piece}" for name, piece in SHA256)
        raise ValueError(f"there is no official {part!r} part of {dataset!r}; there are: {known}")
    text = ",".join(str(int(i)) for i in sorted(ids))
    if hashlib.sha256(text.encode()).hexdigest() != SHA256[dataset, part]:
        raise ValueError(f"these {len(ids)} ids are not the official {part} part of {dataset}")
