"""Environments brought back to where they were, against the same ones that were never interrupted."""

import importlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.wrappers import FrameStackObservation
from gymnasium.wrappers.vector import NormalizeObservation
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv, NoopResetEnv
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_dqn_ext.checkpoint.envs import Resumable, make_resumable, replay_wrapper
from sb3_dqn_ext.checkpoint.envs.plain_data import packed, unpacked
from sb3_dqn_ext.checkpoint.envs.replay_wrapper import CannotRestore
from sb3_dqn_ext.checkpoint.envs.resumable_envs import check_vector
from sb3_dqn_ext.checkpoint.envs.states import current_observations, environments_state, restore_environments
from sb3_dqn_ext.env_factory import Recipe, layers_of
from sb3_dqn_ext.envs import RandomFirstStep, TerminalPenalty
from sb3_dqn_ext.envs.cart_poles import SameStepCartPoles
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from sb3_dqn_ext.vec_env.async_ import InProcesses
from tests.parity import dict_cartpole, short_cartpole
from tests.paths import ROOT
from tests.processes import output, python

Env = gym.Env[Any, Any]
Array = npt.NDArray[Any]


@pytest.fixture(scope="module", autouse=True)
def box2d() -> None:
    """Its compiled part warns at its import, and does not survive that a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("Box2D")


@pytest.fixture
def made() -> Iterator[list[VecEnv]]:
    """Environments that are closed when the test has ended."""
    venvs: list[VecEnv] = []
    yield venvs
    for venv in venvs:
        venv.close()


# -- environments of the tests ---------------------------------------------------------------------------------------------


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
    "nested": lambda: in_episodes(Resumable(Noise())),
}


# -- what is the same ------------------------------------------------------------------------------------------------------


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


# -- one environment -------------------------------------------------------------------------------------------------------


def begun(name: str, steps: int) -> Resumable:
    env = Resumable(MAKERS[name]())
    env.reset(seed=3)
    followed(env, actions_for(env, steps, seed=1))
    return env


@pytest.mark.parametrize("steps", [0, 1, 47, 120])
@pytest.mark.parametrize("name", MAKERS)
def test_another_environment_goes_on_as_the_first(name: str, steps: int) -> None:
    a, b = begun(name, steps), Resumable(MAKERS[name]())
    state = a.get_state()
    assert is_plain(state)
    text, a_monitor, b_monitor = dumped(state), a.get_wrapper_attr("get_total_steps")(), b.get_wrapper_attr("get_total_steps")
    seen = exact(a.last_observation)
    actions = actions_for(a, 80, seed=2)
    expected = followed(a, actions)
    assert exact(b.set_state(loaded(text))) == seen
    assert b_monitor() == a_monitor
    assert b.get_wrapper_attr("episode_lengths") == []
    assert dumped(b.get_state()) == text
    assert followed(b, actions) == expected


@pytest.mark.parametrize("name", MAKERS)
def test_an_environment_that_went_elsewhere_comes_back(name: str) -> None:
    env = begun(name, 41)
    state, actions = env.get_state(), actions_for(env, 60, seed=2)
    expected = followed(env, actions)
    for steps in (0, 7):
        followed(env, actions_for(env, steps, seed=5))
        env.set_state(state)
        assert followed(env, actions) == expected


def test_something_ends_in_what_is_compared() -> None:
    for name in MAKERS:
        env = begun(name, 120)
        told = followed(env, actions_for(env, 80, seed=2))
        assert len(told) > 80, name


AFTERWARDS = """
import warnings
warnings.simplefilter("ignore")
from pathlib import Path
from tests.checkpoint.test_resumable import *
for name in sys_names:
    env = Resumable(MAKERS[name]())
    env.set_state(loaded(Path(name).read_text()))
    print(json.dumps(followed(env, actions_for(env, 80, seed=2))))
