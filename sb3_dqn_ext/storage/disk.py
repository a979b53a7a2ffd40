"""Reading of files from untrusted folders, and translation of disk errors."""

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
    Open a plain file for reading. Links and pipes are refused: a link may point elsewhere, and a pipe may never end.

    :param path: the file
    :raises CheckpointError: if it is not a plain file
    """
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise CheckpointError(f"{path} is not a plain file.")
    return open(path, "rb")


@contextlib.contextmanager
def disk_errors_translated(path: Path, failure: str) -> Iterator[None]:
    """
    Raise a CheckpointError in place of any disk error in the ``with`` block.

    :param path: the file or folder that is read or written
    :param failure: the end of the message, such as "cannot be written"
    """
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename) if isinstance(error.filename, str) else error.filename or path
        raise CheckpointError(f"{path} {failure}: {missing} is missing.") from error
    except OSError as error:
        raise CheckpointError(f"{path} {failure}: {error}") from error
