"""What one environment is made of, read off an environment that exists, in this process or in another."""

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

ALTERNATIVES = "Leave out FastVecEnv, or give the environment with its wrappers an id of its own, see gymnasium.register."


@dataclass(frozen=True)
class MonitorConfig:
    """
    How the episodes of one environment are recorded: the arguments of SB3's Monitor.

    :param filename: the file, or None for no file
    :param info_keywords: the keys of a last step's info that are recorded too
    :param override_existing: False: append to the file
    :param t_start: the time that the file's header names; None: now
    """

    filename: str | None = None
    info_keywords: tuple[str, ...] = ()
    override_existing: bool = True
    t_start: float | None = None

    def monitor(self, env: Env) -> Monitor[Any, Any]:
        """
        :param env: the environment
        :return: the environment in a Monitor
        """
        keywords, override = self.info_keywords, self.override_existing
        monitor = Monitor(env, self.filename, info_keywords=keywords, override_existing=override)
        if self.t_start is not None:
            monitor.t_start = self.t_start
        return monitor

    def writer(self, env_id: str) -> tuple[ResultsWriter | None, float]:
        """
        :param env_id: goes into the file's header
        :return: what writes the file as a Monitor does, and the time at which that began
        """
        t_start = time.time() if self.t_start is None else self.t_start
        if self.filename is None:
            return None, t_start
        header: dict[str, float | str] = {"t_start": t_start, "env_id": env_id}
        return ResultsWriter(self.filename, header, self.info_keywords, self.override_existing), t_start


@dataclass(frozen=True)
class EnvFactory:
    """
    Called, it makes one environment, here or in another process.

    :param spec: what lies inside the Monitor
    :param kwargs: further arguments of ``gym.make``
    :param record: the Monitor
    :param wrappers: what lies around the Monitor, innermost first: there the zoo puts its ``env_wrapper``
    :param wrapper: what is put around all of these at last, a wrapper or a function
    :param seed: of the action space
    :param layers: the names of all wrappers but the Monitor and of the environment, outermost first; None: whatever comes
    """

    spec: EnvSpec
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    record: MonitorConfig = MonitorConfig()
    wrappers: tuple[WrapperSpec, ...] = ()
    wrapper: "partial[Env] | None" = None
    seed: int | None = None
    layers: tuple[str, ...] | None = None

    def __call__(self) -> Env:
        """
        :raises ArgumentError: if it cannot be made, or something else comes out than ``layers`` says
        """
        try:
            env = gym.make(self.spec, **self.kwargs)
        except ValueError as error:
            if any(wrapper.kwargs is None for wrapper in self.spec.additional_wrappers):
                raise ArgumentError(f"{error} {ALTERNATIVES}") from error
            raise
        if self.seed is not None:
            env.action_space.seed(self.seed)
        env = self.record.monitor(env)
        for wrapper in self.wrappers:
            around: Any = load_env_creator(wrapper.entry_point)
            env = around(env=env, **(wrapper.kwargs or {}))
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
    def around(self) -> list[str]:
        """The names of what lies around the Monitor, innermost first."""
        last = [] if self.wrapper is None else [getattr(self.wrapper.func, "__name__", repr(self.wrapper.func))]
        return [*(wrapper.name for wrapper in self.wrappers), *last]

    @property
    def alike(self) -> tuple[Any, ...]:
        """What is equal for environments that differ in nothing but their seeds and files."""
        return self.spec, self.kwargs, self.wrappers, self.wrapper

    def unrecorded(self) -> "EnvFactory":
        """
        :return: the same without a file
        """
        return replace(self, record=replace(self.record, filename=None))


def layers_of(env: Any) -> list[Any]:
    """
    :param env: an environment, or gymnasium's or SB3's vector environment, in its wrappers
    :return: the environment and its wrappers, innermost first
    """
    if isinstance(env, gym.Wrapper | VectorWrapper):
        return [*layers_of(env.env), env]
    return [*layers_of(env.venv), env] if isinstance(env, VecEnvWrapper) else [env]


