"""What README shows is what happens."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def code(words):
    """The one Python block with these words."""
    (found,) = (block for block in PYTHON if words in block)
    return found


def type_in(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_optimizer.py").write_text(code("# my_optimizer.py"))
    return tmp_path


def test_the_example_optimizer_conforms_and_runs(folder):
    """The class in README passes every check and runs by the command beside it, from a file outside the repository."""
    check, compare = (shlex.split(c) for c in COMMANDS if "my_optimizer" in c)
    assert "15 of 15 checks passed" in type_in(folder, "-m", *check)
    assert "HillClimber(warmup=50)" in type_in(folder, "-m", *compare)


def test_the_python_session_runs(folder):
    """The session under "In Python" runs as it stands."""
    type_in(folder, "-c", code('study.report("report/")'))
    assert (folder / "report" / "index.html").exists()


def test_the_example_benchmark_runs(folder):
    """The benchmark in README is one, and the command beside it compares strategies on it."""
    (folder / "tiny.py").write_text(code("# tiny.py"))
    (compare,) = (shlex.split(c) for c in COMMANDS if "tiny:make" in c)
    assert "tiny-v1, 20 repetitions, budget 30, seed 0" in type_in(folder, "-m", *compare)


def test_the_study_file_is_read(folder):
    """The TOML file in README gives a study."""
    (text,) = blocks("toml")
    (folder / "study.toml").write_text(text)
    done = type_in(folder, "-m", "nasharness", "compare", "study.toml", "--repetitions", "2")
    assert "regularized_evolution(population=50, sample=10)" in done


def test_every_command_exists():
    """Every `make` target and every `nasharness` command in README is there."""
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for command in COMMANDS:
        words = shlex.split(command)
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE)
        else:
            assert words[0] == "nasharness"


@pytest.mark.slow
def test_the_build_command_trains(folder):
    """The trial build in README trains its networks and keeps them."""
    (build,) = (shlex.split(c) for c in COMMANDS if c.startswith("nasharness build"))
    assert "Trained 8 networks per seed" in type_in(folder, "-m", *build)


def test_the_official_benchmarks_session_runs(folder, shared_data, monkeypatch):
    """The sessions on a converted NAS-Bench-201, here of three architectures."""
    monkeypatch.setenv("NASHARNESS_DATA", str(folder / "data"))
    archive = shared_data / "official" / "NATS-tss-v1_0-3ffb9-simple"
    type_in(folder, "-m", "nasharness", "data", "convert", "nasbench201", str(archive), "--quiet")
    table, api = (block for block in PYTHON if "nasbench201" in block)
    assert "val_accuracy=0.61679999" in type_in(folder, "-c", table)
    assert type_in(folder, "-c", api).startswith("(74.04")


def test_the_import_commands_run(folder, monkeypatch):
    """A table of one's own and a table of metrics, by the commands in README."""
    from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space

    monkeypatch.setenv("NASHARNESS_DATA", str(folder / "data"))
    archs = [NASBench201Space().from_index(i) for i in range(200)]
    strings = [NASBench201Space().to_string(arch) for arch in archs]
    rows = [f"{text},{50 + i % 40},{49 + i % 40},{100 + i}" for i, text in enumerate(strings)]
    (folder / "results.csv").write_text("architecture,val_accuracy,test_accuracy,seconds\n" + "\n".join(rows))
    (folder / "hw-nas-bench.csv").write_text("architecture,latency_ms\n" + "\n".join(f"{t},{len(t)}" for t in strings))
    imports = [shlex.split(c) for c in COMMANDS if "data import" in c]
    assert len(imports) == 2
    for command in imports:
        type_in(folder, "-m", *command)
    assert "mine" in type_in(folder, "-m", "nasharness", "list", "benchmarks")
    compare = next(shlex.split(c) for c in COMMANDS if c.endswith("--benchmark mine"))
    assert "random_search" in type_in(folder, "-m", *compare, "--budget", "30", "--repetitions", "3")


def test_the_published_table_is_what_the_script_prints(shared_data, folder):
    """With a tenth of the runs: within four standard errors of what README says."""
    script = Path(__file__).parent.parent / "docs" / "nasbench201_protocol.py"
    printed = type_in(folder, str(script), str(shared_data / "nb201.parquet"), "--repetitions", "50")
    for line, row in zip(
        printed.splitlines(),
        re.findall(r"^\| (?:random search|regularized evolution|REINFORCE|BOHB).*\|$", README, re.M),
        strict=True,
    ):
        ours = [float(x) for x in re.findall(r"([\d.]+) \+-", line)][:2]
        said = [float(x) for x in re.findall(r"([\d.]+) ±", row)][::2]
        assert ours == pytest.approx(said, abs=4 * 0.4 / 50**0.5)


def test_optimizers_of_other_packages_run(folder):
    """The command with Optuna's and Nevergrad's own, with the real packages."""
    pytest.importorskip("optuna", reason="Optuna is not installed")
    pytest.importorskip("nevergrad", reason="Nevergrad is not installed")
    command = next(shlex.split(c) for c in COMMANDS if "optuna:" in c)
    said = type_in(folder, "-m", *command, "--repetitions", "2", "--budget", "30")
    assert "optuna:TPESampler" in said
    assert "nevergrad:OnePlusOne" in said


