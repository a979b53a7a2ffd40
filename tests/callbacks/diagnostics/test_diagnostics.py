"""The diagnostics on SB3's DQN, sb3-contrib's QRDQN and DQNExt."""

import importlib.util
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from matplotlib.colors import to_rgb
from sb3_contrib import QRDQN
from stable_baselines3 import A2C, DQN, HerReplayBuffer
from stable_baselines3.common.atari_wrappers import AtariWrapper, WarpFrame
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback, EveryNTimesteps
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
from sb3_dqn_ext.callbacks.diagnostics import base, calibration, exploration, figures, replay
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.evaluation import calibration_of, play
from sb3_dqn_ext.callbacks.diagnostics.evaluation_env import another_env
from sb3_dqn_ext.callbacks.diagnostics.reading import (
    drawn_cells,
    ended_cells,
    networks,
    td_errors,
    transitions,
    undisturbed,
    values_at,
)
from sb3_dqn_ext.callbacks.diagnostics.replay import Watched
from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
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
    often: dict[str, Any] = {"every": 30, "calibration": {"every": 60, "n_episodes": 3}}
    return DiagnosticsCallback(**(often | kwargs))


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
    "DQNExt, rows, half the memory": (
        DQNExt,
        lambda: poles(4),
        {"replay_buffer_kwargs": {"sampler": "rows"}, "optimize_memory_usage": True},
    ),
    "DQNExt, dictionaries": (DQNExt, lambda: DummyVecEnv([lambda: Monitor(dict_cartpole())]), {"policy": "MultiInputPolicy"}),
    "DQN, hindsight": (
        DQN,
        lambda: flips(2),
        {"policy": "MultiInputPolicy", "replay_buffer_class": HerReplayBuffer, "learning_starts": 100},
    ),
    "QRDQN, the memory of this library": (
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


STEPS = 200  # of a run: for one environment, more than there is room for in memory


def diagnosed(name: str, **kwargs: Any) -> tuple[Any, Records]:
    algorithm, env, arguments = RUNS[name]
    model = build(algorithm, env(), **arguments)
    return model, learn(model, STEPS, **kwargs)


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
    with undisturbed(model):
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
    rest = shown(learn(model.resume(tmp_path / "part"), STEPS, callback=callbacks(tmp_path / "part")).rows)
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


@pytest.mark.parametrize("is_given", [False, True], ids=["made", "given"])
def test_normalised_rewards_are_compared_in_their_own_unit(is_given: bool) -> None:
    """The values of rewards that are divided by 10, say, are a tenth."""

    def env() -> VecNormalize:
        normalised = VecNormalize(DummyVecEnv([lambda: gym.make(ID)]), norm_obs=False, gamma=GAMMA)
        normalised.ret_rms.var, normalised.ret_rms.count = np.array(100.0), 1e12
        return normalised

    found = calibrated(knowing_model(DQN, env=env(), scale=0.1), eval_env=env() if is_given else None)
    assert found["bias"] == pytest.approx(0, abs=1e-4)
    assert found["mean_return"] > 6, "as the environment gives them"


def test_observations_are_normalised_as_in_training_at_that_time() -> None:
    seen: list[Any] = []

    def look(model: Any) -> None:
        seen.extend([model.get_env().obs_rms.mean.copy(), callback._env.obs_rms.mean.copy()])  # type: ignore[union-attr]

    callback = ValueCalibrationCallback(40, 2)
    learn(build(DQN, VecNormalize(poles())), 60, callback=[callback, At(40, look)])
    np.testing.assert_array_equal(*seen)
    assert np.abs(seen[0]).max() > 0


def test_values_of_the_policy_in_training_are_compared_if_one_asks() -> None:
    """At epsilon 1 half of the actions end the episode at once, which the true values do not expect."""
    kwargs: dict[str, Any] = {"exploration_initial_eps": 1.0, "exploration_final_eps": 1.0}
    assert calibrated(knowing_model(DQN, **kwargs))["bias"] == pytest.approx(0, abs=1e-5)
    assert calibrated(knowing_model(DQN, **kwargs), deterministic=False)["bias"] > 1


class FromTheFirst(Chain):
    """Begins in the first state."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.state = 0
        return self._seen(), {}


def test_what_follows_where_an_episode_is_cut_off_is_no_episode() -> None:
    model = knowing_model(DQN)
    with undisturbed(model), th.no_grad():
        played = play(model, DummyVecEnv([FromTheFirst] * 2), 7, 2, True, 0)
    assert [episode.total for episode in played] == [1 + 2] * 7
    predicted, realised = calibration_of(played)
    q = true_values()[:, 1]
    np.testing.assert_allclose(predicted, [q[0], q[1]] * 7, rtol=1e-6)
    np.testing.assert_allclose(realised, [q[0], q[1]] * 7, rtol=1e-6)


def test_resets_that_take_a_step_are_no_part_of_an_episode() -> None:
    model = build(DQN)
    with undisturbed(model), th.no_grad():
        played = play(model, make_fast_vec_env("CartPole-v1", n_envs=2, seed=0), 7, 100, True, 0)
    assert len(played) == 7
    assert len(calibration_of(played).predicted) == sum(episode.total for episode in played), "each step earns 1"


def test_its_random_numbers_are_not_those_that_training_is_about_to_draw(algorithm: Any) -> None:
    kwargs: dict[str, Any] = {"exploration_initial_eps": 0.5, "exploration_final_eps": 0.5}
    one, other = (calibrated(knowing_model(algorithm, seed=seed, **kwargs), deterministic=False) for seed in (0, 1))
    one.pop("scatter"), other.pop("scatter")
    assert one == other


class Counted(Chain):
    """Knows how many of it there are, and were at most."""

    n_open = most = 0

    def __init__(self) -> None:
        Counted.n_open += 1
        Counted.most = max(Counted.most, Counted.n_open)

    def close(self) -> None:
        Counted.n_open -= 1


gym.register("tests/Counted-v0", entry_point=f"{__name__}:Counted")


def test_it_plays_in_a_few_environments_and_closes_them() -> None:
    def stop(model: Any) -> None:
        raise KeyboardInterrupt

    callback, model = ValueCalibrationCallback(20, 40), knowing_model(DQN, env=gym.make("tests/Counted-v0"))
    with pytest.raises(KeyboardInterrupt):
        learn(model, 60, callback=[callback, At(30, stop)])
    assert (Counted.n_open, Counted.most) == (1, 1 + 16)
    learn(model, 30, callback=callback)
    assert (Counted.n_open, Counted.most) == (1, 1 + 16)


def test_a_picture_of_many_points_is_of_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = figures.scatter
    monkeypatch.setattr(calibration, "IN_A_PICTURE", 10)
    drawn: list[int] = []

    def noted(predicted: Any, realised: Any, title: str) -> Any:
        drawn.append(len(predicted))
        return draw(predicted, realised, title)

    monkeypatch.setattr(figures, "scatter", noted)
    calibrated(knowing_model(DQN))
    assert 5 <= drawn[0] <= 10, "of 24 episodes"


def quadrants(picture: Any, is_there: Any) -> set[tuple[bool, bool]]:
    """Whether what is there lies low, and whether it lies to the right."""
    height, width, _ = picture.shape
    return {(bool(y > height / 2), bool(x > width / 2)) for y, x in np.argwhere(is_there)}


def is_blue(picture: Any) -> Any:
    """Where many points of a scatter picture lie."""
    return np.abs(picture.astype(int) - np.array(to_rgb(figures.BLUE)) * 255).sum(axis=2) < 30


def is_colourful(picture: Any) -> Any:
    return np.ptp(picture, axis=2) > 50


def test_predictions_are_upwards_and_visits_to_the_right_are_of_large_first_numbers() -> None:
    picture = figures.scatter(np.array([1.0] * 50 + [0.0]), np.array([0.0] * 50 + [1.0]), "")
    assert quadrants(picture, is_blue(picture)) == {(False, False)}, "high and left"
    counts = np.zeros((10, 10), dtype=np.int64)
    counts[9, 1] = 3
    picture = figures.heat_map(counts, np.zeros(2), np.ones(2), "")
    assert quadrants(picture, is_colourful(picture)) == {(True, True)}, "low and right"


def test_the_picture_has_the_points_on_its_diagonal() -> None:
    picture = figures.scatter(np.repeat([0.0, 1.0], 200), np.repeat([0.0, 1.0], 200), "")
    assert quadrants(picture, is_blue(picture)) == {(False, True), (True, False)}


def test_without_matplotlib_there_are_numbers_and_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    model = build(DQN)
    with pytest.warns(
        UserWarning, match=r"ValueCalibrationCallback logs no pictures, as matplotlib is not installed"
    ) as warned:
        rows = learn(model, 130, callback=ValueCalibrationCallback(30, 1)).rows
    assert len(warned) == 1, "at the first picture only"
    assert "calibration/bias" in ours(rows)
    assert "calibration/scatter" not in ours(rows)


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
        lambda: SubprocVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=33)] * 2, "fork"),
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
    other = another_env(training, 1, "somebody")
    assert not {"RecordVideo", "RenderCollection"} & set(layers_of(other.envs[0]))  # type: ignore[attr-defined]
    assert other.envs[0].unwrapped._sutton_barto_reward  # type: ignore[attr-defined]
    watched = DummyVecEnv([lambda: gym.make("CartPole-v1", render_mode="human")])
    assert another_env(watched, 2, "somebody").get_attr("render_mode") == [None, None]
    assert another_env(watched, 1, "somebody", render_mode="rgb_array").get_attr("render_mode") == ["rgb_array"]


def wrapped_cartpole(**kwargs: Any) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = TerminalPenalty(Monitor(gym.make("CartPole-v1", **kwargs).unwrapped), reward=-7.0)
    return env


gym.register("tests/Wrapped-v0", entry_point=wrapped_cartpole, max_episode_steps=9)


def test_wrappers_of_the_environment_itself_are_not_put_on_twice() -> None:
    def around() -> gym.Env[Any, Any]:
        env = gym.make("tests/Wrapped-v0", disable_env_checker=True)
        return gym.wrappers.DtypeObservation(gym.wrappers.ClipReward(env, -3, 3), np.float64)

    training = DummyVecEnv([around])
    other = another_env(training, 1, "somebody")
    assert layers_of(other.envs[0]) == layers_of(training.envs[0])  # type: ignore[attr-defined]
    assert "Monitor" in layers_of(other.envs[0])  # type: ignore[attr-defined]


class Colours(gym.Env[Any, Any]):
    """Pictures as of an Atari game."""

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


def test_what_sb3s_wrappers_of_atari_were_told_is_found_out() -> None:
    def game() -> gym.Env[Any, Any]:
        env = gym.make("tests/Colours-v0", disable_env_checker=True)
        return AtariWrapper(env, 4, 3, 40, terminal_on_life_loss=False, action_repeat_probability=0.25)

    flat = DummyVecEnv([lambda: WarpFrame(gym.make("tests/Colours-v0"), width=40, height=30)])
    assert another_env(flat, 1, "somebody").observation_space.shape == (30, 40, 1)
    training = VecFrameStack(DummyVecEnv([game]), 2)
    other = another_env(training, 2, "somebody")
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
    assert another_env(stacked, 1, "somebody").observation_space.shape == (120, 50, 3)
    keys: dict[str, Any] = {"norm_obs_keys": ["cart"], "epsilon": 0.5, "norm_obs": True}
    other: Any = another_env(VecNormalize(DummyVecEnv([dict_cartpole]), **keys), 1, "somebody")
    assert {name: getattr(other, name) for name in keys} == keys
    assert not other.training
    assert not other.norm_reward


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


class Only:
    """Where others do not find it."""

    class Here(gym.Wrapper[Any, Any, Any, Any]):
        pass


@pytest.mark.parametrize("env", [Chain, lambda: Only.Here(gym.make(ID))], ids=["made by hand", "a class within a class"])
def test_the_sensible_set_does_without_it_then(env: Callable[[], Any]) -> None:
    callback = everything(calibration=None)
    with pytest.warns(UserWarning, match=r"Values are not compared with returns\. ValueCalibrationCallback cannot make"):
        found = ours(learn(knowing_model(DQN, env=env()), 100, callback=callback).rows)
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


def test_values_are_those_of_normalised_observations() -> None:
    callback = QValuesCallback(50, batch_size=20)
    model = build(DQN, VecNormalize(poles(2)), learning_starts=10**6, buffer_size=1000)
    statistics: list[Any] = []

    def look(model: Any) -> None:
        of_observations = model.get_vec_normalize_env().obs_rms
        statistics.extend([of_observations.mean.copy(), of_observations.var.copy()])

    found = ours(learn(model, 90, callback=[callback, At(50, look)]).rows)
    mean, var = statistics
    normalised = np.clip((callback._states - mean) / np.sqrt(var + 1e-8), -10, 10).astype(np.float32)
    with th.no_grad():
        expected = model.q_net(th.as_tensor(normalised))
    np.testing.assert_allclose(found["values/histogram"], expected.flatten(), rtol=1e-5)
    of_env = [model.replay_buffer.observations[:, env].tolist() for env in range(2)]
    n_of_env = [sum(state in stored for state in callback._states.tolist()) for stored in of_env]
    assert sum(n_of_env) == 20
    assert min(n_of_env) > 0, "of both environments"


def test_the_target_is_as_far_away_as_its_parameters_and_outputs(algorithm: Any) -> None:
    model = build(algorithm)
    distances: list[tuple[float, float]] = []

    def look(model: Any) -> None:
        """Over all parameters, one number after the other."""
        online, target = networks_of(model)
        total = 0.0
        for some, others in zip(online.parameters(), target.parameters(), strict=True):
            for one, other in zip(some.flatten().tolist(), others.flatten().tolist(), strict=True):
                total += (one - other) ** 2
        states = th.as_tensor(callback._states)
        with th.no_grad():
            some, others = ((of.mean(dim=1) if of.dim() == 3 else of) for of in (online(states), target(states)))
        distances.append((float(total**0.5), float((some - others).abs().mean())))

    callback = QValuesCallback(30)
    found = ours(learn(model, 118, callback=[callback, At(90, look)]).rows)
    ((of_parameters, of_outputs),) = distances
    assert found["values/target_parameters"] == pytest.approx(of_parameters, rel=1e-5)
    assert found["values/target_outputs"] == pytest.approx(of_outputs, rel=1e-4)
    assert min(of_parameters, of_outputs) > 0


def test_where_there_is_no_target_network_none_is_compared() -> None:
    found = ours(learn(build(DQNExt, target_network=False), 60, callback=QValuesCallback(30)).rows)
    assert not {"values/target_parameters", "values/target_outputs"} & found.keys()
    assert "values/action_gap" in found


def test_churn_is_seen_where_the_greedy_actions_were_changed() -> None:
    def swap(model: Any) -> None:
        with th.no_grad():
            weight = model.q_net.q_net[0].weight
            weight[:, :3] = weight[[1, 0], :3].clone()  # the other action is the best in states 0, 1 and 2

    callback = QValuesCallback(20)
    model = knowing_model(DQN)
    rows = learn(model, 95, callback=[callback, At(50, swap)]).rows
    churns = [row["values/churn"] for row in rows if "values/churn" in row]
    states = callback._states.argmax(axis=1)
    assert churns == [0, pytest.approx((states < 3).mean()), 0]


# TDErrorsCallback


def brute_force(model: Any, cells: list[int]) -> list[float]:
    """The TD error of each cell by itself, from the arrays of the memory and single calls of the networks."""
    memory, normalize = model.replay_buffer, model.get_vec_normalize_env()
    n = getattr(memory, "n_steps", 1)
    online, target = networks_of(model)

    def values(net: Any, observation: Any) -> Any:
        if normalize is not None:
            spread = np.sqrt(normalize.obs_rms.var + normalize.epsilon)
            observation = np.clip((observation - normalize.obs_rms.mean) / spread, -10, 10).astype(np.float32)
        with th.no_grad():
            answer = net(th.as_tensor(observation[None]))
        return (answer.mean(dim=1) if answer.dim() == 3 else answer)[0].numpy().astype(np.float64)

    errors = []
    for cell in cells:
        row, env = divmod(cell, memory.n_envs)
        total, discount = 0.0, 1.0
        for k in range(n):
            at = (row + k) % memory.buffer_size
            reward = float(memory.rewards[at, env])
            total += discount * (reward if normalize is None else reward / np.sqrt(normalize.ret_rms.var + normalize.epsilon))
            discount *= model.gamma
            newest = at == (memory.pos - 1) % memory.buffer_size
            if memory.dones[at, env] or newest:
                break
        if memory.dones[at, env] and not memory.timeouts[at, env]:
            discount = 0.0
        next_values = values(target, memory.next_observations[at, env])
        action = int(memory.actions[row, env, 0])
        policy = getattr(model, "target_policy", "greedy")
        if policy == "munchausen":
            shares = np.exp(next_values / 0.5) / np.exp(next_values / 0.5).sum()
            before = values(target, memory.observations[row, env]) / 0.5
            total += 0.9 * max(0.5 * (before[action] - np.log(np.exp(before).sum())), -1.0)
            next_value = (shares * (next_values - 0.5 * np.log(shares))).sum()
        elif policy == "double":
            next_value = next_values[values(online, memory.next_observations[at, env]).argmax()]
        else:
            next_value = next_values.max()
        errors.append(total + discount * next_value - values(online, memory.observations[row, env])[action])
    return errors


OUR_MEMORY = {"replay_buffer_class": DQNReplayBuffer}
C51 = {"returns": "categorical", "returns_kwargs": {"v_min": -30, "v_max": 30}}


@pytest.mark.parametrize(
    ("algorithm", "arguments"),
    [
        (DQN, {}),
        (QRDQN, {}),
        (DQNExt, {}),
        (DQNExt, {"n_steps": 3}),
        (DQN, {"n_steps": 3}),
        (DQNExt, {"policy_kwargs": {"returns": "quantile"}, "replay_buffer_kwargs": {"sampler": "prioritized"}}),
        (DQN, OUR_MEMORY),
        (DQN, OUR_MEMORY | {"replay_buffer_kwargs": {"n_steps": 3, "gamma": 0.9}}),
        (DQNExt, {"target_policy": "double"}),
        (DQNExt, {"target_policy": "munchausen", "target_policy_kwargs": {"temperature": 0.5}}),
        (DQNExt, {"policy_kwargs": C51 | {"noisy": True, "head": "dueling"}}),
        (DQN, {"env": "normalised"}),
        (DQNExt, {"env": "normalised", "n_steps": 3}),
    ],
    ids=[
        *("DQN", "QRDQN", "DQNExt", "DQNExt n steps", "DQN n steps", "quantiles", "DQN our memory", "DQN our n steps"),
        *("double", "munchausen", "categorical", "DQN normalised", "DQNExt normalised"),
    ],
)
def test_errors_are_those_of_the_arrays(algorithm: Any, arguments: dict[str, Any]) -> None:
    env = VecNormalize(poles()) if "env" in arguments else None
    model = build(algorithm, target_update_interval=50, **(arguments | {"env": env, "learning_rate": 0.03, "gamma": 0.9}))
    learn(model, 190)
    cells = drawn_cells(model.replay_buffer, 40, np.random.default_rng(0))
    with undisturbed(model), th.no_grad():
        found = td_errors(model, transitions(model, cells)).numpy()
    np.testing.assert_allclose(found, brute_force(model, cells.tolist()), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


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


@pytest.mark.parametrize("batch_size", [2, 64], ids=["rare", "among those that were drawn"])
def test_an_end_is_looked_for_and_told_from_the_rest(algorithm: Any, batch_size: int) -> None:
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

    found = ours(learn(model, 170, callback=[At(90, make_worse), TDErrorsCallback(90, batch_size)]).rows)
    assert found["errors/terminal"] == pytest.approx(5, abs=1e-5)
    assert found["errors/bootstrapped"] == pytest.approx(0, abs=1e-5)
    assert found["errors/abs_max"] in (pytest.approx(0, abs=1e-5), pytest.approx(5, abs=1e-5))


def test_the_only_end_is_found_in_whichever_environment_it_is(algorithm: Any) -> None:
    model = build(algorithm, poles(8), learning_starts=10**6, buffer_size=1600)

    def leave_one(model: Any) -> None:
        memory = model.replay_buffer
        memory.dones[:] = memory.timeouts[:] = 0
        memory.dones[3, 5] = 1
        memory.rewards[3, 5] = 1000

    found = ours(learn(model, 1200, callback=[At(960, leave_one), TDErrorsCallback(970, batch_size=64)]).rows)
    assert found["errors/terminal"] == pytest.approx(1000, abs=10)


MEMORIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "SB3, half of it": (
        DQN,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "uniform": (DQNExt, {}),
    "half of it": (DQNExt, {"optimize_memory_usage": True}),
    "prioritized, half of it": (
        DQNExt,
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"sampler": "prioritized", "terminal_copies": 2}},
    ),
    "episodes": (DQNExt, {"replay_buffer_kwargs": {"keep_episodes": 3}}),
    "prioritized, episodes": (DQNExt, {"replay_buffer_kwargs": {"keep_episodes": 3, "sampler": "prioritized"}}),
    "rows, realised returns": (
        DQNExt,
        {"replay_buffer_kwargs": {"sampler": "rows", "monte_carlo": 0.5}, "learning_starts": 60},
    ),
}


@pytest.mark.parametrize("steps", [90, 150], ids=["filling", "full"])
@pytest.mark.parametrize("name", MEMORIES)
def test_what_can_be_replayed_is_drawn_and_nothing_else(name: str, steps: int) -> None:
    algorithm, arguments = MEMORIES[name]
    model = build(algorithm, poles(2), **({"learning_starts": 20} | arguments))
    learn(model, steps)
    memory, drawn = model.replay_buffer, set()
    if algorithm is DQN:
        memory._get_samples = lambda rows, env: drawn.update((rows[:, None] * 2 + np.arange(2)).ravel().tolist())
        memory.sample(4000)
    else:
        drawn.update(memory.sample_batch(4000).indices.tolist())
    assert set(drawn_cells(memory, 4000, np.random.default_rng(0)).tolist()) == drawn
    memory.dones[memory.pos], memory.timeouts[memory.pos] = 1, 0  # which may be no row of these
    ends = {cell for cell in drawn if memory.dones.flat[cell] and not memory.timeouts.flat[cell]}
    assert set(ended_cells(memory).tolist()) == ends
    assert len(ends) > 0


def test_prioritized_draws_are_described_by_their_probabilities() -> None:
    model = build(
        DQNExt, replay_buffer_kwargs={"sampler": "prioritized", "terminal_copies": 3, "sampler_kwargs": {"beta": 0.5}}
    )
    seen: list[dict[str, float]] = []

    def look(model: Any) -> None:
        sampler = model.replay_buffer.sampler
        there, priorities, _ = sampler.priorities()
        copies = np.array([3 if ended(model.replay_buffer, index) else 1 for index in there.tolist()])
        shares = copies * priorities
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
        upto.extend(model.replay_buffer.noted[-6 // n_envs :])  # from step 294 on

    found = ours(learn(model, 390, callback=[ReplayHealthCallback(300), At(300, look)]).rows)
    n_rows = model.replay_buffer.buffer_size
    ages = [n_envs * ((pos - 1 - row) % n_rows) for rows, pos, _ in upto for row in rows]
    assert found["replay/age_mean"] == pytest.approx(np.mean(ages))
    assert found["replay/age_median"] == np.median(ages)
    assert found["replay/age_max"] == max(ages)
    assert found["replay/terminal_sampled"] == pytest.approx(np.mean([dones for *_, dones in upto]))
    assert found["replay/size"] == n_rows * n_envs
    assert found["replay/fill"] == 1


def test_a_draw_from_one_training_to_the_next_is_seen() -> None:
    """A look at 240, and trainings after 100, 200 and 300."""
    model = build(DQN, replay_buffer_class=Noted, train_freq=100, learning_starts=0)
    found = ours(learn(model, 300, callback=ReplayHealthCallback(240)).rows)
    _, (rows, pos, dones), _ = model.replay_buffer.noted
    ages = [(pos - 1 - row) % model.replay_buffer.buffer_size for row in rows]
    assert found["replay/age_mean"] == np.mean(ages)
    assert found["replay/terminal_sampled"] == np.mean(dones)


def is_watched(memory: Any) -> bool:
    """Return whether a callback is called for what is drawn."""
    return bool(getattr(memory, "sample_hooks", [])) or "_get_samples" in vars(memory)


def test_draws_are_watched_near_a_look_only(algorithm: Any) -> None:
    seen: dict[int, bool] = {}

    def look(model: Any) -> None:
        seen[model.num_timesteps] = is_watched(model.replay_buffer)

    learn(build(algorithm), 310, callback=[ReplayHealthCallback(300), *(At(step, look) for step in (150, 292, 294, 299, 302))])
    assert seen == {150: False, 292: False, 294: True, 299: True, 302: False}


def test_what_other_diagnostics_read_is_not_taken_for_training(algorithm: Any) -> None:
    found = []
    for others in ([], [TDErrorsCallback(10), NetworkHealthCallback(10)]):
        rows = learn(build(algorithm), 150, callback=[*others, ReplayHealthCallback(100)]).rows
        found.append({key: value for key, value in ours(rows).items() if key.startswith("replay/")})
    assert_same(found[1], found[0], "replay")


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_memory_of_this_library_is_watched_as_well_as_that_of_sb3(n_envs: int) -> None:
    stock, same = (
        ours(learn(build(algorithm, poles(n_envs)), 230, callback=ReplayHealthCallback(100)).rows)
        for algorithm in (DQN, DQNExt)
    )
    assert stock.keys() == same.keys()
    for key in stock if n_envs == 1 else ("replay/ages", "replay/age_mean", "replay/size"):
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

    learn(model, 100, callback=[everything(), At(89, save)])  # while it is watched
    with open(tmp_path / "memory.pkl", "rb") as file:
        memory = pickle.load(file)
    for of in (memory, model.replay_buffer):
        np.random.seed(0)
        of.sample(5)
    assert not is_watched(model.replay_buffer), "the run is over"
    assert memory._get_samples.__self__ is memory
    assert not getattr(memory, "sample_hooks", [])
    assert algorithm.load(tmp_path / "model.zip").num_timesteps == 89


def test_two_that_watch_the_same_memory_leave_it_as_it_was() -> None:
    model = build(DQN)
    rows = learn(model, 100, callback=[ReplayHealthCallback(50), ReplayHealthCallback(50)]).rows
    assert ours(rows)["replay/age_mean"] > 0
    memory, told = model.replay_buffer, []
    assert "_get_samples" not in vars(memory)
    first, second = (Watched(memory, "_get_samples", lambda *_, name=name: told.append(name)) for name in ("first", "second"))
    first.leave()
    memory.sample(1)
    assert told == ["second"]
    second.leave()
    assert "_get_samples" not in vars(memory)


def test_of_a_large_memory_the_rewards_of_some_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "REWARDS", 30)

    def number(model: Any) -> None:
        model.replay_buffer.rewards[:, 0] = np.arange(120)

    rewards = ours(learn(build(DQN), 180, callback=[At(140, number), ReplayHealthCallback(150)]).rows)["replay/rewards"]
    assert len(rewards) == 30
    assert rewards.max() > 60, "anywhere"


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
    found = ours(learn(model, 210, callback=NetworkHealthCallback(100, batch_size=50)).rows)
    # from step 198 on, before the training after step 200
    norms = [norm for step, norm in seen if 198 <= step < 200]
    assert len(norms) == 2
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


def test_where_there_were_no_updates_the_next_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at 40 and 80, and updates after 50, 60, 70 and so on: that after 50 is waited for, that after 70 is watched."""
    seen: dict[int, float] = {}
    clip = th.nn.utils.clip_grad_norm_
    model = build(DQN, train_freq=10, learning_starts=41)

    def noted(*args: Any, **kwargs: Any) -> th.Tensor:
        norm = clip(*args, **kwargs)
        seen[model.num_timesteps] = norm.item()
        return norm

    monkeypatch.setattr(th.nn.utils, "clip_grad_norm_", noted)
    found = ours(learn(model, 110, callback=NetworkHealthCallback(40)).rows)
    assert found["network/gradient_norm"] == pytest.approx((seen[50] + seen[70]) / 2)


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
    assert not any(layer._forward_hooks for layer in model.policy.modules()), "it listens no longer"


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
def test_exploratory_is_what_is_not_greedy(
    algorithm: Any, epsilon: float, low: float, high: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exploration, "GLIMPSE", 5)
    eps = {"exploration_initial_eps": epsilon, "exploration_final_eps": epsilon}
    model = build(algorithm, poles(4), learning_starts=0, buffer_size=2_000, train_freq=100, **eps)
    found = ours(learn(model, 4 * 5 * 20 + 40, callback=ExplorationCallback(4 * 5 * 20)).rows)
    assert low <= found["exploration/exploratory"] <= high
    assert found["exploration/epsilon"] == epsilon


def test_actions_are_counted_since_the_last_look(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "HISTOGRAMS", 1)  # at each look
    counts: list[Any] = []
    model = build(algorithm, poles(2))

    def look(model: Any) -> None:
        memory = model.replay_buffer
        counts.append(memory.actions[memory.pos - 25 : memory.pos].ravel().copy())  # those after the look at 50

    found = ours(learn(model, 110, callback=[ExplorationCallback(50), At(100, look)]).rows)
    assert found["exploration/action_1"] == pytest.approx(counts[0].mean())
    assert found["exploration/action_0"] + found["exploration/action_1"] == pytest.approx(1)
    assert sorted(found["exploration/actions"].tolist()) == sorted(counts[0].tolist())


def test_all_steps_of_a_vector_entry_point_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exploration, "GLIMPSE", 0)  # each step
    monkeypatch.setattr(base, "HISTOGRAMS", 1)  # at each look
    # of each call and environment: the action, whether it is another than the greedy one, an end
    seen: list[list[tuple[int, bool, bool]]] = []
    looks: dict[int, int] = {}  # number of calls before

    class Noting(BaseCallback):
        def _on_step(self) -> bool:
            looks.setdefault(self.num_timesteps // 100, len(seen))
            model: Any = self.model
            with th.no_grad():
                differ = model.q_net(th.as_tensor(model._last_obs)).argmax(dim=1).numpy() != self.locals["actions"]
            seen.append(list(zip(self.locals["actions"], differ, self.locals["dones"], strict=True)))
            return True

    env = make_fast_vec_env("CartPole-v1", n_envs=3, seed=3)
    assert env.vectorization_mode == "vector_entry_point"
    found = ours(learn(build(DQNExt, env), 320, callback=[ExplorationCallback(100), ReplayHealthCallback(100), Noting()]).rows)
    before = looks[3]
    ends = [end for row in seen[before - 40 : before] for _, _, end in row]  # of the 40 rows that are stored
    assert 0 < sum(ends) < len(ends)
    assert found["replay/size"] == len(ends)
    assert found["replay/fill"] == 1
    assert found["replay/terminal_stored"] == pytest.approx(np.mean(ends))
    assert found["replay/reward_mean"] == 1
    assert found["replay/rewards"].shape == (len(ends),)
    new = [action for row in seen[looks[2] : before] for action, _, _ in row]
    assert sorted(found["exploration/actions"].tolist()) == sorted(new)
    # those that were compared are stored after it
    compared = [other for row in seen[looks[2] + 1 : before + 1] for _, other, _ in row]
    assert found["exploration/exploratory"] == pytest.approx(np.mean(compared))


def test_a_ladder_has_an_epsilon_for_each_environment() -> None:
    kwargs: dict[str, Any] = {"exploration": "epsilon_ladder", "exploration_kwargs": {"schedule": 0.4}}
    found = ours(learn(build(DQNExt, poles(3), **kwargs), 90, callback=ExplorationCallback(60)).rows)
    assert [found[f"exploration/epsilon_{i}"] for i in range(3)] == pytest.approx([0.4, 0.4**4.5, 0.4**8])


def test_a_temperature_is_no_epsilon() -> None:
    found = ours(learn(build(DQNExt, exploration="boltzmann"), 90, callback=ExplorationCallback(60)).rows)
    assert found["exploration/temperature"] == 1
    assert "exploration/epsilon" not in found


def test_visited_states_are_drawn_where_they_lie(algorithm: Any) -> None:
    callback = ExplorationCallback(100, cells=30)
    env = DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=30))] * 2)
    model = build(algorithm, env, buffer_size=2000)
    found = ours(learn(model, 230, callback=callback).rows)
    counts, low, high = callback._visited
    assert counts.sum() == 198, "all that was stored before the look at 200"
    np.testing.assert_allclose(low, [-1.2, -0.07])
    np.testing.assert_allclose(high, [0.6, 0.07])
    stored = model.replay_buffer.observations[:99].reshape(-1, 2).astype(np.float64)
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
    from sb3_dqn_ext.callbacks.diagnostics.film import GREY, ORANGE, with_bars

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


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_of_environments_in_processes_the_film_lies_beside_the_best_model(tmp_path: Path) -> None:
    def monitored(i: int) -> Any:
        return lambda: Monitor(gym.make("CartPole-v1"), str(tmp_path / str(i)))

    env = SubprocVecEnv([monitored(i) for i in range(2)], "fork")
    evaluation = EvalCallback(gym.make("CartPole-v1"), eval_freq=1000, best_model_save_path=str(tmp_path / "run"))
    build(DQN, env).learn(60, callback=[EpisodeVideoCallback(40, max_steps=8), evaluation])
    env.close()
    assert [film.name for film in (tmp_path / "run" / "videos").iterdir()] == ["step_40.mp4"]


