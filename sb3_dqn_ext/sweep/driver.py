"""Submit all runs of a sweep to an engine, and wait for them."""

import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.sweep.carried import newest_state
from sb3_dqn_ext.sweep.engine import Engine, Job
from sb3_dqn_ext.sweep.processes import LOCKED, describe_failure

__all__ = ["KILLS", "Outcome", "run_all"]

POLL_SECONDS = 0.5
KILLS = 3
"""A run is given up if it was killed as often as this without a new checkpoint."""


class Outcome(NamedTuple):
    """The end of a run."""

    folder: Path
    """the folder of the run"""
    error: str
    """the last lines of its output if it has failed; "" if it has written its row"""


def run_all(
    folders: Iterable[Path],
    engine: Engine,
    jobs: int | None,
    on_end: Callable[[Outcome], None],
    on_poll: Callable[[list[Path]], None],
) -> None:
    """
    Submit each run, several at the same time.

    A run that another process is training, such as one of a sweep that was killed, waits for the end of that process. A run
    that was killed continues. If this function ends with an exception, such as KeyboardInterrupt, the engine ends the runs.

    :param folders: the folders of the runs, with a ``task.json`` in each
    :param engine: a started engine
    :param jobs: the number of runs at the same time; None: all
    :param on_end: a function that is called at the end of each run
    :param on_poll: a function that is called every half second with the folders of the runs that are submitted
    """
    waiting = deque(folders)
    running: dict[Path, Job] = {}
    kills: Counter[tuple[Path, str]] = Counter()
    try:
        while waiting or running:
            _submit(waiting, running, engine, jobs)
            for folder, code in _take_ended(running):
                if code == LOCKED or (_was_killed(code) and _may_continue(folder, kills)):
                    waiting.append(folder)
                else:
                    on_end(Outcome(folder, "" if code == 0 else describe_failure(folder, code)))
            on_poll(list(running))
            time.sleep(POLL_SECONDS)
    finally:
        engine.close(running.values())


def _submit(waiting: "deque[Path]", running: dict[Path, Job], engine: Engine, jobs: int | None) -> None:
    """Submit runs that no process is training, as long as there are fewer than ``jobs``."""
    for _ in range(len(waiting)):
        if jobs is not None and len(running) >= jobs:
            return
        folder = waiting.popleft()
        if Lock.is_held(folder):
            waiting.append(folder)
        else:
            running[folder] = engine.submit(folder)


def _take_ended(running: dict[Path, Job]) -> list[tuple[Path, int]]:
    codes = [(folder, job.poll()) for folder, job in running.items()]
    ended = [(folder, code) for folder, code in codes if code is not None]
    for folder, _ in ended:
        del running[folder]
    return ended


def _was_killed(code: int) -> bool:
    return code < 0 or code == 128 + signal.SIGTERM  # the latter after a last checkpoint


def _may_continue(folder: Path, kills: "Counter[tuple[Path, str]]") -> bool:
    state = folder, newest_state(folder)
    kills[state] += 1
    return kills[state] < KILLS
