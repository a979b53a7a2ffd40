"""Recorders of the calls and results of the innermost environment, inside of all wrappers."""

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_dqn_ext.checkpoint.envs.plain_data import State, from_plain, to_plain

Env = gym.Env[Any, Any]


@contextmanager
def record_calls(env: Env) -> Iterator[list[str]]:
    """
    Record the calls of an environment's ``reset`` and ``step``: a context manager.

    The reset of a wrapper may reset the environment twice, or only take a step (after the loss of a life in Atari games).

    :param env: the innermost environment
    :return: a list to which each call appends ``"reset"`` or ``"step"``
    """
    called: list[str] = []

    def recording(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return method(*args, **kwargs)

        return call

    hooks = {name: recording(name, getattr(env, name)) for name in ("reset", "step")}
    before = {name: vars(env)[name] for name in hooks if name in vars(env)}
    vars(env).update(hooks)
    try:
        yield called
    finally:
        for name in hooks:
            del vars(env)[name]
        vars(env).update(before)


def has_state_methods(env: Any) -> bool:
    """
    Return whether an environment has methods ``get_state()`` and ``set_state(state)``. MuJoCo's have other arguments.

    :param env: the innermost environment or vector environment
    """

    def accepts(name: str, n_arguments: int) -> bool:
        try:
            inspect.signature(getattr(env, name)).bind(*[None] * n_arguments)
        except (AttributeError, TypeError, ValueError):
            return False
        return True

    return accepts("get_state", 0) and accepts("set_state", 1)


class StateRecorder:
    """
    A recorder of the results of an environment that has ``get_state`` and ``set_state``, to replay them to its wrappers.

    ``set_state`` restores the environment even if the same actions would not lead to the same state again. Its wrappers have
    no such methods. They reach their states by a replay in which they get the same results: for example, the time limit counts
    steps and ``Monitor`` adds rewards. In the replay the environment is stepped, too, because that changes its generators
    and lives, but the wrappers get the recorded results.

    The recorder keeps three numbers for each step and the last observations, which wrappers that stack frames need. A wrapper
    whose state depends on all earlier observations is not restored.

    :param env: the innermost environment
    """

    MAX_OBSERVATIONS = 64
    """the number of observations to keep; Atari wrappers need 16: four frames, each the maximum of up to four frames"""

    def __init__(self, env: Env) -> None:
        self.results: list[tuple[Any, Any, Any]] = []  # (reward, terminated, truncated) of each call
        self.observations: deque[Any] = deque(maxlen=self.MAX_OBSERVATIONS)  # those of the last calls
        self._replayed: Iterator[tuple[Any, tuple[Any, Any, Any]]] | None = None
        self._step, self._reset = env.step, env.reset
        vars(env).update(step=self.step, reset=self.reset)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment and record the result, see ``gymnasium.Env.step``."""
        observation, reward, terminated, truncated, info = self._step(action)
        observation, result = self._record(observation, (reward, terminated, truncated))
        return observation, *result, info

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and record the result, see ``gymnasium.Env.reset``."""
        observation, info = self._reset(**kwargs)
        return self._record(observation, (0.0, False, False))[0], info

    def _record(self, observation: Any, result: tuple[Any, Any, Any]) -> tuple[Any, tuple[Any, Any, Any]]:
        if self._replayed is not None:
            recorded, result = next(self._replayed, (None, result))
            observation = observation if recorded is None else from_plain(recorded)
        self.results.append(result)
        self.observations.append(deepcopy(observation))
        return observation, result

    def state(self) -> State:
        """Return the recorded results as plain data."""
        n = len(self.results)
        return {
            "answers": np.array(self.results, np.float64).reshape(n, 3),
            "observations": to_plain(list(self.observations)[-n:] if n else []),
        }

    @contextmanager
    def replay(self, state: State) -> Iterator[None]:
        """
        Return recorded results from ``step`` and ``reset``: a context manager.

        :param state: the results from :meth:`state`
        """
        results = [(reward, bool(terminated), bool(truncated)) for reward, terminated, truncated in state["answers"].tolist()]
        earlier = [None] * (len(results) - len(state["observations"]))
        self._replayed = iter(list(zip([*earlier, *state["observations"]], results, strict=True)))
        try:
            yield
        finally:
            self._replayed = None
