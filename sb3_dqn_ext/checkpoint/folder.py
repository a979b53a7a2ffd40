"""
A folder of checkpoints, in which every checkpoint is complete at any time.

A checkpoint is a manifest, ``checkpoint_000000012000.json``, and the array files that the manifest names. The array files are
written first, under temporary names, and flushed to the disk. Then the manifest is renamed to its final name: from this
moment on, the checkpoint exists. The name of an array file contains a part of its checksum, so a file that a manifest names is
never overwritten.
"""

import contextlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.checkpoint.manifest import (
    MAX_STEP,
    Manifest,
    StoredTree,
    UnknownSchemaError,
    is_array_file,
    is_valid_key,
    manifest_name,
    manifest_step,
    manifest_text,
    read_manifest,
)
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.serialization.tree import pack, unpack
from sb3_dqn_ext.storage.arrays import read_arrays, write_arrays
from sb3_dqn_ext.storage.atomic import make_folder, sync_folder, synced_new_file
from sb3_dqn_ext.storage.disk import disk_errors_translated
from sb3_dqn_ext.versions import versions

__all__ = [
    "Checkpoint",
    "LatestCheckpoint",
    "Segment",
    "Segments",
    "all_manifests",
    "checkpoints",
    "find_latest_checkpoint",
    "latest_manifest",
    "read_checkpoint",
    "remove_later_checkpoints",
    "write_checkpoint",
]

Segments = Mapping[str, Sequence[tuple[str, Any]]]
"""For each name, the keys and trees of the segments. A tree can be given as a function, which is called if it is needed."""

_TEMPORARY = re.compile(r"(?:state|segment|checkpoint)_[a-z0-9][a-z0-9_-]{0,99}\.tmp")


