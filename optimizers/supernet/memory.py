"""Memory of a training step: what the forward pass keeps for the backward pass.

The activations that automatic differentiation keeps are what bounds the batch size of a supernet. Counting them says how much
one form of a supernet needs more than another, on any device and without the noise of an allocator's statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def saved_bytes(step: Callable[[], Tensor], *, parameters: Iterable[Tensor] | nn.Module = ()) -> int:
    """Bytes of the distinct tensors that are kept for the backward pass of a loss.

    Tensors that share their memory count once, with all of it. Nothing is computed backwards.

    Args:
        step: computes a loss with gradients.
        parameters: tensors that are there anyway, such as a network's weights, which do not count; a module stands for its
            parameters and buffers.

    Raises:
        ValueError: the loss has no gradient, so that nothing is kept.
    """
    if isinstance(parameters, nn.Module):
        parameters = [*parameters.parameters(), *parameters.buffers()]
    there = {_memory(tensor)[0] for tensor in parameters}
    found: dict[tuple[torch.device, int], int] = {}
    held: list[torch.UntypedStorage] = []  # memory that is given back can be handed out again at the same address

    def pack(tensor: Tensor) -> Tensor:
        key, size = _memory(tensor)
        if key not in found and key not in there:
            found[key] = size
            held.append(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        loss = step()
    if not loss.requires_grad:
        raise ValueError("the step's loss has no gradient: nothing is kept for a backward pass")
    return sum(found.values())


def _memory(tensor: Tensor) -> tuple[tuple[torch.device, int], int]:
    """Where a tensor's memory lies, and its bytes."""
    storage = tensor.untyped_storage()
    return (tensor.device, storage.data_ptr()), storage.nbytes()
