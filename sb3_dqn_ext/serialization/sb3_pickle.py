"""
Descriptions of pickles, without executing them.

A pickle is a program: it names classes and functions, and calls them. Here the unpickler of the standard library executes
it with inert objects: names are recorded and not imported, calls are recorded and not made.
"""

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = [
    "ARRAY_CALLS",
    "NamedObject",
    "RecordedCall",
    "UnsupportedPickleError",
    "array_of",
    "describe_pickle",
    "recorded_array",
    "recorded_dtype",
]

_PLAIN = (str, int, float, bool, bytes, type(None))


class UnsupportedPickleError(Exception):
    """An error for a pickle with unsupported instructions."""


class NamedObject:
    """A class or function that a pickle names."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> "RecordedCall":
        return RecordedCall(self.name, arguments)


class RecordedCall:
    """A recorded call: the name, the arguments, and the state, items and pairs that are added to its result."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        if name == _ORDERED and arguments:  # pairs, whose keys would be hashed
            raise UnsupportedPickleError
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.appended: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []

    def __call__(self, *arguments: Any) -> None:
        raise UnsupportedPickleError

    def __setstate__(self, state: Any) -> None:
        if self.name == _ORDERED and not isinstance(state, RecordedCall):
            raise UnsupportedPickleError
        self.state = state

    def append(self, item: Any) -> None:
        self.appended.append(item)

    def extend(self, items: list[Any]) -> None:
        self.appended.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        _check_flat(key, _PLAIN)
        self.pairs.append((key, value))


_ORDERED = "collections.OrderedDict"


def _check_flat(value: Any, kinds: tuple[type, ...]) -> None:
    """Refuse nested tuples, whose hash could overflow the stack or take exponential time."""
    if not all(isinstance(part, kinds) for part in (value if type(value) is tuple else [value])):
        raise UnsupportedPickleError


def _load_call(unpickler: Any) -> None:
    """Record the creation of an object from its class and arguments."""
    arguments = unpickler.stack.pop()
    unpickler.append(unpickler.stack.pop()(*arguments))


def _load_dictionary(unpickler: Any) -> None:
    unpickler.append(RecordedCall("builtins.dict"))


def _load_bytearray(unpickler: Any) -> None:
    """Read a bytearray without allocating more memory than there are bytes."""
    (length,) = struct.unpack("<Q", unpickler.read(8))
    unpickler.append(bytearray(unpickler.read(length)))


def _refuse(unpickler: Any) -> None:
    raise UnsupportedPickleError


_FOLLOWED = (
    *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE),
    *(pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.LONG4, pickle.BINFLOAT),
    *(pickle.SHORT_BINUNICODE, pickle.BINUNICODE, pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8),
    *(pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST),
    *(pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS),
    *(pickle.MEMOIZE, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID),
)


class _InertUnpickler(pickle._Unpickler):
    """
    An unpickler whose stack holds only plain data, lists, tuples and the two inert classes.

    It extends the Python implementation. The C implementation allocates its memo by an index in the pickle, so that a pickle
    of ten bytes can allocate 64 GB.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **dict.fromkeys(range(256), _refuse),
        **{opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in _FOLLOWED},
        pickle.NEWOBJ[0]: _load_call,
        pickle.EMPTY_DICT[0]: _load_dictionary,
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }

    def find_class(self, module: str, name: str) -> Any:
        return NamedObject(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        _check_flat(pid, (*_PLAIN, NamedObject))
        return RecordedCall("a persistent id", pid)


def describe_pickle(data: bytes) -> Any:
    """
    Describe the content of a pickle.

    :param data: the bytes of the pickle
    :return: plain data, lists, tuples, :class:`NamedObject` and :class:`RecordedCall`
    :raises UnsupportedPickleError: if it has unsupported instructions
    :raises ValueError: if it is not a pickle
    """
    try:
        return _InertUnpickler(io.BytesIO(data)).load()
    except UnsupportedPickleError:
        raise
    except Exception as error:  # an unpickler may raise any error for forged bytes
        raise ValueError(f"it is no pickle that can be read: {error!r}"[:1000]) from error


def recorded_dtype(call: RecordedCall) -> np.dtype[Any]:
    """
    Return the dtype of plain numbers that a recorded call makes.

    :param call: a call of ``numpy.dtype``
    :raises ValueError: if it is another dtype
    """
    name = call.arguments[0]
    if type(name) is not str or name[:1] not in "biufc":
        raise ValueError(f"{name!r} is no type of plain numbers")
    order: Any = call.state[1] if call.state else "="
    dtype: np.dtype[Any] = np.dtype(name).newbyteorder("=" if order == "|" else order)
    return dtype


def array_of(data: Any, dtype: RecordedCall, shape: Any, order: Any) -> npt.NDArray[Any]:
    """
    Return an array of plain numbers.

    :param data: its bytes
    :param dtype: the recorded call of its dtype
    :param shape: its shape
    :param order: ``"C"`` or ``"F"``
    :raises ValueError: if it is no array of plain numbers
    """
    if not isinstance(data, bytes | bytearray):  # of a number n, bytearray() would allocate n bytes
        raise ValueError(f"the data of an array are a {type(data).__name__}")
    array: npt.NDArray[Any] = np.frombuffer(bytearray(data), recorded_dtype(dtype)).reshape(shape, order=order)
    return array


_FROM_BUFFER = ("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer")
_RECONSTRUCT = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
ARRAY_CALLS = (*_FROM_BUFFER, *_RECONSTRUCT)
"""The names of the functions that a pickle calls to make an array."""


def recorded_array(call: RecordedCall) -> npt.NDArray[Any]:
    """
    Return the array of plain numbers that a recorded call makes.

    :param call: a call of one of ``ARRAY_CALLS``
    :raises ValueError: if it is another call, or an array of other objects
    """
    if call.name in _FROM_BUFFER:
        return array_of(*call.arguments)
    if call.name not in _RECONSTRUCT:
        raise ValueError(f"{call.name} makes no array")
    _, shape, dtype, is_fortran, data = call.state  # the format of numpy before pickle protocol 5
    return array_of(data, dtype, shape, "F" if is_fortran else "C")
