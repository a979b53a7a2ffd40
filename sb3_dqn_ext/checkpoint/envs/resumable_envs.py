"""Which vectorised environments can be resumed, and how to make them so."""

from contextlib import closing
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import TransformAction, TransformReward
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.checkpoint.envs.replay_wrapper import Resumable
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.envs.cart_poles import RandomStartCartPoles, SameStepCartPoles
from sb3_dqn_ext.envs.hidden_velocities import VectorHiddenVelocities
from sb3_dqn_ext.envs.terminal_penalty import VectorTerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv
from sb3_dqn_ext.vec_env.async_ import InProcesses
from sb3_dqn_ext.vec_env.episode_statistics import Episodes
from sb3_dqn_ext.vec_env.sync import InTurn
from sb3_dqn_ext.vec_env.vector_entry_point import Native

Env = gym.Env[Any, Any]

INSTEAD = {
    SubprocVecEnv: 'SubprocVecEnv([lambda: Resumable(gym.make("CartPole-v1"))]) or make_vec_env(..., wrapper_class=Resumable)',
    FastVecEnv: 'make_fast_vec_env("CartPole-v1", n_envs=4, vectorization_mode="async", wrapper_class=Resumable)',
}


class Outermost:
    """Given to SubprocVecEnv's ``env_is_wrapped`` as a class, it asks the outermost wrapper only: each process has its own."""

    asked = False

    def __instancecheck__(self, env: Any) -> bool:
        is_first, self.asked = not self.asked, True
        return is_first and isinstance(env, Resumable)


def environments_here(venv: VecEnv) -> list[Env] | None:
    """
    :param venv: the innermost
    :return: the list of its environments, if it has one in this process
    """
    if isinstance(venv, DummyVecEnv):
        return venv.envs
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.envs if isinstance(vector, InTurn) else None


def steps_at_once(venv: VecEnv) -> VectorEnv[Any, Any, Any] | None:
    """
    :param venv: the innermost
    :return: gymnasium's vector environment that is one object for all, if there is one
    """
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.env if isinstance(vector, Native) else None


def episodes_of(venv: VecEnv) -> Episodes | None:
    """
    :param venv: a vectorised environment, without those inside it
    :return: the record of the episodes of a vector entry point, if it is one
    """
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.episodes if isinstance(vector, Native) else None


def made_resumable(venv: VecEnv) -> bool:
    """
    :param venv: the innermost
    :return: whether a Resumable is around each of its environments
    """
    here = environments_here(venv)
    if here is not None:
        return all(isinstance(env, Resumable) for env in here)
    if isinstance(venv, FastVecEnv) and isinstance(venv.backend, InProcesses):
        recipes = venv.backend.recipes
        if recipes[0].wrapper is not None:  # all have the same, and what a function returns, one environment shows
            with closing(recipes[0].unrecorded()()) as env:
                return isinstance(env, Resumable)
        name = f"{Resumable.__module__}:{Resumable.__name__}"
        return all(recipe.wrappers and recipe.wrappers[-1].entry_point == name for recipe in recipes)
    return all(venv.env_is_wrapped(Outermost()))  # type: ignore[arg-type]  # it is asked isinstance(env, Outermost()) only


def check(venv: VecEnv) -> None:
    """
    :param venv: the innermost
    :raises ArgumentError: if its environments cannot be asked for their states
    """
    vector = steps_at_once(venv)
    if vector is not None:
        check_vector(vector)
    elif not isinstance(venv, (DummyVecEnv, SubprocVecEnv, FastVecEnv)):
        raise ArgumentError(
            f"The environments of a {type(venv).__name__} cannot be made resumable, only those of a DummyVecEnv, "
            "a SubprocVecEnv and a FastVecEnv."
        )
    elif not made_resumable(venv):
        instead = next((text for kind, text in INSTEAD.items() if isinstance(venv, kind)), "make_resumable(env)")
        raise ArgumentError(
            f"The environments of this {type(venv).__name__} are not resumable, and nothing can be put around environments in "
            f"other processes from here. Write {instead}."
            if environments_here(venv) is None
            else f"The environments of this {type(venv).__name__} are not resumable. Call {instead} before their first reset."
        )


def make_resumable(env: VecEnv) -> VecEnv:
    """
    Put a :class:`Resumable` around each environment, in place, before their first reset. Once is enough, twice does no harm.

    :param env: a DummyVecEnv, a SubprocVecEnv or a FastVecEnv, in wrappers or not
    :return: the same
    :raises ArgumentError: if there is no way to put it there, or to do without; the message says what to write instead
    """
    check_type("env", env, VecEnv, "a VecEnv of SB3")
    here = environments_here(env.unwrapped)
    for i, single in enumerate(here or ()):
        if here is not None and not isinstance(single, Resumable):
            here[i] = Resumable(single)
    check(env.unwrapped)
    return env


VECTORS = (SameStepCartPoles, RandomStartCartPoles)
WITHOUT_STATE = (
    TransformReward,
    TransformAction,
    VectorHiddenVelocities,
    VectorTerminalPenalty,
)


def check_vector(vector: VectorEnv[Any, Any, Any]) -> None:
    """
    :param vector: gymnasium's vector environment
    :raises ArgumentError: if it is not known what makes up its state
    """
    inner, *wrappers = layers_of(vector)
    # Not isinstance: what is derived from it may remember more.
    unknown = [layer for layer in wrappers if not isinstance(layer, WITHOUT_STATE)] + [inner] * (type(inner) not in VECTORS)
    if unknown:
        raise ArgumentError(
            f"It is not known what makes up the state of {type(unknown[0]).__name__}, a vector entry point. "
            "Use vectorization_mode='sync'."
        )


def outlive_interrupts(env: VecEnv) -> None:
    """
    Let the processes of environments live on when someone presses Ctrl-C: they are asked for their states after that. They end
    when this process closes them, or ends.

    :param env: a vectorised environment whose environments are resumable
    """
    inner = env.unwrapped
    if environments_here(inner) is None and steps_at_once(inner) is None:
        inner.env_method("ignore_interrupts")
