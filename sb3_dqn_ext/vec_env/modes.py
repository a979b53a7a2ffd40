"""The choice between the three backends of FastVecEnv."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import copy
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AutoresetMode

from sb3_dqn_ext._validation import choose, parameters_of
from sb3_dqn_ext.env_factory import EnvFactory
from sb3_dqn_ext.envs.registry import ATARI_GAMES, CART_POLES
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env.async_ import AsyncBackend
from sb3_dqn_ext.vec_env.backend import Backend, GymVectorEnv
from sb3_dqn_ext.vec_env.sync import SyncBackend
from sb3_dqn_ext.vec_env.vector_entry_point import VectorEntryPointBackend

__all__ = ["BACKENDS", "choose_vectorization_mode"]


def lacks_time_limit(factory: EnvFactory) -> bool:
    """
    Return whether an environment has no time limit although its id has one; a vector entry point would add the limit again.

    :param factory: the factory of the environment
    """
    registered = gym.registry.get(factory.spec.id)
    limit = factory.kwargs.get("max_episode_steps", factory.spec.max_episode_steps)
    return limit == -1 or (limit is None and registered is not None and registered.max_episode_steps is not None)


def vectorization_obstacle(factories: Sequence[EnvFactory]) -> str | None:
    """
    Explain why environments cannot be stepped by a vector entry point.

    :param factories: (n_envs,) the factories of the environments
    :return: the reason; None if a vector entry point can be used
    """
    first = factories[0]
    spec = first.spec
    # The state of a vector entry point can be read without a ReplayWrapper.
    wrappers = [
        *(wrapper.name for wrapper in spec.additional_wrappers),
        *(name for name in first.outer_wrapper_names if name != "ReplayWrapper"),
    ]
    render_mode = {**spec.kwargs, **first.kwargs}.get("render_mode")
    if spec.vector_entry_point is None:
        return f"{spec.id} has no vector entry point"
    if wrappers:
        return f"{', '.join(wrappers)} would be lost, since a vector entry point has no wrappers of single environments"
    if any(factory.shared_settings != first.shared_settings for factory in factories):
        return "the environments are not all the same"
    if render_mode not in (None, "rgb_array"):
        return f"render_mode={render_mode!r} is for single environments"
    if lacks_time_limit(first):
        return f"{spec.id} without its time limit is for single environments"
    return None


SAME_STEP_ENTRY_POINTS = {
    "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv": CART_POLES,
    "ale_py.vector_env:AtariVectorEnv": ATARI_GAMES,
}
"""vector entry points with ``AutoresetMode.NEXT_STEP`` -> those of the same environment with ``SAME_STEP``"""


def same_step_entry_point(spec: EnvSpec) -> Any:
    """
    Return the vector entry point of an environment, or the one that replaces it here.

    :param spec: the spec of the environment
    """
    return SAME_STEP_ENTRY_POINTS.get(str(spec.vector_entry_point), spec.vector_entry_point)


def parameters_of_entry_point(entry_point: Any) -> dict[str, inspect.Parameter]:
    """
    Return the parameters of an entry point, which is imported.

    :param entry_point: the function or class that makes an environment, or its name
    """
    return parameters_of(load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point)


def has_vector_arguments(factory: EnvFactory) -> bool:
    """
    Return whether an environment got arguments that only its vector entry point takes, such as ``num_threads`` of Atari.

    :param factory: the factory of the environment
    """
    spec, of_both = factory.spec, {"max_episode_steps", "disable_env_checker", "render_mode"}
    given = factory.kwargs.keys() - of_both
    if not given or None in (spec.entry_point, spec.vector_entry_point):
        return False
    single = parameters_of_entry_point(spec.entry_point)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in single.values()):
        return False
    return not (given - single.keys()).isdisjoint(parameters_of_entry_point(same_step_entry_point(spec)))


def make_vector_env(factories: Sequence[EnvFactory]) -> GymVectorEnv:
    """
    Make a vector environment by the vector entry point of an environment.

    :param factories: (n_envs,) the factories of the single environments that it replaces
    :return: the vector environment
    :raises ArgumentError: if the entry point does not take the arguments, or its environment cannot be used for training
    """
    first = factories[0]
    kwargs = {key: value for key, value in first.kwargs.items() if key != "disable_env_checker"}  # not an argument of make_vec
    spec = copy(first.spec)
    own, spec.vector_entry_point = spec.vector_entry_point, same_step_entry_point(spec)
    if spec.vector_entry_point == own and "autoreset_mode" in parameters_of_entry_point(own):
        kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP, **kwargs}
    try:
        env = gym.make_vec(spec, num_envs=len(factories), vectorization_mode="vector_entry_point", **kwargs)
    except TypeError as error:
        raise ArgumentError(f"the vector entry point of {first.spec.id} does not take its arguments: {error}.") from error
    if (reason := vector_env_obstacle(env)) is not None:
        env.close()
        raise ArgumentError(f"the vector entry point of {first.spec.id} cannot be used: {reason}.")
    return env


def vector_env_obstacle(env: GymVectorEnv) -> str | None:
    """
    Explain why a vector environment cannot be used for training.

    :param env: gymnasium's vector environment
    :return: the reason; None if it can be used
    """
    mode = env.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.SAME_STEP:
        return (
            f"it has autoreset_mode={mode} and does not reset an environment in the step that ends its episode; "
            "vectorization_mode='sync' does"
        )
    if env.metadata.get("jax"):  # FunctionalJaxVectorEnv of gymnasium 1.4
        return "it runs on jax, and when it resets one environment, the step of all other environments is lost"
    return None


def space_difference(factory: EnvFactory) -> str | None:
    """
    Compare the spaces of an environment with those of its vector entry point.

    :param factory: the factory of the environment
    :return: the spaces that differ, or why there is no vector environment; None if the spaces are equal
    """
    try:
        vector = make_vector_env([factory])
    except ArgumentError as error:
        return str(error)
    with closing(vector), closing(factory.without_file()()) as single:
        pairs = {
            "observations": (vector.single_observation_space, single.observation_space),
            "actions": (vector.single_action_space, single.action_space),
        }
    different = [f"{name} {form} and not {own}" for name, (form, own) in pairs.items() if form != own]
    if not different:
        return None
    beside = FURTHER_DIFFERENCES.get(str(factory.spec.vector_entry_point).partition(".")[0], "")
    return (
        f"the vector entry point of {factory.spec.id} makes a different environment: it has the "
        f"{' and the '.join(different)}.{beside} "
        "To use it, for any number of environments, set vectorization_mode='vector_entry_point'."
    )


# package of a vector entry point -> differences other than the spaces
FURTHER_DIFFERENCES = {
    "ale_py": " Its rewards are clipped to -1, 0 and 1, and each game begins with up to 30 idle frames and FIRE.",
}


def make_vector_entry_point_backend(factories: Sequence[EnvFactory]) -> Backend:
    """
    Make the backend that uses a vector entry point.

    :param factories: (n_envs,) the factories of the single environments that it replaces
    :return: the backend
    :raises ArgumentError: see :func:`make_vector_env`
    """
    env = make_vector_env(factories)
    env.single_action_space.seed(factories[0].seed)
    return VectorEntryPointBackend(env, factories)


BACKENDS: dict[str, Callable[[Sequence[EnvFactory]], Backend]] = {
    "vector_entry_point": make_vector_entry_point_backend,
    "sync": SyncBackend,
    "async": AsyncBackend,
}
BACKEND_SYNONYMS = {
    "vector": "vector_entry_point",
    "native": "vector_entry_point",
    "dummy": "sync",
    "serial": "sync",
    "subproc": "async",
    "process": "async",
    "processes": "async",
    "multiprocessing": "async",
}


def choose_vectorization_mode(factories: Sequence[EnvFactory], wanted: str, otherwise: str) -> str:
    """
    Resolve ``"auto"``, and check that the environments support the mode.

    :param factories: (n_envs,) the factories of the environments
    :param wanted: the mode, or ``"auto"``
    :param otherwise: the mode for ``"auto"`` if no vector entry point can be used
    :return: the mode
    :raises ArgumentError: if there is no such mode, or the environments do not support it
    """
    if wanted == "auto" and has_vector_arguments(factories[0]):
        wanted = "vector_entry_point"
    if wanted == "auto":
        # For a single environment, a vector entry point is slower than the environment itself.
        if len(factories) == 1 or vectorization_obstacle(factories) is not None:
            return otherwise
        if (reason := space_difference(factories[0])) is None:
            return "vector_entry_point"
        warnings.warn(f"vectorization_mode='auto' is {otherwise!r} here: {reason}", stacklevel=4)
        return otherwise
    choose("vectorization_mode", wanted, {"auto": None, **BACKENDS}, BACKEND_SYNONYMS)
    if wanted == "vector_entry_point" and (obstacle := vectorization_obstacle(factories)) is not None:
        raise ArgumentError(f"vectorization_mode={wanted!r} is not possible: {obstacle}. Use 'sync' or 'async'.")
    return wanted
