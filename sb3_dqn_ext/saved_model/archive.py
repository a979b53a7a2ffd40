"""
The archive of a saved model. Reading it takes no more memory than its size justifies, and no code in it runs.

An archive is a zip of ``data`` and of ``.pth`` files, which are zips themselves. Their members are read and checked, and the
accepted content is written to a new archive in memory. Later readers see exactly the content that was checked.
"""

import io
import json
import os
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch as th

from sb3_dqn_ext.errors import ModelFileError
from sb3_dqn_ext.serialization.sb3_pickle import UnsupportedPickleError, describe_pickle
from sb3_dqn_ext.storage.atomic import write_atomically
from sb3_dqn_ext.storage.zip_checks import ZipError, check_members, stored_members

__all__ = [
    "MAX_DATA",
    "VARIABLES",
    "Archive",
    "Parts",
    "add_data",
    "clean_archive",
    "parse_data",
    "read_parts",
    "share_of_limit",
    "write_archive",
]

MAX_DATA = 2**25
"""The largest size of the JSON in bytes. Larger data are neither written nor read."""
MAX_ITEMS = 2**20
"""The largest number of lists, objects, keys and items in the JSON. A parser takes much more memory for each than its text."""
MAX_RATIO = 20  # bytes that a byte of the file may unpack to: JSON compresses to a tenth, numbers do not
_MIN_UNPACKED = 2**20  # bytes that a small file may unpack to
_MAX_NODES = 2**20  # values in a .pth file
_MAX_DEPTH = 20

_PTH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*\.pth")  # never an attribute with an underscore before it
_RECORD = re.compile(
    r"[^/\\]+/(data\.pkl|data/[0-9]+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_TEXTS = ("_stable_baselines3_version", "system_info.txt")
_MAX_TEXT_BYTES = 2**16

# the instructions of state dictionaries; some others that torch allows can allocate any amount of memory
_OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
}
_STORAGES = (
    *("Float", "Double", "Half", "BFloat16", "ComplexFloat", "ComplexDouble"),
    *("Long", "Int", "Short", "Char", "Byte", "Bool"),
)
_GLOBALS = {
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"),
    *(f"torch {storage}Storage" for storage in _STORAGES),
}

Parts = dict[str, bytes]
"""The relevant members of an archive, by name."""
VARIABLES = ("pytorch_variables.pth", "tensors.pth")
"""The files with tensors that SB3 assigns to attributes of the same names, whatever these are."""


class Archive(NamedTuple):
    """The checked content of an archive."""

    parts: Parts
    variables: set[str]
    """The names of the tensors that are in no state dictionary."""
    size: int
    """The size in bytes."""


def read_parts(file: BinaryIO) -> Archive:
    """
    Read and check an archive.

    :param file: an archive, opened for reading
    :return: its content
    :raises ModelFileError: if any part is damaged, too large or not allowed
    """
    try:
        with zipfile.ZipFile(file) as archive:
            size = file.seek(0, os.SEEK_END)
            members = archive.infolist()
            check_members(members, size, MAX_RATIO * size + _MIN_UNPACKED, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            _check_parts(members)
            parts = {info.filename: _read(archive, info) for info in members if _is_relevant(info.filename)}
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"it is no zip file that can be read: {error}") from error
    except ZipError as error:
        raise ModelFileError(str(error)) from error
    except ModelFileError:
        raise
    # zipfile may raise any error for forged bytes
    except Exception as error:
        raise ModelFileError(f"it is no archive that can be read: {error!r}") from error
    variables: set[str] = set()
    for name in parts:
        if name.endswith(".pth"):
            parts[name], tree = _clean_pth(name, parts[name])
            if name in VARIABLES:
                variables |= _names(name, tree)
    return Archive(parts, variables, size)


def _names(name: str, tree: Any) -> set[str]:
    if not isinstance(tree, Mapping) or not all(isinstance(key, str) and _PTH.fullmatch(f"{key}.pth") for key in tree):
        raise ModelFileError(f"its part {name!r} has no names of attributes.")
    return set(tree)


def _is_relevant(name: str) -> bool:
    return name == "data" or name in _TEXTS or name.endswith(".pth")


def _check_parts(members: list[zipfile.ZipInfo]) -> None:
    limits = {"data": MAX_DATA} | dict.fromkeys(_TEXTS, _MAX_TEXT_BYTES)
    for info in members:
        name = info.filename
        if name.endswith(".pth") and not _PTH.fullmatch(name):
            raise ModelFileError(f"its part {name!r} has no name of parameters.")
        if name in limits and info.file_size > limits[name]:
            raise ModelFileError(f"its part {name!r} is larger than {limits[name]} bytes.")


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    data = archive.read(info)
    if len(data) != info.file_size:
        raise ModelFileError(f"its part {info.filename!r} has {len(data)} bytes and promises {info.file_size}.")
    return data


