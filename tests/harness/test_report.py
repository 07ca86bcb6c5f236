"""The report of a study: its numbers worked by hand, its files, its corner cases."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nasharness.benchmarks.base import Final, Info
from nasharness.benchmarks.spaces.base import Architecture, SearchSpace
from nasharness.benchmarks.table import TableBenchmark
from nasharness.harness import metrics
from nasharness.harness.core import Budget
from nasharness.harness.report import summarise, write_report
from nasharness.harness.report.curves import anytime_curves
from nasharness.harness.report.figures import FLOOR, draw_all
from nasharness.harness.report.latex import escape
from nasharness.harness.report.page import budget_in_words
from nasharness.harness.report.summary import FEW_RUNS, Estimate, Row, measure, summarise_measured, verdict
from nasharness.harness.run import Run, Trials

NAN = math.nan


class TwoByThree(SearchSpace):
    name = "two_by_three"
    cardinalities = (2, 3)


def make_benchmark(test: Sequence[float], validation: Sequence[float], **info: Any) -> TableBenchmark:
    """Six architectures, one training run each, two epochs."""
    curve = np.array(validation, dtype=np.float32)[:, None, None] * np.array([0.5, 1.0], dtype=np.float32)
    columns = {name: curve.copy() for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")}
    ends = np.array(test, dtype=np.float32)[:, None]
    columns |= {"test_loss": ends.copy(), "test_accuracy": ends, "class_of": np.arange(6, dtype=np.int16)}
    columns |= {name: np.ones(6, dtype=np.int64) for name in ("params", "flops")}
    fields = {"source": "made up", "licence": "none", "sha256": "0" * 64, "version_history": "v1: first"} | info
    return TableBenchmark("toy-v1", TwoByThree(), columns, Info(id="toy-v1", **fields))


# Architecture            (0,0)  (0,1)  (0,2)  (1,0)  (1,1)  (1,2)
TEST = (0.5, 0.6, 0.7, 0.8, 0.9, 0.75)
VALIDATION = (0.5, 0.7, 0.6, 0.8, 0.85, 0.9)


@pytest.fixture(scope="module")
def toy() -> TableBenchmark:
    return make_benchmark(TEST, VALIDATION)


def make_run(
    label: str,
    repetition: int,
    archs: Sequence[Architecture],
    values: Sequence[float],
    *,
    seconds: float = 10.0,
    own: float = 0.5,
    finished_early: bool = False,
) -> Run:
    value = np.array(values, dtype=np.float64)
    trials = Trials(
        arch=np.array(archs, dtype=np.int16),
        value=value,
        seconds=np.full(len(value), seconds),
        epochs=np.full(len(value), 2, dtype=np.int32),
        status=np.where(np.isnan(value), 2, 0).astype(np.int8),
        optimizer_seconds=np.full(len(value), own),
    )
    return Run(label, "toy-v1", 0, repetition, trials, finished_early)


def small_study(labels: Sequence[str] = ("random_search", "local_search"), repetitions: int = 4) -> list[Run]:
    """Runs of six trials with noisy values; the later the label, the more it tries the good architectures."""
    runs = []
    for k, label in enumerate(labels):
        for repetition in range(repetitions):
            rng = np.random.default_rng((k, repetition))
            archs = [(int(rng.random() < 0.3 + 0.2 * k), int(rng.integers(3))) for _ in range(6)]
            values = [VALIDATION[3 * a + b] + 0.05 * rng.normal() for a, b in archs]
            runs.append(make_run(label, repetition, archs, values, seconds=5 + 5 * rng.random()))
    return runs


def write(runs: Sequence[Run], toy: TableBenchmark, folder: Path, **keywords: Any) -> Path:
    keywords = {"specification": {"budget": "60s"}, "environment": {"python": "3"}} | keywords
    return write_report(runs, toy, folder, **keywords)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(toy: TableBenchmark, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `small_study`, in a folder that `write_report` had to make; read only."""
    return write(small_study(), toy, tmp_path_factory.mktemp("report") / "deep" / "report").parent


