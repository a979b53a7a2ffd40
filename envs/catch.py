"""Catch, a small game on an image of 10 x 5 pixels, by the rules of bsuite (Osband et al., 2020), alone and many at a time."""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

ROWS, COLUMNS = 10, 5
PADDLE_ROW = ROWS - 1
MOVES = {0: -1, 1: 0, 2: 1}
"""The columns by which each action moves the paddle; a dict, so that a wrong action is an error."""
LIT = 255
"""The value of the pixels of the ball and of the paddle. All other pixels are 0."""
PIXEL_SIZE = 16
"""The side of a rendered pixel."""

OBSERVATION_SPACE = spaces.Box(0, 255, (ROWS, COLUMNS, 1), np.uint8)
ACTION_SPACE = spaces.Discrete(3)

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Images = npt.NDArray[np.uint8]


def enlarge(image: Images) -> Images:
    """
    Return a picture for films.

    :param image: (10, 5, 1) an observation
    :return: (160, 80, 3) the picture
    """
    picture: Images = image.repeat(PIXEL_SIZE, 0).repeat(PIXEL_SIZE, 1).repeat(3, 2)
    return picture


class CatchEnv(gym.Env[Images, Any]):
    """
    A ball falls from a random column of the top row, one row a step. The paddle in the last row catches it or misses it.

    Actions: 0 moves the paddle to the left, 1 does not move it, 2 moves it to the right. After nine steps the ball is in the
    last row, and the episode ends with a reward of 1 if the paddle is there, else -1. All other rewards are 0.

    :param render_mode: None, or ``"rgb_array"``
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # an attribute of the instance in gym.Env

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = OBSERVATION_SPACE, ACTION_SPACE
        self.ball_row = self.ball_column = self.paddle_column = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Images, dict[str, Any]]:
        super().reset(seed=seed)
        self.ball_row, self.ball_column = 0, int(self.np_random.integers(COLUMNS))
        self.paddle_column = COLUMNS // 2
        return self._observe(), {}

    def step(self, action: int) -> tuple[Images, float, bool, bool, dict[str, Any]]:
        self.paddle_column = min(max(self.paddle_column + MOVES[int(action)], 0), COLUMNS - 1)
        self.ball_row += 1
        terminated = self.ball_row == PADDLE_ROW
        reward = (1.0 if self.ball_column == self.paddle_column else -1.0) if terminated else 0.0
        return self._observe(), reward, terminated, False, {}

    def render(self) -> Any:
        return enlarge(self._observe()) if self.render_mode == "rgb_array" else None

    def _observe(self) -> Images:
        image = np.zeros((ROWS, COLUMNS, 1), np.uint8)
        image[self.ball_row, self.ball_column] = LIT
        image[PADDLE_ROW, self.paddle_column] = LIT
        return image


class CatchVectorEnv(VectorEnv[Images, Ints, Any]):
    """
    Many games of Catch, see :class:`CatchEnv`. A game is reset in the step in which it ends.

    :param num_envs: the number of games
    :param max_episode_steps: the time limit; None (default): none
    :param render_mode: None, or ``"rgb_array"``
    """

    metadata = {  # noqa: RUF012
        "render_modes": ["rgb_array"],
        "render_fps": 10,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int = 1, max_episode_steps: int | None = None, render_mode: str | None = None) -> None:
        self.num_envs, self.render_mode = num_envs, render_mode
        self.max_episode_steps = ROWS if max_episode_steps is None else max_episode_steps
        self.single_observation_space, self.single_action_space = OBSERVATION_SPACE, ACTION_SPACE
        self.observation_space = batch_space(OBSERVATION_SPACE, num_envs)
        self.action_space = batch_space(ACTION_SPACE, num_envs)
        self.ball_rows, self.ball_columns, self.paddle_columns = (np.zeros(num_envs, np.int64) for _ in range(3))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Images, dict[str, Any]]:
        super().reset(seed=seed)
        self._reset_games(np.ones(self.num_envs, np.bool_))
        return self._observe(), {}

    def step(self, actions: Ints) -> tuple[Images, npt.NDArray[np.float64], Bools, Bools, dict[str, Any]]:
        self.paddle_columns = np.clip(self.paddle_columns + actions - 1, 0, COLUMNS - 1)
        self.ball_rows = self.ball_rows + 1
        terminated = self.ball_rows == PADDLE_ROW
        truncated = self.ball_rows >= self.max_episode_steps  # the ball falls one row a step
        rewards = np.where(terminated, np.where(self.ball_columns == self.paddle_columns, 1.0, -1.0), 0.0)
        observations, infos = self._observe(), {}
        ended = terminated | truncated
        if np.count_nonzero(ended):  # several times as fast as any()
            infos = {"final_obs": observations, "_final_obs": ended, "final_info": {}, "_final_info": ended}
            self._reset_games(ended)
            observations = self._observe()
        return observations, rewards, terminated, truncated, infos

    def render(self) -> Any:
        return tuple(map(enlarge, self._observe())) if self.render_mode == "rgb_array" else None

    def _reset_games(self, games: Bools) -> None:
        """
        Start new games.

        :param games: (n_envs,) a mask of the games to reset
        """
        self.ball_rows[games] = 0
        self.ball_columns[games] = self.np_random.integers(COLUMNS, size=np.count_nonzero(games))
        self.paddle_columns[games] = COLUMNS // 2

    def _observe(self) -> Images:
        images = np.zeros((self.num_envs, ROWS, COLUMNS, 1), np.uint8)
        games = np.arange(self.num_envs)
        images[games, self.ball_rows, self.ball_columns] = LIT
        images[games, PADDLE_ROW, self.paddle_columns] = LIT
        return images
