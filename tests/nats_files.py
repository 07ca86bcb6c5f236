"""Files in the structure of the official NAS-Bench-201 and NATS-Bench ones, filled with random numbers."""

import functools
import pickle
import random
from collections import OrderedDict

import numpy as np

from nasharness.benchmarks.formats.nats import NUM_CLASSES, SCHEDULES, SPACES

SETS = {"cifar10-valid": ("x-valid", "ori-test"), "cifar10": ("ori-test",)}
MIXED = ("x-valid", "x-test", "ori-test")


def official_states(space, index, *, seeds=None, schedules=None, datasets=None, old=False, numpy=False):
    """Random numbers in the structure of the official files, whose irregularities are those of the real ones.

    Args:
        seeds: of the topology space's 200 epochs.
        old: as in version 1.0: schedules "full" and "less", no times in "full", several latencies.
        numpy: params and latencies as NumPy scalars.
    """
    rng = random.Random(f"{space} {index}")
    text = SPACES[space].to_string(SPACES[space].from_index(index))
    number = np.float64 if numpy else float
    states = OrderedDict()
    for schedule, epochs in SCHEDULES[space].items():
        if schedules and schedule not in schedules:
            continue
        results, listed = {}, {}
        for dataset in datasets or NUM_CLASSES:
            if (space, schedule) == ("nasbench201", "200"):
                runs = list(seeds or (777, 888, 999))
            elif space == "nasbench201":
                runs = [111, 777] if dataset == "cifar10-valid" else [111]
            else:
                runs = [777, 888, 999] if schedule == "12" else [777]
            listed[dataset] = runs
            seconds = rng.uniform(1, 9)
            for seed in reversed(runs):
                losses, accuracies = {}, {}
                sets = SETS.get(dataset, MIXED)
                for name in sets:
                    last = schedule == "200" and name != ("x-valid" if dataset == "cifar10-valid" else "ori-test")
                    for epoch in [epochs - 1] if last else range(epochs):
                        key = "{}@{}".format(name, epoch)  # noqa: UP032  a new string each time, as in the files
                        losses[key], accuracies[key] = rng.uniform(0, 5), rng.uniform(0, 100)
                timeless = old and schedule == "200"
                results[dataset, seed] = {
                    "name": dataset,
                    "net_state_dict": None,
                    "train_acc1es": {e: rng.uniform(0, 100) for e in range(epochs)},
                    "train_acc5es": None if schedule == "200" else {e: rng.uniform(0, 100) for e in range(epochs)},
                    "train_losses": {e: rng.uniform(0, 5) for e in range(epochs)},
                    "train_times": None if timeless else OrderedDict((e, seconds) for e in range(epochs)),
                    "arch_config": {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": NUM_CLASSES[dataset]},
                    "params": number(rng.random()),
                    "flop": 15.5,
                    "seed": f"{seed:04d}",
                    "epochs": epochs,
                    "latency": [number(rng.random()) for _ in range(3 if timeless else 1)],
                    "eval_names": list(sets),
                    "eval_acc1es": accuracies,
                    "eval_losses": losses,
                    "eval_times": {}
                    if timeless
                    else {f"{name}@{e}": seconds / 3 for name in sets for e in range(epochs)},
                }
        key = {"12": "less", "200": "full"}.get(schedule, schedule) if old else schedule
        states[key] = {
            "arch_index": index,
            "arch_str": text,
            "all_results": results,
            "dataset_seed": listed,
            "clear_net_done": True,
        }
    return dict(states) if old else states


@functools.cache
def official_strings(space):
    return tuple(SPACES[space].to_string(arch) for arch in map(SPACES[space].from_index, range(SPACES[space].size)))


def official_meta(space, infos=None, *, old=False):
    strings = list(official_strings(space))
    evaluated = set(infos or ())
    return {
        "meta_archs": strings,
        "total_archs": len(strings),
        "arch2infos": infos,
        "evaluated_indexes": sorted(evaluated) if old else evaluated,
    }


def write_legacy(path, value, keys=()):
    """torch.save as it was up to torch 1.5, for a value without tensors."""
    with path.open("wb") as file:
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
        for part in (0x1950A86A20F9469CFC6C, 1001, system, value, list(keys)):
            pickle.dump(part, file, protocol=2)


def small(space="nasbench201", index=11, **options):
    return official_states(space, index, schedules=["12"], datasets=["cifar10-valid", "cifar100"], **options)
