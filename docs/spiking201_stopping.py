"""Stopping rules on real learning curves: 15,625 networks of a NAS-Bench-201-shaped space, 100 epochs of CIFAR-10 each.

    python docs/spiking201_stopping.py SPIKING201_CURVES.npz [--rules a,b] [--orderings 100] [--every 1] [--jobs 2]
        [--out docs/spiking201_stopping.md] [--report FOLDER]

The file is of SpikeNAS-Bench: `val_acc` (100 x percent) and `train_loss` of every epoch, one row per cell. A row's number in
base 5, least significant digit first, gives the operations (0 zero, 1 identity, 2 to 4 convolutions) on the edges 0-1, 0-2,
0-3, 1-2, 1-3, 2-3. It has no times, so every epoch of every network counts as one second.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import nasharness as nh
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.curves import groups
from nasharness.harness.registry import split_ids
from nasharness.predictors.base import Curves

RULES = (
    "random_stop,last_value,best_so_far,mean_of_curve,tse,tse@last,median_rule,i_epoch,successive_halving,hyperband,asha,pasha,"
    "nu_svr,affine_curves,parametric,lcranknet,power_law,lc_pfn,lc_net"
)
ORDER = (0, 1, 3, 2, 4, 5)  # the file's edges in the order of the space


def read(path: Path) -> Curves:
    """The curves of the file."""
    file = np.load(path)
    digits = file["index"].astype(np.int64)[:, None] // 5 ** np.arange(6) % 5
    arch = digits[:, ORDER]
    accuracy = file["val_acc"] / 10_000
    n, epochs = accuracy.shape
    # The three convolutions differ in a threshold; two of them standing for others of the space only makes classes coarser.
    return Curves(
        accuracy=accuracy.astype(np.float64),
        max_epochs=epochs,
        arch=arch,
        cardinalities=(5,) * 6,
        seconds=np.broadcast_to(np.arange(1.0, epochs + 1), accuracy.shape).copy(),
        train_loss=file["train_loss"].astype(np.float64),
        dataset=np.zeros(n, dtype=np.int64),
        group=groups(NASBench201Space(), [tuple(a) for a in arch.tolist()]),
    )


def ranking(frame: pd.DataFrame) -> list[str]:
    """Spearman's rho by observed epochs, and R2 of those that predict a value, as Markdown."""
    lines = []
    for column, title in (
        ("spearman", "Spearman's rho with the final accuracy"),
        ("r2", "R2 of the predicted accuracy"),
    ):
        means = frame.groupby(["rule", "epochs"])[column].mean().unstack().dropna(how="all")
        lines += [f"## {title}, after so many of 100 epochs, mean over folds", ""]
        lines += [f"| | {' | '.join(map(str, means.columns))} |", "| --- " * (1 + len(means.columns)) + "|"]
        lines += [
            f"| {rule} | {' | '.join(f'{x:.3f}' for x in row)} |"
            for rule, row in zip(means.index, means.to_numpy(), strict=True)
        ]
        lines += [""]
    return lines


def main() -> None:
    """Read, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curves", type=Path)
    parser.add_argument("--rules", default=RULES)
    parser.add_argument("--orderings", type=int, default=100)
    parser.add_argument("--every", type=int, default=1, help="of this many networks use the first")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    study = nh.compare_stopping(
        split_ids(given.rules),
        read(given.curves).rows(np.arange(0, 15_625, given.every)),
        orderings=given.orderings,
        jobs=given.jobs,
        progress=lambda done, total: print(f"\r{done} of {total}", end="", file=sys.stderr, flush=True),
    )
    print(file=sys.stderr)
    summary = study.summary()
    headers, rows = summary.rows_for_display()
    table = [f"| {' | '.join(cells)} |" for cells in (headers, ["---"] * len(headers), *rows)]
    arguments = [Path(a).name if a.endswith(".npz") else a for a in sys.argv[1:]]
    text = "\n".join(
        [
            "# Stopping rules on real learning curves: SpikeNAS-Bench, CIFAR-10, 100 epochs",
            "",
            f"Made by `python docs/spiking201_stopping.py {' '.join(arguments)}`.",
            "",
            f"Early-stopped random search: {study.curves_words}. An epoch counts as one second.",
            "Regret in points of validation accuracy.",
            "",
            *table,
            "",
            *(f"- {sentence}" for sentence in summary.verdicts()),
            *(f"- {rule} failed: {message}" for rule, message in study.errors.items()),
            "",
            *ranking(study.frame("ranking")),
            "",
        ]
    )
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    if given.report:
        print(study.report(given.report))


if __name__ == "__main__":
    main()
