"""
What a model remembers as plain JSON: numbers, lists and arrays, classes by name, and the objects of a short list by what they
are made from.

In the JSON, as in that of a checkpoint (:mod:`sb3_dqn_ext.serialization.tree`), a list is a list and an object is always a
marker: one key that says what its value stands for. The numbers of an array stand with it:
``{"array": ["<f4", [2], "AAAAAAAAgD8="]}``.
"""

import base64
import contextlib
import importlib
import math
import os
import re
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import stable_baselines3.common.buffers
import stable_baselines3.common.torch_layers
import stable_baselines3.common.utils
import stable_baselines3.dqn.policies
import stable_baselines3.her.her_replay_buffer
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy
from torch.nn.modules import activation

import sb3_dqn_ext.algorithm.schedules
import sb3_dqn_ext.networks.policies
import sb3_dqn_ext.replay
from sb3_dqn_ext._arguments import train_freq_of
from sb3_dqn_ext._missing import Missing
from sb3_dqn_ext.saved_model.replay_buffer import StoredBuffer
from sb3_dqn_ext.serialization import tree
from sb3_dqn_ext.serialization.migrations import current_class_name

__all__ = [
    "CLASSES",
    "GENERATORS",
    "KINDS",
    "OBJECTS",
    "AskedFor",
    "NotStored",
    "Place",
    "SimpleLinearSchedule",
    "class_at",
    "let_files_name",
    "pack_value",
    "unpack_value",
    "with_classes",
]

Array = npt.NDArray[Any]
Fields = dict[str, Any]
Place = tuple[str, ...]
"""where a value stands: the name of the attribute, then the keys of dictionaries in it; "" for what has no key"""

MAX_ELEMENTS = 2**24
"""numbers in an observation; what a file says of a space takes memory before anything is read that large"""


@dataclass(frozen=True)
class SimpleLinearSchedule:
    """
    The schedule that the RL Zoo makes of ``lin_0.001``, by the same formula. A model that is loaded has this one in the place
    of the zoo's, for to import ``rl_zoo3`` changes gymnasium.

    :param initial_value: value at the start of the run; it falls to 0
    """

    initial_value: float

    def __call__(self, progress_remaining: float) -> float:
        """:param progress_remaining: 1 at the start of the run, 0 at its end"""
        return progress_remaining * self.initial_value


def _named(module: ModuleType, names: Iterable[str]) -> dict[str, Any]:
    return {f"{module.__name__}.{name}": getattr(module, name) for name in names}


def _optimizers() -> list[str]:
    return [name for name, kind in vars(th.optim).items() if isinstance(kind, type) and issubclass(kind, th.optim.Optimizer)]


CLASSES: dict[str, type] = {
    **_named(th.nn, activation.__all__),
    **_named(th.optim, _optimizers()),
    **_named(stable_baselines3.dqn.policies, ["DQNPolicy", "CnnPolicy", "MultiInputPolicy"]),
    **_named(sb3_dqn_ext.networks.policies, ["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy"]),
    **_named(stable_baselines3.common.torch_layers, ["FlattenExtractor", "NatureCNN", "CombinedExtractor"]),
    **_named(stable_baselines3.common.buffers, ["ReplayBuffer", "DictReplayBuffer", "NStepReplayBuffer"]),
    **_named(stable_baselines3.her.her_replay_buffer, ["HerReplayBuffer"]),
    **_named(sb3_dqn_ext.replay, ["DQNReplayBuffer"]),
}
"""classes that a file may name"""
OBJECTS: dict[str, type] = {
    **_named(stable_baselines3.common.utils, ["ConstantSchedule", "FloatSchedule", "LinearSchedule"]),
    **_named(
        sb3_dqn_ext.algorithm.schedules,
        ["ConstantSchedule", "ExponentialSchedule", "LinearSchedule", "MultiplicativeSchedule"],
    ),
    **_named(sb3_dqn_ext.algorithm.schedules, ["PerAction", "PiecewiseSchedule", "ProgressSchedule"]),
    "rl_zoo3.utils.SimpleLinearSchedule": SimpleLinearSchedule,
}
"""classes of which a file may hold objects; their attributes are the arguments that make another"""
_NAMES = {kind: name for name, kind in (CLASSES | OBJECTS).items()}
_OWN: dict[Place, type] = {
    ("policy_class",): BasePolicy,
    ("replay_buffer_class",): ReplayBuffer,
    ("policy_kwargs", "features_extractor_class"): BaseFeaturesExtractor,
}
"""the places at which a file may name a class of the user's that is imported already, and the base class that it must have"""
_GIVEN: ContextVar[Mapping[str, type]] = ContextVar("classes that the user's command names", default=MappingProxyType({}))


