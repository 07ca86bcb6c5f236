"""`nasharness data`, command by command."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from nasharness.benchmarks import catalogue
from nasharness.benchmarks.catalogue import Entry, FetchError, SourceFile
from nasharness.benchmarks.columns import TableError, open_columns, write_columns
from nasharness.benchmarks.digits201 import FILE
from nasharness.benchmarks.imported import ImportTableError
from nasharness.harness.data_cli import data_app


class Converter(types.ModuleType):
    """Stands in for a converter module: "converts" a file to the numbers of its bytes.

    Attributes:
        jobs: what the last call got.
        known: whether the facts hold.
    """

    jobs = 0
    known = True

    def convert(self, source, target, *, jobs=1, progress=None):
        self.jobs = jobs
        content = source.read_bytes()
        for i in range(len(content)):
            if content == b"interrupt" and i == 3:
                raise KeyboardInterrupt
            progress(i + 1, len(content))
        metadata = {"space": "narrow", "source": source.name, "source_sha256": hashlib.sha256(content).hexdigest()}
        write_columns(target, {"bytes": np.frombuffer(content, np.uint8)}, kind="small", metadata=metadata)

    def verify(self, columns):
        yield "it has bytes", len(columns["bytes"]) > 0
        yield "the best is known", self.known


@pytest.fixture
def converter(monkeypatch):
    """A catalogue of one entry, "small", with a file that is fetched by hand, and its converter."""
    module = Converter("small_converter")
    monkeypatch.setitem(sys.modules, "small_converter", module)
    file = SourceFile("small.bin", "5 bytes", "http://page", by_hand="Open http://page.", note="a note")
    direct = SourceFile("direct.bin", "5 bytes", "http://page", "http://127.0.0.1:9/direct.bin")
    made = Entry("small", "A small benchmark", "MIT", (file, direct), "small_converter:convert", "small")
    monkeypatch.setattr(catalogue, "CATALOGUE", {"small": made})
    return module


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Runs `nasharness data ...` in an empty folder."""
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments, code=0, error=None):
        result = CliRunner().invoke(data_app, [str(a) for a in arguments])
        if error is not None:
            assert isinstance(result.exception, error), result.output
            return str(result.exception)
        assert result.exit_code == code, (result.output, result.exception)
        return result.output

    return run


def table(n=4, **columns):
    usual = {"architecture": range(n), "val_accuracy": np.linspace(50, 90, n), "test_accuracy": 60.0, "seconds": 10.0}
    return pd.DataFrame({**usual, **columns})


def test_list(data, converter, tmp_path):
    """What exists, what is here, and what was imported; a damaged file is named and does not hide the rest."""
    text = data("list")
    assert "small        not converted" in text
    assert "A small benchmark; licence MIT" in text
    assert "by hand   small.bin, 5 bytes (a note)" in text
    assert "to fetch  direct.bin, 5 bytes" in text
    assert "imported: none" in text
    (tmp_path / "data" / "downloads").mkdir(parents=True)
    (tmp_path / "data" / "downloads" / "small.bin").write_bytes(b"12345")
    data("convert", "small", "data/downloads/small.bin")
    table().to_csv("t.csv", index=False)
    data("import", "nasbench201", "t.csv", "--name", "mine", "--percent", "--source", "my cluster")
    (tmp_path / "data" / "broken.safetensors").write_bytes(b"nothing")
    text = data("list")
    assert "small        converted" in text
    assert "fetched   small.bin" in text
    assert "mine                         4 architectures of nasbench201, my cluster" in text
    assert "is damaged or no safetensors file" in text
    found = json.loads(data("list", "--json"))
    assert found["official"][0]["files"][0]["fetched"] == str(tmp_path / "data" / "downloads" / "small.bin")
    assert found["official"][0]["files"][1]["fetched"] is None
    assert [row["name"] for row in found["imported"]] == ["broken", "mine"]


def test_fetch(data, converter, tmp_path):
    """Instructions for what cannot be downloaded, then the check of what was put there."""
    message = data("fetch", "small", error=FetchError)
    assert "Open http://page." in message
    assert "nasharness data convert small" in message
    assert "failed" in data("fetch", "small", "--file", "direct", error=FetchError)
    assert "unknown official benchmark 'smal': did you mean small?" in data("fetch", "smal", error=FetchError)
    (tmp_path / "data" / "downloads" / "small.bin").write_bytes(b"12345")
    text = data("fetch", "small")
    path = tmp_path / "data" / "downloads" / "small.bin"
    assert f"Already there: {path}" in text
    assert f"sha256 {hashlib.sha256(b'12345').hexdigest()} (none published; recorded" in text
    assert text.splitlines()[-1] == f"Next: nasharness data convert small {path}"
    assert json.loads(data("fetch", "small", "--json"))["downloaded"] is False
    assert data("fetch", "small", "--quiet") == ""


