"""Games of two players (PettingZoo) as environments of one player."""

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK
from sb3_dqn_ext.errors import ArgumentError

Opponent = Callable[[Any, np.random.Generator], int]
"""A function of the opponent's observation and the environment's generator that returns an action."""


def random_move(observation: Any, generator: np.random.Generator) -> int:
    """
    Return a random legal action.

    :param observation: the observation of the opponent, with its mask
    :param generator: the generator of the environment
    """
    return int(generator.choice(np.flatnonzero(observation[ACTION_MASK])))


class TwoPlayerGame(gym.Env[Any, Any]):
    """
    A game of PettingZoo for two players, one of whom is a part of the environment. Who begins is drawn in each episode.

    Observations are those of the game: a Dict of ``observation`` and ``action_mask``. The reward is 1 for a victory and -1 for
    a defeat in Connect Four and in tic-tac-toe; an illegal action is a defeat.

    :param game: a module of PettingZoo with a function ``env``, such as ``"pettingzoo.classic.connect_four.connect_four"``, or
        a function that makes an ``AECEnv`` and takes ``render_mode``
    :param opponent: a function ``opponent(observation, generator)`` that returns an action; by default it is random and legal
    :param render_mode: a render mode of the game
    :raises ArgumentError: if the game has not two players with the same spaces
    :raises DependencyNotInstalled: if the module of the game cannot be imported
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 2}  # noqa: RUF012  # an attribute of the instance in gym.Env

    def __init__(
        self, game: str | Callable[..., Any], opponent: Opponent = random_move, render_mode: str | None = None
    ) -> None:
        self.game = (_module(game).env if isinstance(game, str) else game)(render_mode=render_mode)
        self.opponent, self.render_mode = opponent, render_mode
        players = self.game.possible_agents
        of_each = [(self.game.observation_space(player), self.game.action_space(player)) for player in players]
        if len(players) != 2 or of_each[0] != of_each[1] or not isinstance(of_each[0][1], spaces.Discrete):
            raise ArgumentError(f"game={game!r} must have two players with the same spaces and a Discrete one of actions.")
        self.observation_space, self.action_space = of_each[0]
        self.player = players[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.game.reset(seed=int(self.np_random.integers(2**31)), options=options)
        self.player = self.game.possible_agents[self.np_random.integers(2)]
        observation, _, _, _, info = self._until_own_turn()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.game.step(int(action))
        observation, reward, terminated, truncated, info = self._until_own_turn()
        return observation, float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        return self.game.render()

    def close(self) -> None:
        self.game.close()

    def _until_own_turn(self) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Let the opponent act, and return the result of the game for the player since its last action."""
        while self.game.agent_selection != self.player:
            observation, _, terminated, truncated, _ = self.game.last()
            ended = terminated or truncated  # PettingZoo's players take their leave with None
            self.game.step(None if ended else self.opponent(observation, self.np_random))
        result: tuple[Any, float, bool, bool, dict[str, Any]] = self.game.last()
        return result


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = 'pip install "sb3-dqn-ext[pettingzoo]"'
        raise DependencyNotInstalled(f"game={name!r} cannot be imported, {error}: {extra}") from error