class NotStored(TypeError):
    """A value cannot be stored by any name; the message says what it is."""


class AskedFor(ValueError):
    """
    A file asks for what only the caller can give: trust, or the value itself.

    :param message: what it asks for
    :param trust_helps: whether ``trust=True`` gives it
    """

    def __init__(self, message: str, trust_helps: bool = True) -> None:
        super().__init__(message)
        self.trust_helps = trust_helps


# classes that a file may name


def let_files_name(classes: Mapping[str, type]) -> Token[Mapping[str, type]]:
    """
    :param classes: classes that the user's own command names, by their dotted names; files may name them from now on
    :return: the token to undo it with
    """
    return _GIVEN.set({**_GIVEN.get(), **classes})


@contextlib.contextmanager
def with_classes(classes: Mapping[str, type]) -> Iterator[None]:
    """
    Let files name some classes more while this is entered.

    :param classes: see :func:`let_files_name`
    """
    token = let_files_name(classes)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def class_at(place: Place, name: str, known: Mapping[str, type]) -> type:
    """
    :param place: where the name stands
    :param name: the dotted name of a class, as a file has it
    :param known: classes that a file may name there
    :return: the class; nothing is imported for it, and no code of any module or class runs
    :raises AskedFor: if it is not among these, not given by the user's command, and not a class that is imported already and
        has the base class of that place
    """
    if name in known:
        return known[name]
    if name in _GIVEN.get():
        return _GIVEN.get()[name]
    if place not in _OWN:
        raise AskedFor(f"names {name}, which is imported only from files that are trusted")
    module_name, _, own_name = name.rpartition(".")
    if module_name and module_name not in sys.modules:
        raise AskedFor(f"names {name}, which is known once {module_name} is imported")
    base, module = _OWN[place], sys.modules.get(module_name)
    # a module of a type of its own may import others when it is looked into
    kind: Any = vars(module).get(own_name) if type(module) is ModuleType else None
    if kind is None and module_name == "__main__":
        raise AskedFor(f"names {name}, which your script must define or import as {own_name}", trust_helps=False)
    # neither isinstance() nor issubclass() nor `in`: a metaclass or a property may have its own idea of them
    if not (issubclass(type(kind), type) and any(parent is base for parent in _mro_of(kind))):
        raise AskedFor(f"names {name}, which is imported only from files that are trusted: it is no {base.__name__}")
    own: type = kind
    return own


_mro_of: Callable[[Any], tuple[type, ...]] = type.__dict__["__mro__"].__get__


# spaces, generators and the like: what they are made from


class Kind(NamedTuple):
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
        raise NotStored(f"generator {state['bit_generator']}")
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


