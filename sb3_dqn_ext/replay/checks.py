"""Checks of the arguments of a replay buffer."""

import math
import warnings
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.sampler_base import Sampler

__all__ = ["check_counts", "check_discounting", "check_flags", "check_keep_episodes", "check_rows", "warn_if_too_large"]


def check_counts(**counts: int) -> None:
    """
    Check numbers by the names of their arguments.

    :raises ArgumentError: if one is not a whole number from 1 on
    """
    for name, count in counts.items():
        check_number(name, count, low=1, integer=True)


def check_flags(**flags: bool) -> None:
    """
    Check flags by the names of their arguments.

    :raises ArgumentError: if one is neither True nor False
    """
    for name, flag in flags.items():
        check_type(name, flag, bool, "True or False")


def check_discounting(n_steps: int, gamma: float | None, monte_carlo: float) -> None:
    """
    Check the arguments of the returns, of which ``n_steps`` is checked already.

    :raises ArgumentError: if there can be no such returns
    """
    check_number("monte_carlo", monte_carlo, low=0, high=1)
    if gamma is not None:
        check_number("gamma", gamma, low=0, high=1)
    elif n_steps > 1 or monte_carlo > 0:
        raise ArgumentError(f"n_steps={n_steps}, monte_carlo={monte_carlo} need a gamma beside, for example gamma=0.99.")


def check_rows(n_rows: int, buffer_size: int, n_envs: int, n_steps: int, optimize_memory_usage: bool) -> None:
    """
    Check that the steps of one transition fit into the rows of a replay buffer.

    :raises ArgumentError: if they do not
    """
    if n_rows < n_steps + optimize_memory_usage:
        raise ArgumentError(
            f"buffer_size={buffer_size} leaves {n_rows} rows for each of {n_envs} environments, "
            f"too few for n_steps={n_steps} and optimize_memory_usage={optimize_memory_usage}."
        )


def check_keep_episodes(keep_episodes: int | None, n_envs: int, sampler: Sampler, choice: object) -> None:
    """
    Check how many episodes are kept.

    :param choice: the sampler as it was chosen
    :raises ArgumentError: if nothing could ever be replayed
    """
    if keep_episodes is None:
        return
    check_counts(keep_episodes=keep_episodes)
    if sampler.draws_whole_rows and keep_episodes < n_envs:
        raise ArgumentError(
            f"keep_episodes={keep_episodes} leaves sampler={choice!r} no row that is whole: it must be at least "
            f"n_envs={n_envs}."
        )


def warn_if_too_large(n_transitions: int, observation_space: spaces.Space[Any], n_observations: int, action_dim: int) -> None:
    """
    Warn, as SB3 does, if the transitions do not fit into what is free of the memory; without psutil, never.

    :param n_transitions: number of transitions
    :param observation_space: the observation space
    :param n_observations: how many observations are stored for each transition
    :param action_dim: how many numbers an action has
    """
    try:
        import psutil  # an optional dependency of SB3
    except ImportError:
        return
    needed = n_transitions * (n_observations * _bytes_of_observation(observation_space) + action_dim * 8 + 3 * 4)
    available = psutil.virtual_memory().available
    if needed > available:
        warnings.warn(
            "This system does not have apparently enough memory to store the complete "
            f"replay buffer {needed / 1e9:.2f}GB > {available / 1e9:.2f}GB",
            stacklevel=3,
        )


def _bytes_of_observation(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Dict):
        return sum(map(_bytes_of_observation, space.spaces.values()))
    return math.prod(cast(tuple[int, ...], get_obs_shape(space))) * np.dtype(space.dtype).itemsize
