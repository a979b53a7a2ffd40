"""
Nested data as plain JSON and arrays, exactly, and without pickle: the one codec of checkpoints and of models.

In the JSON, a list is a list, and an object is always a marker: one key that names what its value stands for. A dictionary
that is packed becomes the value of a marker itself, so that none can be taken for one.
"""

import math
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.storage.arrays import MAX_HEADER

__all__ = [
    "MAX_DEPTH",
    "NotSerializableError",
    "Packing",
    "Path",
    "Unpacking",
    "is_plain",
    "pack",
    "pack_node",
    "unpack",
    "unpack_node",
]

Array = npt.NDArray[Any]
Path = tuple[Any, ...]
"""the place of a value: the keys and indices that lead to it"""

MAX_DEPTH = 100
"""levels of nesting; each takes up to four in the JSON, whose parser gives up near 1000"""

_STORED_AS = {  # types that numpy does not have, as whole numbers of the same size
    th.bfloat16: th.int16,
    th.float8_e4m3fn: th.uint8,
    th.float8_e4m3fnuz: th.uint8,
    th.float8_e5m2: th.uint8,
    th.float8_e5m2fnuz: th.uint8,
}
_SAME_IN_NUMPY = (
    *(th.bool, th.uint8, th.uint16, th.uint32, th.uint64, th.int8, th.int16, th.int32, th.int64),
    *(th.float16, th.float32, th.float64, th.complex64, th.complex128),
)
_TENSOR_TYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (*_STORED_AS, *_SAME_IN_NUMPY)}


class NotSerializableError(TypeError):
    """A value cannot be stored; the message names its type and its place, or the reason."""


class Packing(NamedTuple):
    """What files of one kind keep beside plain data, and how."""

    array: Callable[[Array], Any]
    """returns the JSON that stands for an array"""
    other: Callable[[Any, Path, "Packing"], Any]
    """returns the JSON of a value of any other type, or raises NotSerializableError"""
    is_key: Callable[[Any], bool]
    """whether a value can be the key of a dictionary"""


class Unpacking(NamedTuple):
    """What is read from files of one kind beside plain data."""

    array: Callable[[Any, Path], Array]
    """returns the array that a JSON stands for, or raises a ValueError"""
    others: Mapping[str, Callable[[Any, Path, "Unpacking"], Any]]
    """further markers, and functions of their content"""
    is_key: Callable[[Any], bool]
    """whether a value can be the key of a dictionary"""


def pack(tree: Any) -> tuple[Any, dict[str, Array]]:
    """
    Take a tree apart. It can hold None, bool, int, float, str, list, tuple, deque, dict and OrderedDict (with keys of str,
    int, or tuples of them), arrays and scalars of numpy, and tensors; no subclasses of these, which would come back as others.

    What is held at two places is stored twice. Types of other byte orders are kept, memory layouts are not.

    :param tree: the state
    :return: what ``json`` can write, and the arrays it names, which are not copied: write them before the state changes
    :raises NotSerializableError: if something cannot be stored exactly; the message has its place
    """
    arrays: dict[str, Array] = {}

    def keep(array: Array) -> str:
        name = str(len(arrays))
        arrays[name] = array
        return name

    return pack_node(tree, (), Packing(keep, _refuse, _is_key)), arrays


def unpack(json_tree: Any, arrays: Mapping[str, Array]) -> Any:
    """
    :param json_tree: the first that :func:`pack` returned
    :param arrays: the second; they are not copied
    :return: the tree; its tensors are on the CPU
    :raises ValueError: if this is nothing that :func:`pack` returns; the message has the place
    """

    def find(name: Any, path: Path) -> Array:
        if type(name) is not str or name not in arrays:
            raise ValueError(f"{_name(path)} is the array {name!r}, which is missing.")
        return arrays[name]

    return unpack_node(json_tree, (), Unpacking(find, {}, _is_key))


def is_plain(tree: Any) -> bool:
    """Whether :func:`pack` takes it."""
    try:
        pack(tree)
    except NotSerializableError:
        return False
    return True


def _name(path: Path) -> str:
    """``("callbacks", 0, "best")`` -> ``"callbacks[0].best"``"""
    parts = [f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in path]
    return "".join(parts).removeprefix(".") or "the tree"


