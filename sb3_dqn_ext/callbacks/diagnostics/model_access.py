"""
Access of diagnostics to the networks and the replay buffer of DQNExt, SB3's DQN and sb3-contrib's QRDQN.

Shapes: B batch, A actions. An index of a transition is ``row * n_envs + env``.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_dqn_ext.algorithm.batches import Batch, from_sb3, map_observation
from sb3_dqn_ext.algorithm.predictions import predict
from sb3_dqn_ext.algorithm.td_loss import TDLoss
from sb3_dqn_ext.algorithm.value_models.base import compute_q_values
from sb3_dqn_ext.callbacks.soft_target_update import NETWORK_ATTRIBUTES
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.numpy_forward import make_numpy_q_values
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.observations import gather
from sb3_dqn_ext.rng import rng_preserved

__all__ = [
    "find_networks",
    "is_deterministic",
    "is_offline",
    "q_value_function",
    "q_values",
    "read_observations",
    "read_transitions",
    "reseed",
    "sample_indices",
    "sample_rows",
    "state_preserved",
    "stored_rows",
    "td_errors",
    "terminal_indices",
    "to_network_input",
    "transition_ages",
]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
Obs = Array | dict[str, Array]


KNOWN_LIBRARIES = {"torch", "stable_baselines3", "sb3_contrib", "sb3_dqn_ext"}
"""the libraries whose layers draw no random number in evaluation mode"""


# the model


def find_networks(model: Any, owner: str) -> tuple[nn.Module, nn.Module]:
    """
    Return the online and the target network of a model.

    :param model: a DQN of SB3, sb3-contrib or this package
    :param owner: the name of the callback or function, for the message
    :return: both networks, which may be the same one
    :raises ArgumentError: if the model has none
    """
    for online, target in NETWORK_ATTRIBUTES:
        if isinstance(getattr(model, online, None), nn.Module):
            return getattr(model, online), getattr(model, target)
    raise ArgumentError(f"{owner} needs a DQN or QRDQN, not {type(model).__name__}.")


def q_values(net: nn.Module, observations: PyTorchObs) -> th.Tensor:
    """
    Compute Q-values.

    :param net: an online or target network
    :param observations: (B, \\*obs) inputs of the network
    :return: (B, A) Q-values: the means of quantiles, if the network predicts these
    """
    outputs: th.Tensor = net(observations)  # (B, A), or sb3-contrib's (B, quantiles, A)
    return outputs if outputs.dim() == 2 else outputs.mean(dim=1)


def q_value_function(model: Any, net: nn.Module, n: int) -> Callable[[Any], Array]:
    """
    Make a function that computes the Q-values of observations of environments.

    :param model: the model
    :param net: its online or target network
    :param n: the number of observations in each call
    :return: (n, \\*obs) observations -> (n, A) Q-values. It is valid until the network's parameters move to other memory
    """
    numpy_function = make_numpy_q_values(net, n)  # three times as fast as torch
    if numpy_function is not None:
        return numpy_function

    def torch_function(observations: Any) -> Array:
        q: Array = q_values(net, model.policy.obs_to_tensor(observations)[0]).double().cpu().numpy()
        return q

    return torch_function


def td_errors(model: Any, batch: Batch) -> th.Tensor:
    """
    Compute the TD errors of expected returns, ``r + discount * sum_a pi(a) Q_target(s', a) - Q(s, a)``, where pi is the
    model's target policy, or the greedy one for SB3's and sb3-contrib's algorithms.

    :param model: the model
    :param batch: B transitions
    :return: (B,) target minus prediction
    """
    online, target = find_networks(model, "td_errors")
    predicted = q_values(online, batch.observations).gather(1, batch.actions.unsqueeze(1)).squeeze(1)  # (B,)
    if batch.next_observations is None:
        return batch.rewards - predicted
    updater = getattr(model, "updater", None)
    if updater is None:
        rewards, next_values = batch.rewards, q_values(target, batch.next_observations).max(dim=1).values
    else:
        loss: TDLoss = updater.loss
        params = predict(loss.target_net, batch.next_observations, "target")
        q = compute_q_values(loss.target_net, batch.next_observations, params, loss.returns)  # (B, A)
        pi, rewards = loss.target_policy(batch, loss.online_net, loss.target_net, q)
        next_values = (pi * q).sum(dim=1)
    return rewards + batch.discounts * next_values - predicted


@contextmanager
def state_preserved(model: Any) -> Iterator[None]:
    """
    Restore the random generators of the process and of the model, the state of the exploration, and the modes of all layers at
    the end of the block. Inside the block, layers are in evaluation mode.

    :param model: the model
    """
    in_training = [layer for layer in model.policy.modules() if layer.training]
    for layer in in_training:
        layer.training = False
    exploration = getattr(getattr(model, "choices", None), "exploration", None)
    state = None if exploration is None else exploration.state_dict()
    try:
        with rng_preserved(model):
            yield
    finally:
        if exploration is not None and state is not None:
            exploration.load_state_dict(state)
        for layer in in_training:
            layer.training = True


def is_deterministic(net: nn.Module) -> bool:
    """
    Return whether a network certainly draws no random number.

    :param net: a network in evaluation mode
    :return: True if all its layers are those of torch, SB3, sb3-contrib and this package
    """
    return {type(layer).__module__.partition(".")[0] for layer in net.modules()} <= KNOWN_LIBRARIES


def reseed(model: Any, seed: int) -> None:
    """
    Seed all generators that a model draws from, so that it draws other numbers than training is about to draw. Call this
    function within :func:`state_preserved`.

    :param model: the model
    :param seed: the seed of all generators
    """
    random.seed(seed)
    np.random.seed(seed)
    th.manual_seed(seed)
    model.action_space.seed(seed)
    own = getattr(model, "_generator", None)
    if own is not None:
        own.bit_generator.state = np.random.default_rng(seed).bit_generator.state


# the replay buffer


def is_offline(model: Any) -> bool:
    """
    Return whether a training makes no steps of the environments.

    :param model: the model
    """
    return bool(getattr(getattr(model, "run_state", None), "is_offline", False))


def stored_rows(buffer: ReplayBuffer) -> tuple[int, int]:
    """
    Return the range of complete rows, the newest last.

    :param buffer: a replay buffer
    :return: the first row, and the number of rows; they continue at row 0 after the last row of the buffer
    """
    n_rows = buffer.size()
    first = buffer.pos if buffer.full else 0
    if buffer.full and buffer.optimize_memory_usage:
        # the next observation of the newest row has overwritten the observation of the oldest
        return (first + 1) % buffer.buffer_size, n_rows - 1
    return first, n_rows


def sample_rows(buffer: ReplayBuffer, n: int, generator: np.random.Generator) -> Indices:
    """
    Draw stored rows uniformly.

    :param buffer: a replay buffer
    :param n: the number of draws
    :param generator: the random generator
    :return: (n,) rows; (0,) if no row is stored
    """
    first, n_rows = stored_rows(buffer)
    if n_rows == 0:
        return np.empty(0, dtype=np.int64)
    return (first + generator.integers(n_rows, size=n)) % buffer.buffer_size


def sample_indices(buffer: ReplayBuffer, n: int, generator: np.random.Generator) -> Indices:
    """
    Draw uniformly among the transitions that can be replayed, also where the buffer's own sampler is not uniform.

    :param buffer: a replay buffer
    :param n: the number of draws
    :param generator: the random generator
    :return: (n,) indices; (0,) if no transition can be replayed
    """
    indices = _replayable_indices(buffer)
    if indices is None:
        rows = sample_rows(buffer, n, generator)
        return rows * buffer.n_envs + generator.integers(buffer.n_envs, size=len(rows))
    return indices[generator.integers(len(indices), size=n)] if len(indices) else indices


def terminal_indices(buffer: ReplayBuffer) -> Indices:
    """
    Find the transitions that can be replayed and that terminated an episode, without those of time limits.

    :param buffer: a replay buffer
    :return: (n,) their indices
    """
    ends = np.flatnonzero(buffer.dones > buffer.timeouts)
    indices = _replayable_indices(buffer)
    if indices is not None:
        return np.intersect1d(ends, indices)
    first, n_rows = stored_rows(buffer)
    return ends[(ends // buffer.n_envs - first) % buffer.buffer_size < n_rows]


def _replayable_indices(buffer: ReplayBuffer) -> Indices | None:
    """
    Return the indices of all transitions that can be replayed, except demonstrations, in any order; None if all stored
    transitions can.
    """
    indices = buffer.sampler.replayable() if isinstance(buffer, DQNReplayBuffer) else None
    return None if indices is None else indices[indices < buffer.buffer_size * buffer.n_envs]


def transition_ages(buffer: ReplayBuffer, rows: Array, pos: int | None = None) -> Indices:
    """
    Compute the ages of rows in environment steps, over all environments.

    :param buffer: a replay buffer
    :param rows: (B,) rows of the buffer
    :param pos: the write position of the buffer at the time in question; None (default): the current one
    :return: (B,) ages, 0 for the newest row
    """
    newest = (buffer.pos if pos is None else pos) - 1
    ages: Indices = (newest - rows) % buffer.buffer_size * buffer.n_envs
    return ages


def read_observations(buffer: Any, indices: Indices) -> Obs:
    """
    Read the observations before steps.

    :param buffer: a replay buffer
    :param indices: (B,) indices
    :return: (B, \\*obs) observations as the replay buffer stores them
    """
    if isinstance(buffer, DQNReplayBuffer):
        return buffer.read_observations(indices)
    return gather(buffer.observations, indices)


def read_transitions(model: Any, indices: Indices) -> Batch:
    """
    Read transitions as training does: with n-step returns, and normalised. Call this function within :func:`state_preserved`.

    :param model: the model
    :param indices: (B,) indices. The buffers of SB3 read the row of each index, and choose an environment at random
    :return: B transitions
    """
    buffer, normalize = model.replay_buffer, model._vec_normalize_env
    if isinstance(buffer, DQNReplayBuffer):
        batch = buffer.read(indices, env=normalize)
        # the algorithms of SB3 apply gamma themselves, and give the buffer none
        return batch if buffer.gamma is not None else batch._replace(discounts=model.gamma * batch.discounts)
    # the method of the class: a diagnostic that observes the draws of training replaces the method of the instance
    kind: Any = type(buffer)
    return from_sb3(kind._get_samples(buffer, indices // buffer.n_envs, env=normalize), model.gamma)


def to_network_input(model: Any, observations: Obs) -> PyTorchObs:
    """
    Convert stored observations to inputs of the networks.

    :param model: the model
    :param observations: (B, \\*obs) observations as the replay buffer stores them
    :return: (B, \\*obs) normalised tensors on the device of the model
    """
    buffer = model.replay_buffer
    normalised = buffer._normalize_obs(observations, model._vec_normalize_env)
    return cast(PyTorchObs, map_observation(buffer.to_torch, normalised))
