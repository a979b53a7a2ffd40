"""The diagnostics on SB3's DQN, sb3-contrib's QRDQN and DQNExt."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from stable_baselines3 import A2C, DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Image, Logger, configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    DiagnosticsCallback,
    EpisodeVideoCallback,
    ExactCheckpointCallback,
    ExplorationCallback,
    NetworkHealthCallback,
    QValuesCallback,
    ReplayHealthCallback,
    TDErrorsCallback,
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.diagnostics.evaluation import another_env
from sb3_dqn_ext.callbacks.diagnostics.reading import drawn_cells, td_errors, transitions, undisturbed
from sb3_dqn_ext.choices import ArgumentError
from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.closed_form_env import ALGORITHMS, GAMMA, ID, Chain, N, knowing_model, true_values
from tests.parity import Records, assert_same, assert_same_model, dict_cartpole, learn, short_cartpole

GROUPS = ("values/", "errors/", "replay/", "network/", "exploration/", "calibration/", "video/")


@pytest.fixture(params=ALGORITHMS, ids=lambda algorithm: algorithm.__name__)
def algorithm(request: pytest.FixtureRequest) -> Any:
    return request.param


def poles(n_envs: int = 1, limit: int = 20) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(short_cartpole(limit))] * n_envs)


def build(algorithm: Any, env: VecEnv | None = None, **kwargs: Any) -> Any:
    policy_kwargs: dict[str, Any] = {"net_arch": [16, 8]} | kwargs.pop("policy_kwargs", {})
    if algorithm is QRDQN:
        policy_kwargs["n_quantiles"] = 5
    defaults: dict[str, Any] = {
        "policy": "MlpPolicy",
        "buffer_size": 120,
        "learning_starts": 20,
        "batch_size": 8,
        "train_freq": 2,
        "target_update_interval": 20,
        "learning_rate": 1e-2,
        "seed": 0,
        "device": "cpu",
    }
    if not kwargs.get("target_network", True):
        del defaults["target_update_interval"]
    return algorithm(env=env or poles(), policy_kwargs=policy_kwargs, **(defaults | kwargs))


def everything(**kwargs: Any) -> DiagnosticsCallback:
    often: dict[str, Any] = {name: {"every": 30} for name in ("values", "errors", "replay", "network", "exploration")}
    return DiagnosticsCallback(**(often | {"calibration": {"every": 60, "n_episodes": 3}} | kwargs))


def theirs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is logged without diagnostics."""
    return [{key: value for key, value in row.items() if not key.startswith(GROUPS)} for row in rows]