def _is_text(value: str) -> bool:
    """Whether JSON keeps it; of two halves of a character it makes a whole one."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _is_storable(dtype: np.dtype[Any]) -> bool:
    """Whether the ``.npy`` format keeps the type: not objects, nor types that other libraries have added."""
    if dtype.hasobject:
        return False
    try:
        descr = np.lib.format.dtype_to_descr(dtype)
        restored = np.lib.format.descr_to_dtype(descr)
    except (TypeError, ValueError):
        return False
    return restored == dtype and restored.type is dtype.type and len(repr(descr)) < MAX_HEADER // 2


def _refused(value: Any, path: Path, why: str = "") -> NotSerializableError:
    return NotSerializableError(f"{_name(path)} is a {qualified_name(type(value))}, which a checkpoint cannot hold{why}.")


def _refuse(value: Any, path: Path, packing: Packing) -> Any:
    raise _refused(value, path)


def pack_node(value: Any, path: Path, packing: Packing) -> Any:
    """
    :param value: a value
    :param path: its place
    :param packing: what the file keeps beside plain data
    :return: what ``json`` can write
    :raises NotSerializableError: if it cannot be stored exactly
    """
    if len(path) > MAX_DEPTH:
        raise NotSerializableError(f"{_name(path[:5])} is nested deeper than {MAX_DEPTH} levels, or holds itself.")
    if value is None or type(value) is bool:
        return value
    if isinstance(value, np.generic):
        return _packed_scalar(value, path, packing)
    return _PACKERS.get(type(value), packing.other)(value, path, packing)


def _packed_str(value: str, path: Path, packing: Packing) -> Any:
    return value if _is_text(value) else {"str": value.encode("utf-8", "surrogatepass").hex()}


def _packed_int(value: int, path: Path, packing: Packing) -> Any:
    """Long ones as hexadecimals: Python limits the digits of decimals."""
    return value if -(2**63) <= value < 2**63 else {"int": hex(value)}


def _packed_float(value: float, path: Path, packing: Packing) -> Any:
    """JSON has no infinities, and many NaNs are one."""
    return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}


def _packed_list(value: list[Any], path: Path, packing: Packing) -> Any:
    return [pack_node(item, (*path, i), packing) for i, item in enumerate(value)]


def _packed_deque(value: deque[Any], path: Path, packing: Packing) -> Any:
    return {"deque": [value.maxlen, _packed_list(list(value), path, packing)]}


def _packed_dict(value: dict[Any, Any], path: Path, packing: Packing) -> Any:
    for key in value:
        if not packing.is_key(key):
            raise _refused(key, path, " as a key")
    if all(type(key) is str and _is_text(key) for key in value):
        return {"dict": {key: pack_node(item, (*path, key), packing) for key, item in value.items()}}
    pairs = ((pack_node(key, (*path, key), packing), pack_node(item, (*path, key), packing)) for key, item in value.items())
    return {"items": [list(pair) for pair in pairs]}


def _is_key(key: Any, depth: int = 0) -> bool:
    if type(key) is tuple:
        return depth < MAX_DEPTH and all(_is_key(part, depth + 1) for part in key)
    return type(key) in (str, int)


def _packed_array(value: Array, path: Path, packing: Packing) -> Any:
    if not _is_storable(value.dtype):
        raise _refused(value, path, f" with dtype {value.dtype}")
    return {"array": packing.array(value)}


def _packed_scalar(value: np.generic, path: Path, packing: Packing) -> Any:
    if type(value) is np.str_:  # an array would drop zeros at the end of this one and the next
        return {"numpy_str": value.encode("utf-8", "surrogatepass").hex()}
    if type(value) is np.bytes_:
        return {"numpy_bytes": bytes(value).hex()}
    if type(value) is not value.dtype.type or not _is_storable(value.dtype):
        raise _refused(value, path)
    return {"scalar": packing.array(np.asarray(value))}


def _packed_tensor(value: th.Tensor, path: Path, packing: Packing) -> Any:
    name = str(value.dtype).removeprefix("torch.")
    if value.requires_grad:
        raise _refused(value, path, " with its gradient: detach() it")
    if name not in _TENSOR_TYPES or value.layout is not th.strided or value.is_meta:
        raise _refused(value, path, f" with {value.dtype}, {value.layout}, on {value.device}")
    plain = value.cpu().resolve_conj().resolve_neg()
    return {"tensor": [packing.array(plain.view(_STORED_AS.get(value.dtype, value.dtype)).numpy()), name]}


_PACKERS: dict[type, Callable[[Any, Path, Packing], Any]] = {
    str: _packed_str,
    int: _packed_int,
    float: _packed_float,
    list: _packed_list,
    tuple: lambda value, path, packing: {"tuple": _packed_list(list(value), path, packing)},
    deque: _packed_deque,
    dict: _packed_dict,
    OrderedDict: lambda value, path, packing: {"ordered": _packed_dict(value, path, packing)},
    np.ndarray: _packed_array,
    th.Tensor: _packed_tensor,
}


def unpack_node(node: Any, path: Path, unpacking: Unpacking) -> Any:
    """
    :param node: what :func:`pack_node` returned
    :param path: its place
    :param unpacking: what is read beside plain data
    :return: the value
    :raises ValueError: if this is nothing that :func:`pack_node` returns
    """
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{_name(path[:5])} is nested deeper than {MAX_DEPTH} levels.")
    kind = type(node)
    if node is None or kind in (bool, int, float, str):
        return node
    if kind is list:
        return _unpacked_list(node, path, unpacking)
    if kind is not dict or len(node) != 1:
        raise ValueError(f"{_name(path)} is not a marker of one key.")
    ((marker, content),) = node.items()
    if marker in unpacking.others:
        return unpacking.others[marker](content, path, unpacking)
    if marker not in _UNPACKERS:
        raise ValueError(f"{_name(path)} has the marker {marker!r}, which is not known.")
    expected, unpacker = _UNPACKERS[marker]
    if not isinstance(content, expected):
        raise ValueError(f"{_name(path)} has a {type(content).__name__} in the marker {marker!r}.")
    return unpacker(content, path, unpacking)


def _unpacked_list(content: Any, path: Path, unpacking: Unpacking) -> list[Any]:
    if type(content) is not list:
        raise ValueError(f"{_name(path)} has no list where one belongs.")
    return [unpack_node(item, (*path, i), unpacking) for i, item in enumerate(content)]


def _pair(content: Any, path: Path) -> tuple[Any, Any]:
    if type(content) is not list or len(content) != 2:
        raise ValueError(f"{_name(path)} has no pair where one belongs.")
    return content[0], content[1]


def _bytes(content: str, path: Path) -> bytes:
    try:
        return bytes.fromhex(content)
    except ValueError as error:
        raise ValueError(f"{_name(path)} has no hexadecimals where they belong.") from error


def _unpacked_str(content: str, path: Path, unpacking: Unpacking) -> str:
    return _bytes(content, path).decode("utf-8", "surrogatepass")


def _unpacked_int(content: str, path: Path, unpacking: Unpacking) -> int:
    try:
        return int(content, 16)
    except ValueError as error:
        raise ValueError(f"{_name(path)} has no hexadecimals where they belong.") from error


def _unpacked_float(content: str, path: Path, unpacking: Unpacking) -> float:
    data = _bytes(content, path)
    if len(data) != 8:
        raise ValueError(f"{_name(path)} has no float of 8 bytes.")
    return float(struct.unpack(">d", data)[0])


def _unpacked_deque(content: list[Any], path: Path, unpacking: Unpacking) -> deque[Any]:
    maxlen, items = _pair(content, path)
    if maxlen is not None and (type(maxlen) is not int or not isinstance(items, list) or maxlen < len(items)):
        raise ValueError(f"{_name(path)} has a maxlen={maxlen!r} that its items do not fit.")
    return deque(_unpacked_list(items, path, unpacking), maxlen)


def _unpacked_dict(content: dict[str, Any], path: Path, unpacking: Unpacking) -> dict[str, Any]:
    return {key: unpack_node(item, (*path, key), unpacking) for key, item in content.items()}


def _unpacked_ordered(content: dict[str, Any], path: Path, unpacking: Unpacking) -> OrderedDict[Any, Any]:
    if not content.keys() <= {"dict", "items"}:
        raise ValueError(f"{_name(path)} has no dictionary where one belongs.")
    return OrderedDict(unpack_node(content, path, unpacking))


def _unpacked_items(content: list[Any], path: Path, unpacking: Unpacking) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for i, pair in enumerate(content):
        packed_key, item = _pair(pair, path)
        key = unpack_node(packed_key, (*path, i), unpacking)
        if not unpacking.is_key(key):
            raise ValueError(f"{_name(path)} has the key {key!r}.")
        found[key] = unpack_node(item, (*path, key), unpacking)
    return found


def _unpacked_scalar(content: Any, path: Path, unpacking: Unpacking) -> Any:
    array = unpacking.array(content, path)
    if array.shape != ():
        raise ValueError(f"{_name(path)} is a scalar of shape {array.shape}.")
    return array[()]


def _unpacked_tensor(content: list[Any], path: Path, unpacking: Unpacking) -> th.Tensor:
    name, type_name = _pair(content, path)
    array = unpacking.array(name, path)
    dtype = _TENSOR_TYPES.get(type_name) if type(type_name) is str else None
    if dtype is None:
        raise ValueError(f"{_name(path)} is a tensor of the type {type_name!r}, which is not known.")
    stored = _STORED_AS.get(dtype, dtype)
    if array.dtype.name != str(stored).removeprefix("torch.") or not array.dtype.isnative:
        raise ValueError(f"{_name(path)} is a tensor of {type_name} in an array of {array.dtype}.")
    return th.from_numpy(array).view(dtype)


# what each marker holds, and what makes of it what it stands for
_UNPACKERS: dict[str, tuple[type, Callable[[Any, Path, Unpacking], Any]]] = {
    "str": (str, _unpacked_str),
    "int": (str, _unpacked_int),
    "float": (str, _unpacked_float),
    "tuple": (list, lambda content, path, unpacking: tuple(_unpacked_list(content, path, unpacking))),
    "deque": (list, _unpacked_deque),
    "dict": (dict, _unpacked_dict),
    "items": (list, _unpacked_items),
    "ordered": (dict, _unpacked_ordered),
    "array": (object, lambda content, path, unpacking: unpacking.array(content, path)),
    "scalar": (object, _unpacked_scalar),
    "numpy_str": (str, lambda content, path, unpacking: np.str_(_unpacked_str(content, path, unpacking))),
    "numpy_bytes": (str, lambda content, path, unpacking: np.bytes_(_bytes(content, path))),
    "tensor": (list, _unpacked_tensor),
}
