"""Catch: its rules, and its vector form against single games."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.vec_env import make_fast_vec_env

CATCH = "dqn_ext/Catch-v0"
LEFT, STAY, RIGHT = 0, 1, 2


def lit_pixels(observation: Any) -> list[tuple[int, int]]:
    """Return the rows and columns of the pixels that are not 0."""
    return [(int(row), int(column)) for row, column, _ in np.argwhere(observation)]


def start_with_ball_in(column: int, limit: int | None = None) -> tuple[gym.Env[Any, Any], Any]:
    """Return a game whose ball is in a column, and its first observation."""
    env = gym.make(CATCH, max_episode_steps=limit)
    for seed in range(100):
        observation, _ = env.reset(seed=seed)
        if lit_pixels(observation)[0] == (0, column):
            return env, observation
    raise AssertionError(column)


@pytest.mark.filterwarnings("ignore:The minimal resolution for an image")  # of SB3's CnnPolicy
def test_it_is_an_environment() -> None:
    gymnasium_check_env(gym.make(CATCH, render_mode="rgb_array").unwrapped)
    sb3_check_env(gym.make(CATCH))
    env = gym.make(CATCH, render_mode="rgb_array")
    env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (160, 80, 3)
    assert sorted(set(picture.ravel())) == [0, 255]


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("action", [LEFT, STAY, RIGHT])
def test_the_ball_falls_one_row_a_step_and_is_caught_or_missed(column: int, action: int) -> None:
    env, observation = start_with_ball_in(column)
    assert lit_pixels(observation) == [(0, column), (9, 2)]
    for step in range(1, 10):
        observation, reward, terminated, truncated, _ = env.step(action)
        paddle = {LEFT: max(2 - step, 0), STAY: 2, RIGHT: min(2 + step, 4)}[action]
        assert lit_pixels(observation) == sorted({(step, column), (9, paddle)})
        assert not truncated
        assert terminated == (step == 9)
        assert reward == ((1.0 if paddle == column else -1.0) if step == 9 else 0.0)


def test_balls_fall_in_all_columns_equally_often() -> None:
    env = gym.make(CATCH)
    env.reset(seed=0)
    counts = np.bincount([lit_pixels(env.reset()[0])[0][1] for _ in range(2000)], minlength=5)
    assert counts.min() > 330
    assert counts.max() < 470


@pytest.mark.parametrize("limit", [None, 5, 9])
def test_many_games_are_single_games_with_the_same_balls(limit: int | None) -> None:
    rng = np.random.default_rng(0)
    games = gym.make_vec(CATCH, 4, max_episode_steps=limit)
    observations, _ = games.reset(seed=3)
    n_ends = 0
    singles = [start_with_ball_in(lit_pixels(image)[0][1], limit)[0] for image in observations]
    for _ in range(40):
        actions = rng.integers(3, size=4)
        observations, rewards, terminated, truncated, infos = games.step(actions)
        for i, single in enumerate(singles):
            expected, *rest, _ = single.step(int(actions[i]))
            ended = rest[1] or rest[2]
            last = infos["final_obs"][i] if ended else observations[i]
            np.testing.assert_array_equal(last, expected)
            assert [rewards[i], terminated[i], truncated[i]] == rest
            if ended:
                n_ends += 1
                singles[i], _ = start_with_ball_in(lit_pixels(observations[i])[0][1], limit)
    assert n_ends == 4 * (40 // (limit or 9))


def test_pictures_of_many_games_are_those_of_single_games() -> None:
    games: Any = gym.make_vec(CATCH, 2, render_mode="rgb_array")
    observations, _ = games.reset(seed=0)
    for observation, picture in zip(observations, games.render(), strict=True):
        np.testing.assert_array_equal(picture[::16, ::16], observation.repeat(3, 2))
        assert picture.shape == (160, 80, 3)


def test_a_network_learns_to_catch() -> None:
    model = DQNExt(
        "MlpPolicy",
        make_fast_vec_env(CATCH, 8, seed=0),
        learning_rate=2e-3,
        learning_starts=500,
        batch_size=64,
        train_freq=1,
        gradient_steps=2,
        gamma=0.9,
        target_update_interval=200,
        exploration_fraction=0.4,
        exploration_final_eps=0.05,
        policy_kwargs={"net_arch": [64]},
        seed=0,
        device="cpu",
    )
    model.learn(10_000)
    caught = 0
    for seed in range(20):
        env = gym.make(CATCH)
        observation, _ = env.reset(seed=seed)
        ended, reward = False, 0.0
        while not ended:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, ended, _, _ = env.step(int(action))  # type: ignore[assignment]
        caught += reward == 1.0
    assert caught == 20
