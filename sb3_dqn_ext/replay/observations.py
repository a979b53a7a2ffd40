"""Storage of the observations before and after each step: arrays, or dictionaries of arrays for Dict spaces."""

import math
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.index_set import Indices

__all__ = [
    "Obs",
    "ObservationRing",
    "arrays_by_key",
    "differing_envs",
    "gather",
    "observation_bytes",
    "spaces_by_key",
    "with_shape",
    "write_row",
]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Obs = Array | dict[str, Array]


def write_row(stored: Obs, row: int, obs: Obs) -> None:
    """
    Write an observation into a row.

    :param stored: the (rows, \\*shape) array, or a dictionary of such arrays
    :param row: the row
    :param obs: the observation, of \\*shape, or without axes of length 1, such as that of a Discrete space
    :raises ArgumentError: if it has another shape, such as an image with its channels on another axis
    """
    if isinstance(stored, dict):
        for key, array in stored.items():
            write_row(array, row, cast(dict[str, Array], obs)[key])
    else:
        stored[row] = with_shape(np.asarray(obs), stored.shape[1:])


def with_shape(obs: Array, shape: tuple[int, ...]) -> Array:
    """
    Add or remove axes of length 1. Another shape with as many numbers would mix them up without an error.

    :param obs: the observations
    :param shape: their shape in the replay buffer
    :return: the observations in that shape
    :raises ArgumentError: if they have another shape
    """
    if obs.shape == shape:
        return obs
    if [n for n in obs.shape if n > 1] != [n for n in shape if n > 1]:
        raise ArgumentError(f"observations of shape {obs.shape} do not fit the replay buffer, which stores {shape}.")
    return obs.reshape(shape)


def gather(stored: Obs, indices: Indices) -> Obs:
    """
    Read observations at indices.

    :param stored: the (rows, n_envs, \\*shape) array, or a dictionary of such arrays
    :param indices: the (B,) indices
    :return: the (B, \\*shape) observations, as copies
    """
    if isinstance(stored, dict):
        return {key: gather(array, indices) for key, array in stored.items()}  # type: ignore[misc]
    return stored.reshape(-1, *stored.shape[2:]).take(indices, axis=0)


def _allocate(space: spaces.Space[Any], n_rows: int, n_envs: int) -> Obs:
    if isinstance(space, spaces.Dict):
        return {key: cast(Array, _allocate(part, n_rows, n_envs)) for key, part in space.spaces.items()}
    return np.zeros((n_rows, n_envs, *cast(tuple[int, ...], get_obs_shape(space))), dtype=space.dtype)


def _copy_observation(obs: Obs, place: int | tuple[int, int]) -> Obs:
    return map_observation(lambda array: np.array(array[place]), obs)


def arrays_by_key(obs: Obs) -> dict[str, Array]:
    """
    Return the arrays of observations by their keys.

    :param obs: an array, or a dictionary of arrays
    :return: the dictionary; a single array has the key ""
    """
    return obs if isinstance(obs, dict) else {"": obs}


def spaces_by_key(space: spaces.Space[Any]) -> dict[str, spaces.Space[Any]]:
    """
    Return the parts of an observation space by their keys.

    :param space: the observation space
    :return: the dictionary; a space that is no Dict has the key ""
    """
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}


def observation_bytes(space: spaces.Space[Any]) -> int:
    """
    Return the size of one observation.

    :param space: the observation space
    :return: its size in bytes
    """
    if isinstance(space, spaces.Dict):
        return sum(map(observation_bytes, space.spaces.values()))
    return math.prod(cast(tuple[int, ...], get_obs_shape(space))) * np.dtype(space.dtype).itemsize


def _is_equal(stored: Array, given: Array) -> bool:
    """Return whether two arrays hold the same values."""
    if stored.nbytes < 4096:  # copying so few bytes is faster than a reshape and a comparison
        return np.asarray(given, stored.dtype).tobytes() == stored.tobytes()
    return bool((np.reshape(given, stored.shape) == stored).all())


def _differing_envs(stored: Array, given: Array) -> Bools:
    """Return (n_envs,) where two (n_envs, \\*shape) arrays differ. Bits are compared, so that nan equals nan."""
    arrays = (np.ascontiguousarray(array, stored.dtype) for array in (given, stored))
    a, b = (array.view(np.uint8).reshape(len(stored), -1) for array in arrays)  # (n_envs, bytes)
    differs: Bools = (a != b).any(axis=1)
    return differs


def differing_envs(stored: Obs, given: Obs) -> Bools | None:
    """
    Find the environments whose observations differ.

    :param stored: (n_envs, \\*shape) stored observations
    :param given: (n_envs, \\*shape) observations, of any type and shape that can be stored
    :return: (n_envs,) whether they differ; None if none does
    """
    others = arrays_by_key(given)
    pairs = [(array, others[key]) for key, array in arrays_by_key(stored).items()]
    differing = [pair for pair in pairs if not _is_equal(*pair)]  # empty at nearly all steps
    return np.any([_differing_envs(*pair) for pair in differing], axis=0) if differing else None