def test_fetch_interrupted(data, converter, monkeypatch):
    """Ctrl-C: exit code 130, and how to go on."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "fetch", interrupted)
    assert "To go on, give the same command again" in data("fetch", "small", code=130)


def test_convert(data, converter, tmp_path):
    """Where it went, how large, how long, what next; nothing unfinished is left."""
    (tmp_path / "small.bin").write_bytes(b"12345")
    text = data("convert", "small", "small.bin", "--jobs", "3")
    path = tmp_path / "data" / "small.safetensors"
    assert f"Wrote {path}: {path.stat().st_size:,} bytes in" in text
    assert open_columns(path).sha256 in text
    assert text.splitlines()[-1] == "Next: nasharness data verify small"
    assert converter.jobs == 3
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["small.safetensors"]


def test_convert_again(data, converter, tmp_path):
    """The same source is not converted twice, another one only by --force, and an interrupted one leaves the old table."""
    for name, content in (("a.bin", b"12345"), ("b.bin", b"67890"), ("c.bin", b"interrupt")):
        (tmp_path / name).write_bytes(content)
    path = tmp_path / "data" / "small.safetensors"
    data("convert", "small", "a.bin")
    before = path.read_bytes()
    assert "was converted from this file already" in data("convert", "small", "a.bin")
    assert json.loads(data("convert", "small", "a.bin", "--json"))["converted"] is False
    assert "was converted from a.bin; --force replaces it by what b.bin" in data(
        "convert", "small", "b.bin", error=ValueError
    )
    assert "is as it was. To go on, give the same command again" in data(
        "convert", "small", "c.bin", "--force", code=130
    )
    assert path.read_bytes() == before
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["small.safetensors"]
    result = json.loads(data("convert", "small", "b.bin", "--force", "--json"))
    assert result["sha256"] == open_columns(path).sha256
    assert result["bytes"] == path.stat().st_size
    assert open_columns(path)["bytes"].tobytes() == b"67890"
    path.write_bytes(b"broken")
    assert "--force replaces it" in data("convert", "small", "b.bin", error=ValueError)
    assert data("convert", "small", "b.bin", "--force", "--quiet") == ""


def test_convert_the_wrong_space(data, converter, tmp_path, monkeypatch):
    """Where one converter serves several spaces, a file of another one does not get in under this name."""
    made = dataclasses.replace(catalogue.CATALOGUE["small"], space="wide")
    monkeypatch.setattr(catalogue, "CATALOGUE", {"small": made})
    (tmp_path / "a.bin").write_bytes(b"12345")
    assert "a.bin holds narrow, which is not small" in data("convert", "small", "a.bin", error=ValueError)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other", "a.bin"), "unknown official benchmark 'other'"),
        (("small", "none.bin"), "there is no none.bin; `nasharness data fetch small` gets it"),
        (("small", "a.bin", "--jobs", "0"), "--jobs must be at least 1"),
    ],
)
def test_convert_mistakes(data, converter, tmp_path, arguments, message):
    """Each is named before anything is written."""
    (tmp_path / "a.bin").write_bytes(b"12345")
    assert message in data("convert", *arguments, error=ValueError)
    assert not (tmp_path / "data").exists()


def test_info(data, converter, tmp_path):
    """Metadata and columns, by name or by path."""
    (tmp_path / "a.bin").write_bytes(b"12345")
    data("convert", "small", "a.bin")
    text = data("info", "small")
    for part in (
        "source: a.bin",
        "kind: small",
        "bytes uint8 (5,)",
        open_columns(tmp_path / "data/small.safetensors").sha256,
    ):
        assert part in text
    found = json.loads(data("info", tmp_path / "data" / "small.safetensors", "--json"))
    assert found["columns"] == {"bytes": "uint8 (5,)"}
    assert found["metadata"]["source"] == "a.bin"
    assert "there is no table 'yours'" in data("info", "yours", error=TableError)


def test_verify(data, converter, tmp_path):
    """Digest and known facts; exit code 1 if one does not hold or a byte changed."""
    (tmp_path / "a.bin").write_bytes(b"12345")
    data("convert", "small", "a.bin")
    lines = data("verify", "small").splitlines()
    assert lines[0].startswith("ok   its columns have the sha256 ")
    assert lines[1:] == ["ok   it has bytes", "ok   the best is known", "3 of 3 hold"]
    (tmp_path / "data" / "small.safetensors").rename(tmp_path / "elsewhere.safetensors")
    assert data("verify", "elsewhere.safetensors").splitlines() == lines  # what is checked follows from the file
    (tmp_path / "elsewhere.safetensors").rename(tmp_path / "data" / "small.safetensors")
    converter.known = False
    assert "FAIL the best is known" in data("verify", "small", code=1)
    assert data("verify", "small", "--quiet", code=1) == ""
    found = json.loads(data("verify", "small", "--json", code=1))
    assert found["passed"] is False
    assert found["facts"]["it has bytes"] is True
    path = tmp_path / "data" / "small.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    text = data("verify", "small", code=1)
    assert "FAIL" in text
    assert "its columns are not those that were written" in text


def test_a_built_file(data, tmp_path):
    """What `nasharness build` wrote names no kind; it is described and checked all the same."""
    content = bytearray(FILE.read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.safetensors").write_bytes(content)
    assert "val_accuracy   float32 (5260, 1, 6)" in data("info", "mine")
    assert "all architectures of nasbench201, written by `nasharness build`" in data("list")
    assert data("verify", "mine").splitlines()[1:] == [
        "ok   its columns fit the 15,625 architectures of nasbench201",
        "2 of 2 hold",
    ]
    content[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(content)
    assert "its columns are not those that were written" in data("verify", "changed.safetensors", code=1)


def test_info_is_readable(data, tmp_path):
    """A long fact is cut off in words, and whole in JSON."""
    write_columns(tmp_path / "a.safetensors", {}, kind="x", metadata={"long": list(range(1000))})
    assert max(map(len, data("info", "a.safetensors").splitlines())) < 400
    assert json.loads(data("info", "a.safetensors", "--json"))["metadata"]["long"] == list(range(1000))


def test_import(data, tmp_path):
    """A table becomes a benchmark, with a report and the next command; then it can be verified and described."""
    table(arch=range(4), mine=[1.0, 2, np.nan, 4], note="x").drop(columns="architecture").to_csv("t.csv", index=False)
    options = ("--name", "mine", "--percent", "--epochs", "200", "--column", "architecture=arch")
    text = data("import", "nasbench201", "t.csv", *options)
    for part in (
        "4 architectures of nasbench201 from 4 rows",
        "15,621 architectures of the space have no row",
        "mine: unknown (NaN) for 1 architectures",
        "further metrics: mine",
        "ignored columns: note",
        f"Wrote {tmp_path / 'data' / 'mine.safetensors'}",
        "Next: nasharness compare --benchmark mine",
    ):
        assert part in text
    assert "there is a table 'mine' already" in data("import", "nasbench201", "t.csv", *options, error=ValueError)
    found = json.loads(data("import", "nasbench201", "t.csv", *options, "--force", "--json"))
    assert found["missing"] == 15621
    assert data("import", "nasbench201", "t.csv", *options, "--force", "--quiet") == ""
    assert "FAIL" not in data("verify", "mine")
    assert "epochs: 200" in data("info", "mine")


def test_import_of_metrics(data):
    """The next command attaches them to a benchmark."""
    pd.DataFrame({"architecture": range(3), "ms": [1.0, 2, 3]}).to_parquet("t.parquet")
    text = data("import", "nasbench201", "t.parquet", "--name", "devices", "--metrics-only")
    assert "further metrics: ms" in text
    assert "metrics='devices'" in text
    assert "FAIL" not in data("verify", "devices")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nasbench201", "t.csv", "--name", "nasbench101"), "is the name of an official benchmark"),
        (("nasbench201", "t.csv", "--name", "a/b"), "is no name for a table"),
        (("nasbench201", "t.csv", "--name", "x"), "row 1: val_accuracy is 50, which is not in 0..1; --percent"),
        (("nasbench201", "t.csv", "--name", "x", "--column", "seconds"), "is written OURS=THEIRS"),
        (("nasbench201", "t.csv", "--name", "x", "--column", "a=seconds", "--column", "a=b"), "a is given twice"),
        (("nasbench201", "t.csv", "--name", "x", "--column", "seconds=tim"), "no column 'tim'"),
        (("nasbench21", "t.csv", "--name", "x"), "did you mean nasbench201"),
    ],
)
def test_import_mistakes(data, tmp_path, arguments, message):
    """Each is named, and nothing is written."""
    table().to_csv("t.csv", index=False)
    assert message in data("import", *arguments, error=ValueError)
    assert not (tmp_path / "data").exists()


def test_import_of_a_missing_file(data):
    """The operating system's own words."""
    data("import", "nasbench201", "none.csv", "--name", "x", error=FileNotFoundError)


def test_import_interrupted(data, monkeypatch):
    """Ctrl-C: exit code 130, and how to begin again."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nasharness.benchmarks.imported.import_table", interrupted)
    assert "nothing was written" in data("import", "nasbench201", "t.csv", "--name", "x", code=130)


def test_help_is_light():
    """Neither NumPy nor pandas is loaded before a command needs it."""
    program = (
        "import sys; from nasharness.harness.data_cli import data_app\n"
        "print(sorted({'numpy', 'pandas', 'pooch', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_error_is_one_that_the_command_line_explains():
    """`main` turns a ValueError into one message and exit code 2."""
    assert all(issubclass(error, ValueError) for error in (FetchError, ImportTableError, TableError))
