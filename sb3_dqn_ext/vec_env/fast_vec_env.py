"""gymnasium's vector environments behind the interface of SB3's VecEnv."""

import difflib
import importlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
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

EPISODE_METHODS = ("reset", "step", "close")  # on a single environment they would leave the episode that is counted


class FastVecEnv(VecEnv):
    """
    Many environments through gymnasium's vector environments, for SB3's algorithms.

    In the zoo's YAML it takes the place of the environments that the zoo has made, with their arguments, their seeds and
    their ``monitor.csv``::

        vec_env_wrapper: sb3_dqn_ext.vec_env.FastVecEnv

    Infos, episode statistics, terminal observations and seeds are those of DummyVecEnv with environments in a Monitor, but the
    infos are no deep copies. With ``"sync"`` and ``"async"`` the trajectories are too.

    All modes reset an environment in the step that ends its episode. gymnasium's own vectorised CartPole does it one step
    later, and is replaced by :class:`~sb3_dqn_ext.envs.cart_poles.SameStepCartPoleVectorEnv`. A vector entry point has one seed for
    all environments together.

    :param venv: the environments to replace: a DummyVecEnv or a SubprocVecEnv of environments that ``gymnasium.make`` made, in
        SB3's Monitor or not. It is closed. Or recipes to make them from.
    :param vectorization_mode: ``"vector_entry_point"``: gymnasium's, one object for all; ``"sync"``: one environment after the
        other; ``"async"``: each in a process; ``"auto"``: the first where there are several environments whose vector form has
        their spaces, and no wrappers that would be dropped, else ``"sync"``, or ``"async"`` in place of a SubprocVecEnv. A
        warning names the spaces that differ
    :raises ArgumentError: if an environment cannot be made anew, such as one with a wrapper that does not record its
        arguments, or cannot have the mode
    """

    def __init__(self, venv: VecEnv | list[EnvFactory], vectorization_mode: str = "auto") -> None:
        check_type("venv", venv, VecEnv | list, "a DummyVecEnv or a SubprocVecEnv; make_fast_vec_env takes an id")
        replaced = venv if isinstance(venv, VecEnv) else None
        recipes = env_factories_of(venv) if isinstance(venv, VecEnv) else venv
        otherwise = "async" if isinstance(replaced, SubprocVecEnv) else "sync"
        self.vectorization_mode = choose_vectorization_mode(recipes, vectorization_mode, otherwise)
        if replaced is not None:
            replaced.close()
        self.backend = BACKENDS[self.vectorization_mode](recipes)
        env = self.backend.env
        super().__init__(len(recipes), env.single_observation_space, env.single_action_space)
        self.metadata = env.metadata
        self.spec = recipes[0].spec
        self.reset_infos = self.backend.reset_infos
        if replaced is not None:
            self._seeds, self._options = replaced._seeds, replaced._options

    def reset(self) -> VecEnvObs:
        """
        Reset all environments.

        :return: (n_envs, ...)
        """
        observations = self.backend.reset(self._seeds, self._options)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """
        :param actions: (n_envs, ...)
        """
        self.backend.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: observations (n_envs, ...), rewards (n_envs,) float32, dones (n_envs,) bool, infos (n_envs,)
        """
        return self.backend.step_wait()

    def close(self) -> None:
        """Close the environments and their files."""
        self.backend.close()

    def has_attr(self, attr_name: str) -> bool:
        """
        :param attr_name: the name of an attribute
        :return: whether every environment has it
        """
        return self.backend.has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """
        :param attr_name: the name of an attribute
        :param indices: of which environments; by default all
        :return: its value in each; from a vector entry point the one value that it has for all
        """
        return self.backend.get_attr(attr_name, self._chosen(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """
        Set an attribute where it is, in a wrapper or inside it; one that nobody has is set on the outermost.

        :param attr_name: the name of the attribute
        :param value: its value
        :param indices: in which environments; by default in all
        :raises ArgumentError: if it is for some only, of a vector entry point
        """
        self.backend.set_attr(attr_name, value, self._chosen(indices))

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """
        :param method_name: a method of the environments
        :param method_args: its arguments
        :param indices: of which environments; by default all
        :param method_kwargs: its arguments
        :return: what each returned
        :raises ArgumentError: if there are no single environments, or the method would end an episode behind our back
        """
        if method_name in EPISODE_METHODS:
            raise ArgumentError(
                f"method_name={method_name!r}: call {method_name}() of the FastVecEnv, which counts the episodes."
            )
        return self.backend.call(method_name, self._chosen(indices), method_args, method_kwargs)

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """
        :param wrapper_class: a wrapper; SB3's Monitor is always there, or its work is done
        :param indices: which environments; by default all
        :return: for each of them, whether it is wrapped
        """
        return self.backend.wrapped(wrapper_class, self._chosen(indices))

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """
        :return: (n_envs,) pictures, or Nones with a warning if ``render_mode`` is another than ``"rgb_array"``
        """
        if self.render_mode != "rgb_array":
            warnings.warn(f"The render mode is {self.render_mode}, and pictures need 'rgb_array'.", stacklevel=2)
            return [None] * self.num_envs
        pictures: Any = self.backend.env.render()
        return list(pictures)

    def _chosen(self, indices: VecEnvIndices) -> list[int]:
        return [int(i) for i in np.arange(self.num_envs)[list(self._get_indices(indices))]]


def find_spec(id: str | EnvSpec) -> EnvSpec:
    """
    :param id: an id, maybe with a module to import first, as in ``"sb3_dqn_ext:dqn_ext/CartPoleNoVel-v1"``; or a spec
    :return: its spec
    :raises ArgumentError: if gymnasium does not know the id
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
    SB3's ``make_vec_env`` for gymnasium's vector environments.

    An id is the same environment for every ``n_envs``, unless ``vectorization_mode="vector_entry_point"`` asks for a vector
    form that is another one, such as that of ``ALE/Breakout-v5``, see docs/speed.md.

    :param id: the environment's id or its spec
    :param n_envs: how many of them
    :param seed: the first environment's; the i-th has ``seed + i``. A vector entry point has this one only.
    :param vectorization_mode: see :class:`FastVecEnv`
    :param env_kwargs: arguments of ``gymnasium.make``, such as ``render_mode``
    :param monitor_dir: the folder for ``0.monitor.csv``, ``1.monitor.csv`` ... with the episodes of each; None: no files
    :param monitor_kwargs: ``info_keywords`` and ``override_existing`` of SB3's Monitor
    :param wrapper_class: a wrapper, or a function that wraps an environment; it is put around SB3's Monitor. A vector form
        takes none, so that ``"auto"`` is ``"sync"``
    :param wrapper_kwargs: its arguments
    :raises ArgumentError: if an argument cannot work
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
    recipes = [
        EnvFactory(
            spec,
            dict(env_kwargs),
            MonitorConfig(file, keywords, override),
            wrapper=wrapper,
            seed=None if seed is None else int(seed) + i,
        )
        for i, file in enumerate(files)
    ]
    venv = FastVecEnv(recipes, vectorization_mode)
    venv.seed(None if seed is None else int(seed))
    return venv
