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


def find(name: str) -> Path:
    """The file of a converted or imported table.

    Raises:
        TableError: it is not there; the message says which commands put it there.
    """
    from .catalogue import CATALOGUE

    path = converted_path(name)
    if path.is_file():
        return path
    if name in CATALOGUE:
        raise TableError(
            f"{CATALOGUE[name].title} is not converted yet (there is no {path}). Get the official file with"
            f" `nasharness data fetch {name}`, then convert it once with `nasharness data convert {name} FILE`."
        )
    known = ", ".join(installed()) or "none"
    raise TableError(
        f"there is no table {name!r} in {path.parent}; there are: {known}."
        f" A table of your own comes there with `nasharness data import SPACE TABLE.csv --name {name}`;"
        f" official files: {', '.join(CATALOGUE)} (`nasharness data list`)."
    )
