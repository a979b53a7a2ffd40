"""
A model on the disk: the archive of SB3, with JSON in the place of pickles.

``data`` is plain JSON with a version, the parameters are ``.pth`` as SB3 writes them: its own tools read them. What stands in
a file, and what is promised of it, is described in docs/file_format.md.
"""

import base64
import copy
import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import open_path, save_to_zip_file

from sb3_dqn_ext.choices import check_type
from sb3_dqn_ext.saved_model.archive import (
    VARIABLES,
    ModelFileError,
    Parts,
    clean_archive,
    parse,
    read_parts,
    weight,
    with_data,
    write,
)
from sb3_dqn_ext.saved_model.budget import Budget
from sb3_dqn_ext.saved_model.pickles import value_of
from sb3_dqn_ext.saved_model.values import CLASSES, AskedFor, NotStored, pack_value, unpack_value

__all__ = ["FORGOTTEN", "REBUILT", "SCHEMA", "Budget", "ModelFileError", "Opened", "called", "opened", "save"]

Given = Mapping[str, Any]
File = str | Path | io.BufferedIOBase

SCHEMA = 1
_SCHEMA = ":schema:"  # no attribute has such a name, and SB3 has such names in its own data
REBUILT = ("lr_schedule", "exploration_schedule", "batch_norm_stats", "batch_norm_stats_target")
"""attributes that a model makes of the others when it is loaded"""
FORGOTTEN: dict[str, Any] = {
    **dict.fromkeys(("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer")),
    **dict.fromkeys(("action_noise", "_generator")),
    "_exploration_memory": {},
}
"""attributes that a model can do without, and what it has then: as before its first run"""
_WHOLE = {"num_timesteps", "_total_timesteps", "_episode_num", "_n_updates", "_n_calls", "n_envs", "verbose"}
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_WHOLE, int),
    **dict.fromkeys(("observation_space", "action_space"), spaces.Space),
    "policy_kwargs": Mapping,
}
_MOST_ENVS = 2**16
_KNOWN_NAMES = {*CLASSES, *(f"{kind.__module__}.{kind.__qualname__}" for kind in CLASSES.values())}


def save(file: File, attributes: Given, parameters: Given, variables: Given) -> None:
    """
    :param file: a path, by SB3's rules, or a file to write to
    :param attributes: of the model
    :param parameters: the state dictionaries of the model, by name
    :param variables: tensors of the model that are in none of them
    """
    texts = {_SCHEMA: str(SCHEMA)}
    lost: dict[str, str] = {}
    room = 0.9  # for what is between them
    for name, value in attributes.items():
        texts[name], why = _text(value, room)
        room -= weight(texts[name])
        if why and name not in FORGOTTEN:
            lost[name] = why
    if lost:
        named = " and ".join(f"{name} ({why})" for name, why in lost.items())
        warnings.warn(
            f"Not all of the model can be stored: {named}. Give it when the model is loaded: "
            f"DQNExt.load(path, custom_objects={{{', '.join(f'{name!r}: ...' for name in lost)}}}).",
            stacklevel=3,
        )
    archive = io.BytesIO()
    save_to_zip_file(archive, None, dict(parameters), dict(variables))
    pairs = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in texts.items())
    write(file, with_data(archive, f"{{\n{pairs}\n}}\n"))


def _text(value: Any, room: float) -> tuple[str, str]:
    """
    :param value: of an attribute
    :param room: for its JSON, as a share of what is read
    :return: its JSON, and why it is not stored, if it is not
    """
    try:
        text = json.dumps(pack_value(value), allow_nan=False, indent=1)
        if weight(text) <= room:
            return text, ""
        why = "larger than what is read"
    except NotStored as error:
        why = _why(error)
    return json.dumps({"not stored": why}), why


def _why(error: NotStored) -> str:
    return str(error)[:500]


class Opened(NamedTuple):
    """A model that SB3 can load without unpickling anything of it."""

    archive: io.BytesIO
    """parameters that have been checked, and the names of the attributes"""
    attributes: dict[str, Any]
    """what these are: ``custom_objects`` for SB3"""
    budget: int
    """bytes that its networks can be measured by"""


