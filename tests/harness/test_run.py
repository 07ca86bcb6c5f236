"""The run loop: what is recorded, when it ends, and what it refuses."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasharness import Budget, Optimizer, Proposal, RunError, SearchFinished, run
from nasharness.harness.core import STATUSES
from nasharness.harness.registry import OptimizerSpec
from nasharness.harness.run import Run, Trials, generators


class Fixed(Optimizer):
    """Proposes a written list, then stops."""

    sequence = [(0, 0, 0), (1, 0, 2), (2, 1, 3), (0, 1, 1)]

    def __init__(self, space, rng):
        super().__init__(space, rng)
        self.told = []

    def ask(self):
        if len(self.told) == len(self.sequence):
            raise SearchFinished
        return Proposal(self.sequence[len(self.told)])

    def tell(self, trial):
        self.told.append(trial)


def proposing(answer):
    class Proposing(Optimizer):
        def ask(self):
            return answer(self)

        def tell(self, trial):
            pass

    return Proposing


def test_everything_is_recorded(tiny_benchmark):
    """Columns hold what the benchmark answered, in order, and the run says that the optimizer had finished."""
    result = run(Fixed, tiny_benchmark, Budget(evaluations=10), seed=3)
    _, rng = generators(3, tiny_benchmark.id, "Fixed", 0)
    expected = [tiny_benchmark.query(arch, None, rng) for arch in Fixed.sequence]
    assert result.finished_early
    assert result.trials.arch.tolist() == [list(a) for a in Fixed.sequence]
    assert result.trials.value.tolist() == [e.val_accuracy for e in expected]
    assert result.trials.seconds.tolist() == [e.seconds for e in expected]
    assert result.trials.epochs.tolist() == [tiny_benchmark.max_epochs] * 4
    assert result.trials.status.tolist() == [0] * 4
    assert (result.trials.optimizer_seconds > 0).all()
    assert result.gpu_seconds[-1] == pytest.approx(result.simulated_seconds + result.optimizer_seconds)


def test_budget_of_evaluations(tiny_benchmark):
    """A run makes exactly as many evaluations as its budget has."""
    assert len(run("random_search", tiny_benchmark, Budget(evaluations=17)).trials) == 17


def test_budget_of_seconds_leaves_out_the_trial_that_ends_too_late(tiny_benchmark):
    """The trials kept fit into the budget, and the next one would not have."""
    longer = run("random_search", tiny_benchmark, Budget(evaluations=50))
    spent = np.cumsum(longer.trials.seconds)
    budget = (spent[20] + spent[21]) / 2
    result = run("random_search", tiny_benchmark, Budget(seconds=budget))
    assert len(result.trials) == 21
    assert result.trials.value.tolist() == longer.trials.value[:21].tolist()


def test_both_limits(tiny_benchmark):
    """Whichever limit comes first ends the run."""
    assert len(run("random_search", tiny_benchmark, Budget(seconds=1e6, evaluations=5)).trials) == 5


def test_partial_epochs_cost_less(tiny_benchmark):
    """A proposal that names its epochs gets the accuracy after them and pays for them only."""
    result = run(proposing(lambda self: Proposal((1, 1, 1), 2)), tiny_benchmark, Budget(evaluations=1), seed=2)
    _, rng = generators(2, tiny_benchmark.id, "Proposing", 0)
    expected = tiny_benchmark.query((1, 1, 1), 2, rng)
    assert (result.trials.value[0], result.trials.seconds[0], result.trials.epochs[0]) == expected[:3]
    assert result.trials.status.tolist() == [STATUSES.index("stopped")]


class _Ladder(Optimizer):
    """One architecture, again and again, for the epochs of a list; `resume` from the second proposal on."""

    epochs, resume = (1, 2, 4), True

    def ask(self):
        i = getattr(self, "i", 0)
        self.i = i + 1
        if i == len(self.epochs):
            raise SearchFinished
        return Proposal((1, 1, 1), self.epochs[i], resume=self.resume and i > 0)

    def tell(self, trial):
        self.told = [*getattr(self, "told", []), trial]


def test_a_resumed_training_costs_the_difference(tiny_benchmark):
    """Going on meets the same training run of the table, and in all costs what that run costs."""
    for seed in range(6):
        trials = run(_Ladder, tiny_benchmark, Budget(evaluations=9), seed=seed).trials
        runs = [tiny_benchmark.curve((1, 1, 1), s) for s in range(3)]
        whole = [r for r in runs if r.val_accuracy[3] == np.float32(trials.value[2])]
        assert trials.value.tolist() == [float(x) for x in whole[0].val_accuracy[[0, 1, 3]]]
        assert trials.seconds.sum() == pytest.approx(float(whole[0].seconds[3]), rel=1e-6)
        assert trials.seconds[1] == pytest.approx(float(whole[0].seconds[1] - whole[0].seconds[0]), rel=1e-5)
        assert trials.epochs.tolist() == [1, 2, 4]
        assert [STATUSES[s] for s in trials.status] == ["stopped", "stopped", "complete"]


def test_without_resuming_every_training_starts_anew(tiny_benchmark):
    """Asked not to resume, asked for fewer epochs than before, or on schedules of different lengths: the full price."""

    class Restart(_Ladder):
        resume = False

    class Shorter(_Ladder):
        epochs = (4, 2)

    prices = {e: {float(tiny_benchmark.curve((1, 1, 1), s).seconds[e - 1]) for s in range(3)} for e in (1, 2, 4)}
    for optimizer in (Restart, Shorter):
        trials = run(optimizer, tiny_benchmark, Budget(evaluations=9)).trials
        for epochs, seconds in zip(trials.epochs, trials.seconds, strict=True):
            assert seconds in prices[int(epochs)]
    tiny_benchmark.resumable = False
    trials = run(_Ladder, tiny_benchmark, Budget(evaluations=9)).trials
    assert trials.seconds[2] in prices[4]


def test_the_harness_tells_a_strategy_the_fidelities(tiny_benchmark):
    """A strategy that takes `fidelities` gets those of the benchmark, unless the user gives others."""
    seen = []

    class Curious(_Ladder):
        def __init__(self, space, rng, *, fidelities=(1,)):
            super().__init__(space, rng)
            seen.append(tuple(fidelities))

    run(Curious, tiny_benchmark, Budget(evaluations=1))
    run(OptimizerSpec("c", Curious, {"fidelities": (2, 4)}), tiny_benchmark, Budget(evaluations=1))
    assert seen == [(1, 2, 3, 4), (2, 4)]


def test_supernet_methods_pay_their_own_seconds(tiny_benchmark):
    """With charges_evaluations = False trials cost nothing and are not told; the answer is the latest proposal.

    What the method spends is its own measured time, so two runs still have one fingerprint.
    """
    factory = proposing(lambda self: Proposal(self.space.sample(self.rng)))
    factory.charges_evaluations = False
    factory.tell = lambda self, trial: pytest.fail("it was told a value that it did not pay for")
    results = [run(factory, tiny_benchmark, Budget(evaluations=20)) for _ in range(2)]
    assert results[0].simulated_seconds == 0
    assert results[0].optimizer_seconds > 0
    assert results[0].incumbents.tolist() == list(range(20))
    assert results[0].fingerprint() == results[1].fingerprint()
    with pytest.raises(RunError, match="too small for the first trial"):
        run(factory, tiny_benchmark, Budget(seconds=1e-9))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda self: (0, 0, 0), "must return a nasharness.Proposal"),
        (lambda self: None, "must return a nasharness.Proposal"),
        (lambda self: Proposal((0, 0, 4)), "choice 4 in dimension 2"),
        (lambda self: Proposal((0, 0)), "has 2 choices"),
        (lambda self: Proposal((0, 0, -1)), "choice -1"),
        (lambda self: Proposal((0, 0, math.nan)), "must be an int"),
        (lambda self: Proposal((0, 0, 1.0)), "must be an int"),
        (lambda self: Proposal("|none~0|"), "not '|none~0|'"),
        (lambda self: Proposal(None), "not None"),
        (lambda self: Proposal((0, 0, 0), 0), "epochs must be a whole number in 1..4"),
        (lambda self: Proposal((0, 0, 0), 2.5), "epochs must be a whole number"),
        (lambda self: 1 / 0, "ask raised ZeroDivisionError at trial 0"),
    ],
)
def test_bad_proposals_are_explained(tiny_benchmark, answer, message):
    """The message names the optimizer, the benchmark, the trial and the value."""
    with pytest.raises(RunError, match=f"Proposing on {tiny_benchmark.id}, repetition 0.*") as error:
        run(proposing(answer), tiny_benchmark, Budget(evaluations=3))
    assert message in str(error.value)


def test_sys_exit_is_an_error(tiny_benchmark):
    """An optimizer cannot end the study by leaving."""

    def leave(self):
        raise SystemExit(0)

    with pytest.raises(RunError, match="ask raised SystemExit"):
        run(proposing(leave), tiny_benchmark, Budget(evaluations=3))


def test_budget_as_a_string(tiny_benchmark):
    """A budget may be written as on the command line."""
    assert len(run("random_search", tiny_benchmark, "7").trials) == 7


def test_numpy_architectures_become_tuples(tiny_benchmark):
    """An array of ints is accepted and told back as a plain tuple."""
    told = []

    class Arrays(Optimizer):
        def ask(self):
            return Proposal(np.array([1, 1, 1]))

        def tell(self, trial):
            told.append(trial.arch)

    run(Arrays, tiny_benchmark, Budget(evaluations=1))
    assert told == [(1, 1, 1)]


def test_tell_that_raises_is_named(tiny_benchmark):
    """An error inside `tell` names the trial."""

    class Raising(Optimizer):
        def ask(self):
            return Proposal((0, 0, 0))

        def tell(self, trial):
            raise KeyError("gone")

    with pytest.raises(RunError, match="tell raised KeyError at trial 0"):
        run(Raising, tiny_benchmark, Budget(evaluations=1))


def test_constructor_that_raises_is_named(tiny_benchmark):
    """An error in the constructor is a RunError too."""
    with pytest.raises(RunError, match="could not be made: ValueError"):
        run("regularized_evolution(sample=0)", tiny_benchmark, Budget(evaluations=1))


def test_budget_too_small_for_one_trial(tiny_benchmark):
    """A budget below the first trial's cost is refused, with both numbers."""
    with pytest.raises(RunError, match="budget of 1e-06 s is too small for the first trial, which takes"):
        run("random_search", tiny_benchmark, Budget(seconds=1e-6))


