"""The callbacks on SB3's DQN, sb3-contrib's QRDQN and DQNExt."""

import csv
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.schedules import LinearSchedule
from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks import (
    EpsilonScheduleCallback,
    SoftTargetUpdateCallback,
    StopTrainingOnEpisode,
    StopTrainingOnMeanReturn,
)
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.errors import ArgumentError
from tests.paths import ROOT

Algorithm = Callable[..., Any]


@pytest.fixture(params=[DQN, QRDQN, DQNExt], ids=lambda algorithm: algorithm.__name__)
def algorithm(request: pytest.FixtureRequest) -> Any:
    return request.param


class BatchNorm(BaseFeaturesExtractor):
    """A features extractor with batch normalisation, whose running statistics are no parameters."""

    def __init__(self, observation_space: gym.spaces.Box) -> None:
        super().__init__(observation_space, features_dim=4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        normed: th.Tensor = self.norm(observations)
        return normed


class Observer(BaseCallback):
    """A callback that calls a function with the model at each step."""

    def __init__(self, observe: Callable[[Any], None]) -> None:
        super().__init__()
        self.observe = observe

    def _on_step(self) -> bool:
        self.observe(self.model)
        return True


def cartpoles(n_envs: int = 1, **kwargs: Any) -> VecEnv:
    return make_vec_env("CartPole-v1", n_envs=n_envs, seed=0, **kwargs)


def build(algorithm: Algorithm, env: VecEnv | None = None, **kwargs: Any) -> Any:
    """Make a small model whose weights change within a few steps."""
    policy_kwargs: dict[str, Any] = {"net_arch": [4]} | kwargs.pop("policy_kwargs", {})
    if algorithm is QRDQN:
        policy_kwargs["n_quantiles"] = 3
    defaults: dict[str, Any] = {"buffer_size": 100, "learning_starts": 8, "batch_size": 4, "train_freq": 2, "seed": 0}
    return algorithm(
        "MlpPolicy", env or cartpoles(), learning_rate=0.05, device="cpu", policy_kwargs=policy_kwargs, **(defaults | kwargs)
    )


def networks(model: Any) -> tuple[nn.Module, nn.Module]:
    if isinstance(model, QRDQN):
        return model.quantile_net, model.quantile_net_target
    return model.q_net, model.q_net_target


def weights(network: nn.Module) -> np.ndarray[Any, Any]:
    return np.concatenate([parameter.detach().numpy().ravel().astype(np.float64) for parameter in network.parameters()])


# SoftTargetUpdateCallback


@pytest.mark.parametrize(("every", "n_envs", "calls"), [(1, 1, 1), (3, 1, 3), (1, 2, 1), (5, 2, 2)])
def test_the_target_is_the_polyak_average_of_the_online_weights(
    algorithm: Algorithm, every: int, n_envs: int, calls: int
) -> None:
    model = build(algorithm, cartpoles(n_envs))
    online_weights: list[np.ndarray[Any, Any]] = []
    expected = weights(networks(model)[1])
    observer = Observer(lambda model: online_weights.append(weights(networks(model)[0])))
    model.learn(40 * n_envs, callback=[SoftTargetUpdateCallback(0.1, every), observer])
    assert len(online_weights) == 40
    for online in online_weights[calls - 1 :: calls]:
        expected = 0.9 * expected + 0.1 * online
    np.testing.assert_allclose(weights(networks(model)[1]), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(online_weights[-1] - online_weights[0]).max() > 0.1


@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_bits_are_those_of_tau_and_interval_of_the_model(algorithm: Algorithm, n_envs: int) -> None:
    """The target network has the running statistics of batch normalisation, too."""

    def run(tau: float, interval: int, *callbacks: BaseCallback) -> dict[str, th.Tensor]:
        policy_kwargs = {"features_extractor_class": BatchNorm}
        env = cartpoles(n_envs)
        model = build(algorithm, env, tau=tau, target_update_interval=interval, policy_kwargs=policy_kwargs)
        for reset in (True, False):  # the count of steps continues
            model.learn(23 * n_envs, [*callbacks], reset_num_timesteps=reset)
        state: dict[str, th.Tensor] = model.policy.state_dict()
        return state

    theirs, ours = run(0.3, 5), run(1.0, 2, SoftTargetUpdateCallback(0.3, every=5))
    assert any("running_mean" in name for name in theirs)
    for name, tensor in theirs.items():
        assert th.equal(ours[name], tensor), name


def test_the_updates_of_the_model_rest_during_the_run_only(algorithm: Algorithm) -> None:
    model = build(algorithm, target_update_interval=4)
    start = weights(networks(model)[1])
    during: set[int] = set()
    callback = SoftTargetUpdateCallback(0.0)
    model.learn(30, callback=[callback, Observer(lambda model: during.add(model.target_update_interval))])
    np.testing.assert_array_equal(weights(networks(model)[1]), start)
    assert during == {4}, "what a callback saves is the model's own"
    assert model.target_update_interval == 4
    callback.on_training_end()  # the zoo ends the training of its first callback a second time
    assert model.target_update_interval == 4
    model.learn(30)
    assert np.abs(weights(networks(model)[1]) - start).max() > 0.01


def test_a_run_that_broke_off_does_not_lose_the_interval(algorithm: Algorithm) -> None:
    def break_off(model: Any) -> None:
        raise KeyboardInterrupt

    model, other = build(algorithm, target_update_interval=4), build(algorithm, target_update_interval=7)
    callback = SoftTargetUpdateCallback(0.1)
    with pytest.raises(KeyboardInterrupt):
        model.learn(10, callback=[callback, Observer(break_off)])
    other.learn(10, callback)
    assert other.target_update_interval == 7
    model.learn(10, callback)
    assert model.target_update_interval == 4


def test_a_model_saved_in_the_middle_of_the_run_goes_on(algorithm: Any, tmp_path: Path) -> None:
    def save(model: Any) -> None:
        if model.num_timesteps == 20:
            model.save(tmp_path / "model")
            saved.append(weights(networks(model)[1]))

    saved: list[np.ndarray[Any, Any]] = []
    build(algorithm, target_update_interval=4).learn(30, callback=[SoftTargetUpdateCallback(0.1), Observer(save)])
    loaded = algorithm.load(tmp_path / "model", env=cartpoles())
    np.testing.assert_array_equal(weights(networks(loaded)[1]), saved[0])
    loaded.learn(20, SoftTargetUpdateCallback(0.1))
    assert loaded.target_update_interval == 4
    assert not np.array_equal(weights(networks(loaded)[1]), saved[0])


def test_a_model_without_a_target_network_is_refused() -> None:
    with pytest.raises(ArgumentError, match="A2C has no target network"):
        A2C("MlpPolicy", cartpoles(), device="cpu").learn(10, SoftTargetUpdateCallback(0.1))
    with pytest.raises(ArgumentError, match="The target network of DQNExt is its online network"):
        build(DQNExt, target_network=False).learn(10, SoftTargetUpdateCallback(0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": -0.1}, "tau=-0.1"),
        ({"tau": 1.1}, "tau=1.1"),
        ({"tau": math.nan}, "tau=nan"),
        ({"tau": 0.1, "every": 0}, "every=0"),
        ({"tau": 0.1, "every": 1.5}, "every=1.5"),
    ],
)
def test_a_soft_update_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SoftTargetUpdateCallback(**arguments)


# EpsilonScheduleCallback

EPSILONS: list[tuple[Any, Callable[[int], float]]] = [
    (0.25, lambda step: 0.25),
    ({"name": "linear", "start": 1.0, "end": 0.2, "end_fraction": 0.5}, lambda step: max(1.0 - 0.04 * step, 0.2)),
    ({"name": "exponential", "start": 0.9, "end": 0.1, "rate": 0.1}, lambda step: 0.1 + 0.8 / math.e ** (step / 10)),
    ({"name": "multiplicative", "start": 0.8, "end": 0.05, "factor": 0.5}, lambda step: max(0.8 / 2**step, 0.05)),
    (
        {"name": "piecewise", "points": [[10, 1.0], [20, 0.5], [30, 0.0]]},
        lambda step: 1.0 if step < 10 else max(1.5 - 0.05 * step, 0.0),
    ),
]


@pytest.mark.parametrize(
    ("schedule", "expected"), EPSILONS, ids=["constant", "linear", "exponential", "multiplicative", "piecewise"]
)
@pytest.mark.parametrize("n_envs", [1, 2])
def test_epsilon_is_the_value_worked_out_by_hand_at_every_step(
    algorithm: Algorithm, schedule: Any, expected: Callable[[int], float], n_envs: int
) -> None:
    model = build(algorithm, cartpoles(n_envs))
    own = model.exploration_schedule
    seen: list[float] = []  # the epsilon with which each action was chosen
    callback = EpsilonScheduleCallback(schedule)
    model.learn(40, callback=[callback, Observer(lambda model: seen.append(model.exploration_rate))])
    assert seen == pytest.approx([expected(step) for step in range(0, 40, n_envs)], rel=1e-12)
    assert model.exploration_rate == pytest.approx(expected(40), rel=1e-12)
    assert model.exploration_schedule is own
    callback.on_training_end()
    assert model.exploration_schedule is own


def test_epsilon_goes_on_when_the_count_of_steps_does(algorithm: Algorithm) -> None:
    model = build(algorithm)
    seen: list[float] = []
    callback = EpsilonScheduleCallback(LinearSchedule(1.0, 0.0))
    for reset in (True, False):
        model.learn(10, [callback, Observer(lambda model: seen.append(model.exploration_rate))], reset_num_timesteps=reset)
    # 10 steps of a run of 10, then the last 10 steps of a run of 20
    assert seen == pytest.approx([1.0 - step / 10 for step in range(10)] + [1.0 - step / 20 for step in range(10, 20)])


def test_a_model_saved_in_the_middle_of_a_schedule_is_loaded(algorithm: Any, tmp_path: Path) -> None:
    def save(model: Any) -> None:
        if model.num_timesteps == 21:
            model.save(tmp_path / "model")

    model = build(algorithm)
    model.learn(40, callback=[EpsilonScheduleCallback(EPSILONS[2][0]), Observer(save)])
    loaded = algorithm.load(tmp_path / "model", env=cartpoles())
    assert loaded.exploration_rate == pytest.approx(EPSILONS[2][1](20), rel=1e-12)
    assert type(loaded.exploration_schedule) is type(model.exploration_schedule)
    seen: list[float] = []
    epsilon = EpsilonScheduleCallback(EPSILONS[2][0])
    loaded.learn(10, [epsilon, Observer(lambda model: seen.append(model.exploration_rate))], reset_num_timesteps=False)
    assert seen == pytest.approx([EPSILONS[2][1](step) for step in range(21, 31)], rel=1e-12)


def test_a_schedule_of_a_run_that_broke_off_does_not_stay(algorithm: Algorithm) -> None:
    def break_off(model: Any) -> None:
        raise KeyboardInterrupt

    model = build(algorithm)
    own = model.exploration_schedule
    callback = EpsilonScheduleCallback(0.5)
    with pytest.raises(KeyboardInterrupt):
        model.learn(10, callback=[callback, Observer(break_off)])
    model.learn(10, callback)
    assert model.exploration_schedule is own


def test_learn_takes_no_steps_and_a_float_of_steps(algorithm: Algorithm) -> None:
    model = build(algorithm)
    model.learn(0, EpsilonScheduleCallback(LinearSchedule(0.9, 0.1)))
    assert model.exploration_rate == 0.9
    model.learn(10.0, EpsilonScheduleCallback(LinearSchedule(0.9, 0.1)))
    assert model.exploration_rate == pytest.approx(0.1)


def test_a_model_that_does_not_explore_by_a_schedule_is_refused() -> None:
    with pytest.raises(ArgumentError, match="A2C has no exploration schedule"):
        A2C("MlpPolicy", cartpoles(), device="cpu").learn(10, EpsilonScheduleCallback(0.1))


def test_a_schedule_that_cannot_be_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'exponential'"):
        EpsilonScheduleCallback({"name": "exp"})


# StopTrainingOnMeanReturn


def recorded_episodes(folder: Path, n_envs: int) -> list[tuple[int, int, float]]:
    """Return (calls of env.step until its end, env, return) of each episode in monitor.csv, in the order of their ends."""
    episodes = []
    for env in range(n_envs):
        with open(folder / f"{env}.monitor.csv") as file:
            file.readline()
            calls = 0
            for row in csv.DictReader(file):
                calls += int(row["l"])
                episodes.append((calls, env, float(row["r"])))
    return sorted(episodes)


@pytest.mark.parametrize(("n_envs", "window", "threshold"), [(1, 1, 40.0), (1, 4, 30.0), (3, 2, 50.0), (3, 6, 36.0)])
def test_training_stops_at_the_first_episode_that_makes_the_mean(
    algorithm: Algorithm, n_envs: int, window: int, threshold: float, tmp_path: Path
) -> None:
    model = build(algorithm, cartpoles(n_envs, monitor_dir=str(tmp_path)), learning_starts=10**6)  # random actions
    model.learn(5000, StopTrainingOnMeanReturn(threshold, window))
    model.env.close()
    episodes = recorded_episodes(tmp_path, n_envs)
    returns = [episode[2] for episode in episodes]
    means = [sum(returns[end - window : end]) / window for end in range(window, len(returns) + 1)]
    reached = [mean >= threshold for mean in means]
    assert 0 < reached.index(True) < 200
    stopping = episodes[window - 1 + reached.index(True)]
    assert model.num_timesteps == stopping[0] * n_envs
    assert [episode for episode in episodes if episode[0] > stopping[0]] == []


def test_a_stop_is_reported(tmp_path: Path) -> None:
    model = build(DQN, cartpoles(monitor_dir=str(tmp_path)))
    model.set_logger(configure(str(tmp_path), ["log", "csv"]))
    model.learn(500, StopTrainingOnMeanReturn(threshold=0, window=2), log_interval=10**6)
    model.env.close()
    model.logger.close()
    returns = [episode[2] for episode in recorded_episodes(tmp_path, 1)]
    assert len(returns) == 2
    with open(tmp_path / "progress.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["rollout/stopped_at_mean_return"]) == np.mean(returns)
    report = (tmp_path / "log.txt").read_text()
    assert f"Stopped after {model.num_timesteps} steps" in report
    assert f"of the last 2 episodes is {np.mean(returns):.2f}, the threshold 0.00" in report


def test_training_goes_on_below_the_threshold() -> None:
    model = build(DQN)
    model.learn(200, StopTrainingOnMeanReturn(threshold=1000, window=1))
    assert model.num_timesteps == 200


def test_a_new_run_begins_with_an_empty_window() -> None:
    callback = StopTrainingOnMeanReturn(threshold=0, window=3)
    steps = [build(DQN).learn(500, callback).num_timesteps for _ in range(2)]
    assert steps[0] == steps[1] > 3


def test_an_episode_without_a_monitor_is_named_once() -> None:
    model = build(DQN, DummyVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=5)]))
    with pytest.warns(UserWarning, match="without a record by SB3's Monitor") as warnings:
        model.learn(30, CallbackList([StopTrainingOnMeanReturn(threshold=1, window=1)]))
    assert len(warnings) == 1
    assert model.num_timesteps == 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": math.inf, "window": 1}, "threshold=inf"),
        ({"threshold": "475", "window": 1}, "threshold='475'"),
        ({"threshold": 475, "window": 0}, "window=0"),
        ({"threshold": 475, "window": 2.5}, "window=2.5"),
        ({"threshold": 475, "window": True}, "window=True"),
    ],
)
def test_a_stop_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        StopTrainingOnMeanReturn(**arguments)