def test_summary_worked_by_hand(toy: TableBenchmark) -> None:
    """Three runs on paper.

    Run A0: (0,0) seen 0.5, then (1,0) seen 0.8, then (0,1) failed. Incumbents (0,0), (1,0), (1,0).
        Test regret 0.9 - 0.5 = 40, then 0.9 - 0.8 = 10 points at the end. Validation regret 0.9 - 0.8 = 10 points.
        tau over the two that did not fail: seen 0.5 < 0.8, test 0.5 < 0.8: 1.
    Run A1: (1,2) seen 0.7, then (1,1) seen 0.6. The incumbent stays (1,2): test regret 0.9 - 0.75 = 15, validation 0.
        tau: seen 0.7 > 0.6, test 0.75 < 0.9: -1.
    Run random_search: (1,1) seen 0.6 alone: test regret 0; validation regret 0.9 - 0.85 = 5; tau undefined.
    A: mean test regret 12.5, validation 5, tau 0; evaluations 2.5; 25 simulated and 1.25 own seconds a run; one failed
    trial. IQM of two values cuts floor(2/4) = 0 of them: 12.5. Neither 10 nor 15 is below 0: P(better) = 0.
    The bootstrap of two values is 10, 12.5, 12.5 or 15 with 1/4 each, so the interval is [10, 15].
    """
    runs = [
        make_run("A", 0, [(0, 0), (1, 0), (0, 1)], [0.5, 0.8, NAN]),
        make_run("A", 1, [(1, 2), (1, 1)], [0.7, 0.6], finished_early=True),
        make_run("random_search", 0, [(1, 1)], [0.6]),
    ]
    a, random = summarise(runs, toy).rows
    near = pytest.approx
    assert (a.optimizer, a.repetitions, a.without_incumbent, a.failed, a.finished_early) == ("A", 2, 0, 1, 1)
    for estimate in (a.test_mean, a.test_iqm):
        assert (estimate.value, estimate.low, estimate.high) == near((12.5, 10, 15), abs=1e-4)
    assert (a.validation_mean.value, a.validation_mean.low, a.validation_mean.high) == near((5, 0, 10), abs=1e-4)
    assert (a.tau.value, a.tau.low, a.tau.high, a.tau_runs) == near((0, -1, 1, 2))
    assert (a.evaluations, a.simulated_seconds, a.optimizer_seconds) == near((2.5, 25, 1.25))
    assert a.beats_baseline is not None
    assert a.beats_baseline.value == 0
    assert not a.beats_baseline.has_interval  # one run of random search
    assert random.beats_baseline is None
    assert (random.test_mean.value, random.validation_mean.value) == near((0, 5), abs=1e-4)
    assert not random.test_mean.has_interval
    assert math.isnan(random.tau.value)
    assert random.tau_runs == 0


def test_measured_regret_is_the_runs_own(toy: TableBenchmark) -> None:
    """The look-up of all trials at once agrees with `Run.regret`, trial by trial."""
    runs = [*small_study(), make_run("late", 0, [(0, 0), (0, 1), (1, 1)], [NAN, 0.4, 0.5])]
    for m in measure(runs, toy):
        np.testing.assert_allclose(m.test_regret, 100 * m.run.regret(toy, "test"))
        np.testing.assert_allclose(m.validation_regret, 100 * m.run.regret(toy, "validation"))


def test_display_rows(toy: TableBenchmark) -> None:
    headings, rows = summarise(small_study(), toy).rows_for_display()
    assert len(rows) == 2
    assert all(len(row) == len(headings) for row in rows)
    cells = dict(zip(headings, rows[1], strict=True))
    assert cells["strategy"] == "local_search"
    assert re.fullmatch(r"\d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", cells["test regret, mean"])
    assert cells["runs"] == "4"


def test_estimates_as_text() -> None:
    assert Estimate(1.234, 1.1, 1.37).text() == "1.23 [1.10, 1.37]"
    assert Estimate(1.234, NAN, NAN).text() == "1.23 [n/a]"
    assert Estimate(NAN, NAN, NAN).text() == "n/a"
    assert Estimate(-0.0001, -0.001, 1234.5).text() == "0.00 [0.00, 1,234.50]"


