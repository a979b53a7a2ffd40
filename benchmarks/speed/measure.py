"""
One measurement, in the process that asks for it.

Nothing heavy is imported before the clock runs: what a library needs to get ready is part of the answer.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from benchmarks.speed.workloads import Workload


class Lap(NamedTuple):
    """What the clocks show."""

    wall: float
    cpu: float
    """user and system time of all threads"""
    steps: int
    updates: int


@dataclass
class Stopwatch:
    """
    Looks at the clocks when training passes two marks.

    :param marks: environment steps at which the timed part begins and ends
    :param at_lap: called right after each look
    """

    marks: tuple[int, int]
    at_lap: Callable[[], None] = lambda: None
    laps: list[Lap] = field(default_factory=list)

    def __call__(self, steps: int, updates: int) -> None:
        if len(self.laps) < len(self.marks) and steps >= self.marks[len(self.laps)]:
            self.laps.append(Lap(time.perf_counter(), time.process_time(), steps, updates))
            self.at_lap()


class Parts:
    """
    Wraps methods in clocks, each of which stands still while another runs.

    :param model: the algorithm, of SB3 or made like it
    """

    # of the algorithm, its environment and its memory; a method that is not there is left out
    METHODS = (
        ("env", "env", "step"),
        ("act", "", "_sample_action"),
        ("store", "", "_store_transition"),
        ("sample", "replay_buffer", "sample"),
        ("sample", "replay_buffer", "sample_batch"),
        ("update", "", "train"),
    )
    NAMES = ("env", "act", "store", "sample", "update", "rest")

    def __init__(self, model: Any) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside = [0.0]
        for part, owner, method in self.METHODS:
            self._wrap(getattr(model, owner) if owner else model, method, part)

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


def measure(workload: Workload, contestant: str, seed: int) -> dict[str, float]:
    """
    :param workload: what to train
    :param contestant: who trains
    :param seed: of the networks and environments
    :return: seconds of wall and of processor time in the timed part, its steps and updates, and the seconds that came
        before it, less what the updates among them cost later
    """
    start = time.perf_counter()
    from benchmarks.speed.contestants import train

    stopwatch = _stopwatch(workload)
    train(workload, contestant, seed, stopwatch)
    begin, end = stopwatch.laps
    wall, updates = end.wall - begin.wall, end.updates - begin.updates
    return {
        "start_up_s": begin.wall - start - wall * begin.updates / updates,
        "wall_s": wall,
        "cpu_s": end.cpu - begin.cpu,
        "steps": end.steps - begin.steps,
        "updates": updates,
    }


def measure_parts(workload: Workload, contestant: str, seed: int) -> dict[str, float]:
    """
    :param workload: what to train
    :param contestant: who trains
    :param seed: of the networks and environments
    :return: microseconds per environment step of each part, over half the steps; what is in none of the methods is the rest
    """
    from benchmarks.speed.contestants import learn, make

    workload = replace(workload, steps=workload.steps // 2)
    model = make(workload, contestant, seed)
    parts = Parts(model)
    looks: list[defaultdict[str, float]] = []
    stopwatch = _stopwatch(workload)
    stopwatch.at_lap = lambda: looks.append(parts.seconds.copy())
    learn(model, workload, stopwatch)
    begin, end = stopwatch.laps
    seconds = {name: looks[1][name] - looks[0][name] for name in Parts.NAMES}
    seconds["rest"] = end.wall - begin.wall - sum(seconds.values())
    return {name: 1e6 * value / (end.steps - begin.steps) for name, value in seconds.items()}


def _stopwatch(workload: Workload) -> Stopwatch:
    return Stopwatch((workload.warm_up, workload.warm_up + workload.steps))