def ours(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last that was logged of each diagnostic."""
    return {key: value for row in rows for key, value in row.items() if key.startswith(GROUPS)}


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with pictures as arrays."""
    return [{key: of.image if isinstance(of, Image) else of for key, of in row.items()} for row in rows]


class At(BaseCallback):
    """Calls a function with the model at one step, before all is done that belongs to it."""

    def __init__(self, step: int, look: Callable[[Any], None]) -> None:
        super().__init__()
        self.step, self.look = step, look

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            self.look(self.model)
        return True


# nothing of training changes


class Restless(gym.Wrapper[Any, Any, Any, Any]):
    """Draws from the generators of the whole process at every step."""

    def step(self, action: Any) -> Any:
        np.random.rand()
        random.random()
        th.rand(1)
        return super().step(action)


class Moody(FlattenExtractor):
    """Draws from the generators of the whole process whenever it is asked."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations) + 0.01 * (np.random.rand() + random.random()) + 0.01 * th.rand(1)


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
    "DQNExt, rows, half the memory": (
        DQNExt,
        lambda: poles(4),
        {"replay_buffer_kwargs": {"sampler": "rows"}, "optimize_memory_usage": True},
    ),
    "DQNExt, dictionaries": (DQNExt, lambda: DummyVecEnv([lambda: Monitor(dict_cartpole())]), {"policy": "MultiInputPolicy"}),
    "DQN, dictionaries": (DQN, lambda: DummyVecEnv([lambda: Monitor(dict_cartpole())] * 2), {"policy": "MultiInputPolicy"}),
    "DQNExt, stacked": (DQNExt, lambda: VecFrameStack(poles(2), 3), {}),
    "DQNExt, gymnasium's array of poles": (DQNExt, lambda: make_fast_vec_env("CartPole-v1", n_envs=3, seed=3), {}),
    "DQNExt, no target network, boltzmann": (DQNExt, poles, {"target_network": False, "exploration": "boltzmann"}),
}


def diagnosed(name: str, **kwargs: Any) -> tuple[Any, Records]:
    algorithm, env, arguments = RUNS[name]
    model = build(algorithm, env(), **arguments)
    return model, learn(model, 260, **kwargs)


def generators(model: Any) -> list[Any]:
    own = getattr(model, "_generator", None)
    return [
        random.random(),
        np.random.rand(),
        th.rand(1),
        None if own is None else own.random(),
        int(model.action_space.sample()),
        [layer.training for layer in model.policy.modules()],
    ]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("deterministic", [True, False], ids=["greedy", "as in training"])
def test_switched_on_they_change_no_bit_of_training(name: str, deterministic: bool) -> None:
    without, plain = diagnosed(name)
    expected = generators(without)
    calibration = {"every": 60, "n_episodes": 3, "deterministic": deterministic}
    with_all, records = diagnosed(name, callback=everything(calibration=calibration))
    assert_same(generators(with_all), expected, "generators")
    assert_same_model(with_all, without)
    assert_same(theirs(records.rows), theirs(plain.rows), "logged")
    assert ours(plain.rows) == {}
    found = ours(records.rows)
    for key in ("values/mean", "errors/abs_mean", "replay/size", "network/gradient_norm", "exploration/exploratory"):
        assert np.isfinite(found[key]), key
    assert found["calibration/mean_return"] > 5
    assert isinstance(found["calibration/scatter"], Image)


def test_compiled_updates_do_not_change_either(tmp_path: Path) -> None:
    ends, rows = [], []
    for callback in (None, everything()):
        model = build(DQNExt, compile={"unroll": 1})
        rows.append(learn(model, 120, callback=callback).rows)
        assert model._compiled is not None
        ends.append(model)
    assert_same_model(ends[1], ends[0])
    assert_same(theirs(rows[1]), theirs(rows[0]), "logged")
    assert ours(rows[1])["network/gradient_norm"] > 0, "of a batch of its own"
    assert "network/clipped" not in ours(rows[1])
    assert 0 <= ours(rows[1])["exploration/exploratory"] <= 1


def test_images_are_looked_at_like_the_rest() -> None:
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
    """Shows noise; its episodes have nine steps."""

    observation_space = gym.spaces.Box(0, 255, (36, 36, 1), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.n = 0
        return self.np_random.integers(256, size=(36, 36, 1), dtype=np.uint8), {}

    def step(self, action: Any) -> Any:
        self.n += 1
        return self.np_random.integers(256, size=(36, 36, 1), dtype=np.uint8), 1.0, self.n == 9, False, {}


# a run that is interrupted logs the same


@pytest.mark.parametrize("name", ["DQNExt", "DQNExt, much of it", "DQNExt, 4 environments, a ladder"])
@pytest.mark.parametrize("at", [100, 148])
def test_a_run_that_goes_on_logs_what_it_would_have_logged(name: str, at: int, tmp_path: Path) -> None:
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
    rest = shown(learn(model.resume(tmp_path / "part"), 260, callback=callbacks(tmp_path / "part")).rows)
    assert_same(rest, whole[len(whole) - len(rest) :], "logged")
    assert 0 < len(rest) < len(whole)
    assert {key.partition("/")[0] + "/" for row in rest for key in row} > set(GROUPS) - {"video/"}


def test_an_evaluation_environment_that_was_given_goes_on_too(tmp_path: Path) -> None:
    def callbacks(folder: Path) -> list[BaseCallback]:
        return [ValueCalibrationCallback(40, 3, eval_env=poles()), ExactCheckpointCallback(100, folder)]

    whole = shown(learn(build(DQNExt), 260, callback=callbacks(tmp_path / "whole")).rows)
    learn(build(DQNExt), 130, callback=callbacks(tmp_path / "part"))
    rest = shown(learn(build(DQNExt).resume(tmp_path / "part"), 260, callback=callbacks(tmp_path / "part")).rows)
    # epsilon falls with the horizon, which was another one
    assert ours(rest).keys() == ours(whole).keys()


# ValueCalibrationCallback


def calibrated(model: Any, **kwargs: Any) -> dict[str, Any]:
    records = learn(model, 60, callback=ValueCalibrationCallback(40, **({"n_episodes": 24} | kwargs)))
    return {key.removeprefix("calibration/"): value for key, value in ours(records.rows).items()}


def test_true_values_are_calibrated(algorithm: Any) -> None:
    found = calibrated(knowing_model(algorithm))
    assert found["bias"] == pytest.approx(0, abs=1e-5)
    assert found["slope"] == pytest.approx(1, abs=1e-5)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)
    for part in range(1, 6):
        assert found[f"error_{part}_of_5"] == pytest.approx(0, abs=1e-5)
    # episodes that begin in s earn s + 1 + ... + 6
    sums = [sum(range(s + 1, N + 1)) for s in range(N)]
    assert min(sums) < found["mean_return"] < max(sums)
    assert found["realised"] == pytest.approx(found["predicted"], abs=1e-5)


def test_values_that_are_all_too_high_have_that_bias(algorithm: Any) -> None:
    found = calibrated(knowing_model(algorithm, shift=2.5))
    assert found["bias"] == pytest.approx(2.5, abs=1e-5)
    assert found["slope"] == pytest.approx(1, abs=1e-5)


def test_values_that_are_twice_as_large_have_half_the_slope(algorithm: Any) -> None:
    found = calibrated(knowing_model(algorithm, scale=2.0))
    assert found["slope"] == pytest.approx(0.5, abs=1e-5)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)
    assert found["bias"] == pytest.approx(found["realised"], abs=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"max_steps": 2}], ids=["a time limit", "max_steps"])
def test_what_is_cut_off_is_worth_what_the_last_observation_is(algorithm: Any, kwargs: dict[str, Any]) -> None:
    def env() -> gym.Env[Any, Any]:
        return gym.make(ID, max_episode_steps=None if kwargs else 2)

    found = calibrated(knowing_model(algorithm, env=env()), **kwargs)
    assert found["bias"] == pytest.approx(0, abs=1e-5)
    assert found["mean_return"] < 12, "at most 5 + 6"
    shifted = calibrated(knowing_model(algorithm, shift=1.0, env=env()), **kwargs)
    assert 0 < shifted["bias"] <= 1 + 1e-5


def test_where_time_limits_are_ends_they_are_here_too() -> None:
    """Only what is earned in two steps counts: 4 + 0.9 * 5 from the fourth state on, and so on."""
    ends = {"handle_timeout_termination": False}
    found = calibrated(knowing_model(DQN, env=gym.make(ID, max_episode_steps=2), replay_buffer_kwargs=ends))
    assert found["realised"] < found["predicted"] - 1


def test_the_same_numbers_with_few_environments_that_were_given(algorithm: Any) -> None:
    given = DummyVecEnv([lambda: gym.make(ID, max_episode_steps=3)] * 2)
    found = calibrated(knowing_model(algorithm, shift=-1.0), eval_env=given, n_episodes=7)
    assert -1 - 1e-5 <= found["bias"] < 0
    assert len(given.reset()) == 2, "it is still open"


def test_normalised_rewards_are_compared_in_their_own_unit() -> None:
    """The values of rewards that are divided by 10, say, are a tenth."""

    def env() -> VecNormalize:
        normalised = VecNormalize(DummyVecEnv([lambda: gym.make(ID)]), norm_obs=False, gamma=GAMMA)
        normalised.ret_rms.var, normalised.ret_rms.count = np.array(100.0), 1e12
        return normalised

    found = calibrated(knowing_model(DQN, env=env(), scale=0.1))
    assert found["bias"] == pytest.approx(0, abs=1e-4)
    assert found["mean_return"] > 6, "as the environment gives them"


def test_values_of_the_policy_in_training_are_compared_if_one_asks() -> None:
    """At epsilon 1 half of the actions end the episode at once, which the true values do not expect."""
    kwargs: dict[str, Any] = {"exploration_initial_eps": 1.0, "exploration_final_eps": 1.0}
    assert calibrated(knowing_model(DQN, **kwargs))["bias"] == pytest.approx(0, abs=1e-5)
    assert calibrated(knowing_model(DQN, **kwargs), deterministic=False)["bias"] > 1


def test_the_picture_has_the_points_on_its_diagonal() -> None:
    from sb3_dqn_ext.callbacks.diagnostics.pictures import BLUE, MARGIN, SIDE, scatter

    picture = scatter(np.repeat([0.0, 1.0], 200), np.repeat([0.0, 1.0], 200), "")
    dark = np.argwhere((np.abs(picture.astype(int) - BLUE).sum(axis=2)) < 30)
    inside = dark - MARGIN
    assert {(int(y > SIDE / 2), int(x > SIDE / 2)) for y, x in inside} == {(0, 1), (1, 0)}


# other environments like those of training


def wrapped(n: int = 1) -> VecEnv:
    def make() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any] = TerminalPenalty(Monitor(gym.make("CartPole-v1", max_episode_steps=33)), reward=-7.0)
        return env

    return DummyVecEnv([make] * n)


@pytest.mark.parametrize(
    "make",
    [
        wrapped,
        lambda: SubprocVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=33)] * 2),
        lambda: VecFrameStack(VecNormalize(wrapped(2), clip_obs=3.0), 4),
        lambda: make_fast_vec_env("CartPole-v1", n_envs=2),
    ],
    ids=["wrappers", "processes", "normalised and stacked", "fast"],
)
def test_another_environment_is_made_like_those_of_training(make: Callable[[], VecEnv]) -> None:
    training = make()
    other = another_env(training, 3, "somebody")
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


class Secretive(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps a secret of its argument."""

    def __init__(self, env: gym.Env[Any, Any], secret: int) -> None:
        super().__init__(env)


def test_where_none_can_be_made_the_message_names_eval_env() -> None:
    env = DummyVecEnv([lambda: Secretive(gym.make(ID), 3)])
    message = (
        r"ValueCalibrationCallback cannot make .* the wrapper Secretive does not record its arguments .* secret\. .* eval_env"
    )
    with pytest.raises(ArgumentError, match=message):
        learn(knowing_model(DQN, env=env), 10, callback=ValueCalibrationCallback())
    with pytest.raises(ArgumentError, match=r"they were not made by gymnasium\.make\. Give it an eval_env"):
        learn(knowing_model(DQN, env=Chain()), 10, callback=ValueCalibrationCallback())


def test_the_sensible_set_does_without_it_then() -> None:
    callback = everything(calibration=None)
    with pytest.warns(UserWarning, match=r"Values are not compared with returns\. ValueCalibrationCallback cannot make"):
        found = ours(learn(knowing_model(DQN, env=Chain()), 100, callback=callback).rows)
    assert "values/mean" in found
    assert not any(key.startswith("calibration") for key in found)


def test_an_environment_of_another_kind_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"The eval_env of ValueCalibrationCallback must have the spaces"):
        learn(build(DQN), 10, callback=ValueCalibrationCallback(eval_env=gym.make("Acrobot-v1")))
    with pytest.raises(ArgumentError, match=r"such as VecNormalize"):
        learn(build(DQN, VecNormalize(poles())), 10, callback=ValueCalibrationCallback(eval_env=poles()))


