"""Search strategies on a sample of NAS-Bench-101, as a benchmark of its own.

    python docs/nasbench101_sample.py NB101_20K.parquet REPORT_FOLDER [--optimizers a,b] [--repetitions 20] [--budget 150]

The table is of real results, one row per cell: `num_vertices`, `upper_tri_rowmajor` (upper triangle of the adjacency matrix),
`ops_0conv3x3_1conv1x1_2maxpool` (inner operations), `val108`, `train_time108`, `params`; FLOPs follow from the cells. It has no
test accuracy, so the report compares validation regrets. A search stays within the sample: neighbours outside it count as
unavailable.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import nasharness as nh
from nasharness.benchmarks.imported import import_table, open_imported
from nasharness.benchmarks.spaces.nasbench101 import OPERATIONS, NASBench101Space, count_cost, graph_from_matrix


def as_benchmark(parquet: Path, folder: Path) -> nh.Benchmark:
    """Import the table."""
    table, space = pd.read_parquet(parquet), NASBench101Space()
    cells, flops = [], []
    for vertices, triangle, inner in zip(
        table["num_vertices"],
        table["upper_tri_rowmajor"],
        table["ops_0conv3x3_1conv1x1_2maxpool"].astype(str),
        strict=True,
    ):
        matrix = np.zeros((vertices, vertices), dtype=np.int8)
        matrix[np.triu_indices(vertices, 1)] = [int(bit) for bit in triangle]
        operations = ["input", *(OPERATIONS[int(digit)] for digit in inner[: vertices - 2]), "output"]
        graph = graph_from_matrix(matrix, operations)
        cells.append(space.to_string(space.from_graph(graph)))
        flops.append(count_cost(graph)[1])
    columns = pd.DataFrame(
        {
            "architecture": cells,
            "val_accuracy": table["val108"],
            "seconds": table["train_time108"],
            "params": table["params"],
            "flops": flops,
        }
    )
    columns.to_csv(folder / "table.csv", index=False)
    target = folder / "nb101-sample.safetensors"
    import_table(space, folder / "table.csv", target, name="nb101-sample", epochs=108)
    return open_imported(target)


def main() -> None:
    """Import, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parquet", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--optimizers", default="all-black-box")
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--budget", default="150")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        benchmark = as_benchmark(arguments.parquet, Path(folder))
        study = nh.compare(
            arguments.optimizers.split(","), benchmark, arguments.budget, repetitions=arguments.repetitions, jobs=2
        )
        print(study.report(arguments.report))
        for sentence in study.summary().verdicts():
            print(sentence)


if __name__ == "__main__":
    main()