def row_with(
    label: str, mean: Estimate, difference: Estimate | None = None, repetitions: int = 20, without: int = 0
) -> Row:
    none = Estimate(NAN, NAN, NAN)
    return Row(label, repetitions, without, mean, none, none, none, none, 0, 1.0, 1.0, 1.0, 0, 0, None, difference)


LESS = Estimate(-0.57, -0.8, -0.3)


def test_verdicts_say_only_what_the_intervals_say() -> None:
    """Ahead and behind are where the interval of the difference excludes 0; touching it is not excluding it."""
    base = row_with("random_search", Estimate(1.8, 1.6, 2.0))
    assert verdict(row_with("x", Estimate(1.23, 1.1, 1.37), LESS), base) == (
        "x is ahead of random_search: mean test regret 1.23 vs 1.80 points, difference -0.57 [-0.80, -0.30];"
        " the intervals [1.10, 1.37] and [1.60, 2.00] do not overlap."
    )
    assert verdict(row_with("x", Estimate(1.5, 1.3, 1.7), LESS), base).endswith("and [1.60, 2.00] overlap.")
    more = Estimate(1.2, 0.7, 1.7)
    assert verdict(row_with("x", Estimate(3, 2.5, 3.5), more), base).startswith("x is behind random_search:")
    for low, high in ((-0.5, 0.0), (0.0, 0.5), (-1.0, 0.2)):
        sentence = verdict(row_with("x", Estimate(1.5, 1.3, 1.7), Estimate(-0.3, low, high)), base)
        assert sentence.startswith("x cannot be told apart from random_search:")


def test_verdicts_admit_what_they_do_not_know() -> None:
    base = row_with("random_search", Estimate(1.8, 1.6, 2.0))
    undefined = Estimate(-0.8, NAN, NAN)
    assert "at least two runs" in verdict(row_with("x", Estimate(1, NAN, NAN), undefined, repetitions=1), base)
    nothing = verdict(row_with("x", Estimate(NAN, NAN, NAN), without=20), base)
    assert nothing == "x and random_search cannot be compared: every trial of every run of x failed."
    some = verdict(row_with("x", Estimate(1.0, 0.9, 1.1), LESS, without=3), base)
    assert "is ahead of" in some
    assert "In 3 of 20 runs of x every trial failed" in some
    few = verdict(row_with("x", Estimate(1.0, 0.9, 1.1), LESS, repetitions=FEW_RUNS - 1), base)
    assert f"only {FEW_RUNS - 1} runs" in few


def test_verdicts_need_random_search(toy: TableBenchmark) -> None:
    assert "no random_search" in summarise(small_study(("a", "b")), toy).verdicts()[0]
    assert "only random_search" in summarise(small_study(("random_search",)), toy).verdicts()[0]
    assert len(summarise(small_study(("a", "random_search", "b")), toy).verdicts()) == 2


def test_a_row_does_not_depend_on_its_neighbours(toy: TableBenchmark) -> None:
    """Nor on the order in which runs finished."""
    runs = small_study(("random_search", "a", "b"))
    whole = summarise(runs, toy)
    assert summarise([r for r in runs if r.optimizer != "b"], toy).rows == whole.rows[:2]
    assert {r.optimizer: r for r in summarise(runs[::-1], toy).rows} == {r.optimizer: r for r in whole.rows}


def test_failed_runs_are_counted(toy: TableBenchmark) -> None:
    """A run without an incumbent is out of the mean, in the count, and loses against random search."""
    runs = [
        *(make_run("random_search", i, [(0, 0)], [0.5]) for i in range(3)),
        *(make_run("fragile", i, [(1, 1)], [0.8]) for i in range(2)),
        make_run("fragile", 2, [(1, 1), (1, 0)], [NAN, NAN]),
    ]
    fragile = summarise(runs, toy).rows[1]
    assert (fragile.repetitions, fragile.without_incumbent, fragile.failed) == (3, 1, 2)
    assert fragile.test_mean.value == pytest.approx(0)
    assert fragile.beats_baseline is not None
    assert fragile.beats_baseline.value == pytest.approx(2 / 3)
    cells = summarise(runs, toy).rows_for_display()[1][1]
    assert "3 (1 without incumbent)" in cells


