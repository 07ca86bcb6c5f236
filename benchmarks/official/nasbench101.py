"""The official NAS-Bench-101 API, call for call, on a converted file.

Code written for `nasbench.api` (https://github.com/google-research/nasbench) runs with another import and constructor:

    from nasharness.benchmarks.official.nasbench101 import ModelSpec, NASBench

    nasbench = NASBench("nasbench101.safetensors", rng=random.Random(42))
    data = nasbench.query(ModelSpec(matrix=..., ops=...))

Where it differs:
    * `rng` is a `random.Random` of the caller's. The official constructor seeds Python's global generator and draws from it;
      with `random.Random(seed)` the answers to a sequence of queries are the official ones for that seed.
    * The hash of a matrix does not depend on its number type. Officially a float matrix is valid and then not found. Entries
      other than 0 and 1 are refused with a ValueError.
    * `is_valid` of a cell of more than 7 vertices is False; officially it fails with a TypeError.
    * `evaluate`, which trains on a TPU, and `ModelSpec.visualize` do not exist: use `NASBench101.network`.
"""

from __future__ import annotations

import random
from collections.abc import KeysView, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..columns import TableError, open_columns
from ..formats.nasbench101 import METRICS
from ..nasbench101 import NASBench101Table
from ..spaces.nasbench101 import INPUT, MAX_EDGES, MAX_VERTICES, OPERATIONS, OUTPUT, graph_from_matrix, module_hash


class OutOfDomainError(Exception):
    """A spec or a number of epochs that the dataset does not cover."""


class ModelSpec:
    """A cell as the official API takes it.

    Args:
        matrix: `(V, V)` adjacency matrix of zeros and ones, strictly upper triangular.
        ops: V operations, from "input" to "output"; they are looked at only when the spec is used.
        data_format: kept, for code that reads it.

    Attributes:
        original_matrix, original_ops: as given; the matrix as an array of ints.
        matrix, ops: without the vertices that are on no path from input to output; None if there is no such path.
        valid_spec: whether there is one.

    Raises:
        ValueError: the matrix is not square, not of zeros and ones, or not strictly upper triangular, or `ops` has another
            length.
    """

    def __init__(self, matrix: npt.ArrayLike, ops: Sequence[str], data_format: str = "channels_last") -> None:
        try:
            array = np.array(matrix)
        except ValueError:  # rows of different lengths
            raise ValueError("matrix must be square") from None
        if array.ndim != 2 or array.shape[0] != array.shape[1]:
            raise ValueError("matrix must be square")
        if len(ops) != len(array):
            raise ValueError("length of ops must match matrix dimensions")
        if array.dtype.kind not in "biuf" or not ((array == 0) | (array == 1)).all():
            raise ValueError("matrix must consist of zeros and ones")
        if np.tril(array).any():
            raise ValueError("matrix must be upper triangular")
        self.original_matrix: npt.NDArray[np.int64] = array.astype(np.int64)
        self.original_ops: list[str] = list(ops)
        self.data_format = data_format
        self.matrix: npt.NDArray[np.int64] | None = None
        self.ops: list[str] | None = None
        kept = self._connected()
        self.valid_spec = len(kept) >= 2
        if self.valid_spec:
            self.matrix = self.original_matrix[np.ix_(kept, kept)]
            self.ops = [self.original_ops[v] for v in kept]

    def _connected(self) -> list[int]:
        """The vertices on paths from the first to the last, ascending."""
        edges, n = self.original_matrix, len(self.original_matrix)
        reached, useful = {0}, {n - 1}
        for v in range(1, n):
            if any(edges[u, v] for u in reached):
                reached.add(v)
        for v in range(n - 2, -1, -1):
            if any(edges[v, w] for w in useful):
                useful.add(v)
        return sorted(reached & useful)

    def hash_spec(self, canonical_ops: Sequence[str] = OPERATIONS) -> str:
        """The module hash of the pruned cell.

        Args:
            canonical_ops: the operations in the order that numbers them; the dataset knows one order only.

        Raises:
            ValueError: the spec is not valid, has an operation that is not in `canonical_ops`, or these are not
                `OPERATIONS`.
        """
        if self.matrix is None or self.ops is None:
            raise ValueError("an invalid spec has no hash: its input and output are not connected")
        if tuple(canonical_ops) != OPERATIONS:
            raise ValueError(
                f"the hashes of the dataset number the operations {list(OPERATIONS)}, not {canonical_ops!r}"
            )
        return module_hash(graph_from_matrix(self.matrix, self.ops))


