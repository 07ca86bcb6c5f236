"""Passes through a network that several proxies share.

A `PassProxy` asks for passes by yielding them, and whoever runs it makes each pass once for all that asked for the same:

    class GradNorm(PassProxy):
        def watch(self, network, images):
            result = yield Pass("loss")
            return sum(float(g.norm()) for g in result.gradients)

The kinds of pass:
    forward   one forward pass; hooks see every layer. Without an autograd graph, unless another proxy needs one.
    loss      forward, cross-entropy with the labels, gradients of the weights of every convolution and linear layer.
    jacobian  forward, gradients of the sum of all logits with respect to the images.
    flow      batch normalisation is the identity, every parameter its absolute value, everything float64, one image of
              ones; gradients of the sum of the outputs (Tanaka et al., "Pruning neural networks without any data by
              iteratively conserving synaptic flow", NeurIPS 2020, Algorithm 1).

In the first three the network is in train mode, as every published proxy has it: batch normalisation by the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import UNSCORABLE, Proxy, finite
from .layers import batch_norms, restored, weighted_layers

Kind: TypeAlias = Literal["forward", "loss", "jacobian", "flow"]
Hook: TypeAlias = Callable[[nn.Module, Any, Any], None]


@dataclass(frozen=True)
class Pass:
    """A pass that a proxy asks for.

    Attributes:
        kind: see the head of this file.
        start, stop: which of the proxy's images; None for from the first, or to the last. A flow pass looks at none.
        hooks: forward hooks `hook(module, inputs, output)` that are in place during this pass only. A hook that wants the
            gradient of the loss with respect to an output registers a hook on that tensor, which has to remove itself when
            it fires: the same graph may be used for a Jacobian afterwards.
    """

    kind: Kind
    start: int | None = None
    stop: int | None = None
    hooks: Sequence[tuple[nn.Module, Hook]] = ()


@dataclass(frozen=True)
class Result:
    """What a pass gave; nothing in it may be changed, others read it too.

    Attributes:
        layers: the weighted layers of the network, see `layers.weighted_layers`.
        weights: their weights as they were during the pass, detached.
        outputs: the network's, detached.
        labels: of the images of the pass, `(n,)`; of a flow pass, of all images.
        gradients: of "loss" and "flow", one per weight, zero where a layer does not take part. Else empty.
        jacobian: of "jacobian", `(n, channels * height * width)`. Else None.
    """

    layers: Sequence[nn.Conv2d | nn.Linear]
    weights: Sequence[Tensor]
    outputs: Tensor
    labels: Tensor
    gradients: Sequence[Tensor] = ()
    jacobian: Tensor | None = None


Watch: TypeAlias = Generator[Pass, Result, float]


class PassProxy(Proxy):
    """A proxy that watches passes which others may share. Subclasses implement `watch` instead of `score`.

    Attributes:
        alone: True where nothing can be shared, because `score` changes the network before it looks at passes.
    """

    alone: bool = False

    def watch(self, network: nn.Module, images: Tensor) -> Watch:
        """A generator: yields each `Pass` that it wants, is sent its `Result`, returns the score.

        It must change neither the network nor a result.
        """
        raise NotImplementedError(f"{type(self).__name__} has to implement watch")

    def score(self, network: nn.Module, images: Tensor, labels: Tensor) -> float:
        """The score by passes that nobody shares."""
        with _ready(network, self.rng) as sound:
            watch, result = self.watch(network, images), None
            while True:
                try:
                    wanted = next(watch) if result is None else watch.send(result)
                except StopIteration as done:
                    return finite(done.value) if sound() else UNSCORABLE
                job = _Job(0, watch, wanted, wanted.start or 0, _stop(wanted, len(images)))
                (result,) = _make([job], network, images, labels)


@contextmanager
def _ready(network: nn.Module, rng: torch.Generator) -> Iterator[Callable[[], bool]]:
    """The network as proxies want it, put back at the end: train mode, every parameter with a gradient.

    What a network draws itself, such as dropout, follows from the generator's seed. Gives a function that tells whether all
    its outputs so far were finite.
    """
    finite_outputs = [True]

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            finite_outputs.append(bool(torch.isfinite(output).all()))

    devices = {p.device.index for p in network.parameters() if p.device.type == "cuda"}
    with restored(network), torch.enable_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(rng.initial_seed())
        network.train()
        network.requires_grad_(True)
        handle = network.register_forward_hook(look)
        try:
            yield lambda: all(finite_outputs)
        finally:
            handle.remove()


@dataclass
class Measured:
    """What one proxy measured of one network.

    Attributes:
        values: the proxy's `parts`; -inf where a number was not finite.
        seconds: what it would have taken alone: its own computing and the passes that it takes part in.
        error: why the network could not be measured, or "".
    """

    values: tuple[float, ...]
    seconds: float = 0.0
    error: str = ""


def measure_together(
    proxies: Sequence[Proxy], network: nn.Module, images: Tensor, labels: Tensor, *, catch: bool = False
) -> list[Measured]:
    """Apply several proxies to one network, with every pass that several of them need made once.

    Args:
        proxies: each is given its first `n_images` images, or all where there are fewer.
        network: left as it was found.
        images: float32 `(n, channels, height, width)`.
        labels: int64 `(n,)`.
        catch: keep an exception of a proxy as its `error` and go on, instead of raising it.

    Returns:
        One `Measured` per proxy, in their order.
    """
    found = [Measured((UNSCORABLE,) * len(proxy.parts)) for proxy in proxies]
    jobs: list[_Job] = []

    def failed(place: int, error: Exception) -> None:
        # Of a matrix that is not finite: the network stays unscorable.
        if isinstance(error, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
            return
        if not catch:
            raise error
        found[place].error = f"{type(error).__name__}: {error}"

    def advance(job: _Job, result: Result | None) -> None:
        """Let a proxy compute until it wants another pass, or is done."""
        start = clock()
        try:
            wanted = next(job.watch) if result is None else job.watch.send(result)
        except StopIteration as done:
            found[job.place].values = (finite(done.value),)
        except Exception as error:
            failed(job.place, error)
        else:
            n = min(proxies[job.place].n_images, len(images))
            jobs.append(_Job(job.place, job.watch, wanted, wanted.start or 0, _stop(wanted, n)))
        found[job.place].seconds += clock() - start

    def alone(place: int) -> None:
        """Let a proxy do everything by itself, from its start."""
        proxy, start = proxies[place], clock()
        n = min(proxy.n_images, len(images))
        proxy.rng.set_state(states[place])
        try:
            with _ready(network, proxy.rng) as sound:
                values = proxy.measure(network, images[:n].clone(), labels[:n])
            found[place].values = tuple(finite(value) if sound() else UNSCORABLE for value in values)
        except Exception as error:
            failed(place, error)
        found[place].seconds = clock() - start

    clock = _clock(images.device)
    images = images.contiguous(memory_format=torch.channels_last)  # halves the time of convolutions and pools on a CPU
    states = [proxy.rng.get_state() for proxy in proxies]
    seed = proxies[0].rng if proxies else torch.Generator()
    with _ready(network, seed):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for place, proxy in enumerate(proxies):
            n = min(proxy.n_images, len(images))
            if isinstance(proxy, PassProxy) and not proxy.alone:
                advance(_Job(place, proxy.watch(network, images[:n]), Pass("forward"), 0, 0), None)
            else:
                alone(place)
        while jobs:
            together = [job for job in jobs if job.shares(jobs[0])]
            jobs[:] = [job for job in jobs if not job.shares(jobs[0])]
            try:
                results = _make(together, network, images, labels)
            except Exception as error:
                if len(together) == 1:
                    failed(together[0].place, error)
                else:  # one proxy's hook may be to blame: let each succeed or fail by itself
                    for job in together:
                        alone(job.place)
                continue
            if together[0].wanted.kind != "flow" and not torch.isfinite(results[0].outputs).all():
                continue  # a network whose outputs are not finite cannot be scored by what led to them
            for job, result in zip(together, results, strict=True):
                found[job.place].seconds += job.seconds
                advance(job, result)
    return found


def _clock(device: torch.device) -> Callable[[], float]:
    """Processor seconds on a CPU, so that a busy machine does not change them much; elapsed seconds of finished work on a GPU."""
    if device.type != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


@dataclass
class _Job:
    """A PassProxy that waits for a pass.

    Attributes:
        place: of the proxy among all.
        start, stop: the images, as numbers.
        seconds: of the pass without the others' hooks, once it was made.
    """

    place: int
    watch: Watch
    wanted: Pass
    start: int
    stop: int
    seconds: float = 0.0

    def shares(self, other: _Job) -> bool:
        """Whether one pass serves both."""
        if "flow" in (self.wanted.kind, other.wanted.kind):
            return self.wanted.kind == other.wanted.kind
        return (self.start, self.stop) == (other.start, other.stop)


def _stop(wanted: Pass, n: int) -> int:
    return n if wanted.stop is None else min(wanted.stop, n)


def _make(jobs: Sequence[_Job], network: nn.Module, images: Tensor, labels: Tensor) -> list[Result]:
    """Make the pass that all these jobs wait for, and note what it would have taken each of them alone."""
    clock = _clock(images.device)
    kinds = {job.wanted.kind for job in jobs}
    own = [0.0] * len(jobs)
    spent = dict.fromkeys(("forward", "loss", "jacobian", "flow"), 0.0)
    gradients: Sequence[Tensor] = ()
    jacobian: Tensor | None = None
    layers = weighted_layers(network)

    def timed(hook: Hook, i: int) -> Hook:
        def call(module: nn.Module, inputs: Any, output: Any) -> None:
            begin = clock()
            hook(module, inputs, output)
            own[i] += clock() - begin

        return call

    with ExitStack() as stack:
        for i, job in enumerate(jobs):
            for module, hook in job.wanted.hooks:
                stack.callback(module.register_forward_hook(timed(hook, i)).remove)
        if "flow" in kinds:
            begin = clock()
            weights, outputs, gradients = _flow(network, layers, images)
            spent["flow"] = clock() - begin
        else:
            batch = images[jobs[0].start : jobs[0].stop].clone()  # the network may write into it
            weights = [layer.weight.detach() for layer in layers]
            begin = clock()
            if kinds == {"forward"}:
                with torch.no_grad():  # not inference_mode: hooks want to know whether a tensor was written to
                    outputs = network(batch)
            else:
                if "jacobian" in kinds:
                    batch.requires_grad_()
                outputs = network(batch.clone() if batch.requires_grad else batch)
            spent["forward"] = clock() - begin
            if "loss" in kinds:
                begin = clock()
                loss = functional.cross_entropy(outputs, labels[jobs[0].start : jobs[0].stop])
                gradients = _gradients(loss, [layer.weight for layer in layers], retain="jacobian" in kinds)
                spent["loss"] = clock() - begin
            if "jacobian" in kinds:
                begin = clock()
                jacobian = _gradients(outputs.sum(), [batch])[0].flatten(1)
                spent["jacobian"] = clock() - begin
        outputs = outputs.detach()
        results = []
        for i, job in enumerate(jobs):
            kind = job.wanted.kind
            base = (
                spent["flow"] - sum(own)
                if kind == "flow"
                else spent["forward"] - sum(own) + (spent[kind] if kind != "forward" else 0.0)
            )
            job.seconds = base + own[i]
            results.append(
                Result(
                    layers,
                    weights,
                    outputs,
                    labels if kind == "flow" else labels[jobs[0].start : jobs[0].stop],
                    gradients if kind in ("loss", "flow") else (),
                    jacobian if kind == "jacobian" else None,
                )
            )
    return results


def _gradients(output: Tensor, of: Sequence[Tensor], *, retain: bool = False) -> list[Tensor]:
    """Gradients of a scalar; zeros where it does not depend on a tensor."""
    if not output.requires_grad:
        return [torch.zeros_like(t) for t in of]
    found = torch.autograd.grad(output, of, retain_graph=retain, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(of, found, strict=True)]


def _flow(
    network: nn.Module, layers: Sequence[nn.Conv2d | nn.Linear], images: Tensor
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Absolute weights of these layers, the output without batch normalisation, and the weights' gradients, all float64."""
    wanted = {id(layer.weight) for layer in layers}
    absolute = {
        name: p.detach().double().abs_().requires_grad_(id(p) in wanted) for name, p in network.named_parameters()
    }
    buffers = {name: b.double() if b.is_floating_point() else b for name, b in network.named_buffers()}
    place = {id(p): name for name, p in network.named_parameters()}
    weights = [absolute[place[id(layer.weight)]] for layer in layers]
    modes = [(m, m.training) for m in network.modules()]
    norms = batch_norms(network)
    network.eval()  # no dropout
    for norm in norms:
        norm.forward = _identity  # shadows the class's method until it is deleted below
    try:
        ones = torch.ones(1, *images.shape[1:], dtype=torch.float64, device=images.device)
        outputs = torch.func.functional_call(network, {**absolute, **buffers}, (ones,))
        found = _gradients(outputs.sum(), weights)
    finally:
        for norm in norms:
            del norm.forward
        for m, training in modes:
            m.training = training
    return [w.detach() for w in weights], outputs, found


def _identity(x: Tensor) -> Tensor:
    return x.clone()  # what follows may write into it
