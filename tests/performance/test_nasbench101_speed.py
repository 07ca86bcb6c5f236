"""Speeds of NAS-Bench-101: conversion and look-ups. `make bench` measures on 600,000 records, `make test` runs a few."""

import numpy as np
import pytest

from nasharness.benchmarks.convert.nasbench101 import convert
from nasharness.benchmarks.formats.nasbench101 import encode_record
from nasharness.benchmarks.formats.tfrecord import frame
from nasharness.benchmarks.nasbench101 import open_nasbench101
from nasharness.benchmarks.spaces.nasbench101 import NASBench101Space, count_cost

RECORDS = 600_000


def write_file(path, modules, epochs, rng, real_hashes=False):
    """Random metrics for random cells. The hashes are random, too, unless real ones are asked for: these take long."""
    space = NASBench101Space()
    archs = [space.sample(rng) for _ in range(modules)]
    seen = set()
    with path.open("wb") as file:
        for arch in archs:
            graph = space.graph(arch)
            module_hash = space.hash(arch) if real_hashes else rng.bytes(16).hex()
            if module_hash in seen:
                continue
            seen.add(module_hash)
            adjacency = "".join(map(str, graph.matrix.ravel().tolist()))
            operations = ",".join(graph.operations)
            params = count_cost(graph)[0]
            numbers = rng.random((len(epochs), 3, 3, 4), dtype=np.float32).tolist()
            for length, runs in zip(epochs, numbers, strict=True):
                for run in runs:
                    evaluations = [(length * i / 2, *values) for i, values in enumerate(run)]
                    payload = encode_record(module_hash, length, adjacency, operations, params, 1e3, evaluations)
                    file.write(frame(payload))
    return archs


@pytest.mark.benchmark(group="convert nasbench101, 600,000 records")
@pytest.mark.parametrize("epochs", [(4, 12, 36, 108), (108,)], ids=["full", "only108"])
def test_convert(benchmark, tmp_path, epochs):
    """Reading, checksums, digest, decoding, grouping, costs and writing, in one process; records per second in extra_info."""
    source = tmp_path / "source.tfrecord"
    modules = (RECORDS if benchmark.enabled else 1200) // (3 * len(epochs))
    write_file(source, modules, epochs, np.random.default_rng(0))
    benchmark.pedantic(convert, (source, tmp_path / "target"), rounds=3, warmup_rounds=0)
    assert open_nasbench101(tmp_path / "target").table.columns["metrics"].shape == (modules, len(epochs), 3, 2, 4)
    if benchmark.stats:
        benchmark.extra_info["records_per_second"] = round(RECORDS / benchmark.stats.stats.min)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nasbench101")
    archs = write_file(folder / "source", 1000, (4, 12, 36, 108), np.random.default_rng(1), real_hashes=True)
    convert(folder / "source", folder / "target")
    return folder / "target", archs


@pytest.mark.benchmark(group="nasbench101, 10,000 queries")
@pytest.mark.parametrize("epochs", [None, 4])
def test_query(benchmark, table, epochs):
    """Of architectures that were seen before."""
    bench, archs, rng = open_nasbench101(table[0]), table[1] * 10, np.random.default_rng(2)

    def query():
        for arch in archs:
            bench.query(arch, epochs, rng)

    query()
    benchmark(query)
    if benchmark.stats:
        benchmark.extra_info["queries_per_second"] = round(len(archs) / benchmark.stats.stats.min)


@pytest.mark.benchmark(group="nasbench101, 10,000 queries")
def test_query_many(benchmark, table):
    """The same architectures, all at once."""
    bench, archs, rng = open_nasbench101(table[0]), table[1] * 10, np.random.default_rng(2)
    bench.query_many(archs)
    benchmark(bench.query_many, archs, None, rng)


@pytest.mark.benchmark(group="nasbench101, 1,000 first queries")
def test_first_query(benchmark, table):
    """Of architectures that were not seen before: the hash takes most of it. (The space remembers hashes of its own.)"""
    from nasharness.benchmarks.spaces.nasbench101 import module_hash

    def setup():
        module_hash.cache_clear()
        return (open_nasbench101(table[0]),), {}

    benchmark.pedantic(lambda bench: [bench.query(arch) for arch in table[1]], setup=setup, rounds=5)


@pytest.mark.benchmark(group="opening")
def test_open(benchmark, table):
    """Opening a converted file."""
    benchmark(open_nasbench101, table[0])