@pytest.mark.parametrize(
    ("algorithm", "policy_kwargs"),
    [*((one, {}) for one in ALGORITHMS), (DQNExt, {"head": "dueling"}), (DQNExt, {"returns": "quantile"})],
    ids=["DQN", "QRDQN", "DQNExt", "DQNExt dueling", "DQNExt quantile"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64], ids=["uint8", "float64"])
def test_values_of_what_an_environment_shows_are_those_that_the_policy_goes_by(
    algorithm: Any, dtype: Any, policy_kwargs: Any
) -> None:
    class Numbers(gym.Env[Any, Any]):
        observation_space = gym.spaces.Box(0, 9, (3,), dtype)
        action_space = gym.spaces.Discrete(4)

    model = build(algorithm, DummyVecEnv([Numbers]), policy_kwargs=policy_kwargs)
    observations = np.array([[0, 3, 9], [9, 2, 1], [4, 4, 4], [8, 0, 5], [1, 7, 2]], dtype=dtype)
    with th.no_grad():
        q = values_at(model, networks(model, "a test")[0], 5)(observations)
    assert q.shape == (5, 4)
    greedy, _ = model.predict(observations, deterministic=True)
    np.testing.assert_array_equal(q.argmax(axis=1), greedy)
    by_hand = networks(model, "a test")[0](th.as_tensor(observations).float()).detach()
    np.testing.assert_allclose(q, by_hand if by_hand.dim() == 2 else by_hand.mean(dim=1), rtol=1e-5, atol=1e-6)


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
        (lambda: DiagnosticsCallback(every=0), "every=0 must be a whole number"),
        (lambda: DiagnosticsCallback(**wrong(values=3)), "values=3 must be True, False or a mapping"),
        (lambda: DiagnosticsCallback(values=None), "values=None must be True, False or a mapping"),
        (lambda: DiagnosticsCallback(errors={"evry": 3}), "a key of errors='evry' is not known.* Did you mean 'every'"),
    ],
    ids=["every", "batch_size", "n_episodes", "deterministic", "skip", "every of all", "no choice", "none", "no argument"],
)
def test_a_wrong_argument_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_parts_look_as_often_as_all_of_them_unless_they_are_told_otherwise() -> None:
    parts = DiagnosticsCallback(every=70, network={"every": 30}, errors={"batch_size": 8}, video=True).callbacks
    every = {type(part): part.every for part in parts if isinstance(part, Diagnostic)}
    assert [every.pop(kind) for kind in (QValuesCallback, TDErrorsCallback, ReplayHealthCallback)] == [70, 70, 70]
    assert [every.pop(kind) for kind in (NetworkHealthCallback, ExplorationCallback)] == [30, 70]
    assert every == {ValueCalibrationCallback: 50_000, EpisodeVideoCallback: 1_000_000}


