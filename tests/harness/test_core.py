"""Budgets."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasharness import Budget


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20000s", Budget(seconds=20000)),
        ("2h", Budget(seconds=7200)),
        ("1.5m", Budget(seconds=90)),
        ("1d", Budget(seconds=86400)),
        ("300", Budget(evaluations=300)),
        ("300 evaluations", Budget(evaluations=300)),
        ("2h,300", Budget(seconds=7200, evaluations=300)),
        ("300, 1e3s", Budget(seconds=1000, evaluations=300)),
    ],
)
def test_parse(text, expected):
    """Seconds carry a unit, evaluations do not."""
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "soon", "3 weeks", "300,400", "1s,2s", "-5", "-5s", "1.5", "0x10", "nan", "1,2,3s"]
)
def test_parse_refuses(text):
    """Anything else is refused, with the text in the message."""
    with pytest.raises(ValueError, match="cannot read the budget"):
        Budget.parse(text)


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, True, "500"])
def test_seconds_must_be_positive_and_finite(seconds):
    """Zero, negative and infinite budgets are refused."""
    with pytest.raises(ValueError, match="seconds must be positive and finite"):
        Budget(seconds=seconds)


@pytest.mark.parametrize("evaluations", [0, -3, 1.5, 10.0, True, math.inf, "3"])
def test_evaluations_must_be_whole(evaluations):
    """So are numbers of evaluations that are none."""
    with pytest.raises(ValueError, match="whole number from 1"):
        Budget(evaluations=evaluations)


@pytest.mark.parametrize("text", ["0", "0s"])
def test_parse_zero(text):
    """Zero is read, and refused for what it is."""
    with pytest.raises(ValueError, match="positive|from 1"):
        Budget.parse(text)


def test_a_number_of_evaluations_is_a_budget():
    """300 is 300 evaluations wherever a budget is taken, and never seconds by position."""
    assert Budget.of(300) == Budget.of("300") == Budget(evaluations=300)
    with pytest.raises(TypeError):
        Budget(300)


def test_a_budget_needs_a_limit():
    """No limit at all is an error."""
    with pytest.raises(ValueError, match="needs seconds, evaluations or both"):
        Budget()


def test_numpy_numbers_are_written_as_plain_ones():
    """The text of a budget is part of a study's specification."""
    assert str(Budget(seconds=np.float64(500), evaluations=np.int64(3))) == "500s,3"


@given(st.one_of(st.none(), st.integers(1, 10**9)), st.integers(1, 10**6))
def test_string_round_trip(seconds, evaluations):
    """str() of a budget can be parsed back."""
    budget = Budget(seconds=seconds and float(seconds), evaluations=evaluations)
    assert Budget.parse(str(budget)) == budget
