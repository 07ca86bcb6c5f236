"""What the pages of this folder share: writing files, tables of numbers, templates, figures inside a page."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING

from .figures import INK, LINES, PALETTE, PAPER, Drawing

if TYPE_CHECKING:
    import jinja2

    from ...benchmarks.base import Benchmark


def write(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and move it, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def csv_bytes(fields: Sequence[str], rows: Iterable[Iterable[object]]) -> bytes:
    """A CSV file with a line of headings; what is None or NaN is an empty cell."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


def _cell(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def this_process() -> dict[str, str]:
    """Versions and host of this process."""
    versions = {"Python": platform.python_version()}
    for name in ("nasharness", "numpy", "matplotlib"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source folder that was never installed
            versions[name] = "not installed as a package"
    return {**versions, "platform": platform.platform(), "host": platform.node()}


def size_in_words(benchmark: Benchmark) -> str:
    """How many architectures a benchmark knows."""
    size = benchmark.space.known_size
    return "an unknown number of" if size is None else f"{size:,}"


def template(name: str) -> jinja2.Template:
    """A template of this folder, with what all of them use."""
    import jinja2

    folder = resources.files(__package__)
    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda wanted: folder.joinpath(wanted).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["breakable"] = _breakable
    return engine.get_template(name)


def _breakable(text: str) -> str:
    """Let a browser break a long label after an underscore, comma or bracket, and nowhere else."""
    import markupsafe

    return markupsafe.Markup(re.sub(r"([_,(])", r"\1<wbr>", str(markupsafe.escape(text))))  # noqa: S704  (escaped)


def plain(value: object) -> str:
    """A string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def split_interval(cell: str) -> tuple[str, str]:
    """`1.23 [1.10, 1.37]` in two, so that the page can put the interval on a line of its own."""
    match = re.fullmatch(r"(-?[\d.,]+) (\[.*)", cell)
    return (match[1], match[2]) if match else (cell, "")


_SVG_CHANGES = (
    (r"^.*?(?=<svg)", ""),  # XML declaration and doctype
    (r"<metadata>.*?</metadata>", ""),
    (r'\sxmlns(:\w+)?="[^"]*"', ""),  # HTML knows SVG without
    (r"xlink:href", "href"),
    (r'(<svg\b[^>]*?)\swidth="[^"]*"', r"\1"),  # the page sizes it
    (r'(<svg\b[^>]*?)\sheight="[^"]*"', r"\1"),
    (re.escape(INK), "var(--ink)"),
    (re.escape(LINES), "var(--line)"),
    (re.escape(PAPER), "var(--paper)"),
    (re.escape(PALETTE[0].lower()), "var(--blue)"),  # too dark on a dark page
)


def inline_svg(drawing: Drawing, number: int) -> str:
    """A figure for the page: no namespaces or comments, the page's colours, ids that no other figure has."""
    svg = drawing.svg.decode()
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)  # matplotlib writes every text into one, unescaped labels too
    for pattern, replacement in _SVG_CHANGES:
        svg = re.sub(pattern, replacement, svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>f{number}-", svg)
    label = f"Figure {number + 1}: {drawing.name.replace('_', ' ')}"
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