@dataclass(frozen=True)
class Segment:
    """A stored part of a large value, such as a range of rows of the replay buffer."""

    key: str
    """The key that identifies the content of the segment."""
    _folder: Path = field(repr=False)
    _stored: StoredTree = field(repr=False)

    def load(self) -> Any:
        """
        Read the segment. Its file is checked again, because it may have changed since the checkpoint was read.

        :return: the tree
        :raises CheckpointError: if the file is damaged or missing
        """
        return _load_tree(self._folder, self._stored)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files have all been checked."""

    path: Path
    """The manifest."""
    step: int
    """The number of environment steps of the run."""
    tree: Any
    """The state, see :func:`~sb3_dqn_ext.serialization.tree.pack`."""
    segments: Mapping[str, Sequence[Segment]]
    """For each name, its segments in the order in which they were written. Each of them is loaded on demand."""
    versions: Mapping[str, str]
    """The versions of the libraries that wrote the checkpoint."""


@dataclass(frozen=True)
class LatestCheckpoint:
    """The result of :func:`find_latest_checkpoint`."""

    checkpoint: Checkpoint | None
    """The latest valid checkpoint; None if there is none."""
    skipped: Mapping[Path, str]
    """The manifests of later checkpoints that are invalid, with the error messages."""


def checkpoints(folder: Path | str) -> list[Path]:
    """
    List the complete checkpoints of a folder: those of which every file exists and has the right size.

    The contents of the files are checked by :func:`read_checkpoint`.

    :param folder: the folder; it need not exist
    :return: the manifests, by ascending step
    :raises CheckpointError: if the folder cannot be read
    """
    folder = Path(folder)
    found = []
    with disk_errors_translated(folder, "cannot be read"):
        for path in _manifest_paths(folder).values():
            with contextlib.suppress(CheckpointError):
                if _is_complete(folder, read_manifest(path)):
                    found.append(path)
    return found


def all_manifests(folder: Path | str) -> list[Path]:
    """
    List the manifests of all checkpoints of a folder, valid or not.

    :param folder: the folder; it need not exist
    :return: the manifests, by ascending step
    :raises CheckpointError: if the folder cannot be read
    """
    with disk_errors_translated(Path(folder), "cannot be read"):
        return list(_manifest_paths(Path(folder)).values())


def latest_manifest(folder: Path | str) -> Path | None:
    """
    Return the manifest of the latest complete checkpoint.

    :param folder: the folder; it need not exist
    :return: the last of its :func:`checkpoints`; None if there is none
    :raises CheckpointError: if the folder cannot be read
    """
    return next(reversed(checkpoints(folder)), None)


def find_latest_checkpoint(folder: Path | str) -> LatestCheckpoint:
    """
    Read the latest checkpoint that passes all checks of :func:`read_checkpoint`.

    :param folder: the folder; it need not exist
    :return: the checkpoint, and the later ones that are invalid
    :raises CheckpointError: if the folder cannot be read
    """
    folder = Path(folder)
    skipped: dict[Path, str] = {}
    with disk_errors_translated(folder, "cannot be read"):
        paths = list(_manifest_paths(folder).values())
    for path in reversed(paths):
        try:
            return LatestCheckpoint(read_checkpoint(path), skipped)
        except CheckpointError as error:
            skipped[path] = str(error)
    return LatestCheckpoint(None, skipped)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """
    Check every file of a checkpoint, then read its state. No content of the files is ever executed.

    :param path: the manifest
    :return: the checkpoint; its segments are loaded on demand
    :raises CheckpointError: if a file is missing, damaged, or of an unknown schema version
    """
    path = Path(path)
    with disk_errors_translated(path, "cannot be read"):
        manifest = read_manifest(path)
        for stored_trees in manifest.segments.values():
            for stored_tree in stored_trees:
                read_arrays(path.parent / stored_tree.file, stored_tree.arrays, load=False)
        segments = {
            name: tuple(Segment(stored_tree.key, path.parent, stored_tree) for stored_tree in stored_trees)
            for name, stored_trees in manifest.segments.items()
        }
        tree = _load_tree(path.parent, manifest.state)
    return Checkpoint(path, manifest.step, tree, segments, manifest.versions)


def write_checkpoint(folder: Path | str, step: int, tree: Any, segments: Segments | None = None, keep: int = 5) -> Path:
    """
    Write a checkpoint. Earlier checkpoints are not touched before the new one is complete.

    Only one process may write to a folder: the caller holds its :class:`~sb3_dqn_ext.storage.lock.Lock`.

    :param folder: the folder; it is created if it does not exist
    :param step: the step of the run; a checkpoint of the same step is replaced
    :param tree: the state, see :func:`~sb3_dqn_ext.serialization.tree.pack`
    :param segments: large values that only grow, in parts. A segment whose key is already stored in the folder is not written
        again. So a key must always identify the same content, also across all runs that write to the folder.
    :param keep: the number of checkpoints to keep, this one included
    :return: the manifest
    :raises CheckpointError: if the disk refuses, or the folder contains a checkpoint of a later step
    :raises TypeError: if a tree contains a value that cannot be stored
    """
    check_number("step", step, low=0, high=MAX_STEP, integer=True)
    check_number("keep", keep, low=1, integer=True)
    folder, step, segments = Path(folder), int(step), segments or {}
    for name, parts in segments.items():
        _check_name("a name in segments", name)
        for key, _ in parts:
            _check_name(f"a key in segments[{name!r}]", key)
    with disk_errors_translated(folder, f"cannot hold the checkpoint of step {step}"):
        make_folder(folder)
        stored = _find_stored_segments(folder, step)
        _remove_temporary(folder)
        try:
            manifest = _write_trees(folder, step, tree, segments, stored)
            path = _commit(folder, manifest)
        except BaseException:
            with contextlib.suppress(OSError, CheckpointError):
                _remove_unreferenced(folder)
            raise
    with contextlib.suppress(OSError, CheckpointError):  # the checkpoint is written; the next one prunes again
        _prune(folder, keep)
    return path


def remove_later_checkpoints(folder: Path | str, step: int) -> list[Path]:
    """
    Remove the checkpoints of later steps, valid or not, so that a run can continue from an earlier one.

    :param folder: the folder; the caller holds its :class:`~sb3_dqn_ext.storage.lock.Lock`
    :param step: the last step to keep
    :return: the manifests that were removed
    :raises CheckpointError: if they cannot be removed
    """
    folder = Path(folder)
    with disk_errors_translated(folder, "cannot be cleaned"):
        later = [path for other, path in _manifest_paths(folder).items() if other > step]
        for path in later:
            path.unlink()
        if later:
            sync_folder(folder)
            _remove_unreferenced(folder)
    return later


# writing


def _find_stored_segments(folder: Path, step: int) -> dict[str, StoredTree]:
    """
    Find the segments that are stored already.

    :param folder: the folder of the checkpoints
    :param step: the step of the checkpoint to write
    :return: the segments whose files are complete, by key
    :raises CheckpointError: if the folder contains a checkpoint of a later step
    """
    stored: dict[str, StoredTree] = {}
    paths = _manifest_paths(folder)
    latest = max(paths, default=step)
    if latest > step:
        raise CheckpointError(
            f"{folder} has the checkpoint of step {latest}, which is later than {step}: resume from it, or call "
            "remove_later_checkpoints first."
        )
    for path in paths.values():
        manifest = _read_undamaged(path)
        for stored_tree in manifest.stored_trees() if manifest else []:
            if stored_tree.file.startswith("segment_") and _has_file(folder, stored_tree):
                stored[stored_tree.key] = stored_tree
    return stored


def _write_trees(folder: Path, step: int, tree: Any, segments: Segments, stored: dict[str, StoredTree]) -> Manifest:
    written: dict[str, list[StoredTree]] = {}
    state = _write_tree(folder, "state", f"{step:012d}", tree)
    for name, parts in segments.items():
        written[name] = []
        for key, part in parts:
            if key not in stored:
                stored[key] = _write_tree(folder, "segment", key, part() if callable(part) else part)
            written[name].append(stored[key])
    return Manifest(step, versions(), state, written)


def _write_tree(folder: Path, kind: str, key: str, tree: Any) -> StoredTree:
    json_tree, arrays = pack(tree)
    temporary = folder / f"{kind}_{key}.tmp"
    written = write_arrays(temporary, arrays)
    name = f"{kind}_{key}-{written.sha256[:16]}.npz"
    os.replace(temporary, folder / name)
    return StoredTree(key, name, *written, tree=json_tree)


def _commit(folder: Path, manifest: Manifest) -> Path:
    path = folder / manifest_name(manifest.step)
    text, temporary = manifest_text(folder, manifest), path.with_suffix(".tmp")
    with synced_new_file(temporary) as file:
        file.write(text)
    sync_folder(folder)  # the array files have their final names before the manifest has
    os.replace(temporary, path)
    sync_folder(folder)
    return path


def _prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the latest complete ones, then the array files that no manifest names."""
    manifests = {path: _read_undamaged(path) for path in _manifest_paths(folder).values()}
    complete = [path for path, manifest in manifests.items() if manifest and _is_complete(folder, manifest)]
    for path in manifests.keys() - set(complete[-keep:]):
        path.unlink()
    sync_folder(folder)  # after a crash, no manifest may reappear without its files
    _remove_unreferenced(folder)


