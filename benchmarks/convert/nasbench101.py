"""From NAS-Bench-101's official TFRecord file to columns.

    hash        uint8 (n, 16)     module hash, in order of first appearance in the file
    vertices    uint8 (n,)        of the pruned cell as stored
    edges       uint32 (n,)       bit x + y(y-1)/2 is set if there is an edge from vertex x to y
    labels      uint8 (n, 5)      position in `OPERATIONS` of each interior vertex; 0 where there is none
    params      int32 (n,)        trainable parameters, from the file
    flops       int64 (n,)        multiply-accumulates for one image, counted: the file has none
    metrics     float32 (n, epoch lengths, repeats, 2, 4)
                                  half way and at the end: training_time, train_accuracy, validation_accuracy, test_accuracy

The official numbers are float32 widened to double, so float32 holds them exactly; a file for which this is not so gets
float64. The metadata lists the epoch lengths (`epochs`), the number of records, and the source file's name and SHA-256.

The repeats of a run are told apart by their order in the file, as in the official API.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..columns import Columns, write_columns
from ..formats.errors import FormatError
from ..formats.nasbench101 import METRICS, Records, decode_records
from ..formats.tfrecord import read_records
from ..spaces.nasbench101 import CONV1, CONV3, MAX_EDGES, NUM_CLASSES, Graph, count_cost, module_hash

_CHUNK = 1 << 21
_LABELS = 5
_KERNEL = np.zeros(3, dtype=np.int64)  # weights of each operation for a pair of channels
_KERNEL[CONV3], _KERNEL[CONV1] = 9, 1

Ints = npt.NDArray[np.int64]


def convert(source: Path, target: Path, *, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
    """Convert a file; some twenty seconds for the full one. Nothing is left behind if it is interrupted.

    Args:
        source: `nasbench_full.tfrecord`, `nasbench_only108.tfrecord` or any file of that form.
        target: the file to write; its folder is created.
        jobs: with more than one, a second thread computes the source's digest.
        progress: called with the bytes read so far and the size of the source.

    Raises:
        FormatError: the source is damaged, cut off, no NAS-Bench-101 file, or not all modules have the same runs.
        OSError: the source cannot be read or the target not be written.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    digest = hashlib.sha256()
    runs = _Runs(str(source))
    with ThreadPoolExecutor(1) as pool:
        digested: Future[None] | None = None

        def chunks() -> Iterator[bytes]:
            nonlocal digested
            total, done = source.stat().st_size, 0
            with source.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    if jobs > 1:
                        if digested is not None:
                            digested.result()  # at most one chunk is waiting
                        digested = pool.submit(digest.update, chunk)
                    else:
                        digest.update(chunk)
                    yield chunk
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)

        for payloads in read_records(chunks(), where=str(source)):
            runs.add(decode_records(payloads, where=str(source)))
    columns, epochs = runs.columns()
    metadata = {
        "epochs": epochs,
        "records": runs.records,
        "source": source.name,
        "source_sha256": digest.hexdigest(),
    }
    write_columns(target, columns, kind="nasbench101", metadata=metadata)


