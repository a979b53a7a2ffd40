"""A training that is killed again and again, at moments that nobody has chosen."""

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

MAX_STEPS_TO_KILL = (
    3 * EVERY
)  # steps after which a process is killed at the latest, so that some come to write several checkpoints
MAX_DELAY = 0.02  # seconds that a step, or a write, goes on before the signal is sent


class SigkillResult(NamedTuple):
    """What came of a run that was killed."""

    at: list[int]
    """the last step that each of the killed processes had said"""
    n_writing: int
    """how many of them were in the middle of a write"""
    problems: list[str]
    """what should not be"""
    ended: dict[str, str] | None
    """what the last process ended with"""


def kill_repeatedly(folder: Path, seed: int, n_kills: int, options: Sequence[object]) -> SigkillResult:
    """
    :param folder: of its checkpoints, which is emptied
    :param seed: of the run, and of the moments
    :param n_kills: how many processes are killed before one may come to the end
    :param options: of the training, which must be long enough
    :return: what came of it
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
                raise RuntimeError(f"Seed {seed} came to its end before kill {i}:\n{training.errors()}")
            if i % 3:  # most of them while a checkpoint is written
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
            problems.append(f"there is a checkpoint of step {newest_step(folder)}, and only {training.step} were taken")
    newest = newest_step(folder)
    with Training(folder, seed, options) as training:
        if training.wait():
            problems.append(training.errors()[-500:])
        problems += wrong_start(training, newest)
    return SigkillResult(at, n_writing, problems, training.ended)


def wrong_start(training: Training, newest: int) -> list[str]:
    """
    :param training: a process
    :param newest: the step of the newest checkpoint when it was started
    :return: what is to be said if it has not gone on from there
    """
    return [] if training.began == newest else [f"the newest checkpoint was of step {newest}, it began at {training.began}"]


def wait_for_write(folder: Path, seconds: float = 60.0) -> None:
    """
    :param folder: of checkpoints; returns as soon as a part of one is written there
    :param seconds: to wait at most
    """
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        if any(name.endswith(".tmp") for name in os.listdir(folder)):
            return
        time.sleep(2e-4)
    raise TimeoutError(f"Nothing was written to {folder} in {seconds} s.")
