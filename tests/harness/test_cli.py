"""The `nasharness` command, typed as a user types it."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

MINE = """
from nasharness import Optimizer, Proposal

class Good(Optimizer):
    def ask(self):
        return Proposal(self.space.sample(self.rng))

    def tell(self, trial):
        pass

class Bad(Good):
    def ask(self):
        return Proposal((9, 9, 9, 9, 9, 9))

class Raises(Good):
    def ask(self):
        raise RuntimeError("out of ideas")
"""


@pytest.fixture
def shell(tmp_path):
    """Runs `nasharness ...` in a folder that has a user's module `mine.py`, and nothing of ours."""
    (tmp_path / "mine.py").write_text(MINE)

    def run(*arguments, code=0):
        environment = {**os.environ, "COLUMNS": "160", "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "nasharness", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    return run


def test_compare_writes_a_report_and_prints_the_table(shell, tmp_path):
    """The table and the path of the report are the end of the output; the folder holds page, figures, CSV and LaTeX."""
    done = shell(
        "compare", "--optimizers", "random_search,mine:Good", "--repetitions", "3", "--budget", "20", "--out", "x"
    )
    assert "random_search" in done.stdout
    assert "mine:Good" in done.stdout
    assert done.stdout.rstrip().endswith("Report: x/index.html")
    for name in ("index.html", "study.sqlite", "summary.csv", "curves.csv", "runs.csv", "table.tex", "figures"):
        assert (tmp_path / "x" / name).exists()
    again = shell("report", "x", "--json")
    assert {row["optimizer"] for row in json.loads(again.stdout)["summary"]["rows"]} == {"random_search", "mine:Good"}


def test_default_folder_is_continued(shell, tmp_path):
    """Without --out the results go to a folder named after the specification, and the same command finds them again."""
    command = ("compare", "--optimizers", "random_search", "--repetitions", "2", "--budget", "5")
    first = shell(*command).stdout.splitlines()[-1]
    assert shell(*command).stdout.splitlines()[-1] == first
    assert len(list((tmp_path / "nasharness-results").iterdir())) == 1


def test_an_edited_optimizer_starts_afresh(shell, tmp_path):
    """Without --out, an edit leads to a new folder and not to a refusal."""
    command = ("compare", "--optimizers", "mine:Good", "--repetitions", "1", "--budget", "5")
    first = shell(*command).stdout.splitlines()[-1]
    (tmp_path / "mine.py").write_text(MINE + "# edited")
    assert shell(*command).stdout.splitlines()[-1] != first


def test_a_path_names_a_module(shell, tmp_path):
    """`folder/file.py:Class` works as `file:Class` does in that folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "sub" / "other.py")
    assert "checks passed" in shell("check", "sub/other.py:Good").stdout


def test_a_benchmark_that_cannot_be_made(shell, tmp_path):
    """The error of a user's benchmark function is one line."""
    (tmp_path / "bench.py").write_text("def make():\n    return {}['x']\n")
    assert "'bench:make' raised KeyError" in shell("compare", "--benchmark", "bench:make", code=2).stderr


def test_the_report_covers_the_folder(shell):
    """An optimizer that is added to a study appears beside those that were there."""
    options = ("--repetitions", "2", "--budget", "5", "--out", "x")
    shell("compare", "--optimizers", "random_search", *options)
    done = shell("compare", "--optimizers", "local_search", *options)
    assert "random_search" in done.stdout
    assert "local_search" in done.stdout


def test_quiet_prints_nothing(shell):
    """--quiet is quiet."""
    done = shell(
        "compare", "--optimizers", "random_search", "--repetitions", "2", "--budget", "5", "--out", "x", "--quiet"
    )
    assert done.stdout == done.stderr == ""


def test_json_is_json(shell):
    """--json prints one object, with null where a number is undefined."""
    done = shell(
        "compare", "--optimizers", "random_search", "--repetitions", "1", "--budget", "5", "--out", "x", "--json"
    )
    assert "NaN" not in done.stdout
    assert json.loads(done.stdout)["report"] == "x/index.html"


def test_study_file(shell, tmp_path):
    """A TOML file gives the options; the command line overrides them."""
    (tmp_path / "study.toml").write_text(
        textwrap.dedent(
            """
            benchmark = "digits201"
            optimizers = ["random_search", "regularized_evolution(population=5, sample=2)"]
            repetitions = 2
            budget = "10"
            out = "y"
            """
        )
    )
    done = shell("compare", "study.toml", "--repetitions", "3", "--json")
    rows = json.loads(done.stdout)["summary"]["rows"]
    assert [(row["optimizer"], row["repetitions"]) for row in rows] == [
        ("random_search", 3),
        ("regularized_evolution(population=5, sample=2)", 3),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgets = 3", "unknown key 'budgets', did you mean 'budget'"),
        ("repetitions = 'many'", "repetitions has the wrong type"),
        ("repetitions = ", "is not a TOML file"),
    ],
)
def test_study_file_mistakes(shell, tmp_path, text, message):
    """A wrong key, a wrong type and a file that is no TOML are each named."""
    (tmp_path / "study.toml").write_text(text)
    assert message in shell("compare", "study.toml", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--benchmark", "digit201"), "did you mean digits201-v1"),
        (("--optimizers", "randomsearch"), "did you mean random_search"),
        (("--optimizers", "mine:Godo"), "did you mean 'Good'"),
        (("--optimizers", "yours:Good"), "no such module"),
        (("--optimizers", ""), "no optimizer given"),
        (("--budget", "0"), "whole number from 1"),
        (("--budget", "-5s"), "cannot read the budget"),
        (("--repetitions", "0"), "repetitions must be a whole number from 1"),
        (("--jobs", "0"), "jobs must be a whole number from 1"),
        (("--out", "mine.py"), "cannot make the folder"),
    ],
)
def test_mistakes_are_answered(shell, arguments, message):
    """Exit code 2 and one message that says what to type."""
    done = shell("compare", "--repetitions", "2", "--budget", "5", *arguments, code=2)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_failing_optimizers_leave_the_rest(shell):
    """Exit code 1, the reasons on standard error, and the report of the runs that finished."""
    done = shell(
        "compare",
        *("--optimizers", "mine:Bad,random_search,mine:Raises", "--repetitions", "2", "--budget", "5", "--out", "x"),
        code=1,
    )
    assert (
        "mine:Bad on digits201-v1, repetition 0: trial 0 cannot be evaluated: (9, 9, 9, 9, 9, 9) is not in"
        in done.stderr
    )
    assert "ask raised RuntimeError at trial 0: out of ideas" in done.stderr
    assert "Report: x/index.html" in done.stdout


