"""Tests of predicted and realised values in environments with known values, and of maps of Q-values."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot import (
    Calibration,
    Run,
    Series,
    load_model,
    measure_calibration,
    plot_calibration,
    plot_log,
    plot_panels,
    plot_value_map,
    predict_q_values,
    value_map,
)
from tests.plot.test_plot import is_picture

Array = npt.NDArray[Any]
GAMMA = 0.9
LENGTH = 5
BEST, OTHER = 3.0, 2.0


class Clock(gym.Env[Array, np.int64]):
    """
    An environment with a reward of 1 at every step.

    :param terminates: whether the episode terminates after five steps
    """

    def __init__(self, terminates: bool) -> None:
        self.observation_space = spaces.Box(0, 100, (1,))
        self.action_space = spaces.Discrete(2)
        self.terminates = terminates
        self.t = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.array([0], np.float32), {}

    def step(self, action: np.int64) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.t += 1
        return np.array([self.t], np.float32), 1.0, self.terminates and self.t == LENGTH, False, {}


def clock(terminates: bool) -> DummyVecEnv:
    """Make an environment whose episodes end after five steps, by termination or by a time limit."""
    return DummyVecEnv([lambda: TimeLimit(Clock(terminates), LENGTH if not terminates else 100)])


def constant(kind: Callable[..., Any], env: DummyVecEnv) -> Any:
    """Make a model with a Q-value of 2 for the first action and 3 for the second, in every state."""
    model = kind("MlpPolicy", env, gamma=GAMMA, buffer_size=100, device="cpu")
    net = model.q_net.q_net if hasattr(model, "q_net") else model.quantile_net.quantile_net
    with th.no_grad():
        net[-1].weight.zero_()
        # QRDQN outputs quantiles, whose means are the Q-values
        spread = th.linspace(-1, 1, net[-1].bias.numel() // 2).repeat_interleave(2)
        net[-1].bias.copy_(th.tensor([OTHER, BEST]).repeat(net[-1].bias.numel() // 2) + (spread if len(spread) > 2 else 0))
    return model


@pytest.mark.parametrize("kind", [DQNExt, DQN, QRDQN])
@pytest.mark.parametrize("terminates", [True, False], ids=["terminates", "is truncated"])
def test_a_truncated_episode_is_bootstrapped_from_its_last_state(kind: type, terminates: bool) -> None:
    env = clock(terminates)
    found = measure_calibration(constant(kind, env), env, n_episodes=3, n_random=0)
    np.testing.assert_allclose(found.predicted, BEST, atol=1e-5)
    at_end = 0.0 if terminates else BEST
    expected = [sum(GAMMA**k for k in range(LENGTH - t)) + GAMMA ** (LENGTH - t) * at_end for t in range(LENGTH)]
    np.testing.assert_allclose(found.realised, expected * 3, rtol=1e-5)


def test_only_the_last_random_action_counts() -> None:
    env = clock(terminates=True)
    found = measure_calibration(constant(DQN, env), env, n_episodes=200, n_random=4)
    left = np.rint(np.log(1 - (1 - GAMMA) * found.realised) / np.log(GAMMA)).astype(int)  # steps left, this one included
    starts = np.flatnonzero(np.append(True, left[1:] > left[:-1]))
    assert len(starts) == 200
    assert set(left[starts]) == {5, 4, 3, 2}, "random actions end at any of the first four steps"
    chosen_at_random = np.flatnonzero(found.predicted == np.float32(OTHER))
    assert set(chosen_at_random) <= set(starts)
    # a fifth of the episodes has no random action; the last random action of the others is the worse one in half of the cases
    assert 0.3 <= len(chosen_at_random) / 200 <= 0.5


def test_time_limits_are_ends_for_a_model_that_was_trained_so() -> None:
    env = clock(terminates=False)
    model = constant(DQN, env)
    model.replay_buffer_kwargs = {"handle_timeout_termination": False}
    found = measure_calibration(model, env, n_episodes=1, n_random=0)
    np.testing.assert_allclose(found.realised, [sum(GAMMA**k for k in range(LENGTH - t)) for t in range(LENGTH)])


def test_q_values_are_those_that_choose_the_greedy_actions() -> None:
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    models: list[Any] = [
        DQN("MlpPolicy", "CartPole-v1", device="cpu"),
        QRDQN("MlpPolicy", "CartPole-v1", device="cpu"),
        DQNExt("MlpPolicy", "CartPole-v1", device="cpu", policy_kwargs={"returns": "implicit_quantile", "noisy": True}),
    ]
    for model in models:
        values = predict_q_values(model, observations)
        assert values.shape == (50, 2)
        np.testing.assert_array_equal(values.argmax(axis=1), model.predict(observations, deterministic=True)[0])
        np.testing.assert_allclose(values[7:8], predict_q_values(model, observations[7:8]), rtol=1e-4, atol=1e-6)
    with th.no_grad():
        quantiles = models[1].policy.quantile_net(th.as_tensor(observations))
    np.testing.assert_allclose(predict_q_values(models[1], observations), quantiles.numpy().mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(("algo", "kind"), [("dqn_ext", DQNExt), ("dqn", DQN), ("qrdqn", QRDQN), (None, DQNExt)])
def test_models_are_loaded_by_the_algorithm_of_the_run(algo: str | None, kind: type, tmp_path: Any) -> None:
    of_file: Any = kind if algo else DQN
    saved = of_file("MlpPolicy", "CartPole-v1", device="cpu", buffer_size=1000)
    saved.save(tmp_path / "model.zip")
    loaded = load_model(Run(tmp_path, algo=algo))
    assert type(loaded) is kind
    observations = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(predict_q_values(loaded, observations), predict_q_values(saved, observations))


def test_models_without_q_values_are_refused(tmp_path: Any) -> None:
    (tmp_path / "model.zip").touch()
    with pytest.raises(ArgumentError, match=r"is a run of 'ppo'\. Only models of dqn_ext, dqn, qrdqn have Q-values"):
        load_model(Run(tmp_path, algo="ppo"))


def test_the_newest_checkpoint_is_loaded_if_there_is_no_final_model(tmp_path: Any) -> None:
    for steps, gamma in ((900, 0.1), (1000, 0.2), (20, 0.3)):
        DQNExt("MlpPolicy", "CartPole-v1", gamma=gamma, device="cpu").save(tmp_path / f"rl_model_{steps}_steps.zip")
    run = Run(tmp_path, env_id="CartPole-v1")
    gammas: list[Any] = [load_model(run), load_model(run, "rl_model_20_steps")]
    assert [model.gamma for model in gammas] == [0.2, 0.3]


# -- figures ---------------------------------------------------------------------------------------------------------------


def test_predicted_values_are_drawn_over_realised_values(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    found = Calibration(rng.normal(3, 1, 100), rng.normal(0, 2, 100))
    figure = plot_calibration(found, "title")
    (axes,) = figure.axes
    points, diagonal = axes.get_lines()
    np.testing.assert_array_equal(np.asarray(points.get_xdata()), found.realised)
    np.testing.assert_array_equal(np.asarray(points.get_ydata()), found.predicted)
    np.testing.assert_array_equal(np.asarray(diagonal.get_xdata()), np.asarray(diagonal.get_ydata()))
    expected = np.corrcoef(found.realised, found.predicted)[0, 1]
    bias = (found.predicted - found.realised).sum() / 100
    legend: Any = axes.get_legend()
    assert legend.get_title().get_text() == f"correlation {expected:.2f}, bias {bias:.2f}"
    assert is_picture(figure, tmp_path / "calibration.png")


def test_three_panels_show_loss_returns_and_values() -> None:
    loss, returns = np.array([4.0, 2.0, 1.0]), np.array([10.0, 30.0, 20.0])
    found = Calibration(np.array([1.0, 2.0]), np.array([1.5, 2.5]))
    figure = plot_panels({"one": (loss, returns, found), "other": (loss, returns, found)}, window=2)
    assert len(figure.axes) == 6
    of_loss, of_returns, of_values = figure.axes[:3]
    np.testing.assert_array_equal(np.asarray(of_loss.get_lines()[0].get_ydata()), loss)
    np.testing.assert_array_equal(np.asarray(of_returns.get_lines()[0].get_ydata()), returns)
    np.testing.assert_array_equal(np.asarray(of_returns.get_lines()[1].get_ydata()), [10, 20, 25])
    np.testing.assert_array_equal(np.asarray(of_values.get_lines()[0].get_xdata()), found.realised)
    assert of_values.get_title() == "correlation 1.00, bias -0.50"


def test_q_values_of_a_log_share_a_plot_and_others_have_their_own() -> None:
    steps = np.arange(5)
    names = ("values/mean", "values/min", "values/max", "values/action_gap", "train/loss", "time/fps")
    figure = plot_log({name: Series(steps, np.arange(5) + i) for i, name in enumerate(names)}, "title")
    assert [axes.get_ylabel() for axes in figure.axes] == ["Q-values", "loss", "action gap"]
    drawn = [[float(np.asarray(drawn.get_ydata())[0]) for drawn in axes.get_lines()] for axes in figure.axes]
    assert drawn == [[0, 1, 2], [4], [3]]
    with pytest.raises(ArgumentError, match="The log of title has none of rollout/exploration_rate"):
        plot_log({"time/fps": Series(steps, steps)}, "title")


def test_the_bias_of_a_log_has_a_line_at_zero() -> None:
    logged = {"calibration/bias": Series(np.arange(3), np.array([5.0, 2.0, 1.0]))}
    figure = plot_log(logged, "title", [["calibration/bias"], ["calibration/slope"]])
    (axes,) = figure.axes
    bias, none = axes.get_lines()
    np.testing.assert_array_equal(np.asarray(bias.get_ydata()), [5, 2, 1])
    np.testing.assert_array_equal(np.asarray(none.get_ydata()), 0)


def test_a_map_of_any_two_observations_is_the_output_of_the_network() -> None:
    model = DQN("MlpPolicy", "Acrobot-v1", device="cpu")
    found = value_map(model, 5, 0, {5: (-2.0, 3.0)}, n_points=7)
    np.testing.assert_allclose(found.x, [-2 + i * 5 / 6 for i in range(7)])
    np.testing.assert_allclose(found.y, [-1 + i / 3 for i in range(7)])
    for i in range(7):
        for j in range(7):
            state = np.array([found.y[j], 0, 0, 0, 0, found.x[i]], np.float32)
            with th.no_grad():
                expected = model.q_net(th.as_tensor(state)[None])[0].numpy()
            np.testing.assert_allclose(found.values[j, i], expected, atol=1e-6)


def test_observations_that_are_not_axes_are_as_close_to_zero_as_their_bounds_allow() -> None:
    class Far(Clock):
        def __init__(self) -> None:
            super().__init__(terminates=True)
            self.observation_space = spaces.Box(np.array([0, 0, 2, -9], np.float32), np.array([1, 1, 3, -5], np.float32))

    model = DQN("MlpPolicy", DummyVecEnv([Far]), device="cpu", buffer_size=10)
    found = value_map(model, 0, 1, n_points=2)
    with th.no_grad():
        expected = model.q_net(th.tensor([[1.0, 0.0, 2.0, -5.0]]))[0].numpy()
    np.testing.assert_allclose(found.values[0, 1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("env_id", "arguments", "problem"),
    [
        (
            "Acrobot-v1",
            {},
            r"slices=None must be pairs of the 6 components of an observation of title, for example \[\(0, 1\)\]",
        ),
        (
            "CartPole-v1",
            {"slices": [(0, 1)]},
            r"ranges=\{\} must contain a range for component 1 of the observation, which has no bounds",
        ),
        (
            "CartPole-v1",
            {"slices": [(0, 4)]},
            r"slices=\[\(0, 4\)\] must be of two different components of an observation among 0 to 3",
        ),
        ("Taxi-v4", {"slices": [(0, 1)]}, "The observations of a map must be vectors"),
    ],
    ids=["which two", "no bounds", "no such observation", "no vector"],
)
def test_a_map_that_cannot_be_drawn_is_an_error_that_names_the_missing_argument(
    env_id: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ArgumentError, match=problem):
        plot_value_map(DQN("MlpPolicy", env_id, device="cpu"), "title", **arguments)
