"""The converter of NAS-Bench-201 and NATS-Bench, from every form of the files to columns and back to the same numbers."""

import bz2
import hashlib
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from nats_files import official_meta, official_states, small, write_legacy

from nasharness.benchmarks.columns import open_columns
from nasharness.benchmarks.convert import nats
from nasharness.benchmarks.convert.nats import Spool, convert, verify
from nasharness.benchmarks.formats.errors import FormatError
from nasharness.benchmarks.formats.nats import SPACES

TSS, SSS = "NATS-tss-v1_0-3ffb9-simple", "NATS-sss-v1_0-50262-simple"
PTH = "nb201_legacy_pth_layout_3archs.pth"


def write_folder(folder, infos, space="nasbench201", *, meta=True):
    folder.mkdir(exist_ok=True)
    for index, states in infos.items():
        (folder / f"{index:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(states, 4), 1))
    if meta:
        (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(official_meta(space), 4), 1))
    return folder


def assert_same(columns, infos):
    """Every number of the raw structures is in its column, read the slow way, and nothing else is there."""
    rows = {}
    for index in sorted(infos):
        for key, state in infos[index].items():
            schedule = {"full": "200", "less": "12"}.get(key, key)
            for dataset, seeds in state["dataset_seed"].items():
                group = f"{schedule}/{dataset}"
                assert columns[f"{group}/first"][index] == len(rows.setdefault(group, []))
                rows[group] += [(seed, state["all_results"][dataset, seed]) for seed in seeds]
                assert columns[f"{group}/first"][index + 1] == len(rows[group])
    assert set(columns.metadata["groups"]) == set(rows)
    assert columns.metadata["architectures"] == len(infos)
    seen = set()
    for group, trials in rows.items():
        described = columns.metadata["groups"][group]
        epochs = described["epochs"]

        def column(name, values, group=group):
            found = columns[f"{group}/{name}"]
            seen.add(f"{group}/{name}")
            assert np.array_equal(found, np.array(values), equal_nan=True), f"{group}/{name}"
            return found

        seen.add(f"{group}/first")
        assert columns[f"{group}/first"].shape == (SPACES[columns.metadata["space"]].size + 1,)
        assert columns[f"{group}/first"].dtype == columns[f"{group}/seed"].dtype == np.int32
        assert columns[f"{group}/first"][-1] == len(trials)
        column("seed", [seed for seed, _ in trials])
        column("params", [r["params"] for _, r in trials])
        column("flops", [r["flop"] for _, r in trials])
        column("latency", [sum(r["latency"]) / len(r["latency"]) if r["latency"] else math.nan for _, r in trials])
        column("train/accuracy", [[r["train_acc1es"][e] for e in range(epochs)] for _, r in trials])
        column("train/loss", [[r["train_losses"][e] for e in range(epochs)] for _, r in trials])
        times = np.array([[(r["train_times"] or {}).get(e, math.nan) for e in range(epochs)] for _, r in trials])
        column("train/seconds", constant(times))
        for name, stored in described["sets"].items():
            for field, raw in (("accuracy", "eval_acc1es"), ("loss", "eval_losses")):
                column(f"{name}/{field}", [[r[raw].get(f"{name}@{e}", math.nan) for e in stored] for _, r in trials])
            times = np.array([[r["eval_times"].get(f"{name}@{e}", math.nan) for e in range(epochs)] for _, r in trials])
            column(f"{name}/seconds", constant(times))
        stored = {name: set() for _, r in trials for name in r["eval_names"]}
        for _, result in trials:
            for key in result["eval_acc1es"]:
                stored[key.split("@")[0]].add(int(key.split("@")[1]))
        assert described["sets"] == {name: sorted(epochs) for name, epochs in stored.items()}
    assert seen == set(columns)


def constant(times):
    return times[:, :1] if ((times == times[:, :1]) | np.isnan(times)).all() else times


