"""
The archive of a saved model: read so that it cannot take more memory than it has bytes for, and nothing in it runs.

It is a zip of ``data`` and of some ``.pth``, which are zips themselves. Their members are read and checked, and what is left
is written anew in memory: whoever reads that sees what was checked, and not another reading of the same bytes.
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
"""bytes of the JSON; what is larger is neither written nor read"""
MAX_ITEMS = 2**20
"""lists, objects, keys and items in the JSON: a parser makes of each much more than the bytes it is written in"""
MAX_RATIO = 20  # bytes that a byte of the file may unpack to: JSON shrinks to a tenth, numbers do not
_SPARE = 2**20  # bytes that a small file may unpack to
_MAX_NODES = 2**20  # of what a .pth holds
_MAX_DEPTH = 20

_PTH = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*\.pth")  # never an attribute with an underscore before it
_RECORD = re.compile(
    r"[^/\\]+/(data\.pkl|data/[0-9]+|version|byteorder|\.format_version|\.storage_alignment|\.data/serialization_id)"
)
_TEXTS = ("_stable_baselines3_version", "system_info.txt")
_MAX_TEXT = 2**16

# what the pickles of state dictionaries are made of; what torch allows beside it can be told to take memory at will
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
"""the members of an archive that mean something, by name"""
VARIABLES = ("pytorch_variables.pth", "tensors.pth")
"""tensors by the names of attributes, to which SB3 gives them whatever these are"""


class Archive(NamedTuple):
    """What is in an archive, checked."""

    parts: Parts
    variables: set[str]
    """names of the tensors that are in no state dictionary"""
    size: int
    """in bytes"""


def read_parts(file: BinaryIO) -> Archive:
    """
    :param file: an archive
    :return: what is in it
    :raises ModelFileError: if anything about it is wrong
    """
    try:
        with zipfile.ZipFile(file) as archive:
            size = file.seek(0, os.SEEK_END)
            members = archive.infolist()
            check_members(members, size, MAX_RATIO * size + _SPARE, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            _check_parts(members)
            parts = {info.filename: _read(archive, info) for info in members if _means_something(info.filename)}
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"it is no zip file that can be read: {error}") from error
    except ZipError as error:
        raise ModelFileError(str(error)) from error
    except ModelFileError:
        raise
    # whatever zipfile raises at bytes that were made for it
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


def _means_something(name: str) -> bool:
    return name == "data" or name in _TEXTS or name.endswith(".pth")


def _check_parts(members: list[zipfile.ZipInfo]) -> None:
    limits = {"data": MAX_DATA} | dict.fromkeys(_TEXTS, _MAX_TEXT)
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
    :param name: the name of a part
    :param data: what ``torch.save`` wrote
    :return: the same, written anew, and what it holds
    :raises ModelFileError: if it is more than parameters
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
    # whatever zipfile, pickletools and torch raise at bytes that were made for them
    except Exception as error:
        raise ModelFileError(f"its part {name!r} holds no parameters: {error!r}"[:1000]) from error
    return clean, tree


def _records(data: bytes) -> dict[str, bytes]:
    """What ``torch.save`` wrote, by name; it packs nothing."""
    records: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in stored_members(archive, len(data)):
            match = _RECORD.fullmatch(info.filename)
            if match is None or match[1] in records:
                raise ModelFileError(f"{info.filename!r} is no record of torch, or is there twice")
            records[match[1]] = archive.read(info)
    return records


def _check_pickle(data: bytes) -> None:
    """Look at each instruction, then follow them with inert objects."""
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
    """Nothing but plain values, few enough, and tensors that are no larger than the memory they have been read into."""
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
    :param parts: the members of an archive, checked
    :param data: what stands in the place of its ``data``
    :return: an archive for SB3 to read
    """
    return io.BytesIO(_zip(parts | {"data": data.encode()}))


def _zip(members: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()


def share_of_limit(text: str) -> float:
    """How much a text of JSON is of what is read."""
    items = sum(text.count(character) for character in "[{,:")
    return max(len(text) / MAX_DATA, items / MAX_ITEMS)


def parse_data(data: bytes) -> dict[str, Any]:
    """
    :param data: the JSON of an archive
    :return: its keys and values
    :raises ModelFileError: if it is none, or more than is read
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
    :param archive: a zip file without ``data``
    :param data: that
    :return: both
    """
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as file:
        file.writestr("data", data)
    return archive.getvalue()


def write_archive(path: str | Path | io.BufferedIOBase, content: bytes) -> None:
    """
    Write a model to a file, or to a path by SB3's rules: ``.zip`` is added where there is no suffix, folders are made. At a
    path there is always the whole file or the one before.

    :param path: a path, or a file that can be written to
    :param content: the archive
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
    """The file that SB3 would write."""
    if path.suffix == "":
        path = Path(f"{path}.zip")
    if path.is_dir():
        warnings.warn(f"Path '{path}' is a folder. Will save instead to {path}_2", stacklevel=5)
        return _target(Path(f"{path}_2"))
    if not path.parent.exists():
        warnings.warn(f"Path '{path.parent}' does not exist. Will create it.", stacklevel=5)
        path.parent.mkdir(exist_ok=True, parents=True)
    return path
