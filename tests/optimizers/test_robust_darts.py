"""RobustDARTS: the rule on made-up eigenvalues, the return with more weight decay, and resuming."""

from __future__ import annotations

import io

import pytest
import torch
from tiny_supernets import make

import nasharness as nh
from nasharness.optimizers import robust_darts
from nasharness.optimizers.robust_darts import RobustDARTS, local_average, sharpened

_QUICK = {"window": 1, "delta": 1, "start_epoch": 0, "hessian_images": 4, "epochs": 4}


def _tracker(values, *, start, factor=1.3, window=5, delta=4):
    """The rule of the published code, written down as it runs: an average per epoch from the third on."""
    averages, stop = [], None
    for epoch in range(len(values)):
        seen = values[: epoch + 1]
        if len(seen) >= 3:
            averages.append(sum(seen[-window:]) / len(seen[-window:]))
        stop = None
        if epoch - 2 - delta >= start and averages[-1] / averages[-1 - delta] > factor:
            stop = epoch - 2 - delta
    return stop


def test_the_rule_is_that_of_the_published_code():
    values = [1.0, 2.0, 1.5, 1.2, 1.1, 1.3, 1.0, 1.4, 1.9, 2.2, 2.0, 1.0, 0.5, 0.4, 3.0, 2.9]
    found = []
    for n in range(1, len(values) + 1):
        found.append(sharpened(values[:n], window=5, delta=4, factor=1.3, start=0))
        assert found[-1] == _tracker(values[:n], start=0)
    assert any(f is not None for f in found)
    assert found[9] is None
    assert found[10] == 4


def test_the_rule_by_hand():
    """Averages over three: 1, 1, 1, 4/3, 5/3; the last over the one two before is 5/3."""
    values = [1.0, 1.0, 1.0, 2.0, 2.0]
    assert local_average(values, 4, 3) == pytest.approx(5 / 3)
    assert local_average(values, 1, 3) == 1.0
    assert sharpened(values, window=3, delta=2, factor=1.6, start=0) == 1
    assert sharpened(values, window=3, delta=2, factor=1.7, start=0) is None
    assert sharpened(values, window=3, delta=2, factor=1.6, start=2) is None
    assert sharpened([0.0, 1.0], window=1, delta=1, factor=1.3, start=0) is None


def _scripted(monkeypatch, values):
    waiting = iter(values)
    monkeypatch.setattr(robust_darts, "architecture_hessian", lambda *given: None)  # slow, and not looked at
    monkeypatch.setattr(robust_darts, "largest_eigenvalue", lambda matrix: next(waiting))


def test_it_stops_with_the_earlier_architecture(monkeypatch):
    _scripted(monkeypatch, [1.0, 1.0, 2.0])
    search = make(RobustDARTS, **_QUICK)
    proposals = [search.ask().arch for _ in range(3)]
    assert proposals[2] == proposals[1]
    assert search.log[-1]["stopped"] == 1.0
    with pytest.raises(nh.SearchFinished):
        search.ask()


def test_the_last_epoch_does_not_go_back(monkeypatch):
    _scripted(monkeypatch, [1.0, 1.0, 1.0, 9.0])
    search = make(RobustDARTS, **_QUICK)
    for _ in range(4):
        search.ask()
    assert not search.stopped


def test_watching_changes_nothing_but_the_log(monkeypatch):
    _scripted(monkeypatch, [1.0, 9.0, 90.0, 900.0])
    search = make(RobustDARTS, **_QUICK, variant="watch")
    for _ in range(4):
        search.ask()
    assert [entry["eigenvalue"] for entry in search.log] == [1.0, 9.0, 90.0, 900.0]


