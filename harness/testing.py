"""The conformance suite: what every optimizer must keep, as plain functions that say what to fix.

    nh.check(MyOptimizer)                       # raises CheckError with every failed check
    nasharness check my_module:MyOptimizer

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(optimizer_spec("my_module:MyOptimizer"))

Each check plays the optimizer on small made-up tasks in which every answer is a fixed function of the architecture. An
optimizer that takes a `scorer` is given one whose scores are made up, too.

`check` and `run_checks` take zero-cost proxies and learning-curve methods as well; their checks are in `proxy_testing.py` and
`predictor_testing.py`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..benchmarks.images import SPLITS, Images, ImageTask, SplitName
from ..benchmarks.spaces.base import Architecture, SearchSpace
from ..benchmarks.spaces.nasbench201 import NASBench201Space
from .core import Metrics, Proposal, Trial
from .registry import (
    GROUPS,
    Group,
    OptimizerSpec,
    ProxySpec,
    StoppingSpec,
    entry_points,
    importable,
    optimizer_spec,
    proxy_spec,
    resolve,
    stopping_spec,
)

if TYPE_CHECKING:
    from ..optimizers.base import Optimizer, SupernetTask
    from ..predictors.base import Predictor, Schedule, StoppingRule
    from ..proxies.base import Proxy

Check = Callable[[OptimizerSpec], None]

LONG = 260
"""Trials of a long game: beyond the warm-up of every strategy in the registry (the longest is 100)."""


class CheckError(AssertionError):
    """One or more conformance checks failed; the message lists each with what to fix."""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check; `problem` is None if it passed, or was skipped because it needs one that failed."""

    name: str
    problem: str | None
    skipped: bool = False


# --------------------------------------------------------------------------------------------------- made-up tasks


class _Constrained(SearchSpace):
    """A space with an odd number of choices, a dimension without any, and a validity test."""

    name = "constrained"
    cardinalities = (3, 1, 4, 2, 3)
    size = 54

    def is_valid(self, arch: Architecture) -> bool:
        return super().is_valid(arch) and (arch[0] + arch[2]) % 4 != 3


def _score(arch: Architecture) -> float:
    """A fixed accuracy with a broad trend and ruggedness on top, the same in every process."""
    trend = sum(choice * (d + 2) for d, choice in enumerate(arch)) / (1 + 20 * len(arch))
    rugged = (sum((choice + 1) * (d * d + 7) for d, choice in enumerate(arch)) * 2654435761) % 1000 / 1000
    return 0.1 + 0.6 * trend + 0.2 * rugged


def _cost(arch: Architecture) -> float:
    """A fixed cost, the answer to every metric; what raises the accuracy raises it, too."""
    return 1.0 + sum(choice * (d + 3) for d, choice in enumerate(arch))


