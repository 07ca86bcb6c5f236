"""Images from the user's disk: every layout that is read, what is refused, and the samples that proxies get."""

import builtins
import functools
import io
import pickle
import shutil
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nasharness.benchmarks import datasets
from nasharness.benchmarks.datasets import STANDARDISATION, BenchmarkImages, DatasetError, open_images
from nasharness.benchmarks.digits201 import load
from nasharness.benchmarks.images import SPLITS, TASKS, image_task
from nasharness.benchmarks.splits import check_split, cifar10_split


def rng(seed=0):
    return np.random.default_rng(seed)


def python2(data, labels, key, columns_first=False):
    """A batch as Python 2 pickled it (protocol 2, byte strings), instruction by instruction."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    stored = (np.asfortranarray(data).T if columns_first else data).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85" + text(b"b") + b"\x87R"
        b"(K\x01M" + len(data).to_bytes(2, "little") + b"M" + data.shape[1].to_bytes(2, "little") + b"\x86"
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + (b"\x88" if columns_first else b"\x89") + b"T" + len(stored).to_bytes(4, "little") + stored + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"M" + int(label).to_bytes(2, "little") for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"batch_label") + text(b"1 of 5") + text(key) + numbers + text(b"data") + array + b"u."


class Cifar:
    """CIFAR-10 in small: 5 x 20 training images and 30 test images of 32 x 32, written as Python 2 did."""

    train = rng(1).integers(0, 256, (100, 3072), dtype=np.uint8)
    train_labels = np.arange(100) * 7 % 10
    test = rng(2).integers(0, 256, (30, 3072), dtype=np.uint8)
    test_labels = np.arange(30) % 10

    @classmethod
    def write(cls, folder):
        folder.mkdir(parents=True)
        for i in range(5):
            part = slice(20 * i, 20 * i + 20)
            batch = python2(cls.train[part], cls.train_labels[part], b"labels", columns_first=i == 3)
            (folder / f"data_batch_{i + 1}").write_bytes(batch)
        (folder / "test_batch").write_bytes(python2(cls.test, cls.test_labels, b"labels"))
        (folder / "batches.meta").write_bytes(b"nothing that is read")
        return folder

    @classmethod
    def expected(cls, rows, ids):
        """Worked out the slow way: plane by plane, each row of 3072 being 1024 reds, 1024 greens, 1024 blues."""
        mean, deviation = STANDARDISATION["cifar10"]
        out = np.empty((len(ids), 3, 32, 32))
        for k, i in enumerate(ids):
            for c in range(3):
                plane = rows[i, 1024 * c : 1024 * (c + 1)].reshape(32, 32)
                out[k, c] = (plane / 255 - mean[c]) / deviation[c]
        return out


@pytest.fixture(scope="session")
def cifar(tmp_path_factory):
    return Cifar.write(tmp_path_factory.mktemp("images") / "cifar-10-batches-py")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Class folders b, a: 12 + 8 coloured images of 5 x 4 pixels (width x height); the blue of image i of a is 10 i."""
    root = tmp_path_factory.mktemp("images") / "photos"
    for name, n in (("b", 12), ("a", 8)):
        (root / name).mkdir(parents=True)
        for i in range(n):
            array = rng(ord(name) + i).integers(0, 256, (4, 5, 3), dtype=np.uint8)
            array[..., 2] = 10 * i
            Image.fromarray(array).save(root / name / f"{i:02}.png")
    (root / "a" / "notes.txt").write_text("ignored")
    (root / ".cache").mkdir()
    return root


