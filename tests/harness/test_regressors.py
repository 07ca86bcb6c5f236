"""Regressors on architectures: sets without leaks, baselines by hand, the strategies' regressors as they are."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

import nasharness as nh
from nasharness.benchmarks.base import Info
from nasharness.benchmarks.spaces.base import SearchSpace
from nasharness.benchmarks.spaces.nasbench201 import NASBench201Space
from nasharness.benchmarks.table import TableBenchmark
from nasharness.harness.core import Trial
from nasharness.harness.curves import groups
from nasharness.harness.registry import RegistryError, optimizer_spec
from nasharness.harness.regressors import (
    DEFAULT,
    Mean,
    Nearest,
    OneHotRidge,
    _agreement,
    _levelled,
    _listed,
    _of_different_classes,
    compare_regressors,
    draw_task,
    regressor_spec,
)
from nasharness.optimizers.bananas import MLPEnsemble
from nasharness.optimizers.nao import AutoEncoder

BASELINES = ("mean", "one_hot_ridge", "nearest")
INSIDE = ("bananas", "gp_bo", "neural_predictor", "pnas", "nao")


def rng(seed=0):
    return np.random.default_rng(seed)


class Box(SearchSpace):
    name = "box"
    cardinalities = (3, 4, 3, 2, 3)


def box(values, test=None):
    """A benchmark of 216 architectures, each a class of its own with one training run of one epoch."""
    n = math.prod(Box.cardinalities)
    final = np.asarray(values, dtype=np.float32).reshape(n, 1, 1)
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
    columns = {name: final.copy() for name in names}
    ends = {name: final[..., 0].copy() for name in ("test_loss", "test_accuracy")}
    if test is not None:
        ends["test_accuracy"] = np.asarray(test, dtype=np.float32).reshape(n, 1)
    counts = {name: np.arange(1, n + 1) for name in ("params", "flops")}
    every = {**columns, **ends, **counts, "class_of": np.arange(n, dtype=np.int16)}
    return TableBenchmark("box-v1", Box(), every, Info("box-v1", "made up", "none", "", "v1: made for tests"))


def linear(seed=0):
    """Accuracies that are sums of a weight per choice, between 0.1 and 0.9."""
    archs = np.array(list(Box()))
    sums = sum(rng(seed + d).random(n)[archs[:, d]] for d, n in enumerate(Box.cardinalities))
    return 0.1 + 0.8 * (sums - sums.min()) / np.ptp(sums)


# ----------------------------------------------------------------------------------------------------------- baselines


def test_ridge_recovers_a_linear_benchmark():
    """Without noise the weakest penalty is chosen, and the order of unseen architectures is exactly right."""
    study = compare_regressors("one_hot_ridge", box(linear()), sizes=(60, 120), repetitions=2, n_test=90)
    rows = {(row.regressor, row.n_train): row for row in study.summary().rows}
    for size in (60, 120):
        assert rows["one_hot_ridge", size].tau.value == 1.0
        assert rows["one_hot_ridge", size].spearman.value == pytest.approx(1.0)
        assert rows["one_hot_ridge", size].precision_top.value == 1.0
        assert rows["nearest", size].tau.value < 0.9


def test_ridge_by_hand():
    """Two choices, two points a side: the slope along the centred encoding shrinks by s^2 / (s^2 + a)."""

    class Two(SearchSpace):
        name = "two"
        cardinalities = (2,)

    ridge = OneHotRidge(Two(), rng(), strength=2.0)
    ridge.fit([(0,), (0,), (1,), (1,)], np.array([0.1, 0.3, 0.5, 0.7]))
    # Rows of the centred encoding are (1, -1) / 2 and (-1, 1) / 2: s^2 = 4 * 1/2 = 2, so half of the difference is left.
    assert ridge.predict([(0,), (1,)]) == pytest.approx([0.4 - 0.1, 0.4 + 0.1])


@given(st.integers(0, 1000), st.integers(4, 25), st.sampled_from([1e-4, 0.1, 10.0]))
@settings(max_examples=30, deadline=None)
def test_leave_one_out_error_is_that_of_leaving_one_out(seed, n, strength):
    """The strength that is chosen has the least error when every point is really predicted from the others."""
    source = rng(seed)
    archs = [Box().sample(source) for _ in range(n)]
    values = source.random(n)

    def really(a):
        errors = []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            ridge = OneHotRidge(Box(), rng(), strength=a)
            ridge.fit([archs[j] for j in others], values[others])
            errors.append(ridge.predict([archs[i]])[0] - values[i])
        return float(np.mean(np.square(errors)))

    chosen = OneHotRidge(Box(), rng())
    chosen.fit(archs, values)
    assert really(chosen.strength) <= really(strength) * (1 + 1e-6)


def test_nearest_by_hand():
    """All that are as near as the k-th are averaged; with fewer than k points all of them."""
    archs = [(0, 0, 0, 0, 0), (0, 0, 0, 0, 1), (0, 0, 0, 1, 0), (2, 3, 2, 1, 2)]
    values = np.array([0.4, 0.5, 0.7, 0.0])
    for k, expected in ((1, 0.4), (2, 1.6 / 3), (3, 1.6 / 3), (4, 0.4), (9, 0.4)):
        nearest = Nearest(Box(), rng(), k=k)
        nearest.fit(archs, values)
        assert nearest.predict([(0, 0, 0, 0, 0)]) == pytest.approx([expected])


@given(st.integers(0, 1000), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_baselines_do_not_depend_on_the_order_of_the_training_set(seed, n):
    source = rng(seed)
    archs, values, order = [Box().sample(source) for _ in range(n)], source.random(n), source.permutation(n)
    asked = [Box().sample(source) for _ in range(10)]
    for made in (Mean, OneHotRidge, Nearest):
        one, two = made(Box(), rng()), made(Box(), rng())
        one.fit(archs, values)
        two.fit([archs[i] for i in order], values[order])
        assert one.predict(asked) == pytest.approx(two.predict(asked), abs=1e-6)
        assert np.isfinite(one.predict(asked)).all()


def test_mean_ranks_nothing():
    """tau 0, and the precision of chance: of 100 different accuracies a tenth."""
    study = compare_regressors("mean", box(linear()), sizes=(1, 20), repetitions=3, n_test=100)
    for fit in study.fits:
        if fit.regressor == "mean":
            assert (fit.tau, fit.spearman) == (0.0, 0.0)
            assert fit.precision_top == pytest.approx(0.1)


# ---------------------------------------------------------------------------------------------------------------- sets


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_of_test_and_training_sets_are_disjoint(seed):
    benchmark = nh.load("digits201")
    listed = _listed(benchmark.space)
    task = draw_task(benchmark, listed, 400, 1000, "validation", seed, 0)
    number = groups(benchmark.space, [*task.train, *task.test])
    assert len(number) == 1400 == len(set(number.tolist()))
    runs = [{benchmark.curve(arch, s).val_accuracy[-1] for s in range(benchmark.n_seeds)} for arch in task.train[:20]]
    assert all(np.float32(value) in some for value, some in zip(task.values[:20], runs, strict=True))
    assert task.target == pytest.approx(benchmark.final_many(np.array(task.test)).val_accuracy)


def test_sets_of_a_space_that_is_sampled():
    """A space that is too large to be listed gives different classes, too; repetitions differ."""
    space = NASBench201Space()
    one, two = (_of_different_classes(space, None, 300, rng(seed)) for seed in (0, 1))
    assert len(one) == 300 == len(set(groups(space, one).tolist()))
    assert one != two


class Recorder:
    """Predicts chance and remembers what it was given."""

    seen = []

    def __init__(self, space, rng):
        self.rng = rng

    def fit(self, archs, values):
        self.seen.append(("fit", tuple(archs), tuple(values.tolist())))

    def predict(self, archs):
        self.seen.append(("test", tuple(archs), ()))
        return self.rng.random(len(archs))


class Other(Recorder):
    seen = []


def test_training_sets_are_nested_and_the_same_for_all():
    Recorder.seen, Other.seen = [], []
    compare_regressors([Recorder, Other], box(linear()), sizes=(20, 5, 50), repetitions=2, n_test=60)
    assert Recorder.seen == Other.seen
    assert [len(archs) for kind, archs, _ in Recorder.seen if kind == "fit"] == [5, 20, 50] * 2
    for repetition in (Recorder.seen[:6], Recorder.seen[6:]):
        fits, tests = repetition[::2], repetition[1::2]
        assert fits[0][1:] == (fits[1][1][:5], fits[1][2][:5])
        assert fits[1][1:] == (fits[2][1][:20], fits[2][2][:20])
        assert tests[0] == tests[1] == tests[2]
        assert not set(tests[0][1]) & set(fits[2][1])
    assert Recorder.seen[1] != Recorder.seen[7]


def test_failed_trainings_are_not_learned_from():
    values = linear()

    class Failing(TableBenchmark):
        def query(self, arch, epochs=None, rng=None):
            found = super().query(arch, epochs, rng)
            return found._replace(val_accuracy=math.nan) if arch[0] != 1 else found

    whole = box(values)
    failing = Failing("box-v1", Box(), dict(whole._columns), whole.info)
    Recorder.seen = []
    study = compare_regressors(Recorder, failing, sizes=(1, 30), repetitions=3, n_test=50)
    for kind, archs, learned in Recorder.seen:
        if kind == "fit":
            assert {arch[0] for arch in archs} == {1}
            assert np.isfinite(learned).all()
    assert not study.errors
    assert len(study.fits) == 4 * 2 * 3
    empty = 3 - sum(kind == "fit" and len(archs) == 1 for kind, archs, _ in Recorder.seen)
    assert sum(f.tau == 0 for f in study.fits if f.regressor == "Recorder" and f.n_train == 1) == empty > 0


def test_split_says_what_is_ranked():
    """With test accuracies that are the reverse of the validation accuracies everything turns around."""
    values = linear()
    benchmark = box(values, 1 - values)
    settings = {"sizes": (80,), "repetitions": 1, "n_test": 100}
    forth, back = (
        compare_regressors("one_hot_ridge", benchmark, split=split, **settings) for split in ("validation", "test")
    )
    taus = [next(f.tau for f in s.fits if f.regressor == "one_hot_ridge") for s in (forth, back)]
    assert taus == [1.0, -1.0]
    assert "test accuracy" in back.summary().caption


# ------------------------------------------------------------------------------------------------------------ measures


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_agreement_is_that_of_scipy(pairs):
    predicted, target = np.array(pairs, dtype=np.float64).T
    tau, rho, precision = _agreement(predicted, target)
    assert 0 <= precision <= 1
    if np.ptp(target) == 0:
        assert math.isnan(tau)
        assert math.isnan(rho)
    elif np.ptp(predicted) == 0:
        assert (tau, rho) == (0.0, 0.0)
    else:
        assert tau == pytest.approx(kendalltau(predicted, target).statistic)
        assert rho == pytest.approx(spearmanr(predicted, target).statistic)


def test_last_digits_do_not_count():
    base = np.array([0.5, 0.7, 0.7, 0.9])
    assert (_levelled(base + np.array([0, 1e-15, -1e-15, 0]))[1:3] == _levelled(base)[1:3]).all()
    assert not _levelled(np.full(4, 0.3) + np.array([0, 1e-16, 0, -1e-16])).any()
    assert len(set(_levelled(np.array([0.5, 0.5 + 1e-6, 0.6])).tolist())) == 3


# --------------------------------------------------------------------------------------------------------------- study


def test_same_seed_same_study_and_rows_stand_by_themselves():
    """A row does not change with the other regressors and sizes, and does with the seed."""
    names = ["bananas(epochs=5, layers=2)", "gp_bo"]
    small = {"repetitions": 2, "n_test": 100}
    one, two = (compare_regressors(names, "digits201", sizes=(10, 30), **small) for _ in range(2))
    assert one.fits == two.fits
    assert one.summary().rows[0].tau == two.summary().rows[0].tau
    alone = compare_regressors(names[0], "digits201", sizes=(30,), **small)
    assert set(alone.fits) <= set(one.fits)
    assert compare_regressors("gp_bo", "digits201", sizes=(30,), seed=1, **small).fits[1].tau != alone.fits[1].tau


def test_golden():
    """What the baselines, the networks of bananas and the Gaussian process reached when this was written."""
    study = compare_regressors(["bananas", "gp_bo", "gp_bo@nas_bowl"], sizes=(50,), repetitions=1, n_test=200)
    found = {fit.regressor: fit.tau for fit in study.fits}
    assert found == pytest.approx(GOLDEN, abs=2e-3)


GOLDEN = {
    "mean": 0.0,
    "one_hot_ridge": 0.2197,
    "nearest": 0.2144,
    "bananas": 0.1976,
    "gp_bo": 0.2492,
    "gp_bo@nas_bowl": 0.1752,
}


@pytest.mark.slow
def test_all_regressors_on_a_real_benchmark():
    """Every regressor runs, and ranks better with 200 architectures than chance and than with 10."""
    study = compare_regressors(sizes=(10, 200), repetitions=2, n_test=400)
    assert study.regressors == DEFAULT == (*BASELINES, *INSIDE)
    assert not study.errors
    rows = {(row.regressor, row.n_train): row for row in study.summary().rows}
    for label in DEFAULT[1:]:
        assert rows[label, 200].tau.value > max(0.2, rows[label, 10].tau.value)
        assert rows[label, 200].precision_top.value > 0.15
    assert rows["neural_predictor", 200].from_ridge.value > 0


def test_summary_frame_and_figure(tmp_path):
    study = compare_regressors("nearest(k=1)", box(linear()), sizes=(10, 40), repetitions=4, n_test=60)
    assert study.regressors == (*BASELINES, "nearest(k=1)")
    frame = study.frame()
    assert len(frame) == 4 * 2 * 4
    assert set(frame.columns) >= {"regressor", "repetition", "n_train", "tau", "fit_seconds"}
    for row in study.summary().rows:
        taus = frame.query("regressor == @row.regressor and n_train == @row.n_train")["tau"].to_numpy()
        assert row.tau.value == pytest.approx(taus.mean())
        assert row.tau.low <= row.tau.value <= row.tau.high
        assert row.repetitions == 4
        assert (row.from_ridge is None) == (row.regressor == "one_hot_ridge")
    ridge = {row.n_train: row for row in study.summary().rows if row.regressor == "one_hot_ridge"}
    last = study.summary().rows[-1]
    assert last.from_ridge.value == pytest.approx(last.tau.value - ridge[40].tau.value)
    assert "nearest(k=1)" in str(study.summary())
    svg, png = study.figure(tmp_path / "tau.svg"), study.figure(tmp_path / "tau.png")
    assert svg.read_text().count("<path") > 10
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert svg.read_bytes() == study.figure(tmp_path / "again.svg").read_bytes()
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        study.figure(tmp_path / "tau.pdf")


def test_one_repetition_has_no_band(tmp_path):
    study = compare_regressors("mean", box(linear()), sizes=(10, 40), repetitions=1, n_test=60)
    assert not study.summary().rows[0].tau.has_interval
    assert "one repetition" in study.summary().caption
    assert study.figure(tmp_path / "tau.png").stat().st_size > 0


class Broken(Recorder):
    def predict(self, archs):
        return np.full(len(archs), math.nan)


def test_a_regressor_that_fails_is_left_out():
    calls = []
    study = compare_regressors(
        Broken, box(linear()), sizes=(5, 10), repetitions=2, n_test=20, progress=lambda *at: calls.append(at)
    )
    assert study.regressors == BASELINES
    assert "finite numbers" in study.errors["Broken"]
    assert {fit.regressor for fit in study.fits} == set(BASELINES)
    assert calls == [(i, 16) for i in range(17)]


@pytest.mark.parametrize("name", INSIDE)
def test_strategies_give_their_hyper_parameters_and_presets(name):
    """The id is read as the strategy's, and the regressor learns with what it says."""
    presets = regressor_spec(name).factory.presets
    spec = regressor_spec(f"{name}@{next(iter(presets))}" if presets else name)
    assert spec.parameters == (next(iter(presets.values())) if presets else {})
    archs = [Box().sample(rng(i)) for i in range(12)]
    quick = {"bananas": "epochs=2", "neural_predictor": "epochs=2", "pnas": "epochs=2", "nao": "epochs=2"}
    made = regressor_spec(f"{name}({quick[name]})" if name in quick else name)
    results = []
    for seed in (0, 0, 1):
        regressor = made.make(Box(), rng(seed))
        regressor.fit(archs, np.linspace(0.2, 0.8, 12))
        results.append(regressor.predict(archs[:7]))
    assert results[0].shape == (7,)
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all() == (name == "gp_bo")


