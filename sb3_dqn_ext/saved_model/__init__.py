"""
Saved models: the zip archive of SB3, with JSON in place of pickles.

``data`` is plain JSON with a schema version. The parameters are ``.pth`` files as SB3 writes them, so that its own tools can
read them. The format and its guarantees are described in docs/file_format.md.
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
from sb3_dqn_ext.choices import find_choices
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
    "save_model",
    "store_buffer",
    "unstorable_attributes",
    "unstorable_warning",
]

Attributes = Mapping[str, Any]
File = str | Path | io.BufferedIOBase

_SCHEMA = ":schema:"  # no attribute has such a name, and SB3 has such names in its own data
_FOR_SB3 = ":for SB3:"
"""The key whose value makes SB3's own ``load`` fail with a message that names this library."""
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
"""
Attributes that identify the algorithm of a model of SB3 or sb3-contrib. TQC and CrossQ also have attributes of SAC, so they
come first.
"""
DERIVED = ("lr_schedule", "exploration_schedule", "batch_norm_stats", "batch_norm_stats_target")
"""The attributes that a model computes from other attributes when it is loaded."""
RESET_ON_LOAD: dict[str, Any] = {
    **dict.fromkeys(("_last_obs", "_last_original_obs", "_last_episode_starts", "ep_info_buffer", "ep_success_buffer")),
    **dict.fromkeys(("action_noise", "_generator")),
    "_exploration_state": {},
}
"""The attributes that a model can do without, with the values they have before the first run."""
TRAINING_ONLY = {"learning_rate", "replay_buffer_class", "replay_buffer_kwargs", "replay_buffer"}
"""The attributes that predictions do not need. A model is loaded without them; training requires them."""
_PROCESS_SPECIFIC = {"env", "device", "policy", "rollout_buffer", "_vec_normalize_env", "_logger"}
"""The attributes that each process creates again. SB3 leaves them out of files unless they are named."""
_COUNTERS = {"num_timesteps", "_total_timesteps", "_episode_num", "_n_updates", "_n_calls", "n_envs", "verbose"}
_ATTRIBUTE_TYPES: dict[str, Any] = {
    **dict.fromkeys(_COUNTERS, int),
    **dict.fromkeys(("observation_space", "action_space"), spaces.Space),
    "policy_kwargs": Mapping,
}
_MAX_ENVS = 2**16
_ALLOWED_NAMES = {*ALLOWED_CLASSES, *map(qualified_name, ALLOWED_CLASSES.values())}


def unstorable_attributes(attributes: Attributes) -> dict[str, str]:
    """
    Find the attributes of a model that a file cannot hold.

    :param attributes: the attributes, by name
    :return: the reason for each attribute that cannot be stored, by name
    """
    found = {name: _text(value, 1.0)[1] for name, value in attributes.items()}
    return {name: why for name, why in found.items() if why}


def unstorable_warning(reasons: Attributes) -> str:
    """
    Return the warning for attributes that are missing from a file, with a remedy.

    :param reasons: the result of :func:`unstorable_attributes`
    """
    named = " and ".join(f"{name} ({why})" for name, why in reasons.items())
    return (
        f"Not all of the model can be stored in the file that save() writes: {named}. Use what a module has by name, or give "
        f"it when the model is loaded: DQNExt.load(path, {custom_objects_hint(reasons)})."
    )


def save_model(
    file: File,
    attributes: Attributes,
    parameters: Attributes,
    variables: Attributes,
    already_warned: Collection[str] = (),
    optional: Collection[str] = (),
) -> None:
    """
    Write a model to a file.

    :param file: a path, completed by SB3's rules, or a binary file to write to
    :param attributes: the attributes of the model, by name
    :param parameters: the state dictionaries of the model, by name
    :param variables: the tensors of the model that are in no state dictionary
    :param already_warned: the names of attributes for which the user has seen the warning that they cannot be stored
    :param optional: the names of attributes that are left out if they cannot be stored
    """
    texts = {_SCHEMA: str(SCHEMA), _FOR_SB3: json.dumps({":serialized:": base64.b64encode(_TEXT_FOR_SB3).decode()})}
    reasons: dict[str, str] = {}
    room = 0.9  # the rest is for names and separators
    for name, value in attributes.items():
        text, why = _text(value, room)
        if why and name not in RESET_ON_LOAD and name not in already_warned:
            reasons[name] = why
        if not why or name not in optional:
            texts[name] = text
            room -= share_of_limit(text)
    if reasons:
        warnings.warn(unstorable_warning(reasons), stacklevel=3)
    archive = io.BytesIO()
    save_to_zip_file(archive, None, dict(parameters), dict(variables))
    pairs = ",\n".join(f"{json.dumps(name)}: {text}" for name, text in texts.items())
    write_archive(file, add_data(archive, f"{{\n{pairs}\n}}\n"))


