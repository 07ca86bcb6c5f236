import contextlib
import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from nasharness.benchmarks import build as module
from nasharness.benchmarks.build import (
    BuildError,
    BuildSpec,
    Journal,
    build,
    build_locally,
    representatives,
    train_cell,
)
from nasharness.benchmarks.digits201 import open_built
from nasharness.benchmarks.networks.cost import count_parameters
from nasharness.benchmarks.schedule import Schedule
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space, network_classes
from nasharness.benchmarks.table import read_table

SPACE = NASBench201Space()
SPEC = BuildSpec(images="digits", seeds=(0, 3), channels=2, schedule=Schedule(epochs=2, batch_size=1000))
N_CLASSES = 5
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
SCALARS = ("test_loss", "test_accuracy", "params", "flops")

FEW_CLASSES = textwrap.dedent(f"""
    import sys
    from concurrent.futures import Executor, Future
    from pathlib import Path
    from nasharness.benchmarks import build as module
    everything = module.representatives()
    module.representatives = lambda: everything[::1100][:{N_CLASSES}]
    module.network_classes = lambda: [i % {N_CLASSES} for i in range(5**6)]
""")


class Inline(Executor):
    """Runs each task where it is submitted."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def _torch_as_it_was():
    """Training lets torch flush denormals; the tests leave torch as they found it."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def few(monkeypatch):
    """The space has only five network classes; returns their representatives."""
    chosen = representatives()[::1100][:N_CLASSES]
    monkeypatch.setattr(module, "representatives", lambda: chosen)
    monkeypatch.setattr(module, "network_classes", lambda: [i % N_CLASSES for i in range(SPACE.size)])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    return chosen


@pytest.fixture
def fake(few, monkeypatch):
    """`few`, and instead of training, `train_cell` notes its call and answers by a rule. Returns the list of calls."""
    calls = []

    def train(spec_json, arch, seed):
        calls.append((few.index(arch), seed))
        return fake_result(few.index(arch), seed)

    monkeypatch.setattr(module, "train_cell", train)
    return calls


def fake_result(number, seed):
    curves = {name: np.array([number, seed], np.float32) + i for i, name in enumerate(CURVES)}
    return {**curves, "test_loss": 0.1 * number, "test_accuracy": 0.01 * seed, "params": 100 + number, "flops": 7}


def run(out, executor=None, **settings):
    return build(settings.pop("spec", SPEC), out, executor or Inline(), **{"jobs": 1, "block": 1, **settings})


def journal_of(out):
    return out.with_name(out.name + ".journal")


def finished_in(out):
    with closing(Journal(journal_of(out), SPEC)) as journal:
        return journal.done()


ALL = {(number, seed) for number in range(N_CLASSES) for seed in SPEC.seeds}


# -------------------------------------------------------------------------------------------------------- specification


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "darts"}, "space 'darts' cannot be built; only 'nasbench201'"),
        ({"seeds": ()}, "seeds must be distinct, and at least one"),
        ({"seeds": (1, 1)}, r"seeds must be distinct, and at least one: \(1, 1\)"),
        ({"seeds": (0, -1)}, r"seeds must be whole numbers from 0, not \(0, -1\)"),
        ({"channels": 0}, "channels must be whole numbers from 1, not 0"),
        ({"cells": -2}, "cells must be whole numbers from 1, not -2"),
        ({"images": "mnist"}, "unknown images 'mnist'; known: digits"),
    ],
)
def test_a_bad_specification_is_refused(fields, message):
    """Each setting that nothing can be built from is named with its value."""
    with pytest.raises(BuildError, match=message):
        BuildSpec(**fields)


@pytest.mark.parametrize("fields", [{"seeds": (0.5,)}, {"channels": 1.5}, {"cells": 2.0}, {"seeds": (True,)}])
def test_a_specification_of_fractions_is_refused(fields):
    """Seeds, channels and cells are whole numbers."""
    with pytest.raises(BuildError):
        BuildSpec(**fields)


