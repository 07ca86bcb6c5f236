"""Supernets measured on the way: the measurements by hand, searches that they leave alone, files, the command."""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_supernets import TinyImages
from torch import Tensor
from typer.testing import CliRunner

import nasharness as nh
from nasharness.benchmarks.datasets import TaskImages
from nasharness.benchmarks.spaces.base import Architecture
from nasharness.harness import checkpoint
from nasharness.harness import supernets as module
from nasharness.harness.report.supernets import pooled_tau
from nasharness.harness.supernets import SupernetError, SupernetRun, SupernetStudy, evaluation_points
from nasharness.optimizers.supernet.images import Batch
from nasharness.optimizers.supernet.training import DifferentiableOptimizer, SupernetOptimizer

DARTS = "nasharness.optimizers.darts:DARTS(channels=4,batch_size=16)"


class Paths(SupernetOptimizer):
    """Trains a random path per step and proposes any architecture."""

    def step(self, batch: Batch, held_out: Batch) -> None:
        self.update_weights(self.loss(batch, self.supernet.paths(self.space.sample(self.rng)), count=True))

    def propose(self) -> Architecture:
        return self.space.sample(self.rng)


class Noisy(DifferentiableOptimizer):
    """A mixture that is drawn anew for every pass."""

    def gate(self, alpha: Tensor) -> Tensor:
        noise = torch.rand(alpha.shape, generator=self.generator).to(alpha)
        return torch.softmax(alpha + noise, dim=1)

    def strengths(self) -> list[np.ndarray]:
        return [torch.softmax(alpha, dim=1).detach().numpy().astype(np.float64) for alpha in self.alphas]


@pytest.fixture(scope="module")
def tiny() -> Any:
    found = copy.copy(nh.load("digits201"))
    found.attach_images(TaskImages(TinyImages()))
    return found


def study_of(tiny: Any, methods: Any = (DARTS,), **given: Any) -> SupernetStudy:
    return nh.supernets(list(methods), tiny, **{"seeds": 1, "n": 12, "points": 2, "epochs": 3, **given})


def same(a: SupernetRun, b: SupernetRun) -> None:
    """Everything but measured seconds and memory."""
    assert np.array_equal(a.proposals, b.proposals)
    assert np.array_equal(a.eigenvalues, b.eigenvalues, equal_nan=True)
    assert all(np.array_equal(a.inherited[mode], b.inherited[mode]) for mode in module.MODES)
    for name in set(a.series) - {"seconds"}:
        assert np.array_equal(a.series[name], b.series[name], equal_nan=True), name
    assert all(np.array_equal(a.weights[table], b.weights[table]) for table in a.weights)


def test_points_are_spaced_evenly() -> None:
    assert evaluation_points(25, 3) == [8, 17, 25]
    assert evaluation_points(4, 2) == [2, 4]
    assert evaluation_points(2, 5) == [1, 2]


def test_measuring_leaves_the_search_alone(tiny: Any) -> None:
    """Proposals are those of `run`, also of methods whose mixture or proposal is drawn."""
    for method in (DARTS, Paths, Noisy):
        study = study_of(tiny, [method], n=3)
        spec = module.optimizer_spec(method)
        spec = module.dataclasses.replace(spec, parameters={**spec.parameters, "epochs": 3})
        run = nh.run(spec, tiny, 100)
        assert np.array_equal(study.runs[0].proposals, run.trials.arch)


def test_numbers_by_hand(tiny: Any) -> None:
    """Inherited accuracies, tau and the place among random architectures, each computed plainly."""
    study = study_of(tiny)
    (run,) = study.runs
    job = module.optimizer_spec(DARTS)
    spec = module.dataclasses.replace(job, parameters={**job.parameters, "epochs": 3})
    rng, _ = module.generators(0, tiny.id, spec.seeded_by, 0)
    optimizer: Any = spec.make(tiny.space, rng, task=module.supernet_task(tiny))
    for _ in range(3):
        optimizer.ask()
    assert run.points.tolist() == [2, 3]
    held_out = optimizer.images.part("architecture")
    for i, arch in enumerate(study.archs.tolist()):
        with torch.no_grad():
            guess = optimizer.supernet(held_out.images, optimizer.supernet.paths(tuple(arch))).argmax(1)
        assert run.inherited["batch"][-1, i] == float((guess == held_out.targets).double().mean())
    with torch.no_grad():
        mixed = optimizer.supernet(held_out.images, optimizer.mixes()).argmax(1)
    assert run.series["mixture_accuracy"][-1] == float((mixed == held_out.targets).double().mean())
    assert np.allclose(run.weights["cell"][-1], optimizer.strengths()[0].mean(axis=0))

    x, y = run.inherited["batch"][-1], study.test_accuracy
    pairs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in itertools.combinations(range(12), 2)]
    untied = math.sqrt(sum(a != 0 for a, _ in pairs) * sum(b != 0 for _, b in pairs))
    expected = sum(a * b for a, b in pairs) / untied if untied else math.nan
    assert study.summary().rows[0].tau_batch.value == pytest.approx(expected, nan_ok=True)

    every = tiny.final_many(np.array(list(tiny.space), dtype=np.int16)).test_accuracy.astype(np.float64)
    proposal = run.proposals[-1].tolist()
    mine = tiny.final(tuple(proposal)).test_accuracy
    assert run.series["better_than_random"][-1] == pytest.approx(np.mean(every < mine) + np.mean(every == mine) / 2)
    assert study.regret(run)[-1] == pytest.approx(every.max() - mine)
    assert run.series["skip_share"][-1] == proposal.count(1) / 6
    assert run.saved_bytes > 0