KINDS: dict[str, Kind] = {
    "Box": Kind(spaces.Box, _box_fields, _box),
    "Discrete": Kind(
        spaces.Discrete,
        lambda space: _of_space(space, n=int(space.n), start=int(space.start), dtype=np.dtype(space.dtype).name),
        _discrete,
    ),
    "MultiBinary": Kind(
        spaces.MultiBinary,
        lambda space: _of_space(space, n=space.n if isinstance(space.n, int) else [int(n) for n in space.n]),
        _multi_binary,
    ),
    "MultiDiscrete": Kind(
        spaces.MultiDiscrete,
        lambda space: _of_space(space, nvec=space.nvec, start=space.start, dtype=np.dtype(space.dtype).name),
        _multi_discrete,
    ),
    "Dict": Kind(
        spaces.Dict,
        lambda space: _of_space(space, spaces=list(space.spaces.items())),
        lambda fields: _space(spaces.Dict(OrderedDict(fields["spaces"])), fields),
    ),
    "Tuple": Kind(
        spaces.Tuple,
        lambda space: _of_space(space, spaces=list(space.spaces)),
        lambda fields: _space(spaces.Tuple(fields["spaces"]), fields),
    ),
    "Generator": Kind(np.random.Generator, _generator_fields, _generator),
    "TrainFreq": Kind(
        TrainFreq,
        lambda given: {"frequency": given.frequency, "unit": given.unit.value},
        lambda fields: train_freq_of((fields["frequency"], fields["unit"])),
    ),
    "GoalSelectionStrategy": Kind(
        GoalSelectionStrategy, lambda given: {"name": given.name}, lambda fields: GoalSelectionStrategy[fields["name"]]
    ),
    "ReplayBuffer": Kind(StoredBuffer, StoredBuffer._asdict, lambda fields: StoredBuffer(**fields)),
}
"""markers of objects, by name"""
_MARKERS = {kind.kind: marker for marker, kind in KINDS.items()}


# to JSON


def pack_value(value: Any, depth: int = 0) -> Any:
    """
    :param value: what a model remembers
    :param depth: how deep it lies
    :return: what ``json`` can write
    :raises NotStored: if it holds something that has no name
    """
    if depth > tree.MAX_DEPTH:
        raise NotStored(f"nested deeper than {tree.MAX_DEPTH} levels")
    kind, deeper = type(value), depth + 1
    if value is None or kind is bool:
        return value
    if kind is list:
        return [pack_value(item, deeper) for item in value]
    if kind is tuple:
        return {"tuple": [pack_value(item, deeper) for item in value]}
    if kind is deque:
        return {"deque": [value.maxlen, [pack_value(item, deeper) for item in value]]}
    if kind is OrderedDict:
        return {"ordered": pack_value(dict(value), deeper)}
    if kind is dict:
        return _packed_dict(value, deeper)
    if kind is Missing:
        return value.node
    if kind in _MARKERS:
        marker = _MARKERS[kind]
        return {marker: {name: pack_value(field, deeper) for name, field in KINDS[marker].fields(value).items()}}
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return {"class" if isinstance(value, type) else "function": _name_of(value)}
    if isinstance(value, Path):
        return {"path": os.fspath(value)}
    if kind in (str, int, float, np.ndarray, th.Tensor) or isinstance(value, np.generic):
        return _packed_leaf(value)
    if isinstance(value, ReplayBuffer):
        raise NotStored(f"{kind.__name__}, which save_replay_buffer() keeps")
    attributes = {name: pack_value(item, deeper) for name, item in _attributes(value).items()}
    return {"object": {"class": _name_of(kind), "attributes": attributes}}


def _packed_dict(value: dict[Any, Any], deeper: int) -> Any:
    if all(type(key) is str and key.isprintable() for key in value):
        return {"dict": {key: pack_value(item, deeper) for key, item in value.items()}}
    return {"items": [[_packed_leaf(key), pack_value(item, deeper)] for key, item in value.items()]}


def _packed_leaf(value: Any) -> Any:
    try:
        packed, arrays = tree.pack(value)
    except TypeError as error:
        raise NotStored(str(error)) from error
    if not arrays:
        return packed
    ((marker, content),) = packed.items()
    numbers = _array_text(arrays["0"])
    return {marker: [numbers, content[1]] if marker == "tensor" else numbers}


def _array_text(array: Array) -> list[Any]:
    if not _PLAIN.fullmatch(array.dtype.str):
        raise NotStored(f"array of {array.dtype}")
    return [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]


_PLAIN = re.compile("[<>|](?:[biufc][0-9]{1,2}|[SU][0-9]{1,4})")


def _name_of(value: Any) -> str:
    """The name by which a class or function is found again."""
    if isinstance(value, type) and value in _NAMES:
        return _NAMES[value]
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    found: Any = sys.modules.get(module or "")
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not value:
        raise NotStored(f"{type(value).__name__} {name or value!r}, which no module has by that name")
    return f"{module}.{name}"


