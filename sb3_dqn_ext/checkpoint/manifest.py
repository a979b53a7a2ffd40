"""The manifest of a checkpoint: JSON with a checksum, which names the array files of the checkpoint."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.serialization.migrations import SCHEMA, is_known, migrate, unknown_schema
from sb3_dqn_ext.storage.arrays import ArrayFile
from sb3_dqn_ext.storage.disk import open_plain_file

__all__ = [
    "MAX_STEP",
    "Manifest",
    "StoredTree",
    "UnknownSchemaError",
    "is_array_file",
    "is_valid_key",
    "manifest_name",
    "manifest_step",
    "manifest_text",
    "read_manifest",
]

MAX_MANIFEST_BYTES = 2**28  # a larger manifest is neither written nor read
MAX_STEP = 10**12 - 1

_FIRST_LINE = re.compile(rb'\{"format": "sb3_dqn_ext checkpoint", "schema": ([0-9]{1,9}), "sha256": "([0-9a-f]{64})",')
_NAME = re.compile(r"checkpoint_([0-9]{12})\.json")
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")  # lower case only: some file systems ignore the case
_ARRAY_FILE = re.compile(r"(?:state|segment)_[a-z0-9][a-z0-9_-]{0,99}-[0-9a-f]{16}\.npz")
_SHA256 = re.compile("[0-9a-f]{64}")


class UnknownSchemaError(CheckpointError):
    """A checkpoint has a schema version that this version of the library does not support."""


@dataclass(frozen=True)
class StoredTree:
    """A stored tree: its JSON, and the description of its array file."""

    key: str
    """The key that identifies the content."""
    file: str
    """The name of the array file."""
    size: int
    """The bytes of the array file."""
    unpacked: int
    """The bytes of the arrays and their headers in the file."""
    sha256: str
    """The checksum of the array file."""
    tree: Any
    """The JSON of the tree, in which arrays are references to the file."""

    def __post_init__(self) -> None:
        _check(is_valid_key(self.key), "key", self.key)
        _check(type(self.file) is str and is_array_file(self.file), "file name", self.file)
        _check(type(self.sha256) is str and _SHA256.fullmatch(self.sha256), "checksum", self.sha256)
        _check(type(self.size) is int and type(self.unpacked) is int and 0 <= self.unpacked <= self.size, "size", self.size)

    @property
    def arrays(self) -> ArrayFile:
        """The description of the array file."""
        return ArrayFile(self.size, self.unpacked, self.sha256)


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest."""

    step: int
    """The step of the run."""
    versions: dict[str, str]
    """The versions of the libraries that wrote the checkpoint."""
    state: StoredTree
    """The state of the run, except the segments."""
    segments: dict[str, list[StoredTree]]
    """For each name, its segments."""

    def __post_init__(self) -> None:
        _check(type(self.step) is int, "step", self.step)
        _check(type(self.versions) is dict, "versions", self.versions)
        _check(all(type(version) is str for version in self.versions.values()), "versions", self.versions)

    def stored_trees(self) -> Iterator[StoredTree]:
        """Iterate over the state and all segments."""
        yield self.state
        for stored_trees in self.segments.values():
            yield from stored_trees


def is_valid_key(key: object) -> bool:
    """Return whether a value can be the key of a stored tree, or the name of a list of segments."""
    return type(key) is str and _KEY.fullmatch(key) is not None


def is_array_file(name: str) -> bool:
    """Return whether a file name is that of an array file of a checkpoint."""
    return _ARRAY_FILE.fullmatch(name) is not None


def manifest_step(name: str) -> int | None:
    """Return the step in the file name of a manifest; None if this is not the name of a manifest."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def manifest_name(step: int) -> str:
    """Return the file name of the manifest of a checkpoint."""
    return f"checkpoint_{step:012d}.json"


def manifest_text(folder: Path, manifest: Manifest) -> bytes:
    """
    Encode a manifest.

    :param folder: the folder of the checkpoint, for the message
    :param manifest: the manifest
    :return: the content of its file
    :raises CheckpointError: if the file would be too large to be read again
    """
    body = {
        "step": manifest.step,
        "versions": manifest.versions,
        "state": vars(manifest.state),
        "segments": {
            name: [vars(stored_tree) for stored_tree in stored_trees] for name, stored_trees in manifest.segments.items()
        },
    }
    rest = b'"manifest": ' + json.dumps(body, allow_nan=False).encode("ascii") + b"}\n"
    sha256 = hashlib.sha256(rest).hexdigest()
    text = f'{{"format": "sb3_dqn_ext checkpoint", "schema": {SCHEMA}, "sha256": "{sha256}",\n'.encode("ascii") + rest
    if len(text) > MAX_MANIFEST_BYTES:
        raise CheckpointError(
            f"{folder} cannot hold the checkpoint of step {manifest.step}: the manifest has {len(text)} bytes of JSON"
            f", more than {MAX_MANIFEST_BYTES}."
        )
    return text


def read_manifest(path: Path) -> Manifest:
    """
    Read a manifest. Names of earlier schema versions are migrated.

    :param path: the manifest of a checkpoint
    :return: its content
    :raises UnknownSchemaError: if its schema version is not supported
    :raises CheckpointError: if it is damaged
    """
    with open_plain_file(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_MANIFEST_BYTES:
            raise CheckpointError(f"{path} is not a checkpoint: it is larger than {MAX_MANIFEST_BYTES} bytes.")
        data = file.read()
    first_line, _, rest = data.partition(b"\n")
    match = _FIRST_LINE.fullmatch(first_line)
    if match is None or manifest_step(path.name) is None:
        raise CheckpointError(f"{path} is not a checkpoint.")
    schema = int(match[1])
    if not is_known(schema):
        raise UnknownSchemaError(f"{path} has {unknown_schema(schema)}.")
    if hashlib.sha256(rest).hexdigest() != match[2].decode():
        raise CheckpointError(f"{path} is damaged: its checksum is wrong, so it was cut off or changed.")
    try:
        manifest = _parse(data, schema)
        _check(manifest.step == manifest_step(path.name), "step", manifest.step)
    # RecursionError: the JSON is nested too deeply
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
    return manifest


def _parse(data: bytes, schema: int) -> Manifest:
    body = json.loads(data, parse_constant=_refuse_constant)["manifest"]
    segments = {
        key: [StoredTree(**stored_tree) for stored_tree in stored_trees] for key, stored_trees in body["segments"].items()
    }
    manifest = Manifest(body["step"], body["versions"], StoredTree(**body["state"]), segments)
    for stored_tree in manifest.stored_trees():
        migrate(stored_tree.tree, "checkpoint", schema)
    return manifest


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not valid JSON")


def _check(is_valid: object, what: str, value: object) -> None:
    if not is_valid:
        raise ValueError(f"its {what} {str(value)[:200]!r} is invalid")
