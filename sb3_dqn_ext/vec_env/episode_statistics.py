"""Returns, lengths and times of episodes, computed and written in the same way as by SB3's Monitor."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.env_factory import MonitorConfig

Floats = npt.NDArray[np.floating[Any]]


class EpisodeStatistics:
    """
    Counters of the open episodes of several environments, and writers of their ``monitor.csv`` files.

    :param configs: (n_envs,) the file and keywords of each environment
    :param env_id: the environment id in the header of each file
    """

    def __init__(self, configs: Sequence[MonitorConfig], env_id: str) -> None:
        self.returns = np.zeros(len(configs))  # (n_envs,) float64, as in Monitor
        self.lengths = np.zeros(len(configs), dtype=np.int64)  # (n_envs,)
        self._keywords = [config.info_keywords for config in configs]
        writers = [config.open_writer(env_id) for config in configs]
        self.writers = [writer for writer, _ in writers]
        self.t_starts = [t_start for _, t_start in writers]

    def add_rewards(self, rewards: Floats) -> None:
        """
        Count one step of each environment.

        :param rewards: (n_envs,) the rewards of the step
        """
        self.returns += rewards
        self.lengths += 1

    def reset(self, envs: Any = slice(None)) -> None:
        """
        Begin new episodes.

        :param envs: the indices of the environments, by default all
        """
        self.returns[envs] = 0
        self.lengths[envs] = 0

    def end_episode(self, env: int, info: dict[str, Any]) -> None:
        """
        Write the statistics of an ended episode to ``info["episode"]`` and to the environment's ``monitor.csv``, if there is
        one. The caller resets the counters by :meth:`reset`.

        :param env: the index of the environment
        :param info: the info of the last step; this method sets ``info["episode"]``
        :raises KeyError: if ``info`` lacks one of the keywords of the Monitor
        """
        passed = time.time() - self.t_starts[env]
        episode = {"r": round(float(self.returns[env]), 6), "l": int(self.lengths[env]), "t": round(passed, 6)}
        if keywords := self._keywords[env]:
            episode.update((key, info[key]) for key in keywords)
        writer = self.writers[env]
        if writer is not None:
            writer.write_row(episode)
        info["episode"] = episode

    def close(self) -> None:
        """Close the files."""
        for writer in self.writers:
            if writer is not None:
                writer.close()
