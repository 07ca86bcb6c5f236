"""`digits201-v1`: every NAS-Bench-201 cell, really trained on cluttered digits. Ships with the package.

Protocol
    A search sees the validation accuracy of one training run after its last epoch (or after the epochs that it asked for)
    and pays the run's training and validation seconds, measured as CPU seconds of one thread. A report uses the mean test
    accuracy over the training runs at the full schedule. How the table was made, and how well it ranks, is in
    `benchmarks/data/README.md`; `nasharness build` makes it again.

Version history
    v1  One training seed, 6 epochs, 5,260 networks for 15,625 architectures.
"""

from __future__ import annotations

from pathlib import Path

from .built import TrainedCells, open_built

FILE = Path(__file__).parent / "data" / "digits201-v1.safetensors"


def load() -> TrainedCells:
    """Open the embedded benchmark."""
    return open_built(
        FILE,
        "digits201-v1",
        version_history="v1: one training seed, 6 epochs",
        caution="digits201-v1 holds one training seed, which moves a network's test accuracy by about 3 points (standard"
        " deviation): it tells search strategies apart, not its best few architectures.",
    )