@pytest.mark.parametrize("spec", [SPEC, BuildSpec()])
def test_a_specification_survives_json(spec):
    """`from_json` inverts `to_json`."""
    assert spec == BuildSpec.from_json(spec.to_json())


def test_representatives_are_pruned_cells_one_per_class():
    """Representative `k` is pruned and of network class `k`."""
    archs = representatives()
    assert list(range(5260)) == [SPACE.network_class(arch) for arch in archs]
    assert archs == [SPACE.prune(arch) for arch in archs]


# ------------------------------------------------------------------------------------------------------------- one cell


def test_training_a_cell_is_a_pure_function():
    """The same (specification, architecture, seed) gives the same result, whatever torch's generator holds; and leaves it."""
    arch, results = (3, 1, 0, 2, 0, 1), []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = torch.random.get_rng_state()
            results.append(train_cell(SPEC.to_json(), arch, 3))
            assert torch.equal(state, torch.random.get_rng_state())
    for name in (*CURVES[:-1], *SCALARS):
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_seeds_change_the_weights():
    """Another training seed is another network."""
    first, second = (train_cell(SPEC.to_json(), (3, 1, 0, 2, 0, 1), seed) for seed in (0, 1))
    assert first["train_loss"][0] != second["train_loss"][0]
    assert (first["params"], first["flops"]) == (second["params"], second["flops"])


# ------------------------------------------------------------------------------------------------------------ the table


def test_the_file_holds_what_the_journal_holds(few, tmp_path):
    """Every class and seed of a really trained file: the columns are those of training that cell alone, but the seconds."""
    out = tmp_path / "deep" / "bench.safetensors"
    assert run(out, ThreadPoolExecutor(1)) == out
    columns, metadata, _ = read_table(out)
    assert json.loads(SPEC.to_json()) == metadata["spec"]
    assert [i % N_CLASSES for i in range(SPACE.size)] == columns["class_of"].tolist()
    with closing(Journal(journal_of(out), SPEC)) as journal:
        results = {(number, seed): result for number, seed, result in journal.results()}
    assert set(results) == ALL
    for (number, seed), result in results.items():
        s = SPEC.seeds.index(seed)
        for name in (*CURVES, "test_loss", "test_accuracy"):
            assert np.asarray(result[name], np.float32).tolist() == columns[name][number, s].tolist()
        assert [result["params"], result["flops"]] == [columns[name][number] for name in ("params", "flops")]
        alone = train_cell(SPEC.to_json(), few[number], seed)
        for name in (*CURVES[:-1], "test_loss", "test_accuracy"):
            np.testing.assert_array_equal(np.float32(alone[name]), columns[name][number, s])


def test_a_built_file_opens_as_a_benchmark(few, tmp_path):
    """The id is the file's name; the network has the table's parameters; the images are the specification's."""
    out = tmp_path / "mine.safetensors"
    run(out)
    bench = open_built(out)
    assert ("mine", 2, 2) == (bench.id, bench.n_seeds, bench.max_epochs)
    assert bench.images("validation").images.shape == (400, 1, 8, 8)
    rank = SPACE.rank(few[2])
    with torch.random.fork_rng(devices=[]):
        network = bench.network(few[2])
    assert (network.classifier.out_features, network.stem[0].out_channels) == (10, 2)
    row = rank % N_CLASSES
    assert bench.final(few[2]).params == read_table(out)[0]["params"][row]
    assert count_parameters(network) == read_table(out)[0]["params"][2]


def test_the_journal_keeps_every_bit(tmp_path):
    """What goes in as float32 comes out as the same float32."""
    values = np.random.default_rng(0).random(50).astype(np.float32) / np.float32(3)
    result = {**dict.fromkeys(CURVES, values), "test_loss": 1 / 3, "test_accuracy": 0.1, "params": 2**40, "flops": 1}
    with closing(Journal(tmp_path / "j", SPEC)) as journal:
        journal.write(4, 3, result, None)
        ((number, seed, back),) = journal.results()
    assert (4, 3) == (number, seed)
    assert all(np.array_equal(values, np.float32(back[name])) for name in CURVES)
    assert {name: result[name] for name in SCALARS} == {name: back[name] for name in SCALARS}


