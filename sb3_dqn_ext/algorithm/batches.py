"""Batches of transitions from a replay buffer."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from torch.utils._pytree import tree_flatten, tree_unflatten

__all__ = ["Batch", "concatenate_batches", "copy_to_device", "from_sb3", "map_observation", "move_batch", "to_sb3"]

T = TypeVar("T")
S = TypeVar("S")


def map_observation(function: Callable[[T], S], obs: T | dict[str, T]) -> S | dict[str, S]:
    """
    Apply a function to an observation: to its array, or to each array of a Dict observation.

    :param function: the function
    :param obs: an array, or a dictionary of arrays
    :return: the result, or a dictionary of results
    """
    return {key: function(value) for key, value in obs.items()} if isinstance(obs, dict) else function(obs)


def copy_to_device(array: npt.NDArray[Any], device: th.device) -> th.Tensor:
    """
    Convert an array to a tensor. On the CPU, both share their data.

    :param array: the array
    :param device: the device of the tensor
    :return: the tensor
    """
    # on CUDA, a blocking copy would wait for all work of the GPU; the array is read before the call returns either way
    return th.from_numpy(array).to(device, non_blocking=device.type == "cuda")


class Batch(NamedTuple):
    """
    A batch of B n-step transitions. Losses need neither gamma, n nor ``done``: ``discounts`` contains all of them.
    """

    observations: PyTorchObs
    """The (B, \\*obs) observations of the first step."""
    actions: th.Tensor
    """The (B,) actions, as int64."""
    rewards: th.Tensor
    """The (B,) n-step rewards: ``sum_{k<n} gamma**k r_k``."""
    discounts: th.Tensor
    """The (B,) discounts of the return at the next observation: ``gamma**n``, or 0 after a termination."""
    next_observations: PyTorchObs | None
    """The (B, \\*obs) observations after the last step; None if all discounts are 0."""
    weights: th.Tensor | None
    """The (B,) importance sampling weights; None if all are 1."""
    demonstrations: th.Tensor | None
    """The (B,) flags of transitions that are demonstrations; None if the replay buffer has no demonstrations."""
    indices: npt.NDArray[np.int64]
    """The (B,) indices ``row * n_envs + env`` in the replay buffer; empty for buffers that do not return them."""

    def select(self, chosen: npt.NDArray[np.int64] | slice) -> "Batch":
        """
        Select transitions.

        :param chosen: the positions of the transitions in the batch, or a slice
        :return: a batch of the chosen transitions
        """
        positions = chosen if isinstance(chosen, slice) else copy_to_device(chosen, self.actions.device)

        def part_of(tensor: th.Tensor) -> th.Tensor:
            return tensor[positions]

        return Batch(
            observations=map_observation(part_of, self.observations),
            actions=part_of(self.actions),
            rewards=part_of(self.rewards),
            discounts=part_of(self.discounts),
            next_observations=(None if self.next_observations is None else map_observation(part_of, self.next_observations)),
            weights=None if self.weights is None else part_of(self.weights),
            demonstrations=None if self.demonstrations is None else part_of(self.demonstrations),
            indices=self.indices[chosen] if len(self.indices) else self.indices,
        )

    def split(self, n: int) -> list["Batch"]:
        """Split the batch into n batches of the same size; the inverse of :func:`concatenate_batches`."""
        size = len(self.actions) // n
        return [self.select(slice(i * size, (i + 1) * size)) for i in range(n)]


ALIGNMENT = 16
"""The bytes to a multiple of which tensors in a common block are aligned."""


def move_batch(batch: Batch, device: th.device) -> Batch:
    """
    Move a batch to a device. The tensors that are on the CPU are moved by one copy, for a GPU from pinned memory.

    :param batch: the batch
    :param device: the device
    :return: the batch on the device
    """
    leaves, structure = tree_flatten(tuple(batch[:-1]))
    places: list[tuple[int, th.Tensor, int]] = []  # the position in the list, the tensor, and its first byte
    n_bytes = 0
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, th.Tensor) and leaf.device.type == "cpu":
            places.append((i, leaf, n_bytes))
            n_bytes += -(-leaf.nbytes // ALIGNMENT) * ALIGNMENT
    # torch reuses pinned memory when the copy from it is finished
    block = th.empty(n_bytes, dtype=th.uint8, pin_memory=device.type == "cuda")
    for _, leaf, first in places:
        _part_of(block, leaf, first).copy_(leaf)
    moved = block.to(device, non_blocking=device.type == "cuda")
    for i, leaf, first in places:
        leaves[i] = _part_of(moved, leaf, first)
    return Batch._make([*tree_unflatten(leaves, structure), batch.indices])


def _part_of(block: th.Tensor, tensor: th.Tensor, first: int) -> th.Tensor:
    """Return the bytes of a block from one on as a tensor like another one."""
    return block[first : first + tensor.nbytes].view(tensor.dtype).view(tensor.shape)


def concatenate_batches(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches along the first axis."""
    if len(batches) == 1:
        return batches[0]

    def concatenate(*parts: PyTorchObs | None) -> Any:
        if parts[0] is None:
            return None
        if isinstance(parts[0], dict):
            return {key: th.cat([part[key] for part in parts]) for key in parts[0]}  # type: ignore[index]
        return th.cat(cast(tuple[th.Tensor, ...], parts))

    *tensors, indices = zip(*batches, strict=True)
    return Batch._make([*(concatenate(*parts) for parts in tensors), np.concatenate(indices)])


def from_sb3(samples: ReplayBufferSamples | DictReplayBufferSamples, gamma: float) -> Batch:
    """
    Convert the samples of any SB3 replay buffer to a batch.

    :param samples: the result of ``ReplayBuffer.sample()``, with (B, 1) actions, rewards, dones and discounts
    :param gamma: the discount factor, for buffers that do not return discounts
    :return: the batch, without weights and indices
    """
    discounts = gamma if samples.discounts is None else samples.discounts
    return Batch(
        observations=samples.observations,
        actions=samples.actions.long().flatten(),
        rewards=samples.rewards.flatten(),
        discounts=((1 - samples.dones) * discounts).flatten(),
        next_observations=samples.next_observations,
        weights=None,
        demonstrations=None,
        indices=np.empty(0, dtype=np.int64),
    )


def to_sb3(batch: Batch, with_discounts: bool) -> ReplayBufferSamples | DictReplayBufferSamples:
    """
    Convert a batch to the samples of an SB3 replay buffer. Importance weights are not converted, as SB3's samples have none.

    :param batch: B transitions
    :param with_discounts: True: the samples contain the discounts; False: their ``discounts`` are None
    :return: the samples, with (B, 1) actions, rewards, dones and discounts. ``dones`` is 1 where the discount is 0
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
