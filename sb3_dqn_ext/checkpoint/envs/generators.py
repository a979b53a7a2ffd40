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

SPACE_PREFIX = "space "


def spaces_in(value: Any) -> Iterator[gym.Space[Any]]:
    """
    :param value: anything
    :return: it and the spaces it is made of, each of which has a generator, if it is a space
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
    :param value: what an environment holds, but for its spaces and other environments: for example the game that it wraps
    :return: the random generators that it holds itself, by their names
    """
    if isinstance(value, (gym.Env, gym.Space, VectorEnv, VecEnv, type)) or not hasattr(value, "__dict__"):
        return {}
    return {name: part for name, part in vars(value).items() if isinstance(part, (np.random.Generator, np.random.RandomState))}


def generators_of(env: Any) -> dict[str, Generator]:
    """
    :param env: an environment, or gymnasium's vector environment, in its wrappers
    :return: all random generators of them, of their spaces and of the objects they hold, by names that are the same in another
        environment like it
    """
    found: dict[str, Generator] = {}
    within: dict[str, Generator] = {}
    # Both are made from the entropy of the computer when first asked for, which would be too late.
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
    # wrappers share many of them, and objects come and go: one that belongs to an environment is called by its name there
    once = {id(both[name]): name for both in (within, found) for name in sorted(both, reverse=True)}
    found = within | found
    return {name: found[name] for name in sorted(once.values())}


def generator_states(env: Any) -> State:
    """
    :param env: see :func:`generators_of`
    :return: the states of its generators
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
    :param env: see :func:`generators_of`
    :param states: the states of those generators that it has
    """
    generators = generators_of(env)
    for name in generators.keys() & states.keys():
        generator, state = generators[name], from_plain(states[name])
        if isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.bit_generator.state = state
