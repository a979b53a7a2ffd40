"""Games of PettingZoo as environments of one player."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled
from pettingzoo.classic.tictactoe import tictactoe

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.envs.two_player_games import TwoPlayerGame
from sb3_dqn_ext.errors import ArgumentError
from tests.masked_envs import MASKED

Array = np.ndarray[Any, Any]
GAMES = ["dqn_ext/ConnectFour-v0", "dqn_ext/TicTacToe-v0"]


def play(env: gym.Env[Any, Any], seed: int) -> list[tuple[dict[str, Array], float]]:
    """Play an episode of random legal actions, and return the observation and the reward of each step."""
    random = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    steps, ended = [], False
    while not ended:
        action = random.choice(np.flatnonzero(observation["action_mask"]))
        following, reward, terminated, truncated, _ = env.step(action)
        steps.append((observation, float(reward)))
        observation, ended = following, terminated or truncated
    return steps


@pytest.mark.parametrize("env_id", GAMES)
def test_pieces_alternate_and_masks_are_those_of_the_board(env_id: str) -> None:
    env, firsts = gym.make(env_id), set()
    for seed in range(20):
        steps = play(env, seed)
        firsts.add(int(steps[0][0]["observation"].sum()))  # the pieces of the opponent, if it has begun
        for i, (observation, reward) in enumerate(steps):
            assert env.observation_space.contains(observation)
            own, others = observation["observation"][..., 0], observation["observation"][..., 1]
            assert own.sum() == i
            assert others.sum() == i + steps[0][0]["observation"].sum()
            free = own + others == 0
            columns = free[0] if env_id == GAMES[0] else free.ravel()
            assert observation["action_mask"].tolist() == columns.astype(int).tolist()
            assert reward == 0 or i + 1 == len(steps)
    assert firsts == {0, 1}


def test_two_random_players_of_tic_tac_toe_win_as_often_as_is_known() -> None:
    env = gym.make(GAMES[1])
    rewards = [play(env, seed)[-1][1] for seed in range(400)]
    # of all random games, 58.5 % are won by the player who begins, 28.8 % by the other one
    for reward, share in ((1, 0.4365), (-1, 0.4365), (0, 0.127)):
        assert np.mean(np.array(rewards) == reward) == pytest.approx(share, abs=0.08)


def test_an_illegal_action_is_a_defeat() -> None:
    env = gym.make(GAMES[0])
    env.reset(seed=0)
    results = [env.step(0) for _ in range(3)]
    while not results[-1][2]:
        results.append(env.step(0))
    assert results[-1][1] == -1


def test_a_function_of_a_user_is_a_game_or_an_opponent() -> None:
    env = TwoPlayerGame(tictactoe.env, opponent=lambda observation, generator: int(observation["action_mask"].argmax()))
    for seed in range(4):  # the opponent takes the first free cell
        observation, _ = env.reset(seed=seed)
        begins = int(observation["observation"].sum())
        cells = observation["observation"][..., 1].ravel()
        assert cells.tolist() == [begins, *[0] * 8]
        observation, *_ = env.step(8)
        assert observation["observation"][..., 1].ravel()[: begins + 1].all()


def test_a_game_is_learned_with_masks() -> None:
    env = gym.make(GAMES[0])
    small: dict[str, Any] = {"buffer_size": 100, "learning_starts": 20, "train_freq": 1, "batch_size": 4, "device": "cpu"}
    model = DQNExt("MlpPolicy", env, policy_kwargs={"net_arch": [8]} | MASKED, n_steps=2, seed=0, **small)
    model.learn(80)


def test_a_wrong_game_is_explained() -> None:
    with pytest.raises(DependencyNotInstalled, match=r"pip install \"sb3-dqn-ext\[pettingzoo\]\""):
        TwoPlayerGame("pettingzoo.classic.hopscotch")

    class OnePlayer:
        possible_agents = ("alone",)

        def __init__(self, render_mode: Any) -> None:
            pass

        def observation_space(self, player: str) -> Any:
            return None

        action_space = observation_space

    with pytest.raises(ArgumentError, match="must have two players"):
        TwoPlayerGame(OnePlayer)