class _Runs:
    """What has been read so far, packed: about 40 bytes for each record and 200 for each module."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.records = 0
        self._module_of: dict[bytes, int] = {}  # by hash
        self._vertices, self._adjacency, self._params = array("B"), array("Q"), array("q")
        self._labels = bytearray()
        self._epochs: dict[int, int] = {}  # position by length, in order of first appearance
        self._module: list[npt.NDArray[np.int32]] = []
        self._length: list[npt.NDArray[np.uint8]] = []
        self._metrics: list[npt.NDArray[np.floating]] = []

    def add(self, batch: Records) -> None:
        first = np.unique(batch.module, return_index=True)[1]  # the first run of each module
        modules = np.empty(len(batch.modules), dtype=np.int32)
        lengths = np.empty(len(batch.modules), dtype=np.uint8)
        for i, module in enumerate(batch.modules):
            modules[i] = number = self._module_of.setdefault(module.hash, len(self._module_of))
            if number == len(self._vertices):
                self._vertices.append(module.vertices)
                self._adjacency.append(module.adjacency)
                self._labels += bytes(module.labels).ljust(_LABELS, b"\0")
                self._params.append(int(batch.parameters[first[i]]))
            lengths[i] = position = self._epochs.setdefault(module.epochs, len(self._epochs))
            if position == 255:
                raise FormatError(f"{self.where} has runs of more than 255 different numbers of epochs")
        self._module.append(modules[batch.module])
        self._length.append(lengths[batch.module])
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not equal
            narrow = batch.metrics.astype(np.float32)
        exact = np.array_equal(narrow, batch.metrics, equal_nan=True)
        self._metrics.append(narrow if exact else batch.metrics)
        self.records += len(batch.module)

    def columns(self) -> tuple[dict[str, npt.NDArray[np.generic]], list[int]]:
        """The columns and the lengths of the runs in epochs, ascending."""
        n, where = len(self._module_of), self.where
        if not n:
            raise FormatError(f"{where} holds no record")
        epochs = sorted(self._epochs)
        if n * len(epochs) > self.records:  # before anything of that size is allocated
            raise FormatError(
                f"{where} is incomplete: {self.records} records are too few for {n} modules and runs of"
                f" {', '.join(map(str, epochs))} epochs; download or copy the file again"
            )
        ascending = np.array([epochs.index(length) for length in self._epochs])
        key = np.concatenate(self._module).astype(np.int64)
        key = key * len(epochs) + ascending[np.concatenate(self._length)]
        self._module, self._length = [], []
        counts = np.bincount(key, minlength=n * len(epochs))
        repeats = int(counts.max())
        if (few := np.flatnonzero(counts != repeats)).size:
            module, length = divmod(int(few[0]), len(epochs))
            raise FormatError(
                f"{where} is incomplete: module {list(self._module_of)[module].hex()} has {counts[few[0]]} runs of"
                f" {epochs[length]} epochs, others have {repeats}; download or copy the file again"
            )
        place = np.empty(self.records, dtype=np.int64)
        place[np.argsort(key, kind="stable")] = np.arange(self.records)  # by module, epochs, then order in the file
        del key
        dtype = np.result_type(*{values.dtype for values in self._metrics})
        metrics = np.empty((self.records, 2, len(METRICS)), dtype=dtype)
        start = 0
        self._metrics.reverse()
        while self._metrics:  # so that no batch is held longer than needed
            values = self._metrics.pop()
            metrics[place[start : start + len(values)]] = values
            start += len(values)

        vertices = np.array(self._vertices, dtype=np.uint8)
        labels = np.frombuffer(bytes(self._labels), dtype=np.uint8).reshape(n, _LABELS)
        edges = _edges(vertices, np.array(self._adjacency, dtype=np.uint64))
        hashes = np.frombuffer(b"".join(self._module_of), dtype=np.uint8).reshape(n, 16)
        if (loose := np.flatnonzero(~_is_pruned(vertices, edges))).size:
            raise FormatError(
                f"{where}: the graph of module {hashes[loose[0]].tobytes().hex()} has a vertex that is not on a path"
                " from input to output; the official file has only pruned graphs"
            )
        if (many := np.flatnonzero(np.bitwise_count(edges) > MAX_EDGES)).size:
            raise FormatError(
                f"{where}: module {hashes[many[0]].tobytes().hex()} has {int(edges[many[0]]).bit_count()} edges; NAS-Bench-101"
                f" allows {MAX_EDGES}"
            )
        return {
            "hash": hashes,
            "vertices": vertices,
            "edges": edges.astype(np.uint32),
            "labels": labels,
            "params": np.array(self._params, dtype=np.int32),
            "flops": costs(vertices, edges, labels)[1],
            "metrics": metrics.reshape(n, len(epochs), repeats, 2, len(METRICS)),
        }, epochs


def _edges(vertices: npt.NDArray[np.uint8], adjacency: npt.NDArray[np.uint64]) -> Ints:
    """Turn matrices, read row by row as binary numbers, into our order of the edges."""
    edges = np.zeros(len(vertices), dtype=np.int64)
    for v in np.unique(vertices).tolist():
        of_v = vertices == v
        matrix = adjacency[of_v].astype(np.int64)  # of at most 49 bits
        for y in range(v):
            for x in range(y):
                edges[of_v] |= (matrix >> v * v - 1 - (x * v + y) & 1) << x + y * (y - 1) // 2
    return edges


def _edge(edges: Ints, x: int, y: int) -> Ints:
    """1 where there is an edge from x to y, else 0."""
    return edges >> x + y * (y - 1) // 2 & 1


def _is_pruned(vertices: npt.NDArray[np.uint8], edges: Ints) -> npt.NDArray[np.bool_]:
    """Whether every vertex but the input has a source, and every vertex but the output a target."""
    pruned = np.ones(len(vertices), dtype=bool)
    for v in np.unique(vertices).tolist():
        of_v = vertices == v
        e = edges[of_v]
        for x in range(v - 1):
            pruned[of_v] &= sum(_edge(e, x, y) for y in range(x + 1, v)) > 0
            pruned[of_v] &= sum(_edge(e, y, x + 1) for y in range(x + 1)) > 0
    return pruned


def costs(
    vertices: npt.NDArray[np.integer], edges: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]
) -> tuple[Ints, Ints]:
    """`count_cost` of many pruned cells at once: trainable parameters and FLOPs, each int64 `(n,)`.

    Args:
        vertices: `(n,)`.
        edges: `(n,)` bit masks.
        labels: `(n, 5)`, of which the first V - 2 count.
    """
    params = np.full(len(vertices), 9 * 3 * 128 + 2 * 128 + 512 * 10 + 10, dtype=np.int64)  # stem and classifier
    flops = np.full(len(vertices), 9 * 3 * 128 * 32**2 + 512 * 10 + 10, dtype=np.int64)
    for v in np.unique(vertices).tolist():
        of_v = np.flatnonzero(vertices == v)
        e, operations = edges[of_v].astype(np.int64), labels[of_v]
        # Module inputs, outputs, side of the image, number of such modules in the network.
        for inputs, outputs, side, times in (
            (128, 128, 32, 3),
            (128, 256, 16, 1),
            (256, 256, 16, 2),
            (256, 512, 8, 1),
            (512, 512, 8, 2),
        ):
            channels = _vertex_channels(v, e, outputs)
            weights: Ints = np.zeros(len(e), dtype=np.int64)
            batch_norms: Ints = np.zeros(len(e), dtype=np.int64)
            for target in range(1, v):
                projected = _edge(e, 0, target) * channels[target]
                weights += inputs * projected
                batch_norms += 2 * projected
                if target < v - 1:
                    kernel = _KERNEL[operations[:, target - 1]]
                    weights += kernel * channels[target] ** 2
                    batch_norms += 2 * np.minimum(kernel, 1) * channels[target]
            params[of_v] += times * (weights + batch_norms)
            flops[of_v] += times * side**2 * weights
    return params, flops


def _vertex_channels(v: int, edges: Ints, outputs: int) -> list[Ints]:
    """Channels of vertices 1 to v-1 of each of these cells of v vertices (entry 0 is not used): see `vertex_channels`."""
    feeds = [_edge(edges, x, v - 1) for x in range(v - 1)]
    shares = np.maximum(sum(feeds[1:], np.zeros_like(edges)), 1)
    rank = np.zeros_like(edges)  # how many vertices before this one feed the output
    channels = [rank] * (v - 1) + [np.full_like(edges, outputs)]
    for x in range(1, v - 1):
        channels[x] = feeds[x] * (outputs // shares + (rank < outputs % shares))
        rank = rank + feeds[x]
    for x in range(v - 2, 0, -1):
        most = np.zeros_like(edges)
        for y in range(x + 1, v - 1):
            most = np.maximum(most, _edge(edges, x, y) * channels[y])
        channels[x] = np.where(feeds[x] == 1, channels[x], most)
    return channels


# ------------------------------------------------------------------------------------------------------- known facts

_SHA256_OF_HASHES = "a7f10bf770c1b5b8a221e37824e42b3b1a237a5d21ccf545bbe8e23abd933403"
"""Of all hashes in hexadecimal, sorted and joined by newlines: from enumerating the whole space."""
_BEST_TEST, _BEST_VALIDATION = 0.943175752957662, 0.9505542318026224
"""Best means over the repeats after 108 epochs. https://github.com/google-research/nasbench/issues/10"""
_FIRST_HASH, _FIRST_PARAMS = "00005c142e6f48ac74fdcf73e3439874", 8_555_530
_FIRST_RUN = (89.90399932861328, 0.3489583432674408, 0.3504607379436493)
"""Training time, validation and test accuracy after 4 epochs in the first record of the full file."""
_SAMPLE = 500


