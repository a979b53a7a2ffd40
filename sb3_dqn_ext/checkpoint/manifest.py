"""The manifest of a checkpoint: JSON that names the files of its arrays, with a checksum of its own."""

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

MAX_MANIFEST_BYTES = 2**28  # bytes; what is larger is neither written nor read
MAX_STEP = 10**12 - 1

_FIRST_LINE = re.compile(rb'\{"format": "sb3_dqn_ext checkpoint", "schema": ([0-9]{1,9}), "sha256": "([0-9a-f]{64})",')
_NAME = re.compile(r"checkpoint_([0-9]{12})\.json")
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")  # one case only: some systems take no note of it
_ARRAY_FILE = re.compile(r"(?:state|segment)_[a-z0-9][a-z0-9_-]{0,99}-[0-9a-f]{16}\.npz")
_SHA256 = re.compile("[0-9a-f]{64}")


class UnknownSchemaError(CheckpointError):
    """A checkpoint of another version of this library, which may be good."""


@dataclass(frozen=True)
class StoredTree:
    """A tree: its JSON, and the file of its arrays."""

    key: str
    file: str
    """the name of the file, which holds the arrays"""
    size: int
    """bytes of the file"""
    unpacked: int
    """bytes of the arrays and their headers in it"""
    sha256: str
    tree: Any
    """the JSON"""

    def __post_init__(self) -> None:
        _expect(is_valid_key(self.key), "key", self.key)
        _expect(type(self.file) is str and is_array_file(self.file), "file name", self.file)
        _expect(type(self.sha256) is str and _SHA256.fullmatch(self.sha256), "checksum", self.sha256)
        _expect(type(self.size) is int and type(self.unpacked) is int and 0 <= self.unpacked <= self.size, "size", self.size)

    @property
    def arrays(self) -> ArrayFile:
        return ArrayFile(self.size, self.unpacked, self.sha256)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of."""

    step: int
    versions: dict[str, str]
    """versions of the libraries that wrote it"""
    state: StoredTree
    segments: dict[str, list[StoredTree]]

    def __post_init__(self) -> None:
        _expect(type(self.step) is int, "step", self.step)
        _expect(type(self.versions) is dict, "versions", self.versions)
        _expect(all(type(version) is str for version in self.versions.values()), "versions", self.versions)

    def stored_trees(self) -> Iterator[StoredTree]:
        yield self.state
        for pieces in self.segments.values():
            yield from pieces


def is_valid_key(key: object) -> bool:
    """Whether a value is a key of a piece, or the name of a list of segments."""
    return type(key) is str and _KEY.fullmatch(key) is not None


def is_array_file(name: str) -> bool:
    """Whether a file has a name that a checkpoint gives to a file of arrays."""
    return _ARRAY_FILE.fullmatch(name) is not None


def manifest_step(name: str) -> int | None:
    """The step of a checkpoint by the name of its manifest; None if this is no such name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def manifest_name(step: int) -> str:
    """The name of the manifest of a checkpoint."""
    return f"checkpoint_{step:012d}.json"


def manifest_text(folder: Path, manifest: Manifest) -> bytes:
    """
    :param folder: the folder of the checkpoint
    :param manifest: its manifest
    :return: the content of its file
    :raises CheckpointError: if it is larger than what is read
    """
    body = {
        "step": manifest.step,
        "versions": manifest.versions,
        "state": vars(manifest.state),
        "segments": {name: [vars(piece) for piece in pieces] for name, pieces in manifest.segments.items()},
    }
    rest = b'"manifest": ' + json.dumps(body, allow_nan=False).encode("ascii") + b"}\n"
    sha256 = hashlib.sha256(rest).hexdigest()
    text = f'{{"format": "sb3_dqn_ext checkpoint", "schema": {SCHEMA}, "sha256": "{sha256}",\n'.encode("ascii") + rest
    if len(text) > MAX_MANIFEST_BYTES:
        raise CheckpointError(
            f"{folder} cannot take the checkpoint of step {manifest.step}: what is not in arrays is {len(text)} bytes of JSON"
            f", more than {MAX_MANIFEST_BYTES}."
        )
    return text


def read_manifest(path: Path) -> Manifest:
    """
    :param path: the manifest of a checkpoint
    :return: its content, as it was written
    :raises OtherSchemaError: if another version of this library wrote it
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
        raise CheckpointError(f"{path} is damaged: its checksum is wrong, it has been cut short or changed.")
    try:
        manifest = _parsed(data, schema)
        _expect(manifest.step == manifest_step(path.name), "step", manifest.step)
    # RecursionError: nested too deep
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
    return manifest


def _parsed(data: bytes, schema: int) -> Manifest:
    body = json.loads(data, parse_constant=_refuse_constant)["manifest"]
    segments = {key: [StoredTree(**piece) for piece in pieces] for key, pieces in body["segments"].items()}
    manifest = Manifest(body["step"], body["versions"], StoredTree(**body["state"]), segments)
    for piece in manifest.stored_trees():
        migrate(piece.tree, "checkpoint", schema)
    return manifest


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _expect(good: object, what: str, value: object) -> None:
    if not good:
        raise ValueError(f"its {what} {str(value)[:200]!r} cannot be")
