"""Speeds, as pytest-benchmark measurements: `make bench`. Nothing here fails on a slow machine.

`make test` runs each once, untimed, so that they keep working.
"""

import subprocess
import sys

import numpy as np
import pytest

import nasharness as nh
from nasharness.benchmarks import digits201

EVALUATIONS = 20_000


@pytest.fixture(scope="module")
def digits():
    return nh.load("digits201")


def process(*arguments):
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def bare_loop(space, table, rng):
    """The least that a random search can do: sample, look up, keep the best. What the harness is compared with."""
    best = (-1.0, None)
    values = table["val"]
    for _ in range(EVALUATIONS):
        arch = tuple([int(rng.random() * n) for n in space.cardinalities])
        best = max(best, (values[arch], arch))
    return best


@pytest.mark.benchmark(group="trials, 20,000 in one run")
def test_bare_loop(benchmark, digits):
    """Baseline of the group: a loop that records nothing."""
    table = {"val": {arch: digits.query(arch).val_accuracy for arch in digits.space}}
    benchmark(bare_loop, digits.space, table, np.random.default_rng(0))


@pytest.mark.benchmark(group="trials, 20,000 in one run")
@pytest.mark.parametrize(
    "name",
    [
        "random_search",
        "grid_search",
        "regularized_evolution",
        "regularized_evolution@nats",
        "successive_halving",
        "hyperband",
        "asha",
        "pasha",
        "reinforce",
        "tpe",
    ],
)
def test_trials(benchmark, digits, name):
    """End to end through `run`, with everything recorded; trials per second in extra_info."""
    result = benchmark(nh.run, name, digits, nh.Budget(evaluations=EVALUATIONS))
    assert len(result.trials) == EVALUATIONS or result.finished_early  # a grid has an end
    if benchmark.stats:
        benchmark.extra_info["trials_per_second"] = round(len(result.trials) / benchmark.stats.stats.min)


@pytest.mark.benchmark(group="runs of 300 evaluations")
@pytest.mark.parametrize(
    "name", ["random_search", "regularized_evolution", "local_search", "bohb", "tpe", "reinforce", "nsga2", "gp_bo"]
)
def test_short_run(benchmark, digits, name):
    """A run as a study makes it."""
    benchmark(nh.run, name, digits, nh.Budget(evaluations=300))


@pytest.mark.benchmark(group="opening")
def test_open_digits201(benchmark):
    """Reading the embedded table from disk."""
    benchmark(digits201.load)


@pytest.mark.benchmark(group="processes")
@pytest.mark.parametrize(
    "arguments",
    [("-c", "pass"), ("-c", "import numpy"), ("-c", "import nasharness"), ("-m", "nasharness", "--help")],
    ids=["python", "import numpy", "import nasharness", "nasharness --help"],
)
def test_start(benchmark, arguments):
    """Whole processes, beside the bare interpreter and NumPy."""
    benchmark.pedantic(process, arguments, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="a study of 3 x 100 x 300")
@pytest.mark.parametrize("report", [False, True], ids=["runs", "runs and report"])
def test_study(benchmark, tmp_path, report):
    """Two jobs, stored in a folder."""
    folders = (tmp_path / str(i) for i in range(100))
    repetitions = 100 if benchmark.enabled else 3

    def study():
        folder = next(folders)
        made = nh.compare(
            ["random_search", "regularized_evolution", "local_search"],
            "digits201",
            nh.Budget(evaluations=300),
            repetitions=repetitions,
            jobs=2,
            out=folder,
        )
        if report:
            made.report(folder)

    benchmark.pedantic(study, rounds=3, warmup_rounds=0)
