"""The backend with one worker process for each environment."""

import multiprocessing
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_dqn_ext.env_factory import EnvFactory
from sb3_dqn_ext.vec_env.backend import Array, GymVectorEnv, Info, WrapperClass, all_equal


class RawInfosAsyncVectorEnv(AsyncVectorEnv[Any, Any]):
    """An AsyncVectorEnv that returns infos as ``{index of the environment: info}``."""

    def _add_info(self, vector_infos: dict[Any, Any], env_info: Info, env_num: int) -> dict[Any, Any]:
        """Keep each info as it is. gymnasium merges them into arrays, which convert all values to the first one's type."""
        vector_infos[env_num] = env_info
        return vector_infos


class AsyncBackend:
    """
    The backend that steps each environment in its own process, by gymnasium's AsyncVectorEnv.

    :param factories: (n_envs,) the functions that make the environments
    """

    def __init__(self, factories: Sequence[EnvFactory]) -> None:
        # SB3's choice. A plain fork would copy locks that threads of torch may hold.
        start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.async_env = RawInfosAsyncVectorEnv(list(factories), autoreset_mode=AutoresetMode.SAME_STEP, context=start_method)
        self.env: GymVectorEnv = self.async_env
        self.reset_infos: list[Info] = [{} for _ in factories]
        self.factories = factories

    def __getstate__(self) -> None:
        # the destructor of an incomplete copy would close the pipes of this object
        raise TypeError(
            "vectorization_mode='async': environments in worker processes cannot be copied or pickled; use "
            "vectorization_mode='sync'."
        )

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        observations: VecEnvObs
        infos_by_env: Any
        if all_equal(options):
            observations, infos_by_env = self.async_env.reset(seed=seeds, options=options[0] or None)
            self.reset_infos[:] = [infos_by_env[i] for i in range(len(seeds))]
            return observations
        for i, own in enumerate(options):  # gymnasium takes one set of options per call, so each call resets one environment
            only = np.arange(len(seeds)) == i
            observations, infos_by_env = self.async_env.reset(seed=seeds, options={**own, "reset_mask": only})
            self.reset_infos[i] = infos_by_env[i]
        return observations

    def step_async(self, actions: Array) -> None:
        self.async_env.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        infos_by_env: Any
        observations, rewards, terminated, truncated, infos_by_env = self.async_env.step_wait()
        dones = terminated | truncated
        cut_short = (truncated & ~terminated).tolist()
        infos: list[Info] = [{**infos_by_env[i], "TimeLimit.truncated": cut_short[i]} for i in range(len(dones))]
        for i in np.flatnonzero(dones).tolist():
            reset_info = infos_by_env[i]
            infos[i] = {
                **reset_info.pop("final_info"),
                "terminal_observation": reset_info.pop("final_obs"),
                "TimeLimit.truncated": cut_short[i],
            }
            self.reset_infos[i] = reset_info
        return observations, rewards.astype(np.float32), dones, infos

    def has_attr(self, name: str) -> bool:
        return all(self._call_workers(range(len(self.factories)), "has_wrapper_attr", name))

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        self._check_attribute(name, indices)
        return self._call_workers(indices, "get_wrapper_attr", name)

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        self._call_workers(indices, "set_wrapper_attr", name, value)

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> list[Any]:
        self._check_attribute(name, indices)
        return self._call_workers(indices, name, *args, **kwargs)

    def is_wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        """
        Return whether environments are wrapped in a wrapper.

        Worker processes have no command for this. Therefore this method makes a second environment in this process from the
        factory of each environment, without a monitor file, and closes it afterwards.

        :param wrapper: the class of the wrapper
        :param indices: the indices of the environments
        :return: an answer for each index
        """
        answers = []
        for i in indices:
            with self.factories[i].without_file()() as env:
                answers.append(is_wrapped(env, wrapper))
        return answers

    def close(self) -> None:
        self.env.close()

    def _check_attribute(self, name: str, indices: Sequence[int]) -> None:
        """Raise an AttributeError here: in a worker process it would end the process."""
        if not all(self._call_workers(indices, "has_wrapper_attr", name)):
            raise AttributeError(f"{self.factories[0].spec.id} has no attribute {name!r}.")

    def _call_workers(self, indices: Sequence[int], name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """
        Call a method in the worker processes of some environments, and wait for the results.

        gymnasium's ``call`` cannot be used, because it calls the method in the workers of all environments.

        :param indices: the indices of the environments
        :param name: the name of the method; for an attribute that cannot be called, its value is the result
        :param args: the positional arguments of the method
        :param kwargs: the keyword arguments of the method
        :return: a result for each index, in the order of ``indices``
        :raises Exception: an exception that the method raised in a worker; gymnasium has then shut that worker down
        """
        pipes = [self.async_env.parent_pipes[i] for i in indices]
        for pipe in pipes:
            pipe.send(("_call", (name, args, kwargs)))
        answers = [pipe.recv() for pipe in pipes]
        failed = {i for i, (_, success) in zip(indices, answers, strict=True) if not success}
        self.async_env._raise_if_errors([i not in failed for i in range(len(self.factories))])
        return [answer for answer, _ in answers]
