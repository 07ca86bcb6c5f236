"""Where converted and imported benchmark files lie on this machine.

One folder holds them all: the platform's folder for user data (`~/.local/share/nasharness` on Linux), or the one that the
environment variable NASHARNESS_DATA names. NAME.safetensors is a converted or imported table; `downloads/` holds official
files as they were published.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from .columns import TableError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def data_folder() -> Path:
    """The folder of all converted and imported files; it need not exist yet."""
    if chosen := os.environ.get("NASHARNESS_DATA"):
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path("nasharness", appauthor=False)


def download_folder() -> Path:
    """The folder of official files as they were published; it need not exist yet."""
    return data_folder() / "downloads"


def converted_path(name: str) -> Path:
    """Where the converted or imported table `name` lies, whether or not it is there.

    Raises:
        TableError: the name cannot be part of a file name on every system.
    """
    if not _NAME.fullmatch(name) or name.endswith((".", ".safetensors")):
        raise TableError(
            f"{name!r} is no name for a table: use up to 100 letters, digits, '-', '_' and '.', starting with a letter or"
            " digit, without '.safetensors'"
        )
    return data_folder() / f"{name}.safetensors"


def installed() -> dict[str, Path]:
    """Every converted or imported table by name, sorted."""
    return {path.name.removesuffix(".safetensors"): path for path in sorted(data_folder().glob("[!.]*.safetensors"))}
