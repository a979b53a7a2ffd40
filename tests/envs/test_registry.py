"""The environment ids under ``dqn_ext/``, compared with gymnasium's environments, in this process and in others."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor

from sb3_dqn_ext.envs.registry import register
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.zoo import default_config
from tests.processes import output, python

Env = gym.Env[Any, Any]
Policy = Callable[[Any], int]  # state of gymnasium's environment -> action

PENALTY = "dqn_ext/CartPoleTerminalPenalty-v1"
MOUNTAIN_CAR = "dqn_ext/MountainCarTerminalPenalty-v0"
RANDOM_START = "dqn_ext/CartPoleRandomStart-v0"
NO_VEL = "dqn_ext/CartPoleNoVel-v1"
BASES = {PENALTY: "CartPole-v1", MOUNTAIN_CAR: "MountainCar-v0", RANDOM_START: "CartPole-v0", NO_VEL: "CartPole-v1"}

GAMES = ["Catch-v0", *(f"MinAtar-{name}-v1" for name in ("Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"))]
BOARD_GAMES = ["ConnectFour-v0", "TicTacToe-v0"]

every_id = pytest.mark.parametrize("env_id", BASES)
vector_ids = pytest.mark.parametrize("env_id", [PENALTY, NO_VEL, RANDOM_START])


def balance(state: Any) -> int:
    """Return an action that balances CartPole's pole."""
    position, velocity, angle, turn = state
    return int(0.1 * position + 0.3 * velocity + 3 * angle + turn > 0)


def swing(state: Any) -> int:
    """Return an action in the direction of MountainCar's velocity, which reaches the goal."""
    return 2 if state[1] >= 0 else 0


def push(state: Any) -> int:
    """Return an action that makes CartPole's pole fall in about ten steps."""
    return 1


def stay(state: Any) -> int:
    """Return an action that never reaches MountainCar's goal."""
    return 1


def episode(env: Env, policy: Policy, seed: int = 0) -> tuple[list[float], str]:
    """Run an episode; return its rewards, and whether it terminated and was truncated."""
    env.reset(seed=seed)
    inner: Any = env.unwrapped
    rewards: list[float] = []
    while True:
        _, reward, terminated, truncated, _ = env.step(policy(inner.state))
        rewards.append(float(reward))
        if terminated or truncated:
            return rewards, "terminated" if terminated else "truncated"


def trace(env: Env, steps: int = 60, seed: int = 3) -> list[Any]:
    """Run some steps, with a reset after each episode; return all results as plain data."""
    actions = np.random.default_rng(seed)
    seen: list[Any] = [env.reset(seed=seed)[0].tolist()]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(actions.integers(2))
        seen.append([observation.tolist(), float(reward), bool(terminated), bool(truncated)])
        if terminated or truncated:
            seen.append(env.reset()[0].tolist())
    return seen


@every_id
def test_an_id_has_the_limit_and_the_threshold_of_the_environment_that_it_changes(env_id: str) -> None:
    ours, base = gym.spec(env_id), gym.spec(BASES[env_id])
    assert ours.max_episode_steps == base.max_episode_steps is not None
    assert ours.reward_threshold == base.reward_threshold is not None
    assert ours.version == base.version


# gymnasium's check warns of every wrapper, and of CartPole's observation space.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*A Box observation space .* value is -?infinity")
@every_id
def test_an_id_passes_the_checks_of_gymnasium_and_of_sb3(env_id: str) -> None:
    gymnasium_check_env(gym.make(env_id, render_mode="rgb_array"))
    sb3_check_env(gym.make(env_id))


@pytest.mark.parametrize("game", GAMES)
def test_a_game_takes_the_actions_of_its_space_only(game: str) -> None:
    env: Any = gym.make(f"dqn_ext/{game}")
    env.reset(seed=0)
    for action in (0, np.int64(env.action_space.n - 1), np.array(1)):
        env.step(action)
    for wrong in (-1, env.action_space.n):
        with pytest.raises(KeyError):
            env.step(wrong)


def test_registering_again_changes_nothing() -> None:
    before = dict(gym.registry)
    register()
    assert all(gym.registry[env_id] is before[env_id] for env_id in before)
    assert gym.registry.keys() == before.keys()


