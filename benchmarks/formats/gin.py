"""The `gnn_gin` members of NAS-Bench-301: a torch state dict and a `model_config.json`, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..gin import GIN
from .errors import FormatError
from .torch_file import load_state_dict

_KINDS, _DEGREES, _OPERATIONS = 4, 8, 8


def read_gin(path: Path, config: Mapping[str, Any]) -> GIN:
    """The network of a `surrogate_model.model` with the content of its `model_config.json`.

    Raises:
        FormatError: see `build_gin`, or the file is damaged.
        OSError: the file cannot be read.
    """
    return build_gin(load_state_dict(path), config, str(path))


def build_gin(state: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any], where: str) -> GIN:
    """The network with these weights.

    Args:
        state: the official state dict.
        config: the content of `model_config.json`.
        where: names the file in errors.

    Raises:
        FormatError: the configuration asks for something that is not supported, or the weights are not those of this
            configuration.
    """
    if config.get("model") != "gnn_gin":
        raise FormatError(f"{where}: a model of type {config.get('model')!r} is not a gnn_gin")
    if config.get("graph_preprocessing:self_loops"):
        raise FormatError(
            f"{where}: graph_preprocessing:self_loops is not supported: what edge attribute the added loops get depends on"
            " the version of PyTorch Geometric"
        )
    if config.get("graph_pooling", "mean") != "mean" or config.get("virtual_node", True) is not True:
        raise FormatError(
            f"{where}: graph_pooling {config.get('graph_pooling')!r} with virtual_node {config.get('virtual_node')!r} is"
            " not supported, only 'mean' with True"
        )
    layers, width = config.get("num_gnn_layers"), config.get("gnn_hidden_dimensions")
    if not (type(layers) is int and 2 <= layers <= 1000 and type(width) is int and 1 <= width <= 100_000):
        raise FormatError(f"{where}: {layers!r} layers of {width!r} dimensions are not a network")
    shapes = weight_shapes(layers, width)
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for name, shape in shapes.items():
        found = state.get(name)
        if found is None or found.shape != shape or found.dtype != np.float32:
            what = "missing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise FormatError(f"{where}: weight {name} is {what}; expected float32 of shape {shape}")
        if not np.isfinite(found).all():
            raise FormatError(f"{where}: weight {name} is not finite")
        if name.endswith("running_var") and (found < 0).any():
            raise FormatError(f"{where}: the variance {name} is negative")
        weights[name] = found
    unused = {
        "num_batches_tracked",
        *("node_encoder." + key for key in ("type_encoder.weight", "attribute_encoder.weight")),
    }
    strange = [name for name in state if name not in shapes and not (name in unused or name.endswith(tuple(unused)))]
    if strange:
        raise FormatError(f"{where}: weight {strange[0]} does not belong to a network of {layers} layers")
    return GIN(weights, layers, bool(config.get("graph_preprocessing:undirected_graph")))


def weight_shapes(layers: int, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a prediction reads.

    The state dict also holds a second copy of the node encoder, which is the same module, and batch counters.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "gnn_node.node_encoder.type_encoder.weight": (_KINDS, width),
        "gnn_node.node_encoder.attribute_encoder.weight": (_DEGREES, width),
        "gnn_node.virtualnode_embedding.weight": (1, width),
        **_linear("graph_pred_linear", width, 1),
    }
    for layer in range(layers):
        conv = f"gnn_node.convs.{layer}."
        shapes |= {conv + "eps": (1,), conv + "edge_encoder.weight": (_OPERATIONS, width)}
        shapes |= _linear(conv + "mlp.0", width, 2 * width) | _norm(conv + "mlp.1", 2 * width)
        shapes |= _linear(conv + "mlp.3", 2 * width, width) | _norm(f"gnn_node.batch_norms.{layer}", width)
    for layer in range(layers - 1):
        mlp = f"gnn_node.mlp_virtualnode_list.{layer}."
        shapes |= _linear(mlp + "0", width, 2 * width) | _norm(mlp + "1", 2 * width)
        shapes |= _linear(mlp + "3", 2 * width, width) | _norm(mlp + "4", width)
    return shapes


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {name + ".weight": (outputs, inputs), name + ".bias": (outputs,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
