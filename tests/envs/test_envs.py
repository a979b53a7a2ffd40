"""The environment wrappers, compared with the environments they wrap."""

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import DQN
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext.envs import RandomFirstStep, TerminalPenalty, VectorTerminalPenalty
from sb3_dqn_ext.errors import ArgumentError
from tests.paths import ROOT

Env = gym.Env[Any, Any]
Rewards = npt.NDArray[Any]

VARIANTS = [
    {"reward": -50.0},
    {"reward": -50, "mode": "add"},
    {"reward": -5.5, "on": "truncated"},
    {"reward": 7.25, "mode": "add", "on": "truncated"},
    {"reward": -50.0, "on": "done"},
    {"reward": -50.0, "mode": "add", "on": "done"},
]


class Walk(gym.Env[npt.NDArray[np.float32], np.int64]):
    """A walk of 2 to 8 steps whose reward is the number of the step, or half of it for action 0."""

    observation_space = gym.spaces.Box(0, 8, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self.length = int(self.np_random.integers(2, 9))
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: np.int64) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        reward = self.steps * (1.0 if action else 0.5)
        return np.array([self.steps], np.float32), reward, self.steps >= self.length, False, {"steps": self.steps}


def limited_walk() -> Env:
    """Make a walk of 2 to 8 steps with a time limit of 5; a walk of 5 steps both terminates and is truncated."""
    return TimeLimit(Walk(), 5)


def expected_reward(
    own: float, terminated: bool, truncated: bool, reward: float, mode: str = "replace", on: str = "terminated"
) -> float:
    """Compute the reward of TerminalPenalty from its docstring, independently of its code."""
    cut_short = truncated and not terminated
    meant = {"terminated": terminated, "truncated": cut_short, "done": terminated or cut_short}[on]
    if not meant:
        return own
    return own + reward if mode == "add" else reward


def rollout(env: Env, steps: int, seed: int = 0) -> Iterator[tuple[Any, Any, bool, bool, dict[str, Any]]]:
    """Take random actions, and reset the environment after each episode."""
    actions = np.random.default_rng(seed)
    env.reset(seed=seed)
    for _ in range(steps):
        step = env.step(actions.integers(2))
        yield step
        if step[2] or step[3]:
            env.reset()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_only_the_chosen_kind_of_end_has_the_terminal_reward(variant: dict[str, Any]) -> None:
    raw = rollout(limited_walk(), 400)
    changed = 0
    for own, seen in zip(raw, rollout(TerminalPenalty(limited_walk(), **variant), 400), strict=True):
        _, own_reward, terminated, truncated, _ = own
        assert seen[1] == expected_reward(own_reward, terminated, truncated, **variant)
        assert type(seen[1]) is float
        assert seen[2:4] == own[2:4]
        assert seen[4] == {"original_reward": own_reward, "steps": seen[4]["steps"]}
        changed += seen[1] != own_reward
    assert changed > 20


