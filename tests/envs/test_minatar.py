"""The games of MinAtar against the package that they are made of."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.processes import output, python

minatar = pytest.importorskip("minatar")

GAMES = ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]
every_game = pytest.mark.parametrize("game", GAMES)


def env_id(game: str) -> str:
    """Return the id of a game."""
    return f"dqn_ext/MinAtar-{game.title().replace('_', '')}-v1"


@every_game
@pytest.mark.parametrize("minimal_actions", [True, False])
def test_a_game_equals_that_of_the_package(game: str, minimal_actions: bool) -> None:
    original = minatar.Environment(game)
    env = gym.make(env_id(game), minimal_actions=minimal_actions)
    actions = original.minimal_action_set() if minimal_actions else range(6)
    assert env.action_space == gym.spaces.Discrete(len(actions))
    rng = np.random.default_rng(0)
    n_ends = 0
    original.seed(7)
    original.reset()
    observation, _ = env.reset(seed=7)
    for _ in range(600):
        assert env.observation_space.contains(observation)
        np.testing.assert_array_equal(observation, original.state())
        action = int(rng.integers(len(actions)))
        reward, ended = original.act(actions[action])
        observation, *rest = env.step(action)
        assert rest == [reward, ended, False, {}]
        if ended:
            n_ends += 1
            original.reset()
            observation, _ = env.reset()
    assert n_ends or game in ("freeway", "space_invaders", "seaquest")


@every_game
def test_a_game_is_an_environment_with_pictures(game: str) -> None:
    check_env(gym.make(env_id(game)).unwrapped, skip_render_check=True)
    env = gym.make(env_id(game), render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[::16, ::16].any(-1), observation.any(-1))


def test_sticky_actions_and_ramping_are_arguments() -> None:
    env: Any = gym.make("dqn_ext/MinAtar-Breakout-v1", sticky_action_prob=0.0, difficulty_ramping=False).unwrapped
    assert env.game.sticky_action_prob == 0.0
    assert gym.make("dqn_ext/MinAtar-Asterix-v1", difficulty_ramping=False).unwrapped.game.env.ramping is False  # type: ignore[attr-defined]


def test_games_without_a_seed_are_drawn_from_the_generator_of_the_environment() -> None:
    first, second = (gym.make("dqn_ext/MinAtar-Asterix-v1") for _ in range(2))
    for env in (first, second):
        env.unwrapped.np_random = np.random.default_rng(5)
    np.testing.assert_array_equal(first.reset()[0], second.reset()[0])
    for _ in range(100):
        np.testing.assert_array_equal(first.step(0)[0], second.step(0)[0])


def test_many_games_are_stepped_in_turn() -> None:
    env = make_fast_vec_env("dqn_ext/MinAtar-Breakout-v1", 3, seed=0)
    observations: Any = env.reset()
    assert observations.shape == (3, 10, 10, 4)
    assert observations.dtype == np.bool_
    ends: list[dict[str, Any]] = []
    for _ in range(200):
        *_, dones, infos = env.step(np.zeros(3, int))
        ends += [info for info, done in zip(infos, dones, strict=True) if done]
    assert ends
    assert all("episode" in info for info in ends)


def test_without_the_package_the_error_contains_the_command_that_installs_it(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["minatar"] = None
import gymnasium as gym
import sb3_dqn_ext
try:
    gym.make("dqn_ext/MinAtar-Breakout-v1")
except gym.error.DependencyNotInstalled as error:
    print(error)
"""
    assert 'pip install "sb3-dqn-ext[minatar]"' in output(python("-c", script, cwd=tmp_path))
