"""The engine that runs a sweep on a Ray cluster."""

import os
import shutil
import signal
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from sb3_dqn_ext._command_line import check_extra
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.ray_cluster import RayCluster
from sb3_dqn_ext.sweep import carried
from sb3_dqn_ext.sweep.engine import Engine, Job
from sb3_dqn_ext.sweep.processes import WorkerProcess
from sb3_dqn_ext.sweep.run_files import LOG, PROGRESS

__all__ = ["RayEngine"]


class Report(NamedTuple):
    """A report of a node about a run."""

    code: int | None
    """the exit code; None while the process runs"""
    archive: bytes | None = None
    """the files of the run if files are carried, and the run has a new checkpoint or has ended"""
    progress: bytes | None = None
    """the file of its progress if files are carried"""


class RemoteRun:
    """
    The process of a run on a node of a cluster; a Ray actor. It occupies the processors of the run as long as it exists.

    :param folder: the folder of the run on the machine of the sweep
    :param cwd: the working directory of the run; None: that of the actor
    :param archive: the state from which the run continues, on a node that has no access to this folder; None: the node has
    :raises ArgumentError: if the node has no access to the folder, and none was sent
    """

    def __init__(self, folder: str, cwd: str | None, archive: bytes | None) -> None:
        self.is_carried = archive is not None
        if archive is None:
            if not Path(folder).is_dir():
                raise ArgumentError(
                    f"the node {os.uname().nodename} has no folder {folder}: set --runs to a folder that all nodes share, or "
                    "carry the files by --engine-kwargs '{shared_files: false}'."
                )
            self.folder = Path(folder)
        else:
            self.folder = _make_folder()
            carried.unpack(archive, self.folder)
        self.sent = carried.newest_state(self.folder)
        self.last: Report | None = None
        self.process = WorkerProcess(self.folder, cwd)

    def report(self) -> Report:
        """Report about the run."""
        return self._report(self.process.poll())

    def end(self) -> Report:
        """End the process at a checkpoint, and report about the run."""
        self.process.begin_to_end()
        return self._report(self.process.wait())

    def _report(self, code: int | None) -> Report:
        if not self.is_carried:
            return Report(code)
        if self.last is not None:  # the sweep ends the run before it has received this
            return self.last
        progress = self.folder / PROGRESS
        report = Report(code, self._new_archive(code), progress.read_bytes() if progress.is_file() else None)
        if code is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.last = report
        return report

    def _new_archive(self, code: int | None) -> bytes | None:
        if code is not None:
            return carried.pack(self.folder)
        state = carried.newest_state(self.folder)
        if state == self.sent:
            return None
        self.sent = state
        with carried.paused(self.process.process.pid):
            return carried.pack(self.folder)


def _make_folder() -> Path:
    """Make a folder for the files of a run on this node, and delete those that killed actors have left."""
    parent = Path(tempfile.gettempdir()) / f"sb3-dqn-ext-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    for left in parent.iterdir():
        if not _is_alive(int(left.name.split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:  # there is none, or it belongs to somebody else
        return False
    return True


class RayJob:
    """
    A run on a Ray cluster.

    :param ray: the module
    :param actor: the handle of its :class:`RemoteRun`
    :param folder: the folder of the run on this machine
    """

    def __init__(self, ray: Any, actor: Any, folder: Path) -> None:
        self.ray, self.actor, self.folder = ray, actor, folder
        self.answer = actor.report.remote()
        self.has_begun = False

    def poll(self) -> int | None:
        """Return the exit code, without waiting; None while the run waits or runs; -9 if its node or its actor is lost."""
        if not self.ray.wait([self.answer], timeout=0)[0]:
            return None
        return self.take()

    def begin_to_end(self) -> bool:
        """Let the node end the run at a checkpoint, and return True; or give up a run that has not begun."""
        if self.has_begun:
            self.answer = self.actor.end.remote()
        else:
            self.ray.kill(self.actor)
        return self.has_begun

    def take(self) -> int | None:
        """Wait for the next report of the node, store what it contains, and return the exit code as :meth:`poll` does."""
        try:
            report: Report = self.ray.get(self.answer)
            self.has_begun = True
        except self.ray.exceptions.ActorUnavailableError:  # the network, perhaps
            report = Report(None)
        except self.ray.exceptions.RayError as error:
            with (self.folder / LOG).open("a") as log:
                print(error, file=log)
            self.ray.kill(self.actor)
            return -signal.SIGKILL
        self._store(report)
        if report.code is None:
            self.answer = self.actor.report.remote()
        else:
            self.ray.kill(self.actor)
        return report.code

    def _store(self, report: Report) -> None:
        if report.progress is not None:
            (self.folder / PROGRESS).write_bytes(report.progress)
        if report.archive is not None:
            carried.store(report.archive, self.folder)
            if report.code is not None:
                carried.unpack_stored(self.folder)


class RayEngine(Engine):
    """
    An engine that runs each run on a node of a Ray cluster.

    :param address: the address of a cluster, such as ``"auto"`` or ``"10.0.0.1:6379"``; None: one is started on this machine
    :param shared_files: True: all nodes have the folder of runs, at the same path; False: the files of a run are carried to
        its node, and back with each checkpoint
    :param num_cpus: the processors of a run
    :param num_gpus: the GPUs of a run, such as 0.25
    :param runtime_env: the ``runtime_env`` of Ray, such as ``{"working_dir": "."}`` for nodes without your
        own modules
    """

    def __init__(
        self,
        address: str | None = None,
        shared_files: bool = True,
        num_cpus: float = 1,
        num_gpus: float = 0,
        runtime_env: dict[str, Any] | None = None,
    ) -> None:
        check_extra("--engine ray", "ray")
        self.address, self.shared_files, self.runtime_env = address, shared_files, runtime_env
        # your own modules are found in the working directory: that of the sweep, or the one that Ray makes on the node
        self.cwd = os.getcwd() if shared_files and not runtime_env else None
        self.resources = {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def start(self, runs: Path) -> None:
        """
        Connect to the cluster, or start it.

        :param runs: the folder of the runs
        """
        self.cluster = RayCluster(runs, self.address, self.runtime_env)
        self.actor_class = self.cluster.ray.remote(max_restarts=0, **self.resources)(RemoteRun)

    def submit(self, folder: Path) -> RayJob:
        """
        Submit a run. It begins when a node has free processors.

        :param folder: the folder of the run
        """
        archive = None if self.shared_files else carried.read_state(folder)
        actor = self.actor_class.remote(str(folder.resolve()), self.cwd, archive)
        return RayJob(self.cluster.ray, actor, folder)

    def close(self, jobs: Collection[Job]) -> None:
        """
        End jobs at a checkpoint, and disconnect.

        :param jobs: the jobs
        """
        ending = [job for job in jobs if isinstance(job, RayJob) and job.begin_to_end()]
        for job in ending:
            job.take()
        self.cluster.close()
