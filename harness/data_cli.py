"""`nasharness data`: the official files, what they were converted to, and tables of one's own."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .terminal import Json, Quiet, fail, progress

if TYPE_CHECKING:
    from ..benchmarks.columns import Columns

data_app = typer.Typer(
    name="data",
    help="Get, convert, check and import the files of trained networks.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LONGEST = 300  # characters of one fact
Name = Annotated[str, typer.Argument(metavar="NAME", help="As `nasharness data list` shows it.")]


class DataError(ValueError):
    """A command on data files that cannot be carried out; the message says what to type instead."""


@data_app.command("list")
def list_command(as_json: Json = False) -> None:
    """List the official files and the tables on this machine."""
    from ..benchmarks import library
    from ..benchmarks.catalogue import CATALOGUE
    from ..benchmarks.columns import BUILT_KIND, TableError, open_columns

    here = library.installed()
    official: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "licence": entry.licence,
            "converted": str(here[entry.name]) if entry.name in here else None,
            "files": [
                {
                    "name": file.name,
                    "size": file.size,
                    "source": file.url or file.page,
                    "direct": file.url is not None,
                    "sha256": file.sha256,
                    "fetched": str(found) if (found := file.found()) else None,
                    "note": file.note,
                }
                for file in entry.files
            ],
        }
        for entry in CATALOGUE.values()
    ]
    others: list[dict[str, Any]] = []
    for name, path in here.items():
        if name in CATALOGUE:
            continue
        row: dict[str, Any] = {"name": name, "path": str(path)}
        try:
            metadata = open_columns(path).metadata
            row |= {key: metadata.get(key) for key in ("kind", "space", "architectures", "source", "licence")}
            if row["kind"] == BUILT_KIND:  # it says less
                row |= {"architectures": "all", "source": "written by `nasharness build`"}
        except TableError as error:
            row["problem"] = str(error)
        others.append(row)
    if as_json:
        typer.echo(
            json.dumps({"folder": str(library.data_folder()), "official": official, "imported": others}, indent=2)
        )
        return
    for item in official:
        typer.echo(f"{item['name']:<12} {'converted' if item['converted'] else 'not converted'}")
        typer.echo(f"  {item['title']}; licence {item['licence']}")
        for file in item["files"]:
            state = "fetched" if file["fetched"] else "to fetch" if file["direct"] else "by hand"
            typer.echo(f"  {state:<9} {file['name']}, {file['size']}" + (f" ({file['note']})" if file["note"] else ""))
            typer.echo(f"            {file['source']}")
    typer.echo("imported:" + ("" if others else " none"))
    for row in others:
        about = row.get("problem") or f"{row['architectures']} architectures of {row['space']}, {row['source']}"
        typer.echo(f"  {row['name']:<28} {about}")
    typer.echo(f"folder: {library.data_folder()}")


@data_app.command()
def fetch(
    name: Name,
    file: Annotated[str | None, typer.Option(help="Which file, or a part of its name. (default: the first)")] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="A folder to take the file from instead of its own address.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Download an official file, or say how to get it; check it, and unpack a zip archive.

    A download that was cut off goes on when the same command is given again.
    """
    from ..benchmarks.catalogue import fetch as fetch_file

    try:
        with progress(f"{name}, MiB", quiet or as_json) as update:
            fetched = fetch_file(
                name, file, mirror=mirror, progress=lambda done, total: update(done >> 20, total >> 20)
            )
    except KeyboardInterrupt:
        fail(f"interrupted. To go on, give the same command again:\n  {_same_command()}", 130)
    following = f"nasharness data convert {name} {shlex.quote(str(fetched.path))}"
    if as_json:
        found = {
            "path": str(fetched.path),
            "sha256": fetched.sha256,
            "verdict": fetched.verdict,
            "downloaded": fetched.downloaded,
        }
        typer.echo(json.dumps({**found, "next": following}, indent=2))
    elif not quiet:
        typer.echo(f"{'Fetched' if fetched.downloaded else 'Already there:'} {fetched.path}")
        typer.echo(f"sha256 {fetched.sha256} ({fetched.verdict})")
        typer.echo(f"Next: {following}")


