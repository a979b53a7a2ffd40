"""Vectorised environments whose states are restored, compared with the same environments without interruption."""

from collections.abc import Callable
from functools import partial
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.wrappers.vector import NormalizeObservation
from stable_baselines3.common.env_util import make_vec_env
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

from sb3_dqn_ext.checkpoint.envs import ReplayWrapper, make_resumable
from sb3_dqn_ext.checkpoint.envs.resumable_envs import check_vector_env
from sb3_dqn_ext.checkpoint.envs.states import current_observations, environments_state, restore_environments
from sb3_dqn_ext.env_factory import EnvFactory, layers_of
from sb3_dqn_ext.envs import RandomFirstStep, TerminalPenalty
from sb3_dqn_ext.envs.cart_poles import SameStepCartPoleVectorEnv
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from sb3_dqn_ext.vec_env.async_ import AsyncBackend
from tests.checkpoint.envs.helpers import MAKERS, Moody, dumped, exact, is_plain, loaded
from tests.parity import short_cartpole

pytestmark = pytest.mark.usefixtures("box2d")

Env = gym.Env[Any, Any]


def single(kind: str = "cut short") -> Env:
    return MAKERS[kind]()


def resumable(kind: str) -> Env:
    return ReplayWrapper(MAKERS[kind]())


def two_parts() -> Env:
    return gym.wrappers.FilterObservation(single("in parts"), ["cart", "pole"])


def fast(mode: str, n_envs: int, id: str = "CartPole-v1") -> VecEnv:
    return make_fast_vec_env(id, n_envs, seed=None, vectorization_mode=mode, env_kwargs={"max_episode_steps": 13})


def atari_games() -> VecEnv:
    gym.register_envs(ale_py)
    kwargs = {"img_height": 36, "img_width": 36, "max_num_frames_per_episode": 50, "reseed_every": 20}
    return make_fast_vec_env("ALE/Breakout-v5", 2, env_kwargs=kwargs)


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
    "at once, Catch": lambda: make_fast_vec_env("dqn_ext/Catch-v0", 3),
    "Atari games": atari_games,
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
        told.append(exact([observations, np.float32(rewards), dones, more]))  # SubprocVecEnv does not convert rewards
    return told


@pytest.mark.parametrize("name", VEC_MAKERS)
def test_restored_vectorised_environments_continue_like_the_first(name: str, open_envs: list[VecEnv]) -> None:
    a, b = (make_resumable(VEC_MAKERS[name]()) for _ in range(2))
    open_envs += [a, b]
    assert make_resumable(a) is a
    a.seed(5)
    b.seed(6)  # a seed for a reset that does not follow
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
    if name != "pictures":  # its space, and the generator of that, are class attributes
        a.reset()
        b.reset()
        assert dumped(environments_state(b)) == dumped(environments_state(a))


@pytest.mark.parametrize("name", [name for name in VEC_MAKERS if name.startswith("at once")])
def test_episodes_that_have_just_begun_are_restored(name: str, open_envs: list[VecEnv]) -> None:
    a, b = (make_resumable(VEC_MAKERS[name]()) for _ in range(2))
    open_envs += [a, b]
    a.set_options({"low": 0.01, "high": 0.02})  # the options of all resets, until others are set
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
    return ReplayWrapper(TerminalPenalty(RandomFirstStep(env), -5.0))


@pytest.mark.parametrize(
    "elsewhere", [lambda: watched_cartpoles(SubprocVecEnv), lambda: FastVecEnv(watched_cartpoles(), "async")]
)
def test_environments_in_other_processes_continue_like_those_in_this_process(
    elsewhere: Callable[[], VecEnv], open_envs: list[VecEnv]
) -> None:
    a, b = make_resumable(watched_cartpoles()), make_resumable(elsewhere())
    open_envs += [a, b]
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
    assert len(restore_environments(b, broken)) == 1  # the processes still run
    assert exact(vec_followed(b, 1, seed=3)[0][0])[0] == "<f4"


@pytest.mark.parametrize(
    "name", ["one", "in parts", "in turn", "normalized", "stacked", "stacked parts", "pictures", "counted"]
)
def test_the_current_observations_are_those_of_the_last_step(name: str, open_envs: list[VecEnv]) -> None:
    venv = make_resumable(VEC_MAKERS[name]())
    open_envs.append(venv)
    observations: Any = venv.reset()
    for _ in range(20):
        assert exact(current_observations(venv)) == exact(observations)
        observations = venv.step(np.ones(venv.num_envs, int))[0]


