"""
The files of a run that is trained on a machine without access to the folder of runs. The sweep receives them as an archive
with each new checkpoint, and stores it beside the files of the run.
"""

import contextlib
import io
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

from sb3_dqn_ext.storage import lock
from sb3_dqn_ext.storage.atomic import write_atomically
from sb3_dqn_ext.sweep.run_files import ROW

__all__ = ["newest_state", "pack", "paused", "read_state", "store", "unpack", "unpack_stored"]

STORED = "carried.tar"


def newest_state(folder: Path) -> str:
    """
    Return a text that differs after each checkpoint of a run.

    :param folder: the folder of the run
    """
    stored = folder / STORED
    checkpoints = sorted(path.name for path in folder.glob("logs/*/*/**/checkpoint_*.json"))
    return f"{checkpoints[-1:]} {stored.stat().st_mtime_ns if stored.is_file() else 0}"


@contextlib.contextmanager
def paused(process: int) -> Iterator[None]:
    """
    Stop a child process and its group, so that its files are as if it had been killed, and let it continue.

    :param process: the id of the process, which leads its group
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGSTOP)
        # the signal takes effect a little later; WNOWAIT leaves the exit code to its owner
        os.waitid(os.P_PID, process, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGCONT)


def pack(folder: Path) -> bytes:
    """
    Return the files of a run as an archive.

    :param folder: the folder of the run
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (STORED, lock.NAME))
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        for path in sorted(files, key=lambda path: path.name == ROW):  # a row is the last file that is unpacked
            archive.add(path, path.relative_to(folder))
    return content.getvalue()


def unpack(archive: bytes, folder: Path) -> None:
    """
    Replace the files of a run by those of an archive.

    :param archive: the archive
    :param folder: the folder of the run
    """
    shutil.rmtree(folder / "logs", ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def store(archive: bytes, folder: Path) -> None:
    """
    Store an archive in the folder of its run. At every moment, also after a kill, the folder has a whole archive.

    :param archive: the archive
    :param folder: the folder of the run
    """
    write_atomically(folder / STORED, archive)


def read_state(folder: Path) -> bytes:
    """
    Return the state from which a run continues as an archive.

    :param folder: the folder of the run
    """
    stored = folder / STORED
    return stored.read_bytes() if stored.is_file() else pack(folder)


def unpack_stored(folder: Path) -> None:
    """
    Unpack the archive in the folder of a run if there is one, and delete it. After a kill meanwhile, it is unpacked again.

    :param folder: the folder of the run
    """
    stored = folder / STORED
    if stored.is_file():
        unpack(stored.read_bytes(), folder)
        stored.unlink()
