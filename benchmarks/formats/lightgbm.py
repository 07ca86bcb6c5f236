"""Pickled LightGBM boosters, without LightGBM.

A pickled `lightgbm.basic.Booster` holds the model as text: `key=value` lines, one block per tree that starts with
`Tree=<number>`, the end marked by `end of trees`. Read is what can be reproduced exactly: plain numerical splits without
missing values (decision type 2), a single regression output, constant leaves.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from ..trees import Trees, check_trees
from .errors import FormatError
from .unpickle import PLAIN, guarded, restricted_loads

OBJECTIVES = ("regression", "regression_l1", "huber", "fair", "quantile", "mape")
"""Objectives whose prediction is the plain sum of the leaves."""


class _Booster:
    """Stands in for lightgbm.basic.Booster: keeps the state that the pickle sets."""

    def __setstate__(self, state: object) -> None:
        self.state = state


def _defaultdict(*_: object) -> defaultdict[Any, Any]:
    return defaultdict()  # without a factory: the best scores that it holds are not read


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
        "lightgbm.basic.Booster": _Booster,
        "collections.defaultdict": _defaultdict,
    }
    booster = restricted_loads(data, allowed, where=where)
    state = getattr(booster, "state", None) if isinstance(booster, _Booster) else None
    handle = state.get("handle", state.get("_handle")) if isinstance(state, dict) else None
    if not isinstance(handle, str):
        raise FormatError(f"{where} holds no pickled lightgbm Booster with a text model")
    return read_text(handle, where)


def read_text(text: str, where: str) -> Trees:
    """The trees of a text model.

    Raises:
        FormatError: see `read_booster`.
    """
    trees: Trees = guarded(lambda: _read_text(text, where), where)
    return trees


def _read_text(text: str, where: str) -> Trees:
    model, end, _ = text.partition("\nend of trees")
    if not model.startswith("tree\n") or not end:
        raise FormatError(
            f"{where}: no LightGBM text model, or it is cut off (it should run from 'tree' to 'end of trees')"
        )
    head, *blocks = model.split("\nTree=")
    header = _pairs(head, where)
    if header.get("version") not in ("v2", "v3", "v4"):
        raise FormatError(f"{where}: text models of version {header.get('version')!r} are not read")
    if header.get("num_class") != "1" or header.get("num_tree_per_iteration") != "1":
        raise FormatError(f"{where}: models with several outputs are not read")
    if "average_output" in header:
        raise FormatError(f"{where}: random forests (average_output) are not read")
    objective = header.get("objective", "").split()
    if len(objective[:1]) != 1 or objective[0] not in OBJECTIVES or "sqrt" in objective:
        raise FormatError(f"{where}: objective {header.get('objective')!r} is not read, only {', '.join(OBJECTIVES)}")
    features = int(header["max_feature_idx"]) + 1
    if not 1 <= features < 2**15:
        raise FormatError(f"{where}: {features} features are not read")
    if not blocks:
        raise FormatError(f"{where}: the model has no trees")
    sizes = header.get("tree_sizes", "").split()
    if sizes and len(sizes) != len(blocks):
        raise FormatError(f"{where}: the model should have {len(sizes)} trees, but {len(blocks)} are there")
    trees = [_tree(number, block, where) for number, block in enumerate(blocks)]
    left, right, feature, threshold, value = (np.concatenate(column) for column in zip(*trees, strict=True))
    start = np.cumsum([0, *(len(tree[0]) for tree in trees)]).astype(np.int64)
    return check_trees(Trees(start, left, right, feature, threshold, value, 0.0, features), where)


def _pairs(block: str, where: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for line in block.split("\n"):
        key, _, value = line.partition("=")
        if key and pairs.setdefault(key, value) != value:
            raise FormatError(f"{where}: {key} appears twice")
    return pairs


def _tree(number: int, block: str, where: str) -> tuple[npt.NDArray[Any], ...]:
    """Left, right, feature, threshold, value of the inner nodes and, behind them, of the leaves."""
    where = f"{where}: tree {number}"
    first, _, rest = block.partition("\n")
    if first.strip() != str(number):
        raise FormatError(f"{where} is called {first.strip()!r}")
    pairs = _pairs(rest, where)
    if int(pairs["num_cat"]) or int(pairs.get("is_linear", "0")):
        raise FormatError(f"{where} has categorical splits or linear leaves, which are not read")
    leaves = int(pairs["num_leaves"])
    if leaves < 1:
        raise FormatError(f"{where} has {leaves} leaves")
    inner = leaves - 1

    def numbers(key: str, count: int, kind: type[int] | type[float]) -> list[Any]:
        words = pairs[key].split() if count else []
        if len(words) != count:
            raise FormatError(f"{where} has {len(words)} values of {key}, expected {count}")
        return [kind(word) for word in words]

    value = numbers("leaf_value", leaves, float)
    strange = sorted(set(numbers("decision_type", inner, int)) - {2})
    if strange:
        raise FormatError(f"{where}: decision_type {strange[0]} is not read, only 2 (numerical, nothing missing)")
    children = np.array([numbers("left_child", inner, int), numbers("right_child", inner, int)], dtype=np.int64)
    children = np.where(children < 0, inner + ~children, children)  # leaf l is written as -(l + 1)
    if not ((children >= 0) & (children < inner + leaves)).all():
        raise FormatError(f"{where}: a child lies outside the tree")
    asked = np.array([*numbers("split_feature", inner, int), *[-1] * leaves], dtype=np.int64)
    if (abs(asked) >= 2**15).any():
        raise FormatError(f"{where} asks for feature {asked[np.argmax(abs(asked))]}")
    none, zero = np.full((2, leaves), -1), np.zeros(leaves)
    left, right = np.concatenate([children, none], axis=1).astype(np.int32)
    threshold = np.concatenate([np.array(numbers("threshold", inner, float), dtype=np.float64), zero])
    return (
        left,
        right,
        asked.astype(np.int32),
        threshold,
        np.concatenate([np.zeros(inner), np.array(value, dtype=np.float64)]),
    )
