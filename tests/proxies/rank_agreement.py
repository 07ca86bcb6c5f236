"""How well the proxies rank NAS-Bench-201 networks as their float64 reference does, at the published settings. Not a test.

    python tests/proxies/rank_agreement.py scores.jsonl                  150 random architectures; hours
    python tests/proxies/rank_agreement.py scores.jsonl --networks 3     the first three

The file has one line per architecture; those that it already has are not computed again, so the script can be stopped at any
time. At the end it prints Kendall's tau between the two for every proxy, and how far the scores lie apart.

Network: 16 channels, 5 cells per stage, 10 classes, initialised from the number of the architecture in the sample. Images: 128 of
32 x 32 (NASWOT; the gradients take the first 64), standard normal, with random labels, the same for every network.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from scipy.stats import kendalltau

from nasharness.benchmarks.networks.nasbench201 import NASBench201Network
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.harness.registry import proxy_spec
from nasharness.proxies.passes import measure_together

sys.path.insert(0, str(Path(__file__).parent))
import reference

PROXIES = {"naswot": 128, "grad_norm": 64, "snip": 64, "plain": 64, "zen": 64, "synflow": 1}  # images for the reference


GRADIENTS = ("grad_norm", "snip", "plain")


def sample(n: int) -> list[tuple[int, ...]]:
    """The first n of an endless list of random architectures."""
    rng, space = np.random.default_rng(0), NASBench201Space()
    return [space.sample(rng) for _ in range(n)]


def score(number: int, arch: tuple[int, ...]) -> dict:
    """One line of the file."""
    with torch.random.fork_rng():
        torch.manual_seed(number)
        network = NASBench201Network(arch)
    rng = torch.Generator().manual_seed(0)
    images, labels = torch.randn(128, 3, 32, 32, generator=rng), torch.randint(10, (128,), generator=rng)
    start = time.perf_counter()
    made = [proxy_spec(name).make(torch.Generator().manual_seed(number)) for name in PROXIES]
    measured = measure_together(made, network, images, labels)
    middle = time.perf_counter()
    wanted = {
        name: getattr(reference, name)(network, images[:n], labels[:n], torch.Generator().manual_seed(number))
        for name, n in PROXIES.items()
        if name not in GRADIENTS
    }
    net = reference.double(network)  # the references of these three make the same pass each
    gradients = reference.loss_gradients(net, images[:64], labels[:64])
    pairs = [(g, m.weight.detach()) for g, m in zip(gradients, reference.weighted(net), strict=True)]
    wanted["grad_norm"] = sum(float((g**2).sum().sqrt()) for g, _ in pairs)
    wanted["snip"] = sum(float((g * w).abs().sum()) for g, w in pairs)
    wanted["plain"] = sum(float((g * w).sum()) for g, w in pairs)
    return {
        "number": number,
        "arch": NASBench201Space().to_string(arch),
        "proxy": {name: found.values[0] for name, found in zip(PROXIES, measured, strict=True)},
        "reference": wanted,
        "seconds": [round(middle - start, 2), round(time.perf_counter() - middle, 2)],
    }


def read(path: Path) -> dict[int, dict]:
    """The lines that are complete, by the number of the architecture."""
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:  # the script was stopped while it wrote this one
            continue
        found[row["number"]] = row
    return found


def summary(rows: list[dict]) -> str:
    """Tau, and the largest difference relative to the reference, for every proxy."""
    lines = [f"{len(rows)} architectures", f"{'proxy':12}{'tau':>9}{'largest relative difference':>30}"]
    for name in PROXIES:
        pairs = np.array([(row["proxy"][name], row["reference"][name]) for row in rows], dtype=float)
        both = pairs[np.isfinite(pairs).all(axis=1)]
        apart = np.abs(both[:, 0] - both[:, 1]) / np.maximum(np.abs(both[:, 1]), 1e-300)
        apart = apart[both[:, 0] != both[:, 1]]
        worst = -np.finfo(float).max  # what cannot be scored ranks last, on both sides
        tau = kendalltau(*np.nan_to_num(pairs, neginf=worst).T).statistic if len(rows) > 1 else math.nan
        lines.append(f"{name:12}{tau:9.4f}{apart.max(initial=0.0):30.1e}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="JSON lines, read and added to")
    parser.add_argument("--networks", type=int, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = read(options.file)
    text = options.file.read_text() if options.file.exists() else ""
    with options.file.open("a") as file:
        if text and not text.endswith("\n"):
            file.write("\n")
        for number, arch in enumerate(sample(options.networks)):
            if number not in done:
                done[number] = score(number, arch)
                file.write(json.dumps(done[number]) + "\n")
                file.flush()
                print(number, done[number]["arch"], *done[number]["seconds"], flush=True)
    print(summary([done[number] for number in range(options.networks)]))


if __name__ == "__main__":
    main()
