"""Convert the official NAS-Bench-301 surrogate models into one file of arrays.

The official models are folders of pickled boosters (`xgb_v1.0`, `lgb_runtime_v1.0`) and torch state dicts (`gnn_gin_v1.0`), one
member per sub-folder. Columns:

    xgb.<array>, lgb_runtime.<array>      the arrays of `benchmarks/trees.py`, all members one after the other
    gnn_gin.<member>.<weight>             float32, the weights of `benchmarks/gin.py`

Members are numbered by the names of their folders, with numbers compared as numbers (1, 2, ..., 10). The official code takes
them in the order in which the file system lists them; that order only matters in the last bit of a mean. The metadata has
the members' names, the configurations of each first member, the version, and the models that were not there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..columns import Columns, TableError, write_columns
from ..formats import lightgbm, xgboost
from ..formats.errors import FormatError
from ..formats.gin import read_gin
from ..gin import GIN
from ..nasbench301 import ACCURACY_MODELS, FEATURES, MODELS, RUNTIME_MODEL, load_surrogate
from ..spaces.darts import DARTSSpace, Genotype
from ..trees import TreeEnsemble, Trees

_FILE = "surrogate_model.model"
_TYPES = {"xgb": "xgb", "gnn_gin": "gnn_gin", "lgb_runtime": "lgb_time"}
"""What `model_config.json` calls each model."""
_MEMBERS = 10


@dataclass(frozen=True)
class _Model:
    """A model's folder and what it holds."""

    name: str
    folder: Path
    files: list[Path]
    model_config: dict[str, Any]
    data_config: dict[str, Any]


