"""From a file or an official id to a benchmark.

Protocol ids name what a search sees and what a report uses; files are what is on disk. This module joins the two: the
functions below are registered under the ids in pyproject.toml, each with the parameters that its protocol takes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .catalogue import find
from .columns import TableError, open_columns

if TYPE_CHECKING:
    from .base import Benchmark
    from .nasbench101 import NASBench101
    from .nasbench301 import NASBench301
    from .nats import NATSBenchmark

Interpolation = Literal["step", "linear"]


def nasbench101() -> NASBench101:
    """`nasbench101-v1`: see `benchmarks/nasbench101.py`."""
    from .nasbench101 import open_nasbench101

    return open_nasbench101(find("nasbench101"))


def _nats(name: str, dataset: str, schedule: int | str = 12, interpolation: Interpolation = "step") -> NATSBenchmark:
    from .nats import open_nats

    return open_nats(find(name), dataset, id=f"{name}-v1/{dataset}", schedule=schedule, interpolation=interpolation)


# `nasbench201-v1/...` and `nats-size-v1/...`: see `benchmarks/nats.py`.
nasbench201_cifar10 = functools.partial(_nats, "nasbench201", "cifar10")
nasbench201_cifar100 = functools.partial(_nats, "nasbench201", "cifar100")
nasbench201_imagenet = functools.partial(_nats, "nasbench201", "ImageNet16-120")
nats_size_cifar10 = functools.partial(_nats, "nats-size", "cifar10")
nats_size_cifar100 = functools.partial(_nats, "nats-size", "cifar100")
nats_size_imagenet = functools.partial(_nats, "nats-size", "ImageNet16-120")


def nasbench301(model: Literal["xgb", "gin"] = "xgb") -> NASBench301:
    """`nasbench301-v1`: see `benchmarks/nasbench301.py`."""
    from .nasbench301 import open_nasbench301

    return open_nasbench301(find("nasbench301"), model=model, id="nasbench301-v1")  # `load` adds the model


def open_file(path: Path, **parameters: Any) -> Benchmark:
    """Open any benchmark file of ours.

    Args:
        path: written by `nasharness build`, `data convert` or `data import`.
        parameters: those of the protocol; a table with several datasets needs `dataset`.

    Raises:
        TableError: the file is missing, damaged or foreign, or no benchmark.
        ValueError: a parameter that this kind of file does not take.
    """
    try:
        kind = open_columns(path).metadata["kind"]
    except TableError:
        kind = "built"  # its reader says what is wrong
    takes = {"nats": ("dataset", "schedule", "interpolation"), "nasbench301": ("model",)}.get(kind, ())
    if unknown := set(parameters) - set(takes):
        raise ValueError(f"{path} does not take {', '.join(sorted(unknown))}; it takes {', '.join(takes) or 'nothing'}")
    if kind == "built":
        from .built import open_built

        return open_built(path)
    if kind == "imported":
        from .imported import open_imported

        return open_imported(path)
    if kind == "nasbench101":
        from .nasbench101 import open_nasbench101

        return open_nasbench101(path)
    if kind == "nats":
        from .nats import open_nats

        if "dataset" not in parameters:
            raise ValueError(f"{path} holds several datasets: write (dataset='cifar10') behind its name")
        return open_nats(path, id=f"{path.stem}/{parameters['dataset']}", **parameters)
    if kind == "nasbench301":
        from .nasbench301 import open_nasbench301

        return open_nasbench301(path, id="nasbench301-v1", **parameters)
    hint = f": attach it to one with (metrics={path.stem!r})" if kind == "imported-metrics" else ""
    raise TableError(f"{path} holds a table of kind {kind!r}, which is no benchmark{hint}")
