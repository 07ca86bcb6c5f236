"""How the weights of lc_pfn were made: the prior of learning curves, and the training on draws from it.

Adriaensen, Rakotoarison, Müller and Hutter, "Efficient Bayesian Learning Curve Extrapolation using Prior-Data Fitted Networks",
NeurIPS 2023, https://arxiv.org/abs/2310.20447; the prior as in the authors' code, automl/lcpfn (`domhan_prior.py`, "peaked").

    y(t)      = w1 pow3(t) + w2 ilog2(t) + w3 janoschek(t),    t = 1..100,    w ~ U(0, 1), not normalised
    pow3      = c - a t^-alpha                     c ~ U(0, 1.25), a ~ U(-0.6, 0.6), ln alpha ~ N(0, 2)
    ilog2     = c - a / ln(t + 1)                  c ~ U(0, 1), a ~ U(-0.5, 0.5)
    janoschek = a - (a - beta) exp(-k t^delta)     a ~ U(0, 1), beta ~ U(0, 2), ln k ~ N(-2, 1), ln delta ~ N(0, 0.5)
    observed  = y(t) + N(0, s)                     ln s ~ N(-4, 1), one s for a curve

The second parameter of N is a standard deviation. Drawn again unless y(100) > y(1) and all of y(1..100), before the noise, is in
[0, 1]. The end that is predicted is a noisy one, as in the authors' code.

    python -m nasharness.predictors.lc_pfn_training --out lc_pfn.safetensors

trains and then prints how well curves of the prior are predicted. It goes on from the checkpoint next to `--out` after having
been killed: a batch depends on the seed and its number only, so that an interrupted run gives what an uninterrupted one gives.
Needs torch; `lc_pfn` itself does not.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .base import Curves
from .lc_pfn import HEADS, LCPFN, STEPS, BarPrediction, Bars, features, layers_of

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]

SHAPE = {"width": 64, "layers": 4, "hidden": 192, "bins": 200}
_BORDER_CURVES = 100_000  # draws of the prior whose quantiles are the borders of the bins
_EPS = 1e-12


class PriorDraw(NamedTuple):
    """Curves of the prior.

    Attributes:
        clean: float64 `(n, epochs)`, before the noise.
        noisy: float64 `(n, epochs)`, what a training would show.
        noise: float64 `(n,)`, standard deviation of the noise.
    """

    clean: Floats
    noisy: Floats
    noise: Floats


def curve_values(parameters: Floats, t: Floats) -> Floats:
    """The sum of the three families.

    Args:
        parameters: `(n, 12)`: three weights; c, a and alpha of pow3; c and a of ilog2; a, beta, k and delta of janoschek.
        t: `(m,)`, in steps of the prior, above 0.

    Returns:
        `(n, m)`.
    """
    w1, w2, w3, c, a, alpha, ci, ai, aj, beta, k, delta = parameters.T[:, :, None]
    pow3 = c - a * t**-alpha
    ilog2 = ci - ai / np.log(t + 1)
    janoschek = aj - (aj - beta) * np.exp(-k * t**delta)
    return np.asarray(w1 * pow3 + w2 * ilog2 + w3 * janoschek)


def _proposals(rng: np.random.Generator, n: int) -> Floats:
    columns = [
        *rng.uniform(0, 1, (3, n)),
        rng.uniform(0, 1.25, n),
        rng.uniform(-0.6, 0.6, n),
        np.exp(rng.normal(0, 2, n)),
        rng.uniform(0, 1, n),
        rng.uniform(-0.5, 0.5, n),
        rng.uniform(0, 1, n),
        rng.uniform(0, 2, n),
        np.exp(rng.normal(-2, 1, n)),
        np.exp(rng.normal(0, 0.5, n)),
    ]
    return np.stack(columns, axis=1)


def _grid(epochs: int) -> Floats:
    """Steps of the prior at which `epochs` equally long epochs end."""
    return np.asarray(np.arange(1, epochs + 1) * (STEPS / epochs))


def draw_prior(rng: np.random.Generator, n: int, epochs: int = STEPS) -> PriorDraw:
    """Draw curves of the prior, seen after each of `epochs` equal parts of the prior's 100 steps.

    Args:
        rng: the only source of chance.
        n: how many.
        epochs: 100 is the prior itself; fewer show the same curves at 100/epochs, 200/epochs, ... 100.
    """
    grid = np.arange(1, STEPS + 1, dtype=np.float64)
    kept: list[Floats] = []
    missing = n
    while missing > 0:
        candidates = _proposals(rng, 3 * missing + 50)
        ends = curve_values(candidates, grid[[0, -1]])  # most are rejected by their ends: the others are worth the grid
        fine = (ends[:, 1] > ends[:, 0]) & (ends >= 0).all(axis=1) & (ends <= 1).all(axis=1)
        candidates = candidates[fine]
        values = curve_values(candidates, grid)
        kept.append(candidates[((values >= 0) & (values <= 1)).all(axis=1)])
        missing = n - sum(len(k) for k in kept)
    parameters = np.concatenate(kept)[:n]
    clean = curve_values(parameters, _grid(epochs))
    noise = np.exp(rng.normal(-4, 1, n))
    return PriorDraw(clean, clean + noise[:, None] * rng.standard_normal(clean.shape), noise)


def prior_borders(rng: np.random.Generator, bins: int) -> Floats:
    """Borders `(bins + 1,)` between which the prior's ends fall equally often.

    The outermost two halve the first and the last bin, as the half-normal tails of `Bars` have it: the extremes of a sample would
    make these bins, and with them the standard deviation of every prediction, as wide as the sample is large.
    """
    ends = draw_prior(rng, _BORDER_CURVES).noisy[:, -1]
    levels = np.linspace(0, 1, bins + 1)
    levels[[0, -1]] = 0.5 / bins, 1 - 0.5 / bins
    return np.asarray(np.quantile(ends, levels))


# ------------------------------------------------------------------------------------------------------------ training


def initial_weights(generator: torch.Generator, shape: Mapping[str, int], borders: Floats) -> dict[str, torch.Tensor]:
    """Random weights; names and shapes are those of the file, see `lc_pfn.forward`."""
    import torch

    width, hidden = shape["width"], shape["hidden"]
    n_features = features(np.zeros((1, 1)), np.ones(1)).shape[-1]

    def linear(name: str, n_in: int, n_out: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
        weight = torch.randn((n_in, n_out), generator=generator) * (scale / math.sqrt(n_in))
        return {f"{name}.weight": weight, f"{name}.bias": torch.zeros(n_out)}

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}

    deep = 1 / math.sqrt(2 * shape["layers"])  # what a layer adds starts small, however many there are
    weights = linear("embed", n_features, width)
    for i in range(shape["layers"]):
        weights |= norm(f"{i}.norm1") | linear(f"{i}.qkv", width, 3 * width) | linear(f"{i}.mix", width, width, deep)
        weights |= norm(f"{i}.norm2") | linear(f"{i}.up", width, hidden) | linear(f"{i}.down", hidden, width, deep)
    weights |= norm("norm") | linear("bins", width, shape["bins"], 0.1)
    return weights | {"borders": torch.tensor(borders, dtype=torch.float32)}


def forward(weights: Mapping[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """The network of `lc_pfn.forward` in torch, at all epochs: `(n, m, features)` to logits `(n, m, bins)`."""
    from torch.nn.functional import layer_norm, linear, relu, scaled_dot_product_attention

    def norm(name: str, h: torch.Tensor) -> torch.Tensor:
        return layer_norm(h, (h.shape[-1],), weights[f"{name}.weight"], weights[f"{name}.bias"])

    def dense(name: str, h: torch.Tensor) -> torch.Tensor:
        return linear(h, weights[f"{name}.weight"].T, weights[f"{name}.bias"])

    h = dense("embed", x)
    n, m, width = h.shape
    for i in range(layers_of(weights)):
        parts = dense(f"{i}.qkv", norm(f"{i}.norm1", h)).view(n, m, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        h = h + dense(f"{i}.mix", seen.transpose(1, 2).reshape(n, m, width))
        h = h + dense(f"{i}.down", relu(dense(f"{i}.up", norm(f"{i}.norm2", h))))
    return dense("bins", norm("norm", h))


class _Batch(NamedTuple):
    x: torch.Tensor  # (n, m, features)
    bin: torch.Tensor  # (n,) in which bin each curve ends
    log_density: torch.Tensor  # (n,) of the end within its bin


def _batch(rng: np.random.Generator, n: int, epochs: int, bars: Bars) -> _Batch:
    import torch

    noisy = draw_prior(rng, n, epochs).noisy
    x = features(noisy[:, :-1], _grid(epochs)[:-1])
    which, density = bars.locate(noisy[:, -1])
    return _Batch(
        torch.from_numpy(x.astype(np.float32)),
        torch.from_numpy(which),
        torch.from_numpy(np.log(density).astype(np.float32)),
    )


def _epochs_of_batch(rng: np.random.Generator) -> int:
    """Half of the batches are the prior's 100 steps; the others 2..99, log-uniformly, so that short trainings are met, too."""
    return STEPS if rng.random() < 0.5 else int(np.exp(rng.uniform(math.log(2), math.log(STEPS))))


