"""What every worker process does first, whether it trains networks or runs searches."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence


def set_up_worker(path: Sequence[str], parent: int) -> None:
    """Prepare a worker process.

    Ctrl-C is left to the process that keeps the results. A worker whose parent was killed ends by itself within a second,
    where it would wait for work for ever. Modules are found where the parent finds them.

    Args:
        path: the parent's `sys.path`.
        parent: the parent's process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = list(path)
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
