"""One environment brought back to where it was, against the same one that was never interrupted."""

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.monitor import Monitor

from sb3_dqn_ext.checkpoint.envs import ReplayWrapper, replay_wrapper
from sb3_dqn_ext.checkpoint.envs.plain_data import pack_actions, unpack_actions
from sb3_dqn_ext.checkpoint.envs.replay_wrapper import EnvRestoreError
from sb3_dqn_ext.envs import RandomFirstStep
from tests.checkpoint.envs.helpers import (
    MAKERS,
    DrawsFromAll,
    Fickle,
    Lives,
    Moody,
    Stubborn,
    actions_for,
    begun,
    dumped,
    exact,
    followed,
    in_episodes,
    is_plain,
    loaded,
)
from tests.parity import short_cartpole
from tests.paths import ROOT
from tests.processes import output, python

Env = gym.Env[Any, Any]


@pytest.mark.parametrize("steps", [0, 1, 47, 120])
@pytest.mark.parametrize("name", MAKERS)
def test_another_environment_goes_on_as_the_first(name: str, steps: int) -> None:
    a, b = begun(name, steps), ReplayWrapper(MAKERS[name]())
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
from tests.checkpoint.envs.helpers import *
for name in sys_names:
    env = ReplayWrapper(MAKERS[name]())
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

    a, b = ReplayWrapper(make("a")), ReplayWrapper(make("b"))
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
    a, b = (ReplayWrapper(MAKERS["lives"]()) for _ in range(2))
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
    env, other = (ReplayWrapper(DrawsFromAll()) for _ in range(2))
    env.reset()
    env.step(0)
    state = env.get_state()
    np.random.seed(4)
    expected = np.random.random(3).tolist()
    np.random.seed(4)
    with pytest.raises(EnvRestoreError):
        other.set_state(state)
    assert np.random.random(3).tolist() == expected


def test_one_who_draws_from_the_action_space_is_no_hindrance() -> None:
    env, other = begun("CartPole", 20), ReplayWrapper(MAKERS["CartPole"]())
    env.action_space.seed(3)
    env.reset()
    for _ in range(5):
        env.step(env.action_space.sample())
    other.set_state(env.get_state())
    assert [other.action_space.sample() for _ in range(9)] == [env.action_space.sample() for _ in range(9)]


def test_options_and_pythons_own_numbers_are_given_again() -> None:
    env, other = (ReplayWrapper(gym.make("CartPole-v1")) for _ in range(2))
    options = {"low": 0.01, "high": 0.02}
    env.reset(seed=3, options=options)
    options["low"] = -1.0
    for action in (0, 1, 1):
        env.step(action)
    state = env.get_state()
    assert exact(other.set_state(state)) == exact(env.last_observation)
    assert [type(action) for action in unpack_actions(state)] == [int] * 3


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
    state = pack_actions(actions)
    assert isinstance(state["actions"], kind)
    back = unpack_actions(loaded(dumped(state)))
    assert exact(back) == exact(actions)
    assert [type(action) for action in back if np.isscalar(action)] == [type(a) for a in actions if np.isscalar(a)]


def test_an_array_that_is_written_again_is_remembered_as_it_was() -> None:
    env, other = (ReplayWrapper(MAKERS["late"]()) for _ in range(2))
    env.reset(seed=1, options={"x": 2.0})
    action = np.array([1, 2])
    env.step(action)
    action[:] = 0
    env.step(action)
    assert exact(other.set_state(env.get_state())) == exact(env.last_observation)


# -- one environment that cannot be restored ---------------------------------------------------------------------------------


def test_an_environment_that_goes_its_own_ways_is_reported_and_begins_anew() -> None:
    a, b = (ReplayWrapper(in_episodes(Moody())) for _ in range(2))
    a.reset(seed=1)
    a.step(0)
    with pytest.raises(EnvRestoreError, match=r"Moody cannot be restored .*: its observation differs"):
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
        (ReplayWrapper(MAKERS["cut short"]()).get_state(), "it was not reset since it is watched"),
    ]:
        with pytest.raises(EnvRestoreError, match=message):
            env.set_state(wrong)
        env.reset()
        followed(env, actions_for(env, 20, seed=1))
    env.set_state(state)


def test_what_is_no_plain_data_is_said_when_it_is_restored_and_not_before() -> None:
    env = ReplayWrapper(gym.make("CartPole-v1"))
    env.reset(options={"of": {1, 2}})
    with pytest.raises(EnvRestoreError, match="set is no plain data, and it is part of"):
        env.set_state(env.get_state())


def test_time_is_part_of_the_state() -> None:
    """CartPole's observation does not tell it, and here no episode ends before it is up."""
    a, b = (ReplayWrapper(Monitor(short_cartpole(6))) for _ in range(2))
    a.reset(seed=1)
    a.step(0)
    a.step(1)
    b.set_state(a.get_state())
    told = [b.step(action) for action in (0, 1, 0, 1)]
    assert [step[3] for step in told] == [False, False, False, True]
    assert told[-1][4]["episode"]["l"] == told[-1][4]["episode"]["r"] == 6


def test_a_state_of_its_own_is_used_where_actions_would_not_lead_there() -> None:
    a, b = begun("own state", 19), ReplayWrapper(MAKERS["own state"]())
    state = a.get_state()
    assert state["own"]["state"]["x"] == a.unwrapped.x  # type: ignore[attr-defined]
    b.set_state(state)
    told = [env.step(1)[1] for _ in range(11) for env in (a, b)]
    assert told[::2] == told[1::2]
    assert sum(a.get_wrapper_attr("rewards")) == sum(b.get_wrapper_attr("rewards")) > 0


def test_lives_are_those_of_the_state_of_its_own() -> None:
    a, b = (ReplayWrapper(EpisodicLifeEnv(Fickle())) for _ in range(2))
    a.reset(seed=1)
    for _ in range(12):
        a.step(1)
        b.set_state(a.get_state())
        assert b.get_wrapper_attr("lives") == a.get_wrapper_attr("lives") == b.unwrapped.ale.lives()  # type: ignore[attr-defined]


def test_a_state_of_its_own_that_is_not_taken_is_noticed() -> None:
    a, b = (ReplayWrapper(Stubborn()) for _ in range(2))
    a.reset()
    with pytest.raises(EnvRestoreError, match="it has another state than the one it was given"):
        b.set_state(a.get_state())


def test_an_episode_that_has_ended_is_restored_too() -> None:
    a, b = (ReplayWrapper(Monitor(short_cartpole(5))) for _ in range(2))
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
    with pytest.raises(EnvRestoreError):
        ReplayWrapper(MAKERS["cut short"]()).set_state(state)


def test_without_the_actions_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun("cut short", 50).get_state()
    monkeypatch.setattr(replay_wrapper, "unpacked", lambda state: [])
    with pytest.raises(EnvRestoreError):
        ReplayWrapper(MAKERS["cut short"]()).set_state(state)


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
    a, b = begun("cut short", 50), ReplayWrapper(MAKERS["cut short"]())
    b.set_state(a.get_state())
    for name, value in harm.items():
        assert b.set_wrapper_attr(name, value, force=False)
    actions = actions_for(a, 80, seed=2)
    assert followed(b, actions) != followed(a, actions)
