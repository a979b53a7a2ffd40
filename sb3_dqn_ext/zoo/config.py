"""The default file of hyperparameters, and a strict check of such YAML files, whose errors name the file and the line."""

import importlib.util
import os
import sys
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


def _number_check(low: float, high: float, integer: bool) -> Callable[[str, object], None]:
    """Return a function of a key and a value that checks that the value is a number within bounds."""
    return lambda key, value: check_number(key, value, low, high, integer)


def _type_check(kind: Any, called: str) -> Callable[[str, object], None]:
    """Return a function of a key and a value that checks the type of the value."""
    return lambda key, value: check_type(key, value, kind, called)


def _check_actors(value: object) -> None:
    from sb3_dqn_ext.actors.settings import parse_actors  # for configurations with actors only

    parse_actors(value)


# Some hyperparameters may be strings, because the zoo evaluates them as Python.
VALUE_CHECKS: dict[str, Callable[[str, object], None]] = {
    # hyperparameters of the zoo
    "n_timesteps": _number_check(1, float("inf"), integer=False),
    "n_envs": _number_check(1, float("inf"), integer=True),
    "frame_stack": _number_check(1, float("inf"), integer=True),
    "normalize": _type_check(bool | str | dict, f"true, false, or {MAPPING_TEXT}"),
    "env_kwargs": _type_check(dict | str, MAPPING_TEXT),
    "monitor_kwargs": _type_check(dict | str, MAPPING_TEXT),
    "env_wrapper": _type_check(str | list | dict | None, "the dotted name of a wrapper, or a list of them"),
    "vec_env_wrapper": _type_check(str | list | dict | None, "the dotted name of a wrapper, or a list of them"),
    "callback": _type_check(str | list | dict | None, "the dotted name of a callback, or a list of them"),
    # arguments of DQNExt
    **{name: _number_check(*bounds) for name, bounds in NUMBER_LIMITS.items()},
    "policy": _type_check(str, "the name of a policy"),
    "train_freq": _type_check(int | list, "a number of steps, or [number, step] or [number, episode]"),
    "optimize_memory_usage": _type_check(bool, "true or false"),
    "target_network": _type_check(bool, "true or false"),
    "policy_kwargs": _type_check(dict | str, MAPPING_TEXT),
    "replay_buffer_kwargs": _type_check(dict | str, MAPPING_TEXT),
    "target_policy_kwargs": _type_check(dict, MAPPING_TEXT),
    "exploration_kwargs": _type_check(dict, MAPPING_TEXT),
    "target_policy": _type_check(str, "the name of a target policy"),
    "exploration": _type_check(str, "the name of an exploration"),
    "target_update_unit": _type_check(str, "env_steps or gradient_steps"),
    "actors": lambda _, value: None if value is None else _check_actors(value),
}
# arguments of DQNExt that the zoo sets
SET_BY_ZOO = {"env", "seed", "verbose", "device", "tensorboard_log", "_init_setup_model"}
HYPERPARAMETERS = (set(VALUE_CHECKS) | set(parameters_of(DQNExt))) - SET_BY_ZOO


def _check_learning_rate(key: str, value: object) -> None:
    """Check that a learning rate is a number, or a string such as ``lin_0.001``, which the zoo makes a linear schedule of."""
    if isinstance(value, str):
        kind, _, number = value.partition("_")
        if kind == "lin" and _is_numeric_text(number):
            return
        raise ArgumentError(f"{key}={value!r} must be a number, or lin_0.001 for a rate that decreases to 0.")
    check_number(key, value, low=0)


VALUE_CHECKS["learning_rate"] = _check_learning_rate


def default_config() -> str:
    """
    Return the path of the file of hyperparameters that the zoo reads if no ``-conf`` is given.

    :return: the path of ``zoo_configs/dqn_ext.yml``, in the installed package or in the checkout
    """
    places = [os.path.join(folder, "zoo_configs", "dqn_ext.yml") for folder in sb3_dqn_ext.__path__]
    return next(filter(os.path.isfile, places), places[0])


def has_own_block(env_id: str) -> bool:
    """
    Return whether the default file has a block for an environment.

    :param env_id: the id of the environment
    """
    with open(default_config()) as file:
        return env_id in yaml.safe_load(file)


def exists(module: str) -> bool:
    """Return whether Python finds a module; those around it are imported."""
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # there is no package around it
        return False
    except ValueError:  # it has no spec
        found = False
    return found or module in sys.modules  # such as a preset, which is made of a YAML file