"""


def test_another_process_goes_on_too(tmp_path: Path) -> None:
    expected = []
    for name in MAKERS:
        env = begun(name, 47)
        (tmp_path / name).write_text(dumped(env.get_state()))
        expected.append(followed(env, actions_for(env, 80, seed=2)))
    code = AFTERWARDS.replace("sys_names", repr(list(MAKERS)))
    lines = output(python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))).splitlines()
    assert [json.loads(line) for line in lines] == expected


def test_monitor_writes_each_episode_once_and_counts_on(tmp_path: Path) -> None:
    def make(name: str) -> Env:
        env: Env = RandomFirstStep(Monitor(EpisodicLifeEnv(Lives()), str(tmp_path / name)))
        return env

    a, b = Resumable(make("a")), Resumable(make("b"))
    a.reset(seed=1)
    followed(a, actions_for(a, 50, seed=1))
    state, before = a.get_state(), (tmp_path / "a.monitor.csv").read_text().splitlines()
    assert len(state["resets"]) > 1  # a life was lost since
    b.set_state(state)
    for env in (a, b):
        followed(env, actions_for(env, 50, seed=2))
        env.close()
    after = (tmp_path / "a.monitor.csv").read_text().splitlines()[len(before) :]
    rows = (tmp_path / "b.monitor.csv").read_text().splitlines()[2:]
    assert len(after) > 3
    assert [row.rsplit(",", 1)[0] for row in rows] == [row.rsplit(",", 1)[0] for row in after]


def test_only_what_happened_since_the_last_real_reset_is_kept() -> None:
    env = begun("cut short", 100)
    assert len(env.get_state()["actions"]) < 13
    env = begun("lives", 200)
    assert max(reset["at"] for reset in env.get_state()["resets"]) <= len(env.get_state()["actions"]) < 100


def test_a_game_that_ends_in_the_step_of_a_reset_belongs_to_what_comes_after_it() -> None:
    a, b = (Resumable(MAKERS["lives"]()) for _ in range(2))
    a.reset(seed=2)
    for action in actions_for(a, 9000, seed=1):
        if a.step(action)[2]:
            a.reset()
            if len(a.get_state()["resets"]) > 1 and a.get_wrapper_attr("lives") == 3:  # new ones, but it began with a step
                break
    else:
        pytest.fail("no game ended so")
    b.set_state(a.get_state())
    actions = actions_for(a, 80, seed=2)
    assert followed(b, actions) == followed(a, actions)


def test_nothing_is_left_on_the_innermost_environment() -> None:
    assert not {"step", "reset"} & set(vars(begun("CartPole", 20).unwrapped))


def test_the_streams_of_all_are_left_alone() -> None:
    env, other = (Resumable(DrawsFromAll()) for _ in range(2))
    env.reset()
    env.step(0)
    state = env.get_state()
    np.random.seed(4)
    expected = np.random.random(3).tolist()
    np.random.seed(4)
    with pytest.raises(CannotRestore):
        other.set_state(state)
    assert np.random.random(3).tolist() == expected


def test_one_who_draws_from_the_action_space_is_no_hindrance() -> None:
    env, other = begun("CartPole", 20), Resumable(MAKERS["CartPole"]())
    env.action_space.seed(3)
    env.reset()
    for _ in range(5):
        env.step(env.action_space.sample())
    other.set_state(env.get_state())
    assert [other.action_space.sample() for _ in range(9)] == [env.action_space.sample() for _ in range(9)]


def test_options_and_pythons_own_numbers_are_given_again() -> None:
    env, other = (Resumable(gym.make("CartPole-v1")) for _ in range(2))
    options = {"low": 0.01, "high": 0.02}
    env.reset(seed=3, options=options)
    options["low"] = -1.0
    for action in (0, 1, 1):
        env.step(action)
    state = env.get_state()
    assert exact(other.set_state(state)) == exact(env.last_observation)
    assert [type(action) for action in unpacked(state)] == [int] * 3


@pytest.mark.parametrize(
    ("actions", "kind"),
    [
        ([np.int64(1), np.int64(0)], np.ndarray),
        ([np.zeros(2), np.ones(2)], np.ndarray),
        ([1, 2], np.ndarray),
        ([1, np.int64(2)], list),
        ([{"a": np.float32(1)}, {"a": np.float32(2)}], list),
        ([(1, 2.5), (3, np.int8(4))], list),
        ([], list),
    ],
)
def test_actions_of_every_kind_come_back_as_they_were(actions: list[Any], kind: type) -> None:
    state = packed(actions)
    assert isinstance(state["actions"], kind)
    back = unpacked(loaded(dumped(state)))
    assert exact(back) == exact(actions)
    assert [type(action) for action in back if np.isscalar(action)] == [type(a) for a in actions if np.isscalar(a)]


def test_an_array_that_is_written_again_is_remembered_as_it_was() -> None:
    env, other = (Resumable(MAKERS["late"]()) for _ in range(2))
    env.reset(seed=1, options={"x": 2.0})
    action = np.array([1, 2])
    env.step(action)
    action[:] = 0
    env.step(action)
    assert exact(other.set_state(env.get_state())) == exact(env.last_observation)


# -- one environment that cannot be restored ---------------------------------------------------------------------------------


def test_an_environment_that_goes_its_own_ways_is_reported_and_begins_anew() -> None:
    a, b = (Resumable(in_episodes(Moody())) for _ in range(2))
    a.reset(seed=1)
    a.step(0)
    with pytest.raises(CannotRestore, match=r"Moody cannot be restored .*: its observation differs"):
        b.set_state(a.get_state())
    assert b.get_state()["why_not"] == "it was not reset since it is watched"
    b.reset()
    assert b.get_state()["why_not"] is None
    assert len(b.get_state()["resets"]) == 1
    observation, problem = b.restore_or_reset(a.get_state())
    assert exact(observation) == exact(b.last_observation)
    assert problem is not None
    assert problem.count("observation differs") == 1


def changed(state: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {**state, **values}


def test_what_is_missing_or_of_another_environment_is_said() -> None:
    env = begun("cut short", 20)
    state = env.get_state()
    for wrong, message in [
        (changed(state, env="Taxi-v4"), "the state is that of Taxi-v4"),
        (changed(state, begin={}), "differs"),
        (changed(state, actions=state["actions"][:-1]), "observation differs"),
        (changed(state, actions=np.zeros(99, np.int64)), "RuntimeError: Tried to step environment that needs reset"),
        (changed(state, generators=state["begin"]), "the random generator 0._np_random differs"),
        (Resumable(MAKERS["cut short"]()).get_state(), "it was not reset since it is watched"),
    ]:
        with pytest.raises(CannotRestore, match=message):
            env.set_state(wrong)
        env.reset()
        followed(env, actions_for(env, 20, seed=1))
    env.set_state(state)


def test_what_is_no_plain_data_is_said_when_it_is_restored_and_not_before() -> None:
    env = Resumable(gym.make("CartPole-v1"))
    env.reset(options={"of": {1, 2}})
    with pytest.raises(CannotRestore, match="set is no plain data, and it is part of"):
        env.set_state(env.get_state())


def test_time_is_part_of_the_state() -> None:
    """CartPole's observation does not tell it, and here no episode ends before it is up."""
    a, b = (Resumable(Monitor(short_cartpole(6))) for _ in range(2))
    a.reset(seed=1)
    a.step(0)
    a.step(1)
    b.set_state(a.get_state())
    told = [b.step(action) for action in (0, 1, 0, 1)]
    assert [step[3] for step in told] == [False, False, False, True]
    assert told[-1][4]["episode"]["l"] == told[-1][4]["episode"]["r"] == 6


