"""How a supernet is trained: the hyper-parameters that all one-shot methods have."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The hyper-parameters that all one-shot methods have.

    The defaults are short, for small images such as those of digits201; each method's preset `@paper` is the published recipe.

    Attributes:
        epochs: passes over the training part.
        warm_up: first epochs in which only the weights are trained.
        batch_size: images of a step.
        learning_rate, min_learning_rate: of the weights, from one to the other by a cosine over all steps.
        momentum, nesterov, weight_decay: of the weights' SGD.
        clip: largest norm of the weights' gradient; 0 for no limit.
        alpha_learning_rate, alpha_beta1, alpha_beta2, alpha_weight_decay: of the architecture parameters' Adam.
        alpha_init: standard deviation of the initial architecture parameters.
        channels, cells: of the supernet, and what else its space calls its size; None for the benchmark's own.
        affine: the operations' batch normalisations have a scale and a shift.
        augment: random crops and flips of colour images (those of the embedded tasks vary by themselves).
        images: use no more than so many images of each part; None for all.
        pretext: "classify", or a target that needs no labels: "rotation", "jigsaw" or "colourisation".
        device: such as "cpu" or "cuda".
        precision: float32, or mixed with bfloat16 or float16 (scaled losses).
    """

    epochs: int = 15
    warm_up: int = 0
    batch_size: int = 64
    learning_rate: float = 0.1
    min_learning_rate: float = 0.001
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    clip: float = 5.0
    alpha_learning_rate: float = 0.01
    alpha_beta1: float = 0.5
    alpha_beta2: float = 0.999
    alpha_weight_decay: float = 1e-3
    alpha_init: float = 1e-3
    channels: int | None = None
    cells: int | None = None
    affine: bool = False
    augment: bool = True
    images: int | None = None
    pretext: str = "classify"
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            check_whole(name, getattr(self, name), 1)
        check_whole("warm_up", self.warm_up, 0)
        for name in ("channels", "cells", "images"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)
        for name in (
            "learning_rate",
            "min_learning_rate",
            "momentum",
            "weight_decay",
            "clip",
            "alpha_learning_rate",
            "alpha_weight_decay",
            "alpha_init",
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number from 0, not {value!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {self.precision!r}")


RECIPE = tuple(field.name for field in fields(Recipe))
"""Names of the hyper-parameters that all methods have."""

PAPER: Mapping[str, Any] = {
    "epochs": 50,
    "learning_rate": 0.025,
    "alpha_learning_rate": 3e-4,
}
"""What the published NAS-Bench-201 recipe of DARTS (AutoDL-Projects) has in place of the defaults."""


def make_recipe(method: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    """The recipe of a method.

    Args:
        method: its name, for errors.
        own: defaults of the method that differ from the class's.
        given: by the user.

    Raises:
        TypeError: a hyper-parameter that there is not.
        ValueError: a value that makes no sense.
    """
    for name in given:
        if name not in RECIPE:
            close = difflib.get_close_matches(name, RECIPE, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"of all supernets: {', '.join(RECIPE)}"
            raise TypeError(f"{method} has no hyper-parameter {name!r}; {hint}")
    return Recipe(**{**own, **given})


def check_whole(name: str, value: object, least: int) -> None:
    """Raises:
    ValueError: the value is not a whole number from `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")
