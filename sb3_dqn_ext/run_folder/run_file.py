"""
The file ``run.json``: the arguments and hyperparameters with which a run of the zoo was started, as plain data.

It contains no code and no pickle. Expressions that the zoo evaluates as Python are evaluated when the file is written, and
classes are stored by their dotted names. The file is meant to be read by people: a dictionary is a plain JSON object, unlike
in models and checkpoints.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from sb3_dqn_ext.choices import PLACES
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.serialization.migrations import SCHEMA, is_known, migrate, unknown_schema
from sb3_dqn_ext.serialization.names import import_name, qualified_name
from sb3_dqn_ext.storage.atomic import write_atomically

__all__ = [
    "EVALUATED_HYPERPARAMETERS",
    "NETWORK_CLASS_ARGUMENTS",
    "RunFile",
    "decode",
    "encode",
    "evaluate_and_encode",
    "mark_finished",
    "read",
    "write",
]

Data = dict[str, Any]

FILE_NAME = "run.json"
FORMAT = "sb3_dqn_ext run"
MAX_BYTES = 2**24  # a larger file is not read
TUPLE_KEY = "__tuple__"

EVALUATED_HYPERPARAMETERS = ("normalize", "policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs")
"""the hyperparameters that the zoo evaluates as Python if they are strings"""
NETWORK_CLASS_ARGUMENTS = ("activation_fn", "optimizer_class", "features_extractor_class")
"""the arguments in policy_kwargs that can be classes, or dotted names of classes"""
_CLASS_HYPERPARAMETERS = ("policy", "env_wrapper", "vec_env_wrapper", "callback", "replay_buffer_class")


@dataclass(frozen=True)
class RunFile:
    """The content of ``run.json``."""

    env: str
    """the id of the environment"""
    directory: str
    """the working directory in which the command was run"""
    arguments: Data
    """the arguments of the command, including the seed if it was drawn at random, without the hyperparameters"""
    hyperparameters: Data
    """the hyperparameters that the zoo has read, before it built objects from them"""
    checkpoints: str | None
    """the folder of checkpoints, relative to the run folder; None: no checkpoints"""
    obstacle: str | None
    """the reason why the run cannot be resumed; None: it can"""
    finished: int | None
    """the environment step at which training ended regularly; None: it has not"""
    versions: dict[str, str]
    """the versions of the packages with which the run was started"""


def write(folder: str | Path, run: RunFile) -> None:
    """
    Write ``run.json`` atomically.

    :param folder: the run folder
    :param run: the content of the file
    :raises CheckpointError: if the file cannot be written
    """
    path = Path(folder) / FILE_NAME
    text = json.dumps({"format": FORMAT, "schema": SCHEMA, **asdict(run)}, indent=2)
    try:
        write_atomically(path, f"{text}\n".encode())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error}") from error


def mark_finished(folder: str | Path, run: RunFile, step: int) -> None:
    """
    Mark a run as finished in its ``run.json``.

    :param folder: the run folder
    :param run: the content of the file
    :param step: the environment step at which training ended
    :raises CheckpointError: if the file cannot be written
    """
    write(folder, replace(run, finished=step))


def read(folder: str | Path) -> RunFile:
    """
    Read ``run.json``. No content of the file is executed.

    :param folder: a run folder
    :return: the content of the file; names of an earlier version of this package are replaced by the current ones
    :raises ArgumentError: if the folder contains no ``run.json``
    :raises CheckpointError: if the file is damaged
    """
    path = Path(folder) / FILE_NAME
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ArgumentError(
            f"RUN_FOLDER={str(folder)!r} must be a run folder of dqn_ext, such as logs/dqn_ext/CartPole-v1_1: "
            f"there is no {path}."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    try:
        data = _check_content(json.loads(content[:MAX_BYTES].decode("utf-8")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    schema = data.pop("schema")
    if not is_known(schema):
        raise CheckpointError(f"{path} has {unknown_schema(schema)}.")
    try:
        return RunFile(**data)
    except TypeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _check_content(data: object) -> Data:
    """Return the fields of a file, migrated to the current schema; only ``schema`` if it is unknown."""
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"its format is not {FORMAT!r}")
    if not is_known(data.get("schema")):
        return {"schema": data.get("schema")}
    migrate(data, "run", data["schema"])
    types: dict[str, Any] = {"env": str, "directory": str, "arguments": dict, "hyperparameters": dict, "versions": dict}
    types |= {"checkpoints": str | None, "obstacle": str | None, "finished": int | None}
    for key, expected in types.items():
        if not isinstance(data.get(key), expected):
            raise ValueError(f"its {key} is {str(data.get(key))[:100]!r}")
    for key in ("arguments", "hyperparameters"):
        data[key] = decode(data[key])
    return data


def evaluate_and_encode(hyperparameters: Mapping[str, Any], names: Mapping[str, Any]) -> Data:
    """
    Evaluate the hyperparameters in :data:`EVALUATED_HYPERPARAMETERS` that are strings, as Python expressions, and encode all
    hyperparameters. Any code in such a string is run.

    :param hyperparameters: the hyperparameters that the zoo has read
    :param names: the global names that expressions may use
    :return: the hyperparameters as plain data
    :raises TypeError: if a value is not plain data
    :raises Exception: an exception that an expression raised
    """
    evaluated = {
        key: eval(value, dict(names)) if key in EVALUATED_HYPERPARAMETERS and isinstance(value, str) else value
        for key, value in hyperparameters.items()
    }
    data: Data = encode(evaluated)
    return data


def encode(value: object, path: tuple[str, ...] = ()) -> Any:
    """
    Encode a value as JSON data.

    :param value: a number, a string, or a list, tuple or dictionary of such values; also a class, if ``path`` leads to a
        hyperparameter that may be one
    :param path: the keys and indices that lead to the value
    :return: the value as JSON data; classes are replaced by their dotted names
    :raises TypeError: with the value and its path, if it has another type
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    is_choice = path in PLACES
    if path and ((isinstance(value, type) and _may_hold_class(path)) or (isinstance(value, FunctionType) and is_choice)):
        return _importable_name(value, path)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        items = [encode(item, (*path, str(i))) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {TUPLE_KEY: items}
    if isinstance(value, Mapping):
        keys = [
            _importable_name(key, path) if isinstance(key, type) and path[:1] == ("env_wrapper",) else key for key in value
        ]
        if all(type(key) is str for key in keys) and keys != [TUPLE_KEY]:
            return {key: encode(item, (*path, key)) for key, item in zip(keys, value.values(), strict=True)}
    hint = ": give its class, or a dotted name, which can be imported again" if is_choice else ""
    raise TypeError(f"{'.'.join(path) or 'a hyperparameter'} is {value!r}, which is not plain data{hint}")


def decode(data: Any) -> Any:
    """
    Decode a value.

    :param data: a result of :func:`encode`
    :return: the value that was encoded, in new lists and dictionaries
    """
    if isinstance(data, list):
        return [decode(item) for item in data]
    if isinstance(data, dict):
        return (
            tuple(decode(data[TUPLE_KEY])) if data.keys() == {TUPLE_KEY} else {key: decode(item) for key, item in data.items()}
        )
    return data


def _may_hold_class(path: tuple[str, ...]) -> bool:
    """Return whether the value of a hyperparameter can be a class."""
    return (
        path in PLACES
        or path[0] in _CLASS_HYPERPARAMETERS
        or (path[0] == "policy_kwargs" and path[1:] in {(name,) for name in NETWORK_CLASS_ARGUMENTS})
    )


def _importable_name(kind: type | FunctionType, path: tuple[str, ...]) -> str:
    """Return the dotted name of a class or function, and check that it can be imported by it."""
    name = qualified_name(kind)
    try:
        found = import_name(name)
    except (ImportError, AttributeError):
        found = None
    if found is not kind or "." in kind.__qualname__:  # the zoo imports only top-level names of modules
        sort = "class" if isinstance(kind, type) else "function"
        raise TypeError(f"{'.'.join(path)} is the {sort} {name}, which cannot be imported by its name")
    return name
