"""Batches of transitions from a replay buffer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples

__all__ = ["Batch", "concatenate_batches", "from_sb3", "map_observation", "to_sb3"]

T = TypeVar("T")
S = TypeVar("S")


def map_observation(function: Callable[[T], S], obs: T | dict[str, T]) -> S | dict[str, S]:
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
    weights: th.Tensor | None
    """(B,) importance weights; None if all are 1"""
    indices: npt.NDArray[np.int64]
    """(B,) ``row * n_envs + env`` of each in the replay buffer; empty for buffers that do not return it"""

    def select(self, chosen: th.Tensor | slice) -> "Batch":
        """(B,) bool, or a slice: which transitions -> a batch of those"""

        def of(numbers: th.Tensor) -> th.Tensor:
            return numbers[chosen]

        places = chosen.cpu().numpy() if isinstance(chosen, th.Tensor) else chosen
        return Batch(
            observations=map_observation(of, self.observations),
            actions=of(self.actions),
            rewards=of(self.rewards),
            discounts=of(self.discounts),
            next_observations=map_observation(of, self.next_observations),
            weights=None if self.weights is None else of(self.weights),
            indices=self.indices[places] if len(self.indices) else self.indices,
        )

    def split(self, n: int) -> list["Batch"]:
        """n batches of the same size, one after the other, that were put into this one"""
        size = len(self.actions) // n
        return [self.select(slice(i * size, (i + 1) * size)) for i in range(n)]


def concatenate_batches(batches: Sequence[Batch]) -> Batch:
    """Batches, one after the other, as one."""
    if len(batches) == 1:
        return batches[0]

    def together(*parts: PyTorchObs | None) -> Any:
        if parts[0] is None:
            return None
        if isinstance(parts[0], dict):
            return {key: th.cat([part[key] for part in parts]) for key in parts[0]}  # type: ignore[index]
        return th.cat(cast(tuple[th.Tensor, ...], parts))

    *tensors, indices = zip(*batches, strict=True)
    return Batch._make([*(together(*parts) for parts in tensors), np.concatenate(indices)])


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
        weights=None,
        indices=np.empty(0, dtype=np.int64),
    )


def to_sb3(batch: Batch, with_discounts: bool) -> ReplayBufferSamples | DictReplayBufferSamples:
    """
    Write a batch as the samples of an SB3 replay buffer, which have no weights.

    :param batch: B transitions
    :param with_discounts: whether the samples have discounts of their own
    :return: (B, 1) actions, rewards, dones, discounts
    """
    samples = DictReplayBufferSamples if isinstance(batch.observations, dict) else ReplayBufferSamples
    discounts = batch.discounts.unsqueeze(1)
    return samples(
        observations=batch.observations,  # type: ignore[arg-type]
        actions=batch.actions.unsqueeze(1),
        next_observations=batch.next_observations,  # type: ignore[arg-type]
        dones=(discounts == 0).to(discounts.dtype),
        rewards=batch.rewards.unsqueeze(1),
        discounts=discounts if with_discounts else None,
    )
