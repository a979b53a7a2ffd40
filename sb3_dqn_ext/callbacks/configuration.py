"""What a model was made with, as plain data."""

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

__all__ = ["describe_env", "flatten", "model_arguments", "to_plain"]

Data = dict[str, Any]

# what no result depends on, and what is told otherwise
EXCLUDED_ARGUMENTS = {"policy", "env", "tensorboard_log", "verbose", "device", "_init_setup_model"}


def model_arguments(model: BaseAlgorithm) -> Data:
    """
    :param model: of SB3
    :return: the arguments it was made with, in the order of its constructor, as plain data
    """
    names = [name for name in parameters_of(type(model)) if name not in EXCLUDED_ARGUMENTS and hasattr(model, name)]
    given = {name: to_plain(getattr(model, name)) for name in names}
    if getattr(model, "replay_buffer_class", None) in _usual_memories(model):
        given["replay_buffer_class"] = None
    return {"policy": _policy_of(model), **given}


def _usual_memories(model: BaseAlgorithm) -> set[type]:
    """Those that an algorithm may take where none is named."""
    ours = getattr(model, "default_replay_buffer_class", None)  # of DQNExt
    return {ReplayBuffer, DictReplayBuffer, NStepReplayBuffer} if ours is None else {ours}


def _policy_of(model: BaseAlgorithm) -> str:
    names = [name for name, policy in model.policy_aliases.items() if policy is model.policy_class]
    return names[0] if names else str(to_plain(model.policy_class))


def describe_env(env: VecEnv | None) -> tuple[str, str]:
    """
    :param env: the training environments
    :return: the id of the environment, or the name of its class, and the classes of all wrappers around it. Nothing is asked
        of environments in processes of their own
    """
    layers = layers_of(env)
    single = getattr(layers[0], "envs", [None])[0]
    spec = getattr(layers[0], "spec", None) or getattr(single, "spec", None)
    name = spec.id if spec is not None else type(getattr(single, "unwrapped", layers[0])).__name__
    names = [type(layer).__name__ for layer in reversed(layers)]
    return name, " of ".join(names if single is None else [*names, str(single)])


def to_plain(value: Any) -> Any:
    """
    :param value: an argument
    :return: the same as numbers, strings, lists and mappings; of a class or function its dotted name; of another object what
        it says of itself
    """
    if isinstance(value, TrainFreq):
        return value.frequency if value.unit is TrainFrequencyUnit.STEP else [value.frequency, value.unit.value]
    if isinstance(value, ConstantSchedule):  # which the zoo makes of a learning rate
        return to_plain(value.val)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        return to_plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(to_plain(key)): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return qualified_name(value)
    text = repr(value)
    # the default has an address, which says nothing
    return text if " object at 0x" not in text else qualified_name(type(value))


def flatten(arguments: Mapping[str, Any]) -> dict[str, float | str]:
    """
    :param arguments: plain data
    :return: what a table can hold. A mapping is one text, as every run has it, and its entries are values of their own, too,
        as in ``exploration_kwargs.schedule.rate``
    """
    found: dict[str, float | str] = {}
    for name, value in arguments.items():
        found[name] = value if isinstance(value, str) or _is_finite_number(value) else json.dumps(value)
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": item for key, item in flatten(value).items()}
    return found


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
