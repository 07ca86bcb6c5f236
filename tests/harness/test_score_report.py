"""The report of a proxy study: its numbers worked by hand, its sentences, its files, its corner cases."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from nasharness.benchmarks.base import Benchmark, Info
from nasharness.benchmarks.spaces.base import SearchSpace
from nasharness.benchmarks.table import TableBenchmark
from nasharness.harness import metrics
from nasharness.harness.report import scores as module
from nasharness.harness.report.score_page import score_table, write_score_report
from nasharness.harness.report.scores import (
    FITTED,
    RANK_AVERAGE,
    ScoreRow,
    ScoreSummary,
    combine,
    compared,
    majority,
    summarise,
)
from nasharness.harness.report.summary import Estimate, Split

Floats = npt.NDArray[np.float64]
NAN = math.nan
PUBLISHED = "vote (synflow, jacob_cov, snip)"


class Hundred(SearchSpace):
    name = "hundred"
    cardinalities = (10, 10)


def make_benchmark() -> TableBenchmark:
    columns: dict[str, Any] = {
        name: np.ones((100, 1, 1), dtype=np.float32)
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
    }
    columns |= {name: np.ones((100, 1), dtype=np.float32) for name in ("test_loss", "test_accuracy")}
    columns |= {name: np.ones(100, dtype=np.int64) for name in ("params", "flops")}
    columns["class_of"] = np.arange(100, dtype=np.int16)
    return TableBenchmark("toy-v1", Hundred(), columns, Info(id="toy-v1", source="made up", caution="A toy & no more."))


TOY = make_benchmark()


@dataclass(frozen=True)
class Given:
    """Scores as `summarise` asks for them."""

    values: Mapping[str, Floats]
    accuracy: Floats
    benchmark: Benchmark = TOY
    parts: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    seconds: Mapping[str, Floats] = field(default_factory=dict)
    peak_bytes: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    split: Split = "test"
    population: str = "some architectures"
    specification: Mapping[str, Any] = field(default_factory=dict)

    @property
    def proxies(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def archs(self) -> npt.NDArray[np.int16]:
        return np.stack(np.divmod(np.arange(len(self.accuracy)), 10), axis=1).astype(np.int16)


def given(values: Mapping[str, Sequence[float] | Floats], accuracy: Sequence[float] | Floats, **fields: Any) -> Given:
    arrays = {label: np.array(v, dtype=np.float64) for label, v in values.items()}
    fields.setdefault("seconds", {label: np.zeros(len(accuracy)) for label in values})
    return Given(arrays, np.array(accuracy, dtype=np.float64), **fields)


def noisy(n: int = 60, seed: int = 0, **quality: float) -> Given:
    """Scores whose correlation with the accuracies before ranking is given."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    values = {label: q * z + math.sqrt(1 - q * q) * rng.normal(size=n) for label, q in quality.items()}
    return given(values, 0.5 + 0.1 * z)


def row_of(summary: ScoreSummary, label: str) -> ScoreRow:
    return next(row for row in summary.rows if row.proxy == label)


def test_summary_worked_by_hand() -> None:
    """Twelve architectures of accuracy 0.01 to 0.12; the proxy swaps the two best and cannot score the two worst.

    Pairs: 66. The swap makes 1 discordant; the two unscorable ones are one tied pair; 64 are concordant.
    tau = (64 - 1) / sqrt(65 * 66). Ranks 1.5, 1.5, 3, ..., 10, 12, 11 against 1, ..., 12: with squared differences
    0.25, 0.25, 1, 1. Sum of squares about the mean: 143 for the accuracies, 142.5 for the scores; covariance
    (143 + 142.5 - 2.5) / 2 = 141.5; rho = 141.5 / sqrt(143 * 142.5).
    Best tenth: 2 of 12, in which the order is wrong: tau -1. Of the 2 best-scored both are among the 2 best: 1. The 10
    best-scored are the 10 best: 1. Regret at 1: the best-scored is the second: 1 point; at 10: 0.
    """
    accuracy = np.arange(1, 13) / 100
    score = [-math.inf, -math.inf, 3, 4, 5, 6, 7, 8, 9, 10, 12, 11]
    seconds = {"a": np.array([1.0, 3.0] * 6)}
    summary = summarise(given({"a": score}, accuracy, seconds=seconds, peak_bytes={"a": 3 * 2**20}))
    (row,) = summary.rows
    near = pytest.approx
    assert row.tau.value == near(63 / math.sqrt(65 * 66))
    assert row.rho.value == near(141.5 / math.sqrt(143 * 142.5))
    assert row.tau_of_best.value == -1
    assert not row.tau_of_best.has_interval  # of two architectures
    assert (summary.n, summary.n_best, row.unscorable, row.combined) == (12, 2, 2, 0)
    assert (row.precision_10, row.precision_tenth) == (1, 1)
    assert (row.regret_1, row.regret_10) == near((1, 0))
    assert math.isnan(row.top_64)
    assert (row.seconds, row.peak_mib) == (2, 3)
    assert row.from_best is None
    assert row.from_params is None
    assert row.tau.low < row.tau.value < row.tau.high <= 1
    assert summary.best_accuracy == near(12)


