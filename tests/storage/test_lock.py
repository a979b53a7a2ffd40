"""The lock of a folder, held by real processes, some of which are killed."""

import errno
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.storage.lock import Lock
from tests.forks import Processes, is_alive, kill, wait_for_end, write_line


def hold(folder: str) -> None:
    with Lock(folder):
        write_line("held")
        time.sleep(60)


def hold_with_a_worker(folder: str) -> None:
    with Lock(folder):
        if os.fork() == 0:
            write_line(os.getpid())  # the worker itself writes it: it has then closed the lock that it has inherited
        time.sleep(60)


def try_to_hold(folder: str) -> None:
    try:
        with Lock(folder):
            write_line("held")
    except CheckpointError as error:
        write_line(error)


def test_one_process_at_a_time_has_the_lock(processes: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "writer.lock").write_text("1234567890123\n")  # of a process that is gone
    for _ in range(2):
        holder = processes.start(hold, folder)
        assert processes.read_line() == "held"
        with pytest.raises(CheckpointError, match=rf"new is being written to by process {holder}\.$"), Lock(folder):
            pass
        kill(holder)
        with Lock(folder):
            wait_for_end(processes.start(try_to_hold, folder))
            assert processes.read_line() == f"{folder} is being written to by process {os.getpid()}."
            with pytest.raises(CheckpointError, match=f"process {os.getpid()}"), Lock(folder):
                pass
        wait_for_end(processes.start(try_to_hold, folder))
        assert processes.read_line() == "held"


def test_a_worker_that_outlives_its_parent_does_not_keep_the_lock(processes: Processes, tmp_path: Path) -> None:
    holder = processes.start(hold_with_a_worker, tmp_path)
    worker = int(processes.read_line())
    try:
        with pytest.raises(CheckpointError, match=f"process {holder}"), Lock(tmp_path):
            pass
        kill(holder)
        with Lock(tmp_path):
            assert is_alive(worker)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", missing)
    with pytest.raises(CheckpointError, match=r"cannot be locked: \[Errno 38\]"), Lock(tmp_path):
        pass


def test_another_thread_does_not_hold_the_lock(tmp_path: Path) -> None:
    refused: list[str] = []

    def hold() -> None:
        try:
            with Lock.if_not_held(tmp_path):
                pass
        except CheckpointError as error:
            refused.append(str(error))

    with Lock(tmp_path), Lock.if_not_held(tmp_path):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    assert refused == [f"{tmp_path} is being written to by process {os.getpid()}."]
    hold()
    assert len(refused) == 1