class Forms(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that returns flags and rewards as other types."""

    def __init__(self, env: Env, form: Callable[[Any], Any]) -> None:
        super().__init__(env)
        self.form = form

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, np.array([reward]), self.form(terminated), self.form(truncated), info


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("form", [int, float, np.bool_, lambda end: np.array([end])])
def test_ends_and_rewards_are_read_in_any_form(variant: dict[str, Any], form: Callable[[Any], Any]) -> None:
    raw = rollout(limited_walk(), 30)
    for own, seen in zip(raw, rollout(TerminalPenalty(Forms(limited_walk(), form), **variant), 30), strict=True):
        assert seen[1] == expected_reward(*own[1:4], **variant)
    rewards = VectorTerminalPenalty(SyncVectorEnv([limited_walk] * 2), **variant).terminal_reward(
        [2, 2], [0.0, 1.0], [1.0, 0.0]
    )
    assert rewards.tolist() == [expected_reward(2, False, True, **variant), expected_reward(2, True, False, **variant)]


def test_a_walk_by_hand() -> None:
    walk = Walk()
    env = TerminalPenalty(walk, -50.0)
    env.reset(seed=0)
    walk.length = 3
    assert [env.step(np.int64(1))[1] for _ in range(3)] == [1.0, 2.0, -50.0]
    env.reset()
    walk.length = 3
    added = TerminalPenalty(walk, -50.0, mode="add")
    assert [added.step(np.int64(0))[1] for _ in range(3)] == [0.5, 1.0, -48.5]


def test_the_innermost_of_several_penalties_keeps_the_own_reward() -> None:
    env = TerminalPenalty(TerminalPenalty(limited_walk(), -50.0), -1.0, mode="add")
    own = [step[1] for step in rollout(limited_walk(), 100)]
    assert [step[4]["original_reward"] for step in rollout(env, 100)] == own


def test_an_info_that_the_environment_reuses_stays_its_own() -> None:
    class Reuses(Walk):
        info: dict[str, Any] = {}  # noqa: RUF012

        def step(self, action: np.int64) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            return (*super().step(action)[:4], self.info)

    own = [step[1] for step in rollout(Reuses(), 50)]
    assert [step[4]["original_reward"] for step in rollout(TerminalPenalty(Reuses(), -50.0), 50)] == own
    assert Reuses.info == {}


@pytest.mark.parametrize("wrapper", [TerminalPenalty, VectorTerminalPenalty])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": float("nan")}, "reward=nan"),
        ({"reward": float("inf")}, "reward=inf"),
        ({"reward": "-50"}, "reward='-50'"),
        ({"reward": -50, "mode": "replaced"}, "mode='replaced'.*Did you mean 'replace'"),
        ({"reward": -50, "mode": "set"}, "Did you mean 'replace'"),
        ({"reward": -50, "on": "timeout"}, "on='timeout'.*Did you mean 'truncated'"),
        ({"reward": -50, "on": "terminates"}, "Did you mean 'terminated'"),
    ],
)
def test_a_wrong_argument_is_refused(wrapper: Any, arguments: dict[str, Any], message: str) -> None:
    env: Any = Walk() if wrapper is TerminalPenalty else SyncVectorEnv([Walk])
    with pytest.raises(ArgumentError, match=message):
        wrapper(env, **arguments)


@pytest.mark.parametrize("through_pickle", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [lambda env: TerminalPenalty(env, -5, mode="add", on="done"), RandomFirstStep],
    ids=["TerminalPenalty", "RandomFirstStep"],
)
def test_a_wrapper_is_rebuilt_from_its_spec(wrap: Callable[[Env], Env], through_pickle: bool) -> None:
    env = wrap(gym.make("CartPole-v1", max_episode_steps=15))
    assert env.spec is not None
    spec = pickle.loads(pickle.dumps(env.spec)) if through_pickle else copy.deepcopy(env.spec)
    rebuilt = gym.make(spec)
    assert type(rebuilt) is type(env)
    assert rebuilt.spec == env.spec
    assert rebuilt.spec is not None
    assert rebuilt.spec.additional_wrappers[-1].kwargs == env.spec.additional_wrappers[-1].kwargs
    for ours, theirs in zip(rollout(rebuilt, 100), rollout(env, 100), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize(
    "wrap", [lambda env: TerminalPenalty(env, -50.0), RandomFirstStep], ids=["TerminalPenalty", "RandomFirstStep"]
)
def test_a_wrapped_environment_passes_the_checks(wrap: Callable[[Env], Env]) -> None:
    gymnasium_check_env(wrap(limited_walk()), skip_render_check=True)
    sb3_check_env(wrap(limited_walk()))


def test_evaluation_reports_the_own_reward_and_training_sees_the_penalty() -> None:
    venv = make_vec_env("CartPole-v1", wrapper_class=TerminalPenalty, wrapper_kwargs={"reward": -50.0}, seed=3)
    model = DQN("MlpPolicy", venv, buffer_size=10, learning_starts=0, policy_kwargs={"net_arch": [4]}, seed=3)

    venv.seed(7)
    returns, lengths = evaluate_policy(model, venv, n_eval_episodes=5, return_episode_rewards=True)
    plain = Monitor(gym.make("CartPole-v1"))
    observation, _ = plain.reset(seed=7)
    while len(plain.get_episode_rewards()) < 5:
        action, _ = model.predict(observation, deterministic=True)
        observation, _, terminated, truncated, _ = plain.step(action)
        if terminated or truncated:
            observation, _ = plain.reset()
    assert returns == plain.get_episode_rewards()
    assert lengths == plain.get_episode_lengths()

    model.learn(10)
    assert model.replay_buffer is not None
    stored = model.replay_buffer.rewards[model.replay_buffer.dones == 1]
    assert len(stored) > 0
    assert set(stored.tolist()) == {-50.0}


def test_inside_monitor_the_penalty_is_reported() -> None:
    venv = DummyVecEnv([lambda: Monitor(TerminalPenalty(Walk(), -50.0))])
    venv.seed(0)
    venv.reset()
    infos: list[dict[str, Any]] = [{}]
    rewards = []
    while "episode" not in infos[0]:
        _, reward, _, infos = venv.step(np.array([1]))
        rewards.append(float(reward[0]))
    assert rewards[-1] == -50.0
    assert infos[0]["episode"]["r"] == sum(rewards)


def vector_rollout(venv: VectorEnv[Any, Any, Any], steps: int) -> Iterator[tuple[Any, ...]]:
    actions = np.random.default_rng(1)
    venv.reset(seed=1)
    for _ in range(steps):
        yield venv.step(actions.integers(2, size=venv.num_envs))


@pytest.mark.parametrize("autoreset_mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_vector_form_has_the_rewards_of_the_single_form(variant: dict[str, Any], autoreset_mode: AutoresetMode) -> None:
    raw = SyncVectorEnv([limited_walk] * 3, autoreset_mode=autoreset_mode)
    single = SyncVectorEnv([lambda: TerminalPenalty(limited_walk(), **variant)] * 3, autoreset_mode=autoreset_mode)
    vector = VectorTerminalPenalty(SyncVectorEnv([limited_walk] * 3, autoreset_mode=autoreset_mode), **variant)
    ends = np.zeros(2, dtype=int)
    for own, theirs, ours in zip(*(vector_rollout(venv, 300) for venv in (raw, single, vector)), strict=True):
        observations, own_rewards, terminated, truncated, _ = own
        expected = [expected_reward(*step, **variant) for step in zip(own_rewards, terminated, truncated, strict=True)]
        np.testing.assert_array_equal(ours[1], expected)
        np.testing.assert_array_equal(ours[1], theirs[1])
        for i, same in enumerate((observations, None, terminated, truncated)):
            if same is not None:
                np.testing.assert_array_equal(ours[i], same)
        np.testing.assert_array_equal(ours[4]["original_reward"], own_rewards)
        assert ours[4]["_original_reward"].tolist() == [True] * 3
        assert ours[1].dtype == own_rewards.dtype
        ends += [terminated.sum(), (truncated & ~terminated).sum()]
    assert (ends > 30).all()


@pytest.mark.parametrize("autoreset_mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_the_vector_form_agrees_with_the_single_form_in_its_info(autoreset_mode: AutoresetMode) -> None:
    """Compare infos where gymnasium's mask is set; same-step autoreset has an episode's last info in ``final_info``."""
    single = SyncVectorEnv([lambda: TerminalPenalty(limited_walk(), -50.0)] * 3, autoreset_mode=autoreset_mode)
    vector = VectorTerminalPenalty(SyncVectorEnv([limited_walk] * 3, autoreset_mode=autoreset_mode), -50.0)
    compared = 0
    for theirs, ours in zip(vector_rollout(single, 200), vector_rollout(vector, 200), strict=True):
        for infos in (theirs[4], theirs[4].get("final_info", {})):
            mask = infos.get("_original_reward", np.zeros(3, dtype=bool))
            own = infos.get("original_reward", np.zeros(3))
            np.testing.assert_array_equal(ours[4]["original_reward"][mask], own[mask])
            compared += int(mask.sum())
    stepped = 3 * 200 if autoreset_mode is AutoresetMode.SAME_STEP else 3 * 200 * 2 // 3
    assert compared >= stepped


def test_the_vector_form_keeps_the_infos_of_the_environment() -> None:
    vector = VectorTerminalPenalty(SyncVectorEnv([limited_walk] * 2), -50.0)
    vector.reset(seed=0)
    infos = vector.step(np.array([1, 1]))[4]
    assert infos["steps"].tolist() == [1, 1]
    assert infos["_steps"].tolist() == [True, True]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_native_vector_cartpole_has_the_rewards_of_single_cartpoles(variant: dict[str, Any]) -> None:
    """Set each single environment to the state in the vector environment before every step."""
    n_envs, limit = 3, 25
    vector = VectorTerminalPenalty(gym.make_vec("CartPole-v1", num_envs=n_envs, max_episode_steps=limit), **variant)
    native: Any = vector.unwrapped
    singles = [TerminalPenalty(gym.make("CartPole-v1", max_episode_steps=limit), **variant) for _ in range(n_envs)]
    actions = np.random.default_rng(0)
    vector.reset(seed=0)
    over = np.ones(n_envs, dtype=bool)
    ends = np.zeros(2, dtype=int)
    for i in range(n_envs):
        singles[i].reset()
    for _ in range(400):
        action = actions.integers(2, size=n_envs)
        states = native.state.T.copy()  # (n_envs, 4)
        over = native.prev_done.copy()
        _, rewards, terminated, truncated, infos = vector.step(action)
        for i, env in enumerate(singles):
            if over[i]:  # this step of the vector environment was a reset
                env.reset()
                assert (rewards[i], infos["original_reward"][i]) == (0.0, 0.0)
            else:
                env.unwrapped.state = states[i]
                _, reward, terminated_too, truncated_too, info = env.step(action[i])
                assert (rewards[i], terminated[i], truncated[i]) == (reward, terminated_too, truncated_too)
                assert infos["original_reward"][i] == info["original_reward"]
        assert rewards.dtype == np.float32
        ends += [terminated.sum(), (truncated & ~terminated).sum()]
    assert (ends > 10).all()


def test_a_reward_array_that_the_environment_reuses_does_not_change_the_info() -> None:
    class Reuses(gym.vector.VectorWrapper):
        rewards = np.zeros(2)

        def step(self, actions: Any) -> tuple[Any, Rewards, Rewards, Rewards, dict[str, Any]]:
            observations, rewards, terminated, truncated, infos = self.env.step(actions)
            self.rewards[:] = rewards
            return observations, self.rewards, terminated, truncated, infos

    vector = VectorTerminalPenalty(Reuses(SyncVectorEnv([Walk] * 2)), -50.0)
    vector.reset(seed=0)
    first = vector.step(np.array([1, 0]))
    vector.step(np.array([1, 0]))
    assert first[1].tolist() == first[4]["original_reward"].tolist() == [1.0, 0.5]


def test_the_generator_of_the_environment_draws_the_random_first_step() -> None:
    env, plain = RandomFirstStep(gym.make("CartPole-v1")), gym.make("CartPole-v1")
    actions = set()
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        plain.reset(seed=seed)
        action = plain.unwrapped.np_random.integers(2)
        expected = plain.step(action)[0]
        np.testing.assert_array_equal(observation, expected)
        actions.add(int(action))
    assert actions == {0, 1}


def test_random_first_steps_are_the_same_after_the_same_seed() -> None:
    first, second = (list(rollout(RandomFirstStep(limited_walk()), 200, seed=5)) for _ in range(2))
    assert [step[1:] for step in first] == [step[1:] for step in second]
    assert [step[0].tolist() for step in first] == [step[0].tolist() for step in second]


def test_a_random_first_step_is_of_the_action_space() -> None:
    class Recorder(Walk):
        action_space = gym.spaces.Discrete(3, start=-1)
        taken: list[int] = []  # noqa: RUF012

        def step(self, action: np.int64) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
            assert self.action_space.contains(action)
            self.taken.append(int(action))
            return super().step(action)

    env = RandomFirstStep(Recorder())
    for seed in range(30):
        observation, info = env.reset(seed=seed)
        assert observation.tolist() == [1.0]
        assert info == {"steps": 1}
    assert len(Recorder.taken) == 30
    assert set(Recorder.taken) == {-1, 0, 1}


@pytest.mark.parametrize("limit", [1, None], ids=["truncated", "terminated"])
def test_an_episode_that_the_random_step_ends_begins_again(limit: int | None) -> None:
    class OneStep(Walk):
        options: list[Any] = []  # noqa: RUF012

        def reset(self, **kwargs: Any) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
            self.options.append(kwargs.get("options"))
            start = super().reset(**kwargs)
            self.length = 1 if limit is None else 8
            return start

    env = RandomFirstStep(OneStep() if limit is None else TimeLimit(OneStep(), limit))
    observation, info = env.reset(seed=0, options={"a": 1})
    assert observation.tolist() == [0.0]
    assert info == {}
    assert OneStep.options == [{"a": 1}, {"a": 1}]
    _, _, terminated, truncated, _ = env.step(np.int64(0))
    assert terminated or truncated


def test_only_discrete_actions_can_be_random() -> None:
    with pytest.raises(ArgumentError, match="Discrete action space, not Box"):
        RandomFirstStep(gym.make("Pendulum-v1"))


# The zoo replaces gymnasium's TimeLimit in the whole process, so each of the two runs has its own process.
TRUNCATIONS = """
import json
{zoo}
import gymnasium as gym
from gymnasium.wrappers import TimeLimit
from sb3_dqn_ext.envs import RandomFirstStep, TerminalPenalty
from tests.envs.test_envs import Walk

records = []
for on in ("terminated", "truncated", "done"):
    for length in (4, 5, 6):
        env = TerminalPenalty(TimeLimit(Walk(), 5), -50.0, on=on)
        env.reset(seed=0)
        env.unwrapped.length = length
        while True:
            _, reward, terminated, truncated, _ = env.step(1)
            if terminated or truncated:
                break
        records.append([on, length, reward, bool(terminated), bool(truncated)])

env = RandomFirstStep(gym.make("CartPole-v1", max_episode_steps=4))
env.reset(seed=0)
ends = [bool(env.step(0)[3]) for _ in range(3)]
print(json.dumps([TimeLimit.__module__.split(".")[0], records, ends]))
"""


def test_truncations_are_the_same_with_and_without_the_zoo() -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", TRUNCATIONS.format(zoo=zoo)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for zoo in ("", "import rl_zoo3")
    ]
    outputs = [process.communicate()[0] for process in processes]
    (plain_module, plain, plain_ends), (zoo_module, zoo, zoo_ends) = (json.loads(output) for output in outputs)
    assert (plain_module, zoo_module) == ("gymnasium", "rl_zoo3")
    rewards = {
        "terminated": {4: -50.0, 5: -50.0, 6: 5.0},
        "truncated": {4: 4.0, 5: 5.0, 6: -50.0},
        "done": {4: -50.0, 5: -50.0, 6: -50.0},
    }
    for records in (plain, zoo):
        assert [record[2] for record in records] == [rewards[on][length] for on, length, *_ in records]
    # The two time limits differ in the flags of a walk of 5 steps with a limit of 5.
    assert {tuple(record[3:]) for record in plain if record[1] == 5} == {(True, True)}
    assert {tuple(record[3:]) for record in zoo if record[1] == 5} == {(True, False)}
    # The random first step is the first of the four that the limit allows.
    assert plain_ends == zoo_ends == [False, False, True]