# StopTrainingOnEpisode


@pytest.mark.parametrize(
    ("asked", "is_enough"),
    [
        ({"min_return": 40}, lambda length: length >= 40),
        ({"min_length": 45}, lambda length: length >= 45),
        ({"max_length": 9}, lambda length: length <= 9),
        ({"min_length": 12, "max_length": 13}, lambda length: 12 <= length <= 13),
    ],
    ids=["return", "long", "short", "between"],
)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_training_stops_at_the_first_episode_within_the_limits(
    algorithm: Algorithm, asked: dict[str, Any], is_enough: Callable[[int], bool], n_envs: int, tmp_path: Path
) -> None:
    model = build(algorithm, cartpoles(n_envs, monitor_dir=str(tmp_path)), learning_starts=10**6)  # random actions
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(6000, StopTrainingOnEpisode(**asked), log_interval=10**6)
    model.env.close()
    model.logger.close()
    episodes = recorded_episodes(tmp_path, n_envs)
    calls, _, length = next(episode for episode in episodes if is_enough(int(episode[2])))  # a reward of 1 at every step
    assert model.num_timesteps == calls * n_envs < 6000
    assert episodes[-1][0] == calls > 10
    with open(tmp_path / "progress.csv") as file:
        (row,) = csv.DictReader(file)
    assert float(row["rollout/stopped_at_length"]) == float(row["rollout/stopped_at_return"]) == length


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs one of min_return, min_length and max_length"),
        ({"min_return": math.nan}, "min_return=nan"),
        ({"min_length": 0}, "min_length=0"),
        ({"max_length": 1.5}, "max_length=1.5"),
        ({"min_length": 10, "max_length": 9}, "min_length=10 must not be more than max_length=9"),
    ],
)
def test_an_episode_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        StopTrainingOnEpisode(**arguments)


