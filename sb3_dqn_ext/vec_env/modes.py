"""The three ways to step several environments, and which of them is taken."""

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
from sb3_dqn_ext.envs.registry import CART_POLES
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env.async_ import AsyncBackend
from sb3_dqn_ext.vec_env.backend import Backend, GymVectorEnv
from sb3_dqn_ext.vec_env.sync import SyncBackend
from sb3_dqn_ext.vec_env.vector_entry_point import VectorEntryPointBackend

__all__ = ["BACKENDS", "choose_vectorization_mode"]


def lacks_time_limit(recipe: EnvFactory) -> bool:
    """
    :param recipe: an environment
    :return: whether it was made without the time limit of its id, which a vector entry point would put back
    """
    registered = gym.registry.get(recipe.spec.id)
    limit = recipe.kwargs.get("max_episode_steps", recipe.spec.max_episode_steps)
    return limit == -1 or (limit is None and registered is not None and registered.max_episode_steps is not None)


def vectorization_obstacle(recipes: Sequence[EnvFactory]) -> str | None:
    """
    :param recipes: (n_envs,) what is to be stepped at once
    :return: why a vector entry point cannot do it, or None
    """
    first = recipes[0]
    spec = first.spec
    # The state of a vector entry point can be asked for without a ReplayWrapper.
    wrappers = [
        *(wrapper.name for wrapper in spec.additional_wrappers),
        *(name for name in first.around if name != "ReplayWrapper"),
    ]
    render_mode = {**spec.kwargs, **first.kwargs}.get("render_mode")
    if spec.vector_entry_point is None:
        return f"{spec.id} has no vector entry point"
    if wrappers:
        return f"{', '.join(wrappers)} would be dropped, for it has no vector form there"
    if any(recipe.alike != first.alike for recipe in recipes):
        return "the environments are not all the same"
    if render_mode not in (None, "rgb_array"):
        return f"render_mode={render_mode!r} is for single environments"
    if lacks_time_limit(first):
        return f"{spec.id} without its time limit is for single environments"
    return None


SAME_STEP_ENTRY_POINTS = {"gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv": CART_POLES}
"""vector entry points that reset in the step after an episode's end, and those that do it in the same step"""


def load_vector_entry_point(spec: EnvSpec) -> Any:
    """
    :param spec: of an environment with a vector entry point
    :return: what makes its vector form
    """
    entry_point = spec.vector_entry_point
    return load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point


def make_vector_env(recipes: Sequence[EnvFactory]) -> GymVectorEnv:
    """
    Make the vector form of an environment.

    :param recipes: (n_envs,) what is to be stepped at once
    :raises ArgumentError: if there is no such form with these arguments, or none that can be relied on
    """
    first = recipes[0]
    kwargs = {key: value for key, value in first.kwargs.items() if key != "disable_env_checker"}  # there is none
    spec = copy(first.spec)
    spec.vector_entry_point = SAME_STEP_ENTRY_POINTS.get(str(spec.vector_entry_point), spec.vector_entry_point)
    if "autoreset_mode" in parameters_of(load_vector_entry_point(spec)):  # as in ale_py
        kwargs = {"autoreset_mode": AutoresetMode.SAME_STEP, **kwargs}
    try:
        env = gym.make_vec(spec, num_envs=len(recipes), vectorization_mode="vector_entry_point", **kwargs)
    except TypeError as error:
        raise ArgumentError(f"the vector form of {first.spec.id} does not take its arguments: {error}.") from error
    if (reason := vector_env_obstacle(env)) is not None:
        env.close()
        raise ArgumentError(f"the vector form of {first.spec.id} cannot be used: {reason}.")
    return env


def vector_env_obstacle(env: GymVectorEnv) -> str | None:
    """
    :param env: gymnasium's vector environment
    :return: why nothing can be learned from it, or None
    """
    mode = env.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.SAME_STEP:
        return (
            f"it has autoreset_mode={mode}, and does not reset an environment in the step that ends its episode, as "
            "vectorization_mode='sync' does"
        )
    if env.metadata.get("jax"):  # gymnasium's FunctionalJaxVectorEnv, seen in gymnasium 1.4
        return "it runs on jax, and whenever it resets one environment, it loses the step of all others"
    return None


def space_difference(recipe: EnvFactory) -> str | None:
    """
    Compare an environment with its vector form.

    :param recipe: the environment
    :return: why the vector form is another environment, or cannot be had; None if the spaces of the two are equal
    """
    try:
        vector = make_vector_env([recipe])
    except ArgumentError as error:
        return str(error)
    with closing(vector), closing(recipe.unrecorded()()) as single:
        pairs = {
            "observations": (vector.single_observation_space, single.observation_space),
            "actions": (vector.single_action_space, single.action_space),
        }
    different = [f"{name} {form} and not {own}" for name, (form, own) in pairs.items() if form != own]
    if not different:
        return None
    beside = FURTHER_DIFFERENCES.get(str(recipe.spec.vector_entry_point).partition(".")[0], "")
    return (
        f"the vector form of {recipe.spec.id} is another environment: it has the {' and the '.join(different)}.{beside} "
        "To use it, for any number of environments, set vectorization_mode='vector_entry_point'."
    )


# By the package of the vector entry point: what differs beside the spaces.
FURTHER_DIFFERENCES = {
    "ale_py": " Its rewards are clipped to -1, 0 and 1, and each episode begins with up to 30 idle frames and FIRE.",
}


def make_vector_entry_point_backend(recipes: Sequence[EnvFactory]) -> Backend:
    """
    :param recipes: (n_envs,) what is to be stepped at once
    """
    env = make_vector_env(recipes)
    env.single_action_space.seed(recipes[0].seed)
    return VectorEntryPointBackend(env, recipes)


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


def choose_vectorization_mode(recipes: Sequence[EnvFactory], wanted: str, otherwise: str) -> str:
    """
    :param recipes: (n_envs,) what is to be made
    :param wanted: the mode, or ``"auto"``
    :param otherwise: what ``"auto"`` means where no vector entry point is used
    :return: the mode
    :raises ArgumentError: if there is no such mode, or the environments cannot have it
    """
    if wanted == "auto":
        # The vector form of a single environment is slower than the environment itself.
        if len(recipes) == 1 or vectorization_obstacle(recipes) is not None:
            return otherwise
        if (reason := space_difference(recipes[0])) is None:
            return "vector_entry_point"
        warnings.warn(f"vectorization_mode='auto' is {otherwise!r} here: {reason}", stacklevel=4)
        return otherwise
    choose("vectorization_mode", wanted, {"auto": None, **BACKENDS}, BACKEND_SYNONYMS)
    if wanted == "vector_entry_point" and (why_not := vectorization_obstacle(recipes)) is not None:
        raise ArgumentError(f"vectorization_mode={wanted!r} is not possible: {why_not}. Use 'sync' or 'async'.")
    return wanted