def test_a_failed_move_leaves_no_file(fake, tmp_path, monkeypatch):
    """If the finished file cannot be put in place there is no half file, and the journal still has every cell."""
    replace = os.replace

    def fail(*_, **__):
        raise OSError("no space left")

    out = tmp_path / "b.safetensors"
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space left"):
        run(out)
    assert [name for name in os.listdir(tmp_path) if ".journal" not in name] == []
    monkeypatch.setattr(os, "replace", replace)
    fake.clear()
    assert (run(out), fake) == (out, [])


# ------------------------------------------------------------------------------------------------------------- resuming


def test_each_cell_is_trained_once(fake, tmp_path):
    """A build trains every class under every seed, once, and doing it again trains nothing."""
    out = tmp_path / "b.safetensors"
    assert (run(out), sorted(fake)) == (out, sorted(ALL))
    content = out.read_bytes()
    fake.clear()
    assert (run(out), fake) == (out, [])
    assert content == out.read_bytes()


@pytest.mark.parametrize("block", [1, 3, 100])
def test_a_limited_build_trains_a_part_and_writes_no_file(fake, tmp_path, block):
    """`limit` classes under every seed; the rest is what a full build then trains."""
    out = tmp_path / "b.safetensors"
    assert run(out, limit=2, block=block) is None
    part = set(fake)
    assert (4, 2, False) == (len(fake), len({number for number, _ in part}), out.exists())
    fake.clear()
    assert run(out, block=block) == out
    assert (ALL - part, len(ALL - part)) == (set(fake), len(fake))


def test_a_limit_that_covers_everything_writes_the_file(fake, tmp_path):
    """A limit of all classes is no limit."""
    assert run(tmp_path / "b.safetensors", limit=N_CLASSES) == tmp_path / "b.safetensors"


def test_an_interrupted_build_goes_on_where_it_stopped(fake, tmp_path):
    """Whatever was reported before an interruption is not trained again."""

    class Interrupted(Exception):
        pass

    def progress(done, total, failed):
        if done == 4:
            raise Interrupted

    out = tmp_path / "b.safetensors"
    with pytest.raises(Interrupted):
        run(out, progress=progress)
    before = finished_in(out)
    assert len(before) == 4
    fake.clear()
    run(out)
    assert (ALL - before, len(ALL - before)) == (set(fake), len(fake))


def test_progress_counts_cells(fake, tmp_path):
    """`progress` sees the cells done, all cells and the failures, and ends with all done; it counts earlier runs too."""
    out, seen = tmp_path / "b.safetensors", []
    run(out, limit=1)
    run(out, block=3, progress=lambda *counts: seen.append(counts))
    assert [(5, 10, 0), (8, 10, 0), (10, 10, 0)] == seen


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_than_twice_the_jobs_are_in_flight(fake, tmp_path, jobs):
    """At most 2 * jobs tasks are submitted and unfinished."""

    class Lazy(Executor):
        waiting, most = (), 0

        def submit(self, fn, /, *args, **kwargs):
            future = Future()
            self.waiting = (*(w for w in self.waiting if not w[0].done()), (future, fn, args))
            self.most = max(self.most, len(self.waiting))
            if len(self.waiting) == 2 * jobs or len(submitted) == 9:
                for waiting, function, arguments in self.waiting:
                    waiting.set_result(function(*arguments))
            submitted.append(future)
            return future

    submitted, executor = [], Lazy()
    run(tmp_path / "b.safetensors", executor, jobs=jobs)
    assert (10, 2 * jobs) == (len(submitted), executor.most)


