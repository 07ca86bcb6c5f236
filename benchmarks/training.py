"""Train one network on one image task and record its learning curve."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from .images import Images, ImageTask
from .schedule import Schedule


@dataclass(frozen=True)
class TrainingResult:
    """What training reached.

    Attributes:
        train_loss, train_accuracy: float32 `(epochs,)`, averaged over the epoch while it was trained.
        val_loss, val_accuracy: float32 `(epochs,)`, on the validation images after the epoch.
        seconds: float32 `(epochs,)`, CPU seconds from the start to the end of the epoch's validation pass. CPU seconds of
            one thread, so that a busy machine does not change them much.
        test_loss, test_accuracy: after the last epoch.
    """

    train_loss: npt.NDArray[np.float32]
    train_accuracy: npt.NDArray[np.float32]
    val_loss: npt.NDArray[np.float32]
    val_accuracy: npt.NDArray[np.float32]
    seconds: npt.NDArray[np.float32]
    test_loss: float
    test_accuracy: float

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def train(
    network: nn.Module, task: ImageTask, schedule: Schedule, *, seed: int, rng: np.random.Generator
) -> TrainingResult:
    """Train `network` in place.

    Args:
        network: any classifier of the task's images, on the CPU, already initialised.
        task: its images; `task.epoch(seed, e)` are the training images of epoch `e`.
        schedule: the optimizer's settings.
        seed: of the training images.
        rng: shuffles the batches.
    """
    # channels_last halves the time of small convolutions on a CPU; denormals would multiply it.
    torch.set_flush_denormal(True)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = torch.optim.SGD(
        network.parameters(),
        schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        nesterov=schedule.momentum > 0,
        fused=True,
    )
    n_batches = math.ceil(len(task.epoch(seed, 0).labels) / schedule.batch_size)
    total_steps = schedule.epochs * n_batches
    validation, test = _tensors(task.split("validation")), _tensors(task.split("test"))
    columns: dict[str, list[float]] = {
        name: [] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
    }
    step = 0
    spent = 0.0
    for epoch in range(schedule.epochs):
        images, labels = _tensors(task.epoch(seed, epoch))
        order = torch.from_numpy(rng.permutation(len(labels)))
        losses = correct = 0.0
        start = time.process_time()  # images are made before: they are cached, and the first network would pay for all
        network.train()
        for batch in torch.split(order, schedule.batch_size):
            for group in sgd.param_groups:
                group["lr"] = 0.5 * schedule.learning_rate * (1.0 + math.cos(math.pi * step / total_steps))
            target = labels[batch]
            logits = network(images[batch])
            loss = functional.cross_entropy(logits, target)
            sgd.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            step += 1
            losses += loss.item() * len(batch)
            correct += int((logits.detach().argmax(1) == target).sum())
        val_loss, val_accuracy = evaluate(network, *validation)
        spent += time.process_time() - start
        for name, value in (
            ("train_loss", losses / len(labels)),
            ("train_accuracy", correct / len(labels)),
            ("val_loss", val_loss),
            ("val_accuracy", val_accuracy),
            ("seconds", spent),
        ):
            columns[name].append(value)
    test_loss, test_accuracy = evaluate(network, *test)
    arrays = {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}
    return TrainingResult(**arrays, test_loss=test_loss, test_accuracy=test_accuracy)


@torch.inference_mode()
def evaluate(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 100) -> tuple[float, float]:
    """Mean cross-entropy and accuracy (a fraction) of the network in evaluation mode."""
    network.eval()
    loss = correct = 0.0
    for x, y in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        logits = network(x)
        loss += float(functional.cross_entropy(logits, y, reduction="sum"))
        correct += int((logits.argmax(1) == y).sum())
    return loss / len(labels), correct / len(labels)


def _tensors(data: Images) -> tuple[Tensor, Tensor]:
    return torch.tensor(data.images).to(memory_format=torch.channels_last), torch.tensor(data.labels)
