"""
The state of environments in the middle of an episode, as plain data, and back again bit for bit.

gymnasium's environments have no state that can be asked for, and copies of some are silently new ones (``EzPickle``). But an
environment is a function of its random generators and of what was done with it, so these two are kept: the generators as of
the last reset, and the resets and actions since. Done once more, they lead to the same place, which is checked.

- :class:`Resumable`: around one environment
- :func:`make_resumable`, :func:`environments_state`, :func:`restore_environments`: for SB3's vectorised environments
"""

import inspect
import json
import os
import random
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations
from stable_baselines3.common.vec_env.util import dict_to_obs, obs_space_info

from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.envs.random_start_cart_poles import RandomStartCartPoles
from sb3_dqn_ext.envs.terminal_penalty import VectorTerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv
from sb3_dqn_ext.vec_env.async_ import InProcesses
from sb3_dqn_ext.vec_env.episode_statistics import Episodes
from sb3_dqn_ext.vec_env.sync import InTurn
from sb3_dqn_ext.vec_env.vector_entry_point import Native

__all__ = [
    "CannotRestore",
    "Resumable",
    "current_observations",
    "environments_state",
    "go_on_recording",
    "make_resumable",
    "outlive_interrupts",
    "restore_environments",
    "restore_or_reset",
    "resumable",
]

Env: TypeAlias = gym.Env[Any, Any]
Array: TypeAlias = npt.NDArray[Any]
State: TypeAlias = dict[str, Any]
Slot: TypeAlias = tuple[Any, str]  # an object, and the name of one of its attributes
Generator: TypeAlias = np.random.Generator | np.random.RandomState


class CannotRestore(RuntimeError):
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


# -- plain data ------------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """
    :param value: numbers, strings, arrays, and dicts, lists and tuples of such
    :return: a copy in which numpy's numbers are arrays of shape ()
    :raises TypeError: if there is something else in it
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return np.array(value)
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(part) for part in value)
    raise TypeError(f"{type(value).__name__} is no plain data")


