"""Evaluation environments, which are made like those of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.atari_wrappers import AtariWrapper, WarpFrame
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_dqn_ext.callbacks import (
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import make_eval_env
from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.callbacks.diagnostics.helpers import build, everything, ours, poles
from tests.closed_form_env import ID, Chain, model_with_true_values
from tests.parity import dict_cartpole, learn


def wrapped(n: int = 1) -> VecEnv:
    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = TerminalPenalty(Monitor(gym.make("CartPole-v1", max_episode_steps=33)), reward=-7.0)
        return env

    return DummyVecEnv([make] * n)


@pytest.mark.parametrize(
    "make",
    [
        wrapped,
        lambda: SubprocVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=33)] * 2, "fork"),
        lambda: VecFrameStack(VecNormalize(wrapped(2), clip_obs=3.0), 4),
        lambda: make_fast_vec_env("CartPole-v1", n_envs=2),
    ],
    ids=["wrappers", "processes", "normalised and stacked", "fast"],
)
def test_another_environment_is_made_like_those_of_training(make: Callable[[], VecEnv]) -> None:
    training = make()
    other = make_eval_env(training, 3, "somebody")
    assert other.num_envs == 3
    assert other.observation_space == training.observation_space
    names: list[list[str]] = []
    for env in (training, other):
        layers = []
        while hasattr(env, "venv"):
            layers.append(type(env).__name__)
            env = env.venv
        names.append(layers)
    assert names[0] == names[1]
    training.seed(5)
    other.seed(5)
    training.reset()
    if isinstance(training, VecFrameStack):
        normalised: Any = training.venv
        assert other.venv.clip_obs == 3  # type: ignore[attr-defined]
        normalised.training = False
    first: Any = other.reset()
    assert first.shape == (3, *(training.observation_space.shape or ()))
    rewards = []
    while True:
        _, reward, done, _ = other.step(np.ones(3, int))
        rewards.append(float(reward[0]))
        if done[0]:
            break
    if training.observation_space.shape != (4,) or isinstance(training, DummyVecEnv):
        assert rewards[-1] == -7, "the penalty"
    assert set(rewards[:-1]) == {1.0}
    training.close()
    other.close()


def layers_of(env: Any) -> list[str]:
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return names


def test_another_environment_writes_no_files_and_opens_no_window(tmp_path: Path) -> None:
    def recorded() -> gym.Env[Any, Any]:
        env = gym.make("CartPole-v1", render_mode="rgb_array", sutton_barto_reward=True)
        return gym.wrappers.RecordVideo(gym.wrappers.RenderCollection(env), str(tmp_path / "videos"))

    training = DummyVecEnv([recorded])
    other = make_eval_env(training, 1, "somebody")
    assert not {"RecordVideo", "RenderCollection"} & set(layers_of(other.envs[0]))  # type: ignore[attr-defined]
    assert other.envs[0].unwrapped._sutton_barto_reward  # type: ignore[attr-defined]
    watched = DummyVecEnv([lambda: gym.make("CartPole-v1", render_mode="human")])
    assert make_eval_env(watched, 2, "somebody").get_attr("render_mode") == [None, None]
    assert make_eval_env(watched, 1, "somebody", render_mode="rgb_array").get_attr("render_mode") == ["rgb_array"]


def wrapped_cartpole(**kwargs: Any) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = TerminalPenalty(Monitor(gym.make("CartPole-v1", **kwargs).unwrapped), reward=-7.0)
    return env


gym.register("tests/Wrapped-v0", entry_point=wrapped_cartpole, max_episode_steps=9)


def test_wrappers_of_the_environment_itself_are_not_put_on_twice() -> None:
    def around() -> gym.Env[Any, Any]:
        env = gym.make("tests/Wrapped-v0", disable_env_checker=True)
        return gym.wrappers.DtypeObservation(gym.wrappers.ClipReward(env, -3, 3), np.float64)

    training = DummyVecEnv([around])
    other = make_eval_env(training, 1, "somebody")
    assert layers_of(other.envs[0]) == layers_of(training.envs[0])  # type: ignore[attr-defined]
    assert "Monitor" in layers_of(other.envs[0])  # type: ignore[attr-defined]


class Colours(gym.Env[Any, Any]):
    """An environment with pictures like those of Atari."""

    observation_space = gym.spaces.Box(0, 255, (60, 50, 3), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "LEFT", "RIGHT"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action: Any) -> Any:
        return self.observation_space.low, 5.0, False, False, {}


gym.register("tests/Colours-v0", entry_point=f"{__name__}:Colours", max_episode_steps=30)


def test_the_arguments_of_sb3s_wrappers_of_atari_are_found() -> None:
    def game() -> gym.Env[Any, Any]:
        env = gym.make("tests/Colours-v0", disable_env_checker=True)
        return AtariWrapper(env, 4, 3, 40, terminal_on_life_loss=False, action_repeat_probability=0.25)

    flat = DummyVecEnv([lambda: WarpFrame(gym.make("tests/Colours-v0"), width=40, height=30)])
    assert make_eval_env(flat, 1, "somebody").observation_space.shape == (30, 40, 1)
    training = VecFrameStack(DummyVecEnv([game]), 2)
    other = make_eval_env(training, 2, "somebody")
    assert other.observation_space == training.observation_space
    assert other.observation_space.shape == (40, 40, 2)
    (alone,), (found, _) = (layers_of(env) for env in training.envs), (layers_of(env) for env in other.envs)  # type: ignore[attr-defined]
    assert [name for name in alone if name != "AtariWrapper"] == found
    for name in ("noop_max", "_skip", "action_repeat_probability", "width", "height"):
        assert other.get_attr(name) == training.get_attr(name) * 2, name
    other.reset()
    assert other.step(np.zeros(2))[1].tolist() == [1, 1], "clipped"


def test_another_environment_is_normalised_and_stacked_as_that_of_training() -> None:
    stacked = VecFrameStack(DummyVecEnv([lambda: gym.make("tests/Colours-v0")]), 2, "first")
    assert make_eval_env(stacked, 1, "somebody").observation_space.shape == (120, 50, 3)
    keys: dict[str, Any] = {"norm_obs_keys": ["cart"], "epsilon": 0.5, "norm_obs": True}
    other: Any = make_eval_env(VecNormalize(DummyVecEnv([dict_cartpole]), **keys), 1, "somebody")
    assert {name: getattr(other, name) for name in keys} == keys
    assert not other.training
    assert not other.norm_reward


class Secretive(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that does not record its argument."""

    def __init__(self, env: gym.Env[Any, Any], secret: int) -> None:
        super().__init__(env)