def opened(
    file: File, custom_objects: Given | None, given: Given, trust: bool, names: tuple[list[str], list[str]] | None
) -> Opened:
    """
    :param file: a path, by SB3's rules, or a file to read
    :param custom_objects: attributes in the place of those in the file
    :param given: attributes that the model is told after it is loaded
    :param trust: whether what the file names is imported, and pickles of SB3 are unpickled
    :param names: of the state dictionaries and of the tensors beside them, if all models of the class have the same
    :return: its content
    :raises ModelFileError: if it cannot be read, or asks for more than is given
    :raises FileNotFoundError: if it is missing
    """
    check_type("custom_objects", {} if custom_objects is None else custom_objects, dict, "a dict or None")
    stream: Any = open_path(file, "r", suffix="zip")
    try:
        parts, variables, size = read_parts(stream)
        if "data" not in parts:
            raise ModelFileError("it holds no data of a model.")
        if names is not None:
            _check_names(parts, variables, *names)
        data = parse(parts.pop("data"))
        schema = data.pop(_SCHEMA, None)
        if schema is None and trust:
            return Opened(clean_archive(parts, json.dumps(data)), dict(custom_objects or {}), size)
        if schema not in (None, SCHEMA):
            raise ModelFileError(f"it has the schema version {schema!r}, and this version of sb3_dqn_ext reads {SCHEMA} only.")
        attributes = _attributes(data, schema is None, custom_objects or {}, given, trust)
        return Opened(clean_archive(parts, json.dumps(dict.fromkeys(attributes))), attributes, size)
    except ModelFileError as error:
        raise ModelFileError(f"{called(file)} cannot be loaded: {error}") from error
    finally:
        if isinstance(file, str | Path):
            stream.close()


def _check_names(parts: Parts, variables: set[str], dictionaries: list[str], tensors: list[str]) -> None:
    found = {name for name in parts if name.endswith(".pth")} - {*VARIABLES}
    if found != {f"{name}.pth" for name in dictionaries} or variables != set(tensors):
        raise ModelFileError(f"it has the parameters {sorted(found | variables)}, and the model has {dictionaries + tensors}.")


def called(file: File) -> str:
    """
    :param file: a path or a file
    :return: what errors call it
    """
    return str(file) if isinstance(file, str | Path) else "the model"


def _attributes(data: Given, stock: bool, custom: Given, given: Given, trust: bool) -> dict[str, Any]:
    """:param stock: whether SB3 wrote them"""
    found: dict[str, Any] = {}
    asked: dict[str, str] = {}
    for name, node in data.items():
        if name in custom:
            found[name] = custom[name]
        elif name in given and (name != "policy_kwargs" or _is_packed_as(given[name], node)):
            found[name] = given[name]
        elif not (stock and name in REBUILT):
            try:
                found[name] = _sb3_value(node) if stock else unpack_value(node, trust)
                if name == "policy_kwargs" and not trust:
                    _check_dotted_names(found[name])
            except AskedFor as error:
                if name in FORGOTTEN:
                    found[name] = copy.copy(FORGOTTEN[name])
                else:
                    asked[name] = str(error)
            # whatever constructors raise at arguments that were made for them
            except Exception as error:
                raise ModelFileError(f"its {name} cannot be: {error!r}"[:1000]) from error
            _check(name, found.get(name))
    if asked:
        what = "; ".join(f"{name} {why}" for name, why in asked.items())
        instead = f"custom_objects={{{', '.join(f'{name!r}: ...' for name in asked)}}}"
        remedy = f"give it by {instead}"
        if not trust:
            remedy += ", or load it with trust=True if you know who made it: its code is then run"
        raise ModelFileError(f"{what}: {remedy}.")
    for name in ("policy_class", "observation_space", "action_space", "policy_kwargs", "verbose"):
        if name not in found:
            raise ModelFileError(f"its data have no {name}.")
    return found


def _check_dotted_names(policy_kwargs: Any) -> None:
    """Policies import the class that a text with a dot names."""
    for argument in ("activation_fn", "features_extractor_class", "optimizer_class"):
        given = policy_kwargs.get(argument) if isinstance(policy_kwargs, Mapping) else None
        if isinstance(given, str) and "." in given and given not in _KNOWN_NAMES:
            raise AskedFor(f"names {given}, which is imported only from files that are trusted")


def _is_packed_as(value: Any, node: Any) -> bool:
    """Whether what the caller gives is what is stored, which then needs no trust."""
    try:
        return bool(pack_value(value) == node)
    except NotStored as error:
        return bool(node == {"not stored": _why(error)})


def _sb3_value(node: Any) -> Any:
    if type(node) is dict and ":serialized:" in node:
        return value_of(base64.b64decode(node[":serialized:"], validate=True))
    return node


def _check(name: str, value: Any) -> None:
    kind = _KINDS.get(name, object)
    if value is not None and (not isinstance(value, kind) or (kind is int and (type(value) is bool or value < 0))):
        raise ModelFileError(f"its {name} cannot be {str(value)[:100]}.")
    if name == "policy_class" and value is not None and not (isinstance(value, type) and issubclass(value, BasePolicy)):
        raise ModelFileError(f"its {name} cannot be {str(value)[:100]}.")
    if name == "n_envs" and value is not None and value > _MOST_ENVS:
        raise ModelFileError(f"its n_envs={value} is more than {_MOST_ENVS}.")