def test_what_is_learned_is_what_the_strategy_learns(monkeypatch):
    """A strategy that is told the same trials gives its model the same data, settings and chance, so predictions agree."""
    archs, values = [Box().sample(rng(i)) for i in range(12)], rng().uniform(0.3, 0.9, 12)
    asked = list(Box())[::7]
    given = []

    def spy(name, *arguments, **settings):
        given.append((name, *(a.initial_seed() if isinstance(a, torch.Generator) else a for a in arguments), settings))

    def made(name):
        """The regressor after learning, and the strategy after hearing of the same."""
        spec = optimizer_spec(name)
        regressor, strategy = regressor_spec(name).make(Box(), rng(3)), spec.make(Box(), rng(3))
        for arch, value in zip(archs, values, strict=True):
            strategy.tell(Trial(arch, float(value), 1.0, 1, np.zeros(0, dtype=np.float32)))
        regressor.fit(archs, values)
        return regressor, strategy

    regressor, strategy = made("gp_bo")
    strategy._choose()
    errors = np.log(1 - values)
    mean, _ = strategy._model.predict(asked)
    assert regressor.predict(asked) == pytest.approx(1 - np.exp(mean * errors.std() + errors.mean()))
    regressor, strategy = made("neural_predictor(epochs=3)")
    strategy._best_predictions(1)
    assert (regressor.predict(asked) == strategy.regressor.predict(strategy._encode(asked))).all()
    regressor, strategy = made("pnas(epochs=3)")
    strategy._ranked(asked)
    assert (regressor.predict(asked) == strategy.surrogate.predict(asked)).all()

    monkeypatch.setattr(MLPEnsemble, "fit", lambda _, x, y, __: spy("bananas", x, y))
    _, strategy = made("bananas")
    strategy._iteration()
    monkeypatch.setattr(AutoEncoder, "fit", lambda _, *a, **k: spy("nao", *a, **k))
    _, strategy = made("nao")
    next(strategy._ascents(archs[:2]))
    assert [name for name, *_ in given] == ["bananas", "bananas", "nao", "nao"]
    for one, two in (given[:2], given[2:]):
        assert all(np.array_equal(a, b) for a, b in zip(one[1:-1], two[1:-1], strict=True))
        assert one[-1] == two[-1]


