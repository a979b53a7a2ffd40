"""One environment after the other."""

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
    The environments of a SyncVectorEnv, stepped as DummyVecEnv does it, but without its copies of copies.

    :param recipes: (n_envs,) what makes them
    """

    def __init__(self, recipes: Sequence[EnvFactory]) -> None:
        sync: SyncVectorEnv[Any, Any] = SyncVectorEnv(list(recipes), autoreset_mode=AutoresetMode.SAME_STEP)
        self.env: GymVectorEnv = sync
        self.envs = sync.envs
        self.reset_infos: list[Info] = [{} for _ in recipes]
        self._space = self.env.single_observation_space
        keys, shapes, dtypes = obs_space_info(self._space)
        self._parts: list[tuple[Any, tuple[int, ...], Any]] = [
            (key, (len(recipes), *shapes[key]), dtypes[key]) for key in keys
        ]

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        parts = self._empty()
        for i, env in enumerate(self.envs):
            maybe_options = {"options": options[i]} if options[i] else {}
            observation, self.reset_infos[i] = env.reset(seed=seeds[i], **maybe_options)
            self._put(parts, i, observation)
        return dict_to_obs(self._space, parts)

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        parts = self._empty()
        whole = parts.get(None)  # (n_envs, ...) an observation that is one array
        rewards = np.empty(len(self.reset_infos), np.float32)
        dones, infos = [], []
        for i, (env, action) in enumerate(zip(self.envs, self._actions, strict=True)):
            observation, rewards[i], terminated, truncated, info = env.step(action)
            info = {**info, "TimeLimit.truncated": truncated and not terminated}
            done = terminated or truncated
            if done:
                info["terminal_observation"] = deepcopy(observation)
                observation, self.reset_infos[i] = env.reset()
            if whole is None:
                self._put(parts, i, observation)
            else:
                whole[i] = observation
            dones.append(done)
            infos.append(info)
        return dict_to_obs(self._space, parts), rewards, np.array(dones, np.bool_), infos

    def _empty(self) -> dict[Any, Array]:
        return {key: np.empty(shape, dtype) for key, shape, dtype in self._parts}

    def _put(self, parts: dict[Any, Array], i: int, observation: Any) -> None:
        """
        :param parts: (n_envs, ...) for each key of the observation; its only key is None where it is one array
        :param i: the environment
        :param observation: what it observed
        """
        for key, part in parts.items():
            part[i] = observation if key is None else observation[key]

    def has_attr(self, name: str) -> bool:
        return all(env.has_wrapper_attr(name) for env in self.envs)

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        return [self.envs[i].get_wrapper_attr(name) for i in indices]

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        for i in indices:
            self.envs[i].set_wrapper_attr(name, value)

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> list[Any]:
        return [method(*args, **kwargs) for method in self.get_attr(name, indices)]

    def wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        return [is_wrapped(self.envs[i], wrapper) for i in indices]

    def close(self) -> None:
        self.env.close()
