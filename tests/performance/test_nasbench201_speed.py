"""Speed and memory of a converted NAS-Bench-201.

At full size, which takes seven minutes and 1.3 GB to make once:

    python tests/performance/full_nasbench201.py NB201.parquet FULL.safetensors
    NASHARNESS_FULL_NASBENCH201=FULL.safetensors make bench

Otherwise on the three architectures whose official records are at hand; the baseline is then the official package on these.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nasharness.benchmarks.convert.nats import convert
from nasharness.benchmarks.nats import open_nats

QUERIES = 20_000
OPENING = """
import json, sys, time
from pathlib import Path
import nasharness.benchmarks.nats as nats

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

before, start = resident(), time.perf_counter()
benchmark = nats.open_nats(Path(sys.argv[1]), "cifar10", id="nasbench201-v1/cifar10")
opened = time.perf_counter() - start
first = next(a for a, (_, count) in benchmark._trials.items() if count)
benchmark.query(first)
print(json.dumps({"open_ms": 1e3 * opened, "more_resident_mb": (resident() - before) / 1e6}))
"""


@pytest.fixture(scope="module")
def archive(shared_data):
    return shared_data / "official" / "NATS-tss-v1_0-3ffb9-simple"


@pytest.fixture(scope="module")
def path(archive, tmp_path_factory):
    if full := os.environ.get("NASHARNESS_FULL_NASBENCH201"):
        return Path(full)
    target = tmp_path_factory.mktemp("speed") / "nasbench201.safetensors"
    convert(archive, target)
    return target


@pytest.fixture(scope="module")
def bench(path):
    return open_nats(path, "cifar10", id="nasbench201-v1/cifar10")


@pytest.fixture(scope="module")
def archs(bench):
    known = [arch for arch, (_, count) in bench._trials.items() if count]
    return [known[i] for i in np.random.default_rng(0).integers(len(known), size=QUERIES)]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
@pytest.mark.benchmark(group="opening a converted NAS-Bench-201")
def test_open(benchmark, path):
    """Milliseconds and more resident memory until the first answer, in a fresh process, in extra_info."""

    def fresh():
        done = subprocess.run([sys.executable, "-c", OPENING, str(path)], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    result = benchmark.pedantic(fresh, rounds=5)
    assert result["more_resident_mb"] > 0
    benchmark.extra_info |= result


@pytest.mark.benchmark(group="single queries")
def test_query(benchmark, bench, archs):
    """Queries per second in extra_info."""
    rng = np.random.default_rng(0)
    benchmark(lambda: [bench.query(arch, None, rng) for arch in archs])
    if benchmark.stats:
        benchmark.extra_info["queries_per_second"] = round(QUERIES / benchmark.stats.stats.min)


@pytest.mark.benchmark(group="single queries")
def test_official_query(benchmark, archive):
    """Baseline of the group: `simulate_train_eval` of nats-bench, a hundredth as often."""
    nats_bench = pytest.importorskip("nats_bench", reason="nats-bench is not installed")
    api = nats_bench.create(str(archive), "tss", fast_mode=True, verbose=False)
    api.simulate_train_eval(284, "cifar10")
    benchmark(lambda: [api.simulate_train_eval(284, "cifar10") for _ in range(QUERIES // 100)])
    if benchmark.stats:
        benchmark.extra_info["queries_per_second"] = round(QUERIES / 100 / benchmark.stats.stats.min)


@pytest.mark.benchmark(group="many queries at once")
def test_query_many(benchmark, bench, archs):
    """Architectures per second in extra_info."""
    many = np.tile(np.array(archs, dtype=np.int64), (50, 1))
    rng = np.random.default_rng(0)
    benchmark(bench.query_many, many, rng=rng)
    if benchmark.stats:
        benchmark.extra_info["architectures_per_second"] = round(len(many) / benchmark.stats.stats.min)