def test_measure_refuses_what_it_cannot_report(toy: TableBenchmark, tmp_path: Path) -> None:
    run = make_run("a", 0, [(0, 0)], [0.5])
    with pytest.raises(ValueError, match="no runs"):
        write([], toy, tmp_path / "r")
    assert not (tmp_path / "r").exists()
    with pytest.raises(ValueError, match="given twice"):
        measure([run, run], toy)
    with pytest.raises(ValueError, match="cannot be reported against"):
        measure([Run("a", "other-v1", 0, 0, run.trials)], toy)


def test_anytime_curve_by_hand(toy: TableBenchmark) -> None:
    """Two runs, trials end at 10, 20 and 30 s; the second has its first incumbent at 20 s, so the curve starts there.

    First: (0,0) at 10 s, regret 40; (1,0) at 20 s, regret 10; nothing better. Second: failed; (0,2) at 20 s, regret 20;
    (1,1) at 30 s, regret 0. Means: 15 from 20 s, 5 at 30 s.
    """
    runs = [
        make_run("a", 0, [(0, 0), (1, 0), (0, 1)], [0.5, 0.8, 0.7], own=0.0),
        make_run("a", 1, [(0, 0), (0, 2), (1, 1)], [NAN, 0.6, 0.8], own=0.0),
    ]
    test, validation = anytime_curves(measure(runs, toy), points=5)
    assert (test.split, validation.split, test.runs) == ("test", "validation", 2)
    np.testing.assert_allclose(test.gpu_seconds, 20 * 1.5 ** (np.arange(5) / 4))
    np.testing.assert_allclose(test.mean, [15, 15, 15, 15, 5], atol=1e-4)
    np.testing.assert_allclose(test.low, [10, 10, 10, 10, 0], atol=1e-4)
    np.testing.assert_allclose(test.high, [20, 20, 20, 20, 10], atol=1e-4)
    np.testing.assert_allclose(validation.mean[-1], (10 + 5) / 2, atol=1e-4)


def test_anytime_curve_ends_at_the_summary(toy: TableBenchmark) -> None:
    measured = measure(small_study(repetitions=7), toy)
    rows = {row.optimizer: row for row in summarise_measured(measured).rows}
    for curve in anytime_curves(measured):
        expected = rows[curve.optimizer].test_mean if curve.split == "test" else rows[curve.optimizer].validation_mean
        assert (curve.mean[-1], curve.low[-1], curve.high[-1]) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
        assert not np.isnan(curve.mean).any()


@pytest.mark.parametrize("seconds", [0.0, 10.0])
def test_anytime_curve_of_a_single_time(toy: TableBenchmark, seconds: float) -> None:
    """One trial, or trials that cost nothing at all: a single point, not a broken grid."""
    runs = [make_run("a", i, [(0, 0)], [0.5], seconds=seconds, own=0.0) for i in range(2)]
    curve = anytime_curves(measure(runs, toy))[0]
    assert curve.gpu_seconds.tolist() == [seconds]
    np.testing.assert_allclose(curve.mean, [40], atol=1e-4)


def test_anytime_curve_starts_after_a_free_trial(toy: TableBenchmark) -> None:
    run = make_run("a", 0, [(0, 0), (1, 1)], [0.5, 0.8], own=0.0)
    run.trials.seconds[0] = 0.0
    curve = anytime_curves(measure([run], toy))[0]
    assert (curve.gpu_seconds > 0).all()


def test_report_is_complete(toy: TableBenchmark, folder: Path) -> None:
    runs = small_study()
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    figures = {"anytime_test_regret", "anytime_validation_regret", "final_test_regret"}
    assert files == {"index.html", "summary.csv", "curves.csv", "runs.csv", "table.tex"} | {
        f"figures/{name}.{kind}" for name in figures for kind in ("png", "svg")
    }
    for name in figures:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")

    summary = read_csv(folder / "summary.csv")
    assert [row["optimizer"] for row in summary] == ["random_search", "local_search"]
    assert float(summary[1]["test_regret_mean"]) == summarise(runs, toy).rows[1].test_mean.value
    assert summary[0]["probability_better_than_random"] == ""

    per_run = read_csv(folder / "runs.csv")
    assert len(per_run) == 8
    finals = [float(row["final_test_regret"]) for row in per_run if row["optimizer"] == "local_search"]
    assert np.mean(finals) == pytest.approx(float(summary[1]["test_regret_mean"]))
    assert toy.space.from_string(per_run[0]["incumbent"]) == runs[0].incumbent

    curves = read_csv(folder / "curves.csv")
    assert set(curves[0]) == {"optimizer", "split", "gpu_seconds", "regret_mean", "low", "high"}
    assert {(c["optimizer"], c["split"]) for c in curves} == {
        (label, split) for label in ("random_search", "local_search") for split in ("test", "validation")
    }


