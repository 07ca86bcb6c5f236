"""The report of a study: summary, figures and the page."""

from .page import write_report
from .summary import Summary, summarise

__all__ = ["Summary", "summarise", "write_report"]
