"""The report of a stopping study: its numbers worked by hand, its sentences, its files, its corner cases."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import nasharness as nh
from nasharness.harness import metrics
from nasharness.harness.curves import curves_of
from nasharness.harness.report.stopping import (
    RuleRow,
    StoppingSummary,
    compared,
    deviations,
    hypervolumes,
    student,
    summarise,
)
from nasharness.harness.report.stopping_page import stopping_table, write_stopping_report
from nasharness.harness.report.summary import Estimate
from nasharness.harness.stopping import (
    DecisionRow,
    RankingRow,
    Reliability,
    SearchRow,
    StoppingStudy,
    compare_stopping,
    decision_rows,
    reliability,
)

NAN = math.nan
HERE = {"Python": "3"}


def search(rule: str, ordering: int = 0, regret: float = 0.0, seconds: float = 100.0, **changes: Any) -> SearchRow:
    """Of 10 architectures that take 100 s in all."""
    row = SearchRow(
        rule=rule,
        delta=NAN,
        fold=ordering % 2,
        ordering=ordering,
        regret=regret,
        seconds=seconds,
        restart_seconds=seconds,
        full_seconds=100.0,
        cpu_seconds=0.5,
        training_seconds=0.0,
        trained_in_full=10 if seconds == 100.0 else 2,
        epochs_share=seconds / 100,
    )
    return replace(row, **changes)


def ranked(rule: str, epochs: int, fold: int, spearman: float, **changes: float) -> RankingRow:
    row = RankingRow(rule, epochs / 20, epochs, fold, 40, spearman, spearman / 2, 0.8, 0.5, 0.1, NAN)
    return replace(row, **changes)


def study(
    searches: Iterable[SearchRow] = (),
    *,
    rules: Sequence[str] | None = None,
    sweeps: Iterable[SearchRow] = (),
    ranking: Iterable[RankingRow] = (),
    decisions: Iterable[DecisionRow] = (),
    diagrams: Mapping[str, Reliability] | None = None,
    killed: Mapping[str, tuple[float, float]] | None = None,
    errors: Mapping[str, str] | None = None,
    specification: Mapping[str, Any] | None = None,
) -> StoppingStudy:
    rows = tuple(searches)
    return StoppingStudy(
        name="toy-v1",
        curves_words="100 learning curves of 20 epochs of toy-v1",
        max_epochs=20,
        rules=tuple(dict.fromkeys(row.rule for row in rows)) if rules is None else tuple(rules),
        ranking=tuple(ranking),
        decisions=tuple(decisions),
        reliability=diagrams or {},
        killed=killed or {},
        searches=rows,
        sweeps=tuple(sweeps),
        errors=errors or {},
        specification={"n": 10, "seed": 0} if specification is None else specification,
    )


def many(n: int = 20, seed: int = 0) -> StoppingStudy:
    """Many rules, most of them predictors with all that belongs to one."""
    rng = np.random.default_rng(seed)
    loss = {"none": (0, 100), "last_value": (0.5, 15), "nu_svr(delta=0.01)": (0.3, 30), "hyperband": (0.1, 40)}
    loss |= {"i_epoch": (1.5, 6), "median_rule": (0.0, 45), "bad": (2.0, 50)}
    searches, sweeps, ranking, decisions = [], [], [], []
    diagrams = {}
    for rule, (regret, seconds) in loss.items():
        for i in range(n):
            lost, spent = regret * rng.exponential() * (rng.random() < 0.7), seconds * rng.uniform(0.9, 1.0)
            more = {"restart_seconds": 1.5 * spent} if rule == "hyperband" else {}
            more |= {"training_seconds": 50.0} if rule.startswith("nu_svr") else {}
            searches.append(search(rule, i, lost, spent if rule != "none" else 100.0, **more))
            if rule in ("last_value", "nu_svr(delta=0.01)", "i_epoch"):
                for k, value in enumerate((1, 2, 5) if rule == "i_epoch" else (0.01, 0.1, 0.5), 1):
                    sweeps.append(search(rule, i, lost * k, spent / k, delta=value))
        if rule in ("last_value", "nu_svr(delta=0.01)", "bad"):
            mean, up = (0.5, 0.1) if rule.startswith("nu_svr") else (NAN, -0.2 if rule == "bad" else 0.0)
            for epochs in (1, 5, 10):
                for fold in range(5):
                    noise = 0.01 * rng.normal()
                    ranking.append(ranked(rule, epochs, fold, 0.5 + 0.02 * epochs + up + noise, r2=mean))
            p = rng.random(2000)
            better = rng.random(2000) < (p if rule != "bad" else 1 - p)
            decisions += decision_rows(rule, p, np.repeat([1, 5], 1000), better)
            diagrams[rule] = reliability(rule, p, better)
    return study(
        searches,
        sweeps=sweeps,
        ranking=ranking,
        decisions=decisions,
        diagrams=diagrams,
        killed={rule: (NAN if rule == "hyperband" else 0.1, 0.0 if rule == "median_rule" else 0.25) for rule in loss},
        errors={"tse": "needs <training> losses"},
    )


def row_of(summary: StoppingSummary, rule: str) -> RuleRow:
    return next(row for row in summary.rows if row.rule == rule)


# ------------------------------------------------------------------------------------------------------------ searches


def worked() -> StoppingStudy:
    """Two searches: regrets 0 and 1 at 10 s and 30 s of 100 s; last_value 2 and 3 at 10 s and 10 s."""
    return study(
        [
            *(search("none", i) for i in range(2)),
            search("last_value", 0, 2.0, 10.0),
            search("last_value", 1, 3.0, 10.0),
            search("rule", 0, 0.0, 10.0, training_seconds=80.0, restart_seconds=20.0),
            search("rule", 1, 1.0, 30.0, training_seconds=80.0, restart_seconds=40.0, trained_in_full=5),
        ],
        killed={"none": (0.0, 0.0), "last_value": (0.5, 1.0), "rule": (0.25, 0.5)},
    )


def test_worked_by_hand() -> None:
    row = row_of(summarise(worked()), "rule")
    assert row.searches == 2
    assert (row.regret.value, row.regret_median, row.regret_max) == (0.5, 0.5, 1.0)
    assert row.regret_95 == pytest.approx(0.95)
    assert row.gpu_seconds == 20
    assert row.share.value == pytest.approx(0.2)
    assert row.speed_up.value == pytest.approx(5)  # of the sums; the mean of 10 and 10/3 would be 6.67
    assert row.restart_share == pytest.approx(0.3)
    assert row.training_seconds == 80
    assert row.speed_up_paid == pytest.approx(200 / 200)
    assert row.completed == pytest.approx((2 + 5) / 20)
    assert (row.false_stop, row.best_lost) == (0.25, 0.5)
    assert row.from_none is not None
    assert row.from_none.value == 0.5
    assert row.from_last == Estimate(-2, -2, -2)  # better by 2 in both: the differences are paired
    assert row.share_from_last is not None
    assert row.share_from_last.value == pytest.approx(0.1)
    assert (row.on_front, row.on_front_paid) == (True, False)


def test_the_table_begins_with_none_and_falls_in_gpu_time() -> None:
    labels = [row.rule for row in summarise(many()).rows]
    assert labels[0] == "none"
    seconds = [row.gpu_seconds for row in summarise(many()).rows]
    assert seconds == sorted(seconds, reverse=True)
    assert labels[1:3] == ["bad", "median_rule"]


def test_none_stays_first_where_a_schedule_takes_longer() -> None:
    rows = summarise(study([search("slow", 0, 0.0, 150.0), search("none", 0)])).rows
    assert [row.rule for row in rows] == ["none", "slow"]


def test_fronts() -> None:
    """At 10 s a loses 1, b as much, c costs more and loses more; d loses nothing at 50 s."""
    points = {"none": (0.0, 100.0), "a": (1.0, 10.0), "b": (1.0, 10.0), "c": (1.5, 20.0), "d": (0.0, 50.0)}
    summary = summarise(study(search(rule, i, *point) for rule, point in points.items() for i in range(12)))
    assert {row.rule for row in summary.rows if row.on_front} == {"a", "b", "d"}
    assert summary.verdicts()[0] == (
        "On the Pareto front of mean regret against GPU time, each rule at its own setting: d (0.00 points at 50.0 %), a (1.00"
        " points at 10.0 %) and b (1.00 points at 10.0 %). No early termination is not on it: as little regret was had for less."
    )


def test_front_with_training_curves_paid() -> None:
    summary = summarise(worked())
    assert (
        "Where a single search has to pay for the training curves, too, on the front: last_value (2.50 points at 10.0 %)."
        in summary.verdicts()
    )


def test_intervals_are_those_of_the_orderings() -> None:
    """Coverage of the regret's interval where the truth is known."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        lost = rng.exponential(size=30)
        row = summarise(study(search("a", i, regret, 10.0) for i, regret in enumerate(lost))).rows[0]
        hits += row.regret.low <= 1.0 <= row.regret.high
    assert 46 <= hits < 60


