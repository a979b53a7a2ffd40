"""Factories that make an environment again, derived from an existing environment in this or another process."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec, load_env_creator
from gymnasium.vector import VectorWrapper
from stable_baselines3.common.env_util import unwrap_wrapper
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import CloudpickleWrapper, DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_dqn_ext.errors import ArgumentError

Env = gym.Env[Any, Any]

ALTERNATIVES = "Leave out FastVecEnv, or register the environment with its wrappers under a new id, see gymnasium.register."


def env_id(env: VecEnv, index: int) -> str:
    """
    Return the id of a single environment.

    :param env: the vectorised environment
    :param index: the index of the single environment
    """
    spec = env.get_attr("spec", index)[0]
    return "without an id" if spec is None else str(spec.id)


@dataclass(frozen=True)
class MonitorConfig:
    """
    The arguments of SB3's Monitor for one environment.

    :param filename: the file; None (default): no file
    :param info_keywords: keys of the last step's info that are recorded for each episode
    :param override_existing: whether to overwrite the file (default), or to append to it
    :param t_start: the start time in the file's header, in seconds since the epoch; None (default): now
    """

    filename: str | None = None
    info_keywords: tuple[str, ...] = ()
    override_existing: bool = True
    t_start: float | None = None

    def wrap(self, env: Env) -> Monitor[Any, Any]:
        """
        Wrap an environment in a new Monitor with these arguments. The Monitor opens its file, if it has one.

        :param env: the environment
        """
        keywords, override = self.info_keywords, self.override_existing
        monitor = Monitor(env, self.filename, info_keywords=keywords, override_existing=override)
        if self.t_start is not None:
            monitor.t_start = self.t_start
        return monitor

    def open_writer(self, env_id: str) -> tuple[ResultsWriter | None, float]:
        """
        Open the file for writing without a Monitor.

        :param env_id: the environment id for the file's header
        :return: the writer, None without a file; and the start time in seconds since the epoch
        """
        t_start = time.time() if self.t_start is None else self.t_start
        if self.filename is None:
            return None, t_start
        header: dict[str, float | str] = {"t_start": t_start, "env_id": env_id}
        return ResultsWriter(self.filename, header, self.info_keywords, self.override_existing), t_start


@dataclass(frozen=True)
class EnvFactory:
    """
    A function that makes one environment, in this or another process.

    :param spec: the spec of the environment inside the Monitor
    :param kwargs: further arguments of ``gym.make``
    :param monitor_config: the arguments of the Monitor
    :param wrappers: the wrappers outside the Monitor, innermost first, such as the zoo's ``env_wrapper``
    :param wrapper: the outermost wrapper: a wrapper class or function with its arguments, or None
    :param seed: the seed of the action space, or None
    :param layers: the expected class names of the wrappers without the Monitor and of the environment, outermost first; None
        (default): not checked
    """

    spec: EnvSpec
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    monitor_config: MonitorConfig = MonitorConfig()
    wrappers: tuple[WrapperSpec, ...] = ()
    wrapper: "partial[Env] | None" = None
    seed: int | None = None
    layers: tuple[str, ...] | None = None

    def __call__(self) -> Env:
        """
        Make the environment.

        :raises ArgumentError: if it cannot be made, or its wrappers differ from ``layers``
        """
        try:
            env = gym.make(self.spec, **self.kwargs)
        except ValueError as error:
            if any(wrapper.kwargs is None for wrapper in self.spec.additional_wrappers):
                raise ArgumentError(f"{error} {ALTERNATIVES}") from error
            raise
        if self.seed is not None:
            env.action_space.seed(self.seed)
        env = self.monitor_config.wrap(env)
        for wrapper in self.wrappers:
            wrapper_class: Any = load_env_creator(wrapper.entry_point)
            env = wrapper_class(env=env, **(wrapper.kwargs or {}))
        if self.wrapper is not None:
            env = self.wrapper(env)
        if self.layers not in (None, layers := layer_names(env)):
            env.close()
            raise ArgumentError(
                f"{self.spec.id} was {' around '.join(self.layers or ())}, and its spec makes {' around '.join(layers)}. "
                f"{ALTERNATIVES}"
            )
        return env

    @property
    def outer_wrapper_names(self) -> list[str]:
        """The names of the wrappers outside the Monitor, innermost first."""
        last = [] if self.wrapper is None else [getattr(self.wrapper.func, "__name__", repr(self.wrapper.func))]
        return [*(wrapper.name for wrapper in self.wrappers), *last]

    @property
    def shared_settings(self) -> tuple[Any, ...]:
        """The attributes that are equal for factories that differ only in seeds and files."""
        return self.spec, self.kwargs, self.wrappers, self.wrapper

    def without_file(self) -> "EnvFactory":
        """Return a copy whose environment writes no ``monitor.csv``."""
        return replace(self, monitor_config=replace(self.monitor_config, filename=None))


def layers_of(env: Any) -> list[Any]:
    """
    Return an environment and its wrappers, innermost first.

    :param env: an environment, a vector environment of gymnasium or a VecEnv of SB3, with its wrappers
    """
    if isinstance(env, gym.Wrapper | VectorWrapper):
        return [*layers_of(env.env), env]
    return [*layers_of(env.venv), env] if isinstance(env, VecEnvWrapper) else [env]


def layer_names(env: Env) -> tuple[str, ...]:
    """
    Return the class names of an environment's wrappers and of the environment, outermost first, without SB3's Monitor.

    :param env: the environment with its wrappers
    """
    layers = [layer for layer in reversed(layers_of(env)) if not isinstance(layer, Monitor)]
    # The zoo replaces gymnasium's TimeLimit by PatchedTimeLimit; worker processes may not have imported the zoo.
    return tuple(type(layer).__name__.removeprefix("Patched") for layer in layers)


def monitor_config_of(monitor: Monitor[Any, Any] | None) -> MonitorConfig:
    """
    Return the configuration with which a new Monitor continues the file of an existing one: it appends to the file, and it
    keeps the start time.

    :param monitor: the existing Monitor; None: the configuration has no file
    :raises ArgumentError: if the Monitor has ``reset_keywords`` or ``allow_early_resets=False``, which FastVecEnv does not
        support
    """
    if monitor is None:
        return MonitorConfig()
    if monitor.reset_keywords or not monitor.allow_early_resets:
        raise ArgumentError(
            "FastVecEnv does not support the arguments reset_keywords and allow_early_resets=False of Monitor."
        )
    filename = None if monitor.results_writer is None else str(monitor.results_writer.file_handler.name)
    return MonitorConfig(filename, tuple(monitor.info_keywords), override_existing=False, t_start=monitor.t_start)


def env_factory_of(env: Env) -> EnvFactory:
    """
    Derive a factory from the spec of an environment.

    :param env: the environment with its wrappers
    :return: a factory of environments that are equal to it
    :raises ArgumentError: if the environment has no spec, or a wrapper or the Monitor cannot be made again
    """
    monitor = unwrap_wrapper(env, Monitor)
    inner, whole = env if monitor is None else monitor.env, env.spec
    spec = inner.spec
    if spec is None or whole is None:
        raise ArgumentError(f"{env} has no spec, so it cannot be made again: use gymnasium.register and gymnasium.make.")
    n_inner = len(spec.additional_wrappers)
    outer = () if monitor is None else whole.additional_wrappers[n_inner + 1 :]  # between the two: the Monitor
    for wrapper in outer:
        if wrapper.kwargs is None:
            raise ArgumentError(
                f"The wrapper {wrapper.name} cannot be made again: it does not record its arguments "
                f"(gymnasium.utils.RecordConstructorArgs). {ALTERNATIVES}"
            )
    config = monitor_config_of(monitor if isinstance(monitor, Monitor) else None)
    return EnvFactory(spec, monitor_config=config, wrappers=tuple(outer), layers=layer_names(env))


class FactoryProbe:
    """
    A class argument for ``VecEnv.env_is_wrapped`` that stores a factory as an attribute of each environment.

    It works in worker processes, too: ``isinstance(env, FactoryProbe())`` runs there, and ``get_attr`` returns the factory.
    The environment itself cannot be sent between processes, because a Monitor contains an open file.
    """

    ATTRIBUTE = "env_factory_of_this_env"
    """the name of the attribute; its value is a factory or an ArgumentError"""

    def __instancecheck__(self, env: Any) -> bool:
        try:
            found: EnvFactory | ArgumentError = env_factory_of(env)
        except ArgumentError as error:  # an exception would end the worker process
            found = error
        setattr(env, self.ATTRIBUTE, CloudpickleWrapper(found))
        return True


def env_factories_of(venv: VecEnv) -> list[EnvFactory]:
    """
    Derive factories from the environments of a VecEnv.

    :param venv: a DummyVecEnv or a SubprocVecEnv
    :return: (n_envs,) a factory for each environment
    :raises ArgumentError: if ``venv`` is another VecEnv, or an environment cannot be made again
    """
    if not isinstance(venv, (DummyVecEnv, SubprocVecEnv)):
        raise ArgumentError(
            f"FastVecEnv replaces a DummyVecEnv or a SubprocVecEnv, not a {type(venv).__name__}; put wrappers of a VecEnv "
            "around the FastVecEnv."
        )
    if not all(venv.env_is_wrapped(FactoryProbe())):  # type: ignore[arg-type]  # used in isinstance() only
        raise ArgumentError("FastVecEnv replaces only environments that gymnasium.make has made.")
    found = [wrapped.var for wrapped in venv.get_attr(FactoryProbe.ATTRIBUTE)]
    for factory in found:
        if isinstance(factory, ArgumentError):
            raise factory
    found[0].without_file()().close()  # raises an error while the environments to replace are still open
    # venv._seeds are the seeds of the next reset; make_vec_env seeds the action spaces with the same numbers
    return [replace(factory, seed=seed) for factory, seed in zip(found, venv._seeds, strict=True)]
