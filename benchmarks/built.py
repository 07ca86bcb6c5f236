"""A benchmark file that `nasharness build` wrote, as a benchmark with its networks and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import Info
from .columns import TableError
from .spaces.base import Architecture
from .spaces.nasbench201 import NASBench201Space
from .table import TableBenchmark, read_table

if TYPE_CHECKING:
    from torch import nn

    from .datasets import ImageSource
    from .images import Images, ImageTask, SplitName


class TrainedCells(TableBenchmark):
    """A table that `nasharness build` made, with its networks and images."""

    def __init__(self, id: str, columns: dict[str, Any], info: Info) -> None:
        super().__init__(id, NASBench201Space(), columns, info)
        self.image_shape = self._task().shape

    def network(self, arch: Architecture, **settings: Any) -> nn.Module:
        """See `Benchmark.network`; without settings it is the network as it was trained: pruned, and of the build's size."""
        from .networks.factory import build_network

        return build_network("nasbench201", arch, **{**self.network_settings, **settings})

    @property
    def network_settings(self) -> Mapping[str, Any]:
        task, spec = self._task(), self.info.details["spec"]
        return {
            "channels": spec["channels"],
            "cells": spec["cells"],
            "prune": True,
            "num_classes": task.num_classes,
            "input_channels": task.shape[0],
        }

    def mixture(self, choices: Sequence[Sequence[int]], **settings: Any) -> nn.Module:
        """See `Benchmark.mixture`; small networks unless told otherwise, see `networks/mixtures.py`."""
        from .networks.mixtures import build_mixture

        task = self._task()
        return build_mixture(choices, **{"num_classes": task.num_classes, "input_channels": task.shape[0], **settings})

    def images(self, split: SplitName) -> Images:
        return self._task().split(split) if self._image_source is None else super().images(split)

    def image_source(self) -> ImageSource:
        """The images of the build, which are drawn afresh every epoch where its task does so."""
        from .datasets import TaskImages

        return self._image_source or TaskImages(self._task())

    def _task(self) -> ImageTask:
        from .images import image_task

        return image_task(self.info.details["spec"]["images"])


def open_built(path: Path, id: str | None = None, *, version_history: str = "", caution: str = "") -> TrainedCells:
    """Open a file that `nasharness build` wrote. Its id is the file's name unless another is given.

    Raises:
        TableError: the file is missing, damaged or foreign.
    """
    columns, metadata, sha256 = read_table(path)
    if missing := {"space", "spec", "made_on"} - set(metadata):
        raise TableError(
            f"{path} was not written by `nasharness build`: it does not say its {', '.join(sorted(missing))}"
        )
    info = Info(
        id=id or path.name.removesuffix(".safetensors"),
        source=f"trained by `nasharness build` on {metadata['spec']['images']}, {metadata['made_on']}",
        licence="Apache-2.0; the digits are scikit-learn's (UCI, CC BY 4.0)",
        sha256=sha256,
        version_history=version_history,
        caution=caution,
        details={**metadata, "path": str(path.resolve())},
    )
    return TrainedCells(info.id, columns, info)
