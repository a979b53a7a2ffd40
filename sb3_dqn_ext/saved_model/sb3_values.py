"""
The values in a model that SB3 saved: it pickles what JSON does not have.

Nothing of a pickle is imported or called. Where the whole describes something that is known, such as a space, a schedule or an
array, the same is made from the numbers in it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_dqn_ext._arguments import parse_train_freq
from sb3_dqn_ext.saved_model.classes import ALLOWED_CLASSES, RECONSTRUCTIBLE, NeedsTrustError, Place, find_class
from sb3_dqn_ext.saved_model.codecs import CODECS, GENERATORS
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.sb3_pickle import NamedObject, RecordedCall, UnsupportedPickleError, describe_pickle

__all__ = ["read_pickled_value"]

_MAX_DEPTH = 100


def read_pickled_value(data: bytes, place: Place = ()) -> Any:
    """
    :param data: a pickle
    :param place: where its value stands
    :return: what it would be unpickled to
    :raises AskedFor: if it names something that is not known
    :raises Exception: whatever comes of a pickle that is none
    """
    try:
        said = describe_pickle(data)
    except UnsupportedPickleError as error:
        raise NeedsTrustError("holds a pickle that goes beyond what is read without trust") from error
    return _value(said, {}, place)


def _value(said: Any, made: dict[int, Any], place: Place) -> Any:
    """:param made: what has been made, by what said so: what is named again is made once"""
    if len(place) > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if said is None or isinstance(said, bool | int | float | str | bytes | bytearray):
        return said
    if isinstance(said, NamedObject):
        return find_class(place, said.name, _CLASSES)
    if id(said) not in made:
        made[id(said)] = _made(said, lambda other, key="": _value(other, made, (*place, key)))
    return made[id(said)]


class ValueReader(Protocol):
    """Gives the value of a part."""

    def __call__(self, said: Any, key: Any = "") -> Any: ...


def _made(said: Any, read: ValueReader) -> Any:
    if isinstance(said, list):
        return [read(item) for item in said]
    if isinstance(said, tuple):
        return tuple(read(item) for item in said)
    if said.name in _OBJECTS and not said.arguments:
        return _OBJECTS[said.name](**read(said.state))
    if said.name not in _CALLS:
        raise _asked_for(said.name)
    return _CALLS[said.name](said, read)


def _asked_for(name: str) -> NeedsTrustError:
    return NeedsTrustError(f"names {name}, which is unpickled only from files that are trusted")


def _dtype(call: RecordedCall, read: ValueReader) -> np.dtype[Any]:
    name = call.arguments[0]
    if type(name) is not str or name[:1] not in "biufc":
        raise ValueError(f"{name!r} is no type of plain numbers")
    order: Any = call.state[1] if call.state else "="
    dtype: np.dtype[Any] = np.dtype(name).newbyteorder("=" if order == "|" else order)
    return dtype


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.frombuffer(bytearray(data), dtype).reshape(shape, order=order)
    return array


def _from_buffer(call: RecordedCall, read: ValueReader) -> npt.NDArray[Any]:
    return _array(*(read(argument) for argument in call.arguments))


def _reconstructed(call: RecordedCall, read: ValueReader) -> npt.NDArray[Any]:
    """As numpy pickled before it had buffers for it."""
    _, shape, dtype, is_fortran, data = call.state
    return _array(data, read(dtype), shape, "F" if is_fortran else "C")


def _scalar(call: RecordedCall, read: ValueReader) -> Any:
    dtype, data = call.arguments
    return _array(data, read(dtype), (), "C")[()]


def _generator(call: RecordedCall, read: ValueReader) -> np.random.Generator:
    (bits,) = call.arguments
    (kind,) = bits.arguments
    name = kind.name.rpartition(".")[2]
    if name not in GENERATORS:
        raise _asked_for(kind.name)
    # its state, and the seeds from which it began
    state = bits.state[0] if isinstance(bits.state, tuple) else bits.state
    generator: np.random.Generator = CODECS["Generator"].made({"state": read(state)})
    return generator


def _train_freq(call: RecordedCall, read: ValueReader) -> TrainFreq:
    frequency, unit = call.arguments
    return parse_train_freq((frequency, unit.arguments[0]))


def _deque(call: RecordedCall, read: ValueReader) -> deque[Any]:
    items, maxlen = call.arguments
    return deque([read(item) for item in (*items, *call.appended)], maxlen)


def _space(marker: str) -> Callable[[RecordedCall, ValueReader], Any]:
    """A space of the attributes that a pickle gives it, which are the fields of :data:`KINDS` but for their names."""

    def made(call: RecordedCall, read: ValueReader) -> Any:
        said = dict(call.state.pairs)
        try:
            generator = read(said.pop("_np_random", None))
        except NeedsTrustError:
            generator = None  # it draws anew
        fields = {name: read(item) for name, item in said.items()}
        dtype = fields.get("dtype")
        fields |= {
            "generator": generator,
            "dtype": None if dtype is None else np.dtype(dtype).name,
            "shape": fields.get("_shape"),
        }
        return CODECS[marker].made(_FIELDS.get(marker, dict)(fields))

    return made


_FIELDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "Discrete": lambda fields: fields | {"n": int(fields["n"]), "start": int(fields["start"])},
    "MultiBinary": lambda fields: fields | {"n": list(fields["n"]) if isinstance(fields["n"], tuple) else fields["n"]},
    "Dict": lambda fields: fields | {"spaces": list(fields["spaces"].items())},
}
_CLASSES = {qualified_name(kind): kind for kind in ALLOWED_CLASSES.values()}
_OBJECTS = {qualified_name(kind): kind for kind in RECONSTRUCTIBLE.values()} | {
    "rl_zoo3.utils.SimpleLinearSchedule": RECONSTRUCTIBLE["rl_zoo3.utils.SimpleLinearSchedule"]
}
_CALLS: dict[str, Callable[[RecordedCall, ValueReader], Any]] = {
    "numpy.dtype": _dtype,
    **dict.fromkeys(("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer"), _from_buffer),
    **dict.fromkeys(("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct"), _reconstructed),
    **dict.fromkeys(("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar"), _scalar),
    "numpy.random._pickle.__generator_ctor": _generator,
    qualified_name(TrainFreq): _train_freq,
    "collections.deque": _deque,
    "builtins.dict": lambda call, read: {key: read(item, key) for key, item in call.pairs},
    "collections.OrderedDict": lambda call, read: OrderedDict((key, read(item)) for key, item in call.pairs),
    qualified_name(GoalSelectionStrategy): lambda call, read: GoalSelectionStrategy(call.arguments[0]),
    **{
        qualified_name(kind): _space(kind.__name__)
        for kind in (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete, spaces.Dict, spaces.Tuple)
    },
}