@pytest.fixture(scope="session")
def table(tmp_path_factory, photos):
    """The photos as a Parquet table of three row groups, and two of them as its test split."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    files = sorted(photos.glob("*/*.png"))
    folder = tmp_path_factory.mktemp("tables")

    def write(name, chosen, **options):
        columns = {"label": ["ab".index(f.parent.name) for f in chosen], "png": [f.read_bytes() for f in chosen]}
        pq.write_table(pa.table(columns), folder / name, **options)

    write("my-train.parquet", files, row_group_size=9)
    write("my-test.parquet", files[5:9])
    return folder / "my-train.parquet"


@pytest.fixture(scope="session")
def arrays(tmp_path_factory):
    """Grey 6 x 7 images as .npz, with validation images of their own."""
    path = tmp_path_factory.mktemp("arrays") / "grey.npz"
    draw = rng(5)
    members = {}
    for split, n in (("train", 40), ("val", 10), ("test", 20)):
        members[f"{split}_images"] = draw.integers(0, 256, (n, 6, 7), dtype=np.uint8)
        members[f"{split}_labels"] = (np.arange(n) % 4).astype(np.uint8)[:, None]
    np.savez_compressed(path, **members)
    return path


@pytest.fixture(params=["cifar", "photos", "table", "arrays", "digits", "benchmark"])
def images(request):
    """One set of every kind."""
    if request.param == "digits":
        return open_images("digits")
    if request.param == "benchmark":
        return BenchmarkImages(load())
    return open_images(request.getfixturevalue(request.param))


# ------------------------------------------------------------------------------------------------- what holds of all sets


def test_a_split_is_standardised_and_labelled(images):
    for split in images.splits:
        part = images.split(split)
        assert part.images.dtype == np.float32 and part.labels.dtype == np.int64
        assert part.images.shape == (images.size(split), *images.shape)
        assert part.labels.shape == (images.size(split),)
        assert 0 <= part.labels.min() and part.labels.max() < images.num_classes
    train = images.split("train")
    assert set(train.labels.tolist()) == set(range(images.num_classes))
    assert abs(train.images.mean()) < 0.2 and abs(train.images.std() - 1) < 0.25


def test_a_sample_is_images_of_the_split(images):
    """Each is one of the split with its label, none twice, and the same generator draws the same."""
    for split in images.splits:
        whole = images.split(split)
        n = min(8, images.size(split))
        some = images.sample(n, rng(3), split)
        again = images.sample(n, rng(3), split)
        np.testing.assert_array_equal(some.images, again.images)
        order = np.argsort(rng(3).random(images.size(split)), kind="stable")[:n]  # the documented draw
        assert len(set(order.tolist())) == n
        np.testing.assert_array_equal(some.images, whole.images[order])
        np.testing.assert_array_equal(some.labels, whole.labels[order])


def test_samples_are_nested(images):
    few, many = images.sample(3, rng(1)), images.sample(17, rng(1))
    np.testing.assert_array_equal(few.images, many.images[:3])
    np.testing.assert_array_equal(few.labels, many.labels[:3])


def test_a_whole_split_can_be_sampled(images):
    """The sample of everything is a permutation of the split."""
    n = images.size("test") if "test" in images.splits else images.size("train")
    split = "test" if "test" in images.splits else "train"
    np.testing.assert_array_equal(
        np.sort(images.sample(n, rng(), split).images.reshape(n, -1).sum(1)),
        np.sort(images.split(split).images.reshape(n, -1).sum(1)),
    )


@pytest.mark.parametrize("n", [0, -1, 10**6, 1.0, True, None])
def test_impossible_samples_are_refused(images, n):
    with pytest.raises(ValueError, match="so a sample has 1 to"):
        images.sample(n, rng())


def test_a_pickled_set_is_the_same(images):
    """A pickle is a path, however much was read before; equal sets have one fingerprint."""
    images.split("train")
    again = pickle.loads(pickle.dumps(images))
    assert again == images and hash(again) == hash(images)
    assert "fingerprint" not in vars(again)
    np.testing.assert_array_equal(again.sample(5, rng()).images, images.sample(5, rng()).images)
    assert again.fingerprint == images.fingerprint == again.fingerprint
    assert vars(pickle.loads(pickle.dumps(images)))["fingerprint"] == images.fingerprint
    if not isinstance(images, BenchmarkImages):
        assert len(pickle.dumps(images)) < 1500
    assert images != open_images("cluttered-digits")


def test_it_says_what_it_is(images):
    text = images.describe()
    assert images.name in text and f"{images.num_classes} classes" in text and f"{images.size('train'):,} train" in text
    assert images.name in repr(images)


def test_unknown_splits_are_refused(images):
    with pytest.raises(ValueError, match=f"{images.name} has no 'dev' images, only {', '.join(images.splits)}"):
        images.split("dev")
    if "validation" not in images.splits:
        with pytest.raises(ValueError, match="hold_out=True"):
            images.sample(1, rng(), "validation")


# ------------------------------------------------------------------------------------------------------------ embedded


@pytest.mark.parametrize("name", TASKS)
def test_an_embedded_task_is_itself(name):
    task, images = image_task(name), open_images(name)
    assert (images.name, images.num_classes, images.shape) == (name, 10, task.shape)
    for split in SPLITS:
        np.testing.assert_array_equal(images.split(split).images, task.split(split).images)
    np.testing.assert_array_equal(images.epoch(1, 2).images, task.epoch(1, 2).images)


def test_a_folder_called_like_a_task_is_reached_by_its_path(photos, tmp_path, monkeypatch):
    shutil.copytree(photos, tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert open_images("digits").shape == (1, 8, 8)
    assert open_images("./digits").shape == open_images(tmp_path / "digits").shape == (3, 4, 5)


def test_the_images_of_a_benchmark():
    benchmark = load()
    images = BenchmarkImages(benchmark)
    assert (images.name, images.num_classes, images.shape, images.splits) == ("digits201-v1", 10, (1, 12, 12), SPLITS)
    np.testing.assert_array_equal(images.split("test").images, benchmark.images("test").images)
    assert images.fingerprint == open_images("cluttered-digits").fingerprint


def test_a_benchmark_without_images_is_refused(tiny_benchmark):
    with pytest.raises(NotImplementedError, match="tiny-v1 has no images"):
        BenchmarkImages(tiny_benchmark)


# ------------------------------------------------------------------------------------------------- CIFAR and ImageNet16


def test_cifar10_is_read_as_published(cifar):
    """All batches in their order, whatever the memory order of their arrays; standardised by hand."""
    images = open_images(cifar)
    assert (images.name, images.num_classes, images.shape, images.splits) == (
        "cifar10",
        10,
        (3, 32, 32),
        ("train", "test"),
    )
    train = images.split("train")
    np.testing.assert_array_equal(train.labels, Cifar.train_labels)
    np.testing.assert_allclose(train.images, Cifar.expected(Cifar.train, range(100)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(images.split("test").images, Cifar.expected(Cifar.test, range(30)), rtol=1e-5, atol=1e-6)
    assert "published" in images.describe()


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar"])
def test_the_archive_is_read_like_the_folder(cifar, tmp_path, suffix):
    """In the archive's own order of files, which is not that of the batches."""
    path = tmp_path / f"cifar-10-python{suffix}"
    with tarfile.open(path, "w" if suffix == ".tar" else "w:gz") as archive:
        for name in ("batches.meta", "data_batch_4", "test_batch", *(f"data_batch_{i}" for i in (3, 5, 1, 2))):
            archive.add(cifar / name, f"cifar-10-batches-py/{name}")
    packed, unpacked = open_images(path), open_images(cifar)
    for split in ("train", "test"):
        np.testing.assert_array_equal(packed.split(split).images, unpacked.split(split).images)
        np.testing.assert_array_equal(packed.split(split).labels, unpacked.split(split).labels)
    assert packed.name == "cifar10"
    assert packed.fingerprint == packed.fingerprint != unpacked.fingerprint


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar100_has_its_fine_labels(tmp_path, protocol):
    """Also where Python 3 pickled the batches again."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, n in (("train", 200), ("test", 100)):
        batch = {
            "data": rng(4).integers(0, 256, (n, 3072), dtype=np.uint8),
            "fine_labels": [i % 100 for i in range(n)],
            "coarse_labels": [0] * n,
            "filenames": [f"{i}.png" for i in range(n)],
        }
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    images = open_images(folder)
    assert (images.name, images.num_classes, images.size("train"), images.size("test")) == ("cifar100", 100, 200, 100)
    np.testing.assert_array_equal(images.split("test").labels, np.arange(100))
    assert images.standardisation == STANDARDISATION["cifar100"]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """ImageNet16 in small: ten batches of 60 images; labels 1 to 1000."""
    folder = tmp_path_factory.mktemp("images") / "ImageNet16"
    folder.mkdir()
    for i in range(1, 12):
        batch = {
            "data": rng(i).integers(0, 256, (60, 768), dtype=np.uint8),
            "labels": [*range(1, 25), *range(1 + 10 * i, 26 + 10 * i), *range(990, 1001)],
            "mean": np.zeros(768),
        }
        (folder / (f"train_data_batch_{i}" if i < 11 else "val_data")).write_bytes(pickle.dumps(batch, 3))
    return folder


def test_imagenet16_120_is_the_first_120_classes(imagenet):
    images = open_images(imagenet)
    assert (images.name, images.num_classes, images.shape) == ("ImageNet16-120", 120, (3, 16, 16))
    batches = [pickle.loads((imagenet / f"train_data_batch_{i}").read_bytes()) for i in range(1, 11)]
    kept = [label - 1 for batch in batches for label in batch["labels"] if label <= 120]
    np.testing.assert_array_equal(images.split("train").labels, kept)
    assert len(kept) < 600
    row = next(row for row, label in zip(batches[0]["data"], batches[0]["labels"], strict=True) if label == 1)
    red = (row[:256].reshape(16, 16) / 255 - 122.68 / 255) / (63.22 / 255)
    np.testing.assert_allclose(images.split("train").images[0, 0], red, rtol=1e-5, atol=1e-6)
    assert images.splits == ("train", "test")


def test_other_numbers_of_classes_of_imagenet16(imagenet, cifar):
    whole, few = open_images(imagenet, classes=1000), open_images(imagenet, classes=10)
    assert (whole.name, whole.num_classes, whole.size("train")) == ("ImageNet16", 1000, 600)
    assert (few.name, few.num_classes, few.size("train")) == ("ImageNet16-10", 10, 100)
    assert len({images.fingerprint for images in (whole, few, open_images(imagenet))}) == 3
    assert pickle.loads(pickle.dumps(few)).num_classes == 10
    for wrong in (1, 1001):
        with pytest.raises(DatasetError, match="1000 classes"):
            open_images(imagenet, classes=wrong)
    for other in (cifar, "digits"):
        with pytest.raises(DatasetError, match="classes=10 is for ImageNet16"):
            open_images(other, classes=10)


def _batch(folder, **fields):
    good = {"data": np.zeros((4, 3072), dtype=np.uint8), "labels": [0, 1, 2, 3]}
    entry = {key: value for key, value in {**good, **fields}.items() if value is not None}
    (folder / "data_batch_2").write_bytes(pickle.dumps(entry, 2))


BAD_BATCHES = {
    "is damaged or cut off": lambda f: (f / "data_batch_2").write_bytes((f / "data_batch_1").read_bytes()[:5000]),
    "refused, because the pickle asks for": lambda f: (f / "data_batch_2").write_bytes(pickle.dumps(time.sleep, 2)),
    "no batch of cifar10: it has no labels": lambda f: _batch(f, labels=None),
    "no data and no labels": lambda f: _batch(f, labels=None, data=None),
    "not a batch of images": lambda f: (f / "data_batch_2").write_bytes(pickle.dumps([1], 2)),
    "its data are not uint8 rows of 3": lambda f: _batch(f, data=np.zeros((4, 3072), dtype=np.float32)),
    "rows of 3 x side x side": lambda f: _batch(f, data=np.zeros((4, 3000), dtype=np.uint8)),
    "unknown type 'u2'": lambda f: _batch(f, data=np.zeros((4, 3072), dtype=np.uint16)),
    "unknown byte order": lambda f: _batch(f, data=np.zeros((4, 3072), dtype=">i4")),
    "has 4 images but 3 labels": lambda f: _batch(f, labels=[0, 1, 2]),
    "labels are whole numbers": lambda f: _batch(f, labels=[0.0, 1.0, 2.0, 3.0]),
    "labels are whole numbers, one per image$": lambda f: _batch(f, labels=[0, [1, 2], 3, 4]),
    "classes count from 0": lambda f: _batch(f, labels=[0, 1, 2, -1]),
    "images of different sizes": lambda f: _batch(f, data=np.zeros((4, 3 * 64), dtype=np.uint8)),
}


@pytest.mark.parametrize("message", BAD_BATCHES)
def test_bad_batches_are_refused(cifar, tmp_path, message):
    """Each error names the file."""
    folder = shutil.copytree(cifar, tmp_path / "cifar")
    BAD_BATCHES[message](folder)
    with pytest.raises(DatasetError, match=message) as caught:
        open_images(folder).sample(1, rng())
    assert str(folder) in str(caught.value)


def test_a_pickle_never_runs_what_it_asks_for(cifar, tmp_path):
    """The classic attack, and a stand-in that is to be altered: refused, and nothing happened."""

    class Attack:
        def __reduce__(self):
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",)

    folder = shutil.copytree(cifar, tmp_path / "cifar")
    (folder / "test_batch").write_bytes(pickle.dumps({"data": Attack(), "labels": [1]}, 2))
    with pytest.raises(DatasetError, match="refused"):
        open_images(folder).split("test")
    assert not (tmp_path / "ran").exists()
    (folder / "test_batch").write_bytes(b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}U\x01aK\x01sb.")
    with pytest.raises(DatasetError, match="sets attributes"):
        open_images(folder).split("test")


FORGED = {
    "does not fit its data": (b"M\x00\x0c\x86", b"M\x01\x0c\x86"),  # 3073 columns
    "unknown byte order": (b"(K\x03U\x01|", b"(K\x03U\x01>"),
}


@pytest.mark.parametrize("message", FORGED)
def test_forged_arrays_are_refused(cifar, tmp_path, message):
    """A shape that the data do not fill, and another byte order."""
    folder = shutil.copytree(cifar, tmp_path / "cifar")
    data = (folder / "test_batch").read_bytes()
    assert data.count(FORGED[message][0]) == 1
    (folder / "test_batch").write_bytes(data.replace(*FORGED[message]))
    with pytest.raises(DatasetError, match=message):
        open_images(folder).split("test")


def test_missing_batches_are_named(cifar, tmp_path):
    folder = shutil.copytree(cifar, tmp_path / "cifar")
    (folder / "test_batch").unlink()
    assert open_images(folder).splits == ("train",)
    (folder / "data_batch_1").unlink()
    (folder / "data_batch_4").unlink()
    with pytest.raises(DatasetError, match="lacks data_batch_1, data_batch_4 of cifar10"):
        open_images(folder)
    with tarfile.open(tmp_path / "part.tar.gz", "w:gz") as archive:
        archive.add(folder / "data_batch_2", "data_batch_2")
    with pytest.raises(DatasetError, match="lacks data_batch_1, data_batch_3"):
        open_images(tmp_path / "part.tar.gz").split("train")


def test_imagenet_labels_count_from_one(imagenet, tmp_path):
    folder = shutil.copytree(imagenet, tmp_path / "ImageNet16")
    batch = {"data": np.zeros((2, 768), dtype=np.uint8), "labels": [0, 1]}
    (folder / "train_data_batch_3").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(DatasetError, match="train_data_batch_3: the labels of ImageNet16 count from 1"):
        open_images(folder).split("train")


def test_bad_archives_are_refused(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DatasetError, match=r"a\.tar\.gz is damaged or something else"):
        open_images(tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(DatasetError, match="none of the batches"):
        open_images(tmp_path / "b.tar.gz")


# --------------------------------------------------------------------------------------------------------------- holding out


def test_cifar10_holds_out_the_official_half(cifar, monkeypatch):
    """The split of NAS-Bench-201, where the order is the official one: ids count through the batches."""
    images = open_images(cifar, hold_out=True)
    monkeypatch.setitem(vars(images), "_labels", {"train": np.zeros(50_000, dtype=np.int64)})
    left, held = images._parts
    check_split("cifar10", "train", left)
    check_split("cifar10", "valid", held)
    np.testing.assert_array_equal(held, cifar10_split()[1])


@pytest.mark.parametrize("source", ["cifar", "photos", "table"])
def test_held_out_images_leave_training(source, request):
    """Train and validation together are the training images, and nothing is in both."""
    path = request.getfixturevalue(source)
    whole, parts = open_images(path), open_images(path, hold_out=True)
    assert parts.splits == tuple(split for split in SPLITS if split in (*whole.splits, "validation"))
    n = whole.size("train")
    assert (parts.size("train"), parts.size("validation")) == (n - n // 10, n // 10)
    left, held = parts._parts
    assert sorted([*left, *held]) == list(range(n))
    labels = whole.split("train").labels
    np.testing.assert_array_equal(parts.split("train").labels, labels[left])
    np.testing.assert_array_equal(parts.split("validation").labels, labels[held])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(parts))._parts[1], held)
    assert parts != whole and parts.fingerprint != whole.fingerprint
    assert parts.sample(1, rng(), "validation").labels[0] in labels[held]


def test_held_out_images_do_not_standardise(photos):
    """Mean and deviation are those of the images that are left for training."""
    images = open_images(photos, hold_out=True)
    pixels = open_images(photos)._read_pixels("train", None)[images._parts[0]] / 255
    np.testing.assert_allclose(images.standardisation[0], pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(images.standardisation[1], pixels.std(axis=(0, 2, 3)), rtol=1e-12)


def test_the_held_out_tenth_is_what_it_was(cifar):
    """Drawn by the uniform numbers of one generator: it must never change."""
    np.testing.assert_array_equal(open_images(cifar, hold_out=True)._parts[1], HELD_OUT)


HELD_OUT = [21, 25, 27, 29, 32, 64, 66, 79, 82, 85]


def test_own_validation_images_are_not_replaced(arrays):
    images, same = open_images(arrays), open_images(arrays, hold_out=True)
    assert images.splits == same.splits == SPLITS
    assert images == same and images.fingerprint == same.fingerprint
    assert same.size("train") == 40 and same.size("validation") == 10


def test_too_few_images_to_hold_out(tmp_path):
    np.savez(tmp_path / "few.npz", x_train=np.zeros((9, 4, 4), dtype=np.uint8), y_train=np.arange(9) % 2)
    with pytest.raises(DatasetError, match="9 training images: too few"):
        open_images(tmp_path / "few.npz", hold_out=True).split("validation")


# -------------------------------------------------------------------------------------------------------------------- .npz


def test_unknown_images_are_standardised_by_their_own_pixels(arrays):
    """Mean 0 and deviation 1 over all training pixels, and the training images' numbers for the test images."""
    images = open_images(arrays)
    pixels = np.load(arrays)["train_images"] / 255
    assert images.standardisation == (
        (pytest.approx(pixels.mean(), rel=1e-12),),
        (pytest.approx(pixels.std(), rel=1e-12),),
    )
    test = (np.load(arrays)["test_images"] / 255 - pixels.mean()) / pixels.std()
    np.testing.assert_allclose(images.split("test").images[:, 0], test, rtol=1e-5, atol=1e-6)
    assert "measured" in images.describe()


