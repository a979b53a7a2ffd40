"""
A model on the disk: the archive of SB3, with JSON in the place of pickles.

``data`` is plain JSON with a version, the parameters are ``.pth`` as SB3 writes them: its own tools read them. What stands in
a file, and what is promised of it, is described in docs/file_format.md.
"""

import base64
import copy
import io
import json
import sys
import warnings
from collections.abc import Collection, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import open_path, save_to_zip_file

from sb3_dqn_ext._missing import MissingAttribute, custom_objects_hint
from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.errors import ModelFileError
from sb3_dqn_ext.saved_model.archive import (
    VARIABLES,
    Parts,
    add_data,
    clean_archive,
    parse_data,
    read_parts,
    share_of_limit,
    write_archive,
)
from sb3_dqn_ext.saved_model.budget import Budget
from sb3_dqn_ext.saved_model.classes import ALLOWED_CLASSES, NeedsTrustError, allow_classes, classes_allowed, find_class
from sb3_dqn_ext.saved_model.replay_buffer import StoredBuffer, restore_buffer, store_buffer
from sb3_dqn_ext.saved_model.sb3_values import read_pickled_value
from sb3_dqn_ext.saved_model.values import pack_value, unpack_value
from sb3_dqn_ext.serialization.migrations import SCHEMA, is_known, migrate, unknown_schema
from sb3_dqn_ext.serialization.names import qualified_name
from sb3_dqn_ext.serialization.tree import NotSerializableError

__all__ = [
    "DERIVED",
    "RESET_ON_LOAD",
    "TRAINING_ONLY",
    "Budget",
    "OpenedModel",
    "StoredBuffer",
    "allow_classes",
    "classes_allowed",
    "display_name",
    "open_model",
    "restore_buffer",
    "save",
    "store_buffer",
    "unstorable_attributes",
    "unstorable_warning",
]

Attributes = Mapping[str, Any]
File = str | Path | io.BufferedIOBase

_SCHEMA = ":schema:"  # no attribute has such a name, and SB3 has such names in its own data
_FOR_SB3 = ":for SB3:"
"""where SB3's own ``load`` unpickles a text in the place of a number, which is an error that names this library"""
_TEXT_FOR_SB3 = b"FThis is a model of sb3_dqn_ext, not of SB3's DQN: load it with sb3_dqn_ext.DQNExt.load(path)\n."
_OTHER_ALGORITHMS = {
    "n_quantiles": "QRDQN",
    "clip_range": "PPO",
    "cg_max_steps": "TRPO",
    "gae_lambda": "A2C",
    "top_quantiles_to_drop_per_net": "TQC",
    "target_policy_noise": "TD3 or DDPG",
    "delta_std_schedule": "ARS",
    "policy_delay": "CrossQ",
    "target_entropy": "SAC",
}
"""attributes that only one algorithm of SB3 and sb3-contrib has; TQC and CrossQ have those below them, too"""
DERIVED = ("lr_schedule", "exploration_schedule", "batch_norm_stats", "batch_norm_stats_target")
"""attributes that a model makes of the others when it is loaded"""
RESET_ON_LOAD: dict[str, Any] = {
    **dict.fromkeys(("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer")),
    **dict.fromkeys(("action_noise", "_generator")),
    "_exploration_state": {},
}
"""attributes that a model can do without, and what it has then: as before its first run"""
TRAINING_ONLY = {"learning_rate", "replay_buffer_class", "replay_buffer_kwargs", "replay_buffer"}
"""attributes that predictions do not need: a model is loaded without them, and training asks for them"""
_OF_THE_PROCESS = {"env", "device", "policy", "rollout_buffer", "_vec_normalize_env", "_logger"}
"""attributes that a model has anew in each process; SB3 leaves them out of files unless they are named"""
_WHOLE = {"num_timesteps", "_total_timesteps", "_episode_num", "_n_updates", "_n_calls", "n_envs", "verbose"}
_KINDS: dict[str, Any] = {
    **dict.fromkeys(_WHOLE, int),
    **dict.fromkeys(("observation_space", "action_space"), spaces.Space),
    "policy_kwargs": Mapping,
}
_MOST_ENVS = 2**16
_KNOWN_NAMES = {*ALLOWED_CLASSES, *map(qualified_name, ALLOWED_CLASSES.values())}


def unstorable_attributes(attributes: Attributes) -> dict[str, str]:
    """
    :param attributes: attributes of a model
    :return: those that cannot be stored, and why
    """
    found = {name: _text(value, 1.0)[1] for name, value in attributes.items()}
    return {name: why for name, why in found.items() if why}


def unstorable_warning(lost: Attributes) -> str:
    """
    :param lost: what :func:`lost_in_a_file` gave
    :return: a warning that says it, and what to do
    """
    named = " and ".join(f"{name} ({why})" for name, why in lost.items())
    return (
        f"Not all of the model can be stored in the file that save() writes: {named}. Use what a module has by name, or give "
        f"it when the model is loaded: DQNExt.load(path, {custom_objects_hint(lost)})."
    )


