"""Pickled XGBoost boosters, without XGBoost.

A pickled `xgboost.core.Booster` holds the model as one byte string, whose form depends on the version that wrote it:

    0.90          the bare binary model: refused, since nothing tells it from garbage
    1.0           "CONFIG-offset:", int64 length, binary model, then the configuration as JSON
    1.1, 1.2      the same with "binf" before the binary model
    1.3 and on    JSON text {"Config": ..., "Model": ...}; versions that write binary JSON instead are refused

XGBoost itself reads the forms up to 1.2 until its version 3.0 only. Binary model (little-endian): 136 bytes of learner
parameters, objective and booster name with their lengths, 160 bytes of booster parameters, then per tree 148 bytes of
parameters, nodes of 20 bytes and statistics of 16 bytes per node.

JSON model: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html (JSON schema).
"""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from math import inf, isfinite, nextafter
from typing import Any

import numpy as np
import numpy.typing as npt

from ..trees import Trees, check_trees
from .errors import FormatError
from .unpickle import PLAIN, guarded, restricted_loads

OBJECTIVES = ("reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror")
"""Regression objectives whose prediction is the plain sum of the leaves."""

_CONFIG = b"CONFIG-offset:"
_NODE = np.dtype([("parent", "<i4"), ("left", "<i4"), ("right", "<i4"), ("split", "<u4"), ("value", "<f4")])
_STATISTICS = 16


class _Booster:
    """Stands in for xgboost.core.Booster: keeps the state that the pickle sets."""

    def __setstate__(self, state: object) -> None:
        self.state = state


def _bytearray(data: object = b"", encoding: object = "latin-1") -> bytearray:
    """Stands in for bytearray, which would also take a size and allocate that much."""
    if isinstance(data, str) and encoding == "latin-1":
        return bytearray(data.encode("latin-1"))
    if not isinstance(data, bytes):
        raise FormatError("the pickle builds a bytearray of something else than bytes")
    return bytearray(data)


def read_booster(data: bytes, where: str) -> Trees:
    """The trees of a pickled booster.

    Args:
        data: the content of a `surrogate_model.model`.
        where: names the file in errors.

    Raises:
        FormatError: it is damaged, asks for anything but a booster, or holds a model that is not read exactly.
    """
    allowed = {
        **PLAIN,
        "xgboost.core.Booster": _Booster,
        "builtins.bytearray": _bytearray,
        "__builtin__.bytearray": _bytearray,  # its name in protocol 2
    }
    booster = restricted_loads(data, allowed, where=where)
    state = getattr(booster, "state", None) if isinstance(booster, _Booster) else None
    handle = state.get("handle") if isinstance(state, dict) else None
    if not isinstance(handle, bytes | bytearray):
        raise FormatError(f"{where} holds no pickled xgboost Booster with a model")
    return read_payload(handle, where)


def read_payload(payload: bytes | bytearray, where: str) -> Trees:
    """The trees of the byte string that a booster carries.

    Raises:
        FormatError: see `read_booster`.
    """
    if payload.startswith(_CONFIG):
        length = int.from_bytes(payload[len(_CONFIG) : len(_CONFIG) + 8], "little", signed=True)
        model = memoryview(payload)[len(_CONFIG) + 8 :]  # hundreds of megabytes: not to be copied
        if not 0 <= length <= len(model):
            raise FormatError(f"{where}: the model should have {length} bytes, but {len(model)} are there")
        start = 4 if bytes(model[:4]) == b"binf" else 0
        trees: Trees = guarded(lambda: _read_binary(model[start:length], where), where)
        return trees
    if payload[:1] == b"{":
        if payload[:2] == b"{L":
            raise FormatError(
                f"{where}: binary JSON of a newer xgboost is not read; save the model with xgboost 1.3 to 1.5"
            )
        from_json: Trees = guarded(lambda: _read_json(payload, where), where)
        return from_json
    raise FormatError(
        f"{where}: the model starts with {bytes(payload[:14])!r}; read are the forms of xgboost 1.0 to 1.2 (CONFIG-offset:)"
        " and the JSON of 1.3. The bare form of 0.90 can be converted by loading and pickling it again with xgboost 1.2"
    )


