"""The base class of the engines, which run the process of each run of a sweep somewhere."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path
from typing import Protocol

__all__ = ["Engine", "Job"]


class Job(Protocol):
    """A run that was submitted to an engine."""

    def poll(self) -> int | None:
        """
        Return the exit code of the process of the run, without waiting.

        :return: None while it waits or runs; 0 if it has written its row; ``processes.LOCKED`` if another process trains the
            run; a negative number if the process was killed, or lost with its machine: the run is then submitted again
        """


class Engine(ABC):
    """
    A place where the processes of a sweep run. The results of a run do not depend on it.

    A run is a :class:`~sb3_dqn_ext.sweep.processes.WorkerProcess` on the machine that the engine has chosen. It continues from
    the newest checkpoint in its folder.
    """

    jobs: int | None = None
    """the number of runs at the same time if the user gives none; None: all runs are submitted at once"""

    def start(self, runs: Path) -> None:  # noqa: B027  most engines have nothing to do here
        """
        Prepare for the first run. The folder of runs is locked: no other sweep uses it.

        :param runs: the folder of the runs
        """

    @abstractmethod
    def submit(self, folder: Path) -> Job:
        """
        Submit a run.

        :param folder: the folder of the run, with a ``task.json``
        """

    @abstractmethod
    def close(self, jobs: Collection[Job]) -> None:
        """
        End the jobs that still run, so that each writes a last checkpoint, and release what the engine has acquired.

        :param jobs: the jobs that have not ended
        """