class SometimesMoody(Moody):
    """A Moody if its argument is True, otherwise a deterministic environment."""

    def __init__(self, moody: bool) -> None:
        self.moody = moody

    def moved(self) -> float:
        return super().moved() if self.moody else float(self.np_random.random())


def test_environments_that_cannot_be_restored_are_reported_and_the_others_continue() -> None:
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


def test_environments_in_other_processes_must_be_made_resumable_there(open_envs: list[VecEnv]) -> None:
    open_envs.append(venv := SubprocVecEnv([single]))
    with pytest.raises(ArgumentError, match=r"Write SubprocVecEnv\(\[lambda: ReplayWrapper\(gym.make"):
        make_resumable(venv)
    fast = FastVecEnv.__new__(FastVecEnv)  # a backend without its processes
    fast.backend = processes = AsyncBackend.__new__(AsyncBackend)
    for wrappers in (), (RandomFirstStep.wrapper_spec(),), (ReplayWrapper.wrapper_spec(), RandomFirstStep.wrapper_spec()):
        processes.factories = [EnvFactory(gym.spec("CartPole-v1"), wrappers=wrappers)]
        with pytest.raises(ArgumentError, match=r"Write make_fast_vec_env\(.*wrapper_class=ReplayWrapper"):
            make_resumable(fast)


class MyCartPoles(SameStepCartPoleVectorEnv):  # type: ignore[misc]  # to mypy sb3_dqn_ext.envs is Any, see pyproject.toml
    """A subclass, which could have more state."""


class CartPolesWithState(MyCartPoles):
    """A subclass with methods for its state."""

    def get_state(self) -> dict[str, Any]:
        return {"state": self.state, "steps": self.steps}

    def set_state(self, state: dict[str, Any]) -> None:
        self.state, self.steps = state["state"], state["steps"]


def test_a_vector_environment_of_the_user_is_restored_by_its_own_methods(open_envs: list[VecEnv]) -> None:
    gym.register("tests/CartPoles-v0", "gymnasium.envs.classic_control:CartPoleEnv", vector_entry_point=CartPolesWithState)
    one, two = [fast("vector_entry_point", 3, "tests/CartPoles-v0") for _ in range(2)]
    open_envs += [one, two]
    one.reset()
    vec_followed(one, 20, seed=1)
    assert restore_environments(two, loaded(dumped(environments_state(one)))) == []
    assert vec_followed(two, 40, seed=2) == vec_followed(one, 40, seed=2)
    del gym.registry["tests/CartPoles-v0"]


def test_vector_environments_that_are_not_known_are_refused() -> None:
    for unknown in (MyCartPoles(2), NormalizeObservation(CartPoleVectorEnv(2)), CartPoleVectorEnv(2)):
        with pytest.raises(ArgumentError, match=f"entry point {type(unknown).__name__} cannot be saved"):
            check_vector_env(unknown)


def test_other_vectorised_environments_are_refused() -> None:
    venv = VecCheckNan(dummy("cut short", 1))
    assert layers_of(make_resumable(venv)) == [venv.venv, venv]
    unknown: Any = type("Unknown", (VecEnv,), dict.fromkeys(VecEnv.__abstractmethods__))
    with pytest.raises(ArgumentError, match="environments of a Unknown cannot be made resumable, only those of a DummyVecEnv"):
        make_resumable(unknown.__new__(unknown))


def test_states_of_others_are_refused(open_envs: list[VecEnv]) -> None:
    one, two = make_resumable(dummy("cut short", 1)), make_resumable(VecNormalize(dummy("cut short", 2)))
    open_envs += [one, two, plain := dummy("cut short", 1)]
    one.reset()
    with pytest.raises(ArgumentError, match="of 1 single environments, and not of 2 single environments in VecNo"):
        restore_environments(two, environments_state(one))
    with pytest.raises(ArgumentError, match=r"Call make_resumable\(env\) before"):
        environments_state(plain)


def test_states_of_cart_poles_that_were_reset_one_step_later_are_refused(open_envs: list[VecEnv]) -> None:
    open_envs.append(venv := make_resumable(fast("vector_entry_point", 2)))
    venv.reset()
    states = environments_state(venv)
    states[0]["layer"] = "a vector entry point"  # the layer name in earlier checkpoints
    with pytest.raises(ArgumentError, match=r"a vector entry point, and not .* with same-step resets"):
        restore_environments(venv, states)
