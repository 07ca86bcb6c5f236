"""The `nasharness` command.

Exit codes: 0 done; 1 some runs, checks or cells failed; 2 wrong usage or input; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .data_cli import data_app
from .terminal import Json, Quiet, fail, progress, status

if TYPE_CHECKING:
    from .study import Study

DEFAULT_OPTIMIZERS = "random_search,regularized_evolution,local_search"
DEFAULT_RULES = (
    "last_value,best_so_far,tse,median_rule,i_epoch,successive_halving,hyperband,asha,nu_svr,affine_curves,lcranknet"
)
DEFAULT_PROXIES = "naswot,synflow,log_synflow,jacob_cov,snip,grad_norm,zico,zen,az_nas,params"

app = typer.Typer(
    name="nasharness",
    help="Compare neural architecture search strategies on benchmarks of really trained networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data_app, name="data")

Objective = Annotated[
    str | None,
    typer.Option(
        help="Report the trade-off of accuracy with this metric: flops, params, ... (default: the optimizers')"
    ),
]


def main() -> None:
    """Entry point: run a command, and turn the errors that a user can mend into one message and an exit code."""
    try:
        app()
    except OSError as error:
        fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), 2)
    except KeyboardInterrupt:
        fail("interrupted", 130)
    except (ValueError, RuntimeError) as error:
        # Imported here, so that `--help` does not load NumPy. Any other error is ours: it keeps its traceback.
        from ..benchmarks.build import BuildError
        from .run import RunError
        from .score_cache import CacheError
        from .store import StoreError

        if isinstance(error, ValueError | StoreError | CacheError):
            fail(str(error), 2)
        if isinstance(error, RunError | BuildError):
            fail(str(error), 1)
        raise


_NARROW = (
    *(
        "strategy",
        "test regret, mean",
        "P(better than random)",
        "validation regret, mean",
        "simulated s",
        "optimizer s",
    ),
    *("proxy", "Kendall tau", "Spearman rho", "seconds"),
    *("method", "tau, batch", "tau, recalibrated", "test regret", "skip share", "search s"),
)


def _print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:  # a pipe or a file: as wide as the table needs
        console = Console(width=160, highlight=False)
    if console.width < 112:  # the report has them all
        kept = [i for i, header in enumerate(headers) if header in _NARROW]
        headers, rows = [headers[i] for i in kept], [[row[i] for i in kept] for row in rows]
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(
            header.replace(" ", "\n"), justify="left" if i == 0 else "right", no_wrap=i == 0, overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell.replace(" [", "\n[") for cell in row))  # an interval goes below its number
    console.print(table)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("nasharness"))
        raise typer.Exit


@app.command("list")
def list_command(
    group: Annotated[
        str | None, typer.Argument(help="benchmarks, optimizers, proxies or predictors; all if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is installed."""
    from .registry import GROUPS, RegistryError, describe, entry_points

    if group is not None and group not in GROUPS:
        raise RegistryError(f"unknown group {group!r}: choose from {', '.join(GROUPS)}")
    points = {g: entry_points(g) for g in GROUPS if group in (None, g)}
    imported: dict[str, str] = {}
    if "benchmarks" in points:
        from ..benchmarks.catalogue import CATALOGUE
        from ..benchmarks.library import installed

        imported = {name: str(path) for name, path in installed().items() if name not in CATALOGUE}
    if as_json:
        found = {g: {name: point.value for name, point in known.items()} for g, known in points.items()}
        found |= {"benchmarks": found["benchmarks"] | imported} if imported else {}
        typer.echo(json.dumps(found, indent=2))
        return
    for name, known in points.items():
        typer.echo(f"{name}:" + ("" if known or imported else " none installed"))
        for entry, point in known.items():
            title, citation = ("", "") if name == "benchmarks" else describe(point)
            typer.echo(f"  {entry:<31} {title or point.value}")
            if citation:
                typer.echo(f"  {'':<31} {citation}")
        if name == "benchmarks":
            for entry, path in imported.items():
                typer.echo(f"  {entry:<31} {path}")