def verify(columns: Columns) -> Iterator[tuple[str, bool]]:
    """Compare a converted file with what is known of the official ones, fact by fact: a sentence, and whether it holds.

    A file of a part of the modules fails the facts about the whole; the sentence then names what was found.
    """
    n = len(columns["hash"])
    yield f"{n:,} of {NUM_CLASSES:,} modules", n == NUM_CLASSES
    hexes = [row.tobytes().hex() for row in columns["hash"]]
    found = hashlib.sha256("\n".join(sorted(hexes)).encode()).hexdigest()
    yield f"digest of the sorted hashes {found[:16]}... is {_SHA256_OF_HASHES[:16]}...", found == _SHA256_OF_HASHES
    yield "every module appears once", len(set(hexes)) == n

    vertices, edges, labels = columns["vertices"], columns["edges"], columns["labels"]
    sample = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int64)).tolist()
    graphs = [Graph(int(v := vertices[i]), int(edges[i]), tuple(labels[i, : v - 2].tolist())) for i in sample]
    same = sum(module_hash(graph) == hexes[i] for graph, i in zip(graphs, sample, strict=True))
    yield f"{same} of {len(sample)} sampled graphs have their module's hash", same == len(sample)
    params, flops = costs(vertices, edges, labels)
    wrong = int((params != columns["params"]).sum())
    yield f"{wrong} modules have other parameters than their graph's network", wrong == 0
    counted = [(int(columns["params"][i]), int(flops[i])) for i in sample]
    same = sum(count_cost(graph) == pair for graph, pair in zip(graphs, counted, strict=True))
    yield f"{same} of {len(sample)} sampled costs are those counted layer by layer", same == len(sample)

    epochs = columns.metadata["epochs"]
    if 108 in epochs:
        final = columns["metrics"][:, epochs.index(108), :, 1].mean(axis=1, dtype=np.float64)
        for name, metric, best in (("test", 3, _BEST_TEST), ("validation", 2, _BEST_VALIDATION)):
            reached = float(final[:, metric].max())
            yield f"best mean {name} accuracy after 108 epochs {reached!r} is {best!r}", abs(reached - best) < 1e-12
    else:
        yield f"runs of 108 epochs (it has {', '.join(map(str, epochs))})", False
    if _FIRST_HASH in hexes:
        row = hexes.index(_FIRST_HASH)
        known = int(columns["params"][row]) == _FIRST_PARAMS
        yield f"module {_FIRST_HASH[:8]} has {columns['params'][row]:,} parameters", known
        if 4 in epochs:
            run = tuple(columns["metrics"][row, epochs.index(4), 0, 1][[0, 2, 3]].astype(float).tolist())
            yield f"its first run of 4 epochs: seconds, validation and test accuracy {run}", run == _FIRST_RUN
    else:
        yield f"module {_FIRST_HASH[:8]} is there", False
