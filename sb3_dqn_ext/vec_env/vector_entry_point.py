"""A vector entry point: one object that steps all environments at once."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NoReturn

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_dqn_ext.env_factory import EnvFactory, layers_of
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env.backend import Array, GymVectorEnv, Info, WrapperClass, all_equal
from sb3_dqn_ext.vec_env.episode_statistics import EpisodeStatistics


def copy_observations(observations: Any) -> Any:
    """
    :param observations: (n_envs, ...) array of numpy or of another library, or a mapping or a tuple of such
    :return: the same as arrays of numpy, in memory of its own
    """
    if isinstance(observations, dict):
        return {key: np.array(value, order="C") for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(np.array(value, order="C") for value in observations)
    return np.array(observations, order="C")


def copy_observation(observations: Any, env: int) -> Any:
    """
    :param observations: (n_envs, ...) array of numpy or of another library, or a mapping or a tuple of such
    :param env: one of the environments
    :return: (...) what it observed, in memory of its own
    """
    if isinstance(observations, dict):
        return {key: copy_observation(value, env) for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(copy_observation(value, env) for value in observations)
    observation = np.asarray(observations)[env]
    return observation.copy() if isinstance(observation, np.ndarray) else deepcopy(observation)


def split_infos(infos: Mapping[str, Any], to: Sequence[Info]) -> None:
    """
    gymnasium tells many environments' infos as one dict of arrays: ``_key`` says whom ``key`` is about.

    :param infos: (n_envs,) for each key, or again a dict
    :param to: (n_envs,) the infos to fill
    """
    for key, values in infos.items():
        if key.startswith("_") and key[1:] in infos:
            continue
        about = infos.get(f"_{key}")
        envs: Sequence[int] = range(len(to)) if about is None else np.flatnonzero(about).tolist()
        if isinstance(values, Mapping):
            inner: list[Info] = [{} for _ in to]
            split_infos(values, inner)
            values = inner
        elif hasattr(values, "__array__"):
            values = np.array(values)  # a copy, for the environment may write its next step into the same array
            if values.ndim == 1:
                values = values.tolist()  # Python's own numbers, as a single environment has them
        for env in envs:
            to[env][key] = values[env]


FINAL_INFO_KEYS = {"final_obs", "_final_obs", "final_info", "_final_info"}
"""the infos in which gymnasium puts what belongs to the episodes that have ended"""


class VectorEntryPointBackend:
    """
    One object that steps all environments at once. Its infos of a step that ends an episode become those that SB3 expects.

    :param env: gymnasium's vector environment, which resets an environment in the step that ends its episode
    :param recipes: (n_envs,) what it replaces
    """

    def __init__(self, env: GymVectorEnv, recipes: Sequence[EnvFactory]) -> None:
        self.env = env
        self.reset_infos: list[Info] = [{} for _ in recipes]
        self._n_envs = len(recipes)
        self.episodes = EpisodeStatistics([recipe.record for recipe in recipes], recipes[0].spec.id)

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        if not all_equal(options):
            raise ArgumentError("A vector entry point resets all environments with the same options; set_options got several.")
        observations, infos = self.env.reset(seed=seeds[0], options=options[0] or None)
        self.reset_infos[:] = [{} for _ in range(self._n_envs)]
        split_infos(infos, self.reset_infos)
        self.episodes.restart()
        return copy_observations(observations)  # type: ignore[no-any-return]

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, own_rewards, terminated, truncated, told = self.env.step(self._actions)
        terminated, truncated = np.asarray(terminated, np.bool_), np.asarray(truncated, np.bool_)
        # The environment may write its next step into the same arrays.
        observations, rewards, dones = (
            copy_observations(observations),
            np.array(own_rewards, np.float32),
            terminated | truncated,
        )
        infos: list[Info] = [{"TimeLimit.truncated": False} for _ in range(self._n_envs)]
        if told.keys() - FINAL_INFO_KEYS:
            split_infos({key: values for key, values in told.items() if key not in FINAL_INFO_KEYS}, infos)
        self.episodes.count(np.asarray(own_rewards))
        if np.count_nonzero(dones):
            final_infos: list[Info] = [{} for _ in infos]
            if final_info := told.get("final_info"):
                split_infos(final_info, final_infos)
            for env in np.flatnonzero(dones).tolist():
                self.reset_infos[env], infos[env] = infos[env], final_infos[env]
                del self.reset_infos[env]["TimeLimit.truncated"]
                infos[env]["terminal_observation"] = copy_observation(told["final_obs"], env)
                infos[env]["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
                self.episodes.end(env, infos[env])
                self.episodes.restart(env)
        return observations, rewards, dones, infos

    def has_attr(self, name: str) -> bool:
        return self._layer_with(name) is not None

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """The attribute of the whole, for each: a vector environment may keep its parts in any order."""
        layer = self._layer_with(name)
        if layer is None:
            raise AttributeError(f"{self.env} has no attribute {name!r}.")
        return [getattr(layer, name)] * len(indices)

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        if sorted(indices) != list(range(self._n_envs)):
            raise ArgumentError(f"indices={list(indices)}: a vector entry point has one {name!r} for all environments.")
        setattr(self._layer_with(name) or self.env, name, value)

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> NoReturn:
        raise ArgumentError(
            f"method_name={name!r} cannot be called on single environments: a vector entry point is one object for all of "
            "them. Use vectorization_mode='sync'."
        )

    def wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        """No gym.Wrapper lies around single environments; the episodes are counted as by a Monitor."""
        return [issubclass(Monitor, wrapper)] * len(indices)

    def close(self) -> None:
        self.episodes.close()
        self.env.close()

    def _layer_with(self, name: str) -> GymVectorEnv | None:
        return next((layer for layer in reversed(layers_of(self.env)) if hasattr(layer, name)), None)
