"""Schedules that are made from plain data."""

import math
from typing import Any

import pytest

from sb3_dqn_ext.algorithm.schedule_specs import SCHEDULES, SYNONYMS, make_schedule
from sb3_dqn_ext.algorithm.schedules import (
    ConstantSchedule,
    ExponentialSchedule,
    GeometricSchedule,
    LinearSchedule,
    MultiplicativeSchedule,
    PiecewiseSchedule,
    Schedule,
)
from sb3_dqn_ext.errors import ArgumentError
from tests.algorithm.helpers import SCHEDULE_EXAMPLES, StepItself


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (0.2, ConstantSchedule(0.2)),
        (1, ConstantSchedule(1)),
        ({"name": "constant", "val": 0.2}, ConstantSchedule(0.2)),
        ({"name": "linear", "start": 1, "end": 0.1}, LinearSchedule(1.0, 0.1, 1.0)),
        ({"name": "linear", "start": 1, "end": 0.1, "end_fraction": 0.3}, LinearSchedule(1.0, 0.1, 0.3)),
        ({"name": "exponential", "start": 1, "end": 0, "rate": 0.1}, ExponentialSchedule(1, 0, 0.1)),
        ({"name": "geometric", "start": 10, "end": 3, "steps": 5}, GeometricSchedule(10, 3, 5, 0.0)),
        ({"name": "multiplicative", "start": 1, "end": 0, "factor": 0.9}, MultiplicativeSchedule(1, 0, 0.9)),
        ({"name": "piecewise", "points": [[0, 1.0], [10, 0.5]]}, PiecewiseSchedule(((0, 1.0), (10, 0.5)))),
    ],
)
def test_plain_data_makes_a_schedule(spec: Any, expected: Schedule) -> None:
    assert make_schedule(spec) == expected


def test_a_schedule_is_used_unchanged() -> None:
    for schedule in [*SCHEDULE_EXAMPLES, StepItself()]:
        assert make_schedule(schedule) is schedule


def test_the_spec_of_a_schedule_is_not_changed() -> None:
    spec = {"name": "linear", "start": 1.0, "end": 0.1}
    make_schedule(spec)
    assert spec == {"name": "linear", "start": 1.0, "end": 0.1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "exponental", "start": 1, "end": 0, "rate": 1}, "'exponental'.*Did you mean 'exponential'"),
        ({"name": "log_linear", "start": 1, "end": 0.1, "steps": 9}, "Did you mean 'geometric'"),
        ({"name": ["linear"]}, "is no Schedule: it has no value"),
        ({"name": "linear", "start": 1, "end": 0, "end_fractoin": 1}, "'end_fractoin'.*Did you mean 'end_fraction'"),
        ({"name": "linear", "start": 1}, "linear misses: end"),
        ({"name": "exponential"}, "exponential misses: start, end, rate"),
        ({"start": 1.0}, "has no 'name'"),
        ("linear", "schedule='linear' must be"),
        (None, "schedule=None must be"),
        (True, "val=True"),
        (math.nan, "val=nan"),
    ],
)
def test_the_error_for_an_invalid_spec_shows_a_valid_one(spec: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_schedule(spec)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("constant", {"val": math.inf}, "val=inf"),
        ("linear", {"start": "1", "end": 0}, "start='1'"),
        ("linear", {"start": 1, "end": math.nan}, "end=nan"),
        ("linear", {"start": 1, "end": 0, "end_fraction": 0}, "end_fraction=0"),
        ("linear", {"start": 1, "end": 0, "end_fraction": 1.5}, "end_fraction=1.5"),
        ("exponential", {"start": 1, "end": 0, "rate": -0.1}, "rate=-0.1"),
        ("exponential", {"start": math.inf, "end": 0, "rate": 0.1}, "start=inf"),
        ("multiplicative", {"start": 0.1, "end": 1.0, "factor": 0.9}, "end=1.0"),
        ("multiplicative", {"start": 1, "end": 0, "factor": 1.1}, "factor=1.1"),
        ("multiplicative", {"start": -1, "end": -2, "factor": 0.9}, "start=-1"),
        ("geometric", {"start": 1, "end": 0.1, "steps": 0}, "steps=0"),
        ("geometric", {"start": 1, "end": 0, "steps": 9}, "asymptote=0.0 must be below both start=1 and end=0, or above"),
        ("geometric", {"start": 0.9, "end": 1.1, "steps": 9, "asymptote": 1}, "asymptote=1 must be"),
        ("piecewise", {"points": []}, "at least one"),
        ("piecewise", {"points": [0, 1]}, "pairs"),
        ("piecewise", {"points": [[0, 1, 2]]}, "pairs"),
        ("piecewise", {"points": 3}, "pairs"),
        ("piecewise", {"points": [[10, 1], [5, 0]]}, "order"),
        ("piecewise", {"points": [[5, 1], [5, 0]]}, "order"),
        ("piecewise", {"points": [[-5, 1]]}, "step of points=-5"),
        ("piecewise", {"points": [[0, math.nan]]}, "value of points=nan"),
    ],
)
def test_an_invalid_value_raises_an_error(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SCHEDULES[name](**kwargs)


def test_every_synonym_means_a_schedule() -> None:
    assert set(SYNONYMS.values()) <= set(SCHEDULES)
    assert not set(SYNONYMS) & set(SCHEDULES)