class _Bytes:
    """Takes pieces off the front, checking that they are there."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data, self.at, self.where = data, 0, where

    def take(self, count: int, what: str) -> memoryview:
        if count < 0 or self.at + count > len(self.data):
            raise FormatError(f"{self.where}: cut off in the {what} ({count} bytes wanted, {self.left} left)")
        self.at += count
        return self.data[self.at - count : self.at]

    def text(self, what: str) -> str:
        return str(self.take(int.from_bytes(self.take(8, what), "little"), what), "utf-8")

    @property
    def left(self) -> int:
        return len(self.data) - self.at


def _read_binary(model: memoryview, where: str) -> Trees:
    data = _Bytes(model, where)
    base, features, classes, attributes, metrics = struct.unpack_from("<fIiii", data.take(136, "learner parameters"))
    objective, booster = data.text("objective"), data.text("booster")
    _check_model(objective, booster, classes, where)
    trees, _, _, _, _, groups, leaf_size = struct.unpack_from("<iiiiqii", data.take(160, "booster parameters"))
    if trees < 1 or trees > data.left // 148:
        raise FormatError(f"{where}: the model says that it has {trees} trees")
    if groups > 1 or leaf_size > 0:
        raise FormatError(f"{where}: {groups} output groups with leaf vectors of size {leaf_size} are not read")
    nodes: list[npt.NDArray[Any]] = []
    for tree in range(trees):
        _, count, _, _, tree_features, size = struct.unpack_from("<6i", data.take(148, f"parameters of tree {tree}"))
        if count < 1:
            raise FormatError(f"{where}: tree {tree} has {count} nodes")
        if size > 0 or tree_features > features:
            raise FormatError(f"{where}: tree {tree} has {tree_features} features and leaf vectors of size {size}")
        nodes.append(np.frombuffer(data.take(count * _NODE.itemsize, f"nodes of tree {tree}"), dtype=_NODE))
        data.take(count * _STATISTICS, f"statistics of tree {tree}")
    if any(data.take(4 * trees, "groups of the trees")):
        raise FormatError(f"{where}: trees of several output groups are not read")
    if attributes:
        for _ in range(int.from_bytes(data.take(8, "attributes"), "little")):
            data.text("attributes")
            data.text("attributes")
    if metrics and data.left:  # versions from 1.0 on set the flag and keep the names among the attributes
        for _ in range(int.from_bytes(data.take(8, "metrics"), "little")):
            data.text("metrics")
    if data.left:
        raise FormatError(f"{where}: {data.left} bytes follow the model")
    every = np.concatenate(nodes)
    start = np.cumsum([0, *map(len, nodes)]).astype(np.int64)
    feature = (every["split"] & 0x7FFFFFFF).astype(np.int32)
    return _checked(start, every["left"], every["right"], feature, every["value"], base, features, where)


def _read_json(payload: bytes | bytearray, where: str) -> Trees:
    document = json.loads(payload, parse_float=_nearest, parse_constant=_nearest)
    learner = document.get("Model", document)["learner"]
    parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
    _check_model(learner["objective"]["name"], booster["name"], int(parameters["num_class"]), where)
    model, features = booster["model"], int(parameters["num_feature"])
    if any(model["tree_info"]) or len(model["tree_info"]) != len(model["trees"]) or not model["trees"]:
        raise FormatError(f"{where}: no trees, or trees of several output groups")
    columns: dict[str, list[npt.NDArray[Any]]] = {
        "left_children": [],
        "right_children": [],
        "split_indices": [],
        "v": [],
    }
    for number, tree in enumerate(model["trees"]):
        count = int(tree["tree_param"]["num_nodes"])
        if int(tree["tree_param"].get("size_leaf_vector", 0)) > 1 or tree.get("categories_nodes"):
            raise FormatError(f"{where}: tree {number} has leaf vectors or categories, which are not read")
        for name in ("left_children", "right_children", "split_indices"):
            columns[name].append(_integers(tree[name], count, f"{where}: {name} of tree {number}"))
        values = tree["split_conditions"]
        if len(values) != count or not all(isinstance(v, int | float) for v in values):
            raise FormatError(f"{where}: tree {number} has {len(values)} split conditions for {count} nodes")
        columns["v"].append(_float32(values))
    start = np.cumsum([0, *map(len, columns["v"])]).astype(np.int64)
    left, right, feature, value = (np.concatenate(column) for column in columns.values())
    base = float(_float32([_nearest(str(parameters["base_score"]).strip("[]"))])[0])
    return _checked(start, left, right, feature, value, base, features, where)


def _integers(values: list[Any], count: int, what: str) -> npt.NDArray[np.int32]:
    if len(values) != count or not all(type(v) is int and -(2**31) <= v < 2**31 for v in values):
        raise FormatError(f"{what}: {len(values)} values for {count} nodes, or values that are no 32-bit integers")
    return np.array(values, dtype=np.int32)


def _float32(values: list[float]) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # too large becomes infinite, which check_trees refuses
        return np.array(values, dtype=np.float64).astype(np.float32)


def _nearest(text: str) -> float:
    """The decimal as a float64 that rounds to the nearest float32.

    Rounding twice goes wrong if the float64 lies exactly between two float32 although the decimal does not: then step
    towards the decimal.
    """
    number = float(text)
    if isfinite(number) and struct.unpack("<Q", struct.pack("<d", number))[0] & 0x1FFFFFFF == 0x10000000:
        exact = Fraction(text)
        if exact != Fraction(number):
            return nextafter(number, inf if exact > Fraction(number) else -inf)
    return number


def _check_model(objective: str, booster: str, classes: int, where: str) -> None:
    if booster != "gbtree":
        raise FormatError(f"{where}: booster {booster!r} is not read, only gbtree")
    if objective not in OBJECTIVES:
        raise FormatError(f"{where}: objective {objective!r} is not read, only {', '.join(OBJECTIVES)}")
    if classes > 1:
        raise FormatError(f"{where}: a classifier of {classes} classes is not read")


def _checked(
    start: npt.NDArray[np.int64],
    left: npt.NDArray[np.int32],
    right: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int32],
    value: npt.NDArray[np.float32],
    base: float,
    features: int,
    where: str,
) -> Trees:
    if not isfinite(base) or not 1 <= features < 2**15:
        raise FormatError(f"{where}: base score {base} with {features} features is not read")
    return check_trees(Trees(start, left, right, feature, value, value, base, features), where)
