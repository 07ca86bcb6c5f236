"""DARTS+: when it stops, and resuming."""

from __future__ import annotations

import io

import pytest
import torch
from tiny_supernets import make

import nasharness as nh
from nasharness.benchmarks.spaces.nasbench201 import CONV1, CONV3, SKIP
from nasharness.optimizers.darts_plus import DARTSPlus


def _with(search, *skips, order=(CONV3, CONV1)):
    """Parameters under which so many edges would be skip connections, and convolutions rank in an order."""
    search.prepare()
    with torch.no_grad():
        search.alphas[0].zero_()
        search.alphas[0][:, order[0]] = 2.0
        search.alphas[0][:, order[1]] = 1.0
        for edge in skips:
            search.alphas[0][edge, SKIP] = 3.0


def _epoch(search):
    search.epoch += 1
    return search.end_epoch()


def test_two_skip_connections_stop_it():
    search = make(DARTSPlus, epochs=9, start_epoch=2)
    _with(search, 0, 4)
    _epoch(search)
    assert not search.stopped  # too early to look
    _with(search, 4)
    _epoch(search)
    assert not search.stopped
    _with(search, 1, 4)
    entry = _epoch(search)
    assert search.stopped
    assert entry["normal_skips"] == 2.0
    with pytest.raises(nh.SearchFinished):
        search.ask()


def test_the_ranking_counts_operations_with_weights_alone():
    search = make(DARTSPlus)
    _with(search, 0, 1)
    assert search.ranking() == [[[CONV3, CONV1]] * 6]


def test_a_settled_ranking_stops_it():
    search = make(DARTSPlus, epochs=99, criterion="stable", patience=3)
    _with(search, 0, 1, 2)  # which this criterion does not mind
    unchanged = [_epoch(search)["unchanged"] for _ in range(3)]
    _with(search, order=(CONV1, CONV3))
    unchanged += [_epoch(search)["unchanged"] for _ in range(3)]
    assert unchanged == [0, 1, 2, 0, 1, 2]
    assert not search.stopped
    assert _epoch(search)["stopped"] == 1.0


def test_either_criterion():
    for skips, patience in (((0, 1), 99), ((), 1)):
        search = make(DARTSPlus, epochs=99, criterion="either", start_epoch=0, patience=patience)
        _with(search, *skips)
        _epoch(search)
        _epoch(search)
        assert search.stopped


@pytest.mark.parametrize("n", [1, 2])
def test_a_resumed_search_ends_the_same(n):
    """It stops after two epochs, when the ranking of the first is found again or not at all."""
    given = {"epochs": 3, "criterion": "stable", "patience": 1, "alpha_learning_rate": 0.0, "alpha_init": 1.0}
    whole, first, second = (make(DARTSPlus, **given) for _ in range(3))
    expected = [whole.ask().arch, whole.ask().arch]
    assert whole.stopped
    found = [first.ask().arch for _ in range(n)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    found += [second.ask().arch for _ in range(2 - n)]
    assert found == expected
    with pytest.raises(nh.SearchFinished):
        second.ask()
    assert all(
        torch.equal(a, b) for a, b in zip(whole.supernet.parameters(), second.supernet.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"criterion": "skip"}, "criterion is one of skips, stable, either, not 'skip'"),
        ({"skips": 0}, "skips must be a whole number from 1, not 0"),
        ({"patience": 0}, "patience must be a whole number from 1, not 0"),
        ({"start_epoch": -1}, "start_epoch must be a whole number from 0, not -1"),
    ],
)
def test_bad_hyper_parameters(given, message):
    with pytest.raises(ValueError, match=message):
        make(DARTSPlus, **given)
