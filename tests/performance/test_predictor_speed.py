"""Learning-curve predictors, on one thread: `make bench`. Goals are in the docstrings; nothing here fails on a slow machine.

`make test` runs each once on few curves with short trainings, so that they keep working.
"""

import numpy as np
import pytest

from nasharness.harness.registry import stopping_spec
from nasharness.predictors.base import Curves

EPOCHS = 100
CHECKS = tuple(range(5, EPOCHS, 5))


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made_up(n, epochs=EPOCHS):
    """Curves over six choices of five that rise to an end which depends on the architecture."""
    rng = np.random.default_rng(0)
    arch = rng.integers(0, 5, (n, 6))
    end = 0.6 + 0.04 * arch[:, :2].sum(axis=1)
    t = np.arange(1, epochs + 1) / epochs
    accuracy = end[:, None] * (1 - np.exp(-5 * t)) + rng.normal(0, 0.005, (n, epochs))
    seconds = np.tile(np.arange(1.0, epochs + 1), (n, 1))
    return Curves(accuracy.clip(0, 1), epochs, arch, (5,) * 6, seconds, None, np.zeros(n, dtype=np.int64), np.arange(n))


def predictor(spec):
    return stopping_spec(spec).make(np.random.default_rng(0)).predictor


def timed(benchmark, function, rounds=3):
    return benchmark.pedantic(function, rounds=rounds if benchmark.enabled else 1)


@pytest.mark.benchmark(group="predictors: training")
@pytest.mark.parametrize("n", [200, 1000])
def test_lcranknet_training(benchmark, n):
    """Goal: below 60 s, of curves of 100 epochs; the number of curves hardly matters."""
    spec, curves = ("lcranknet", made_up(n)) if benchmark.enabled else ("lcranknet(steps=5)", made_up(30))
    fresh = predictor(spec)
    timed(benchmark, lambda: fresh.learn(curves, CHECKS, None), rounds=1)
    assert fresh.predict(curves.observed(10)).ok.all()


@pytest.mark.benchmark(group="predictors: training")
def test_power_law_training(benchmark):
    """All 19 check points, of 200 curves."""
    spec, curves = ("power_law", made_up(200)) if benchmark.enabled else ("power_law(steps=5)", made_up(30))
    fresh = predictor(spec)
    timed(benchmark, lambda: fresh.learn(curves, CHECKS, None), rounds=1)
    assert fresh.predict(curves.observed(10)).ok.all()


@pytest.mark.benchmark(group="predictors: training")
def test_nu_svr_fit(benchmark):
    """One check point, of 100 curves, with its search for hyper-parameters."""
    spec, curves = ("nu_svr", made_up(100)) if benchmark.enabled else ("nu_svr(draws=2)", made_up(30))
    fresh = predictor(spec)
    timed(benchmark, lambda: fresh.fit(curves, (25,)), rounds=1)
    assert fresh.predict(curves.observed(25)).ok.all()


@pytest.mark.benchmark(group="predictors: 1,000 decisions at once")
@pytest.mark.parametrize("name", ["lcranknet", "power_law"])
def test_many_rows(benchmark, name):
    """Goal: below 1 s, which is 1 ms a decision."""
    fitted, curves = predictor(f"{name}(steps=20)"), made_up(1000)
    fitted.fit(curves.rows(range(30)), (25,))
    seen, best = curves.observed(25), curves.rows([0])
    p = timed(benchmark, lambda: fitted.p_better(seen, best))
    assert p.shape == (1000,) and np.isfinite(p).all()
    if benchmark.stats:
        benchmark.extra_info["ms_a_decision"] = round(benchmark.stats.stats.min, 4)


@pytest.mark.benchmark(group="predictors: one decision")
@pytest.mark.parametrize("name", ["lcranknet", "power_law"])
def test_one_row(benchmark, name):
    """Goal: a few milliseconds."""
    fitted, curves = predictor(f"{name}(steps=20)"), made_up(30)
    fitted.fit(curves, (25,))
    seen, best = curves.rows([1]).observed(25), curves.rows([0])
    assert np.isfinite(timed(benchmark, lambda: fitted.p_better(seen, best), rounds=50)).all()


@pytest.mark.benchmark(group="predictors: decisions of cheap rules, one by one")
@pytest.mark.parametrize("name", ["last_value", "best_so_far", "median_rule"])
def test_cheap_rules(benchmark, name):
    """Every check point of 50 trainings; ten were completed before."""
    curves = made_up(60)
    rule = stopping_spec(name).make(np.random.default_rng(0))
    for i in range(10):
        rule.tell(curves.rows([i]))
    best = curves.rows([int(np.argmax(curves.final[:10]))])
    seen = [curves.rows([i]).observed(m) for i in range(10, 60) for m in CHECKS]
    decisions = timed(benchmark, lambda: [rule.decide(part, best) for part in seen])
    assert len(decisions) == 950 and any(d.stop for d in decisions) and not all(d.stop for d in decisions)
    if benchmark.stats:
        benchmark.extra_info["decisions_per_second"] = round(len(seen) / benchmark.stats.stats.min)
