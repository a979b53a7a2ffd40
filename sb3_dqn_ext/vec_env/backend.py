"""What FastVecEnv asks of many environments; there are three ways to step them."""

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
    What :class:`~sb3_dqn_ext.vec_env.FastVecEnv` asks of many environments.

    ``env`` is gymnasium's, and ``reset_infos`` what each environment said at its last reset. Indices are always a sequence.
    """

    env: GymVectorEnv
    reset_infos: list[Info]

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        """Reset all, see ``VecEnv.reset``."""

    def step_async(self, actions: Array) -> None:
        """Take the actions, see ``VecEnv.step_async``."""

    def step_wait(self) -> VecEnvStepReturn:
        """See ``VecEnv.step_wait``."""

    def has_attr(self, name: str) -> bool:
        """Whether all have such an attribute."""

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """The attribute of each."""

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        """Set the attribute where it is, or else at the outermost."""

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> list[Any]:
        """Call a method of each."""

    def wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        """Whether each has such a wrapper."""

    def close(self) -> None:
        """Close all."""


def all_equal(options: Sequence[Info]) -> bool:
    """
    :param options: (n_envs,) options of a reset
    :return: whether they are the same everywhere
    """
    return all(other is options[0] or other == options[0] for other in options[1:])