# QValuesCallback


def test_values_are_those_of_the_states_in_memory(algorithm: Any) -> None:
    found = ours(learn(knowing_model(algorithm), 60, callback=QValuesCallback(50)).rows)
    q = true_values()
    assert q[:, 1].min() - 1e-5 <= found["values/mean"] <= q[:, 1].max() + 1e-5
    assert found["values/min"] == pytest.approx(0, abs=1e-5)
    assert found["values/max"] == pytest.approx(q.max(), abs=1e-5)
    assert found["values/spread"] == pytest.approx(found["values/mean"], abs=1e-5)
    assert found["values/action_gap"] == pytest.approx(found["values/mean"], abs=1e-5)
    assert found["values/target_outputs"] > 0
    assert found["values/histogram"].shape == (512,)


def test_the_target_is_as_far_away_as_its_parameters(algorithm: Any) -> None:
    model = build(algorithm)
    records = learn(model, 118, callback=[QValuesCallback(60), At(60, lambda model: distances.append(apart(model)))])
    found = ours(records.rows)
    assert found["values/target_parameters"] == pytest.approx(distances[0], rel=1e-5)


distances: list[float] = []


def apart(model: Any) -> float:
    """Over all parameters, one number after the other."""
    online, target = (
        (model.quantile_net, model.quantile_net_target) if isinstance(model, QRDQN) else (model.q_net, model.q_net_target)
    )
    total = 0.0
    for some, others in zip(online.parameters(), target.parameters(), strict=True):
        for one, other in zip(some.flatten().tolist(), others.flatten().tolist(), strict=True):
            total += (one - other) ** 2
    distances.clear()
    return float(total**0.5)


