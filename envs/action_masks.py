"""Action masks as a part of the observation, for environments that have them elsewhere. Shapes: A actions."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.algorithm.action_masks import ACTION_MASK
from sb3_dqn_ext.errors import ArgumentError

Env = gym.Env[Any, Any]
Mask = npt.NDArray[np.int8]

MaskSource = Callable[[Env, dict[str, Any]], Any]
"""A function of the environment and the info of its last step or reset that returns the mask of the next action."""


def mask_of_method(env: Env, info: dict[str, Any]) -> Any:
    """
    Return the result of the environment's method ``action_masks()``, the convention of sb3-contrib.

    :param env: the environment
    :param info: the info of its last step or reset, which is not read
    """
    return env.get_wrapper_attr("action_masks")()


def mask_of_info(env: Env, info: dict[str, Any]) -> Any:
    """
    Return ``info["action_mask"]``, as some environments of gymnasium have it.

    :param env: the environment, for the message of an error
    :param info: the info of its last step or reset
    :raises ArgumentError: if there is no such entry
    """
    if ACTION_MASK not in info:
        raise ArgumentError(f"source='info': {env} returns no {ACTION_MASK!r} in its info, which has the keys {[*info]}.")
    return info[ACTION_MASK]


SOURCES: dict[str, MaskSource] = {"method": mask_of_method, "info": mask_of_info}
SYNONYMS = {"action_masks": "method", "env_method": "method", "function": "method", "infos": "info", "action_mask": "info"}


class ActionMaskInObservation(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    A wrapper that adds the mask of legal actions to the observation, as the part ``action_mask`` of a Dict.

    An observation that is no Dict becomes its part ``observation``. All that sees the observation then sees the mask: training
    with ``policy_kwargs={"action_masks": True}``, evaluations, and ``predict``. Put it inside of wrappers that end episodes.

    :param env: an environment with a Discrete action space
    :param source: the place of the mask. ``"method"``: the environment's method ``action_masks()``; ``"info"``:
        ``info["action_mask"]``; or your own function ``source(env, info)``, which returns (A,) numbers or booleans
    :raises ArgumentError: if there is no such source, or the action space is not Discrete
    """

    def __init__(self, env: Env, source: str | MaskSource = "method") -> None:
        gym.utils.RecordConstructorArgs.__init__(self, source=source)
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Discrete):
            raise ArgumentError(f"ActionMaskInObservation needs a Discrete action space, not {env.action_space}.")
        self._source = source if callable(source) else choose("source", source, SOURCES, SYNONYMS)
        if self._source is mask_of_method and not env.has_wrapper_attr("action_masks"):
            raise ArgumentError(
                f"source='method': {env} has no method action_masks(); source can be 'info', or a function of env and info."
            )
        self._n_actions = int(env.action_space.n)
        self._mask: Mask = np.ones(self._n_actions, np.int8)
        space = env.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
        if ACTION_MASK in parts:
            raise ArgumentError(f"the observations of {env} have the part {ACTION_MASK!r} already: leave the wrapper out.")
        self.observation_space = spaces.Dict({**parts, ACTION_MASK: spaces.MultiBinary(self._n_actions)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info, False), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_mask(observation, info, terminated), reward, terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Return the (A,) mask of the next action, for code that follows the convention of sb3-contrib."""
        return self._mask.astype(np.bool_)

    def _with_mask(self, observation: Any, info: dict[str, Any], terminated: bool) -> dict[str, Any]:
        mask = np.asarray(self._source(self.env, info))
        if mask.shape != (self._n_actions,):
            raise ArgumentError(f"the action mask of {self.env} must have the shape ({self._n_actions},), not {mask.shape}.")
        if not terminated and not mask.any():
            raise ArgumentError(f"no action is legal in {self.env}, whose episode has not terminated.")
        self._mask = (mask != 0).astype(np.int8)
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        return {**parts, ACTION_MASK: self._mask}
