"""A wrapper that records resets and actions, to restore the environment's state by replaying them."""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.monitor import Monitor

from sb3_dqn_ext.checkpoint.envs.generators import SPACE_PREFIX, generator_states, generators_of, set_generator_states
from sb3_dqn_ext.checkpoint.envs.monitor_files import monitor_file_state, truncate_monitor_file
from sb3_dqn_ext.checkpoint.envs.plain_data import State, equal_bits, from_plain, pack_actions, to_plain, unpack_actions
from sb3_dqn_ext.checkpoint.envs.state_recorder import StateRecorder, has_state_methods, record_calls
from sb3_dqn_ext.env_factory import layers_of

Env = gym.Env[Any, Any]


class EnvRestoreError(RuntimeError):
    """
    An environment's state could not be restored, so a new episode has to begin.

    :param env_id: the id of the environment
    :param reason: the reason, such as a difference from the recorded state
    """

    def __init__(self, env_id: str, reason: str) -> None:
        super().__init__(env_id, reason)
        self.env_id, self.reason = env_id, reason

    def __str__(self) -> str:
        return f"{self.env_id} cannot be restored in the middle of its episode: {self.reason}."


@contextmanager
def without_side_effects(env: Env) -> Iterator[None]:
    """
    Restore the global random generators and the statistics of Monitors at the end: a context manager.

    :param env: an environment with its wrappers
    """
    streams = np.random.get_state(), random.getstate()  # some environments draw from the global generators
    monitors = [layer for layer in layers_of(env) if isinstance(layer, Monitor)]
    names = ("results_writer", "episode_returns", "episode_lengths", "episode_times", "total_steps")
    kept = [{name: vars(monitor)[name] for name in names} for monitor in monitors]
    for monitor in monitors:
        vars(monitor).update(results_writer=None, episode_returns=[], episode_lengths=[], episode_times=[])
    try:
        yield
    finally:
        for monitor, values in zip(monitors, kept, strict=True):
            vars(monitor).update(values)
        np.random.set_state(streams[0])
        random.setstate(streams[1])


