"""
A folder of checkpoints that never shows a half-written one.

A checkpoint is a manifest, ``checkpoint_000000012000.json``, and the files of arrays it names. These are written first, each
under a temporary name, and are on the disk before the manifest gets its own name, which is what makes the checkpoint exist.
A file of arrays has a part of its checksum in its name, so that nothing that a manifest names is ever written over.
"""

import ast
import contextlib
import hashlib
import json
import math
import os
import re
import stat
import struct
import threading
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.serialization.tree import MAX_HEADER, pack, unpack
from sb3_dqn_ext.versions import versions

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "SCHEMA",
    "Checkpoint",
    "Found",
    "Lock",
    "Segment",
    "Segments",
    "checkpoints",
    "manifests",
    "newest",
    "newest_good",
    "read",
    "remove_after",
    "write",
]

Array = npt.NDArray[Any]
Segments = Mapping[str, Sequence[tuple[str, Any]]]
"""for each name, the keys and trees that make it up; a tree that is long to make can be given as a function that returns it"""

SCHEMA = 1
MAX_MANIFEST = 2**28  # bytes; what is larger is neither written nor read
MAX_STEP = 10**12 - 1
_BLOCK = 2**20  # bytes read at a time
_NPY_VERSION = (3, 0)  # the one that takes every name of a field

_FIRST_LINE = re.compile(rb'\{"format": "sb3_dqn_ext checkpoint", "schema": ([0-9]{1,9}), "sha256": "([0-9a-f]{64})",')
_MANIFEST = re.compile(r"checkpoint_([0-9]{12})\.json")
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")  # one case only: some systems take no note of it
_DATA = re.compile(r"(?:state|segment)_[a-z0-9][a-z0-9_-]{0,99}-[0-9a-f]{16}\.npz")
_TEMPORARY = re.compile(r"(?:state|segment|checkpoint)_[a-z0-9][a-z0-9_-]{0,99}\.tmp")


class _OtherSchemaError(CheckpointError):
    """Perhaps a good checkpoint, of another version of this library."""


@dataclass(frozen=True)
class _Piece:
    """What a manifest knows of a tree."""

    key: str
    file: str  # holds the arrays
    size: int  # bytes of that file
    unpacked: int  # bytes of the arrays and their headers in it
    sha256: str
    tree: Any  # the JSON

    def __post_init__(self) -> None:
        _expect(type(self.key) is str and _KEY.fullmatch(self.key), "key", self.key)
        _expect(type(self.file) is str and _DATA.fullmatch(self.file), "file name", self.file)
        _expect(type(self.sha256) is str and re.fullmatch("[0-9a-f]{64}", self.sha256), "checksum", self.sha256)
        _expect(type(self.size) is int and type(self.unpacked) is int and 0 <= self.unpacked <= self.size, "size", self.size)


@dataclass(frozen=True)
class _Manifest:
    step: int
    versions: dict[str, str]
    state: _Piece
    segments: dict[str, list[_Piece]]

    def pieces(self) -> list[_Piece]:
        return [self.state, *(piece for pieces in self.segments.values() for piece in pieces)]


@dataclass(frozen=True)
class Segment:
    """A part of something large, as it lies on the disk."""

    key: str
    """the key it was written under"""
    _folder: Path = field(repr=False)
    _piece: _Piece = field(repr=False)

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
class Found:
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
    with _disk_errors(folder, "cannot be read"):
        for path in _manifest_paths(folder).values():
            with contextlib.suppress(CheckpointError):
                if _is_complete(folder, _manifest(path)):
                    found.append(path)
    return found


def manifests(folder: Path | str) -> list[Path]:
    """
    :param folder: need not exist
    :return: the manifests of all checkpoints, good or bad, by step
    :raises CheckpointError: if the folder cannot be read
    """
    with _disk_errors(Path(folder), "cannot be read"):
        return list(_manifest_paths(Path(folder)).values())


def newest(folder: Path | str) -> Path | None:
    """
    :param folder: need not exist
    :return: the last of its :func:`checkpoints`
    """
    return next(reversed(checkpoints(folder)), None)


def newest_good(folder: Path | str) -> Found:
    """
    :param folder: need not exist
    :return: the newest checkpoint that passes every check of :func:`read`, and those that were skipped on the way to it
    """
    folder = Path(folder)
    skipped: dict[Path, str] = {}
    with _disk_errors(folder, "cannot be read"):
        paths = list(_manifest_paths(folder).values())
    for path in reversed(paths):
        try:
            return Found(read(path), skipped)
        except CheckpointError as error:
            skipped[path] = str(error)
    return Found(None, skipped)


