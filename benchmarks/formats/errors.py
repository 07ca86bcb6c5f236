"""What every reader raises on a file that it cannot or will not read."""

from __future__ import annotations


class FormatError(ValueError):
    """A file that is not what it should be: damaged, cut off, foreign, or asking for something that is refused."""
