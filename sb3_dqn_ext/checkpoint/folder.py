"""
A folder of checkpoints that never shows a half-written one.

A checkpoint is a manifest, ``checkpoint_000000012000.json``, and the files of arrays it names. These are written first, each
under a temporary name, and are on the disk before the manifest gets its own name, which is what makes the checkpoint exist.
A file of arrays has a part of its checksum in its name, so that nothing that a manifest names is ever written over.
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
"""for each name, the keys and trees that make it up; a tree that is long to make can be given as a function that returns it"""

_TEMPORARY = re.compile(r"(?:state|segment|checkpoint)_[a-z0-9][a-z0-9_-]{0,99}\.tmp")


@dataclass(frozen=True)
class Segment:
    """A part of something large, as it lies on the disk."""

    key: str
    """the key it was written under"""
    _folder: Path = field(repr=False)
    _piece: StoredTree = field(repr=False)

    def load(self) -> Any:
        """
        :return: the tree, whose file is checked once more: it may have changed since
        :raises CheckpointError: if it has
        """
        return _load(self._folder, self._piece)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every file has been checked."""

    path: Path
    """its manifest"""
    step: int
    tree: Any
    segments: Mapping[str, Sequence[Segment]]
    """for each name, its parts in the order they were given in; each is loaded on its own, one at a time is in memory"""
    versions: Mapping[str, str]
    """of the libraries that wrote it"""


@dataclass(frozen=True)
class LatestCheckpoint:
    """What :func:`newest_good` found."""

    checkpoint: Checkpoint | None
    skipped: Mapping[Path, str]
    """the manifests of newer checkpoints that are not good, and why"""


def checkpoints(folder: Path | str) -> list[Path]:
    """
    :param folder: need not exist
    :return: the manifests of the checkpoints that are complete, by step: each file is there and has its size. What is in the
        files is checked by :func:`read`
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
    :param folder: need not exist
    :return: the manifests of all checkpoints, good or bad, by step
    :raises CheckpointError: if the folder cannot be read
    """
    with disk_errors_translated(Path(folder), "cannot be read"):
        return list(_manifest_paths(Path(folder)).values())


def latest_manifest(folder: Path | str) -> Path | None:
    """
    :param folder: need not exist
    :return: the last of its :func:`checkpoints`
    """
    return next(reversed(checkpoints(folder)), None)


def find_latest_checkpoint(folder: Path | str) -> LatestCheckpoint:
    """
    :param folder: need not exist
    :return: the newest checkpoint that passes every check of :func:`read`, and those that were skipped on the way to it
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
    Check every file of a checkpoint, then read it. Nothing in it is ever executed.

    :param path: its manifest
    :raises CheckpointError: if anything about it is wrong
    """
    path = Path(path)
    with disk_errors_translated(path, "cannot be read"):
        manifest = read_manifest(path)
        for pieces in manifest.segments.values():
            for piece in pieces:
                read_arrays(path.parent / piece.file, piece.arrays, load=False)
        segments = {
            name: tuple(Segment(piece.key, path.parent, piece) for piece in pieces)
            for name, pieces in manifest.segments.items()
        }
        tree = _load(path.parent, manifest.state)
    return Checkpoint(path, manifest.step, tree, segments, manifest.versions)


def write_checkpoint(folder: Path | str, step: int, tree: Any, segments: Segments | None = None, keep: int = 5) -> Path:
    """
    Add a checkpoint. Whatever happens meanwhile, those before stay as they are until it is complete.

    Only one process may write to a folder: hold a :class:`~sb3_dqn_ext.storage.lock.Lock`.

    :param folder: where; it is created
    :param step: the step it is of; one of the same step is replaced
    :param tree: the state, see :func:`~sb3_dqn_ext.serialization.tree.pack`
    :param segments: what is large and only grows, in parts. A part whose key a checkpoint in the folder has is not looked at:
        its file is used again. So a key must never stand for something else, not in another run in this folder either
    :param keep: how many checkpoints stay, this one included
    :return: the manifest
    :raises CheckpointError: if it cannot be written, or the folder has one of a later step
    :raises TypeError: if a tree holds what cannot be stored
    """
    check_number("step", step, low=0, high=MAX_STEP, integer=True)
    check_number("keep", keep, low=1, integer=True)
    folder, step, segments = Path(folder), int(step), segments or {}
    for name, parts in segments.items():
        _check_name("a name in segments", name)
        for key, _ in parts:
            _check_name(f"a key in segments[{name!r}]", key)
    with disk_errors_translated(folder, f"cannot take the checkpoint of step {step}"):
        make_folder(folder)
        stored = _stored_segments(folder, step)
        _remove_temporary(folder)
        try:
            manifest = _write_pieces(folder, step, tree, segments, stored)
            path = _commit(folder, manifest)
        except BaseException:
            with contextlib.suppress(OSError, CheckpointError):
                _sweep(folder)
            raise
    with contextlib.suppress(
        OSError, CheckpointError
    ):  # the checkpoint is there; the next one removes what this one could not
        _prune(folder, keep)
    return path


