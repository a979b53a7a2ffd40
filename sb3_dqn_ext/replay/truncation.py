"""Truncation of the open episodes in any replay buffer, for environments that are reset in mid-episode."""

import warnings

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_dqn_ext.replay.buffer import DQNReplayBuffer

__all__ = ["truncate_open_episodes"]


def truncate_open_episodes(buffer: ReplayBuffer, envs: npt.NDArray[np.bool_] | None = None) -> None:
    """
    Mark the newest step of each open episode as truncated, because its environment is reset in mid-episode.

    Steps in SB3's buffers are marked as by ``HerReplayBuffer.truncate_last_trajectory``: as time limits, which count as
    terminations with ``handle_timeout_termination=False``. Buffers whose transitions are read from one row are not changed.

    :param buffer: a replay buffer
    :param envs: (n_envs,) which environments are reset; None (default): all. A HerReplayBuffer always truncates all.
    """
    if isinstance(buffer, DQNReplayBuffer):
        buffer.truncate_open_episodes(envs)
    elif isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The last trajectory in the replay buffer will be truncated")
            buffer.truncate_last_trajectory()
    elif isinstance(buffer, NStepReplayBuffer) or getattr(buffer, "optimize_memory_usage", False):
        newest = buffer.pos - 1
        is_open = (buffer.dones[newest] == 0) & (buffer.size() > 0) & (True if envs is None else envs)  # (n_envs,)
        buffer.dones[newest, is_open] = 1
        if buffer.handle_timeout_termination:
            buffer.timeouts[newest, is_open] = 1