def test_an_optimizer_that_never_stops_is_ended(tiny_benchmark, monkeypatch):
    """Where trials cost nothing, a limit on seconds alone would never end the run."""
    monkeypatch.setattr("nasharness.harness.run.MAX_EVALUATIONS", 50)
    with pytest.raises(RunError, match="50 evaluations used only"):
        run("random_search", tiny_benchmark, Budget(seconds=1e12))


def test_no_proposal_at_all(tiny_benchmark):
    """A search that finishes before its first proposal is an error, not an empty result."""

    def finish(self):
        raise SearchFinished

    with pytest.raises(RunError, match="without a single proposal"):
        run(proposing(finish), tiny_benchmark, Budget(evaluations=3))


# ----------------------------------------------------------------------------------------------- incumbents and regret


def as_run(values, archs=None):
    n = len(values)
    archs = archs if archs is not None else np.zeros((n, 3), dtype=np.int16)
    return Run(
        "x",
        "tiny-v1",
        0,
        0,
        Trials(
            np.asarray(archs, dtype=np.int16),
            np.array(values, dtype=float),
            np.ones(n),
            np.ones(n, dtype=np.int32),
            np.zeros(n, dtype=np.int8),
            np.zeros(n),
        ),
    )


@given(
    st.lists(st.one_of(st.just(math.nan), st.sampled_from([0.1, 0.2, 0.3]), st.floats(0, 1)), min_size=1, max_size=30)
)
@settings(max_examples=200, deadline=None)
def test_incumbents_equal_a_slow_loop(values):
    """The incumbent is the first of the best that did not fail; -1 while there is none."""
    best, expected = -1, []
    for i, value in enumerate(values):
        if value == value and (best < 0 or value > values[best]):
            best = i
        expected.append(best)
    assert as_run(values).incumbents.tolist() == expected


