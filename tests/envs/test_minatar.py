"""The games of MinAtar against the package that they are made of."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import minatar
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor

from sb3_dqn_ext.checkpoint.envs import ReplayWrapper
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.processes import python

Env = gym.Env[Any, Any]

GAMES = ["asterix", "breakout", "freeway", "seaquest", "space_invaders"]
every_game = pytest.mark.parametrize("game", GAMES)


def env_id(game: str) -> str:
    """Return the id of a game."""
    return f"dqn_ext/MinAtar-{game.title().replace('_', '')}-v1"


@every_game
@pytest.mark.parametrize(
    "arguments",
    [{}, {"minimal_actions": False}, {"sticky_action_prob": 0.5}, {"sticky_action_prob": 0.0, "difficulty_ramping": False}],
)
def test_a_game_equals_that_of_the_package(game: str, arguments: dict[str, Any]) -> None:
    of_package = {name: value for name, value in arguments.items() if name != "minimal_actions"}
    original = minatar.Environment(game, **of_package)
    env = gym.make(env_id(game), **arguments)
    actions = range(6) if "minimal_actions" in arguments else original.minimal_action_set()
    assert env.action_space == gym.spaces.Discrete(len(actions))
    rng = np.random.default_rng(0)
    n_ends = 0
    original.seed(7)
    original.reset()
    observation, _ = env.reset(seed=7)
    for _ in range(2600):
        assert observation.dtype == original.state().dtype == np.bool_
        assert observation.shape == tuple(original.state_shape())
        np.testing.assert_array_equal(observation, original.state())
        action = int(rng.integers(len(actions)))
        reward, ended = original.act(actions[action])
        observation, *rest = env.step(action)
        assert rest == [reward, ended, False, {}]
        if ended:
            n_ends += 1
            original.reset()
            observation, _ = env.reset()
    assert n_ends


# SB3's checks warn that a bool image is not one for its CnnPolicy.
@pytest.mark.filterwarnings("ignore:It seems that your observation")
@pytest.mark.filterwarnings("ignore:The minimal resolution for an image")
@every_game
def test_a_game_is_an_environment_with_pictures(game: str) -> None:
    gymnasium_check_env(gym.make(env_id(game), render_mode="rgb_array").unwrapped)
    sb3_check_env(gym.make(env_id(game)))
    env = gym.make(env_id(game), render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (160, 160, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[::16, ::16].any(-1), observation.any(-1))
    n_colors = len(np.unique(picture.reshape(-1, 3), axis=0))
    top = (observation * np.arange(1, observation.shape[-1] + 1)).max(-1)
    assert n_colors == len(np.unique(top))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"game": "Breakout"}, "Did you mean 'breakout'"),
        ({"sticky_action_prob": 1.5}, "sticky_action_prob=1.5 must be a finite number in"),
        ({"minimal_actions": "full"}, "minimal_actions='full' must be True or False"),
        ({"difficulty_ramping": 3}, "difficulty_ramping=3 must be True or False"),
    ],
)
def test_a_wrong_argument_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        gym.make("dqn_ext/MinAtar-Breakout-v1", **arguments)


def test_a_seed_fixes_the_first_sticky_action() -> None:
    env = gym.make("dqn_ext/MinAtar-Breakout-v1", sticky_action_prob=1.0)
    paddles = []
    for action in (1, 2):
        env.reset(seed=0)
        paddles.append(env.step(action)[0][9, :, 0].argmax())
        env.unwrapped.game.last_action = 3  # type: ignore[attr-defined]  # "r"
    assert paddles == [4, 4]


def play(env: Env, rng: np.random.Generator, n_steps: int) -> list[Any]:
    """Take random actions, and return what the environment returned."""
    seen: list[Any] = []
    for _ in range(n_steps):
        observation, *rest, _ = env.step(rng.integers(env.action_space.n))  # type: ignore[attr-defined]
        seen.append([observation.tolist(), *rest])
        if rest[1]:
            seen.append(env.reset()[0].tolist())
    return seen


@every_game
def test_a_game_is_restored_in_the_middle_of_an_episode(game: str) -> None:
    def make() -> ReplayWrapper:
        return ReplayWrapper(Monitor(gym.make(env_id(game), sticky_action_prob=0.9)))

    for trial in range(3):  # the action that sticks at the first step is that of the last episode
        first, second = make(), make()
        first.reset(seed=trial if trial % 2 else None)
        play(first, np.random.default_rng(trial), 100 + 10 * trial)
        assert second.restore_or_reset(first.get_state())[1] is None
        assert play(second, np.random.default_rng(1), 100) == play(first, np.random.default_rng(1), 100)


@every_game
def test_a_copy_of_a_game_continues_like_it(game: str) -> None:
    env = gym.make(env_id(game))
    env.reset(seed=0)
    play(env, np.random.default_rng(0), 50)
    copies = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env)]
    expected = play(env, np.random.default_rng(1), 100)
    for one in copies:
        assert play(one, np.random.default_rng(1), 100) == expected


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


def test_without_the_package_a_command_ends_with_one_line_that_installs_it(tmp_path: Path) -> None:
    (tmp_path / "minatar.py").write_text("raise ModuleNotFoundError(\"No module named 'minatar'\")")
    command = "-m sb3_dqn_ext train --env dqn_ext/MinAtar-Breakout-v1 -n 300"
    process = python(*command.split(), cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].endswith(': MinAtar needs the package minatar: pip install "sb3-dqn-ext[minatar]"')
    assert "Traceback" not in process.stderr