@app.command()
def compare(
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.toml]", help="A file with these options as keys.")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark id. (default: digits201)")] = None,
    optimizers: Annotated[
        str | None, typer.Option(help=f"Comma-separated ids, or all-black-box. (default: {DEFAULT_OPTIMIZERS})")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(help="Runs per optimizer. (default: 20)")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Of each run: '300' evaluations, '20000s', '2h', '2h,300'. (default: 300)")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the study. (default: 0)")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Worker processes. (default: all cores, at most one per 20 runs)")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results and report. (default: nasharness-results/NAME)")
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(help="Comma-separated rules that end trainings early; each optimizer runs without and with."),
    ] = None,
    objective: Objective = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare optimizers on a benchmark and write a report.

    A comparison that was interrupted goes on where it stopped when the same command is given again.
    """
    from .registry import expand, split_ids
    from .study import Study, StudyError
    from .study import compare as run_study

    settings = {**_DEFAULTS, **(_read_toml(study) if study else {})}
    given = {
        "benchmark": benchmark,
        "optimizers": split_ids(optimizers) if optimizers is not None else None,
        "repetitions": repetitions,
        "budget": budget,
        "seed": seed,
        "jobs": jobs,
        "out": str(out) if out else None,
        "stop": split_ids(stop) if stop is not None else None,
        "objective": objective,
    }
    settings.update({key: value for key, value in given.items() if value is not None})
    settings["optimizers"] = expand(settings["optimizers"])
    folder = Path(settings["out"] or _default_folder(settings))
    wanted_jobs = settings["jobs"]
    if wanted_jobs is None:  # a worker takes about a second to start, and twenty runs rarely take longer
        wanted_jobs = min(os.cpu_count() or 1, max(1, len(settings["optimizers"]) * settings["repetitions"] // 20))
    if settings["objective"] is not None:
        _check_objective(settings["objective"], settings["benchmark"])
    failure: StudyError | None = None
    try:
        with progress(f"{settings['benchmark']}", quiet or as_json) as update:
            finished = run_study(
                settings["optimizers"],
                settings["benchmark"],
                settings["budget"],
                repetitions=settings["repetitions"],
                seed=settings["seed"],
                jobs=wanted_jobs,
                out=folder,
                stop=settings["stop"],
                progress=update,
            )
    except KeyboardInterrupt:
        _interrupted(folder)
    except StudyError as error:
        failure, finished = error, error.study
    if finished.runs:  # the page is about all that the folder holds, also from earlier calls
        _report(Study.open(folder), folder, settings["objective"], quiet, as_json)
    if failure is not None:
        fail(str(failure), 1)


_DEFAULTS: dict[str, Any] = {
    "benchmark": "digits201",
    "optimizers": DEFAULT_OPTIMIZERS.split(","),
    "repetitions": 20,
    "budget": "300",
    "seed": 0,
    "jobs": None,
    "out": None,
    "objective": None,
    "stop": [],
}


def _read_toml(path: Path) -> dict[str, Any]:
    import difflib
    import tomllib

    from .registry import split_ids

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    for key, value in settings.items():
        if key not in _DEFAULTS:
            close = difflib.get_close_matches(key, _DEFAULTS, n=1)
            raise ValueError(
                f"{path}: unknown key {key!r}"
                + (f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(_DEFAULTS)}")
            )
        kind = {
            "optimizers": list | str,
            "stop": list | str,
            "repetitions": int,
            "seed": int,
            "jobs": int,
            "budget": str | int,
        }.get(key, str)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{path}: {key} has the wrong type: {value!r}")
    for key in ("optimizers", "stop"):
        if isinstance(settings.get(key), str):
            settings[key] = split_ids(settings[key])
    return settings


def _check_objective(objective: str, benchmark: str) -> None:
    """Find out before the runs, and not in the report after them."""
    from .registry import load

    known = load(benchmark).metrics
    if objective not in known:
        raise ValueError(f"{benchmark} has no metric {objective!r}; it has {', '.join(known) or 'none'}")


def _default_folder(settings: dict[str, Any]) -> Path:
    """A folder named after the specification, so that the same command goes on with its own results."""
    import hashlib

    from .registry import optimizer_spec

    # With the optimizers' source, so that an edited optimizer starts afresh instead of meeting its old runs.
    sources = [optimizer_spec(optimizer).source_sha256() for optimizer in settings["optimizers"]]
    key = json.dumps(
        [*(settings[k] for k in ("benchmark", "optimizers", "budget", "seed")), sources, *settings["stop"]]
    )
    name = settings["benchmark"].replace("/", "-").replace(":", "-")
    return Path("nasharness-results") / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _interrupted(folder: Path) -> NoReturn:
    from .store import Store, StoreError

    try:
        with Store(folder, create=False) as store:
            count = len(store.finished())
    except StoreError:
        count = 0
    fail(
        f"interrupted. {count} finished runs are kept in {folder}; to go on, give the same command again:\n"
        f"  nasharness {shlex.join(sys.argv[1:])}",
        130,
    )


def _report(study: Study, folder: Path, objective: str | None, quiet: bool, as_json: bool) -> None:
    with status("writing the report", quiet or as_json):
        page = study.report(folder, objective=objective)
    if as_json:
        import dataclasses

        typer.echo(json.dumps({"report": str(page), "summary": _plain(dataclasses.asdict(study.summary()))}, indent=2))
    elif not quiet:
        summary = study.summary()
        headers, rows = summary.rows_for_display(brief=True)
        title = "{benchmark}, {repetitions} repetitions, budget {budget}, seed {seed}".format(**study.specification)
        _print_table(headers, rows, title=title)
        for sentence in [*summary.verdicts(), study.benchmark.info.caution]:
            if sentence:
                typer.echo(sentence)
        typer.echo(f"Report: {page}")


def _plain(value: Any) -> Any:
    """JSON knows no NaN: undefined numbers become null."""
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `nasharness compare` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the report. (default: the folder itself)")] = None,
    objective: Objective = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the report of a study again."""
    from .study import Study

    _report(Study.open(folder), out or folder, objective, quiet, as_json)