class TestForms:
    @pytest.mark.parametrize(("folder", "space"), [(TSS, "nasbench201"), (SSS, "nats_size")])
    def test_official_folders(self, shared_data, tmp_path, folder, space):
        source = shared_data / "official" / folder
        calls = []
        convert(source, tmp_path / "out" / "table", progress=lambda *call: calls.append(call))
        assert calls == [(1, 3), (2, 3), (3, 3)]
        columns = open_columns(tmp_path / "out" / "table", kind="nats")
        columns.verify()
        assert_same(
            columns,
            {i: pickle.loads(bz2.decompress((source / f"{i:06d}.pickle.pbz2").read_bytes())) for i in (0, 11, 284)},
        )
        lines = "".join(f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in sorted(source.iterdir()))
        assert columns.metadata["source_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
        assert (columns.metadata["space"], columns.metadata["source"]) == (space, folder)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["table"]
        failed = [fact for fact, holds in verify(columns) if not holds]
        assert failed == [f"all {SPACES[space].size:,} architectures of {space} are present"]

    def test_official_pth_is_the_same_table(self, shared_data, tmp_path):
        convert(shared_data / "official" / TSS, tmp_path / "folder")
        convert(shared_data / "official" / PTH, tmp_path / "pth", jobs=2)
        folder, pth = open_columns(tmp_path / "folder"), open_columns(tmp_path / "pth")
        assert folder.sha256 == pth.sha256 and list(folder) == list(pth)
        assert (
            pth.metadata["source_sha256"] == hashlib.sha256((shared_data / "official" / PTH).read_bytes()).hexdigest()
        )

    @pytest.mark.parametrize("space", SPACES)
    def test_all_forms_agree(self, tmp_path, space):
        infos = {i: official_states(space, i, numpy=True, schedules=["12", "01"]) for i in (700, 3, 12)}
        write_folder(tmp_path / "folder", infos, space)
        (tmp_path / "pickle").write_bytes(bz2.compress(pickle.dumps(official_meta(space, infos), 4), 1))
        write_legacy(tmp_path / "torch", official_meta(space, infos, old=True))
        for form in ("folder", "pickle", "torch"):
            convert(tmp_path / form, tmp_path / f"{form}.table")
            columns = open_columns(tmp_path / f"{form}.table", kind="nats")
            assert_same(columns, infos)
        assert len({open_columns(tmp_path / f"{form}.table").sha256 for form in ("folder", "pickle", "torch")}) == 1

    def test_version_1_0(self, tmp_path):
        infos = {
            i: official_states("nasbench201", i, seeds=seeds, old=True) for i, seeds in ((5, [777]), (2, [777, 999]))
        }
        for states in infos.values():
            for dataset in ("cifar10", "cifar100", "ImageNet16-120"):
                del states["less"]["all_results"][dataset, 111], states["less"]["dataset_seed"][dataset]
        write_legacy(tmp_path / "NAS-Bench-201-v1_0-e61699.pth", official_meta("nasbench201", infos, old=True))
        convert(tmp_path / "NAS-Bench-201-v1_0-e61699.pth", tmp_path / "table")
        columns = open_columns(tmp_path / "table")
        assert_same(columns, infos)
        assert (
            columns["200/cifar10/train/seconds"].shape == (3, 1)
            and np.isnan(columns["200/cifar10/train/seconds"]).all()
        )
        facts = dict(verify(columns))
        assert facts["12/: version 1.0 has cifar10-valid only"]

    def test_irregular_trials(self, tmp_path):
        """Trials of one group that store different epochs, sets and times."""
        infos = {i: small(index=i) for i in range(4)}
        results = [infos[i]["12"]["all_results"]["cifar100", 111] for i in range(4)]
        for field in ("eval_acc1es", "eval_losses"):
            for epoch in range(11):
                del results[0][field][f"x-valid@{epoch}"]
            del results[1][field]["x-valid@5"]
            for epoch in range(12):
                del results[3][field][f"x-test@{epoch}"]
        for epoch in range(12):
            del results[2]["eval_times"][f"ori-test@{epoch}"], results[3]["eval_times"][f"x-test@{epoch}"]
            results[3]["eval_times"][f"x-valid@{epoch}"] += epoch
            results[1]["train_times"][epoch] += epoch
        results[3]["eval_names"].remove("x-test")
        results[2].update(train_times=None, latency=None)
        write_folder(tmp_path / "folder", infos)
        convert(tmp_path / "folder", tmp_path / "table")
        columns = open_columns(tmp_path / "table")
        assert_same(columns, infos)
        assert columns["12/cifar100/x-valid/seconds"].shape == columns["12/cifar100/train/seconds"].shape == (4, 12)
        assert columns["12/cifar100/ori-test/seconds"].shape == (4, 1)

    def test_single_floats_where_they_are_exact(self, tmp_path):
        infos = {i: small(index=i) for i in range(2)}
        for states in infos.values():
            for result in states["12"]["all_results"].values():
                result["train_losses"] = {e: float(np.float32(x)) for e, x in result["train_losses"].items()}
        infos[1]["12"]["all_results"]["cifar100", 111]["train_losses"][3] = 0.1
        write_folder(tmp_path / "folder", infos)
        convert(tmp_path / "folder", tmp_path / "table")
        columns = open_columns(tmp_path / "table")
        assert columns["12/cifar10-valid/train/loss"].dtype == np.float32
        assert columns["12/cifar100/train/loss"].dtype == np.float64
        assert columns["12/cifar100/flops"].dtype == np.float32
        assert_same(columns, infos)

    def test_refusals(self, tmp_path):
        with pytest.raises(ValueError, match="jobs must be at least 1"):
            convert(tmp_path, tmp_path / "table", jobs=0)
        with pytest.raises(FileNotFoundError):
            convert(tmp_path / "nowhere", tmp_path / "table")
        (tmp_path / "tar").write_bytes(b"ustar")
        with pytest.raises(FormatError, match="expected a folder"):
            convert(tmp_path / "tar", tmp_path / "table")
        folder = write_folder(tmp_path / "mixed", {3: small(index=3)}, "nats_size")
        with pytest.raises(FormatError, match="mixes two spaces"):
            convert(folder, tmp_path / "table")
        (folder / "meta.pickle.pbz2").unlink()
        write_folder(folder, {4: official_states("nats_size", 4, schedules=["12"])}, meta=False)
        with pytest.raises(FormatError, match="architecture 4 is of nats_size"):
            convert(folder, tmp_path / "table2")
        assert not (tmp_path / "table").exists() and not (tmp_path / "table2").exists()


class TestJobs:
    def test_result_does_not_depend_on_jobs(self, tmp_path):
        source = write_folder(tmp_path / "folder", {i: small(index=i) for i in range(40)}, meta=False)
        for jobs in (1, 2):
            convert(source, tmp_path / f"{jobs}", jobs=jobs)
        assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()

    def test_errors_of_workers_arrive(self, tmp_path):
        source = write_folder(tmp_path / "folder", {i: small(index=i) for i in range(24)}, meta=False)
        (source / "000020.pickle.pbz2").write_bytes(b"BZh9")
        with pytest.raises(FormatError, match=r"000020\.pickle\.pbz2 is damaged"):
            convert(source, tmp_path / "table", jobs=2)
        assert not (tmp_path / "table").exists()
        write_folder(source, {20: small(index=20)}, meta=False)
        convert(source, tmp_path / "table", jobs=2)
        convert(source, tmp_path / "again")
        assert (tmp_path / "table").read_bytes() == (tmp_path / "again").read_bytes()

    @pytest.mark.skipif(sys.platform != "linux", reason="the limit is set where the memory in use can be read")
    def test_workers_have_a_memory_limit(self):
        script = """
            import os, sys
            from nasharness.benchmarks.convert.nats import _set_up_decoder
            _set_up_decoder(sys.path, os.getppid(), 1 << 28)
            bytearray(1 << 20)
            try:
                bytearray(1 << 29)
            except MemoryError:
                print("limited")
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "limited"


class Stop(Exception):
    pass


def stop_after(n):
    def progress(done, total):
        if done >= n:
            raise Stop

    return progress


class TestInterruptions:
    @pytest.fixture
    def source(self, tmp_path):
        return write_folder(tmp_path / "folder", {i: small(index=i) for i in range(10)}, meta=False)

    def test_folder_goes_on(self, source, tmp_path, monkeypatch):
        convert(source, tmp_path / "whole")
        for n in (1, 4, 9):
            with pytest.raises(Stop):
                convert(source, tmp_path / "table", progress=stop_after(n))
            assert not (tmp_path / "table").exists() and (tmp_path / "table.part").is_dir()
        decoded = []
        monkeypatch.setattr(
            nats, "_decode_file", lambda path, real=nats._decode_file: decoded.append(path) or real(path)
        )
        convert(source, tmp_path / "table")
        assert [path.name for path in decoded] == ["000009.pickle.pbz2"]
        assert (tmp_path / "table").read_bytes() == (tmp_path / "whole").read_bytes()
        assert not (tmp_path / "table.part").exists()

    @pytest.mark.parametrize("lost", [1, 5, 16, 100, 2000])
    def test_torn_log(self, source, tmp_path, lost):
        """A crash in the middle of a write: what is incomplete is decoded again."""
        convert(source, tmp_path / "whole")
        with pytest.raises(Stop):
            convert(source, tmp_path / "table", progress=stop_after(5))
        log = tmp_path / "table.part" / "architectures.log"
        os.truncate(log, log.stat().st_size - lost)
        with Spool(tmp_path / "table.part", source={"form": "folder", "name": "folder"}) as spool:
            assert list(spool.present) == [0, 1, 2, 3]
        convert(source, tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_damaged_log(self, source, tmp_path):
        convert(source, tmp_path / "whole")
        with pytest.raises(Stop):
            convert(source, tmp_path / "table", progress=stop_after(6))
        log = tmp_path / "table.part" / "architectures.log"
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 1
        log.write_bytes(data)
        convert(source, tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_changed_source(self, source, tmp_path):
        with pytest.raises(Stop):
            convert(source, tmp_path / "table", progress=stop_after(5))
        changed = small(index=2)
        changed["12"]["all_results"]["cifar100", 111]["flop"] = 16.5
        write_folder(source, {2: changed}, meta=False)
        with pytest.raises(FormatError, match="architecture 2 of folder has changed"):
            convert(source, tmp_path / "table")
        (source / "000002.pickle.pbz2").unlink()
        with pytest.raises(FormatError, match="architecture 2 of folder has changed"):
            convert(source, tmp_path / "table")
        with pytest.raises(FormatError, match="belongs to the conversion of"):
            convert(write_folder(tmp_path / "other", {1: small(index=1)}, meta=False), tmp_path / "table")

    def test_stream_starts_again(self, tmp_path):
        infos = {i: small(index=i) for i in range(5)}
        source = tmp_path / "file"
        source.write_bytes(bz2.compress(pickle.dumps(official_meta("nasbench201", infos), 4), 1))
        with pytest.raises(Stop):
            convert(source, tmp_path / "table", progress=stop_after(3))
        assert not (tmp_path / "table").exists()
        convert(source, tmp_path / "table")
        assert_same(open_columns(tmp_path / "table"), infos)

    @pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to one process")
    def test_ctrl_c(self, tmp_path):
        source = write_folder(tmp_path / "big", {i: small(index=i) for i in range(400)}, meta=False)
        script = """
            import sys
            from pathlib import Path
            from nasharness.benchmarks.convert.nats import convert
            convert(Path(sys.argv[1]), Path(sys.argv[2]), jobs=2, progress=lambda *n: print(*n, flush=True))
        """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), source, tmp_path / "table"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with SIGINT ignored, and children inherit that: here it must be as in a terminal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout.readline() == "1 400\n"
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert process.returncode != 0 and "KeyboardInterrupt" in errors and time.monotonic() - start < 30
        assert not (tmp_path / "table").exists()
        with Spool(tmp_path / "table.part", source={"form": "folder", "name": "big"}) as spool:
            assert 0 < len(spool.present) < 400 and list(spool.present) == list(range(len(spool.present)))


class TestSpool:
    def test_fills_a_table_from_structures(self, tmp_path):
        infos = {i: official_states("nats_size", i) for i in (9, 4)}
        with Spool(tmp_path / "spool") as spool:
            for index, states in infos.items():
                spool.add(index, states)
            with pytest.raises(FormatError, match="architecture 4 comes twice"):
                spool.add(4, infos[4])
            with pytest.raises(FormatError, match="architecture 4 where 5 is expected"):
                spool.add(5, infos[4])
            spool.finish(tmp_path / "table", {"source": "made", "source_sha256": ""})
        columns = open_columns(tmp_path / "table", kind="nats")
        assert_same(columns, infos)
        assert columns.metadata["source"] == "made" and not (tmp_path / "spool").exists()

    def test_nothing_to_write(self, tmp_path):
        with Spool(tmp_path / "spool") as spool, pytest.raises(FormatError, match="no architectures"):
            spool.finish(tmp_path / "table", {})


class TestVerify:
    """Facts that hold turn false when the number that they are about is changed."""

    @pytest.fixture
    def facts(self, tmp_path):
        def make(change, source="NATS-tss-v1_0-3ffb9-simple"):
            infos = {2: small(index=2)}
            change(infos[2]["12"]["all_results"]["cifar100", 111])
            with Spool(tmp_path / "spool") as spool:
                spool.add(2, infos[2])
                spool.finish(tmp_path / "table", {"source": source, "source_sha256": ""})
            return [fact for fact, holds in verify(open_columns(tmp_path / "table")) if not holds]

        return make

    @pytest.mark.parametrize(
        ("change", "fact"),
        [
            (lambda r: r["train_acc1es"].update({3: 101.0}), "12/cifar100/train/accuracy: from 0 to 100"),
            (lambda r: r["eval_acc1es"].update({"x-test@3": -1.0}), "12/cifar100/x-test/accuracy: from 0 to 100"),
            (lambda r: r["train_losses"].update({3: math.inf}), "12/cifar100/train/loss: finite"),
            (lambda r: r["eval_losses"].update({"x-test@3": math.nan}), "12/cifar100/x-test/loss: finite"),
            (lambda r: r["train_times"].update({3: -1.0}), "12/cifar100/train/seconds: positive"),
            (lambda r: r.update(latency=[0.0]), "12/cifar100/latency: positive"),
            (lambda r: r["train_acc1es"].update({3: math.nan}), "12/cifar100/train/accuracy: nothing is missing"),
        ],
    )
    def test_changes_are_found(self, facts, change, fact):
        usual = facts(lambda r: None)
        assert not any(fact in line for line in usual)
        assert any(fact in line for line in facts(change))

    def test_costs_are_compared(self, facts):
        """Random parameters are found; those of real files are right (see the official folders)."""
        assert any(
            "12/cifar100: parameters and FLOPs of 1 networks (1 differ)" in line for line in facts(lambda r: None)
        )

    def test_seeds(self, tmp_path):
        with Spool(tmp_path / "spool") as spool:
            spool.add(2, official_states("nasbench201", 2, seeds=[777, 111], schedules=["200"], datasets=["cifar10"]))
            spool.finish(tmp_path / "table", {"source": "made", "source_sha256": ""})
        facts = dict(verify(open_columns(tmp_path / "table")))
        assert facts["200/cifar10: seeds are the published ones"] is False
        assert facts["200/cifar10: rows are in order"] is True