def test_a_state_of_its_own_is_used_where_actions_would_not_lead_there() -> None:
    a, b = begun("own state", 19), Resumable(MAKERS["own state"]())
    state = a.get_state()
    assert state["own"]["state"]["x"] == a.unwrapped.x  # type: ignore[attr-defined]
    b.set_state(state)
    told = [env.step(1)[1] for _ in range(11) for env in (a, b)]
    assert told[::2] == told[1::2]
    assert sum(a.get_wrapper_attr("rewards")) == sum(b.get_wrapper_attr("rewards")) > 0


def test_lives_are_those_of_the_state_of_its_own() -> None:
    a, b = (Resumable(EpisodicLifeEnv(Fickle())) for _ in range(2))
    a.reset(seed=1)
    for _ in range(12):
        a.step(1)
        b.set_state(a.get_state())
        assert b.get_wrapper_attr("lives") == a.get_wrapper_attr("lives") == b.unwrapped.ale.lives()  # type: ignore[attr-defined]


def test_a_state_of_its_own_that_is_not_taken_is_noticed() -> None:
    a, b = (Resumable(Stubborn()) for _ in range(2))
    a.reset()
    with pytest.raises(CannotRestore, match="it has another state than the one it was given"):
        b.set_state(a.get_state())


def test_an_episode_that_has_ended_is_restored_too() -> None:
    a, b = (Resumable(Monitor(short_cartpole(5))) for _ in range(2))
    a.reset(seed=1)
    assert [a.step(action)[3] for action in (0, 1, 0, 1, 0)][-1]
    b.set_state(a.get_state())
    with pytest.raises(RuntimeError, match="needs reset"):
        b.step(0)
    a.reset()
    b.reset()
    assert followed(a, actions_for(a, 20, 1)) == followed(b, actions_for(b, 20, 1))


