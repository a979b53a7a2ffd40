"""Schedules written as plain data, for example in YAML: a number, or a name with its arguments."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from sb3_dqn_ext._validation import OpenChoice, check_number, is_dotted, number_hint
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

__all__ = ["SCHEDULE", "SCHEDULES", "ScheduleSpec", "check_range", "make_schedule"]

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": ConstantSchedule,
    "linear": LinearSchedule,
    "exponential": ExponentialSchedule,
    "geometric": GeometricSchedule,
    "multiplicative": MultiplicativeSchedule,
    "piecewise": PiecewiseSchedule,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "constant": {"name": "constant", "val": 0.1},
    "linear": {"name": "linear", "start": 1.0, "end": 0.05, "end_fraction": 0.1},
    "exponential": {"name": "exponential", "start": 1.0, "end": 0.05, "rate": 0.0001},
    "geometric": {"name": "geometric", "start": 1.0, "end": 0.05, "steps": 10_000},
    "multiplicative": {"name": "multiplicative", "start": 1.0, "end": 0.05, "factor": 0.999},
    "piecewise": {"name": "piecewise", "points": [[0, 1.0], [10_000, 0.05]]},
}
SYNONYMS = {
    "const": "constant",
    "fixed": "constant",
    "anneal": "linear",
    "annealed": "linear",
    "decay": "exponential",
    "exp": "exponential",
    "log_linear": "geometric",
    "multiply": "multiplicative",
    "interpolate": "piecewise",
    "piecewise_linear": "piecewise",
}

SCHEDULE = OpenChoice("schedule", Schedule, ("value",), SCHEDULES, SYNONYMS)  # type: ignore[type-abstract]

ScheduleSpec: TypeAlias = Schedule | type[Schedule] | float | str | Mapping[str, Any]
"""
A schedule, a constant number, or a name with its arguments: ``{"name": "linear", "start": 1.0, "end": 0.1}``. Your own
schedule is an object, a class or a dotted name, alone or as the name beside its arguments.
"""


def make_schedule(spec: ScheduleSpec) -> Schedule:
    """
    Make a schedule from its specification.

    :param spec: a number, a Schedule, a subclass of Schedule, a dotted name, or a mapping of a name and its arguments, such as
        ``{"name": "linear", "start": 1.0, "end": 0.1}``. The names in a mapping are the keys of :data:`SCHEDULES`, or dotted
        names
    :return: the schedule
    :raises ArgumentError: if the specification has another form, no schedule has this name, the schedule has no such argument,
        an argument is missing, or the value of an argument is not allowed
    """
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    if isinstance(spec, int | float | np.number):
        return ConstantSchedule(spec)
    is_number = isinstance(spec, str) and number_hint(spec) != ""
    if isinstance(spec, Schedule | type) or (is_dotted(spec) and not is_number):
        return SCHEDULE.build(spec)
    error = f"schedule={spec!r} must be a schedule, a number, or a mapping with a name."
    name = SYNONYMS.get(spec.lower(), spec.lower()) if isinstance(spec, str) else ""
    if name in EXAMPLES:
        error += f" Did you mean {EXAMPLES[name]}?"
    elif isinstance(spec, str):
        error += number_hint(spec)
    elif callable(spec):
        error += (
            " Functions of the remaining progress are for learning_rate; a schedule has a method value(step, total_steps)."
        )
    raise ArgumentError(error)


def check_range(argument: str, schedule: Schedule, low: float, high: float = math.inf) -> None:
    """
    Check that the values of a schedule are in a range.

    The points of a :class:`~sb3_dqn_ext.algorithm.schedules.PiecewiseSchedule` and the ends of the other schedules of this
    package, which are monotonic, are checked. Schedules of users are not checked.

    :param argument: the argument's name, for the message
    :param schedule: a schedule
    :param low: the smallest allowed value
    :param high: the largest allowed value
    :raises ArgumentError: if a value is out of the range
    """
    if type(schedule) is PiecewiseSchedule:
        for step, value in schedule.points:
            check_number(f"{argument} at step {step}", value, low, high)
    elif type(schedule) in SCHEDULES.values():
        for step in (0, 10**9):
            check_number(f"{argument} at step {step}", schedule.value(step, 10**9), low, high)


def _from_mapping(spec: Mapping[str, Any]) -> Schedule:
    kwargs = dict(spec)
    if "name" not in kwargs:
        raise ArgumentError(f"schedule={kwargs!r} has no 'name'; it can be one of: {', '.join(sorted(SCHEDULES))}.")
    name = kwargs.pop("name")
    return SCHEDULE.build(name, kwargs, place=f"schedule {name}")