def check_source(config: str) -> None:
    """
    Check the argument ``-conf``.

    :param config: a file that ends with .yml, .yaml or .py, or a module
    :raises ArgumentError: if there is no such file or module, or a YAML file contains an error
    """
    if config.endswith((".yml", ".yaml")):
        check_config(config)
    elif config.endswith(".py") and not os.path.isfile(config):
        raise ArgumentError(f"conf={config!r} cannot be read: there is no such file.")
    elif not config.endswith(".py") and not exists(config):
        raise ArgumentError(f"conf={config!r} is not found: it can be a file that ends with .yml or .py, or a module.")


def check_config(path: str | Path) -> None:
    """
    Check the hyperparameters of every environment in a file, before the zoo reads it.

    :param path: a YAML file whose keys are environment ids, ``atari`` or ``default``
    :raises ArgumentError: with the file and the line, if a key is unknown or duplicated, a value has the wrong type, or the
        file cannot be read or parsed, for example because of a tab
    """
    try:
        loader = yaml.SafeLoader(Path(path).read_text())
    except (OSError, UnicodeError, yaml.reader.ReaderError) as error:
        raise ArgumentError(f"conf={str(path)!r} cannot be read: {error}.") from None
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _error_at(path, error.problem_mark, _describe_yaml_error(error)) from None
    if not isinstance(root, yaml.MappingNode):
        raise ArgumentError(f"{path}: must map environment ids to hyperparameters.")
    check_unique_keys(path, root, set())
    for env_id, block in root.value:
        if not isinstance(block, yaml.MappingNode):
            raise _error_at(path, env_id.start_mark, f"{env_id.value!r} must be followed by hyperparameters, indented.")
        loader.flatten_mapping(block)
        for key, value in block.value:
            _check_entry(path, key, loader.construct_object(value, deep=True))


def _check_entry(path: str | Path, key: yaml.Node, value: object) -> None:
    """Check one hyperparameter and its value."""
    if key.value not in HYPERPARAMETERS:
        written = equivalent_code("DQNExt()", key.value, HYPERPARAMETERS)
        error = unknown_name_error("hyperparameter", key.value, HYPERPARAMETERS)
        if written is not None:
            error = ArgumentError(f"hyperparameter={key.value!r} is not known; in DQNExt it is written {written}.")
        raise _error_at(path, key.start_mark, str(error))
    try:
        _check_no_boolean_key(value)
        if key.value in VALUE_CHECKS:
            VALUE_CHECKS[key.value](key.value, value)
    except ArgumentError as error:
        hint = (
            " YAML reads 1e5 as text: write 100_000 or 1.0e+5." if isinstance(value, str) and _is_numeric_text(value) else ""
        )
        raise _error_at(path, key.start_mark, f"{error}{hint}") from None


def _check_no_boolean_key(value: object) -> None:
    """
    Check that no key in a nested value was read by YAML as a boolean.

    :raises ArgumentError: if a key was, such as ``on``, which YAML reads as true
    """
    if isinstance(value, dict):
        for key in value:
            if isinstance(key, bool):
                raise ArgumentError(
                    f'a key in {value} is {key}: YAML reads on and yes as true, off and no as false. Write "on" in quotes.'
                )
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_no_boolean_key(inner)


def _is_numeric_text(text: str) -> bool:
    """Return whether a text can be converted to a float."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def check_unique_keys(path: str | Path, node: yaml.Node | None, seen: set[int]) -> None:
    """
    Check that no mapping in a YAML document contains a key twice. YAML itself would use the last value. Only ``<<``, which
    merges mappings, may occur several times.

    :param path: the file, for the message
    :param node: the root of the document; None: an empty document
    :param seen: the ids of nodes that were checked, which this function extends: a node with an anchor occurs several times
    :raises ArgumentError: if a key occurs twice; the message has the numbers of both lines
    """
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.value in lines and key.value != "<<":
                raise _error_at(path, key.start_mark, f"{key.value!r} is a duplicate of the key in line {lines[key.value]}.")
            lines[str(key.value)] = key.start_mark.line + 1
            check_unique_keys(path, value, seen)
    else:
        for item in node.value:
            check_unique_keys(path, item, seen)


def _describe_yaml_error(error: yaml.MarkedYAMLError) -> str:
    """Return the message of a parser error, with a hint if the cause is a tab."""
    hint = " Indent with spaces: YAML takes no tabs." if "\\t" in str(error.problem) else ""
    return f"{error.problem}.{hint}"


def _error_at(path: str | Path, mark: yaml.Mark | None, message: str) -> ArgumentError:
    """Return an error that begins with the file and the line."""
    return ArgumentError(f"{path}, line {mark.line + 1}: {message}" if mark is not None else f"{path}: {message}")
