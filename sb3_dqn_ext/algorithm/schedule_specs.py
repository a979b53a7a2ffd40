"""Schedules by name, as YAML has them: a number, or a name with its arguments."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from sb3_dqn_ext._validation import check_keys, check_number, choose, number_hint
from sb3_dqn_ext.algorithm.schedules import (
    ConstantSchedule,
    ExponentialSchedule,
    LinearSchedule,
    MultiplicativeSchedule,
    PiecewiseSchedule,
    Schedule,
)
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["SCHEDULES", "ScheduleSpec", "check_range", "make_schedule"]

SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": ConstantSchedule,
    "linear": LinearSchedule,
    "exponential": ExponentialSchedule,
    "multiplicative": MultiplicativeSchedule,
    "piecewise": PiecewiseSchedule,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "constant": {"name": "constant", "val": 0.1},
    "linear": {"name": "linear", "start": 1.0, "end": 0.05, "end_fraction": 0.1},
    "exponential": {"name": "exponential", "start": 1.0, "end": 0.05, "rate": 0.0001},
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
    "geometric": "multiplicative",
    "multiply": "multiplicative",
    "interpolate": "piecewise",
    "piecewise_linear": "piecewise",
}

ScheduleSpec: TypeAlias = Schedule | float | Mapping[str, Any]
"""A schedule, a number that never changes, or a name with its arguments: ``{"name": "linear", "start": 1.0, "end": 0.1}``"""


def make_schedule(spec: ScheduleSpec) -> Schedule:
    """
    :param spec: see :data:`ScheduleSpec`; the names are the keys of :data:`SCHEDULES`
    :return: the schedule
    :raises ArgumentError: if there is no such name or argument, an argument is missing, or its value cannot be
    """
    if isinstance(spec, Schedule):
        return spec
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    if isinstance(spec, int | float | np.number):
        return ConstantSchedule(spec)
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
    :param argument: the argument's name, for the message
    :param schedule: a schedule; those of this module rise or fall from the first value to the last, others are not checked
    :param low: smallest allowed value
    :param high: largest allowed value
    :raises ArgumentError: if its values leave the range
    """
    if type(schedule) in SCHEDULES.values():
        for step in (0, 10**9):
            check_number(f"{argument} at step {step}", schedule.value(step, 10**9), low, high)


def _from_mapping(spec: Mapping[str, Any]) -> Schedule:
    kwargs = dict(spec)
    if "name" not in kwargs:
        raise ArgumentError(f"schedule={kwargs!r} has no 'name'; it can be one of: {', '.join(sorted(SCHEDULES))}.")
    name = kwargs.pop("name")
    schedule = choose("schedule", name, SCHEDULES, SYNONYMS)
    parameters = inspect.signature(schedule).parameters
    check_keys(f"schedule {name}", kwargs, parameters)
    missing = [key for key, parameter in parameters.items() if parameter.default is parameter.empty and key not in kwargs]
    if missing:
        raise ArgumentError(f"schedule {name} misses: {', '.join(missing)}.")
    return schedule(**kwargs)