def _attributes(value: Any) -> Fields:
    """What makes an object what it is, where that is its attributes alone: none of these says otherwise."""
    kind = type(value)
    ways = ("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__")
    attributes: Any = None
    if all(getattr(kind, way, None) is getattr(object, way, None) for way in ways):
        try:
            _, arguments, attributes, *items = value.__reduce_ex__(2)
        except TypeError as error:
            raise NotStored(str(error)) from error
        if arguments != (kind,) or items != [None, None]:
            attributes = ()
    if not isinstance(attributes, dict):
        raise NotStored(f"{kind.__module__}.{kind.__qualname__}, whose attributes do not say all about it")
    return attributes


# from JSON


def unpack_value(node: Any, trust: bool = False, place: Place = ()) -> Any:
    """
    :param node: what :func:`pack_value` returned
    :param trust: whether classes and functions of others are imported
    :param place: where it stands
    :return: the value
    :raises AskedFor: if it holds what is not imported, or was not stored
    :raises Exception: whatever constructors raise at arguments that cannot be
    """
    if len(place) > tree.MAX_DEPTH + 1:
        raise ValueError(f"it is nested deeper than {tree.MAX_DEPTH} levels")
    deeper = (*place, "")
    if type(node) is list:
        return [unpack_value(item, trust, deeper) for item in node]
    if type(node) is not dict or len(node) != 1:
        return tree.unpack(node, {})
    ((marker, content),) = node.items()
    if marker == "tuple":
        return tuple(unpack_value(_list(content), trust, deeper))
    if marker == "deque":
        maxlen, items = content
        return deque(unpack_value(_list(items), trust, deeper), maxlen)
    if marker == "ordered":
        return OrderedDict(unpack_value(content, trust, deeper))
    if marker == "dict":
        return _unpacked_fields(content, trust, place)
    if marker == "items":
        return {unpack_value(key, False, deeper): unpack_value(item, trust, deeper) for key, item in content}
    if marker in ("array", "scalar", "tensor"):
        return _unpacked_array(marker, content)
    if marker in KINDS:
        return KINDS[marker].made(_unpacked_fields(content, trust, deeper))
    if marker in ("class", "function"):
        content = current_class_name(content)
        return _imported(content) if trust and content not in CLASSES else class_at(place, content, CLASSES)
    if marker == "object":
        return _unpacked_object(content, trust, deeper)
    if marker == "path":
        return Path(content)
    if marker == "not stored":
        raise AskedFor(f"was not stored: {content}", trust_helps=False)
    return tree.unpack(node, {})


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise ValueError("there is no list where one belongs")
    return content


def _unpacked_fields(content: Any, trust: bool, place: Place) -> Fields:
    return {name: unpack_value(item, trust, (*place, name)) for name, item in content.items()}


def _unpacked_array(marker: str, content: Any) -> Any:
    numbers, name = content if marker == "tensor" else (content, None)
    return tree.unpack({marker: ["0", name] if marker == "tensor" else "0"}, {"0": _array(*numbers)})


def _array(dtype: str, shape: list[int], text: str) -> Array:
    """An array that is as large as its text."""
    if not _PLAIN.fullmatch(dtype) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{dtype!r} and {shape!r} are no type and shape of an array")
    data = bytearray(base64.b64decode(text, validate=True))
    kind: Any = np.dtype(dtype)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"an array of {dtype} and {shape} has {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape) if data else np.empty(shape, kind)


def _unpacked_object(content: Mapping[str, Any], trust: bool, deeper: Place) -> Any:
    name = current_class_name(content["class"])
    if not trust and name not in OBJECTS:
        raise AskedFor(f"names {name}, which is imported only from files that are trusted")
    kind = OBJECTS[name] if name in OBJECTS else _imported(name)
    attributes = _unpacked_fields(content["attributes"], trust, deeper)
    if name in OBJECTS:
        return kind(**attributes)
    made: Any = object.__new__(kind)
    made.__dict__.update(attributes)
    return made


def _imported(name: str) -> Any:
    module, found = "", None
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            module = ".".join(parts[:end])
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if not module.startswith(error.name or ""):
                raise
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        break
    if found is None:
        raise AskedFor(f"names {name}, which cannot be imported here", trust_helps=False)
    return found
