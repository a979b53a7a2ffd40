"""Runs two algorithms side by side and compares everything they end with, bit by bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

Env = gym.Env[Any, Any] | VecEnv
ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class Records(KVWriter):
    """Keeps every logged value but the times."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append({"step": step} | {key: value for key, value in key_values.items() if not key.startswith("time/")})

    def close(self) -> None:
        pass


def short_cartpole(limit: int = 20) -> gym.Env[Any, Any]:
    """CartPole whose episodes are ended by falls and by the time limit alike."""
    return gym.make("CartPole-v1", max_episode_steps=limit)


class InParts(gym.ObservationWrapper[dict[str, Any], Any, Any]):
    """CartPole's observation as a dictionary of two vectors and a number of choices."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        part = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = gym.spaces.Dict(cart=part, pole=part, side=gym.spaces.Discrete(2))

    def observation(self, observation: Any) -> dict[str, Any]:
        return {"cart": observation[:2], "pole": observation[2:], "side": int(observation[2] > 0)}


def dict_cartpole() -> gym.Env[Any, Any]:
    return InParts(short_cartpole())


def several_cartpoles(n_envs: int = 4, wrapper: Callable[[Any], gym.Env[Any, Any]] = lambda env: env) -> VecEnv:
    return DummyVecEnv([lambda: wrapper(short_cartpole())] * n_envs)


def learn(model: DQN, steps: int, **kwargs: Any) -> Records:
    records = Records()
    model.set_logger(Logger(folder=None, output_formats=[records]))
    model.learn(steps, log_interval=1, **kwargs)
    return records


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    """The same numbers, to the last bit, in nested dictionaries and lists."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key in ours:
            assert_same(ours[key], theirs[key], f"{where}[{key!r}]")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), where
        for i, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(our, their, f"{where}[{i}]")
    elif isinstance(ours, th.Tensor):
        assert ours.dtype == theirs.dtype, where
        assert th.equal(ours, theirs), where
    else:
        np.testing.assert_array_equal(ours, theirs, err_msg=where, strict=isinstance(ours, np.ndarray))


def assert_same_replay_buffer(ours: ReplayBuffer, theirs: ReplayBuffer) -> None:
    assert (ours.pos, ours.full, ours.buffer_size) == (theirs.pos, theirs.full, theirs.buffer_size)
    for name in ARRAYS:
        if hasattr(theirs, name):
            assert_same(getattr(ours, name), getattr(theirs, name), name)


def assert_same_model(ours: DQN, theirs: DQN) -> None:
    """Weights, target weights, optimizer state, counters, replay memory (the chosen actions among it)."""
    assert_same(ours.get_parameters(), theirs.get_parameters(), "parameters")
    for name in ("num_timesteps", "_n_updates", "_n_calls", "_episode_num", "exploration_rate"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.replay_buffer is not None
    assert theirs.replay_buffer is not None
    assert_same_replay_buffer(ours.replay_buffer, theirs.replay_buffer)


def assert_same_run(
    make: Callable[[type[DQN]], DQN], ours: type[DQN], steps: int = 400, continue_from: Path | None = None
) -> tuple[DQN, DQN]:
    """
    Train both, compare; save, load and train on, compare again.

    :param make: makes a model of a class
    :param ours: the class that must equal SB3's DQN
    :param steps: how long to train
    :param continue_from: where to save in the middle, if at all
    """
    models, records = [], []
    for algorithm in (ours, DQN):
        model = make(algorithm)
        records.append(learn(model, steps).rows)
        if continue_from is not None:
            model.save(continue_from / algorithm.__name__)
            model = algorithm.load(continue_from / algorithm.__name__, env=make(algorithm).get_env())
            records[-1] += learn(model, steps, reset_num_timesteps=False).rows
        models.append(model)
    assert models[1]._n_updates > 0
    assert any("train/loss" in row for row in records[1])
    assert_same_model(*models)
    assert_same(records[0], records[1], "logged")
    return models[0], models[1]
