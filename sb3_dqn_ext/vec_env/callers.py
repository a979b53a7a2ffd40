"""Who asks for a reset? Some would take the steps that are resets for steps."""

import sys
from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecMonitor, VecNormalize

from sb3_dqn_ext.errors import ArgumentError

INSTEAD = (
    "With vectorization_mode='sync' (an argument of make_fast_vec_env and of FastVecEnv) there are none: "
    "environments are reset in the step that ends an episode."
)


def callers() -> Iterator[Any]:
    """
    :return: the objects whose methods are being called, innermost first
    """
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_varnames[:1] == ("self",):
            yield frame.f_locals.get("self")


def learns_from_reset_steps(caller: Any, venv: VecEnv) -> bool:
    """
    :param caller: anything
    :param venv: an environment whose reset steps are marked
    :return: whether it is an algorithm that trains on ``venv`` and stores each step
    """
    trains = isinstance(caller, BaseAlgorithm) and caller.env is not None and caller.env.unwrapped is venv
    return trains and not getattr(caller, "leaves_out_reset_steps", False)


def harm_to_reset_steps(caller: Any, venv: VecEnv) -> str | None:
    """
    :param caller: anything
    :param venv: an environment whose reset steps are marked
    :return: what the caller would do to them, if it is a wrapper of ``venv`` that is not made for them
    """
    if not isinstance(caller, VecEnvWrapper) or caller.unwrapped is not venv:
        return None
    if isinstance(caller, VecFrameStack):
        return "stack the last frame of an episode with the first of the next"
    if isinstance(caller, VecMonitor):
        return "count them among the steps of an episode"
    if isinstance(caller, VecNormalize) and caller.training and caller.norm_reward:
        return "count a return of 0 for each; norm_reward=False would do"
    return None


def check_callers(venv: VecEnv) -> None:
    """
    To be called in the reset of an environment whose reset steps are marked. That is once for each ``learn``, and nothing else
    tells one who trains from one who evaluates: an algorithm does not say to its environment what it wants it for.

    :param venv: the environment
    :raises ArgumentError: if the reset is for one who does not know the marks
    """
    for caller in callers():
        if learns_from_reset_steps(caller, venv):
            raise ArgumentError(
                f"{type(caller).__name__} would learn from the steps that are resets: this environment resets in the step "
                f"after an episode's end. Use DQNExt, which leaves such steps out, or another mode. {INSTEAD}"
            )
        if (harm := harm_to_reset_steps(caller, venv)) is not None:
            raise ArgumentError(
                f"This environment resets in the step after an episode's end; {type(caller).__name__} takes such steps for "
                f"steps and would {harm}. {INSTEAD}"
            )
