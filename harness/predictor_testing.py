"""The conformance suite of learning-curve methods: what predictors, stopping rules and schedules must keep.

    nh.check(MyPredictor)                   # raises CheckError with every failed check
    nasharness check my_module:MyRule

    @pytest.mark.parametrize("check", PREDICTOR_CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(stopping_spec("my_module:MyPredictor"))

A predictor is held to the checks for predictors, and the rule that is made of it to those for rules. Everything is tried on
made-up learning curves that rise to different heights, with noise.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..predictors.base import (
    Curves,
    CurvesError,
    Decision,
    Prediction,
    Predictor,
    PredictorRule,
    Schedule,
    StoppingRule,
    join,
)
from .registry import StoppingSpec, importable

StoppingCheck = Callable[[StoppingSpec], None]

TOGETHER = 1e-5
"""Difference between predicting a training alone and among others that is only rounding: a network in float32 adds up in another
order, while statistics over the rows make differences of another kind."""

_CARDINALITIES = (5, 5, 5, 5, 5, 5)

# ------------------------------------------------------------------------------------------------------- made-up curves


def made_up(n: int, max_epochs: int = 20, *, seed: int = 0, dataset: int = 0) -> Curves:
    """Complete curves that rise like a power law to different heights: the higher, the lower their training losses."""
    rng = np.random.default_rng([seed, n, max_epochs, dataset])
    end = rng.uniform(0.3, 0.9 - 0.1 * (dataset % 4), n)
    t = np.arange(1, max_epochs + 1)
    rise = end[:, None] - 0.8 * (end[:, None] - 0.1) * t ** -rng.uniform(0.5, 1.0, (n, 1))
    accuracy = np.clip(rise + rng.normal(0, 0.005, (n, max_epochs)), 0.0, 1.0)
    return Curves(
        accuracy=accuracy,
        max_epochs=max_epochs,
        arch=rng.integers(0, 5, (n, len(_CARDINALITIES))),
        cardinalities=_CARDINALITIES,
        seconds=np.cumsum(rng.uniform(1.0, 2.0, (n, 1)) * np.ones(max_epochs), axis=1),
        train_loss=2.3 * (1 - accuracy) + 0.05,
        dataset=np.full(n, dataset, dtype=np.int64),
        group=np.arange(n, dtype=np.int64),
    )


def _flat(n: int, height: float = 0.5, max_epochs: int = 20) -> Curves:
    curves = made_up(n, max_epochs)
    return replace(
        curves, accuracy=np.full_like(curves.accuracy, height), train_loss=np.full_like(curves.accuracy, 1.0)
    )


def _with_nan(curves: Curves, rows: Sequence[int], since: int) -> Curves:
    """These trainings diverge: NaN from an epoch (counted from 0) on."""
    accuracy = curves.accuracy.copy()
    loss = None if curves.train_loss is None else curves.train_loss.copy()
    for array in (accuracy, loss):
        if array is not None:
            array[list(rows), since:] = np.nan
    return replace(curves, accuracy=accuracy, train_loss=loss)


def _part_of(whole: Curves, epochs: int) -> Curves:
    """The first epochs as views of the whole arrays: what lies beyond them is there for whoever looks for it."""
    return replace(
        whole,
        accuracy=whole.accuracy[:, :epochs],
        seconds=whole.seconds[:, :epochs],
        train_loss=None if whole.train_loss is None else whole.train_loss[:, :epochs],
    )


def _poisoned(curves: Curves, epochs: int, how: str) -> Curves:
    """A copy whose values beyond `epochs` are NaN, or random numbers."""
    rng = np.random.default_rng(9)
    loss = curves.train_loss
    arrays: dict[str, Any] = {"accuracy": curves.accuracy, "seconds": curves.seconds}
    arrays |= {} if loss is None else {"train_loss": loss}
    copies = {name: array.copy() for name, array in arrays.items()}
    for array in copies.values():
        array[:, epochs:] = np.nan if how == "NaN" else rng.random(array[:, epochs:].shape)
    return replace(curves, **copies)


_ARRAYS = ("accuracy", "seconds", "train_loss", "arch", "dataset", "group")


def _bytes(curves: Curves) -> dict[str, bytes | None]:
    return {name: None if (a := getattr(curves, name)) is None else a.tobytes() for name in _ARRAYS}


# ------------------------------------------------------------------------------------------------------- trying them out


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _predictor(spec: StoppingSpec, seed: int = 0) -> Predictor:
    return cast(PredictorRule, spec.make(_rng(seed))).predictor


def _rule(spec: StoppingSpec, seed: int = 0) -> StoppingRule:
    return cast(StoppingRule, spec.make(_rng(seed)))


def _is(spec: StoppingSpec, kind: type) -> bool:
    return issubclass(spec.factory, kind)


def _size(spec: StoppingSpec) -> int:
    """Enough training curves."""
    return max(24, cast(type[Predictor], spec.factory).needs_curves + 2)


def _length(spec: StoppingSpec) -> int:
    """Long enough a training."""
    return max(20, 2 * cast(type[Predictor], spec.factory).min_epochs)


def _checks(spec: StoppingSpec) -> tuple[int, ...]:
    """Check points, of which the last two at least are late enough for the predictor."""
    length = _length(spec)
    return tuple(sorted({1, length // 4, length // 2, 3 * length // 4}))


def _asked(spec: StoppingSpec) -> list[int]:
    """The check points at which it can be asked."""
    return [m for m in _checks(spec) if m >= cast(type[Predictor], spec.factory).min_epochs]


def _learned(spec: StoppingSpec, *, seed: int = 0, curves: Curves | None = None) -> Predictor:
    """A predictor after `fit`."""
    predictor = _predictor(spec, seed)
    predictor.fit(made_up(_size(spec), _length(spec)) if curves is None else curves, _checks(spec))
    return predictor


def _numbers(prediction: Prediction) -> list[list[float]]:
    """All that a prediction says, comparable by `==`: NaN is a number of its own, and what is not ok says nothing."""
    ok = prediction.ok
    columns = [np.where(ok, column, np.nan) for column in (prediction.mean, prediction.std, prediction.score)]
    return [np.nan_to_num(c, nan=-1e300, posinf=1e299, neginf=-1e299).tolist() for c in (*columns, ok.astype(float))]


def _all_predictions(spec: StoppingSpec, *, seed: int = 0) -> list[Any]:
    """What a fresh predictor says of fresh trainings at every check point."""
    predictor = _learned(spec, seed=seed)
    test = made_up(6, _length(spec), seed=1)
    return [_numbers(predictor.predict(test.observed(m))) for m in _asked(spec)]


def search(rule: StoppingRule, curves: Curves) -> list[tuple[int, float, bool]]:
    """Train the architectures one after the other, as far as the rule lets them.

    Returns:
        Of each training the epochs, the last probability of being better (NaN if there was none), and whether it was stopped.
    """
    best: Curves | None = None
    log = []
    for i in range(len(curves)):
        row = curves.rows([i])
        epochs, p, stopped = curves.max_epochs, np.nan, False
        for m in rule.checks(curves.max_epochs):
            decision = rule.decide(row.observed(m), best)
            p = decision.p_better
            if decision.stop:
                epochs, stopped = m, True
                break
        finished = row.observed(epochs)
        rule.tell(finished)
        if finished.complete and (best is None or finished.final[0] > best.final[0]):
            best = finished if np.isfinite(finished.final[0]) else best
        log.append((epochs, p, stopped))
    return log


class ListTrainer:
    """A `Trainer` of given complete curves that notes what it is asked for.

    Args:
        curves: complete.

    Attributes:
        log: (which, epochs) of each call.
    """

    def __init__(self, curves: Curves) -> None:
        self.n = len(curves)
        self.max_epochs = curves.max_epochs
        self.curves = curves
        self.log: list[tuple[int, int]] = []
        self._reached = np.zeros(self.n, dtype=np.int64)

    def train(self, which: int, epochs: int) -> Curves:
        assert int(which) == which and 0 <= which < self.n, f"train got the architecture {which!r} of {self.n}"
        assert int(epochs) == epochs and 1 <= epochs <= self.max_epochs, (
            f"train got {epochs!r} epochs, of trainings of {self.max_epochs}"
        )
        self.log.append((int(which), int(epochs)))
        self._reached[which] = max(self._reached[which], epochs)
        return self.curves.rows([which]).observed(int(self._reached[which]))


def _plan(spec: StoppingSpec, curves: Curves, seed: int = 0) -> list[tuple[int, int]]:
    """What a fresh schedule trains."""
    trainer = ListTrainer(curves)
    cast(Schedule, spec.make(_rng(seed))).search(trainer)
    return trainer.log


def _behaviour(spec: StoppingSpec, seed: int = 0) -> list[Any]:
    """All that a fresh predictor, rule or schedule does with fixed curves, as lists of numbers."""
    if _is(spec, Schedule):
        return [list(call) for call in _plan(spec, made_up(30), seed)]
    told: list[Any] = []
    if _is(spec, Predictor):
        told = _all_predictions(spec, seed=seed)
    return [*told, *_searched(spec, seed)]


def _searched(spec: StoppingSpec, seed: int = 0) -> list[list[float]]:
    rule = _rule(spec, seed)
    n = rule.needs_curves + 8
    log = search(rule, made_up(n, _length(spec) if _is(spec, Predictor) else 20, seed=2))
    return [[epochs, -1.0 if np.isnan(p) else p, stopped] for epochs, p, stopped in log]


@contextmanager
def _nothing_global(*, importing: bool = False) -> Iterator[None]:
    """Check that everything global that a method might touch is as it was; what imports change may change while `importing`."""
    torch: Any = sys.modules.get("torch")  # not imported for this

    def state() -> dict[str, Any]:
        found: dict[str, Any] = {"NumPy's error handling": np.geterr()}
        if not importing:
            found |= {
                "NumPy's global generator": repr(np.random.get_state()),  # noqa: NPY002
                "Python's global generator": random.getstate(),
                "the warning filters": list(warnings.filters),
                "the environment": dict(os.environ),
            }
        if torch is not None:
            found["torch's global generator"] = torch.get_rng_state().tolist()
            found["torch's number of threads"] = torch.get_num_threads()
            found["torch's default type"] = torch.get_default_dtype()
            found["torch's gradient mode"] = torch.is_grad_enabled()
        return found

    before = state()
    yield
    after = state()
    for name, value in before.items():
        assert after[name] == value, f"{name} changed while it was at work: leave what is global as it was"


# ------------------------------------------------------------------------------------------------- checks for all of them


def check_constructor(spec: StoppingSpec) -> None:
    """The class takes rng and then only hyper-parameters with defaults, and keeps rng."""
    parameters = list(inspect.signature(spec.factory).parameters.values())
    assert parameters and parameters[0].name == "rng", (
        f"{spec.label} must take rng first; it takes {[p.name for p in parameters]}"
    )
    for p in parameters[1:]:
        optional = p.default is not p.empty or p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        assert optional, f"hyper-parameter {p.name!r} of {spec.label} needs a default"
    rng = _rng()
    made: Any = spec.make(rng)
    made = made.predictor if _is(spec, Predictor) else made
    assert getattr(made, "rng", None) is rng, "call super().__init__(rng): self.rng is not the generator given"


def check_presets(spec: StoppingSpec) -> None:
    """Every preset names parameters that the constructor takes."""
    for name, parameters in spec.factory.presets.items():
        try:
            StoppingSpec(name, spec.factory, parameters).make(_rng())
        except ImportError:
            pass  # it may need a package that is not installed
        except Exception as error:
            raise AssertionError(f"preset {name!r} cannot be made: {type(error).__name__}: {error}") from error


def check_declarations(spec: StoppingSpec) -> None:
    """What it declares of itself is of the right kind."""
    if _is(spec, Predictor):
        delta = cast(type[Predictor], spec.factory).delta
        assert 0 <= delta < 1, f"delta is a probability in [0, 1), not {delta!r}"
    made: Any = spec.make(_rng())
    made = made.predictor if _is(spec, Predictor) else made
    uses = made.uses
    known = {"accuracy", "train_loss", "arch", "meta"}
    assert isinstance(uses, frozenset) and uses <= known, (
        f"uses must be a frozenset of {', '.join(sorted(known))}, not {uses!r}"
    )
    if not _is(spec, Schedule):
        needs = made.needs_curves
        assert isinstance(needs, int) and needs >= 0, f"needs_curves must be a whole number from 0, not {needs!r}"
    if _is(spec, Predictor):
        assert isinstance(made.min_epochs, int) and made.min_epochs >= 1, (
            f"min_epochs must be a whole number from 1, not {made.min_epochs!r}"
        )


def check_same_seed_same_answer(spec: StoppingSpec) -> None:
    """The generator is the only source of chance, and nothing global is drawn from or changed."""
    with _nothing_global(importing=True):
        first = _behaviour(spec)
    saved = np.random.get_state(), random.getstate()  # noqa: NPY002
    torch: Any = sys.modules.get("torch")
    saved_torch = None if torch is None else torch.get_rng_state()
    try:
        np.random.random(3)  # noqa: NPY002  global state, on purpose
        random.random()
        if torch is not None:
            torch.rand(3)
        with _nothing_global():
            second = _behaviour(spec)
    finally:
        np.random.set_state(saved[0])  # noqa: NPY002
        random.setstate(saved[1])
        if torch is not None:
            torch.set_rng_state(saved_torch)
    assert first == second, (
        "the same seed gave two answers: draw only from self.rng (for torch: from a torch.Generator that is seeded from it)"
    )


def check_order_independent(spec: StoppingSpec) -> None:
    """Two instances in one process do not disturb each other: no state is kept on the class or in the module."""
    alone = _behaviour(spec, seed=3)
    _behaviour(spec, seed=4)
    assert _behaviour(spec, seed=3) == alone, (
        "an answer changed because another instance was at work before: keep state on the instance, not on the class or module"
    )


def check_other_process(spec: StoppingSpec) -> None:
    """The same seed gives the same answer in a fresh process with other string hashes."""
    target = f"{spec.factory.__module__}:{spec.factory.__qualname__}"
    if spec.factory.__module__ == "__main__" or not importable("predictors", target, spec.factory):
        return  # defined in a notebook or a function; the other checks still hold it to its seed
    program = (
        "import json, pickle, sys; sys.path[:] = json.loads(sys.argv[1])\n"
        "from nasharness.harness.registry import StoppingSpec, resolve\n"
        "from nasharness.harness.predictor_testing import _behaviour\n"
        "spec = StoppingSpec(sys.argv[2], resolve('predictors', sys.argv[2]), pickle.loads(bytes.fromhex(sys.argv[3])))\n"
        "print(json.dumps(_behaviour(spec)))\n"
    )
    try:
        parameters = pickle.dumps(dict(spec.parameters)).hex()
    except Exception:
        return  # a parameter that cannot travel
    here = json.loads(json.dumps(_behaviour(spec)))
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(sys.path), target, parameters],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, f"it cannot be run in a fresh process: {done.stderr.strip().splitlines()[-1:]}"
    assert json.loads(done.stdout.splitlines()[-1]) == here, (  # the method may print, too
        "the same seed gives another answer in another process: something iterates over a set, uses hash() of a string, or is"
        " kept on the class or module from earlier"
    )


# ------------------------------------------------------------------------------------------------- checks for predictors


def check_predictions(spec: StoppingSpec) -> None:
    """Every training gets a score, and either a mean with a standard deviation or neither, from the first epoch it can."""
    predictor = _learned(spec)
    test = made_up(7, _length(spec), seed=1)
    for m in _asked(spec):
        for which in (range(7), [3]):
            n = len(which)
            given = predictor.predict(test.rows(which).observed(m))
            where = f"of {n} trainings after {m} epochs"
            assert isinstance(given, Prediction), f"predict must return a Prediction, not {given!r}"
            for name in ("mean", "std", "score", "ok"):
                kind = bool if name == "ok" else np.float64
                array = getattr(given, name)
                assert isinstance(array, np.ndarray) and array.shape == (n,) and array.dtype == kind, (
                    f"{name} {where} must be an array of the type {np.dtype(kind)} and the shape {(n,)}, not {array!r}"
                )
            assert np.isfinite(given.score[given.ok]).all(), f"a score {where} that is ok is not finite: {given.score}"
            normal = ~np.isnan(given.std)
            assert (given.std[normal & given.ok] >= 0).all(), f"a standard deviation {where} is negative: {given.std}"
            assert np.isfinite(given.mean[normal & given.ok]).all(), (
                f"of a normal distribution {where} the mean is not finite: {given.mean}"
            )
            assert given.ok.any(), f"nothing could be said {where}, which are quite ordinary"


def check_higher_is_better(spec: StoppingSpec) -> None:
    """Where good trainings are ahead all along, scores do not rank them the wrong way round."""
    predictor = _learned(spec)
    test = made_up(30, _length(spec), seed=1)
    for m in _asked(spec)[-2:]:
        given = predictor.predict(test.observed(m))
        s, y = given.score[given.ok], test.final[given.ok]
        if len(s) > 2 and np.ptp(s) > 0:
            agreement = float(np.corrcoef(np.argsort(np.argsort(s)), np.argsort(np.argsort(y)))[0, 1])
            assert agreement > -0.5, (
                f"after {m} epochs the rank correlation of scores and final accuracies is {agreement:.2f}: higher scores must be"
                " better"
            )


def check_future(spec: StoppingSpec) -> None:
    """What lies beyond the observed epochs makes no difference, be it NaN or random."""
    predictor = _learned(spec)
    test = made_up(5, _length(spec), seed=1)
    for m in _asked(spec):
        plain = _numbers(predictor.predict(test.observed(m)))
        for how in ("NaN", "random"):
            poisoned = _poisoned(test, m, how)
            for name, given in {"a copy": poisoned.observed(m), "a view": _part_of(poisoned, m)}.items():
                assert _numbers(predictor.predict(given)) == plain, (
                    f"after {m} epochs the prediction depends on later ones (here {how}, as {name}): look at"
                    " observed.accuracy and at nothing that it is part of"
                )


def check_stateless(spec: StoppingSpec) -> None:
    """`predict` gives the same answer again, also after it has been asked about other lengths and trainings."""
    predictor = _learned(spec)
    test = made_up(6, _length(spec), seed=1)
    asked = _asked(spec)
    first = _numbers(predictor.predict(test.observed(asked[0])))
    for m in asked[::-1]:
        predictor.predict(made_up(4, _length(spec), seed=7).observed(m))
        predictor.predict(test.observed(m))
    assert _numbers(predictor.predict(test.observed(asked[0]))) == first, (
        "a prediction changed with what was predicted before: predict must not remember, and must not draw from self.rng (draw"
        " in __init__ or learn)"
    )


def check_row_by_row(spec: StoppingSpec) -> None:
    """Each training is predicted by itself: alone, in company and in another order the answer is the same."""
    predictor = _learned(spec)
    test = _with_nan(made_up(6, _length(spec), seed=1), [4], 0)
    for m in _asked(spec):
        together = np.array(_numbers(predictor.predict(test.observed(m))))
        alone = np.array([_numbers(predictor.predict(test.rows([i]).observed(m))) for i in range(6)])[:, :, 0].T
        order = [3, 5, 0, 2, 4, 1]
        shuffled = np.array(_numbers(predictor.predict(test.rows(order).observed(m))))
        for name, other, reference in (("alone", alone, together), ("in another order", shuffled, together[:, order])):
            difference = np.abs(other - reference).max()
            assert difference <= TOGETHER, (
                f"after {m} epochs a training predicted {name} differs by {difference:.1e}: predict every row by itself, without"
                " statistics over the rows"
            )


def check_leaves_curves_alone(spec: StoppingSpec) -> None:
    """What it is given stays as it is: the curves of `fit`, the observed ones, and the incumbent."""
    predictor = _predictor(spec)
    train, meta = made_up(_size(spec), _length(spec)), made_up(_size(spec), _length(spec), seed=5, dataset=1)
    before = _bytes(train), _bytes(meta)
    predictor.fit(train, _checks(spec), meta)
    for name, now, then in (("curves", _bytes(train), before[0]), ("meta", _bytes(meta), before[1])):
        for array in _ARRAYS:
            assert now[array] == then[array], f"fit changed {name}.{array}: work on a copy"
    test, best = made_up(5, _length(spec), seed=1), made_up(1, _length(spec), seed=6)
    for m in _asked(spec):
        observed = test.observed(m)
        then_observed, then_best = _bytes(observed), _bytes(best)
        predictor.p_better(observed, best)
        for array in _ARRAYS:
            assert _bytes(observed)[array] == then_observed[array], f"predict changed observed.{array}: work on a copy"
            assert _bytes(best)[array] == then_best[array], f"predict changed incumbent.{array}: work on a copy"


def check_p_better(spec: StoppingSpec) -> None:
    """The probability of being better is in [0, 1], or NaN where nothing can be said, and falls with a higher incumbent."""
    predictor = _learned(spec)
    test = made_up(12, _length(spec), seed=1)
    order = np.argsort(test.final)
    for m in _asked(spec):
        for i in (order[0], order[len(order) // 2], order[-1]):
            p = np.asarray(predictor.p_better(test.observed(m), test.rows([i])))
            assert p.shape == (12,), f"p_better gave the shape {p.shape} for 12 trainings"
            bad = ~((p >= 0) & (p <= 1)) & ~np.isnan(p)
            assert not bad.any(), f"after {m} epochs p_better gave {p[bad]}: a probability is in [0, 1]"


def check_hard_curves(spec: StoppingSpec) -> None:
    """It survives curves that are flat, that diverge (NaN), and as few as it says it needs, and says so of fewer."""
    length, size = _length(spec), _size(spec)
    needs = cast(type[Predictor], spec.factory).needs_curves
    usual = made_up(size, length)
    training = {
        "ordinary curves": usual,
        "flat curves that are all alike": _flat(size, max_epochs=length),
        "flat curves of accuracy 1": _flat(size, 1.0, max_epochs=length),
        "curves of which three diverge": join([usual, _with_nan(made_up(3, length, seed=4), [0, 1, 2], length // 2)]),
        "curves of which three diverge in the first epoch": join(
            [usual, _with_nan(made_up(3, length, seed=4), [0, 1, 2], 0)]
        ),
        f"{max(2, needs)} curves": made_up(max(2, needs), length),
    }
    if needs == 0:
        training["no curves"] = usual.rows(range(0))
    mixed = made_up(4, length, seed=1)
    test = {
        "ordinary curves": mixed,
        "flat curves": _flat(3, max_epochs=length),
        "curves at 0": _flat(2, 0.0, max_epochs=length),
        "curves of which one has diverged": _with_nan(mixed, [2], 0),
        "curves that have all diverged": _with_nan(mixed, [0, 1, 2, 3], 0),
    }
    for name, curves in training.items():
        where = f"fit on {name}"
        try:
            predictor = _predictor(spec)
            predictor.fit(curves, _checks(spec))
            for other, observed in test.items():
                for m in _asked(spec):
                    where = f"{other} after {m} epochs, fitted on {name}"
                    p = predictor.p_better(observed.observed(m), mixed.rows([0]))
                    assert not (((p < 0) | (p > 1)) & ~np.isnan(p)).any(), f"p_better is {p}"
                    if "accuracy" in predictor.uses:
                        diverged = np.isnan(observed.accuracy[:, 0])
                        ok = predictor.predict(observed.observed(m)).ok
                        assert not ok[diverged].any(), "a training that has diverged must not be ok"
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
    if needs:
        try:
            _predictor(spec).fit(made_up(needs - 1, length) if needs > 1 else usual.rows(range(0)), _checks(spec))
        except CurvesError:
            pass
        else:
            raise AssertionError(
                f"fit took {needs - 1} curves where needs_curves is {needs}: do not override fit but learn, or raise CurvesError"
            )
    try:
        _predictor(spec).fit(usual.observed(length - 1), _checks(spec))
    except CurvesError:
        pass
    else:
        raise AssertionError(
            "fit took curves that are not complete: do not override fit but learn, or raise CurvesError"
        )


def check_meta(spec: StoppingSpec) -> None:
    """With the curves of other datasets it works, too, and without any of the task's where it says so by `uses`."""
    length, size = _length(spec), _size(spec)
    meta = join([made_up(size, length, seed=5 + d, dataset=d) for d in (1, 2)])
    test = made_up(4, length, seed=1)
    given = {"beside the task's": made_up(size, length)}
    if "meta" in _predictor(spec).uses:
        given["in place of the task's"] = test.rows([])
    for name, curves in given.items():
        predictor = _predictor(spec)
        try:
            predictor.fit(curves, _checks(spec), meta)
            ok = [predictor.predict(test.observed(m)).ok for m in _asked(spec)]
        except Exception as error:
            raise AssertionError(f"curves of other datasets {name}: {type(error).__name__}: {error}") from error
        assert all(each.any() for each in ok), (
            f"curves of other datasets {name}: nothing could be said of ordinary curves"
        )


