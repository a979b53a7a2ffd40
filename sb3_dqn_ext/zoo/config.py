"""The default YAML of hyperparameters, and a strict check of such files whose errors name the file and the line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

import sb3_dqn_ext
from sb3_dqn_ext._arguments import NUMBER_LIMITS
from sb3_dqn_ext._validation import check_number, check_type, equivalent_code, parameters_of, unknown_name_error
from sb3_dqn_ext.dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError

ALGO = "dqn_ext"
MAPPING_TEXT = "a mapping of arguments"


def _is_number(low: float, high: float, integer: bool) -> Callable[[str, object], None]:
    return lambda key, value: check_number(key, value, low, high, integer)


def _is(kind: Any, called: str) -> Callable[[str, object], None]:
    return lambda key, value: check_type(key, value, kind, called)


# The zoo evaluates strings for some of these as Python, and reads "lin_0.001" as a learning rate.
VALUE_CHECKS: dict[str, Callable[[str, object], None]] = {
    # the zoo's own
    "n_timesteps": _is_number(1, float("inf"), integer=False),
    "n_envs": _is_number(1, float("inf"), integer=True),
    "frame_stack": _is_number(1, float("inf"), integer=True),
    "normalize": _is(bool | str | dict, f"true, false, or {MAPPING_TEXT}"),
    "env_kwargs": _is(dict | str, MAPPING_TEXT),
    "monitor_kwargs": _is(dict | str, MAPPING_TEXT),
    "env_wrapper": _is(str | list | dict | None, "the dotted name of a wrapper, or a list of them"),
    "vec_env_wrapper": _is(str | list | dict | None, "the dotted name of a wrapper, or a list of them"),
    "callback": _is(str | list | dict | None, "the dotted name of a callback, or a list of them"),
    # SB3's and ours
    **{name: _is_number(*bounds) for name, bounds in NUMBER_LIMITS.items()},
    "policy": _is(str, "the name of a policy"),
    "train_freq": _is(int | list, "a number of steps, or [number, step] or [number, episode]"),
    "optimize_memory_usage": _is(bool, "true or false"),
    "target_network": _is(bool, "true or false"),
    "policy_kwargs": _is(dict | str, MAPPING_TEXT),
    "replay_buffer_kwargs": _is(dict | str, MAPPING_TEXT),
    "target_policy_kwargs": _is(dict, MAPPING_TEXT),
    "exploration_kwargs": _is(dict, MAPPING_TEXT),
    "target_policy": _is(str, "the name of a target policy"),
    "exploration": _is(str, "the name of an exploration"),
    "target_update_unit": _is(str, "env_steps or gradient_steps"),
}
# what the zoo passes to the model itself
SET_BY_ZOO = {"env", "seed", "verbose", "device", "tensorboard_log", "_init_setup_model"}
HYPERPARAMETERS = (set(VALUE_CHECKS) | set(parameters_of(DQNExt))) - SET_BY_ZOO


def _check_learning_rate(key: str, value: object) -> None:
    if isinstance(value, str):
        kind, _, number = value.partition("_")
        if kind == "lin" and _is_number_in_words(number):
            return
        raise ArgumentError(f"{key}={value!r} must be a number, or lin_0.001 for one that falls to 0.")
    check_number(key, value, low=0)


VALUE_CHECKS["learning_rate"] = _check_learning_rate


def default_config() -> str:
    """
    :return: the path of the YAML that the zoo reads for ``--algo dqn_ext`` when no ``-conf`` is given
    """
    places = [os.path.join(folder, "zoo_configs", "dqn_ext.yml") for folder in sb3_dqn_ext.__path__]
    return next(filter(os.path.isfile, places), places[0])


def check_config(path: str | Path) -> None:
    """
    Check every block of a configuration before the zoo reads it.

    :param path: a YAML file whose keys are environment ids, ``atari`` or ``default``
    :raises ArgumentError: with file and line, if a key is unknown or stands twice, a value has the wrong type, or the file
        cannot be parsed, for example because of a tab
    """
    with open(path) as file:
        loader = yaml.SafeLoader(file)
        try:
            root = loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            raise _at(path, error.problem_mark, _explained(error)) from None
        if not isinstance(root, yaml.MappingNode):
            raise ArgumentError(f"{path}: must map environment ids to hyperparameters.")
        _no_key_twice(path, root, set())
        for env_id, block in root.value:
            if not isinstance(block, yaml.MappingNode):
                raise _at(path, env_id.start_mark, f"{env_id.value!r} must be followed by hyperparameters, indented.")
            loader.flatten_mapping(block)
            for key, value in block.value:
                _check_entry(path, key, loader.construct_object(value, deep=True))


def _check_entry(path: str | Path, key: yaml.Node, value: object) -> None:
    if key.value not in HYPERPARAMETERS:
        written = equivalent_code("DQNExt()", key.value, HYPERPARAMETERS)
        error = unknown_name_error("hyperparameter", key.value, HYPERPARAMETERS)
        if written is not None:
            error = ArgumentError(f"hyperparameter={key.value!r} is not known; in DQNExt it is written {written}.")
        raise _at(path, key.start_mark, str(error))
    try:
        _no_bool_as_key(value)
        if key.value in VALUE_CHECKS:
            VALUE_CHECKS[key.value](key.value, value)
    except ArgumentError as error:
        hint = (
            " To YAML 1e5 is text: write 100_000 or 1.0e+5." if isinstance(value, str) and _is_number_in_words(value) else ""
        )
        raise _at(path, key.start_mark, f"{error}{hint}") from None


def _no_bool_as_key(value: object) -> None:
    """:raises ArgumentError: if a name is one of those that mean true or false to YAML, such as ``on``"""
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool):
                raise ArgumentError(
                    f'a name in {value} is {key}: to YAML, on and yes are true, off and no are false. Write "on".'
                )
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _no_bool_as_key(inner)


def _is_number_in_words(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _no_key_twice(path: str | Path, node: yaml.Node, seen: set[int]) -> None:
    """YAML itself lets the last one win; anchored blocks are looked at once."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.value in lines and key.value != "<<":
                raise _at(
                    path, key.start_mark, f"{key.value!r} stands here a second time; the first is in line {lines[key.value]}."
                )
            lines[str(key.value)] = key.start_mark.line + 1
            _no_key_twice(path, value, seen)
    else:
        for item in node.value:
            _no_key_twice(path, item, seen)


def _explained(error: yaml.MarkedYAMLError) -> str:
    hint = " Indent with spaces: YAML takes no tabs." if "\\t" in str(error.problem) else ""
    return f"{error.problem}.{hint}"


def _at(path: str | Path, mark: yaml.Mark | None, message: str) -> ArgumentError:
    return ArgumentError(f"{path}, line {mark.line + 1}: {message}" if mark is not None else f"{path}: {message}")
