"""Predicted values beside realised returns, and their picture."""

import importlib.util
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from matplotlib.colors import to_rgb
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqn_ext.callbacks import (
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.diagnostics import calibration, figures
from sb3_dqn_ext.callbacks.diagnostics.evaluation import episode_calibration, play
from sb3_dqn_ext.callbacks.diagnostics.model_access import (
    state_preserved,
)
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.callbacks.diagnostics.helpers import At, build, evaluation_env_of, ours, poles
from tests.closed_form_env import GAMMA, ID, Chain, N, model_with_true_values, true_values
from tests.parity import learn


def calibrated(model: Any, **kwargs: Any) -> dict[str, Any]:
    records = learn(model, 60, callback=ValueCalibrationCallback(40, **({"n_episodes": 24} | kwargs)))
    return {key.removeprefix("calibration/"): value for key, value in ours(records.rows).items()}


def test_true_values_are_calibrated(algorithm: Any) -> None:
    found = calibrated(model_with_true_values(algorithm))
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
    found = calibrated(model_with_true_values(algorithm, shift=2.5))
    assert found["bias"] == pytest.approx(2.5, abs=1e-5)
    assert found["slope"] == pytest.approx(1, abs=1e-5)


def test_values_that_are_twice_as_large_have_half_the_slope(algorithm: Any) -> None:
    found = calibrated(model_with_true_values(algorithm, scale=2.0))
    assert found["slope"] == pytest.approx(0.5, abs=1e-5)
    assert found["correlation"] == pytest.approx(1, abs=1e-6)
    assert found["bias"] == pytest.approx(found["realised"], abs=1e-5)


@pytest.mark.parametrize("kwargs", [{}, {"max_steps": 2}], ids=["a time limit", "max_steps"])
def test_what_is_cut_off_is_worth_what_the_last_observation_is(algorithm: Any, kwargs: dict[str, Any]) -> None:
    def env() -> gym.Env[Any, Any]:
        return gym.make(ID, max_episode_steps=None if kwargs else 2)

    found = calibrated(model_with_true_values(algorithm, env=env()), **kwargs)
    assert found["bias"] == pytest.approx(0, abs=1e-5)
    assert found["mean_return"] < 12, "at most 5 + 6"
    shifted = calibrated(model_with_true_values(algorithm, shift=1.0, env=env()), **kwargs)
    assert 0 < shifted["bias"] <= 1 + 1e-5


def test_where_time_limits_are_ends_they_are_here_too() -> None:
    """Only the rewards of two steps count: 4 + 0.9 * 5 from the fourth state on."""
    ends = {"handle_timeout_termination": False}
    found = calibrated(model_with_true_values(DQN, env=gym.make(ID, max_episode_steps=2), replay_buffer_kwargs=ends))
    assert found["realised"] < found["predicted"] - 1


def test_the_same_numbers_with_few_environments_that_were_given(algorithm: Any) -> None:
    given = DummyVecEnv([lambda: gym.make(ID, max_episode_steps=3)] * 2)
    found = calibrated(model_with_true_values(algorithm, shift=-1.0), eval_env=given, n_episodes=7)
    assert -1 - 1e-5 <= found["bias"] < 0
    assert len(given.reset()) == 2, "it is still open"


@pytest.mark.parametrize("is_given", [False, True], ids=["made", "given"])
def test_normalised_rewards_are_compared_in_their_own_unit(is_given: bool) -> None:
    """Rewards that are divided by 10 have a tenth of the values."""

    def env() -> VecNormalize:
        normalised = VecNormalize(DummyVecEnv([lambda: gym.make(ID)]), norm_obs=False, gamma=GAMMA)
        normalised.ret_rms.var, normalised.ret_rms.count = np.array(100.0), 1e12
        return normalised

    found = calibrated(model_with_true_values(DQN, env=env(), scale=0.1), eval_env=env() if is_given else None)
    assert found["bias"] == pytest.approx(0, abs=1e-4)
    assert found["mean_return"] > 6, "as the environment gives them"


def test_observations_are_normalised_as_in_training_at_that_time() -> None:
    seen: list[Any] = []

    def inspect(model: Any) -> None:
        seen.extend([model.get_env().obs_rms.mean.copy(), evaluation_env_of(callback).obs_rms.mean.copy()])

    callback = ValueCalibrationCallback(40, 2)
    learn(build(DQN, VecNormalize(poles())), 60, callback=[callback, At(40, inspect)])
    np.testing.assert_array_equal(*seen)
    assert np.abs(seen[0]).max() > 0


def test_values_of_the_policy_in_training_are_compared_on_request() -> None:
    """At epsilon 1, half of the actions end the episode, which the values of greedy actions do not contain."""
    kwargs: dict[str, Any] = {"exploration_initial_eps": 1.0, "exploration_final_eps": 1.0}
    assert calibrated(model_with_true_values(DQN, **kwargs))["bias"] == pytest.approx(0, abs=1e-5)
    assert calibrated(model_with_true_values(DQN, **kwargs), deterministic=False)["bias"] > 1


class FromTheFirst(Chain):
    """An environment that begins in the first state."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.state = 0
        return self._seen(), {}


def test_what_follows_where_an_episode_is_cut_off_is_no_episode() -> None:
    model = model_with_true_values(DQN)
    with state_preserved(model), th.no_grad():
        played = play(model, DummyVecEnv([FromTheFirst] * 2), 7, 2, True, 0)
    assert [episode.total for episode in played] == [1 + 2] * 7
    predicted, realised = episode_calibration(played)
    q = true_values()[:, 1]
    np.testing.assert_allclose(predicted, [q[0], q[1]] * 7, rtol=1e-6)
    np.testing.assert_allclose(realised, [q[0], q[1]] * 7, rtol=1e-6)


def test_resets_that_take_a_step_are_no_part_of_an_episode() -> None:
    model = build(DQN)
    with state_preserved(model), th.no_grad():
        played = play(model, make_fast_vec_env("CartPole-v1", n_envs=2, seed=0), 7, 100, True, 0)
    assert len(played) == 7
    assert len(episode_calibration(played).predicted) == sum(episode.total for episode in played), "each step earns 1"


def test_its_random_numbers_are_not_those_that_training_is_about_to_draw(algorithm: Any) -> None:
    kwargs: dict[str, Any] = {"exploration_initial_eps": 0.5, "exploration_final_eps": 0.5}
    one, other = (calibrated(model_with_true_values(algorithm, seed=seed, **kwargs), deterministic=False) for seed in (0, 1))
    one.pop("scatter"), other.pop("scatter")
    assert one == other


class Counted(Chain):
    """An environment that counts its open instances, and their maximum."""

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

    callback, model = ValueCalibrationCallback(20, 40), model_with_true_values(DQN, env=gym.make("tests/Counted-v0"))
    with pytest.raises(KeyboardInterrupt):
        learn(model, 60, callback=[callback, At(30, stop)])
    assert (Counted.n_open, Counted.most) == (1, 1 + 16)
    learn(model, 30, callback=callback)
    assert (Counted.n_open, Counted.most) == (1, 1 + 16)


def test_a_picture_of_many_points_is_of_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = figures.scatter_image
    monkeypatch.setattr(calibration, "MAX_POINTS", 10)
    drawn: list[int] = []

    def noted(predicted: Any, realised: Any, title: str) -> Any:
        drawn.append(len(predicted))
        return draw(predicted, realised, title)

    monkeypatch.setattr(figures, "scatter_image", noted)
    calibrated(model_with_true_values(DQN))
    assert 5 <= drawn[0] <= 10, "of 24 episodes"


def quadrants(picture: Any, is_there: Any) -> set[tuple[bool, bool]]:
    """Return the quadrants with marked pixels: whether they are in the lower half, and whether in the right half."""
    height, width, _ = picture.shape
    return {(bool(y > height / 2), bool(x > width / 2)) for y, x in np.argwhere(is_there)}


def is_blue(picture: Any) -> Any:
    """Return which pixels of a picture are blue: those of many points."""
    return np.abs(picture.astype(int) - np.array(to_rgb(figures.BLUE)) * 255).sum(axis=2) < 30


def is_colourful(picture: Any) -> Any:
    return np.ptp(picture, axis=2) > 50


def test_predictions_are_upwards_and_visits_to_the_right_are_of_large_first_numbers() -> None:
    picture = figures.scatter_image(np.array([1.0] * 50 + [0.0]), np.array([0.0] * 50 + [1.0]), "")
    assert quadrants(picture, is_blue(picture)) == {(False, False)}, "high and left"
    counts = np.zeros((10, 10), dtype=np.int64)
    counts[9, 1] = 3
    picture = figures.heat_map_image(counts, np.zeros(2), np.ones(2), "")
    assert quadrants(picture, is_colourful(picture)) == {(True, True)}, "low and right"


def test_the_picture_has_the_points_on_its_diagonal() -> None:
    picture = figures.scatter_image(np.repeat([0.0, 1.0], 200), np.repeat([0.0, 1.0], 200), "")
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
