"""What the learner sees of the replay memory."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples

__all__ = ["Batch", "each", "from_sb3"]

T = TypeVar("T")
S = TypeVar("S")


def each(function: Callable[[T], S], obs: T | dict[str, T]) -> S | dict[str, S]:
    """Apply a function to an array, or to each one of a dictionary of arrays."""
    return {key: function(value) for key, value in obs.items()} if isinstance(obs, dict) else function(obs)


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

    def where(self, chosen: th.Tensor) -> "Batch":
        """(B,) bool, which transitions -> a batch of those"""

        def part(numbers: th.Tensor) -> th.Tensor:
            return numbers[chosen]

        return Batch(
            observations=each(part, self.observations),
            actions=part(self.actions),
            rewards=part(self.rewards),
            discounts=part(self.discounts),
            next_observations=each(part, self.next_observations),
            weights=part(self.weights),
            cells=self.cells[chosen.cpu().numpy()] if len(self.cells) else self.cells,
        )


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