def save(
    file: File,
    attributes: Attributes,
    parameters: Attributes,
    variables: Attributes,
    told: Collection[str] = (),
    optional: Collection[str] = (),
) -> None:
    """
    :param file: a path, by SB3's rules, or a file to write to
    :param attributes: of the model
    :param parameters: the state dictionaries of the model, by name
    :param variables: tensors of the model that are in none of them
    :param told: names of attributes of which the user knows that they cannot be stored
    :param optional: names of attributes that are left out where they cannot be stored
    """
    texts = {_SCHEMA: str(SCHEMA), _FOR_SB3: json.dumps({":serialized:": base64.b64encode(_TEXT_FOR_SB3).decode()})}
    lost: dict[str, str] = {}
    room = 0.9  # for what is between them
    for name, value in attributes.items():
        text, why = _text(value, room)
        if why and name not in RESET_ON_LOAD and name not in told:
            lost[name] = why
        if not why or name not in optional:
            texts[name] = text
            room -= share_of_limit(text)
    if lost:
        warnings.warn(unstorable_warning(lost), stacklevel=3)
    archive = io.BytesIO()
    save_to_zip_file(archive, None, dict(parameters), dict(variables))
    pairs = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in texts.items())
    write_archive(file, add_data(archive, f"{{\n{pairs}\n}}\n"))


def _text(value: Any, room: float) -> tuple[str, str]:
    """
    :param value: of an attribute
    :param room: for its JSON, as a share of what is read
    :return: its JSON, and why it is not stored, if it is not
    """
    try:
        text = json.dumps(pack_value(value), allow_nan=False, indent=1)
        if share_of_limit(text) <= room:
            return text, ""
        why = "larger than what is read"
    except NotSerializableError as error:
        why = _why(error)
    return json.dumps({"not stored": why}), why


def _why(error: NotSerializableError) -> str:
    return str(error)[:500]


class OpenedModel(NamedTuple):
    """A model that SB3 can load without unpickling anything of it."""

    archive: io.BytesIO
    """parameters that have been checked, and the names of the attributes"""
    attributes: dict[str, Any]
    """what these are: ``custom_objects`` for SB3"""
    budget: int
    """bytes that its networks can be measured by"""


