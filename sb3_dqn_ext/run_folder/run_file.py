"""
``run.json``: the arguments and hyperparameters that a run of the zoo was started with, as plain data.

It holds no code and no pickle. Expressions that the zoo would evaluate as Python are evaluated when the file is written, and
classes are stored by their dotted names. People read it, so a dictionary is a plain JSON object here, and not a marker as in
the codec of models and checkpoints.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

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
MAX_BYTES = 2**24  # bytes; what is larger is not read
TUPLE_KEY = "__tuple__"

EVALUATED_HYPERPARAMETERS = ("normalize", "policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "monitor_kwargs")
"""hyperparameters that the zoo evaluates as Python if they are strings"""
NETWORK_CLASS_ARGUMENTS = ("activation_fn", "optimizer_class", "features_extractor_class")
"""arguments in policy_kwargs that can be classes, and strings that name them"""
_OF_NAMES = ("policy", "env_wrapper", "vec_env_wrapper", "callback", "replay_buffer_class")


@dataclass(frozen=True)
class RunFile:
    """The content of ``run.json``."""

    env: str
    """the environment's id"""
    directory: str
    """the working directory of the command"""
    arguments: Data
    """the arguments of the command, with the seed that was drawn if none was given, and without the hyperparameters"""
    hyperparameters: Data
    """the hyperparameters as the zoo had read them"""
    checkpoints: str | None
    """the folder of checkpoints, relative to that of the run; None: there are none"""
    obstacle: str | None
    """why the run cannot be resumed; None: it can"""
    finished: int | None
    """the environment step at which the run came to its end; None: it did not"""
    versions: dict[str, str]
    """the versions of the libraries that the run was started with"""


def write(folder: str | Path, run: RunFile) -> None:
    """
    Write ``run.json``. A reader finds the old file or the new one, never a part.

    :param folder: the folder of the run
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
    Mark a run as finished.

    :param folder: the folder of the run
    :param run: the content of its ``run.json``
    :param step: the environment step at which it came to its end
    :raises CheckpointError: if the file cannot be written
    """
    write(folder, replace(run, finished=step))


def read(folder: str | Path) -> RunFile:
    """
    Read ``run.json``. Nothing in it is executed.

    :param folder: the folder of a run
    :return: the content of the file; classes that have moved since have their current names
    :raises ArgumentError: if the folder is not that of a run
    :raises CheckpointError: if the file is damaged
    """
    path = Path(folder) / FILE_NAME
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ArgumentError(
            f"RUN_FOLDER={str(folder)!r} must be the folder of a run of dqn_ext, such as logs/dqn_ext/CartPole-v1_1: "
            f"there is no {path}."
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    try:
        data = _checked(json.loads(content[:MAX_BYTES].decode("utf-8")))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    schema = data.pop("schema")
    if not is_known(schema):
        raise CheckpointError(f"{path} has {unknown_schema(schema)}.")
    try:
        return RunFile(**data)
    except TypeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _checked(data: object) -> Data:
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError("it does not say that it is of a run")
    if not is_known(data.get("schema")):
        return {"schema": data.get("schema")}
    migrate(data, "run", data["schema"])
    kinds: dict[str, Any] = {"env": str, "directory": str, "arguments": dict, "hyperparameters": dict, "versions": dict}
    kinds |= {"checkpoints": str | None, "obstacle": str | None, "finished": int | None}
    for key, kind in kinds.items():
        if not isinstance(data.get(key), kind):
            raise ValueError(f"its {key} is {str(data.get(key))[:100]!r}")
    for key in ("arguments", "hyperparameters"):
        data[key] = decode(data[key])
    return data


def evaluate_and_encode(hyperparameters: Mapping[str, Any], names: Mapping[str, Any]) -> Data:
    """
    Evaluate the hyperparameters that the zoo evaluates as Python, and encode all of them.

    :param hyperparameters: the hyperparameters as the zoo reads them
    :param names: the global names that expressions in them may use
    :return: the same as plain data
    :raises TypeError: if a value is not plain data
    """
    evaluated = {
        key: eval(value, dict(names)) if key in EVALUATED_HYPERPARAMETERS and isinstance(value, str) else value
        for key, value in hyperparameters.items()
    }
    data: Data = encode(evaluated)
    return data


def encode(value: object, path: tuple[str, ...] = ()) -> Any:
    """
    :param value: numbers, strings, and lists, tuples and dictionaries of such; also classes, in the hyperparameters that may
        name one
    :param path: the keys that lead to the value
    :return: the same as JSON data
    :raises TypeError: with the value and its path, if it is something else
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, type) and path and _may_be_named(path):
        return _name_of(value, path)
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        items = [encode(item, (*path, str(i))) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {TUPLE_KEY: items}
    if isinstance(value, Mapping):
        keys = [_name_of(key, path) if isinstance(key, type) and path[:1] == ("env_wrapper",) else key for key in value]
        if all(type(key) is str for key in keys) and keys != [TUPLE_KEY]:
            return {key: encode(item, (*path, key)) for key, item in zip(keys, value.values(), strict=True)}
    raise TypeError(f"{'.'.join(path) or 'a hyperparameter'} is {value!r}, which is no plain data")


def decode(data: Any) -> Any:
    """
    :param data: a result of :func:`encoded`
    :return: the value that was encoded, in new lists and dictionaries
    """
    if isinstance(data, list):
        return [decode(item) for item in data]
    if isinstance(data, dict):
        return (
            tuple(decode(data[TUPLE_KEY])) if data.keys() == {TUPLE_KEY} else {key: decode(item) for key, item in data.items()}
        )
    return data


def _may_be_named(path: tuple[str, ...]) -> bool:
    return path[0] in _OF_NAMES or (path[0] == "policy_kwargs" and path[1:] in {(name,) for name in NETWORK_CLASS_ARGUMENTS})


def _name_of(kind: type, path: tuple[str, ...]) -> str:
    name = qualified_name(kind)
    try:
        found = import_name(name)
    except (ImportError, AttributeError):
        found = None
    if found is not kind or "." in kind.__qualname__:  # the zoo looks for classes at the top level of modules
        raise TypeError(f"{'.'.join(path)} is the class {name}, which cannot be imported by its name")
    return name
