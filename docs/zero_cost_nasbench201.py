"""Zero-cost proxies on NAS-Bench-201: our rank correlations beside the published ones.

    python docs/zero_cost_nasbench201.py NB201.parquet CIFAR10_TRAIN.parquet [--n 1000] [--jobs 2] [--proxies a,b]
        [--freerea FREEREA.parquet] [--suite-zero SUITE_ZERO.parquet] [--out docs/zero_cost_nasbench201.md] [--report FOLDER]

NB201.parquet has the real accuracies of NAS-Bench-201: `arch` (official strings), `cifar10_val_200`, `cifar10_test_200` in
percent and `cifar10_train_time_200_s`. CIFAR10_TRAIN.parquet holds the training images as `label` and `jpeg`. FREEREA.parquet
holds the scores that Cavagnero et al. cached (`index`, `naswot`, `synflow`, `logsynflow`, `nregions`), SUITE_ZERO.parquet those
of NAS-Bench-Suite-Zero (`net_str` and one column per proxy) for the cells without a dead operation.

Scores are kept, so an interrupted call goes on, and a call with more proxies computes those only.
"""

import argparse
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import nasharness as nh
from nasharness.benchmarks.imported import import_table, open_imported
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.metrics import kendall_tau
from nasharness.harness.registry import split_ids
from nasharness.harness.score_cache import open_cache
from nasharness.harness.scorer import BenchmarkScorer

# Kendall tau on CIFAR-10, all 15,625 cells, final test accuracy: low and high of what is published, and by whom.
PUBLISHED = {
    "naswot": (0.58, 0.61, "Li et al. 2023 (ZiCo); from the scores of FreeREA"),
    "synflow": (0.54, 0.57, "Li et al. 2023; from the scores of FreeREA"),
    "log_synflow": (0.63, 0.63, "from the scores of FreeREA"),
    "snip": (0.46, 0.46, "Li et al. 2023"),
    "grad_norm": (0.46, 0.46, "Li et al. 2023"),
    "fisher": (0.40, 0.40, "Li et al. 2023"),
    "grasp": (0.37, 0.37, "Li et al. 2023"),
    "zen": (0.29, 0.29, "Li et al. 2023"),
    "zico": (0.61, 0.61, "Li et al. 2023"),
    "zico@paper": (0.61, 0.61, "Li et al. 2023"),
    "gradsign": (0.58, 0.58, "Li et al. 2023"),
    "ntk": (0.33, 0.33, "Li et al. 2023"),
    "linear_regions": (0.539, 0.539, "from the scores of FreeREA"),
    "az_nas": (0.741, 0.741, "Lee and Ham 2024"),
    "params": (0.578, 0.578, "from the formula"),
    "live_params": (0.654, 0.654, "from the formula"),
    "flops": (0.578, 0.578, "from the formula"),
}
# Spearman rho where no tau is published.
PUBLISHED_RHO = {
    "jacob_cov": (0.73, 0.73, "Abdelfattah et al. 2021"),
    "meco": (0.894, 0.894, "Jiang et al. 2023"),
    "epe_nas": (0.70, 0.70, "Krishnakumar et al. 2022, 1,000 cells"),
    "l2_norm": (0.68, 0.68, "Krishnakumar et al. 2022, 1,000 cells"),
    "plain": (-0.26, -0.26, "Krishnakumar et al. 2022, 1,000 cells"),
}
SUITE_ZERO = {"naswot": "nwot", "jacob_cov": "jacov"}  # where the column has another name
FREEREA = {"naswot": "naswot", "synflow": "synflow", "log_synflow": "logsynflow", "linear_regions": "nregions"}
TOLERANCE = 0.05


def as_benchmark(parquet: Path, folder: Path) -> nh.Benchmark:
    """The real accuracies as a benchmark, with the official networks."""
    table = pd.read_parquet(parquet)
    columns = pd.DataFrame(
        {
            "architecture": table["arch"],
            "val_accuracy": table["cifar10_val_200"],
            "test_accuracy": table["cifar10_test_200"],
            "seconds": table["cifar10_train_time_200_s"],
        }
    )
    columns.to_csv(folder / "table.csv", index=False)
    target = folder / "nb201-cifar10.safetensors"
    import_table(
        NASBench201Space(),
        folder / "table.csv",
        target,
        name="nb201-cifar10",
        percent=True,
        epochs=200,
        fill_seconds=True,
    )
    return open_imported(target)