# -- the tests can fail ------------------------------------------------------------------------------------------------------


def test_without_the_generators_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun("cut short", 50).get_state()
    monkeypatch.setattr(replay_wrapper, "set_generators", lambda env, states: None)
    with pytest.raises(CannotRestore):
        Resumable(MAKERS["cut short"]()).set_state(state)


def test_without_the_actions_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun("cut short", 50).get_state()
    monkeypatch.setattr(replay_wrapper, "unpacked", lambda state: [])
    with pytest.raises(CannotRestore):
        Resumable(MAKERS["cut short"]()).set_state(state)


@pytest.mark.parametrize(
    "harm",
    [
        {"_elapsed_steps": 0},
        {"rewards": []},
        {"np_random": np.random.default_rng(0)},
        {"state": (0.0, 0.0, 0.0, 0.0)},
    ],
)
def test_what_is_not_restored_would_be_seen(harm: dict[str, Any]) -> None:
    a, b = begun("cut short", 50), Resumable(MAKERS["cut short"]())
    b.set_state(a.get_state())
    for name, value in harm.items():
        assert b.set_wrapper_attr(name, value, force=False)
    actions = actions_for(a, 80, seed=2)
    assert followed(b, actions) != followed(a, actions)


# -- many of them ------------------------------------------------------------------------------------------------------------


def single(kind: str = "cut short") -> Env:
    return MAKERS[kind]()


def resumable(kind: str) -> Env:
    return Resumable(MAKERS[kind]())


def two_parts() -> Env:
    return gym.wrappers.FilterObservation(single("in parts"), ["cart", "pole"])


def fast(mode: str, n_envs: int, id: str = "CartPole-v1") -> VecEnv:
    return make_fast_vec_env(id, n_envs, seed=None, vectorization_mode=mode, env_kwargs={"max_episode_steps": 13})


def dummy(kind: str, n_envs: int) -> VecEnv:
    return DummyVecEnv([partial(single, kind)] * n_envs)


VEC_MAKERS: dict[str, Callable[[], VecEnv]] = {
    "one": lambda: dummy("cut short", 1),
    "four": lambda: dummy("RandomFirstStep", 4),
    "LunarLander": lambda: dummy("LunarLander", 2),
    "in parts": lambda: dummy("in parts", 2),
    "in turn": lambda: fast("sync", 3),
    "at once": lambda: fast("vector_entry_point", 3),
    "at once, random starts": lambda: fast("vector_entry_point", 3, "dqn_ext/CartPoleRandomStart-v0"),
    "at once, one wrapped": lambda: fast("vector_entry_point", 3, "dqn_ext/CartPoleNoVel-v1"),
    "normalized": lambda: VecNormalize(dummy("RandomFirstStep", 3)),
    "normalized parts": lambda: VecNormalize(dummy("in parts", 2), norm_obs_keys=["cart"]),
    "stacked": lambda: VecFrameStack(dummy("cut short", 3), 4),
    "stacked parts": lambda: VecFrameStack(DummyVecEnv([two_parts] * 2), 3),
    "pictures": lambda: VecFrameStack(VecTransposeImage(dummy("picture", 2), skip=True), 2, "first"),
    "counted": lambda: VecMonitor(VecNormalize(VecFrameStack(DummyVecEnv([short_cartpole] * 2), 2))),
}


def vec_followed(venv: VecEnv, steps: int, seed: int) -> list[Any]:
    shape = (steps, venv.num_envs)
    told = []
    for actions in np.random.default_rng(seed).integers(2, size=shape):
        observations, rewards, dones, infos = venv.step(actions)
        more = [(info.get("episode"), info.get("terminal_observation")) for info in infos]
        told.append(exact([observations, np.float32(rewards), dones, more]))  # SubprocVecEnv leaves rewards as they are
    return told


