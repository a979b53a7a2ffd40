"""
Nested state as plain JSON and arrays, exactly, and without pickle.

In the JSON, a list is a list, and an object is always a marker: one key that says what its value stands for. A dictionary that
is packed becomes the value of a marker itself, so that none can be taken for one.
"""

import math
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.storage.arrays import MAX_HEADER

__all__ = ["MAX_DEPTH", "is_plain", "pack", "unpack"]

Array = npt.NDArray[Any]
Path = tuple[Any, ...]

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


def pack(tree: Any) -> tuple[Any, dict[str, Array]]:
    """
    Take a tree apart. It can hold None, bool, int, float, str, list, tuple, deque, dict and OrderedDict (with keys of str,
    int, or tuples of them), arrays and scalars of numpy, and tensors; no subclasses of these, which would come back as others.

    What is held at two places is stored twice. Types of other byte orders are kept, memory layouts are not.

    :param tree: the state
    :return: what ``json`` can write, and the arrays it names, which are not copied: write them before the state changes
    :raises TypeError: if something cannot be stored exactly; it says what, and where
    """
    arrays: dict[str, Array] = {}
    return _packed(tree, (), arrays), arrays


def unpack(json_tree: Any, arrays: Mapping[str, Array]) -> Any:
    """
    :param json_tree: the first that :func:`pack` returned
    :param arrays: the second; they are not copied
    :return: the tree; its tensors are on the CPU
    :raises ValueError: if this is nothing that :func:`pack` returns; it says what, and where
    """
    return _unpacked(json_tree, (), arrays)


def is_plain(tree: Any) -> bool:
    """Whether :func:`pack` takes it."""
    try:
        pack(tree)
    except TypeError:
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


def _refused(value: Any, path: Path, why: str = "") -> TypeError:
    kind = type(value)
    return TypeError(f"{_name(path)} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold{why}.")


def _packed(value: Any, path: Path, arrays: dict[str, Array]) -> Any:
    if len(path) > MAX_DEPTH:
        raise TypeError(f"{_name(path[:5])} is nested deeper than {MAX_DEPTH} levels, or holds itself.")
    kind = type(value)
    if value is None or kind is bool:
        return value
    if isinstance(value, np.generic):
        return _packed_scalar(value, path, arrays)
    packer = _PACKERS.get(kind)
    if packer is None:
        raise _refused(value, path)
    return packer(value, path, arrays)


def _packed_str(value: str, path: Path, arrays: dict[str, Array]) -> Any:
    return value if _is_text(value) else {"str": value.encode("utf-8", "surrogatepass").hex()}


def _packed_int(value: int, path: Path, arrays: dict[str, Array]) -> Any:
    """Long ones as hexadecimals: Python limits the digits of decimals."""
    return value if -(2**63) <= value < 2**63 else {"int": hex(value)}


def _packed_float(value: float, path: Path, arrays: dict[str, Array]) -> Any:
    """JSON has no infinities, and many NaNs are one."""
    return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}


def _packed_list(value: list[Any], path: Path, arrays: dict[str, Array]) -> Any:
    return [_packed(item, (*path, i), arrays) for i, item in enumerate(value)]


def _packed_deque(value: deque[Any], path: Path, arrays: dict[str, Array]) -> Any:
    return {"deque": [value.maxlen, _packed_list(list(value), path, arrays)]}


def _packed_dict(value: dict[Any, Any], path: Path, arrays: dict[str, Array]) -> Any:
    for key in value:
        if not _is_key(key):
            raise _refused(key, path, " as a key")
    if all(type(key) is str and _is_text(key) for key in value):
        return {"dict": {key: _packed(item, (*path, key), arrays) for key, item in value.items()}}
    pairs = ((_packed(key, (*path, key), {}), _packed(item, (*path, key), arrays)) for key, item in value.items())
    return {"items": [list(pair) for pair in pairs]}


def _is_key(key: Any, depth: int = 0) -> bool:
    if type(key) is tuple:
        return depth < MAX_DEPTH and all(_is_key(part, depth + 1) for part in key)
    return type(key) in (str, int)


