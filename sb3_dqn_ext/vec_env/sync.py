"""The backend that steps one environment after the other in this process."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs, obs_space_info

from sb3_dqn_ext.env_factory import EnvFactory
from sb3_dqn_ext.vec_env.backend import Array, GymVectorEnv, Info, WrapperClass


class SyncBackend:
    """
    The backend that steps the environments of a SyncVectorEnv in this process.

    It does the same as SB3's DummyVecEnv, with fewer copies.

    :param factories: (n_envs,) the functions that make the environments
    """

    def __init__(self, factories: Sequence[EnvFactory]) -> None:
        sync: SyncVectorEnv[Any, Any] = SyncVectorEnv(list(factories), autoreset_mode=AutoresetMode.SAME_STEP)
        self.env: GymVectorEnv = sync
        self.envs = sync.envs
        self.reset_infos: list[Info] = [{} for _ in factories]
        self._space = self.env.single_observation_space
        keys, shapes, dtypes = obs_space_info(self._space)
        self._parts: dict[Any, tuple[tuple[int, ...], Any]] = {
            key: ((len(factories), *shapes[key]), dtypes[key]) for key in keys
        }
        self._whole = self._parts.pop(None, None)  # None for Dict and Tuple observations

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        observations = self._empty()
        for i, env in enumerate(self.envs):
            maybe_options = {"options": options[i]} if options[i] else {}
            observation, self.reset_infos[i] = env.reset(seed=seeds[i], **maybe_options)
            self._put(observations, i, observation)
        return observations

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations: Any = self._empty()
        rewards = np.empty(len(self.reset_infos), np.float32)
        dones, infos = [], []
        for i, (env, action) in enumerate(zip(self.envs, self._actions, strict=True)):
            observation, rewards[i], terminated, truncated, info = env.step(action)
            info = {**info, "TimeLimit.truncated": truncated and not terminated}
            done = terminated or truncated
            if done:
                info["terminal_observation"] = deepcopy(observation)
                observation, self.reset_infos[i] = env.reset()
            if self._whole is None:
                self._put(observations, i, observation)
            else:
                observations[i] = observation
            dones.append(done)
            infos.append(info)
        return observations, rewards, np.array(dones, np.bool_), infos

    def _empty(self) -> VecEnvObs:
        """Return (n_envs, ...) an array for the observations, or a dict or a tuple of arrays. Their values are arbitrary."""
        if self._whole is not None:
            return np.empty(*self._whole)
        return dict_to_obs(self._space, {key: np.empty(*part) for key, part in self._parts.items()})

    def _put(self, observations: Any, i: int, observation: Any) -> None:
        """
        Write an environment's observation into the arrays.

        :param observations: (n_envs, ...) the arrays of :meth:`_empty`
        :param i: the index of the environment
        :param observation: its observation
        """
        if self._whole is not None:
            observations[i] = observation
        for key in self._parts:
            observations[key][i] = observation[key]

    def has_attr(self, name: str) -> bool:
        return all(env.has_wrapper_attr(name) for env in self.envs)

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        return [self.envs[i].get_wrapper_attr(name) for i in indices]

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        for i in indices:
            self.envs[i].set_wrapper_attr(name, value)

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> list[Any]:
        return [method(*args, **kwargs) for method in self.get_attr(name, indices)]

    def is_wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        return [is_wrapped(self.envs[i], wrapper) for i in indices]

    def close(self) -> None:
        self.env.close()
