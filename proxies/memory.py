"""Peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_LINE = re.compile(r"^Vm(HWM|RSS):\s+(\d+) kB", re.MULTILINE)


def peak_memory(device: torch.device, work: Callable[[], object]) -> float:
    """Bytes that were in use at most during `work()`, beyond those before it.

    On a GPU what torch allocated; on Linux the resident set, after what was freed before was given back to the system (which
    makes the work slower: do not time it). NaN on other systems.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before)
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")  # sets the high-water mark to what is resident now
        before = _read()["RSS"]
    except (OSError, AttributeError, KeyError, TypeError):
        work()
        return float("nan")
    work()
    return float(max(0, _read()["HWM"] - before))


def _read() -> dict[str, int]:
    return {name: int(kilobytes) * 1024 for name, kilobytes in _LINE.findall(_STATUS.read_text())}
