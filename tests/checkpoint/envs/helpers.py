"""Environments whose states are kept, and comparisons of all that they do."""

import json
import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.wrappers import FrameStackObservation
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv, NoopResetEnv
from stable_baselines3.common.monitor import Monitor

from sb3_dqn_ext.checkpoint.envs import ReplayWrapper
from sb3_dqn_ext.envs import RandomFirstStep, TerminalPenalty
from tests.parity import dict_cartpole, short_cartpole

Env = gym.Env[Any, Any]
Array = npt.NDArray[Any]


class Noise(gym.Env[Any, Any]):
    """A picture with randomness in each step; its spaces are the class's, and it draws from one of them."""

    observation_space = gym.spaces.Box(0, 255, (3, 8, 8), np.uint8)
    action_space = gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.picture = self.observation_space.sample()
        return self.picture.copy(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.picture[int(action) % 3] += self.np_random.integers(0, 9, (8, 8), np.uint8)
        return self.picture.copy(), self.np_random.normal(), bool(self.np_random.random() < 0.04), False, {}


class Lives(gym.Env[Any, Any]):
    """Three lives, each of which ends by chance."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.ale = self
        self.left, self.x = 0, 0.0

    def lives(self) -> int:
        return self.left

    def get_action_meanings(self) -> list[str]:
        return ["NOOP", "GO"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.left, self.x = 3, self.np_random.random()
        return np.array([self.left, self.x]), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.x += self.np_random.random() + action
        self.left -= int(self.np_random.random() < 0.15)
        return np.array([self.left, self.x]), self.x, self.left <= 0, False, {}


class Moody(gym.Env[Any, Any]):
    """Moves by the computer's entropy: no seed leads it anywhere twice."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)
    x = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        self.x = self.moved()
        return np.array([self.x]), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        self.x += self.moved()
        return np.array([self.x]), self.x, False, False, {}

    def moved(self) -> float:
        return float(int.from_bytes(os.urandom(6), "big"))


class Honest(Moody):
    """As moody until its state is set, which tells its moves too."""

    def __init__(self) -> None:
        self.moves: list[float] | None = None

    def moved(self) -> float:
        return self.moves.pop() if self.moves else super().moved()

    def get_state(self) -> dict[str, Any]:
        if self.moves is None:
            self.moves = [self.moved() for _ in range(100)]
        return {"x": self.x, "moves": list(self.moves)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.x, self.moves = state["x"], list(state["moves"])


class Stubborn(Honest):
    """Takes no state."""

    def set_state(self, state: dict[str, Any]) -> None:
        pass


class Fickle(Lives):
    """Has a state, and lives that come and go by the computer's entropy."""

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        super().step(action)
        self.left = 1 + os.urandom(1)[0] % 3
        return np.array([self.left, self.x]), self.x, False, False, {}

    def get_state(self) -> dict[str, Any]:
        return {"left": self.left, "x": self.x}

    def set_state(self, state: dict[str, Any]) -> None:
        self.left, self.x = state["left"], state["x"]


class DrawsFromAll(Moody):
    """Draws from the stream that everybody draws from."""

    def moved(self) -> float:
        return float(np.random.random())


class Late(gym.Env[Any, Any]):
    """Makes generators of several kinds in its first reset, and uses arrays for actions."""

    observation_space = gym.spaces.Dict(x=gym.spaces.Box(-np.inf, np.inf, (), np.float64), n=gym.spaces.Discrete(9))
    action_space = gym.spaces.MultiDiscrete([3, 3])
    old: np.random.RandomState | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if self.old is None:
            self.old = np.random.RandomState(self.np_random.integers(99))
            self.twister = np.random.Generator(np.random.MT19937(self.np_random.integers(99)))
        self.x = 0.0 if options is None else options["x"]
        return self.seen(), {}

    def seen(self) -> Any:
        assert self.old is not None
        return {"x": np.float64(self.x), "n": int(self.twister.integers(9))}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.old is not None
        self.x += self.old.normal() + self.twister.normal() * action.sum()
        return self.seen(), self.x, abs(self.x) > 20, False, {}


class Game:
    """It draws from a generator of its own until a seed makes one that it shares with its ball, as MinAtar's games do."""

    def __init__(self) -> None:
        self.random = np.random.RandomState()
        self.ball = SimpleNamespace(random=np.random.RandomState(), x=0.0)

    def seed(self, seed: int) -> None:
        self.random = self.ball.random = np.random.RandomState(seed)


class Console(gym.Env[Any, Any]):
    """All its random numbers are drawn inside a game that it holds."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.game = Game()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        if seed is not None:
            self.game.seed(seed)
        self.game.ball.x = self.game.ball.random.rand()
        return np.array([self.game.ball.x]), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        stuck = self.game.random.rand() < 0.1
        self.game.ball.x += 0.0 if stuck else self.game.ball.random.randint(3)
        return np.array([self.game.ball.x]), 0.0, self.game.ball.x > 9, False, {}


def in_episodes(env: Env, limit: int = 30) -> Env:
    return Monitor(gym.wrappers.TimeLimit(env, limit))


MAKERS: dict[str, Callable[[], Env]] = {
    "CartPole": lambda: Monitor(gym.make("CartPole-v1")),
    "MountainCar": lambda: Monitor(gym.make("MountainCar-v0", max_episode_steps=60)),
    "Acrobot": lambda: Monitor(gym.make("Acrobot-v1", max_episode_steps=60)),
    "LunarLander": lambda: Monitor(gym.make("LunarLander-v3")),
    "cut short": lambda: Monitor(short_cartpole(13)),
    "RandomFirstStep": lambda: RandomFirstStep(Monitor(short_cartpole(13))),
    "TerminalPenalty": lambda: Monitor(TerminalPenalty(short_cartpole(13), -50)),
    "in parts": lambda: Monitor(dict_cartpole()),
    "picture": lambda: in_episodes(Noise()),
    "frames": lambda: FrameStackObservation(in_episodes(Noise()), 3),
    "lives": lambda: EpisodicLifeEnv(Monitor(Lives())),
    "lives in episodes": lambda: Monitor(EpisodicLifeEnv(NoopResetEnv(Monitor(Lives()), 5))),
    "own state": lambda: FrameStackObservation(in_episodes(Honest()), 3),
    "own state, long": lambda: FrameStackObservation(in_episodes(Honest(), 150), 3),
    "late": lambda: in_episodes(Late()),
    "a game inside": lambda: in_episodes(Console()),
    "nested": lambda: in_episodes(ReplayWrapper(Noise())),
}


def exact(value: Any) -> Any:
    """Every bit, as something that can be compared; no time that passed."""
    if isinstance(value, Mapping):
        return {key: exact(part) for key, part in value.items() if key != "t" or not {"r", "l"} <= set(value)}
    if isinstance(value, (list, tuple)):
        return [exact(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return [value.dtype.str, list(value.shape), value.tobytes().hex()]
    return value.hex() if isinstance(value, float) else value


def followed(env: Env, actions: Array) -> list[Any]:
    """
    Go on with an environment as DummyVecEnv does.

    :return: all that it tells, in every bit
    """
    told = []
    for action in actions:
        *step, info = env.step(action)
        told.append(exact([*step, info.get("episode"), info.get("original_reward")]))
        if step[2] or step[3]:
            told.append(exact(env.reset()[0]))
    return told


def actions_for(env: Env, steps: int, seed: int) -> Array:
    """Drawn by one who owns a space of their own, and not the environment's."""
    shape = (steps, *(env.action_space.shape or ()))
    return np.random.default_rng(seed).integers(2, size=shape)


def dumped(state: Any) -> str:
    """JSON, in which an array is its bytes."""
    return json.dumps(
        state, default=lambda array: {"dtype": array.dtype.str, "shape": array.shape, "hex": array.tobytes().hex()}
    )


def loaded(text: str) -> Any:
    def hook(found: dict[str, Any]) -> Any:
        if found.keys() != {"dtype", "shape", "hex"}:
            return found
        return np.frombuffer(bytes.fromhex(found["hex"]), found["dtype"]).reshape(found["shape"])

    return json.loads(text, object_hook=hook)


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(part) for key, part in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str, np.ndarray)


def begun(name: str, steps: int) -> ReplayWrapper:
    env = ReplayWrapper(MAKERS[name]())
    env.reset(seed=3)
    followed(env, actions_for(env, steps, seed=1))
    return env
