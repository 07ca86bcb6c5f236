"""`python -m nasharness` is the `nasharness` command."""

from .harness.cli import main

main()
