"""Each environment in a process of its own."""

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
    """AsyncVectorEnv whose infos are a dict of dicts, by the number of the environment."""

    def _add_info(self, vector_infos: dict[Any, Any], env_info: Info, env_num: int) -> dict[Any, Any]:
        """gymnasium makes arrays of them; the first environment's type then becomes that of all."""
        vector_infos[env_num] = env_info
        return vector_infos


class AsyncBackend:
    """
    The environments of an AsyncVectorEnv.

    :param recipes: (n_envs,) what makes them
    """

    def __init__(self, recipes: Sequence[EnvFactory]) -> None:
        # As SB3 chooses it: a fork copies locks that threads of torch may hold.
        start_method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self.async_env = RawInfosAsyncVectorEnv(list(recipes), autoreset_mode=AutoresetMode.SAME_STEP, context=start_method)
        self.env: GymVectorEnv = self.async_env
        self.reset_infos: list[Info] = [{} for _ in recipes]
        self.recipes = recipes

    def __getstate__(self) -> None:
        # a copy that is made in part, and then given up, would close the pipes of this one
        raise TypeError("environments in processes of their own cannot be copied or pickled; vectorization_mode='sync' can.")

    def reset(self, seeds: list[int | None], options: list[Info]) -> VecEnvObs:
        observations: VecEnvObs
        told: Any
        if all_equal(options):
            observations, told = self.async_env.reset(seed=seeds, options=options[0] or None)
            self.reset_infos[:] = [told[i] for i in range(len(seeds))]
            return observations
        for i, own in enumerate(options):  # gymnasium takes one set of options, but can reset some environments only
            only = np.arange(len(seeds)) == i
            observations, told = self.async_env.reset(seed=seeds, options={**own, "reset_mask": only})
            self.reset_infos[i] = told[i]
        return observations

    def step_async(self, actions: Array) -> None:
        self.async_env.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        told: Any
        observations, rewards, terminated, truncated, told = self.async_env.step_wait()
        dones = terminated | truncated
        cut_short = (truncated & ~terminated).tolist()
        infos: list[Info] = [{**told[i], "TimeLimit.truncated": cut_short[i]} for i in range(len(dones))]
        for i in np.flatnonzero(dones).tolist():
            of_reset = told[i]
            infos[i] = {
                **of_reset.pop("final_info"),
                "terminal_observation": of_reset.pop("final_obs"),
                "TimeLimit.truncated": cut_short[i],
            }
            self.reset_infos[i] = of_reset
        return observations, rewards.astype(np.float32), dones, infos

    def has_attr(self, name: str) -> bool:
        return all(self._ask(range(len(self.recipes)), "has_wrapper_attr", name))

    def get_attr(self, name: str, indices: Sequence[int]) -> list[Any]:
        self._check(name, indices)
        return self._ask(indices, "get_wrapper_attr", name)

    def set_attr(self, name: str, value: Any, indices: Sequence[int]) -> None:
        self._ask(indices, "set_wrapper_attr", name, value)

    def call(self, name: str, indices: Sequence[int], args: tuple[Any, ...], kwargs: Info) -> list[Any]:
        self._check(name, indices)
        return self._ask(indices, name, *args, **kwargs)

    def wrapped(self, wrapper: WrapperClass, indices: Sequence[int]) -> list[bool]:
        """A process cannot be asked, but one can look at another environment from the same recipe."""
        answers = []
        for i in indices:
            with self.recipes[i].unrecorded()() as env:
                answers.append(is_wrapped(env, wrapper))
        return answers

    def close(self) -> None:
        self.env.close()

    def _check(self, name: str, indices: Sequence[int]) -> None:
        """An error in a process ends it, so the usual one is found here."""
        if not all(self._ask(indices, "has_wrapper_attr", name)):
            raise AttributeError(f"{self.recipes[0].spec.id} has no attribute {name!r}.")

    def _ask(self, indices: Sequence[int], name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """gymnasium's ``call``, but not always of all environments."""
        pipes = [self.async_env.parent_pipes[i] for i in indices]
        for pipe in pipes:
            pipe.send(("_call", (name, args, kwargs)))
        answers = [pipe.recv() for pipe in pipes]
        failed = {i for i, (_, success) in zip(indices, answers, strict=True) if not success}
        self.async_env._raise_if_errors([i not in failed for i in range(len(self.recipes))])
        return [answer for answer, _ in answers]