def test_disconnected_cells(tiny: Any) -> None:
    """By following every path through the cell."""
    archs = np.array(
        [(0, 0, 0, 0, 0, 0), (1, 0, 0, 0, 0, 0), (0, 0, 0, 2, 0, 0), (1, 0, 3, 0, 0, 4), (1, 0, 0, 0, 0, 4)]
    )
    paths = ((3,), (0, 4), (1, 5), (0, 2, 5))
    expected = [not any(all(arch[e] for e in path) for path in paths) for arch in archs.tolist()]
    assert module.disconnected(tiny.space, archs).tolist() == expected


def test_pooled_tau() -> None:
    """The mean over runs; equal runs say no more than one; an order against the other cancels it."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=40)
    x = y + rng.normal(size=40)
    one, twice = pooled_tau(x[None], y), pooled_tau(np.stack((x, x)), y)
    assert (one.value, one.low < one.value < one.high) == (twice.value, True)
    assert (twice.low, twice.high) == pytest.approx((one.low, one.high))
    assert pooled_tau(np.stack((x, -x)), y).value == pytest.approx(0.0)
    assert math.isnan(pooled_tau(np.ones((1, 40)), y).value)


class _Stop(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("after", [1, 2, 4])
def test_an_interrupted_run_goes_on_bit_for_bit(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(checkpoint, "EVERY_SECONDS", 0.0)
    whole = study_of(tiny, [Noisy])

    def interrupt(done: int, total: int) -> None:
        if done >= after:
            raise _Stop

    with pytest.raises(_Stop):
        study_of(tiny, [Noisy], out=tmp_path, progress=interrupt)
    (kept,) = (tmp_path / "runs").iterdir()
    assert kept.suffix == ".pt"
    same(study_of(tiny, [Noisy], out=tmp_path).runs[0], whole.runs[0])
    (kept,) = (tmp_path / "runs").iterdir()
    assert kept.suffix == ".npz"
    monkeypatch.setattr(Noisy, "ask", None)  # a finished run is not trained again
    same(study_of(tiny, [Noisy], out=tmp_path).runs[0], whole.runs[0])


@pytest.mark.parametrize(
    ("methods", "given", "message"),
    [
        (["random_search"], {}, "random_search trains no supernet"),
        ([Paths, Paths], {}, "given twice"),
        ([], {}, "no method"),
        ([Paths], {"seeds": 0}, "seeds must be a whole number from 1, not 0"),
        ([Paths], {"n": 1}, "n must be a whole number from 2"),
        ([Paths], {"epochs": -1}, "epochs"),
        ([Paths], {"device": "abacus"}, "abacus"),
    ],
)
def test_mistakes_are_answered(tiny: Any, methods: Any, given: Any, message: str) -> None:
    with pytest.raises(SupernetError, match=message):
        study_of(tiny, methods, **given)


def test_report(tiny: Any, tmp_path: Path) -> None:
    """All files; methods without parameters are named in the table and left out of the figures on these."""
    study = study_of(tiny, [DARTS, Paths], seeds=2, epochs=2, points=1, n=4)
    page = study.report(tmp_path).read_text()
    assert "Paths" in page
    lines = {name: (tmp_path / f"{name}.csv").read_text().splitlines() for name in ("summary", "epochs", "inherited")}
    assert {name: len(found) - 1 for name, found in lines.items()} == {"summary": 2, "epochs": 8, "inherited": 16}
    assert "toprule" in (tmp_path / "table.tex").read_text()
    assert len(study.frame()) == 8
    drawn = {file.stem for file in (tmp_path / "figures").iterdir()}
    assert drawn >= {"tau", "inherited", "weights", "regret", "skips", "drop"}


def test_command(tmp_path: Path) -> None:
    from nasharness.harness.cli import app

    method = "nasharness.optimizers.darts:DARTS(channels=4,images=16)"
    arguments = ["supernet", "--method", method, "--seeds", "1", "--n", "10", "--points", "1", "--epochs", "1"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path), "--json"], catch_exceptions=False)
    found = json.loads(done.stdout)
    assert found["methods"][0]["method"].startswith("darts")
    assert Path(found["report"]).is_file()