class NASBench:
    """The official class `nasbench.api.NASBench`.

    Args:
        table: a converted file (`nasharness data convert`), or an opened one.
        rng: picks the repeat that a query returns, one `randint` a query, as the official code does with the global one.

    Attributes:
        config: the limits of the dataset.
        valid_epochs: the run lengths that the file has.
        training_time_spent, total_epochs_spent: the sums over all queries since the last reset.

    Raises:
        TableError: the file is missing or not a converted NAS-Bench-101 file.
    """

    def __init__(self, table: NASBench101Table | Path | str, *, rng: random.Random) -> None:
        if not isinstance(table, NASBench101Table):
            if Path(table).suffix == ".tfrecord":
                raise TableError(
                    f"{table} is the official file: convert it (`nasharness data convert`) and give the result"
                )
            table = NASBench101Table(open_columns(Path(table), kind="nasbench101"))
        self.table = table
        self.rng = rng
        self.config: dict[str, Any] = {
            "module_vertices": MAX_VERTICES,
            "max_edges": MAX_EDGES,
            "num_repeats": table.repeats,
            "available_ops": list(OPERATIONS),
        }
        self.valid_epochs = set(table.epochs)
        self._hashes: dict[str, None] | None = None
        self.reset_budget_counters()

    def query(self, model_spec: ModelSpec, epochs: int = 108, stop_halfway: bool = False) -> dict[str, Any]:
        """The numbers of one training run drawn at random; the counters grow by what it cost.

        Args:
            model_spec: the cell.
            epochs: length of the run.
            stop_halfway: the evaluation after half of the run, for half of the epochs.

        Returns:
            module_adjacency (int8 `(V, V)`) and module_operations of the dataset's cell, which may number its vertices in
            another order; trainable_parameters; training_time (seconds), train_accuracy, validation_accuracy,
            test_accuracy.

        Raises:
            OutOfDomainError: the spec is outside the space, or the file has no such runs.
            KeyError: the file lacks the module.
        """
        if epochs not in self.valid_epochs:
            raise OutOfDomainError(f"invalid number of epochs, must be one of {self.valid_epochs}")
        fixed, computed = self.get_metrics_from_spec(model_spec)
        run = computed[epochs][self.rng.randint(0, self.config["num_repeats"] - 1)]
        prefix = "halfway_" if stop_halfway else "final_"
        data = {**fixed, **{name: run[prefix + name] for name in METRICS}}
        self.training_time_spent += data["training_time"]
        self.total_epochs_spent += epochs // 2 if stop_halfway else epochs
        return data

    def is_valid(self, model_spec: ModelSpec) -> bool:
        """Whether the space has the spec."""
        try:
            self._check_spec(model_spec)
        except OutOfDomainError:
            return False
        return True

    def get_budget_counters(self) -> tuple[float, int]:
        """Seconds and epochs of all queries since the last reset."""
        return self.training_time_spent, self.total_epochs_spent

    def reset_budget_counters(self) -> None:
        """Set both counters to 0."""
        self.training_time_spent = 0.0
        self.total_epochs_spent = 0

    def hash_iterator(self) -> KeysView[str]:
        """The hashes of all modules, in the order of the official file."""
        if self._hashes is None:
            self._hashes = dict.fromkeys(map(self.table.hash, range(len(self.table))))
        return self._hashes.keys()

    def get_metrics_from_spec(self, model_spec: ModelSpec) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """`get_metrics_from_hash` of a spec.

        Raises:
            OutOfDomainError: the spec is outside the space.
            KeyError: the file lacks the module.
        """
        self._check_spec(model_spec)
        return self.get_metrics_from_hash(self._hash_spec(model_spec))

    def get_metrics_from_hash(self, module_hash: str) -> tuple[dict[str, Any], dict[int, list[dict[str, float]]]]:
        """All that is known of a module; the counters stay as they are.

        Returns:
            module_adjacency, module_operations and trainable_parameters; and for each run length the list of its runs, each
            with the metrics of `query`, prefixed by "halfway_" and "final_".

        Raises:
            KeyError: the file lacks the module.
        """
        row = self.table.row_of_hash(module_hash)
        graph = self.table.graph(row)
        fixed = {
            "module_adjacency": graph.matrix,
            "module_operations": graph.operations,
            "trainable_parameters": int(self.table.columns["params"][row]),
        }
        names = [prefix + name for prefix in ("halfway_", "final_") for name in METRICS]
        runs = self.table.columns["metrics"][row].reshape(len(self.table.epochs), -1, len(names)).tolist()
        computed = {
            epochs: [dict(zip(names, run, strict=True)) for run in repeats]
            for epochs, repeats in zip(self.table.epochs, runs, strict=True)
        }
        return fixed, computed

    def _check_spec(self, model_spec: ModelSpec) -> None:
        if not model_spec.valid_spec or model_spec.matrix is None or model_spec.ops is None:
            raise OutOfDomainError("invalid spec, provided graph is disconnected.")
        ops, num_edges = model_spec.ops, int(np.sum(model_spec.matrix))
        if len(ops) > MAX_VERTICES:
            raise OutOfDomainError(f"too many vertices, got {len(ops)} (max vertices = {MAX_VERTICES})")
        if num_edges > MAX_EDGES:
            raise OutOfDomainError(f"too many edges, got {num_edges} (max edges = {MAX_EDGES})")
        if ops[0] != INPUT:
            raise OutOfDomainError(f"the first operation must be '{INPUT}', not {ops[0]!r}")
        if ops[-1] != OUTPUT:
            raise OutOfDomainError(f"the last operation must be '{OUTPUT}', not {ops[-1]!r}")
        for op in ops[1:-1]:
            if op not in OPERATIONS:
                raise OutOfDomainError(f"unsupported operation {op!r}, must be one of {list(OPERATIONS)}")

    def _hash_spec(self, model_spec: ModelSpec) -> str:
        return model_spec.hash_spec(self.config["available_ops"])
