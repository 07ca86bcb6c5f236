import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from nasharness.benchmarks.images import SPLITS, TASKS, ClutteredDigits, Digits, ImageTask, image_task

OFFSETS = [(row, column) for row in range(5) for column in range(5)]


class Clean(ClutteredDigits):
    """Neither noise nor fragments: the digit alone."""

    fragments = 0
    noise = 0.0


class Cluttered(ClutteredDigits):
    """A fragment, but no noise."""

    noise = 0.0


class Noisy(ClutteredDigits):
    """Noise, but no fragment."""

    fragments = 0


def pixels(images):
    """Undo the standardisation of the cluttered digits: back to [0, 1]."""
    return images[:, 0] * np.float32(0.35) + np.float32(0.2)


def digits(split):
    """The 8 x 8 digits of a split in [0, 1]."""
    return Digits().split(split).images[:, 0] * np.float32(0.376) + np.float32(0.305)


def offsets_of_the_digit(canvas, digit):
    """Places where the canvas is exactly the digit on an empty background."""
    found = []
    for row, column in OFFSETS:
        expected = np.zeros((12, 12), dtype=np.float32)
        expected[row : row + 8, column : column + 8] = digit
        if np.abs(canvas - expected).max() < 1e-5:
            found.append((row, column))
    return found


def digest(images):
    """Sha256 of the pixels, rounded to 4 decimals, and of the labels."""
    rounded = np.round(images.images.astype(np.float64), 4) + 0.0  # no negative zeros
    return hashlib.sha256(rounded.astype(">f8").tobytes() + images.labels.astype(">i8").tobytes()).hexdigest()


# -------------------------------------------------------------------------------------------------------------- splits


def test_the_splits_part_the_digits():
    """1,000 / 400 / 397 digits, which together are scikit-learn's 1,797, each once."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    expected = Counter(
        (image.astype(int).tobytes(), int(label)) for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    found = Counter()
    for split in SPLITS:
        sixteenths = np.rint(digits(split) * 16).astype(int)
        found.update(
            (image.tobytes(), int(label)) for image, label in zip(sixteenths, Digits().split(split).labels, strict=True)
        )
    assert [len(Digits().split(split).labels) for split in SPLITS] == [1000, 400, 397]
    assert expected == found


@pytest.mark.parametrize(("split", "n"), [("train", 1000), ("validation", 800), ("test", 1985)])
def test_sizes_of_the_cluttered_splits(split, n):
    """Training shows each digit once, validation in two and test in five placements, always with its label."""
    labels = ClutteredDigits().split(split).labels
    assert np.tile(Digits().split(split).labels, n // len(digits(split))).tolist() == labels.tolist()
    assert n == len(labels)


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize("split", SPLITS)
def test_shapes_types_and_ranges(name, split):
    """Images are float32 of the task's shape, finite and roughly standardised; labels are int64 class numbers."""
    task = image_task(name)
    images, labels = task.split(split)
    assert ((len(labels), *task.shape), np.float32, np.int64) == (images.shape, images.dtype, labels.dtype)
    assert np.isfinite(images).all()
    assert abs(images.mean()) < 0.35
    assert 0.6 < images.std() < 1.4
    assert set(range(task.num_classes)) == set(labels.tolist())


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(split):
    """No class is more than a third away from its share."""
    counts = np.bincount(Digits().split(split).labels, minlength=10)
    assert (np.abs(counts / counts.mean() - 1) < 1 / 3).all()


GOLDEN = {
    "train": "3c0c6879e8ffe737147634d2b6930292167968a4235f94f706da56ffc9c6ae38",
    "validation": "c700b974d74f181a814f4605aa64dfa5529e37c06e7c47d73db43518b80425ae",
    "test": "429d55df4772cab9ab1ce19011d32cdd428b9445cc734c8a9066a0c07ea88377",
}


@pytest.mark.parametrize("split", SPLITS)
def test_fixed_splits_never_change(split):
    """The fixed images of cluttered-digits: trained tables hold for these pixels only."""
    assert GOLDEN[split] == digest(ClutteredDigits().split(split))


def test_a_second_process_sees_the_same_images():
    """Splits and epochs are bit for bit the same in another process."""
    program = (
        "import hashlib; from nasharness.benchmarks.images import *; t = image_task('cluttered-digits');"
        "parts = [t.split(s) for s in SPLITS] + [t.epoch(3, 2)];"
        "print(hashlib.sha256(b''.join(a.tobytes() for part in parts for a in part)).hexdigest())"
    )
    task = ClutteredDigits()
    parts = [task.split(split) for split in SPLITS] + [task.epoch(3, 2)]
    expected = hashlib.sha256(b"".join(array.tobytes() for part in parts for array in part)).hexdigest()
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert expected == answer.stdout.strip()


def test_cached_splits_cannot_be_changed():
    """Two callers share the cached arrays of the cluttered splits, so these are read-only."""
    images, labels = ClutteredDigits().split("validation")
    assert (images.flags.writeable, labels.flags.writeable) == (False, False)