@pytest.mark.parametrize("name", VEC_MAKERS)
def test_vectorised_environments_go_on_as_the_first(name: str, made: list[VecEnv]) -> None:
    a, b = (make_resumable(VEC_MAKERS[name]()) for _ in range(2))
    made += [a, b]
    assert make_resumable(a) is a
    a.seed(5)
    b.seed(6)  # for a reset that does not come
    a.reset()
    vec_followed(a, 45, seed=1)
    states = environments_state(a)
    assert is_plain(states)
    text, seen = dumped(states), exact(a.get_original_obs()) if isinstance(a, VecNormalize) else None
    expected = vec_followed(a, 60, seed=2)
    assert restore_environments(b, loaded(text)) == []
    assert seen is None or (isinstance(b, VecNormalize) and exact(b.get_original_obs()) == seen)
    assert dumped(environments_state(b)) == text
    assert vec_followed(b, 60, seed=2) == expected
    if name != "pictures":  # whose space is the class's, and so is its generator
        a.reset()
        b.reset()
        assert dumped(environments_state(b)) == dumped(environments_state(a))


@pytest.mark.parametrize("name", [name for name in VEC_MAKERS if name.startswith("at once")])
def test_episodes_that_have_just_begun_go_on(name: str, made: list[VecEnv]) -> None:
    a, b = (make_resumable(VEC_MAKERS[name]()) for _ in range(2))
    made += [a, b]
    a.set_options({"low": 0.01, "high": 0.02})  # of all resets up to the next that has other ones
    a.reset()
    while not a.step(np.ones(3, int))[2].any():
        pass
    assert restore_environments(b, environments_state(a)) == []
    assert vec_followed(b, 40, seed=2) == vec_followed(a, 40, seed=2)


def watched_cartpoles(kind: type[DummyVecEnv | SubprocVecEnv] = DummyVecEnv) -> VecEnv:
    return make_vec_env(
        "CartPole-v1", 2, wrapper_class=resumable_penalty, env_kwargs={"max_episode_steps": 13}, vec_env_cls=kind
    )


def resumable_penalty(env: Env) -> Env:
    return Resumable(TerminalPenalty(RandomFirstStep(env), -5.0))


@pytest.mark.parametrize(
    "elsewhere", [lambda: watched_cartpoles(SubprocVecEnv), lambda: FastVecEnv(watched_cartpoles(), "async")]
)
def test_those_in_other_processes_go_on_as_those_in_this_one(elsewhere: Callable[[], VecEnv], made: list[VecEnv]) -> None:
    a, b = make_resumable(watched_cartpoles()), make_resumable(elsewhere())
    made += [a, b]
    a.seed(5)
    a.reset()
    vec_followed(a, 45, seed=1)
    text = dumped(environments_state(a))
    assert restore_environments(b, loaded(text)) == []
    assert dumped(environments_state(b)) == text
    assert exact(current_observations(b)) == exact(current_observations(a))
    assert vec_followed(b, 60, seed=2) == vec_followed(a, 60, seed=2)
    assert dumped(environments_state(b)) == dumped(environments_state(a))
    broken = environments_state(b)
    broken[1]["observation"] = None
    assert len(restore_environments(b, broken)) == 1  # and the processes live on
    assert exact(vec_followed(b, 1, seed=3)[0][0])[0] == "<f4"


@pytest.mark.parametrize(
    "name", ["one", "in parts", "in turn", "normalized", "stacked", "stacked parts", "pictures", "counted"]
)
def test_the_current_observations_are_those_of_the_last_step(name: str, made: list[VecEnv]) -> None:
    venv = make_resumable(VEC_MAKERS[name]())
    made.append(venv)
    observations: Any = venv.reset()
    for _ in range(20):
        assert exact(current_observations(venv)) == exact(observations)
        observations = venv.step(np.ones(venv.num_envs, int))[0]


class SometimesMoody(Moody):
    """Only where it is told so."""

    def __init__(self, moody: bool) -> None:
        self.moody = moody

    def moved(self) -> float:
        return super().moved() if self.moody else float(self.np_random.random())


