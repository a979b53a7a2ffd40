"""The progress of a sweep on the screen."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from sb3_dqn_ext.sweep.run_files import PROGRESS, ROW, read_progress
from sb3_dqn_ext.sweep.spec import Task

__all__ = ["ProgressView", "format_seconds"]

LINE_SECONDS = 60.0
"""the seconds between two lines where the output is no terminal"""


class ProgressView:
    """
    A view of the progress of a sweep: a line that is rewritten in a terminal, and otherwise a new line each minute.

    :param tasks: all runs of the sweep
    :param runs: the folder of the runs
    """

    def __init__(self, tasks: Sequence[Task], runs: Path) -> None:
        self.runs = runs
        self.by_folder = {runs / task.folder: task for task in tasks}
        self.missing: dict[Path, Task] = {}
        self.is_terminal = sys.stderr.isatty()
        self.next_line = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.is_terminal:
            print(file=sys.stderr)

    def begin(self, missing: Sequence[Task]) -> None:
        """
        Begin to measure the speed.

        :param missing: the runs that have no row
        """
        self.missing = {self.runs / task.folder: task for task in missing}
        self.started, self.done_before = time.monotonic(), self._steps_done()
        self.print(f"{len(self.by_folder)} runs, {len(self.by_folder) - len(missing)} of them have a row already.")

    def update(self, running: Sequence[Path]) -> None:
        """
        Show the progress.

        :param running: the folders of the runs that are being trained
        """
        if time.monotonic() < self.next_line:
            return
        self.next_line = time.monotonic() + (1.0 if self.is_terminal else LINE_SECONDS)
        text = self.describe(running)
        print(
            f"\r\x1b[K{text}" if self.is_terminal else text, end="" if self.is_terminal else "\n", file=sys.stderr, flush=True
        )

    def describe(self, running: Sequence[Path]) -> str:
        """
        Return the progress in words: finished runs, an estimate of the time that is left, and the steps of each run.

        :param running: the folders of the runs that are submitted
        """
        total = sum(task.n_timesteps for task in self.missing.values())
        done = self._steps_done()
        speed = (done - self.done_before) / max(time.monotonic() - self.started, 1e-9)
        left = format_seconds((total - done) / speed) if speed > 0 else "?"
        finished = sum((folder / ROW).is_file() for folder in self.missing)
        parts = [f"{finished} of {len(self.missing)} runs, {done / max(total, 1):.0%} of the steps, {left} left"]
        for folder in running:
            task, steps = self.by_folder[folder], read_progress(folder / PROGRESS).steps
            if steps:  # without steps, the run may still wait for a machine
                parts.append(f"{task.name}: {steps / task.n_timesteps:.0%}")
        return " | ".join(parts)

    def print(self, text: str) -> None:
        """
        Print a text above the line of progress.

        :param text: the text
        """
        print(f"\r\x1b[K{text}" if self.is_terminal else text, file=sys.stderr, flush=True)

    def _steps_done(self) -> int:
        return sum(min(read_progress(folder / PROGRESS).steps, task.n_timesteps) for folder, task in self.missing.items())


def format_seconds(seconds: float) -> str:
    """
    Return a duration as hours and minutes, or minutes, or seconds.

    :param seconds: the duration
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