def test_a_run_that_is_too_short_to_be_looked_at_is_told_so(tmp_path: Path) -> None:
    with pytest.warns(
        UserWarning, match="EpisodeVideoCallback looks every 21 environment steps, and sees nothing of a run of 20"
    ):
        learn(build(DQN), 20, callback=EpisodeVideoCallback(21, folder=tmp_path))
    model = build(DQN)
    learn(model, 21, callback=QValuesCallback(21))
    learn(model, 5, callback=QValuesCallback(21), reset_num_timesteps=False)


def test_other_algorithms_are_refused() -> None:
    with pytest.raises(ArgumentError, match="QValuesCallback needs a DQN or QRDQN, not A2C"):
        A2C("MlpPolicy", "CartPole-v1", device="cpu").learn(10, callback=QValuesCallback())


def test_nothing_is_logged_while_the_memory_is_empty(algorithm: Any) -> None:
    rows = learn(build(algorithm), 20, callback=everything(every=1, calibration=False)).rows
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


class Distribution(Diagnostic):
    """Has a histogram to log at each look, and notes at which steps it is logged."""

    group = "noted"

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self.looks: list[int] = []
        self.histograms: list[int] = []

    def _look(self) -> None:
        self.logger.name_to_value.pop("noted/histogram", None)
        self._record_histogram("histogram", np.ones(3))
        self.looks.append(self.num_timesteps)
        if "noted/histogram" in self.logger.name_to_value:
            self.histograms.append(self.num_timesteps)