ZOO = """
import yaml
from rl_zoo3.utils import get_callback_list

callbacks = get_callback_list(yaml.safe_load('''
callback:
  - sb3_dqn_ext.callbacks.StopTrainingOnMeanReturn: {threshold: 475, window: 100}
  - sb3_dqn_ext.callbacks.StopTrainingOnEpisode: {max_length: 199}
  - sb3_dqn_ext.callbacks.SoftTargetUpdateCallback: {tau: 0.005}
  - sb3_dqn_ext.callbacks.EpsilonScheduleCallback:
      schedule: {name: piecewise, points: [[0, 1.0], [1000, 0.05]]}
'''))
print(*(type(callback).__name__ for callback in callbacks))
"""


def test_the_zoo_builds_the_callbacks_from_its_yaml() -> None:
    # In its own process, as importing the zoo replaces gymnasium's TimeLimit.
    output = subprocess.run([sys.executable, "-c", ZOO], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert output.split() == [
        "StopTrainingOnMeanReturn",
        "StopTrainingOnEpisode",
        "SoftTargetUpdateCallback",
        "EpsilonScheduleCallback",
    ]


def test_callbacks_that_others_hold_are_found_once_each() -> None:
    inner, outer = EvalCallback(make_vec_env("CartPole-v1")), ExactCheckpointCallback(10, "folder")
    every = EveryNTimesteps(5, outer)
    inner.held = [outer, {"no": "callback"}]  # type: ignore[attr-defined]
    found = list(all_callbacks([CallbackList([inner, every]), outer]))
    assert [type(one) for one in found] == [CallbackList, EvalCallback, ExactCheckpointCallback, EveryNTimesteps]
    assert list(all_callbacks(None)) == []
