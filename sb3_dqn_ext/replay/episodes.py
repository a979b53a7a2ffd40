"""The episodes in a replay buffer: how long the open ones are, and which ended ones are kept."""

from collections import deque
from typing import NamedTuple

import numpy as np

__all__ = ["EpisodeSpan", "EpisodeTracker"]


class EpisodeSpan(NamedTuple):
    """An episode that has ended. Its rows are counted since the buffer was made."""

    first: int
    """its first row"""
    end: int
    """the row behind its last one"""
    env: int
    """the environment"""


class EpisodeTracker:
    """
    Counts the steps of open episodes, and remembers the latest ended ones.

    :param n_envs: number of environments
    :param keep: how many ended episodes are remembered, over all environments; none have to be if None
    """

    def __init__(self, n_envs: int, keep: int | None) -> None:
        self._keep = keep
        self.open_steps = np.zeros(n_envs, dtype=np.int64)
        """(n_envs,) steps of each open episode"""
        self.ended: deque[EpisodeSpan] = deque()
        """the latest ended episodes, the oldest first"""

    def end_episode(self, env: int, end: int, longest: int) -> EpisodeSpan:
        """
        End an open episode.

        :param env: the environment
        :param end: the row behind its last one
        :param longest: how many of its rows can be stored
        :return: the episode, as far as it is stored
        """
        length = min(int(self.open_steps[env]), longest)
        self.open_steps[env] = 0
        return EpisodeSpan(end - length, end, env)

    def add_ended(self, episode: EpisodeSpan) -> EpisodeSpan | None:
        """
        Remember an ended episode.

        :param episode: the newest one
        :return: the episode that is forgotten for it, if any is
        """
        if self._keep is None:
            return None
        self.ended.append(episode)
        return self.ended.popleft() if len(self.ended) > self._keep else None
