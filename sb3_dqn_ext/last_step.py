"""The latest step of the training environments, which somebody else may have reset since."""

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any, NamedTuple

from stable_baselines3.common.vec_env import VecEnv

__all__ = ["LastStep", "latest_reset_infos", "stepped_vec_envs"]


def latest_reset_infos(envs: Sequence[VecEnv]) -> list[Any]:
    """
    :param envs: innermost vector environments
    :return: what each keeps of the latest reset of each of its environments: another object after another reset
    """
    if len(envs) == 1:  # the usual case
        return [*getattr(envs[0], "reset_infos", ())]
    return [info for env in envs for info in getattr(env, "reset_infos", ())]


def stepped_vec_envs(env: VecEnv, others: Iterable[Any]) -> list[VecEnv]:
    """
    :param env: a vector environment
    :param others: environments
    :return: the innermost vector environments of it, and of those that step the very same environments: an ``EvalCallback``
        may have been given the model's
    """
    own = set(_members(env))
    return [env.unwrapped, *(other.unwrapped for other in others if not own.isdisjoint(_members(other)))]


def _members(env: Any) -> list[int]:
    return [id(one.unwrapped) for one in getattr(getattr(env, "unwrapped", None), "envs", ())]


class LastStep(NamedTuple):
    """What the next step of a training continues from."""

    envs: Sequence[VecEnv]
    """the training environments, and others that share some with them"""
    resets: list[Any]
    """their latest resets at that time"""
    observations: Any
    """(n_envs, \\*obs) the observations after it"""

    def was_reset_since(self, env: VecEnv) -> bool:
        """
        :param env: the training environments
        :return: whether they are the same and were reset since
        """
        return not all(map(is_, self.resets, latest_reset_infos(self.envs))) and env.unwrapped is self.envs[0]