def test_standardisation_on_paper(tmp_path):
    """Pixels 0, 0, 255, 255 in red: mean 1/2, deviation 1/2, so -1 and 1. Green is 51 everywhere: 0.2 - 0.2 = 0."""
    pixels = np.zeros((2, 1, 2, 3), dtype=np.uint8)
    pixels[1, ..., 0] = 255
    pixels[..., 1] = 51
    np.savez(tmp_path / "p.npz", x_train=pixels, y_train=[0, 1])
    images = open_images(tmp_path / "p.npz")
    assert images.standardisation == (pytest.approx((0.5, 0.2, 0.0)), (0.5, 1.0, 1.0))
    np.testing.assert_allclose(images.split("train").images[:, :, 0, 0], [[-1, 0, 0], [1, 0, 0]], atol=1e-7)


SPELLINGS = [
    ("x_train", "y_train"),
    ("train_images", "train_labels"),
    ("X_Train", "Y_train"),
    ("train_x", "train_y"),
    ("data_train", "target_train"),
    ("training_images", "training_labels"),
]


@pytest.mark.parametrize("names", SPELLINGS)
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (1, 4, 5), (4, 5, 3), (3, 4, 5)])
def test_spellings_of_npz(tmp_path, names, shape):
    pixels = rng().integers(0, 256, (6, *shape), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", **{names[0]: pixels, names[1]: np.arange(6) % 3})
    images = open_images(tmp_path / "a.npz")
    assert images.shape == ((3, 4, 5) if 3 in shape else (1, 4, 5))
    assert (images.num_classes, images.splits) == (3, ("train",))
    first = np.moveaxis(pixels[0], -1, 0) if shape[-1] in (1, 3) else pixels[0].reshape(images.shape)
    back = images.split("train").images[0] * np.reshape(images.standardisation[1], (-1, 1, 1))
    back += np.reshape(images.standardisation[0], (-1, 1, 1))
    np.testing.assert_allclose(back * 255, first, atol=1e-3)


GOOD = {"x_train": np.zeros((4, 8, 8), dtype=np.uint8), "y_train": np.arange(4)}
BAD_ARRAYS = {
    "is float32: store the pixels as uint8": {"x_train": np.zeros((4, 8, 8), dtype=np.float32)},
    "2 channels|of shape": {"x_train": np.zeros((4, 8, 8, 2), dtype=np.uint8)},
    "x_train is of shape": {"x_train": np.zeros((4, 64), dtype=np.uint8)},
    "x_train but no labels to it": {"y_train": None},
    "no arrays x_train and y_train, only y_train": {"x_train": None},
    "has 4 images but 3 labels": {"y_train": np.arange(3)},
    "not float64": {"y_train": np.arange(4.0)},
    r"of shape \(4, 10\)": {"y_train": np.zeros((4, 10), dtype=int)},
    "image 2 has the label -1": {"y_train": np.array([0, 1, -1, 1])},
    "all training images are of one class": {"y_train": np.zeros(4, dtype=int)},
    "class 7 is among the test images": {"x_test": np.zeros((1, 8, 8), dtype=np.uint8), "y_test": np.array([7])},
    "images of different sizes": {"x_test": np.zeros((1, 9, 8), dtype=np.uint8), "y_test": np.array([1])},
    "has no train images": {"x_train": np.zeros((0, 8, 8), dtype=np.uint8), "y_train": np.zeros(0, dtype=int)},
    "damaged or something else: Object arrays": {"y_train": np.array([0, 1, "a", None], dtype=object)},
}


@pytest.mark.parametrize("message", BAD_ARRAYS)
def test_bad_arrays_are_refused(tmp_path, message):
    members = {name: array for name, array in {**GOOD, **BAD_ARRAYS[message]}.items() if array is not None}
    np.savez(tmp_path / "bad.npz", **members)
    with pytest.raises(DatasetError, match=message) as caught:
        open_images(tmp_path / "bad.npz").describe()
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
def test_a_damaged_npz_is_refused(arrays, tmp_path, cut):
    data = arrays.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: cut if cut >= 1 else int(cut * len(data))])
    with pytest.raises(DatasetError, match=r"cut\.npz is damaged or something else"):
        open_images(tmp_path / "cut.npz")


