"""The DARTS cell space, as NAS-Bench-301 restricts it: no zero operation, two different inputs per node.

Liu, Simonyan and Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, section 2.1. https://arxiv.org/abs/1806.09055
Zela, Siems, Zimmer, Lukasik, Keuper and Hutter, "Surrogate NAS Benchmarks", ICLR 2022. https://arxiv.org/abs/2008.09777

An architecture is a normal and a reduction cell. Nodes 0 and 1 of a cell are the outputs of the two cells before it. Each of
the nodes 2 to 5 is the sum of two operations on two earlier nodes, and the cell's output is nodes 2 to 5 concatenated. In
the reduction cell, operations on nodes 0 and 1 have stride 2.

The choice vector has 11 numbers per cell, the normal cell first: the eight operations, two per node and the one on the
smaller input first; then the input pairs of nodes 3, 4 and 5 (node 2 has no choice). Every such vector is valid.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from typing import Final as Constant

import numpy as np
import numpy.typing as npt

from .base import Architecture, InvalidArchitecture, SearchSpace

OPERATIONS: Constant = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CELLS: Constant = ("normal", "reduce")
NODES: Constant = (2, 3, 4, 5)
PAIRS: Constant[Mapping[int, tuple[tuple[int, int], ...]]] = {
    node: tuple(itertools.combinations(range(node), 2)) for node in NODES
}
"""The input pairs that each node can have, in the order of its choices."""

CONCAT: Constant = NODES
"""The nodes whose concatenation is the output of a cell."""

_DIMENSIONS = 11  # of one cell
_FIRST_EDGE = {2: 0, 3: 2, 4: 5, 5: 9}  # edges are numbered by (node, input)
_SKIP = OPERATIONS.index("skip_connect")
_PREFIX = "NetworkSelectorDatasetInfo:darts:"
_CONSTANTS = {  # the training protocol that the surrogate models are asked about, as ConfigSpace scales it
    "CreateImageDataLoader:batch_size": 0.5863451791322545,  # 96
    "ImageAugmentation:augment": 0.0,
    "ImageAugmentation:autoaugment": 0.0,
    "ImageAugmentation:cutout": 0.0,
    "ImageAugmentation:cutout_holes": 0.16666444442962952,  # 1
    "ImageAugmentation:cutout_length": 0.3099999239999697,  # 16
    "ImageAugmentation:fastautoaugment": 0.0,
    "LossModuleSelectorIndices:loss_module": 0.0,
    _PREFIX + "auxiliary": 0.0,
    _PREFIX + "drop_path_prob": 0.0,  # 0.2
    _PREFIX + "init_channels": 0.003149999006299998,  # 32
    _PREFIX + "layers": 0.000749999001499998,  # 8
    "NetworkSelectorDatasetInfo:network": 0.0,
    "OptimizerSelector:optimizer": 0.0,
    "OptimizerSelector:sgd:learning_rate": -3.6888794541139363,  # 0.025
    "OptimizerSelector:sgd:momentum": 0.8988764044943821,  # 0.9
    "OptimizerSelector:sgd:weight_decay": -8.111728083308073,  # 0.0003
    "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": 0.009949999019899998,  # 100
    "SimpleLearningrateSchedulerSelector:cosine_annealing:eta_min": 1e-12,  # 1e-8
    "SimpleLearningrateSchedulerSelector:lr_scheduler": 0.0,
    "SimpleTrainNode:batch_loss_computation_technique": 0.0,
    "SimpleTrainNode:mixup:alpha": 0.7051278400653053,  # 0.2
}
_ALWAYS = [f"{_PREFIX}edge_{cell}_{edge}" for cell in CELLS for edge in (0, 1)] + [
    f"{_PREFIX}inputs_node_{cell}_{node}" for cell in CELLS for node in NODES[1:]
]
_SOMETIMES = [f"{_PREFIX}edge_{cell}_{edge}" for cell in CELLS for edge in range(2, 14)]
FEATURE_NAMES: Constant = (*sorted((*_CONSTANTS, *_ALWAYS)), *sorted(_SOMETIMES))
"""Names of the 56 parameters of NAS-Bench-301 in the order of `DARTSSpace.features`."""

_TEMPLATE = np.array([_CONSTANTS.get(name, -1.0) for name in FEATURE_NAMES])
_EDGE_COLUMNS = {
    (cell, node): np.array(
        [
            [FEATURE_NAMES.index(f"{_PREFIX}edge_{cell}_{_FIRST_EDGE[node] + source}") for source in pair]
            for pair in PAIRS[node]
        ]
    )
    for cell in CELLS
    for node in NODES
}  # (pairs of the node, 2)
_MAX_TEXT = 10_000  # characters of a genotype text; a real one has some 600


class Genotype(NamedTuple):
    """Two cells in the field's own form: per cell eight (operation, input), two per node 2..5, and the output nodes."""

    normal: tuple[tuple[str, int], ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[tuple[str, int], ...]
    reduce_concat: tuple[int, ...]

    def __repr__(self) -> str:
        normal, reduce = (
            "range(2, 6)" if tuple(concat) == CONCAT else str(list(concat))
            for concat in (self.normal_concat, self.reduce_concat)
        )
        return (
            f"Genotype(normal={list(self.normal)}, normal_concat={normal},"
            f" reduce={list(self.reduce)}, reduce_concat={reduce})"
        )


class DARTSSpace(SearchSpace):
    """All 7**16 * 180**2 (1.1e18) pairs of cells."""

    name = "darts"
    cardinalities = (*[len(OPERATIONS)] * 8, *(len(PAIRS[node]) for node in NODES[1:])) * 2

    def genotype(self, arch: Architecture) -> Genotype:
        """The architecture in the field's form, with the smaller input of each node first."""
        arch = self.check(arch)
        normal, reduce = (
            tuple((OPERATIONS[op], source) for op, source in zip(cell[:8], _sources(cell), strict=True))
            for cell in _split(arch)
        )
        return Genotype(normal, CONCAT, reduce, CONCAT)

    def from_genotype(self, genotype: Genotype | Sequence[Any]) -> Architecture:
        """The inverse of `genotype`, for any (normal, normal_concat, reduce, reduce_concat).

        The order of the two inputs of a node does not matter. As in NAS-Bench-301 the concat lists are ignored: every
        architecture of the space concatenates nodes 2 to 5.

        Raises:
            InvalidArchitecture: an operation is unknown (or `none`), a node has one input twice, an input does not come
                before its node, or the lists are not of this form.
        """
        try:
            normal, _, reduce, _ = genotype
        except (TypeError, ValueError):
            raise InvalidArchitecture(
                f"a genotype is (normal, normal_concat, reduce, reduce_concat), not {genotype!r}"
            ) from None
        return (*_read_cell(normal, "normal"), *_read_cell(reduce, "reduce"))

    def to_string(self, arch: Architecture) -> str:
        """The genotype as text, `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=...)`."""
        return repr(self.genotype(arch))

    def from_string(self, text: str) -> Architecture:
        """The inverse of `to_string`; concat may be a range, a list or a tuple. Nothing in the text is executed."""
        return self.from_genotype(_parse(text))

    def configspace(self, arch: Architecture) -> dict[str, str]:
        """The 22 active parameters of NAS-Bench-301's configuration space, by their full names, in the order of its nodes."""
        config: dict[str, str] = {}
        for name, cell in zip(CELLS, _split(self.check(arch)), strict=True):
            sources = _sources(cell)
            for position, (op, source) in enumerate(zip(cell[:8], sources, strict=True)):
                node = NODES[position // 2]
                config[f"{_PREFIX}edge_{name}_{_FIRST_EDGE[node] + source}"] = OPERATIONS[op]
                if node > 2 and position % 2:
                    config[f"{_PREFIX}inputs_node_{name}_{node}"] = f"{sources[position - 1]}_{source}"
        return config

    def from_configspace(self, config: Mapping[str, Any]) -> Architecture:
        """The inverse of `configspace`; names may come without their prefix.

        Parameters that do not describe a cell, such as the learning rate, say nothing about the architecture and are
        passed over; so are parameters whose value is None, which is how an inactive one may be written.

        Raises:
            InvalidArchitecture: a parameter is missing, unknown, inactive, or has an illegal value.
        """
        values = {name.removeprefix(_PREFIX): value for name, value in config.items() if value is not None}
        arch: list[int] = []
        for cell in CELLS:
            pairs = [0]
            for node in NODES[1:]:
                name = f"inputs_node_{cell}_{node}"
                pairs.append(_choice(values, name, [f"{a}_{b}" for a, b in PAIRS[node]]))
            for node, pair in zip(NODES, pairs, strict=True):
                arch.extend(
                    _choice(values, f"edge_{cell}_{_FIRST_EDGE[node] + source}", OPERATIONS)
                    for source in PAIRS[node][pair]
                )
            arch.extend(pairs[1:])
        left = sorted(name for name in values if name.startswith(("edge_", "inputs_node_")))
        if left:
            raise InvalidArchitecture(
                f"{', '.join(left)} must not be given: its node does not have this input, or there is no such parameter"
            )
        return tuple(arch)

    def features(self, archs: Sequence[Architecture] | npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
        """What the surrogate models of NAS-Bench-301 read: architectures `(n, 22)` to float64 `(n, 56)`.

        Columns are `FEATURE_NAMES`: choices as numbers, -1 for edges that are not there, and 22 constants, the training
        protocol.
        """
        try:
            choices = np.asarray(archs)
        except ValueError:  # of several lengths
            choices = np.array([self.check(arch) for arch in archs])
        if choices.size == 0:
            choices = np.zeros((0, len(self.cardinalities)), dtype=np.int64)
        if choices.ndim != 2 or choices.shape[1] != len(self.cardinalities) or choices.dtype.kind not in "iu":
            raise InvalidArchitecture(
                f"features takes whole numbers of shape (n, {len(self.cardinalities)}),"
                f" not {choices.dtype} of shape {choices.shape}"
            )
        if ((choices < 0) | (choices >= self.cardinalities)).any():
            raise InvalidArchitecture(f"features: a choice is out of range for {self.name}")
        encoded = np.tile(_TEMPLATE, (len(choices), 1))
        rows = np.arange(len(choices))
        for start, cell in zip((0, _DIMENSIONS), CELLS, strict=True):
            for k, node in enumerate(NODES):
                pair = choices[:, start + 7 + k] if k else np.zeros_like(rows)
                if k:
                    encoded[:, FEATURE_NAMES.index(f"{_PREFIX}inputs_node_{cell}_{node}")] = pair
                for side in (0, 1):
                    encoded[rows, _EDGE_COLUMNS[cell, node][pair, side]] = choices[:, start + 2 * k + side]
        return encoded

    def canonical(self, arch: Architecture) -> Architecture:
        """The smallest vector among all numberings of each cell's inner nodes.

        Two architectures have the same one exactly if their cells are the same graphs with the same operations, so that
        the networks differ in nothing but the order of the channels of a cell's output.
        """
        return tuple(
            itertools.chain.from_iterable(
                min((*(cell[p] for p in positions), *pairs) for positions, pairs in _renumberings(cell[8:]))
                for cell in _split(self.check(arch))
            )
        )


def _split(arch: Architecture) -> tuple[Architecture, Architecture]:
    return arch[:_DIMENSIONS], arch[_DIMENSIONS:]


def _sources(cell: Architecture) -> list[int]:
    """The inputs of the eight operations of a cell."""
    pairs = zip(NODES, (0, *cell[8:]), strict=True)
    return [source for node, pair in pairs for source in PAIRS[node][pair]]


@cache
def _renumberings(pairs: Architecture) -> list[tuple[tuple[int, ...], Architecture]]:
    """Every numbering of nodes 2 to 5 in which each comes after its inputs, for a cell with these input pairs.

    Each is the positions from which it takes its eight operations, and its input pairs.
    """
    sources = {node: PAIRS[node][pair] for node, pair in zip(NODES, (0, *pairs), strict=True)}
    found = []
    for order in itertools.permutations(NODES):
        number = {0: 0, 1: 1, **dict(zip(order, NODES, strict=True))}
        if any(number[source] > number[node] for node in NODES for source in sources[node]):
            continue
        positions: list[int] = []
        chosen: list[int] = []
        for node in order:
            (a, first), (b, second) = sorted((number[s], 2 * (node - 2) + k) for k, s in enumerate(sources[node]))
            positions += first, second
            chosen.append(PAIRS[number[node]].index((a, b)))
        found.append((tuple(positions), tuple(chosen[1:])))
    return found


def _read_cell(pairs: Any, cell: str) -> Architecture:
    """One cell of a genotype as 11 choices."""
    if not isinstance(pairs, Sequence) or isinstance(pairs, str) or len(pairs) != 8:
        raise InvalidArchitecture(
            f"the {cell} cell of a genotype is 8 pairs (operation, input), two for each of nodes 2 to 5, not {pairs!r}"
        )
    operations: list[int] = []
    chosen: list[int] = []
    for node in NODES:
        ends = sorted(_read_pair(pair, cell, node) for pair in pairs[2 * node - 4 : 2 * node - 2])
        (a, first), (b, second) = ends
        if a == b:
            raise InvalidArchitecture(f"node {node} of the {cell} cell has input {a} twice; its two inputs must differ")
        operations += first, second
        chosen.append(PAIRS[node].index((a, b)))
    return (*operations, *chosen[1:])


def _read_pair(pair: Any, cell: str, node: int) -> tuple[int, int]:
    """An (operation, input) of a genotype as (input, choice of operation)."""
    try:
        op, source = pair
    except (TypeError, ValueError):
        raise InvalidArchitecture(f"{pair!r} in the {cell} cell is not a pair (operation, input)") from None
    if not isinstance(op, str) or op not in OPERATIONS:
        raise InvalidArchitecture(f"unknown operation {op!r} in the {cell} cell; known: {', '.join(OPERATIONS)}")
    if isinstance(source, bool) or not isinstance(source, int | np.integer) or not 0 <= source < node:
        raise InvalidArchitecture(f"input {source!r} of node {node} of the {cell} cell is not in 0..{node - 1}")
    return int(source), OPERATIONS.index(op)


def _choice(values: dict[str, Any], name: str, choices: Sequence[str]) -> int:
    """Take a parameter out of `values`; its place among `choices`."""
    if name not in values:
        raise InvalidArchitecture(f"{name} is missing; give one of {', '.join(choices)}")
    value = values.pop(name)
    if not isinstance(value, str) or value not in choices:
        raise InvalidArchitecture(f"{name} is {value!r}; its values are {', '.join(choices)}")
    return choices.index(value)


def _parse(text: str) -> list[Any]:
    """The four fields of a genotype text, built from literals only."""
    shown = f"{text[:80]!r}..." if len(text) > 80 else repr(text)
    form = "an architecture of darts is written Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), ...)"
    if len(text) > _MAX_TEXT or re.fullmatch(r"[\w\s'\"()\[\],=]*", text, re.ASCII) is None:
        raise InvalidArchitecture(f"{shown} is too long or has characters that no genotype has; {form}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Genotype"):
            raise InvalidArchitecture(f"{shown} is not a genotype; {form}")
        fields = dict(zip(Genotype._fields, call.args, strict=False))
        given = [*fields, *(keyword.arg for keyword in call.keywords)]
        if len(call.args) > 4 or sorted(map(str, given)) != sorted(Genotype._fields):
            raise InvalidArchitecture(f"{shown} must give each of {', '.join(Genotype._fields)} once; {form}")
        fields |= {str(keyword.arg): keyword.value for keyword in call.keywords}
        return [_literal(fields[name]) for name in Genotype._fields]
    except InvalidArchitecture:
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InvalidArchitecture(f"{shown} is not a genotype ({error}); {form}") from None


def _literal(value: ast.expr) -> Any:
    """A Python literal, or the call range(a, b)."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
        bounds = [ast.literal_eval(argument) for argument in value.args]
        if value.keywords or len(bounds) != 2 or not all(type(b) is int and 0 <= b <= 6 for b in bounds):
            raise ValueError("a range must be range(a, b) with 0 <= a, b <= 6")
        return tuple(range(*bounds))
    return ast.literal_eval(value)


def count_cost(
    arch: Architecture,
    *,
    channels: int = 32,
    layers: int = 8,
    num_classes: int = 10,
    auxiliary: bool = True,
    image_size: int = 32,
    stem_multiplier: int = 3,
    input_channels: int = 3,
) -> tuple[int, int]:
    """Parameters and FLOPs of the network of `arch`, from formulas: what `DARTSNetwork` with these settings counts.

    FLOPs are the multiply-accumulates of one classification (`benchmarks/networks/cost.py` has the convention); the
    auxiliary head has parameters but takes no part in it.

    Args:
        arch: an architecture of DARTSSpace.
        channels: channels of the first cells; the default and that of `layers` are NAS-Bench-301's.
        layers: number of cells.
        num_classes: outputs of the classifier.
        auxiliary: count the parameters of the auxiliary head.
        image_size: side of the square image, divisible by the product of the strides (4; for a single layer 2).
        stem_multiplier: the stem has this times `channels` outputs.
        input_channels: channels of the images.
    """
    cells = _split(DARTSSpace().check(arch))
    reductions = {layers // 3, 2 * layers // 3}
    if layers < 1 or channels < 1 or image_size < 1 or image_size % 2 ** len(reductions):
        raise ValueError(
            f"{layers} layers of {channels} channels on an image of side {image_size}: layers and channels must be"
            f" positive, and the side divisible by {2 ** len(reductions)}"
        )
    side = image_size
    before, last = stem_multiplier * channels, stem_multiplier * channels  # channels of the two cells before
    params = 9 * input_channels * last + 2 * last
    flops = 9 * input_channels * last * side**2
    for layer in range(layers):
        reduction = layer in reductions
        channels *= 1 + reduction
        weights = (before + last) * channels
        params += weights + 2 * 2 * channels
        flops += weights * side**2
        side //= 1 + reduction
        cell = cells[reduction]
        for op, source in zip(cell[:8], _sources(cell), strict=True):
            weights, norms = _operation_cost(op, channels, strided=reduction and source < 2)
            params += weights + 2 * channels * norms
            flops += weights * side**2
        before, last = last, len(CONCAT) * channels
        if auxiliary and layer == 2 * layers // 3:
            params += 128 * last + 2 * 128 + 4 * 128 * 768 + 2 * 768 + (768 + 1) * num_classes
    return params + (last + 1) * num_classes, flops + (last + 1) * num_classes


def _operation_cost(op: int, channels: int, *, strided: bool) -> tuple[int, int]:
    """Convolution weights, each used once per output position, and number of batch normalisations of an operation."""
    if op < _SKIP:
        return 0, 0
    if op == _SKIP:
        return (channels**2, 1) if strided else (0, 0)
    kind, _, kernel = OPERATIONS[op].split("_")
    times = 2 if kind == "sep" else 1
    return times * (int(kernel[0]) ** 2 * channels + channels**2), times