def test_a_row_does_not_depend_on_the_others() -> None:
    """But for the front: the same resamples, whoever stands beside it."""
    everything = many()
    pair = replace(everything, searches=tuple(r for r in everything.searches if r.rule in ("none", "last_value")))
    pair = replace(pair, rules=("none", "last_value"))
    a, b = (row_of(summarise(s), "last_value") for s in (everything, pair))
    assert (a.regret, a.share, a.speed_up, a.hypervolume) == (b.regret, b.share, b.speed_up, b.hypervolume)


def test_differences_are_paired() -> None:
    """Losses that vary together: the intervals of the means overlap, that of the difference does not contain 0."""
    rng = np.random.default_rng(0)
    lost = rng.exponential(size=20)
    rows = [search("none", i) for i in range(20)]
    rows += [search("last_value", i, 5 * x + 0.1, 10.0) for i, x in enumerate(lost)]
    rows += [search("rule", i, 5 * x, 10.0) for i, x in enumerate(lost)]
    summary = summarise(study(rows))
    rule, last = row_of(summary, "rule"), row_of(summary, "last_value")
    assert rule.regret.high > last.regret.low
    assert rule.from_last is not None
    assert rule.from_last.high < 0
    assert any("its regret is lower by 0.10 [0.10, 0.10] points" in s for s in summary.verdicts())