def check_uses(spec: StoppingSpec) -> None:
    """What it does not declare by `uses` makes no difference."""
    uses = _predictor(spec).uses
    train, test = made_up(_size(spec), _length(spec)), made_up(6, _length(spec), seed=1)

    def scores(change: Callable[[Curves], Curves]) -> list[Any]:
        predictor = _learned(spec, curves=change(train))
        return [_numbers(predictor.predict(change(test).observed(m))) for m in _asked(spec)[-2:]]

    plain = scores(lambda curves: curves)
    others: dict[str, Callable[[Curves], Curves]] = {
        "train_loss": lambda curves: replace(curves, train_loss=None),
        "arch": lambda curves: replace(curves, arch=(curves.arch * 3 + 1) % 5),
        "accuracy": lambda curves: replace(
            curves, accuracy=np.concatenate((curves.accuracy[:, :-1] ** 2, curves.accuracy[:, -1:]), axis=1)
        ),
    }
    for name, change in others.items():
        if name not in uses:
            try:
                same = scores(change) == plain
            except Exception as error:
                raise AssertionError(
                    f"it does not work with another or no {name}, without naming it in `uses`: {type(error).__name__}: {error}"
                ) from error
            assert same, f"another {name} changed the predictions: name it in `uses`"


# ------------------------------------------------------------------------------------------------------ checks for rules