def test_churn_is_seen_where_the_greedy_actions_were_changed() -> None:
    def swap(model: Any) -> None:
        with th.no_grad():
            weight = model.q_net.q_net[0].weight
            weight[:, :3] = weight[[1, 0], :3].clone()  # the other action is the best in states 0, 1 and 2

    callback = QValuesCallback(20)
    model = knowing_model(DQN)
    rows = learn(model, 70, callback=[callback, At(50, swap)]).rows
    churns = [row["values/churn"] for row in rows if "values/churn" in row]
    states = callback._states.argmax(axis=1)
    assert churns[0] == 0
    assert churns[-1] == pytest.approx((states < 3).mean())


# TDErrorsCallback


def brute_force(model: Any, cells: list[int]) -> list[float]:
    """The TD error of each cell by itself, from the arrays of the memory and single calls of the networks."""
    memory = model.replay_buffer
    n = getattr(memory, "n_steps", 1)
    online, target = (
        (model.quantile_net, model.quantile_net_target) if isinstance(model, QRDQN) else (model.q_net, model.q_net_target)
    )

    def values(net: Any, observation: Any) -> Any:
        with th.no_grad():
            answer = net(th.as_tensor(observation[None]))
        return (answer.mean(dim=1) if answer.dim() == 3 else answer)[0].numpy().astype(np.float64)

    errors = []
    for cell in cells:
        row, env = divmod(cell, memory.n_envs)
        total, discount = 0.0, 1.0
        for k in range(n):
            at = (row + k) % memory.buffer_size
            total += discount * float(memory.rewards[at, env])
            discount *= model.gamma
            newest = at == (memory.pos - 1) % memory.buffer_size
            if memory.dones[at, env] or newest:
                break
        if memory.dones[at, env] and not memory.timeouts[at, env]:
            discount = 0.0
        best = values(target, memory.next_observations[at, env]).max()
        action = int(memory.actions[row, env, 0])
        errors.append(total + discount * best - values(online, memory.observations[row, env])[action])
    return errors


@pytest.mark.parametrize(
    ("algorithm", "arguments"),
    [
        (DQN, {}),
        (QRDQN, {}),
        (DQNExt, {}),
        (DQNExt, {"n_steps": 3}),
        (DQN, {"n_steps": 3}),
        (DQNExt, {"policy_kwargs": {"returns": "quantile"}, "replay_buffer_kwargs": {"sampler": "prioritized"}}),
    ],
    ids=["DQN", "QRDQN", "DQNExt", "DQNExt n steps", "DQN n steps", "quantiles"],
)
def test_errors_are_those_of_the_arrays(algorithm: Any, arguments: dict[str, Any]) -> None:
    model = build(algorithm, **arguments)
    learn(model, 150)
    cells = drawn_cells(model.replay_buffer, 40, np.random.default_rng(0))
    with undisturbed(model), th.no_grad():
        found = td_errors(model, transitions(model, cells)).numpy()
    np.testing.assert_allclose(found, brute_force(model, cells.tolist()), rtol=1e-4, atol=1e-4)


def test_true_values_have_no_errors(algorithm: Any) -> None:
    model = knowing_model(algorithm)
    for one, other in zip(*(net.parameters() for net in networks_of(model)), strict=True):
        other.data.copy_(one.data)
    found = ours(learn(model, 120, callback=TDErrorsCallback(100)).rows)
    assert found["errors/abs_max"] < 1e-4
    assert found["errors/terminal"] < 1e-4
    assert found["errors/bootstrapped"] < 1e-4
    assert found["errors/histogram"].shape == (512,)
    assert {f"errors/age_{i}_of_4" for i in range(1, 5)} < found.keys()


def networks_of(model: Any) -> tuple[Any, Any]:
    if isinstance(model, QRDQN):
        return model.quantile_net, model.quantile_net_target
    return model.q_net, model.q_net_target


