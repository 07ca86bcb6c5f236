"""Labelled images from the user's disk, the embedded tasks, or a benchmark, all behind one interface.

    images = open_images("cifar-10-batches-py")
    batch = images.sample(64, np.random.default_rng(0))    # decodes these 64 images and no others

What `open_images` reads:
    digits, cluttered-digits       the embedded tasks, as they are
    CIFAR-10, CIFAR-100            the folder of the official Python version (data_batch_1 ... or train), or its .tar.gz
    ImageNet16                     the folder with train_data_batch_1 ... 10 and val_data, which is the test split
    *.npz                          uint8 arrays such as x_train, y_train, x_test, y_test, or train_images, train_labels
    *.parquet                      a column of encoded images and one of labels; a file whose name says "train" takes its
                                   test split from the file beside it whose name says "test" there
    a folder of class folders      NAME/x.png, classes and files in the order of their names; or train/NAME/x.png, test/...

Pixels are divided by 255 and standardised per channel: by the published mean and standard deviation where the dataset is
known by its layout or by its name, size and number of classes, otherwise by those of up to 2,000 training images, evenly
spaced. ImageNet16 is read as ImageNet16-120, its first 120 classes, as in NAS-Bench-201, unless `classes` says otherwise.

Splits: "train" is all training images. Where a source has no validation images, `hold_out=True` takes them out of the
training ones: of CIFAR-10's official files the 25,000 of NAS-Bench-201's `cifar10-valid` (`splits.cifar10_split`), of
everything else a tenth, drawn once with a fixed seed. (Officially CIFAR-100 and ImageNet16-120 validate on half of the test
images, by lists that do not follow from a seed.) Without `hold_out` such a source has no "validation", so that nobody
validates by accident on what was trained on.

Nothing is written to disk, and nothing is decoded before it is asked for. A set is pickled as its path.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import io
import math
import re
import tarfile
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import numpy as np
import numpy.typing as npt

from .formats.errors import FormatError
from .formats.unpickle import PLAIN, describe, restricted_loads
from .images import SPLITS, TASKS, Images, ImageTask, SplitName, image_task
from .splits import cifar10_split

if TYPE_CHECKING:
    from .base import Benchmark

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Ids = npt.NDArray[np.intp]

STANDARDISATION: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "ImageNet16": ((122.68 / 255, 116.66 / 255, 104.01 / 255), (63.22 / 255, 61.26 / 255, 65.09 / 255)),
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "mnist": ((0.1307,), (0.3081,)),
}
"""Published mean and standard deviation per channel of the training images, in [0, 1]."""

_BY_NAME: Sequence[tuple[str, str, tuple[int, int, int], int]] = (
    ("cifar100", r"cifar[-_ ]?100(?!\d)", (3, 32, 32), 100),
    ("cifar10", r"cifar[-_ ]?10(?!\d)", (3, 32, 32), 10),
    ("fashion-mnist", r"fashion[-_ ]?mnist", (1, 28, 28), 10),
    ("mnist", r"(?<![a-z])mnist", (1, 28, 28), 10),
)
_MEASURED = 2000  # training images behind the mean and deviation of an unknown dataset
_HASHED = 1000  # image files of a folder whose content goes into its fingerprint
_HELD_OUT_SEED = 0x1DE5
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")


class DatasetError(ValueError):
    """Images that cannot be read; the message names the file and says what to do."""


class ImageSource(ImageTask):
    """Labelled images with named splits; see the head of this file.

    Attributes:
        name: id of the dataset, such as "cifar10", or the name of its file or folder.
        num_classes: number of classes.
        shape: channels, height and width of an image.
        splits: the splits that there are.
    """

    splits: tuple[SplitName, ...]

    @abstractmethod
    def _size(self, split: SplitName) -> int: ...

    def size(self, split: SplitName) -> int:
        """Number of images of a split.

        Raises:
            ValueError: there is no such split.
        """
        self._check_split(split)
        return self._size(split)

    @abstractmethod
    def _take(self, split: SplitName, ids: Ids | None) -> Images:
        """The images with these numbers within the split, or all of it."""

    @functools.cached_property
    @abstractmethod
    def fingerprint(self) -> str:
        """Fingerprint of images and standardisation, hexadecimal: the same on every machine, for keys of caches.

        Files are read in full, but a folder of image files only in part: the names and sizes of all of them, and the
        content of up to 1,000.
        """

    def split(self, name: SplitName) -> Images:
        """All images of a split: float32, so four bytes per channel and pixel.

        Raises:
            ValueError: there is no such split.
            DatasetError: the images cannot be read.
        """
        self._check_split(name)
        return self._take(name, None)

    def sample(self, n: int, rng: np.random.Generator, split: SplitName = "train") -> Images:
        """Different images of a split, n of them, drawn uniformly; only these are decoded.

        With a generator in the same state a smaller sample is the start of a larger one.

        Raises:
            ValueError: there is no such split, or it has fewer than n images.
            DatasetError: the images cannot be read.
        """
        size = self.size(split)
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or not 1 <= n <= size:
            raise ValueError(f"{self.name} has {size:,} {split} images, so a sample has 1 to {size}, not {n!r}")
        return self._take(split, np.argsort(rng.random(size), kind="stable")[:n])

    def describe(self) -> str:
        """One line: what the images are, and how many."""
        parts = ", ".join(f"{self._size(split):,} {split}" for split in self.splits)
        channels, height, width = self.shape
        return f"{self.name}: {parts} images of {channels} x {height} x {width}, {self.num_classes} classes"

    def _check_split(self, name: SplitName) -> None:
        if name not in self.splits:
            hint = ": open it with hold_out=True, which takes some of its training images" * (name == "validation")
            raise ValueError(f"{self.name} has no {name!r} images, only {', '.join(self.splits)}{hint}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def open_images(path_or_name: str | Path, *, hold_out: bool = False, classes: int | None = None) -> ImageSource:
    """Open labelled images; the head of this file says which.

    Args:
        path_or_name: file or folder, or the id of an embedded task. A folder that has the name of a task is "./digits".
        hold_out: take validation images out of the training images where the source has no validation images.
        classes: keep the classes 0..classes-1 of ImageNet16; default 120, all are 1000.

    Raises:
        DatasetError: there is nothing at this path, or nothing that is read here. What is wrong with a single image is
            only noticed, by the same error, when it is decoded.
    """
    if isinstance(path_or_name, str) and path_or_name in TASKS:
        if classes is not None:
            raise DatasetError(f"classes={classes} is for ImageNet16; {path_or_name} has ten classes")
        return TaskImages(image_task(path_or_name))
    path = Path(path_or_name).expanduser().absolute()
    if not path.exists():
        close = difflib.get_close_matches(str(path_or_name), TASKS, n=1)
        hint = (
            f"did you mean {close[0]}?" if close else f"embedded are {', '.join(TASKS)}; all else is a file or folder"
        )
        raise DatasetError(f"there are no images at {path_or_name}: {hint}")
    layout = _find_layout(path)
    if classes is not None and (layout is None or layout.name != "ImageNet16"):
        raise DatasetError(f"classes={classes} is for ImageNet16, which {path} is not")
    if layout is not None:
        return _Batches(path, hold_out, layout, classes)
    if path.is_dir():
        return _Folder(path, hold_out)
    if path.suffix == ".npz":
        return _Npz(path, hold_out)
    if path.suffix == ".parquet":
        return _Parquet(path, hold_out)
    raise DatasetError(
        f"{path} is not read: images are a folder, .npz, .parquet, or the .tar.gz of CIFAR-10 or CIFAR-100 (Python version)"
    )


# ------------------------------------------------------------------------------------ images that exist as arrays already


class _Whole(ImageSource):
    """Images that something else gives split by split."""

    @abstractmethod
    def _whole(self, split: SplitName) -> Images: ...

    def _size(self, split: SplitName) -> int:
        return len(self._whole(split).labels)

    def _take(self, split: SplitName, ids: Ids | None) -> Images:
        images, labels = self._whole(split)
        return Images(images, labels) if ids is None else Images(images[ids], labels[ids])

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(b"nasharness images 1, whole\n")
        for split in self.splits:
            images, labels = self._whole(split)
            digest.update(f"{split} {images.shape}\n".encode())
            digest.update(images.astype("<f4").tobytes())
            digest.update(labels.astype("<i8").tobytes())
        return digest.hexdigest()


class TaskImages(_Whole):
    """An embedded task; it has all three splits, and its epochs are the task's own."""

    def __init__(self, task: ImageTask) -> None:
        self.task = task
        self.name, self.num_classes, self.shape = task.name, task.num_classes, task.shape
        self.splits = SPLITS

    def _whole(self, split: SplitName) -> Images:
        return self.task.split(split)

    def epoch(self, seed: int, epoch: int) -> Images:
        return self.task.epoch(seed, epoch)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskImages) and self.task == other.task

    def __hash__(self) -> int:
        return hash(self.task)

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskImages, (self.task,), _known_fingerprint(self)


