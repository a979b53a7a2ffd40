"""The last step of the training environments, and whether they have been reset since by other code."""

from collections.abc import Iterable, Sequence
from operator import is_
from typing import Any, NamedTuple

from stable_baselines3.common.vec_env import VecEnv

__all__ = ["LastStep", "latest_reset_infos", "stepped_vec_envs"]


def latest_reset_infos(envs: Sequence[VecEnv]) -> list[Any]:
    """
    Return the info of each environment's latest reset. Another reset replaces the object.

    :param envs: innermost vectorised environments (``VecEnv.unwrapped``)
    :return: the infos, in order
    """
    if len(envs) == 1:  # the usual case
        return [*getattr(envs[0], "reset_infos", ())]
    return [info for env in envs for info in getattr(env, "reset_infos", ())]


def stepped_vec_envs(env: VecEnv, others: Iterable[Any]) -> list[VecEnv]:
    """
    Return the vectorised environments that step environments of ``env``.

    An ``EvalCallback`` may evaluate in the training environments themselves, or in a VecEnv that shares some of them.

    :param env: the vectorised training environment
    :param others: other environments, for example of evaluations
    :return: the innermost vectorised environment of ``env``, then those of ``others`` that share a single environment with it
    """
    own = set(_members(env))
    return [env.unwrapped, *(other.unwrapped for other in others if not own.isdisjoint(_members(other)))]


def _members(env: Any) -> list[int]:
    return [id(one.unwrapped) for one in getattr(getattr(env, "unwrapped", None), "envs", ())]


class LastStep(NamedTuple):
    """The last stored step of a training, from which the next step continues."""

    envs: Sequence[VecEnv]
    """the innermost training environments, and other vectorised environments that share some of them"""
    resets: list[Any]
    """the infos of their latest resets, at the time of the step"""
    observations: Any
    """(n_envs, \\*obs) the observations after the step"""

    def was_reset_since(self, env: VecEnv) -> bool:
        """
        Return whether the training environments are the same as in the step, and were reset since.

        :param env: the training environments
        """
        return not all(map(is_, self.resets, latest_reset_infos(self.envs))) and env.unwrapped is self.envs[0]
