"""The engine that runs a sweep by submitit: on a Slurm cluster, or in processes of this machine."""

import os
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sb3_dqn_ext._command_line import check_extra
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.sweep.engine import Engine, Job
from sb3_dqn_ext.sweep.processes import WorkerProcess
from sb3_dqn_ext.sweep.run_files import LOG

__all__ = ["SubmititEngine"]

FOLDER = "submitit"
PARAMETERS = {"name": "sb3_dqn_ext", "timeout_min": 24 * 60, "cpus_per_task": 1}
POLL_SECONDS = 0.5


class SubmittedRun:
    """
    The function of a job: it starts the process of a run, and returns its exit code.

    :param folder: the folder of the run
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: WorkerProcess | None = None

    def __call__(self) -> int:
        self.process = WorkerProcess(self.folder)
        # not wait(), which checkpoint() would interrupt and then wait for
        while (code := self.process.poll()) is None:
            time.sleep(POLL_SECONDS)
        return code

    def checkpoint(self) -> Any:
        """End the process at a checkpoint, before the job is preempted or times out, and return the job that continues it."""
        from submitit.helpers import DelayedSubmission  # an extra

        if self.process is not None:
            self.process.begin_to_end()
            os.waitid(os.P_PID, self.process.process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(SubmittedRun(self.folder))


class SubmititJob:
    """
    A run that is a job of submitit. The files of the job are deleted when the run has written its row.

    :param job: the job
    :param folder: the folder of the run
    """

    def __init__(self, job: Any, folder: Path) -> None:
        self.job, self.folder = job, folder

    def poll(self) -> int | None:
        """Return the exit code, without waiting; None while the job waits or runs; -9 if the job has ended without one."""
        if not self.job.done():
            return None
        from submitit.core.utils import UncompletedJobError  # an extra

        try:
            code: int = self.job.result()
        except UncompletedJobError as error:
            with (self.folder / LOG).open("a") as log:
                print(error, file=log)
            return -signal.SIGKILL
        if code == 0:
            for path in self.job.paths.folder.glob(f"{self.job.job_id}_*"):
                path.unlink(missing_ok=True)
        return code


class SubmititEngine(Engine):
    """
    An engine that submits each run as a job of submitit. All machines need the folder of runs, at the same path.

    :param cluster: the executor of submitit: ``"slurm"``, ``"local"`` (processes on this machine) or another; None: Slurm
        if this machine has it, processes otherwise
    :param parameters: parameters of submitit's ``AutoExecutor``, such as ``{"timeout_min": 600, "slurm_partition": "cpu"}``
    """

    def __init__(self, cluster: str | None = None, parameters: dict[str, Any] | None = None) -> None:
        check_extra("--engine submitit", "submitit")
        self.cluster, self.parameters = cluster, PARAMETERS | (parameters or {})

    def start(self, runs: Path) -> None:
        """
        Make the executor. Its files are in a folder beside those of the runs.

        :param runs: the folder of the runs
        :raises ArgumentError: if submitit has no such executor or parameter, or cannot use it here
        """
        import submitit  # an extra

        try:
            self.executor = submitit.AutoExecutor(runs.resolve() / FOLDER, self.cluster)
            self.executor.update_parameters(**self.parameters)
        except (ValueError, NameError, AssertionError, RuntimeError) as error:
            given = f"cluster={self.cluster!r}, parameters={self.parameters!r}"
            raise ArgumentError(f"submitit refuses {given}: {error}") from error

    def submit(self, folder: Path) -> SubmititJob:
        """
        Submit a run.

        :param folder: the folder of the run
        """
        return SubmititJob(self.executor.submit(SubmittedRun(folder.resolve())), folder)

    def close(self, jobs: Collection[Job]) -> None:
        """
        Cancel jobs. Their processes end at a checkpoint a little later.

        :param jobs: the jobs
        """
        for job in jobs:
            if isinstance(job, SubmititJob):
                job.job.cancel(check=False)
