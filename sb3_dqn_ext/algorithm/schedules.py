"""
Schedules: a number that changes with the environment steps taken so far, e.g. epsilon.

A schedule has a value for a step and the number of steps of the whole run. SB3 instead calls a function of
``progress_remaining``, which falls from 1 to 0. :class:`ConstantSchedule` and :class:`LinearSchedule` depend on nothing else
and can be called so too, for example as a ``learning_rate``; :class:`ProgressSchedule` makes such a function of any schedule.
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
    "LinearSchedule",
    "MultiplicativeSchedule",
    "PerActionSchedule",
    "PiecewiseSchedule",
    "ProgressSchedule",
    "Schedule",
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
class PerActionSchedule:
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

    It holds the length of the run and not the model, so that a model which holds it can be saved.

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