@pytest.mark.parametrize(
    ("n_envs", "every", "steps"), [(1, 10, [10, 50, 90]), (3, 10, [12, 51, 90]), (16, 10, [16, 64, 112])], ids=str
)
def test_histograms_are_logged_at_each_fourth_look(n_envs: int, every: int, steps: list[int]) -> None:
    """Where a step of many environments is longer than the time between two looks, as often as if it were not."""
    distribution, model = Distribution(every), build(DQN, poles(n_envs))
    learn(model, 60, callback=distribution)
    learn(model, 60, callback=distribution, reset_num_timesteps=False)
    assert distribution.histograms == steps
    assert len(distribution.looks) > 2 * len(steps)
    learn(model, 20, callback=distribution)
    assert distribution.histograms[3:] == steps[:1], "the first look of another run"


def test_nothing_is_drawn_for_texts(tmp_path: Path) -> None:
    class Undrawn(ValueCalibrationCallback):
        def _draw(self, data: Any) -> Any:
            raise AssertionError

    model = build(DQN)
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log"]))
    model.learn(90, callback=Undrawn(60, 1), log_interval=1)
    model.logger.close()
    assert "calibration/bias" in (tmp_path / "progress.csv").read_text()


def test_one_callback_can_be_used_for_run_after_run(algorithm: Any) -> None:
    callback = everything()
    first, again = (learn(build(algorithm), 130, callback=callback) for _ in range(2))
    assert_same(shown(again.rows), shown(first.rows), "logged")


