"""Where files lie, and what is said when one is not there."""

import numpy as np
import pytest

from nasharness.benchmarks import library
from nasharness.benchmarks.catalogue import find
from nasharness.benchmarks.columns import TableError, write_columns


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty data folder."""
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_the_folder_is_the_platforms_or_the_variables(folder, monkeypatch, tmp_path):
    """NASHARNESS_DATA wins, also with a tilde; without it the platform's folder is used."""
    assert library.data_folder() == folder
    assert library.download_folder() == folder / "downloads"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NASHARNESS_DATA", "~/there")
    assert library.data_folder() == tmp_path / "there"
    monkeypatch.delenv("NASHARNESS_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert library.data_folder().name == "nasharness"
    assert library.data_folder().is_absolute()


def test_a_relative_folder_does_not_move_with_the_process(monkeypatch, tmp_path):
    """A path that is handed to another process names the same file there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NASHARNESS_DATA", "here")
    assert library.data_folder() == tmp_path / "here"


def test_what_is_installed(folder):
    """Every finished table by name, and neither downloads nor unfinished files."""
    assert library.installed() == {}
    for name in ("b", "a.2"):
        write_columns(library.converted_path(name), {"x": np.zeros(1)}, kind="test", metadata={})
    (folder / ".c.safetensors").write_bytes(b"")
    (folder / "downloads").mkdir()
    (folder / "downloads" / "d.safetensors").write_bytes(b"")
    assert library.installed() == {"a.2": folder / "a.2.safetensors", "b": folder / "b.safetensors"}
    assert find("a.2") == folder / "a.2.safetensors"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x.safetensors", "a" * 101, "ü", "dot."])
def test_names_that_cannot_be_files(folder, name):
    """Nothing that leads out of the folder or cannot be typed on every system."""
    with pytest.raises(TableError, match="is no name for a table"):
        library.converted_path(name)


def test_a_missing_table_says_how_to_get_it(folder):
    """For an official one the two commands; for another what there is."""
    with pytest.raises(TableError, match="nasharness data fetch nasbench101.*nasharness data convert nasbench101 FILE"):
        find("nasbench101")
    write_columns(library.converted_path("mine"), {"x": np.zeros(1)}, kind="test", metadata={})
    with pytest.raises(TableError, match="no table 'yours'.*there are: mine.*nasharness data import SPACE"):
        find("yours")