# ------------------------------------------------------------------------------------------------------------- failures


def failing(monkeypatch, fake, fails):
    """Let `train_cell` raise where `fails(number, seed, number of earlier tries)`."""
    tries, good = {}, module.train_cell
    numbers = {arch: i for i, arch in enumerate(module.representatives())}

    def train(spec_json, arch, seed):
        cell = numbers[arch], seed
        tries[cell] = tries.get(cell, 0) + 1
        if fails(*cell, tries[cell] - 1):
            raise FloatingPointError(f"loss of {cell} is NaN")
        return good(spec_json, arch, seed)

    monkeypatch.setattr(module, "train_cell", train)
    return tries


@pytest.mark.parametrize("block", [1, 4])
def test_a_cell_that_fails_once_is_tried_again(fake, tmp_path, monkeypatch, block):
    """A failure that passes costs one more try of that cell and of no other."""
    tries = failing(monkeypatch, fake, lambda number, seed, before: (number, seed) == (2, 3) and before == 0)
    out = tmp_path / "b.safetensors"
    assert run(out, block=block) == out
    assert {cell: 2 if cell == (2, 3) else 1 for cell in ALL} == tries


@pytest.mark.parametrize("retries", [0, 2])
def test_a_cell_that_always_fails_is_reported_and_loses_nothing(fake, tmp_path, monkeypatch, retries):
    """The error names class, architecture, seed, tries and cause; all others are finished; no file is written."""
    tries = failing(monkeypatch, fake, lambda number, seed, before: (number, seed) == (2, 3))
    out = tmp_path / "b.safetensors"
    text = SPACE.to_string(module.representatives()[2]).replace("|", r"\|").replace("+", r"\+")
    with pytest.raises(
        BuildError,
        match=rf"1 cells failed, the first: class 2 {text}, seed 3, after {retries + 1} tries: "
        r"FloatingPointError: loss of \(2, 3\) is NaN\. Finished cells are kept",
    ):
        run(out, block=4, retries=retries)
    assert {cell: retries + 1 if cell == (2, 3) else 1 for cell in ALL} == tries
    assert (ALL - {(2, 3)}, False) == (finished_in(out), out.exists())
    with closing(Journal(journal_of(out), SPEC)) as journal:
        assert [(2, 3, retries + 1, "FloatingPointError: loss of (2, 3) is NaN")] == journal.failures()


def test_a_repaired_build_trains_the_failed_cells_only(fake, tmp_path, monkeypatch):
    """Running again after a failure tries the failed cells, and the file is complete."""
    broken = [True]
    failing(monkeypatch, fake, lambda number, seed, before: number == 1 and broken[0])
    out = tmp_path / "b.safetensors"
    with pytest.raises(BuildError, match="2 cells failed"):
        run(out)
    broken[0] = False
    fake.clear()
    assert (run(out), sorted(fake)) == (out, [(1, 0), (1, 3)])
    with closing(Journal(journal_of(out), SPEC)) as journal:
        assert [] == journal.failures()


class Breaking(Executor):
    """After so many tasks, every later one finds the pool broken, as when a worker process died."""

    def __init__(self, good=2):
        self.good = good
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.submitted += 1
        future = Future()
        if self.submitted <= self.good:
            future.set_result(fn(*args, **kwargs))
        else:
            future.set_exception(BrokenProcessPool("a process in the pool was terminated abruptly"))
        return future


@pytest.mark.parametrize("jobs", [1, 5])
def test_a_worker_that_dies_loses_no_finished_cell(fake, tmp_path, jobs):
    """Where the pool breaks, the build ends with an error, and a next run trains only what had not finished."""
    out = tmp_path / "b.safetensors"
    with pytest.raises(BuildError, match="a worker process died"):
        run(out, Breaking(2 if jobs == 1 else 5), jobs=jobs)
    trained = set(fake)
    fake.clear()
    run(out)
    assert ALL - trained == set(fake)


