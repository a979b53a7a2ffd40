"""The batches of a training: drawn at random, in parts, or by passes through all transitions. Shape: B transitions."""

from collections.abc import Callable, Iterator
from typing import Any

from sb3_dqn_ext.algorithm.batches import Batch, concatenate_batches, from_sb3
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.replay import DQNReplayBuffer

__all__ = ["sample_batch", "training_batches"]

Batches = Iterator[tuple[Batch, int]]
"""batches, and the number of updates for which each is: one batch after the other where there are several"""


def sample_batch(model: Any, batch_size: int, n_batches: int = 1) -> Batch:
    """
    Draw batches from the replay buffer of a model.

    :param model: a DQNExt
    :param batch_size: B
    :param n_batches: the number of batches
    :return: the batches, one after the other
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
    Choose the batches of a training.

    :param model: a DQNExt
    :param gradient_steps: the number of batches to draw, unless the model has ``n_epochs``
    :param batch_size: B
    :param n_updates_per_call: returns how many of the updates that are left can be made by one call
    :return: the batches
    """
    if model.n_epochs is not None:
        return _epochs(model, batch_size)
    if model.minibatch_size is not None:
        return _parts(model, gradient_steps, batch_size, n_updates_per_call)
    return _random(model, gradient_steps, batch_size, n_updates_per_call)


def _random(model: Any, gradient_steps: int, batch_size: int, n_updates_per_call: Callable[[Any, int], int]) -> Batches:
    n_left = gradient_steps
    while n_left > 0:
        n_updates = n_updates_per_call(model, n_left)
        yield sample_batch(model, batch_size, n_updates), n_updates
        n_left -= n_updates


def _parts(model: Any, gradient_steps: int, batch_size: int, n_updates_per_call: Callable[[Any, int], int]) -> Batches:
    """The parts of ``minibatch_size`` transitions of each batch that is drawn."""
    size = model.minibatch_size
    for _ in range(gradient_steps):
        batch, start = sample_batch(model, batch_size), 0
        while start < batch_size:
            n_updates = n_updates_per_call(model, (batch_size - start) // size)
            end = start + n_updates * size
            yield batch.select(slice(start, end)), n_updates
            start = end


def _epochs(model: Any, batch_size: int) -> Batches:
    """The batches of ``n_epochs`` passes through all transitions that can be replayed."""
    buffer: DQNReplayBuffer = model.replay_buffer
    groups = [buffer.all_indices()]
    if isinstance(model.policy.optimizer, OptimizerPerHead):
        # one head after another
        actions = buffer.actions.take(groups[0])
        groups = [groups[0][actions == action] for action in range(model.action_space.n)]
    for indices in groups:
        for _ in range(model.n_epochs):
            for batch in buffer.epoch(indices, batch_size, model.get_vec_normalize_env()):
                yield batch, 1