def read(path: Path | str) -> Checkpoint:
    """
    Check every file of a checkpoint, then read it. Nothing in it is ever executed.

    :param path: its manifest
    :raises CheckpointError: if anything about it is wrong
    """
    path = Path(path)
    with _disk_errors(path, "cannot be read"):
        manifest = _manifest(path)
        for pieces in manifest.segments.values():
            for piece in pieces:
                _arrays(path.parent, piece, load=False)
        segments = {
            name: tuple(Segment(piece.key, path.parent, piece) for piece in pieces)
            for name, pieces in manifest.segments.items()
        }
        tree = _load(path.parent, manifest.state)
    return Checkpoint(path, manifest.step, tree, segments, manifest.versions)


def write(folder: Path | str, step: int, tree: Any, segments: Segments | None = None, keep: int = 5) -> Path:
    """
    Add a checkpoint. Whatever happens meanwhile, those before stay as they are until it is complete.

    Only one process may write to a folder: hold a :class:`Lock`.

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
    with _disk_errors(folder, f"cannot take the checkpoint of step {step}"):
        _make(folder)
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


def remove_after(folder: Path | str, step: int) -> list[Path]:
    """
    Remove the checkpoints of later steps, good or bad, so that a run can go on from an earlier one.

    :param folder: hold its :class:`Lock`
    :param step: the last step to stay
    :return: the manifests that were removed
    :raises CheckpointError: if they cannot be
    """
    folder = Path(folder)
    with _disk_errors(folder, "cannot be cleaned"):
        later = [path for other, path in _manifest_paths(folder).items() if other > step]
        for path in later:
            path.unlink()
        if later:
            _sync(folder)
            _sweep(folder)
    return later


class Lock:
    """
    The right to write to a folder, which one process has at a time.

    The kernel takes it back when the process ends, in whichever way; processes forked from it do not hold it. Where there is
    no ``fcntl`` (on Windows) nothing is locked, and a warning says so.

    :param folder: is created
    :raises CheckpointError: on entering, if somebody holds it already; the message has the id of that process
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    @staticmethod
    def or_held(folder: Path | str) -> "contextlib.AbstractContextManager[Any]":
        """
        :param folder: is created
        :return: its lock, or nothing to wait for where this thread holds it already
        """
        mine = (os.path.realpath(folder), threading.get_ident())
        return contextlib.nullcontext() if any(lock._holder == mine for lock in _HELD) else Lock(folder)

    def __enter__(self) -> Self:
        if fcntl is None:
            warnings.warn(f"{self.folder} is not locked, which this system cannot do: write from one process.", stacklevel=2)
            return self
        with _disk_errors(self.folder, "cannot be locked"):
            _make(self.folder)
            descriptor = os.open(self.folder / "writer.lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, b"%d\n" % os.getpid())
            except BlockingIOError:
                holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "of unknown id"
                os.close(descriptor)
                raise CheckpointError(f"{self.folder} is being written to by process {holder}.") from None
            except BaseException:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        self._holder = (os.path.realpath(self.folder), threading.get_ident())
        _HELD.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            _HELD.remove(self)
            self._close()  # which unlocks it; the file stays, another process may have just opened it

    def _close(self) -> None:
        assert self._descriptor is not None
        os.close(self._descriptor)
        self._descriptor = None


_HELD: list[Lock] = []


def _forget_locks() -> None:
    """A forked worker that outlives its parent would keep the parent's locks."""
    for lock in _HELD:
        lock._close()
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


# writing


def _stored_segments(folder: Path, step: int) -> dict[str, _Piece]:
    """
    :param folder: of checkpoints
    :param step: the one to write
    :return: the segments that are there, by key
    """
    stored: dict[str, _Piece] = {}
    paths = _manifest_paths(folder)
    latest = max(paths, default=step)
    if latest > step:
        raise CheckpointError(
            f"{folder} has the checkpoint of step {latest}, which is later than {step}: go on from there, or call "
            "remove_after first."
        )
    for path in paths.values():
        manifest = _manifest_or_none(path)
        for piece in manifest.pieces() if manifest else []:
            if piece.file.startswith("segment_") and _has_its_file(folder, piece):
                stored[piece.key] = piece
    return stored


def _write_pieces(folder: Path, step: int, tree: Any, segments: Segments, stored: dict[str, _Piece]) -> _Manifest:
    written: dict[str, list[_Piece]] = {}
    state = _write_piece(folder, "state", f"{step:012d}", tree)
    for name, parts in segments.items():
        written[name] = []
        for key, part in parts:
            if key not in stored:
                stored[key] = _write_piece(folder, "segment", key, part() if callable(part) else part)
            written[name].append(stored[key])
    return _Manifest(step, versions(), state, written)


def _write_piece(folder: Path, kind: str, key: str, tree: Any) -> _Piece:
    json_tree, arrays = pack(tree)
    temporary = folder / f"{kind}_{key}.tmp"
    with open(temporary, "xb") as file:
        hashed = _Hashed(file)
        # stored as they are: what a file promises is then never more than it has
        with zipfile.ZipFile(cast(IO[bytes], hashed), "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, _NPY_VERSION, allow_pickle=False)
            unpacked = sum(member.file_size for member in archive.infolist())
        _to_disk(file)
    sha256 = hashed.sha256.hexdigest()
    name = f"{kind}_{key}-{sha256[:16]}.npz"
    os.replace(temporary, folder / name)
    return _Piece(key, name, hashed.size, unpacked, sha256, json_tree)


class _Hashed:
    """A file that can be written to straight ahead, which makes ``zipfile`` do so, and knows its own checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _commit(folder: Path, manifest: _Manifest) -> Path:
    body = {
        "step": manifest.step,
        "versions": manifest.versions,
        "state": vars(manifest.state),
        "segments": {name: [vars(piece) for piece in pieces] for name, pieces in manifest.segments.items()},
    }
    text = b'"manifest": ' + json.dumps(body, allow_nan=False).encode("ascii") + b"}\n"
    head = f'{{"format": "sb3_dqn_ext checkpoint", "schema": {SCHEMA}, "sha256": "{hashlib.sha256(text).hexdigest()}",\n'
    if len(head) + len(text) > MAX_MANIFEST:
        raise CheckpointError(
            f"{folder} cannot take the checkpoint of step {manifest.step}: what is not in arrays is {len(text)} bytes of JSON"
            f", more than {MAX_MANIFEST}."
        )
    temporary = folder / f"checkpoint_{manifest.step:012d}.tmp"
    with open(temporary, "xb") as file:
        file.write(head.encode("ascii"))
        file.write(text)
        _to_disk(file)
    _sync(folder)  # the files it names have their names
    path = temporary.with_suffix(".json")
    os.replace(temporary, path)
    _sync(folder)
    return path


def _prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints but the newest complete ones, then the files that none names."""
    manifests = {path: _manifest_or_none(path) for path in _manifest_paths(folder).values()}
    complete = [path for path, manifest in manifests.items() if manifest and _is_complete(folder, manifest)]
    for path in manifests.keys() - set(complete[-keep:]):
        path.unlink()
    _sync(folder)  # no manifest comes back without its files
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what a writer left that did not come to its end, and the files that no manifest names."""
    _remove_temporary(folder)
    manifests = [_manifest_or_none(path) for path in _manifest_paths(folder).values()]
    named = {piece.file for manifest in manifests if manifest for piece in manifest.pieces()}
    for entry in _entries(folder):
        if _DATA.fullmatch(entry) and entry not in named:
            (folder / entry).unlink()


def _remove_temporary(folder: Path) -> None:
    for entry in _entries(folder):
        if _TEMPORARY.fullmatch(entry):
            (folder / entry).unlink()


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _KEY.fullmatch(name):
        raise ArgumentError(f"{what}={name!r} must be 1 to 100 of a-z, 0-9, _ and -, the first a letter or a digit.")


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync(folder.parent)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if os.name == "nt":  # which has no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# reading


def _manifest_paths(folder: Path) -> dict[int, Path]:
    """The manifests, good or bad, by step in ascending order."""
    matches = [match for match in map(_MANIFEST.fullmatch, _entries(folder)) if match]
    return {int(match[1]): folder / match[0] for match in sorted(matches, key=lambda match: match[1])}


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _manifest_or_none(path: Path) -> _Manifest | None:
    """None if it is damaged; one of another version is not, and raises as :func:`_manifest` does."""
    try:
        return _manifest(path)
    except _OtherSchemaError:
        raise
    except CheckpointError:
        return None


def _manifest(path: Path) -> _Manifest:
    """
    :param path: a file
    :return: what it says, once it is sure that it says what was written
    :raises CheckpointError: if it does not
    """
    with _open(path) as file:
        if os.fstat(file.fileno()).st_size > MAX_MANIFEST:
            raise CheckpointError(f"{path} is not a checkpoint: it is larger than {MAX_MANIFEST} bytes.")
        data = file.read()
    first_line, _, rest = data.partition(b"\n")
    match = _FIRST_LINE.fullmatch(first_line)
    name = _MANIFEST.fullmatch(path.name)
    if match is None or name is None:
        raise CheckpointError(f"{path} is not a checkpoint.")
    if int(match[1]) != SCHEMA:
        raise _OtherSchemaError(
            f"{path} has the schema version {int(match[1])}, and this version of sb3_dqn_ext reads {SCHEMA} only."
        )
    if hashlib.sha256(rest).hexdigest() != match[2].decode():
        raise CheckpointError(f"{path} is damaged: its checksum is wrong, it has been cut short or changed.")
    try:
        body = json.loads(data, parse_constant=_no_constant)["manifest"]
        segments = {key: [_Piece(**piece) for piece in pieces] for key, pieces in body["segments"].items()}
        manifest = _Manifest(body["step"], body["versions"], _Piece(**body["state"]), segments)
        _expect(type(manifest.step) is int and manifest.step == int(name[1]), "step", manifest.step)
        _expect(type(manifest.versions) is dict, "versions", manifest.versions)
        _expect(all(type(version) is str for version in manifest.versions.values()), "versions", manifest.versions)
    # RecursionError: nested too deep
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise CheckpointError(f"{path} is not a checkpoint: {error}") from error
    return manifest


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _expect(good: object, what: str, value: object) -> None:
    if not good:
        raise ValueError(f"its {what} {str(value)[:200]!r} cannot be")


def _is_complete(folder: Path, manifest: _Manifest) -> bool:
    return all(_has_its_file(folder, piece) for piece in manifest.pieces())


def _has_its_file(folder: Path, piece: _Piece) -> bool:
    try:
        found = os.lstat(folder / piece.file)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == piece.size


def _load(folder: Path, piece: _Piece) -> Any:
    path = folder / piece.file
    with _disk_errors(path, "cannot be read"):
        arrays = _arrays(folder, piece, load=True)
        try:
            return unpack(piece.tree, arrays)
        except ValueError as error:
            raise CheckpointError(f"{path} does not fit its manifest: {error}") from error


def _arrays(folder: Path, piece: _Piece, load: bool) -> dict[str, Array]:
    """
    Check a file of arrays.

    :param folder: where it lies
    :param piece: what the manifest says of it
    :param load: whether to read the arrays, too
    :return: these
    """
    path = folder / piece.file
    with _open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != piece.size:
            raise CheckpointError(f"{path} is damaged: it has {size} bytes and should have {piece.size}.")
        if _sha256(file) != piece.sha256:
            raise CheckpointError(f"{path} is damaged: its checksum is wrong, it has been changed.")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_members(members, piece)
                return _read_members(archive, members, load)
        except OSError:
            raise
        except Exception as error:  # who wrote it knew the checksum: whatever zipfile, ast and numpy raise at it
            raise CheckpointError(f"{path} is not a file of arrays: {error}") from error


def _check_members(members: list[zipfile.ZipInfo], piece: _Piece) -> None:
    """What they promise together is in the file."""
    plain = all(member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size for member in members)
    if not plain or sum(member.file_size for member in members) != piece.unpacked:
        raise ValueError(f"it does not promise the {piece.unpacked} bytes that its manifest says")
    if sorted(member.filename for member in members) != sorted(f"{i}.npy" for i in range(len(members))):
        raise ValueError("its parts have other names than those of arrays")


def _read_members(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], load: bool) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for info in members:
        with archive.open(info) as member:
            dtype, shape, order = _header(member)
            n_bytes = math.prod(shape) * dtype.itemsize
            left = info.file_size - member.tell()
            if n_bytes != left:
                raise ValueError(f"{info.filename} promises {n_bytes} bytes and has {left}")
            if load:
                arrays[info.filename.removesuffix(".npy")] = np.ndarray(
                    shape, dtype, _read_exactly(member, n_bytes).data, order=order
                )
    return arrays


def _header(member: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    """
    Read what stands before the numbers of an array; numpy's own functions for this are of earlier versions of the format.

    :param member: a file in the ``.npy`` format
    :return: type, shape, and order of the numbers
    """
    version = np.lib.format.read_magic(member)
    if version != _NPY_VERSION:
        raise ValueError(f"it has the version {version} of the .npy format, and not {_NPY_VERSION}")
    (length,) = struct.unpack("<I", member.read(4))
    if length > MAX_HEADER:
        raise ValueError(f"its header is {length} bytes long")
    fields = ast.literal_eval(member.read(length).decode("utf-8").strip())
    dtype = np.lib.format.descr_to_dtype(fields["descr"])
    shape = fields["shape"]
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    if type(shape) is not tuple or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{shape!r} is no shape")
    return dtype, shape, "F" if fields["fortran_order"] else "C"


def _read_exactly(member: IO[bytes], n_bytes: int) -> npt.NDArray[np.uint8]:
    data = np.empty(n_bytes, dtype=np.uint8)
    at = 0
    while at < n_bytes:
        block = member.read(min(_BLOCK, n_bytes - at))
        if not block:
            raise ValueError("it ends too early")
        data[at : at + len(block)] = np.frombuffer(block, dtype=np.uint8)
        at += len(block)
    return data


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _open(path: Path) -> BinaryIO:
    """Open a plain file: a link leads elsewhere, and a pipe never ends."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise CheckpointError(f"{path} is not a plain file.")
    return open(path, "rb")


@contextlib.contextmanager
def _disk_errors(path: Path, what: str) -> Iterator[None]:
    """
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
