"""Rules that end the trainings of a search: what is told, what is paid, and what the report says of it."""

import math

import numpy as np
import pytest

import nasharness as nh
from nasharness.harness.early_stopping import Stopper
from nasharness.harness.registry import RegistryError, optimizer_spec
from nasharness.predictors.base import Decision, Schedule, StoppingRule, must_go_on

SEEN = []


class EndsAt(StoppingRule):
    """Ends every training after so many epochs, but the first."""

    def __init__(self, rng, *, epochs=2):
        super().__init__(rng)
        self.epochs = epochs
        SEEN.clear()

    def decide(self, observed, best):
        SEEN.append((observed, best))
        return must_go_on(observed, best) or Decision(observed.epochs >= self.epochs, 0.0)

    def tell(self, finished):
        SEEN.append((finished, None))


class Plan(Schedule):
    def search(self, trainer):
        trainer.train(0, trainer.max_epochs)


def stopped(rule, optimizer="random_search"):
    return optimizer_spec(optimizer).with_stop(rule)


def test_a_stopped_training_is_told_as_it_stood(tiny_benchmark):
    """Epochs, value, seconds and status are those of the check point where it ended."""
    run = nh.run(stopped(EndsAt), tiny_benchmark, 30)
    plain = nh.run("random_search", tiny_benchmark, 30)
    t = run.trials
    assert (t.arch == plain.trials.arch).all()  # the same chance with the rule and without
    short = t.epochs == 2
    assert 0 < short.sum() < 30
    assert set(t.epochs.tolist()) <= {2, 3, 4}
    assert (t.seconds[short] < plain.trials.seconds[short]).all()
    assert t.seconds[t.epochs == 4] == pytest.approx(plain.trials.seconds[t.epochs == 4])
    assert (t.value[t.epochs == 4] == plain.trials.value[t.epochs == 4]).all()
    statuses = np.array(["complete", "stopped", "failed"])[t.status]
    assert (statuses == np.where(t.epochs == 4, "complete", "stopped")).all()


def test_no_rule_sees_the_future(tiny_benchmark):
    run = nh.run(stopped(EndsAt), tiny_benchmark, 10)
    decided = [(o, b) for o, b in SEEN if not o.complete]
    assert decided
    for observed, best in decided:
        assert observed.accuracy.shape == observed.seconds.shape == (1, observed.epochs)
        assert observed.max_epochs == 4
        assert best is None or best.complete
    assert run.trials.status[0] == 0


def test_the_incumbent_is_the_best_complete_training(tiny_benchmark):
    nh.run(stopped(EndsAt(np.random.default_rng(0)).__class__), tiny_benchmark, 20)
    best = -1.0
    for observed, incumbent in SEEN:
        if incumbent is not None:
            assert incumbent.final[0] == best
        if observed.complete and incumbent is None:
            best = max(best, observed.final[0])


def test_a_rule_that_never_stops_changes_nothing(tiny_benchmark):
    run = nh.run(stopped("last_value(delta=0.0, warm_up=1000)"), tiny_benchmark, 25)
    plain = nh.run("random_search", tiny_benchmark, 25)
    assert (run.trials.value == plain.trials.value).all()
    assert run.trials.seconds == pytest.approx(plain.trials.seconds)


def test_multi_fidelity_strategies_keep_their_epochs(tiny_benchmark):
    run = nh.run(stopped(EndsAt, "successive_halving(fidelities=[1, 2, 4], eta=2)"), tiny_benchmark, 30)
    plain = nh.run("successive_halving(fidelities=[1, 2, 4], eta=2)", tiny_benchmark, 30)
    assert run.trials.epochs.max() <= 4
    assert (run.trials.epochs[:4] <= plain.trials.epochs[:4]).all()


def test_ids_with_a_rule():
    spec = optimizer_spec("random_search + last_value(delta=0.1)")
    assert spec.label == "random_search+last_value(delta=0.1)"
    assert spec.seeded_by == "random_search"
    assert spec.source_sha256() != optimizer_spec("random_search").source_sha256()
    assert (
        optimizer_spec("regularized_evolution(population=5)+last_value").seeded_by
        == "regularized_evolution(population=5)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("random_search+lastvalue", "did you mean last_value"),
        ("random_search+last_value(deltas=1)", "its hyper-parameters are: .*delta"),
        ("random_search+last_value+last_value", "already has a stopping rule"),
        ("random_search+random_search", "unknown predictor"),
    ],
)
def test_bad_ids(text, message):
    with pytest.raises(RegistryError, match=message):
        optimizer_spec(text)


def test_plans_for_lists_are_refused():
    with pytest.raises(RegistryError, match="nasharness stop"):
        stopped(Plan)
    with pytest.raises(ValueError, match="Plan is a plan"):
        Stopper(Plan(np.random.default_rng(0)), nh.load("digits201"))


def test_a_rule_with_bad_parameters_is_named(tiny_benchmark):
    with pytest.raises(nh.RunError, match=r"delta is a probability in \[0, 1\), not 2"):
        nh.run("random_search+last_value(delta=2)", tiny_benchmark, 3)


def test_trainings_that_cannot_be_looked_into_are_refused(tiny_benchmark):
    tiny_benchmark.resumable = False
    with pytest.raises(nh.RunError, match="tiny-v1 cannot be looked into"):
        nh.run("random_search+last_value", tiny_benchmark, 3)


def test_the_report_says_what_was_saved_and_lost(tmp_path):
    study = nh.compare("random_search", "digits201", 40, repetitions=12, stop="last_value(warm_up=5)")
    summary = study.summary()
    (row,) = summary.early
    runs = {(r.optimizer, r.repetition): r for r in study.runs}
    pairs = [(runs["random_search+last_value(warm_up=5)", i], runs["random_search", i]) for i in range(12)]
    assert row.saved.value == pytest.approx(np.mean([1 - a.simulated_seconds / b.simulated_seconds for a, b in pairs]))
    assert row.stopped.value == pytest.approx(np.mean([np.mean(a.trials.epochs < 6) for a, _ in pairs]))
    regrets = [a.regret(study.benchmark)[-1] - b.regret(study.benchmark)[-1] for a, b in pairs]
    assert row.regret.value == pytest.approx(100 * np.mean(regrets))
    assert 0 < row.saved.low <= row.saved.value <= row.saved.high < 1
    (sentence,) = [v for v in summary.verdicts() if "ended" in v]
    assert sentence.startswith("random_search+last_value(warm_up=5) ended ")
    page = study.report(tmp_path).read_text()
    assert "Ending trainings early" in page
    header, values = (tmp_path / "early_stopping.csv").read_text().splitlines()
    assert dict(zip(header.split(","), values.split(","), strict=True))["without"] == "random_search"
    assert not math.isnan(row.rule_seconds)


def test_a_report_without_rules_has_no_such_section(tmp_path):
    study = nh.compare("random_search", "digits201", 5, repetitions=2)
    assert "Ending trainings early" not in study.report(tmp_path).read_text()
    assert not (tmp_path / "early_stopping.csv").exists()