def test_majority_by_hand() -> None:
    """Three votes on A, B, C: the majority prefers A to B and B to C, and C to A: nobody is ahead.

    With a fourth D that all put last, each of them gains one and D loses three. One vote alone gives its own order, and
    a score that is level does not vote.
    """
    votes = [np.array(v, dtype=float) for v in ([3, 2, 1, 0], [1, 3, 2, 0], [2, 1, 3, 0])]
    assert majority(votes).tolist() == [1, 1, 1, -3]
    assert majority(votes[:1]).tolist() == [3, 1, -1, -3]
    assert majority([np.array([1.0, 1, 0]), np.array([2.0, 1, 3])]).tolist() == [1, -1, 0]


def test_majority_is_the_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks, and with -inf among the scores."""
    rng = np.random.default_rng(0)
    scores = [np.where(rng.random(23) < 0.2, -np.inf, rng.integers(5, size=23)).astype(float) for _ in range(4)]
    expected = []
    for i in range(23):
        balance = 0
        for j in range(23):
            votes = sum(int(s[i] > s[j]) - int(s[i] < s[j]) for s in scores)
            balance += (votes > 0) - (votes < 0)
        expected.append(balance)
    assert majority(scores).tolist() == expected
    monkeypatch.setattr(module, "_BLOCK", 50)
    assert majority(scores).tolist() == expected


def test_majority_of_many_asks_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among more than MANY the order stays that of the whole, up to the draw of the opponents."""
    score = np.random.default_rng(1).normal(size=300)
    monkeypatch.setattr(module, "MANY", 100)
    found = majority([score])
    assert np.abs(found).max() <= 100
    assert metrics.kendall_tau(found, score) > 0.95


def test_which_combinations_there_are() -> None:
    few = noisy(n=30, synflow=0.5, jacob_cov=0.5, snip=0.5)
    assert list(combine(few.values, few.accuracy)) == ["vote of all 3", RANK_AVERAGE]
    more = noisy(n=60, synflow=0.5, snip=0.5, random_score=0.0, zen=0.3, **{"jacob_cov@naslib": 0.5})
    found = combine(more.values, more.accuracy)
    assert list(found) == [PUBLISHED, "vote of all 4", RANK_AVERAGE, FITTED]
    assert found[PUBLISHED].members == ("synflow", "jacob_cov@naslib", "snip")
    assert all("random_score" not in c.members for c in found.values())
    two = noisy(n=60, zen=0.5, random_score=0.0)
    assert combine(two.values, two.accuracy) == {}


def test_rank_average_by_hand() -> None:
    """Ranks 1, 2, 3 and 2.5, 1, 2.5, an unscorable one lowest; as fractions of 3."""
    values = {"a": np.array([-np.inf, 0.0, 1e9]), "b": np.array([5.0, -1.0, 5.0])}
    found = combine(values, np.zeros(3))[RANK_AVERAGE]
    assert found.values.tolist() == pytest.approx([3.5 / 6, 3 / 6, 5.5 / 6])


def test_fit_never_sees_what_it_is_judged_on() -> None:
    """Without any signal the fitted ranks do not correlate; a good proxy gets the weight and a reversed one none.

    With 200 architectures and 20 scores by chance, tau judged in the sample would be about 0.2 and its standard
    deviation out of it about 0.05: a bound at 0.12.
    """
    nothing = noisy(n=200, seed=2, **{f"p{i}": 0.0 for i in range(20)})
    fitted = combine(nothing.values, nothing.accuracy)[FITTED]
    assert metrics.kendall_tau(fitted.values, nothing.accuracy) < 0.12
    useful = noisy(n=200, seed=3, good=0.9, reversed=-0.9, useless=0.0)
    fitted = combine(useful.values, useful.accuracy)[FITTED]
    assert fitted.weights["good"] > 0.5
    assert fitted.weights["reversed"] < 0.02
    assert fitted.weights["useless"] < 0.15
    tau = metrics.kendall_tau(useful.values["good"], useful.accuracy)
    assert metrics.kendall_tau(fitted.values, useful.accuracy) == pytest.approx(tau, abs=0.05)


