"""
Schedules: a number that changes with the environment steps taken so far, e.g. epsilon.

A schedule says its value for a step and the number of steps of the whole run. SB3 instead hands ``progress_remaining``, which
falls from 1 to 0, to a callable: :class:`ConstantSchedule` and :class:`LinearSchedule` depend on nothing else and are such
callables too, so that they can be a ``learning_rate``; :class:`ProgressSchedule` makes one of any schedule.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from sb3_dqn_ext._validation import as_number, check_keys, check_number, choose
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "SCHEDULES",
    "ConstantSchedule",
    "ExponentialSchedule",
    "LinearSchedule",
    "MultiplicativeSchedule",
    "PerAction",
    "PiecewiseSchedule",
    "ProgressSchedule",
    "Schedule",
    "ScheduleSpec",
    "check_range",
    "make_schedule",
]


@runtime_checkable
class Schedule(Protocol):
    """A number that changes with the environment steps."""

    def value(self, step: int, total_steps: int) -> float:
        """
        :param step: environment steps taken so far, over all environments
        :param total_steps: environment steps of the whole run
        :return: the number
        """
        ...


@dataclass(frozen=True)
class ConstantSchedule:
    """
    Always the same value.

    :param val: the value, named as in SB3
    :raises ArgumentError: if it is not finite
    """

    val: float

    def __post_init__(self) -> None:
        check_number("val", self.val)

    def value(self, step: int, total_steps: int) -> float:
        return float(self.val)

    def __call__(self, progress_remaining: float) -> float:
        """:param progress_remaining: 1 at the start of the run, 0 at its end"""
        return float(self.val)


@dataclass(frozen=True)
class LinearSchedule:
    """
    From ``start`` to ``end`` in a straight line over the first ``end_fraction`` of the run, then ``end``, as SB3's DQN does.

    :param start: value at step 0
    :param end: last value
    :param end_fraction: part of the run after which ``end`` is reached, in (0, 1]
    :raises ArgumentError: if a value is not finite, or ``end_fraction`` is out of its range
    """

    start: float
    end: float
    end_fraction: float = 1.0

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("end", self.end)
        check_number("end_fraction", self.end_fraction, 0, 1)
        if self.end_fraction == 0:
            raise ArgumentError("end_fraction=0 must be greater than 0: for one value from the first step on, use a constant.")

    def value(self, step: int, total_steps: int) -> float:
        return self(1.0 - float(step) / max(float(total_steps), 1.0))

    def __call__(self, progress_remaining: float) -> float:
        """:param progress_remaining: 1 at the start of the run, 0 at its end"""
        # The order of the operations is that of SB3's LinearSchedule, which makes the bits the same.
        progress = 1 - progress_remaining
        if progress > self.end_fraction:
            return float(self.end)
        return float(self.start + progress * (self.end - self.start) / self.end_fraction)


@dataclass(frozen=True)
class ExponentialSchedule:
    """
    ``end + (start - end) * exp(-rate * step)``, whatever the length of the run.

    :param start: value at step 0
    :param end: value that is approached
    :param rate: decay per environment step, not negative; the distance to ``end`` falls to 37 % in ``1 / rate`` steps
    :raises ArgumentError: if a value is not finite, or ``rate`` is negative
    """

    start: float
    end: float
    rate: float

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("end", self.end)
        check_number("rate", self.rate, low=0)

    def value(self, step: int, total_steps: int) -> float:
        return float(self.end + (self.start - self.end) * math.exp(-self.rate * step))


@dataclass(frozen=True)
class MultiplicativeSchedule:
    """
    ``max(end, start * factor**step)``, whatever the length of the run.

    :param start: value at step 0
    :param end: lowest value, not above ``start``
    :param factor: what each environment step multiplies the value by, in [0, 1]
    :raises ArgumentError: if a value is not finite or out of its range
    """

    start: float
    end: float
    factor: float

    def __post_init__(self) -> None:
        check_number("start", self.start, low=0)
        check_number("end", self.end, high=self.start)
        check_number("factor", self.factor, 0, 1)

    def value(self, step: int, total_steps: int) -> float:
        return float(max(self.end, self.start * self.factor**step))


@dataclass(frozen=True)
class PiecewiseSchedule:
    """
    Straight lines between points, flat before the first and after the last, whatever the length of the run.

    :param points: ``((step, value), ...)`` in the order of their steps, at least one; lists are taken as well
    :raises ArgumentError: if there is no point, one is not a pair of finite numbers, or they are not in order
    """

    points: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _pairs(self.points))

    def value(self, step: int, total_steps: int) -> float:
        steps, values = zip(*self.points, strict=True)
        return float(np.interp(step, steps, values))


def _pairs(points: Any) -> tuple[tuple[float, float], ...]:
    """``points`` as tuples, if they can be the points of a :class:`PiecewiseSchedule`."""
    try:
        pairs = tuple((step, value) for step, value in points)
    except (TypeError, ValueError):
        raise ArgumentError(f"points={points!r} must be pairs (step, value).") from None
    if not pairs:
        raise ArgumentError(f"points={points!r} must hold at least one pair (step, value).")
    for step, value in pairs:
        check_number("a step of points", step, low=0)
        check_number("a value of points", value)
    if any(step >= after for (step, _), (after, _) in itertools.pairwise(pairs)):
        raise ArgumentError(f"points={points!r} must be in the order of their steps, each step once.")
    return pairs


@dataclass(frozen=True)
class PerAction:
    """
    A schedule whose steps are the actions that each environment has chosen, in place of environment steps over all of them.

    An action counts whether it was greedy or not. The random actions of the warm-up were not chosen; they do not count.
    So the schedule is the same for every number of environments, and for every length of the warm-up.

    :param schedule: the schedule
    :param learning_starts: environment steps of the warm-up, over all environments
    :param n_envs: number of environments
    """

    schedule: Schedule
    learning_starts: float
    n_envs: int

    def value(self, step: int, total_steps: int) -> float:
        return self.schedule.value(self._actions(step), self._actions(total_steps))

    def _actions(self, step: int) -> int:
        return max(0, int(step) // self.n_envs - math.ceil(self.learning_starts / self.n_envs))


@dataclass(frozen=True)
class ProgressSchedule:
    """
    Any schedule as the callable of ``progress_remaining`` that SB3 expects, e.g. as ``model.exploration_schedule``.

    It knows the length of the run and not the model, so that a model which holds it can be saved.

    :param schedule: the schedule
    :param total_steps: environment steps of the whole run; like SB3's ``learn``, it may also be 0, or a float such as 1e5
    :raises ArgumentError: if ``total_steps`` is negative or not finite
    """

    schedule: Schedule
    total_steps: int

    def __post_init__(self) -> None:
        check_number("total_steps", self.total_steps, low=0)

    def __call__(self, progress_remaining: float) -> float:
        """:param progress_remaining: 1 at the start of the run, 0 at its end"""
        step = round((1 - progress_remaining) * self.total_steps)
        return self.schedule.value(step, self.total_steps)


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
        error += as_number(spec)
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
