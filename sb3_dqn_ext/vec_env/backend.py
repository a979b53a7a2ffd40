"""The interface between FastVecEnv and its three backends, which step the environments."""

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy.typing as npt
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

Info = dict[str, Any]
Array = npt.NDArray[Any]
GymVectorEnv = VectorEnv[Any, Any, Any]
WrapperClass = type[gym.Wrapper[Any, Any, Any, Any]]


class Backend(Protocol):
    """
    The interface of a backend of :class:`~sb3_dqn_ext.vec_env.FastVecEnv`: several environments that are stepped together.

    Methods with ``indices`` take the indices of some environments.
    """

    env: GymVectorEnv
    """gymnasium's vector environment"""
    reset_infos: list[Info]
    """(n_envs,) the info of each environment's last reset"""

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        """Reset all environments, see ``VecEnv.reset``; ``seeds`` and ``options`` are (n_envs,)."""

    def step_async(self, actions: Array) -> None:
        """Start a step with the actions, (n_envs, ...), see ``VecEnv.step_async``."""

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step, see ``VecEnv.step_wait``."""

    def has_attr(self, name: str) -> bool:
        """Return whether all environments have an attribute."""

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """Return the attribute of each environment."""

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        """Set the attribute of each environment where it is defined, or on the outermost wrapper."""

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> list[Any]:
        """Call a method of each environment and return the results."""

    def is_wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        """Return for each environment whether it has a wrapper of a class."""

    def close(self) -> None:
        """Close all environments."""


def all_equal(options: Sequence[Info]) -> bool:
    """
    Return whether all environments get the same options.

    :param options: (n_envs,) the options of a reset
    """
    return all(other is options[0] or other == options[0] for other in options[1:])
