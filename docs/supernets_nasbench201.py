"""One-shot methods on NAS-Bench-201, judged by its real accuracies, beside the published table.

    python docs/supernets_nasbench201.py NB201.parquet CIFAR10_TRAIN.parquet [--methods darts,pc_darts,gdas,rsps] [--seeds 1]
        [--recipe "epochs=10, images=2000, channels=8, cells=1"] [--device cpu] [--n 200] [--work FOLDER] [--out FILE.md]

NB201.parquet has the real accuracies of NAS-Bench-201 (see docs/zero_cost_nasbench201.py), CIFAR10_TRAIN.parquet the training
images as `label` and `jpeg`; they are split in two halves, for the weights and for the architecture. Without --recipe it is the
method's preset `paper`: the full skeleton (16 channels, 5 cells a stage). Finished searches are kept in --work, so an interrupted
call goes on.
"""

import argparse
import platform
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from zero_cost_nasbench201 import as_benchmark

import nasharness as nh
from nasharness.harness.metrics import kendall_tau
from nasharness.harness.registry import split_ids

# Test accuracy on CIFAR-10 of the architectures found: Dong and Yang, ICLR 2020, table 5; PC-DARTS from Chen et al., ICLR 2021.
PUBLISHED = {"darts": "54.30", "gdas": "93.51", "rsps": "87.66", "setn": "86.19", "enas": "54.30", "pc_darts": "93.41"}


def main() -> None:
    """Train, judge, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("accuracies", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--methods", default="darts,pc_darts,gdas,rsps")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--recipe", default="")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    methods = {}
    for name in split_ids(given.methods):
        words = ", ".join(filter(None, (given.recipe, f"device={given.device!r}")))
        methods[name] = f"{name}({words})" if given.recipe else f"{name}@paper({words})"
    with tempfile.TemporaryDirectory() as folder:
        benchmark = as_benchmark(given.accuracies, Path(folder))
        study = nh.supernets(
            list(methods.values()),
            benchmark,
            seeds=given.seeds,
            n=given.n,
            points=1,
            images=given.images,
            out=given.work,
            progress=lambda done, total: print(f"\r{done} of {total}", end="", file=sys.stderr, flush=True),
        )
        print(file=sys.stderr)
        text = table(study, methods, given)
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


def table(study: "nh.SupernetStudy", methods: dict[str, str], given: argparse.Namespace) -> str:
    """The comparison as Markdown."""
    device = (
        torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else platform.processor() or "CPU"
    )
    lines = [
        "# One-shot methods on NAS-Bench-201",
        "",
        f"Test accuracy (%) on CIFAR-10 of the architecture that each search returned, mean of {given.seeds} search(es), and",
        f"Kendall's tau of inherited (recalibrated) with real test accuracies of {len(study.archs)} random architectures.",
        f"Recipe: {given.recipe or 'preset paper'}; {device}, torch {torch.__version__}.",
        "",
        "| method | found | published | skips of 6 | tau | search s | ms a step | memory of a step, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, spec in methods.items():
        runs = study.runs_of(study.methods[list(methods.values()).index(spec)])
        found = [100 * float(run.series["test_accuracy"][-1]) for run in runs]
        skips = [6 * float(run.series["skip_share"][-1]) for run in runs]
        taus = [kendall_tau(run.inherited["recalibrated"][-1], study.test_accuracy) for run in runs]
        seconds = [float(run.series["seconds"][-1]) for run in runs]
        cells = [
            name,
            f"{np.mean(found):.2f}",
            PUBLISHED.get(name, ""),
            f"{np.mean(skips):.1f}",
            f"{np.mean(taus):.2f}",
            f"{np.mean(seconds):.0f}",
            f"{1000 * np.mean([run.seconds_per_step for run in runs]):.0f}",
            f"{np.mean([run.saved_bytes for run in runs]) / 1e6:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    command = " ".join(
        ["python docs/supernets_nasbench201.py NB201.parquet CIFAR10_TRAIN.parquet", *map(shlex.quote, sys.argv[3:])]
    )
    return "\n".join([*lines, "", f"By `{command}`.", ""])


if __name__ == "__main__":
    main()
