"""Diagnostics change no bit of training, and a run that is interrupted logs the same."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    ExactCheckpointCallback,
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.diagnostics.model_access import (
    state_preserved,
)
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.callbacks.diagnostics.helpers import (
    GROUPS,
    At,
    build,
    everything,
    generators,
    networks_of,
    ours,
    poles,
    shown,
    theirs,
)
from tests.parity import Records, assert_same, assert_same_model, dict_cartpole, learn, short_cartpole


class Restless(gym.Wrapper[Any, Any, Any, Any]):
    """An environment that draws from the generators of the process at every step."""

    def step(self, action: Any) -> Any:
        np.random.rand()
        random.random()
        th.rand(1)
        return super().step(action)


class Moody(FlattenExtractor):
    """A features extractor that draws from the generators of the process in every call."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations) + 0.01 * (np.random.rand() + random.random()) + 0.01 * th.rand(1)


gym.register(
    "tests/Flips-v0",
    entry_point="stable_baselines3.common.envs:BitFlippingEnv",
    kwargs={"n_bits": 6, "continuous": False, "max_steps": 8},
)


def flips(n_envs: int) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(gym.make("tests/Flips-v0"))] * n_envs)


def restless() -> VecEnv:
    return DummyVecEnv([lambda: Monitor(Restless(short_cartpole()))])


RUNS: dict[str, tuple[Any, Callable[[], VecEnv], dict[str, Any]]] = {
    "DQN": (DQN, poles, {}),
    "DQN, 3 environments, n steps": (DQN, lambda: poles(3), {"n_steps": 3}),
    "DQN, normalised": (DQN, lambda: VecNormalize(poles(2)), {}),
    "DQN, in an environment that draws from all generators": (DQN, restless, {}),
    "DQN, with a network that draws from them": (DQN, poles, {"policy_kwargs": {"features_extractor_class": Moody}}),
    "QRDQN": (QRDQN, poles, {}),
    "QRDQN, 3 environments": (QRDQN, lambda: poles(3), {}),
    "DQNExt": (DQNExt, poles, {}),
    "DQNExt, 4 environments, a ladder": (DQNExt, lambda: poles(4), {"exploration": "epsilon_ladder"}),
    "DQNExt, much of it": (
        DQNExt,
        lambda: VecNormalize(poles(2)),
        {
            "n_steps": 3,
            "replay_buffer_kwargs": {"sampler": "prioritized", "terminal_copies": 2},
            "policy_kwargs": {"noisy": True, "returns": "quantile", "head": "dueling"},
            "target_policy": "munchausen",
        },
    ),
    "DQNExt, implicit quantiles, ez_greedy": (
        DQNExt,
        lambda: poles(2),
        {"policy_kwargs": {"returns": "implicit_quantile"}, "exploration": "ez_greedy", "target_policy": "double"},
    ),
    "DQNExt, batch normalisation, realised returns": (
        DQNExt,
        poles,
        {"policy_kwargs": {"batch_norm": True}, "replay_buffer_kwargs": {"monte_carlo": 0.5, "keep_episodes": 6}},
    ),
    "DQNExt, one optimizer for each head": (
        DQNExt,
        poles,
        {"policy_kwargs": {"head": "multi_head", "head_arch": [8], "optimizer_per_head": True}},
    ),
    "DQNExt, rows, half the observations": (
        DQNExt,
        lambda: poles(4),
        {"replay_buffer_kwargs": {"sampler": "vector_steps"}, "optimize_memory_usage": True},
    ),
    "DQNExt, dictionaries": (DQNExt, lambda: DummyVecEnv([lambda: Monitor(dict_cartpole())]), {"policy": "MultiInputPolicy"}),
    "DQN, hindsight": (
        DQN,
        lambda: flips(2),
        {"policy": "MultiInputPolicy", "replay_buffer_class": HerReplayBuffer, "learning_starts": 100},
    ),
    "QRDQN, the buffer of this library": (
        QRDQN,
        lambda: poles(2),
        {"replay_buffer_class": DQNReplayBuffer, "replay_buffer_kwargs": {"terminal_copies": 3}, "train_freq": 4},
    ),
    "DQNExt, categorical, in epochs": (
        DQNExt,
        poles,
        {
            "policy_kwargs": {"returns": "categorical", "returns_kwargs": {"v_min": 0, "v_max": 30}},
            "replay_buffer_kwargs": {"keep_episodes": 3},
            "train_freq": (2, "episode"),
            "n_epochs": 1,
        },
    ),
    "DQN, dictionaries": (DQN, lambda: DummyVecEnv([lambda: Monitor(dict_cartpole())] * 2), {"policy": "MultiInputPolicy"}),
    "DQNExt, stacked": (DQNExt, lambda: VecFrameStack(poles(2), 3), {}),
    "DQNExt, gymnasium's array of poles": (DQNExt, lambda: make_fast_vec_env("CartPole-v1", n_envs=3, seed=3), {}),
    "DQNExt, no target network, boltzmann": (DQNExt, poles, {"target_network": False, "exploration": "boltzmann"}),
}


STEPS = 200  # of a run: for one environment, more than fit into the replay buffer


