"""Environments with action masks, which end a run with an error if an illegal action is chosen."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_dqn_ext.envs import ActionMaskInObservation

Array = np.ndarray[Any, Any]
MASKED = {"action_masks": True}
"""``policy_kwargs`` of models that choose among legal actions"""


class IllegalActionError(Exception):
    """The error of an action that is not legal."""


class Strict(gym.Env[Any, Any]):
    """
    An environment whose observation equals its random mask, so that both can be compared wherever they are stored.

    :param place: the place of the mask: ``"observation"``, ``"method"`` or ``"info"``
    :param n_actions: the number of actions
    :param render_mode: see ``gymnasium.Env``
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012

    def __init__(self, place: str = "observation", n_actions: int = 11, render_mode: str | None = None) -> None:
        self.place, self.n_actions, self.render_mode = place, n_actions, render_mode
        self.action_space = spaces.Discrete(n_actions)
        vector = spaces.Box(0, 1, (n_actions,), np.float32)
        mask = spaces.Box(0, 1, (n_actions,), np.int8)
        self.observation_space: Any = spaces.Dict(observation=vector, action_mask=mask) if place == "observation" else vector
        self.mask: Array = np.zeros(n_actions, np.int8)
        if place == "method":
            self.action_masks: Callable[[], Array] = lambda: self.mask != 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._next(ends=False)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.mask[action]:
            raise IllegalActionError(f"{action} is not in {self.mask.nonzero()[0]}")
        terminated, truncated = self.np_random.random() < 0.1, self.np_random.random() < 0.1
        observation, info = self._next(terminated)
        return observation, float(action) / self.n_actions, terminated, truncated, info

    def render(self) -> Any:
        return np.zeros((64, 64, 3), np.uint8)

    def _next(self, ends: bool) -> tuple[Any, dict[str, Any]]:
        self.mask = (self.np_random.random(self.n_actions) < 0.25).astype(np.int8)
        self.mask[self.np_random.integers(self.n_actions)] = 1
        if ends:
            self.mask[:] = 0
        vector = self.mask.astype(np.float32)
        if self.place == "observation":
            return {"observation": vector, "action_mask": self.mask.copy()}, {}
        return vector, {"action_mask": self.mask.copy()} if self.place == "info" else {}


def strict(place: str = "observation") -> gym.Env[Any, Any]:
    """Make the environment with the mask in its observation."""
    env = Strict(place)
    return env if place == "observation" else ActionMaskInObservation(env, place)


gym.register("tests/Strict-v0", entry_point=f"{__name__}:strict")
gym.register("tests/StrictMethod-v0", entry_point=f"{__name__}:Strict", kwargs={"place": "method"})
