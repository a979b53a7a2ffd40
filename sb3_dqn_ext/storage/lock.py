"""A lock on a folder, which allows one thread of one process to write to it."""

import contextlib
import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout
from typing_extensions import Self

from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.storage.atomic import make_folder
from sb3_dqn_ext.storage.disk import disk_errors_translated

__all__ = ["NAME", "Lock"]

NAME = "writer.lock"
"""the file in a folder that can be locked"""


class Lock:
    """
    A lock on a folder, which allows one process to write to it.

    The operating system releases it when the process ends, in whichever way. Forked processes do not hold it.

    :param folder: the folder; it is created if it is missing
    :raises CheckpointError: on entering, if another process holds the lock; the message contains the id of that process
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        # a lock that only exists as a file would outlive a killed process: an error is better
        self._lock = FileLock(
            self.folder / NAME, timeout=0, preserve_lock_file=True, fallback_to_soft=False, on_acquired=_write_process_id
        )

    @staticmethod
    def if_not_held(folder: Path | str) -> "contextlib.AbstractContextManager[object]":
        """
        Return the lock of a folder, or a context that does nothing if this thread already holds it.

        :param folder: the folder; it is created if it is missing
        """
        return contextlib.nullcontext() if _holder(folder) in _HELD else Lock(folder)

    @staticmethod
    def is_held(folder: Path | str) -> bool:
        """
        Return whether a process holds the lock of a folder at this moment.

        :param folder: the folder; one that cannot be locked, because its disk is at fault, is not held
        """
        lock = FileLock(Path(folder) / NAME, timeout=0, preserve_lock_file=True, fallback_to_soft=False)
        try:
            with lock:
                return False
        except Timeout:
            return True
        except OSError:
            return False

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
"""The locked folders, each with the process and the thread that holds the lock."""


def _holder(folder: Path | str) -> tuple[str, int, int]:
    return os.path.realpath(folder), os.getpid(), threading.get_ident()


def _write_process_id(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, b"%d\n" % os.getpid())


def _read_process_id(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(20).decode("ascii", "replace").strip()
    except OSError:  # Windows denies other processes the reading of a locked file
        return ""
