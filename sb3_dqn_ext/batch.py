"""What the learner sees of the replay memory."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples

__all__ = ["Batch", "from_sb3"]


class Batch(NamedTuple):
    """
    B folded transitions. Termination, gamma and n live in ``discounts`` alone: no loss takes ``done``.
    """

    observations: PyTorchObs
    """(B, \\*obs)"""
    actions: th.Tensor
    """(B,) int64"""
    rewards: th.Tensor
    """(B,) folded over the n steps"""
    discounts: th.Tensor
    """(B,) gamma**n, and 0 after a termination"""
    next_observations: PyTorchObs
    """(B, \\*obs) the observation after the last folded step"""
    weights: th.Tensor
    """(B,) importance weights, 1 when drawn uniformly"""
    cells: npt.NDArray[np.int64]
    """(B,) row * n_envs + env; where the transitions lie, for the sampler"""


def from_sb3(samples: ReplayBufferSamples | DictReplayBufferSamples, gamma: float) -> Batch:
    """
    Read the samples of any SB3 replay buffer as a batch.

    :param samples: what ``ReplayBuffer.sample()`` returned; (B, 1) actions, rewards, dones, discounts
    :param gamma: the discount factor, for buffers that name no discounts themselves
    """
    discounts = gamma if samples.discounts is None else samples.discounts
    return Batch(
        observations=samples.observations,
        actions=samples.actions.long().flatten(),
        rewards=samples.rewards.flatten(),
        discounts=((1 - samples.dones) * discounts).flatten(),
        next_observations=samples.next_observations,
        weights=th.ones_like(samples.rewards).flatten(),
        cells=np.empty(0, dtype=np.int64),
    )
