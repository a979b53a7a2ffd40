"""Opening files that others may have put in place, and the errors of the disk."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sb3_dqn_ext.errors import CheckpointError

__all__ = ["disk_errors_translated", "open_plain_file"]


def open_plain_file(path: Path) -> BinaryIO:
    """
    Open a plain file to read: a link leads elsewhere, and a pipe never ends.

    :raises CheckpointError: if it is another kind of file
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise CheckpointError(f"{path} is not a plain file.")
    return open(path, "rb")


@contextlib.contextmanager
def disk_errors_translated(path: Path, what: str) -> Iterator[None]:
    """
    Raise a CheckpointError in place of an error of the disk.

    :param path: the file or folder at work
    :param what: what cannot be done if the disk is full, or the folder cannot be written to, or the file is missing
    """
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename) if isinstance(error.filename, str) else error.filename or path
        raise CheckpointError(f"{path} {what}: {missing} is missing.") from error
    except OSError as error:
        raise CheckpointError(f"{path} {what}: {error}") from error
