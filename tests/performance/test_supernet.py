"""The supernet of NAS-Bench-201 beside its plain form, in the same run: `make bench`.

The plain form is what published implementations do: operation by operation, in NCHW memory. Each round times the forms in
turn, on one thread and in processor time, and the fastest rounds are compared: a busy machine slows all of them down. Goals:
a step of the mixture at least twice as fast, a single path at most 1.15 times the step of the stand-alone network. The ratios
are in extra_info.

`make test` runs each once on a small network, untimed; there the merged form is also compared with the plain one to rounding.
"""

import time

import pytest
import torch
from torch.nn import functional

from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3, NONE, POOL, SKIP, NASBench201Space
from nasharness.optimizers.supernet.factory import build_supernet
from nasharness.optimizers.supernet.memory import saved_bytes
from nasharness.optimizers.supernet.mix import soft

ROUNDS = 5
OFFICIAL = {"channels": 16, "cells": 5, "side": 32, "n": 16}
DIGITS = {"channels": 8, "cells": 1, "side": 12, "n": 64}
SMALL = {"channels": 4, "cells": 1, "side": 6, "n": 4}
GROUP = pytest.mark.benchmark(group="supernet of NAS-Bench-201, one step", timer=time.process_time)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def setting(size, *, plain=False, dtype=torch.float32, **options):
    """Supernet, images and labels of a size, the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"num_classes": 10, "channels": size["channels"], "cells": size["cells"], "input_channels": 3}
        net = build_supernet(NASBench201Space(), settings, **options).to(dtype)
        images = torch.randn(size["n"], 3, size["side"], size["side"], dtype=dtype)
        labels = torch.randint(10, (size["n"],))
    net.merge = not plain
    if not plain:
        net, images = (x.to(memory_format=torch.channels_last) for x in (net, images))
    return net, images, labels


def mixture(size, *, plain=False, **options):
    """A step of a soft mixture: the gradients of the loss by weights and architecture parameters."""
    net, images, labels = setting(size, plain=plain, **options)
    alpha = torch.zeros(6, 5, dtype=images.dtype, requires_grad=True)

    def loss():
        return functional.cross_entropy(net(images, [soft(torch.softmax(alpha, 1))]), labels)

    def step():
        net.zero_grad()
        alpha.grad = None
        loss().backward()

    return step, loss, net, alpha


def compared(benchmark, **steps):
    """Time all in turn; the fastest processor time of each in milliseconds (None: untimed)."""
    milliseconds = {name: [] for name in steps}

    def turn():
        for name, step in steps.items():
            start = time.process_time()
            step()
            milliseconds[name].append(1e3 * (time.process_time() - start))

    timed = benchmark.enabled
    benchmark.pedantic(turn, rounds=ROUNDS if timed else 1, warmup_rounds=1 if timed else 0)
    if not timed:
        return None
    fastest = {name: min(times) for name, times in milliseconds.items()}
    benchmark.extra_info.update({f"{name}_ms": round(value, 2) for name, value in fastest.items()})
    return fastest


@GROUP
@pytest.mark.parametrize("size", [OFFICIAL, DIGITS], ids=["official", "digits201"])
def test_mixture(benchmark, size):
    """Forward and backward, of weights and architecture parameters."""
    size = size if benchmark.enabled else SMALL
    found = compared(benchmark, plain=mixture(size, plain=True)[0], merged=mixture(size)[0])
    if found:
        benchmark.extra_info["times_as_fast"] = round(found["plain"] / found["merged"], 2)


@GROUP
@pytest.mark.parametrize("size", [OFFICIAL, DIGITS], ids=["official", "digits201"])
def test_single_path(benchmark, size):
    """The step of one path beside that of the extracted network."""
    net, images, labels = setting(size if benchmark.enabled else SMALL)
    arch = (CONV3, CONV3, CONV1, POOL, SKIP, CONV3)
    alone = net.extract(arch).to(memory_format=torch.channels_last)

    def step(network, *mixes):
        network.zero_grad()
        functional.cross_entropy(network(images, *mixes), labels).backward()

    found = compared(
        benchmark,
        path=lambda: step(net, net.paths(arch)),
        alone=lambda: step(alone),
    )
    if found:
        benchmark.extra_info["times_as_long"] = round(found["path"] / found["alone"], 2)


@GROUP
def test_partial(benchmark):
    """A quarter of the channels: time, and bytes kept for the backward pass."""
    size = OFFICIAL if benchmark.enabled else SMALL
    whole, part = mixture(size), mixture(size, partial=4)
    plain = mixture(size, plain=True)
    kept = [saved_bytes(loss, parameters=net) for _, loss, net, _ in (whole, part, plain)]
    assert kept[1] < kept[0] < kept[2]
    found = compared(benchmark, whole=whole[0], quarter=part[0])
    if found:
        benchmark.extra_info["times_as_fast"] = round(found["whole"] / found["quarter"], 2)
        benchmark.extra_info["MiB_whole_quarter_plain"] = [round(n / 2**20, 1) for n in kept]


def derivatives(net, images, labels, alpha, active):
    """Loss, gradients, and the gradients of the sum of squares of these."""
    inputs = [*net.parameters(), alpha]
    loss = functional.cross_entropy(net(images, [soft(torch.softmax(alpha, 1), active)]), labels)
    first = torch.autograd.grad(loss, inputs, create_graph=True, allow_unused=True)
    squares = sum(g.square().sum() for g in first if g is not None)
    second = torch.autograd.grad(squares, inputs, allow_unused=True)
    found = zip((*first, *second), (*inputs, *inputs), strict=True)
    return [loss, *(torch.zeros_like(x) if g is None else g for g, x in found)]


@pytest.mark.parametrize("options", [{}, {"affine": True}, {"partial": 2}], ids=["plain", "affine", "partial"])
@pytest.mark.parametrize(
    "active",
    [
        None,
        ((SKIP,), (CONV3, POOL), (CONV1,), (NONE, CONV3), (), (SKIP, POOL)),
        ((POOL, CONV1), (NONE,), (CONV1, CONV3), (), (SKIP, CONV3), (NONE,)),
    ],
    ids=["all", "some", "others"],
)
def test_merged_is_plain(options, active):
    """In double precision: the loss, all gradients and second derivatives, with an odd number of pixels."""
    net, images, labels = setting({**SMALL, "side": 7}, dtype=torch.float64, **options)
    alpha = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(6, 5).requires_grad_()
    merged = derivatives(net, images, labels, alpha, active)
    net.merge = False
    plain = derivatives(net, images, labels, alpha, active)
    for a, b in zip(merged, plain, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)


def test_merged_in_single_precision():
    """Without scale, a lone wide convolution: factors must not reach the normalisation as an expanded view."""
    net, images, labels = setting({**SMALL, "channels": 16}, affine=False)
    alpha = torch.zeros(6, 5, requires_grad=True)

    def gradients():
        loss = functional.cross_entropy(net(images, [soft(torch.softmax(alpha, 1))]), labels)
        return torch.autograd.grad(loss, [alpha, *net.parameters()])

    merged = gradients()
    net.merge = False
    for a, b in zip(merged, gradients(), strict=True):
        assert torch.allclose(a, b, rtol=1e-2, atol=1e-4)


def test_merged_in_bfloat16():
    """Mixed precision: finite, and near single precision."""
    _, loss, net, alpha = mixture({**SMALL, "n": 16, "side": 8})
    exact = float(loss().detach())
    with torch.autocast("cpu", torch.bfloat16):
        rough = loss()
    rough.backward()
    assert abs(float(rough.detach()) - exact) < 0.1
    assert all(torch.isfinite(p.grad).all() for p in (alpha, *net.parameters()))