@pytest.mark.parametrize("name", INSIDE)
def test_equal_accuracies_can_be_learned_from(name):
    """Constant targets give finite predictions."""
    regressor = regressor_spec(name).make(Box(), rng())
    archs = [Box().sample(rng(i)) for i in range(3)]
    regressor.fit(archs, np.full(3, 0.6))
    assert np.isfinite(regressor.predict(archs)).all()


def test_gp_predicts_accuracies():
    """The Gaussian process interpolates what it learned, on the scale of accuracies and the right way around."""
    regressor = regressor_spec("gp_bo").make(Box(), rng())
    archs, values = list(Box())[::4], linear()[::4]
    regressor.fit(archs, values)
    assert regressor.predict(archs) == pytest.approx(values, abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("nonsense", "unknown regressor"),
        ("random_search", "unknown regressor"),
        ("nearest(width=3)", "no hyper-parameter width"),
        ("nearest(rng=3)", "no hyper-parameter rng"),
        ("nearest(3)", "by name"),
        ("nearest@fast", "cannot read"),
        ("bananas(width2=3)", "width2"),
        ("bananas+last_value", "stopping rule"),
        (dict, "fit and predict"),
    ],
)
def test_ids_that_cannot_be_read(wrong, message):
    with pytest.raises(RegistryError, match=message):
        regressor_spec(wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": ()}, "sizes"),
        ({"sizes": (5, 5)}, "sizes"),
        ({"sizes": (0,)}, "size 0"),
        ({"repetitions": True}, "repetitions"),
        ({"n_test": 1}, "n_test"),
        ({"split": "train"}, "split"),
        ({"sizes": (200,)}, "216 different networks found"),
        ({"regressors": ["mean", "mean"]}, "named twice"),
        ({"regressors": "nearest(k=0)", "n_test": 20, "sizes": (5,)}, None),
    ],
)
def test_numbers_out_of_range(settings, message):
    given = {"regressors": "mean", "benchmark": box(linear()), "sizes": (5,), "n_test": 50, **settings}
    if message is None:  # a regressor that cannot be made is left out
        assert "k must be" in compare_regressors(**given).errors["nearest(k=0)"]
        return
    with pytest.raises(ValueError, match=message):
        compare_regressors(**given)


def test_torch_is_not_loaded_without_need():
    program = (
        "import sys, nasharness as nh; nh.compare_regressors(['gp_bo'], sizes=(5,), repetitions=1, n_test=20).summary();"
        " assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