class ReplayWrapper(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    A wrapper that makes the state of an environment available as plain data, so that it can be restored in another process.

    Put it outside of all other wrappers. It records the states of all random generators at the last reset of the innermost
    environment, and all resets and actions since. Memory use and the time to restore the state therefore grow with the length
    of the episode.

    Two things are not restored: statistics of a wrapper over several episodes (except ``total_steps`` of Monitor), and random
    numbers that an environment draws from a source that is not one of its attributes. If the observation differs because of
    that, :meth:`set_state` raises :class:`EnvRestoreError`.

    :param env: the environment with its wrappers
    """

    def __init__(self, env: Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._generators_at_begin: State | None = None  # states of the generators before the first reset
        self._resets: list[tuple[int, dict[str, Any]]] = []  # (number of actions before it, arguments) of each reset
        self._actions: list[Any] = []
        self._last_result: tuple[Any, ...] = (None,)  # of the last reset or step; its first item is the observation
        self._recorder = StateRecorder(self.unwrapped) if has_state_methods(self.unwrapped) else None

    @property
    def env_id(self) -> str:
        """The environment's id, or the name of its class if it has no spec."""
        spec = self.env.spec
        return type(self.unwrapped).__name__ if spec is None else spec.id

    @property
    def last_observation(self) -> Any:
        """The observation of the last reset or step."""
        return self._last_result[0]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """
        Reset the environment and record the reset.

        :param kwargs: ``seed`` and ``options``, and further arguments of wrappers
        :return: the observation and the info
        """
        begin, arguments = generator_states(self.env), deepcopy(kwargs)
        n_results = 0 if self._recorder is None else len(self._recorder.results)
        with record_calls(self.unwrapped) as called:
            result = self._last_result = self.env.reset(**kwargs)
        # If the call began with a step of the innermost environment, as after the loss of a life, the episode continues.
        if called[:1] == ["reset"] or self._generators_at_begin is None:
            self._generators_at_begin, self._resets, self._actions = begin, [], []
            if self._recorder is not None:
                del self._recorder.results[:n_results]
        self._resets.append((len(self._actions), arguments))
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        Step the environment and record the action.

        :param action: the action
        :return: observation, reward, terminated, truncated, info
        """
        # a copy: the array may be a row of an array that the caller reuses
        self._actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        result: tuple[Any, Any, bool, bool, dict[str, Any]] = self.env.step(action)
        self._last_result = result
        return result

    def get_state(self) -> State:
        """
        Return the state as plain data: nested dicts, lists, numbers, strings and arrays.

        :return: the state; its ``"why_not"`` is None, or the reason for which the state cannot be restored
        """
        state: State = {"env": self.env_id, "why_not": None, "generators": generator_states(self.env)}
        state["records"] = [monitor_file_state(monitor.results_writer, monitor.t_start) for monitor in self._layers(Monitor)]
        if self._generators_at_begin is None:
            return state | {"why_not": "it was not reset since the wrapper was made"}
        try:
            state |= {
                "begin": self._generators_at_begin,
                "resets": [{"at": at, "arguments": to_plain(arguments)} for at, arguments in self._resets],
                **pack_actions(self._actions),
                "observation": to_plain(self.last_observation),
                "steps_of_monitors": [monitor.total_steps for monitor in self._layers(Monitor)],
                "own": None,
            }
        except TypeError as error:  # no exception here: a checkpoint must not end the training
            return state | {"why_not": f"{error}, and it is part of an observation, an action or an option"}
        if self._recorder is not None:
            with suppress(TypeError, ValueError):  # if its own state is not plain data, the actions are replayed instead
                own: Any = self.unwrapped
                state["own"] = {"state": to_plain(own.get_state()), "tape": self._recorder.state()}
        return state

    def set_state(self, state: State) -> Any:
        """
        Restore a state by replaying its resets and actions.

        :param state: the state from :meth:`get_state` of an equal environment
        :return: the observation from which the next step continues
        :raises EnvRestoreError: if the replay leads to another state; the next reset begins a new episode
        """
        with suppress(Exception):  # an unseeded environment may raise any exception in the replay
            return self._replay(state)
        try:  # some environments share one generator between their parts only after they were seeded
            return self._replay(state, seed=0)
        except EnvRestoreError:
            self._discard_history(state)
            raise
        except Exception as error:
            self._discard_history(state)
            raise EnvRestoreError(self.env_id, f"{type(error).__name__}: {error}") from error

    def restore_or_reset(self, state: State) -> tuple[Any, str | None]:
        """
        Restore a state, or reset the environment if that fails. An exception would end a worker process.

        :param state: see :meth:`set_state`
        :return: the observation; and the reason for which the environment was reset, None if the state was restored
        """
        try:
            return self.set_state(state), None
        except EnvRestoreError as error:
            return self.reset()[0], str(error)

    def rewind_monitor_files(self, state: State) -> None:
        """
        Remove the episodes after a state from the files of Monitors: the resumed run records them again.

        :param state: the state from :meth:`get_state` of an equal environment
        """
        for monitor, record in zip(self._layers(Monitor), state["records"], strict=True):
            monitor.t_start = truncate_monitor_file(monitor.results_writer, record, monitor.t_start)

    def ignore_interrupts(self) -> None:
        """Ignore SIGINT, which a terminal sends to worker processes, too. The main process handles it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _layers(self, kind: type[Any]) -> list[Any]:
        return [layer for layer in layers_of(self.env) if isinstance(layer, kind)]

    def _replay(self, state: State, seed: int | None = None) -> Any:
        if state["env"] != self.env_id:
            raise EnvRestoreError(self.env_id, f"the state is that of {state['env']}")
        if state["why_not"] is not None:
            raise EnvRestoreError(self.env_id, state["why_not"])
        with without_side_effects(self.env):
            self._mark_episode_ended()
            # some environments make their generators in their first reset
            if seed is not None or state["begin"].keys() - generators_of(self.env).keys():
                self.env.reset(seed=seed)
                self._mark_episode_ended()
            set_generator_states(self.env, state["begin"])
            if state["own"] is None:
                self._repeat_actions(state)
                self._check_generators(state["generators"])
            elif self._recorder is None:
                raise EnvRestoreError(self.env_id, "it has no get_state() and set_state(state)")
            else:
                with self._recorder.replay(state["own"]["tape"]):
                    self._repeat_actions(state)
                self._set_env_state(state["own"]["state"])
        if not equal_bits(to_plain(self.last_observation), state["observation"]):
            raise EnvRestoreError(self.env_id, "its observation differs")
        # DQN draws random actions from the action space, so a replay does not restore the spaces' generators.
        set_generator_states(self.env, state["generators"])
        for monitor, total_steps in zip(self._layers(Monitor), state["steps_of_monitors"], strict=True):
            monitor.total_steps = total_steps
        return self.last_observation

    def _set_env_state(self, state: Any) -> None:
        own: Any = self.unwrapped
        own.set_state(from_plain(state))
        if not equal_bits(to_plain(own.get_state()), state):
            raise EnvRestoreError(self.env_id, "its state differs from the one that was set")
        for wrapper in self._layers(EpisodicLifeEnv):  # the replay has not restored its attribute
            wrapper.lives = own.ale.lives()

    def _repeat_actions(self, state: State) -> None:
        """Repeat the resets and actions of a state, which records them again."""
        actions, taken = unpack_actions(state), 0
        for reset in state["resets"]:
            for action in actions[taken : reset["at"]]:
                self.step(action)
            taken = reset["at"]
            self.reset(**from_plain(reset["arguments"]))
        for action in actions[taken:]:
            self.step(action)

    def _check_generators(self, states: State) -> None:
        ours = generator_states(self.env)
        for name in sorted(ours.keys() | states.keys()):
            if not name.startswith(SPACE_PREFIX) and not equal_bits(ours.get(name), states.get(name)):
                raise EnvRestoreError(self.env_id, f"the random generator {name} differs")

    def _mark_episode_ended(self) -> None:
        """Set the state of wrappers as at the end of an episode, so that the next reset resets the innermost environment."""
        for monitor in self._layers(Monitor):
            monitor.needs_reset = True
        for lives in self._layers(EpisodicLifeEnv):
            lives.was_real_done = True

    def _discard_history(self, state: State) -> None:
        self._generators_at_begin, self._resets, self._actions = None, [], []
        self._mark_episode_ended()
        with suppress(TypeError, ValueError):  # another kind of generator
            set_generator_states(self.env, state["generators"])


def add_replay_wrapper(env: Env, wrapper: Callable[[Env], Env] | None = None) -> ReplayWrapper:
    """
    Wrap an environment in a ReplayWrapper: a ``wrapper_class`` for SB3's ``make_vec_env``.

    :param env: an environment
    :param wrapper: a wrapper class or function to apply first; None (default): none
    """
    return ReplayWrapper(env if wrapper is None else wrapper(env))