# ------------------------------------------------------------------------------------------------------- folders of images


def test_class_folders_are_sorted(photos):
    """a before b, 00.png before 01.png; the blue of image i of a is 10 i."""
    images = open_images(photos)
    assert (images.name, images.shape, images.splits, images.num_classes) == ("photos", (3, 4, 5), ("train",), 2)
    train = images.split("train")
    np.testing.assert_array_equal(train.labels, [0] * 8 + [1] * 12)
    blue = train.images[:, 2] * images.standardisation[1][2] + images.standardisation[0][2]
    np.testing.assert_allclose(blue[:, 0, 0] * 255, [*range(0, 80, 10), *range(0, 120, 10)], atol=1e-3)
    with Image.open(photos / "a" / "03.png") as image:
        pixels = np.asarray(image).transpose(2, 0, 1) / 255
    mean, deviation = (np.reshape(values, (3, 1, 1)) for values in images.standardisation)
    np.testing.assert_allclose(train.images[3], (pixels - mean) / deviation, rtol=1e-5, atol=1e-6)


def test_folders_of_splits(photos, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(photos, tmp_path / "set" / split)
    (tmp_path / "set" / "test" / "a" / "00.png").unlink()
    images = open_images(tmp_path / "set")
    assert images.splits == SPLITS
    assert [images.size(split) for split in SPLITS] == [20, 20, 19]
    shutil.copytree(photos, tmp_path / "set" / "valid")
    with pytest.raises(DatasetError, match="two folders of validation images: val, valid"):
        open_images(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "valid")
    (tmp_path / "set" / "test" / "a").rename(tmp_path / "set" / "test" / "c")
    with pytest.raises(DatasetError, match="has the class c, of which there are no training images"):
        open_images(tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "train")
    with pytest.raises(DatasetError, match="no folder train"):
        open_images(tmp_path / "set")


def test_a_class_may_be_called_train(photos, tmp_path):
    shutil.copytree(photos / "a", tmp_path / "vehicles" / "car")
    shutil.copytree(photos / "b", tmp_path / "vehicles" / "train")
    images = open_images(tmp_path / "vehicles")
    assert (images.size("train"), images.num_classes, images.splits) == (20, 2, ("train",))
    (tmp_path / "vehicles" / "car").rename(tmp_path / "vehicles" / "test")
    assert open_images(tmp_path / "vehicles").num_classes == 2


def test_modes_of_images(tmp_path):
    """Grey pictures are converted among coloured ones, palettes and transparency too; colours among grey are refused."""
    red = Image.new("RGB", (4, 4), (204, 0, 0))  # a colour of the web palette
    for name, image in (("0", red), ("1", red.convert("P")), ("2", red.convert("RGBA")), ("3", red.convert("L"))):
        for label in "ab":
            (tmp_path / "mixed" / label).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "mixed" / label / f"{name}.png")
    images = open_images(tmp_path / "mixed")
    train = images._read_pixels("train", None)
    assert images.shape == (3, 4, 4)
    assert train[:3, :, 0, 0].tolist() == [[204, 0, 0]] * 3
    assert train[3, :, 0, 0].tolist() == [61, 61, 61]  # 0.299 of 204
    Image.new("L", (4, 4)).save(tmp_path / "mixed" / "a" / "!.png")
    with pytest.raises(DatasetError, match=r"0\.png has colours \(RGB\), the first image is grey"):
        open_images(tmp_path / "mixed").split("train")
    Image.new("I;16", (4, 4)).save(tmp_path / "mixed" / "a" / "!.png")
    with pytest.raises(DatasetError, match="more than 8 bits"):
        open_images(tmp_path / "mixed").split("train")


