"""FastVecEnv, compared with DummyVecEnv and SB3's Monitor, and with single environments."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
import yaml
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import TransformReward
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor, load_results
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
)

from sb3_dqn_ext.envs import TerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from tests.parity import InParts
from tests.paths import ROOT
from tests.processes import output, python

Env = gym.Env[Any, Any]
Array = npt.NDArray[Any]
Step = tuple[Any, Array, Array, list[dict[str, Any]]]

SHORT = {"max_episode_steps": 30}  # CartPoles fall before and after that


pytestmark = pytest.mark.usefixtures("box2d")


# -- environments of the tests, which other processes import by their entry points ------------------------------------------


class Pictures(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole whose observation is an image of noise in which one part depends on the angle."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)

    def observation(self, observation: Any) -> Any:
        picture = np.zeros((36, 36, 3), np.uint8)
        picture[: int(abs(observation[2]) * 100), :, 1] = 200
        return picture


class Talks(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole with many infos. It can reuse one dict and one array for all steps."""

    n_resets = 0

    def __init__(self, env: Env, uses_again: bool) -> None:
        super().__init__(env)
        self.info: dict[str, Any] = {}
        self.seen = np.zeros(4, np.float32)
        self.uses_again = uses_again

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.n_resets += 1
        observation, _ = self.env.reset(**kwargs)
        return self.shown(observation), {"resets": self.n_resets, "options": kwargs.get("options")}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        # an int or a float, depending on environment and step; None; a nested dict
        side = int(observation[0] > 0) or 0.5
        self.info.update(
            side=side, name="cart", nothing=None, inner={"of": {"x": float(observation[0])}}, where=observation[:2]
        )
        return self.shown(observation), reward, terminated, truncated, self.info if self.uses_again else dict(self.info)

    def shown(self, observation: Any) -> Any:
        self.seen[:] = observation
        return self.seen if self.uses_again else observation

    def twice(self, number: int, plus: int = 0) -> int:
        return 2 * number + plus


def in_parts(**kwargs: Any) -> Env:
    return InParts(CartPoleEnv(**kwargs))


def pictures(**kwargs: Any) -> Env:
    return Pictures(CartPoleEnv(**kwargs))


def talks(uses_again: bool = False, **kwargs: Any) -> Env:
    return Talks(CartPoleEnv(**kwargs), uses_again)


def vector(mode: AutoresetMode, make: Callable[..., Env], num_envs: int, max_episode_steps: int, **kwargs: Any) -> Any:
    """Make a vector environment of single environments, each with its own seed."""
    return SyncVectorEnv([lambda: TimeLimit(make(**kwargs), max_episode_steps)] * num_envs, autoreset_mode=mode, copy=False)


def same_step(num_envs: int, **kwargs: Any) -> Any:
    return vector(AutoresetMode.SAME_STEP, talks, num_envs, **kwargs)


def next_step(num_envs: int, **kwargs: Any) -> Any:
    return vector(AutoresetMode.NEXT_STEP, in_parts, num_envs, **kwargs)


def same_step_in_parts(num_envs: int, **kwargs: Any) -> Any:
    return vector(AutoresetMode.SAME_STEP, in_parts, num_envs, **kwargs)


def half_paid(num_envs: int, **kwargs: Any) -> Any:
    return TransformReward(same_step_in_parts(num_envs, **kwargs), lambda rewards: rewards - 0.5)


def times(env: Env, factor: float) -> Env:
    return gym.wrappers.TransformReward(env, lambda reward: factor * float(reward))


def never(num_envs: int, **kwargs: Any) -> Any:
    return vector(AutoresetMode.DISABLED, CartPoleEnv, num_envs, **kwargs)


class Foreign(VectorWrapper):
    """A vector environment that returns another library's arrays, numbers in place of bools, and lists in place of arrays."""

    def step(self, actions: Any) -> Any:
        observations, rewards, terminated, truncated, infos = super().step(actions)
        return ForeignArray(observations), rewards.tolist(), terminated.astype(np.int32), truncated.astype(np.float32), infos