def test_differences_are_paired() -> None:
    """Two almost equal proxies whose own intervals overlap nearly wholly are told apart, because they err alike."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=1500)
    a = z + rng.normal(size=1500)
    b = a + 0.5 * rng.normal(size=1500)
    summary = summarise(given({"b": b, "a": a}, z))
    first, second = summary.proxies
    assert (first.proxy, second.proxy) == ("a", "b")
    assert second.tau.high > first.tau.low
    assert second.from_best is not None
    assert second.from_best.high < 0
    assert second.from_best.value == pytest.approx(second.tau.value - first.tau.value)
    assert "Every other proxy is behind a." in summary.verdicts()


def test_a_row_does_not_depend_on_its_company() -> None:
    pair = noisy(a=0.6, b=0.3)
    alone = summarise(given({"b": pair.values["b"]}, pair.accuracy))
    both = summarise(pair)
    for name in ("tau", "rho", "tau_of_best", "precision_10", "regret_1"):
        assert str(getattr(row_of(both, "b"), name)) == str(getattr(row_of(alone, "b"), name))


def test_monotone_changes_change_nothing() -> None:
    """Everything here is about order, of exponentially spread scores as well."""
    plain = noisy(n=80, a=0.6, b=0.4, c=0.2)
    spread = given({label: np.exp(20 * v) for label, v in plain.values.items()}, plain.accuracy)
    assert str(summarise(plain).records()) == str(summarise(spread).records())  # NaN is not NaN


def test_correlations_are_kendalls() -> None:
    study = noisy(a=0.9, b=0.6, c=0.2)
    summary = summarise(study)
    assert summary.labels == ("a", "b", "c")
    assert summary.correlations[0, 2] == metrics.kendall_tau(study.values["a"], study.values["c"])
    np.testing.assert_array_equal(summary.correlations, summary.correlations.T)
    np.testing.assert_allclose(np.diag(summary.correlations), 1)


def test_verdicts() -> None:
    """Best, level with it, against params, chance, negative, combined, unscorable: a sentence each."""
    study = noisy(n=400, seed=1, good=0.9, twin=0.9, params=0.6, same=0.6, weak=0.2, plain=-0.5, random_score=0.0)
    study.values["weak"][:7] = -math.inf
    best, level, params, chance, negative, combined, unscorable = summarise(study).verdicts()
    assert re.fullmatch(r"(good|twin) has the highest tau: 0\.\d\d \[0\.\d\d, 0\.\d\d\]\.", best)
    assert re.fullmatch(r"Not told apart from (good: twin|twin: good)\.", level)
    assert params.startswith("The number of parameters alone has tau 0.3")
    assert params.endswith("not told apart from it is same; behind it are weak and plain.")
    assert chance.startswith("random_score, which knows nothing, has tau ")
    assert chance.endswith("contains 0, as it should.")
    assert negative == "Ordered the wrong way round: the interval of tau lies below 0 for plain."
    assert combined.startswith("Combined: fitted ranks (needs accuracies) 0.")
    assert (
        unscorable
        == "Not every one of the 400 architectures could be scored: 7 not by weak. These count as the lowest."
    )


def test_verdict_where_everything_beats_params() -> None:
    found = summarise(noisy(n=300, good=0.95, params=0.2)).verdicts()
    assert found[0].startswith("good has the highest tau")
    assert found[1] == "Every other proxy is behind good."
    assert found[2].endswith("Every proxy is ahead of it.")
    assert "Every architecture was scored by every proxy." in found


@pytest.mark.parametrize(
    ("quality", "end"), [(0.95, "]."), (-0.95, ", the wrong way round."), (0.0, "not told apart from chance.")]
)
def test_verdict_on_one_proxy(quality: float, end: str) -> None:
    first, last = summarise(noisy(n=50, only=quality)).verdicts()
    assert first.startswith("only orders the architectures with tau ")
    assert first.endswith(end)
    assert last == "Every architecture was scored by only."


def test_chance_that_is_not_chance_is_pointed_out() -> None:
    sentences = summarise(noisy(n=200, random_score=0.8, params=0.1)).verdicts()
    assert any("does not contain 0" in sentence for sentence in sentences)


def test_compared() -> None:
    assert compared(Estimate(0.1, 0.05, 0.2)) == "ahead"
    assert compared(Estimate(-0.1, -0.2, -0.05)) == "behind"
    assert compared(Estimate(0.1, -0.1, 0.2)) == "level"
    assert compared(Estimate(0.1, NAN, NAN)) is None


def test_unknown_accuracies_are_left_out() -> None:
    study = noisy(n=40, a=0.7, b=0.5)
    accuracy = np.append(study.accuracy, [NAN, NAN])
    values = {label: np.append(v, [1e9, -1e9]) for label, v in study.values.items()}
    summary = summarise(given(values, accuracy))
    assert (summary.n, summary.unknown) == (40, 2)
    assert str(summary.records()) == str(summarise(study).records())  # NaN is not NaN
    assert np.isnan(summary.combinations[RANK_AVERAGE].values).tolist() == [False] * 40 + [True] * 2
    assert summary.verdicts()[-1] == "2 architectures are left out because their accuracy is not known."


def test_broken_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="a score of a is NaN"):
        summarise(given({"a": [1.0, NAN]}, [0.1, 0.2]))
    with pytest.raises(ValueError, match="a has 1 scores for 2 accuracies"):
        summarise(given({"a": [1.0]}, [0.1, 0.2]))


def test_costs_of_a_combination_are_those_of_its_members() -> None:
    study = noisy(a=0.5, b=0.5)
    seconds = {"a": np.full(60, 0.5), "b": np.full(60, 0.25)}
    known = given(study.values, study.accuracy, seconds=seconds, peak_bytes={"a": 2**20, "b": 2**21})
    assert row_of(summarise(known), RANK_AVERAGE).seconds == 0.75
    assert row_of(summarise(known), RANK_AVERAGE).peak_mib == 2
    partly = given(study.values, study.accuracy, seconds=seconds, peak_bytes={"a": 2**20, "b": NAN})
    assert math.isnan(row_of(summarise(partly), RANK_AVERAGE).peak_mib)


def test_table_for_a_terminal_and_records() -> None:
    summary = summarise(noisy(n=100, a=0.6, b=0.3))
    headings, rows = summary.rows_for_display(brief=True)
    assert headings[:2] == ["proxy", "Kendall tau"]
    assert all(len(row) == len(headings) for row in rows)
    assert len(summary.rows_for_display()[0]) > len(headings)
    assert [row[0] for row in rows] == ["a", "b", *(row.proxy for row in summary.rows[2:])]
    assert re.fullmatch(r"0\.\d\d \[0\.\d\d, 0\.\d\d\]", rows[0][1])
    first, second, *_ = summary.records()
    assert set(first) == set(second)
    assert (first["from_best"], second["from_params"]) == (None, None)
    assert isinstance(second["from_best"], float)
    assert first["tau_low"] < first["tau"] < first["tau_high"]  # type: ignore[operator]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def full() -> Given:
    study = noisy(n=60, synflow=0.7, jacob_cov=0.6, snip=0.5, te_nas=0.4)
    study.values["snip"][:3] = -math.inf
    return given(
        study.values,
        study.accuracy,
        parts={"te_nas": {"ntk": np.arange(60.0), "regions": np.ones(60)}},
        seconds={label: np.full(60, 0.0 if label == "te_nas" else 0.01) for label in study.values},
        peak_bytes=dict.fromkeys(study.values, 1e6),
        errors={"snip": {0: "no <b>ReLU</b>", 1: "no <b>ReLU</b>", 2: "too deep"}},
        specification={"seed": 0},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scores") / "deep" / "report"
    assert write_score_report(full(), folder, environment={"Python": "3"}) == folder / "index.html"
    return folder


def test_files(folder: Path) -> None:
    study = full()
    drawn = {
        f"figures/{name}.{kind}" for name in ("tau", "scores", "correlations", "trade_off") for kind in ("png", "svg")
    }
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == drawn | {"index.html", "summary.csv", "scores.csv", "correlations.csv", "table.tex"}
    rows = read_csv(folder / "scores.csv")
    assert len(rows) == 60
    assert rows[7]["architecture"] == TOY.space.to_string((0, 7))
    assert float(rows[7]["test accuracy (%)"]) == 100 * study.accuracy[7]
    assert float(rows[7]["synflow"]) == study.values["synflow"][7]
    assert rows[0]["snip"] == "-inf"
    assert float(rows[7]["te_nas: ntk"]) == 7
    assert float(rows[7]["synflow: seconds"]) == 0.01
    assert {PUBLISHED, RANK_AVERAGE, FITTED} < set(rows[0])
    records = read_csv(folder / "summary.csv")
    assert [r["proxy"] for r in records] == [r.proxy for r in summarise(study).rows]
    assert float(records[0]["tau"]) == summarise(study).rows[0].tau.value
    matrix = read_csv(folder / "correlations.csv")
    assert [r["proxy"] for r in matrix] == list(matrix[0])[1:]
    assert float(matrix[2][matrix[2]["proxy"]]) == 1


def test_page(folder: Path) -> None:
    """It says what was done, escapes what others wrote, and fetches nothing."""
    text = (folder / "index.html").read_text()
    for sentence in summarise(full()).verdicts():
        assert sentence in text
    assert "4 zero-cost proxies on toy-v1" in text
    assert "A toy &amp; no more." in text
    assert "2 \N{MULTIPLICATION SIGN} no &lt;b&gt;ReLU&lt;/b&gt;<br>1 \N{MULTIPLICATION SIGN} too deep" in text
    assert "Combinations of proxies" in text
    assert "&#34;seed&#34;: 0" in text
    assert text.count("<svg") == 4
    assert not re.search(r"<(link|script|img|iframe|object)\b", text)
    assert all(h.startswith(("#", "data:image/png;base64,")) for h in re.findall(r'href="([^"]*)', text))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_page_names_what_ranks_within_the_set(folder: Path) -> None:
    text = (folder / "index.html").read_text()
    assert "te_nas: the score adds up places among the architectures scored here" in text
    assert "These are all architectures of the space" not in text  # 60 of 100


def test_latex(folder: Path) -> None:
    table = (folder / "table.tex").read_text()
    assert table == score_table(summarise(full()))
    assert table.count(r"\midrule") == 2  # under the head and above the combinations
    assert r"jacob\_cov" in table
    rows = [line for line in table.splitlines() if line.endswith(r" \\")]
    assert len({line.count(" & ") for line in rows}) == 1
    assert len(rows) == 1 + len(summarise(full()).rows)


def test_same_scores_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_score_report(full(), tmp_path, environment={"Python": "3"})
    for path in folder.rglob("*.*"):
        assert (tmp_path / path.relative_to(folder)).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("study", "sentence"),
    [
        (
            given({"a": [1.0], "b": [2.0]}, [0.5]),
            "No rank correlation is defined: it takes two architectures at least.",
        ),
        (
            given({"a": np.arange(50.0), "params": np.ones(50)}, np.full(50, 0.5)),
            "No rank correlation is defined: all of the architectures have the same accuracy.",
        ),
        (
            given({"a": np.full(20, -np.inf)}, np.arange(20) / 20),
            "No rank correlation is defined: every proxy gives all architectures one score.",
        ),
        (
            given({"a": np.full(20, -np.inf), "b": np.arange(20.0)}, np.arange(20) / 20),
            "a scored none of the architectures, so it has no rank correlation.",
        ),
        (
            given({"a": [1.0, 2, 3], "b": [2.0, 1, 3]}, [0.1, 0.2, 0.3]),
            (
                "The highest tau is that of a, 1.00. Nothing more can be said: an interval needs at least 10 architectures, and"
                " there are 3."
            ),
        ),
        (
            given({"a": [1.0, 2]}, [0.1, 0.2]),
            "Its tau is 1.00. Nothing more can be said: an interval needs at least 10 architectures, and there are 2.",
        ),
        (given({"a": []}, []), "No rank correlation is defined: it takes two architectures at least."),
        (given({}, [0.1, 0.2]), "There is no proxy in this study."),
    ],
)
def test_report_of_little(study: Given, sentence: str, tmp_path: Path) -> None:
    """A report is written of whatever there is, without a warning, and says what is missing."""
    assert sentence in summarise(study).verdicts()
    assert sentence in write_score_report(study, tmp_path).read_text()


def test_constant_accuracies_make_every_choice_a_best_one() -> None:
    row = summarise(given({"a": np.arange(50.0)}, np.full(50, 0.5))).rows[0]
    assert (row.precision_10, row.precision_tenth, row.regret_1, row.regret_10) == (1, 1, 0, 0)


def test_labels_cannot_break_the_page(tmp_path: Path) -> None:
    """Long, with markup, dollar signs and underscores in front."""
    label = "_my_module:Proxy(alpha=0.0001, text='<script>$x_1$ & --> \\\\', another_long_parameter=12345)"
    study = noisy(n=40, **{label: 0.5, "b": 0.3})
    timed = given(study.values, study.accuracy, seconds={name: np.full(40, 0.1) for name in study.values})
    text = write_score_report(timed, tmp_path).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
