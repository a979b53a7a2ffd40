"""The recipe from which an actor makes its environments, derived from the training environment of the learner."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecFrameStack, VecNormalize, VecTransposeImage
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_dqn_ext.env_factory import EnvFactory, env_factories_of, layers_of
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv

__all__ = ["EnvRecipe", "make_recipe"]

VecWrapper = Callable[[VecEnv], VecEnv]


@dataclass(frozen=True)
class EnvRecipe:
    """
    A recipe for vectorised environments. It can be pickled.

    :param factory: the factory of a single environment; it writes no file
    :param vectorization_mode: the mode of :class:`~sb3_dqn_ext.vec_env.FastVecEnv`
    :param wrappers: functions that wrap a VecEnv, innermost first
    """

    factory: EnvFactory
    vectorization_mode: str
    wrappers: tuple[VecWrapper, ...]

    def make(self, n_envs: int, seed: int) -> VecEnv:
        """
        Make environments.

        :param n_envs: their number
        :param seed: the seed of the first one; environment i has ``seed + i``
        """
        factories = [replace(self.factory, seed=seed + i) for i in range(n_envs)]
        env: VecEnv = FastVecEnv(factories, self.vectorization_mode)
        env.seed(seed)
        for wrap in self.wrappers:
            env = wrap(env)
        return env


def make_recipe(env: VecEnv) -> EnvRecipe:
    """
    Derive the recipe of an actor's environments.

    :param env: the training environment of the learner: one environment, with or without a FastVecEnv
    :return: the recipe of environments that are equal to it
    :raises ArgumentError: if there are several environments, or they cannot be made again in another process
    """
    inner, *outer = layers_of(env)
    if env.num_envs != 1:
        raise ArgumentError(
            f"actors make their own environments, {env.num_envs} environments are given: give one, as an example, and "
            "set actors={'envs_per_actor': ...}."
        )
    if not isinstance(inner, DummyVecEnv | FastVecEnv) or getattr(inner, "vectorization_mode", None) == "async":
        raise ArgumentError(
            f"actors step environments in their own processes, and the given {type(inner).__name__} has one more: "
            "give the environment itself, its id, a DummyVecEnv, or a FastVecEnv that is not 'async'."
        )
    wrappers = tuple(map(_wrapper_again, outer))
    if isinstance(inner, FastVecEnv):
        factory = inner.factories[0]
        mode = inner.vectorization_mode if inner.vectorization_mode != "sync" else "auto"
    else:
        try:
            factory, mode = env_factories_of(inner)[0], "sync"
        except ArgumentError as error:
            raise ArgumentError(f"actors cannot make the environment again: {error}") from error
    return EnvRecipe(_without_recorder(factory.without_file()), mode, wrappers)


def _without_recorder(factory: EnvFactory) -> EnvFactory:
    """Leave out the wrapper that records the actions of an episode for checkpoints: those of actors are not restored."""
    return replace(factory, wrappers=tuple(one for one in factory.wrappers if one.name != "ReplayWrapper"), layers=None)


def _wrapper_again(layer: Any) -> VecWrapper:
    """Return a function that wraps other environments as a layer does."""
    if isinstance(layer, VecNormalize):
        raise ArgumentError(
            "actors do not combine with VecNormalize: its running mean and variance would differ between the actors and the "
            "learner, so that the same state would be stored and replayed as different numbers. Normalise in the "
            "environment with fixed numbers, or in the network (norm: layer)."
        )
    if type(layer) is VecTransposeImage:
        return partial(VecTransposeImage, skip=layer.skip)
    if type(layer) is VecFrameStack:
        stacks: StackedObservations[Any] = layer.stacked_obs
        parts = getattr(stacks, "sub_stacked_observations", None)
        order = _order(stacks) if parts is None else {key: _order(stack) for key, stack in parts.items()}
        return partial(VecFrameStack, n_stack=stacks.n_stack, channels_order=order)
    raise ArgumentError(
        f"actors cannot put {type(layer).__name__} around their environments, only VecFrameStack and VecTransposeImage: use a "
        "wrapper of the single environment."
    )


def _order(stack: StackedObservations[Any]) -> str:
    return "first" if stack.channels_first else "last"
