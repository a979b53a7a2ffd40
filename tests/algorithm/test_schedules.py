"""Schedules against values worked out by hand, and against SB3's own."""

import math
import pickle
from dataclasses import dataclass
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.utils import LinearSchedule as SB3LinearSchedule

from sb3_dqn_ext.algorithm.schedules import (
    SCHEDULES,
    SYNONYMS,
    ConstantSchedule,
    ExponentialSchedule,
    LinearSchedule,
    MultiplicativeSchedule,
    PiecewiseSchedule,
    ProgressSchedule,
    Schedule,
    make_schedule,
)
from sb3_dqn_ext.errors import ArgumentError

EXAMPLES: list[Schedule] = [
    ConstantSchedule(0.3),
    LinearSchedule(1.0, 0.1, 0.5),
    ExponentialSchedule(1.0, 0.05, 1e-3),
    MultiplicativeSchedule(1.0, 0.01, 0.99),
    PiecewiseSchedule(((0, 1.0), (100, 0.5), (300, 0.1))),
]


@dataclass(frozen=True)
class StepItself:
    """The schedule whose value is the step."""

    def value(self, step: int, total_steps: int) -> float:
        return float(step)


def sb3_progress_remaining(step: int, total_steps: int) -> float:
    """As BaseAlgorithm._update_current_progress_remaining computes it."""
    return 1.0 - float(step) / float(total_steps)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        (ConstantSchedule(0.3), 0, 0.3),
        (ConstantSchedule(0.3), 999, 0.3),
        (LinearSchedule(1.0, 0.0), 250, 0.75),
        (LinearSchedule(1.0, 0.0), 1000, 0.0),
        (LinearSchedule(1.0, 0.2, 0.5), 0, 1.0),
        (LinearSchedule(1.0, 0.2, 0.5), 250, 0.6),  # half of the half
        (LinearSchedule(1.0, 0.2, 0.5), 500, 0.2),
        (LinearSchedule(1.0, 0.2, 0.5), 501, 0.2),
        (LinearSchedule(0.0, 1.0, 0.1), 50, 0.5),  # it may rise
        (ExponentialSchedule(1.0, 0.1, 0.01), 0, 1.0),
        (ExponentialSchedule(1.0, 0.1, 0.01), 100, 0.43109149705429815),  # 0.1 + 0.9 / e
        (ExponentialSchedule(1.0, 0.1, 0.0), 100, 1.0),
        (MultiplicativeSchedule(0.8, 0.05, 0.5), 0, 0.8),
        (MultiplicativeSchedule(0.8, 0.05, 0.5), 3, 0.1),
        (MultiplicativeSchedule(0.8, 0.05, 0.5), 4, 0.05),
        (MultiplicativeSchedule(0.8, 0.05, 0.5), 10_000_000, 0.05),
        (PiecewiseSchedule(((10, 1.0), (30, 0.5), (130, 0.0))), 0, 1.0),
        (PiecewiseSchedule(((10, 1.0), (30, 0.5), (130, 0.0))), 10, 1.0),
        (PiecewiseSchedule(((10, 1.0), (30, 0.5), (130, 0.0))), 20, 0.75),
        (PiecewiseSchedule(((10, 1.0), (30, 0.5), (130, 0.0))), 30, 0.5),
        (PiecewiseSchedule(((10, 1.0), (30, 0.5), (130, 0.0))), 55, 0.375),
        (PiecewiseSchedule(((10, 1.0), (30, 0.5), (130, 0.0))), 1000, 0.0),
        (PiecewiseSchedule(((10, 0.7),)), 500, 0.7),
    ],
)
def test_each_schedule_has_the_value_worked_out_by_hand(schedule: Schedule, step: int, expected: float) -> None:
    value = schedule.value(step, 1000)
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-15)


@settings(deadline=None)
@given(
    start=st.floats(-2, 2),
    end=st.floats(-2, 2),
    end_fraction=st.floats(1e-6, 1),
    total_steps=st.integers(1, 10_000_000),
    data=st.data(),
)
def test_linear_has_the_bits_of_sb3(start: float, end: float, end_fraction: float, total_steps: int, data: Any) -> None:
    step = data.draw(st.integers(0, total_steps + 32))  # several environments may step past the end
    progress_remaining = sb3_progress_remaining(step, total_steps)
    expected = SB3LinearSchedule(start, end, end_fraction)(progress_remaining)
    schedule = LinearSchedule(start, end, end_fraction)
    assert schedule.value(step, total_steps) == expected
    assert schedule(progress_remaining) == expected
    assert ProgressSchedule(schedule, total_steps)(progress_remaining) == expected


