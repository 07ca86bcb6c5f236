"""Ensembles of regression trees as flat arrays, and exact batch prediction with them.

Gradient boosting libraries disagree in small things that change the last bit of a prediction; the two that surrogate
benchmarks were written with are reproduced exactly:

* XGBoost: everything in float32, left if `x < threshold`, result = base_score, then += leaf per tree in order. That is what
  versions from 1.3 on do (checked with 1.3.3, 1.7.6 and 3.0.5); 1.0 to 1.2 sum the leaves first and add base_score at the
  end (checked with 1.2.0 and 1.2.1), which can differ in the last bits: `base_last`.
* LightGBM: everything in float64, left if `x <= threshold`, result = 0, then += leaf per tree in order.

Missing values are not supported: features that mean "absent" are numbers, such as -1.

A model of a benchmark asks the same few questions (feature, threshold) again and again, since its features are small
integers. So each distinct question is answered once per input, and a step down a tree is two look-ups: which question does
this node ask, and what was the answer. The two children of a node lie side by side, so the answer is added to the left one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .formats.errors import FormatError

_BLOCK = 1 << 15
"""(tree, input) pairs that go down together: their work arrays stay in the processor's second-level cache."""
_INPUTS = 512


class Trees(NamedTuple):
    """The trees of one model as a reader found them; `split` and `value` are separate so that nothing has two meanings.

    Attributes:
        start: int64 `(trees + 1,)`; tree t has the nodes `start[t]` to `start[t + 1]`, its root first.
        left, right: int32 `(nodes,)`, children within the tree; -1 at a leaf.
        feature: int32 `(nodes,)`; anything at a leaf.
        threshold: float32 or float64 `(nodes,)`; anything at a leaf.
        value: of the same type, `(nodes,)`; what a leaf adds, anything elsewhere.
        base: what the sum starts from.
        features: number of features.
    """

    start: npt.NDArray[np.int64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[Any]
    value: npt.NDArray[Any]
    base: float
    features: int


def check_trees(trees: Trees, where: str) -> Trees:
    """Check that every tree is one, drop nodes that its root does not reach (pruned ones), and put children side by side.

    Returns:
        The same trees, the nodes of each in breadth-first order, so that `right == left + 1`.

    Raises:
        FormatError: a child lies outside its tree or is reached twice, a node asks for a feature that the model does not
            have, or a reached number is not finite.
    """
    start = trees.start
    sizes = np.diff(start)
    if (sizes < 1).any():
        raise FormatError(f"{where}: tree {int(np.argmin(sizes))} has no nodes")
    tree_of = np.repeat(np.arange(len(sizes)), sizes)
    seen = np.zeros(len(tree_of), dtype=bool)
    seen[start[:-1]] = True
    levels = [start[:-1]]
    while len(frontier := levels[-1]):
        leaf = trees.left[frontier] == -1
        if (leaf != (trees.right[frontier] == -1)).any():
            raise FormatError(f"{where}: a node has one child; every node of a tree has two or none")
        inner = frontier[~leaf]
        children = np.stack([trees.left[inner], trees.right[inner]], axis=1).astype(np.int64)
        outside = (children < 0) | (children >= sizes[tree_of[inner]][:, None])
        if outside.any():
            row = int(np.argmax(outside.any(axis=1)))
            raise FormatError(
                f"{where}: node {int(inner[row] - start[tree_of[inner[row]]])} of tree {int(tree_of[inner[row]])} has the"
                f" children {children[row].tolist()}, but the tree has {int(sizes[tree_of[inner[row]]])} nodes"
            )
        below = (children + start[tree_of[inner]][:, None]).reshape(-1)
        if seen[below].any() or len(np.unique(below)) < len(below):
            raise FormatError(f"{where}: two nodes of a tree share a child, or a node is its own ancestor")
        wrong = (trees.feature[inner] < 0) | (trees.feature[inner] >= trees.features)
        if wrong.any():
            raise FormatError(
                f"{where}: a node asks for feature {int(trees.feature[inner[np.argmax(wrong)]])},"
                f" but the model has {trees.features} features"
            )
        if not (np.isfinite(trees.threshold[inner]).all() and np.isfinite(trees.value[frontier[leaf]]).all()):
            raise FormatError(f"{where}: a threshold or leaf is not a finite number")
        seen[below] = True
        levels.append(below)
    reached = np.concatenate(levels)
    order = reached[np.argsort(tree_of[reached], kind="stable")]  # by tree, then breadth first
    place = np.full(len(tree_of), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    new_start = np.concatenate(([0], np.cumsum(np.bincount(tree_of[order], minlength=len(sizes))))).astype(np.int64)
    inner = trees.left[order] >= 0
    old = order[inner]
    left = np.full(len(order), -1, dtype=np.int32)
    left[inner] = place[trees.left[old] + start[tree_of[old]]] - new_start[tree_of[old]]
    return Trees(
        new_start,
        left,
        np.where(inner, left + 1, -1).astype(np.int32),
        np.where(inner, trees.feature[order], -1).astype(np.int32),
        np.where(inner, trees.threshold[order], 0).astype(trees.threshold.dtype),
        np.where(inner, 0, trees.value[order]).astype(trees.value.dtype),
        trees.base,
        trees.features,
    )


@dataclass(frozen=True)
class TreeEnsemble:
    """Several models over the same features, each the sum of its trees.

    Attributes:
        left_if: "<" (XGBoost) or "<=" (LightGBM): a node sends x to the left if x is that much of its threshold.
        features: number of features.
        question_feature: int16 `(questions,)`; question q asks about this feature ...
        question_threshold: float32 or float64 `(questions,)`; ... and this threshold. This type is that of every sum.
        question: uint16 or int32 `(nodes,)`; what each node asks. A leaf asks number `questions`, which is always "left".
        left: int32 `(nodes,)`, the left child, the right one follows it; a leaf is its own left child.
        value: of the threshold's type, `(nodes,)`; what a leaf adds.
        root, depth: int32 `(trees,)`, of all members one after the other.
        members: int32 `(members + 1,)`; member m has the trees `members[m]` to `members[m + 1]`.
        base: of the threshold's type, `(members,)`; what each member's sum starts from.
    """

    left_if: Literal["<", "<="]
    features: int
    question_feature: npt.NDArray[np.int16]
    question_threshold: npt.NDArray[Any]
    question: npt.NDArray[Any]
    left: npt.NDArray[np.int32]
    value: npt.NDArray[Any]
    root: npt.NDArray[np.int32]
    depth: npt.NDArray[np.int32]
    members: npt.NDArray[np.int32]
    base: npt.NDArray[Any]

    @classmethod
    def build(cls, models: Iterable[Trees], left_if: Literal["<", "<="]) -> TreeEnsemble:
        """From models that `check_trees` returned, taken one at a time: real ensembles have tens of millions of nodes.

        Raises:
            FormatError: there is none, they have different numbers of features, or more nodes than 31 bits can number.
        """
        questions: list[npt.NDArray[Any]] = []  # per member: what it asks, each once, sorted
        asked: list[npt.NDArray[Any]] = []
        lefts, values, roots, depths, sizes, bases = [], [], [], [], [0], []
        features, nodes = -1, 0
        for model in models:
            if features not in (-1, model.features):
                raise FormatError(f"the members have different numbers of features: {features} and {model.features}")
            features = model.features
            own, numbers = _questions(model)
            questions.append(own)
            asked.append(numbers)
            inner, sizes_of_trees = model.feature >= 0, np.diff(model.start)
            left = np.where(inner, model.left + np.repeat(model.start[:-1], sizes_of_trees), np.arange(len(inner)))
            depths.append(_depths(model.start[:-1], left, inner))
            if nodes + len(left) >= 2**31:
                raise FormatError("the ensemble has more than 2**31 nodes, which is not supported")
            lefts.append((left + nodes).astype(np.int32))
            roots.append((model.start[:-1] + nodes).astype(np.int32))
            values.append(model.value)
            sizes.append(len(sizes_of_trees))
            bases.append(model.base)
            nodes += len(left)
        if not bases:
            raise FormatError("an ensemble has at least one member")
        every = np.unique(np.concatenate(questions))
        dtype = np.uint16 if len(every) < 2**16 else np.int32
        for member, own in enumerate(questions):
            number = np.append(np.searchsorted(every, own), len(every)).astype(dtype)
            asked[member] = number[asked[member]]
        return cls(
            left_if,
            features,
            every["feature"].copy(),
            every["threshold"].copy(),
            np.concatenate(asked),
            np.concatenate(lefts),
            np.concatenate(values),
            np.concatenate(roots),
            np.concatenate(depths),
            np.cumsum(sizes).astype(np.int32),
            np.array(bases, dtype=values[0].dtype),
        )

    def columns(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, each name after `prefix`; `from_columns` is the inverse."""
        return {f"{prefix}{name}": getattr(self, name) for name in _ARRAYS}

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, npt.NDArray[Any]], prefix: str, *, left_if: Literal["<", "<="], features: int
    ) -> TreeEnsemble:
        """From the arrays that `columns` gave, which may be memory maps.

        Raises:
            KeyError: one is missing.
        """
        return cls(left_if, features, **{name: columns[f"{prefix}{name}"] for name in _ARRAYS})

    def check(self) -> None:
        """Check that every descent stays within the arrays and ends at a leaf. Reads all of them.

        Raises:
            FormatError: it would not.
        """
        nodes, questions = len(self.left), len(self.question_feature)
        own = np.arange(nodes)
        leaf = self.question == questions
        if not (
            len(self.question) == len(self.value) == nodes
            and len(self.question_threshold) == questions
            and len(self.root) == len(self.depth)
            and len(self.base) == len(self.members) - 1 >= 1
            and self.members[0] == 0
            and self.members[-1] == len(self.root)
            and (np.diff(self.members) >= 0).all()
            and (self.question <= questions).all()
            and ((self.question_feature >= 0) & (self.question_feature < self.features)).all()
            and ((self.root >= 0) & (self.root < nodes)).all()
            and (self.left[leaf] == own[leaf]).all()
            and ((self.left > own) & (self.left < nodes - 1))[~leaf].all()  # children come later: no descent is endless
            and np.isfinite(self.value).all()
            and np.isfinite(self.question_threshold).all()
            and (_depths(self.root, self.left, ~leaf) == self.depth).all()
        ):
            raise FormatError("the arrays of the tree ensemble contradict each other")

    def select(self, order: Iterable[int]) -> TreeEnsemble:
        """The same with its members in another order, or with some of them."""
        order = list(order)
        ranges = [np.arange(self.members[m], self.members[m + 1]) for m in order]
        trees = np.concatenate(ranges).astype(np.intp) if ranges else np.zeros(0, dtype=np.intp)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {
            "root": self.root[trees],
            "depth": self.depth[trees],
            "members": np.cumsum([0, *map(len, ranges)]).astype(np.int32),
            "base": self.base[order],
        }
        return TreeEnsemble(self.left_if, self.features, **arrays)

    def predict(self, x: npt.ArrayLike, *, base_last: bool = False) -> npt.NDArray[Any]:
        """What each member answers for each row.

        Args:
            x: `(n, features)`; no NaN.
            base_last: add the base after the leaves and not before them, as XGBoost 1.0 to 1.2 do.

        Returns:
            `(members, n)`, float32 or float64: the exact value that the library which wrote the model returns.

        Raises:
            ValueError: `x` has another number of features, or a NaN.
        """
        dtype = self.question_threshold.dtype
        x = np.asarray(x, dtype=dtype)
        if x.ndim != 2 or x.shape[1] != self.features:
            raise ValueError(f"features must have the shape (n, {self.features}), not {x.shape}")
        if np.isnan(x).any():
            raise ValueError("features must not be NaN: a choice that is not active is -1")
        result = np.empty((len(self.base), len(x)), dtype=dtype)
        result[:] = 0 if base_last else self.base[:, None]
        for begin in range(0, len(x), _INPUTS):
            part = slice(begin, begin + _INPUTS)
            self._add_leaves(x[part], result[:, part])
        return result + self.base[:, None] if base_last else result

    def _add_leaves(self, x: npt.NDArray[Any], result: npt.NDArray[Any]) -> None:
        n = len(x)
        asked, threshold = x.T[self.question_feature], self.question_threshold[:, None]
        answers = np.zeros((len(threshold) + 1, n), dtype=np.uint8)  # 1: right; the last question is that of leaves
        answers[:-1] = asked >= threshold if self.left_if == "<" else asked > threshold
        flat, column = answers.reshape(-1), np.arange(n)
        step = max(1, _BLOCK // n)
        for begin in range(0, len(self.root), step):
            trees = slice(begin, begin + step)
            node = np.repeat(self.root[trees].astype(np.intp), n)
            place = np.empty_like(node)
            by_tree = place.reshape(-1, n)
            for _ in range(int(self.depth[trees].max())):
                np.multiply(self.question.take(node, mode="clip"), n, out=place, dtype=np.intp)
                by_tree += column
                np.add(self.left.take(node, mode="clip"), flat.take(place, mode="clip"), out=node, dtype=np.intp)
            leaves = self.value.take(node, mode="clip").reshape(-1, n)
            for member in range(*self._members_of(begin, begin + len(leaves))):
                first, last = (max(0, int(edge) - begin) for edge in self.members[member : member + 2])
                # accumulate adds in order, one tree after the other; a plain sum may add in pairs
                terms = np.concatenate([result[member : member + 1], leaves[first:last]])
                result[member] = np.add.accumulate(terms, axis=0)[-1]

    def _members_of(self, first: int, last: int) -> tuple[int, int]:
        """The range of members that have trees among `first` to `last`."""
        return int(np.searchsorted(self.members[1:], first, "right")), int(np.searchsorted(self.members, last))


_ARRAYS = (
    "question_feature",
    "question_threshold",
    "question",
    "left",
    "value",
    "root",
    "depth",
    "members",
    "base",
)


def _questions(model: Trees) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The distinct (feature, threshold) of a model, sorted, and the number of each node's; that of leaves is one more."""
    pair = np.dtype([("feature", np.int16), ("threshold", model.threshold.dtype)])
    order = np.argsort(model.feature.astype(np.int16), kind="stable")
    features, starts = np.unique(model.feature[order], return_index=True)
    numbers = np.empty(len(order), dtype=np.int32)
    found: list[npt.NDArray[Any]] = [np.empty(0, dtype=pair)]
    count = 0
    for feature, nodes in zip(features, np.split(order, starts[1:]), strict=True):
        if feature >= 0:
            thresholds, which = np.unique(model.threshold[nodes] + model.threshold.dtype.type(0), return_inverse=True)
            found.append(np.empty(len(thresholds), dtype=pair))  # adding 0 makes 0.0 of -0.0
            found[-1]["feature"], found[-1]["threshold"] = feature, thresholds
            numbers[nodes] = which + count
            count += len(thresholds)
    numbers[model.feature < 0] = count
    return np.concatenate(found), numbers


def _depths(root: npt.NDArray[Any], left: npt.NDArray[Any], inner: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Steps from each root to its deepest leaf; the children of a node must have higher numbers than the node."""
    depth = np.zeros(len(root), dtype=np.int32)
    tree, node = np.arange(len(root)), np.asarray(root, dtype=np.int64)
    while True:
        more = inner[node]
        tree, node = tree[more], node[more]
        if not len(node):
            return depth
        np.add.at(depth, np.unique(tree), 1)
        node = np.concatenate([left[node], left[node] + 1]).astype(np.int64)
        tree = np.concatenate([tree, tree])
