"""Make a NAS-Bench-201 table of full size, for measurements: 15,625 architectures, their real ends, made-up curves.

    python tests/performance/full_nasbench201.py NB201.parquet OUT.safetensors [--architectures N]

The ends of the training runs, their seconds, parameters and FLOPs are those of the given table of real results. What is
between is made up by one rule: after epoch e of E the accuracy is end * (1 - exp(-5 e / E)) / (1 - exp(-5)), the loss is
-ln(accuracy), and the seed s shifts the ends by ((index * 31 + s) mod 41 - 20) / 100 points where the real trials are not
known. Every architecture is written as the official files hold it (schedules "12" and "200", four datasets, seeds 777, 888,
999) and goes through the converter's own checks.
"""

import argparse
import math
import sys
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd

from nasharness.benchmarks.convert.nats import Spool

SEEDS = {"12": {"cifar10-valid": (111, 777)}, "200": {}}
EVALUATED = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("ori-test", "x-valid", "x-test"),
    "ImageNet16-120": ("ori-test", "x-valid", "x-test"),
}
CLASSES = {"cifar10-valid": 10, "cifar10": 10, "cifar100": 100, "ImageNet16-120": 120}
SHAPE = {n: ((1 - np.exp(-5 * np.arange(1, n + 1) / n)) / (1 - math.exp(-5))) for n in (12, 200)}


def _ends(row, dataset, epochs):
    """Training, validation and test accuracy at the end, percent."""
    if dataset.startswith("cifar10") and dataset != "cifar100":
        train = row["cifar10_train_200"] if epochs == 200 else row["cifar10_test_12"]
        valid = row["cifar10_val_200"] if epochs == 200 else row["cifar10_val_12"]
        test = row["cifar10-valid_test_200"] if dataset == "cifar10-valid" else row["cifar10_test_200"]
        return train, valid, test if epochs == 200 else row["cifar10_test_12"]
    scale = 1.0 if dataset == "cifar100" else 0.63  # ImageNet16-120 is not in the table
    train = row["cifar100_train_200"] if epochs == 200 else row["cifar100_test_12"]
    return tuple(scale * value for value in (train, row[f"cifar100_val_{epochs}"], row[f"cifar100_test_{epochs}"]))


def _result(row, index, dataset, schedule, seed):
    epochs = int(schedule)
    shift = ((index * 31 + seed) % 41 - 20) / 100
    train, valid, test = (min(99.99, max(0.5, end + shift)) for end in _ends(row, dataset, epochs))
    mixture = (valid + test) / 2 if dataset not in ("cifar10-valid", "cifar10") else test
    ends = {"x-valid": valid, "x-test": test, "ori-test": mixture}
    shape = SHAPE[epochs]

    def curve(end):
        accuracy = end * shape
        return accuracy.tolist(), (-np.log(accuracy / 100)).tolist()

    seconds = float(row["cifar10-valid_train_time_12_s"]) / 12 * (1.0 if dataset == "cifar10-valid" else 2.0)
    train_accuracy, train_loss = curve(train)
    evaluated = EVALUATED[dataset]
    accuracies, losses, times = {}, {}, {}
    for name in evaluated:
        values, value_losses = curve(ends[name])
        every = schedule == "12" or name == ("x-valid" if dataset == "cifar10-valid" else "ori-test")
        for epoch in range(epochs):
            times[f"{name}@{epoch}"] = seconds / 30
            if every or epoch == epochs - 1:
                accuracies[f"{name}@{epoch}"], losses[f"{name}@{epoch}"] = values[epoch], value_losses[epoch]
    suffix = "cifar10" if dataset.startswith("cifar10") and dataset != "cifar100" else "cifar100"
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": dict(enumerate(train_accuracy)),
        "train_acc5es": None,
        "train_losses": dict(enumerate(train_loss)),
        "train_times": OrderedDict((epoch, seconds) for epoch in range(epochs)),
        "eval_names": list(evaluated),
        "eval_acc1es": accuracies,
        "eval_losses": losses,
        "eval_times": times,
        "arch_config": {"channel": 16, "num_cells": 5, "arch_str": row["arch"], "class_num": CLASSES[dataset]},
        "params": float(np.nan_to_num(row[f"{suffix}_params_M"])),
        "flop": float(np.nan_to_num(row[f"{suffix}_flops_M"])),
        "seed": f"{seed:04d}",
        "epochs": epochs,
        "latency": [float(np.nan_to_num(row[f"{suffix}_latency_s"], nan=0.01))],
    }


def states(row, index):
    """An architecture as the official files hold it."""
    every = {}
    for schedule in ("12", "200"):
        results, seeds = {}, {}
        for dataset in EVALUATED:
            default = (111,) if schedule == "12" else (777, 888, 999)
            seeds[dataset] = list(SEEDS[schedule].get(dataset, default))
            for seed in seeds[dataset]:
                results[(dataset, seed)] = _result(row, index, dataset, schedule, seed)
        every[schedule] = {
            "arch_index": index,
            "arch_str": row["arch"],
            "all_results": results,
            "dataset_seed": seeds,
            "clear_net_done": False,
        }
    return every


def make(parquet, out, architectures=15625):
    table = pd.read_parquet(parquet)
    start = time.monotonic()
    with Spool(out.with_name(out.name + ".part"), source={"synthetic": architectures}) as spool:
        for index, row in enumerate(table.head(architectures).to_dict("records")):
            if index not in spool.present:
                spool.add(index, states(row, index))
            if index % 500 == 499:
                print(f"{index + 1} of {architectures}: {time.monotonic() - start:.0f} s", file=sys.stderr)
        spool.finish(out, {"source": "synthetic curves", "source_sha256": "0" * 64})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--architectures", type=int, default=15625)
    arguments = parser.parse_args()
    make(arguments.parquet, arguments.out, arguments.architectures)
