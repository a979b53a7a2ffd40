"""The latest step of the training environments, which somebody else may have reset since."""

from operator import is_
from typing import Any, NamedTuple

from stable_baselines3.common.vec_env import VecEnv

__all__ = ["LastStep", "latest_resets"]


def latest_resets(env: VecEnv) -> list[Any]:
    """
    :param env: a vector environment
    :return: the innermost one, and what it keeps of the latest reset of each environment: other objects after another reset
    """
    return [env.unwrapped, *getattr(env.unwrapped, "reset_infos", ())]


class LastStep(NamedTuple):
    """What the next step of a training continues from."""

    resets: list[Any]
    """the latest resets at that time"""
    observations: Any
    """(n_envs, \\*obs) the observations after it"""

    def is_undone(self, env: VecEnv) -> bool:
        """
        :param env: the training environments
        :return: whether they are the same and were reset since
        """
        resets = latest_resets(env)
        return resets[0] is self.resets[0] and not all(map(is_, self.resets, resets))
