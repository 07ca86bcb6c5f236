"""A benchmark file that `nasharness build` wrote, as a benchmark with its networks and images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base import Info
from .columns import TableError
from .spaces.base import Architecture
from .spaces.nasbench201 import NASBench201Space
from .table import TableBenchmark, read_table

if TYPE_CHECKING:
    from torch import nn

    from .images import Images, ImageTask, SplitName


class TrainedCells(TableBenchmark):
    """A table that `nasharness build` made, with its networks and images."""

    def __init__(self, id: str, columns: dict[str, Any], info: Info) -> None:
        super().__init__(id, NASBench201Space(), columns, info)

    def network(self, arch: Architecture) -> nn.Module:
        from .networks.nasbench201 import NASBench201Network

        task, spec = self._task(), self.info.details["spec"]
        return NASBench201Network(
            arch,
            num_classes=task.num_classes,
            channels=spec["channels"],
            cells=spec["cells"],
            input_channels=task.shape[0],
            prune=True,
        )

    def images(self, split: SplitName) -> Images:
        return self._task().split(split)

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