def test_linear_has_the_bits_of_sb3_at_every_step_of_a_run() -> None:
    ours, theirs = LinearSchedule(1.0, 0.05, 0.1), SB3LinearSchedule(1.0, 0.05, 0.1)
    for total_steps in (1, 7, 1000, 12_345):
        for step in range(total_steps + 1):
            assert ours.value(step, total_steps) == theirs(sb3_progress_remaining(step, total_steps))


@settings(deadline=None)
@given(total_steps=st.integers(1, 10_000_000), data=st.data())
def test_every_step_is_recovered_from_the_progress(total_steps: int, data: Any) -> None:
    step = data.draw(st.integers(0, total_steps + 32))
    recovered = ProgressSchedule(StepItself(), total_steps)(sb3_progress_remaining(step, total_steps))
    assert recovered == step


def test_a_run_of_no_steps_has_the_first_value() -> None:
    for schedule in EXAMPLES:
        assert ProgressSchedule(schedule, 0)(1.0) == schedule.value(0, 1000)


def test_constant_and_linear_are_callables_of_the_progress() -> None:
    assert ConstantSchedule(1)(0.5) == 1.0
    assert type(ConstantSchedule(1)(0.5)) is float
    assert LinearSchedule(1, 0)(0.75) == 0.75
    assert type(LinearSchedule(1, 0)(0.0)) is float


@pytest.mark.parametrize("schedule", EXAMPLES, ids=lambda schedule: type(schedule).__name__)
def test_schedules_survive_pickling(schedule: Schedule) -> None:
    bound = ProgressSchedule(schedule, 1000)
    for pickled in (pickle.loads(pickle.dumps(bound)), cloudpickle.loads(cloudpickle.dumps(bound))):
        assert pickled == bound
        assert pickled(0.4) == bound(0.4)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (0.2, ConstantSchedule(0.2)),
        (1, ConstantSchedule(1)),
        ({"name": "constant", "val": 0.2}, ConstantSchedule(0.2)),
        ({"name": "linear", "start": 1, "end": 0.1}, LinearSchedule(1.0, 0.1, 1.0)),
        ({"name": "linear", "start": 1, "end": 0.1, "end_fraction": 0.3}, LinearSchedule(1.0, 0.1, 0.3)),
        ({"name": "exponential", "start": 1, "end": 0, "rate": 0.1}, ExponentialSchedule(1, 0, 0.1)),
        ({"name": "multiplicative", "start": 1, "end": 0, "factor": 0.9}, MultiplicativeSchedule(1, 0, 0.9)),
        ({"name": "piecewise", "points": [[0, 1.0], [10, 0.5]]}, PiecewiseSchedule(((0, 1.0), (10, 0.5)))),
    ],
)
def test_plain_data_makes_a_schedule(spec: Any, expected: Schedule) -> None:
    assert make_schedule(spec) == expected


def test_a_schedule_is_taken_as_it_is() -> None:
    for schedule in [*EXAMPLES, StepItself()]:
        assert make_schedule(schedule) is schedule


def test_points_from_yaml_lists_become_tuples() -> None:
    points: Any = [[0, 1.0], [10, 0.5]]
    schedule = PiecewiseSchedule(points)
    points[1][1] = 99.0
    assert schedule.points == ((0, 1.0), (10, 0.5))
    assert hash(schedule) == hash(PiecewiseSchedule(((0, 1.0), (10, 0.5))))


def test_the_spec_of_a_schedule_is_not_changed() -> None:
    spec = {"name": "linear", "start": 1.0, "end": 0.1}
    make_schedule(spec)
    assert spec == {"name": "linear", "start": 1.0, "end": 0.1}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "exponental", "start": 1, "end": 0, "rate": 1}, "'exponental'.*Did you mean 'exponential'"),
        ({"name": "geometric", "start": 1, "end": 0, "factor": 1}, "Did you mean 'multiplicative'"),
        ({"name": ["linear"]}, "schedule=.*is not known"),
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
def test_a_wrong_spec_says_what_would_be_right(spec: Any, message: str) -> None:
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
def test_a_value_that_cannot_be_is_refused(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SCHEDULES[name](**kwargs)


@pytest.mark.parametrize("total_steps", [-1, math.inf, "1000"])
def test_the_length_of_a_run_is_checked(total_steps: Any) -> None:
    with pytest.raises(ArgumentError, match="total_steps"):
        ProgressSchedule(ConstantSchedule(0.1), total_steps)


def test_every_synonym_stands_for_a_schedule() -> None:
    assert set(SYNONYMS.values()) <= set(SCHEDULES)
    assert not set(SYNONYMS) & set(SCHEDULES)
