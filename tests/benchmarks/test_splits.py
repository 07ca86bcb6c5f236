"""The official divisions of the images."""

import json

import numpy as np
import pytest

from nasharness.benchmarks.splits import SHA256, check_split, cifar10_split


def test_cifar10_follows_from_its_seed():
    """Two halves without overlap, with the official digests."""
    train, valid = cifar10_split()
    assert (len(train), len(valid), len(np.union1d(train, valid))) == (25_000, 25_000, 50_000)
    check_split("cifar10", "train", train)
    check_split("cifar10", "valid", valid[::-1])


def test_the_official_lists(shared_data):
    """Sizes, first ids and digests as published."""
    official = json.loads((shared_data / "official" / "nb201_splits.json").read_text())
    for part, ids in zip(("train", "valid"), cifar10_split(), strict=True):
        said = official["cifar-split.txt"][part]
        assert (len(ids), ids[:20].tolist()) == (said["n"], said["first20"])
    for (dataset, part), digest in SHA256.items():
        file = {"cifar10": "cifar-split.txt", "cifar100": "cifar100-test-split.txt"}.get(
            dataset, "imagenet-16-120-test-split.txt"
        )
        assert official[file][part if dataset == "cifar10" else f"x{part}"]["sha256"] == digest


def test_other_ids_are_refused():
    train, valid = cifar10_split()
    with pytest.raises(ValueError, match="not the official train part of cifar10"):
        check_split("cifar10", "train", valid)
    with pytest.raises(ValueError, match="not the official valid part of cifar100"):
        check_split("cifar100", "valid", train[:5000])
    with pytest.raises(ValueError, match="no official 'test' part of 'cifar10'; there are: cifar10 train"):
        check_split("cifar10", "test", train)