def _remove_unreferenced(folder: Path) -> None:
    """Remove temporary files of interrupted writers, and the array files that no manifest names."""
    _remove_temporary(folder)
    manifests = [_read_undamaged(path) for path in _manifest_paths(folder).values()]
    named = {stored_tree.file for manifest in manifests if manifest for stored_tree in manifest.stored_trees()}
    for entry in _list_folder(folder):
        if is_array_file(entry) and entry not in named:
            (folder / entry).unlink()


def _remove_temporary(folder: Path) -> None:
    for entry in _list_folder(folder):
        if _TEMPORARY.fullmatch(entry):
            (folder / entry).unlink()


def _check_name(what: str, name: object) -> None:
    if not is_valid_key(name):
        raise ArgumentError(f"{what}={name!r} must be 1 to 100 of a-z, 0-9, _ and -, the first a letter or a digit.")


# reading


def _manifest_paths(folder: Path) -> dict[int, Path]:
    """Return the manifests by ascending step, valid or not."""
    steps = {step: entry for entry in _list_folder(folder) if (step := manifest_step(entry)) is not None}
    return {step: folder / steps[step] for step in sorted(steps)}


def _list_folder(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _read_undamaged(path: Path) -> Manifest | None:
    """Return a manifest, or None if it is damaged. A manifest of an unknown schema version raises UnknownSchemaError."""
    try:
        return read_manifest(path)
    except UnknownSchemaError:
        raise
    except CheckpointError:
        return None


def _is_complete(folder: Path, manifest: Manifest) -> bool:
    return all(_has_file(folder, stored_tree) for stored_tree in manifest.stored_trees())


def _has_file(folder: Path, stored_tree: StoredTree) -> bool:
    try:
        found = os.lstat(folder / stored_tree.file)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == stored_tree.size


def _load_tree(folder: Path, stored_tree: StoredTree) -> Any:
    path = folder / stored_tree.file
    with disk_errors_translated(path, "cannot be read"):
        arrays = read_arrays(path, stored_tree.arrays, load=True)
        try:
            return unpack(stored_tree.tree, arrays)
        except ValueError as error:
            raise CheckpointError(f"{path} does not fit its manifest: {error}") from error
