"""What can be seen of a folder of checkpoints from outside."""

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
    :param folder: of checkpoints
    :return: their manifests by step, the newest last; whatever is in them
    """
    found = {int(match[1]): path for path in folder.glob("*") if (match := MANIFEST.fullmatch(path.name))}
    return dict(sorted(found.items()))


def files_of_checkpoint(manifest: Path) -> set[str]:
    """
    :param manifest: of a checkpoint
    :return: the names of the files it needs
    """
    return set(FILE_NAME.findall(manifest.read_text(errors="replace")))


def newest_step(folder: Path) -> int:
    """
    :param folder: of checkpoints
    :return: the step that the newest manifest claims; 0 if there is none
    """
    return max(manifests(folder), default=0)


def find_unreadable(folder: Path) -> list[str]:
    """
    :param folder: of checkpoints
    :return: what is wrong with each one that is not good
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
    :param folder: of checkpoints
    :return: the names and times of what a writer leaves that does not come to its end: temporary files, and files that no
        manifest names
    """
    named = {name for path in manifests(folder).values() for name in files_of_checkpoint(path)}
    unfinished = [*folder.glob("*.tmp"), *(path for path in folder.glob("*.npz") if path.name not in named)]
    return {(path.name, path.stat().st_mtime_ns) for path in unfinished}


def checksums(folder: Path) -> dict[str, str]:
    """
    :param folder: of checkpoints
    :return: the checksum of each of its files; the lock is no part of them
    """
    files = sorted(path for path in folder.glob("*") if path.suffix != ".lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