def test_single_search_that_pays_for_its_curves_is_said() -> None:
    assert any(
        s.startswith(
            "rule: regret 0.50 [0.00, 1.00] points at 20.0 % of the GPU time, speed-up 5.0 [3.3, 10.0], 1.0 for a single"
        )
        for s in summarise(worked()).verdicts()
    )


def test_variant_of_last_value_is_the_reference() -> None:
    rows = [search(label, i, 1.0, 10.0) for label in ("last_value(delta=0.1)", "a") for i in range(12)]
    assert row_of(summarise(study(rows)), "a").from_last == Estimate(0, 0, 0)


def test_missing_searches_are_left_out() -> None:
    """A rule that met half of the orderings is compared on those."""
    rows = [search("last_value", i, float(i), 10.0) for i in range(20)]
    rows += [search("a", i, i + 1.0, 20.0) for i in range(10)]
    row = row_of(summarise(study(rows)), "a")
    assert row.searches == 10
    assert row.from_last == Estimate(1, 1, 1)


# --------------------------------------------------------------------------------------------------------- hypervolume


@settings(deadline=None, max_examples=50)
@given(
    arrays(np.float64, (2, 5, 3), elements=st.floats(0.0, 1.25, width=32)),
    st.integers(0, 5),
)
def test_hypervolumes_are_those_of_metrics(points: np.ndarray, k: int) -> None:
    cost, accuracy = points[0, :k], points[1, :k]
    expected = [metrics.hypervolume(cost[:, j], accuracy[:, j], max_cost=1) for j in range(3)]
    np.testing.assert_allclose(hypervolumes(cost, accuracy), expected, atol=1e-12)


def test_hypervolume_by_hand() -> None:
    """i_epoch reaches regret 10 at 10 % and 0 at 50 %; the rule 0 at 20 %: together 0.9 from 10 % and 1 from 20 % on."""
    rows = [search("none", i) for i in range(12)]
    rows += [search("i_epoch", i, 10.0, 10.0) for i in range(12)] + [search("a", i, 0.0, 20.0) for i in range(12)]
    summary = summarise(study(rows, sweeps=[search("i_epoch", i, 0.0, 50.0, delta=5) for i in range(12)]))
    base, rule = row_of(summary, "i_epoch"), row_of(summary, "a")
    assert base.hypervolume is not None
    assert base.hypervolume.value == pytest.approx(0.9 * 0.4 + 0.5)
    assert (base.settings, base.from_i_epoch, base.added) == (2, None, None)
    assert rule.hypervolume is not None
    assert rule.from_i_epoch is not None
    assert rule.added is not None
    assert rule.hypervolume.value == pytest.approx(0.8)
    assert rule.from_i_epoch.value == pytest.approx(0.8 - 0.86)
    assert rule.added.value == pytest.approx(0.9 * 0.1 + 0.8 - 0.86)
    assert row_of(summary, "none").hypervolume is None
    assert "Over all settings, to the hypervolume of i_epoch one adds: a 0.0300 [0.0300, 0.0300]." in summary.verdicts()


