"""Run each task in a separate process, several at the same time."""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from sb3_dqn_ext.sweep import worker

__all__ = ["ONE_THREAD", "Outcome", "run_workers"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
POLL_SECONDS = 0.5
RETRY_SECONDS = 10.0
LOG = "log.txt"


class Outcome(NamedTuple):
    """The end of a process."""

    folder: Path
    """the folder of the run"""
    error: str
    """the last lines of its output if it has failed; "" if it has written its row"""


def run_workers(
    folders: Iterable[Path], jobs: int, on_end: Callable[[Outcome], None], on_poll: Callable[[list[Path]], None]
) -> None:
    """
    Run a process for each task, several at the same time.

    A run that another process is training is tried again later. If this function ends with an exception, such as
    KeyboardInterrupt, the processes are ended by SIGTERM, at which they write a last checkpoint.

    :param folders: the folders of the runs, with a ``task.json`` in each
    :param jobs: the number of processes at the same time
    :param on_end: a function that is called at the end of each process
    :param on_poll: a function that is called every half second with the folders of the runs that are being trained
    """
    waiting = deque((0.0, folder) for folder in folders)
    running: dict[Path, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            _start_due(waiting, running, jobs)
            for folder in [folder for folder, process in running.items() if process.poll() is not None]:
                code = running.pop(folder).returncode
                if code == worker.LOCKED:
                    waiting.append((time.monotonic() + RETRY_SECONDS, folder))
                else:
                    on_end(Outcome(folder, "" if code == 0 else describe_failure(folder, code)))
            on_poll(list(running))
            time.sleep(POLL_SECONDS)
    finally:
        end_processes(running.values())


def _start_due(waiting: "deque[tuple[float, Path]]", running: dict[Path, "subprocess.Popen[bytes]"], jobs: int) -> None:
    """Start the processes whose time has come, as long as there are fewer than ``jobs``."""
    for _ in range(len(waiting)):
        at, folder = waiting.popleft()
        if len(running) < jobs and at <= time.monotonic():
            running[folder] = start_worker(folder)
        else:
            waiting.append((at, folder))


def start_worker(folder: Path) -> "subprocess.Popen[bytes]":
    """
    Start the process of a run. Its output is added to ``log.txt`` in the folder of the run.

    :param folder: the folder of the run
    """
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", worker.__name__, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others once
        )


def end_processes(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """
    End processes by SIGTERM, and wait for them.

    :param processes: the processes
    """
    processes = list(processes)
    for process in processes:
        process.send_signal(signal.SIGTERM)
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