def test_only_what_is_drawn_is_decoded(photos, tmp_path, monkeypatch):
    """A sample decodes its images once, and the first for the size; the standardisation decodes the training images once."""
    images = open_images(photos)
    images.standardisation  # noqa: B018
    decoded = []
    real = datasets._decode
    monkeypatch.setattr(datasets, "_decode", lambda data, where: decoded.append(where) or real(data, where))
    images.sample(3, rng())
    assert len(decoded) == len(set(decoded)) == 3
    decoded.clear()
    open_images(photos).sample(2, rng())
    assert len(decoded) == 1 + 20 + 2


def test_bad_images_are_named(photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "b" / "05.png").write_bytes((photos / "b" / "05.png").read_bytes()[:60])
    with pytest.raises(DatasetError, match=r"05\.png is not an image that can be decoded"):
        open_images(folder).split("train")
    (folder / "b" / "05.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"05\.png is not an image"):
        open_images(folder).split("train")
    Image.new("RGB", (5, 5)).save(folder / "b" / "05.png")
    with pytest.raises(
        DatasetError, match=r"05\.png is 5 x 5 pixels, the first image 5 x 4: scale all images to one size"
    ):
        open_images(folder).split("train")


def test_empty_folders_are_refused(photos, cifar, tmp_path):
    with pytest.raises(DatasetError, match="no class folders with images"):
        open_images(tmp_path)
    shutil.copy(photos / "a" / "00.png", tmp_path)
    with pytest.raises(DatasetError, match="labels are the names of folders"):
        open_images(tmp_path)
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "c").mkdir()
    with pytest.raises(DatasetError, match="c has no images: no .png"):
        open_images(tmp_path / "photos")
    shutil.copytree(cifar, tmp_path / "torch" / "cifar-10-batches-py")
    with pytest.raises(DatasetError, match=r"has no images: open .*torch/cifar-10-batches-py"):
        open_images(tmp_path / "torch")