def test_a_fallen_pole_costs_50_and_the_time_limit_costs_nothing() -> None:
    rewards, end = episode(gym.make(PENALTY), push)
    assert end == "terminated"
    assert rewards == [1.0] * (len(rewards) - 1) + [-50.0]
    assert episode(gym.make(PENALTY), balance) == ([1.0] * 500, "truncated")
    assert episode(gym.make(PENALTY, max_episode_steps=700), balance) == ([1.0] * 700, "truncated")


@pytest.mark.parametrize(
    ("arguments", "before", "last"),
    [
        ({"reward": -7}, 1.0, -7.0),
        ({"mode": "add"}, 1.0, -49.0),
        ({"sutton_barto_reward": True}, 0.0, -50.0),
        ({"sutton_barto_reward": True, "mode": "add", "on": "terminated"}, 0.0, -51.0),
    ],
    ids=str,
)
def test_the_penalty_and_the_environment_take_their_arguments_from_make(
    arguments: dict[str, Any], before: float, last: float
) -> None:
    rewards, _ = episode(gym.make(PENALTY, **arguments), push)
    assert rewards == [before] * (len(rewards) - 1) + [last]


@pytest.mark.parametrize(
    ("arguments", "at_the_goal", "out_of_time"),
    [({}, -1.0, -20.0), ({"on": "done"}, -20.0, -20.0), ({"on": "terminated", "reward": -3.5}, -3.5, -1.0)],
    ids=str,
)
def test_mountain_car_has_its_penalty_at_the_time_limit_or_at_the_chosen_end(
    arguments: dict[str, Any], at_the_goal: float, out_of_time: float
) -> None:
    rewards, end = episode(gym.make(MOUNTAIN_CAR, **arguments), swing)
    assert end == "terminated"
    assert rewards == [-1.0] * (len(rewards) - 1) + [at_the_goal]
    assert episode(gym.make(MOUNTAIN_CAR, **arguments), stay) == ([-1.0] * 199 + [out_of_time], "truncated")
    for limit in (30, 300):  # the penalty is at the time limit that gym.make sets
        env = gym.make(MOUNTAIN_CAR, max_episode_steps=limit, **arguments)
        assert episode(env, stay) == ([-1.0] * (limit - 1) + [out_of_time], "truncated")


def test_a_random_action_comes_before_the_200_steps() -> None:
    assert episode(gym.make(RANDOM_START), balance) == ([1.0] * 200, "truncated")
    assert episode(gym.make(RANDOM_START, max_episode_steps=400), balance) == ([1.0] * 400, "truncated")
    plain: Any = gym.make("CartPole-v1")
    for seed in range(10):
        plain.reset(seed=seed)
        expected = plain.step(plain.unwrapped.np_random.integers(2))[0]
        np.testing.assert_array_equal(gym.make(RANDOM_START).reset(seed=seed)[0], expected)


def test_random_actions_come_first_in_the_vector_form_too() -> None:
    n_envs, limit = 5, 12
    vector = gym.make_vec(RANDOM_START, num_envs=n_envs, max_episode_steps=limit)
    native: Any = vector.unwrapped
    plain = CartPoleVectorEnv(num_envs=n_envs, max_episode_steps=limit)
    for seed in range(5):
        plain.reset(seed=seed)
        pushes = plain.np_random.integers(2, size=n_envs)
        np.testing.assert_array_equal(vector.reset(seed=seed)[0], plain.step(pushes)[0])
    moved = 0
    for _ in range(60):
        states = native.state.copy()
        observations, _, terminated, truncated, infos = vector.step(np.zeros(n_envs, dtype=np.int64))
        over = terminated | truncated
        # a push of 10 N on 1.1 kg for 0.02 s: about 0.18 m/s, more than the 0.05 that a reset gives
        begun = observations[over]
        assert (np.abs(begun[:, 1]) > 0.1).all()
        moved += len(begun)
        # each environment took its own action
        plain.state, plain.steps[:], plain.prev_done[:] = states, 0, False
        expected = plain.step(np.zeros(n_envs, dtype=np.int64))[0]
        np.testing.assert_array_equal(observations[~over], expected[~over])
        if over.any():
            np.testing.assert_array_equal(infos["final_obs"][over], expected[over])
    assert moved > 10