def test_budget_too_small(shell):
    """A budget below one trial is said to be so."""
    assert (
        "too small for the first trial" in shell("compare", "--budget", "0.001s", "--repetitions", "1", code=1).stderr
    )


def test_report_of_a_folder_without_a_study(shell, tmp_path):
    """`report` of an empty or missing folder names it and changes nothing."""
    (tmp_path / "empty").mkdir()
    assert "there is no study in empty" in shell("report", "empty", code=2).stderr
    assert "there is no study in missing" in shell("report", "missing", code=2).stderr
    assert not (tmp_path / "missing").exists()


def test_check(shell):
    """A class passes, or fails with what to fix and exit code 1."""
    assert "15 of 15 checks passed" in shell("check", "mine:Good").stdout
    done = shell("check", "mine:Bad", code=1)
    assert "ask proposed (9, 9, 9, 9, 9, 9) at trial 0, which is not in" in done.stdout
    verdict = json.loads(shell("check", "mine:Raises", "--json", code=1).stdout)
    assert verdict["passed"] is False
    assert "out of ideas" in verdict["checks"]["check_proposals"]
    assert "did you mean 'Good'" in shell("check", "mine:Godo", code=2).stderr


def test_list(shell):
    """Everything installed, one group, JSON, and a wrong group."""
    assert "local_search" in shell("list").stdout
    assert "digits201-v1" not in shell("list", "optimizers").stdout
    benchmarks = json.loads(shell("list", "benchmarks", "--json").stdout)["benchmarks"]
    assert benchmarks["digits201-v1"] == "nasharness.benchmarks.digits201:load"
    assert "nasbench201-v1/cifar10" in benchmarks
    assert "unknown group" in shell("list", "optimisers", code=2).stderr