def test_the_fingerprint_of_a_folder(photos, tmp_path):
    """The same for a copy of the same name; another when a file's content, name or number changes."""
    copy = shutil.copytree(photos, tmp_path / "photos")
    first = open_images(photos).fingerprint
    assert open_images(copy).fingerprint == first
    seen = {first}
    data = bytearray((copy / "b" / "07.png").read_bytes())
    data[-20] ^= 1
    for change in (
        lambda: (copy / "b" / "07.png").write_bytes(data),
        lambda: (copy / "b" / "07.png").rename(copy / "b" / "7.png"),
        lambda: (copy / "b" / "7.png").unlink(),
    ):
        change()
        seen.add(open_images(copy).fingerprint)
    assert len(seen) == 4


# ----------------------------------------------------------------------------------------------------------------- Parquet


def test_a_table_is_the_folder_it_was_made_of(table, photos):
    """Over several row groups, with its test split from the file beside it."""
    images, folder = open_images(table), open_images(photos)
    assert (images.splits, images.size("test"), images.num_classes) == (("train", "test"), 4, 2)
    np.testing.assert_array_equal(images.split("train").images, folder.split("train").images)
    np.testing.assert_array_equal(images.split("train").labels, folder.split("train").labels)
    np.testing.assert_array_equal(images.split("test").images, folder.split("train").images[5:9])
    np.testing.assert_array_equal(images.sample(20, rng(4)).images, folder.sample(20, rng(4)).images)