def test_where_none_can_be_made_the_message_names_eval_env() -> None:
    env = DummyVecEnv([lambda: Secretive(gym.make(ID), 3)])
    message = (
        r"ValueCalibrationCallback cannot make .* the wrapper Secretive does not record its arguments .* secret\. .* eval_env"
    )
    with pytest.raises(ArgumentError, match=message):
        learn(model_with_true_values(DQN, env=env), 10, callback=ValueCalibrationCallback())
    with pytest.raises(ArgumentError, match=r"they were not made by gymnasium\.make\. Give it an eval_env"):
        learn(model_with_true_values(DQN, env=Chain()), 10, callback=ValueCalibrationCallback())


class Only:
    """A class that contains a wrapper, which no entry point can name."""

    class Here(gym.Wrapper[Any, Any, Any, Any]):
        pass


@pytest.mark.parametrize("env", [Chain, lambda: Only.Here(gym.make(ID))], ids=["made by hand", "a class within a class"])
def test_the_sensible_set_does_without_it_then(env: Callable[[], Any]) -> None:
    callback = everything(calibration=None)
    with pytest.warns(UserWarning, match=r"Values are not compared with returns\. ValueCalibrationCallback cannot make"):
        found = ours(learn(model_with_true_values(DQN, env=env()), 100, callback=callback).rows)
    assert "values/mean" in found
    assert not any(key.startswith("calibration") for key in found)


def test_an_environment_of_another_kind_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"The eval_env of ValueCalibrationCallback must have the spaces"):
        learn(build(DQN), 10, callback=ValueCalibrationCallback(eval_env=gym.make("Acrobot-v1")))
    own = poles()
    with pytest.raises(ArgumentError, match=r"must not be the environment of training, which it would disturb"):
        learn(build(DQN, own), 10, callback=ValueCalibrationCallback(eval_env=VecFrameStack(own, 1)))
    with pytest.raises(ArgumentError, match=r"must not be the environment of training"):
        learn(build(DQN, own), 10, callback=ValueCalibrationCallback(eval_env=own.envs[0]))  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match=r"such as VecNormalize"):
        learn(build(DQN, VecNormalize(poles())), 10, callback=ValueCalibrationCallback(eval_env=poles()))