def main() -> None:
    """Score, compare, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("accuracies", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--proxies", default=",".join([*PUBLISHED, *PUBLISHED_RHO]))
    parser.add_argument("--freerea", type=Path)
    parser.add_argument("--suite-zero", type=Path)
    parser.add_argument(
        "--timed", type=int, default=10, help="architectures that the times are measured on, each proxy alone"
    )
    parser.add_argument("--small", type=int, default=0, help="architectures to score with one cell a stage, too")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = as_benchmark(given.accuracies, Path(folder))
        scores = nh.score(
            split_ids(given.proxies),
            benchmark,
            n=given.n,
            images=given.images,
            seed=given.seed,
            jobs=given.jobs,
            progress=lambda done, total: print(f"\r{done} of {total}", end="", file=sys.stderr, flush=True),
        )
        print(file=sys.stderr)
        timed = nh.score(scores.proxies, benchmark, n=given.timed, images=given.images, seed=1, cache=False)
        text = table(scores, timed, given)
        if given.small:
            text += smaller(scores, benchmark, given)
        if given.report:
            print(scores.report(given.report))
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


def table(scores: nh.Scores, timed: nh.Scores, given: argparse.Namespace) -> str:
    """The comparison as Markdown."""
    space = NASBench201Space()
    archs = [tuple(arch) for arch in scores.archs.tolist()]
    live = np.array([space.prune(arch) == arch for arch in archs])
    freerea = suite_zero = None
    if given.freerea:
        freerea = pd.read_parquet(given.freerea).set_index("index").loc[[space.index(arch) for arch in archs]]
    if given.suite_zero:
        suite_zero = pd.read_parquet(given.suite_zero).set_index("net_str")
        suite_zero = suite_zero.reindex([space.to_string(arch) for arch in archs])
    rows = {record["proxy"]: record for record in scores.summary().records()}
    columns = ["proxy", "tau [95 %]", "published", "agrees", "rho", "tau, no dead operation", "tau to FreeREA"]
    columns += ["tau to Suite-Zero", "not scorable", "ms"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for label in scores.proxies:
        row, values = rows[label], scores.values[label]
        low, high, source = PUBLISHED.get(label, (None, None, ""))
        measured, kind = row["tau"], "tau"
        if low is None and label in PUBLISHED_RHO:
            (low, high, source), measured, kind = PUBLISHED_RHO[label], row["rho"], "rho"
        published = agrees = "-"
        if low is not None:
            published = f"{kind} {low:.3g}" + (f" to {high:.3g}" if high != low else "") + f", {source}"
            agrees = "yes" if low - TOLERANCE <= measured <= high + TOLERANCE else "**no**"
        others = []
        for table_, names in ((freerea, FREEREA), (suite_zero, SUITE_ZERO)):
            name = names.get(label, label if table_ is suite_zero else None)
            if table_ is None or name not in table_.columns:
                others.append("-")
                continue
            other = table_[name].to_numpy(dtype=np.float64)
            both = np.isfinite(other) if table_ is suite_zero else np.full(len(other), fill_value=True)
            other = np.where(np.isfinite(other), other, -np.inf)
            others.append(f"{kendall_tau(values[both], other[both]):.3f} (n = {both.sum()})")
        lines.append(
            f"| {label} | {row['tau']:.3f} [{row['tau_low']:.3f}, {row['tau_high']:.3f}] | {published} | {agrees} |"
            f" {row['rho']:.3f} | {kendall_tau(values[live], scores.accuracy[live]):.3f} | {others[0]} | {others[1]} |"
            f" {int((values == -np.inf).sum())} | {1000 * np.nanmean(timed.seconds[label]):.0f} |"
        )
    command = " ".join(["python", "docs/zero_cost_nasbench201.py", *map(_shown, sys.argv[1:])])
    head = f"""# Zero-cost proxies on NAS-Bench-201, CIFAR-10

Made by `{command}`.

Architectures: {scores.population}; {int(live.sum())} of them have no dead operation. Accuracy: mean CIFAR-10 test accuracy after
200 epochs. Scores: full skeleton (16 channels, 5 cells a stage), torch's default initialisation, one seed, dead operations kept,
real training images (JPEG re-encoded). "agrees": within {TOLERANCE} of what is published, for all 15,625 cells unless it says
otherwise.

Machine: {_processor()}, torch {torch.__version__}, Python
{platform.python_version()}. ms: processor time of one thread for a proxy alone, with building the network, mean of {len(timed)}
other architectures.
"""
    return "\n".join([head, *lines, ""])


def smaller(scores: nh.Scores, benchmark: nh.Benchmark, given: argparse.Namespace) -> str:
    """How well one cell a stage (`--cells 1`) ranks as the full skeleton does, as Markdown."""
    chosen = np.random.default_rng(given.seed).choice(len(scores), given.small, replace=False)  # the sample is sorted
    archs = [tuple(arch) for arch in scores.archs[chosen].tolist()]
    accuracy = scores.accuracy[chosen]
    lines = ["", f"## One cell a stage instead of five (`--cells 1`), {len(archs)} of the cells", ""]
    lines += [
        "| proxy | tau to the full skeleton | tau to accuracy, full | tau to accuracy, one cell |",
        "|---|---|---|---|",
    ]
    with open_cache() as cache:
        scorer = BenchmarkScorer(benchmark, images=str(given.images), settings={"cells": 1}, cache=cache)
        for label in scores.proxies:
            full, small = scores.values[label][chosen], scorer(label, archs, seed=given.seed)
            taus = (kendall_tau(small, full), kendall_tau(full, accuracy), kendall_tau(small, accuracy))
            lines.append(f"| {label} | {' | '.join(f'{tau:.3f}' for tau in taus)} |")
    return "\n".join([*lines, ""])


def _shown(argument: str) -> str:
    return Path(argument).name if "/" in argument and Path(argument).suffix == ".parquet" else argument


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