def test_tables_of_structs_are_read(table, tmp_path, photos):
    """As Hugging Face writes them: a struct of bytes and path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(photos.glob("*/*.png"))
    rows = [{"img": {"bytes": f.read_bytes(), "path": f.name}, "label": "ab".index(f.parent.name)} for f in files]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hub.parquet")
    np.testing.assert_array_equal(
        open_images(tmp_path / "hub.parquet").sample(6, rng()).images, open_images(photos).sample(6, rng()).images
    )


BAD_TABLES = {
    r"no column 'label': it has png \(binary\)": {"png": [b"x"]},
    "needs one column of encoded images": {"label": [0]},
    r"encoded images \(bytes\)": {"label": [0], "a": [b""], "b": [b""]},
    "1 images without a label": {"label": [0, None], "png": [b"x", b"x"]},
    "labels are whole numbers": {"label": ["cat"], "png": [b"x"]},
    "has no train images": {"label": [], "png": []},
    "row 1 has no image": {"label": [0, 1], "png": [None, b"x"]},
    "row 1 is not an image": {"label": [0, 1], "png": [b"x", b"x"]},
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_bad_tables_are_refused(tmp_path, message):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    kinds = {"png": pa.binary(), "a": pa.binary(), "b": pa.binary()}
    columns = {
        name: pa.array(values, kinds.get(name) or (None if values else pa.int64()))
        for name, values in BAD_TABLES[message].items()
    }
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(DatasetError, match=message) as caught:
        open_images(tmp_path / "bad.parquet").describe()
    assert "bad.parquet" in str(caught.value)


def test_a_damaged_table_is_refused(table, tmp_path):
    (tmp_path / "cut.parquet").write_bytes(table.read_bytes()[:-30])
    with pytest.raises(DatasetError, match=r"cut\.parquet is damaged"):
        open_images(tmp_path / "cut.parquet")


@pytest.mark.parametrize(("module", "message"), [("pyarrow", r"nasharness\[parquet\]"), ("PIL", "pip install pillow")])
def test_missing_packages_are_named(table, monkeypatch, module, message):
    """What is already imported is hidden, and what is not yet cannot be."""
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == module:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DatasetError, match=message):
        open_images(table).describe()


# -------------------------------------------------------------------------------------------------------------------- paths


def test_paths_that_are_not_images(tmp_path):
    with pytest.raises(DatasetError, match="there are no images at digts: did you mean digits"):
        open_images("digts")
    with pytest.raises(DatasetError, match="embedded are digits, cluttered-digits"):
        open_images(tmp_path / "nowhere")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"a\.zip is not read"):
        open_images(tmp_path / "a.zip")


KNOWN = [
    ("CIFAR-10-jpeg", (32, 32, 3), "cifar10"),
    ("my_cifar100", (32, 32, 3), "cifar100"),
    ("fashion_mnist", (28, 28), "fashion-mnist"),
    ("MNIST", (28, 28), "mnist"),
    ("kmnist", (28, 28), None),
    ("cifar10", (24, 24, 3), None),
    ("cifar1000", (32, 32, 3), None),
]


@pytest.mark.parametrize(("name", "shape", "known"), KNOWN)
def test_known_datasets_are_recognised(tmp_path, name, shape, known):
    """By name, but only with the size and classes of the original."""
    classes = 100 if known == "cifar100" else 10
    pixels = rng().integers(0, 256, (200, *shape), dtype=np.uint8)
    np.savez(tmp_path / f"{name}.npz", x_train=pixels, y_train=np.arange(200) % classes)
    images = open_images(tmp_path / f"{name}.npz")
    assert (images.standardisation in STANDARDISATION.values()) is (known is not None)
    if known:
        assert images.name == known and images.standardisation == STANDARDISATION[known]


def test_opening_again_in_another_folder(photos, monkeypatch, tmp_path):
    """A relative path is remembered absolutely, as worker processes need it."""
    monkeypatch.chdir(photos.parent)
    images = open_images("photos")
    data = pickle.dumps(images)
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(data).sample(1, rng()).labels == images.sample(1, rng()).labels


def test_another_process_sees_the_same(photos):
    """Fingerprint and sample do not depend on string hashes."""
    code = f"""