def restored(value: Any) -> Any:
    """
    :param value: what :func:`plain` gave
    :return: a copy of what it got
    """
    if isinstance(value, np.ndarray):
        return value[()] if value.ndim == 0 else value.copy()
    if isinstance(value, dict):
        return {key: restored(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(restored(part) for part in value)
    return value


def same(one: Any, other: Any) -> bool:
    """
    :param one: plain data
    :param other: plain data; a list may have been a tuple, which some formats cannot tell apart
    :return: whether they are equal in every bit
    """
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(part, other[key]) for key, part in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and (one == other or one != one)


def packed(actions: Sequence[Any]) -> State:
    """
    :param actions: of many steps
    :return: the same as one array, where they are numbers or arrays of one kind
    """
    if actions and {type(action) for action in actions} in ({int}, {float}):
        return {"actions": plain(np.array(actions)), "python_numbers": True}
    kinds = {(action.dtype, action.shape) if isinstance(action, (np.ndarray, np.generic)) else None for action in actions}
    values = plain(np.stack(actions)) if len(kinds) == 1 and None not in kinds else plain(list(actions))
    return {"actions": values, "python_numbers": False}


def unpacked(state: State) -> list[Any]:
    """
    :param state: what :func:`packed` gave
    :return: the actions
    """
    values = state["actions"]
    return list(values.tolist() if state["python_numbers"] else [restored(value) for value in values])


# -- random generators -----------------------------------------------------------------------------------------------------

OF_A_SPACE = "space "


def layers_of(env: Any) -> list[Any]:
    """
    :param env: an environment, or gymnasium's or SB3's vector environment, in its wrappers
    :return: the environment and its wrappers, innermost first
    """
    if isinstance(env, (gym.Wrapper, VectorWrapper)):
        return [*layers_of(env.env), env]
    return [*layers_of(env.venv), env] if isinstance(env, VecEnvWrapper) else [env]


def spaces_in(value: Any) -> Iterator[gym.Space[Any]]:
    """
    :param value: anything
    :return: it and the spaces it is made of, each of which has a generator, if it is a space
    """
    if isinstance(value, gym.Space):
        yield value
        for part in vars(value).values():
            if isinstance(part, gym.Space):
                yield from spaces_in(part)
            elif isinstance(part, (dict, list, tuple)):
                for inner in part.values() if isinstance(part, dict) else part:
                    yield from spaces_in(inner)


def generators_within(value: Any) -> dict[str, Generator]:
    """
    :param value: what an environment holds, but for its spaces and other environments: for example the game that it wraps
    :return: the random generators that it holds itself, by their names
    """
    if isinstance(value, (gym.Env, gym.Space, VectorEnv, VecEnv, type)) or not hasattr(value, "__dict__"):
        return {}
    return {name: part for name, part in vars(value).items() if isinstance(part, (np.random.Generator, np.random.RandomState))}


def generators_of(env: Any) -> dict[str, Generator]:
    """
    :param env: an environment, or gymnasium's vector environment, in its wrappers
    :return: all random generators of them, of their spaces and of the objects they hold, by names that are the same in another
        environment like it
    """
    found: dict[str, Generator] = {}
    within: dict[str, Generator] = {}
    # Both are made from the entropy of the computer when first asked for, which would be too late.
    _ = env.unwrapped.np_random
    for depth, layer in enumerate(layers_of(env)):
        of_class = {name: getattr(type(layer), name, None) for name in ("action_space", "observation_space")}
        for name, value in (of_class | vars(layer)).items():
            if isinstance(value, (np.random.Generator, np.random.RandomState)):
                found[f"{depth}.{name}"] = value
            elif isinstance(value, gym.Space):
                for i, space in enumerate(spaces_in(value)):
                    found[f"{OF_A_SPACE}{depth}.{name}.{i}"] = space.np_random
            else:
                within |= {f"{depth}.{name}.{inner}": generator for inner, generator in generators_within(value).items()}
    # wrappers share many of them, and objects come and go: one that belongs to an environment is called by its name there
    once = {id(both[name]): name for both in (within, found) for name in sorted(both, reverse=True)}
    found = within | found
    return {name: found[name] for name in sorted(once.values())}


def generator_states(env: Any) -> State:
    """
    :param env: see :func:`generators_of`
    :return: the states of its generators
    """
    states = {}
    for name, generator in generators_of(env).items():
        if isinstance(generator, np.random.Generator):
            states[name] = plain(generator.bit_generator.state)
        else:
            states[name] = plain(generator.get_state(legacy=False))
    return states


def set_generators(env: Any, states: State) -> None:
    """
    :param env: see :func:`generators_of`
    :param states: the states of those generators that it has
    """
    generators = generators_of(env)
    for name in generators.keys() & states.keys():
        generator, state = generators[name], restored(states[name])
        if isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        else:
            generator.bit_generator.state = state


# -- the innermost environment ---------------------------------------------------------------------------------------------


@contextmanager
def watched(env: Env) -> Iterator[list[str]]:
    """
    A wrapper's reset may take steps only (a life lost), or reset twice; only the innermost environment knows.

    :param env: the innermost environment
    :return: fills with ``"reset"`` and ``"step"`` as they are called
    """
    called: list[str] = []

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return method(*args, **kwargs)

        return call

    hooks = {name: noting(name, getattr(env, name)) for name in ("reset", "step")}
    before = {name: vars(env)[name] for name in hooks if name in vars(env)}
    vars(env).update(hooks)
    try:
        yield called
    finally:
        for name in hooks:
            del vars(env)[name]
        vars(env).update(before)


def offers_its_state(env: Env) -> bool:
    """
    :param env: the innermost environment
    :return: whether it has ``get_state()`` and ``set_state(state)``; those of MuJoCo are others
    """

    def takes(name: str, n_arguments: int) -> bool:
        try:
            inspect.signature(getattr(env, name)).bind(*[None] * n_arguments)
        except (AttributeError, TypeError, ValueError):
            return False
        return True

    return takes("get_state", 0) and takes("set_state", 1)


class Tape:
    """
    What an environment with a state of its own has answered, so that its wrappers can be told the same once more.

    Its state puts it back wherever it was, even where actions would not lead there again. Its wrappers have no such state, and
    a replay is right for them if they see what they saw: the time limit counts, Monitor adds up the rewards. So it
    is stepped again, for the generators and the lives it may show, but what it answers is taken from here. This costs a few
    numbers for each step, and the last observations, which stacks of frames remember; of earlier ones only those who
    compute with all observations would know.

    :param env: the innermost environment
    """

    REMEMBERED = 64  # four frames, each the maximum of four, and much to spare

    def __init__(self, env: Env) -> None:
        self.answers: list[tuple[Any, Any, Any]] = []  # reward, terminated, truncated
        self.observations: deque[Any] = deque(maxlen=self.REMEMBERED)  # of the last of them
        self._script: Iterator[tuple[Any, tuple[Any, Any, Any]]] | None = None
        self._step, self._reset = env.step, env.reset
        vars(env).update(step=self.step, reset=self.reset)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Of the environment."""
        observation, reward, terminated, truncated, info = self._step(action)
        observation, answer = self._noted(observation, (reward, terminated, truncated))
        return observation, *answer, info

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Of the environment."""
        observation, info = self._reset(**kwargs)
        return self._noted(observation, (0.0, False, False))[0], info

    def _noted(self, observation: Any, answer: tuple[Any, Any, Any]) -> tuple[Any, tuple[Any, Any, Any]]:
        if self._script is not None:
            remembered, answer = next(self._script, (None, answer))
            observation = observation if remembered is None else restored(remembered)
        self.answers.append(answer)
        self.observations.append(deepcopy(observation))
        return observation, answer

    def state(self) -> State:
        """
        :return: plain data
        """
        n = len(self.answers)
        return {
            "answers": np.array(self.answers, np.float64).reshape(n, 3),
            "observations": plain(list(self.observations)[-n:] if n else []),
        }

    @contextmanager
    def plays(self, state: State) -> Iterator[None]:
        """
        :param state: what is answered inside of this context
        """
        answers = [(reward, bool(terminated), bool(truncated)) for reward, terminated, truncated in state["answers"].tolist()]
        earlier = [None] * (len(answers) - len(state["observations"]))
        self._script = iter(list(zip([*earlier, *state["observations"]], answers, strict=True)))
        try:
            yield
        finally:
            self._script = None


# -- the files of episodes -------------------------------------------------------------------------------------------------


def record_state(writer: ResultsWriter | None, t_start: float) -> State | None:
    """
    :param writer: of a ``monitor.csv``, which it has flushed
    :param t_start: the time that the file's header names
    :return: what of the file there is by now
    """
    return None if writer is None else {"t_start": t_start, "size": os.fstat(writer.file_handler.fileno()).st_size}


def cut_record(writer: ResultsWriter | None, state: State | None, t_start: float) -> float:
    """
    Leave in a file only what was there when its state was taken. If it is another file, it stays as it is.

    :param writer: of a ``monitor.csv``
    :param state: from :func:`record_state`
    :param t_start: from which the times of coming episodes would be counted
    :return: from which they are to be counted
    """
    if writer is None or state is None or _time_in_header(writer.file_handler.name) != state["t_start"]:
        return t_start
    file = writer.file_handler
    if os.fstat(file.fileno()).st_size > state["size"]:
        file.truncate(state["size"])
    file.seek(0, os.SEEK_END)
    return float(state["t_start"])


def _time_in_header(path: str) -> float | None:
    try:
        with open(path) as file:
            return float(json.loads(file.readline().removeprefix("#"))["t_start"])
    except (OSError, ValueError, TypeError, LookupError):
        return None


# -- one environment -------------------------------------------------------------------------------------------------------


@contextmanager
def unseen(env: Env) -> Iterator[None]:
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


class Resumable(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """
    Remembers how the environment came to where it is, so that another one can be brought there, in another process.

    It goes around the whole environment, outside of all other wrappers. It keeps the states of all random generators as of the
    last reset that was one for the innermost environment too, and all resets and actions since. So an episode without an
    end grows in memory, and takes as long to restore as it took to live through, without the learning.

    Not restored are a wrapper's statistics over several episodes (but Monitor's ``total_steps``), and environments that draw
    random numbers from elsewhere; where that makes a difference to the observation, :class:`CannotRestore` says so.

    :param env: the environment in its wrappers
    """

    def __init__(self, env: Env) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._begin: State | None = None  # the generators before the first of the resets
        self._resets: list[tuple[int, dict[str, Any]]] = []  # how many actions had been taken, and the reset's arguments
        self._actions: list[Any] = []
        self._told: tuple[Any, ...] = (None,)  # by the last reset or step
        self._tape = Tape(self.unwrapped) if offers_its_state(self.unwrapped) else None

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
        with watched(self.unwrapped) as called:
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
        state["records"] = [record_state(monitor.results_writer, monitor.t_start) for monitor in self._layers(Monitor)]
        if self._begin is None:
            return state | {"why_not": "it was not reset since it is watched"}
        try:
            state |= {
                "begin": self._begin,
                "resets": [{"at": at, "arguments": plain(arguments)} for at, arguments in self._resets],
                **packed(self._actions),
                "observation": plain(self.last_observation),
                "steps_of_monitors": [monitor.total_steps for monitor in self._layers(Monitor)],
                "own": None,
            }
        except TypeError as error:  # of no use at a checkpoint, where training is to go on
            return state | {"why_not": f"{error}, and it is part of an observation, an action or an option"}
        if self._tape is not None:
            with suppress(TypeError, ValueError):  # where its own state is no plain data, it is replayed as others are
                own: Any = self.unwrapped
                state["own"] = {"state": plain(own.get_state()), "tape": self._tape.state()}
        return state

    def set_state(self, state: State) -> Any:
        """
        :param state: from :meth:`get_state` of an environment like this one
        :return: the observation; the next step goes on from it
        :raises CannotRestore: if it ends up elsewhere; the next reset begins a new episode
        """
        with suppress(Exception):  # of the environment, too, which is led where it may not be able to go
            return self._replay(state)
        try:  # some make of several generators one that all their parts share, but only when they are seeded
            return self._replay(state, seed=0)
        except CannotRestore:
            self._give_up(state)
            raise
        except Exception as error:
            self._give_up(state)
            raise CannotRestore(self.env_id, f"{type(error).__name__}: {error}") from error

    def restore_or_reset(self, state: State) -> tuple[Any, str | None]:
        """
        An exception would end a process that environments live in.

        :param state: see :meth:`set_state`
        :return: the observation; and why it is that of a new episode, if it is
        """
        try:
            return self.set_state(state), None
        except CannotRestore as error:
            return self.reset()[0], str(error)

    def go_on_recording(self, state: State) -> None:
        """
        Take the episodes off the files of Monitors that they recorded later, and are about to record again.

        :param state: from :meth:`get_state` of an environment like this one
        """
        for monitor, record in zip(self._layers(Monitor), state["records"], strict=True):
            monitor.t_start = cut_record(monitor.results_writer, record, monitor.t_start)

    def ignore_interrupts(self) -> None:
        """Leave it to another process what SIGINT means, which a terminal sends to this one, too."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _layers(self, kind: type[Any]) -> list[Any]:
        return [layer for layer in layers_of(self.env) if isinstance(layer, kind)]

    def _replay(self, state: State, seed: int | None = None) -> Any:
        if state["env"] != self.env_id:
            raise CannotRestore(self.env_id, f"the state is that of {state['env']}")
        if state["why_not"] is not None:
            raise CannotRestore(self.env_id, state["why_not"])
        with unseen(self.env):
            self._put_at_the_end()
            # some make them in their first reset
            if seed is not None or state["begin"].keys() - generators_of(self.env).keys():
                self.env.reset(seed=seed)
                self._put_at_the_end()
            set_generators(self.env, state["begin"])
            if state["own"] is None:
                self._act(state)
                self._check_generators(state["generators"])
            elif self._tape is None:
                raise CannotRestore(self.env_id, "it has no get_state() and set_state(state) any more")
            else:
                with self._tape.plays(state["own"]["tape"]):
                    self._act(state)
                self._set_own(state["own"]["state"])
        if not same(plain(self.last_observation), state["observation"]):
            raise CannotRestore(self.env_id, "its observation differs")
        # DQN draws its random actions from the action space, so the spaces' generators are where nobody can lead them.
        set_generators(self.env, state["generators"])
        for monitor, total_steps in zip(self._layers(Monitor), state["steps_of_monitors"], strict=True):
            monitor.total_steps = total_steps
        return self.last_observation

    def _set_own(self, state: Any) -> None:
        own: Any = self.unwrapped
        own.set_state(restored(state))
        if not same(plain(own.get_state()), state):
            raise CannotRestore(self.env_id, "it has another state than the one it was given")
        for wrapper in self._layers(EpisodicLifeEnv):  # looks at the environment, and not at its answers
            wrapper.lives = own.ale.lives()

    def _act(self, state: State) -> None:
        """Reset and step as in the state; by that the same is remembered again."""
        actions, taken = unpacked(state), 0
        for reset in state["resets"]:
            for action in actions[taken : reset["at"]]:
                self.step(action)
            taken = reset["at"]
            self.reset(**restored(reset["arguments"]))
        for action in actions[taken:]:
            self.step(action)

    def _check_generators(self, states: State) -> None:
        ours = generator_states(self.env)
        for name in sorted(ours.keys() | states.keys()):
            if not name.startswith(OF_A_SPACE) and not same(ours.get(name), states.get(name)):
                raise CannotRestore(self.env_id, f"the random generator {name} differs")

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
            set_generators(self.env, state["generators"])


def resumable(env: Env, wrapper: Callable[[Env], Env] | None = None) -> Resumable:
    """
    :param env: an environment
    :param wrapper: what is to be put around it first
    :return: the environment in a Resumable, as ``make_vec_env`` and its like are given it
    """
    return Resumable(env if wrapper is None else wrapper(env))


# -- many of them: where they are ------------------------------------------------------------------------------------------

INSTEAD = {
    SubprocVecEnv: 'SubprocVecEnv([lambda: Resumable(gym.make("CartPole-v1"))]) or make_vec_env(..., wrapper_class=Resumable)',
    FastVecEnv: 'make_fast_vec_env("CartPole-v1", n_envs=4, vectorization_mode="async", wrapper_class=Resumable)',
}


class Outermost:
    """Given to SubprocVecEnv's ``env_is_wrapped`` as a class, it asks the outermost wrapper only: each process has its own."""

    asked = False

    def __instancecheck__(self, env: Any) -> bool:
        is_first, self.asked = not self.asked, True
        return is_first and isinstance(env, Resumable)


def environments_here(venv: VecEnv) -> list[Env] | None:
    """
    :param venv: the innermost
    :return: the list of its environments, if it has one in this process
    """
    if isinstance(venv, DummyVecEnv):
        return venv.envs
    vector = venv._vector if isinstance(venv, FastVecEnv) else None
    return vector._envs if isinstance(vector, InTurn) else None


def steps_at_once(venv: VecEnv) -> VectorEnv[Any, Any, Any] | None:
    """
    :param venv: the innermost
    :return: gymnasium's vector environment that is one object for all, if there is one
    """
    vector = venv._vector if isinstance(venv, FastVecEnv) else None
    return vector.env if isinstance(vector, Native) else None


def episodes_of(venv: VecEnv) -> Episodes | None:
    """
    :param venv: a vectorised environment, without those inside it
    :return: the record of the episodes of a vector entry point, if it is one
    """
    vector = venv._vector if isinstance(venv, FastVecEnv) else None
    return vector._episodes if isinstance(vector, Native) else None


def made_resumable(venv: VecEnv) -> bool:
    """
    :param venv: the innermost
    :return: whether a Resumable is around each of its environments
    """
    here = environments_here(venv)
    if here is not None:
        return all(isinstance(env, Resumable) for env in here)
    if isinstance(venv, FastVecEnv) and isinstance(venv._vector, InProcesses):
        recipes = venv._vector._recipes
        if recipes[0].wrapper is not None:  # all have the same, and what a function returns, one environment shows
            with closing(recipes[0].unrecorded()()) as env:
                return isinstance(env, Resumable)
        name = f"{Resumable.__module__}:{Resumable.__name__}"
        return all(recipe.wrappers and recipe.wrappers[-1].entry_point == name for recipe in recipes)
    return all(venv.env_is_wrapped(Outermost()))  # type: ignore[arg-type]  # it is asked isinstance(env, Outermost()) only


def check(venv: VecEnv) -> None:
    """
    :param venv: the innermost
    :raises ArgumentError: if its environments cannot be asked for their states
    """
    vector = steps_at_once(venv)
    if vector is not None:
        check_vector(vector)
    elif not isinstance(venv, (DummyVecEnv, SubprocVecEnv, FastVecEnv)):
        raise ArgumentError(
            f"The environments of a {type(venv).__name__} cannot be made resumable, only those of a DummyVecEnv, "
            "a SubprocVecEnv and a FastVecEnv."
        )
    elif not made_resumable(venv):
        instead = next((text for kind, text in INSTEAD.items() if isinstance(venv, kind)), "make_resumable(env)")
        raise ArgumentError(
            f"The environments of this {type(venv).__name__} are not resumable, and nothing can be put around environments in "
            f"other processes from here. Write {instead}."
            if environments_here(venv) is None
            else f"The environments of this {type(venv).__name__} are not resumable. Call {instead} before their first reset."
        )


def make_resumable(env: VecEnv) -> VecEnv:
    """
    Put a :class:`Resumable` around each environment, in place, before their first reset. Once is enough, twice does no harm.

    :param env: a DummyVecEnv, a SubprocVecEnv or a FastVecEnv, in wrappers or not
    :return: the same
    :raises ArgumentError: if there is no way to put it there, or to do without; the message says what to write instead
    """
    check_type("env", env, VecEnv, "a VecEnv of SB3")
    here = environments_here(env.unwrapped)
    for i, single in enumerate(here or ()):
        if here is not None and not isinstance(single, Resumable):
            here[i] = Resumable(single)
    check(env.unwrapped)
    return env


# -- many of them: what lies around ----------------------------------------------------------------------------------------

VECTORS = (CartPoleVectorEnv, RandomStartCartPoles)
WITHOUT_STATE = (
    vector_wrappers.TransformObservation,
    vector_wrappers.TransformReward,
    vector_wrappers.TransformAction,
    VectorTerminalPenalty,
)


def check_vector(vector: VectorEnv[Any, Any, Any]) -> None:
    """
    :param vector: gymnasium's vector environment
    :raises ArgumentError: if it is not known what makes up its state
    """
    inner, *wrappers = layers_of(vector)
    # Not isinstance: what is derived from it may remember more.
    unknown = [layer for layer in wrappers if not isinstance(layer, WITHOUT_STATE)] + [inner] * (type(inner) not in VECTORS)
    if unknown:
        raise ArgumentError(
            f"It is not known what makes up the state of {type(unknown[0]).__name__}, a vector entry point. "
            "Use vectorization_mode='sync'."
        )


def slots_of_fast(venv: FastVecEnv) -> dict[str, Slot]:
    """
    :param venv: the innermost
    :return: where the state of a vector entry point is
    """
    vector = venv._vector
    if not isinstance(vector, Native):
        return {}
    inner = vector.env.unwrapped
    slots: dict[str, Slot] = {name: (inner, name) for name in ("state", "steps", "prev_done", "low", "high")}
    episodes = {"returns": (vector._episodes, "returns"), "lengths": (vector._episodes, "lengths")}
    return {**slots, **episodes, "ended": (vector, "_ended")}


def slots_of_normalize(layer: VecNormalize) -> dict[str, Slot]:
    """
    :param layer: running statistics
    :return: where they are
    """
    obs_rms: Any = vars(layer).get("obs_rms", {})
    running: dict[str, RunningMeanStd] = {"ret_rms": layer.ret_rms}
    running |= {f"obs_rms {key}": rms for key, rms in (obs_rms if isinstance(obs_rms, dict) else {"": obs_rms}).items()}
    slots: dict[str, Slot] = {name: (layer, name) for name in ("returns", "old_obs", "old_reward")}
    return slots | {f"{name} {part}": (rms, part) for name, rms in running.items() for part in ("mean", "var", "count")}


def stacks_of(layer: VecFrameStack) -> dict[str, StackedObservations[Any]]:
    """
    :param layer: stacked observations
    :return: each part of them; the only one has the name ``""`` where an observation is one array
    """
    stacks: dict[str, StackedObservations[Any]] = getattr(
        layer.stacked_obs, "sub_stacked_observations", {"": layer.stacked_obs}
    )
    return stacks


def slots_of(layer: VecEnv) -> dict[str, Slot]:
    """
    What later steps depend on. DummyVecEnv's ``buf_dones``, ``buf_rews`` and ``buf_infos`` are not among it: each step writes
    them before it reads them.

    :param layer: a vectorised environment, without those inside it
    :return: where its own state is
    """
    if isinstance(layer, VecNormalize):
        return slots_of_normalize(layer)
    if isinstance(layer, VecFrameStack):
        return {f"stack {key}": (stack, "stacked_obs") for key, stack in stacks_of(layer).items()}
    if isinstance(layer, VecMonitor):
        return {name: (layer, name) for name in ("episode_returns", "episode_lengths", "episode_count")}
    if isinstance(layer, VecEnvWrapper):
        return {}
    slots: dict[str, Slot] = {"seeds": (layer, "_seeds"), "options": (layer, "_options")}  # of the next reset
    return slots | (slots_of_fast(layer) if isinstance(layer, FastVecEnv) else {})


def name_of(layer: VecEnv) -> str:
    """
    :param layer: a vectorised environment, without those inside it
    :return: what its state can be restored in; it makes no difference in which processes the single environments are
    """
    if isinstance(layer, VecEnvWrapper):
        return type(layer).__name__
    return "single environments" if steps_at_once(layer) is None else "a vector entry point"


def layer_state(layer: VecEnv) -> State:
    """
    :param layer: a vectorised environment, without those inside it
    :return: its own state
    """
    slots = {name: plain(getattr(*slot)) for name, slot in slots_of(layer).items() if slot[1] in vars(slot[0])}
    vector = steps_at_once(layer)
    episodes = episodes_of(layer)
    records = [] if episodes is None else map(record_state, episodes._writers, episodes._t_starts)
    return {
        "layer": name_of(layer),
        "slots": slots,
        "generators": None if vector is None else generator_states(vector),
        "records": list(records),
    }


def set_layer_state(layer: VecEnv, state: State) -> None:
    """
    :param layer: a vectorised environment, without those inside it
    :param state: from :func:`layer_state`
    """
    slots = slots_of(layer)
    for name, value in state["slots"].items():
        setattr(*slots[name], restored(value))
    vector = steps_at_once(layer)
    if vector is not None:
        set_generators(vector, state["generators"])


def environments_state(env: VecEnv) -> list[State]:
    """
    :param env: a vectorised environment whose environments are resumable, see :func:`make_resumable`
    :return: plain data: the state of each environment, where there are single ones; then that of the vectorised environment
        and of each wrapper around it, innermost first. What wrappers that are not SB3's remember is not among it.
    :raises ArgumentError: if they are not resumable
    """
    inner, *_ = layers = layers_of(env)
    check(inner)
    singles: list[State] = [] if steps_at_once(inner) is not None else inner.env_method("get_state")
    return [*singles, *map(layer_state, layers)]


def restore_environments(env: VecEnv, states: Sequence[State]) -> list[str]:
    """
    :param env: see :func:`restore_or_reset`
    :param states: from :func:`environments_state`
    :return: what to say of each environment that was reset
    """
    return [f"Environment {i}: {problem}" for i, problem in restore_or_reset(env, states).items()]


def restore_or_reset(env: VecEnv, states: Sequence[State]) -> dict[int, str]:
    """
    :param env: a vectorised environment like the one that the states are of, used or not; its environments can be in other
        processes than those were
    :param states: from :func:`environments_state`
    :return: for each environment that could not be restored, why; it was reset instead, and the observations are now
        :func:`current_observations`
    :raises ArgumentError: if the number of environments or the wrappers around them are others, or they are not resumable
    """
    inner, *_ = layers = layers_of(env)
    check(inner)
    n_singles = 0 if steps_at_once(inner) is not None else inner.num_envs
    singles, arounds = list(states[:n_singles]), list(states[n_singles:])
    names = [name_of(layer) for layer in layers]
    were = [state["layer"] for state in states if "layer" in state]
    if len(states) != n_singles + len(layers) or were != names:
        n_were = len(states) - len(were)
        raise ArgumentError(
            f"The states are of {n_were or ''} {' in '.join(were)}, and not of {n_singles or ''} {' in '.join(names)}."
        )
    answers = [inner.env_method("restore_or_reset", state, indices=[i])[0] for i, state in enumerate(singles)]
    for layer, state in zip(layers, arounds, strict=True):
        set_layer_state(layer, state)
    if isinstance(inner, DummyVecEnv):
        for i, (observation, _) in enumerate(answers):
            inner._save_obs(i, observation)
    problems = {i: problem for i, (_, problem) in enumerate(answers) if problem is not None}
    if problems:
        seen_through(layers, list(problems))
    return problems


def go_on_recording(env: VecEnv, states: Sequence[State]) -> None:
    """
    Take the episodes off all ``monitor.csv`` that were recorded after the states were taken, and will be once more.

    :param env: a vectorised environment that was restored, whose files are appended to
    :param states: from :func:`environments_state`
    """
    inner = env.unwrapped
    for i, state in enumerate(states):
        if "layer" not in state:
            inner.env_method("go_on_recording", state, indices=[i])
    for layer, state in zip(layers_of(env), (state for state in states if "layer" in state), strict=True):
        episodes = episodes_of(layer)
        if episodes is not None:
            episodes._t_starts[:] = map(cut_record, episodes._writers, state["records"], episodes._t_starts)


def outlive_interrupts(env: VecEnv) -> None:
    """
    Let the processes of environments live on when someone presses Ctrl-C: they are asked for their states after that. They end
    when this process closes them, or ends.

    :param env: a vectorised environment whose environments are resumable
    """
    inner = env.unwrapped
    if environments_here(inner) is None and steps_at_once(inner) is None:
        inner.env_method("ignore_interrupts")


# -- many of them: what is seen --------------------------------------------------------------------------------------------


def current_observations(env: VecEnv) -> Any:
    """
    :param env: a vectorised environment whose environments are resumable
    :return: (n_envs, ...) the observations that its last step or reset has given
    :raises ArgumentError: if a vector entry point, or a wrapper that is not SB3's, would have to tell
    """
    layers = layers_of(env)
    check(layers[0])
    return deepcopy(seen_through(layers, []))


def seen_through(layers: Sequence[VecEnv], restarted: Sequence[int]) -> Any:
    """
    :param layers: the vectorised environment and its wrappers, innermost first
    :param restarted: the environments whose episodes have begun behind the wrappers' back, as they are told by this
    :return: (n_envs, ...) the observations as they are now
    """
    if steps_at_once(layers[0]) is not None:
        raise ArgumentError("A vector entry point keeps no observations; they are those that were seen when it was restored.")
    space = layers[0].observation_space
    singles = layers[0].get_attr("last_observation")
    keys, _, dtypes = obs_space_info(space)
    parts: dict[Any, Array] = {
        key: np.stack([single if key is None else single[key] for single in singles]).astype(dtypes[key]) for key in keys
    }
    observations: Any = dict_to_obs(space, parts)
    for layer in layers[1:]:
        observations = seen_through_one(layer, observations, restarted)
    return observations


def seen_through_one(layer: VecEnv, observations: Any, restarted: Sequence[int]) -> Any:
    """
    :param layer: a wrapper of a vectorised environment
    :param observations: (n_envs, ...) as it sees them
    :param restarted: see :func:`seen_through`
    :return: (n_envs, ...) as it shows them
    """
    if isinstance(layer, VecNormalize):
        layer.old_obs = observations
        layer.returns[list(restarted)] = 0
        return layer.normalize_obs(observations)
    if isinstance(layer, VecFrameStack):
        for key, stack in stacks_of(layer).items():
            restack(stack, observations[key] if key else observations, restarted)
        shown = {key: stack.stacked_obs for key, stack in stacks_of(layer).items()}
        return shown.get("", shown)
    if isinstance(layer, VecMonitor):
        layer.episode_returns[list(restarted)] = 0
        layer.episode_lengths[list(restarted)] = 0
        return observations
    if isinstance(layer, VecTransposeImage):
        return layer.transpose_observations(observations)
    if isinstance(layer, VecExtractDictObs):
        return observations[layer.key]
    if isinstance(layer, VecEnvWrapper) and layer.observation_space != layer.venv.observation_space:
        raise ArgumentError(f"It is not known how {type(layer).__name__} changes observations.")
    return observations


def restack(stack: StackedObservations[Any], observations: Array, restarted: Sequence[int]) -> None:
    """
    :param stack: to begin anew
    :param observations: (n_envs, ...) the only ones there are now
    :param restarted: the environments
    """
    for i in restarted:
        stack.stacked_obs[i] = 0
        n_channels = observations.shape[stack.stack_dimension]
        if stack.channels_first:
            stack.stacked_obs[i, -n_channels:] = observations[i]
        else:
            stack.stacked_obs[i, ..., -n_channels:] = observations[i]
