"""Pareto fronts and hypervolume, and what a report says about the trade-off of accuracy with a cost."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasharness import Budget, Optimizer, Proposal, SearchSpace, TableBenchmark, compare
from nasharness.benchmarks.base import Info
from nasharness.harness.metrics import hypervolume, pareto_front
from nasharness.harness.report import pareto, write_report
from nasharness.harness.report.figures import draw_fronts
from nasharness.harness.report.pareto import attainment, find_fronts
from nasharness.harness.report.summary import measure
from nasharness.harness.run import Run, Trials
from nasharness.harness.study import Study

NAN = math.nan
NSGA2_ID = "nasharness.optimizers.nsga2:NSGA2"


# -------------------------------------------------------------------------------------------------------------- metrics


def test_front_on_paper() -> None:
    """Costs and accuracies; the second 2 costs as much for less, 4 costs more for as much, the equal 1 comes twice.

    By cost: (1, .5) kept, its double not, (2, .7) kept, (2, .6) no, (3, NaN) no, (4, .7) no, (5, .9) kept.
    """
    cost = [5, 2, 1, 2, 4, 1, 3, NAN]
    accuracy = [0.9, 0.6, 0.5, 0.7, 0.7, 0.5, NAN, 1.0]
    assert pareto_front(cost, accuracy).tolist() == [2, 3, 0]
    assert pareto_front([], []).tolist() == []
    with pytest.raises(ValueError, match="of one length"):
        pareto_front([1.0], [1.0, 2.0])


def test_hypervolume_on_paper() -> None:
    """Front (1, .5) (2, .7) (5, .9) up to cost 10: (1 * .5 + 3 * .7 + 5 * .9) / 10 = 0.71; up to 4: (.5 + 2 * .7) / 4."""
    cost, accuracy = [5, 2, 1, 2], [0.9, 0.6, 0.5, 0.7]
    accuracy[1], accuracy[3] = accuracy[3], accuracy[1]
    assert hypervolume(cost, accuracy, max_cost=10) == pytest.approx(0.71)
    assert hypervolume(cost, accuracy, max_cost=4) == pytest.approx(0.475)
    assert hypervolume([0.0], [1.0], max_cost=3) == 1.0
    assert hypervolume([], [], max_cost=3) == 0.0
    assert hypervolume([3.0, 7.0], [1.0, 1.0], max_cost=3) == 0.0
    assert hypervolume([NAN, 1.0], [1.0, NAN], max_cost=3) == 0.0
    assert math.isnan(hypervolume([1.0], [1.0], max_cost=NAN))
    with pytest.raises(ValueError, match="max_cost must be positive"):
        hypervolume([1.0], [1.0], max_cost=0.0)


COORDINATES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 10)), max_size=12)


@given(COORDINATES)
def test_hypervolume_counts_the_dominated_cells(points: list[tuple[int, int]]) -> None:
    """On whole numbers it is the number of unit cells of the 10 x 10 square that some point dominates."""
    cells = sum(any(c <= x and a > y for c, a in points) for x in range(10) for y in range(10))
    cost, accuracy = [c for c, _ in points], [a / 10 for _, a in points]
    assert hypervolume(cost, accuracy, max_cost=10) == pytest.approx(cells / 100)


@given(COORDINATES)
def test_front_is_its_definition(points: list[tuple[int, int]]) -> None:
    """A point is in the front unless another is no worse in both and better in one, or is equal and comes before."""

    def beaten(i: int) -> bool:
        c, a = points[i]
        return any(
            (d <= c and b >= a and (d, b) != (c, a)) or ((d, b) == (c, a) and j < i) for j, (d, b) in enumerate(points)
        )

    expected = sorted((i for i in range(len(points)) if not beaten(i)), key=lambda i: points[i])
    assert pareto_front([c for c, _ in points], [a for _, a in points]).tolist() == expected


# --------------------------------------------------------------------------------------------------------------- report


class Six(SearchSpace):
    name = "six"
    cardinalities = (6,)


# Architecture     0    1    2    3    4    5
TEST = (0.2, 0.4, 0.6, 0.5, 0.9, 0.7)
VALIDATION = (0.3, 0.4, 0.5, 0.6, 0.8, 0.9)
FLOPS = (1, 2, 3, 4, 8, 10)


def toy(test: tuple[float, ...] = TEST) -> TableBenchmark:
    curve = np.array(VALIDATION, dtype=np.float32)[:, None, None] * np.array([0.5, 1.0], dtype=np.float32)
    columns = {name: curve.copy() for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")}
    ends = np.array(test, dtype=np.float32)[:, None]
    columns |= {"test_loss": ends.copy(), "test_accuracy": ends, "class_of": np.arange(6, dtype=np.int16)}
    columns |= {"params": np.ones(6, dtype=np.int64), "flops": np.array(FLOPS)}
    return TableBenchmark("six-v1", Six(), columns, Info(id="six-v1"))


def a_run(
    label: str, repetition: int, archs: list[int], values: list[float], *, epochs: list[int] | None = None
) -> Run:
    n = len(archs)
    trials = Trials(
        arch=np.array(archs, dtype=np.int16)[:, None],
        value=np.array(values),
        seconds=np.ones(n),
        epochs=np.array(epochs or [2] * n, dtype=np.int32),
        status=np.where(np.isnan(values), 2, 0).astype(np.int8),
        optimizer_seconds=np.full(n, 0.5),
    )
    return Run(label, "six-v1", 0, repetition, trials)


RUNS = [
    a_run("random_search", 0, [0, 3, 2, 4], [0.3, 0.7, 0.5, 0.6]),
    a_run("random_search", 1, [5, 1], [0.9, NAN]),
    a_run("other", 0, [4, 0, 5], [0.8, 0.3, NAN]),
    a_run("other", 1, [2, 2], [NAN, NAN]),
]


def test_fronts_on_paper() -> None:
    """Chosen by what was seen, judged by test accuracy; flops up to 10, the largest of the space.

    random_search 0: seen (1, .3) (4, .7) (3, .5) (8, .6): 4 costs more than 3 for less, so 0, 2, 3 are returned. Their test
    accuracies .2, .6, .5 at 1, 3, 4: the third is dominated now. (2 * .2 + 7 * .6) / 10 = 0.46.
    random_search 1: 5 alone, at the largest cost: 0. Mean 0.23.
    other 0: 0 and 4: (7 * .2 + 2 * .9) / 10 = 0.32. other 1: nothing, 0. Mean 0.16, the difference -0.07.
    All: .2 at 1, .4 at 2, .6 at 3, .9 at 8: (.2 + .4 + 5 * .6 + 2 * .9) / 10 = 0.54.
    """
    found = find_fronts(measure(RUNS, toy()), toy(), "flops")
    assert (found.max_cost, found.sampled, found.split) == (10, False, "test")
    assert [f.trials.tolist() for f in found.fronts["random_search"]] == [[0, 2, 1], [0]]
    assert [f.trials.tolist() for f in found.fronts["other"]] == [[1, 0], []]
    assert found.hypervolumes["random_search"] == pytest.approx([0.46, 0.0])
    assert found.hypervolumes["other"] == pytest.approx([0.32, 0.0])
    assert found.best_cost.tolist() == [1, 2, 3, 8]
    assert found.best_hypervolume == pytest.approx(0.54)
    random, other = found.rows
    assert (random.hypervolume.value, random.difference, random.architectures) == (pytest.approx(0.23), None, 2.0)
    assert other.difference is not None
    assert (other.runs, other.hypervolume.value, other.difference.value) == pytest.approx((2, 0.16, -0.07))


def test_attainment_on_paper() -> None:
    """What random_search's two runs reach at 1, 3, 4, 10: .2, .6, .6, .6 and nothing, nothing, nothing, .7.

    At least half of two runs is one of them, so the better: .2, .6, .6, .7; both reach only .6, at 10.
    """
    fronts = find_fronts(measure(RUNS, toy()), toy(), "flops").fronts["random_search"]
    costs = np.array([0.5, 1, 3, 4, 10])
    assert attainment(fronts, "test", costs, 0.5) == pytest.approx([NAN, 0.2, 0.6, 0.6, 0.7], nan_ok=True)
    assert attainment(fronts, "test", costs, 0.75) == pytest.approx([NAN] * 4 + [0.6], nan_ok=True)


def test_only_the_longest_trainings_are_compared() -> None:
    """A training of one epoch, however good it looked, is not among what a run returns once there is a longer one."""
    run = a_run("other", 0, [5, 4, 0, 3], [0.99, 0.4, 0.3, NAN], epochs=[1, 2, 2, 2])
    assert find_fronts(measure([run], toy()), toy(), "flops").fronts["other"][0].trials.tolist() == [2, 1]


def test_a_method_that_trains_by_itself_returns_its_latest_proposal() -> None:
    """Earlier proposals are no trials that it could choose from."""
    run = a_run("other", 0, [5, 0, 4], [0.9, 0.3, 0.2])
    run = Run(run.optimizer, run.benchmark, 0, 0, run.trials, charged=False)
    front = find_fronts(measure([run], toy()), toy(), "flops").fronts["other"][0]
    assert front.trials.tolist() == [2]


def test_accuracies_that_happen_to_be_known_are_not_compared() -> None:
    """Where one architecture of a front has no test accuracy, all fronts are about validation accuracy."""
    benchmark = toy(test=(NAN, *TEST[1:]))
    found = find_fronts(measure(RUNS, benchmark), benchmark, "flops")
    assert found.split == "validation"
    assert found.hypervolumes["other"] == pytest.approx([(7 * 0.3 + 2 * 0.8) / 10, 0.0])


def test_a_space_that_is_too_large_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference is then the largest cost of a fixed sample, whatever the runs are, and no front of the whole is drawn."""
    monkeypatch.setattr(pareto, "LISTED", 5)
    monkeypatch.setattr(pareto, "SAMPLED", 3)
    references = {find_fronts(measure(runs, toy()), toy(), "flops").max_cost for runs in (RUNS, RUNS[:1], RUNS[2:])}
    assert len(references) == 1
    assert references < set(FLOPS)
    found = find_fronts(measure(RUNS, toy()), toy(), "flops")
    assert found.sampled
    assert len(found.best_cost) == 0
    assert draw_fronts(found).png


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_report_with_an_objective(tmp_path: Path) -> None:
    """The page has a section, a figure and a table; the CSV files hold every front and every hypervolume."""
    page = write_report(
        RUNS, toy(), tmp_path, specification={}, environment={}, objectives=["flops", "params", "flops"]
    )
    text = page.read_text()
    assert text.count("Accuracy against flops") == text.count("Accuracy against params") == 1
    assert "averaged over all limits from 0 to 10, the largest flops in the benchmark" in text
    assert "0.5400" in text
    assert (tmp_path / "figures" / "front_flops.svg").is_file()
    fronts = [row for row in rows(tmp_path / "fronts.csv") if row["objective"] == "flops"]
    assert [(r["optimizer"], r["repetition"], r["architecture"]) for r in fronts] == [
        ("random_search", "0", "0"),
        ("random_search", "0", "2"),
        ("random_search", "0", "3"),
        ("random_search", "1", "5"),
        ("other", "0", "0"),
        ("other", "0", "4"),
    ]
    third = fronts[2]
    assert (third["trial"], third["cost"], third["seen_validation_accuracy"]) == ("1", "4.0", "0.7")
    assert float(third["final_test_accuracy"]) == pytest.approx(0.5)
    volumes = [float(r["hypervolume"]) for r in rows(tmp_path / "hypervolumes.csv") if r["objective"] == "flops"]
    assert volumes == pytest.approx([0.46, 0.0, 0.32, 0.0])


