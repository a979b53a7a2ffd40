"""Saving and restoring the states of vectorised environments with their wrappers."""

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
from sb3_dqn_ext.checkpoint.envs.state_recorder import has_state_methods
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.errors import ArgumentError

Array = npt.NDArray[Any]


def layer_name(layer: VecEnv) -> str:
    """
    Return the name of a layer. States are restored in layers with the same name.

    All vectorised environments with single environments have one name: the state does not depend on their processes.

    :param layer: a vectorised environment or one of its wrappers
    """
    if isinstance(layer, VecEnvWrapper):
        return type(layer).__name__
    return "single environments" if vector_entry_point_env(layer) is None else "a vector entry point with same-step resets"


def layer_state(layer: VecEnv) -> State:
    """
    Return the state of a layer, without that of the layers inside it.

    :param layer: a vectorised environment or one of its wrappers
    :return: plain data
    """
    values = {
        name: to_plain(getattr(*reference))
        for name, reference in handler_of(layer).state_attributes(layer).items()
        if reference[1] in vars(reference[0])
    }
    vector: Any = vector_entry_point_env(layer)
    episodes = episode_statistics_of(layer)
    records = [] if episodes is None else map(monitor_file_state, episodes.writers, episodes.t_starts)
    return {
        "layer": layer_name(layer),
        "slots": values,
        "generators": None if vector is None else generator_states(vector),
        "own": to_plain(vector.unwrapped.get_state()) if vector is not None and has_state_methods(vector.unwrapped) else None,
        "records": list(records),
    }


def set_layer_state(layer: VecEnv, state: State) -> None:
    """
    Set the state of a layer, without that of the layers inside it.

    :param layer: a vectorised environment or one of its wrappers
    :param state: the state from :func:`layer_state`
    """
    state_attributes = handler_of(layer).state_attributes(layer)
    for name, value in state["slots"].items():
        setattr(*state_attributes[name], from_plain(value))
    vector: Any = vector_entry_point_env(layer)
    if vector is not None:
        if (own := state.get("own")) is not None:  # older checkpoints have none
            vector.unwrapped.set_state(from_plain(own))
        set_generator_states(vector, state["generators"])


def environments_state(env: VecEnv) -> list[State]:
    """
    Return the states of a vectorised environment and its wrappers. Wrappers that are not SB3's have no state here.

    :param env: a vectorised environment whose environments are resumable, see :func:`make_resumable`
    :return: plain data: the state of each single environment, if there are any; then those of the vectorised environment and
        of each wrapper, innermost first
    :raises ArgumentError: if the environments are not resumable
    """
    inner, *_ = layers = layers_of(env)
    check_resumable(inner)
    singles: list[State] = [] if vector_entry_point_env(inner) is not None else inner.env_method("get_state")
    return [*singles, *map(layer_state, layers)]


def restore_environments(env: VecEnv, states: Sequence[State]) -> list[str]:
    """
    Restore the states of a vectorised environment, and reset single environments for which that fails.

    :param env: see :func:`restore_or_reset`
    :param states: the states from :func:`environments_state`
    :return: a warning for each environment that was reset
    """
    return [f"Environment {i}: {problem}" for i, problem in restore_or_reset(env, states).items()]


def check_layers(env: VecEnv, states: Sequence[State]) -> None:
    """
    Check that states fit a vectorised environment.

    :param env: the vectorised environment
    :param states: the states from :func:`environments_state`
    :raises ArgumentError: if the number of environments or the wrappers differ, or the environments are not resumable
    """
    inner, *_ = layers = layers_of(env)
    check_resumable(inner)
    n_singles = 0 if vector_entry_point_env(inner) is not None else inner.num_envs
    names = [layer_name(layer) for layer in layers]
    saved_names = [state["layer"] for state in states if "layer" in state]
    if len(states) != n_singles + len(layers) or saved_names != names:
        n_saved = len(states) - len(saved_names)
        raise ArgumentError(
            f"The states are of {n_saved or ''} {' in '.join(saved_names)}, and not of {n_singles or ''} {' in '.join(names)}."
        )


def restore_or_reset(env: VecEnv, states: Sequence[State]) -> dict[int, str]:
    """
    Restore the states of a vectorised environment, and reset single environments for which that fails.

    After that, :func:`current_observations` are the observations.

    :param env: a vectorised environment that is equal to the saved one; its environments may be in other processes
    :param states: the states from :func:`environments_state`
    :return: index of each environment that was reset -> the reason
    :raises ArgumentError: see :func:`check_layers`
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
    Remove the episodes after the states from all ``monitor.csv`` files: the resumed run records them again.

    :param env: a vectorised environment that was restored; its Monitors append to their files
    :param states: the states from :func:`environments_state`
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
    Return the observations of the last step or reset.

    :param env: a vectorised environment whose environments are resumable
    :return: (n_envs, ...) a copy of the observations
    :raises ArgumentError: if a vector entry point is used, or a wrapper that is not SB3's changes observations
    """
    layers = layers_of(env)
    check_resumable(layers[0])
    return deepcopy(reconstruct_observations(layers, []))


def reconstruct_observations(layers: Sequence[VecEnv], restarted: Sequence[int]) -> Any:
    """
    Compute the current observations of a vectorised environment from the last observations of its single environments. Each
    wrapper around them, such as a VecNormalize or a VecFrameStack, is applied again.

    :param layers: the vectorised environment and its wrappers, innermost first
    :param restarted: the indices of environments that were reset without the wrappers. The states of the wrappers are updated
        as a reset would do
    :return: (n_envs, ...) the observations
    :raises ArgumentError: if a vector entry point is used, or a wrapper that is not SB3's changes observations
    """
    if vector_entry_point_env(layers[0]) is not None:
        raise ArgumentError("A vector entry point does not keep its last observations; the checkpoint contains them.")
    space = layers[0].observation_space
    singles = layers[0].get_attr("last_observation")
    keys, _, dtypes = obs_space_info(space)
    parts: dict[Any, Array] = {
        key: np.stack([single if key is None else single[key] for single in singles]).astype(dtypes[key]) for key in keys
    }
    observations: Any = dict_to_obs(space, parts)
    for layer in layers[1:]:
        observations = handler_of(layer).reconstruct(layer, observations, restarted)
    return observations