@pytest.mark.parametrize(
    "get",
    [lambda: Digits().split("train").labels, lambda: ClutteredDigits().epoch(99, 0).images],
    ids=["digits", "epoch"],
)
def test_nothing_cached_can_be_changed(get):
    """What a caller gets is read-only or a copy."""
    array = get()
    if array.flags.writeable:
        before = array.copy()
        array[...] = 0
        after = get().copy()
        array[...] = before  # leave the cache as it was
        assert np.array_equal(before, after)


# -------------------------------------------------------------------------------------------------------------- epochs


def test_epochs_differ_by_epoch_and_by_seed_and_repeat():
    """The stream is a function of (seed, epoch): equal for equal pairs, different for any two different ones."""
    first = {(seed, epoch): ClutteredDigits().epoch(seed, epoch).images for seed in (0, 1) for epoch in (0, 1)}
    assert len({images.tobytes() for images in first.values()}) == 4
    Clean().epoch(0, 0)  # another task in between
    again = Fresh().epoch(0, 1).images
    np.testing.assert_array_equal(first[0, 1], again)


class Fresh(ClutteredDigits):
    """The same settings under another type, so that no cache answers."""


def test_epochs_show_the_training_digits():
    """An epoch shows every training digit once, in order, with its label; validation images are never in it."""
    images, labels = Clean().epoch(7, 3)
    assert ((1000, 1, 12, 12), np.float32) == (images.shape, images.dtype)
    assert Digits().split("train").labels.tolist() == labels.tolist()
    assert all(
        offsets_of_the_digit(canvas, digit) for canvas, digit in zip(pixels(images), digits("train"), strict=True)
    )


def test_plain_digits_have_no_augmentation():
    """Every epoch of plain digits is the training split."""
    expected, actual = Digits().split("train"), Digits().epoch(5, 9)
    np.testing.assert_array_equal(expected.images, actual.images)
    np.testing.assert_array_equal(expected.labels, actual.labels)


# ----------------------------------------------------------------------------------------------------------- placement


def test_without_noise_and_fragments_an_image_is_its_digit_somewhere():
    """The canvas is the digit at one of 25 offsets; all offsets come up, about equally often."""
    counts = Counter()
    for split in ("validation", "test"):
        copies = Clean.placements[split]
        for canvas, digit in zip(
            pixels(Clean().split(split).images), np.tile(digits(split), (copies, 1, 1)), strict=True
        ):
            found = offsets_of_the_digit(canvas, digit)
            assert found
            if len(found) == 1:  # a digit with an empty border fits a wider canvas in several ways
                counts[found[0]] += 1
    assert set(OFFSETS) == set(counts)
    assert min(counts.values()) > 0.5 * np.mean(list(counts.values()))


def test_a_fragment_only_brightens_a_square_of_four():
    """Clutter keeps the brighter pixel, and changes nothing outside one 4 x 4 square."""
    changed_images = 0
    clean, cluttered = pixels(Clean().split("validation").images), pixels(Cluttered().split("validation").images)
    assert (cluttered >= clean - 1e-6).all()
    for before, after in zip(clean, cluttered, strict=True):
        rows, columns = np.nonzero(np.abs(after - before) > 1e-6)
        if len(rows):
            changed_images += 1
            assert (np.ptp(rows) < 4, np.ptp(columns) < 4) == (True, True)
    assert changed_images > 600  # of 800; the rest pasted black, or under the digit


def test_noise_has_the_stated_deviation():
    """What noise adds to the clean image has mean 0 and standard deviation 0.1 (within five standard errors)."""
    difference = pixels(Noisy().split("test").images) - pixels(Clean().split("test").images)
    n = difference.size
    assert abs(difference.mean()) < 5 * 0.1 / n**0.5
    assert abs(difference.std() - 0.1) < 5 * 0.1 / (2 * n) ** 0.5


# --------------------------------------------------------------------------------------------------------------- tasks


def test_unknown_task_lists_the_known():
    """An unknown id is named together with the known ones."""
    with pytest.raises(ValueError, match="unknown images 'mnist'; known: digits, cluttered-digits"):
        image_task("mnist")


@pytest.mark.parametrize("name", list(TASKS))
def test_tasks_are_values(name):
    """Two tasks of one id are equal and hash alike, so caches see one task; those of different ids differ."""
    assert (image_task(name), name) == (image_task(name), image_task(name).name)
    assert hash(image_task(name)) == hash(image_task(name))
    assert len({image_task(n) for n in TASKS}) == len(TASKS)


def test_a_task_of_your_own_needs_only_split():
    """`epoch` of a task without augmentation is its training split."""

    class Own(ImageTask):
        name, num_classes, shape = "own", 2, (1, 1, 1)

        def split(self, name):
            return name

    assert Own().epoch(0, 0) == "train"