def test_an_episode_that_its_random_action_ends_is_reset_again() -> None:
    vector = gym.make_vec(RANDOM_START, num_envs=200)
    observations = vector.reset(seed=0, options={"low": 0.2, "high": 0.209})[0]
    # At 0.2095 a pole has fallen. With 0.2 to 0.209 a second, for 0.02 s, some get there; none of them is left there.
    assert (np.abs(observations[:, 2]) < 0.2095).all()
    velocities = observations[:, 1]  # a push changes the velocity by 0.2 in environments that were not reset again
    again = (velocities >= 0.2) & (velocities <= 0.209)
    assert 0 < again.sum() < 200
    assert (np.abs(velocities[~again] - 0.2045) > 0.1).all()


def test_the_velocities_are_hidden_and_nothing_else() -> None:
    env, plain = gym.make(NO_VEL), gym.make("CartPole-v1")
    assert env.observation_space == plain.observation_space
    hidden, shown = trace(env), trace(plain)
    for ours, theirs in zip(hidden, shown, strict=True):
        if len(theirs) == 2 or isinstance(theirs[0], list):
            assert ours[1:] == theirs[1:]
            ours, theirs = ours[0], theirs[0]
        assert ours == [theirs[0], 0.0, theirs[2], 0.0]
        assert not np.signbit(ours)[[1, 3]].any()
    assert episode(env, balance) == ([1.0] * 500, "truncated")


def test_monitor_reports_the_reward_of_the_id() -> None:
    env = Monitor(gym.make(PENALTY))
    rewards, _ = episode(env, push)
    assert env.get_episode_rewards() == [sum(rewards)] == [len(rewards) - 51]