@app.command()
def check(
    optimizer: Annotated[str, typer.Argument(help="An id, or package.module:Class.")],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Hold an optimizer, a proxy, a predictor or a stopping rule to the conformance suite, and say what to fix."""
    from .testing import run_checks

    results = []
    for r in run_checks(optimizer):
        results.append(r)
        if not (quiet or as_json):
            word = "skip" if r.skipped else "ok  " if r.problem is None else "FAIL"
            typer.echo(f"{word} {r.name}" + (f"\n       {r.problem}" if r.problem else ""))
    failed = [r for r in results if r.problem is not None]
    if as_json:
        typer.echo(
            json.dumps(
                {"optimizer": optimizer, "passed": not failed, "checks": {r.name: r.problem for r in results}}, indent=2
            )
        )
    elif not quiet:
        typer.echo(
            f"{optimizer}: {sum(r.problem is None and not r.skipped for r in results)} of {len(results)} checks passed"
        )
    if failed:
        raise typer.Exit(1)


@app.command()
def score(
    benchmark: Annotated[str, typer.Option(help="Benchmark id.")] = "digits201",
    proxies: Annotated[
        str, typer.Option(help="Comma-separated ids, metric:NAME of a table, or all.")
    ] = DEFAULT_PROXIES,
    n: Annotated[str, typer.Option("--n", help="How many architectures to draw, or all.")] = "100",
    among: Annotated[
        str,
        typer.Option(
            help="From all of them, one of each isomorphism class (unique), or without dead operations (live)."
        ),
    ] = "all",
    images: Annotated[
        Path | None, typer.Option(help="A folder or file of labelled images. (default: the benchmark's own)")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Leave out dead operations, as published scores do not.")
    ] = False,
    cells: Annotated[int | None, typer.Option(help="Cells per stage, for a smaller skeleton.")] = None,
    channels: Annotated[int | None, typer.Option(help="Channels of the first stage.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, images, weights and random draws.")] = 0,
    jobs: Annotated[int | None, typer.Option(help="Worker processes, one thread each. (default: all cores)")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor keep scores.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report. (default: nasharness-results/scores-NAME)")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score untrained networks with zero-cost proxies, and write a report on how well the scores rank.

    Scores are kept, so the same command goes on where it was interrupted.
    """
    import hashlib

    from .registry import split_ids
    from .score_cache import open_cache
    from .scoring import score as run_scores

    if n != "all" and not n.isdigit():
        raise ValueError(f"--n must be a whole number or all, not {n!r}")
    settings = {"prune": prune or None, "cells": cells, "channels": channels}
    asked = json.dumps([benchmark, proxies, n, among, str(images), settings, seed])
    name = f"scores-{benchmark.replace('/', '-').replace(':', '-')}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
    folder = out or Path("nasharness-results") / name
    if not no_cache:
        with open_cache() as kept_in:
            if kept_in.path is None and not quiet:
                sys.stderr.write("nasharness: the data folder cannot be written, so scores are not kept\n")
                no_cache = True
    try:
        with progress(f"{benchmark}: architectures scored", quiet or as_json) as update:
            scores = run_scores(
                split_ids(proxies),
                benchmark,
                n=None if n == "all" else int(n),
                among=among,  # type: ignore[arg-type]  # checked there
                images=images,
                settings={name: value for name, value in settings.items() if value is not None},
                seed=seed,
                jobs=(os.cpu_count() or 1) if jobs is None else jobs,
                device=device,
                cache=not no_cache,
                progress=update,
            )
    except KeyboardInterrupt:
        kept = "" if no_cache else " Finished scores are kept; to go on, give the same command again:"
        fail(f"interrupted.{kept}\n  nasharness {shlex.join(sys.argv[1:])}", 130)
    with status("writing the report", quiet or as_json):
        page = scores.report(folder)
    summary = scores.summary()
    if as_json:
        found = {"report": str(page), "population": scores.population, "proxies": summary.records()}
        typer.echo(json.dumps(_plain(found), indent=2))
    elif not quiet:
        headers, rows = summary.rows_for_display(brief=True)
        _print_table(headers, rows, title=f"{scores.benchmark.id}, {scores.population}")
        for sentence in summary.verdicts():
            typer.echo(sentence)
        typer.echo(f"Report: {page}")
    if lost := [label for label in scores.proxies if len(scores.errors[label]) == len(scores)]:
        reasons: dict[str, list[str]] = {}
        for label in lost:
            reasons.setdefault(next(iter(scores.errors[label].values())), []).append(label)
        first = "; ".join(f"{', '.join(labels)}: {reason}" for reason, labels in reasons.items())
        fail(f"no architecture could be scored by {first}", 1)


@app.command()
def stop(
    benchmark: Annotated[str | None, typer.Option(help="Benchmark id. (default: digits201)")] = None,
    curves: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="A file of learning curves in place of a benchmark.")
    ] = None,
    rules: Annotated[
        str, typer.Option(help="Comma-separated ids of predictors, stopping rules and schedules, or all.")
    ] = DEFAULT_RULES,
    meta: Annotated[
        str,
        typer.Option(help="Comma-separated benchmarks or .npz files of other datasets for predictors to learn from."),
    ] = "",
    orderings: Annotated[int, typer.Option(help="Simulated searches per rule.")] = 100,
    n: Annotated[int, typer.Option("--n", help="Architectures in each search.")] = 200,
    n_train: Annotated[int, typer.Option("--n-train", help="Complete curves that a predictor learns from.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the folds, the searches and the rules' own chance.")] = 0,
    jobs: Annotated[int, typer.Option(help="Worker processes, one thread each.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the report. (default: nasharness-results/stopping-NAME)")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Judge learning-curve predictors and stopping rules, and write a report on what they save and what they lose."""
    from .registry import split_ids
    from .stopping import compare_stopping

    if benchmark is not None and curves is not None:
        raise ValueError("--benchmark and --curves exclude each other")
    if curves is not None and curves.suffix != ".npz":
        raise ValueError(f"--curves is an .npz file, not {curves.name!r}")
    given: str | Path = curves or benchmark or "digits201"
    name = curves.stem if curves is not None else str(given).replace("/", "-").replace(":", "-")
    folder = out or Path("nasharness-results") / f"stopping-{name}"
    try:
        with progress(f"{given}: rules judged", quiet or as_json) as update:
            study = compare_stopping(
                split_ids(rules),
                given,
                meta=split_ids(meta),
                n=n,
                orderings=orderings,
                n_train=n_train,
                seed=seed,
                jobs=jobs,
                progress=update,
            )
    except KeyboardInterrupt:
        fail("interrupted. Nothing was written.", 130)
    with status("writing the report", quiet or as_json):
        page = study.report(folder)
    summary = study.summary()
    if as_json:
        found = {"report": str(page), "curves": study.curves_words, "rules": summary.records(), "errors": study.errors}
        typer.echo(json.dumps(_plain(found), indent=2))
    elif not quiet:
        headers, rows = summary.rows_for_display(brief=True)
        _print_table(headers, rows, title=study.curves_words)
        for sentence in summary.verdicts():
            typer.echo(sentence)
        typer.echo(f"Report: {page}")
    if study.errors:
        fail("; ".join(f"{label} failed: {message}" for label, message in study.errors.items()), 1)


@app.command()
def supernet(
    method: Annotated[str, typer.Option(help="Comma-separated ids of methods that train a supernet.")],
    benchmark: Annotated[str, typer.Option(help="Benchmark id.")] = "digits201",
    seeds: Annotated[int, typer.Option(help="Runs of each method.")] = 3,
    n: Annotated[str, typer.Option("--n", help="How many architectures to evaluate, or all.")] = "200",
    points: Annotated[int, typer.Option(help="After how many of the epochs they are evaluated.")] = 3,
    epochs: Annotated[int | None, typer.Option(help="Of every method. (default: its own)")] = None,
    images: Annotated[
        Path | None, typer.Option(help="A folder or file of labelled images. (default: the benchmark's own)")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ... (default: the methods' own)")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample of architectures and of the runs.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of results and report. (default: nasharness-results/supernet-NAME)")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train supernets and report how they rank architectures, and what becomes of their parameters on the way.

    A study that was interrupted goes on where it stopped when the same command is given again.
    """
    from .registry import split_ids
    from .supernets import supernets as run_supernets

    if n != "all" and not n.isdigit():
        raise ValueError(f"--n must be a whole number or all, not {n!r}")
    # Runs know what they belong to, so that one folder can hold those of several commands.
    folder = out or Path("nasharness-results") / f"supernet-{benchmark.replace('/', '-').replace(':', '-')}"
    try:
        with progress(f"{benchmark}: epochs and evaluations", quiet or as_json) as update:
            study = run_supernets(
                split_ids(method),
                benchmark,
                seeds=seeds,
                n=None if n == "all" else int(n),
                points=points,
                epochs=epochs,
                images=images,
                device=device,
                seed=seed,
                out=folder,
                progress=update,
            )
    except KeyboardInterrupt:
        fail(
            f"interrupted. What was finished is kept in {folder}; to go on, give the same command again:\n"
            f"  nasharness {shlex.join(sys.argv[1:])}",
            130,
        )
    with status("writing the report", quiet or as_json):
        page = study.report(folder)
    summary = study.summary()
    if as_json:
        found = {"report": str(page), "population": study.population, "methods": summary.records()}
        typer.echo(json.dumps(_plain(found), indent=2))
    elif not quiet:
        headers, rows = summary.rows_for_display(brief=True)
        _print_table(headers, rows, title=f"{study.benchmark.id}, {seeds} seeds, {study.population}")
        for sentence in summary.verdicts():
            typer.echo(sentence)
        typer.echo(f"Report: {page}")


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="The benchmark file to write, NAME.safetensors.")],
    space: Annotated[str, typer.Option(help="Search space.")] = "nasbench201",
    images: Annotated[str, typer.Option(help="Image task: digits or cluttered-digits.")] = "cluttered-digits",
    seeds: Annotated[str, typer.Option(help="Training seeds, comma-separated.")] = "0",
    epochs: Annotated[int, typer.Option(help="Epochs of each training run.")] = 6,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Of the first step; it falls to zero along a cosine.")] = 0.1,
    channels: Annotated[int, typer.Option(help="Channels of the first stage.")] = 8,
    cells: Annotated[int, typer.Option(help="Cells per stage.")] = 1,
    jobs: Annotated[int | None, typer.Option(help="Worker processes, one thread each. (default: all cores)")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Train only so many networks per seed and write no file: a trial.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train every network of a space and write a benchmark file.

    It can be stopped at any moment: finished networks are kept beside the file, and the same command goes on.
    """
    from ..benchmarks.build import BuildSpec, build_locally
    from ..benchmarks.schedule import Schedule

    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs must be at least 1, not {jobs}")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1, not {limit}")
    if out.suffix != ".safetensors":
        raise ValueError(f"--out must end in .safetensors, not {out.name!r}")
    try:
        numbers = tuple(int(s) for s in seeds.split(","))
    except ValueError:
        raise ValueError(f"--seeds must be whole numbers joined by commas, not {seeds!r}") from None
    schedule = Schedule(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    spec = BuildSpec(images=images, seeds=numbers, channels=channels, cells=cells, schedule=schedule, space=space)
    try:
        with progress("networks trained", quiet) as update:
            path = build_locally(
                spec,
                out,
                jobs=jobs or os.cpu_count() or 1,
                limit=limit,
                progress=lambda done, total, failed: update(done, total),
            )
    except KeyboardInterrupt:
        fail(
            f"interrupted. Finished networks are kept in {out}.journal; to go on, give the same command again:\n"
            f"  nasharness {shlex.join(sys.argv[1:])}",
            130,
        )
    if not quiet:
        typer.echo(f"Wrote {path}" if path else f"Trained {limit} networks per seed; they are kept in {out}.journal")


if __name__ == "__main__":
    main()
