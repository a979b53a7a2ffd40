"""
Attributes of a model as plain JSON: nested data, classes by name, and supported objects by their fields.

The JSON format is that of :mod:`sb3_dqn_ext.serialization.tree`, with further markers. Arrays are stored inline, as
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

_MARKERS_BY_TYPE = {kind.kind: marker for marker, kind in CODECS.items()}
_PLAIN_DTYPE = re.compile("[<>|](?:[biufc][0-9]{1,2}|[SU][0-9]{1,4})")


def pack_value(value: Any) -> Any:
    """
    Convert an attribute of a model to JSON.

    :param value: the attribute
    :return: a value that ``json`` can write
    :raises NotSerializableError: if it holds something that has no importable name
    """
    return pack_node(value, (), _PACKING)


def _pack_other(value: Any, path: Path, packing: Packing) -> Any:
    kind = type(value)
    if kind is MissingAttribute:
        return value.node
    if kind in _MARKERS_BY_TYPE:
        marker = _MARKERS_BY_TYPE[kind]
        return {marker: _pack_fields(CODECS[marker].fields(value), (*path, marker), packing)}
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return {"class" if isinstance(value, type) else "function": importable_name(value)}
    if isinstance(value, pathlib.Path):
        return {"path": os.fspath(value)}
    if isinstance(value, ReplayBuffer):
        raise NotSerializableError(f"{kind.__name__}, which save_replay_buffer() keeps")
    attributes = _pack_fields(_attributes(value), (*path, "object"), packing)
    return {"object": {"class": importable_name(kind), "attributes": attributes}}


def _pack_fields(fields: Fields, path: Path, packing: Packing) -> Fields:
    return {name: pack_node(field, (*path, name), packing) for name, field in fields.items()}


def _attributes(value: Any) -> Fields:
    """
    Return the attributes of an object whose whole state is in its attributes.

    :raises NotSerializableError: if its class customizes pickling or has further state
    """
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
        elif attributes is None and hasattr(value, "__dict__"):
            attributes = {}  # an object without attributes
    if not isinstance(attributes, dict):
        raise NotSerializableError(f"{qualified_name(kind)}, which has state beside its attributes")
    return attributes


def _pack_array(array: Array) -> list[Any]:
    if not _PLAIN_DTYPE.fullmatch(array.dtype.str):
        raise NotSerializableError(f"array of {array.dtype}")
    return [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]


_PACKING = Packing(_pack_array, _pack_other, lambda key: True)


def unpack_value(node: Any, trust: bool = False, place: Place = ()) -> Any:
    """
    Create an attribute of a model from its JSON.

    :param node: the result of :func:`pack_value`
    :param trust: whether other classes and functions are imported
    :param place: the position of the value in the model
    :return: the attribute
    :raises NeedsTrustError: if it holds something that is not imported, or was not stored
    :raises Exception: any error that a constructor raises for invalid arguments
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
        attributes = _unpack_fields(content["attributes"], (*path, "object"), unpacking)
        return kind(**attributes) if name in RECONSTRUCTIBLE else _with_attributes(kind, attributes)

    markers = _UNPACKERS | {"class": named, "function": named, "object": made}
    return unpack_node(node, (), Unpacking(_unpack_array, markers, lambda key: True))


def _with_attributes(kind: Any, attributes: Fields) -> Any:
    made: Any = object.__new__(kind)
    made.__dict__.update(attributes)
    return made


def _unpack_fields(content: Any, path: Path, unpacking: Unpacking) -> Fields:
    return {name: unpack_node(item, (*path, name), unpacking) for name, item in content.items()}


def _unpacker_of(marker: str) -> Any:
    def made(content: Any, path: Path, unpacking: Unpacking) -> Any:
        return CODECS[marker].made(_unpack_fields(content, (*path, marker), unpacking))

    return made


def _refuse_not_stored(content: Any, path: Path, unpacking: Unpacking) -> Any:
    raise NeedsTrustError(f"was not stored: {content}", trust_helps=False)


def _unpack_array(content: Any, path: Path) -> Array:
    """Return an array that is exactly as large as its text."""
    dtype, shape, text = content
    if not _PLAIN_DTYPE.fullmatch(dtype) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{dtype!r} and {shape!r} are no type and shape of an array")
    data = bytearray(base64.b64decode(text, validate=True))
    kind: Any = np.dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"an array of {dtype} and {shape} has {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape) if data else np.empty(shape, kind)


_UNPACKERS: dict[str, Any] = {
    **{marker: _unpacker_of(marker) for marker in CODECS},
    "path": lambda content, path, unpacking: pathlib.Path(content),
    "not stored": _refuse_not_stored,
}