class Page(HTMLParser):
    """Collects tags, attributes, ids and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_needs_nothing_else(folder: Path) -> None:
    """No script, nothing fetched from anywhere; every reference inside the page finds its one target."""
    text = (folder / "index.html").read_text()
    assert "http://" not in text
    assert "https://" not in text
    assert "<script" not in text
    page = Page(text)
    assert page.tags.count("svg") == 3
    assert not {"link", "script", "img", "iframe", "object"} & set(page.tags)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {str(v)[1:] for _, name, v in page.attributes if name == "href"} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert used <= set(ids)


def test_page_says_what_was_done(toy: TableBenchmark, tmp_path: Path) -> None:
    specification = {"budget": {"seconds": 60.0, "evaluations": 5}, "optimizers": ["random_search", "local_search"]}
    environment = {"numpy": "9.9", "hosts": ["node1", "node2"]}
    index = write(small_study(), toy, tmp_path, specification=specification, environment=environment)
    text = Page(index.read_text()).text
    assert "60 simulated GPU seconds or 5 evaluations, whichever comes first" in text
    assert "random_search and local_search were each run 4 times on toy-v1 (6 architectures)" in text
    assert json.dumps(specification, indent=2) in text
    assert '["node1", "node2"]' in text
    assert "made up" in text
    for sentence in summarise(small_study(), toy).verdicts():
        assert sentence in text


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("20000s", "20,000 simulated GPU seconds"),
        ("300", "300 evaluations"),
        (7, "7 evaluations"),
        (Budget(seconds=60, evaluations=5), "60 simulated GPU seconds or 5 evaluations, whichever comes first"),
        ("much", "much"),
        (None, ""),
    ],
)
def test_budget_in_words(budget: Any, words: str) -> None:
    assert budget_in_words(budget) == words


def test_labels_are_text_everywhere(tmp_path: Path) -> None:
    """A label is shown as it is: no tags, formulas or LaTeX, no comment ended, nothing dropped for an underscore."""
    labels = ["<b>x</b>", "_hidden_$a_b$", "--><script>alert(1)</script>", "a%b&c#d{e}~f^g\\h", "random_search"]
    toy = make_benchmark(TEST, VALIDATION, source="<i>https://example.org</i>", details={"<u>": "<s>&"})
    index = write(small_study(labels, 2), toy, tmp_path, specification={"optimizers": labels, "note": "</pre>"})
    text = index.read_text()
    page = Page(text)
    assert not {"b", "i", "u", "s", "script"} & set(page.tags)
    assert "<b>" not in text
    for label in labels:
        assert label in page.text
    assert [row["optimizer"] for row in read_csv(tmp_path / "summary.csv")] == labels
    table = (tmp_path / "table.tex").read_text()
    assert r"a\%b\&c\#d\{e\}\textasciitilde{}f\textasciicircum{}g\textbackslash{}h" in table
    assert r"\_hidden\_\$a\_b\$" in table
    for svg in tmp_path.glob("figures/*.svg"):
        Page(svg.read_text())


def test_latex_table(folder: Path) -> None:
    table = (folder / "table.tex").read_text()
    for part in (r"\begin{table}", r"\toprule", r"\midrule", r"\bottomrule", r"\caption{", r"\label{tab:toy-v1}"):
        assert table.count(part) == 1
    assert r"local\_search &" in table
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", table)
    assert columns is not None
    lines = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 3
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {len(columns[1]) - 1}
    assert escape("95 % of a_b") == r"95 \% of a\_b"
    assert table.count("{") == table.count("}")


def test_same_study_same_bytes(toy: TableBenchmark, folder: Path, tmp_path: Path) -> None:
    """Twice the same runs, once in another order within a strategy, once over an older report."""
    runs = small_study()
    (tmp_path / "index.html").write_text("old")
    np.random.seed(1)  # noqa: NPY002, TID251  (global random state must not matter)
    write([*runs[3::-1], *runs[:3:-1]], toy, tmp_path)
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(files) == 11
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_a_single_repetition_has_no_interval(toy: TableBenchmark, tmp_path: Path) -> None:
    index = write(small_study(repetitions=1), toy, tmp_path, specification={}, environment=None)
    row = read_csv(tmp_path / "summary.csv")[1]
    assert row["test_regret_mean"] != ""
    assert row["test_regret_mean_low"] == row["test_regret_mean_high"] == ""
    assert all(c["low"] == "" and c["regret_mean"] != "" for c in read_csv(tmp_path / "curves.csv"))
    text = Page(index.read_text()).text
    assert "[n/a]" in text
    assert np.__version__ in text  # this process is described where no environment is given
    assert "No band with a single run" in text
    assert "cannot be compared" in text


def test_a_strategy_that_found_nothing(toy: TableBenchmark, tmp_path: Path) -> None:
    runs = [*small_study(("random_search",)), *(make_run("broken", i, [(0, 0)] * 2, [NAN, NAN]) for i in range(3))]
    index = write(runs, toy, tmp_path)
    row = read_csv(tmp_path / "summary.csv")[1]
    assert (row["without_incumbent"], row["test_regret_mean"], row["failed_trials"]) == ("3", "", "6")
    assert float(row["probability_better_than_random"]) == 0
    assert [r["incumbent"] for r in read_csv(tmp_path / "runs.csv")][-3:] == [""] * 3
    assert {c["optimizer"] for c in read_csv(tmp_path / "curves.csv")} == {"random_search"}
    text = Page(index.read_text()).text
    assert "every trial of every run of broken failed" in text
    assert "3 of broken" in text


def test_nobody_found_anything(toy: TableBenchmark, tmp_path: Path) -> None:
    """Still a report: it says that there is nothing."""
    index = write([make_run("broken", i, [(0, 0)], [NAN]) for i in range(2)], toy, tmp_path)
    assert "2 (2 without incumbent)" in Page(index.read_text()).text
    assert len(read_csv(tmp_path / "curves.csv")) == 0


def test_regret_of_zero_is_drawn_at_the_floor(toy: TableBenchmark) -> None:
    """A search that finds the best at once: the logarithmic axis clips, and says so."""
    measured = measure([make_run("lucky", i, [(1, 1), (0, 0)], [0.9, 0.5]) for i in range(3)], toy)
    drawings = draw_all(measured, anytime_curves(measured), summarise_measured(measured))
    assert f"Regrets below {FLOOR:g} points, zero too, are drawn at {FLOOR:g}" in drawings[0].caption
    assert "drawn at" not in drawings[1].caption  # validation regret 5
    assert b"nan" not in drawings[0].svg.lower()


def test_many_runs_are_looked_up_in_batches(toy: TableBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarise(small_study(), toy)
    calls = []
    original = toy.final_many

    def counted(archs: Any) -> Final:
        calls.append(len(archs))
        return original(archs)

    monkeypatch.setattr(toy, "final_many", counted)
    monkeypatch.setattr("nasharness.harness.report.summary._BATCH", 20)
    assert summarise(small_study(), toy) == whole
    assert calls == [18, 18, 12]  # eight runs of six trials


def test_tau_column_is_the_mean_over_runs(toy: TableBenchmark) -> None:
    runs = small_study(("a",))
    expected = [metrics.kendall_tau(r.trials.value, toy.final_many(r.trials.arch).test_accuracy) for r in runs]
    assert summarise(runs, toy).rows[0].tau.value == pytest.approx(np.nanmean(expected))


class _NoOptimum(TableBenchmark):
    """A surrogate knows no best architecture."""

    @property
    def optimum(self) -> Final:
        return Final(NAN, NAN, NAN, NAN, NAN)


def _two_strategies() -> list[Run]:
    good = [make_run("good", i, [(0, 0), (1, 1)], [0.5, 0.85]) for i in range(3)]
    poor = [make_run("random_search", i, [(0, 0), (0, 2)], [0.5, 0.6]) for i in range(3)]
    return [*good, *poor]


def test_a_benchmark_without_test_accuracies_is_reported_on_validation(tmp_path: Path) -> None:
    """No column, figure or sentence speaks of a test set, and the comparison is on validation."""
    benchmark = make_benchmark([NAN] * 6, VALIDATION)
    measured = measure(_two_strategies(), benchmark)
    assert [m.split for m in measured] == ["validation"] * 6
    summary = summarise_measured(measured)
    good = summary.rows[0]
    assert good.mean.value == good.validation_mean.value == pytest.approx(5.0)
    assert math.isnan(good.test_mean.value)
    assert good.difference is not None
    assert good.difference.value == pytest.approx(-25.0)
    assert "good is ahead of random_search: mean validation regret 5.00 vs 30.00 points" in summary.verdicts()[0]
    headings, _ = summary.rows_for_display()
    assert not any("test" in heading for heading in headings)
    assert "validation_regret_difference_to_random" in summary.records()[0]
    assert {c.split for c in anytime_curves(measured)} == {"validation"}
    assert [d.name for d in draw_all(measured, anytime_curves(measured), summary)] == [
        "anytime_validation_regret",
        "final_validation_regret",
    ]
    page = write_report(_two_strategies(), benchmark, tmp_path, specification={}).read_text()
    assert "it has none" in page
    assert "The benchmark has no test accuracies, or lacks those of some incumbents." in page


def test_strategies_are_not_compared_on_the_test_accuracies_that_happen_to_be_known(tmp_path: Path) -> None:
    """Where one incumbent has none, means would be of a biased sample, and the run without would count as the worst."""
    test = list(TEST)
    test[VALIDATION.index(0.85)] = NAN  # the incumbent that "good" ends with
    benchmark = make_benchmark(test, VALIDATION)
    measured = measure(_two_strategies(), benchmark)
    assert {m.split for m in measured} == {"validation"}
    assert all(np.isnan(m.test_regret).all() for m in measured)
    good = summarise_measured(measured).rows[0]
    assert good.beats_baseline is not None
    assert good.beats_baseline.value == 1.0
    write_report(_two_strategies(), benchmark, tmp_path, specification={})


def test_an_unknown_optimum_is_replaced_by_the_best_found(tmp_path: Path) -> None:
    """Regret is then relative to the best end of any run, and the page says so."""
    toy = make_benchmark(TEST, VALIDATION)
    benchmark = _NoOptimum("toy-v1", toy.space, toy._columns, toy.info)
    summary = summarise(_two_strategies(), benchmark)
    assert summary.best_found
    good, poor = summary.rows
    assert good.test_mean.value == 0.0
    assert poor.test_mean.value == pytest.approx(20.0)  # 0.9 - 0.7
    assert poor.validation_mean.value == pytest.approx(25.0)
    page = write_report(_two_strategies(), benchmark, tmp_path, specification={}).read_text()
    assert "not known" in page
    assert "the best that any of these runs ended with" in page


def test_linear_interpolation_is_what_the_protocol_says() -> None:
    """Between two trials, regret lies on the straight line; before the first there is none; after the last it stays."""
    benchmark = make_benchmark(TEST, VALIDATION)
    runs = [make_run("a", 0, [(0, 0), (1, 1)], [0.5, 0.85], seconds=10.0, own=0.0)]
    step = anytime_curves(measure(runs, benchmark))[0]
    benchmark.interpolation = "linear"
    measured = measure(runs, benchmark)
    line = anytime_curves(measured)[0]
    assert (step.gpu_seconds == line.gpu_seconds).all()
    assert step.mean[:-1] == pytest.approx(40.0, abs=1e-4)
    assert line.mean == pytest.approx(40.0 * (20.0 - line.gpu_seconds) / 10.0, abs=1e-4)
    drawing = draw_all(measured, anytime_curves(measured), summarise_measured(measured))[0]
    assert "straight line" in drawing.caption
