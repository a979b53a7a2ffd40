"""Checks whether the states of vectorised environments can be saved, and functions that make it possible."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import TransformAction, TransformReward
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.checkpoint.envs.replay_wrapper import ReplayWrapper
from sb3_dqn_ext.checkpoint.envs.state_recorder import has_state_methods
from sb3_dqn_ext.env_factory import layers_of
from sb3_dqn_ext.envs.cart_poles import RandomStartCartPoleVectorEnv, SameStepCartPoleVectorEnv
from sb3_dqn_ext.envs.catch import CatchVectorEnv
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
    SubprocVecEnv: (
        'SubprocVecEnv([lambda: ReplayWrapper(gym.make("CartPole-v1"))]) or make_vec_env(..., wrapper_class=ReplayWrapper)'
    ),
    FastVecEnv: 'make_fast_vec_env("CartPole-v1", n_envs=4, vectorization_mode="async", wrapper_class=ReplayWrapper)',
}


class OutermostWrapperProbe:
    """
    A class argument for ``SubprocVecEnv.env_is_wrapped`` that checks whether the outermost wrapper is a ReplayWrapper.

    ``env_is_wrapped`` calls ``isinstance`` for each wrapper, outermost first. Each process gets its own copy of this object.
    """

    was_called = False

    def __instancecheck__(self, env: Any) -> bool:
        is_first, self.was_called = not self.was_called, True
        return is_first and isinstance(env, ReplayWrapper)


def local_environments(venv: VecEnv) -> list[Env] | None:
    """
    Return the list of a vectorised environment's single environments in this process.

    :param venv: the innermost vectorised environment
    :return: the list itself; None if there are no single environments in this process
    """
    if isinstance(venv, DummyVecEnv):
        return venv.envs
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.envs if isinstance(vector, SyncBackend) else None


def vector_entry_point_env(venv: VecEnv) -> VectorEnv[Any, Any, Any] | None:
    """
    Return gymnasium's vector environment if a vector entry point is used.

    :param venv: the innermost vectorised environment
    :return: the vector environment, or None
    """
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.env if isinstance(vector, VectorEntryPointBackend) else None


def episode_statistics_of(venv: VecEnv) -> EpisodeStatistics | None:
    """
    Return the episode statistics if a vector entry point is used.

    :param venv: a vectorised environment or one of its wrappers
    :return: the statistics, or None
    """
    vector = venv.backend if isinstance(venv, FastVecEnv) else None
    return vector.episode_statistics if isinstance(vector, VectorEntryPointBackend) else None


def has_replay_wrappers(venv: VecEnv) -> bool:
    """
    Return whether the outermost wrapper of each single environment is a ReplayWrapper.

    :param venv: the innermost vectorised environment
    """
    here = local_environments(venv)
    if here is not None:
        return all(isinstance(env, ReplayWrapper) for env in here)
    if isinstance(venv, FastVecEnv) and isinstance(venv.backend, AsyncBackend):
        factories = venv.backend.factories
        if factories[0].wrapper is not None:  # a function: the environment that it makes is checked
            with closing(factories[0].without_file()()) as env:
                return isinstance(env, ReplayWrapper)
        name = f"{ReplayWrapper.__module__}:{ReplayWrapper.__name__}"
        return all(factory.wrappers and factory.wrappers[-1].entry_point == name for factory in factories)
    return all(venv.env_is_wrapped(OutermostWrapperProbe()))  # type: ignore[arg-type]  # used in isinstance() only


def check_resumable(venv: VecEnv) -> None:
    """
    Check that the states of a vectorised environment can be read.

    :param venv: the innermost vectorised environment
    :raises ArgumentError: if they cannot; the message contains the code to write instead
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
            f"The environments of this {type(venv).__name__} are not resumable, and environments in other processes cannot be "
            f"wrapped from this process. Write {instead}."
            if local_environments(venv) is None
            else f"The environments of this {type(venv).__name__} are not resumable. Call {instead} before their first reset."
        )


def make_resumable(env: VecEnv) -> VecEnv:
    """
    Put a :class:`ReplayWrapper` around each environment, in place, before their first reset. A second call changes nothing.

    Environments in worker processes must be made with a ReplayWrapper; for them, this function only checks that they were.
    Vector entry points need no ReplayWrapper: those of CartPole, of Catch, of Atari, and others with ``get_state`` and
    ``set_state``.

    :param env: a DummyVecEnv, a SubprocVecEnv or a FastVecEnv, with or without wrappers
    :return: the same object
    :raises ArgumentError: if the environments cannot be resumed; the message contains the code to write instead
    """
    check_type("env", env, VecEnv, "a VecEnv of SB3")
    here = local_environments(env.unwrapped)
    for i, single in enumerate(here or ()):
        if here is not None and not isinstance(single, ReplayWrapper):
            here[i] = ReplayWrapper(single)
    check_resumable(env.unwrapped)
    return env


CART_POLES_STATE = ("state", "steps", "low", "high")
RESUMABLE_VECTOR_ENVS: Mapping[type, tuple[str, ...]] = {
    SameStepCartPoleVectorEnv: CART_POLES_STATE,
    RandomStartCartPoleVectorEnv: CART_POLES_STATE,
    CatchVectorEnv: ("ball_rows", "ball_columns", "paddle_columns"),
}
"""class of a vector environment -> the attributes that make up its state, without generators"""
STATELESS_WRAPPERS = (
    TransformReward,
    TransformAction,
    VectorHiddenVelocities,
    VectorTerminalPenalty,
)


def check_vector_env(vector: VectorEnv[Any, Any, Any]) -> None:
    """
    Check that the state of a vector environment can be read: it has methods for that, or the attributes are known.

    :param vector: gymnasium's vector environment
    :raises ArgumentError: if they are not
    """
    inner, *wrappers = layers_of(vector)
    unknown = [layer for layer in wrappers if not isinstance(layer, STATELESS_WRAPPERS)]
    # not isinstance: a subclass may have more state
    if type(inner) not in RESUMABLE_VECTOR_ENVS and not has_state_methods(inner):
        unknown.append(inner)
    if unknown:
        raise ArgumentError(
            f"The state of the vector entry point {type(unknown[0]).__name__} cannot be saved: its attributes are not known, "
            "and it has no methods get_state() and set_state(state). Use vectorization_mode='sync'."
        )


def ignore_interrupts_in_workers(env: VecEnv) -> None:
    """
    Make worker processes ignore SIGINT (Ctrl-C), so that their states can be saved afterwards.

    They end when this process closes them, or ends.

    :param env: a vectorised environment whose environments are resumable
    """
    inner = env.unwrapped
    if local_environments(inner) is None and vector_entry_point_env(inner) is None:
        inner.env_method("ignore_interrupts")
