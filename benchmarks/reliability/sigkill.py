"""A training that is killed several times at random moments."""

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.reliability.folders import find_unreadable, newest_step, unfinished_files
from benchmarks.reliability.process import Training
from benchmarks.reliability.train import EVERY

MAX_STEPS_TO_KILL = 3 * EVERY  # some processes write several checkpoints before they are killed
MAX_DELAY = 0.02  # the longest time in seconds between a step and the signal


class SigkillResult(NamedTuple):
    """The result of a run that was killed several times."""

    at: list[int]
    """The last step that each killed process reported."""
    n_writing: int
    """The number of processes that were killed while they wrote a checkpoint."""
    problems: list[str]
    """Descriptions of everything that went wrong."""
    fingerprints: dict[str, str] | None
    """The fingerprints at the end of the last process, see :func:`~benchmarks.reliability.train.final_fingerprints`."""


def kill_repeatedly(folder: Path, seed: int, n_kills: int, options: Sequence[object]) -> SigkillResult:
    """
    Train in processes that are killed one after the other, then in a last one to the end of the run.

    :param folder: the folder of the checkpoints, which is emptied
    :param seed: the seed of the run and of the moments of the kills
    :param n_kills: the number of processes that are killed
    :param options: further options of the training command; the run must be long enough for all kills
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    at: list[int] = []
    problems: list[str] = []
    n_writing = 0
    for i in range(n_kills):
        before, newest = unfinished_files(folder), newest_step(folder)
        with Training(folder, seed, options) as training:
            target = newest + int(rng.integers(1, MAX_STEPS_TO_KILL))
            if not training.read(target):
                raise RuntimeError(f"The run of seed {seed} ended before kill {i}:\n{training.errors()}")
            if i % 3:  # two of three kills happen while a checkpoint is written
                wait_for_write(folder)
                time.sleep(rng.uniform(0, MAX_DELAY / 4))
            else:
                time.sleep(rng.uniform(0, MAX_DELAY))
            training.signal(signal.SIGKILL)
            training.wait()
            problems += wrong_start(training, newest)
        at.append(training.step)
        n_writing += bool(unfinished_files(folder) - before)
        problems += find_unreadable(folder)
        if newest_step(folder) > training.step:
            problems.append(f"there is a checkpoint of step {newest_step(folder)} after only {training.step} steps")
    newest = newest_step(folder)
    with Training(folder, seed, options) as training:
        if training.wait():
            problems.append(training.errors()[-500:])
        problems += wrong_start(training, newest)
    return SigkillResult(at, n_writing, problems, training.fingerprints)


def wrong_start(training: Training, newest: int) -> list[str]:
    """
    Return a description of the problem if a process has not continued from the newest checkpoint.

    :param training: the process
    :param newest: the step of the newest checkpoint when the process was started
    """
    if training.start_step == newest:
        return []
    return [f"the newest checkpoint was of step {newest}, it began at {training.start_step}"]


def wait_for_write(folder: Path, seconds: float = 60.0) -> None:
    """
    Wait until a process begins to write a checkpoint.

    :param folder: the checkpoint folder
    :param seconds: the longest time to wait
    :raises TimeoutError: if no write begins in that time
    """
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        if any(name.endswith(".tmp") for name in os.listdir(folder)):
            return
        time.sleep(2e-4)
    raise TimeoutError(f"Nothing was written to {folder} in {seconds} s.")