def convert(source: Path, target: Path, *, jobs: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
    """Convert a folder of models. Nothing is left behind if it is interrupted.

    Args:
        source: the folder that holds `xgb_*`, `gnn_gin_*` and `lgb_runtime_*` (officially `nb_models`), or one that holds
            only this folder. At least one of the first two is needed; what is missing is recorded.
        target: the file to write.
        jobs: members that are read at the same time, each in its own thread and with its own memory (for the official
            boosters several times their size).
        progress: called with the bytes of model files read so far and in all.

    Raises:
        FormatError: there is no such model, a file is damaged, or a model is of a kind that is not read exactly.
        OSError: the source cannot be read or the target not be written.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}")
    models = _find(source)
    total = sum(path.stat().st_size for model in models for path in model.files)
    done = 0

    def report(path: Path) -> None:
        nonlocal done
        done += path.stat().st_size
        if progress is not None:
            progress(done, total)

    columns: dict[str, npt.NDArray[Any]] = {}
    digests: dict[str, str] = {}
    described: dict[str, Any] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for model in models:
            read = _READERS[model.name]

            def member(path: Path, model: _Model = model, read: Any = read) -> tuple[Any, str]:
                data = path.read_bytes()
                return read(path, data, model.model_config), hashlib.sha256(data).hexdigest()

            def members(model: _Model = model, member: Any = member) -> Iterator[Any]:
                for path, (found, digest) in _ahead(pool, member, model.files, jobs):
                    digests[path.relative_to(model.folder.parent).as_posix()] = digest
                    report(path)
                    yield found

            columns |= _PACKERS[model.name](members(), model)
            for name in ("model_config.json", "data_config.json"):
                path = model.files[0].with_name(name)
                digests[path.relative_to(model.folder.parent).as_posix()] = hashlib.sha256(
                    path.read_bytes()
                ).hexdigest()
            described[model.name] = {
                "folder": model.folder.name,
                "members": [path.parent.relative_to(model.folder).as_posix() for path in model.files],
                "model_config": model.model_config,
                "data_config": model.data_config,
            }
    listing = "".join(f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    metadata = {
        "models": described,
        "missing": [name for name in MODELS if name not in described],
        "version": _version(models),
        "features": FEATURES,
        "source": models[0].folder.parent.name,
        "source_sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }
    write_columns(target, columns, kind="nasbench301", metadata=metadata)


def _find(source: Path) -> list[_Model]:
    """The models of a folder, or of the only folder in it that has any."""
    if not source.is_dir():
        raise FormatError(
            f"{source} is no folder; give the folder that holds xgb_v1.0, gnn_gin_v1.0 and lgb_runtime_v1.0"
        )
    inside = sorted(path for path in source.iterdir() if path.is_dir())
    roots = [root for root in (source, *inside) if any(_folders(root, name) for name in MODELS)]
    if source not in roots and len(roots) > 1:
        raise FormatError(f"{source} holds several sets of models: {', '.join(root.name for root in roots)}; give one")
    models = []
    for name in MODELS if roots else ():
        folders = _folders(roots[0], name)
        if len(folders) > 1:
            raise FormatError(f"{roots[0]} holds several {name}: {', '.join(f.name for f in folders)}; keep one")
        if folders:
            models.append(_model(name, folders[0]))
    if not {model.name for model in models} & set(ACCURACY_MODELS):
        raise FormatError(f"{source} holds no folder named xgb_* or gnn_gin_*: these models predict the accuracy")
    return models


def _folders(root: Path, name: str) -> list[Path]:
    return sorted(path for path in root.glob(f"{name}*") if path.is_dir() and re.fullmatch(f"{name}(_.*)?", path.name))


def _model(name: str, folder: Path) -> _Model:
    files = sorted(folder.rglob(f"*{_FILE}"), key=lambda path: _natural(path.relative_to(folder).as_posix()))
    if not files:
        raise FormatError(f"{folder} holds no {_FILE}")
    model_config, data_config = (_json(files[0].with_name(f"{part}_config.json")) for part in ("model", "data"))
    if model_config.get("model") != _TYPES[name]:
        raise FormatError(f"{folder} should hold models of type {_TYPES[name]!r}, not {model_config.get('model')!r}")
    if "seed" not in data_config:
        raise FormatError(f"{files[0].with_name('data_config.json')} has no 'seed'")
    return _Model(name, folder, files, model_config, data_config)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FormatError(f"{path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path} should hold a JSON object")
    return value


def _natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key that compares numbers as numbers."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]


def _version(models: list[_Model]) -> str:
    versions = {model.folder.name.removeprefix(model.name).removeprefix("_").removeprefix("v") for model in models}
    if len(versions) > 1:
        raise FormatError(f"the models are of different versions: {', '.join(model.folder.name for model in models)}")
    return versions.pop()


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Path], tuple[Any, str]], paths: list[Path], jobs: int
) -> Iterator[tuple[Path, tuple[Any, str]]]:
    """The results of `work` in order, with at most `jobs` of them in memory or in work."""
    waiting: deque[tuple[Path, Future[tuple[Any, str]]]] = deque()
    for path in paths:
        waiting.append((path, pool.submit(work, path)))
        if len(waiting) == jobs:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _read_trees(reader: Any, path: Path, data: bytes) -> Trees:
    trees: Trees = reader.read_booster(data, str(path))
    if trees.features != FEATURES:
        raise FormatError(f"{path} has {trees.features} features; NAS-Bench-301 has {FEATURES}")
    return trees


def _pack_gin(networks: Iterator[GIN], model: _Model) -> dict[str, npt.NDArray[Any]]:
    return {
        f"{model.name}.{member}.{name}": weight
        for member, network in enumerate(networks)
        for name, weight in network.weights.items()
    }


_READERS: Mapping[str, Callable[[Path, bytes, Mapping[str, Any]], Any]] = {
    "xgb": lambda path, data, _: _read_trees(xgboost, path, data),
    "gnn_gin": lambda path, _, config: read_gin(path, config),
    "lgb_runtime": lambda path, data, _: _read_trees(lightgbm, path, data),
}
_PACKERS: Mapping[str, Callable[[Iterator[Any], _Model], dict[str, npt.NDArray[Any]]]] = {
    "xgb": lambda trees, model: TreeEnsemble.build(trees, "<").columns(f"{model.name}."),
    "gnn_gin": _pack_gin,
    "lgb_runtime": lambda trees, model: TreeEnsemble.build(trees, "<=").columns(f"{model.name}."),
}

_SEP, _DIL = "sep_conv_3x3", "dil_conv_3x3"
_MAX, _AVG, _SKIP = "max_pool_3x3", "avg_pool_3x3", "skip_connect"
_DARTS = {
    "DARTS (first order)": Genotype(
        ((_SEP, 1), (_SEP, 0), (_SKIP, 0), (_SEP, 1), (_SKIP, 0), (_SEP, 1), (_SEP, 0), (_SKIP, 2)),
        (2, 3, 4, 5),
        ((_MAX, 0), (_MAX, 1), (_SKIP, 2), (_MAX, 0), (_MAX, 0), (_SKIP, 2), (_SKIP, 2), (_AVG, 0)),
        (2, 3, 4, 5),
    ),
    "DARTS (second order)": Genotype(
        ((_SEP, 0), (_SEP, 1), (_SEP, 0), (_SEP, 1), (_SEP, 1), (_SKIP, 0), (_SKIP, 0), (_DIL, 2)),
        (2, 3, 4, 5),
        ((_MAX, 0), (_MAX, 1), (_SKIP, 2), (_MAX, 1), (_MAX, 0), (_SKIP, 2), (_SKIP, 2), (_MAX, 1)),
        (2, 3, 4, 5),
    ),
}
"""Published cells (Liu et al., ICLR 2019): good ones, so far from 80 and from 100 percent."""
_DAY = 86_400.0


def verify(columns: Columns) -> Iterator[tuple[str, bool]]:
    """Compare a converted file with what is known of the official models, fact by fact: a sentence, and whether it holds."""
    described = columns.metadata["models"]
    space = DARTSSpace()
    archs = [space.from_genotype(genotype) for genotype in _DARTS.values()]
    for name in MODELS:
        if name not in described:
            yield f"{name} is there", False
            continue
        try:
            surrogate = load_surrogate(columns, name)
            surrogate.check()
        except (FormatError, TableError) as error:
            yield f"{name} is sound: {error}", False
            continue
        yield f"{name} is sound", True
        n = len(surrogate.members)
        yield f"{name} has {n} of {_MEMBERS} members", n == _MEMBERS
        predicted = surrogate.predict(archs)
        for genotype, members in zip(_DARTS, predicted.T, strict=True):
            mean = float(np.mean(members))
            if name == RUNTIME_MODEL:
                yield f"{genotype} trains for {mean:,.0f} seconds", bool((members > 0).all()) and mean < _DAY
            else:
                yield f"{genotype} reaches {mean:.2f} percent ({name})", 80 < mean < 100