def layer_names(env: Env) -> tuple[str, ...]:
    """
    :param env: an environment
    :return: the names of its wrappers, but for SB3's Monitor, and its own, outermost first
    """
    layers = [layer for layer in reversed(layers_of(env)) if not isinstance(layer, Monitor)]
    # The zoo has a time limit of its own; other processes may not have imported it.
    return tuple(type(layer).__name__.removeprefix("Patched") for layer in layers)


def monitor_config_of(monitor: Monitor[Any, Any] | None) -> MonitorConfig:
    """
    :param monitor: a Monitor, if there is one
    :return: what goes on with its file
    :raises ArgumentError: if it is told to do what is not done here
    """
    if monitor is None:
        return MonitorConfig()
    if monitor.reset_keywords or not monitor.allow_early_resets:
        raise ArgumentError("FastVecEnv has no place for the reset_keywords and allow_early_resets=False of a Monitor.")
    filename = None if monitor.results_writer is None else str(monitor.results_writer.file_handler.name)
    return MonitorConfig(filename, tuple(monitor.info_keywords), override_existing=False, t_start=monitor.t_start)


def env_factory_of(env: Env) -> EnvFactory:
    """
    :param env: an environment
    :return: how to make another one like it
    :raises ArgumentError: if its spec does not tell
    """
    monitor = unwrap_wrapper(env, Monitor)
    inner, whole = env if monitor is None else monitor.env, env.spec
    spec = inner.spec
    if spec is None or whole is None:
        raise ArgumentError(
            f"{env} has no spec, from which it could be made anew: make it by gymnasium.make, "
            "which takes what gymnasium.register was told."
        )
    n_inner = len(spec.additional_wrappers)
    outer = () if monitor is None else whole.additional_wrappers[n_inner + 1 :]  # between the two: the Monitor
    for wrapper in outer:
        if wrapper.kwargs is None:
            raise ArgumentError(
                f"The wrapper {wrapper.name} has no vector form, and cannot be made anew: it does not record its arguments "
                f"(gymnasium.utils.RecordConstructorArgs). {ALTERNATIVES}"
            )
    record = monitor_config_of(monitor if isinstance(monitor, Monitor) else None)
    return EnvFactory(spec, record=record, wrappers=tuple(outer), layers=layer_names(env))


class FactoryProbe:
    """
    Given to ``env_is_wrapped`` in place of a wrapper's class, it leaves a note on each environment, in whichever process.

    A Monitor holds an open file, so that it cannot be sent from one process to another, but its recipe can.
    """

    NOTE = "recipe_of_this_env"

    def __instancecheck__(self, env: Any) -> bool:
        try:
            note: EnvFactory | ArgumentError = env_factory_of(env)
        except ArgumentError as error:  # an exception would end the process
            note = error
        setattr(env, self.NOTE, CloudpickleWrapper(note))
        return True


def env_factories_of(venv: VecEnv) -> list[EnvFactory]:
    """
    :param venv: several environments, as the zoo makes them
    :return: for each of them, how to make it anew
    :raises ArgumentError: if that cannot be told
    """
    if not isinstance(venv, (DummyVecEnv, SubprocVecEnv)):
        raise ArgumentError(
            f"FastVecEnv takes the place of a DummyVecEnv or a SubprocVecEnv, not of a {type(venv).__name__}; "
            "wrappers of vector environments go around it."
        )
    if not all(venv.env_is_wrapped(FactoryProbe())):  # type: ignore[arg-type]  # it is asked isinstance(env, Look()) only
        raise ArgumentError("FastVecEnv takes the place of environments that gymnasium.make has made.")
    notes = [note.var for note in venv.get_attr(FactoryProbe.NOTE)]
    for note in notes:
        if isinstance(note, ArgumentError):
            raise note
    notes[0].unrecorded()().close()  # while the others are still there
    # The seeds of the next reset. make_vec_env gives each action space the seed of its environment.
    return [replace(recipe, seed=seed) for recipe, seed in zip(notes, venv._seeds, strict=True)]
