"""The files by which a sweep and the process of a run exchange data. Their import does not take torch with it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from sb3_dqn_ext.storage.atomic import write_atomically
from sb3_dqn_ext.sweep.results import Row
from sb3_dqn_ext.sweep.spec import Evaluation, Task

__all__ = ["LOG", "PROGRESS", "ROW", "Progress", "read_progress", "read_row", "read_task", "write_task"]

LOG = "log.txt"
"""the output of the process of a run"""
ROW = "row.json"
"""the row of a run, which is the last file that its process writes"""
PROGRESS = "progress.json"
"""the file in the folder of a run"""


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


def write_task(folder: Path, task: Task, command: str) -> None:
    """
    Write the file that describes a run.

    :param folder: the folder of the run
    :param task: the run
    :param command: the command that makes the row of this run
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "task.json", json.dumps({"task": asdict(task), "command": command}).encode())


def read_task(folder: Path) -> tuple[Task, str]:
    """
    Read the file that describes a run.

    :param folder: the folder of the run
    :return: the run; the command that makes its row
    """
    data = json.loads((folder / "task.json").read_text())
    fields = data["task"]
    fields["evaluation"] = Evaluation(**fields["evaluation"])
    fields["train_arguments"] = tuple(fields["train_arguments"])
    return Task(**fields), data["command"]


def read_row(folder: Path, task: Task) -> Row | None:
    """
    Read the row that a finished run has written.

    :param folder: the folder of the run
    :param task: the run
    :return: the row; None if there is none, or if the file is damaged
    """
    try:
        row: Row = json.loads((folder / ROW).read_text())
        return row if task.is_in([row]) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
