"""
Attributes of a model that SB3 saved, which are pickled where JSON has no equivalent.

Nothing in a pickle is imported or called. If a pickle describes a supported object, such as a space, a schedule or an array,
an equal object is created from the numbers in it.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_dqn_ext._arguments import parse_train_freq
from sb3_dqn_ext.saved_model.classes import ALLOWED_CLASSES, RECONSTRUCTIBLE, NeedsTrustError, Place, find_class
from sb3_dqn_ext.saved_model.codecs import CODECS, GENERATORS
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.sb3_pickle import (
    ARRAY_CALLS,
    NamedObject,
    RecordedCall,
    UnsupportedPickleError,
    array_of,
    describe_pickle,
    recorded_array,
    recorded_dtype,
)

__all__ = ["read_pickled_value"]

_MAX_DEPTH = 100


def read_pickled_value(data: bytes, place: Place = ()) -> Any:
    """
    Create the value that a pickle describes.

    :param data: the bytes of the pickle
    :param place: the position of the value in the model
    :return: the value that unpickling would return
    :raises NeedsTrustError: if the pickle names an unsupported class or function
    :raises Exception: any error that a malformed pickle causes
    """
    try:
        node = describe_pickle(data)
    except UnsupportedPickleError as error:
        raise NeedsTrustError("holds a pickle that goes beyond what is read without trust") from error
    return _value(node, {}, place)


def _value(node: Any, created: dict[int, Any], place: Place) -> Any:
    """
    Create the value of a description.

    :param created: the values that were already created, by the ``id`` of their description; shared objects are created once
    """
    if len(place) > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
    if node is None or isinstance(node, bool | int | float | str | bytes | bytearray):
        return node
    if isinstance(node, NamedObject):
        return find_class(place, node.name, _CLASSES)
    if id(node) not in created:
        created[id(node)] = _create(node, lambda other, key="": _value(other, created, (*place, key)))
    return created[id(node)]


class ValueReader(Protocol):
    """A function that returns the value of a part of a description."""

    def __call__(self, node: Any, key: Any = "") -> Any: ...


def _create(node: Any, read: ValueReader) -> Any:
    if isinstance(node, list):
        return [read(item) for item in node]
    if isinstance(node, tuple):
        return tuple(read(item) for item in node)
    if node.name in _RECONSTRUCTIBLE and not node.arguments:
        return _RECONSTRUCTIBLE[node.name](**read(node.state))
    if node.name not in _CALLS:
        raise _needs_trust_error(node.name)
    return _CALLS[node.name](node, read)


def _needs_trust_error(name: str) -> NeedsTrustError:
    return NeedsTrustError(f"names {name}, which is unpickled only from files that are trusted")


def _scalar(call: RecordedCall, read: ValueReader) -> Any:
    dtype, data = call.arguments
    return array_of(data, dtype, (), "C")[()]


def _generator(call: RecordedCall, read: ValueReader) -> np.random.Generator:
    (bits,) = call.arguments
    (kind,) = bits.arguments
    name = kind.name.rpartition(".")[2]
    if name not in GENERATORS:
        raise _needs_trust_error(kind.name)
    # the state and the initial seeds
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
    """
    Return a function that creates a space. The pickled attributes are the fields of :data:`CODECS`, some under other names.
    """

    def created(call: RecordedCall, read: ValueReader) -> Any:
        node = dict(call.state.pairs)
        try:
            generator = read(node.pop("_np_random", None))
        except NeedsTrustError:
            generator = None  # it is seeded again
        fields = {name: read(item) for name, item in node.items()}
        dtype = fields.get("dtype")
        fields |= {
            "generator": generator,
            "dtype": None if dtype is None else np.dtype(dtype).name,
            "shape": fields.get("_shape"),
        }
        return CODECS[marker].made(_FIELDS.get(marker, dict)(fields))

    return created


_FIELDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "Discrete": lambda fields: fields | {"n": int(fields["n"]), "start": int(fields["start"])},
    "MultiBinary": lambda fields: fields | {"n": list(fields["n"]) if isinstance(fields["n"], tuple) else fields["n"]},
    "Dict": lambda fields: fields | {"spaces": list(fields["spaces"].items())},
}
_CLASSES = {qualified_name(kind): kind for kind in ALLOWED_CLASSES.values()}
_RECONSTRUCTIBLE = {qualified_name(kind): kind for kind in RECONSTRUCTIBLE.values()} | {
    "rl_zoo3.utils.SimpleLinearSchedule": RECONSTRUCTIBLE["rl_zoo3.utils.SimpleLinearSchedule"]
}
_CALLS: dict[str, Callable[[RecordedCall, ValueReader], Any]] = {
    "numpy.dtype": lambda call, read: recorded_dtype(call),
    **dict.fromkeys(ARRAY_CALLS, lambda call, read: recorded_array(call)),
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