def test_short_trainings_do_not_compete_with_long_ones():
    """After 1, 4, 2, 4 and 1 epochs: the first is replaced by a longer training with a lower value, and no shorter one wins."""
    made = as_run([0.9, 0.3, 0.95, 0.4, 0.99])
    made.trials.epochs[:] = [1, 4, 2, 4, 1]
    assert made.incumbents.tolist() == [0, 1, 1, 3, 3]


def test_regret_by_hand(tiny_benchmark):
    """Regret is the optimum minus the incumbent's final accuracy; the incumbent is the best that the search saw."""
    archs = [(0, 0, 0), (1, 1, 2), (2, 0, 3), (1, 0, 0)]
    finals = [tiny_benchmark.final(a) for a in archs]
    result = as_run([math.nan, 0.3, 0.2, 0.9], archs)
    for split, field in (("test", "test_accuracy"), ("validation", "val_accuracy")):
        best = getattr(tiny_benchmark.optimum, field)
        expected = [math.nan, *(best - getattr(finals[i], field) for i in (1, 1, 3))]
        np.testing.assert_allclose(result.regret(tiny_benchmark, split), expected, rtol=1e-12)
    assert result.incumbent == (1, 0, 0)
    assert as_run([math.nan]).incumbent is None
    assert np.isnan(as_run([math.nan]).regret(tiny_benchmark)).all()


