"""A search that trains by itself goes on from its checkpoint, and ignores what is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_supernets import tiny_task

import nasharness as nh
from nasharness.harness import checkpoint as module
from nasharness.harness import run as run_module
from nasharness.harness.checkpoint import Checkpoint, checkpoint_path
from nasharness.harness.study import compare
from nasharness.optimizers.darts import DARTS

SPEC = "darts(epochs=4)"


class Interrupted(DARTS):
    """Interrupted in its third epoch, the first time."""

    armed = True

    def step(self, batch: Any, held_out: Any) -> None:
        if self.epoch == 2 and type(self).armed:
            type(self).armed = False
            raise KeyboardInterrupt
        super().step(batch, held_out)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.0)
    monkeypatch.setattr(run_module, "supernet_task", lambda benchmark: tiny_task())
    monkeypatch.setattr(Interrupted, "armed", True)


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    digits = nh.load("digits201")
    path = tmp_path / "run.pt"
    spec = nh.harness.registry.optimizer_spec(Interrupted)
    with pytest.raises(KeyboardInterrupt):
        nh.run(spec, digits, 3, checkpoint=path)
    assert path.exists()
    trained: list[int] = []
    real = DARTS._train_epoch

    def counted(self: DARTS) -> None:
        trained.append(self.epoch)
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DARTS, "_train_epoch", counted)
        resumed = nh.run(spec, digits, 3, checkpoint=path)
    whole = nh.run(spec, digits, 3)
    assert trained == [2]  # the first two epochs were not trained again
    assert resumed.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("content", [b"", b"junk", None], ids=["empty", "junk", "of another run"])
def test_what_is_no_checkpoint_of_this_run_is_ignored(tmp_path: Path, content: bytes | None) -> None:
    digits = nh.load("digits201")
    path = tmp_path / "run.pt"
    if content is None:
        nh.run(SPEC, digits, 2, seed=5, checkpoint=path)
    else:
        path.write_bytes(content)
    assert nh.run(SPEC, digits, 2, checkpoint=path).fingerprint() == nh.run(SPEC, digits, 2).fingerprint()


def test_a_checkpoint_holds_no_code(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    nh.run(SPEC, nh.load("digits201"), 2, checkpoint=path)
    assert set(torch.load(path, weights_only=True)) == {"identity", "state"}


def test_a_run_survives_a_checkpoint_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(nh.run(SPEC, nh.load("digits201"), 2, checkpoint=tmp_path / "file" / "run.pt").trials) == 2


def test_tabular_runs_keep_none(tmp_path: Path) -> None:
    nh.run("random_search", nh.load("digits201"), 5, checkpoint=tmp_path / "run.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_study_goes_on_and_cleans_up(tmp_path: Path) -> None:
    out = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        compare([Interrupted], "digits201", 3, repetitions=1, out=out)
    assert checkpoint_path(out, "Interrupted", 0).exists()
    study = compare([Interrupted], "digits201", 3, repetitions=1, out=out)
    assert len(study.runs) == 1
    assert not (out / "checkpoints").exists()


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoint(tmp_path / "run.pt", {"run": 1})
    kept.write({"value": 1})

    def broken(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="no space"):
        kept.write({"value": 2})
    assert kept.read() == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]