def check_check_points(spec: StoppingSpec) -> None:
    """Check points are whole epochs below the full training, ascending, of trainings of any length."""
    for length in (1, 2, 3, 6, 12, 20, 51, 200):
        points = _rule(spec).checks(length)
        assert isinstance(points, tuple) and all(type(m) is int for m in points), (
            f"checks({length}) must be a tuple of ints, not {points!r}"
        )
        assert list(points) == sorted({m for m in points if 0 < m < length}), (
            f"checks({length}) gave {points}: they must ascend within 1..{length - 1}"
        )
        assert points or length <= 2, f"checks({length}) gave none: it could never stop a training"


def _warm(spec: StoppingSpec) -> tuple[StoppingRule, Curves, int]:
    """A rule that has seen completed and stopped trainings, the best of them, and the length of trainings."""
    rule = _rule(spec)
    length = _length(spec) if _is(spec, Predictor) else 20
    known = made_up(rule.needs_curves + 12, length, seed=2)
    for i in range(len(known)):
        rule.tell(known.rows([i]))
    part = made_up(3, length, seed=3)
    rule.tell(part.rows([0]).observed(length // 2))
    rule.tell(_with_nan(part, [1], length // 2).rows([1]).observed(length // 2 + 1))
    rule.tell(_with_nan(part, [2], length // 2).rows([2]))
    return rule, known.rows([int(np.argmax(known.final))]), length


def _ask(rule: StoppingRule, observed: Curves, best: Curves | None) -> Decision:
    decision = rule.decide(observed, best)
    assert isinstance(decision, Decision), f"decide must return a Decision, not {decision!r}"
    assert type(decision.stop) is bool, f"stop must be a bool, not {decision.stop!r}: use bool(...)"
    p = decision.p_better
    assert isinstance(p, float) and (np.isnan(p) or 0 <= p <= 1), (
        f"p_better must be a float in [0, 1] or NaN, not {p!r}"
    )
    return decision


def check_goes_on(spec: StoppingSpec) -> None:
    """A training goes on where there is no incumbent, and where it has already reached the incumbent's final value."""
    poor = _flat(1, 0.05, max_epochs=_length(spec) if _is(spec, Predictor) else 20)
    for name, warm in (("a fresh rule", False), ("a rule that has seen trainings", True)):
        rule, best, length = _warm(spec)
        rule = rule if warm else _rule(spec)
        for m in rule.checks(length):
            assert not _ask(rule, poor.observed(m), None).stop, (
                f"{name} stopped a training after {m} epochs where there is no incumbent: begin decide with must_go_on"
            )
        sunk = replace(poor, accuracy=poor.accuracy.copy())
        sunk.accuracy[0, 0] = best.final[0]
        for height in (sunk, _flat(1, float(best.final[0]), max_epochs=length)):
            for m in rule.checks(length):
                assert not _ask(rule, height.observed(m), best).stop, (
                    f"{name} stopped a training after {m} epochs that has already reached the incumbent's final value: begin"
                    " decide with must_go_on"
                )


def check_stops_diverged(spec: StoppingSpec) -> None:
    """A training whose accuracy is NaN is stopped, with an incumbent and without."""
    for warm in (False, True):
        rule, best, length = _warm(spec)
        rule = rule if warm else _rule(spec)
        nothing = _with_nan(made_up(1, length, seed=1), [0], 0)
        for m in rule.checks(length):
            for incumbent in (None, best):
                assert _ask(rule, nothing.observed(m), incumbent).stop, (
                    f"a training that has diverged (NaN) went on after {m} epochs: begin decide with must_go_on"
                )


def check_failed_fit(spec: StoppingSpec) -> None:
    """Where its predictor can say nothing, a training goes on; so it does where that has seen too few trainings."""
    rule, best, length = _warm(spec)
    predictor: Any = getattr(rule, "predictor", None)
    if predictor is None:
        return
    poor = _flat(1, 0.05, max_epochs=length)
    fresh = _rule(spec)
    for m in fresh.checks(length):
        if fresh.needs_curves:
            assert not _ask(fresh, poor.observed(m), best).stop, (
                f"it stopped a training after {m} epochs, before {fresh.needs_curves} others were completed"
            )
    predictor.predict = lambda observed: Prediction.of_score(np.full(len(observed), np.nan))
    for m in rule.checks(length):
        assert not _ask(rule, poor.observed(m), best).stop, (
            f"it stopped a training after {m} epochs of which the predictor could say nothing"
        )


def check_rule_future(spec: StoppingSpec) -> None:
    """A decision does not depend on what lies beyond the observed epochs, be it NaN or random."""
    length = _length(spec) if _is(spec, Predictor) else 20
    test = made_up(6, length, seed=1)
    points = _rule(spec).checks(length)

    def decisions(change: Callable[[Curves, int], Curves]) -> list[tuple[bool, str]]:
        rule, best, _ = _warm(spec)
        answers = [_ask(rule, change(test.rows([i]), m), best) for i in range(len(test)) for m in points]
        return [(answer.stop, repr(answer.p_better)) for answer in answers]

    plain = decisions(lambda row, m: row.observed(m))
    for how in ("NaN", "random"):
        for name, other in {
            "a copy": decisions(lambda row, m, how=how: _poisoned(row, m, how).observed(m)),  # type: ignore[misc]
            "a view": decisions(lambda row, m, how=how: _part_of(_poisoned(row, m, how), m)),  # type: ignore[misc]
        }.items():
            assert other == plain, (
                f"decisions depend on epochs that were not observed (here {how}, as {name}): look at observed.accuracy and at"
                " nothing that it is part of"
            )


def check_rule_leaves_curves_alone(spec: StoppingSpec) -> None:
    """`decide` and `tell` change neither the training, nor the incumbent."""
    rule, best, length = _warm(spec)
    test = made_up(4, length, seed=1)
    for i in range(len(test)):
        for m in rule.checks(length):
            row = test.rows([i]).observed(m)
            before = _bytes(row), _bytes(best)
            _ask(rule, row, best)
            rule.tell(row)
            for array in _ARRAYS:
                assert _bytes(row)[array] == before[0][array], f"the rule changed observed.{array}: work on a copy"
                assert _bytes(best)[array] == before[1][array], f"the rule changed best.{array}: work on a copy"


def check_survives_searches(spec: StoppingSpec) -> None:
    """It gets through searches of flat curves, of trainings that diverge now and then or always, and of short ones."""
    rule = _rule(spec)
    n = rule.needs_curves + 8
    length = _length(spec) if _is(spec, Predictor) else 20
    usual = made_up(n, length)
    for name, curves in {
        "flat curves": _flat(n, max_epochs=length),
        "every third training diverges at once": _with_nan(usual, range(0, n, 3), 0),
        "every third training diverges half-way": _with_nan(usual, range(0, n, 3), length // 2),
        "every training diverges": _with_nan(usual, range(n), 1),
        "trainings of 3 epochs": made_up(n, 3),
        "trainings of 1 epoch": made_up(n, 1),
    }.items():
        try:
            log = search(_rule(spec), curves)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        if "every training" not in name:
            assert any(epochs == curves.max_epochs and not stopped for epochs, _, stopped in log), (
                f"{name}: no training was completed"
            )


# -------------------------------------------------------------------------------------------------- checks for schedules


def check_trains_in_full(spec: StoppingSpec) -> None:
    """Lists and trainings of any length: every call is in range, and one architecture at least is trained in full."""
    for n in (1, 2, 3, 10, 100):
        for length in (1, 2, 6, 20, 81):
            done = _plan(spec, made_up(n, length))
            assert any(epochs == length for _, epochs in done), (
                f"of {n} architectures and trainings of {length} epochs none was trained in full"
            )


def check_schedule_future(spec: StoppingSpec) -> None:
    """What it trains depends only on what it has seen: curves that differ later give the same plan until then."""
    curves = made_up(40)
    plain = _plan(spec, curves)
    for m in range(1, curves.max_epochs):
        until = next((k for k, (_, epochs) in enumerate(plain) if epochs > m), len(plain))
        # Up to and with the first call that goes beyond m.
        other = _plan(spec, _poisoned(curves, m, "random"))
        assert other[: until + 1] == plain[: until + 1], (
            f"what it trains depends on accuracies after epoch {m} that it had not seen: use what train returns and nothing else"
        )


def check_schedule_hard_curves(spec: StoppingSpec) -> None:
    """It gets through flat curves and trainings that diverge, and prefers those that do not."""
    usual = made_up(40)
    for name, curves in {
        "flat curves": _flat(40),
        "every second training diverges at once": _with_nan(usual, range(0, 40, 2), 0),
        "every training diverges": _with_nan(usual, range(40), 0),
    }.items():
        try:
            done = _plan(spec, curves)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        full = {which for which, epochs in done if epochs == curves.max_epochs}
        assert full, f"{name}: none was trained in full"
        if "second" in name:
            assert any(which % 2 for which in full), f"{name}: only such ones were trained in full; NaN must rank last"


_ALL: tuple[StoppingCheck, ...] = (check_constructor, check_presets, check_declarations, check_same_seed_same_answer)
_LAST: tuple[StoppingCheck, ...] = (check_order_independent, check_other_process)

RULE_CHECKS: tuple[StoppingCheck, ...] = (
    *_ALL,
    check_check_points,
    check_goes_on,
    check_stops_diverged,
    check_failed_fit,
    check_rule_future,
    check_rule_leaves_curves_alone,
    check_survives_searches,
    *_LAST,
)
PREDICTOR_CHECKS: tuple[StoppingCheck, ...] = (
    *_ALL,
    check_predictions,
    check_higher_is_better,
    check_future,
    check_stateless,
    check_row_by_row,
    check_leaves_curves_alone,
    check_p_better,
    check_hard_curves,
    check_meta,
    check_uses,
    *(c for c in RULE_CHECKS if c not in _ALL and c not in _LAST),
    *_LAST,
)
SCHEDULE_CHECKS: tuple[StoppingCheck, ...] = (
    *_ALL,
    check_trains_in_full,
    check_schedule_future,
    check_schedule_hard_curves,
    *_LAST,
)

NEED_THE_SAME_ANSWER: tuple[StoppingCheck, ...] = (
    check_future,
    check_uses,
    check_rule_future,
    check_schedule_future,
    check_order_independent,
    check_other_process,
)
"""Checks that compare two answers: of a method that is not reproducible they would only repeat that."""


def stopping_checks(spec: StoppingSpec) -> tuple[StoppingCheck, ...]:
    """The checks for what a spec names."""
    return PREDICTOR_CHECKS if _is(spec, Predictor) else SCHEDULE_CHECKS if _is(spec, Schedule) else RULE_CHECKS
