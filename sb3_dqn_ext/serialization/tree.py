"""
The codec of checkpoints and models: nested data as plain JSON and arrays, exactly, without pickle.

In the JSON, a list represents a list. An object is always a marker: a single key that names the type of its content. A
dictionary is stored as the content of a marker, so that no dictionary can be mistaken for a marker.
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
"""The position of a value: the keys and indices that lead to it."""

MAX_DEPTH = 100
"""The largest number of nested levels. Each takes up to four levels of JSON, and the parser fails near 1000."""

_STORED_AS = {  # types that numpy does not have, as integers of the same size
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
    """An error for a value that cannot be stored. The message contains its type and position, or the reason."""


class Packing(NamedTuple):
    """The extensions of one file format to plain data, for writing."""

    array: Callable[[Array], Any]
    """A function that returns the JSON for an array."""
    other: Callable[[Any, Path, "Packing"], Any]
    """A function that returns the JSON for a value of any other type, or raises NotSerializableError."""
    is_key: Callable[[Any], bool]
    """A function that checks whether a value can be a key of a dictionary."""


class Unpacking(NamedTuple):
    """The extensions of one file format to plain data, for reading."""

    array: Callable[[Any, Path], Array]
    """A function that returns the array for its JSON, or raises a ValueError."""
    others: Mapping[str, Callable[[Any, Path, "Unpacking"], Any]]
    """Further markers, with the functions that decode their content."""
    is_key: Callable[[Any], bool]
    """A function that checks whether a value can be a key of a dictionary."""


def pack(tree: Any) -> tuple[Any, dict[str, Array]]:
    """
    Split nested data into JSON and arrays.

    The data may contain None, bool, int, float, str, list, tuple, deque, dict and OrderedDict (with keys of str, int, or
    tuples of them), numpy arrays and scalars, and tensors. Subclasses of these types are refused, since their type would be
    lost.

    An object that is referenced twice is stored twice. Byte orders are kept, memory layouts are not.

    :param tree: the nested data
    :return: a value that ``json`` can write, and the arrays it names. The arrays are not copied: write them before they change
    :raises NotSerializableError: if a value cannot be stored exactly; the message contains its position
    """
    arrays: dict[str, Array] = {}

    def keep(array: Array) -> str:
        name = str(len(arrays))
        arrays[name] = array
        return name

    return pack_node(tree, (), Packing(keep, _refuse_other, _is_key)), arrays


def unpack(json_tree: Any, arrays: Mapping[str, Array]) -> Any:
    """
    Join JSON and arrays to nested data.

    :param json_tree: the first result of :func:`pack`
    :param arrays: the second result of :func:`pack`; the arrays are not copied
    :return: the nested data, with tensors on the CPU
    :raises ValueError: if the JSON is not a result of :func:`pack`; the message contains the position
    """

    def find(name: Any, path: Path) -> Array:
        if type(name) is not str or name not in arrays:
            raise ValueError(f"{_name(path)} is the array {name!r}, which is missing.")
        return arrays[name]

    return unpack_node(json_tree, (), Unpacking(find, {}, _is_key))


def is_plain(tree: Any) -> bool:
    """Check whether :func:`pack` accepts a value."""
    try:
        pack(tree)
    except NotSerializableError:
        return False
    return True


def _name(path: Path) -> str:
    """Return a readable position: ``("callbacks", 0, "best")`` -> ``"callbacks[0].best"``."""
    parts = [f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]" for key in path]
    return "".join(parts).removeprefix(".") or "the tree"


def _is_text(value: str) -> bool:
    """Check whether JSON preserves a text. It would merge two surrogates to one character."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _is_storable(dtype: np.dtype[Any]) -> bool:
    """Check whether the ``.npy`` format preserves a type. It has no objects and no types of other libraries."""
    if dtype.hasobject:
        return False
    try:
        descr = np.lib.format.dtype_to_descr(dtype)
        restored = np.lib.format.descr_to_dtype(descr)
    except (TypeError, ValueError):
        return False
    return restored == dtype and restored.type is dtype.type and len(repr(descr)) < MAX_HEADER // 2


def _not_serializable(value: Any, path: Path, why: str = "") -> NotSerializableError:
    return NotSerializableError(f"{_name(path)} is a {qualified_name(type(value))}, which a checkpoint cannot hold{why}.")


def _refuse_other(value: Any, path: Path, packing: Packing) -> Any:
    raise _not_serializable(value, path)


