"""gymnasium's vector environments as a VecEnv of SB3."""

import difflib
import importlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from sb3_dqn_ext._validation import check_keys, check_number, check_type
from sb3_dqn_ext.env_factory import EnvFactory, MonitorConfig, env_factories_of
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env.modes import BACKENDS, choose_vectorization_mode

__all__ = ["FastVecEnv", "make_fast_vec_env"]

EPISODE_METHODS = ("reset", "step", "close")  # on single environments they would bypass the episode statistics


class FastVecEnv(VecEnv):
    """
    A VecEnv of SB3 that steps its environments by gymnasium's vector environments.

    In the zoo's YAML it replaces the zoo's environments, with their arguments, seeds and ``monitor.csv`` files::

        vec_env_wrapper: sb3_dqn_ext.vec_env.FastVecEnv

    Infos, episode statistics, terminal observations and seeds are the same as with DummyVecEnv and Monitor, except that infos
    are not deep copies. With ``"sync"`` and ``"async"`` the trajectories are the same, too.

    All modes reset an environment in the step that ends its episode. gymnasium's own vectorised CartPole resets it one step
    later, so :class:`~sb3_dqn_ext.envs.cart_poles.SameStepCartPoleVectorEnv` replaces it. A vector entry point has one seed
    for all environments together.

    :param venv: a DummyVecEnv or a SubprocVecEnv to replace, which is closed, or a list of factories. Its environments were
        made by ``gymnasium.make``, with or without SB3's Monitor
    :param vectorization_mode: ``"vector_entry_point"``: the environment's vector entry point, one object for all environments;
        ``"sync"``: one environment after the other; ``"async"``: a worker process for each environment; ``"auto"`` (default):
        the vector entry point if there are several environments, it has the same spaces, and no wrapper would be lost, or if
        it alone takes one of the arguments; otherwise ``"async"`` in place of a SubprocVecEnv and ``"sync"`` in all other
        cases. A warning names spaces that differ
    :param env_kwargs: arguments of the environments in addition to those with which they were made, such as ``num_threads``
        of a vector entry point
    :raises ArgumentError: if an environment cannot be made again, for example because a wrapper does not record its arguments,
        or if the environments do not support the mode
    """

    def __init__(
        self,
        venv: VecEnv | list[EnvFactory],
        vectorization_mode: str = "auto",
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        check_type("venv", venv, VecEnv | list, "a DummyVecEnv or a SubprocVecEnv; make_fast_vec_env takes an id")
        replaced = venv if isinstance(venv, VecEnv) else None
        factories = env_factories_of(venv) if isinstance(venv, VecEnv) else venv
        if env_kwargs is not None:
            check_type("env_kwargs", env_kwargs, Mapping, "a mapping of arguments")
            factories = [replace(factory, kwargs={**factory.kwargs, **env_kwargs}) for factory in factories]
        otherwise = "async" if isinstance(replaced, SubprocVecEnv) else "sync"
        self.vectorization_mode = choose_vectorization_mode(factories, vectorization_mode, otherwise)
        if replaced is not None:
            replaced.close()
        self.backend = BACKENDS[self.vectorization_mode](factories)
        env = self.backend.env
        super().__init__(len(factories), env.single_observation_space, env.single_action_space)
        self.metadata = env.metadata
        self.spec = factories[0].spec
        self.factories = factories
        self.reset_infos = self.backend.reset_infos
        if replaced is not None:
            self._seeds, self._options = replaced._seeds, replaced._options

    def reset(self) -> VecEnvObs:
        """
        Reset all environments.

        :return: (n_envs, ...) the first observations
        """
        observations = self.backend.reset(self._seeds, self._options)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """
        Start a step of all environments.

        :param actions: (n_envs, ...) the actions
        """
        self.backend.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """
        Finish the step.

        :return: observations (n_envs, ...), rewards (n_envs,) float32, dones (n_envs,) bool, infos (n_envs,)
        """
        return self.backend.step_wait()

    def close(self) -> None:
        """Close the environments and their files."""
        self.backend.close()

    def has_attr(self, attr_name: str) -> bool:
        """
        Return whether every environment has an attribute.

        :param attr_name: the name of the attribute
        """
        return self.backend.has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        Return an attribute of the environments.

        :param attr_name: the name of the attribute
        :param indices: the indices of the environments; None (default): all
        :return: the value of each environment; a vector entry point has one value for all environments
        """
        return self.backend.get_attr(attr_name, self._index_list(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        Set an attribute on the wrapper or environment that has it, or on the outermost wrapper if there is none.

        :param attr_name: the name of the attribute
        :param value: its value
        :param indices: the indices of the environments; None (default): all
        :raises ArgumentError: if a vector entry point is used and ``indices`` are not all environments
        """
        self.backend.set_attr(attr_name, value, self._index_list(indices))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        Call a method of single environments.

        :param method_name: the name of the method
        :param method_args: its arguments by position
        :param indices: the indices of the environments; None (default): all
        :param method_kwargs: its arguments by keyword
        :return: the value that each environment returned
        :raises ArgumentError: if a vector entry point is used, or if the method is ``reset``, ``step`` or ``close``, which
            would bypass the episode statistics
        """
        if method_name in EPISODE_METHODS:
            raise ArgumentError(
                f"method_name={method_name!r}: call {method_name}() of the FastVecEnv, which counts the episodes."
            )
        return self.backend.call(method_name, self._index_list(indices), method_args, method_kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """
        Return for each environment whether it has a wrapper.

        :param wrapper_class: the class of the wrapper; True for SB3's Monitor, also where a vector entry point replaces it
        :param indices: the indices of the environments; None (default): all
        """
        return self.backend.is_wrapped(wrapper_class, self._index_list(indices))

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """
        Render all environments.

        :return: (n_envs,) RGB arrays; Nones with a warning if ``render_mode`` is not ``"rgb_array"``
        """
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}; images need 'rgb_array'.", stacklevel=2)
            return [None] * self.num_envs
        pictures: Any = self.backend.env.render()
        return list(pictures)

    def _index_list(self, indices: VecEnvIndices) -> list[int]:
        return [int(i) for i in np.arange(self.num_envs)[list(self._get_indices(indices))]]


def find_spec(id: str | EnvSpec) -> EnvSpec:
    """
    Return the spec of an environment id.

    :param id: an id, with or without a module to import first as in ``"sb3_dqn_ext:dqn_ext/CartPoleNoVel-v1"``; or a spec
    :return: the spec; a spec that is given is returned itself
    :raises ArgumentError: if the module cannot be imported, the id is not registered, or the value is neither an id nor a spec
    """
    if isinstance(id, EnvSpec):
        return id
    check_type("id", id, str, "the id of an environment or an EnvSpec")
    module, _, name = id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ArgumentError(f"id={id!r}: {error}.") from error
    if name not in gym.registry:
        close = difflib.get_close_matches(name, gym.registry, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(f"id={id!r} is not known to gymnasium.{hint}")
    return gym.registry[name]


def make_fast_vec_env(
    id: str | EnvSpec,
    n_envs: int = 1,
    seed: int | None = None,
    vectorization_mode: str = "auto",
    env_kwargs: Mapping[str, Any] | None = None,
    monitor_dir: str | Path | None = None,
    monitor_kwargs: Mapping[str, Any] | None = None,
    wrapper_class: Callable[..., gym.Env[Any, Any]] | None = None,
    wrapper_kwargs: Mapping[str, Any] | None = None,
) -> FastVecEnv:
    """
    Make several environments from an id, like SB3's ``make_vec_env``. gymnasium's vector environments make their steps.

    An id gives the same environment with any ``n_envs``. The exception is ``vectorization_mode="vector_entry_point"`` for
    ids whose vector entry point makes a different environment, such as ``ALE/Breakout-v5``, see docs/speed.md.

    :param id: the environment's id or its spec
    :param n_envs: the number of environments
    :param seed: the seed of the first environment; environment i has ``seed + i``. A vector entry point has one seed for all.
        None (default): the seed is random
    :param vectorization_mode: see :class:`FastVecEnv`
    :param env_kwargs: arguments of ``gymnasium.make``, such as ``render_mode``, or of the vector entry point, such as
        ``num_threads`` of :class:`~sb3_dqn_ext.envs.atari_games.AtariGamesVectorEnv`
    :param monitor_dir: the folder of ``0.monitor.csv``, ``1.monitor.csv`` ..., one file for each environment; None (default):
        no files
    :param monitor_kwargs: the arguments ``info_keywords`` and ``override_existing`` of SB3's Monitor
    :param wrapper_class: a wrapper class, or a function that wraps an environment, applied outside SB3's Monitor. Vector entry
        points have no wrappers of single environments, so ``"auto"`` is then ``"sync"``
    :param wrapper_kwargs: arguments of ``wrapper_class``
    :return: the environments
    :raises ArgumentError: if an argument has a wrong value
    """
    spec = find_spec(id)
    check_number("n_envs", n_envs, 1, integer=True)
    if seed is not None:
        check_number("seed", seed, 0, integer=True)
    env_kwargs = {} if env_kwargs is None else env_kwargs
    monitor_kwargs = {} if monitor_kwargs is None else monitor_kwargs
    check_type("env_kwargs", env_kwargs, Mapping, "a mapping of arguments")
    check_type("monitor_kwargs", monitor_kwargs, Mapping, "a mapping of arguments")
    check_keys("monitor_kwargs", monitor_kwargs, ("info_keywords", "override_existing"))
    check_type("monitor_dir", monitor_dir, str | os.PathLike | None, "a folder")
    check_type("wrapper_class", wrapper_class, Callable | None, "a wrapper or a function that wraps an environment")
    check_type("wrapper_kwargs", wrapper_kwargs or {}, Mapping, "a mapping of arguments")
    if wrapper_kwargs and wrapper_class is None:
        raise ArgumentError(f"wrapper_kwargs={dict(wrapper_kwargs)!r} has no effect without wrapper_class.")
    wrapper = None if wrapper_class is None else partial(wrapper_class, **(wrapper_kwargs or {}))
    files = [None if monitor_dir is None else os.path.join(os.path.abspath(monitor_dir), str(i)) for i in range(n_envs)]
    keywords, override = tuple(monitor_kwargs.get("info_keywords", ())), monitor_kwargs.get("override_existing", True)
    factories = [
        EnvFactory(
            spec,
            dict(env_kwargs),
            MonitorConfig(file, keywords, override),
            wrapper=wrapper,
            seed=None if seed is None else int(seed) + i,
        )
        for i, file in enumerate(files)
    ]
    venv = FastVecEnv(factories, vectorization_mode)
    venv.seed(None if seed is None else int(seed))
    return venv
