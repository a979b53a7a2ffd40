"""
What a pickle describes, without doing it.

A pickle is a list of instructions: names of classes and functions, and what to call them with. Here the unpickler of the
standard library follows them with inert objects: a name is recorded and not looked up, a call is recorded and not made.
"""

import io
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

__all__ = ["NamedObject", "RecordedCall", "UnsupportedPickleError", "describe_pickle"]

_PLAIN = (str, int, float, bool, bytes, type(None))


class UnsupportedPickleError(Exception):
    """A pickle has instructions that are not followed."""


class NamedObject:
    """A class or function that a pickle names."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> "Call":
        return RecordedCall(self.name, arguments)


class RecordedCall:
    """What a pickle makes of a name and arguments, what it then gives it as its state, and what it puts into it."""

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
    """Refuse what takes the stack or an endless time to hash: tuples in tuples, which may hold the same tuple many times."""
    if not all(isinstance(part, kinds) for part in (value if type(value) is tuple else [value])):
        raise UnsupportedPickleError


def _load_call(unpickler: Any) -> None:
    """Record that a class makes an object of some arguments."""
    arguments = unpickler.stack.pop()
    unpickler.append(unpickler.stack.pop()(*arguments))


def _load_dictionary(unpickler: Any) -> None:
    unpickler.append(RecordedCall("builtins.dict"))


def _load_bytearray(unpickler: Any) -> None:
    """Take no more memory than there are bytes."""
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
    An unpickler on whose stack there is nothing but plain data, lists, tuples, and the two classes above.

    It is the one in Python: that in C allocates its memo by the index that a pickle names, so that ten bytes take 64 GB.
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
    :param data: a pickle
    :return: what it describes: plain data, lists, tuples, and the inert objects
    :raises NotFollowedError: if it has instructions that are not followed
    :raises ValueError: if it is no pickle
    """
    try:
        return _InertUnpickler(io.BytesIO(data)).load()
    except UnsupportedPickleError:
        raise
    except Exception as error:  # whatever an unpickler raises at bytes that were made for it
        raise ValueError(f"it is no pickle that can be read: {error!r}"[:1000]) from error
