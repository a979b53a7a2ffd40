"""Which vectorised environments can be resumed, and how to make them so."""

from contextlib import closing
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import TransformAction, TransformReward
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.checkpoint.envs.replay_wrapper import ReplayWrapper
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.envs.cart_poles import RandomStartCartPoleVectorEnv, SameStepCartPoleVectorEnv
from sb3_dqn_ext.envs.hidden_velocities import VectorHiddenVelocities
from sb3_dqn_ext.envs.terminal_penalty import VectorTerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv
from sb3_dqn_ext.vec_env.async_ import AsyncBackend
from sb3_dqn_ext.vec_env.episode_statistics import EpisodeStatistics
from sb3_dqn_ext.vec_env.sync import SyncBackend
from sb3_dqn_ext.vec_env.vector_entry_point import VectorEntryPointBackend

Env = gym.Env[Any, Any]

CODE_EXAMPLES = {
    SubprocVecEnv: 'SubprocVecEnv([lambda: ReplayWrapper(gym.make("CartPole-v1"))]) or make_vec_env(..., wrapper_class=ReplayWrapper)',
    FastVecEnv: 'make_fast_vec_env("CartPole-v1", n_envs=4, vectorization_mode="async", wrapper_class=ReplayWrapper)',
}


class OutermostWrapperProbe:
    """Given to SubprocVecEnv's ``env_is_wrapped`` as a class, it asks the outermost wrapper only: each process has its own."""

    asked = False

    def __instancecheck__(self, env: Any) -> bool:
        is_first, self.asked = not self.asked, True
        return is_first and isinstance(env, ReplayWrapper)


def local_environments(venv: VecEnv) -> list[Env] | None:
    """
    :param venv: the innermost
    :return: the list of its environments, if it has one in this process
    """
    if isinstance(venv, DummyVecEnv):
        return venv.envs
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.envs if isinstance(vector, SyncBackend) else None


def vector_entry_point_env(venv: VecEnv) -> VectorEnv[Any, Any, Any] | None:
    """
    :param venv: the innermost
    :return: gymnasium's vector environment that is one object for all, if there is one
    """
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.env if isinstance(vector, VectorEntryPointBackend) else None


def episode_statistics_of(venv: VecEnv) -> EpisodeStatistics | None:
    """
    :param venv: a vectorised environment, without those inside it
    :return: the record of the episodes of a vector entry point, if it is one
    """
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.episodes if isinstance(vector, VectorEntryPointBackend) else None


def has_replay_wrappers(venv: VecEnv) -> bool:
    """
    :param venv: the innermost
    :return: whether a ReplayWrapper is around each of its environments
    """
    here = local_environments(venv)
    if here is not None:
        return all(isinstance(env, ReplayWrapper) for env in here)
    if isinstance(venv, FastVecEnv) and isinstance(venv.backend, AsyncBackend):
        recipes = venv.backend.recipes
        if recipes[0].wrapper is not None:  # all have the same, and what a function returns, one environment shows
            with closing(recipes[0].unrecorded()()) as env:
                return isinstance(env, ReplayWrapper)
        name = f"{ReplayWrapper.__module__}:{ReplayWrapper.__name__}"
        return all(recipe.wrappers and recipe.wrappers[-1].entry_point == name for recipe in recipes)
    return all(venv.env_is_wrapped(OutermostWrapperProbe()))  # type: ignore[arg-type]  # it is asked isinstance(env, Outermost()) only


def check_resumable(venv: VecEnv) -> None:
    """
    :param venv: the innermost
    :raises ArgumentError: if its environments cannot be asked for their states
    """
    vector = vector_entry_point_env(venv)
    if vector is not None:
        check_vector_env(vector)
    elif not isinstance(venv, (DummyVecEnv, SubprocVecEnv, FastVecEnv)):
        raise ArgumentError(
            f"The environments of a {type(venv).__name__} cannot be made resumable, only those of a DummyVecEnv, "
            "a SubprocVecEnv and a FastVecEnv."
        )
    elif not has_replay_wrappers(venv):
        instead = next((text for kind, text in CODE_EXAMPLES.items() if isinstance(venv, kind)), "make_resumable(env)")
        raise ArgumentError(
            f"The environments of this {type(venv).__name__} are not resumable, and nothing can be put around environments in "
            f"other processes from here. Write {instead}."
            if local_environments(venv) is None
            else f"The environments of this {type(venv).__name__} are not resumable. Call {instead} before their first reset."
        )


def make_resumable(env: VecEnv) -> VecEnv:
    """
    Put a :class:`ReplayWrapper` around each environment, in place, before their first reset. Once is enough, twice does no harm.

    :param env: a DummyVecEnv, a SubprocVecEnv or a FastVecEnv, in wrappers or not
    :return: the same
    :raises ArgumentError: if there is no way to put it there, or to do without; the message says what to write instead
    """
    check_type("env", env, VecEnv, "a VecEnv of SB3")
    here = local_environments(env.unwrapped)
    for i, single in enumerate(here or ()):
        if here is not None and not isinstance(single, ReplayWrapper):
            here[i] = ReplayWrapper(single)
    check_resumable(env.unwrapped)
    return env


RESUMABLE_VECTOR_ENVS = (SameStepCartPoleVectorEnv, RandomStartCartPoleVectorEnv)
STATELESS_WRAPPERS = (
    TransformReward,
    TransformAction,
    VectorHiddenVelocities,
    VectorTerminalPenalty,
)


def check_vector_env(vector: VectorEnv[Any, Any, Any]) -> None:
    """
    :param vector: gymnasium's vector environment
    :raises ArgumentError: if it is not known what makes up its state
    """
    inner, *wrappers = layers_of(vector)
    # Not isinstance: what is derived from it may remember more.
    unknown = [layer for layer in wrappers if not isinstance(layer, STATELESS_WRAPPERS)] + [inner] * (
        type(inner) not in RESUMABLE_VECTOR_ENVS
    )
    if unknown:
        raise ArgumentError(
            f"It is not known what makes up the state of {type(unknown[0]).__name__}, a vector entry point. "
            "Use vectorization_mode='sync'."
        )


def ignore_interrupts_in_workers(env: VecEnv) -> None:
    """
    Let the processes of environments live on when someone presses Ctrl-C: they are asked for their states after that. They end
    when this process closes them, or ends.

    :param env: a vectorised environment whose environments are resumable
    """
    inner = env.unwrapped
    if local_environments(inner) is None and vector_entry_point_env(inner) is None:
        inner.env_method("ignore_interrupts")
