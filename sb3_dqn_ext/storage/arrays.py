"""Files of arrays: zips of ``.npy`` without compression and without objects, as ``numpy.load`` reads them."""

import ast
import hashlib
import math
import os
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.errors import CheckpointError
from sb3_dqn_ext.storage.atomic import synced_new_file
from sb3_dqn_ext.storage.disk import open_plain_file
from sb3_dqn_ext.storage.zip_checks import stored_members

__all__ = ["MAX_HEADER", "ArrayFile", "read_arrays", "write_arrays"]

Array = npt.NDArray[Any]

MAX_HEADER = 2**16
"""bytes of the header of a stored array, which names each field of a structured type"""
_BLOCK = 2**20  # bytes read at a time
_NPY_VERSION = (3, 0)  # the one that takes every name of a field


class ArrayFile(NamedTuple):
    """What is known of a file of arrays when it is written, and checked when it is read."""

    size: int
    """bytes of the file"""
    unpacked: int
    """bytes of the arrays and their headers in it"""
    sha256: str


class _Hashed:
    """A file that can only be written to straight ahead, which ``zipfile`` then does, and its checksum."""

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


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> ArrayFile:
    """
    :param path: a name that does not exist; its content is on the disk afterwards
    :param arrays: arrays by their names, which are the numbers from 0 on
    :return: what :func:`read_arrays` checks
    """
    with synced_new_file(path) as file:
        hashed = _Hashed(file)
        # without compression, a file cannot promise more bytes than it has
        with zipfile.ZipFile(cast(IO[bytes], hashed), "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, _NPY_VERSION, allow_pickle=False)
            unpacked = sum(member.file_size for member in archive.infolist())
    return ArrayFile(hashed.size, unpacked, hashed.sha256.hexdigest())


def read_arrays(path: Path, expected: ArrayFile, load: bool) -> dict[str, Array]:
    """
    Check a file of arrays.

    :param path: the file
    :param expected: what :func:`write_arrays` returned
    :param load: whether to read the arrays, too
    :return: the arrays by their names, if they are read
    :raises CheckpointError: if the file is another, or could do harm
    """
    with open_plain_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != expected.size:
            raise CheckpointError(f"{path} is damaged: it has {size} bytes and should have {expected.size}.")
        if _sha256(file) != expected.sha256:
            raise CheckpointError(f"{path} is damaged: its checksum is wrong, it has been changed.")
        file.seek(0)
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_members(archive, stored_members(archive, size), expected.unpacked, load)
        except OSError:
            raise
        except Exception as error:  # the checksum may have been forged: whatever zipfile, ast and numpy raise at the content
            raise CheckpointError(f"{path} is not a file of arrays: {error}") from error


def _read_members(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], unpacked: int, load: bool) -> dict[str, Array]:
    if sum(member.file_size for member in members) != unpacked:
        raise ValueError(f"it does not promise the {unpacked} bytes that its manifest says")
    if sorted(member.filename for member in members) != sorted(f"{i}.npy" for i in range(len(members))):
        raise ValueError("its parts have other names than those of arrays")
    arrays: dict[str, Array] = {}
    for info in members:
        with archive.open(info) as member:
            dtype, shape, order = _read_header(member)
            n_bytes = math.prod(shape) * dtype.itemsize
            left = info.file_size - member.tell()
            if n_bytes != left:
                raise ValueError(f"{info.filename} promises {n_bytes} bytes and has {left}")
            if load:
                data = _read_exactly(member, n_bytes).data
                arrays[info.filename.removesuffix(".npy")] = np.ndarray(shape, dtype, data, order=order)
    return arrays


def _read_header(member: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    """
    Read what comes before the numbers of an array.

    numpy's public functions for headers read the versions 1 and 2 only, and its functions for arrays take the memory that a
    header promises.

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
