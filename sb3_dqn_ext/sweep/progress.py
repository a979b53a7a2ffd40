"""A callback that writes the progress of a run."""

import json
import os
import time
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext.sweep.run_files import Progress, read_progress

__all__ = ["ProgressCallback"]


class Clock:
    """The seconds since it was made, and when the next write is due. Checkpoints do not store it: it is no plain data."""

    def __init__(self) -> None:
        self.started = time.monotonic(), time.process_time()
        self.next_write = 0.0

    def elapsed(self) -> tuple[float, float]:
        """Return the seconds, and those of processor time."""
        return time.monotonic() - self.started[0], time.process_time() - self.started[1]


class ProgressCallback(BaseCallback):
    """
    A callback that writes the progress of a run into a file every few seconds, and at its end.

    Times continue those in the file, so that those of an interrupted run are the sums over its attempts.

    :param path: the file; a relative path begins at :attr:`folder`
    :param seconds: the seconds between two writes
    """

    folder = Path()
    """the folder of the run, which can be at another place when the run continues; set by the process of the run"""

    def __init__(self, path: str, seconds: float = 5.0) -> None:
        super().__init__()
        self.path = path
        self.seconds = seconds

    def _on_training_start(self) -> None:
        self.before = read_progress(self.folder / self.path)
        self.clock = Clock()

    def _on_step(self) -> bool:
        if time.monotonic() >= self.clock.next_write:
            self.write()
        return True

    def _on_training_end(self) -> None:
        self.write()

    def write(self) -> None:
        """Write the file. It is replaced as a whole, without a flush to the disk: a lost write is no harm."""
        self.clock.next_write = time.monotonic() + self.seconds
        wall, cpu = self.clock.elapsed()
        progress = Progress(self.num_timesteps, self.before.wall + wall, self.before.cpu + cpu)
        temporary = self.folder / f"{self.path}.tmp"
        with temporary.open("w") as file:
            json.dump(progress, file)
        os.replace(temporary, self.folder / self.path)
