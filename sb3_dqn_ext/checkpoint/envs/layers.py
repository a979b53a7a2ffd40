"""The states of vectorised environments and of the wrappers around them, each without those inside it."""

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

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv
from sb3_dqn_ext.vec_env.vector_entry_point import VectorEntryPointBackend

Array: TypeAlias = npt.NDArray[Any]
AttributeReference: TypeAlias = tuple[Any, str]  # an object, and the name of one of its attributes


def attribute_references(owner: Any, *names: str) -> dict[str, AttributeReference]:
    """
    :param owner: an object
    :param names: some of its attributes
    :return: these attributes by their names
    """
    return {name: (owner, name) for name in names}


def state_attributes_of_vec_env(venv: VecEnv) -> dict[str, AttributeReference]:
    """
    DummyVecEnv's ``buf_dones``, ``buf_rews`` and ``buf_infos`` are not among them: each step writes them before it reads them.

    :param venv: the innermost
    :return: the arguments of its next reset
    """
    return {"seeds": (venv, "_seeds"), "options": (venv, "_options")}


def state_attributes_of_fast_vec_env(venv: FastVecEnv) -> dict[str, AttributeReference]:
    """
    :param venv: the innermost
    :return: where its state is, with that of a vector entry point
    """
    slots = state_attributes_of_vec_env(venv)
    vector = venv.backend
    if not isinstance(vector, VectorEntryPointBackend):
        return slots
    inner = vector.env.unwrapped
    of_cart_poles = attribute_references(inner, "state", "steps", "low", "high")
    return slots | of_cart_poles | attribute_references(vector.episodes, "returns", "lengths")


def state_attributes_of_normalize(layer: VecNormalize) -> dict[str, AttributeReference]:
    """
    :param layer: running statistics
    :return: where they are
    """
    obs_rms: Any = vars(layer).get("obs_rms", {})
    running: dict[str, RunningMeanStd] = {"ret_rms": layer.ret_rms}
    running |= {f"obs_rms {key}": rms for key, rms in (obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}).items()}
    moments = {f"{name} {part}": (rms, part) for name, rms in running.items() for part in ("mean", "var", "count")}
    return attribute_references(layer, "returns", "old_obs", "old_reward") | moments


def stacks_of(layer: VecFrameStack) -> dict[str, StackedObservations[Any]]:
    """
    :param layer: stacked observations
    :return: each part of them; the only one has the name ``""`` where an observation is one array
    """
    stacks: dict[str, StackedObservations[Any]] = getattr(
        layer.stacked_obs, "sub_stacked_observations", {"": layer.stacked_obs}
    )
    return stacks


def state_attributes_of_frame_stack(layer: VecFrameStack) -> dict[str, AttributeReference]:
    """
    :param layer: stacked observations
    :return: where they are
    """
    return {f"stack {key}": (stack, "stacked_obs") for key, stack in stacks_of(layer).items()}


def state_attributes_of_monitor(layer: VecMonitor) -> dict[str, AttributeReference]:
    """
    :param layer: counts the episodes
    :return: where its counts are
    """
    return attribute_references(layer, "episode_returns", "episode_lengths", "episode_count")


def reconstruct_normalized(layer: VecNormalize, observations: Any, restarted: Sequence[int]) -> Any:
    """See :attr:`Layer.show`."""
    layer.old_obs = observations
    layer.returns[list(restarted)] = 0
    return layer.normalize_obs(observations)


def reconstruct_stacked(layer: VecFrameStack, observations: Any, restarted: Sequence[int]) -> Any:
    """See :attr:`Layer.show`."""
    for key, stack in stacks_of(layer).items():
        restart_stack(stack, observations[key] if key else observations, restarted)
    shown = {key: stack.stacked_obs for key, stack in stacks_of(layer).items()}
    return shown.get("", shown)


def restart_stack(stack: StackedObservations[Any], observations: Array, restarted: Sequence[int]) -> None:
    """
    :param stack: to begin anew
    :param observations: (n_envs, ...) the only ones there are now
    :param restarted: the environments
    """
    for i in restarted:
        stack.stacked_obs[i] = 0
        n_channels = observations.shape[stack.stack_dimension]
        if stack.channels_first:
            stack.stacked_obs[i, -n_channels:] = observations[i]
        else:
            stack.stacked_obs[i, ..., -n_channels:] = observations[i]


def reconstruct_monitored(layer: VecMonitor, observations: Any, restarted: Sequence[int]) -> Any:
    """See :attr:`Layer.show`."""
    layer.episode_returns[list(restarted)] = 0
    layer.episode_lengths[list(restarted)] = 0
    return observations


def reconstruct_unchanged(layer: VecEnvWrapper, observations: Any, restarted: Sequence[int]) -> Any:
    """
    See :attr:`Layer.show`.

    :raises ArgumentError: if the wrapper has other observations
    """
    if layer.observation_space != layer.venv.observation_space:
        raise ArgumentError(f"It is not known how {type(layer).__name__} changes observations.")
    return observations


@dataclass(frozen=True)
class LayerHandler:
    """How the state of one class of vectorised environments or wrappers is kept."""

    slots: Callable[[Any], dict[str, AttributeReference]] = lambda layer: {}
    """(layer) -> the attributes that later steps depend on, by unique names"""
    show: Callable[[Any, Any, Sequence[int]], Any] = reconstruct_unchanged
    """(layer, observations, restarted) -> the layer's observations, made of those inside it, both (n_envs, \\*obs), after the
    episodes of some environments have begun anew without a step or a reset of the layer"""


LAYER_HANDLERS: Mapping[type, LayerHandler] = {
    VecNormalize: LayerHandler(state_attributes_of_normalize, reconstruct_normalized),
    VecFrameStack: LayerHandler(state_attributes_of_frame_stack, reconstruct_stacked),
    VecMonitor: LayerHandler(state_attributes_of_monitor, reconstruct_monitored),
    VecTransposeImage: LayerHandler(show=lambda layer, observations, _: layer.transpose_observations(observations)),
    VecExtractDictObs: LayerHandler(show=lambda layer, observations, _: observations[layer.key]),
    VecEnvWrapper: LayerHandler(),
    FastVecEnv: LayerHandler(state_attributes_of_fast_vec_env),
    VecEnv: LayerHandler(state_attributes_of_vec_env),
}
"""for a subclass, the entry of the nearest of its base classes counts"""


def handler_of(venv: VecEnv) -> LayerHandler:
    """
    :param venv: a vectorised environment or a wrapper
    :return: how its own state is kept
    """
    return next(LAYER_HANDLERS[base] for base in type(venv).__mro__ if base in LAYER_HANDLERS)
