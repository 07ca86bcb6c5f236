"""Tables for LaTeX."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import UNDEFINED, Summary

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{EN DASH}": "--",
    "\n": " ",
}


def escape(text: str) -> str:
    """Text as LaTeX source that prints it: every special character escaped."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex_table(summary: Summary) -> str:
    """The table of a study with caption and label; the same cells as on the page."""
    headings, rows = summary.rows_for_display()
    caption = (
        f"Search strategies on {summary.benchmark}: regret at the end of a run in percentage points (lower is better),"
        " mean or interquartile mean (IQM) over runs with the 95 % percentile bootstrap interval in brackets."
    )
    return booktabs(headings, rows, text=[c.text for c in summary.columns], caption=caption, label=summary.benchmark)


def booktabs(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: Sequence[bool],
    caption: str,
    label: str,
    prefix: str = "tab:",
    rule_after: int | None = None,
) -> str:
    """A booktabs table.

    Args:
        headings, rows: plain text; it is escaped here.
        text: for each column whether it is set flush left.
        caption: plain text.
        label: what the table is about; anything but ASCII letters and digits becomes a dash.
        prefix: of the label.
        rule_after: number of rows above a further line; None for no line.
    """
    body = [f"    {' & '.join(map(_cell, row))} \\\\" for row in rows]
    if rule_after is not None:
        body.insert(rule_after, r"    \midrule")
    lines = "\n".join(body)
    return rf"""% needs \usepackage{{booktabs}} and, for \resizebox, \usepackage{{graphicx}}
\begin{{table}}
  \centering
  \caption{{{escape(caption)}}}
  \label{{{prefix}{_label(label)}}}
  \resizebox{{\textwidth}}{{!}}{{%
  \begin{{tabular}}{{{"".join("l" if left else "r" for left in text)}}}
    \toprule
    {" & ".join(map(escape, headings))} \\
    \midrule
{lines}
    \bottomrule
  \end{{tabular}}}}
\end{{table}}
"""


def _cell(text: str) -> str:
    # Braces: a "[" right after "\\" would be read as the optional argument of the line break.
    escaped = "--" if text == UNDEFINED else escape(text)
    return f"{{{escaped}}}" if escaped.startswith("[") else escaped


def _label(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)