class MadeUpScorer:
    """A `Scorer` without networks: its scores are a fixed function of proxy, architecture and seed, related to `_score`.

    One architecture in eleven cannot be scored. Of a mixture it scores the mean over its choices.

    Args:
        space: the space of the architectures; one that it does not have is an error.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def __call__(self, proxy: str, archs: Sequence[Architecture], *, seed: int) -> npt.NDArray[np.float64]:
        scores = []
        for arch in archs:
            noise = self._noise(proxy, seed, self.space.check(arch))
            scores.append(-math.inf if noise < 1 / 11 else _score(arch) + 0.5 * noise)
        return np.array(scores, dtype=np.float64)

    def mixtures(self, proxy: str, choices: Sequence[Sequence[Sequence[int]]], *, seed: int) -> npt.NDArray[np.float64]:
        scores = []
        for mixture in choices:
            assert len(mixture) == len(self.space.cardinalities) and all(mixture), (
                f"a mixture needs one or more choices for each of {len(self.space.cardinalities)} dimensions, not {mixture!r}"
            )
            mean = sum(sum(left) * (d + 2) / len(left) for d, left in enumerate(mixture)) / (1 + 20 * len(mixture))
            scores.append(mean + self._noise(proxy, seed, mixture))
        return np.array(scores, dtype=np.float64)

    @staticmethod
    def _noise(*words: object) -> float:
        assert type(words[0]) is str and isinstance(words[1], int), (
            f"a scorer takes the id of a proxy and a whole number as the seed, not {words[0]!r} and {words[1]!r}"
        )
        return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "little") / 2**32


class MadeUpImages(ImageTask):
    """Noise with a bright quarter that tells the class, `(n, channels, side, side)`."""

    name = "made-up"
    num_classes = 4

    def __init__(self, n: int = 32, side: int = 4, channels: int = 1) -> None:
        self.n, self.side, self.shape = n, side, (channels, side, side)

    def split(self, name: SplitName) -> Images:
        rng = np.random.default_rng(SPLITS.index(name))
        labels = rng.integers(0, 4, self.n)
        images = rng.normal(size=(self.n, *self.shape)).astype(np.float32)
        half = self.side // 2
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 2)
            image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 2.0
        return Images(images, labels.astype(np.int64))


def made_up_task(n: int = 32, side: int = 4, *, channels: int = 1, darts: bool = False) -> SupernetTask:
    """Made-up images and the settings of the smallest networks: of NAS-Bench-201, or of the DARTS space."""
    from ..benchmarks.datasets import TaskImages
    from ..optimizers.base import SupernetTask

    settings: dict[str, Any] = {"channels": 4, "num_classes": 4, "input_channels": channels}
    settings |= {"layers": 3, "auxiliary": False, "stem_multiplier": 3} if darts else {"cells": 1, "prune": False}
    return SupernetTask(TaskImages(MadeUpImages(n, side, channels)), settings)


Value = Callable[[int, Architecture], float]


def _play(
    spec: OptimizerSpec,
    *,
    seed: int,
    trials: int = LONG,
    space: SearchSpace | None = None,
    value: Value = lambda i, arch: _score(arch),
    cost: Callable[[Architecture], float] = _cost,
    between: Callable[[], object] = lambda: None,
    to_the_end: bool = False,
) -> list[Proposal]:
    """Run the optimizer and return its proposals.

    `value` gives the answers, `cost` every metric that it asks for; `between` is called before each ask. A method that trains
    by itself is not told anything, and unless it is to run to its end it trains three times.
    """
    from ..optimizers.base import SearchFinished

    space = space or NASBench201Space()
    optimizer = _made(spec, seed, space)
    charges = optimizer.charges_evaluations
    proposals: list[Proposal] = []
    for i in range(trials if charges or to_the_end else min(trials, 3)):
        between()
        try:
            proposal = optimizer.ask()
        except SearchFinished:
            break
        assert type(proposal) is Proposal, (  # as in a run
            f"ask must return a nasharness.Proposal, such as Proposal(arch); it returned {proposal!r}"
        )
        assert space.is_valid(proposal.arch), f"ask proposed {proposal.arch!r} at trial {i}, which is not in {space!r}"
        proposals.append(proposal)
        if not charges:
            continue
        answer = value(i, proposal.arch)
        epochs = proposal.epochs or 6
        curve = np.full(epochs, answer, dtype=np.float32)
        curve.flags.writeable = False
        optimizer.tell(
            Trial(
                proposal.arch,
                answer,
                1.0,
                epochs,
                curve,
                "failed" if math.isnan(answer) else "complete" if epochs == 6 else "stopped",
                Metrics(dict.fromkeys(optimizer.metrics, cost(proposal.arch))),
            )
        )
    return proposals


def _made(spec: OptimizerSpec, seed: int, space: SearchSpace) -> Optimizer:
    return spec.make(
        space,
        np.random.default_rng(seed),
        fidelities=range(1, 7),
        scorer=MadeUpScorer(space),
        task=made_up_task() if spec.takes("task") else None,
    )


# ----------------------------------------------------------------------------------------------------------- the checks


def check_constructor(spec: OptimizerSpec) -> None:
    """The class takes (space, rng) and then only hyper-parameters with defaults, and keeps both."""
    parameters = list(inspect.signature(spec.factory).parameters.values())
    assert len(parameters) >= 2, f"{spec.label} must take (space, rng) first; it takes {[p.name for p in parameters]}"
    for p in parameters[2:]:
        optional = p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        assert optional, f"hyper-parameter {p.name!r} of {spec.label} needs a default"
    space, rng = NASBench201Space(), np.random.default_rng(0)
    optimizer = spec.make(space, rng)
    assert getattr(optimizer, "space", None) is space, (
        "call super().__init__(space, rng): self.space is not the space given"
    )
    assert getattr(optimizer, "rng", None) is rng, (
        "call super().__init__(space, rng): self.rng is not the generator given"
    )


def check_presets(spec: OptimizerSpec) -> None:
    """Every preset names parameters that the constructor takes."""
    for name, parameters in spec.factory.presets.items():
        try:
            spec.factory(NASBench201Space(), np.random.default_rng(0), **parameters)
        except Exception as error:
            raise AssertionError(f"preset {name!r} cannot be made: {type(error).__name__}: {error}") from error


def check_proposals(spec: OptimizerSpec) -> None:
    """Every proposal is a Proposal whose architecture is a plain tuple of ints of the space, through a long run."""
    for proposal in _play(spec, seed=1, to_the_end=True):
        arch = proposal.arch
        assert type(arch) is tuple and all(type(choice) is int for choice in arch), (
            f"an architecture must be a plain tuple of Python ints, not {arch!r}: use tuple(int(x) for x in ...)"
        )
        epochs = proposal.epochs
        assert epochs is None or (type(epochs) is int and epochs >= 1), (
            f"epochs must be None or an int from 1, not {epochs!r}"
        )


def check_any_space(spec: OptimizerSpec) -> None:
    """It works on another space (unless it names its `spaces`): unequal cardinalities, one choice only, a constraint."""
    if spec.factory.spaces is not None:
        return
    _play(spec, seed=1, space=_Constrained())


def check_same_seed_same_run(spec: OptimizerSpec) -> None:
    """The generator is the only source of chance, and it is used."""
    first = _play(spec, seed=1)
    state, plain_state = np.random.get_state(), random.getstate()  # noqa: NPY002

    def disturb() -> None:
        np.random.random(3)  # noqa: NPY002  global state, on purpose
        random.random()

    try:
        disturbed = _play(spec, seed=1, between=disturb)
    finally:
        np.random.set_state(state)  # noqa: NPY002
        random.setstate(plain_state)
    assert disturbed == first, (
        "two runs with the same seed differ: draw only from self.rng, not from `random`, `numpy.random` or a new generator"
    )


def check_seed_matters(spec: OptimizerSpec) -> None:
    """Another seed gives another run (unless the strategy is deterministic, which it must then declare)."""
    if spec.factory.deterministic:
        return
    runs = [_play(spec, seed=seed) for seed in range(4)]
    assert any(run != runs[0] for run in runs[1:]), (
        "four seeds gave one run: draw from self.rng, or set the class attribute deterministic = True"
    )


def check_order_independent(spec: OptimizerSpec) -> None:
    """Two optimizers in one process do not disturb each other: no state is kept on the class or in the module."""
    alone = _play(spec, seed=3, trials=120)
    _play(spec, seed=4, trials=47)
    assert _play(spec, seed=3, trials=120) == alone, (
        "a run changed because another ran before it: keep state on the instance, not on the class or module"
    )


def check_constant_objective(spec: OptimizerSpec) -> None:
    """Ties are broken reproducibly: every architecture is equally good."""
    if not spec.factory.charges_evaluations:
        return  # it is told nothing
    runs = [_play(spec, seed=5, trials=150, value=lambda i, arch: 0.5) for _ in range(2)]
    assert runs[0] == runs[1], (
        "with a constant objective two runs with the same seed differ: ties are broken by something unstable"
    )


def check_failed_trials(spec: OptimizerSpec) -> None:
    """NaN (a failed trial) now and then, at the start, or always, is survived; so is a metric that is not known."""
    if not spec.factory.charges_evaluations:
        return  # it is told nothing
    patterns: dict[str, Value] = {
        "every third trial fails": lambda i, arch: math.nan if i % 3 == 0 else _score(arch),
        "the first 20 trials fail": lambda i, arch: math.nan if i < 20 else _score(arch),
        "every trial fails": lambda i, arch: math.nan,
    }
    games: dict[str, dict[str, Any]] = {
        f"{name} (value is NaN, status 'failed')": {"value": value} for name, value in patterns.items()
    }
    if spec.make(NASBench201Space(), np.random.default_rng(0), fidelities=range(1, 7)).metrics:
        games["every second metric is NaN"] = {"cost": lambda arch: math.nan if sum(arch) % 2 else _cost(arch)}
        games["every metric is NaN"] = {"cost": lambda arch: math.nan}
    for name, game in games.items():
        try:
            runs = [_play(spec, seed=6, **game) for _ in range(2)]
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        assert runs[0] == runs[1], f"{name}: two runs with the same seed differ; NaN compares false with everything"


def check_failed_never_wins(spec: OptimizerSpec) -> None:
    """Where a fifth of the space fails (NaN), the search goes there no more than where that fifth has the worst accuracy.

    Shares of the second half of four runs, 520 trials; a search that lets NaN win ends up near 1, so the slack of 0.15 is
    far from both.
    """
    if not spec.factory.charges_evaluations:
        return  # it is told nothing

    def share(bad: float) -> float:
        late = []
        for seed in range(4):
            late += _play(spec, seed=seed, value=lambda i, arch: bad if arch[0] == 0 else _score(arch))[LONG // 2 :]
        return sum(p.arch[0] == 0 for p in late) / max(1, len(late))

    failing, worst = share(math.nan), share(0.0)
    assert failing <= worst + 0.15, (
        f"{failing:.0%} of the late proposals go where every trial fails ({worst:.0%} if those trials have the worst accuracy):"
        " `max` and comparisons go wrong with NaN, so count a failed trial as the worst"
    )


def check_failed_disturb_nothing(spec: OptimizerSpec) -> None:
    """Where every third trial fails (NaN), the search does no worse than where these trials have the worst accuracy.

    Mean accuracy of the second half of four runs; sorting a list with NaN in it costs 0.1, the slack is half of that.
    """
    if not spec.factory.charges_evaluations:
        return  # it is told nothing

    def quality(bad: float) -> float:
        late: list[Proposal] = []
        for seed in range(4):
            late += _play(spec, seed=seed, value=lambda i, arch: bad if i % 3 == 0 else _score(arch))[LONG // 2 :]
        return sum(_score(p.arch) for p in late) / max(1, len(late))

    failing, worst = quality(math.nan), quality(0.0)
    assert failing >= worst - 0.05, (
        f"late proposals reach {failing:.2f} where every third trial fails ({worst:.2f} if those trials have the worst accuracy):"
        " sorting and comparisons go wrong with NaN, so count a failed trial as the worst"
    )


def check_never_sees_the_future(spec: OptimizerSpec) -> None:
    """Proposals depend only on what was told so far: two objectives that agree for k trials give the same k + 1 proposals."""
    if not spec.factory.charges_evaluations:
        return  # it is told nothing
    for k in (1, 40, 130):

        def turned(i: int, arch: Architecture, k: int = k) -> float:
            return _score(arch) if i < k else 1.0 - _score(arch)

        one = _play(spec, seed=8, trials=k + 1)
        other = _play(spec, seed=8, trials=k + 1, value=turned)
        assert one == other, f"proposals up to {k} depend on a later answer"


def check_leaves_trial_alone(spec: OptimizerSpec) -> None:
    """`tell` does not change the trial, whose curve is read-only, and `ask` does not change the space."""
    space = NASBench201Space()
    before = (space.cardinalities, dict(space.__dict__))
    _play(spec, seed=9, trials=30, space=space)
    assert (space.cardinalities, dict(space.__dict__)) == before, "the optimizer changed the space it was given"


def check_other_process(spec: OptimizerSpec) -> None:
    """The same seed gives the same run in fresh processes with other string hashes."""
    here = [list(p.arch) for p in _play(spec, seed=10, trials=150)]
    target = f"{spec.factory.__module__}:{spec.factory.__qualname__}"
    if spec.factory.__module__ == "__main__" or not importable("optimizers", target, spec.factory):
        return  # defined in a notebook or a function; the other checks still hold it to its seed
    program = (
        "import json, pickle, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        "from nasharness.harness.registry import OptimizerSpec, resolve\n"
        "from nasharness.harness.testing import _play\n"
        "spec = OptimizerSpec(sys.argv[2], resolve('optimizers', sys.argv[2]), pickle.loads(bytes.fromhex(sys.argv[3])))\n"
        "print(json.dumps([list(p.arch) for p in _play(spec, seed=10, trials=150)]))\n"
    )
    try:  # a tuple stays a tuple
        parameters = pickle.dumps(dict(spec.parameters)).hex()
    except Exception:
        return  # a parameter that cannot travel
    arguments = [json.dumps(sys.path), target, parameters]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    try:
        answers = [worker.communicate(timeout=1800) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (out, err) in zip(workers, answers, strict=True):
        assert worker.returncode == 0, f"it cannot be run in a fresh process: {err.strip().splitlines()[-1:]}"
        assert json.loads(out.splitlines()[-1]) == here, (  # the optimizer may print, too
            "the same seed gives another run in another process: something iterates over a set, uses hash() of a"
            " string, or is kept on the class or module from an earlier run"
        )


def check_resumes(spec: OptimizerSpec) -> None:
    """A method that trains by itself and has a `state_dict` goes on from it as if it had never been interrupted."""
    if spec.factory.charges_evaluations or not hasattr(spec.factory, "state_dict"):
        return
    import io

    import torch

    space = NASBench201Space()
    whole, file = _made(spec, 12, space), io.BytesIO()
    whole.ask()
    torch.save(whole.state_dict(), file)  # type: ignore[attr-defined]
    file.seek(0)
    again = _made(spec, 12, space)
    again.load_state_dict(torch.load(file, weights_only=True))  # type: ignore[attr-defined]
    for optimizer in (whole, again):
        optimizer.ask()
    # The proposals alone would not tell: they rarely change in a single epoch.
    states = [_plain(optimizer.state_dict()) for optimizer in (whole, again)]  # type: ignore[attr-defined]
    assert states[0] == states[1], (
        "after state_dict and load_state_dict the search goes on in another way: what it depends on is not all in the state"
    )


def _plain(state: Any) -> Any:
    """A state with tensors and arrays as lists, and without what was measured by a clock."""
    if isinstance(state, dict):
        return {str(key): _plain(value) for key, value in state.items() if "seconds" not in str(key)}
    if isinstance(state, list | tuple):
        return [_plain(value) for value in state]
    return repr(state.tolist()) if hasattr(state, "tolist") else repr(state)


CHECKS: tuple[Check, ...] = (
    check_constructor,
    check_presets,
    check_proposals,
    check_any_space,
    check_same_seed_same_run,
    check_seed_matters,
    check_order_independent,
    check_constant_objective,
    check_failed_trials,
    check_failed_never_wins,
    check_failed_disturb_nothing,
    check_never_sees_the_future,
    check_leaves_trial_alone,
    check_other_process,
    check_resumes,
)


_NEED_THE_SAME_RUN = (
    check_order_independent,
    check_constant_objective,
    check_failed_trials,
    check_never_sees_the_future,
    check_other_process,
)
"""Checks that compare two runs: of an optimizer that is not reproducible they would only repeat that."""


def check_no_two_alike(names: Sequence[str] | None = None) -> None:
    """No two strategies of the registry run alike, beyond every warm-up: one would be the other under a second name."""
    seen: dict[str, str] = {}
    for name in names if names is not None else entry_points("optimizers"):
        spec = optimizer_spec(name)
        if not spec.factory.charges_evaluations:
            continue  # several supernets may well agree on the made-up images
        fingerprint = repr(_play(spec, seed=11))
        assert fingerprint not in seen, (
            f"{name} and {seen[fingerprint]} propose the same architectures in a run of {LONG} trials"
        )
        seen[fingerprint] = name


Stopping: TypeAlias = "type[Predictor | StoppingRule | Schedule] | StoppingSpec"
Checked: TypeAlias = "str | type[Optimizer] | OptimizerSpec | type[Proxy] | ProxySpec | Stopping"


def run_checks(checked: Checked) -> Iterator[CheckResult]:
    """Apply every check for what is given, one at a time, and give each outcome as it is known.

    Args:
        checked: an id, class or spec of an optimizer, of a proxy, or of a predictor, stopping rule or schedule. A name of
            several is the optimizer's first, then the proxy's.

    Raises:
        RegistryError: the id names nothing.
    """
    given: Any = checked
    group = _group(checked)
    if group == "proxies":
        from .proxy_testing import NEED_THE_SAME_SCORE, PROXY_CHECKS, check_same_seed_same_score

        yield from _apply(PROXY_CHECKS, proxy_spec(given), check_same_seed_same_score, NEED_THE_SAME_SCORE)
    elif group == "predictors":
        from .predictor_testing import NEED_THE_SAME_ANSWER, check_same_seed_same_answer, stopping_checks

        rule = stopping_spec(given)
        yield from _apply(stopping_checks(rule), rule, check_same_seed_same_answer, NEED_THE_SAME_ANSWER)
    else:
        yield from _apply(CHECKS, optimizer_spec(given), check_same_seed_same_run, _NEED_THE_SAME_RUN)


def _group(checked: object) -> Group:
    """What it is; an optimizer where that is not known. Torch is imported only where it may be a proxy."""
    if isinstance(checked, str):
        target = re.split(r"[@(]", checked.strip(), maxsplit=1)[0].strip()
        if ":" not in target:
            named = (group for group in GROUPS if group != "benchmarks" and target in entry_points(group))
            return next(named, "optimizers")
        if target.partition(":")[0] in ("optuna", "nevergrad"):
            return "optimizers"
        checked = resolve("optimizers", target)
    if not isinstance(checked, type):
        kinds: dict[type, Group] = {ProxySpec: "proxies", StoppingSpec: "predictors"}
        return kinds.get(type(checked), "optimizers")
    from ..optimizers.base import Optimizer
    from ..predictors.base import Predictor, Schedule, StoppingRule

    if issubclass(checked, Optimizer):
        return "optimizers"
    if issubclass(checked, Predictor | StoppingRule | Schedule):
        return "predictors"
    from ..proxies.base import Proxy

    return "proxies" if issubclass(checked, Proxy) else "optimizers"


def _apply(
    checks: Sequence[Callable[[Any], None]],
    spec: OptimizerSpec | ProxySpec | StoppingSpec,
    reproducibility: Callable[[Any], None],
    need_it: Sequence[Callable[[Any], None]],
) -> Iterator[CheckResult]:
    """The outcome of each check; `need_it` are skipped once the check of reproducibility has failed."""
    reproducible = True
    for check_function in checks:
        if not reproducible and check_function in need_it:
            yield CheckResult(check_function.__name__, None, skipped=True)
            continue
        problem: str | None = None
        try:
            check_function(spec)
        except AssertionError as error:
            problem = str(error)
        except Exception as error:
            frame = inspect.trace()[-1]
            problem = f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        reproducible &= problem is None or check_function is not reproducibility
        yield CheckResult(check_function.__name__, problem)


def check(checked: Checked) -> list[CheckResult]:
    """Hold an optimizer, a proxy or a learning-curve method to its conformance suite; returns the outcomes if all checks passed.

    Raises:
        CheckError: some failed; the message says which, and what to fix.
    """
    results = list(run_checks(checked))
    if failed := [r for r in results if r.problem is not None]:
        lines = "\n".join(f"  {r.name}: {r.problem}" for r in failed)
        raise CheckError(f"{len(failed)} of {len(results)} checks failed:\n{lines}")
    return results