def test_a_rare_end_is_looked_for(algorithm: Any) -> None:
    """Only the transitions that end an episode are wrong: by 5."""
    model = build(algorithm, poles(2, limit=500), learning_starts=10**6, gamma=0.5)
    for net in networks_of(model):
        for parameter in net.parameters():
            parameter.data.zero_()
        last = [layer for layer in net.modules() if isinstance(layer, th.nn.Linear)][-1]
        last.bias.data.fill_(2.0)  # one for each step, discounted

    def make_worse(model: Any) -> None:
        memory = model.replay_buffer
        memory.rewards[memory.dones > 0] = 7

    rows = learn(model, 170, callback=[At(80, make_worse), TDErrorsCallback(90, batch_size=2)]).rows
    found = ours(rows)
    assert found["errors/terminal"] == pytest.approx(5, abs=1e-5)
    assert found["errors/abs_max"] in (pytest.approx(0, abs=1e-5), pytest.approx(5, abs=1e-5))


def test_prioritized_draws_are_described_by_their_probabilities() -> None:
    model = build(
        DQNExt, replay_buffer_kwargs={"sampler": "prioritized", "terminal_copies": 3, "sampler_kwargs": {"beta": 0.5}}
    )
    seen: list[dict[str, float]] = []

    def look(model: Any) -> None:
        sampler = model.replay_buffer.sampler
        there = [cell for cell in range(120) if sampler._tree[np.array([cell])][0] > 0]
        copies = np.array([3 if ended(model.replay_buffer, cell) else 1 for cell in there])
        shares = copies * sampler._tree[np.array(there)]
        drawn = np.bincount(np.searchsorted(np.cumsum(shares) / shares.sum(), np.random.default_rng(0).random(200_000)))
        frequencies = drawn / drawn.sum()
        seen.append(
            {
                "effective_sample_size": 1 / float((frequencies**2).sum()),
                "largest_weight": float(((frequencies / copies * copies.sum()).min()) ** -model_beta(model)),
            }
        )

    found = ours(learn(model, 150, callback=[At(140, look), TDErrorsCallback(140)]).rows)
    assert found["errors/beta"] == pytest.approx(0.5 + 0.5 * 139 / 150)
    assert found["errors/effective_sample_size"] == pytest.approx(seen[0]["effective_sample_size"], rel=0.02)
    assert found["errors/largest_weight"] == pytest.approx(seen[0]["largest_weight"], rel=0.2)
    assert found["errors/effective_share"] == pytest.approx(found["errors/effective_sample_size"] / 120)


def model_beta(model: Any) -> float:
    return float(0.5 + 0.5 * (1 - model._current_progress_remaining))


def ended(memory: ReplayBuffer, cell: int) -> bool:
    return bool(memory.dones[cell, 0] and not memory.timeouts[cell, 0])


# ReplayHealthCallback