def diagnosed(name: str, **kwargs: Any) -> tuple[Any, Records]:
    algorithm, env, arguments = RUNS[name]
    model = build(algorithm, env(), **arguments)
    return model, learn(model, STEPS, **kwargs)


@pytest.mark.parametrize("name", RUNS)
def test_switched_on_they_change_no_bit_of_training(name: str) -> None:
    without, plain = diagnosed(name)
    expected = generators(without)
    as_in_training = ValueCalibrationCallback(90, 2, deterministic=False)
    with_all, records = diagnosed(name, callback=[as_in_training, everything()])
    assert_same(generators(with_all), expected, "generators")
    assert_same_model(with_all, without)
    assert_same(theirs(records.rows), theirs(plain.rows), "logged")
    assert ours(plain.rows) == {}
    found = ours(records.rows)
    for key in ("values/mean", "errors/abs_mean", "replay/size", "network/gradient_norm", "exploration/exploratory"):
        assert np.isfinite(found[key]), key
    assert abs(found["calibration/mean_return"]) > 5
    assert isinstance(found["calibration/scatter"], Image)


def test_layers_are_in_evaluation_mode_inside_and_afterwards_as_before(algorithm: Any) -> None:
    model = build(algorithm)
    model.policy.set_training_mode(True)
    networks_of(model)[1].train(False)
    before = [layer.training for layer in model.policy.modules()]
    with state_preserved(model):
        assert not any(layer.training for layer in model.policy.modules())
    assert [layer.training for layer in model.policy.modules()] == before
    assert len(set(before)) == 2


def test_compiled_updates_do_not_change_either(tmp_path: Path) -> None:
    ends, rows = [], []
    for callback in (None, everything()):
        model = build(DQNExt, compile={"unroll": 1})
        rows.append(learn(model, 120, callback=callback).rows)
        assert model.updater.compiled is not None
        ends.append(model)
    assert_same_model(ends[1], ends[0])
    assert_same(theirs(rows[1]), theirs(rows[0]), "logged")
    assert ours(rows[1])["network/gradient_norm"] > 0, "of a batch of its own"
    assert "network/clipped" not in ours(rows[1])
    assert 0 <= ours(rows[1])["exploration/exploratory"] <= 1


def test_images_are_measured_like_other_observations() -> None:
    def envs() -> VecEnv:
        return DummyVecEnv([lambda: Monitor(Pictures())])

    ends = []
    for callback in (None, everything(calibration=False)):
        model = build(DQN, envs(), policy="CnnPolicy", policy_kwargs={"net_arch": [4]}, buffer_size=60)
        found = ours(learn(model, 90, callback=callback).rows)
        ends.append(model)
    assert_same_model(ends[1], ends[0])
    assert 0 <= found["network/dormant"] <= 1
    assert found["network/dormant_4"] >= 0, "three layers of channels, and two of units"


class Pictures(gym.Env[Any, Any]):
    """An environment with pictures of noise, and episodes of nine steps."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.n = 0
        return self.np_random.integers(256, size=(36, 36, 1), dtype=np.uint8), {}

    def step(self, action: Any) -> Any:
        self.n += 1
        return self.np_random.integers(256, size=(36, 36, 1), dtype=np.uint8), 1.0, self.n == 9, False, {}


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("DQNExt", 148),
        ("DQNExt, much of it", 100),
        ("DQNExt, 4 environments, a ladder", 148),
        pytest.param("DQNExt", 100, marks=slow),
        pytest.param("DQNExt, much of it", 148, marks=slow),
        pytest.param("DQNExt, 4 environments, a ladder", 100, marks=slow),
    ],
)
def test_a_resumed_run_logs_what_it_would_have_logged(name: str, at: int, tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[BaseCallback]:
        return [everything(), ExactCheckpointCallback(at, folder)]

    _, records = diagnosed(name, callback=callbacks(tmp_path / "whole"))
    whole = shown(records.rows)

    class Stop(Exception):
        pass

    def stop(model: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        diagnosed(name, callback=[*callbacks(tmp_path / "part"), At(at + 12, stop)])
    _, env, arguments = RUNS[name]
    model = build(DQNExt, env(), **arguments)
    rest = shown(learn(model.resume(tmp_path / "part"), STEPS, callback=callbacks(tmp_path / "part")).rows)
    assert_same(rest, whole[len(whole) - len(rest) :], "logged")
    assert 0 < len(rest) < len(whole)
    assert {key.partition("/")[0] + "/" for row in rest for key in row} > set(GROUPS) - {"video/"}


def test_a_given_evaluation_environment_is_resumed_too(tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[BaseCallback]:
        return [ValueCalibrationCallback(40, 3, eval_env=poles()), ExactCheckpointCallback(100, folder)]

    whole = shown(learn(build(DQNExt), 260, callback=callbacks(tmp_path / "whole")).rows)
    learn(build(DQNExt), 130, callback=callbacks(tmp_path / "part"))
    rest = shown(learn(build(DQNExt).resume(tmp_path / "part"), 260, callback=callbacks(tmp_path / "part")).rows)
    # epsilon falls with the horizon, which was another one
    assert ours(rest).keys() == ours(whole).keys()
