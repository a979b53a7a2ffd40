"""The states of all random generators of an environment."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext.checkpoint.envs.plain_data import State, from_plain, to_plain
from sb3_dqn_ext.env_factory import layers_of

Generator: TypeAlias = np.random.Generator | np.random.RandomState

SPACE_PREFIX = "space "  # of the names of spaces' generators


def spaces_in(value: Any) -> Iterator[gym.Space[Any]]:
    """
    Find a space and the spaces that it is made of. Each of them has its own generator.

    :param value: any value
    :return: the spaces; none if the value is not a space
    """
    if isinstance(value, gym.Space):
        yield value
        for part in vars(value).values():
            if isinstance(part, gym.Space):
                yield from spaces_in(part)
            elif isinstance(part, (dict, list, tuple)):
                for inner in part.values() if isinstance(part, dict) else part:
                    yield from spaces_in(inner)


def generators_in_object(value: Any) -> dict[str, Generator]:
    """
    Find the random generators among the attributes of an object, for example of the game inside an environment.

    :param value: an attribute of an environment; spaces, environments and classes are skipped
    :return: attribute name -> generator
    """
    if isinstance(value, (gym.Env, gym.Space, VectorEnv, VecEnv, type)) or not hasattr(value, "__dict__"):
        return {}
    return {name: part for name, part in vars(value).items() if isinstance(part, (np.random.Generator, np.random.RandomState))}


def generators_of(env: Any) -> dict[str, Generator]:
    """
    Find all random generators of an environment: its own, its wrappers', its spaces' and those of the objects it contains.

    :param env: an environment or a vector environment of gymnasium, with its wrappers
    :return: name -> generator; the names are the same in an equal environment
    """
    found: dict[str, Generator] = {}
    within: dict[str, Generator] = {}
    # np_random is seeded from the operating system on first access, so it is accessed before its state is read.
    _ = env.unwrapped.np_random
    for depth, layer in enumerate(layers_of(env)):
        of_class = {name: getattr(type(layer), name, None) for name in ("action_space", "observation_space")}
        for name, value in (of_class | vars(layer)).items():
            if isinstance(value, (np.random.Generator, np.random.RandomState)):
                found[f"{depth}.{name}"] = value
            elif isinstance(value, gym.Space):
                for i, space in enumerate(spaces_in(value)):
                    found[f"{SPACE_PREFIX}{depth}.{name}.{i}"] = space.np_random
            else:
                within |= {f"{depth}.{name}.{inner}": generator for inner, generator in generators_in_object(value).items()}
    # Wrappers share many generators. A shared one gets its name in an environment or a wrapper, not that in another object.
    once = {id(both[name]): name for both in (within, found) for name in sorted(both, reverse=True)}
    found = within | found
    return {name: found[name] for name in sorted(once.values())}


def generator_states(env: Any) -> State:
    """
    Return the states of an environment's random generators as plain data.

    :param env: see :func:`generators_of`
    :return: generator name -> state
    """
    states = {}
    for name, generator in generators_of(env).items():
        if isinstance(generator, np.random.Generator):
            states[name] = to_plain(generator.bit_generator.state)
        else:
            states[name] = to_plain(generator.get_state(legacy=False))
    return states


def set_generator_states(env: Any, states: State) -> None:
    """
    Set the states of an environment's random generators.

    :param env: see :func:`generators_of`
    :param states: generator name -> state; names that the environment does not have are ignored
    """
    generators = generators_of(env)
    for name in generators.keys() & states.keys():
        generator, state = generators[name], from_plain(states[name])
        if isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.bit_generator.state = state
