"""The backend for vector entry points of gymnasium: one object that steps all environments at once."""

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
    Copy observations to numpy arrays.

    :param observations: (n_envs, ...) an array of any library, or a dict or a tuple of arrays
    :return: (n_envs, ...) numpy arrays in the same structure
    """
    if isinstance(observations, dict):
        return {key: np.array(value, order="C") for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(np.array(value, order="C") for value in observations)
    return np.array(observations, order="C")


def copy_observations_of(observations: Any, envs: Sequence[int]) -> list[Any]:
    """
    Copy the observations of some environments.

    :param observations: (n_envs, ...) an array of NumPy or of another library, or a dict or a tuple of them, also nested
    :param envs: (k,) the indices of the environments
    :return: (k,) their observations, of NumPy arrays, in the same dicts and tuples
    """
    if isinstance(observations, np.ndarray) and observations.dtype != np.object_ and observations.ndim > 1:
        return [*np.ascontiguousarray(np.asarray(observations)[envs])]  # rows of a new array
    return [_copy_observation(observations, env) for env in envs]


def _copy_observation(observations: Any, env: int) -> Any:
    if isinstance(observations, dict):
        return {key: _copy_observation(value, env) for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_copy_observation(value, env) for value in observations)
    observation = np.asarray(observations)[env]
    return observation.copy() if isinstance(observation, np.ndarray) else deepcopy(observation)


def split_infos(infos: Mapping[str, Any], to: Sequence[Info]) -> None:
    """
    Split the infos of a vector environment into one info for each environment.

    gymnasium's vector infos contain an array for each key. The mask ``_key`` marks the environments that have ``key``.

    :param infos: (n_envs,) an array for each key, or a nested dict of arrays
    :param to: (n_envs,) the infos to fill, in place
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
            values = np.array(values)  # a copy: the environment may reuse the array in its next step
            if values.ndim == 1:
                values = values.tolist()  # Python numbers, as in the infos of a single environment
        for env in envs:
            to[env][key] = values[env]


FINAL_INFO_KEYS = {"final_obs", "_final_obs", "final_info", "_final_info"}
"""keys of the infos that belong to episodes that have ended"""


class VectorEntryPointBackend:
    """
    The backend that steps all environments at once by one vector environment of gymnasium.

    It converts the infos of a step that ends an episode to SB3's format.

    Environments may clip their rewards for learning, or end an episode within a game. They then put ``raw_reward`` and
    ``game_over``, (n_envs,), into their infos, and the episode statistics are those of the whole game.

    :param env: gymnasium's vector environment with ``AutoresetMode.SAME_STEP``
    :param factories: (n_envs,) the factories of the single environments that it replaces
    """

    def __init__(self, env: GymVectorEnv, factories: Sequence[EnvFactory]) -> None:
        self.env = env
        self.reset_infos: list[Info] = [{} for _ in factories]
        self._n_envs = len(factories)
        self._steps_by_itself = hasattr(env, "step_async")  # in threads or processes
        self.episode_statistics = EpisodeStatistics([factory.monitor_config for factory in factories], factories[0].spec.id)

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        if not all_equal(options):
            raise ArgumentError("A vector entry point resets all environments with the same options; set_options got several.")
        observations, infos = self.env.reset(seed=seeds[0], options=options[0] or None)
        self.reset_infos[:] = [{} for _ in range(self._n_envs)]
        split_infos(infos, self.reset_infos)
        self.episode_statistics.reset()
        return copy_observations(observations)  # type: ignore[no-any-return]

    def step_async(self, actions: Array) -> None:
        self._actions = actions
        if self._steps_by_itself:
            self.env.step_async(actions)  # type: ignore[attr-defined]

    def step_wait(self) -> VecEnvStepReturn:
        result = self.env.step_wait() if self._steps_by_itself else self.env.step(self._actions)  # type: ignore[attr-defined]
        observations, own_rewards, terminated, truncated, vector_infos = result
        terminated, truncated = np.asarray(terminated, np.bool_), np.asarray(truncated, np.bool_)
        # copies: the environment may reuse the arrays in its next step
        observations, rewards, dones = (
            copy_observations(observations),
            np.array(own_rewards, np.float32),
            terminated | truncated,
        )
        infos: list[Info] = [{"TimeLimit.truncated": False} for _ in range(self._n_envs)]
        if vector_infos.keys() - FINAL_INFO_KEYS:
            split_infos({key: values for key, values in vector_infos.items() if key not in FINAL_INFO_KEYS}, infos)
        self.episode_statistics.add_rewards(np.asarray(vector_infos.get("raw_reward", own_rewards)))
        if np.count_nonzero(dones):
            final_infos: list[Info] = [{} for _ in infos]
            game_over = vector_infos.get("game_over", dones)
            if final_info := vector_infos.get("final_info"):
                split_infos(final_info, final_infos)
            ended = dones.nonzero()[0].tolist()
            final_observations = copy_observations_of(vector_infos["final_obs"], ended)
            for env, final_observation in zip(ended, final_observations, strict=True):
                self.reset_infos[env], infos[env] = infos[env], final_infos[env]
                del self.reset_infos[env]["TimeLimit.truncated"]
                infos[env]["terminal_observation"] = final_observation
                infos[env]["TimeLimit.truncated"] = bool(truncated[env] and not terminated[env])
                if game_over[env]:
                    self.episode_statistics.end_episode(env, infos[env])
                    self.episode_statistics.reset(env)
        return observations, rewards, dones, infos

    def has_attr(self, name: str) -> bool:
        return self._layer_with(name) is not None

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        """Return the vector environment's attribute once for each index; it has no attributes of single environments."""
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
            f"method_name={name!r} cannot be called on single environments: a vector entry point is one object for all "
            "environments. Use vectorization_mode='sync'."
        )

    def is_wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        """Return True for Monitor, whose statistics this backend computes, and False for other wrappers."""
        return [issubclass(Monitor, wrapper)] * len(indices)

    def close(self) -> None:
        self.episode_statistics.close()
        self.env.close()

    def _layer_with(self, name: str) -> GymVectorEnv | None:
        return next((layer for layer in reversed(layers_of(self.env)) if hasattr(layer, name)), None)
