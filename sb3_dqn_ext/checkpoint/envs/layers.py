"""The attributes that make up the state of each class of vectorised environments and their wrappers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_dqn_ext.checkpoint.envs.resumable_envs import RESUMABLE_VECTOR_ENVS
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv
from sb3_dqn_ext.vec_env.vector_entry_point import VectorEntryPointBackend

Array: TypeAlias = npt.NDArray[Any]
AttributeReference: TypeAlias = tuple[Any, str]  # (object, name of one of its attributes)


def attribute_references(owner: Any, *names: str) -> dict[str, AttributeReference]:
    """
    Return references to attributes of an object, by their names.

    :param owner: the object
    :param names: the names of the attributes
    """
    return {name: (owner, name) for name in names}


def state_attributes_of_vec_env(venv: VecEnv) -> dict[str, AttributeReference]:
    """
    Return references to the seeds and options of the next reset.

    DummyVecEnv's ``buf_dones``, ``buf_rews`` and ``buf_infos`` are not state: each step writes them before it reads them.

    :param venv: the innermost vectorised environment
    """
    return {"seeds": (venv, "_seeds"), "options": (venv, "_options")}


def state_attributes_of_fast_vec_env(venv: FastVecEnv) -> dict[str, AttributeReference]:
    """
    Return references to the attributes that make up the state of a FastVecEnv.

    They are the seeds and options of the next reset. With a vector entry point, the returns and lengths of the open episodes
    follow, and its state if it is one of ``RESUMABLE_VECTOR_ENVS``; others have methods for their states. The state of the
    single environments of ``"sync"`` and ``"async"`` is not included.

    :param venv: the innermost vectorised environment
    :return: name -> the object and the name of its attribute
    """
    state_attributes = state_attributes_of_vec_env(venv)
    vector = venv.backend
    if not isinstance(vector, VectorEntryPointBackend):
        return state_attributes
    inner = vector.env.unwrapped
    of_games = attribute_references(inner, *RESUMABLE_VECTOR_ENVS.get(type(inner), ()))
    return state_attributes | of_games | attribute_references(vector.episode_statistics, "returns", "lengths")


def state_attributes_of_normalize(layer: VecNormalize) -> dict[str, AttributeReference]:
    """
    Return references to the running statistics of a VecNormalize.

    :param layer: the wrapper
    """
    obs_rms: Any = vars(layer).get("obs_rms", {})
    running: dict[str, RunningMeanStd] = {"ret_rms": layer.ret_rms}
    running |= {f"obs_rms {key}": rms for key, rms in (obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}).items()}
    moments = {f"{name} {part}": (rms, part) for name, rms in running.items() for part in ("mean", "var", "count")}
    return attribute_references(layer, "returns", "old_obs", "old_reward") | moments


def stacks_of(layer: VecFrameStack) -> dict[str, StackedObservations[Any]]:
    """
    Return the stacked observations of a VecFrameStack.

    :param layer: the wrapper
    :return: key of a Dict observation space -> its stack; ``""`` -> the only stack for other spaces
    """
    stacks: dict[str, StackedObservations[Any]] = getattr(
        layer.stacked_obs, "sub_stacked_observations", {"": layer.stacked_obs}
    )
    return stacks


def state_attributes_of_frame_stack(layer: VecFrameStack) -> dict[str, AttributeReference]:
    """
    Return references to the stacked observations of a VecFrameStack.

    :param layer: the wrapper
    """
    return {f"stack {key}": (stack, "stacked_obs") for key, stack in stacks_of(layer).items()}


def state_attributes_of_monitor(layer: VecMonitor) -> dict[str, AttributeReference]:
    """
    Return references to the counters of a VecMonitor.

    :param layer: the wrapper
    """
    return attribute_references(layer, "episode_returns", "episode_lengths", "episode_count")


def reconstruct_normalized(layer: VecNormalize, observations: Any, restarted: Sequence[int]) -> Any:
    """Normalize the observations, see :attr:`LayerHandler.reconstruct`."""
    layer.old_obs = observations
    layer.returns[list(restarted)] = 0
    return layer.normalize_obs(observations)


def reconstruct_stacked(layer: VecFrameStack, observations: Any, restarted: Sequence[int]) -> Any:
    """Return the stacked observations, see :attr:`LayerHandler.reconstruct`."""
    for key, stack in stacks_of(layer).items():
        restart_stack(stack, observations[key] if key else observations, restarted)
    stacked = {key: stack.stacked_obs for key, stack in stacks_of(layer).items()}
    return stacked.get("", stacked)


def restart_stack(stack: StackedObservations[Any], observations: Array, restarted: Sequence[int]) -> None:
    """
    Replace the stacks of some environments by their first observations, with zeros before them.

    :param stack: the stacked observations
    :param observations: (n_envs, ...) the current observations
    :param restarted: the indices of environments whose episodes have just begun
    """
    for i in restarted:
        stack.stacked_obs[i] = 0
        n_channels = observations.shape[stack.stack_dimension]
        if stack.channels_first:
            stack.stacked_obs[i, -n_channels:] = observations[i]
        else:
            stack.stacked_obs[i, ..., -n_channels:] = observations[i]


def reconstruct_monitored(layer: VecMonitor, observations: Any, restarted: Sequence[int]) -> Any:
    """Reset the counters of new episodes, see :attr:`LayerHandler.reconstruct`."""
    layer.episode_returns[list(restarted)] = 0
    layer.episode_lengths[list(restarted)] = 0
    return observations


def reconstruct_unchanged(layer: VecEnvWrapper, observations: Any, restarted: Sequence[int]) -> Any:
    """
    Return the observations as they are, see :attr:`LayerHandler.reconstruct`.

    :raises ArgumentError: if the wrapper has a different observation space, so that it must change observations
    """
    if layer.observation_space != layer.venv.observation_space:
        raise ArgumentError(f"{type(layer).__name__} changes observations in a way that is not known.")
    return observations


@dataclass(frozen=True)
class LayerHandler:
    """The two functions that save and restore the state of one class of vectorised environments or wrappers."""

    state_attributes: Callable[[Any], dict[str, AttributeReference]] = lambda layer: {}
    """(layer) -> references to the attributes on which later steps depend, by unique names"""
    reconstruct: Callable[[Any, Any, Sequence[int]], Any] = reconstruct_unchanged
    """
    (layer, observations, restarted) -> the layer's observations, (n_envs, \\*obs).

    ``observations``, (n_envs, \\*obs), are those of the layer inside it. ``restarted`` are the indices of environments that
    were reset without a reset of the layer.
    """


LAYER_HANDLERS: Mapping[type, LayerHandler] = {
    VecNormalize: LayerHandler(state_attributes_of_normalize, reconstruct_normalized),
    VecFrameStack: LayerHandler(state_attributes_of_frame_stack, reconstruct_stacked),
    VecMonitor: LayerHandler(state_attributes_of_monitor, reconstruct_monitored),
    VecTransposeImage: LayerHandler(reconstruct=lambda layer, observations, _: layer.transpose_observations(observations)),
    VecExtractDictObs: LayerHandler(reconstruct=lambda layer, observations, _: observations[layer.key]),
    VecEnvWrapper: LayerHandler(),
    FastVecEnv: LayerHandler(state_attributes_of_fast_vec_env),
    VecEnv: LayerHandler(state_attributes_of_vec_env),
}
"""class -> handler; a subclass uses the handler of its nearest base class"""


def handler_of(venv: VecEnv) -> LayerHandler:
    """
    Return the handler of a vectorised environment or of a wrapper.

    :param venv: the vectorised environment or the wrapper
    """
    return next(LAYER_HANDLERS[base] for base in type(venv).__mro__ if base in LAYER_HANDLERS)