def test_the_adaptive_variant_returns_with_more_weight_decay(monkeypatch):
    """Sharp after the second epoch: back to the end of the first. The second time the limit of the decay is reached."""
    _scripted(monkeypatch, [1.0, 2.0, 4.0, 4.0, 4.0])
    search = make(RobustDARTS, **_QUICK, variant="adaptive", weight_decay=1e-3, max_weight_decay=5e-3)
    search.ask()
    kept = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    alphas = search.alphas[0].detach().clone()
    arch = search.ask().arch
    assert search.epoch == 1
    assert search.eigenvalues == [1.0]
    assert search.recipe.weight_decay == pytest.approx(3e-3)
    assert search.weight_optimizer.param_groups[0]["weight_decay"] == pytest.approx(3e-3)
    assert all(torch.equal(value, kept[name]) for name, value in search.supernet.state_dict().items())
    assert torch.equal(search.alphas[0], alphas)
    assert arch == search.propose()
    rest = 0
    with pytest.raises(nh.SearchFinished):
        while True:
            search.ask()
            rest += 1
    assert rest == 3  # epochs 2 to 4; 4 / 1 was sharp again, but the decay grows no further
    assert [entry["epoch"] for entry in search.log] == [1, 2, 2, 3, 4]


def _resumed_after(n, values, monkeypatch, **given):
    _scripted(monkeypatch, values)
    whole = make(RobustDARTS, **_QUICK, **given)
    expected = []
    with pytest.raises(nh.SearchFinished):
        while True:
            expected.append(whole.ask().arch)
    _scripted(monkeypatch, values)
    first, second = (make(RobustDARTS, **_QUICK, **given) for _ in range(2))
    found = [first.ask().arch for _ in range(n)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    with pytest.raises(nh.SearchFinished):
        while True:
            found.append(second.ask().arch)
    assert found == expected
    assert torch.equal(whole.alphas[0], second.alphas[0])
    for a, b in zip(whole.supernet.parameters(), second.supernet.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [e["loss"] for e in whole.log] == [e["loss"] for e in second.log]


@pytest.mark.parametrize("n", [1, 2])
def test_a_resumed_adaptive_search_ends_the_same(n, monkeypatch):
    """Before the return, right after it, and later."""
    _resumed_after(n, [1.0, 2.0, 1.0, 1.0, 1.0], monkeypatch, variant="adaptive", weight_decay=1e-3)


@pytest.mark.parametrize("n", [2, 3])
def test_a_resumed_early_stopped_search_ends_the_same(n, monkeypatch):
    _resumed_after(n, [1.0, 1.0, 2.0], monkeypatch)


def test_the_eigenvalue_is_that_of_the_supernet():
    """Not scripted: positive, finite, and the same for the same seed."""
    found = [make(RobustDARTS, epochs=1, hessian_images=4) for _ in range(2)]
    archs = [search.ask().arch for search in found]
    assert archs[0] == archs[1]
    assert found[0].eigenvalues == found[1].eigenvalues
    assert 0 < found[0].eigenvalues[0] < 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"variant": "ada"}, "variant is one of early_stop, adaptive, watch, not 'ada'"),
        ({"window": 0}, "window must be a whole number from 1, not 0"),
        ({"delta": 1.5}, "delta must be a whole number from 1, not 1.5"),
        ({"start_epoch": -1}, "start_epoch must be a whole number from 0, not -1"),
        ({"hessian_images": 1}, "hessian_images must be a whole number from 2, not 1"),
        ({"factor": 0.0}, "factor must be a positive number, not 0.0"),
        ({"decay_factor": 1.0}, "decay_factor must be above 1, not 1.0"),
        ({"max_weight_decay": -1.0}, "max_weight_decay must be a finite number from 0, not -1.0"),
        ({"order": 0}, "order is 1 or 2"),
    ],
)
def test_bad_hyper_parameters(given, message):
    with pytest.raises(ValueError, match=message):
        make(RobustDARTS, **given)


def test_a_second_return_goes_no_further_back_than_the_first(monkeypatch):
    """Epochs counted from 0: sharp after 5, so back to 2; sharp after 3, which would be back to 0."""
    _scripted(monkeypatch, [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    given = {**_QUICK, "delta": 3, "epochs": 8}
    search = make(RobustDARTS, **given, variant="adaptive", weight_decay=1e-3, max_weight_decay=1e-2)
    with pytest.raises(nh.SearchFinished):
        while True:
            search.ask()
    assert search.recipe.weight_decay == pytest.approx(9e-3)
    assert [entry["epoch"] for entry in search.log] == [1, 2, 3, 4, 5, 6, 4, 4, 5, 6, 7, 8]
