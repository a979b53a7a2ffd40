"""What the innermost environment does and answers, without its wrappers."""

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


def has_state_methods(env: Env) -> bool:
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


class StateRecorder:
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
            observation = observation if remembered is None else from_plain(remembered)
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
            "observations": to_plain(list(self.observations)[-n:] if n else []),
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