@pytest.mark.parametrize("algorithm", [DQN, DQNExt], ids=["DQN", "DQNExt"])
def test_a_run_that_broke_off_leaves_the_next_one_alone(algorithm: Any) -> None:
    def interrupt(model: Any) -> None:
        raise KeyboardInterrupt

    ends: list[tuple[Any, Any, Any]] = []
    of_runs: list[list[BaseCallback]] = [[], [everything(network={"every": 100})]]
    for callback in of_runs:
        model = build(algorithm)
        with pytest.raises(KeyboardInterrupt):
            learn(model, 200, callback=[*callback, At(99, interrupt)])  # while gradients are watched
        rows = learn(model, 60, callback=callback, reset_num_timesteps=False).rows
        rows += learn(model, 150, callback=callback).rows
        rows += learn(model, 20).rows
        ends.append((model, theirs(rows), generators(model)))
    assert_same_model(ends[1][0], ends[0][0])
    assert_same(ends[1][1:], ends[0][1:], "logged and drawn")
    assert ours(rows)["network/gradient_norm"] > 0
    assert not is_watched(model.replay_buffer)
    assert not any(one._post_accumulate_grad_hooks for one in model.q_net.parameters())


def test_a_run_in_parts_is_one_run(algorithm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has one look; the states are those of the first, and the visits those of all."""
    monkeypatch.setattr(base, "HISTOGRAMS", 1)  # at each look
    values, visits = QValuesCallback(50), ExplorationCallback(50)
    model = build(algorithm, DummyVecEnv([lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=30))]))
    learn(model, 60, callback=[values, visits])
    states = values._states.copy()
    rows = learn(model, 60, callback=[values, visits], reset_num_timesteps=False).rows
    assert 0 <= ours(rows)["values/churn"] <= 1
    np.testing.assert_array_equal(values._states, states)
    assert visits._visited[0].sum() == 99
    assert ours(rows)["exploration/actions"].shape == (50,), "ten of them are of the first part"
    other = build(algorithm)
    learn(other, 10)
    learn(other, 60, callback=values, reset_num_timesteps=False)
    assert values._states.shape[1:] == (4,), "another model has other states"


def test_a_callback_that_holds_them_need_not_tell_them_that_the_run_is_over() -> None:
    """As SB3's EveryNTimesteps does not."""
    callback, ends = everything(), []
    of_runs: list[list[Any]] = [[None, None], [EveryNTimesteps(20, callback), callback]]
    for callbacks in of_runs:
        model = build(DQN)
        rows = [learn(model, 100, callback=one, reset_num_timesteps=False).rows for one in callbacks]
        ends.append((model, theirs(rows[0] + rows[1])))
    assert_same_model(ends[1][0], ends[0][0])
    assert_same(ends[1][1], ends[0][1], "logged")
    for of_run in rows:
        assert {"values/mean", "calibration/bias"} <= ours(of_run).keys()
    assert "_get_samples" not in vars(model.replay_buffer)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_a_network_that_has_diverged_is_looked_at_without_an_error(algorithm: Any, value: float) -> None:
    def diverge(model: Any) -> None:
        with th.no_grad():
            for parameter in networks_of(model)[0].parameters():
                parameter.fill_(value)

    model = build(algorithm, learning_starts=10**6)
    found = ours(learn(model, 90, callback=[At(50, diverge), everything(values={"every": 60})]).rows)
    assert not np.isfinite(found["values/mean"])
    assert "values/histogram" not in found
    assert not np.isfinite(found["calibration/bias"])
    assert not np.isfinite(found["network/weight_norm"])
    assert found["calibration/scatter"].image.shape == (464, 464, 3)


class Tables(th.nn.Module):
    """A Q-network without any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = th.nn.Parameter(th.zeros(4, 2))

    def forward(self, features: th.Tensor) -> th.Tensor:
        return features @ self.table


def test_a_network_without_layers_has_neither_units_nor_features() -> None:
    model = build(DQN, learning_starts=10**6)
    model.q_net.q_net, model.q_net_target.q_net = Tables(), Tables()
    found = ours(learn(model, 60, callback=NetworkHealthCallback(50)).rows)
    assert found["network/weight_norm"] == 0
    assert not {"network/dormant", "network/feature_rank"} & found.keys()


def test_evaluations_of_sb3_go_on_as_without() -> None:
    results = []
    for others in ([], [everything()]):
        env = poles()
        env.seed(3)
        evaluation = EvalCallback(env, eval_freq=50, n_eval_episodes=2, verbose=0)
        learn(build(DQN), 200, callback=[*others, evaluation])
        results.append(evaluation.last_mean_reward)
    assert results[0] == results[1]
