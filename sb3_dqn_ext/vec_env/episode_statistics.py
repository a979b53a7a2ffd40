"""Returns, lengths and times of episodes, counted and written as SB3's Monitor does."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.env_factory import MonitorConfig

Floats = npt.NDArray[np.floating[Any]]


class EpisodeStatistics:
    """
    The running episodes of several environments.

    :param records: for each environment, where its episodes are recorded
    :param env_id: goes into the header of each file
    """

    def __init__(self, records: Sequence[MonitorConfig], env_id: str) -> None:
        self.returns = np.zeros(len(records))  # (n_envs,) in double precision, whatever the rewards are, as Monitor has it
        self.lengths = np.zeros(len(records), dtype=np.int64)  # (n_envs,)
        self._keywords = [record.info_keywords for record in records]
        writers = [record.writer(env_id) for record in records]
        self.writers = [writer for writer, _ in writers]
        self.t_starts = [t_start for _, t_start in writers]

    def count(self, rewards: Floats) -> None:
        """
        :param rewards: (n_envs,) of one step
        """
        self.returns += rewards
        self.lengths += 1

    def restart(self, envs: Any = slice(None)) -> None:
        """
        :param envs: the environments that begin anew, by default all
        """
        self.returns[envs] = 0
        self.lengths[envs] = 0

    def end(self, env: int, info: dict[str, Any]) -> None:
        """
        Put the episode that has ended into the step's info, and into the file.

        :param env: the environment
        :param info: its info, which gets a key ``"episode"``
        """
        passed = time.time() - self.t_starts[env]
        episode = {"r": round(float(self.returns[env]), 6), "l": int(self.lengths[env]), "t": round(passed, 6)}
        episode.update((key, info[key]) for key in self._keywords[env])
        writer = self.writers[env]
        if writer is not None:
            writer.write_row(episode)
        info["episode"] = episode

    def close(self) -> None:
        """Close the files."""
        for writer in self.writers:
            if writer is not None:
                writer.close()
