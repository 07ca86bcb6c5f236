"""What the commands share: options, progress on standard error, and the way out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def fail(message: str, code: int) -> NoReturn:
    """Print one line on standard error and exit."""
    sys.stderr.write(f"nasharness: {message}\n")
    raise SystemExit(code)


@contextmanager
def progress(description: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with an ETA on standard error, from the first second on; `update(done, total)` moves it."""
    if quiet:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "eta",
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        last = 0.0

        def update(done: int, total: int) -> None:
            nonlocal last
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (done == total or time.monotonic() - last > 30):  # a log, not a screen
                last = time.monotonic()
                console.print(f"{description}: {done} of {total}")

        yield update


@contextmanager
def status(description: str, quiet: bool) -> Iterator[None]:
    """A spinner on a terminal's standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(description):
        yield