def test_a_worker_that_dies_is_a_build_error(fake, tmp_path):
    """The error is a BuildError that says that finished cells are kept."""
    with pytest.raises(BuildError, match="kept"):
        run(tmp_path / "b.safetensors", Breaking())


class LosesAWorker(Executor):
    """A process pool in which the fourth task ends its process at once."""

    def __init__(self):
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self.submitted = 0

    def submit(self, fn, /, *args, **kwargs):
        self.submitted += 1
        return self.pool.submit(os._exit, 1) if self.submitted == 4 else self.pool.submit(fn, *args, **kwargs)

    def shutdown(self, *args, **kwargs):
        self.pool.shutdown(*args, **kwargs)


@pytest.mark.slow
def test_a_process_that_exits_loses_no_finished_cell(few, tmp_path):
    """A worker process that really dies: an error, and the cells finished before it are kept."""
    out = tmp_path / "b.safetensors"
    with LosesAWorker() as executor, pytest.raises(BuildError, match="a worker process died"):
        run(out, executor)
    kept = finished_in(out)
    assert len(kept) >= 2  # at most two tasks are in flight, so two were in the journal before the fatal one was sent
    assert kept < ALL
    assert run(out) == out


# -------------------------------------------------------------------------------------------------------------- journal


def test_another_specification_is_refused(fake, tmp_path):
    """A journal belongs to one specification; the message shows both and what to do, and the journal is not touched."""
    out, other = tmp_path / "b.safetensors", BuildSpec(images="digits", channels=3)
    run(out, limit=1)
    before = finished_in(out)
    with pytest.raises(BuildError, match="belongs to a build with another specification") as caught:
        run(out, spec=other)
    message = str(caught.value)
    assert [True] * 3 == [part in message for part in (SPEC.to_json(), other.to_json(), "another --out")]
    assert before == finished_in(out)


def test_a_journal_of_another_version_is_refused(tmp_path):
    """A journal that another version wrote is refused and its version named."""
    path = tmp_path / "b.journal"
    Journal(path, SPEC).close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(BuildError, match=rf"{path} was written by another version of nasharness \(journal 99\)"):
        Journal(path, SPEC)


@pytest.mark.parametrize("content", [b"not a database, but long enough " * 40, b"short"])
def test_a_foreign_file_as_journal_is_refused(fake, tmp_path, content):
    """A file that is no SQLite database is refused by name and keeps its bytes; nothing is trained."""
    out = tmp_path / "b.safetensors"
    journal_of(out).write_bytes(content)
    with pytest.raises(BuildError, match=f"cannot use {journal_of(out)} as a build journal: "):
        run(out)
    assert (content, []) == (journal_of(out).read_bytes(), fake)


def test_a_foreign_database_as_journal_is_refused(fake, tmp_path):
    """Somebody else's SQLite file is refused and left as it was."""
    out = tmp_path / "b.safetensors"
    with closing(sqlite3.connect(journal_of(out))) as db, db:
        db.execute("CREATE TABLE photos (name TEXT)")
    before = journal_of(out).read_bytes()
    with pytest.raises(BuildError, match=str(journal_of(out))):
        run(out)
    assert (before, []) == (journal_of(out).read_bytes(), fake)


@pytest.mark.parametrize("kind", ["permissions", "kernel"])
def test_a_read_only_folder_is_refused_before_training(fake, tmp_path, kind):
    """Where the journal cannot be written, the build ends at once and says which file."""
    folder = tmp_path
    if kind == "permissions":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o555)
    else:
        folder = Path("/proc/self")  # refuses new files even to root
        if not folder.is_dir():
            pytest.skip("needs Linux's /proc")
    out = folder / "b.safetensors"
    try:
        with pytest.raises(BuildError, match=rf"cannot use .*{out.name}\.journal as a build journal"):
            run(out)
    finally:
        tmp_path.chmod(0o755)
    assert fake == []