@pytest.mark.parametrize("make", [gym.make, gym.make_vec], ids=["make", "make_vec"])
@pytest.mark.parametrize(
    ("env_id", "arguments", "error", "message"),
    [
        (PENALTY, {"rewrad": -1}, ArgumentError, "rewrad.*reward, sutton_barto_reward. Did you mean 'reward'"),
        (PENALTY, {"reward": "high"}, ArgumentError, "reward='high'"),
        (PENALTY, {"on": "done"}, ArgumentError, r"TerminalPenalty\(gym.make\('CartPole-v1'\), .*on='done'"),
        (PENALTY, {"on": "dome"}, ArgumentError, "Did you mean 'done'"),
        (MOUNTAIN_CAR, {"goal_velocty": 0.1}, ArgumentError, "Did you mean 'goal_velocity'"),
        (MOUNTAIN_CAR, {"mode": "replaced"}, ArgumentError, "Did you mean 'replace'"),
        (RANDOM_START, {"reward": -1}, ArgumentError, "reward.*can be one of: .*sutton_barto_reward"),
        (NO_VEL, {"reward": -1}, ArgumentError, "reward.*can be one of: .*sutton_barto_reward"),
    ],
    ids=str,
)
def test_a_wrong_argument_has_one_clear_answer(
    make: Callable[..., Any], env_id: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(env_id, **arguments)


@every_id
def test_an_id_is_rendered_in_every_way_that_its_environment_is(env_id: str) -> None:
    env = gym.make(env_id, render_mode="rgb_array_list")
    env.reset(seed=0)
    env.step(0)
    frames: Any = env.render()
    assert len(frames) >= 2
    assert all(frame.shape == (400, 600, 3) for frame in frames)
    env.close()


COPIES: dict[str, Callable[[EnvSpec], EnvSpec]] = {
    "itself": lambda spec: spec,
    "pickle": lambda spec: pickle.loads(pickle.dumps(spec)),
    "json": lambda spec: EnvSpec.from_json(spec.to_json()),
}


@pytest.mark.parametrize("copy", COPIES)
@every_id
def test_an_environment_is_made_again_from_its_spec(env_id: str, copy: str) -> None:
    env = gym.make(env_id)
    assert env.spec is not None
    assert env.spec == gym.spec(env_id)
    again = gym.make(COPIES[copy](env.spec))
    assert str(again) == str(env)
    assert again.spec == env.spec
    assert trace(again) == trace(env)


def test_a_spec_keeps_the_arguments_and_takes_others() -> None:
    for env_id, policy in ((PENALTY, push), (MOUNTAIN_CAR, stay)):
        spec = gym.make(env_id, reward=-7.0, max_episode_steps=30).spec
        assert spec is not None
        assert spec.kwargs == {**gym.spec(env_id).kwargs, "reward": -7.0}
        assert episode(gym.make(spec), policy)[0][-1] == -7.0
        assert episode(gym.make(spec, reward=-9.0), policy)[0][-1] == -9.0


@vector_ids
def test_the_vector_form_is_the_single_form_many_times(env_id: str) -> None:
    """Set each single environment to the state in the vector environment before every step."""
    n_envs, limit = 4, 25
    for arguments in [{}, {"sutton_barto_reward": True}] + [{"reward": -7.0, "mode": "add"}] * (env_id == PENALTY):
        vector = gym.make_vec(env_id, num_envs=n_envs, max_episode_steps=limit, **arguments)
        assert isinstance(vector.unwrapped, CartPoleVectorEnv)
        native: Any = vector.unwrapped
        singles = [gym.make(env_id, max_episode_steps=limit, **arguments) for _ in range(n_envs)]
        assert vector.single_observation_space == singles[0].observation_space
        assert vector.single_action_space == singles[0].action_space
        for env in singles:
            env.reset()
        hidden = [1, 3] if env_id == NO_VEL else []
        start = vector.reset(seed=0)[0]
        np.testing.assert_array_equal(np.delete(start, hidden, 1), np.delete(native.state.T.astype(np.float32), hidden, 1))
        assert not start[:, hidden].any()
        actions = np.random.default_rng(0)
        ends = np.zeros(2, dtype=int)
        for _ in range(250):
            action = actions.integers(2, size=n_envs)
            states = native.state.T.copy()  # (n_envs, 4)
            observations, rewards, terminated, truncated, infos = vector.step(action)
            assert observations.dtype == np.float32
            for i, env in enumerate(singles):
                inner: Any = env.unwrapped
                inner.state = states[i]
                observation, *rest, _ = env.step(action[i])
                assert [rewards[i], terminated[i], truncated[i]] == rest
                seen = observations[i]
                if terminated[i] or truncated[i]:
                    env.reset()
                    expected = np.where(np.isin(range(4), hidden), 0, native.state.T[i]).astype(np.float32)
                    np.testing.assert_array_equal(observations[i], expected)
                    seen = infos["final_obs"][i]
                np.testing.assert_allclose(seen, observation, rtol=1e-6)  # sines of arrays differ in a last bit
            ends += [terminated.sum(), (truncated & ~terminated).sum()]
        assert (ends > 5).all()


@vector_ids
def test_the_vector_form_has_the_time_limit_of_the_single_form(env_id: str) -> None:
    vector = gym.make_vec(env_id, num_envs=2)
    native: Any = vector.unwrapped
    vector.reset(seed=0)
    limit = gym.spec(env_id).max_episode_steps
    assert limit is not None
    for _ in range(limit - 1):
        _, rewards, terminated, truncated, _ = vector.step(np.array([balance(state) for state in native.state.T]))
        assert (rewards == 1).all()
        assert not (terminated | truncated).any()
    _, rewards, terminated, truncated, _ = vector.step(np.array([0, 1]))
    assert (rewards == 1).all()
    assert (truncated & ~terminated).all()


@every_id
def test_many_environments_one_after_another_are_the_single_ones(env_id: str) -> None:
    n_envs, limit = 3, 12
    vector = gym.make_vec(env_id, num_envs=n_envs, vectorization_mode="sync", max_episode_steps=limit)
    singles = [gym.make(env_id, max_episode_steps=limit) for _ in range(n_envs)]
    starts = vector.reset(seed=5)[0]
    for i, env in enumerate(singles):
        np.testing.assert_array_equal(starts[i], env.reset(seed=5 + i)[0])
    over = [False] * n_envs
    actions = np.random.default_rng(0)
    for _ in range(60):
        action = actions.integers(2, size=n_envs)
        together = vector.step(action)[:4]
        for i, env in enumerate(singles):
            alone = (env.reset()[0], 0.0, False, False) if over[i] else env.step(action[i])[:4]
            for ours, theirs in zip(together, alone, strict=True):
                np.testing.assert_array_equal(ours[i], theirs)
            over[i] = bool(alone[2] or alone[3])


@every_id
def test_a_vector_is_made_of_the_vector_form_where_there_is_one(env_id: str) -> None:
    vector = gym.make_vec(env_id, num_envs=2)
    assert isinstance(vector.unwrapped, SyncVectorEnv if env_id == MOUNTAIN_CAR else CartPoleVectorEnv)
    assert vector.spec is not None
    again = gym.make_vec(vector.spec)
    assert str(again) == str(vector)
    assert again.num_envs == 2
    assert again.spec == vector.spec
    spec_of_one = gym.make(env_id).spec
    assert spec_of_one is not None
    assert str(gym.make_vec(spec_of_one, num_envs=2)) == str(vector)


@every_id
def test_sb3_makes_its_own_vectors_of_an_id(env_id: str) -> None:
    venv = make_vec_env(env_id, n_envs=2, seed=0, env_kwargs={"max_episode_steps": 5})
    venv.reset()
    ends = [venv.step(np.array([0, 1]))[2].tolist() for _ in range(5)]
    assert ends[4] == [True, True]


@every_id
def test_the_zoo_has_the_numbers_of_the_environment_that_an_id_changes(env_id: str) -> None:
    hyperparameters = yaml.safe_load(Path(default_config()).read_text())
    assert hyperparameters[env_id].items() >= hyperparameters[BASES[env_id].replace("CartPole-v0", "CartPole-v1")].items()


# In other processes


@pytest.fixture(scope="module")
def traces() -> dict[str, list[Any]]:
    """The traces of the environments in this process."""
    return {env_id: trace(gym.make(env_id)) for env_id in BASES}


# The code of `trace` for processes that do not import the tests.
TRACE = """
import numpy as np

def trace(env, steps=60, seed=3):
    actions = np.random.default_rng(seed)
    seen = [env.reset(seed=seed)[0].tolist()]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(actions.integers(2))
        seen.append([observation.tolist(), float(reward), bool(terminated), bool(truncated)])
        if terminated or truncated:
            seen.append(env.reset()[0].tolist())
    return seen
"""


def test_a_process_that_has_not_imported_the_package_makes_the_environments_of_a_pickle(
    traces: dict[str, list[Any]], tmp_path: Path
) -> None:
    (tmp_path / "specs").write_bytes(pickle.dumps({env_id: gym.spec(env_id) for env_id in BASES}))
    code = f"""{TRACE}
import json, pickle, sys
specs = pickle.load(open("specs", "rb"))
assert "sb3_dqn_ext" not in sys.modules
import gymnasium as gym
print(json.dumps({{env_id: trace(gym.make(spec)) for env_id, spec in specs.items()}}))
for env_id, spec in specs.items():
    assert str(gym.make_vec(spec, num_envs=2)) == str(gym.make_vec(env_id, num_envs=2))
"""
    assert json.loads(output(python("-W", "error", "-c", code, cwd=tmp_path))) == traces


def test_the_ids_are_there_after_the_import_and_their_environments_are_not_imported_yet(tmp_path: Path) -> None:
    expected = sorted([*BASES, *(f"dqn_ext/{game}" for game in [*GAMES, *BOARD_GAMES])])
    code = f"""
import sys
import gymnasium as gym
import sb3_dqn_ext
assert not [name for name in sys.modules if name.startswith("gymnasium.envs.classic_control")]
assert sorted(env_id for env_id in gym.registry if env_id.startswith("dqn_ext/")) == {expected}
"""
    output(python("-W", "error", "-c", code, cwd=tmp_path))


# Plays until each environment has ended once, and prints what the episodes were worth and their lengths.
PLAY = """
def play(venv):
    venv.seed(0)
    venv.reset()
    ended = {}
    while len(ended) < venv.num_envs:
        _, _, dones, infos = venv.step(np.ones(venv.num_envs, dtype=int))
        for i in np.flatnonzero(dones):
            ended.setdefault(int(i), infos[i]["episode"])
    venv.close()
    for i in sorted(ended):
        print(ended[i]["r"], ended[i]["l"])
"""


def test_a_spawned_worker_of_a_script_that_imports_the_package_finds_an_id(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(f"""
import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

import sb3_dqn_ext
{PLAY}
if __name__ == "__main__":
    play(make_vec_env("{PENALTY}", 1, vec_env_cls=SubprocVecEnv, vec_env_kwargs={{"start_method": "spawn"}}))
""")
    earned, steps = map(float, output(python("script.py", cwd=tmp_path)).split())
    assert earned == steps - 51


def test_a_spawned_worker_without_a_script_finds_an_id_that_names_its_module_and_a_spec(tmp_path: Path) -> None:
    code = f"""
import gymnasium as gym
import numpy as np
import sb3_dqn_ext
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import SubprocVecEnv
{PLAY}
spec = gym.spec("{PENALTY}")
makes = [lambda: Monitor(gym.make("sb3_dqn_ext:{NO_VEL}")), lambda: Monitor(spec.make())]
play(SubprocVecEnv(makes, start_method="spawn"))
"""
    no_vel, penalty = output(python("-c", code, cwd=tmp_path)).splitlines()
    earned, steps = map(float, no_vel.split())
    assert earned == steps
    earned, steps = map(float, penalty.split())
    assert earned == steps - 51


def test_vectors_of_processes_are_those_of_one_process(tmp_path: Path) -> None:
    code = f"""
import gymnasium as gym
import numpy as np
for env_id in {list(BASES)}:
    modes = [
        gym.make_vec("sb3_dqn_ext:" + env_id, 2, mode, max_episode_steps=12, vector_kwargs=kwargs)
        for mode, kwargs in (("sync", {{}}), ("async", {{"context": "fork"}}))
    ]
    starts = [venv.reset(seed=0)[0] for venv in modes]
    np.testing.assert_array_equal(*starts)
    actions = np.random.default_rng(0)
    for _ in range(30):
        action = actions.integers(2, size=2)
        for ours, theirs in zip(*(venv.step(action)[:4] for venv in modes), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for venv in modes:
        venv.close()
"""
    output(python("-c", code, cwd=tmp_path))


def test_the_zoo_has_the_same_environment_without_velocities_and_its_time_limit_the_same_penalty(tmp_path: Path) -> None:
    code = f"""{TRACE}
import rl_zoo3.import_envs
import gymnasium as gym
import sb3_dqn_ext
assert gym.wrappers.TimeLimit.__module__ == "rl_zoo3.gym_patches"
assert trace(gym.make("{NO_VEL}"), 300) == trace(gym.make("CartPoleNoVel-v1"), 300)
env = gym.make("{MOUNTAIN_CAR}")
env.reset(seed=0)
rewards = [env.step(1)[1] for _ in range(200)]
assert rewards == [-1] * 199 + [-20], rewards[-2:]
"""
    output(python("-c", code, cwd=tmp_path))


def test_the_zoo_trains_an_id_and_enjoys_the_agent(tmp_path: Path) -> None:
    train = ("-m", "rl_zoo3.train", "--algo", "dqn_ext", "-f", "logs", "-n", "300", "--eval-freq", "-1", "--seed", "1")
    output(python(*train, "--env", PENALTY, cwd=tmp_path))
    output(python(*train, "--env", MOUNTAIN_CAR, "--gym-packages", "sb3_dqn_ext", cwd=tmp_path))
    runs = tmp_path / "logs" / "dqn_ext"
    assert (runs / "dqn_ext-MountainCarTerminalPenalty-v0_1" / "dqn_ext-MountainCarTerminalPenalty-v0.zip").is_file()
    monitored = (runs / "dqn_ext-CartPoleTerminalPenalty-v1_1" / "0.monitor.csv").read_text().splitlines()[2:]
    for line in monitored:
        earned, steps, _ = map(float, line.split(","))
        assert earned == steps - 51
    assert len(monitored) > 5
    enjoy = ("-m", "rl_zoo3.enjoy", "--algo", "dqn_ext", "-f", "logs", "--no-render", "-n", "300")
    assert "Mean reward" in output(python(*enjoy, "--env", PENALTY, cwd=tmp_path))