import numpy as np
from nasharness.benchmarks.datasets import open_images
images = open_images({str(photos)!r})
print(images.fingerprint, images.sample(5, np.random.default_rng(0)).labels.tolist())
import sys
assert not any(name in sys.modules for name in ("torch", "pyarrow", "sklearn"))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    images = open_images(photos)
    assert out.strip() == f"{images.fingerprint} {images.sample(5, rng()).labels.tolist()}"


_opened = functools.cache(open_images)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_every_sample_is_a_start_of_a_permutation(cifar, n, m, seed):
    """For any sizes and seed: no image twice, and the smaller of two samples is the start of the larger."""
    images = _opened(cifar)
    one, other = images.sample(n, rng(seed)), images.sample(m, rng(seed))
    k = min(n, m)
    np.testing.assert_array_equal(one.images[:k], other.images[:k])
    assert len(np.unique(one.images.reshape(n, -1), axis=0)) == n


# -------------------------------------------------------------------------------------------------------------- real images


def test_real_fashion_mnist(shared_data):
    path = shared_data / "images" / "fashion_mnist.npz"
    if not path.exists():
        pytest.skip("no Fashion-MNIST")
    images = open_images(path)
    assert (images.name, images.num_classes, images.shape) == ("fashion-mnist", 10, (1, 28, 28))
    sample = images.sample(2000, rng())
    assert abs(sample.images.mean()) < 0.03 and abs(sample.images.std() - 1) < 0.03
    assert images.describe().startswith("fashion-mnist: 60,000 train, 10,000 test images of 1 x 28 x 28, 10 classes")


def test_real_cifar10(shared_data):
    """The published numbers standardise the real images, and 64 of 50,000 take no time."""
    pytest.importorskip("pyarrow")
    path = shared_data / "images" / "cifar10_train_jpeg.parquet"
    if not path.exists():
        pytest.skip("no CIFAR-10")
    images = open_images(path)
    images.sample(1, rng())
    start = time.process_time()
    sample = images.sample(512, rng())
    assert time.process_time() - start < 1
    assert images.name == "cifar10" and images.size("test") == 10_000
    np.testing.assert_allclose(sample.images.mean(axis=(0, 2, 3)), 0, atol=0.1)
    np.testing.assert_allclose(sample.images.std(axis=(0, 2, 3)), 1, atol=0.05)
    assert np.bincount(sample.labels, minlength=10).min() > 25