class ForeignArray:
    """An array of another library, which numpy can convert."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self._array, dtype)


def foreign(num_envs: int, **kwargs: Any) -> Any:
    return Foreign(same_step(num_envs, **kwargs))


def on_jax(num_envs: int, **kwargs: Any) -> Any:
    env = same_step(num_envs, **kwargs)
    env.metadata = {**env.metadata, "jax": True}
    return env


def without_limit(num_envs: int) -> Any:
    return same_step(num_envs, max_episode_steps=30)


def register(name: str, entry_point: str, vector_entry_point: str | None = None) -> None:
    if f"tests/{name}-v0" not in gym.registry:
        gym.register(
            f"tests/{name}-v0",
            f"tests.vec_env.test_fast_vec_env:{entry_point}",
            max_episode_steps=30,
            disable_env_checker=True,  # the checker requires a new info dict at each step
            vector_entry_point=vector_entry_point and f"tests.vec_env.test_fast_vec_env:{vector_entry_point}",
        )


register("InParts", "in_parts")
register("Pictures", "pictures")
register("Talks", "talks")
register("SameStep", "talks", "same_step")
register("NextStep", "in_parts", "next_step")
register("SameStepInParts", "in_parts", "same_step_in_parts")
register("HalfPaid", "in_parts", "half_paid")
register("Never", "in_parts", "never")
register("Foreign", "talks", "foreign")
register("OnJax", "talks", "on_jax")
register("WithoutLimit", "talks", "without_limit")
register("AnotherForm", "in_parts", "same_step")


# -- the reference ---------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Convert values to Python's types, without elapsed times."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key != "t" or not {"r", "l"} <= set(value)}
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def same_observations(ours: Any, theirs: Any) -> None:
    assert type(ours) is dict or not isinstance(theirs, dict)
    for key in theirs if isinstance(theirs, dict) else [...]:
        np.testing.assert_array_equal(
            ours if key is ... else ours[key], theirs if key is ... else theirs[key], strict=True, err_msg=str(key)
        )


def random_actions(venv: VecEnv, steps: int, seed: int = 0) -> Iterator[Array]:
    assert isinstance(venv.action_space, gym.spaces.Discrete)
    return iter(np.random.default_rng(seed).integers(venv.action_space.n, size=(steps, venv.num_envs)))


def assert_same_trajectories(ours: VecEnv, theirs: VecEnv, steps: int = 150) -> int:
    """
    Step two vectorised environments with the same actions and compare all results.

    :return: the number of episodes that ended
    """
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.num_envs == theirs.num_envs
    assert [ours.action_space.sample() for _ in range(20)] == [theirs.action_space.sample() for _ in range(20)]
    same_observations(ours.reset(), theirs.reset())
    assert plain(dict(enumerate(ours.reset_infos))) == plain(dict(enumerate(theirs.reset_infos)))
    ended = 0
    for actions in random_actions(theirs, steps):
        our, their = ours.step(actions), theirs.step(actions)
        same_observations(our[0], their[0])
        for i in (1, 2):
            np.testing.assert_array_equal(our[i], their[i], strict=True)
        assert [plain(info) for info in our[3]] == [plain(info) for info in their[3]]
        assert plain(dict(enumerate(ours.reset_infos))) == plain(dict(enumerate(theirs.reset_infos)))
        ended += int(np.asarray(their[2]).sum())
    return ended


def rows(file: Path) -> list[tuple[str, ...]]:
    """Read the rows of a monitor.csv, without times."""
    lines = list(csv.DictReader(file.read_text().splitlines()[1:]))
    return [tuple(value for key, value in line.items() if key != "t") for line in lines]


# -- sync: equal to DummyVecEnv in every bit -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "n_envs", "kwargs"),
    [
        ("CartPole-v1", 1, {}),
        ("CartPole-v1", 3, SHORT),
        ("MountainCar-v0", 2, {"max_episode_steps": 40}),
        ("Acrobot-v1", 2, {"max_episode_steps": 40}),
        ("LunarLander-v3", 2, {}),
        ("Taxi-v4", 2, SHORT),
        ("dqn_ext/CartPoleTerminalPenalty-v1", 2, {"reward": -7.5}),
        ("dqn_ext/MountainCarTerminalPenalty-v0", 2, {"max_episode_steps": 40}),
        ("dqn_ext/CartPoleRandomStart-v0", 2, {}),
        ("tests/InParts-v0", 2, {}),
        ("tests/Pictures-v0", 2, {}),
        ("tests/Talks-v0", 2, {}),
    ],
)
def test_sync_is_equal_to_dummy_vec_env(env: str, n_envs: int, kwargs: dict[str, Any], open_envs: list[VecEnv]) -> None:
    ours = make_fast_vec_env(env, n_envs, seed=5, vectorization_mode="sync", env_kwargs=kwargs)
    theirs = make_vec_env(env, n_envs, seed=5, env_kwargs=kwargs)
    open_envs += [ours, theirs]
    assert assert_same_trajectories(ours, theirs) > 0


def in_tuples(env: Env) -> Env:
    space = gym.spaces.Tuple((gym.spaces.Box(-np.inf, np.inf, (2,), np.float32), gym.spaces.Discrete(2)))
    return gym.wrappers.TransformObservation(env, lambda state: (state[:2], int(state[2] > 0)), space)


def as_numbers(env: Env) -> Env:
    return gym.wrappers.TransformObservation(env, lambda state: float(state[2]), gym.spaces.Box(-9, 9, (1,), np.float32))


@pytest.mark.parametrize("wrapper", [in_tuples, as_numbers])
def test_sync_returns_tuples_and_numbers_as_dummy_vec_env(wrapper: Callable[[Env], Env], open_envs: list[VecEnv]) -> None:
    kwargs = {"max_episode_steps": 5, "disable_env_checker": True}  # the checker warns of numbers
    ours = make_fast_vec_env("CartPole-v1", 2, 5, "sync", env_kwargs=kwargs, wrapper_class=wrapper)
    theirs = make_vec_env("CartPole-v1", 2, 5, env_kwargs=kwargs, wrapper_class=wrapper)
    open_envs += [ours, theirs]
    pairs = [(ours.reset(), theirs.reset())]
    pairs += [(ours.step(actions)[0], theirs.step(actions)[0]) for actions in random_actions(theirs, 20)]
    for our, their in pairs:
        assert type(our) is type(their)
        for ours_part, theirs_part in zip(our, their, strict=True):
            np.testing.assert_array_equal(ours_part, theirs_part, strict=True)


def test_replaced_environments_continue_as_without_the_replacement(tmp_path: Path, open_envs: list[VecEnv]) -> None:
    def make(folder: str) -> VecEnv:
        return make_vec_env(
            "tests/Talks-v0",
            2,
            seed=9,
            env_kwargs={"max_episode_steps": 25},
            monitor_dir=str(tmp_path / folder),
            monitor_kwargs={"info_keywords": ("side",)},
        )

    replaced, theirs = make("ours"), make("theirs")
    header = (tmp_path / "ours" / "1.monitor.csv").read_text()
    ours = FastVecEnv(replaced)
    open_envs += [ours, theirs]
    assert ours.vectorization_mode == "sync"
    assert assert_same_trajectories(ours, theirs) > 4
    for name in ("0.monitor.csv", "1.monitor.csv"):
        assert rows(tmp_path / "ours" / name) == rows(tmp_path / "theirs" / name) != []
    assert (tmp_path / "ours" / "1.monitor.csv").read_text().startswith(header)
    assert load_results(str(tmp_path / "ours"))["t"].between(0, 60).all()


def test_a_second_seed_and_the_options_of_each_environment_count_at_the_next_reset(open_envs: list[VecEnv]) -> None:
    ours = make_fast_vec_env("CartPole-v1", 2, seed=1, vectorization_mode="sync")
    theirs = make_vec_env("CartPole-v1", 2, seed=1)
    open_envs += [ours, theirs]
    assert_same_trajectories(ours, theirs, steps=10)
    for venv in (ours, theirs):
        assert list(venv.seed(33)) == [33, 34]
        venv.set_options([{"low": 0.01, "high": 0.02}, {}])
    assert_same_trajectories(ours, theirs, steps=10)
    assert_same_trajectories(ours, theirs, steps=10)  # neither seeds nor options are used twice
    observations = ours.reset()
    assert isinstance(observations, np.ndarray)
    assert (observations[0] < 0.05).all()


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_what_was_returned_stays_as_it_was(mode: str, open_envs: list[VecEnv]) -> None:
    for env in ("CartPole-v1", "tests/SameStep-v0", "tests/SameStepInParts-v0"):
        kwargs = {"uses_again": True} if env == "tests/SameStep-v0" else {}
        venv = make_fast_vec_env(env, 3, seed=0, vectorization_mode=mode, env_kwargs=kwargs)
        open_envs.append(venv)
        kept: list[tuple[Step, str]] = []
        venv.reset()
        for actions in random_actions(venv, 60):
            step = venv.step(actions)
            step[3][0]["mine"] = True
            kept.append((step, repr([plain(part) for part in (*step[:3], *step[3])])))
        for step, then in kept:
            assert repr([plain(part) for part in (*step[:3], *step[3])]) == then


# -- async ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["tests/Talks-v0", "tests/InParts-v0"])
def test_async_is_equal_to_dummy_vec_env(env: str, tmp_path: Path, open_envs: list[VecEnv]) -> None:
    kwargs = {"max_episode_steps": 10}  # some poles fall in the step that reaches the time limit
    wrap: Any = {"wrapper_class": times, "wrapper_kwargs": {"factor": 3.0}}
    ours = make_fast_vec_env(env, 2, 5, "async", kwargs, tmp_path / "ours", **wrap)
    theirs = make_vec_env(env, 2, 5, env_kwargs=kwargs, monitor_dir=str(tmp_path / "theirs"), **wrap)
    open_envs += [ours, theirs]
    assert assert_same_trajectories(ours, theirs) > 20
    assert rows(tmp_path / "ours" / "1.monitor.csv") == rows(tmp_path / "theirs" / "1.monitor.csv") != []
    if env == "tests/Talks-v0":
        for venv in (ours, theirs):
            venv.seed(33)
            venv.set_options([{"low": 0.01, "high": 0.02}, {"low": -0.02, "high": -0.01}])
        assert_same_trajectories(ours, theirs, steps=10)
        assert_access_to_single_environments(ours)


def test_async_continues_the_files_of_replaced_environments(tmp_path: Path, open_envs: list[VecEnv]) -> None:
    def make(folder: str, kind: type[DummyVecEnv | SubprocVecEnv]) -> VecEnv:
        return make_vec_env("Acrobot-v1", 2, 3, monitor_dir=str(tmp_path / folder), env_kwargs=SHORT, vec_env_cls=kind)

    replaced, theirs = make("ours", SubprocVecEnv), make("theirs", DummyVecEnv)
    ours = FastVecEnv(replaced)
    open_envs += [ours, theirs]
    file = tmp_path / "ours" / "0.monitor.csv"
    assert ours.vectorization_mode == "async"
    assert isinstance(replaced, SubprocVecEnv)
    assert replaced.closed
    assert assert_same_trajectories(ours, theirs) > 4
    assert rows(file) == rows(tmp_path / "theirs" / "0.monitor.csv") != []
    # Times are measured from the start time in the header, also after the environments were replaced.
    header, *_, last = file.read_text().splitlines()
    ended = json.loads(header[1:])["t_start"] + float(last.split(",")[2])
    assert abs(ended - file.stat().st_mtime) < 0.5


# -- vector entry points ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "single"),
    [
        ("tests/SameStep-v0", "tests/Talks-v0"),
        ("tests/Foreign-v0", "tests/Talks-v0"),
        ("tests/SameStepInParts-v0", "tests/InParts-v0"),
    ],
)
def test_a_vector_entry_point_is_equal_to_dummy_vec_env(
    env: str, single: str, tmp_path: Path, open_envs: list[VecEnv]
) -> None:
    ours = make_fast_vec_env(env, 3, seed=5, monitor_dir=tmp_path / "ours")
    theirs = make_vec_env(single, 3, seed=5, monitor_dir=str(tmp_path / "theirs"))
    open_envs += [ours, theirs]
    assert ours.vectorization_mode == "vector_entry_point"
    for key in ("side",):  # gymnasium converts the values of all environments to the type of the first one
        drop(ours, key)
        drop(theirs, key)
    assert assert_same_trajectories(ours, theirs) > 4
    for i in range(3):
        assert rows(tmp_path / "ours" / f"{i}.monitor.csv") == rows(tmp_path / "theirs" / f"{i}.monitor.csv") != []


def drop(venv: VecEnv, key: str) -> None:
    """Remove a key from the infos."""
    step = venv.step_wait

    def without() -> Any:
        *others, infos = step()
        return (*others, [{name: value for name, value in info.items() if name != key} for info in infos])

    venv.step_wait = without  # type: ignore[method-assign]


def by_angle(observations: Any) -> Array:
    """Return actions that push to the side to which the pole leans: a policy without state."""
    angle = observations["pole"][:, 0] if isinstance(observations, dict) else observations[:, 2]
    return np.asarray(angle > 0).astype(np.int64)


def test_each_cart_pole_moves_as_a_single_one_and_is_reset_in_the_step_that_ends_its_episode(open_envs: list[VecEnv]) -> None:
    n_envs = 5
    venv = make_fast_vec_env("CartPole-v1", n_envs, seed=2, env_kwargs={"max_episode_steps": 12})
    open_envs.append(venv)
    single: Any = CartPoleEnv()
    single.reset()
    observations: Any = venv.reset()
    lengths = np.zeros(n_envs, int)
    kinds, starts = set(), []
    for actions in random_actions(venv, 120):
        states = venv.get_attr("state")[0].T.copy()  # (n_envs, 4), in double precision
        np.testing.assert_array_equal(states.astype(np.float32), observations)
        observations, rewards, dones, infos = venv.step(actions)
        assert [array.dtype.name for array in (rewards, dones, observations)] == ["float32", "bool", "float32"]
        assert observations.flags.c_contiguous  # C order, which networks and replay buffers read fastest
        for i, info in enumerate(infos):
            single.state, single.steps_beyond_terminated = tuple(states[i]), None
            expected, reward, terminated, *_ = single.step(int(actions[i]))
            lengths[i] += 1
            truncated = lengths[i] == 12
            assert (rewards[i], dones[i]) == (reward, terminated or truncated)
            if not dones[i]:
                np.testing.assert_allclose(observations[i], expected, rtol=1e-6)
                assert info == {"TimeLimit.truncated": False}
                continue
            last = info.pop("terminal_observation")
            assert last.dtype == np.float32
            np.testing.assert_allclose(last, expected, rtol=1e-6)
            assert (np.abs(observations[i]) <= 0.05).all()
            starts.append(observations[i])
            assert info.pop("episode").items() >= {"r": lengths[i], "l": lengths[i]}.items()
            assert info == {"TimeLimit.truncated": truncated and not terminated}
            kinds.add((bool(terminated), bool(truncated)))
            lengths[i] = 0
    assert kinds >= {(True, False), (False, True)}
    assert len(np.unique(np.stack(starts), axis=0)) == len(starts) > 10


def test_the_infos_of_a_vector_entry_point_reach_each_environment(open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("dqn_ext/CartPoleTerminalPenalty-v1", 4, seed=0, env_kwargs={"reward": -3.0})
    open_envs.append(venv)
    venv.reset()
    returns = np.zeros(4)
    n_ended = 0
    for actions in random_actions(venv, 100):
        _, rewards, dones, infos = venv.step(actions)
        returns += rewards
        for i, info in enumerate(infos):
            assert "_original_reward" not in info
            assert type(info["original_reward"]) is float
            assert (info["original_reward"], rewards[i]) == (1.0, -3.0 if dones[i] else 1.0)
            if dones[i]:
                assert info["episode"]["r"] == returns[i] == info["episode"]["l"] - 4
                returns[i] = 0
                n_ended += 1
    assert n_ended > 4


def test_episodes_earn_what_a_wrapper_of_all_environments_gives(open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("tests/HalfPaid-v0", 2, seed=0)
    open_envs.append(venv)
    venv.reset()
    lengths = []
    for actions in random_actions(venv, 100):
        _, rewards, _, infos = venv.step(actions)
        assert rewards.tolist() == [0.5, 0.5]
        for info in infos:
            if "episode" in info:
                assert info["episode"]["r"] == info["episode"]["l"] / 2
                lengths.append(info["episode"]["l"])
    assert len(lengths) > 4


def test_a_reset_between_begins_new_episodes(open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("CartPole-v1", 2, seed=0, env_kwargs={"max_episode_steps": 5})
    open_envs.append(venv)
    for steps in (3, 5, 2):  # in the middle, right after an end, in the middle
        venv.reset()
        for step in range(steps):
            _, _, dones, infos = venv.step(np.array([step % 2, step % 2]))
            assert dones.all() == (step == 4)
            if step == 4:
                assert [info["episode"]["l"] for info in infos] == [5, 5]
    seeded = [venv.seed(4) and venv.reset() for _ in range(2)]
    same_observations(*seeded)


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_monitor_csv_is_what_sb3_reads(mode: str, tmp_path: Path, open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env(
        "dqn_ext/CartPoleTerminalPenalty-v1",
        3,
        seed=0,
        vectorization_mode=mode,
        env_kwargs={"reward": -0.1234567},
        monitor_dir=tmp_path,
        monitor_kwargs={"info_keywords": ["original_reward"]},
    )
    open_envs.append(venv)
    venv.reset()
    episodes = []
    for actions in random_actions(venv, 100):
        episodes += [info["episode"] for info in venv.step(actions)[3] if "episode" in info]
    read = load_results(str(tmp_path))
    assert len(read) == len(episodes) > 6
    assert sorted(zip(read["r"], read["l"], read["original_reward"], strict=True)) == sorted(
        (episode["r"], episode["l"], episode["original_reward"]) for episode in episodes
    )
    assert all(episode["r"] == round(episode["l"] - 1.1234567, 6) == round(episode["r"], 6) for episode in episodes)
    first, titles = (tmp_path / "2.monitor.csv").read_text().splitlines()[:2]
    assert json.loads(first.removeprefix("#")).keys() == {"t_start", "env_id"}
    assert json.loads(first.removeprefix("#"))["env_id"] == "dqn_ext/CartPoleTerminalPenalty-v1"
    assert titles == "r,l,t,original_reward"


def test_a_file_can_be_appended_to(tmp_path: Path, open_envs: list[VecEnv]) -> None:
    for override in (True, False, False):
        venv = make_fast_vec_env("CartPole-v1", 2, monitor_dir=tmp_path, monitor_kwargs={"override_existing": override})
        open_envs.append(venv)
        venv.reset()
        while not venv.step(np.array([1, 1]))[2].any():
            pass
        venv.close()
    assert len(load_results(str(tmp_path))) >= 3


# -- training and evaluation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algorithm", "kwargs"), [(DQN, {}), (PPO, {"n_steps": 16, "batch_size": 32})])
def test_algorithms_of_sb3_learn_from_it(algorithm: Any, kwargs: dict[str, Any], open_envs: list[VecEnv]) -> None:
    open_envs.append(venv := make_fast_vec_env("CartPole-v1", 2, seed=0))
    assert venv.vectorization_mode == "vector_entry_point"
    model = algorithm("MlpPolicy", venv, device="cpu", **kwargs).learn(100)
    assert len(model.ep_info_buffer) > 0


def test_a_stock_algorithm_is_evaluated_on_it_while_it_learns(tmp_path: Path, open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("CartPole-v1", 2, seed=0, vectorization_mode="sync")
    looked_at = make_fast_vec_env("CartPole-v1", 2, seed=0)
    open_envs += [venv, looked_at]
    evaluation = EvalCallback(looked_at, n_eval_episodes=4, eval_freq=10, log_path=str(tmp_path), verbose=0)
    DQN("MlpPolicy", venv, device="cpu").learn(40, callback=evaluation)
    with np.load(tmp_path / "evaluations.npz") as evaluations:
        np.testing.assert_array_equal(evaluations["results"], evaluations["ep_lengths"])
        assert evaluations["results"].shape == (2, 4)


class ByAngle:
    """The part of a model that ``evaluate_policy`` uses."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        return by_angle(observation), None


