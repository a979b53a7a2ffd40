"""The process of a run, and the engine that starts it on this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from sb3_dqn_ext.sweep.engine import Engine, Job
from sb3_dqn_ext.sweep.run_files import LOG

__all__ = ["END_WITH_PARENT", "LOCKED", "ONE_THREAD", "ProcessEngine", "WorkerProcess", "describe_failure"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
WORKER = "sb3_dqn_ext.sweep.worker"
LOCKED = 75
"""the exit code of a worker if another process trains its run"""
END_WITH_PARENT = "--end-with-parent"
"""the option with which a worker ends at a checkpoint as soon as its standard input, a pipe, is closed at the other end"""


class WorkerProcess:
    """
    The process of a run. Its output is added to ``log.txt`` in the folder of the run.

    It ends at a checkpoint if the process that has started it is killed, because another one may continue the run.

    :param folder: the folder of the run
    :param cwd: its working directory; None: that of this process
    """

    def __init__(self, folder: Path, cwd: Path | str | None = None) -> None:
        with (folder / LOG).open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(folder), END_WITH_PARENT],
                stdin=subprocess.PIPE,  # its end shows that this process has ended
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **ONE_THREAD},
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others once
            )

    def poll(self) -> int | None:
        """Return the exit code, without waiting; None while the process runs."""
        code = self.process.poll()
        if code is not None:
            self._close_pipe()
        return code

    def begin_to_end(self) -> None:
        """Send SIGTERM, at which a last checkpoint is written."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait()
        self._close_pipe()
        return code

    def _close_pipe(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


class ProcessEngine(Engine):
    """An engine that runs each run in a process on this machine, one after the other unless the user gives a number."""

    jobs = 1

    def submit(self, folder: Path) -> WorkerProcess:
        """
        Start the process of a run.

        :param folder: the folder of the run
        """
        return WorkerProcess(folder)

    def close(self, jobs: Collection[Job]) -> None:
        """
        End processes, and wait for their last checkpoints.

        :param jobs: the processes
        """
        processes = [job for job in jobs if isinstance(job, WorkerProcess)]
        for process in processes:
            process.begin_to_end()
        for process in processes:
            process.wait()


def describe_failure(folder: Path, code: int) -> str:
    """
    Return the last lines of the output of a run that has failed.

    :param folder: the folder of the run
    :param code: the exit code of its process
    """
    if not (folder / LOG).is_file():  # somebody has deleted the folder
        return f"exit code {code}, {folder / LOG} is missing"
    lines = (folder / LOG).read_text(errors="replace").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback")]
    last = lines[starts[-1] :] if starts and code > 0 else lines[-5:]
    return "\n".join([f"exit code {code}, output in {folder / LOG}", *last[-40:]])
