"""The games of MinAtar (Young and Tian, 2019) as environments, on top of the ``minatar`` package."""

from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled

from sb3_dqn_ext._validation import check_number, check_type, choose
from sb3_dqn_ext.envs.registry import MINATAR_GAMES

Image = npt.NDArray[np.bool_]

PIXEL_SIZE = 16
"""The side of a rendered pixel."""


class MinAtarEnv(gym.Env[Any, Any]):
    """
    A game of MinAtar: a small version of an Atari game on an image of 10 x 10 pixels with a channel for each kind of object.

    The game itself is that of the package ``minatar``, which is installed with ``pip install "sb3-dqn-ext[minatar]"`` and has
    the licence GPL. After a reset with a seed, observations, rewards and ends equal those of a new game of the package with
    that seed. There is no time limit, except in Freeway, where the package terminates the episode after 2,501 steps.

    :param game: ``"asterix"``, ``"breakout"``, ``"freeway"``, ``"seaquest"`` or ``"space_invaders"``
    :param minimal_actions: whether only the actions that have an effect in the game are available, else all six
    :param sticky_action_prob: the probability with which the previous action is repeated in place of the chosen one
    :param difficulty_ramping: whether the game becomes harder with time
    :param render_mode: None, or ``"rgb_array"``
    :raises ArgumentError: if an argument has a wrong value
    :raises DependencyNotInstalled: if ``minatar`` is not installed
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012  # an attribute of the instance in gym.Env

    def __init__(
        self,
        game: str,
        minimal_actions: bool = True,
        sticky_action_prob: float = 0.1,
        difficulty_ramping: bool = True,
        render_mode: str | None = None,
    ) -> None:
        choose("game", game, {name: name for name in MINATAR_GAMES.values()}, MINATAR_GAMES)
        check_type("minimal_actions", minimal_actions, bool, "True or False")
        check_number("sticky_action_prob", sticky_action_prob, 0, 1)
        check_type("difficulty_ramping", difficulty_ramping, bool, "True or False")
        try:
            from minatar import Environment  # an extra; only these environments need it
        except ImportError as error:
            raise DependencyNotInstalled('MinAtar needs the package minatar: pip install "sb3-dqn-ext[minatar]"') from error
        self.game = Environment(game, sticky_action_prob, difficulty_ramping)
        self.game.env.random = self.game.random  # as after a seed: one generator for sticky actions and for the game
        self.render_mode = render_mode
        actions = self.game.minimal_action_set() if minimal_actions else range(self.game.num_actions())
        # a dict, so that a wrong action is an error: -1 would be the last one of a list
        self.actions = dict(enumerate(actions))
        self.action_space = spaces.Discrete(len(self.actions))
        self.observation_space = spaces.Box(0, 1, tuple(self.game.state_shape()), np.bool_)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Image, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.game.seed(seed)
            self.game.last_action = 0  # the package keeps it; a seed would not fix the first sticky action
        self.game.reset()
        return self._observe(), {}

    def step(self, action: int) -> tuple[Image, float, bool, bool, dict[str, Any]]:
        reward, terminated = self.game.act(self.actions[int(action)])
        return self._observe(), float(reward), bool(terminated), False, {}

    def render(self) -> Any:
        return colored(self._observe()) if self.render_mode == "rgb_array" else None

    def get_state(self) -> dict[str, Any]:
        """Return a copy of the state of the game and of the action that may stick, without the random generator."""
        game = {name: value for name, value in vars(self.game.env).items() if name != "random"}
        return {"last_action": self.game.last_action, "game": deepcopy(game)}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        Set the state of the game and the action that may stick.

        :param state: the state from :meth:`get_state` of the same game
        """
        self.game.last_action = state["last_action"]
        vars(self.game.env).update(deepcopy(state["game"]))

    def _observe(self) -> Image:
        image: Image = self.game.state()
        return image


def colored(image: Image) -> npt.NDArray[np.uint8]:
    """
    Return a picture for films, with a colour for each channel. The last channel that is set in a pixel gives its colour.

    :param image: (10, 10, n_channels) an observation
    :return: (160, 160, 3) the picture
    """
    n_channels = image.shape[-1]
    hues = np.arange(n_channels) / n_channels * 2 * np.pi
    shifts = np.array([0, 2, 4]) * np.pi / 3
    colors = np.concatenate([np.zeros((1, 3)), 0.6 + 0.4 * np.cos(hues[:, None] - shifts)])
    channels = (image * np.arange(1, n_channels + 1)).max(-1)
    picture: npt.NDArray[np.uint8] = (255 * colors[channels]).astype(np.uint8)
    return picture.repeat(PIXEL_SIZE, 0).repeat(PIXEL_SIZE, 1)