def _packed_array(value: Array, path: Path, arrays: dict[str, Array]) -> Any:
    if not _is_storable(value.dtype):
        raise _refused(value, path, f" with dtype {value.dtype}")
    return {"array": _keep(value, arrays)}


def _packed_scalar(value: np.generic, path: Path, arrays: dict[str, Array]) -> Any:
    if type(value) is np.str_:  # an array would drop zeros at the end of this one and the next
        return {"numpy_str": value.encode("utf-8", "surrogatepass").hex()}
    if type(value) is np.bytes_:
        return {"numpy_bytes": bytes(value).hex()}
    if type(value) is not value.dtype.type or not _is_storable(value.dtype):
        raise _refused(value, path)
    return {"scalar": _keep(np.asarray(value), arrays)}


def _packed_tensor(value: th.Tensor, path: Path, arrays: dict[str, Array]) -> Any:
    name = str(value.dtype).removeprefix("torch.")
    if value.requires_grad:
        raise _refused(value, path, " with its gradient: detach() it")
    if name not in _TENSOR_TYPES or value.layout is not th.strided or value.is_meta:
        raise _refused(value, path, f" with {value.dtype}, {value.layout}, on {value.device}")
    plain = value.cpu().resolve_conj().resolve_neg()
    return {"tensor": [_keep(plain.view(_STORED_AS.get(value.dtype, value.dtype)).numpy(), arrays), name]}


def _keep(array: Array, arrays: dict[str, Array]) -> str:
    name = str(len(arrays))
    arrays[name] = array
    return name


_PACKERS: dict[type, Callable[[Any, Path, dict[str, Array]], Any]] = {
    str: _packed_str,
    int: _packed_int,
    float: _packed_float,
    list: _packed_list,
    tuple: lambda value, path, arrays: {"tuple": _packed_list(list(value), path, arrays)},
    deque: _packed_deque,
    dict: _packed_dict,
    OrderedDict: lambda value, path, arrays: {"ordered": _packed_dict(value, path, arrays)},
    np.ndarray: _packed_array,
    th.Tensor: _packed_tensor,
}


def _unpacked(node: Any, path: Path, arrays: Mapping[str, Array]) -> Any:
    if len(path) > MAX_DEPTH:
        raise ValueError(f"{_name(path[:5])} is nested deeper than {MAX_DEPTH} levels.")
    kind = type(node)
    if node is None or kind in (bool, int, float, str):
        return node
    if kind is list:
        return [_unpacked(item, (*path, i), arrays) for i, item in enumerate(node)]
    if kind is not dict or len(node) != 1:
        raise ValueError(f"{_name(path)} is not a marker of one key.")
    ((marker, content),) = node.items()
    if marker not in _UNPACKERS:
        raise ValueError(f"{_name(path)} has the marker {marker!r}, which is not known.")
    expected, unpacker = _UNPACKERS[marker]
    if type(content) is not expected:
        raise ValueError(f"{_name(path)} has a {type(content).__name__} in the marker {marker!r}.")
    return unpacker(content, path, arrays)


def _unpacked_list(content: Any, path: Path, arrays: Mapping[str, Array]) -> list[Any]:
    if type(content) is not list:
        raise ValueError(f"{_name(path)} has no list where one belongs.")
    return [_unpacked(item, (*path, i), arrays) for i, item in enumerate(content)]


def _pair(content: Any, path: Path) -> tuple[Any, Any]:
    if type(content) is not list or len(content) != 2:
        raise ValueError(f"{_name(path)} has no pair where one belongs.")
    return content[0], content[1]


def _bytes(content: str, path: Path) -> bytes:
    try:
        return bytes.fromhex(content)
    except ValueError as error:
        raise ValueError(f"{_name(path)} has no hexadecimals where they belong.") from error


def _unpacked_str(content: str, path: Path, arrays: Mapping[str, Array]) -> str:
    return _bytes(content, path).decode("utf-8", "surrogatepass")


