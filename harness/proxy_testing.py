"""The conformance suite of zero-cost proxies: what every proxy must keep, as plain functions that say what to fix.

    nh.check(MyProxy)                       # raises CheckError with every failed check
    nasharness check my_module:MyProxy

    @pytest.mark.parametrize("check", PROXY_CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(proxy_spec("my_module:MyProxy"))

Each check measures small networks with fixed weights on fixed random images.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..benchmarks.networks.nasbench201 import NASBench201Network
from ..benchmarks.spaces.base import Architecture
from ..benchmarks.workers import one_torch_thread
from ..proxies.base import Proxy, ProxyError
from ..proxies.layers import restored
from ..proxies.passes import measure_together
from .registry import ProxySpec, importable

ProxyCheck = Callable[[ProxySpec], None]

CLOSE = 1e-4
"""Relative difference below which two scores are the same: sums may be added up in another order."""

_ARCHS: tuple[Architecture, ...] = (
    (3, 1, 2, 4, 3, 1),
    (3, 3, 3, 3, 3, 3),
    (2, 0, 4, 1, 2, 3),
    (1, 1, 1, 1, 1, 1),
    (0, 2, 3, 3, 2, 4),
)
_DISCONNECTED: Architecture = (3, 3, 3, 0, 0, 0)
_N = 16  # images

# -------------------------------------------------------------------------------------------------- made-up tasks


@dataclass(frozen=True)
class _Task:
    """A network with images and labels.

    Attributes:
        may_refuse: whether `ProxyError` is an answer.
    """

    network: nn.Module
    images: Tensor
    labels: Tensor
    may_refuse: bool = False


@contextmanager
def _weights_from(seed: int) -> Iterator[None]:
    """Draw initial weights from this seed, and leave torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _inputs(n: int, channels: int, *, seed: int = 1) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, 12, 12, generator=rng), torch.randint(10, (n,), generator=rng)


def _cell(arch: Architecture = _ARCHS[0], *, weights: int = 1, channels: int = 3) -> nn.Module:
    with _weights_from(weights):
        return NASBench201Network(arch, channels=4, cells=1, input_channels=channels)


def _task(arch: Architecture = _ARCHS[0], *, weights: int = 1, images: int = 1) -> _Task:
    return _Task(_cell(arch, weights=weights), *_inputs(_N, 3, seed=images))


def _plain_cnn() -> nn.Module:
    with _weights_from(2):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 8, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 10),
        )


def _tasks() -> Mapping[str, _Task]:
    images, labels = _inputs(_N, 3)
    return {
        "a NAS-Bench-201 network": _task(),
        "a network for images of one channel": _Task(_cell(channels=1), *_inputs(_N, 1)),
        "a cell whose output nothing reaches": _Task(_cell(_DISCONNECTED), images, labels),
        "images that are all alike": _Task(_cell(), torch.ones_like(images), labels),
        "two images": _Task(_cell(), images[:2], labels[:2]),
        "a network with biases and without batch normalisation": _Task(_plain_cnn(), images, labels, may_refuse=True),
    }


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _measure(proxy: Proxy, task: _Task) -> tuple[float, ...]:
    """What the proxy itself returns, before the harness replaces what is not finite."""
    n = min(proxy.n_images, len(task.images))
    with one_torch_thread(), restored(task.network):
        task.network.train()
        return tuple(proxy.measure(task.network, task.images[:n], task.labels[:n]))


def _values(spec: ProxySpec, task: _Task | None = None, *, seed: int = 0) -> list[float]:
    """What a fresh proxy measures, as in a run of the harness."""
    task = _task() if task is None else task
    with one_torch_thread():
        return list(measure_together([spec.make(_generator(seed))], task.network, task.images, task.labels)[0].values)