def test_those_that_cannot_be_restored_are_reported_once_and_the_others_go_on() -> None:
    def make() -> VecEnv:
        inner = DummyVecEnv([partial(moody, False), partial(moody, True), partial(moody, False)])
        return make_resumable(VecMonitor(VecNormalize(VecFrameStack(inner, 3))))

    def moody(really: bool) -> Env:
        return gym.wrappers.TimeLimit(SometimesMoody(really), 30)

    a, b = make(), make()
    a.seed(2)
    a.reset()
    vec_followed(a, 8, seed=1)
    states = environments_state(a)
    problems = restore_environments(b, states)
    assert len(problems) == 1
    assert problems[0].startswith("Environment 1: SometimesMoody cannot be restored in the middle of its episode: its obs")
    for seen in (current_observations, lambda venv: venv.unwrapped.buf_obs[None]):
        np.testing.assert_array_equal(seen(a)[[0, 2]], seen(b)[[0, 2]])
    frames = b.stacked_obs.stacked_obs[1]  # type: ignore[attr-defined]
    assert frames[:2].tolist() == [0, 0]
    assert frames[2] == b.get_attr("last_observation")[1][0] != 0
    assert b.episode_lengths.tolist() == [8, 0, 8]  # type: ignore[attr-defined]
    assert b.returns[1] == 0 != b.returns[0]  # type: ignore[attr-defined]


def test_environments_in_other_processes_must_be_made_resumable_there(made: list[VecEnv]) -> None:
    made.append(venv := SubprocVecEnv([single]))
    with pytest.raises(ArgumentError, match=r"Write SubprocVecEnv\(\[lambda: Resumable\(gym.make"):
        make_resumable(venv)
    fast = FastVecEnv.__new__(FastVecEnv)  # what would run in processes
    fast.backend = processes = InProcesses.__new__(InProcesses)
    for wrappers in (), (RandomFirstStep.wrapper_spec(),), (Resumable.wrapper_spec(), RandomFirstStep.wrapper_spec()):
        processes.recipes = [Recipe(gym.spec("CartPole-v1"), wrappers=wrappers)]
        with pytest.raises(ArgumentError, match=r"Write make_fast_vec_env\(.*wrapper_class=Resumable"):
            make_resumable(fast)


class MyCartPoles(SameStepCartPoles):  # type: ignore[misc]  # to mypy sb3_dqn_ext.envs is Any, see pyproject.toml
    """Might remember more than CartPoles do."""


def test_vector_environments_that_are_not_known_are_refused() -> None:
    for unknown in (MyCartPoles(2), NormalizeObservation(CartPoleVectorEnv(2)), CartPoleVectorEnv(2)):
        with pytest.raises(ArgumentError, match=f"state of {type(unknown).__name__}, .*vectorization_mode='sync'"):
            check_vector(unknown)


def test_other_vectorised_environments_are_refused() -> None:
    venv = VecCheckNan(dummy("cut short", 1))
    assert layers_of(make_resumable(venv)) == [venv.venv, venv]
    unknown: Any = type("Unknown", (VecEnv,), dict.fromkeys(VecEnv.__abstractmethods__))
    with pytest.raises(ArgumentError, match="environments of a Unknown cannot be made resumable, only those of a DummyVecEnv"):
        make_resumable(unknown.__new__(unknown))


def test_states_of_others_are_refused(made: list[VecEnv]) -> None:
    one, two = make_resumable(dummy("cut short", 1)), make_resumable(VecNormalize(dummy("cut short", 2)))
    made += [one, two, plain := dummy("cut short", 1)]
    one.reset()
    with pytest.raises(ArgumentError, match="of 1 single environments, and not of 2 single environments in VecNo"):
        restore_environments(two, environments_state(one))
    with pytest.raises(ArgumentError, match=r"Call make_resumable\(env\) before"):
        environments_state(plain)


def test_states_of_cart_poles_that_were_reset_one_step_later_are_refused(made: list[VecEnv]) -> None:
    made.append(venv := make_resumable(fast("vector_entry_point", 2)))
    venv.reset()
    states = environments_state(venv)
    states[0]["layer"] = "a vector entry point"  # as earlier checkpoints have it
    with pytest.raises(ArgumentError, match=r"a vector entry point, and not .* with same-step resets"):
        restore_environments(venv, states)