# ------------------------------------------------------------------------------------------------------ reproducibility


def test_same_specification_same_run(tiny_benchmark):
    """Equal seeds give equal fingerprints; another seed, repetition or label gives another run."""
    make = lambda **k: run("random_search", tiny_benchmark, Budget(evaluations=30), **k).fingerprint()  # noqa: E731
    assert make(seed=1, repetition=2) == make(seed=1, repetition=2)
    assert len({make(), make(seed=1), make(repetition=1)}) == 3


def test_global_random_state_has_no_say(tiny_benchmark):
    """Reseeding NumPy's and Python's global generators changes nothing."""
    import random

    prints = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: TID251, NPY002
        random.seed(seed)  # noqa: TID251
        prints.append(run("regularized_evolution", tiny_benchmark, Budget(evaluations=150)).fingerprint())
    assert prints[0] == prints[1]


@pytest.mark.parametrize(("seed", "repetition"), [(-1, 0), (0, -1), (0.5, 0), (True, 0)])
def test_bad_seeds(seed, repetition):
    """A seed is a whole number from 0."""
    with pytest.raises(ValueError, match="whole numbers from 0"):
        generators(seed, "b", "o", repetition)


class _Costed(Fixed):
    metrics = ("flops", "params")


def test_metrics_are_told_to_those_who_ask(tiny_benchmark, monkeypatch):
    """By name, as the benchmark answers them, each architecture once; read-only; nothing is looked up for anybody else."""
    asked = []
    answer = tiny_benchmark.metric
    monkeypatch.setattr(tiny_benchmark, "metric", lambda name, archs: asked.append(name) or answer(name, archs))
    told = []

    class Costed(_Costed):
        sequence = [*Fixed.sequence, Fixed.sequence[0]]

        def tell(self, trial):
            super().tell(trial)
            told.append(trial)

    run(Costed, tiny_benchmark, Budget(evaluations=10))
    assert asked == ["flops", "params"] * 4
    for trial in told:
        assert dict(trial.metrics) == {name: answer(name, [trial.arch])[0] for name in ("flops", "params")}
        assert type(trial.metrics["flops"]) is float
    with pytest.raises(TypeError):
        told[0].metrics["flops"] = 0.0
    copied = pickle.loads(pickle.dumps(told[0].metrics))
    assert copied == told[0].metrics
    asked.clear()
    run(Fixed, tiny_benchmark, Budget(evaluations=10))
    assert asked == []


def test_metrics_change_no_run(tiny_benchmark):
    """Told or not, the same proposals get the same answers: nothing is drawn for them."""
    labelled = [
        run(OptimizerSpec("one label", factory, {}), tiny_benchmark, Budget(evaluations=4))
        for factory in (Fixed, _Costed)
    ]
    assert labelled[0].fingerprint() == labelled[1].fingerprint()


def test_an_unknown_metric_may_be_nan(tiny_benchmark, monkeypatch):
    """What the benchmark does not know of an architecture is NaN, and the run goes on."""
    monkeypatch.setattr(tiny_benchmark, "metric", lambda name, archs: np.full(len(archs), np.nan))
    told = []
    costed = type("Costed", (_Costed,), {"tell": lambda self, trial: (Fixed.tell(self, trial), told.append(trial))})
    assert len(run(costed, tiny_benchmark, Budget(evaluations=4)).trials) == 4
    assert all(math.isnan(x) for trial in told for x in trial.metrics.values())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (("flops", "watts"), "tiny-v1 has no metric 'watts'; its metrics are: params, flops"),
        ("flops", r"must be a tuple of names, such as \('flops',\), not 'flops'"),
        ((1,), "must be a tuple of names"),
    ],
)
def test_metrics_that_cannot_be_told(tiny_benchmark, wanted, message):
    """A name that the benchmark does not have, and what is no tuple of names, end the run before its first trial."""
    with pytest.raises(RunError, match=message):
        run(type("Wrong", (Fixed,), {"metrics": wanted}), tiny_benchmark, Budget(evaluations=4))


def test_a_metric_that_raises_is_the_benchmarks_fault(tiny_benchmark, monkeypatch):
    """The message names benchmark, trial and reason."""

    def metric(name, archs):
        raise KeyError("lost")

    monkeypatch.setattr(tiny_benchmark, "metric", metric)
    with pytest.raises(RunError, match="the benchmark raised KeyError at trial 0: 'lost'"):
        run(_Costed, tiny_benchmark, Budget(evaluations=4))