@pytest.mark.parametrize("below", ["file/b.safetensors", "file/deeper/b.safetensors"])
def test_a_file_in_place_of_the_folder_is_refused(fake, tmp_path, below):
    """An output below something that is no folder is a BuildError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError):
        run(tmp_path / below)


def test_an_output_that_is_a_folder_is_refused_before_training(fake, tmp_path):
    """The output's name is looked at before hours of training, not after."""
    (tmp_path / "out").mkdir()
    with pytest.raises(BuildError):
        run(tmp_path / "out")
    assert fake == []


# ---------------------------------------------------------------------------------------------------- real processes


def columns_without_seconds(path):
    columns, _, _ = read_table(path)
    return {name: column for name, column in columns.items() if name != "seconds"}


@pytest.mark.slow
def test_processes_build_what_one_process_builds(few, tmp_path):
    """`build_locally` with two worker processes gives the table that an executor in this process gives, but the seconds."""
    here, there = tmp_path / "here.safetensors", tmp_path / "there.safetensors"
    run(here)
    assert build_locally(SPEC, there, jobs=2) == there
    expected, actual = columns_without_seconds(here), columns_without_seconds(there)
    assert all(np.array_equal(expected[name], actual[name]) for name in expected)


@pytest.mark.slow
def test_a_killed_build_gives_the_same_table_as_an_uninterrupted_one(few, tmp_path):
    """SIGKILL in the middle, then the same call again: the same table, but the seconds; finished cells are not redone."""
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    run(whole)
    program = FEW_CLASSES + textwrap.dedent("""
        class Slow(Executor):
            def submit(self, fn, *args):
                import time
                future = Future()
                future.set_result(fn(*args))
                time.sleep(0.2)  # so that the kill lands in the middle
                return future

        module.build(module.BuildSpec.from_json(sys.argv[2]), Path(sys.argv[1]), Slow(), jobs=1, block=1)
    """)
    process = subprocess.Popen([sys.executable, "-c", program, str(killed), SPEC.to_json()])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if len(count_done(journal_of(killed))) >= 3:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    kept = finished_in(killed)
    assert 3 <= len(kept) < len(ALL)
    assert not killed.exists()
    before = {(n, s): r for n, s, r in results_of(killed)}
    run(killed)
    after = {(n, s): r for n, s, r in results_of(killed)}
    assert before == {cell: after[cell] for cell in before}  # to the last measured second
    expected, actual = columns_without_seconds(whole), columns_without_seconds(killed)
    assert all(np.array_equal(expected[name], actual[name]) for name in expected)


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_build(tmp_path):
    """When the process that keeps the journal is killed, its workers end too."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("needs Linux's /proc")
    out = tmp_path / "b.safetensors"
    spec = BuildSpec(images="digits", seeds=tuple(range(200)), channels=2, schedule=SPEC.schedule)
    program = FEW_CLASSES + textwrap.dedent("""
        if __name__ == "__main__":
            module.build_locally(module.BuildSpec.from_json(sys.argv[2]), Path(sys.argv[1]), jobs=1)
    """)
    command = [sys.executable, "-c", program, str(out), spec.to_json()]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and not count_done(journal_of(out)) and time.monotonic() < deadline:
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        process.kill()
        process.wait()
        deadline = time.monotonic() + 5
        while (alive := [pid for pid in children if running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert alive == []
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def running(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def count_done(path):
    if not path.exists():  # connecting would make it
        return []
    try:
        with closing(sqlite3.connect(path, timeout=5)) as db:
            return list(db.execute("SELECT class FROM cells WHERE error IS NULL"))
    except sqlite3.Error:  # being made
        return []


def results_of(out):
    with closing(Journal(journal_of(out), SPEC)) as journal:
        return list(journal.results())


def test_class_numbers_of_the_real_space_fit_the_table():
    """The class of every cell fits the int16 that the file keeps."""
    assert max(network_classes()) < 2**15