class ObservationRing:
    """
    A ring buffer of the observations before and after each step.

    :param space: the observation space; a Dict without nested Dicts
    :param n_rows: the number of rows
    :param n_envs: the number of environments
    :param optimize_memory_usage: whether the observation after a step is stored only as the one before the next step; the
        final observation of each episode is stored separately
    """

    shares_rows = False
    """Whether a row shares data with the row before it, so that the two have to be compared when it is written."""

    def __init__(self, space: spaces.Space[Any], n_rows: int, n_envs: int, optimize_memory_usage: bool) -> None:
        self._space = space
        self.n_rows = n_rows
        self.n_envs = n_envs
        self.optimize_memory_usage = optimize_memory_usage
        self.final_observations: dict[int, Obs] = {}
        """With ``optimize_memory_usage``: the final observations of episodes, by the indices of their last steps."""

    @cached_property
    def observations(self) -> Obs:
        """The (rows, n_envs, \\*shape) observations before the steps. Allocated at first use."""
        return _allocate(self._space, self.n_rows, self.n_envs)

    @cached_property
    def next_observations(self) -> Obs:
        """The (rows, n_envs, \\*shape) observations after the steps; not used with ``optimize_memory_usage``."""
        return _allocate(self._space, self.n_rows, self.n_envs)

    @property
    def transition_bytes(self) -> float:
        """The bytes for the observations of one transition."""
        return observation_bytes(self._space) * (2 - self.optimize_memory_usage)

    def clear(self) -> None:
        """Remove the final observations. Rows are overwritten later."""
        self.final_observations.clear()

    def write(self, row: int, obs: Obs, next_obs: Obs, done: Bools, discontinued: Bools | None) -> None:
        """
        Store one step of every environment.

        :param row: the row to write
        :param obs: the (n_envs, \\*shape) observations before the step
        :param next_obs: the (n_envs, \\*shape) observations after the step
        :param done: (n_envs,) whether each episode ended at this step
        :param discontinued: the result of :meth:`discontinued_envs`, which is not needed here
        """
        write_row(self.observations, row, obs)
        if not self.optimize_memory_usage:
            write_row(self.next_observations, row, next_obs)
            return
        write_row(self.observations, (row + 1) % self.n_rows, next_obs)
        for env in range(self.n_envs):
            self.final_observations.pop(row * self.n_envs + env, None)
        for env in done.nonzero()[0].tolist():
            self.final_observations[row * self.n_envs + env] = _copy_observation(next_obs, env)

    def keep_final_observation(self, row: int, env: int) -> None:
        """
        Store the observation after the newest step as a final observation: the next step may overwrite it.

        :param row: the newest row
        :param env: the index of the environment
        """
        if self.optimize_memory_usage:
            self.final_observations[row * self.n_envs + env] = _copy_observation(
                self.observations, ((row + 1) % self.n_rows, env)
            )

    def gather_observations(self, indices: Indices) -> Obs:
        """
        Read the observations before steps.

        :param indices: the (B,) indices of the steps
        :return: the (B, \\*shape) observations, as copies
        """
        return gather(self.observations, indices)

    def gather_next(self, indices: Indices) -> Obs:
        """
        Read the observations after steps.

        :param indices: the (B,) indices of the steps
        :return: the (B, \\*shape) observations, as copies
        """
        if not self.optimize_memory_usage:
            return gather(self.next_observations, indices)
        following = (indices + self.n_envs) % (self.n_rows * self.n_envs)
        gathered = gather(self.observations, following)
        for i, index in enumerate(indices.tolist()):
            last = self.final_observations.get(index)
            if last is not None:
                write_row(gathered, i, last)
        return gathered

    def discontinued_envs(self, row: int, obs: Obs) -> Bools | None:
        """
        Find environments that were reset in mid-episode: their new observation is not the next observation of the newest
        stored step.

        :param row: the row that will be written next
        :param obs: the (n_envs, \\*shape) observations that will be written there
        :return: (n_envs,) whether they differ; None if none does
        """
        stored = self.observations if self.optimize_memory_usage else self.next_observations
        newest = row if self.optimize_memory_usage else row - 1
        return differing_envs(cast(Obs, map_observation(lambda array: array[newest], stored)), obs)

    def stored_discontinuities(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, Bools]]:
        """
        Compare the next observations of stored rows with the observations of the rows that follow them.

        Only for buffers without ``optimize_memory_usage``.

        :param rows: the stored rows, oldest first
        :return: each row but the last, and (n_envs,) in which environments the two differ
        """
        for row, following in pairwise(rows.tolist()):
            parts = zip(arrays_by_key(self.next_observations).values(), arrays_by_key(self.observations).values(), strict=True)
            yield row, np.any([_differing_envs(after[row], before[following]) for after, before in parts], axis=0)