def test_report_without_an_objective_has_no_such_section(tmp_path: Path) -> None:
    """Nothing changes for studies of accuracy alone."""
    page = write_report(RUNS, toy(), tmp_path, specification={}, environment={})
    assert "hypervolume" not in page.read_text()
    assert not (tmp_path / "fronts.csv").exists()


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    """Figure, page and CSV files with fronts are reproducible."""
    for name in ("one", "two"):
        write_report(RUNS, toy(), tmp_path / name, specification={}, environment={}, objectives=["flops"])
    for file in ("index.html", "fronts.csv", "hypervolumes.csv", "figures/front_flops.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


class Latencies:
    """A table of metrics to attach."""

    names = ("latency",)
    space = Six()

    def __init__(self, *latencies: float) -> None:
        self.latencies = np.array(latencies)

    def lookup(self, name: str, archs: Any) -> Any:
        return self.latencies[np.asarray(archs)[:, 0]]


@pytest.mark.parametrize(
    "latencies", [(NAN,) * 6, (0.0,) * 6, (NAN, 1.0, NAN, NAN, 2.0, NAN)], ids=["none", "zero", "some"]
)
def test_costs_that_are_not_known(latencies: tuple[float, ...], tmp_path: Path) -> None:
    """The section then says so, nothing is a division by zero, and an architecture of unknown cost is in no front."""
    benchmark = toy()
    benchmark.attach(Latencies(*latencies))
    page = write_report(RUNS, benchmark, tmp_path, specification={}, environment={}, objectives=["latency"])
    assert ("knows no positive latency" in page.read_text()) == (latencies[4] != 2)
    in_fronts = {row["architecture"] for row in rows(tmp_path / "fronts.csv")}
    assert all(not math.isnan(latencies[int(arch)]) for arch in in_fronts)
    assert draw_fronts(find_fronts(measure(RUNS[3:], benchmark), benchmark, "latency")).png


def test_very_cheap_architectures_do_not_squeeze_the_picture() -> None:
    """What costs less than a tenth of the largest cost and is less accurate than all else is below the axis; it is said."""
    benchmark = toy()
    said = "costs less than a tenth"
    cheap = a_run("other", 0, [0, 1, 4], [0.3, 0.4, 0.8])
    benchmark.attach(Latencies(0.1, 0.5, 3.0, 4.0, 8.0, 10.0))
    assert said in draw_fronts(find_fronts(measure([cheap], benchmark), benchmark, "latency")).caption
    assert said not in draw_fronts(find_fronts(measure([cheap], benchmark), benchmark, "flops")).caption


def test_an_unknown_objective_is_refused(tmp_path: Path) -> None:
    """By the benchmark's own words, and before a file is written."""
    with pytest.raises(ValueError, match="no metric 'watts'; it has params, flops"):
        write_report(RUNS, toy(), tmp_path / "new", specification={}, environment={}, objectives=["watts"])
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------------------------------------------------------- study


class Asking(Optimizer):
    """A strategy that wants the parameters, by a hyper-parameter that is not its first choice."""

    def __init__(self, space: SearchSpace, rng: np.random.Generator, *, objective: str = "flops") -> None:
        super().__init__(space, rng)
        self.metrics = (objective,)

    def ask(self) -> Proposal:
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial: object) -> None:
        pass