def _text(value: Any, room: float) -> tuple[str, str]:
    """
    Return the JSON of an attribute, and the reason why it is not stored, or "".

    :param value: the value of the attribute
    :param room: the largest size of the JSON, as a share of the size that can be read
    """
    try:
        text = json.dumps(pack_value(value), allow_nan=False, indent=1)
        if share_of_limit(text) <= room:
            return text, ""
        why = "larger than what is read"
    except NotSerializableError as error:
        why = _short_reason(error)
    return json.dumps({"not stored": why}), why


def _short_reason(error: NotSerializableError) -> str:
    return str(error)[:500]


class OpenedModel(NamedTuple):
    """The content of a saved model, which SB3 can load without unpickling any of it."""

    archive: io.BytesIO
    """The archive for SB3, with checked parameters and only the names of the attributes."""
    attributes: dict[str, Any]
    """The values of the attributes: the ``custom_objects`` for SB3."""
    budget: int
    """The size of the file in bytes, which limits the size of the networks."""


def open_model(
    file: File,
    custom_objects: Attributes | None,
    given: Attributes,
    trust: bool,
    names: tuple[list[str], list[str]] | None,
    needed: Set[str],
) -> OpenedModel:
    """
    Read and check a saved model.

    :param file: a path, completed by SB3's rules, or a binary file to read
    :param custom_objects: attributes that replace those in the file
    :param given: attributes that the caller of ``load`` sets afterwards
    :param trust: whether classes that the file names are imported, and pickles of SB3 are unpickled
    :param names: the names of the state dictionaries and of the other tensors, if all models of the class have the same
    :param needed: the names of the attributes without which there is no model; :data:`TRAINING_ONLY` attributes may be missing
    :return: the content of the file
    :raises ModelFileError: if the file cannot be read, or needs trust or a value that the caller has not given
    :raises FileNotFoundError: if the file is missing
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
    """
    Refuse a model that SB3 or sb3-contrib wrote for another algorithm than DQN.

    The algorithm is identified by an attribute that only it has. A model without any such attribute passes.

    :param data: the attributes of the model, from a file that DQNExt did not write
    :raises ModelFileError: if the model is one of another algorithm
    """
    algorithm = next((name for attribute, name in _OTHER_ALGORITHMS.items() if attribute in data), None)
    if algorithm is None or ("exploration_rate" in data and algorithm != "QRDQN"):
        return  # a subclass of DQN may have an attribute of the same name
    policy = data.get("policy_class")
    module = str(policy.get("__module__", ""))[:100] if isinstance(policy, dict) else ""
    raise ModelFileError(
        f"it contains a model of {algorithm}{f' (with a policy of {module})' if module else ''}, and DQNExt loads models of "
        "DQN and DQNExt. Load it with the class that saved it."
    )


def _check_names(parts: Parts, variables: set[str], dictionaries: list[str], tensors: list[str]) -> None:
    found = {name for name in parts if name.endswith(".pth")} - {*VARIABLES}
    if found != {f"{name}.pth" for name in dictionaries} or variables != set(tensors):
        raise ModelFileError(f"it has the parameters {sorted(found | variables)}, and the model has {dictionaries + tensors}.")


def display_name(file: File) -> str:
    """
    Return the name of a file in error messages.

    :param file: a path or a binary file
    """
    return str(file) if isinstance(file, str | Path) else "the model"


def _attributes(
    data: Attributes, stock: bool, custom: Attributes, given: Attributes, trust: bool, needed: Set[str]
) -> dict[str, Any]:
    """
    Return the attributes of a model, or stand-ins for those that only training needs.

    :param stock: whether SB3 wrote the file
    :param needed: the names of the attributes without which there is no model
    """
    found: dict[str, Any] = {}
    errors: dict[str, NeedsTrustError] = {}
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
                elif name in needed - TRAINING_ONLY - _PROCESS_SPECIFIC:
                    errors[name] = error
                elif name not in _PROCESS_SPECIFIC:
                    found[name] = MissingAttribute(name, str(error), _stored_node(node, stock, error), error.trust_helps)
            # constructors may raise any error for forged arguments
            except Exception as error:
                raise ModelFileError(f"its {name} cannot be: {error!r}"[:1000]) from error
            _check(name, found.get(name))
    if errors:
        raise _needs_trust_error(errors, trust)
    for name in ("policy_class", "observation_space", "action_space"):
        if name not in found:
            raise ModelFileError(f"its data have no {name}.")
    # SB3 reads these; its defaults apply if they are missing
    return {"policy_kwargs": given.get("policy_kwargs", {}), "verbose": 0} | found


def _needs_trust_error(errors: Mapping[str, NeedsTrustError], trust: bool) -> ModelFileError:
    """
    Make the error for a file whose attributes can only be loaded with trust. Its message contains a remedy.

    :param errors: the name of an attribute -> the reason why it was not loaded
    :param trust: whether the user has given trust; otherwise the remedy includes ``trust=True``, if it helps
    :return: the error
    """
    what = "; ".join(f"{name} {why}" for name, why in errors.items())
    remedy = f"give it by {custom_objects_hint(errors)}"
    if not trust and all(error.trust_helps for error in errors.values()):
        remedy += ", or load it with trust=True if you trust its author: its code is then run"
        commands = {"rl_zoo3": "python -m sb3_dqn_ext.zoo enjoy ... ", "sb3_dqn_ext.report": ""}
        remedy += next((f" ({command}--trust)" for module, command in commands.items() if module in sys.modules), "")
    return ModelFileError(f"{what}: {remedy}.")


def _read(name: str, node: Any, stock: bool, trust: bool) -> Any:
    """
    Return the value of an attribute.

    :raises NeedsTrustError: if it holds something that is not created without trust
    """
    if stock:
        value = _sb3_value(node, name)
    elif name == "exploration_kwargs" and type(node) is dict and node.keys() == {"dict"}:
        # predictions do not need the schedule
        value = {key: _schedule_or_missing(name, key, part, trust) for key, part in node["dict"].items()}
    else:
        value = unpack_value(node, trust, (name,))
    if not trust:
        _check_dotted_names(name, value)
    return value


def _schedule_or_missing(name: str, key: str, node: Any, trust: bool) -> Any:
    try:
        value = unpack_value(node, trust, (name, key))
        if not trust:
            _check_dotted_names(name, {key: value})
        return value
    except NeedsTrustError as error:
        if key not in ("schedule", "temperature"):
            raise
        return MissingAttribute(name, str(error), node, error.trust_helps)


def _stored_node(node: Any, stock: bool, error: NeedsTrustError) -> Any:
    """Return the JSON that is written again when the loaded model is saved."""
    return {"not stored": str(error)[:500]} if stock else node


def _check_dotted_names(name: str, value: Any) -> None:
    """
    Check that a file that is not trusted names only allowed classes in an argument. A model imports the class of each dotted
    name.

    :param name: the name of an argument of DQNExt, such as ``"policy_kwargs"``
    :param value: its value in the file
    :raises NeedsTrustError: if a dotted name is not that of an allowed or already imported class
    """
    places = [(place, one) for place, _, one in find_choices({name: value})]
    if name == "policy_kwargs" and isinstance(value, Mapping):
        classes = ("activation_fn", "features_extractor_class", "optimizer_class")
        places += [((name, argument), value[argument]) for argument in classes if argument in value]
    for place, given in places:
        if isinstance(given, str) and "." in given and given not in _ALLOWED_NAMES:
            find_class(place, given, ALLOWED_CLASSES)


def _is_packed_as(value: Any, node: Any) -> bool:
    """Check whether a value that the caller gives equals the stored one, which then needs no trust."""
    try:
        return bool(pack_value(value) == node)
    except NotSerializableError as error:
        return bool(node == {"not stored": _short_reason(error)})


def _sb3_value(node: Any, name: str) -> Any:
    if type(node) is dict and ":serialized:" in node:
        return read_pickled_value(base64.b64decode(node[":serialized:"], validate=True), (name,))
    return node


def _check(name: str, value: Any) -> None:
    kind = _ATTRIBUTE_TYPES.get(name, object)
    if value is not None and (not isinstance(value, kind) or (kind is int and (type(value) is bool or value < 0))):
        raise ModelFileError(f"its {name} cannot be {str(value)[:100]}.")
    if name == "policy_class" and value is not None and not (isinstance(value, type) and issubclass(value, BasePolicy)):
        raise ModelFileError(f"its {name} cannot be {str(value)[:100]}.")
    if name == "n_envs" and value is not None and value > _MAX_ENVS:
        raise ModelFileError(f"its n_envs={value} is more than {_MAX_ENVS}.")
