"""Functions that inspect a checkpoint folder from outside."""

import hashlib
import re
from collections.abc import Set
from pathlib import Path

from sb3_dqn_ext.checkpoint.folder import read_checkpoint
from sb3_dqn_ext.errors import CheckpointError

MANIFEST = re.compile(r"checkpoint_(\d{12})\.json")
FILE_NAME = re.compile(r'"([a-z]+_[a-z0-9-]+\.npz)"')

FileTimes = Set[tuple[str, int]]


def manifests(folder: Path) -> dict[int, Path]:
    """
    Return the manifests of a checkpoint folder by step, the newest last. They are not read.

    :param folder: the checkpoint folder
    """
    found = {int(match[1]): path for path in folder.glob("*") if (match := MANIFEST.fullmatch(path.name))}
    return dict(sorted(found.items()))


def files_of_checkpoint(manifest: Path) -> set[str]:
    """
    Return the names of the files that a checkpoint needs.

    :param manifest: the manifest of the checkpoint
    """
    return set(FILE_NAME.findall(manifest.read_text(errors="replace")))


def newest_step(folder: Path) -> int:
    """
    Return the step in the file name of the newest manifest, 0 if there is none.

    :param folder: the checkpoint folder
    """
    return max(manifests(folder), default=0)


def find_unreadable(folder: Path) -> list[str]:
    """
    Return an error message for each checkpoint that cannot be read.

    :param folder: the checkpoint folder
    """
    problems = []
    for path in manifests(folder).values():
        try:
            for parts in read_checkpoint(path).segments.values():
                for part in parts:
                    part.load()
        except CheckpointError as error:
            problems.append(str(error))
    return problems


def unfinished_files(folder: Path) -> FileTimes:
    """
    Return the names and times of the files of unfinished writes: temporary files, and files that no manifest names.

    :param folder: the checkpoint folder
    """
    named = {name for path in manifests(folder).values() for name in files_of_checkpoint(path)}
    unfinished = [*folder.glob("*.tmp"), *(path for path in folder.glob("*.npz") if path.name not in named)]
    return {(path.name, path.stat().st_mtime_ns) for path in unfinished}


def checksums(folder: Path) -> dict[str, str]:
    """
    Return the checksum of each file except the lock.

    :param folder: the checkpoint folder
    """
    files = sorted(path for path in folder.glob("*") if path.suffix != ".lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
