"""The arguments of a model and its environment, as plain data."""

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext._validation import parameters_of
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.serialization.names import qualified_name

__all__ = ["describe_env", "flatten", "model_arguments", "to_logged_value"]

Data = dict[str, Any]

EXCLUDED_ARGUMENTS = {"policy", "env", "tensorboard_log", "verbose", "device", "_init_setup_model"}
"""arguments that do not change results, or that are reported separately"""


def model_arguments(model: BaseAlgorithm) -> Data:
    """
    Return the values that a model has for the arguments of its constructor.

    The values are the model's attributes. ``env``, ``tensorboard_log``, ``verbose``, ``device`` and arguments without an
    attribute are left out. ``replay_buffer_class`` is None if it is the default class of the algorithm.

    :param model: an SB3 model
    :return: argument -> plain data, see :func:`to_logged_value`; first ``policy``, then the others in the order of the
        constructor
    """
    names = [name for name in parameters_of(type(model)) if name not in EXCLUDED_ARGUMENTS and hasattr(model, name)]
    given = {name: to_logged_value(getattr(model, name)) for name in names}
    if getattr(model, "replay_buffer_class", None) in _default_buffer_classes(model):
        given["replay_buffer_class"] = None
    return {"policy": _policy_name(model), **given}


def _default_buffer_classes(model: BaseAlgorithm) -> set[type]:
    """Return the classes of replay buffers that an algorithm chooses by itself."""
    ours = getattr(model, "default_replay_buffer_class", None)  # of DQNExt
    return {ReplayBuffer, DictReplayBuffer, NStepReplayBuffer} if ours is None else {ours}


def _policy_name(model: BaseAlgorithm) -> str:
    names = [name for name, policy in model.policy_aliases.items() if policy is model.policy_class]
    return names[0] if names else str(to_logged_value(model.policy_class))


def describe_env(env: VecEnv | None) -> tuple[str, str]:
    """
    Describe environments. Environments in other processes are not called.

    :param env: the training environments
    :return: the id of the environment, or the name of its class; and the classes of all wrappers around it
    """
    layers = layers_of(env)
    single = getattr(layers[0], "envs", [None])[0]
    spec = getattr(layers[0], "spec", None) or getattr(single, "spec", None)
    name = spec.id if spec is not None else type(getattr(single, "unwrapped", layers[0])).__name__
    names = [type(layer).__name__ for layer in reversed(layers)]
    return name, " of ".join(names if single is None else [*names, str(single)])


def to_logged_value(value: Any) -> Any:
    """
    Convert an argument to plain data.

    :param value: the argument
    :return: numbers, strings, lists and mappings; the dotted names of classes and functions; the ``repr`` of other objects
    """
    if isinstance(value, TrainFreq):
        return value.frequency if value.unit is TrainFrequencyUnit.STEP else [value.frequency, value.unit.value]
    if isinstance(value, ConstantSchedule):  # the zoo converts learning rates to it
        return to_logged_value(value.val)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        return to_logged_value(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(to_logged_value(key)): to_logged_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_logged_value(item) for item in value]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return qualified_name(value)
    text = repr(value)
    # the default repr contains an address
    return text if " object at 0x" not in text else qualified_name(type(value))


def flatten(arguments: Mapping[str, Any]) -> dict[str, float | str]:
    """
    Flatten arguments to the columns of a table.

    :param arguments: plain data
    :return: column -> a finite number or a string. Other values are strings of JSON. A mapping is such a string, and each of
        its entries is a column as well, such as ``exploration_kwargs.schedule.rate``
    """
    found: dict[str, float | str] = {}
    for name, value in arguments.items():
        found[name] = value if isinstance(value, str) or _is_finite_number(value) else json.dumps(value)
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": item for key, item in flatten(value).items()}
    return found


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