def test_a_worse_rule_adds_nothing() -> None:
    rows = [search(rule, i, lost, 10.0) for rule, lost in (("i_epoch", 1.0), ("a", 2.0)) for i in range(12)]
    summary = summarise(study(rows))
    assert row_of(summary, "a").added == Estimate(0, 0, 0)
    assert "Over all settings, to the hypervolume of i_epoch no other rule surely adds 0.0001." in (summary.verdicts())


# ------------------------------------------------------------------------------------------------------------- ranking


def test_student_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, quantile of t with 2 degrees of freedom 4.3027."""
    found = student([1, 2, 3, NAN])
    assert found.value == 2
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.low == pytest.approx(4 - found.high)
    assert not student([1]).has_interval
    assert math.isnan(student([NAN]).value)


def test_ranking_is_paired_by_fold() -> None:
    """Folds differ much, the difference of the predictors does not."""
    rows = [ranked("last_value", m, fold, 0.1 * fold) for m in (1, 5) for fold in range(5)]
    rows += [ranked("a", m, fold, 0.1 * fold + 0.05) for m in (1, 5) for fold in range(5)]
    rows += [ranked("b", 5, fold, 0.1 * fold - 0.05) for fold in range(5)]
    rows += [ranked("c", m, fold, 0.1 * fold + (-0.1, 0.1, 0, 0, 0)[fold]) for m in (1, 5) for fold in range(5)]
    summary = summarise(study([search("none")], ranking=rows))
    by_rule = {r.rule: r for r in summary.ranking}
    a = by_rule["a"]
    assert a.cells[1].spearman.value == pytest.approx(0.25)
    assert a.cells[1].spearman.low < 0.1
    assert a.from_last is not None
    assert (a.from_last.low, a.from_last.value, a.from_last.high) == pytest.approx((0.05, 0.05, 0.05))
    assert by_rule["last_value"].from_last is None
    assert (summary.epochs, summary.common) == ((1, 5), (5,))  # b was not asked after 1 epoch
    assert "Ranking, by Spearman's rho over all observed fractions: ahead of last_value is a." in summary.verdicts()
    assert "These do not beat last_value in ranking: not told apart from it is c; behind it is b." in summary.verdicts()


def test_one_fold_cannot_be_compared() -> None:
    rows = [ranked(rule, 1, 0, 0.5) for rule in ("last_value", "a")]
    verdicts = summarise(study([search("none")], ranking=rows)).verdicts()
    assert "Whether a predictor ranks better than last_value cannot be said: it takes two folds." in verdicts


# ----------------------------------------------------------------------------------------------------------- decisions


def test_calibration_by_hand() -> None:
    """Says 0.25 of 100 trainings of which 40 end above, and 0.75 of 10 of which none does."""
    p = np.repeat([0.25, 0.75], [100, 10])
    better = np.concatenate((np.arange(100) < 40, np.zeros(10, dtype=bool)))
    at = np.repeat([1, 5], [100, 10])
    row = summarise(
        study(
            [search("none")],
            decisions=decision_rows("a", p, at, better),
            diagrams={"a": reliability("a", p, better)},
        )
    ).calibration[0]
    brier = (40 * 0.75**2 + 60 * 0.25**2 + 10 * 0.75**2) / 110
    share = 40 / 110
    assert row.n == 110
    assert row.brier == pytest.approx(brier)
    assert row.share_better == pytest.approx(share)
    assert row.skill == pytest.approx(1 - brier / (share * (1 - share)))
    assert row.ece == pytest.approx((100 * 0.15 + 10 * 0.75) / 110)
    assert (row.worst, row.worst_p) == pytest.approx((0.15, 0.25))  # 10 probabilities do not make a bin


def test_deviations_of_an_empty_diagram() -> None:
    empty = Reliability("a", np.linspace(0, 1, 11), np.zeros(10, dtype=np.int64), np.full(10, NAN), np.full(10, NAN))
    assert all(math.isnan(x) for x in deviations(empty))


def test_calibration_is_said() -> None:
    verdicts = summarise(many()).verdicts()
    worst = next(s for s in verdicts if s.startswith("Worst deviation"))
    assert re.search(r"bad 0\.9\d \(says 0\.\d\d, was 0\.\d\d\)\.$", worst)  # the worst comes last
    assert "By the Brier score worse than always saying how often trainings end above the incumbent: bad." in verdicts


def test_lost_is_said() -> None:
    verdicts = summarise(many()).verdicts()
    assert "The best architecture of every search was trained in full by median_rule." in verdicts
    assert any(
        s.startswith("Searches in which the best architecture was not trained in full: 25 % by ") for s in verdicts
    )


@pytest.mark.parametrize(
    ("low", "high", "higher", "expected"),
    [
        (0.1, 0.2, False, "worse"),
        (0.1, 0.2, True, "better"),
        (-0.2, -0.1, False, "better"),
        (-0.2, 0.1, True, "level"),
        (0.0, 0.0, False, "level"),
        (NAN, NAN, False, None),
    ],
)
def test_compared(low: float, high: float, higher: bool, expected: str | None) -> None:
    assert compared(Estimate((low + high) / 2, low, high), higher=higher) == expected


# --------------------------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stopping_report(many(), tmp_path_factory.mktemp("report"), environment=HERE).parent


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_files(folder: Path) -> None:
    names = {str(p.relative_to(folder)) for p in folder.rglob("*.*")}
    tables = {f"{n}.csv" for n in ("summary", "ranking", "decisions", "searches", "sweeps", "reliability")}
    figures = {f"figures/{n}.{k}" for n in ("trade_off", "sweeps", "spearman", "reliability") for k in ("png", "svg")}
    assert names == {"index.html", "table.tex"} | tables | figures
    found = many()
    assert len(read(folder / "searches.csv")) == len(found.searches)
    assert len(read(folder / "sweeps.csv")) == len(found.sweeps)
    assert len(read(folder / "ranking.csv")) == len(found.ranking)
    assert read(folder / "searches.csv")[25]["regret"] == repr(found.searches[25].regret)
    summary = read(folder / "summary.csv")
    assert [r["rule"] for r in summary] == [row.rule for row in summarise(found).rows]
    assert summary[0]["from_none"] == ""
    assert len({tuple(r) for r in summary}) == 1
    bins = read(folder / "reliability.csv")
    assert sum(int(b["count"]) for b in bins if b["rule"] == "bad") == 2000


@pytest.mark.slow
def test_page(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    for sentence in summarise(many()).verdicts():
        assert sentence.replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;") in text
    assert "needs &lt;training&gt; losses" in text
    assert len(re.findall(r"<svg", text)) == 4
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://", re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))


@pytest.mark.slow
def test_same_study_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_stopping_report(many(), tmp_path, environment=HERE)
    for path in folder.rglob("*.*"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


def test_latex_table() -> None:
    text = stopping_table(summarise(many()))
    rows = text.split(r"\midrule")[2].split(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 6
    cells = text.count(" & ", text.index(r"\toprule"), text.index(r"\midrule"))
    assert {row.count(" & ") for row in rows} == {cells}
    assert r"nu\_svr(delta=0.01)" in text
    assert r"\% of full" in text


def test_display() -> None:
    """The brief table is part of the whole one; hours for long searches; a bill for restarts only where there are any."""
    summary = summarise(many())
    headers, rows = summary.rows_for_display()
    brief, short = summary.rows_for_display(brief=True)
    assert set(brief) < set(headers)
    assert [len(r) for r in rows] == [len(headers)] * 7
    assert [len(r) for r in short] == [len(brief)] * 7
    assert "% of full, restarting" in headers
    assert "GPU seconds" in brief
    assert rows[0][:2] == ["none", "0.00 [0.00, 0.00]"]
    long = summarise(study([search("none", 0, 0.0, 72_000.0, full_seconds=72_000.0)]))
    headers, rows = long.rows_for_display(brief=True)
    assert dict(zip(headers, rows[0], strict=True))["GPU hours"] == "20"
    assert "% of full, restarting" not in long.rows_for_display()[0]


def test_records_are_flat_and_alike() -> None:
    records = summarise(many()).records()
    assert len({tuple(r) for r in records}) == 1
    assert all(v is None or isinstance(v, str | int | float) for r in records for v in r.values())
    by_rule = {r["rule"]: r for r in records}
    assert by_rule["bad"]["spearman"] == pytest.approx(0.5 + 0.02 * 16 / 3 - 0.2, abs=0.01)
    assert by_rule["hyperband"]["spearman"] is None
    assert by_rule["none"]["from_none_low"] is None


# -------------------------------------------------------------------------------------------------------- corner cases


def nothing_known() -> StoppingStudy:
    rows = [search(rule, i, NAN, NAN, full_seconds=NAN) for rule in ("none", "last_value", "a") for i in range(3)]
    rows = [replace(r, cpu_seconds=NAN, training_seconds=NAN, restart_seconds=NAN) for r in rows]
    empty = Reliability("a", np.linspace(0, 1, 11), np.zeros(10, dtype=np.int64), np.full(10, NAN), np.full(10, NAN))
    return study(
        rows,
        sweeps=[replace(r, delta=0.1) for r in rows[3:]],
        ranking=[ranked(rule, 1, f, NAN, tau=NAN, r2=NAN) for rule in ("last_value", "a") for f in range(2)],
        decisions=[DecisionRow("a", 1, 0, NAN, NAN, NAN, NAN)],
        diagrams={"a": empty},
        killed={"a": (NAN, NAN)},
    )


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (study(rules=[]), "There is no rule in this study beside no early termination."),
        (study([search("none")]), "There is no rule in this study beside no early termination."),
        (study(rules=["a"]), "a has no search with a known regret."),
        (nothing_known(), "a has no search with a known regret."),
        (nothing_known(), "No rank correlation is defined for last_value and a."),
        (
            study([search("none"), search("a", 0, 1.0, 10.0)]),
            "There is one search per rule, so there are no intervals and nothing can be compared.",
        ),
        (
            study([search("none"), search("a", 0, 1.0, 10.0)]),
            "a: regret 1.00 [n/a] points at 10.0 % of the GPU time, speed-up 10.0 [n/a].",
        ),
        (
            study([search(r, i) for r in ("none", "a") for i in range(3)]),
            "With only 3 searches per rule the intervals are too narrow.",
        ),
        (study([search("none")], errors={"a": "no losses"}), "a failed and is left out: no losses"),
        (
            study([search(r, i, 0.0, 10.0) for r in ("a",) for i in range(12)], specification={}),
            "a: regret 0.00 [0.00, 0.00] points at 10.0 % of the GPU time, speed-up 10.0 [10.0, 10.0].",
        ),
    ],
)
def test_report_of_little(found: StoppingStudy, sentence: str, tmp_path: Path) -> None:
    """A report is written of whatever there is, without a warning, and says what is missing."""
    assert sentence in summarise(found).verdicts()
    assert sentence in write_stopping_report(found, tmp_path, environment=HERE).read_text()


def test_labels_cannot_break_the_page(tmp_path: Path) -> None:
    """Long, with markup, dollar signs and underscores in front."""
    label = "_my_module:Rule(alpha=0.0001, text='<script>$x_1$ & --> \\\\', another_long_parameter=12345)"
    rows = [search(rule, i, 0.1 * i, 10.0 + i) for rule in (label, "last_value") for i in range(3)]
    found = study(rows, sweeps=[replace(r, delta=0.1) for r in rows], errors={"<b>": "<i>"})
    text = write_stopping_report(found, tmp_path, environment=HERE).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>" not in text
    assert "<i>" not in text


@pytest.mark.slow
def test_real_study(tmp_path: Path) -> None:
    """Of the benchmark that is part of the package, read back from the files."""
    benchmark = nh.load("digits201")
    archs = [benchmark.space.sample(np.random.default_rng(i)) for i in range(200)]
    curves = curves_of(benchmark, list(dict.fromkeys(archs)), seed=0)
    found = compare_stopping(
        ["last_value", "median_rule", "i_epoch", "hyperband"], curves, n=15, orderings=6, folds=2, n_train=10
    )
    page = write_stopping_report(found, tmp_path)
    assert not found.errors
    summary = read(tmp_path / "summary.csv")
    searches = [row for row in read(tmp_path / "searches.csv") if row["rule"] == "last_value"]
    row = next(r for r in summary if r["rule"] == "last_value")
    assert float(row["regret"]) == pytest.approx(np.mean([float(s["regret"]) for s in searches]))
    seconds, full = (sum(float(s[name]) for s in searches) for name in ("seconds", "full_seconds"))
    assert float(row["speed_up"]) == pytest.approx(full / seconds)
    assert float(summary[0]["regret"]) == 0
    assert float(row["best_lost"]) == pytest.approx(np.mean([float(s["regret"]) > 0 for s in searches]))
    assert "last_value" in page.read_text()
