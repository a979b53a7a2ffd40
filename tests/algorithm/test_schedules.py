"""Schedules compared with values computed by hand, and with SB3's schedules."""

import math
import pickle
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.utils import LinearSchedule as SB3LinearSchedule

from sb3_dqn_ext.algorithm.schedules import (
    ConstantSchedule,
    ExponentialSchedule,
    GeometricSchedule,
    LinearSchedule,
    MultiplicativeSchedule,
    PiecewiseSchedule,
    ProgressSchedule,
    Schedule,
)
from sb3_dqn_ext.errors import ArgumentError
from tests.algorithm.helpers import SCHEDULE_EXAMPLES, StepItself


def sb3_progress_remaining(step: int, total_steps: int) -> float:
    """Compute the progress as BaseAlgorithm._update_current_progress_remaining does."""
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
        (GeometricSchedule(16, 4, 100), 0, 16.0),
        (GeometricSchedule(16, 4, 100), 50, 8.0),
        (GeometricSchedule(16, 4, 100), 100, 4.0),
        (GeometricSchedule(16, 4, 100), 10_000_000, 4.0),
        (GeometricSchedule(0.5, 0.875, 100, asymptote=1), 50, 0.75),  # horizons 2, 4, 8
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
def test_each_schedule_has_the_value_computed_by_hand(schedule: Schedule, step: int, expected: float) -> None:
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
    for schedule in SCHEDULE_EXAMPLES:
        assert ProgressSchedule(schedule, 0)(1.0) == schedule.value(0, 1000)


def test_constant_and_linear_are_callables_of_the_progress() -> None:
    assert ConstantSchedule(1)(0.5) == 1.0
    assert type(ConstantSchedule(1)(0.5)) is float
    assert LinearSchedule(1, 0)(0.75) == 0.75
    assert type(LinearSchedule(1, 0)(0.0)) is float


@pytest.mark.parametrize("schedule", SCHEDULE_EXAMPLES, ids=lambda schedule: type(schedule).__name__)
def test_schedules_survive_pickling(schedule: Schedule) -> None:
    bound = ProgressSchedule(schedule, 1000)
    for pickled in (pickle.loads(pickle.dumps(bound)), cloudpickle.loads(cloudpickle.dumps(bound))):
        assert pickled == bound
        assert pickled(0.4) == bound(0.4)


def test_points_from_yaml_lists_become_tuples() -> None:
    points: Any = [[0, 1.0], [10, 0.5]]
    schedule = PiecewiseSchedule(points)
    points[1][1] = 99.0
    assert schedule.points == ((0, 1.0), (10, 0.5))
    assert hash(schedule) == hash(PiecewiseSchedule(((0, 1.0), (10, 0.5))))


@pytest.mark.parametrize("total_steps", [-1, math.inf, "1000"])
def test_the_length_of_a_run_is_checked(total_steps: Any) -> None:
    with pytest.raises(ArgumentError, match="total_steps"):
        ProgressSchedule(ConstantSchedule(0.1), total_steps)