def remove_later_checkpoints(folder: Path | str, step: int) -> list[Path]:
    """
    Remove the checkpoints of later steps, good or bad, so that a run can go on from an earlier one.

    :param folder: hold its :class:`~sb3_dqn_ext.storage.lock.Lock`
    :param step: the last step to stay
    :return: the manifests that were removed
    :raises CheckpointError: if they cannot be
    """
    folder = Path(folder)
    with disk_errors_translated(folder, "cannot be cleaned"):
        later = [path for other, path in _manifest_paths(folder).items() if other > step]
        for path in later:
            path.unlink()
        if later:
            sync_folder(folder)
            _sweep(folder)
    return later


# writing


def _stored_segments(folder: Path, step: int) -> dict[str, StoredTree]:
    """
    :param folder: of checkpoints
    :param step: the one to write
    :return: the segments that are there, by key
    """
    stored: dict[str, StoredTree] = {}
    paths = _manifest_paths(folder)
    latest = max(paths, default=step)
    if latest > step:
        raise CheckpointError(
            f"{folder} has the checkpoint of step {latest}, which is later than {step}: go on from there, or call "
            "remove_after first."
        )
    for path in paths.values():
        manifest = _manifest_or_none(path)
        for piece in manifest.stored_trees() if manifest else []:
            if piece.file.startswith("segment_") and _has_its_file(folder, piece):
                stored[piece.key] = piece
    return stored


def _write_pieces(folder: Path, step: int, tree: Any, segments: Segments, stored: dict[str, StoredTree]) -> Manifest:
    written: dict[str, list[StoredTree]] = {}
    state = _write_piece(folder, "state", f"{step:012d}", tree)
    for name, parts in segments.items():
        written[name] = []
        for key, part in parts:
            if key not in stored:
                stored[key] = _write_piece(folder, "segment", key, part() if callable(part) else part)
            written[name].append(stored[key])
    return Manifest(step, versions(), state, written)


def _write_piece(folder: Path, kind: str, key: str, tree: Any) -> StoredTree:
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
    sync_folder(folder)  # the files it names have their names
    os.replace(temporary, path)
    sync_folder(folder)
    return path


def _prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest complete ones, then the files that none names."""
    manifests = {path: _manifest_or_none(path) for path in _manifest_paths(folder).values()}
    complete = [path for path, manifest in manifests.items() if manifest and _is_complete(folder, manifest)]
    for path in manifests.keys() - set(complete[-keep:]):
        path.unlink()
    sync_folder(folder)  # no manifest comes back without its files
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what a writer left that did not come to its end, and the files that no manifest names."""
    _remove_temporary(folder)
    manifests = [_manifest_or_none(path) for path in _manifest_paths(folder).values()]
    named = {piece.file for manifest in manifests if manifest for piece in manifest.stored_trees()}
    for entry in _entries(folder):
        if is_array_file(entry) and entry not in named:
            (folder / entry).unlink()


def _remove_temporary(folder: Path) -> None:
    for entry in _entries(folder):
        if _TEMPORARY.fullmatch(entry):
            (folder / entry).unlink()


def _check_name(what: str, name: object) -> None:
    if not is_valid_key(name):
        raise ArgumentError(f"{what}={name!r} must be 1 to 100 of a-z, 0-9, _ and -, the first a letter or a digit.")


# reading


def _manifest_paths(folder: Path) -> dict[int, Path]:
    """The manifests, good or bad, by step in ascending order."""
    steps = {step: entry for entry in _entries(folder) if (step := manifest_step(entry)) is not None}
    return {step: folder / steps[step] for step in sorted(steps)}


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _manifest_or_none(path: Path) -> Manifest | None:
    """None if it is damaged; one of another version is not, and raises as :func:`read_manifest` does."""
    try:
        return read_manifest(path)
    except UnknownSchemaError:
        raise
    except CheckpointError:
        return None


def _is_complete(folder: Path, manifest: Manifest) -> bool:
    return all(_has_its_file(folder, piece) for piece in manifest.stored_trees())


def _has_its_file(folder: Path, piece: StoredTree) -> bool:
    try:
        found = os.lstat(folder / piece.file)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == piece.size


def _load(folder: Path, piece: StoredTree) -> Any:
    path = folder / piece.file
    with disk_errors_translated(path, "cannot be read"):
        arrays = read_arrays(path, piece.arrays, load=True)
        try:
            return unpack(piece.tree, arrays)
        except ValueError as error:
            raise CheckpointError(f"{path} does not fit its manifest: {error}") from error