class BenchmarkImages(_Whole):
    """The images that a benchmark's networks were trained on.

    Args:
        benchmark: one whose `images` answers for train, validation and test.

    Raises:
        NotImplementedError: it has no images.
    """

    def __init__(self, benchmark: Benchmark) -> None:
        self.benchmark = benchmark
        images, labels = benchmark.images("train")
        self.name = benchmark.id
        self.num_classes = int(labels.max()) + 1
        self.shape = cast("tuple[int, int, int]", tuple(images.shape[1:]))
        self.splits = SPLITS

    def _whole(self, split: SplitName) -> Images:
        return self.benchmark.images(split)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BenchmarkImages) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[str, str]:
        return self.benchmark.id, self.benchmark.info.sha256

    def __reduce__(self) -> tuple[Any, ...]:
        return BenchmarkImages, (self.benchmark,), _known_fingerprint(self)


def _known_fingerprint(images: ImageSource) -> dict[str, str] | None:
    """The fingerprint, if it was computed, as the state of a pickle."""
    known = vars(images).get("fingerprint")
    return {"fingerprint": known} if known else None


# ------------------------------------------------------------------------------------------------------- images on disk


class _Stored(ImageSource):
    """Images on disk: uint8 pixels that are standardised when they are asked for."""

    kind: ClassVar[str]

    def __init__(self, path: Path, hold_out: bool) -> None:
        self.path = path
        self.name = next((known for known, pattern, *_ in _BY_NAME if re.search(pattern, path.name.lower())), path.stem)
        self._own = self._find_splits()  # those of the source
        self._hold_out = hold_out and "validation" not in self._own
        there = {*self._own, "validation"} if self._hold_out else {*self._own}
        self.splits = tuple(split for split in SPLITS if split in there)

    @abstractmethod
    def _find_splits(self) -> tuple[SplitName, ...]: ...

    @abstractmethod
    def _read_labels(self, split: SplitName) -> Labels: ...

    @abstractmethod
    def _read_pixels(self, split: SplitName, ids: Ids | None) -> Pixels:
        """Pixels `(n, channels, height, width)` of the images with these numbers, in this order; None: of all."""

    @abstractmethod
    def _files(self) -> Sequence[Path]: ...

    def _options(self) -> str:
        """What else decides which images there are."""
        return ""

    @functools.cached_property
    def _labels(self) -> dict[SplitName, Labels]:
        labels = {split: self._read_labels(split) for split in self._own}
        for split, array in labels.items():
            if not len(array):
                raise DatasetError(f"{self.path} has no {split} images")
        return labels

    @functools.cached_property  # found out when it is first needed
    def num_classes(self) -> int:  # type: ignore[override]
        highest = {split: int(labels.max()) for split, labels in self._labels.items()}
        for split, label in highest.items():
            if label > highest["train"]:
                raise DatasetError(
                    f"{self.path}: class {label} is among the {split} images, but the training images have only the"
                    f" classes 0..{highest['train']}"
                )
        if highest["train"] == 0:
            raise DatasetError(f"{self.path}: all training images are of one class: there is nothing to classify")
        return highest["train"] + 1

    @functools.cached_property  # found out when it is first needed
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        self._labels  # noqa: B018  an empty source says so
        return cast("tuple[int, int, int]", self._read_pixels("train", np.zeros(1, dtype=np.intp)).shape[1:])

    @functools.cached_property
    def _parts(self) -> tuple[Ids, Ids]:
        """Numbers of the training images that are left, and of those held out, ascending."""
        n = len(self._labels["train"])
        held = self._held_out(n)
        if not len(held):
            raise DatasetError(f"{self.path} has {n} training images: too few to hold out a tenth for validation")
        return np.setdiff1d(np.arange(n), held), held

    def _held_out(self, n: int) -> Ids:
        return np.sort(np.argsort(np.random.default_rng(_HELD_OUT_SEED).random(n), kind="stable")[: n // 10])

    def _where(self, split: SplitName) -> tuple[SplitName, Ids | None]:
        """The split of the source, and which of its images (None: all)."""
        if not self._hold_out or split == "test":
            return split, None
        return "train", self._parts[split == "validation"]

    def _size(self, split: SplitName) -> int:
        own, part = self._where(split)
        return len(self._labels[own]) if part is None else len(part)

    def _take(self, split: SplitName, ids: Ids | None) -> Images:
        own, part = self._where(split)
        if part is not None:
            ids = part if ids is None else part[ids]
        labels = self._labels[own]
        return Images(self._standardise(self._read_pixels(own, ids)), labels.copy() if ids is None else labels[ids])

    @functools.cached_property
    def standardisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, of pixels in [0, 1]."""
        for name, _, shape, classes in _BY_NAME:
            if self.name == name and (self.shape, self.num_classes) == (shape, classes):
                return STANDARDISATION[name]
        n = self._size("train")
        spaced = np.arange(min(n, _MEASURED)) * n // min(n, _MEASURED)
        _, part = self._where("train")
        pixels = self._read_pixels("train", spaced if part is None else part[spaced])
        means, deviations = [], []
        for channel in range(pixels.shape[1]):
            counts = np.bincount(pixels[:, channel].ravel(), minlength=256).astype(np.float64)
            values = np.arange(256) / 255
            mean = float(counts @ values / counts.sum())
            deviation = math.sqrt(float(counts @ (values - mean) ** 2 / counts.sum()))
            means.append(mean)
            deviations.append(deviation or 1.0)  # a channel of one value stays what it is
        return tuple(means), tuple(deviations)

    def _standardise(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        images = np.empty(pixels.shape, dtype=np.float32)
        for channel, (mean, deviation) in enumerate(zip(*self.standardisation, strict=True)):
            of_value = ((np.arange(256) / 255 - mean) / deviation).astype(np.float32)
            images[:, channel] = of_value[pixels[:, channel]]
        return images

    @functools.cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"nasharness images 1, {self.kind} {self.name} {self._options()}\n".encode())
        digest.update(b"held out\n" * self._hold_out)
        for file in self._files():
            digest.update(_file_sha256(file, *_stamp(file)))
        return digest.hexdigest()

    def describe(self) -> str:
        published = any(self.standardisation == known for known in STANDARDISATION.values())
        return f"{super().describe()}, {'published' if published else 'measured'} standardisation ({self.path.name})"

    def _key(self) -> tuple[Any, ...]:
        return self.path, self._hold_out, self._options()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, _Stored) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self._hold_out), _known_fingerprint(self)


def _stamp(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4096)
def _file_sha256(file: Path, size: int, changed: int) -> bytes:
    """Digest of a file; it is read again only when its size or time has changed."""
    del size, changed
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _check_labels(labels: object, n: int, where: str) -> Labels:
    """Class numbers `(n,)` from a list or array of them."""
    try:
        array: npt.NDArray[Any] = np.asarray(labels)
    except ValueError:  # lists of different lengths
        raise DatasetError(f"{where}: labels are whole numbers, one per image") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DatasetError(
            f"{where}: labels are whole numbers, one per image, not {array.dtype} of shape {array.shape}"
        )
    if len(array) != n:
        raise DatasetError(f"{where} has {n} images but {len(array)} labels")
    if n and array.min() < 0:
        raise DatasetError(f"{where}: image {int(array.argmin())} has the label {array.min()}: classes count from 0")
    return array.astype(np.int64)


def _check_pixels(array: npt.NDArray[Any], where: str) -> Pixels:
    """Arrays of images as `(n, channels, height, width)`."""
    if array.dtype != np.uint8:
        raise DatasetError(f"{where} is {array.dtype}: store the pixels as uint8, 0 to 255")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise DatasetError(
            f"{where} is of shape {array.shape}: images are (n, height, width), (n, height, width, channels) or"
            " (n, channels, height, width), with 1 or 3 channels"
        )
    return array


class _InMemory(_Stored):
    """Arrays that can only be read whole: they are kept, as uint8, once they were needed."""

    def __init__(self, path: Path, hold_out: bool) -> None:
        self._kept: dict[SplitName, tuple[Pixels, Labels]] = {}
        super().__init__(path, hold_out)

    @abstractmethod
    def _read(self, split: SplitName) -> tuple[Pixels, Labels]: ...

    def _arrays(self, split: SplitName) -> tuple[Pixels, Labels]:
        if split not in self._kept:
            self._kept[split] = self._read(split)
            shapes = {name: pixels.shape[1:] for name, (pixels, _) in self._kept.items()}
            if len(set(shapes.values())) > 1:
                raise DatasetError(f"{self.path}: images of different sizes, {shapes}: scale them to one size")
        return self._kept[split]

    def _read_labels(self, split: SplitName) -> Labels:
        return self._arrays(split)[1]

    def _read_pixels(self, split: SplitName, ids: Ids | None) -> Pixels:
        pixels, _ = self._arrays(split)
        return pixels if ids is None else pixels[ids]

    def _files(self) -> Sequence[Path]:
        return (self.path,)


# ---------------------------------------------------------------------------------- CIFAR and ImageNet16: pickled batches


@dataclass(frozen=True)
class _Layout:
    """The pickled batches of a dataset.

    Attributes:
        name: id of the dataset.
        train, test: names of the files.
        labels: key of the labels.
        first: the label of the first class.
    """

    name: str
    train: tuple[str, ...]
    test: str
    labels: str = "labels"
    first: int = 0


_LAYOUTS = (
    _Layout("cifar10", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    _Layout("ImageNet16", tuple(f"train_data_batch_{i}" for i in range(1, 11)), "val_data", first=1),
    _Layout("cifar100", ("train",), "test", "fine_labels"),
)


def _find_layout(path: Path) -> _Layout | None:
    """The layout of a folder or archive; None where it is another kind of folder or file."""
    if path.is_dir():
        return next((layout for layout in _LAYOUTS if any((path / name).is_file() for name in layout.train)), None)
    if not path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return None
    with _damage(path), tarfile.open(path) as archive:
        for member in archive:  # one by one: the first match is near the start of the official archives
            for layout in _LAYOUTS:
                if member.isfile() and PurePosixPath(member.name).name in layout.train:
                    return layout
    raise DatasetError(f"{path} holds none of the batches of CIFAR-10 or CIFAR-100 (Python version): unpack it")


@contextmanager
def _damage(path: Path | str) -> Iterator[None]:
    """Turn what reading a damaged file raises into a DatasetError that names it."""
    try:
        yield
    except DatasetError:
        raise
    except FormatError as error:  # names the file itself
        raise DatasetError(str(error)) from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError) as error:
        raise DatasetError(f"{path} is damaged or something else: {error}") from error
    except OSError as error:
        if error.errno is not None:  # the operating system's own, such as no permission
            raise
        raise DatasetError(f"{path} is damaged or something else: {error}") from error


class _ArrayType:
    """Stands in for numpy.dtype in a pickle: a few plain types, little-endian."""

    def __init__(self, code: object = "", *_: object) -> None:
        formats = {"u1": "u1", "i8": "<i8", "i4": "<i4", "f8": "<f8", "f4": "<f4"}
        if not isinstance(code, str) or code not in formats:
            raise FormatError(f"the pickle holds an array of the unknown type {describe(code)}")
        self.dtype = np.dtype(formats[code])

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", "|", "=")):
            raise FormatError(f"the pickle holds an array of unknown byte order: {describe(state)}")


class _PickledArray:
    """Stands in for numpy.ndarray in a pickle."""

    array: npt.NDArray[Any] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise FormatError("the pickle holds an array of a form that is not read")
        _, shape, kind, columns_first, data = state
        if not isinstance(kind, _ArrayType) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
            raise FormatError(f"the pickle holds an array of a form that is not read: {describe(shape)}")
        data = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote strings
        wanted = math.prod(shape) * kind.dtype.itemsize
        if not isinstance(data, bytes) or len(shape) > 4 or min(shape, default=0) < 0 or len(data) != wanted:
            raise FormatError(f"the pickle holds an array whose shape {describe(shape)} does not fit its data")
        self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if columns_first else "C")


def _new_array(*_: object) -> _PickledArray:
    """Stands in for numpy's _reconstruct, which makes an empty array that is then filled."""
    return _PickledArray()


_BATCH_GLOBALS = {
    "_codecs.encode": PLAIN["_codecs.encode"],
    "numpy.dtype": _ArrayType,
    "numpy.ndarray": _PickledArray,
    "numpy.core.multiarray._reconstruct": _new_array,
    "numpy._core.multiarray._reconstruct": _new_array,
}


def _read_batch(file: BinaryIO, layout: _Layout, where: str) -> tuple[Pixels, Labels]:
    """Pixels and labels of one pickled batch."""
    with _damage(where):
        entry = restricted_loads(file, _BATCH_GLOBALS, where=where)
    if not isinstance(entry, dict):
        raise DatasetError(f"{where} holds {describe(entry)}, not a batch of images")
    entry = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in entry.items()}
    if missing := {"data", layout.labels} - set(entry):
        raise DatasetError(f"{where} is no batch of {layout.name}: it has no {' and no '.join(sorted(missing))}")
    data = entry["data"].array if isinstance(entry["data"], _PickledArray) else None
    side = math.isqrt(data.shape[1] // 3) if data is not None and data.ndim == 2 else 0
    if data is None or data.dtype != np.uint8 or not side or data.shape[1] != 3 * side * side:
        raise DatasetError(f"{where}: its data are not uint8 rows of 3 x side x side pixels")
    labels = entry[layout.labels]
    labels = labels.array if isinstance(labels, _PickledArray) else labels
    return data.reshape(-1, 3, side, side), _check_labels(labels, len(data), where)


class _Batches(_InMemory):
    """The pickled batches of CIFAR-10, CIFAR-100 or ImageNet16, in a folder or archive."""

    kind = "batches"

    def __init__(self, path: Path, hold_out: bool, layout: _Layout, classes: int | None = None) -> None:
        self.layout = layout
        self.classes = classes if classes is not None or layout.name != "ImageNet16" else 120
        if self.classes is not None and not 2 <= self.classes <= 1000:
            raise DatasetError(f"ImageNet16 has 1000 classes: classes is 2..1000, not {classes}")
        super().__init__(path, hold_out)
        self.name = layout.name if self.classes in (None, 1000) else f"{layout.name}-{self.classes}"

    def _find_splits(self) -> tuple[SplitName, ...]:
        if not self.path.is_dir():
            return "train", "test"
        if missing := [name for name in self.layout.train if not (self.path / name).is_file()]:
            raise DatasetError(f"{self.path} lacks {', '.join(missing)} of {self.layout.name}: unpack it again")
        return ("train", "test") if (self.path / self.layout.test).is_file() else ("train",)

    def _batches(self, names: Sequence[str]) -> Iterator[tuple[str, tuple[Pixels, Labels]]]:
        if self.path.is_dir():
            for name in names:
                with (self.path / name).open("rb") as file:
                    yield name, _read_batch(file, self.layout, str(self.path / name))
            return
        with _damage(self.path), tarfile.open(self.path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if member.isfile() and name in names and (stream := archive.extractfile(member)) is not None:
                    yield name, _read_batch(cast("BinaryIO", stream), self.layout, f"{self.path}, {member.name}")

    def _read(self, split: SplitName) -> tuple[Pixels, Labels]:
        names = self.layout.train if split == "train" else (self.layout.test,)
        found: dict[str, tuple[Pixels, Labels]] = {}
        for name, (pixels, labels) in self._batches(names):
            if len(labels) and labels.min() < self.layout.first:
                raise DatasetError(
                    f"{self.path}, {name}: the labels of {self.layout.name} count from {self.layout.first}"
                )
            if self.classes is not None:
                kept = labels < self.layout.first + self.classes  # at once: the whole of ImageNet16 is a gigabyte
                pixels, labels = pixels[kept], labels[kept]
            found[name] = pixels, labels - self.layout.first
        if missing := [name for name in names if name not in found]:
            raise DatasetError(f"{self.path} lacks {', '.join(missing)} of {self.layout.name}")
        pieces = [found[name] for name in names]  # in the official order, by which ids are counted
        if len({pixels.shape[1:] for pixels, _ in pieces}) > 1:
            raise DatasetError(f"{self.path}: its batches have images of different sizes")
        return np.concatenate([pixels for pixels, _ in pieces]), np.concatenate([labels for _, labels in pieces])

    @functools.cached_property
    def standardisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return STANDARDISATION[self.layout.name]

    def _held_out(self, n: int) -> Ids:
        if self.layout.name == "cifar10" and n == 50_000:
            return cifar10_split()[1].astype(np.intp)
        return super()._held_out(n)

    def _files(self) -> Sequence[Path]:
        if not self.path.is_dir():
            return (self.path,)
        names = (*self.layout.train, self.layout.test)
        return [self.path / name for name in names if (self.path / name).is_file()]

    def _options(self) -> str:
        return "" if self.classes is None else f"classes {self.classes}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _Batches, (self.path, self._hold_out, self.layout, self.classes), _known_fingerprint(self)


# ------------------------------------------------------------------------------------------------------------- .npz files


_SPLIT_WORDS: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val"),
    "test": ("test",),
}
_IMAGE_WORDS = ("x", "images", "image", "data")
_LABEL_WORDS = ("y", "labels", "label", "targets", "target")


@contextmanager
def _npz_file(path: Path) -> Iterator[Any]:
    with _damage(path), path.open("rb") as file:  # opened here: numpy leaves a damaged file open
        if not zipfile.is_zipfile(file):
            raise DatasetError(f"{path} is damaged or something else: it is no archive of numpy.savez")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays


class _Npz(_InMemory):
    """NumPy arrays of images and labels."""

    kind = "npz"

    def _find_splits(self) -> tuple[SplitName, ...]:
        self._members: dict[SplitName, tuple[str, str]] = {}
        with _npz_file(self.path) as arrays:
            names = {name.lower(): name for name in arrays.files}
        for split, words in _SPLIT_WORDS.items():
            for word in words:
                x, y = (
                    next(
                        (names[key] for part in parts for key in (f"{part}_{word}", f"{word}_{part}") if key in names),
                        "",
                    )
                    for parts in (_IMAGE_WORDS, _LABEL_WORDS)
                )
                if x and not y:
                    raise DatasetError(f"{self.path} has {x} but no labels to it: add the array y_{word}")
                if x:
                    self._members.setdefault(split, (x, y))
        if "train" not in self._members:
            known = ", ".join(names.values())
            raise DatasetError(f"{self.path} has no arrays x_train and y_train, only {known or 'nothing'}: rename them")
        return tuple(self._members)

    def _read(self, split: SplitName) -> tuple[Pixels, Labels]:
        x, y = self._members[split]
        with _npz_file(self.path) as arrays:
            images, labels = arrays[x], arrays[y]
        pixels = _check_pixels(images, f"{self.path}, {x}")
        return pixels, _check_labels(labels, len(pixels), f"{self.path}, {y}")


# --------------------------------------------------------------------------------------------------------- encoded images


class _Encoded(_Stored):
    """PNG or JPEG images, decoded one by one when they are asked for."""

    @abstractmethod
    def _encoded(self, split: SplitName, ids: Ids) -> Iterator[tuple[int, bytes, str]]:
        """Position in `ids`, bytes and name of each of these images, in any order."""

    @functools.cached_property
    def _model(self) -> tuple[str, tuple[int, int]]:
        """Mode and size (width, height) that all images have: those of the first training image."""
        ((_, data, where),) = self._encoded("train", np.zeros(1, dtype=np.intp))
        image = _decode(data, where)
        return ("L" if image.mode in ("L", "1") else "RGB"), image.size

    def _read_pixels(self, split: SplitName, ids: Ids | None) -> Pixels:
        mode, size = self._model
        ids = np.arange(len(self._labels[split])) if ids is None else ids
        channels = 1 if mode == "L" else 3
        pixels = np.empty((len(ids), channels, size[1], size[0]), dtype=np.uint8)
        for place, data, where in self._encoded(split, ids):
            image = _decode(data, where)
            if image.size != size:
                raise DatasetError(
                    f"{where} is {image.size[0]} x {image.size[1]} pixels, the first image {size[0]} x {size[1]}:"
                    " scale all images to one size"
                )
            if mode == "L" and image.mode not in ("L", "1"):
                raise DatasetError(
                    f"{where} has colours ({image.mode}), the first image is grey: convert all to one mode"
                )
            array = np.asarray(image.convert(mode))
            pixels[place] = array[None] if mode == "L" else array.transpose(2, 0, 1)
        return pixels


def _decode(data: bytes, where: str) -> Any:
    """A decoded image with 8 bits per channel."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DatasetError("decoding images needs Pillow: pip install pillow") from error
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Exception as error:  # whatever a codec raises
        raise DatasetError(f"{where} is not an image that can be decoded: {error}; replace or remove it") from error
    if image.mode.startswith(("I", "F")):
        raise DatasetError(f"{where} has more than 8 bits per channel ({image.mode}): convert it to 8 bits")
    return image


class _Folder(_Encoded):
    """A folder of class folders, or of train, validation and test folders of class folders."""

    kind = "folder"

    def _find_splits(self) -> tuple[SplitName, ...]:
        folders = _subfolders(self.path)
        split_of = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
        roots: dict[SplitName, Path] = {"train": self.path}
        # A class may be called "train", too: split folders have folders, class folders images.
        if folders and all(folder.name in split_of and _subfolders(folder) for folder in folders):
            roots = {}
            for folder in folders:
                if (split := split_of[folder.name]) in roots:
                    raise DatasetError(
                        f"{self.path} has two folders of {split} images: {roots[split].name}, {folder.name}"
                    )
                roots[split] = folder
        if "train" not in roots:
            raise DatasetError(f"{self.path} has no folder train of class folders")
        classes = [folder.name for folder in _subfolders(roots["train"])]
        self._images: dict[SplitName, list[tuple[int, Path]]] = {}
        for split, root in roots.items():
            here = [folder.name for folder in _subfolders(root)]
            if extra := sorted(set(here) - set(classes)):
                raise DatasetError(f"{root} has the class {extra[0]}, of which there are no training images")
            self._images[split] = [
                (number, file) for number, name in enumerate(classes) if name in here for file in _images(root / name)
            ]
            with_images = {number for number, _ in self._images[split]}
            if split == "train" and (empty := sorted(set(range(len(classes))) - with_images)):
                inner = [name for name in classes if _find_layout(root / name) is not None]
                hint = f": open {root / inner[0]}" if inner else f": no {', '.join(_IMAGE_SUFFIXES)}"
                raise DatasetError(f"{root / classes[empty[0]]} has no images{hint}")
        if not self._images["train"]:
            raise DatasetError(
                f"{self.path} has no class folders with images: labels are the names of folders, CLASS/x.png"
            )
        return tuple(self._images)

    def _read_labels(self, split: SplitName) -> Labels:
        return np.array([number for number, _ in self._images[split]], dtype=np.int64)

    def _encoded(self, split: SplitName, ids: Ids) -> Iterator[tuple[int, bytes, str]]:
        for place, i in enumerate(ids):
            file = self._images[split][int(i)][1]
            yield place, file.read_bytes(), str(file)

    def _files(self) -> Sequence[Path]:
        return [file for images in self._images.values() for _, file in images]

    @functools.cached_property
    def fingerprint(self) -> str:
        files = self._files()
        digest = hashlib.sha256(f"nasharness images 1, {self.kind} {self.name} {len(files)}\n".encode())
        digest.update(b"held out\n" * self._hold_out)
        for file in files:
            digest.update(f"{file.relative_to(self.path).as_posix()}\0{file.stat().st_size}\n".encode())
        for i in range(min(len(files), _HASHED)):
            digest.update(hashlib.sha256(files[i * len(files) // min(len(files), _HASHED)].read_bytes()).digest())
        return digest.hexdigest()


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))),
        key=lambda p: p.name,
    )


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES and path.name[0] != ".")
    return sorted(files, key=lambda path: path.name)


class _Parquet(_Encoded):
    """A table with a column of encoded images, or of structs whose `bytes` they are, and a column of labels."""

    kind = "parquet"

    def _find_splits(self) -> tuple[SplitName, ...]:
        self._tables: dict[SplitName, Path] = {"train": self.path}
        if "train" in self.path.name:
            beside = self.path.with_name(self.path.name.replace("train", "test"))
            if beside.is_file():
                self._tables["test"] = beside
        self._columns = {split: self._find_columns(table) for split, table in self._tables.items()}
        return tuple(self._tables)

    def _find_columns(self, table: Path) -> tuple[str, str]:
        """Names of the columns of images and of labels."""
        with _parquet_file(table) as file:
            fields = {field.name: str(field.type) for field in file.schema_arrow}
        images = [n for n, kind in fields.items() if kind in ("binary", "large_binary") or "bytes: binary" in kind]
        labels = [n for n in fields if n.lower() in (*_LABEL_WORDS, "class", "fine_label")]
        has = f"it has {', '.join(f'{name} ({kind})' for name, kind in fields.items())}"
        if not labels:
            raise DatasetError(f"{table} has no column 'label': {has}")
        if len(images) != 1:
            raise DatasetError(f"{table} needs one column of encoded images (bytes): {has}")
        return images[0], labels[0]

    def _read_labels(self, split: SplitName) -> Labels:
        table = self._tables[split]
        with _parquet_file(table) as file:
            column = file.read(columns=[self._columns[split][1]], use_threads=False).column(0)
        if column.null_count:
            raise DatasetError(f"{table} has {column.null_count} images without a label: fill or remove them")
        return _check_labels(column.to_numpy(), len(column), str(table))

    def _encoded(self, split: SplitName, ids: Ids) -> Iterator[tuple[int, bytes, str]]:
        table, column = self._tables[split], self._columns[split][0]
        with _parquet_file(table) as file:
            first = 0
            for group in range(file.num_row_groups):  # one at a time: a table may be larger than the memory
                rows = file.metadata.row_group(group).num_rows
                places = np.flatnonzero((ids >= first) & (ids < first + rows))
                if len(places):
                    images = file.read_row_group(group, columns=[column], use_threads=False).column(0)
                    for place, value in zip(places, images.take(ids[places] - first).to_pylist(), strict=True):
                        data = value.get("bytes") if isinstance(value, dict) else value
                        where = f"{table}, row {int(ids[place]) + 1}"
                        if data is None:
                            raise DatasetError(f"{where} has no image: remove it")
                        yield int(place), data, where
                first += rows

    def _files(self) -> Sequence[Path]:
        return tuple(self._tables.values())


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise DatasetError(f"reading {path} needs pyarrow: pip install 'nasharness[parquet]'") from error
    with _damage(path), parquet.ParquetFile(path) as file:
        yield file
