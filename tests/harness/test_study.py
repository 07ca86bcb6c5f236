"""Studies and their store: nothing is lost, nothing is run twice, and the same specification gives the same numbers."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness import Budget, Optimizer, Proposal, Study, StudyError, TableBenchmark, compare, load, run
from nasharness.harness.registry import RegistryError
from nasharness.harness.run import COLUMNS, generators
from nasharness.harness.store import FILE_NAME, STORE_VERSION, Store, StoreError

NAMES = ["random_search", "regularized_evolution@nats", "local_search"]
SMALL = Budget(evaluations=25)


def prints(study):
    return [r.fingerprint() for r in study.runs]


class Raising(Optimizer):
    """Fails in some repetitions only."""

    def ask(self):
        if self.rng.random() < 0.02:
            raise RuntimeError("out of ideas")
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial):
        pass


class Backwards(Executor):
    """Finishes what was submitted last first."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@pytest.fixture(scope="module")
def reference():
    return compare(NAMES, "digits201", SMALL, repetitions=6)


def test_a_study_is_the_runs_it_is_made_of(reference):
    """Each run of a study equals `run` with the same optimizer, seed and repetition."""
    alone = [run(name, "digits201", SMALL, repetition=r).fingerprint() for name in NAMES for r in range(6)]
    assert prints(reference) == alone


def test_processes_threads_and_order_change_nothing(reference, tmp_path):
    """Two processes, four threads, another order of optimizers, from a store or from memory: bit-identical runs."""
    assert prints(compare(NAMES, "digits201", SMALL, repetitions=6, jobs=2, out=tmp_path / "a")) == prints(reference)
    with ThreadPoolExecutor(4) as threads:
        assert prints(compare(NAMES, "digits201", SMALL, repetitions=6, jobs=4, executor=threads)) == prints(reference)
    assert prints(compare(NAMES, "digits201", SMALL, repetitions=6, executor=Backwards())) == prints(reference)
    turned = compare(NAMES[::-1], "digits201", SMALL, repetitions=6)
    assert sorted(prints(turned)) == sorted(prints(reference))


def test_the_store_gives_back_what_was_written(tmp_path, reference):
    """Every column survives the round trip bit for bit."""
    with Store(tmp_path, create=True) as store:
        for r in reference.runs:
            store.write(r, {"host": "here"})
    with Store(tmp_path, create=False) as store:
        back = {(r.optimizer, r.repetition): r for r, _ in store.runs()}
    for r in reference.runs:
        other = back[r.optimizer, r.repetition]
        for name in COLUMNS:
            a, b = getattr(r.trials, name), getattr(other.trials, name)
            assert a.dtype == b.dtype
            assert a.tobytes() == b.tobytes()
        assert r.fingerprint() == other.fingerprint()


def test_going_on_is_a_set_difference(tmp_path, monkeypatch, reference):
    """More repetitions and another optimizer are added; what is there is not run again."""
    calls = []
    original = run
    monkeypatch.setattr(
        "nasharness.harness.study.run",
        lambda spec, *a, **k: calls.append((spec.label, k["repetition"])) or original(spec, *a, **k),
    )
    compare(NAMES[:2], "digits201", SMALL, repetitions=2, out=tmp_path)
    assert len(calls) == 4
    calls.clear()
    study = compare(NAMES, "digits201", SMALL, repetitions=6, out=tmp_path)
    assert len(calls) == 18 - 4
    assert prints(study) == prints(reference)
    calls.clear()
    assert prints(compare(NAMES, "digits201", SMALL, repetitions=6, out=tmp_path)) == prints(reference)
    assert calls == []
    assert prints(Study.open(tmp_path)) == prints(reference)


