"""Schedules that several tests use."""

from dataclasses import dataclass

from sb3_dqn_ext.algorithm.schedules import (
    ConstantSchedule,
    ExponentialSchedule,
    GeometricSchedule,
    LinearSchedule,
    MultiplicativeSchedule,
    PiecewiseSchedule,
    Schedule,
)

SCHEDULE_EXAMPLES: list[Schedule] = [
    ConstantSchedule(0.3),
    LinearSchedule(1.0, 0.1, 0.5),
    ExponentialSchedule(1.0, 0.05, 1e-3),
    GeometricSchedule(1.0, 0.05, 200),
    MultiplicativeSchedule(1.0, 0.01, 0.99),
    PiecewiseSchedule(((0, 1.0), (100, 0.5), (300, 0.1))),
]


@dataclass(frozen=True)
class StepItself:
    """The schedule whose value is the step."""

    def value(self, step: int, total_steps: int) -> float:
        return float(step)
