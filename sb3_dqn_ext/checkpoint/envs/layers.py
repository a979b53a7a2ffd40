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
from sb3_dqn_ext.vec_env.vector_entry_point import Native

Array: TypeAlias = npt.NDArray[Any]
Slot: TypeAlias = tuple[Any, str]  # an object, and the name of one of its attributes


def attributes(owner: Any, *names: str) -> dict[str, Slot]:
    """
    :param owner: an object
    :param names: some of its attributes
    :return: these attributes by their names
    """
    return {name: (owner, name) for name in names}


def slots_of_reset(venv: VecEnv) -> dict[str, Slot]:
    """
    DummyVecEnv's ``buf_dones``, ``buf_rews`` and ``buf_infos`` are not among them: each step writes them before it reads them.

    :param venv: the innermost
    :return: the arguments of its next reset
    """
    return {"seeds": (venv, "_seeds"), "options": (venv, "_options")}


def slots_of_fast(venv: FastVecEnv) -> dict[str, Slot]:
    """
    :param venv: the innermost
    :return: where its state is, with that of a vector entry point
    """
    slots = slots_of_reset(venv)
    vector = venv.backend
    if not isinstance(vector, Native):
        return slots
    inner = vector.env.unwrapped
    of_cart_poles = attributes(inner, "state", "steps", "low", "high")
    return slots | of_cart_poles | attributes(vector.episodes, "returns", "lengths")


def slots_of_normalize(layer: VecNormalize) -> dict[str, Slot]:
    """
    :param layer: running statistics
    :return: where they are
    """
    obs_rms: Any = vars(layer).get("obs_rms", {})
    running: dict[str, RunningMeanStd] = {"ret_rms": layer.ret_rms}
    running |= {f"obs_rms {key}": rms for key, rms in (obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}).items()}
    moments = {f"{name} {part}": (rms, part) for name, rms in running.items() for part in ("mean", "var", "count")}
    return attributes(layer, "returns", "old_obs", "old_reward") | moments


def stacks_of(layer: VecFrameStack) -> dict[str, StackedObservations[Any]]:
    """
    :param layer: stacked observations
    :return: each part of them; the only one has the name ``""`` where an observation is one array
    """
    stacks: dict[str, StackedObservations[Any]] = getattr(
        layer.stacked_obs, "sub_stacked_observations", {"": layer.stacked_obs}
    )
    return stacks


def slots_of_stack(layer: VecFrameStack) -> dict[str, Slot]:
    """
    :param layer: stacked observations
    :return: where they are
    """
    return {f"stack {key}": (stack, "stacked_obs") for key, stack in stacks_of(layer).items()}


def slots_of_monitor(layer: VecMonitor) -> dict[str, Slot]:
    """
    :param layer: counts the episodes
    :return: where its counts are
    """
    return attributes(layer, "episode_returns", "episode_lengths", "episode_count")


def through_normalize(layer: VecNormalize, observations: Any, restarted: Sequence[int]) -> Any:
    """See :attr:`Layer.show`."""
    layer.old_obs = observations
    layer.returns[list(restarted)] = 0
    return layer.normalize_obs(observations)


def through_stack(layer: VecFrameStack, observations: Any, restarted: Sequence[int]) -> Any:
    """See :attr:`Layer.show`."""
    for key, stack in stacks_of(layer).items():
        restack(stack, observations[key] if key else observations, restarted)
    shown = {key: stack.stacked_obs for key, stack in stacks_of(layer).items()}
    return shown.get("", shown)


def restack(stack: StackedObservations[Any], observations: Array, restarted: Sequence[int]) -> None:
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


def through_monitor(layer: VecMonitor, observations: Any, restarted: Sequence[int]) -> Any:
    """See :attr:`Layer.show`."""
    layer.episode_returns[list(restarted)] = 0
    layer.episode_lengths[list(restarted)] = 0
    return observations


def through_unknown(layer: VecEnvWrapper, observations: Any, restarted: Sequence[int]) -> Any:
    """
    See :attr:`Layer.show`.

    :raises ArgumentError: if the wrapper has other observations
    """
    if layer.observation_space != layer.venv.observation_space:
        raise ArgumentError(f"It is not known how {type(layer).__name__} changes observations.")
    return observations


@dataclass(frozen=True)
class Layer:
    """How the state of one class of vectorised environments or wrappers is kept."""

    slots: Callable[[Any], dict[str, Slot]] = lambda layer: {}
    """(layer) -> the attributes that later steps depend on, by unique names"""
    show: Callable[[Any, Any, Sequence[int]], Any] = through_unknown
    """(layer, observations, restarted) -> the layer's observations, made of those inside it, both (n_envs, \\*obs), after the
    episodes of some environments have begun anew without a step or a reset of the layer"""


LAYERS: Mapping[type, Layer] = {
    VecNormalize: Layer(slots_of_normalize, through_normalize),
    VecFrameStack: Layer(slots_of_stack, through_stack),
    VecMonitor: Layer(slots_of_monitor, through_monitor),
    VecTransposeImage: Layer(show=lambda layer, observations, _: layer.transpose_observations(observations)),
    VecExtractDictObs: Layer(show=lambda layer, observations, _: observations[layer.key]),
    VecEnvWrapper: Layer(),
    FastVecEnv: Layer(slots_of_fast),
    VecEnv: Layer(slots_of_reset),
}
"""for a subclass, the entry of the nearest of its base classes counts"""


def layer_of(venv: VecEnv) -> Layer:
    """
    :param venv: a vectorised environment or a wrapper
    :return: how its own state is kept
    """
    return next(LAYERS[base] for base in type(venv).__mro__ if base in LAYERS)