def _clean_pth(name: str, data: bytes) -> tuple[bytes, Any]:
    """
    Check a ``.pth`` file and write its content to a new one.

    :param name: the name of the file in the archive
    :param data: its bytes, as written by ``torch.save``
    :return: the bytes of the new file, and the tree of parameters
    :raises ModelFileError: if it holds anything but parameters
    """
    try:
        records = _records(data)
        _check_pickle(records["data.pkl"])
        clean = _zip({f"archive/{record}": content for record, content in records.items()})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = th.load(io.BytesIO(clean), map_location="cpu", weights_only=True)
        _check_tree(tree)
    except ModelFileError as error:
        raise ModelFileError(f"its part {name!r} holds no parameters: {error}") from error
    # zipfile, pickletools and torch may raise any error for forged bytes
    except Exception as error:
        raise ModelFileError(f"its part {name!r} holds no parameters: {error!r}"[:1000]) from error
    return clean, tree


def _records(data: bytes) -> dict[str, bytes]:
    """Return the records of a ``.pth`` file, which are not compressed, by name."""
    records: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in stored_members(archive, len(data)):
            match = _RECORD.fullmatch(info.filename)
            if match is None or match[1] in records:
                raise ModelFileError(f"{info.filename!r} is no record of torch, or is there twice")
            records[match[1]] = archive.read(info)
    return records


def _check_pickle(data: bytes) -> None:
    """Check each instruction of a pickle, then execute them with inert objects."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES or (opcode.name == "PROTO" and argument != 2):
            raise ModelFileError(f"the instruction {opcode.name} is none of parameters")
        if opcode.name == "GLOBAL" and argument not in _GLOBALS:
            raise ModelFileError(f"{argument!r} is not among {', '.join(sorted(_GLOBALS))}")
    try:
        describe_pickle(data)
    except UnsupportedPickleError:
        raise ModelFileError("it has keys that are no names or numbers, or instructions in the wrong places") from None


def _check_tree(tree: Any) -> None:
    """Check that a tree is small and holds only plain values, and tensors that are no larger than their data."""
    left, n_nodes = [(tree, 0)], 0
    while left:
        node, depth = left.pop()
        n_nodes += 1
        if n_nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise ModelFileError("it is nested too deep, or names the same thing again and again")
        if isinstance(node, th.Tensor):
            if node.numel() * node.element_size() > node.untyped_storage().nbytes():
                raise ModelFileError(f"a tensor of shape {tuple(node.shape)} is larger than its numbers")
        elif isinstance(node, Mapping):
            left.extend((item, depth + 1) for pair in node.items() for item in pair)
        elif isinstance(node, list | tuple):
            left.extend((item, depth + 1) for item in node)
        elif not (node is None or isinstance(node, bool | int | float | str)):
            raise ModelFileError(f"it holds a {type(node).__name__}")


def clean_archive(parts: Parts, data: str) -> io.BytesIO:
    """
    Return an archive for SB3 to read.

    :param parts: the checked members of an archive
    :param data: the text that replaces its ``data``
    """
    return io.BytesIO(_zip(parts | {"data": data.encode()}))


def _zip(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()


def share_of_limit(text: str) -> float:
    """Return the size of a JSON text relative to the largest size that is read."""
    items = sum(text.count(character) for character in "[{,:")
    return max(len(text) / MAX_DATA, items / MAX_ITEMS)


def parse_data(data: bytes) -> dict[str, Any]:
    """
    Parse the JSON of an archive.

    :param data: its bytes
    :return: the keys and values
    :raises ModelFileError: if it is not JSON, or larger than allowed
    """
    try:
        text = data.decode()
        if share_of_limit(text) > 1:
            raise ModelFileError(f"its data hold more than {MAX_DATA} bytes or {MAX_ITEMS} items.")
        found = json.loads(text)
    except ModelFileError:
        raise
    # RecursionError: nested too deep
    except (ValueError, RecursionError, MemoryError) as error:
        raise ModelFileError(f"its data are no JSON that can be read: {error}"[:1000]) from error
    if type(found) is not dict:
        raise ModelFileError("its data are no attributes by name.")
    return found


# writing


def add_data(archive: io.BytesIO, data: str) -> bytes:
    """
    Add ``data`` to an archive.

    :param archive: a zip file without ``data``
    :param data: the text to add
    :return: the bytes of the archive
    """
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
        file.writestr("data", data)
    return archive.getvalue()


def write_archive(path: str | Path | io.BufferedIOBase, content: bytes) -> None:
    """
    Write a model to a file, or to a path by SB3's rules: ``.zip`` is added if there is no suffix, and folders are created.
    The file at a path is replaced atomically.

    :param path: a path, or a file that can be written to
    :param content: the bytes of the archive
    """
    if not isinstance(path, str | Path):
        path.write(content)
        return
    target = Path(os.path.realpath(_target(Path(path))))  # through links, as a file that is opened
    if target.exists() and not target.is_file():
        target.write_bytes(content)  # a device or a pipe
        return
    write_atomically(target, content)


def _target(path: Path) -> Path:
    """Return the path that SB3 would write to."""
    if path.suffix == "":
        path = Path(f"{path}.zip")
    if path.is_dir():
        warnings.warn(f"Path '{path}' is a folder. Will save instead to {path}_2", stacklevel=5)
        return _target(Path(f"{path}_2"))
    if not path.parent.exists():
        warnings.warn(f"Path '{path.parent}' does not exist. Will create it.", stacklevel=5)
        path.parent.mkdir(exist_ok=True, parents=True)
    return path
