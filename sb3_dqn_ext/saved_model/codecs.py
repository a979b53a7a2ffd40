"""Spaces, generators and the like: what they are stored as, and how they are made again from it."""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from sb3_dqn_ext._arguments import parse_train_freq
from sb3_dqn_ext.saved_model.replay_buffer import StoredBuffer
from sb3_dqn_ext.serialization.tree import NotSerializableError

__all__ = ["CODECS", "GENERATORS", "Codec", "Fields"]

Array = npt.NDArray[Any]
Fields = dict[str, Any]

MAX_ELEMENTS = 2**24
"""numbers in an observation; what a file says of a space takes memory before anything is read that large"""


class Codec(NamedTuple):
    """How objects of one class are stored under a marker of their own."""

    kind: type
    fields: Callable[[Any], Fields]
    made: Callable[[Fields], Any]


GENERATORS: dict[str, Any] = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM, "SFC64": np.random.SFC64}
"""of random numbers, whose every state can be restored"""
_DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}


def _generator_fields(generator: np.random.Generator) -> Fields:
    state = generator.bit_generator.state
    if state["bit_generator"] not in GENERATORS:
        raise NotSerializableError(f"generator {state['bit_generator']}")
    return {"state": dict(state)}


def _generator(fields: Fields) -> np.random.Generator:
    bit_generator = GENERATORS[fields["state"]["bit_generator"]](0)
    bit_generator.state = fields["state"]
    return np.random.Generator(bit_generator)


def _of_space(space: spaces.Space[Any], **fields: Any) -> Fields:
    generator = space._np_random
    known = generator is not None and type(generator.bit_generator).__name__ in GENERATORS
    return fields | {"generator": generator if known else None}


def _space(space: spaces.Space[Any], fields: Fields) -> spaces.Space[Any]:
    if isinstance(fields["generator"], np.random.Generator):
        space._np_random = fields["generator"]
    return space


def _dtype(name: str) -> Any:
    if name not in _DTYPES:
        raise ValueError(f"the type {name!r} is none of a space")
    return np.dtype(name)


def _shape(shape: Any) -> tuple[int, ...]:
    if not all(type(length) is int and length >= 0 for length in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"{shape!r} is no shape of an observation")
    return tuple(shape)


def _one_or_all(array: Array) -> Any:
    """A number if they are all the same, as the bounds of images are."""
    return array.flat[0].item() if array.size and (array == array.flat[0]).all() else array


def _all(value: Any, shape: tuple[int, ...], dtype: Any) -> Array:
    array = value if isinstance(value, np.ndarray) else np.full(shape, value, dtype)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"bounds of shape {array.shape} and type {array.dtype} in a space of {shape} and {dtype}")
    return array


_BOUNDED = ("bounded_below", "bounded_above")


def _box_fields(box: spaces.Box) -> Fields:
    bounds = {name: _one_or_all(getattr(box, name)) for name in ("low", "high", *_BOUNDED)}
    return _of_space(box, **bounds, shape=list(box.shape), dtype=box.dtype.name)


def _box(fields: Fields) -> spaces.Space[Any]:
    shape, dtype = _shape(fields["shape"]), _dtype(fields["dtype"])
    box = spaces.Box(_all(fields["low"], shape, dtype), _all(fields["high"], shape, dtype), shape, dtype)
    for name in _BOUNDED:
        setattr(box, name, _all(fields[name], shape, np.dtype(bool)))
    return _space(box, fields)


def _discrete(fields: Fields) -> spaces.Space[Any]:
    dtype = {} if fields["dtype"] == "int64" else {"dtype": _dtype(fields["dtype"])}  # early gymnasium knows no other
    return _space(spaces.Discrete(fields["n"], start=fields["start"], **dtype), fields)


def _multi_binary(fields: Fields) -> spaces.Space[Any]:
    _shape(fields["n"] if isinstance(fields["n"], list) else [fields["n"]])
    return _space(spaces.MultiBinary(fields["n"]), fields)


def _multi_discrete(fields: Fields) -> spaces.Space[Any]:
    dtype = _dtype(fields["dtype"])
    return _space(spaces.MultiDiscrete(fields["nvec"], dtype.type, start=fields["start"]), fields)


CODECS: dict[str, Codec] = {
    "Box": Codec(spaces.Box, _box_fields, _box),
    "Discrete": Codec(
        spaces.Discrete,
        lambda space: _of_space(space, n=int(space.n), start=int(space.start), dtype=np.dtype(space.dtype).name),
        _discrete,
    ),
    "MultiBinary": Codec(
        spaces.MultiBinary,
        lambda space: _of_space(space, n=space.n if isinstance(space.n, int) else [int(n) for n in space.n]),
        _multi_binary,
    ),
    "MultiDiscrete": Codec(
        spaces.MultiDiscrete,
        lambda space: _of_space(space, nvec=space.nvec, start=space.start, dtype=np.dtype(space.dtype).name),
        _multi_discrete,
    ),
    "Dict": Codec(
        spaces.Dict,
        lambda space: _of_space(space, spaces=list(space.spaces.items())),
        lambda fields: _space(spaces.Dict(OrderedDict(fields["spaces"])), fields),
    ),
    "Tuple": Codec(
        spaces.Tuple,
        lambda space: _of_space(space, spaces=list(space.spaces)),
        lambda fields: _space(spaces.Tuple(fields["spaces"]), fields),
    ),
    "Generator": Codec(np.random.Generator, _generator_fields, _generator),
    "TrainFreq": Codec(
        TrainFreq,
        lambda given: {"frequency": given.frequency, "unit": given.unit.value},
        lambda fields: parse_train_freq((fields["frequency"], fields["unit"])),
    ),
    "GoalSelectionStrategy": Codec(
        GoalSelectionStrategy, lambda given: {"name": given.name}, lambda fields: GoalSelectionStrategy[fields["name"]]
    ),
    "ReplayBuffer": Codec(StoredBuffer, StoredBuffer._asdict, lambda fields: StoredBuffer(**fields)),
}
"""markers of objects, by name"""
