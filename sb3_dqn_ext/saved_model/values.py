"""
An attribute of a model as plain JSON: nested data, classes by name, and the objects of a short list by what they are made of.

The JSON is that of :mod:`sb3_dqn_ext.serialization.tree`, with further markers. The numbers of an array stand with it:
``{"array": ["<f4", [2], "AAAAAAAAgD8="]}``.
"""

import base64
import math
import os
import pathlib
import re
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqn_ext._missing import MissingAttribute
from sb3_dqn_ext.saved_model.classes import (
    ALLOWED_CLASSES,
    RECONSTRUCTIBLE,
    NeedsTrustError,
    Place,
    find_class,
    import_trusted,
    importable_name,
)
from sb3_dqn_ext.saved_model.codecs import CODECS, Fields
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.tree import NotSerializableError, Packing, Path, Unpacking, pack_node, unpack_node

__all__ = ["pack_value", "unpack_value"]

Array = npt.NDArray[Any]

_MARKERS = {kind.kind: marker for marker, kind in CODECS.items()}
_PLAIN = re.compile("[<>|](?:[biufc][0-9]{1,2}|[SU][0-9]{1,4})")


def pack_value(value: Any) -> Any:
    """
    :param value: an attribute of a model
    :return: what ``json`` can write
    :raises NotSerializableError: if it holds something that has no name
    """
    return pack_node(value, (), _PACKING)


def _packed_other(value: Any, path: Path, packing: Packing) -> Any:
    kind = type(value)
    if kind is MissingAttribute:
        return value.node
    if kind in _MARKERS:
        marker = _MARKERS[kind]
        return {marker: _packed_fields(CODECS[marker].fields(value), (*path, marker), packing)}
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return {"class" if isinstance(value, type) else "function": importable_name(value)}
    if isinstance(value, pathlib.Path):
        return {"path": os.fspath(value)}
    if isinstance(value, ReplayBuffer):
        raise NotSerializableError(f"{kind.__name__}, which save_replay_buffer() keeps")
    attributes = _packed_fields(_attributes(value), (*path, "object"), packing)
    return {"object": {"class": importable_name(kind), "attributes": attributes}}


def _packed_fields(fields: Fields, path: Path, packing: Packing) -> Fields:
    return {name: pack_node(field, (*path, name), packing) for name, field in fields.items()}


def _attributes(value: Any) -> Fields:
    """What makes an object what it is, where that is its attributes alone: none of these says otherwise."""
    kind = type(value)
    ways = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    attributes: Any = None
    if all(getattr(kind, way, None) is getattr(object, way, None) for way in ways):
        try:
            _, arguments, attributes, *items = value.__reduce_ex__(2)
        except TypeError as error:
            raise NotSerializableError(str(error)) from error
        if arguments != (kind,) or items != [None, None]:
            attributes = ()
    if not isinstance(attributes, dict):
        raise NotSerializableError(f"{qualified_name(kind)}, whose attributes do not say all about it")
    return attributes


def _array_text(array: Array) -> list[Any]:
    if not _PLAIN.fullmatch(array.dtype.str):
        raise NotSerializableError(f"array of {array.dtype}")
    return [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]


_PACKING = Packing(_array_text, _packed_other, lambda key: True)


def unpack_value(node: Any, trust: bool = False, place: Place = ()) -> Any:
    """
    :param node: what :func:`pack_value` returned
    :param trust: whether classes and functions of others are imported
    :param place: where it stands
    :return: the value
    :raises AskedFor: if it holds what is not imported, or was not stored
    :raises Exception: whatever constructors raise at arguments that cannot be
    """

    def named(name: Any, path: Path, unpacking: Unpacking) -> Any:
        return (
            import_trusted(name)
            if trust and name not in ALLOWED_CLASSES
            else find_class((*place, *path), name, ALLOWED_CLASSES)
        )

    def made(content: Any, path: Path, unpacking: Unpacking) -> Any:
        name = content["class"]
        if not trust and name not in RECONSTRUCTIBLE:
            raise NeedsTrustError(f"names {name}, which is imported only from files that are trusted")
        kind = RECONSTRUCTIBLE[name] if name in RECONSTRUCTIBLE else import_trusted(name)
        attributes = _unpacked_fields(content["attributes"], (*path, "object"), unpacking)
        return kind(**attributes) if name in RECONSTRUCTIBLE else _with_attributes(kind, attributes)

    markers = _MADE | {"class": named, "function": named, "object": made}
    return unpack_node(node, (), Unpacking(_array, markers, lambda key: True))


def _with_attributes(kind: Any, attributes: Fields) -> Any:
    made: Any = object.__new__(kind)
    made.__dict__.update(attributes)
    return made


def _unpacked_fields(content: Any, path: Path, unpacking: Unpacking) -> Fields:
    return {name: unpack_node(item, (*path, name), unpacking) for name, item in content.items()}


def _unpacked_kind(marker: str) -> Any:
    def made(content: Any, path: Path, unpacking: Unpacking) -> Any:
        return CODECS[marker].made(_unpacked_fields(content, (*path, marker), unpacking))

    return made


def _not_stored(content: Any, path: Path, unpacking: Unpacking) -> Any:
    raise NeedsTrustError(f"was not stored: {content}", trust_helps=False)


def _array(content: Any, path: Path) -> Array:
    """An array that is as large as its text."""
    dtype, shape, text = content
    if not _PLAIN.fullmatch(dtype) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{dtype!r} and {shape!r} are no type and shape of an array")
    data = bytearray(base64.b64decode(text, validate=True))
    kind: Any = np.dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"an array of {dtype} and {shape} has {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape) if data else np.empty(shape, kind)


_MADE: dict[str, Any] = {
    **{marker: _unpacked_kind(marker) for marker in CODECS},
    "path": lambda content, path, unpacking: pathlib.Path(content),
    "not stored": _not_stored,
}
