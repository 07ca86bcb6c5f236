"""How well a table ranks: its accuracy distribution, and Kendall tau between training seeds.

    nasharness build --seeds 1 --limit 150 --out seed1.safetensors
    python -m nasharness.benchmarks.ranking seed1.safetensors.journal

compares the networks that were trained again with another seed with `digits201-v1`.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from .build import BuildError, BuildSpec, Journal, representatives
from .built import TrainedCells
from .digits201 import load
from .spaces.nasbench201 import network_classes


def describe(benchmark: TrainedCells) -> str:
    """Distribution of the final accuracies over all architectures, and what the table cost."""
    archs = np.array(list(benchmark.space))
    final = benchmark.final_many(archs)
    quantiles = (0, 5, 25, 50, 75, 95, 99, 100)
    lines = [f"{benchmark.id}: {len(archs)} architectures, {benchmark.max_epochs} epochs"]
    lines.append("quantile            " + "".join(f"{q:>8d} %" for q in quantiles))
    for name, values in (("validation accuracy", final.val_accuracy), ("test accuracy", final.test_accuracy)):
        lines.append(f"{name:20s}" + "".join(f"{100 * x:10.2f}" for x in np.percentile(values, quantiles)))
    lines.append(f"{'seconds':20s}" + "".join(f"{x:10.2f}" for x in np.percentile(final.seconds, quantiles)))
    tau = kendalltau(final.val_accuracy, final.test_accuracy).statistic
    lines.append(f"sd of test accuracy between architectures: {100 * final.test_accuracy.std():.2f} points")
    lines.append(f"Kendall tau, validation against test accuracy of the same run: {tau:.3f}")
    best = archs[int(np.argmax(final.test_accuracy))]
    lines.append(f"best test accuracy: {benchmark.space.to_string(tuple(best.tolist()))}")
    return "\n".join(lines)


def between_seeds(benchmark: TrainedCells, journal: Path) -> str:
    """Kendall tau between the table and the same networks in a build journal that used another seed."""
    archs = representatives()
    with closing(Journal(journal, None)) as other:
        again = list(other.results())
        here, there = (
            {**vars(s), "seeds": ()}
            for s in (BuildSpec.from_json(json.dumps(benchmark.info.details["spec"])), other.spec)
        )
    if here != there or not again:
        raise BuildError(f"{journal} holds no finished network of the kind in {benchmark.id}: {there}, not {here}")
    final = benchmark.final_many([archs[number] for number, _, _ in again])
    test = np.array([result["test_accuracy"] for _, _, result in again])
    validation = np.array([result["val_accuracy"][-1] for _, _, result in again])
    top = np.argsort(-final.test_accuracy)[: len(test) // 4]  # by this table alone: both would bias tau downwards
    sizes = np.bincount(network_classes(), minlength=len(archs))[[number for number, _, _ in again]]
    every = np.repeat(np.arange(len(test)), sizes)
    lines = [f"{len(again)} networks, of {len(every)} architectures, trained again with seed {again[0][1]}"]
    for name, x, y in (
        ("test against test accuracy", final.test_accuracy, test),
        ("the same over the architectures", final.test_accuracy[every], test[every]),
        ("validation against validation accuracy", final.val_accuracy, validation),
        ("validation (this table) against test accuracy (other seed)", final.val_accuracy, test),
        ("test against test accuracy, best quarter of this table", final.test_accuracy[top], test[top]),
    ):
        lines.append(f"{name}: Kendall tau {kendalltau(x, y).statistic:.3f}, Spearman {spearmanr(x, y).statistic:.3f}")
    noise = (final.test_accuracy - test).std() / np.sqrt(2)
    lines.append(f"sd of test accuracy between seeds: {100 * noise:.2f} points")
    return "\n".join(lines)


if __name__ == "__main__":
    digits = load()
    sys.stdout.write(describe(digits) + "\n")
    for argument in sys.argv[1:]:
        sys.stdout.write(between_seeds(digits, Path(argument)) + "\n")
