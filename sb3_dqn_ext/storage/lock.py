"""The right to write to a folder, which one thread of one process has at a time."""

import contextlib
import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import Self

from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.storage.atomic import make_folder
from sb3_dqn_ext.storage.disk import disk_errors_translated

__all__ = ["Lock"]

NAME = "writer.lock"


class Lock:
    """
    The right to write to a folder, which one process has at a time.

    The kernel takes it back when the process ends, in whichever way; processes forked from it do not hold it.

    :param folder: it is created
    :raises CheckpointError: on entering, if another process holds it already; the message has the id of that process
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        # a lock that only exists as a file would outlive a process that is killed: an error is better
        self._lock = FileLock(
            self.folder / NAME, timeout=0, preserve_lock_file=True, fallback_to_soft=False, on_acquired=_write_process_id
        )

    @staticmethod
    def if_not_held(folder: Path | str) -> "contextlib.AbstractContextManager[object]":
        """
        :param folder: it is created
        :return: its lock, or a context that does nothing where this thread holds the lock already
        """
        return contextlib.nullcontext() if _holder(folder) in _HELD else Lock(folder)

    def __enter__(self) -> Self:
        with disk_errors_translated(self.folder, "cannot be locked"):
            make_folder(self.folder)
            try:
                self._lock.acquire()
            except Timeout:
                process = _read_process_id(self.folder / NAME) or "of unknown id"
                raise CheckpointError(f"{self.folder} is being written to by process {process}.") from None
        _HELD.add(_holder(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        _HELD.discard(_holder(self.folder))
        self._lock.release()


_HELD: set[tuple[str, int, int]] = set()
"""folders that are locked, each with the process and the thread that holds its lock"""


def _holder(folder: Path | str) -> tuple[str, int, int]:
    return os.path.realpath(folder), os.getpid(), threading.get_ident()


def _write_process_id(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())


def _read_process_id(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(20).decode("ascii", "replace").strip()
    except OSError:  # Windows lets nobody else read a file that is locked
        return ""