def test_fewer_repetitions_show_fewer_runs_and_lose_none(tmp_path, reference):
    """Asking a finished study for fewer repetitions returns those and keeps the rest."""
    compare(NAMES, "digits201", SMALL, repetitions=6, out=tmp_path)
    assert len(compare(NAMES, "digits201", SMALL, repetitions=2, out=tmp_path).runs) == 6
    assert prints(Study.open(tmp_path)) == prints(reference)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": Budget(evaluations=26)}, "budget '25', not '26'"),
        ({"seed": 1}, "seed 0, not 1"),
    ],
)
def test_another_study_is_not_mixed_in(tmp_path, change, message):
    """A folder that holds a study with another budget or seed is refused, and stays as it was."""
    compare(NAMES[:1], "digits201", budget=SMALL, repetitions=1, out=tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(StoreError, match=message):
        compare(NAMES[:1], "digits201", **{"budget": SMALL, "repetitions": 2, **change}, out=tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_edited_code_is_noticed(tmp_path, monkeypatch):
    """Results of a class are not taken for results of its edited version."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    program = """
        from nasharness.optimizers.random_search import RandomSearch
        def helper():
            return {}
        class Edited(RandomSearch):
            version = helper()
    """
    for version in (1, 2):
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        (tmp_path / "editedmodule.py").write_text(textwrap.dedent(program).replace("{}", str(version)))
        sys.modules.pop("editedmodule", None)
        __import__("linecache").clearcache()
        __import__("importlib").invalidate_caches()
        if version == 1:
            compare(["editedmodule:Edited"], "digits201", SMALL, repetitions=1, out=tmp_path / "out")
    with pytest.raises(StoreError, match="the source code of editedmodule:Edited has changed"):
        compare(["editedmodule:Edited"], "digits201", SMALL, repetitions=2, out=tmp_path / "out")
    sys.modules.pop("editedmodule", None)


def test_a_failing_optimizer_does_not_take_the_others_with_it(tmp_path):
    """The error names optimizer and repetition; all other runs are finished and kept, and the rest can be added later."""
    with pytest.raises(
        StudyError, match=r"(?s)Raising on digits201-v1, repetition \d+.*out of ideas.*finished runs are kept"
    ) as e:
        compare([Raising, "random_search"], "digits201", SMALL, repetitions=30, out=tmp_path)
    kept = [r.optimizer for r in e.value.study.runs]
    assert kept.count("random_search") == 30
    assert 0 < kept.count("Raising") < 30


def test_a_failed_optimizer_can_be_mended(tmp_path):
    """Code that has no finished run yet may change: the mended class runs in the same folder."""
    store_with_failure = {"class": "x:Y", "parameters": {}, "source_sha256": "before"}
    compare(["random_search"], "digits201", SMALL, repetitions=1, out=tmp_path)
    with Store(tmp_path, create=True) as store:
        store.update_specification(
            lambda old, runs: {**old, "optimizers": {**old["optimizers"], "local_search": store_with_failure}}
        )
    study = compare(["random_search", "local_search"], "digits201", SMALL, repetitions=1, out=tmp_path)
    assert [r.optimizer for r in study.runs] == ["random_search", "local_search"]


class Unlucky(Optimizer):
    """Fails in its second repetition only."""

    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.fails = rng.random() == generators(0, "digits201-v1", "Unlucky", 1)[0].random()

    def ask(self):
        if self.fails:
            raise RuntimeError("bad luck")
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial):
        pass


def test_one_failed_repetition_does_not_end_the_others():
    """The other repetitions are finished; the failed one is named."""
    with pytest.raises(StudyError, match="Unlucky on digits201-v1, repetition 1: .*bad luck") as error:
        compare([Unlucky], "digits201", SMALL, repetitions=5)
    assert [r.repetition for r in error.value.study.runs] == [0, 2, 3, 4]


class Noisy(TableBenchmark):
    """Answers in its own way, under the id and the checksum of the table that it was made from."""

    def query(self, arch, epochs=None, rng=None):
        return super().query(arch, epochs, rng)._replace(val_accuracy=0.123)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_wrapped_benchmark_is_not_replaced_by_the_registered_one(jobs, monkeypatch):
    """What is searched is the object that was given, also in worker processes."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    digits = load("digits201")
    noisy = Noisy(digits.id, digits.space, digits._columns, digits.info)
    study = compare(["random_search"], noisy, SMALL, repetitions=2, jobs=jobs)
    assert {v for r in study.runs for v in r.trials.value.tolist()} == {0.123}


def test_two_studies_started_at_once_do_not_mix(tmp_path):
    """Of two that find the folder empty, the second sees the first's specification and is refused if it differs."""
    first, second = Store(tmp_path, create=True), Store(tmp_path, create=True)
    with first, second:
        assert first.specification() is second.specification() is None
        first.update_specification(lambda old, runs: {"seed": 0})
        seen = []
        second.update_specification(lambda old, runs: seen.append(old) or old)
    assert seen == [{"seed": 0}]


def test_a_single_optimizer_needs_no_list():
    """A string is one optimizer, not a list of letters."""
    assert len(compare("random_search", "digits201", "3", repetitions=1).runs) == 1


class Dying(Optimizer):
    """Takes its process with it."""

    def ask(self):
        os._exit(1)

    def tell(self, trial):
        pass


def test_a_worker_that_dies_is_reported(tmp_path, monkeypatch):
    """A process that vanishes ends the study with an error that says so; finished runs are kept."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    compare(["random_search"], "digits201", SMALL, repetitions=2, out=tmp_path)
    with pytest.raises(StudyError, match=r"worker process died.*\n.*The 2 finished runs are kept") as error:
        compare(["random_search", Dying], "digits201", SMALL, repetitions=2, jobs=2, out=tmp_path)
    assert len(error.value.study.runs) == 2


def test_a_built_file_is_a_benchmark(tmp_path, monkeypatch):
    """A file that `nasharness build` wrote can be named wherever an id is accepted, and its study found again elsewhere."""
    from nasharness.benchmarks import digits201

    shutil.copy(digits201.FILE, tmp_path / "mine.safetensors")
    monkeypatch.chdir(tmp_path)
    study = compare(["random_search"], "mine.safetensors", SMALL, repetitions=2, jobs=2, out=tmp_path / "out")
    assert study.benchmark.id == "mine"
    monkeypatch.chdir("/")
    assert prints(Study.open(tmp_path / "out")) == prints(study)
    compare(["random_search"], study.benchmark, SMALL, repetitions=2, out=tmp_path / "opened")
    assert prints(Study.open(tmp_path / "opened")) == prints(study)


class Interrupting(Optimizer):
    """Presses Ctrl-C in the fourth repetition of a process."""

    made = [0]

    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.made[0] += 1

    def ask(self):
        if self.made[0] == 4:
            raise KeyboardInterrupt
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial):
        pass


def test_ctrl_c_keeps_finished_runs(tmp_path, monkeypatch):
    """Finished runs are in the store, and the next call goes on."""
    monkeypatch.setattr("nasharness.harness.study.BLOCK", 1)
    with pytest.raises(KeyboardInterrupt):
        compare([Interrupting], "digits201", SMALL, repetitions=8, out=tmp_path)
    with Store(tmp_path, create=False) as store:
        assert store.finished() == {("Interrupting", r) for r in range(3)}
    assert len(compare([Interrupting], "digits201", SMALL, repetitions=8, out=tmp_path).runs) == 8


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_study_that_is_killed_goes_on(tmp_path, jobs, reference):
    """SIGKILL at random moments, again and again: in the end every run is there once, as if nothing had happened."""
    program = textwrap.dedent(
        f"""
        import nasharness as nh
        if __name__ == "__main__":
            nh.compare({NAMES!r}, "digits201", nh.Budget(evaluations=25), repetitions=600, jobs={jobs}, out={str(tmp_path)!r})
        """
    )
    counts = []
    for attempt in range(40):
        process = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
        try:
            process.wait(timeout=1.0 + 0.23 * attempt)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if (tmp_path / FILE_NAME).exists():
            try:
                with Store(tmp_path, create=False) as store:
                    counts.append(len(store.finished()))
            except StoreError as error:  # killed before the first table was made
                assert "holds no study" in str(error)
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert counts == sorted(counts)
    assert counts[-1] == 1800
    assert prints(compare(NAMES, "digits201", SMALL, repetitions=6, out=tmp_path)) == prints(reference)


@pytest.mark.slow
def test_a_study_in_processes_can_be_interrupted(tmp_path):
    """Ctrl-C to the whole process group with two jobs: the exit is quick and finished runs are kept."""
    command = [
        sys.executable,
        "-m",
        "nasharness",
        "compare",
        "--repetitions",
        "20000",
        "--jobs",
        "2",
        "--out",
        str(tmp_path),
    ]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: here it must be as in a terminal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if (tmp_path / FILE_NAME).exists():
            try:
                with Store(tmp_path, create=False) as store:
                    if len(store.finished()) > 50:
                        break
            except StoreError:
                pass
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "finished runs are kept in" in err
    assert "Traceback" not in err
    with Store(tmp_path, create=False) as store:
        assert len(store.finished()) > 50


# ------------------------------------------------------------------------------------------------------- bad input


def test_report_of_an_empty_folder(tmp_path):
    """A folder without a study is named, with the command that makes one."""
    with pytest.raises(StoreError, match="there is no study in .*compare --out"):
        Study.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_left_alone(tmp_path):
    """Neither another database nor another file is overwritten."""
    path = tmp_path / FILE_NAME
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name TEXT)")
    db.commit()
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="database of something else"):
        compare(NAMES, "digits201", SMALL, repetitions=1, out=tmp_path)
    assert path.read_bytes() == before
    path.write_bytes(b"not a database at all, but long enough to look at" * 20)
    with pytest.raises(StoreError, match="foreign or damaged"):
        compare(NAMES, "digits201", SMALL, repetitions=1, out=tmp_path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_newer_store_is_refused(tmp_path):
    """A store of a later version is named as such and left alone."""
    compare(NAMES[:1], "digits201", SMALL, repetitions=1, out=tmp_path)
    db = sqlite3.connect(tmp_path / FILE_NAME)
    db.execute(f"PRAGMA user_version={STORE_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match="written by a newer nasharness"):
        Study.open(tmp_path)


def test_a_damaged_run_is_named(tmp_path):
    """A blob that was cut off is reported with its run."""
    compare(NAMES[:1], "digits201", SMALL, repetitions=2, out=tmp_path)
    db = sqlite3.connect(tmp_path / FILE_NAME)
    db.execute("UPDATE runs SET trials = substr(trials, 1, 100) WHERE repetition = 1")
    db.commit()
    db.close()
    with pytest.raises(StoreError, match="run 1 of random_search is damaged"):
        Study.open(tmp_path)


def test_a_changed_benchmark_is_refused(tmp_path, monkeypatch):
    """A study is not reported against another version of its table."""
    compare(NAMES[:1], "digits201", SMALL, repetitions=1, out=tmp_path)
    with Store(tmp_path, create=True) as store:
        store.update_specification(lambda old, runs: {**old, "benchmark_sha256": "0" * 64})
    with pytest.raises(StoreError, match="another version of digits201-v1"):
        Study.open(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    """A file where the folder should be: the path and the reason."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot make the folder"):
        compare(NAMES, "digits201", SMALL, repetitions=1, out=tmp_path / "file" / "out")


def test_a_full_disk_loses_nothing(tmp_path):
    """When no page can be added, the error says so, and what was written before can still be read."""
    compare(NAMES[:1], "digits201", SMALL, repetitions=3, out=tmp_path)
    with Store(tmp_path, create=True) as store:
        runs = [r for r, _ in store.runs()]
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match=r"cannot write .*full.*Finished runs are kept"):
            for repetition in range(3, 60):
                store.write(type(runs[0])(runs[0].optimizer, runs[0].benchmark, 0, repetition, runs[0].trials), {})
    with Store(tmp_path, create=False) as store:
        assert {r.fingerprint() for r, _ in store.runs()} >= {r.fingerprint() for r in runs}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder(tmp_path):
    """A folder without the right to write is named."""
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot open"):
        compare(NAMES, "digits201", SMALL, repetitions=1, out=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"optimizers": []}, RegistryError, "no optimizer given"),
        ({"optimizers": ["random_search", "random_search"]}, RegistryError, "two optimizers have one name"),
        ({"repetitions": 0}, ValueError, "repetitions must be a whole number from 1"),
        ({"jobs": 0}, ValueError, "jobs must be a whole number from 1"),
        ({"seed": -1}, ValueError, "seed must be a whole number from 0"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    """Before anything runs."""
    with pytest.raises(error, match=message):
        compare(**{"optimizers": NAMES, "benchmark": "digits201", "budget": SMALL, **arguments})


def test_frame(reference):
    """One row per trial, with regret and GPU time."""
    frame = reference.frame()
    assert len(frame) == 18 * 25
    last = frame[(frame.optimizer == "local_search") & (frame.repetition == 5)].iloc[-1]
    expected = reference.runs[-1]
    assert last.test_regret == expected.regret(reference.benchmark)[-1]
    assert last.gpu_seconds == expected.gpu_seconds[-1]


def test_a_benchmark_of_the_users_own_travels_to_workers(tiny_benchmark, monkeypatch):
    """An opened benchmark that no registry knows is handed to the worker processes itself."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where its class is found
    one = compare(NAMES, tiny_benchmark, SMALL, repetitions=3)
    assert prints(compare(NAMES, tiny_benchmark, SMALL, repetitions=3, jobs=2)) == prints(one)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_every_run_is_planned_once(tmp_path_factory, targets, block, jobs):
    """Whatever the block size, the width and the order of growing repetitions, the store ends with each run exactly once."""
    folder = tmp_path_factory.mktemp("plan")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(jobs) as threads:
        patch.setattr("nasharness.harness.study.BLOCK", block)
        patch.setattr("nasharness.harness.study.BLOCK_SECONDS", 0.0)
        for repetitions in targets:
            compare(
                NAMES[:2],
                "digits201",
                Budget(evaluations=2),
                repetitions=repetitions,
                out=folder,
                executor=threads,
                jobs=jobs,
            )
    with Store(folder, create=False) as store:
        assert store.finished() == {(name, r) for name in NAMES[:2] for r in range(max(targets))}