@data_app.command()
def convert(
    name: Name,
    file: Annotated[Path, typer.Argument(help="The official file, or the folder that it was unpacked into.")],
    jobs: Annotated[int | None, typer.Option(help="Worker processes. (default: all cores)")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what was converted from another source.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Convert an official file once into the form that opens at once ever after.

    The official file is not changed, and not needed any more. If it is stopped, the same command goes on or begins again.
    """
    from ..benchmarks import library
    from ..benchmarks.catalogue import entry
    from ..benchmarks.columns import open_columns

    official = entry(name)
    if jobs is not None and jobs < 1:
        raise DataError(f"--jobs must be at least 1, not {jobs}")
    if not file.exists():
        raise DataError(f"there is no {file}; `nasharness data fetch {name}` gets it, or says how to")
    target = library.converted_path(name)
    if target.exists() and not force and _is_from(target, file):
        if as_json:
            typer.echo(json.dumps({"path": str(target), "converted": False}, indent=2))
        elif not quiet:
            typer.echo(f"{target} was converted from this file already (--force does it again)")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: a converter may keep beside it what it needs to go on.
    temporary = target.with_name(f".{target.name}.converting")
    start = time.perf_counter()
    try:
        with progress(f"converting {file.name}", quiet or as_json) as update:
            official.convert()(file, temporary, jobs=jobs or os.cpu_count() or 1, progress=_in_mib(update))
        columns = open_columns(temporary, kind=official.kind)
        if official.space not in (None, found := columns.metadata.get("space")):
            raise DataError(f"{file} holds {found}, which is not {name}: give the name that `nasharness data list` has")
        temporary.replace(target)
    except KeyboardInterrupt:
        fail(f"interrupted; {target} is as it was. To go on, give the same command again:\n  {_same_command()}", 130)
    finally:
        temporary.unlink(missing_ok=True)
    result = {
        "path": str(target),
        "converted": True,
        "bytes": target.stat().st_size,
        "sha256": columns.sha256,
        "seconds": round(time.perf_counter() - start, 2),
        "next": f"nasharness data verify {name}",
    }
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    elif not quiet:
        typer.echo(f"Wrote {target}: {result['bytes']:,} bytes in {result['seconds']:.1f} s")
        typer.echo(f"sha256 of its columns {columns.sha256}")
        typer.echo(f"Next: {result['next']}")


def _is_from(target: Path, source: Path) -> bool:
    """Tell whether `target` was converted from `source`.

    Raises:
        DataError: it was converted from something else, or nobody can tell.
    """
    import hashlib

    from ..benchmarks.columns import TableError, open_columns

    try:
        metadata = open_columns(target).metadata
    except TableError as error:
        raise DataError(f"{error}; --force replaces it") from error
    if source.is_file():
        with source.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() == metadata.get("source_sha256"):
                return True
    raise DataError(
        f"{target} was converted from {metadata.get('source', 'an unknown source')}; --force replaces it by what {source} holds"
    )


def _in_mib(update: Any) -> Any:
    """Large counts are bytes: a bar shows them in MiB."""
    return lambda done, total: update(done >> 20, total >> 20) if total > 1 << 24 else update(done, total)


def _same_command() -> str:
    return f"nasharness {shlex.join(sys.argv[1:])}"


def _path(name: str) -> Path:
    """A file given by path, or a table of the data folder given by name."""
    from ..benchmarks.catalogue import find

    return Path(name) if name.endswith(".safetensors") else find(name)


@data_app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A table of the data folder, or a .safetensors file.")],
    as_json: Json = False,
) -> None:
    """Say where a table is from and what it holds."""
    from ..benchmarks.columns import open_columns

    path = _path(name)
    columns = open_columns(path)
    shapes = {column: f"{array.dtype} {array.shape}" for column, array in columns.items()}
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "path": str(path),
                    "bytes": path.stat().st_size,
                    "sha256": columns.sha256,
                    "metadata": columns.metadata,
                    "columns": shapes,
                },
                indent=2,
            )
        )
        return
    typer.echo(f"{path}, {path.stat().st_size:,} bytes")
    typer.echo(f"sha256 of its columns {columns.sha256}")
    for key, value in columns.metadata.items():
        if key != "data_sha256":
            text = value if isinstance(value, str) else json.dumps(value)
            typer.echo(f"  {key}: {text if len(text) <= _LONGEST else f'{text[:_LONGEST]}... (--json has all of it)'}")
    typer.echo("columns:")
    width = max(map(len, shapes), default=0)
    for column, shape in shapes.items():
        typer.echo(f"  {column:<{width}} {shape}")


@data_app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A table of the data folder, or a .safetensors file.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check that a table is what was written, and what is known of it from elsewhere."""
    from ..benchmarks.columns import TableError, open_columns

    columns = open_columns(_path(name))
    facts: list[tuple[str, bool]] = []
    try:
        columns.verify()
        facts.append((f"its columns have the sha256 {columns.sha256}", True))
        facts += _facts(columns)
    except TableError as error:
        facts.append((str(error), False))
    if as_json:
        typer.echo(json.dumps({"passed": all(holds for _, holds in facts), "facts": dict(facts)}, indent=2))
    elif not quiet:
        for fact, holds in facts:
            typer.echo(f"{'ok  ' if holds else 'FAIL'} {fact}")
        typer.echo(f"{sum(holds for _, holds in facts)} of {len(facts)} hold")
    if not all(holds for _, holds in facts):
        raise typer.Exit(1)


def _facts(columns: Columns) -> list[tuple[str, bool]]:
    """What else is checked of this kind of table."""
    from ..benchmarks import imported
    from ..benchmarks.catalogue import CATALOGUE
    from ..benchmarks.columns import BUILT_KIND

    kind = columns.metadata["kind"]
    if kind == BUILT_KIND:
        from ..benchmarks.built import open_built

        opened = open_built(columns.path)  # a TableError if its layout is not what was written
        return [(f"its columns fit the {opened.space.size:,} architectures of {opened.space.name}", True)]
    if kind in (imported.BENCHMARK_KIND, imported.METRICS_KIND):
        return imported.verify(columns)
    official = next((entry for entry in CATALOGUE.values() if entry.kind == kind), None)
    return [] if official is None else list(official.verify()(columns))


@data_app.command("import")
def import_command(
    space: Annotated[
        str, typer.Argument(help="nasbench101, nasbench201, nats_size, darts, or package.module:Class of your own.")
    ],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A .csv or .parquet file, one row per architecture.")],
    name: Annotated[str, typer.Option(help="What to call the benchmark.")],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="Where a name differs: val_accuracy=acc. Repeatable."),
    ] = None,
    percent: Annotated[bool, typer.Option("--percent", help="The accuracies are in percent.")] = False,
    epochs: Annotated[int, typer.Option(help="Epochs of the full schedule.")] = 1,
    search_epochs: Annotated[
        int | None, typer.Option(help="Epochs behind search_val_accuracy and search_seconds.")
    ] = None,
    metrics_only: Annotated[
        bool, typer.Option("--metrics-only", help="The table has no accuracies: latencies, for example.")
    ] = False,
    fill_seconds: Annotated[
        bool, typer.Option("--fill-seconds", help="Charge the mean where an evaluation's cost is unknown.")
    ] = False,
    source: Annotated[str, typer.Option(help="Where the numbers come from, for the reports.")] = "",
    licence: Annotated[str, typer.Option(help="Their licence, for the reports.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a table of this name.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a benchmark of a table of one's own.

    Columns: architecture, val_accuracy, test_accuracy, seconds; search_val_accuracy and search_seconds if a search trains
    for a shorter time; params, flops; every other numeric column is a further metric.
    """
    import dataclasses

    from ..benchmarks import library
    from ..benchmarks.catalogue import CATALOGUE
    from ..benchmarks.imported import import_table, load_space

    target = library.converted_path(name)
    if name in CATALOGUE:
        raise DataError(f"{name} is the name of an official benchmark: choose another --name")
    if target.exists() and not force:
        raise DataError(f"there is a table {name!r} already ({target}); --force replaces it")
    opened = load_space(space)
    try:
        with progress("rows", quiet or as_json) as update:
            report = import_table(
                opened,
                table,
                target,
                name=name,
                columns=_renames(column or []),
                percent=percent,
                epochs=epochs,
                search_epochs=search_epochs,
                metrics_only=metrics_only,
                fill_seconds=fill_seconds,
                source=source,
                licence=licence,
                progress=update,
            )
    except KeyboardInterrupt:
        fail(f"interrupted; nothing was written. To begin again:\n  {_same_command()}", 130)
    following = (
        f"nasharness compare --benchmark \"ID(metrics='{name}')\""
        if metrics_only
        else f"nasharness compare --benchmark {name}"
    )
    if as_json:
        fields = dataclasses.asdict(report) | {"path": str(report.path)}
        typer.echo(json.dumps({**fields, "next": following}, indent=2))
    elif not quiet:
        for line in report.lines():
            typer.echo(line)
        typer.echo(f"Wrote {report.path}")
        typer.echo(f"Next: {following}")


def _renames(pairs: list[str]) -> dict[str, str]:
    """`--column ours=theirs`, repeated."""
    renames: dict[str, str] = {}
    for pair in pairs:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise DataError(f"--column is written OURS=THEIRS, such as val_accuracy=acc, not {pair!r}")
        if ours in renames:
            raise DataError(f"--column {ours} is given twice")
        renames[ours] = theirs
    return renames