def pack_node(value: Any, path: Path, packing: Packing) -> Any:
    """
    Convert a value to JSON.

    :param value: the value
    :param path: its position
    :param packing: the extensions of the file format
    :return: a value that ``json`` can write
    :raises NotSerializableError: if the value cannot be stored exactly
    """
    if len(path) > MAX_DEPTH:
        raise NotSerializableError(f"{_name(path[:5])} is nested deeper than {MAX_DEPTH} levels, or holds itself.")
    if value is None or type(value) is bool:
        return value
    if isinstance(value, np.generic):
        return _pack_scalar(value, path, packing)
    return _PACKERS.get(type(value), packing.other)(value, path, packing)


def _pack_str(value: str, path: Path, packing: Packing) -> Any:
    return value if _is_text(value) else {"str": value.encode("utf-8", "surrogatepass").hex()}


def _pack_int(value: int, path: Path, packing: Packing) -> Any:
    """Return an integer, in hexadecimal if it is long, since Python limits the digits of decimals."""
    return value if -(2**63) <= value < 2**63 else {"int": hex(value)}


def _pack_float(value: float, path: Path, packing: Packing) -> Any:
    """Return a float, as bytes if it is infinite or NaN, which JSON does not have."""
    return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}


def _pack_list(value: list[Any], path: Path, packing: Packing) -> Any:
    return [pack_node(item, (*path, i), packing) for i, item in enumerate(value)]


def _pack_deque(value: deque[Any], path: Path, packing: Packing) -> Any:
    return {"deque": [value.maxlen, _pack_list(list(value), path, packing)]}


def _pack_dict(value: dict[Any, Any], path: Path, packing: Packing) -> Any:
    for key in value:
        if not packing.is_key(key):
            raise _not_serializable(key, path, " as a key")
    if all(type(key) is str and _is_text(key) for key in value):
        return {"dict": {key: pack_node(item, (*path, key), packing) for key, item in value.items()}}
    pairs = ((pack_node(key, (*path, key), packing), pack_node(item, (*path, key), packing)) for key, item in value.items())
    return {"items": [list(pair) for pair in pairs]}


def _is_key(key: Any, depth: int = 0) -> bool:
    if type(key) is tuple:
        return depth < MAX_DEPTH and all(_is_key(part, depth + 1) for part in key)
    return type(key) in (str, int)


def _pack_array(value: Array, path: Path, packing: Packing) -> Any:
    if not _is_storable(value.dtype):
        raise _not_serializable(value, path, f" with dtype {value.dtype}")
    return {"array": packing.array(value)}


def _pack_scalar(value: np.generic, path: Path, packing: Packing) -> Any:
    if type(value) is np.str_:  # an array would drop trailing zeros of this type and the next
        return {"numpy_str": value.encode("utf-8", "surrogatepass").hex()}
    if type(value) is np.bytes_:
        return {"numpy_bytes": bytes(value).hex()}
    if type(value) is not value.dtype.type or not _is_storable(value.dtype):
        raise _not_serializable(value, path)
    return {"scalar": packing.array(np.asarray(value))}


def _pack_tensor(value: th.Tensor, path: Path, packing: Packing) -> Any:
    name = str(value.dtype).removeprefix("torch.")
    if value.requires_grad:
        raise _not_serializable(value, path, " with its gradient: detach() it")
    if name not in _TENSOR_TYPES or value.layout is not th.strided or value.is_meta:
        raise _not_serializable(value, path, f" with {value.dtype}, {value.layout}, on {value.device}")
    plain = value.cpu().resolve_conj().resolve_neg()
    return {"tensor": [packing.array(plain.view(_STORED_AS.get(value.dtype, value.dtype)).numpy()), name]}


_PACKERS: dict[type, Callable[[Any, Path, Packing], Any]] = {
    str: _pack_str,
    int: _pack_int,
    float: _pack_float,
    list: _pack_list,
    tuple: lambda value, path, packing: {"tuple": _pack_list(list(value), path, packing)},
    deque: _pack_deque,
    dict: _pack_dict,
    OrderedDict: lambda value, path, packing: {"ordered": _pack_dict(value, path, packing)},
    np.ndarray: _pack_array,
    th.Tensor: _pack_tensor,
}


