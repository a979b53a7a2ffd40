"""
What a pickle says, without doing it.

SB3 pickles what JSON does not have. A pickle is a list of instructions: names of functions, and what to call them with. Here
they are followed on paper only: nothing is imported and nothing is called. Where the whole comes out as something that is
known, such as a space, a schedule or an array, the same is made from the numbers in it.
"""

import pickletools
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_dqn_ext._arguments import train_freq_of
from sb3_dqn_ext.serialization.names import CLASSES, GENERATORS, KINDS, OBJECTS, AskedFor, Place, class_at

__all__ = ["value_of"]

_MAX_DEPTH = 100
_BEYOND = "holds a pickle that goes beyond what is read without trust"


class _Name:
    """A class or function that a pickle names."""

    def __init__(self, module: Any, name: Any) -> None:
        self.name = f"{module}.{name}"


class _Call:
    """What a pickle makes of a name and arguments, what it then gives it as its state, and what it puts into it."""

    def __init__(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise AskedFor(_BEYOND)
        self.name, self.arguments = function.name, arguments
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []


def value_of(data: bytes, place: Place = ()) -> Any:
    """
    :param data: a pickle
    :param place: where its value stands
    :return: what it would be unpickled to
    :raises AskedFor: if it names something that is not known
    :raises Exception: whatever comes of a pickle that is none
    """
    return _value(_described(data), {}, place)


class _Paper:
    """The stack of an unpickler."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def call(self) -> None:
        arguments = self.stack.pop()
        self.stack.append(_Call(self.stack.pop(), arguments))

    def build(self) -> None:
        state = self.stack.pop()
        self.stack[-1].state = state

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.items if isinstance(target, _Call) else target).extend(items)

    def update(self, items: list[Any]) -> None:
        pairs = list(zip(items[::2], items[1::2], strict=True))
        target = self.stack[-1]
        if isinstance(target, _Call):
            target.pairs.extend(pairs)
        else:
            target.update(pairs)

    def last(self, n: int) -> list[Any]:
        if len(self.stack) < n:
            raise ValueError("it takes more than there is")
        items = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def name(self, pair: list[Any]) -> None:
        self.stack.append(_Name(*pair))

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]


_STEPS: dict[str, Callable[[_Paper, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda paper, argument: None),
    **dict.fromkeys(
        (
            *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE"),
            *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        _Paper.push,
    ),
    "NONE": lambda paper, argument: paper.push(None),
    "NEWTRUE": lambda paper, argument: paper.push(True),
    "NEWFALSE": lambda paper, argument: paper.push(False),
    "EMPTY_LIST": lambda paper, argument: paper.push([]),
    "EMPTY_DICT": lambda paper, argument: paper.push({}),
    "EMPTY_TUPLE": lambda paper, argument: paper.push(()),
    "TUPLE1": lambda paper, argument: paper.push(tuple(paper.last(1))),
    "TUPLE2": lambda paper, argument: paper.push(tuple(paper.last(2))),
    "TUPLE3": lambda paper, argument: paper.push(tuple(paper.last(3))),
    "TUPLE": lambda paper, argument: paper.push(tuple(paper.to_mark())),
    "MARK": lambda paper, argument: paper.mark(),
    "MEMOIZE": lambda paper, argument: paper.remember(len(paper.memo)),
    "BINPUT": lambda paper, argument: paper.remember(argument),
    "LONG_BINPUT": lambda paper, argument: paper.remember(argument),
    "BINGET": lambda paper, argument: paper.push(paper.memo[argument]),
    "LONG_BINGET": lambda paper, argument: paper.push(paper.memo[argument]),
    "GLOBAL": lambda paper, argument: paper.name(argument.split(" ")),
    "STACK_GLOBAL": lambda paper, argument: paper.name(paper.last(2)),
    "REDUCE": lambda paper, argument: paper.call(),
    "NEWOBJ": lambda paper, argument: paper.call(),
    "BUILD": lambda paper, argument: paper.build(),
    "APPEND": lambda paper, argument: paper.extend(paper.last(1)),
    "APPENDS": lambda paper, argument: paper.extend(paper.to_mark()),
    "SETITEM": lambda paper, argument: paper.update(paper.last(2)),
    "SETITEMS": lambda paper, argument: paper.update(paper.to_mark()),
}


def _described(data: bytes) -> Any:
    paper = _Paper()
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "STOP":
            (whole,) = paper.last(1)
            return whole
        if opcode.name not in _STEPS:
            raise AskedFor(_BEYOND)
        _STEPS[opcode.name](paper, argument)
    raise ValueError("it has no end")


def _value(said: Any, made: dict[int, Any], place: Place) -> Any:
    """:param made: what has been made, by what said so: what is named again is made once"""
    if len(place) > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if said is None or isinstance(said, bool | int | float | str | bytes | bytearray):
        return said
    if isinstance(said, _Name):
        return class_at(place, said.name, _CLASSES)
    if id(said) not in made:
        made[id(said)] = _made(said, lambda other, key="": _value(other, made, (*place, key)))
    return made[id(said)]


class Read(Protocol):
    """Gives the value of a part."""

    def __call__(self, said: Any, key: str = "") -> Any: ...


def _made(said: Any, read: Read) -> Any:
    if isinstance(said, list):
        return [read(item) for item in said]
    if isinstance(said, tuple):
        return tuple(read(item) for item in said)
    if isinstance(said, dict):
        return {read(key): read(item, key if isinstance(key, str) else "") for key, item in said.items()}
    if said.name in _OBJECTS and not said.arguments:
        return _OBJECTS[said.name](**read(said.state))
    if said.name not in _CALLS:
        raise _asked_for(said.name)
    return _CALLS[said.name](said, read)


def _asked_for(name: str) -> AskedFor:
    return AskedFor(f"names {name}, which is unpickled only from files that are trusted")


def _pickled_as(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _dtype(call: _Call, read: Read) -> np.dtype[Any]:
    name = call.arguments[0]
    if type(name) is not str or name[:1] not in "biufc":
        raise ValueError(f"{name!r} is no type of plain numbers")
    order: Any = call.state[1] if call.state else "="
    dtype: np.dtype[Any] = np.dtype(name).newbyteorder("=" if order == "|" else order)
    return dtype


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.frombuffer(bytearray(data), dtype).reshape(shape, order=order)
    return array


def _from_buffer(call: _Call, read: Read) -> npt.NDArray[Any]:
    return _array(*(read(argument) for argument in call.arguments))


def _reconstructed(call: _Call, read: Read) -> npt.NDArray[Any]:
    """As numpy pickled before it had buffers for it."""
    _, shape, dtype, is_fortran, data = call.state
    return _array(data, read(dtype), shape, "F" if is_fortran else "C")


def _scalar(call: _Call, read: Read) -> Any:
    dtype, data = call.arguments
    return _array(data, read(dtype), (), "C")[()]


def _generator(call: _Call, read: Read) -> np.random.Generator:
    (bits,) = call.arguments
    (kind,) = bits.arguments
    name = kind.name.rpartition(".")[2]
    if name not in GENERATORS:
        raise _asked_for(kind.name)
    # its state, and the seeds from which it began
    state = bits.state[0] if isinstance(bits.state, tuple) else bits.state
    generator: np.random.Generator = KINDS["Generator"].made({"state": read(state)})
    return generator


def _train_freq(call: _Call, read: Read) -> TrainFreq:
    frequency, unit = call.arguments
    return train_freq_of((frequency, unit.arguments[0]))


def _deque(call: _Call, read: Read) -> deque[Any]:
    items, maxlen = call.arguments
    return deque([read(item) for item in (*items, *call.items)], maxlen)


def _space(marker: str) -> Callable[[_Call, Read], Any]:
    """A space of the attributes that a pickle gives it, which are the fields of :data:`KINDS` but for their names."""

    def made(call: _Call, read: Read) -> Any:
        said = dict(call.state)
        try:
            generator = read(said.pop("_np_random", None))
        except AskedFor:
            generator = None  # it draws anew
        fields = {name: read(item) for name, item in said.items()}
        dtype = fields.get("dtype")
        fields |= {
            "generator": generator,
            "dtype": None if dtype is None else np.dtype(dtype).name,
            "shape": fields.get("_shape"),
        }
        return KINDS[marker].made(_FIELDS.get(marker, dict)(fields))

    return made


_FIELDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "Discrete": lambda fields: fields | {"n": int(fields["n"]), "start": int(fields["start"])},
    "MultiBinary": lambda fields: fields | {"n": list(fields["n"]) if isinstance(fields["n"], tuple) else fields["n"]},
    "Dict": lambda fields: fields | {"spaces": list(fields["spaces"].items())},
}
_CLASSES = {_pickled_as(kind): kind for kind in CLASSES.values()}
_OBJECTS = {_pickled_as(kind): kind for kind in OBJECTS.values()} | {
    "rl_zoo3.utils.SimpleLinearSchedule": OBJECTS["rl_zoo3.utils.SimpleLinearSchedule"]
}
_CALLS: dict[str, Callable[[_Call, Read], Any]] = {
    "numpy.dtype": _dtype,
    **dict.fromkeys(("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer"), _from_buffer),
    **dict.fromkeys(("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"), _reconstructed),
    **dict.fromkeys(("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"), _scalar),
    "numpy.random._pickle.__generator_ctor": _generator,
    _pickled_as(TrainFreq): _train_freq,
    "collections.deque": _deque,
    "collections.OrderedDict": lambda call, read: OrderedDict((read(key), read(item)) for key, item in call.pairs),
    _pickled_as(GoalSelectionStrategy): lambda call, read: GoalSelectionStrategy(call.arguments[0]),
    **{
        _pickled_as(kind): _space(kind.__name__)
        for kind in (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete, spaces.Dict, spaces.Tuple)
    },
}
