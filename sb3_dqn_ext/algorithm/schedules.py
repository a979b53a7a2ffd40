"""
Schedules: numbers that change with the environment steps of a run, such as epsilon.

The value of a schedule depends on the step and on the number of steps of the whole run. SB3's schedules are functions of
``progress_remaining`` instead, which decreases from 1 to 0. :class:`ConstantSchedule` and :class:`LinearSchedule` can be
called like these, for example as a ``learning_rate``; :class:`ProgressSchedule` converts any schedule to such a function.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "ConstantSchedule",
    "ExponentialSchedule",
    "GeometricSchedule",
    "LinearSchedule",
    "MultiplicativeSchedule",
    "PerActionSchedule",
    "PiecewiseSchedule",
    "ProgressSchedule",
    "Schedule",
]


@runtime_checkable
class Schedule(Protocol):
    """
    A number that changes with the environment steps of a run.

    Your own class has the method :meth:`value`, and may be derived from this class. The number depends only on the arguments,
    so that checkpoints contain no state of a schedule. Its arguments are written beside its name:
    ``{"name": "my_package.MySchedule", "start": 1.0}``.
    """

    def value(self, step: int, total_steps: int) -> float:
        """
        Return the value at a step.

        :param step: environment steps taken so far, over all environments
        :param total_steps: environment steps of the whole run
        :return: the value
        """
        ...


@dataclass(frozen=True)
class ConstantSchedule:
    """
    A constant value.

    :param val: the value, named as in SB3
    :raises ArgumentError: if it is not finite
    """

    val: float

    def __post_init__(self) -> None:
        check_number("val", self.val)

    def value(self, step: int, total_steps: int) -> float:
        return float(self.val)

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at ``progress_remaining``, which is 1 at the start of the run and 0 at its end."""
        return float(self.val)


@dataclass(frozen=True)
class LinearSchedule:
    """
    A straight line over the first part of the run, then a constant, as epsilon of SB3's DQN::

        start + (end - start) * min(progress / end_fraction, 1),  progress = step / total_steps

    :param start: the value at step 0
    :param end: the last value
    :param end_fraction: the part of the run after which the value is ``end``, in (0, 1]
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
        """Return the value at ``progress_remaining``, which is 1 at the start of the run and 0 at its end."""
        # the same order of operations as in SB3's LinearSchedule, so that the results have the same bits
        progress = 1 - progress_remaining
        if progress > self.end_fraction:
            return float(self.end)
        return float(self.start + progress * (self.end - self.start) / self.end_fraction)


@dataclass(frozen=True)
class ExponentialSchedule:
    """
    An exponential decay, independent of the length of the run: ``end + (start - end) * exp(-rate * step)``.

    :param start: the value at step 0
    :param end: the limit of the value
    :param rate: the decay per environment step, not negative; the distance to ``end`` decreases to 37 % in ``1 / rate`` steps
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
    A geometric decay to a minimum, independent of the length of the run: ``max(end, start * factor**step)``.

    :param start: the value at step 0
    :param end: the minimum, not above ``start``
    :param factor: the factor of each environment step, in [0, 1]
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
class GeometricSchedule:
    """
    A geometric change from one value to another in a number of steps, then a constant::

        asymptote + (start - asymptote) * ((end - asymptote) / (start - asymptote))**min(step / steps, 1)

    With ``asymptote=1``, the horizon ``1 / (1 - gamma)`` of a discount factor changes geometrically.

    :param start: the value at step 0
    :param end: the value from step ``steps`` on
    :param steps: the number of steps in which the value changes
    :param asymptote: the value whose distance is multiplied, below both other values or above both
    :raises ArgumentError: if a value is not finite or out of its range
    """

    start: float
    end: float
    steps: int
    asymptote: float = 0.0

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("end", self.end)
        check_number("steps", self.steps, low=1, integer=True)
        check_number("asymptote", self.asymptote)
        if (self.start - self.asymptote) * (self.end - self.asymptote) <= 0:
            raise ArgumentError(
                f"asymptote={self.asymptote!r} must be below both start={self.start!r} and end={self.end!r}, or above both."
            )

    def value(self, step: int, total_steps: int) -> float:
        if step >= self.steps:
            return float(self.end)
        ratio = (self.end - self.asymptote) / (self.start - self.asymptote)
        return float(self.asymptote + (self.start - self.asymptote) * ratio ** (step / self.steps))


@dataclass(frozen=True)
class PiecewiseSchedule:
    """
    Linear interpolation between points, independent of the length of the run.

    The value is constant before the first point and after the last one.

    :param points: ``((step, value), ...)`` in the order of their steps, at least one point; tuples or lists
    :raises ArgumentError: if there is no point, one is not a pair of finite numbers, or they are not in order
    """

    points: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _pairs(self.points))

    def value(self, step: int, total_steps: int) -> float:
        steps, values = zip(*self.points, strict=True)
        return float(np.interp(step, steps, values))


def _pairs(points: Any) -> tuple[tuple[float, float], ...]:
    """Convert the points of a :class:`PiecewiseSchedule` to tuples, and check them."""
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
class PerActionSchedule:
    """
    A schedule whose steps are the actions of each environment, instead of environment steps over all environments.

    Greedy and exploratory actions count; the random actions of the warm-up do not. Therefore, the schedule does not depend on
    the number of environments or on the length of the warm-up.

    :param schedule: the schedule, as a function of the actions of one environment
    :param learning_starts: environment steps of the warm-up, over all environments
    :param n_envs: the number of environments
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
    A schedule as a function of ``progress_remaining``, as SB3 requires it, for example for ``model.exploration_schedule``.

    It refers to the length of the run and not to the model, so that a model that refers to it can be saved.

    :param schedule: the schedule
    :param total_steps: environment steps of the whole run; as in SB3's ``learn``, it can be 0, or a float such as 1e5
    :raises ArgumentError: if ``total_steps`` is negative or not finite
    """

    schedule: Schedule
    total_steps: int

    def __post_init__(self) -> None:
        check_number("total_steps", self.total_steps, low=0)

    def __call__(self, progress_remaining: float) -> float:
        """Return the value at ``progress_remaining``, which is 1 at the start of the run and 0 at its end."""
        step = round((1 - progress_remaining) * self.total_steps)
        return self.schedule.value(step, self.total_steps)
