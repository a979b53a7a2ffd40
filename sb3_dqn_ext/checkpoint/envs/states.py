"""The states of vectorised environments in their wrappers: taken, and restored in others like them."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.util import dict_to_obs, obs_space_info

from sb3_dqn_ext.checkpoint.envs.generators import generator_states, set_generator_states
from sb3_dqn_ext.checkpoint.envs.layers import handler_of
from sb3_dqn_ext.checkpoint.envs.monitor_files import monitor_file_state, truncate_monitor_file
from sb3_dqn_ext.checkpoint.envs.plain_data import State, from_plain, to_plain
from sb3_dqn_ext.checkpoint.envs.resumable_envs import check_resumable, episode_statistics_of, vector_entry_point_env
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError

Array = npt.NDArray[Any]


def layer_name(layer: VecEnv) -> str:
    """
    :param layer: a vectorised environment, without those inside it
    :return: what its state can be restored in; it makes no difference in which processes the single environments are
    """
    if isinstance(layer, VecEnvWrapper):
        return type(layer).__name__
    return "single environments" if vector_entry_point_env(layer) is None else "a vector entry point with same-step resets"


def layer_state(layer: VecEnv) -> State:
    """
    :param layer: a vectorised environment, without those inside it
    :return: its own state
    """
    slots = {
        name: to_plain(getattr(*slot)) for name, slot in handler_of(layer).slots(layer).items() if slot[1] in vars(slot[0])
    }
    vector = vector_entry_point_env(layer)
    episodes = episode_statistics_of(layer)
    records = [] if episodes is None else map(monitor_file_state, episodes.writers, episodes.t_starts)
    return {
        "layer": layer_name(layer),
        "slots": slots,
        "generators": None if vector is None else generator_states(vector),
        "records": list(records),
    }


def set_layer_state(layer: VecEnv, state: State) -> None:
    """
    :param layer: a vectorised environment, without those inside it
    :param state: from :func:`layer_state`
    """
    slots = handler_of(layer).slots(layer)
    for name, value in state["slots"].items():
        setattr(*slots[name], from_plain(value))
    vector = vector_entry_point_env(layer)
    if vector is not None:
        set_generator_states(vector, state["generators"])


def environments_state(env: VecEnv) -> list[State]:
    """
    :param env: a vectorised environment whose environments are resumable, see :func:`make_resumable`
    :return: plain data: the state of each environment, where there are single ones; then that of the vectorised environment
        and of each wrapper around it, innermost first. What wrappers that are not SB3's remember is not among it.
    :raises ArgumentError: if they are not resumable
    """
    inner, *_ = layers = layers_of(env)
    check_resumable(inner)
    singles: list[State] = [] if vector_entry_point_env(inner) is not None else inner.env_method("get_state")
    return [*singles, *map(layer_state, layers)]


def restore_environments(env: VecEnv, states: Sequence[State]) -> list[str]:
    """
    :param env: see :func:`restore_or_reset`
    :param states: from :func:`environments_state`
    :return: what to say of each environment that was reset
    """
    return [f"Environment {i}: {problem}" for i, problem in restore_or_reset(env, states).items()]


def check_layers(env: VecEnv, states: Sequence[State]) -> None:
    """
    Check that states can be restored.

    :param env: a vectorised environment
    :param states: from :func:`environments_state`
    :raises ArgumentError: if the number of environments or the wrappers around them are others, or they are not resumable
    """
    inner, *_ = layers = layers_of(env)
    check_resumable(inner)
    n_singles = 0 if vector_entry_point_env(inner) is not None else inner.num_envs
    names = [layer_name(layer) for layer in layers]
    were = [state["layer"] for state in states if "layer" in state]
    if len(states) != n_singles + len(layers) or were != names:
        n_were = len(states) - len(were)
        raise ArgumentError(
            f"The states are of {n_were or ''} {' in '.join(were)}, and not of {n_singles or ''} {' in '.join(names)}."
        )


def restore_or_reset(env: VecEnv, states: Sequence[State]) -> dict[int, str]:
    """
    :param env: a vectorised environment like the one that the states are of, used or not; its environments can be in other
        processes than those were
    :param states: from :func:`environments_state`
    :return: for each environment that could not be restored, why; it was reset instead, and the observations are now
        :func:`current_observations`
    :raises ArgumentError: if the number of environments or the wrappers around them are others, or they are not resumable
    """
    check_layers(env, states)
    inner, *_ = layers = layers_of(env)
    n_singles = len(states) - len(layers)
    singles, arounds = list(states[:n_singles]), list(states[n_singles:])
    answers = [inner.env_method("restore_or_reset", state, indices=[i])[0] for i, state in enumerate(singles)]
    for layer, state in zip(layers, arounds, strict=True):
        set_layer_state(layer, state)
    if isinstance(inner, DummyVecEnv):
        for i, (observation, _) in enumerate(answers):
            inner._save_obs(i, observation)
    problems = {i: problem for i, (_, problem) in enumerate(answers) if problem is not None}
    if problems:
        reconstruct_observations(layers, list(problems))
    return problems


def rewind_monitor_files(env: VecEnv, states: Sequence[State]) -> None:
    """
    Take the episodes off all ``monitor.csv`` that were recorded after the states were taken, and will be once more.

    :param env: a vectorised environment that was restored, whose files are appended to
    :param states: from :func:`environments_state`
    """
    inner = env.unwrapped
    for i, state in enumerate(states):
        if "layer" not in state:
            inner.env_method("rewind_monitor_files", state, indices=[i])
    for layer, state in zip(layers_of(env), (state for state in states if "layer" in state), strict=True):
        episodes = episode_statistics_of(layer)
        if episodes is not None:
            episodes.t_starts[:] = map(truncate_monitor_file, episodes.writers, state["records"], episodes.t_starts)


def current_observations(env: VecEnv) -> Any:
    """
    :param env: a vectorised environment whose environments are resumable
    :return: (n_envs, ...) the observations that its last step or reset has given
    :raises ArgumentError: if a vector entry point, or a wrapper that is not SB3's, would have to tell
    """
    layers = layers_of(env)
    check_resumable(layers[0])
    return deepcopy(reconstruct_observations(layers, []))


def reconstruct_observations(layers: Sequence[VecEnv], restarted: Sequence[int]) -> Any:
    """
    :param layers: the vectorised environment and its wrappers, innermost first
    :param restarted: the environments whose episodes have begun behind the wrappers' back, as they are told by this
    :return: (n_envs, ...) the observations as they are now
    """
    if vector_entry_point_env(layers[0]) is not None:
        raise ArgumentError("A vector entry point keeps no observations; they are those that were seen when it was restored.")
    space = layers[0].observation_space
    singles = layers[0].get_attr("last_observation")
    keys, _, dtypes = obs_space_info(space)
    parts: dict[Any, Array] = {
        key: np.stack([single if key is None else single[key] for single in singles]).astype(dtypes[key]) for key in keys
    }
    observations: Any = dict_to_obs(space, parts)
    for layer in layers[1:]:
        observations = handler_of(layer).show(layer, observations, restarted)
    return observations