def _unpacked_int(content: str, path: Path, arrays: Mapping[str, Array]) -> int:
    try:
        return int(content, 16)
    except ValueError as error:
        raise ValueError(f"{_name(path)} has no hexadecimals where they belong.") from error


def _unpacked_float(content: str, path: Path, arrays: Mapping[str, Array]) -> float:
    data = _bytes(content, path)
    if len(data) != 8:
        raise ValueError(f"{_name(path)} has no float of 8 bytes.")
    return float(struct.unpack(">d", data)[0])


def _unpacked_deque(content: list[Any], path: Path, arrays: Mapping[str, Array]) -> deque[Any]:
    maxlen, items = _pair(content, path)
    if maxlen is not None and (type(maxlen) is not int or not isinstance(items, list) or maxlen < len(items)):
        raise ValueError(f"{_name(path)} has a maxlen={maxlen!r} that its items do not fit.")
    return deque(_unpacked_list(items, path, arrays), maxlen)


def _unpacked_dict(content: dict[str, Any], path: Path, arrays: Mapping[str, Array]) -> dict[str, Any]:
    return {key: _unpacked(item, (*path, key), arrays) for key, item in content.items()}


def _unpacked_ordered(content: dict[str, Any], path: Path, arrays: Mapping[str, Array]) -> OrderedDict[Any, Any]:
    if not content.keys() <= {"dict", "items"}:
        raise ValueError(f"{_name(path)} has no dictionary where one belongs.")
    return OrderedDict(_unpacked(content, path, arrays))


def _unpacked_items(content: list[Any], path: Path, arrays: Mapping[str, Array]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for i, pair in enumerate(content):
        packed_key, item = _pair(pair, path)
        key = _unpacked(packed_key, (*path, i), {})
        if not _is_key(key):
            raise ValueError(f"{_name(path)} has the key {key!r}.")
        found[key] = _unpacked(item, (*path, key), arrays)
    return found


def _unpacked_array(content: Any, path: Path, arrays: Mapping[str, Array]) -> Array:
    if type(content) is not str or content not in arrays:
        raise ValueError(f"{_name(path)} is the array {content!r}, which is missing.")
    return arrays[content]


def _unpacked_scalar(content: str, path: Path, arrays: Mapping[str, Array]) -> Any:
    array = _unpacked_array(content, path, arrays)
    if array.shape != ():
        raise ValueError(f"{_name(path)} is a scalar of shape {array.shape}.")
    return array[()]


def _unpacked_tensor(content: list[Any], path: Path, arrays: Mapping[str, Array]) -> th.Tensor:
    name, type_name = _pair(content, path)
    array = _unpacked_array(name, path, arrays)
    dtype = _TENSOR_TYPES.get(type_name) if type(type_name) is str else None
    if dtype is None:
        raise ValueError(f"{_name(path)} is a tensor of the type {type_name!r}, which is not known.")
    stored = _STORED_AS.get(dtype, dtype)
    if array.dtype.name != str(stored).removeprefix("torch.") or not array.dtype.isnative:
        raise ValueError(f"{_name(path)} is a tensor of {type_name} in an array of {array.dtype}.")
    return th.from_numpy(array).view(dtype)


# what each marker holds, and what makes of it what it stands for
_UNPACKERS: dict[str, tuple[type, Callable[[Any, Path, Mapping[str, Array]], Any]]] = {
    "str": (str, _unpacked_str),
    "int": (str, _unpacked_int),
    "float": (str, _unpacked_float),
    "tuple": (list, lambda content, path, arrays: tuple(_unpacked_list(content, path, arrays))),
    "deque": (list, _unpacked_deque),
    "dict": (dict, _unpacked_dict),
    "items": (list, _unpacked_items),
    "ordered": (dict, _unpacked_ordered),
    "array": (str, _unpacked_array),
    "scalar": (str, _unpacked_scalar),
    "numpy_str": (str, lambda content, path, arrays: np.str_(_unpacked_str(content, path, arrays))),
    "numpy_bytes": (str, lambda content, path, arrays: np.bytes_(_bytes(content, path))),
    "tensor": (list, _unpacked_tensor),
}
