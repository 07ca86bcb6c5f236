"""The images of a supernet: how they are split, shuffled and augmented."""

import numpy as np
import pytest
import torch
from tiny_supernets import TinyImages

from nasharness.benchmarks.datasets import TaskImages
from nasharness.benchmarks.images import Images
from nasharness.optimizers.supernet.images import Augmentation, SupernetImages


class Fresh(TinyImages):
    """Training images that say in which epoch and with which seed they were drawn."""

    def epoch(self, seed, epoch):
        train = self.split("train")
        return Images(train.images * 0.0 + np.float32(100 * seed + epoch), train.labels)


class TrainOnly(TaskImages):
    """A source without validation images."""

    def __init__(self, task):
        super().__init__(task)
        self.splits = ("train", "test")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(source=None, seed=0, **given):
    return SupernetImages(source or TaskImages(TinyImages()), generator(seed), **{"batch_size": 10, **given})


def rows(x):
    return {row.numpy().tobytes() for row in x.contiguous()}


def test_parts_are_the_training_and_validation_images():
    task = TinyImages()
    found = images(TaskImages(task))
    for part, split in (("weights", "train"), ("architecture", "validation")):
        assert rows(found.part(part).images) == rows(torch.tensor(task.split(split).images))
        assert found.size(part) == task.n
        for x, y in zip(*found.part(part), strict=True):  # every image has kept its label
            where = [np.array_equal(x, other) for other in task.split(split).images]
            assert task.split(split).labels[where.index(True)] == y


@pytest.mark.parametrize("n", [32, 33])
def test_a_source_without_validation_images_is_halved(n):
    task = TinyImages(n)
    found = images(TrainOnly(TaskImages(task).task))
    weights, architecture = (rows(found.part(part).images) for part in ("weights", "architecture"))
    assert not weights & architecture
    assert weights | architecture == rows(torch.tensor(task.split("train").images))
    assert len(weights) == n // 2
    assert rows(images(TrainOnly(task), seed=1).part("weights").images) == weights, "the seed of a run changes no split"


@pytest.mark.parametrize("source", [TaskImages, TrainOnly])
def test_limit(source):
    found, every = images(source(TinyImages()), limit=7), images(source(TinyImages()))
    for part in ("weights", "architecture"):
        assert found.size(part) == 7
        assert rows(found.part(part).images) < rows(every.part(part).images)
    assert images(source(TinyImages()), limit=1000).size("weights") == every.size("weights")


def test_batches_go_once_over_a_part():
    found = images()
    batches = list(found.batches("weights"))
    assert [len(b.targets) for b in batches] == [10, 10, 10, 2]
    assert found.steps() == 4
    assert rows(torch.cat([b.images for b in batches])) == rows(found.part("weights").images)
    again = torch.cat([b.targets for b in images().batches("weights")])
    assert torch.equal(torch.cat([b.targets for b in batches]), again), "the order is the generator's"
    assert not torch.equal(torch.cat([b.images for b in found.batches("weights")]), batches[0].images.new_tensor(0))


def test_endless_starts_again():
    found = images()
    endless = found.endless("architecture")
    for _ in range(2):
        drawn = [next(endless) for _ in range(4)]
        assert rows(torch.cat([b.images for b in drawn])) == rows(found.part("architecture").images)


def literal(batch, padding, flip, seed):
    """Crops and flips, pixel by pixel."""
    rng = generator(seed)
    n, channels, height, width = batch.shape
    corners = torch.randint(0, 2 * padding + 1, (n, 2), generator=rng).tolist() if padding else [[0, 0]] * n
    mirrored = (torch.rand(n, generator=rng) < 0.5).tolist() if flip else [False] * n
    out = torch.zeros_like(batch)
    for i in range(n):
        for c in range(channels):
            for row in range(height):
                for column in range(width):
                    from_row = row + corners[i][0] - padding
                    from_column = (width - 1 - column if mirrored[i] else column) + corners[i][1] - padding
                    if 0 <= from_row < height and 0 <= from_column < width:
                        out[i, c, row, column] = batch[i, c, from_row, from_column]
    return out


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (1, False), (2, True)])
def test_augmentation(padding, flip):
    batch = torch.randn(6, 3, 4, 5, generator=generator())
    for seed in range(3):
        found = Augmentation(padding, flip)(batch, generator(seed))
        assert torch.equal(found, literal(batch, padding, flip, seed))


def test_training_batches_are_augmented_and_fixed_ones_are_not():
    task = TaskImages(TinyImages(channels=3))
    found, plain = images(task, augmentation=Augmentation(1, True)), images(task)
    assert not rows(next(found.batches("weights")).images) <= rows(plain.part("weights").images)
    assert rows(torch.cat([b.images for b in found.fixed("weights")])) == rows(plain.part("weights").images)


def test_fixed_is_the_same_at_every_call():
    found = images()
    before = found.generator.get_state()
    first = found.fixed("architecture", 12)
    next(found.batches("weights"))
    second = found.fixed("architecture", 12)
    assert [len(b.targets) for b in first] == [12]
    assert torch.equal(first[0].images, second[0].images)
    assert torch.equal(first[0].targets, second[0].targets)
    assert torch.equal(first[0].targets, found.part("architecture").targets[:12])
    assert not torch.equal(found.generator.get_state(), before), "batches draw"
    before = found.generator.get_state()
    found.fixed("weights")
    assert torch.equal(found.generator.get_state(), before), "fixed ones do not"


def test_fresh_epochs():
    found = images(TaskImages(Fresh()), seed=3)
    other = SupernetImages(TaskImages(Fresh()), generator(), seed=2)
    for epoch in (0, 5):
        found.start_epoch(epoch)
        other.start_epoch(epoch)
        assert found.part("weights").images.unique().tolist() == [epoch]
        assert other.part("weights").images.unique().tolist() == [200 + epoch]
    assert rows(found.part("architecture").images) == rows(torch.tensor(Fresh().split("validation").images))


def test_other_sources_stay_as_they_are():
    found = images()
    before = found.part("weights").images
    found.start_epoch(3)
    assert found.part("weights").images is before
