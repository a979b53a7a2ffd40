"""Files that are complete at every moment: written beside their name, brought to the disk, and then renamed."""

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
    Create a file whose content is on the disk at the end of the block.

    :param path: a name that does not exist
    """
    with open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def write_atomically(path: Path, content: bytes) -> None:
    """
    Create or replace a file. At every moment, also after a kill, it has its whole old content or its whole new one.

    :param path: the file, in a folder that exists
    :param content: the new content
    :raises OSError: if it cannot be written; the old content stays
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
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder; the file is complete all the same
        sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, whose name is then on the disk."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk. Windows has no such operation."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
