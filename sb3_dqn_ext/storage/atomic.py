"""Atomic writes: a file is written under a temporary name, flushed to the disk, and then renamed."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["make_folder", "sync_folder", "synced_new_file", "write_atomically"]


@contextlib.contextmanager
def synced_new_file(path: Path) -> Iterator[BinaryIO]:
    """
    Create a file that is flushed to the disk at the end of the ``with`` block.

    :param path: a path that does not exist yet
    """
    with open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """
    Create or replace a file. At every moment, also after a kill, it has its whole old content or its whole new content.

    :param path: the file, in an existing folder
    :param content: the new content
    :raises OSError: if it cannot be written; the old content is kept
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        with synced_new_file(temporary) as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the file is complete nevertheless
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, and flush its name to the disk."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk. Windows has no such operation."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