class Noted(ReplayBuffer):
    """Notes the rows that are drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted: list[tuple[list[int], int, list[float]]] = []

    def sample(self, batch_size: int, env: Any = None) -> Any:
        state = np.random.get_state()
        rows = np.random.randint(0, self.buffer_size if self.full else self.pos, size=batch_size)
        np.random.set_state(state)
        samples = super().sample(batch_size, env)
        self.noted.append((rows.tolist(), self.pos, samples.dones.flatten().tolist()))
        return samples


@pytest.mark.parametrize("n_envs", [1, 3])
def test_ages_are_those_of_what_was_drawn(n_envs: int) -> None:
    model = build(DQN, poles(n_envs), replay_buffer_class=Noted, train_freq=1)
    upto: list[Any] = []

    def look(model: Any) -> None:
        upto.extend(model.replay_buffer.noted[-64:])

    found = ours(learn(model, 390, callback=[ReplayHealthCallback(300), At(300, look)]).rows)
    n_rows = model.replay_buffer.buffer_size
    ages = [n_envs * ((pos - 1 - row) % n_rows) for rows, pos, _ in upto for row in rows]
    assert found["replay/age_mean"] == pytest.approx(np.mean(ages))
    assert found["replay/age_median"] == np.median(ages)
    assert found["replay/age_max"] == max(ages)
    assert found["replay/terminal_sampled"] == pytest.approx(np.mean([dones for *_, dones in upto]))
    assert found["replay/size"] == n_rows * n_envs
    assert found["replay/fill"] == 1


def test_what_other_diagnostics_read_is_not_taken_for_training(algorithm: Any) -> None:
    found = []
    for others in ([], [TDErrorsCallback(10), NetworkHealthCallback(10)]):
        rows = learn(build(algorithm), 150, callback=[*others, ReplayHealthCallback(100)]).rows
        found.append({key: value for key, value in ours(rows).items() if key.startswith("replay/")})
    assert_same(found[1], found[0], "replay")


def test_the_memory_of_this_library_is_watched_as_well_as_that_of_sb3() -> None:
    stock = ours(learn(build(DQN), 300, callback=ReplayHealthCallback(100)).rows)
    same = ours(learn(build(DQNExt), 300, callback=ReplayHealthCallback(100)).rows)
    assert stock.keys() == same.keys()
    for key in stock:
        if key != "replay/terminal_sampled":  # where rows were written over since, it sees what is there now
            assert_same(same[key], stock[key], key)
    assert same["replay/terminal_sampled"] == pytest.approx(stock["replay/terminal_sampled"], abs=0.1)


def test_the_share_of_ends_and_the_rewards_are_those_that_are_stored(algorithm: Any) -> None:
    model = build(algorithm, poles(2))
    stored: list[Any] = []

    def look(model: Any) -> None:
        memory = model.replay_buffer
        ends = [bool(d and not t) for d, t in zip(memory.dones.flat, memory.timeouts.flat, strict=True)]
        stored.append((sum(ends[: 2 * memory.size()]) / (2 * memory.size()), memory.rewards[: memory.size()].copy()))

    found = ours(learn(model, 100, callback=[ReplayHealthCallback(80), At(80, look)]).rows)
    share, rewards = stored[0]
    assert found["replay/terminal_stored"] == pytest.approx(share)
    assert found["replay/reward_mean"] == pytest.approx(rewards.mean())
    np.testing.assert_array_equal(found["replay/rewards"].numpy(), rewards.ravel())


def test_a_memory_that_is_saved_meanwhile_is_itself_again(algorithm: Any, tmp_path: Path) -> None:
    model = build(algorithm)

    def save(model: Any) -> None:
        model.save_replay_buffer(tmp_path / "memory.pkl")
        model.save(tmp_path / "model.zip")

    learn(model, 100, callback=[everything(), At(90, save)])
    with open(tmp_path / "memory.pkl", "rb") as file:
        memory = pickle.load(file)
    for of in (memory, model.replay_buffer):
        np.random.seed(0)
        of.sample(5)
    name = "_read" if algorithm is DQNExt else "_get_samples"
    assert name not in vars(model.replay_buffer), "the run is over"
    assert getattr(memory, name).__self__ is memory
    assert algorithm.load(tmp_path / "model.zip").num_timesteps == 90


def test_two_that_watch_the_same_memory_leave_it_as_it_was() -> None:
    model = build(DQN)
    rows = learn(model, 100, callback=[ReplayHealthCallback(50), ReplayHealthCallback(50)]).rows
    assert ours(rows)["replay/age_mean"] > 0
    assert "_get_samples" not in vars(model.replay_buffer)


# NetworkHealthCallback


@pytest.mark.parametrize("max_grad_norm", [0.3, 1000.0])
@pytest.mark.parametrize("stock", [DQN, QRDQN], ids=["DQN", "QRDQN"])
def test_norms_are_those_that_the_gradients_have_before_they_are_clipped(
    stock: Any, max_grad_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, float]] = []
    clip = th.nn.utils.clip_grad_norm_
    model = build(stock, gradient_steps=2, max_grad_norm=max_grad_norm)

    def noted(*args: Any, **kwargs: Any) -> th.Tensor:
        norm = clip(*args, **kwargs)
        seen.append((model.num_timesteps, norm.item()))
        return norm

    monkeypatch.setattr(th.nn.utils, "clip_grad_norm_", noted)
    found = ours(learn(model, 210, callback=NetworkHealthCallback(200, batch_size=50)).rows)
    # from step 196 on, before the training after it
    norms = [norm for step, norm in seen if 196 <= step < 200]
    assert len(norms) == 4
    assert found["network/gradient_norm"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert found["network/gradient_norm_max"] == pytest.approx(max(norms), rel=1e-5)
    assert found["network/clipped"] == pytest.approx(np.mean([norm > max_grad_norm for norm in norms]))
    assert (found["network/clipped"] > 0) == (max_grad_norm < 1)


def test_the_norms_of_dqnext_are_those_of_dqn() -> None:
    found = [ours(learn(build(algorithm), 210, callback=NetworkHealthCallback(100)).rows) for algorithm in (DQN, DQNExt)]
    for key in ("network/gradient_norm", "network/clipped", "network/weight_norm", "network/dormant", "network/feature_rank"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-6), key


def test_updates_that_are_rare_are_waited_for() -> None:
    """One training in 100 steps, and a look every 40, which watches the last of them."""
    rows = learn(build(DQN, train_freq=100, learning_starts=0), 260, callback=NetworkHealthCallback(40)).rows
    assert ours(rows)["network/gradient_norm"] > 0


def test_units_that_were_put_to_sleep_are_found(algorithm: Any) -> None:
    model = build(algorithm, learning_starts=10**6)

    def put_to_sleep(model: Any) -> None:
        first, second, _ = (layer for layer in networks_of(model)[0].modules() if isinstance(layer, th.nn.Linear))
        with th.no_grad():
            for layer, n_asleep in ((first, 5), (second, 4)):
                layer.bias.fill_(10.0)
                layer.bias[:n_asleep] = -1000.0  # of 16, of 8

    rows = learn(model, 90, callback=[At(50, put_to_sleep), NetworkHealthCallback(80)]).rows
    found = ours(rows)
    assert found["network/dormant"] == pytest.approx(9 / 24)
    assert (found["network/dormant_1"], found["network/dormant_2"]) == (pytest.approx(5 / 16), pytest.approx(4 / 8))
    assert 1 <= found["network/feature_rank"] <= 4, "of 8, of which 4 are silent"
    assert found["network/feature_rank_share"] == found["network/feature_rank"] / 8


def test_the_weights_are_measured_together_and_one_by_one(algorithm: Any) -> None:
    model = build(algorithm, learning_starts=10**6)
    found = ours(learn(model, 60, callback=NetworkHealthCallback(50)).rows)
    norms = [value for key, value in found.items() if key.startswith("network/norm_of_")]
    parameters = list(networks_of(model)[0].parameters())
    assert sorted(norms) == pytest.approx(sorted(float(np.linalg.norm(one.detach().numpy())) for one in parameters))
    assert found["network/weight_norm"] == pytest.approx(np.sqrt(np.square(norms).sum()))
    assert "network/gradient_norm" not in found, "there were no updates"


# ExplorationCallback


@pytest.mark.parametrize(("epsilon", "low", "high"), [(0.0, 0.0, 0.0), (1.0, 0.3, 0.7)])
def test_exploratory_is_what_is_not_greedy(algorithm: Any, epsilon: float, low: float, high: float) -> None:
    eps = {"exploration_initial_eps": epsilon, "exploration_final_eps": epsilon}
    model = build(algorithm, poles(4), learning_starts=0, buffer_size=20_000, train_freq=100, **eps)
    found = ours(learn(model, 4 * 128 * 20 + 40, callback=ExplorationCallback(4 * 128 * 20)).rows)
    assert low <= found["exploration/exploratory"] <= high
    assert found["exploration/epsilon"] == epsilon


def test_actions_are_counted_since_the_last_look(algorithm: Any) -> None:
    counts: list[Any] = []
    model = build(algorithm, poles(2))

    def look(model: Any) -> None:
        memory = model.replay_buffer
        counts.append(memory.actions[memory.pos - 25 : memory.pos].ravel().copy())  # those after the look at 50

    found = ours(learn(model, 110, callback=[ExplorationCallback(50), At(100, look)]).rows)
    assert found["exploration/action_1"] == pytest.approx(counts[0].mean())
    assert found["exploration/action_0"] + found["exploration/action_1"] == pytest.approx(1)
    assert sorted(found["exploration/actions"].tolist()) == sorted(counts[0].tolist())


def test_a_ladder_has_an_epsilon_for_each_environment() -> None:
    kwargs: dict[str, Any] = {"exploration": "epsilon_ladder", "exploration_kwargs": {"schedule": 0.4}}
    found = ours(learn(build(DQNExt, poles(3), **kwargs), 90, callback=ExplorationCallback(60)).rows)
    assert [found[f"exploration/epsilon_{i}"] for i in range(3)] == pytest.approx([0.4, 0.4**4.5, 0.4**8])


def test_a_temperature_is_no_epsilon() -> None:
    found = ours(learn(build(DQNExt, exploration="boltzmann"), 90, callback=ExplorationCallback(60)).rows)
    assert found["exploration/temperature"] == 1
    assert "exploration/epsilon" not in found


def test_visited_states_are_drawn_where_they_lie(algorithm: Any) -> None:
    callback = ExplorationCallback(200, cells=30)
    env = DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0"))] * 2)
    model = build(algorithm, env, buffer_size=2000)
    found = ours(learn(model, 460, callback=callback).rows)
    counts, low, high = callback._visited
    assert counts.sum() == 398, "all that was stored before the look at 400"
    np.testing.assert_allclose(low, [-1.2, -0.07])
    np.testing.assert_allclose(high, [0.6, 0.07])
    stored = model.replay_buffer.observations[:199].reshape(-1, 2).astype(np.float64)
    expected = np.histogram2d(stored[:, 0], stored[:, 1], bins=30, range=[(low[i], high[i]) for i in range(2)])[0]
    np.testing.assert_array_equal(counts, expected)
    picture = found["exploration/visited"].image
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_other_observations_have_no_map(algorithm: Any) -> None:
    assert "exploration/visited" not in ours(learn(build(algorithm), 90, callback=ExplorationCallback(60)).rows)


# EpisodeVideoCallback


def test_a_film_lies_beside_the_run_and_moves_in_tensorboard(algorithm: Any, tmp_path: Path) -> None:
    from imageio_ffmpeg import count_frames_and_secs
    from PIL import Image as Pillow
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    env = DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"), str(tmp_path / "run"))])
    model = build(algorithm, env)
    model.set_logger(configure(str(tmp_path / "board"), ["tensorboard", "csv"]))
    model.learn(150, callback=EpisodeVideoCallback(80, skip=2))
    model.logger.close()
    env.close()
    (film,) = (tmp_path / "videos").iterdir()
    assert film.name == "step_80.mp4"
    n_filmed, seconds = count_frames_and_secs(film)
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    (event,) = board.Images("video/episode")
    assert event.step == 80
    (tmp_path / "episode.gif").write_bytes(event.encoded_image_string)
    with Pillow.open(tmp_path / "episode.gif") as animation:
        n_frames, size = animation.n_frames, animation.size
    length = board.Scalars("video/length")[0].value
    assert n_filmed == (length + 1) // 2
    assert seconds == pytest.approx(n_filmed / 25, abs=0.05), "half of the 50 frames a second that CartPole has"
    assert 1 < n_frames <= n_filmed, "frames that are the same are put together"
    assert size[0] == 320
    assert size[1] % 16 == 0


def test_a_bar_is_as_high_as_its_value() -> None:
    from sb3_dqn_ext.callbacks.diagnostics.pictures import GREY, ORANGE, with_bars

    picture = with_bars(np.zeros((100, 160, 3), np.uint8), np.array([1.0, 4.0]), 0.0, 4.0)
    heights = {}
    for color in (GREY, ORANGE):
        xs = np.nonzero((picture == color).all(axis=2))[1]
        heights[color] = int(np.bincount(xs).max())
        assert (xs > 160).all() == (color == ORANGE), "the best is the second"
    assert heights[ORANGE] - 3 == pytest.approx(4 * (heights[GREY] - 3), abs=2)


def test_a_film_needs_a_folder_and_pictures(tmp_path: Path) -> None:
    model = build(DQN)
    model.set_logger(Logger(folder=None, output_formats=[]))
    with pytest.raises(ArgumentError, match="knows no folder of the run: give it a folder"):
        model.learn(10, callback=EpisodeVideoCallback())
    with pytest.raises(ArgumentError, match=r"render_mode='rgb_array', not None"):
        model.learn(10, callback=EpisodeVideoCallback(folder=tmp_path, eval_env=gym.make("CartPole-v1")))


# all of them


def wrong(**arguments: Any) -> Any:
    """What no type checker would let pass."""
    return arguments


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QValuesCallback(every=0), "every=0 must be a whole number"),
        (lambda: QValuesCallback(**wrong(batch_size=0.5)), r"batch_size=0\.5"),
        (lambda: ValueCalibrationCallback(n_episodes=0), "n_episodes=0"),
        (lambda: ValueCalibrationCallback(**wrong(deterministic="no")), "deterministic='no' must be True or False"),
        (lambda: EpisodeVideoCallback(skip=0), "skip=0"),
        (lambda: DiagnosticsCallback(**wrong(values=3)), "values=3 must be True, False or a mapping"),
        (lambda: DiagnosticsCallback(values=None), "values=None must be True, False or a mapping"),
        (lambda: DiagnosticsCallback(errors={"evry": 3}), "a key of errors='evry' is not known.* Did you mean 'every'"),
    ],
    ids=["every", "batch_size", "n_episodes", "deterministic", "skip", "no choice", "none", "no argument"],
)
def test_a_wrong_argument_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_other_algorithms_are_refused() -> None:
    with pytest.raises(ArgumentError, match="QValuesCallback needs a DQN or QRDQN, not A2C"):
        A2C("MlpPolicy", "CartPole-v1", device="cpu").learn(10, callback=QValuesCallback())


def test_nothing_is_logged_while_the_memory_is_empty(algorithm: Any) -> None:
    rows = learn(
        build(algorithm), 20, callback=everything(**{name: {"every": 1} for name in ("values", "errors", "replay")})
    ).rows
    first = ours(rows[:1])
    assert "values/mean" in first, "once there is something"
    callback = [
        QValuesCallback(1),
        TDErrorsCallback(1),
        ReplayHealthCallback(1),
        NetworkHealthCallback(1),
        ExplorationCallback(1),
    ]
    model = build(algorithm)
    seen: list[list[str]] = []
    learn(model, 1, callback=[*callback, At(1, lambda model: seen.append(sorted(model.logger.name_to_value)))])
    assert all(not key.startswith(("values", "errors", "replay")) for key in seen[0])


def test_pictures_are_drawn_for_those_who_can_show_them(tmp_path: Path) -> None:
    """The texts get numbers only, TensorBoard histograms and pictures, too."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = build(DQN, DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=30))]))
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log", "tensorboard"]))
    model.learn(200, callback=everything(), log_interval=1)
    model.logger.close()
    board = EventAccumulator(str(tmp_path)).Reload().Tags()
    assert set(board["images"]) == {"calibration/scatter", "exploration/visited"}
    assert {"values/histogram", "errors/histogram", "replay/ages", "replay/rewards", "exploration/actions"} == set(
        board["histograms"]
    )
    header = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    assert "errors/age_1_of_4" in header
    assert not set(header) & {*board["images"], *board["histograms"]}
    table = (tmp_path / "log.txt").read_text()
    assert "abs_mean" in table
    assert "norm_of" not in table, "what is many lines"
    assert [type(output).__name__ for output in model.logger.output_formats] == [
        "CSVOutputFormat",
        "JSONOutputFormat",
        "HumanOutputFormat",
        "TensorBoardOutputFormat",
    ], "none of ours is left"


def test_one_callback_can_be_used_for_run_after_run(algorithm: Any) -> None:
    callback = everything()
    first, again = (learn(build(algorithm), 200, callback=callback) for _ in range(2))
    assert_same(shown(again.rows), shown(first.rows), "logged")


def test_a_run_that_broke_off_leaves_the_next_one_alone() -> None:
    class Stop(Exception):
        pass

    def stop(model: Any) -> None:
        raise Stop

    callback, model = everything(), build(DQN)
    with pytest.raises(Stop):
        learn(model, 200, callback=[callback, At(175, stop)])
    rows = learn(model, 200, callback=callback).rows
    assert ours(rows)["network/gradient_norm"] > 0
    assert "_get_samples" not in vars(model.replay_buffer)
    assert not any(one._post_accumulate_grad_hooks for one in model.q_net.parameters())


def test_evaluations_of_sb3_go_on_as_without() -> None:
    results = []
    for others in ([], [everything()]):
        env = poles()
        env.seed(3)
        evaluation = EvalCallback(env, eval_freq=50, n_eval_episodes=2, verbose=0)
        learn(build(DQN), 200, callback=[*others, evaluation])
        results.append(evaluation.last_mean_reward)
    assert results[0] == results[1]
