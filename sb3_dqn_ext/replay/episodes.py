"""The episodes in a replay buffer: the lengths of open ones, and the latest ended ones."""

from collections import deque
from typing import NamedTuple

import numpy as np

__all__ = ["EpisodeSpan", "EpisodeTracker"]


class EpisodeSpan(NamedTuple):
    """The rows of an ended episode, numbered since the buffer was made."""

    first: int
    """The first row."""
    end: int
    """The row after the last one."""
    env: int
    """The index of the environment."""


class EpisodeTracker:
    """
    The steps of open episodes, and the latest ended episodes.

    :param n_envs: the number of environments
    :param keep: the number of ended episodes that are kept, over all environments; None: they need not be listed
    """

    def __init__(self, n_envs: int, keep: int | None) -> None:
        self._keep = keep
        self.open_steps = np.zeros(n_envs, dtype=np.int64)
        """The (n_envs,) numbers of steps of the open episodes."""
        self.ended: deque[EpisodeSpan] = deque()
        """The latest ended episodes, oldest first."""

    def end_episode(self, env: int, end: int, max_length: int) -> EpisodeSpan:
        """
        End the open episode of an environment.

        :param env: the index of the environment
        :param end: the row after the last one of the episode
        :param max_length: the largest number of its rows that the buffer can hold
        :return: the rows of the episode that are still stored
        """
        length = min(int(self.open_steps[env]), max_length)
        self.open_steps[env] = 0
        return EpisodeSpan(end - length, end, env)

    def add_ended(self, episode: EpisodeSpan) -> EpisodeSpan | None:
        """
        Append an ended episode.

        :param episode: the newest ended episode
        :return: the oldest episode, if it is removed to make room
        """
        if self._keep is None:
            return None
        self.ended.append(episode)
        return self.ended.popleft() if len(self.ended) > self._keep else None
