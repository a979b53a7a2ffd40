"""A wrapper that keeps how its environment came to where it is."""

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
    An environment could not be brought back to where it was; a new episode has to begin.

    :param env_id: the environment
    :param what: what differs
    """

    def __init__(self, env_id: str, what: str) -> None:
        super().__init__(env_id, what)
        self.env_id, self.what = env_id, what

    def __str__(self) -> str:
        return f"{self.env_id} cannot be restored in the middle of its episode: {self.what}."


@contextmanager
def without_side_effects(env: Env) -> Iterator[None]:
    """
    What is done inside of this context leaves no trace outside of the environment.

    :param env: an environment in its wrappers
    """
    streams = np.random.get_state(), random.getstate()  # an environment may draw from those of all
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
    Remembers how the environment came to where it is, so that another one can be brought there, in another process.

    It goes around the whole environment, outside of all other wrappers. It keeps the states of all random generators as of the
    last reset that was one for the innermost environment too, and all resets and actions since. So an episode without an
    end grows in memory, and takes as long to restore as it took to live through, without the learning.

    Not restored are a wrapper's statistics over several episodes (but Monitor's ``total_steps``), and environments that draw
    random numbers from elsewhere; where that makes a difference to the observation, :class:`EnvRestoreError` says so.

    :param env: the environment in its wrappers
    """

    def __init__(self, env: Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._begin: State | None = None  # the generators before the first of the resets
        self._resets: list[tuple[int, dict[str, Any]]] = []  # how many actions had been taken, and the reset's arguments
        self._actions: list[Any] = []
        self._told: tuple[Any, ...] = (None,)  # by the last reset or step
        self._tape = StateRecorder(self.unwrapped) if has_state_methods(self.unwrapped) else None

    @property
    def env_id(self) -> str:
        """The environment's name in messages."""
        spec = self.env.spec
        return type(self.unwrapped).__name__ if spec is None else spec.id

    @property
    def last_observation(self) -> Any:
        """What the last reset or step has shown."""
        return self._told[0]

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """
        :param kwargs: ``seed`` and ``options``, and what wrappers may know more
        :return: the observation and the info
        """
        begin, arguments = generator_states(self.env), deepcopy(kwargs)
        n_answers = 0 if self._tape is None else len(self._tape.answers)
        with record_calls(self.unwrapped) as called:
            told = self._told = self.env.reset(**kwargs)
        # Where steps came first, such as one after the loss of the last life but one, they belong to what was before.
        if called[:1] == ["reset"] or self._begin is None:
            self._begin, self._resets, self._actions = begin, [], []
            if self._tape is not None:
                del self._tape.answers[:n_answers]
        self._resets.append((len(self._actions), arguments))
        return told

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: the action
        :return: observation, reward, terminated, truncated, info
        """
        # An array may be a row of one that is written again.
        self._actions.append(action.copy() if isinstance(action, np.ndarray) else action)
        told: tuple[Any, Any, bool, bool, dict[str, Any]] = self.env.step(action)
        self._told = told
        return told

    def get_state(self) -> State:
        """
        :return: the state as nested dicts, lists, numbers, strings and arrays; ``"why_not"`` says what is in the way, if so
        """
        state: State = {"env": self.env_id, "why_not": None, "generators": generator_states(self.env)}
        state["records"] = [monitor_file_state(monitor.results_writer, monitor.t_start) for monitor in self._layers(Monitor)]
        if self._begin is None:
            return state | {"why_not": "it was not reset since it is watched"}
        try:
            state |= {
                "begin": self._begin,
                "resets": [{"at": at, "arguments": to_plain(arguments)} for at, arguments in self._resets],
                **pack_actions(self._actions),
                "observation": to_plain(self.last_observation),
                "steps_of_monitors": [monitor.total_steps for monitor in self._layers(Monitor)],
                "own": None,
            }
        except TypeError as error:  # of no use at a checkpoint, where training is to go on
            return state | {"why_not": f"{error}, and it is part of an observation, an action or an option"}
        if self._tape is not None:
            with suppress(TypeError, ValueError):  # where its own state is no plain data, it is replayed as others are
                own: Any = self.unwrapped
                state["own"] = {"state": to_plain(own.get_state()), "tape": self._tape.state()}
        return state

    def set_state(self, state: State) -> Any:
        """
        :param state: from :meth:`get_state` of an environment like this one
        :return: the observation; the next step goes on from it
        :raises EnvRestoreError: if it ends up elsewhere; the next reset begins a new episode
        """
        with suppress(Exception):  # of the environment, too, which is led where it may not be able to go
            return self._replay(state)
        try:  # some make of several generators one that all their parts share, but only when they are seeded
            return self._replay(state, seed=0)
        except EnvRestoreError:
            self._give_up(state)
            raise
        except Exception as error:
            self._give_up(state)
            raise EnvRestoreError(self.env_id, f"{type(error).__name__}: {error}") from error

    def restore_or_reset(self, state: State) -> tuple[Any, str | None]:
        """
        An exception would end a process that environments live in.

        :param state: see :meth:`set_state`
        :return: the observation; and why it is that of a new episode, if it is
        """
        try:
            return self.set_state(state), None
        except EnvRestoreError as error:
            return self.reset()[0], str(error)

    def rewind_monitor_files(self, state: State) -> None:
        """
        Take the episodes off the files of Monitors that they recorded later, and are about to record again.

        :param state: from :meth:`get_state` of an environment like this one
        """
        for monitor, record in zip(self._layers(Monitor), state["records"], strict=True):
            monitor.t_start = truncate_monitor_file(monitor.results_writer, record, monitor.t_start)

    def ignore_interrupts(self) -> None:
        """Leave it to another process what SIGINT means, which a terminal sends to this one, too."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _layers(self, kind: type[Any]) -> list[Any]:
        return [layer for layer in layers_of(self.env) if isinstance(layer, kind)]

    def _replay(self, state: State, seed: int | None = None) -> Any:
        if state["env"] != self.env_id:
            raise EnvRestoreError(self.env_id, f"the state is that of {state['env']}")
        if state["why_not"] is not None:
            raise EnvRestoreError(self.env_id, state["why_not"])
        with without_side_effects(self.env):
            self._put_at_the_end()
            # some make them in their first reset
            if seed is not None or state["begin"].keys() - generators_of(self.env).keys():
                self.env.reset(seed=seed)
                self._put_at_the_end()
            set_generator_states(self.env, state["begin"])
            if state["own"] is None:
                self._act(state)
                self._check_generators(state["generators"])
            elif self._tape is None:
                raise EnvRestoreError(self.env_id, "it has no get_state() and set_state(state) any more")
            else:
                with self._tape.plays(state["own"]["tape"]):
                    self._act(state)
                self._set_own(state["own"]["state"])
        if not equal_bits(to_plain(self.last_observation), state["observation"]):
            raise EnvRestoreError(self.env_id, "its observation differs")
        # DQN draws its random actions from the action space, so the spaces' generators are where nobody can lead them.
        set_generator_states(self.env, state["generators"])
        for monitor, total_steps in zip(self._layers(Monitor), state["steps_of_monitors"], strict=True):
            monitor.total_steps = total_steps
        return self.last_observation

    def _set_own(self, state: Any) -> None:
        own: Any = self.unwrapped
        own.set_state(from_plain(state))
        if not equal_bits(to_plain(own.get_state()), state):
            raise EnvRestoreError(self.env_id, "it has another state than the one it was given")
        for wrapper in self._layers(EpisodicLifeEnv):  # looks at the environment, and not at its answers
            wrapper.lives = own.ale.lives()

    def _act(self, state: State) -> None:
        """Reset and step as in the state; by that the same is remembered again."""
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

    def _put_at_the_end(self) -> None:
        """Of an episode, so that the next reset is a real one."""
        for monitor in self._layers(Monitor):
            monitor.needs_reset = True
        for lives in self._layers(EpisodicLifeEnv):
            lives.was_real_done = True

    def _give_up(self, state: State) -> None:
        self._begin, self._resets, self._actions = None, [], []
        self._put_at_the_end()
        with suppress(TypeError, ValueError):  # of another kind of generator
            set_generator_states(self.env, state["generators"])


def add_replay_wrapper(env: Env, wrapper: Callable[[Env], Env] | None = None) -> ReplayWrapper:
    """
    :param env: an environment
    :param wrapper: what is to be put around it first
    :return: the environment in a ReplayWrapper, as ``make_vec_env`` and its like are given it
    """
    return ReplayWrapper(env if wrapper is None else wrapper(env))