def train(
    out: Path, *, steps: int, tokens: int = 6336, rate: float = 2e-3, seed: int = 0, save_every: int = 100
) -> Path:
    """Train, or go on training, and write the weights.

    Args:
        out: the file of weights to write; the checkpoint is `<out>.checkpoint`, and is left there.
        steps: batches in all.
        tokens: observed epochs in a batch; 6,336 are 64 curves of 99.
        rate: highest learning rate of AdamW; rising over 5 % of the steps, then falling to 0 along a cosine.
        seed: of the initial weights and of all batches.
        save_every: steps between two checkpoints.
    """
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    borders = prior_borders(np.random.default_rng([seed, 0]), SHAPE["bins"]).astype(np.float32).astype(np.float64)
    bars = Bars(borders)
    weights = initial_weights(torch.Generator().manual_seed(seed), SHAPE, borders)
    learned = [w.requires_grad_() for name, w in weights.items() if name != "borders"]
    optimizer = torch.optim.AdamW(learned, lr=rate, betas=(0.9, 0.98), weight_decay=1e-2)
    first, spent, checkpoint = 0, 0.0, out.with_name(out.name + ".checkpoint")
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first, spent = state["step"], state["seconds"]
        optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for name, w in weights.items():
                w.copy_(state["weights"][name])
    started, recent = time.process_time() - spent, []
    for step in range(first, steps):
        rng = np.random.default_rng([seed, 1, step])
        epochs = _epochs_of_batch(rng)
        batch = _batch(rng, min(1024, tokens // (epochs - 1)), epochs, bars)
        warm_up = max(1, steps // 20)
        share = (
            step / warm_up if step < warm_up else 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        logits = forward(weights, batch.x)
        n, m, bins = logits.shape
        loss = cross_entropy(logits.reshape(n * m, bins), batch.bin.repeat_interleave(m)) - batch.log_density.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        if epochs == STEPS:
            recent.append(float(loss.detach()))
        if (step + 1) % save_every == 0 or step + 1 == steps:
            seconds = time.process_time() - started
            state = {
                "step": step + 1,
                "seconds": seconds,
                "weights": {k: v.detach() for k, v in weights.items()},
                "optimizer": optimizer.state_dict(),
            }
            temporary = checkpoint.with_name(checkpoint.name + ".tmp")
            torch.save(state, temporary)
            temporary.replace(checkpoint)
            mean = float(np.mean(recent[-50:])) if recent else math.nan
            print(f"step {step + 1} of {steps}: {mean:.3f} nats, {seconds:.0f} CPU seconds", flush=True)  # noqa: T201
    save_weights(
        out, {k: v.detach().numpy() for k, v in weights.items()}, {"steps": steps, "tokens": tokens, "seed": seed}
    )
    return out


def save_weights(out: Path, weights: Mapping[str, npt.NDArray[Any]], made: Mapping[str, Any]) -> None:
    """Write the weights as float16, the borders as float32; how they were made goes into the metadata."""
    from safetensors.numpy import save

    arrays = {
        k: np.ascontiguousarray(v, dtype=np.float32 if k == "borders" else np.float16) for k, v in weights.items()
    }
    out.write_bytes(save(arrays, metadata={"nasharness": json.dumps({**SHAPE, **made}, sort_keys=True)}))


# ---------------------------------------------------------------------------------------------------------- evaluation


class Row(NamedTuple):
    """How well curves are predicted from their first epochs.

    Attributes:
        epochs: observed.
        nats: mean of -ln q(y_T); the uniform distribution on [0, 1] has 0.
        nats_last: the same of the best normal distribution around the last value, its deviation fitted to these very curves.
        rmse: of the mean.
        rmse_last: of the last value.
        coverage: share of ends within the central 80 % of the prediction.
    """

    epochs: int
    nats: float
    nats_last: float
    rmse: float
    rmse_last: float
    coverage: float


def evaluate(predictor: LCPFN, curves: Curves, checks: Sequence[int]) -> list[Row]:
    """Judge predictions of complete curves from their first epochs."""
    rows = []
    for m in checks:
        prediction = predictor.predict(curves.observed(m))
        assert isinstance(prediction, BarPrediction)
        error, last = curves.final - prediction.mean, curves.final - curves.accuracy[:, m - 1]
        above = predictor.bars.above(prediction.masses, curves.final)
        rows.append(
            Row(
                m,
                -float(predictor.bars.log_density(prediction.masses, curves.final).mean()),
                0.5 * math.log(2 * math.pi * math.e * float(np.mean(last**2))),
                math.sqrt(np.mean(error**2)),
                math.sqrt(np.mean(last**2)),
                float(np.mean((above > 0.1) & (above < 0.9))),
            )
        )
    return rows


def prior_curves(rng: np.random.Generator, n: int, epochs: int = STEPS) -> Curves:
    """Complete trainings whose curves are draws of the prior; their architectures and seconds mean nothing."""
    nothing = np.zeros(n, dtype=np.int64)
    seconds = np.tile(np.arange(1.0, epochs + 1), (n, 1))
    noisy = draw_prior(rng, n, epochs).noisy
    return Curves(noisy, epochs, nothing[:, None], (1,), seconds, None, nothing, np.arange(n))


def print_table(rows: Sequence[Row]) -> None:
    """A table for `data/README.md`."""
    print("| epochs | nats | last value | rmse | last value | coverage of 80 % |\n" + "| --- " * 6 + "|")  # noqa: T201
    for r in rows:
        print(  # noqa: T201
            f"| {r.epochs} | {r.nats:.2f} | {r.nats_last:.2f} | {r.rmse:.4f} | {r.rmse_last:.4f} | {r.coverage:.3f} |"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m nasharness.predictors.lc_pfn_training`."""
    parser = argparse.ArgumentParser(description="Train the network of lc_pfn on its prior.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    train(given.out, steps=given.steps, seed=given.seed)
    rng = np.random.default_rng([given.seed, 2])
    predictor = LCPFN(rng, weights=str(given.out))
    for epochs in (STEPS, 20, 6):
        print(f"\nCurves of the prior in {epochs} epochs\n")  # noqa: T201
        checks = sorted({max(1, epochs * share // 100) for share in (1, 5, 10, 20, 50, 80)})
        print_table(evaluate(predictor, prior_curves(rng, 5000, epochs), checks))


if __name__ == "__main__":
    main()