def open_model(
    file: File,
    custom_objects: Attributes | None,
    given: Attributes,
    trust: bool,
    names: tuple[list[str], list[str]] | None,
    needed: Set[str],
) -> OpenedModel:
    """
    :param file: a path, by SB3's rules, or a file to read
    :param custom_objects: attributes in the place of those in the file
    :param given: attributes that the model is told after it is loaded
    :param trust: whether what the file names is imported, and pickles of SB3 are unpickled
    :param names: of the state dictionaries and of the tensors beside them, if all models of the class have the same
    :param needed: names of the attributes without which there is no model, but for :data:`FOR_TRAINING`
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
        data = parse_data(parts.pop("data"))
        schema = data.pop(_SCHEMA, None)
        data.pop(_FOR_SB3, None)
        if schema is None:
            _check_algorithm(data)
        if names is not None:
            _check_names(parts, variables, *names)
        if schema is None and trust:
            return OpenedModel(clean_archive(parts, json.dumps(data)), dict(custom_objects or {}), size)
        if schema is not None:
            if not is_known(schema):
                raise ModelFileError(f"it has {unknown_schema(schema)}.")
            migrate(data, "model", schema)
        attributes = _attributes(data, schema is None, custom_objects or {}, given, trust, needed)
        return OpenedModel(clean_archive(parts, json.dumps(dict.fromkeys(attributes))), attributes, size)
    except ModelFileError as error:
        raise ModelFileError(f"{display_name(file)} cannot be loaded: {error}") from error
    finally:
        if isinstance(file, str | Path):
            stream.close()


def _check_algorithm(data: Attributes) -> None:
    """:raises ModelFileError: if what SB3 wrote is a model of another algorithm than DQN"""
    algorithm = next((name for attribute, name in _OTHER_ALGORITHMS.items() if attribute in data), None)
    if algorithm is None or ("exploration_rate" in data and algorithm != "QRDQN"):
        return  # a subclass of DQN may have an attribute of the same name
    policy = data.get("policy_class")
    module = str(policy.get("__module__", ""))[:100] if isinstance(policy, dict) else ""
    raise ModelFileError(
        f"it holds a model of {algorithm}{f' (with a policy of {module})' if module else ''}, and DQNExt loads models of DQN "
        "and DQNExt. Load it with the class that saved it."
    )


def _check_names(parts: Parts, variables: set[str], dictionaries: list[str], tensors: list[str]) -> None:
    found = {name for name in parts if name.endswith(".pth")} - {*VARIABLES}
    if found != {f"{name}.pth" for name in dictionaries} or variables != set(tensors):
        raise ModelFileError(f"it has the parameters {sorted(found | variables)}, and the model has {dictionaries + tensors}.")


def display_name(file: File) -> str:
    """
    :param file: a path or a file
    :return: what errors call it
    """
    return str(file) if isinstance(file, str | Path) else "the model"


def _attributes(
    data: Attributes, stock: bool, custom: Attributes, given: Attributes, trust: bool, needed: Set[str]
) -> dict[str, Any]:
    """
    :param stock: whether SB3 wrote them
    :param needed: names of those without which there is no model
    """
    found: dict[str, Any] = {}
    asked: dict[str, NeedsTrustError] = {}
    for name, node in data.items():
        if name in custom:
            found[name] = custom[name]
        elif name in given and (name != "policy_kwargs" or _is_packed_as(given[name], node)):
            found[name] = given[name]
        elif not (stock and name in DERIVED):
            try:
                found[name] = _read(name, node, stock, trust)
            except NeedsTrustError as error:
                if name in RESET_ON_LOAD:
                    found[name] = copy.copy(RESET_ON_LOAD[name])
                elif name in needed - TRAINING_ONLY - _OF_THE_PROCESS:
                    asked[name] = error
                elif name not in _OF_THE_PROCESS:
                    found[name] = MissingAttribute(name, str(error), _stored(node, stock, error), error.trust_helps)
            # whatever constructors raise at arguments that were made for them
            except Exception as error:
                raise ModelFileError(f"its {name} cannot be: {error!r}"[:1000]) from error
            _check(name, found.get(name))
    if asked:
        raise _needed(asked, trust)
    for name in ("policy_class", "observation_space", "action_space"):
        if name not in found:
            raise ModelFileError(f"its data have no {name}.")
    # SB3 reads these; where they are left out, its defaults hold
    return {"policy_kwargs": given.get("policy_kwargs", {}), "verbose": 0} | found


def _needed(asked: Mapping[str, NeedsTrustError], trust: bool) -> ModelFileError:
    """:return: the error for attributes without which there is no model, and what to do"""
    what = "; ".join(f"{name} {why}" for name, why in asked.items())
    remedy = f"give it by {custom_objects_hint(asked)}"
    if not trust and all(error.trust_helps for error in asked.values()):
        remedy += ", or load it with trust=True if you know who made it: its code is then run"
        commands = {"rl_zoo3": "python -m sb3_dqn_ext.zoo enjoy ... ", "sb3_dqn_ext.report": ""}
        remedy += next((f" ({command}--trust)" for module, command in commands.items() if module in sys.modules), "")
    return ModelFileError(f"{what}: {remedy}.")


def _read(name: str, node: Any, stock: bool, trust: bool) -> Any:
    """:raises AskedFor: if it holds what is not made without trust"""
    if stock:
        value = _sb3_value(node, name)
    elif name == "exploration_kwargs" and type(node) is dict and node.keys() == {"dict"}:
        # a schedule that is not there keeps nobody from predicting
        value = {key: _schedule_or_missing(name, key, part, trust) for key, part in node["dict"].items()}
    else:
        value = unpack_value(node, trust, (name,))
    if name == "policy_kwargs" and not trust:
        _check_dotted_names(value)
    return value


def _schedule_or_missing(name: str, key: str, node: Any, trust: bool) -> Any:
    try:
        return unpack_value(node, trust, (name, key))
    except NeedsTrustError as error:
        if key not in ("schedule", "temperature"):
            raise
        return MissingAttribute(name, str(error), node, error.trust_helps)


def _stored(node: Any, stock: bool, error: NeedsTrustError) -> Any:
    """The JSON with which a model that is saved again says the same."""
    return {"not stored": str(error)[:500]} if stock else node


def _check_dotted_names(policy_kwargs: Any) -> None:
    """Policies import the class that a text with a dot names."""
    for argument in ("activation_fn", "features_extractor_class", "optimizer_class"):
        given = policy_kwargs.get(argument) if isinstance(policy_kwargs, Mapping) else None
        if isinstance(given, str) and "." in given and given not in _KNOWN_NAMES:
            find_class(("policy_kwargs", argument), given, ALLOWED_CLASSES)


def _is_packed_as(value: Any, node: Any) -> bool:
    """Whether what the caller gives is what is stored, which then needs no trust."""
    try:
        return bool(pack_value(value) == node)
    except NotSerializableError as error:
        return bool(node == {"not stored": _why(error)})


def _sb3_value(node: Any, name: str) -> Any:
    if type(node) is dict and ":serialized:" in node:
        return read_pickled_value(base64.b64decode(node[":serialized:"], validate=True), (name,))
    return node


def _check(name: str, value: Any) -> None:
    kind = _KINDS.get(name, object)
    if value is not None and (not isinstance(value, kind) or (kind is int and (type(value) is bool or value < 0))):
        raise ModelFileError(f"its {name} cannot be {str(value)[:100]}.")
    if name == "policy_class" and value is not None and not (isinstance(value, type) and issubclass(value, BasePolicy)):
        raise ModelFileError(f"its {name} cannot be {str(value)[:100]}.")
    if name == "n_envs" and value is not None and value > _MOST_ENVS:
        raise ModelFileError(f"its n_envs={value} is more than {_MOST_ENVS}.")