def _same(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(
        a == b or math.isclose(a, b, rel_tol=CLOSE) for a, b in zip(one, other, strict=True)
    )


# ----------------------------------------------------------------------------------------------------------- the checks


def check_constructor(spec: ProxySpec) -> None:
    """The class takes rng and then only hyper-parameters with defaults, keeps rng, and works without one."""
    parameters = list(inspect.signature(spec.factory).parameters.values())
    assert parameters and parameters[0].name == "rng", (
        f"{spec.label} must take rng first; it takes {[p.name for p in parameters]}"
    )
    for p in parameters:
        optional = p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        assert optional, f"parameter {p.name!r} of {spec.label} needs a default"
    rng = _generator()
    proxy = spec.make(rng)
    assert getattr(proxy, "rng", None) is rng, "call super().__init__(rng): self.rng is not the generator given"
    alone = getattr(spec.make(), "rng", None)
    assert isinstance(alone, torch.Generator), "call super().__init__(rng): without rng it needs a generator of its own"


def check_presets(spec: ProxySpec) -> None:
    """Every preset names parameters that the constructor takes."""
    for name, parameters in spec.factory.presets.items():
        try:
            spec.factory(_generator(), **parameters)
        except Exception as error:
            raise AssertionError(f"preset {name!r} cannot be made: {type(error).__name__}: {error}") from error


def check_scores(spec: ProxySpec) -> None:
    """Every network gets one float per part, never NaN; of one it may say by ProxyError that it is not defined on it."""
    proxy = spec.make(_generator())
    parts, n_images = proxy.parts, proxy.n_images
    assert isinstance(parts, tuple) and parts and all(isinstance(part, str) for part in parts), (
        f"parts must be a tuple of names, not {parts!r}"
    )
    assert type(n_images) is int and n_images >= 0, f"n_images must be a whole number from 0, not {n_images!r}"
    for name, task in _tasks().items():
        try:
            values = _measure(spec.make(_generator()), task)
        except Exception as error:
            if task.may_refuse and isinstance(error, ProxyError):
                continue
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        assert len(values) == len(parts), (
            f"{name}: measure returned {values!r}, one number each for {', '.join(parts)} is due"
        )
        for value in values:
            assert isinstance(value, float), (
                f"{name}: a score must be a Python float, not {value!r} of type {type(value).__name__}: use float(...)"
            )
            assert not math.isnan(value), (
                f"{name}: the score is NaN; return -inf where a network cannot be scored, see finite()"
            )


def check_same_seed_same_score(spec: ProxySpec) -> None:
    """The generator is the only source of chance, and torch's, NumPy's and Python's own are left alone."""
    # By the proxy itself: `measure_together` would lend it a generator and take the global one back.
    first = list(_measure(spec.make(_generator(0)), _task()))
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with _weights_from(5):
            np.random.random(3)  # noqa: NPY002  global state, on purpose
            random.random()
            states = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()  # type: ignore[index]  # noqa: NPY002
            task = _Task(_cell(), *_inputs(_N, 3))
            second = list(_measure(spec.make(_generator(0)), task))
            after = torch.get_rng_state(), np.random.get_state()[1:3], random.getstate()  # type: ignore[index]  # noqa: NPY002
    finally:
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
    assert _same(first, second), (
        f"the same seed gave {first} and {second}: draw only with generator=self.rng, not from torch's, NumPy's or Python's"
        " global generators"
    )
    for name, one, other in zip(("torch", "NumPy", "Python"), states, after, strict=True):
        assert repr(one) == repr(other) if name != "torch" else bool(torch.equal(one, other)), (
            f"the proxy draws from or seeds {name}'s global generator: draw only with generator=self.rng"
        )


def check_order_independent(spec: ProxySpec) -> None:
    """Proxies in one process do not disturb each other: no state is kept on the class or in the module."""
    small, large = _task(_ARCHS[2]), _task(_ARCHS[1])
    for task, other in ((small, large), (large, small)):
        alone = _values(spec, task)
        _values(spec, other, seed=3)
        after = _values(spec, task)
        assert _same(alone, after), (
            f"a network's score was {alone}, and {after} after another was scored: keep state on the instance, not on the class"
            " or module"
        )


def check_leaves_network_alone(spec: ProxySpec) -> None:
    """Nothing of it stays: parameters, gradients, modes, hooks, replaced methods; images and labels are not changed."""
    task = _task()
    task.network.eval()
    # In the layout that scoring uses, so that the proxy is given these very images and not a copy.
    task = replace(task, images=task.images.contiguous(memory_format=torch.channels_last))
    before, images, labels = _state(task.network), task.images.clone(), task.labels.clone()
    _values(spec, task)
    _measure(spec.make(_generator(0)), task)  # `measure_together` hands out copies of the images
    after = _state(task.network)
    for what, value in before.items():
        assert after.get(what) == value, f"{what} changed: remove hooks and put back what was replaced, in a `finally`"
    assert after.keys() == before.keys(), f"the network has new {', '.join(sorted(after.keys() - before.keys()))}"
    assert torch.equal(task.images, images), "the images changed: work on a copy"
    assert torch.equal(task.labels, labels), "the labels changed: work on a copy"


def _state(network: nn.Module) -> dict[str, Any]:
    """What of a network a proxy could leave behind, comparable by `==`."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        where = f"module {name!r}" if name else "the network"
        found[f"the attributes of {where}"] = sorted(module.__dict__)
        found[f"the class of {where}"] = type(module)
        found[f"the mode of {where}"] = module.training
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        found[f"the hooks of {where}"] = [len(kind) for kind in hooks]
    for name, parameter in network.named_parameters():
        found[f"requires_grad of {name}"] = parameter.requires_grad
        found[f"the gradient of {name}"] = None if parameter.grad is None else parameter.grad.tolist()
        found[f"the hooks of {name}"] = len(parameter._backward_hooks or ())
    for name, tensor in network.state_dict().items():
        found[f"the value of {name}"] = (str(tensor.dtype), tensor.tolist())
    return found


def check_uses_labels(spec: ProxySpec) -> None:
    """Other labels make no difference to a proxy that declares so by `uses_labels = False`."""
    if spec.factory.uses_labels:
        return
    task = _task()
    one, other = _values(spec, task), _values(spec, _Task(task.network, task.images, 9 - task.labels))
    assert _same(one, other), f"other labels changed the score from {one} to {other}: set uses_labels = True"


def check_n_images(spec: ProxySpec) -> None:
    """Other images make no difference to a proxy that declares by `n_images = 0` that it looks at none."""
    if spec.make(_generator()).n_images:
        return
    task, other = _task(), _task(images=2)
    scores = []
    for each in (task, other):
        with one_torch_thread(), restored(task.network):
            task.network.train()
            scores.append(list(spec.make(_generator()).measure(task.network, each.images, each.labels)))
    assert _same(*scores), f"other images changed the score from {scores[0]} to {scores[1]}: declare them by n_images"


def check_deterministic(spec: ProxySpec) -> None:
    """Other weights, images and draws make no difference to a proxy that is declared `deterministic`."""
    if not spec.factory.deterministic:
        return
    one, other = _values(spec), _values(spec, _task(weights=3, images=4), seed=5)
    assert _same(one, other), (
        f"other weights, images and draws changed the score from {one} to {other}: set deterministic = False"
    )


def check_aggregate(spec: ProxySpec) -> None:
    """`aggregate` gives one number per candidate, never NaN, whatever their order and whoever cannot be scored."""
    proxy = spec.make(_generator())
    width = len(proxy.parts)
    measured = np.array([_values(spec, _task(arch)) for arch in _ARCHS], dtype=np.float64).reshape(len(_ARCHS), width)
    hopeless, partly = np.full((1, width), -np.inf), measured[:1].copy()
    partly[0, 0] = -np.inf
    for name, table in {
        "five networks": measured,
        "a network alone": measured[:1],
        "five networks and two that cannot be scored": np.concatenate((hopeless, measured, partly)),
        "networks that cannot be scored": np.concatenate((hopeless, hopeless)),
    }.items():
        given = table.copy()
        scores = np.asarray(proxy.aggregate(table))
        assert np.array_equal(given, table), f"{name}: aggregate changed the table it was given: work on a copy"
        assert scores.shape == (len(table),), f"{name}: aggregate gave the shape {scores.shape}, not {(len(table),)}"
        assert not np.isnan(scores).any() and not np.isposinf(scores).any(), (
            f"{name}: aggregate gave {scores}; what is not finite in the table has to rank last, see ranks()"
        )
        order = np.random.default_rng(1).permutation(len(table))
        again = np.asarray(proxy.aggregate(table[order]))
        assert np.allclose(scores[order], again, rtol=CLOSE), (
            f"{name}: scores change with the order of the candidates: {scores[order]} and {again}; equal ones share a place"
        )


def check_other_process(spec: ProxySpec) -> None:
    """The same seed gives the same score in a fresh process with other string hashes."""
    target = f"{spec.factory.__module__}:{spec.factory.__qualname__}"
    if spec.factory.__module__ == "__main__" or not importable("proxies", target, spec.factory):
        return  # defined in a notebook or a function; the other checks still hold it to its seed
    here = _values(spec)
    program = (
        "import json, pickle, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        "from nasharness.harness.registry import ProxySpec, resolve\n"
        "from nasharness.harness.proxy_testing import _values\n"
        "spec = ProxySpec(sys.argv[2], resolve('proxies', sys.argv[2]), pickle.loads(bytes.fromhex(sys.argv[3])))\n"
        "print(json.dumps(_values(spec)))\n"
    )
    try:
        parameters = pickle.dumps(dict(spec.parameters)).hex()
    except Exception:
        return  # a parameter that cannot travel
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(sys.path), target, parameters],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        assert done.returncode == 0, f"it cannot be run in a fresh process: {done.stderr.strip().splitlines()[-1:]}"
        there = json.loads(done.stdout.splitlines()[-1])  # the proxy may print, too
        assert _same(here, there), (
            f"the same seed gives {here} here and {there} in another process: something iterates over a set, uses hash() of a"
            " string, or is kept on the class or module from an earlier score"
        )


PROXY_CHECKS: tuple[ProxyCheck, ...] = (
    check_constructor,
    check_presets,
    check_scores,
    check_same_seed_same_score,
    check_order_independent,
    check_leaves_network_alone,
    check_uses_labels,
    check_n_images,
    check_deterministic,
    check_aggregate,
    check_other_process,
)

NEED_THE_SAME_SCORE: tuple[ProxyCheck, ...] = (
    check_order_independent,
    check_uses_labels,
    check_n_images,
    check_deterministic,
    check_other_process,
)
"""Checks that compare two scores: of a proxy that is not reproducible they would only repeat that."""