def test_a_study_reports_the_objectives_of_its_optimizers(tmp_path: Path) -> None:
    """Those of strategies that have one, by default or given, also after the study was opened again; else the one asked for."""
    names = ["random_search", NSGA2_ID, f"{NSGA2_ID}(objective='params')"]
    study = compare(names, "digits201", Budget(evaluations=5), repetitions=2, out=tmp_path / "study")
    assert study.objectives == Study.open(tmp_path / "study").objectives == ["flops", "params"]
    text = Study.open(tmp_path / "study").report(tmp_path / "page").read_text()
    assert "Accuracy against flops" in text
    assert "Accuracy against params" in text
    text = study.report(tmp_path / "page", objective="params").read_text()
    assert "Accuracy against flops" not in text
    assert "Accuracy against params" in text
    assert compare([Asking], "digits201", Budget(evaluations=5), repetitions=1).objectives == ["flops"]
    assert compare("random_search", "digits201", Budget(evaluations=5), repetitions=1).objectives == []


def test_command_line(tmp_path: Path) -> None:
    """`--objective` adds the section to the report of any study; a metric that is not there is found before the runs."""

    def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nasharness", *arguments, "--quiet"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    options = ("--optimizers", "random_search", "--repetitions", "2", "--budget", "5", "--jobs", "1", "--out", "x")
    wrong = shell("compare", *options, "--objective", "watts")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "nasharness: digits201 has no metric 'watts'; it has params, flops\n",
    )
    assert not (tmp_path / "x").exists()
    assert shell("compare", *options, "--objective", "flops").returncode == 0
    assert "Accuracy against flops" in (tmp_path / "x" / "index.html").read_text()
    assert shell("report", "x", "--out", "y", "--objective", "params").returncode == 0
    assert "Accuracy against params" in (tmp_path / "y" / "index.html").read_text()