def test_version_and_help(shell):
    """--version prints the version; no arguments print the help."""
    import nasharness

    assert shell("--version").stdout.strip() == nasharness.__version__
    assert "compare" in shell("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.txt"), "must end in .safetensors"),
        (("--out", "a.safetensors", "--images", "cifar"), "unknown images 'cifar'"),
        (("--out", "a.safetensors", "--seeds", "x"), "--seeds must be whole numbers"),
        (("--out", "a.safetensors", "--jobs", "0"), "--jobs must be at least 1"),
        (("--out", "a.safetensors", "--limit", "0"), "--limit must be at least 1"),
        (("--out", "a.safetensors", "--epochs", "0"), "epochs must be a positive"),
        (("--out", "a.safetensors", "--space", "darts"), "cannot be built"),
    ],
)
def test_build_mistakes(shell, arguments, message):
    """Wrong settings are refused before anything is trained or written."""
    done = subprocess.CompletedProcess([], 0)
    for code in (1, 2):
        try:
            done = shell("build", *arguments, code=code)
        except AssertionError:
            continue
        break
    assert message in done.stderr


@pytest.mark.slow
def test_build_and_continue(shell, tmp_path):
    """A trial build keeps its networks, and a larger one goes on from them."""
    options = (
        "build",
        "--out",
        "b.safetensors",
        "--images",
        "digits",
        "--epochs",
        "1",
        "--channels",
        "2",
        "--jobs",
        "1",
    )
    assert "Trained 2 networks per seed" in shell(*options, "--limit", "2").stdout
    assert "Trained 4 networks per seed" in shell(*options, "--limit", "4").stdout
    assert (tmp_path / "b.safetensors.journal").exists()
    assert "another specification" in shell(*options, "--limit", "4", "--batch-size", "32", code=1).stderr


# ------------------------------------------------------------------------------------------------------------- score

PROXY = """
from nasharness import Proxy

class Convolutions(Proxy):
    def score(self, network, images, labels):
        return float(sum("Conv2d" in type(m).__name__ for m in network.modules()))

class Breaks(Proxy):
    def score(self, network, images, labels):
        raise RuntimeError("no idea")
"""


@pytest.fixture
def score(shell, tmp_path, monkeypatch):
    monkeypatch.setenv("NASHARNESS_DATA", str(tmp_path / "data"))
    (tmp_path / "my_proxy.py").write_text(PROXY)
    return lambda *arguments, code=0: shell("score", "--jobs", "1", *arguments, code=code)


def test_score_prints_tau_and_writes_a_report(score, tmp_path):
    done = score("--proxies", "params,synflow,my_proxy:Convolutions", "--n", "8", "--out", "x")
    for word in ("Kendall", "params", "synflow", "Convolutions", "a random sample of 8 of the 15,625 architectures"):
        assert word in done.stdout
    assert done.stdout.rstrip().endswith("Report: x/index.html")
    page = (tmp_path / "x" / "index.html").read_text()
    assert "synflow" in page
    assert (tmp_path / "data" / "scores.sqlite").exists()
    assert {"summary.csv", "scores.csv", "table.tex", "figures"} <= {p.name for p in (tmp_path / "x").iterdir()}


def test_score_as_json(score):
    found = json.loads(score("--proxies", "params", "--n", "5", "--among", "live", "--json", "--no-cache").stdout)
    assert found["population"].startswith("a random sample of 5 of the 9,445 architectures without a dead operation")
    assert found["proxies"][0]["proxy"] == "params"
    assert -1 <= found["proxies"][0]["tau"] <= 1


def test_score_quietly_into_the_default_folder(score, tmp_path):
    done = score("--proxies", "params", "--n", "3", "--quiet")
    assert done.stdout == done.stderr == ""
    (folder,) = (tmp_path / "nasharness-results").glob("scores-digits201-*")
    assert (folder / "index.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proxies", "nawsot"], "did you mean naswot"),
        (["--n", "many"], "--n must be a whole number or all, not 'many'"),
        (["--n", "0"], "n must be a whole number from 1"),
        (["--among", "some"], "unknown set 'some'"),
        (["--images", "nowhere"], "nowhere"),
        (["--benchmark", "digits200"], "digits201"),
        (["--device", "abacus"], "abacus"),
        (["--cells", "0"], "cells must be at least 1, not 0"),
        (["--channels", "-3"], "channels must be at least 1, not -3"),
    ],
)
def test_score_refuses_bad_input(score, arguments, message):
    assert message in score("--proxies", "params", *arguments, code=2).stderr


def test_a_proxy_that_always_fails_is_an_error_beside_the_others_results(score, tmp_path):
    done = score("--proxies", "params,my_proxy:Breaks", "--n", "3", "--out", "x", code=1)
    assert "params" in done.stdout
    assert "no architecture could be scored by my_proxy:Breaks: RuntimeError: no idea" in done.stderr
    assert (tmp_path / "x" / "index.html").exists()