def unpack_node(node: Any, path: Path, unpacking: Unpacking) -> Any:
    """
    Convert JSON to a value.

    :param node: the result of :func:`pack_node`
    :param path: its position
    :param unpacking: the extensions of the file format
    :return: the value
    :raises ValueError: if the JSON is not a result of :func:`pack_node`
    """
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{_name(path[:5])} is nested deeper than {MAX_DEPTH} levels.")
    kind = type(node)
    if node is None or kind in (bool, int, float, str):
        return node
    if kind is list:
        return _unpack_list(node, path, unpacking)
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


def _unpack_list(content: Any, path: Path, unpacking: Unpacking) -> list[Any]:
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


def _unpack_str(content: str, path: Path, unpacking: Unpacking) -> str:
    return _bytes(content, path).decode("utf-8", "surrogatepass")


def _unpack_int(content: str, path: Path, unpacking: Unpacking) -> int:
    try:
        return int(content, 16)
    except ValueError as error:
        raise ValueError(f"{_name(path)} has no hexadecimals where they belong.") from error


def _unpack_float(content: str, path: Path, unpacking: Unpacking) -> float:
    data = _bytes(content, path)
    if len(data) != 8:
        raise ValueError(f"{_name(path)} has no float of 8 bytes.")
    return float(struct.unpack(">d", data)[0])


def _unpack_deque(content: list[Any], path: Path, unpacking: Unpacking) -> deque[Any]:
    maxlen, items = _pair(content, path)
    if maxlen is not None and (type(maxlen) is not int or not isinstance(items, list) or maxlen < len(items)):
        raise ValueError(f"{_name(path)} has a maxlen={maxlen!r} that its items do not fit.")
    return deque(_unpack_list(items, path, unpacking), maxlen)


def _unpack_dict(content: dict[str, Any], path: Path, unpacking: Unpacking) -> dict[str, Any]:
    return {key: unpack_node(item, (*path, key), unpacking) for key, item in content.items()}


def _unpack_ordered(content: dict[str, Any], path: Path, unpacking: Unpacking) -> OrderedDict[Any, Any]:
    if not content.keys() <= {"dict", "items"}:
        raise ValueError(f"{_name(path)} has no dictionary where one belongs.")
    return OrderedDict(unpack_node(content, path, unpacking))


def _unpack_items(content: list[Any], path: Path, unpacking: Unpacking) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for i, pair in enumerate(content):
        packed_key, item = _pair(pair, path)
        key = unpack_node(packed_key, (*path, i), unpacking)
        if not unpacking.is_key(key):
            raise ValueError(f"{_name(path)} has the key {key!r}.")
        found[key] = unpack_node(item, (*path, key), unpacking)
    return found


def _unpack_scalar(content: Any, path: Path, unpacking: Unpacking) -> Any:
    array = unpacking.array(content, path)
    if array.shape != ():
        raise ValueError(f"{_name(path)} is a scalar of shape {array.shape}.")
    return array[()]


def _unpack_tensor(content: list[Any], path: Path, unpacking: Unpacking) -> th.Tensor:
    name, type_name = _pair(content, path)
    array = unpacking.array(name, path)
    dtype = _TENSOR_TYPES.get(type_name) if type(type_name) is str else None
    if dtype is None:
        raise ValueError(f"{_name(path)} is a tensor of the type {type_name!r}, which is not known.")
    stored = _STORED_AS.get(dtype, dtype)
    if array.dtype.name != str(stored).removeprefix("torch.") or not array.dtype.isnative:
        raise ValueError(f"{_name(path)} is a tensor of {type_name} in an array of {array.dtype}.")
    return th.from_numpy(array).view(dtype)


# the type of the content of each marker, and the function that decodes it
_UNPACKERS: dict[str, tuple[type, Callable[[Any, Path, Unpacking], Any]]] = {
    "str": (str, _unpack_str),
    "int": (str, _unpack_int),
    "float": (str, _unpack_float),
    "tuple": (list, lambda content, path, unpacking: tuple(_unpack_list(content, path, unpacking))),
    "deque": (list, _unpack_deque),
    "dict": (dict, _unpack_dict),
    "items": (list, _unpack_items),
    "ordered": (dict, _unpack_ordered),
    "array": (object, lambda content, path, unpacking: unpacking.array(content, path)),
    "scalar": (object, _unpack_scalar),
    "numpy_str": (str, lambda content, path, unpacking: np.str_(_unpack_str(content, path, unpacking))),
    "numpy_bytes": (str, lambda content, path, unpacking: np.bytes_(_bytes(content, path))),
    "tensor": (list, _unpack_tensor),
}
