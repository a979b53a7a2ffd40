"""Observations before and after each stored step: arrays, or dictionaries of arrays."""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.replay.index_set import Indices

__all__ = ["Obs", "ObservationRing", "arrays_by_key", "gather", "write_row"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Obs = Array | dict[str, Array]


def write_row(stored: Obs, row: int, obs: Obs) -> None:
    """
    Write an observation into a row.

    :param stored: (rows, \\*shape) an array, or a dictionary of arrays
    :param row: the row
    :param obs: what to write there, \\*shape or as many numbers
    """
    if isinstance(stored, dict):
        for key, array in stored.items():
            write_row(array, row, cast(dict[str, Array], obs)[key])
    else:
        shape = stored.shape[1:]
        stored[row] = obs if isinstance(obs, np.ndarray) and obs.shape == shape else np.reshape(cast(Array, obs), shape)


def gather(stored: Obs, indices: Indices) -> Obs:
    """
    Gather observations.

    :param stored: (rows, n_envs, \\*shape)
    :param indices: (B,)
    :return: (B, \\*shape)
    """
    if isinstance(stored, dict):
        return {key: gather(array, indices) for key, array in stored.items()}  # type: ignore[misc]
    return stored.reshape(-1, *stored.shape[2:]).take(indices, axis=0)


def _zeros(space: spaces.Space[Any], n_rows: int, n_envs: int) -> Obs:
    if isinstance(space, spaces.Dict):
        return {key: cast(Array, _zeros(part, n_rows, n_envs)) for key, part in space.spaces.items()}
    return np.zeros((n_rows, n_envs, *cast(tuple[int, ...], get_obs_shape(space))), dtype=space.dtype)


def _copy_at(obs: Obs, place: int | tuple[int, int]) -> Obs:
    return map_observation(lambda array: np.array(array[place]), obs)


def arrays_by_key(obs: Obs) -> dict[str, Array]:
    """
    Return observations as a dictionary.

    :param obs: an array, or a dictionary of arrays
    :return: the arrays by their keys; the key of one that stands alone is ""
    """
    return obs if isinstance(obs, dict) else {"": obs}


def _is_same(stored: Array, given: Array) -> bool:
    if stored.nbytes < 4096:  # where copies are quicker than two calls
        return np.asarray(given, stored.dtype).tobytes() == stored.tobytes()
    return bool((np.reshape(given, stored.shape) == stored).all())


def _differing(stored: Array, given: Array) -> Bools:
    """(n_envs, \\*shape) twice -> (n_envs,) where they are not the same bits, so that nan equals nan"""
    given = np.ascontiguousarray(given, stored.dtype)
    a, b = (array.view(np.uint8).reshape(len(stored), -1) for array in (given, stored))  # (n_envs, bytes)
    differs: Bools = (a != b).any(axis=1)
    return differs


class ObservationRing:
    """
    Observations before and after each step, in arrays that are written in a circle.

    :param space: the observation space; a Dict has no further Dict inside
    :param n_rows: number of rows
    :param n_envs: number of environments
    :param once: whether the observation after a step is stored only as the one before the next step; the last one of an
        episode is kept beside
    """

    def __init__(self, space: spaces.Space[Any], n_rows: int, n_envs: int, once: bool) -> None:
        self._space = space
        self.n_rows = n_rows
        self.n_envs = n_envs
        self.once = once
        self.final_observations: dict[int, Obs] = {}
        """with ``once``: the observations after the last steps of episodes, by the indices of the steps"""

    @cached_property
    def observations(self) -> Obs:
        """(rows, n_envs, \\*shape) the observations before the steps; made when it is first used"""
        return _zeros(self._space, self.n_rows, self.n_envs)

    @cached_property
    def next_observations(self) -> Obs:
        """(rows, n_envs, \\*shape) the observations after the steps, unless ``once``"""
        return _zeros(self._space, self.n_rows, self.n_envs)

    def write(self, row: int, obs: Obs, next_obs: Obs, done: Bools) -> None:
        """
        Store one step of every environment.

        :param row: the row to write
        :param obs: (n_envs, \\*shape)
        :param next_obs: (n_envs, \\*shape)
        :param done: (n_envs,) whether an episode ended by this step
        """
        write_row(self.observations, row, obs)
        if not self.once:
            write_row(self.next_observations, row, next_obs)
            return
        write_row(self.observations, (row + 1) % self.n_rows, next_obs)
        for env in range(self.n_envs):
            self.final_observations.pop(row * self.n_envs + env, None)
        for env in done.nonzero()[0].tolist():
            self.final_observations[row * self.n_envs + env] = _copy_at(next_obs, env)

    def keep_final_observation(self, row: int, env: int) -> None:
        """
        Keep the observation after the newest step, which the next step may overwrite with ``once``.

        :param row: the newest row
        :param env: the environment
        """
        if self.once:
            self.final_observations[row * self.n_envs + env] = _copy_at(self.observations, ((row + 1) % self.n_rows, env))

    def gather_next(self, indices: Indices) -> Obs:
        """
        Gather the observations after some steps.

        :param indices: (B,) the steps
        :return: (B, \\*shape)
        """
        if not self.once:
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
        Compare new observations with those after the newest steps.

        :param row: the row that will be written next
        :param obs: (n_envs, \\*shape) the observations that will be written there
        :return: (n_envs,) which are others; None if none is
        """
        stored = self.observations if self.once else self.next_observations
        newest = row if self.once else row - 1
        given = arrays_by_key(obs)
        pairs = [(array[newest], given[key]) for key, array in arrays_by_key(stored).items()]
        differing = [pair for pair in pairs if not _is_same(*pair)]  # none, at nearly all steps
        return np.any([_differing(*pair) for pair in differing], axis=0) if differing else None

    def stored_discontinuities(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, Bools]]:
        """
        Find the rows whose next observations are not those of the following row; not with ``once``.

        :param rows: stored rows, from the oldest to the newest
        :return: each row but the last, and (n_envs,) in which environments it is so
        """
        for row, following in pairwise(rows.tolist()):
            parts = zip(arrays_by_key(self.next_observations).values(), arrays_by_key(self.observations).values(), strict=True)
            yield row, np.any([_differing(after[row], before[following]) for after, before in parts], axis=0)
