"""Worker processes, whether they train networks, score them or run searches: starting them, and handing them work."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from typing import Any

GLOBAL_GENERATOR = threading.Lock()
"""Held while torch's global generator is borrowed: its initialisers know no other."""


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


class InProcess(Executor):
    """Runs each task at once, in this process: what one job means."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def processes(jobs: int) -> Iterator[Executor]:
    """Local worker processes. Loky's, because they take classes that were defined in a notebook or in `__main__`."""
    import loky

    executor = loky.ProcessPoolExecutor(
        max_workers=jobs, initializer=set_up_worker, initargs=(list(sys.path), os.getpid())
    )
    finished = False
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        executor.submit(int)  # starts the workers, which inherit that Ctrl-C is not theirs
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    try:
        yield executor
        finished = True
    finally:
        executor.shutdown(wait=finished, kill_workers=not finished)


def in_flight(
    executor: Executor, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], width: int
) -> Iterable[Any]:
    """Yield the results of `function(*arguments)` as they finish, with at most `width` submitted at a time."""
    waiting = iter(arguments)
    running: set[Future[Any]] = set()
    try:
        while True:
            for args in waiting:
                running.add(executor.submit(function, *args))
                if len(running) >= width:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=lambda f: f.exception() is not None):  # what succeeded is kept first
                yield future.result()
    finally:
        for future in running:
            future.cancel()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """One torch thread inside: more are slower on networks as small as these, and far slower on a busy machine. Imports torch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_denormals() -> Iterator[None]:
    """Numbers below the normal range count as 0 inside: they slow a training down many times. Imports torch."""
    import torch

    before = float(torch.tensor(1e-310, dtype=torch.float64) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


class one_thread:  # noqa: N801  a context manager
    """One thread for torch, without importing it, and for BLAS: times and last digits do not depend on the machine's cores."""

    def __enter__(self) -> None:
        self._before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported
        self._torch = sys.modules.get("torch")
        self._threads = self._torch.get_num_threads() if self._torch else 0
        if self._torch:
            self._torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = self._before
        if self._torch:
            self._torch.set_num_threads(self._threads)
