"""Clocks for the timed part of a training and for the parts of its steps."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.speed.workloads import Workload


class Lap(NamedTuple):
    """The clocks and counters at one moment."""

    wall: float
    cpu: float
    """The user and system time of all threads."""
    steps: int
    updates: int


@dataclass
class Stopwatch:
    """
    A stopwatch that records the clocks when training passes two marks.

    :param marks: the environment steps at which the timed part begins and ends
    :param at_lap: called after each recording
    """

    marks: tuple[int, int]
    at_lap: Callable[[], None] = lambda: None
    laps: list[Lap] = field(default_factory=list)

    @classmethod
    def of(cls, workload: Workload, at_lap: Callable[[], None] = lambda: None) -> "Stopwatch":
        """
        Make a stopwatch for the timed part of a workload.

        :param workload: the workload
        :param at_lap: called at the beginning and at the end of the timed part
        """
        return cls((workload.warm_up, workload.warm_up + workload.steps), at_lap)

    def __call__(self, steps: int, updates: int) -> None:
        if len(self.laps) < len(self.marks) and steps >= self.marks[len(self.laps)]:
            self.laps.append(Lap(time.perf_counter(), time.process_time(), steps, updates))
            self.at_lap()


class Parts:
    """
    Clocks that wrap methods of a model. A clock stops while a wrapped method runs inside its method.

    :param model: an algorithm of SB3 or a similar one
    """

    # (part, owner, method): methods of the model, its environments and its replay buffer; missing methods are skipped
    METHODS = (
        ("env", "env", "step"),
        ("act", "", "_sample_action"),
        ("store", "", "_store_transition"),
        ("sample", "replay_buffer", "sample"),
        ("sample", "replay_buffer", "sample_batch"),
        ("update", "", "train"),
    )
    NAMES = ("env", "act", "store", "sample", "update", "rest")
    FLOOR = "floor"
    """what no implementation could leave out: the environments' own step, and the compiled function; a part of the others"""

    def __init__(self, model: Any) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside = [0.0]
        env, compiled = _attribute(model, "env.backend.env"), _attribute(model, "updater.compiled")
        if env is not None:
            env.step = self._timed(env.step)
        if compiled is not None:
            make_function = compiled._compile
            compiled._compile = lambda *arguments: self._timed(make_function(*arguments))
        for part, owner, method in self.METHODS:
            # a replay buffer with both takes a slower path if its "sample" is replaced, as with a user's own method
            if method != "sample" or not hasattr(model.replay_buffer, "sample_batch"):
                self._wrap(_attribute(model, owner), method, part)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose time is a part of the floor."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[self.FLOOR] += time.perf_counter() - start

        return timed

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        method = getattr(owner, name, None)
        if method is None:
            return

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(0.0)
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - start
                self.seconds[part] += elapsed - self._inside.pop()
                self._inside[-1] += elapsed

        setattr(owner, name, timed)


def _attribute(owner: Any, path: str) -> Any:
    """Return an attribute of an attribute ..., "" for the object itself; None if one is missing."""
    for name in filter(None, path.split(".")):
        owner = getattr(owner, name, None)
    return owner
