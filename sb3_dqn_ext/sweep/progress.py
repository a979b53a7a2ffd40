"""The progress of a run, in a small file that another process can read."""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["Progress", "ProgressCallback", "read_progress"]


class Progress(NamedTuple):
    """The progress of a run."""

    steps: int = 0
    """the environment steps"""
    wall: float = 0.0
    """the seconds of all attempts together"""
    cpu: float = 0.0
    """the seconds of processor time of all attempts together"""


def read_progress(path: Path | str) -> Progress:
    """
    Read the progress of a run.

    :param path: the file
    :return: the progress; zeros if there is no such file yet
    """
    try:
        return Progress(*json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError):
        return Progress()


class ProgressCallback(BaseCallback):
    """
    A callback that writes the progress of a run into a file every few seconds, and at its end.

    Times continue those in the file, so that those of an interrupted run are the sums over its attempts.

    :param path: the file
    :param seconds: the seconds between two writes
    """

    def __init__(self, path: str, seconds: float = 5.0) -> None:
        super().__init__()
        self.path = path
        self.seconds = seconds
        self.next_write = 0.0

    def _on_training_start(self) -> None:
        self.before = read_progress(self.path)
        self.started = time.monotonic(), time.process_time()

    def _on_step(self) -> bool:
        if time.monotonic() >= self.next_write:
            self.write()
        return True

    def _on_training_end(self) -> None:
        self.write()

    def write(self) -> None:
        """Write the file. It is replaced as a whole, without a flush to the disk: a lost write is no harm."""
        self.next_write = time.monotonic() + self.seconds
        wall, cpu = time.monotonic() - self.started[0], time.process_time() - self.started[1]
        progress = Progress(self.num_timesteps, self.before.wall + wall, self.before.cpu + cpu)
        temporary = f"{self.path}.tmp"
        with open(temporary, "w") as file:
            json.dump(progress, file)
        os.replace(temporary, self.path)
