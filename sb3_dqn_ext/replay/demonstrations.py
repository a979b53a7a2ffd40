"""Demonstrations beside the ring of a replay buffer. Shapes: B batch size, D demonstrations, N environments."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK
from sb3_dqn_ext.algorithm.batches import Batch, concatenate_batches, map_observation
from sb3_dqn_ext.demonstrations import Transitions, check_spaces, load_transitions
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.observations import Obs
from sb3_dqn_ext.replay.sampler_base import Sampler

__all__ = ["check_demonstration_arguments", "check_sampler", "fill", "load_demonstrations", "merge", "merge_arrays"]

Array = npt.NDArray[Any]


def load_demonstrations(
    source: Any, observation_space: spaces.Space[Any], action_space: Any, action_masks: bool
) -> Transitions:
    """
    Load demonstrations for an environment.

    :param source: see :func:`~sb3_dqn_ext.demonstrations.load_transitions`
    :param observation_space: the observation space
    :param action_space: the action space
    :param action_masks: whether observations have masks of the legal actions. Where the data have none, all are legal
    :return: the demonstrations
    :raises ArgumentError: if they cannot be loaded, or do not fit the spaces or the masks
    """
    transitions = load_transitions(source)
    if not action_masks:
        check_spaces(transitions, observation_space, action_space)
        return transitions
    space = cast(spaces.Dict, observation_space)
    before, after = (_with_mask(obs, space) for obs in (transitions.observations, transitions.next_observations))
    transitions = replace(transitions, observations=before, next_observations=after)
    check_spaces(transitions, observation_space, action_space)
    _check_masks(transitions)
    return transitions


def _with_mask(obs: Obs, space: spaces.Dict) -> Obs:
    """Return (D, \\*obs) observations with their mask, or with one of all actions if they have none."""
    others = [key for key in space.spaces if key != ACTION_MASK]
    if not isinstance(obs, dict):
        if len(others) > 1:
            return obs  # it fits no space
        obs = {others[0]: obs}
    mask = space.spaces[ACTION_MASK]
    return {ACTION_MASK: np.ones((len(next(iter(obs.values()))), *cast(Any, mask.shape)), mask.dtype), **obs}


def _check_masks(transitions: Transitions) -> None:
    """:raises ArgumentError: if an action is not legal, or none is where an episode continues"""
    before, after = (cast(Any, obs)[ACTION_MASK] != 0 for obs in (transitions.observations, transitions.next_observations))
    is_legal = before[np.arange(len(before)), transitions.actions.reshape(-1)]
    for found, what in (
        (~is_legal, "has an action that is illegal by the mask of its observation"),
        (~transitions.terminated & ~after.any(axis=1), "continues in a state in which no action is legal"),
    ):
        if found.any():
            raise ArgumentError(f"demonstrations with action masks: transition {found.argmax()} {what}.")


def fill(buffer: ReplayBuffer, transitions: Transitions) -> None:
    """
    Store transitions in a replay buffer for one environment.

    :param buffer: the replay buffer
    :param transitions: the transitions
    """
    for i in range(len(transitions)):
        row = slice(i, i + 1)

        def row_of(array: Array, row: slice = row) -> Array:
            return array[row]

        done = transitions.terminated[row] | transitions.truncated[row]
        is_time_limit = bool(transitions.truncated[i] and not transitions.terminated[i])
        before = map_observation(row_of, transitions.observations)
        after = map_observation(row_of, transitions.next_observations)
        infos = [{"TimeLimit.truncated": is_time_limit}]
        buffer.add(before, after, transitions.actions[row], transitions.rewards[row], done, infos)  # type: ignore[arg-type]


def merge(is_demonstration: Array, own: Batch, demonstrations: Batch) -> Batch:
    """
    Merge two batches.

    :param is_demonstration: (B,) whether each transition of the result is a demonstration
    :param own: the other transitions, in the order of the result
    :param demonstrations: the demonstrations, in the order of the result
    :return: B transitions
    """
    return concatenate_batches([own, demonstrations]).select(_order(is_demonstration))


def merge_arrays(is_demonstration: Array, own: Obs, demonstrations: Obs) -> Obs:
    """
    Merge two arrays, or the arrays of two Dict observations.

    :param is_demonstration: (B,) whether each row of the result is that of a demonstration
    :param own: the other rows, in the order of the result
    :param demonstrations: the rows of demonstrations, in the order of the result
    :return: B rows
    """
    order = _order(is_demonstration)
    if isinstance(own, dict):
        parts = cast(dict[str, Array], demonstrations)
        return {key: np.concatenate([array, parts[key]])[order] for key, array in own.items()}
    return np.concatenate([own, cast(Array, demonstrations)])[order]


def _order(is_demonstration: Array) -> Array:
    """Return the (B,) places of the rows of the result among the other rows, followed by those of demonstrations."""
    return np.argsort(np.concatenate([np.flatnonzero(~is_demonstration), np.flatnonzero(is_demonstration)]))


def check_demonstration_arguments(demonstrations: Any, td_lambda: float | None, sampler_kwargs: Any) -> None:
    """
    Check the arguments of a replay buffer that concern demonstrations.

    :param demonstrations: the argument of that name; None: there are no demonstrations
    :param td_lambda: lambda of lambda returns; None: there are none
    :param sampler_kwargs: the arguments of the sampler
    :raises ArgumentError: if arguments contradict each other
    """
    if demonstrations is None and "eps_demonstrations" in sampler_kwargs:
        raise ArgumentError(
            f"sampler_kwargs['eps_demonstrations']={sampler_kwargs['eps_demonstrations']!r} has no effect without "
            "demonstrations; leave it out."
        )
    if demonstrations is not None and td_lambda is not None:
        raise ArgumentError(
            f"td_lambda={td_lambda!r} needs the values at the time of acting, which demonstrations do not contain: take "
            "n_steps."
        )


def check_sampler(sampler: Sampler, choice: object) -> None:
    """
    Check that a sampler can draw demonstrations.

    :param sampler: the sampler
    :param choice: the argument that named it, for the message
    :raises ArgumentError: if it draws whole time steps of all environments
    """
    if sampler.draws_whole_rows:
        raise ArgumentError(
            f"sampler={choice!r} draws time steps of all environments, and a demonstration is of one environment: use "
            "sampler='uniform' or 'prioritized'."
        )
