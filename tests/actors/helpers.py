"""Models with actors, and what their replay buffers contain."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext import DQNExt
from tests.actors import envs  # noqa: F401  registers the environments

SMALL: dict[str, Any] = {
    "learning_starts": 100,
    "buffer_size": 20_000,
    "batch_size": 16,
    "seed": 0,
    "device": "cpu",
    "policy_kwargs": {"net_arch": [8]},
}


def make_model(env_id: str = "serial/Serial-v0", actors: dict[str, Any] | None = None, **arguments: Any) -> DQNExt:
    """
    Make a model with actors.

    :param env_id: the id of its environment
    :param actors: arguments of the actors, beside two actors and blocks of 20 steps
    :param arguments: arguments of DQNExt
    """
    of_actors = {"n_actors": 2, "block_size": 20, **(actors or {})}
    policy = arguments.pop("policy", "MlpPolicy")
    return DQNExt(policy, gym.make(env_id), actors=of_actors, **(SMALL | arguments))


@contextmanager
def time_limit(seconds: int = 60) -> Iterator[None]:
    """
    Fail after a time: the typical fault is to wait forever for a process that has ended.

    :param seconds: the time
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it waited for more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def is_alive(process: int) -> bool:
    """Return whether there is a process with an id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class KeepPool(BaseCallback):
    """A callback that keeps a reference to the actors, which the model loses at the end of the run."""

    pool: Any = None

    def _on_step(self) -> bool:
        self.pool = self.model.run_state.actor_pool  # type: ignore[attr-defined]
        return True


def own_indices(model: DQNExt) -> Any:
    """Return the indices of the stored transitions that can be replayed, oldest first."""
    buffer: Any = model.replay_buffer
    found = buffer.sampler.replayable()
    return np.sort(np.arange(buffer.size() * buffer.n_envs) if found is None else found)