def test_evaluation_counts_the_episodes_of_gymnasiums_own_vector_environment(open_envs: list[VecEnv]) -> None:
    n_envs, n_episodes = 3, 9
    raw = CartPoleVectorEnv(n_envs, max_episode_steps=45)
    observations, _ = raw.reset(seed=7)
    counted: list[list[int]] = [[] for _ in range(n_envs)]
    steps, ended = np.zeros(n_envs, int), np.zeros(n_envs, bool)
    while min(map(len, counted)) < n_episodes // n_envs:
        observations, _, terminated, truncated, _ = raw.step(by_angle(observations))
        steps = np.where(ended, 0, steps + 1)
        ended = terminated | truncated
        for i in np.flatnonzero(ended):
            counted[i].append(int(steps[i]))
    raw.close()
    venv = make_fast_vec_env("CartPole-v1", n_envs, seed=7, env_kwargs={"max_episode_steps": 45})
    open_envs.append(venv)
    returns, lengths = evaluate_policy(ByAngle(), venv, n_episodes, return_episode_rewards=True)
    expected = sorted(length for of_env in counted for length in of_env[: n_episodes // n_envs])
    assert sorted(lengths) == sorted(returns) == expected  # type: ignore[arg-type]
    assert len(set(expected)) > 1


# -- wrappers of SB3 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "wrap"),
    [
        ("CartPole-v1", lambda venv: VecNormalize(venv, gamma=0.9)),
        ("CartPole-v1", lambda venv: VecFrameStack(venv, 3)),
        ("CartPole-v1", lambda venv: VecNormalize(VecFrameStack(venv, 2), norm_obs=False)),
        ("tests/InParts-v0", lambda venv: VecNormalize(venv, norm_obs_keys=["cart", "pole"])),
        ("tests/Pictures-v0", lambda venv: VecFrameStack(VecTransposeImage(venv), 2)),
    ],
)
def test_around_environments_in_turn_the_wrappers_of_sb3_do_the_same(
    env: str, wrap: Callable[[VecEnv], VecEnv], open_envs: list[VecEnv]
) -> None:
    ours = wrap(make_fast_vec_env(env, 3, seed=1, vectorization_mode="sync", env_kwargs=SHORT))
    theirs = wrap(make_vec_env(env, 3, seed=1, env_kwargs=SHORT))
    open_envs += [ours, theirs]
    assert assert_same_trajectories(ours, theirs, steps=80) > 2


def same_forms() -> tuple[VecEnv, VecEnv]:
    """Make a vector entry point, and the same environments with ``sync``."""
    ours = make_fast_vec_env("tests/SameStepInParts-v0", 3, seed=1)
    assert ours.vectorization_mode == "vector_entry_point"
    return ours, make_vec_env("tests/InParts-v0", 3, seed=1)


@pytest.mark.filterwarnings("ignore:The environment is already wrapped with a `Monitor` wrapper")
@pytest.mark.parametrize(
    "wrap",
    [
        lambda venv: VecNormalize(venv, gamma=0.9, norm_obs_keys=["cart", "pole"]),
        lambda venv: VecFrameStack(VecExtractDictObs(venv, "pole"), 2),
        VecMonitor,
    ],
)
def test_around_a_vector_entry_point_the_wrappers_of_sb3_do_the_same(
    wrap: Callable[[VecEnv], VecEnv], open_envs: list[VecEnv]
) -> None:
    ours, theirs = map(wrap, same_forms())
    open_envs += [ours, theirs]
    assert assert_same_trajectories(ours, theirs, steps=80) > 2


@pytest.mark.parametrize("kwargs", [{}, {"norm_reward": False}, {"training": False}])
def test_observations_can_be_normalized(kwargs: dict[str, Any], open_envs: list[VecEnv]) -> None:
    venv = VecNormalize(make_fast_vec_env("CartPole-v1", 2, seed=0), **kwargs)
    open_envs.append(venv)
    venv.reset()
    seen = [venv.get_original_obs()]
    for actions in random_actions(venv, 50):
        venv.step(actions)
        seen.append(venv.get_original_obs())
    if venv.training:
        statistics: Any = venv.obs_rms
        np.testing.assert_allclose(statistics.mean, np.concatenate(seen).mean(0), atol=1e-4)  # type: ignore[arg-type]


# -- attributes and methods of single environments-----------------------------------------------------------------------------


def assert_access_to_single_environments(venv: VecEnv) -> None:
    """Check methods and attributes of a vectorised environment with two ``tests/Talks-v0``."""
    assert venv.env_method("twice", 4, plus=1) == [9, 9]
    assert venv.env_method("twice", 4, indices=1) == [8]
    assert venv.get_attr("gravity") == [9.8, 9.8]
    venv.set_attr("gravity", 5.5, indices=[1])
    assert venv.get_attr("gravity") == [9.8, 5.5]
    assert venv.get_attr("gravity", indices=-1) == [5.5]
    assert venv.env_method("get_wrapper_attr", "gravity") == [9.8, 5.5]
    assert venv.has_attr("twice")
    assert not venv.has_attr("thrice")
    with pytest.raises(AttributeError, match="thrice"):
        venv.get_attr("thrice")
    with pytest.raises(AttributeError, match="thrice"):
        venv.env_method("thrice")
    assert venv.env_is_wrapped(Monitor) == [True, True]
    assert venv.env_is_wrapped(Talks, indices=[0]) == [True]
    assert venv.env_is_wrapped(InParts) == [False, False]
    for name in ("reset", "step", "close"):
        with pytest.raises(ArgumentError, match=f"method_name='{name}'.*call {name}"):
            venv.env_method(name)
    assert venv.get_attr("episode_returns", indices=0) != []


def test_sync_gives_access_to_single_environments(open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("tests/Talks-v0", 2, seed=0, vectorization_mode="sync")
    open_envs.append(venv)
    venv.reset()
    for actions in random_actions(venv, 80):
        venv.step(actions)
    assert_access_to_single_environments(venv)
    assert venv.get_attr("unwrapped")[1].gravity == 5.5


def test_a_vector_entry_point_has_attributes_of_all_environments_only(open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("dqn_ext/CartPoleTerminalPenalty-v1", 3, seed=0)
    open_envs.append(venv)
    assert venv.get_attr("gravity") == [9.8] * 3
    assert venv.get_attr("terminal_reward", indices=[0, 2])[1].reward == -50.0  # of a wrapper
    venv.set_attr("gravity", 1.5)
    assert venv.get_attr("gravity", indices=1) == [1.5]
    assert venv.get_attr("unwrapped")[0].gravity == 1.5
    with pytest.raises(ArgumentError, match=r"indices=\[1\]: .* one 'gravity' for all"):
        venv.set_attr("gravity", 9.8, indices=1)
    with pytest.raises(ArgumentError, match="method_name='render' cannot be called on single environments"):
        venv.env_method("render")
    assert not venv.has_attr("lightness")
    with pytest.raises(AttributeError, match="lightness"):
        venv.get_attr("lightness")
    assert venv.env_is_wrapped(Monitor) == [True] * 3
    assert venv.env_is_wrapped(TimeLimit, indices=[0]) == [False]
    venv.set_options({"low": 0.03, "high": 0.04})
    observations: Any = venv.reset()
    assert ((observations > 0.029) & (observations < 0.041)).all()
    venv.set_options([{"low": 0.03, "high": 0.04}, {}, {}])
    with pytest.raises(ArgumentError, match="the same options"):
        venv.reset()


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_pictures_of_all_are_tiled(mode: str, open_envs: list[VecEnv]) -> None:
    venv = make_fast_vec_env("CartPole-v1", 4, seed=0, vectorization_mode=mode, env_kwargs={"render_mode": "rgb_array"})
    dark = make_fast_vec_env("CartPole-v1", 4, vectorization_mode=mode)
    open_envs += [venv, dark]
    venv.reset()
    assert [picture.shape for picture in venv.get_images() if picture is not None] == [(400, 600, 3)] * 4
    tiled = venv.render()
    assert tiled is not None
    assert tiled.shape == (800, 1200, 3)
    assert venv.render_mode == "rgb_array"
    with pytest.warns(UserWarning, match="The render mode is None"):
        assert dark.get_images() == [None] * 4


# -- modes and errors ------------------------------------------------------------------------------------------------------


class Plain(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that does not record its arguments."""


def dummy(wrap: Callable[[Any], Env] = lambda env: env, n_envs: int = 2, **kwargs: Any) -> VecEnv:
    return make_vec_env("CartPole-v1", n_envs, seed=4, wrapper_class=wrap, env_kwargs=kwargs)


@pytest.mark.parametrize(
    ("n_envs", "kwargs", "mode"),
    [
        (2, {}, "vector_entry_point"),
        (1, {}, "sync"),  # a vector entry point is slower for one environment
        (2, {"max_episode_steps": 7}, "vector_entry_point"),
        (2, {"max_episode_steps": -1}, "sync"),
        (2, {"disable_env_checker": True}, "vector_entry_point"),
    ],
)
def test_auto_uses_the_fastest_possible_mode(n_envs: int, kwargs: dict[str, Any], mode: str, open_envs: list[VecEnv]) -> None:
    open_envs += [make_fast_vec_env("CartPole-v1", n_envs, env_kwargs=kwargs), FastVecEnv(dummy(n_envs=n_envs, **kwargs))]
    assert [venv.vectorization_mode for venv in open_envs if isinstance(venv, FastVecEnv)] == [mode, mode]


def test_an_id_is_the_same_environment_for_any_number_of_environments(open_envs: list[VecEnv]) -> None:
    def make(n_envs: int, mode: str = "auto") -> FastVecEnv:
        open_envs.append(venv := make_fast_vec_env("tests/AnotherForm-v0", n_envs, vectorization_mode=mode))
        return venv

    single = make(1)
    with pytest.warns(
        UserWarning, match=r"'auto' is 'sync' here.* a different environment: it has the observations Box.*"
    ) as told:
        several = make(3)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert "vectorization_mode='vector_entry_point'" in str(told[0].message)
    assert (single.vectorization_mode, several.vectorization_mode) == ("sync", "sync")
    assert single.observation_space == several.observation_space == make_vec_env("tests/InParts-v0").observation_space
    for n_envs in (1, 3):
        assert make(n_envs, "vector_entry_point").observation_space == make_vec_env("tests/Talks-v0").observation_space


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ("tests/WithoutLimit-v0", "does not take its arguments: .*'max_episode_steps'"),
        ("tests/OnJax-v0", "cannot be used: it runs on jax"),
        ("tests/Never-v0", "cannot be used: it has autoreset_mode=AutoresetMode.DISABLED"),
        (
            "tests/NextStep-v0",
            "cannot be used: it has autoreset_mode=AutoresetMode.NEXT_STEP.* vectorization_mode='sync'",
        ),
    ],
)
def test_auto_does_not_use_an_unsupported_vector_entry_point(env: str, reason: str, open_envs: list[VecEnv]) -> None:
    with pytest.warns(UserWarning, match=f"'auto' is 'sync' here: the vector entry point of {env} {reason}"):
        open_envs.append(venv := make_fast_vec_env(env, 2, seed=0))
    assert venv.vectorization_mode == "sync"
    with pytest.raises(ArgumentError, match=f"the vector entry point of {env} {reason}"):
        make_fast_vec_env(env, 2, vectorization_mode="vector_entry_point")


def test_auto_uses_gymnasiums_atari_and_not_the_vector_entry_point_of_ale_py(open_envs: list[VecEnv]) -> None:
    ale_py = pytest.importorskip("ale_py")
    gym.register_envs(ale_py)
    with pytest.warns(
        UserWarning, match=r"observations Box\(0, 255, \(4, 84, 84\), uint8\) and .* rewards are clipped .* FIRE"
    ):
        open_envs.append(make_fast_vec_env("ALE/Breakout-v5", 2))
    assert open_envs[0].observation_space.shape == (210, 160, 3)
    open_envs.append(by_name := make_fast_vec_env("ALE/Breakout-v5", 1, 0, "vector_entry_point"))
    assert by_name.observation_space.shape == (4, 84, 84)
    by_name.reset()
    frames = by_name.reset_infos[0]["episode_frame_number"]
    assert 0 < frames <= 30 + 4
    assert by_name.step(np.array([0]))[3][0]["episode_frame_number"] == frames + 4
    open_envs.append(several := make_fast_vec_env("ALE/Breakout-v5", 2, 0, "vector_entry_point"))
    several.reset()
    by_ale_py = gym.make_vec("ALE/Breakout-v5", 2, "vector_entry_point")
    by_ale_py.reset(seed=0)
    for step in range(400):
        actions = np.array([step % 4, 0])
        expected, *_ = by_ale_py.step(actions)
        observations: Any
        observations, _, dones, infos = several.step(actions)
        assert [i for i, info in enumerate(infos) if "terminal_observation" in info or "final_obs" in info] == [
            *np.flatnonzero(dones)
        ]
        if dones.any():  # the two kinds of autoreset are equal up to here
            ended = int(np.argmax(dones))
            np.testing.assert_array_equal(infos[ended]["terminal_observation"], expected[ended])
            assert (observations[ended] != expected[ended]).any()
            assert infos[ended]["episode"]["l"] == step + 1
            break
    else:
        pytest.fail("no episode has ended")
    by_ale_py.close()


def test_a_wrapper_class_is_that_of_make_vec_env(tmp_path: Path, open_envs: list[VecEnv]) -> None:
    def make(function: Callable[..., VecEnv], folder: str, **kwargs: Any) -> VecEnv:
        kwargs |= {"wrapper_class": times, "wrapper_kwargs": {"factor": 3.0}, "env_kwargs": SHORT}
        open_envs.append(venv := function("CartPole-v1", 2, 5, monitor_dir=str(tmp_path / folder), **kwargs))
        return venv

    ours, theirs = make(make_fast_vec_env, "ours/logs"), make(make_vec_env, "theirs/logs", start_index=0)
    assert assert_same_trajectories(ours, theirs) > 4
    assert ours.step(np.array([0, 0]))[1].tolist() == [3, 3]
    for name in ("0.monitor.csv", "1.monitor.csv"):
        assert rows(tmp_path / "ours" / "logs" / name) == rows(tmp_path / "theirs" / "logs" / name) != []
    with pytest.raises(ArgumentError, match="times would be lost"):
        make(make_fast_vec_env, "ours", vectorization_mode="vector_entry_point")


def test_the_time_limit_is_taken_over(open_envs: list[VecEnv]) -> None:
    venv = FastVecEnv(dummy(max_episode_steps=7))
    open_envs.append(venv)
    venv.reset()
    ends = [venv.step(by_angle(np.zeros((2, 4))))[2].tolist() for _ in range(7)]
    assert ends == [[False, False]] * 6 + [[True, True]]


def test_an_env_wrapper_is_made_again_around_monitor(open_envs: list[VecEnv]) -> None:
    def wrap(env: Any) -> Any:
        return TerminalPenalty(env, -50.0)

    ours, theirs = FastVecEnv(dummy(wrap, n_envs=3)), dummy(wrap, n_envs=3)
    open_envs += [ours, theirs]
    assert ours.vectorization_mode == "sync"
    assert assert_same_trajectories(ours, theirs) > 4
    returns = np.concatenate(ours.get_attr("episode_returns"))
    np.testing.assert_array_equal(returns, np.concatenate(ours.get_attr("episode_lengths")))  # without the -50


@pytest.mark.parametrize(
    ("venv", "mode", "message"),
    [
        (lambda: dummy(Plain), "auto", "The wrapper Plain cannot be made again"),
        (
            lambda: dummy(lambda env: TimeLimit(env, 5)),
            "auto",
            "was TimeLimit around TimeLimit around .* spec makes TimeLimit",
        ),
        (lambda: DummyVecEnv([lambda: Monitor(Plain(gym.make("CartPole-v1")))]), "sync", "Plain .*Leave out FastVecEnv, or"),
        (lambda: dummy(lambda env: TerminalPenalty(env, -1)), "vector_entry_point", "TerminalPenalty would be lost"),
        (lambda: DummyVecEnv([CartPoleEnv]), "auto", "replaces only environments that gymnasium.make has made"),
        (lambda: DummyVecEnv([lambda: Monitor(CartPoleEnv())]), "auto", "has no spec"),
        (lambda: VecNormalize(dummy()), "auto", "not a VecNormalize; put wrappers of a VecEnv around"),
        (lambda: dummy(max_episode_steps=-1), "vector_entry_point", "without its time limit"),
        (
            lambda: make_vec_env("CartPole-v1", monitor_kwargs={"allow_early_resets": False}),
            "auto",
            "allow_early_resets=False",
        ),
        (dummy, "dummy", "vectorization_mode='dummy' is not known; .*Did you mean 'sync'"),
    ],
)
def test_environments_that_cannot_be_replaced_are_refused_and_not_closed(
    venv: Callable[[], VecEnv], mode: str, message: str, open_envs: list[VecEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = venv()
    open_envs.append(replaced)
    closed: list[str] = []
    monkeypatch.setattr(replaced, "close", lambda: closed.append("closed"))
    with pytest.raises(ArgumentError, match=message):
        FastVecEnv(replaced, mode)
    assert not closed


def test_auto_is_sync_for_environments_that_differ(open_envs: list[VecEnv]) -> None:
    venv = FastVecEnv(DummyVecEnv([partial(gym.make, "CartPole-v1", max_episode_steps=limit) for limit in (4, 6)]))
    open_envs.append(venv)
    venv.seed(0)
    venv.reset()
    dones = np.stack([venv.step(np.array([k % 2, k % 2]))[2] for k in range(6)])
    np.testing.assert_array_equal(dones.argmax(0), [3, 5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": "CartPol-v1"}, "id='CartPol-v1' is not known to gymnasium. Did you mean 'CartPole-v1'"),
        ({"id": "no_such_module:CartPole-v1"}, "No module named 'no_such_module'"),
        ({"id": 3}, "id=3 must be the id of an environment or an EnvSpec"),
        ({"n_envs": 0}, "n_envs=0 must be a whole number"),
        ({"n_envs": 2.5}, "n_envs=2.5 must be a whole number"),
        ({"seed": -1}, "seed=-1 must be a whole number"),
        ({"vectorization_mode": "snyc"}, "Did you mean 'sync'"),
        ({"vectorization_mode": "native"}, "Did you mean 'vector_entry_point'"),
        ({"vectorization_mode": None}, "vectorization_mode=None is not known"),
        ({"env_kwargs": ["render_mode"]}, "env_kwargs=.* must be a mapping"),
        ({"monitor_kwargs": {"info_keyword": ()}}, "Did you mean 'info_keywords'"),
        ({"monitor_dir": 3}, "monitor_dir=3 must be a folder"),
        ({"wrapper_class": "TimeLimit"}, "wrapper_class='TimeLimit' must be a wrapper or a function"),
        ({"wrapper_kwargs": {"factor": 2}}, "wrapper_kwargs={'factor': 2} has no effect without wrapper_class"),
        ({"id": "MountainCar-v0", "vectorization_mode": "vector_entry_point"}, "MountainCar-v0 has no vector entry point"),
        (
            {"vectorization_mode": "vector_entry_point", "env_kwargs": {"render_mode": "human"}},
            "render_mode='human' is for single environments",
        ),
        (
            {"id": "tests/Never-v0", "n_envs": 2, "vectorization_mode": "vector_entry_point"},
            "autoreset_mode=AutoresetMode.DISABLED",
        ),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make_fast_vec_env(**{"id": "CartPole-v1", **arguments})


def test_an_id_is_not_an_environment() -> None:
    with pytest.raises(ArgumentError, match="make_fast_vec_env takes an id"):
        FastVecEnv("CartPole-v1")  # type: ignore[arg-type]


def test_an_id_may_name_its_module_and_a_spec_will_do(open_envs: list[VecEnv]) -> None:
    open_envs.append(make_fast_vec_env("sb3_dqn_ext:dqn_ext/CartPoleNoVel-v1", 2))
    of_numpy: Any = np.array([2, 3])
    open_envs.append(make_fast_vec_env(gym.spec("CartPole-v1"), *of_numpy))
    observations: Any = open_envs[0].reset()
    assert (observations[:, [1, 3]] == 0).all()


# -- the zoo in another process, because it patches gymnasium -------------------------------------------------------------

ZOO = """
import sys
from stable_baselines3.common.env_util import make_vec_env
kwargs = dict(n_envs=2, seed=3, env_kwargs={"max_episode_steps": 15})
made_before = make_vec_env("CartPole-v1", **kwargs)
from rl_zoo3.train import train
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from tests.vec_env.test_fast_vec_env import assert_same_trajectories

for name in ("plain", "fast", "wrapped", "stock"):
    algo = "dqn" if name == "stock" else "dqn_ext"
    freq = "150" if name == "fast" else "-1"
    sys.argv = ["train", "--algo", algo, "--env", "CartPole-v1", "-n", "300", "-conf", name + ".yml", "-f", name]
    sys.argv += ["--seed", "1", "--eval-freq", freq, "--eval-episodes", "2"]
    try:
        train()
    except ValueError as error:
        print(name, "stopped:", error)

for ours in (FastVecEnv(made_before, "sync"), make_fast_vec_env("CartPole-v1", vectorization_mode="sync", **kwargs)):
    assert assert_same_trajectories(ours, make_vec_env("CartPole-v1", **kwargs)) > 4
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """
    Train by the zoo in another process; return the folder with the runs, and the output.
    """
    project = tmp_path_factory.mktemp("zoo")
    settings: dict[str, Any] = {
        "policy": "MlpPolicy",
        "n_timesteps": 300,
        "learning_starts": 50,
        "n_envs": 2,
        "env_kwargs": SHORT,
    }
    ours = "sb3_dqn_ext.vec_env.FastVecEnv"
    different: dict[str, dict[str, Any]] = {
        "plain": {},
        "fast": {"vec_env_wrapper": [{ours: {"vectorization_mode": "sync"}}]},
        "wrapped": {"vec_env_wrapper": ours, "env_wrapper": "rl_zoo3.wrappers.MaskVelocityWrapper"},
        "stock": {"vec_env_wrapper": ours},
    }
    for name, more in different.items():
        (project / f"{name}.yml").write_text(yaml.safe_dump({"CartPole-v1": settings | more}))
    return project, output(python("-c", ZOO, cwd=project, PYTHONPATH=str(ROOT)))


def test_the_zoo_trains_on_it_as_on_its_own_environments(zoo: tuple[Path, str]) -> None:
    fast, plain_run = (zoo[0] / name / "dqn_ext" / "CartPole-v1_1" for name in ("fast", "plain"))
    for name in ("0.monitor.csv", "1.monitor.csv"):
        assert rows(fast / name) == rows(plain_run / name) != []
    assert load_results(str(fast))["l"].le(30).all()
    with np.load(fast / "evaluations.npz") as evaluations:
        np.testing.assert_array_equal(evaluations["results"], evaluations["ep_lengths"])


def test_the_zoo_gets_an_error_where_a_wrapper_would_be_dropped(zoo: tuple[Path, str]) -> None:
    assert "wrapped stopped: The wrapper MaskVelocityWrapper cannot be made again" in zoo[1]


def test_the_zoos_own_algorithms_train_on_it(zoo: tuple[Path, str]) -> None:
    assert "stock stopped" not in zoo[1]
    assert load_results(str(zoo[0] / "stock" / "dqn" / "CartPole-v1_1"))["l"].le(30).all()


def test_the_package_is_imported_without_it_and_it_imports_nothing_else() -> None:
    code = (
        "import sys; from sb3_dqn_ext import DQNExt; before = set(sys.modules); assert 'sb3_dqn_ext.vec_env' not in before;"
        "import sb3_dqn_ext.vec_env; print(*sorted(m for m in set(sys.modules) - before if not m.startswith('sb3_dqn_ext.')))"
    )
    assert output(python("-c", code, cwd=ROOT)).split() == []


def test_vector_environments_of_gymnasium_are_closed() -> None:
    venv = make_fast_vec_env("tests/SameStep-v0", 2)
    inner = venv.get_attr("unwrapped")[0]
    assert isinstance(inner, VectorEnv)
    venv.close()
    venv.close()
    assert inner.closed
