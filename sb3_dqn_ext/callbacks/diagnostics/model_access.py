"""
What diagnostics read of a model, whichever it is: DQNExt, SB3's DQN or sb3-contrib's QRDQN, with any replay memory.

Shapes: B batch, A actions.
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
from sb3_dqn_ext.algorithm.value_models.base import predict_q_values
from sb3_dqn_ext.callbacks.soft_target_update import NETWORK_ATTRIBUTES
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.fast.numpy_forward import make_numpy_q_values
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.rng import rng_preserved

__all__ = [
    "find_networks",
    "is_deterministic",
    "q_value_function",
    "q_values",
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


# the model


def find_networks(model: Any, owner: str) -> tuple[nn.Module, nn.Module]:
    """
    :param model: a DQN of SB3, sb3-contrib or this package
    :param owner: who asks, for the message
    :return: its online and its target network, which may be the same
    :raises ArgumentError: if it has none
    """
    for online, target in NETWORK_ATTRIBUTES:
        if isinstance(getattr(model, online, None), nn.Module):
            return getattr(model, online), getattr(model, target)
    raise ArgumentError(f"{owner} needs a DQN or QRDQN, not {type(model).__name__}.")


def q_values(net: nn.Module, observations: PyTorchObs) -> th.Tensor:
    """
    :param net: an online or target network
    :param observations: (B, \\*obs)
    :return: (B, A) Q-values: of quantiles, the mean
    """
    answers: th.Tensor = net(observations)  # (B, A), or sb3-contrib's (B, quantiles, A)
    return answers if answers.dim() == 2 else answers.mean(dim=1)


def q_value_function(model: Any, net: nn.Module, n: int) -> Callable[[Any], Array]:
    """
    :param model: the model
    :param net: its online or target network
    :param n: of how many observations it will be asked at a time
    :return: (n, \\*obs) as an environment gives them -> (n, A) Q-values, until the network's parameters are put elsewhere
    """
    by_numpy = make_numpy_q_values(net, n)  # a third of what torch takes
    if by_numpy is not None:
        return by_numpy

    def by_torch(observations: Any) -> Array:
        q: Array = q_values(net, model.policy.obs_to_tensor(observations)[0]).double().cpu().numpy()
        return q

    return by_torch


def td_errors(model: Any, batch: Batch) -> th.Tensor:
    """
    (B,) target minus prediction, of expected returns: ``r + discount * sum_a pi(a) Q_target(s', a) - Q(s, a)``, where pi is
    the model's target policy, or the greedy one for SB3's and sb3-contrib's algorithms.
    """
    online, old = find_networks(model, "td_errors")
    predicted = q_values(online, batch.observations).gather(1, batch.actions.unsqueeze(1)).squeeze(1)  # (B,)
    updater = getattr(model, "updater", None)
    if updater is None:
        rewards, next_values = batch.rewards, q_values(old, batch.next_observations).max(dim=1).values
    else:
        loss: TDLoss = updater.loss
        params = predict(loss.target_net, batch.next_observations, "target")
        q = predict_q_values(loss.target_net, batch.next_observations, params, loss.returns)  # (B, A)
        pi, rewards = loss.target_policy(batch, loss.online_net, loss.target_net, q)
        next_values = (pi * q).sum(dim=1)
    return rewards + batch.discounts * next_values - predicted


@contextmanager
def state_preserved(model: Any) -> Iterator[None]:
    """
    Whatever is drawn inside, all random generators of the process and of the model are afterwards as they were, and all layers
    in the mode they were in; inside, they are in evaluation mode.

    :param model: the model
    """
    in_training = [layer for layer in model.policy.modules() if layer.training]
    for layer in in_training:
        layer.training = False
    try:
        with rng_preserved(model):
            yield
    finally:
        for layer in in_training:
            layer.training = True


def is_deterministic(net: nn.Module) -> bool:
    """
    :param net: a network in evaluation mode
    :return: whether it is known to draw no random number: its layers are those of torch, SB3, sb3-contrib and this package
    """
    return {type(layer).__module__.partition(".")[0] for layer in net.modules()} <= KNOWN_LIBRARIES


def reseed(model: Any, seed: int) -> None:
    """
    Within :func:`undisturbed`: let what a model draws be other numbers than those that training is about to draw.

    :param model: the model
    :param seed: of all its generators
    """
    random.seed(seed)
    np.random.seed(seed)
    th.manual_seed(seed)
    model.action_space.seed(seed)
    own = getattr(model, "_generator", None)
    if own is not None:
        own.bit_generator.state = np.random.default_rng(seed).bit_generator.state


# the replay memory


def stored_rows(memory: ReplayBuffer) -> tuple[int, int]:
    """
    :param memory: a replay memory
    :return: the first row that is whole, and how many there are from there on, the newest last
    """
    n_rows = memory.size()
    first = memory.pos if memory.full else 0
    if memory.full and memory.optimize_memory_usage:
        return (first + 1) % memory.buffer_size, n_rows - 1  # the oldest has lost its own observation
    return first, n_rows


def sample_rows(memory: ReplayBuffer, n: int, generator: np.random.Generator) -> Indices:
    """(n,) stored rows, each with the same probability; none if there are none."""
    first, n_rows = stored_rows(memory)
    if n_rows == 0:
        return np.empty(0, dtype=np.int64)
    return (first + generator.integers(n_rows, size=n)) % memory.buffer_size


def sample_indices(memory: ReplayBuffer, n: int, generator: np.random.Generator) -> Indices:
    """
    (n,) cells ``row * n_envs + env``, each that can be replayed with the same probability, whatever the memory's own sampler
    prefers; none if there are none.
    """
    pool = _pool(memory)
    if pool is None:
        rows = sample_rows(memory, n, generator)
        return rows * memory.n_envs + generator.integers(memory.n_envs, size=len(rows))
    return pool[generator.integers(len(pool), size=n)] if len(pool) else pool


def terminal_indices(memory: ReplayBuffer) -> Indices:
    """(n,) cells whose step ended an episode, other than by a time limit, of those that can be replayed."""
    ends = np.flatnonzero(memory.dones > memory.timeouts)
    pool = _pool(memory)
    if pool is not None:
        return np.intersect1d(ends, pool)
    first, n_rows = stored_rows(memory)
    return ends[(ends // memory.n_envs - first) % memory.buffer_size < n_rows]


def _pool(memory: ReplayBuffer) -> Indices | None:
    """All cells that can be replayed, in no order; None where these are all that are stored."""
    return memory.sampler.replayable() if isinstance(memory, DQNReplayBuffer) else None


def transition_ages(memory: ReplayBuffer, rows: Array, pos: int | None = None) -> Indices:
    """
    :param memory: a replay memory
    :param rows: (B,) of its rows
    :param pos: its write position at the time that is meant; now, if None
    :return: (B,) how many environment steps ago, over all environments, each was stored; 0 for the newest
    """
    newest = (memory.pos if pos is None else pos) - 1
    ages: Indices = (newest - rows) % memory.buffer_size * memory.n_envs
    return ages


def read_transitions(model: Any, cells: Indices) -> Batch:
    """
    Within :func:`undisturbed`: transitions as training reads them: folded over n steps, normalised.

    :param model: the model
    :param cells: (B,) ``row * n_envs + env``; SB3's memories take the row from there, and any environment
    :return: B transitions
    """
    memory, normalize = model.replay_buffer, model._vec_normalize_env
    if isinstance(memory, DQNReplayBuffer):
        batch = memory.read(cells, env=normalize)
        # of an algorithm of SB3, which has told the memory no gamma and applies its own
        return batch if memory.gamma is not None else batch._replace(discounts=model.gamma * batch.discounts)
    # of the class: whoever watches what training draws from this memory is not told
    kind: Any = type(memory)
    return from_sb3(kind._get_samples(memory, cells // memory.n_envs, env=normalize), model.gamma)


def to_network_input(model: Any, observations: Obs) -> PyTorchObs:
    """
    :param model: the model
    :param observations: (B, \\*obs) as they are stored
    :return: (B, \\*obs) as its networks read them
    """
    memory = model.replay_buffer
    normalised = memory._normalize_obs(observations, model._vec_normalize_env)
    return cast(PyTorchObs, map_observation(memory.to_torch, normalised))
