"""Checkpoints of runs that take long: a search that trains by itself goes on where it was killed, to the same result.

A checkpoint belongs to one run of one version of the code; anything else in its place is ignored, and the run starts afresh.
It is written to a temporary name and then renamed, so there is always a whole one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

EVERY_SECONDS = 20.0
"""A checkpoint is not written more often than this."""


def checkpoint_path(folder: str | os.PathLike[str], optimizer: str, repetition: int) -> Path:
    """Where the checkpoint of a run of a study in `folder` lies."""
    name = hashlib.sha256(f"{optimizer}\n{repetition}".encode()).hexdigest()[:16]
    return Path(folder) / "checkpoints" / f"{name}.pt"


class Checkpoint:
    """The checkpoint file of one run.

    Args:
        path: the file.
        identity: everything that the result of the run depends on, as JSON-able values.
    """

    def __init__(self, path: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.path = Path(path)
        versions = {name: metadata.version(name) for name in ("nasharness", "torch", "numpy")}
        self._identity = json.dumps({**identity, **versions}, sort_keys=True)
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The state that was saved; None if there is none of this very run."""
        import torch

        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception:  # missing, cut off, or something else: whatever it is, it is no state to go on from
            return None
        if not isinstance(saved, dict) or saved.get("identity") != self._identity:
            return None
        state: dict[str, Any] = saved["state"]
        return state

    @property
    def due(self) -> bool:
        return time.monotonic() - self._written >= EVERY_SECONDS

    def write(self, state: Mapping[str, Any]) -> None:
        """Save a state of numbers, strings, tensors, lists and dicts.

        Raises:
            OSError: it cannot be written.
        """
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            torch.save({"identity": self._identity, "state": dict(state)}, temporary)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._written = time.monotonic()


def remove_checkpoint(path: Path) -> None:
    """Delete a checkpoint, and its folder if that is empty then."""
    path.unlink(missing_ok=True)
    try:
        path.parent.rmdir()
    except OSError:
        return  # other checkpoints are in it, or it is not there
