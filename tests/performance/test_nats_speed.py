"""Speeds of the NAS-Bench-201 and NATS-Bench readers, as pytest-benchmark measurements. Nothing fails on a slow machine."""

import bz2
import pickle
import subprocess
import sys

import pytest
from nats_files import official_meta, official_states, write_legacy

from nasharness.benchmarks.convert.nats import convert
from nasharness.benchmarks.formats.nats import stream_architectures


@pytest.fixture(scope="module")
def infos():
    return {i: official_states("nasbench201", i) for i in range(2)}


def copies(infos, n):
    """n architectures that share curves, so that a large file is made quickly."""
    for i in range(n):
        states = official_states("nasbench201", i, schedules=["12"], datasets=["cifar10"])
        text = states["12"]["arch_str"]
        yield i, {key: renamed(state, i, text) for key, state in infos[i % len(infos)].items()}


def renamed(state, index, text):
    results = {
        key: {**result, "arch_config": {**result["arch_config"], "arch_str": text}}
        for key, result in state["all_results"].items()
    }
    return {**state, "arch_index": index, "arch_str": text, "all_results": results}


@pytest.mark.benchmark(group="NATS-Bench: a folder")
@pytest.mark.parametrize("jobs", [1, 2])
def test_folder(benchmark, infos, tmp_path, jobs):
    """The whole conversion of files as large as the real ones; architectures per second in extra_info."""
    n = 150 if benchmark.enabled else 3
    source = tmp_path / "folder"
    source.mkdir()
    for i, states in copies(infos, n):
        (source / f"{i:06d}.pickle.pbz2").write_bytes(bz2.compress(pickle.dumps(states, 4)))
    targets = (tmp_path / f"{i}" for i in range(100))
    benchmark.pedantic(lambda: convert(source, next(targets), jobs=jobs), rounds=3, warmup_rounds=0)
    if benchmark.stats:
        benchmark.extra_info["architectures_per_second"] = round(n / benchmark.stats.stats.min)


@pytest.fixture(scope="module")
def pth(infos, tmp_path_factory):
    def make(n):
        path = tmp_path_factory.mktemp("nats") / f"{n}.pth"
        # A copy of its own for each architecture, as in the files: nothing is shared through the memo.
        parts = {i: pickle.loads(pickle.dumps(dict(states), 2)) for i, states in copies(infos, n)}
        write_legacy(path, official_meta("nasbench201", parts, old=True))
        return path

    return make


def load_at_once(path):
    with path.open("rb") as file:
        for _ in range(4):
            value = pickle.load(file)
    return value


def stream(path):
    stream_architectures(path, lambda states: None)


@pytest.mark.benchmark(group="NAS-Bench-201: one .pth")
@pytest.mark.parametrize("read", [load_at_once, stream])
def test_pth(benchmark, pth, read):
    """Streaming beside a bare pickle.load of the same file, which checks nothing; seconds per architecture in extra_info."""
    n = 60 if benchmark.enabled else 2
    path = pth(n)
    benchmark.pedantic(read, (path,), rounds=3, warmup_rounds=0)
    if benchmark.stats:
        benchmark.extra_info["ms_per_architecture"] = round(1000 * benchmark.stats.stats.min / n, 2)


@pytest.mark.benchmark(group="NAS-Bench-201: one .pth, peak memory")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux gives it")
@pytest.mark.parametrize("n", [20, 100])
def test_peak_memory(benchmark, pth, n):
    """A process that converts the file; its peak in MiB in extra_info, which should not depend on n."""
    if not benchmark.enabled:
        n = 2
    path = pth(n)
    script = (
        "import sys; from pathlib import Path\n"
        "from nasharness.benchmarks.convert.nats import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[1] + '.table'))\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(peak.split()[1]) // 1024)"
    )
    command = [sys.executable, "-c", script, path]
    done = benchmark.pedantic(
        lambda: subprocess.run(command, check=True, capture_output=True, text=True), rounds=1, warmup_rounds=0
    )
    benchmark.extra_info["peak_mib"] = int(done.stdout)
