"""The summary as a LaTeX table."""

from __future__ import annotations

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
    """A booktabs table with caption and label; the same cells as on the page."""
    headings, rows = summary.rows_for_display()
    columns = "".join("l" if column.text else "r" for column in summary.columns)
    body = "\n".join("    " + " & ".join(map(_cell, row)) + r" \\" for row in rows)
    head = " & ".join(map(escape, headings))
    caption = (
        f"Search strategies on {summary.benchmark}: regret at the end of a run in percentage points (lower is better),"
        " mean or interquartile mean (IQM) over runs with the 95 % percentile bootstrap interval in brackets."
    )
    return rf"""% needs \usepackage{{booktabs}} and, for \resizebox, \usepackage{{graphicx}}
\begin{{table}}
  \centering
  \caption{{{escape(caption)}}}
  \label{{tab:{_label(summary.benchmark)}}}
  \resizebox{{\textwidth}}{{!}}{{%
  \begin{{tabular}}{{{columns}}}
    \toprule
    {head} \\
    \midrule
{body}
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
