"""The batches of a training: random batches, minibatches, or epochs over all transitions. Shapes: B batch size."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from sb3_dqn_ext.algorithm.batches import Batch, concatenate_batches, from_sb3
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["sample_batch", "training_batches"]

Batches = Iterator[tuple[Batch, int]]
"""Pairs of concatenated batches and the number of updates that they are for."""


def sample_batch(model: Any, batch_size: int, n_batches: int = 1) -> Batch:
    """
    Draw batches from the replay buffer of a model.

    :param model: a DQNExt
    :param batch_size: B
    :param n_batches: the number of batches
    :return: the concatenated batches
    """
    buffer = model.replay_buffer
    if isinstance(buffer, DQNReplayBuffer):
        return buffer.sample_batch(batch_size, model.get_vec_normalize_env(), 1 - model._current_progress_remaining, n_batches)
    samples = (buffer.sample(batch_size, env=model.get_vec_normalize_env()) for _ in range(n_batches))
    return concatenate_batches([from_sb3(some, model.gamma) for some in samples])


def training_batches(
    model: Any, gradient_steps: int, batch_size: int, n_updates_per_call: Callable[[Any, int], int]
) -> Batches:
    """
    Generate the batches of a training.

    :param model: a DQNExt
    :param gradient_steps: the number of batches to draw, unless the model has ``n_epochs``
    :param batch_size: B
    :param n_updates_per_call: a function that returns how many of the remaining updates one call can make
    :return: the batches
    """
    if model.n_epochs is not None:
        return _epoch_batches(model, batch_size, n_updates_per_call)
    if model.minibatch_size is not None:
        return _minibatches(model, gradient_steps, batch_size, n_updates_per_call)
    return _random_batches(model, gradient_steps, batch_size, n_updates_per_call)


def _random_batches(
    model: Any, gradient_steps: int, batch_size: int, n_updates_per_call: Callable[[Any, int], int]
) -> Batches:
    n_left = gradient_steps
    while n_left > 0:
        n_updates = n_updates_per_call(model, n_left)
        yield sample_batch(model, batch_size, n_updates), n_updates
        n_left -= n_updates


def _minibatches(model: Any, gradient_steps: int, batch_size: int, n_updates_per_call: Callable[[Any, int], int]) -> Batches:
    """Split each batch into minibatches of ``minibatch_size`` transitions, each of which is a random part of it."""
    buffer, size = model.replay_buffer, model.minibatch_size
    for _ in range(gradient_steps):
        batch, start = sample_batch(model, batch_size), 0
        if isinstance(buffer, DQNReplayBuffer) and not (buffer.sampler.order_is_random and batch.demonstrations is None):
            batch = batch.select(np.random.permutation(batch_size))
        while start < batch_size:
            n_updates = n_updates_per_call(model, (batch_size - start) // size)
            end = start + n_updates * size
            yield batch.select(slice(start, end)), n_updates
            start = end


def _epoch_batches(model: Any, batch_size: int, n_updates_per_call: Callable[[Any, int], int]) -> Batches:
    """Generate the batches of ``n_epochs`` epochs over all transitions that can be replayed."""
    buffer: DQNReplayBuffer = model.replay_buffer
    groups = [buffer.all_indices()]
    if isinstance(model.policy.optimizer, OptimizerPerHead):
        # the epochs of one head, then those of the next head
        actions = buffer.actions_at(groups[0])
        groups = [groups[0][actions == action] for action in range(model.action_space.n)]
    for indices in groups:
        for _ in range(model.n_epochs):
            yield from buffer.epoch(indices, batch_size, model.get_vec_normalize_env(), partial(n_updates_per_call, model))