@pytest.fixture
def gate(folder):
    (folder / "my_gate.py").write_text(code("# my_gate.py"))
    return folder


def test_the_example_gate_conforms(gate):
    """The gate in README passes every check by the command beside it."""
    (check,) = (shlex.split(c) for c in COMMANDS if "check my_gate" in c)
    assert "15 of 15 checks passed" in type_in(gate, "-m", *check)


@pytest.mark.slow
def test_the_example_gate_runs(gate):
    (compare,) = (shlex.split(c) for c in COMMANDS if "my_gate" in c and "compare" in c)
    assert "my_gate:Sharp" in type_in(gate, "-m", *compare, "--repetitions", "1")


@pytest.mark.slow
def test_supernets_are_compared_with_tabular_strategies(folder):
    """One repetition of the command."""
    (compare,) = (shlex.split(c) for c in COMMANDS if "darts,pc_darts" in c)
    said = type_in(folder, "-m", *compare, "--repetitions", "1")
    assert all(name in said for name in ("pc_darts", "gdas", "rsps", "regularized_evolution", "random_search"))


@pytest.mark.slow
def test_the_supernet_report(folder):
    """The command prints the rank correlation with an interval."""
    (command,) = (shlex.split(c) for c in COMMANDS if "nasharness supernet --method rsps" in c)
    said = type_in(folder, "-m", *command, "--epochs", "3", "--n", "60", "--seeds", "2")
    assert re.search(r"0\.\d\d\s*\[-?0\.\d\d, -?0\.\d\d\]", said)


def test_the_table_of_strategies_is_complete():
    """Every registered strategy stands in README, and nothing else."""
    from nasharness.harness.registry import entry_points

    table = README[README.index("## Search strategies") : README.index("Optimizers that you already have")]
    named = set(re.findall(r"`(\w+)`", "".join(row for row in table.splitlines() if row.startswith("| "))))
    presets = {"nats", "non_aging", "nas_bowl", "evolution", "paper", "paper_evolution", "second_order"}
    assert named - presets == set(entry_points("optimizers"))


def test_the_table_of_proxies_is_complete():
    """Every registered proxy stands in README, and nothing else."""
    from nasharness.harness.registry import entry_points

    table = README[README.index("| looks at | proxies |") : README.index("Other benchmarks need their images")]
    assert set(re.findall(r"`(\w+)`", table)) - {"paper"} == set(entry_points("proxies"))


def test_the_example_proxy_conforms_and_is_scored(folder, monkeypatch):
    """The ten lines in README pass every check and are scored by the command beside them."""
    monkeypatch.setenv("NASHARNESS_DATA", str(folder / "data"))
    (folder / "my_proxy.py").write_text(code("# my_proxy.py"))
    check, score = (shlex.split(c) for c in COMMANDS if "my_proxy" in c)
    assert re.search(r"(\d+) of \1 checks passed", type_in(folder, "-m", *check))
    said = type_in(folder, "-m", *score, "--n", "10")
    assert "Convolutions" in said
    assert "Report: " in said


@pytest.mark.slow
def test_the_proxy_commands_run(folder, monkeypatch):
    """Ten proxies on 100 cells, and a search that uses one."""
    monkeypatch.setenv("NASHARNESS_DATA", str(folder / "data"))
    plain = next(shlex.split(c) for c in COMMANDS if c == "nasharness score --benchmark digits201")
    said = type_in(folder, "-m", *plain)
    for proxy in ("naswot", "synflow", "az_nas", "params"):
        assert re.search(rf"^ {proxy} ", said, re.MULTILINE)
    search = next(shlex.split(c) for c in COMMANDS if "zero_cost_warmup" in c)
    assert "zero_cost_warmup" in type_in(folder, "-m", *search, "--repetitions", "2", "--budget", "30")


def test_the_table_of_predictors_is_complete():
    """Every registered predictor and rule stands in README, and nothing else."""
    from nasharness.harness.registry import entry_points

    table = README[README.index("| kind | predictors and rules |") : README.index("Curves of your own are")]
    assert set(re.findall(r"`(\w+)`", table)) - {"last", "ema"} == set(entry_points("predictors"))


@pytest.mark.slow
def test_the_example_predictor_is_judged(folder):
    """The predictor in README works by the command beside it."""
    (folder / "my_predictor.py").write_text(code("# my_predictor.py"))
    (stop,) = (shlex.split(c) for c in COMMANDS if "my_predictor" in c)
    assert "Trend" in type_in(folder, "-m", *stop)


@pytest.mark.slow
def test_a_search_with_a_rule_runs(folder):
    """The command with --stop."""
    command = next(shlex.split(c) for c in COMMANDS if "--stop" in c)
    said = type_in(folder, "-m", *command, "--repetitions", "2", "--budget", "60")
    assert "random_search+nu_svr(warm_up=30) ended" in said
