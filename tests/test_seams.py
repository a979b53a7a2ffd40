"""Transitions around a seam, where an environment is reset in the middle of an episode, checked by numbered episodes."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.batches import Batch
from sb3_dqn_ext.checkpoint.envs import make_resumable
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.vec_env import make_fast_vec_env
from tests.internals import n_updates_of
from tests.parity import assert_same, several_cartpoles

GAMMA = 0.5
HUGE = 10**6


class World:
    """A VecEnv that numbers its episodes. Their lengths, ends and rewards are functions of the numbers."""

    def __init__(self, n_envs: int, as_dict: bool) -> None:
        self.n_envs, self.as_dict = n_envs, as_dict
        self.n_episodes = 0
        self.steps: list[tuple[int, int]] = []  # (episode, step) of each transition of the training
        self.trains = True
        self.fails_in = HUGE

    @staticmethod
    def length(episode: int) -> int:
        return 3 + episode * 7 % 11

    @staticmethod
    def terminates(episode: int) -> bool:
        return episode % 3 > 0

    @staticmethod
    def reward(episode: int, step: int) -> float:
        return float((5 * episode + 3 * step) % 8)

    def envs(self) -> DummyVecEnv:
        return DummyVecEnv([lambda: Numbered(self)] * self.n_envs)

    def normalized(self) -> VecNormalize:
        return VecNormalize(self.envs(), norm_reward=False, clip_obs=np.inf)


class Numbered(gym.Env[Any, Any]):
    """An environment whose observation is the number of the episode and of the step."""

    action_space = spaces.Discrete(2)

    def __init__(self, world: World) -> None:
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(all=box, twice=box) if world.as_dict else box
        self.world = world

    def _seen(self) -> Any:
        seen = np.array([self.episode, self.t], np.float64)
        return {"all": seen, "twice": 2 * seen} if self.world.as_dict else seen

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.world.n_episodes, 0
        self.world.n_episodes += 1
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        world, before = self.world, (self.episode, self.t)
        self.t += 1
        world.fails_in -= 1
        if world.fails_in < 0:
            world.fails_in = HUGE
            raise KeyboardInterrupt
        if world.trains:
            world.steps.append(before)
        is_over = self.t == world.length(self.episode)
        terminates = is_over and world.terminates(self.episode)
        return self._seen(), world.reward(*before), terminates, is_over and not terminates, {}


class Calls(BaseCallback):
    """A callback that calls a function at one step; False ends the training."""

    def __init__(self, at: int, what: Callable[[Any], Any]) -> None:
        super().__init__()
        self.at, self.what = at, what

    def _on_step(self) -> bool:
        return self.n_calls != self.at or self.what(self.model) is not False


def pairs(observations: Any) -> list[tuple[int, int]]:
    """(B, 2) -> the numbers of episodes and steps"""
    if isinstance(observations, dict):
        np.testing.assert_array_equal(observations["twice"], 2 * np.asarray(observations["all"]))
        observations = observations["all"]
    return [(int(episode), int(step)) for episode, step in np.rint(np.asarray(observations))]


def small(envs: Any, policy: str = "MlpPolicy", algorithm: type[DQN] = DQNExt, **kwargs: Any) -> Any:
    defaults: dict[str, Any] = {"learning_starts": HUGE, "gamma": GAMMA, "train_freq": 1, "buffer_size": 200, "seed": 0}
    return algorithm(policy, envs, policy_kwargs={"net_arch": [2]}, device="cpu", **defaults | kwargs)


def visit(model: DQNExt, world: World, n_steps: int = 4) -> Any:
    """Reset and step the training environments outside of the training."""
    env: Any = model.get_env()
    world.trains = env.training = False
    first = env.reset()
    for _ in range(n_steps):
        env.step(np.zeros(world.n_envs, int))
    world.trains = env.training = True
    return first


def reset_by_hand(model: DQNExt, world: World) -> None:
    model._last_obs = visit(model, world, n_steps=0)


def add_by_hand(model: DQNExt, world: World) -> None:
    """Store a single transition without the rest of its episode, such as one of a demonstration."""
    episodes = np.arange(world.n_episodes, world.n_episodes + world.n_envs)
    world.n_episodes += world.n_envs
    obs = np.stack([episodes, np.ones(world.n_envs)], axis=1).astype(np.float64)
    world.steps += pairs(obs)
    rewards = np.array([world.reward(episode, 1) for episode in episodes.tolist()])
    after = obs + np.array([0, 1])
    both = [{"all": one, "twice": 2 * one} if world.as_dict else one for one in (obs, after)]
    infos: list[dict[str, Any]] = [{} for _ in episodes]
    memory: Any = model.replay_buffer
    memory.add(*both, np.zeros(world.n_envs, int), rewards, np.zeros(world.n_envs, bool), infos)


def reload(model: DQNExt) -> None:
    file = io.BytesIO()
    model.save_replay_buffer(file)
    file.seek(0)
    model.load_replay_buffer(file)


def one_seam_after_another(model: DQNExt, world: World, rng: np.random.Generator) -> None:
    def learn(n: int, again: bool = False, *callbacks: Calls) -> None:
        model.learn(n * world.n_envs, reset_num_timesteps=again, callback=list(callbacks))

    def interrupt(n: int) -> None:
        n_steps, world.fails_in = len(world.steps), n * world.n_envs + int(rng.integers(world.n_envs))
        with pytest.raises(KeyboardInterrupt):
            learn(n + 5)
        del world.steps[n_steps + n * world.n_envs :]

    def raise_error(n: int) -> None:
        with pytest.raises(ZeroDivisionError):
            learn(n + 5, False, Calls(n, lambda model: 1 / 0))
        del world.steps[-world.n_envs :]

    whats: list[Callable[[int], Any]] = [
        lambda n: learn(n, again=True),
        lambda n: learn(n + 3, False, Calls(n, lambda model: False)),
        lambda n: learn(n + 3, False, Calls(n, lambda model: visit(model, world))),
        lambda n: learn(n + 3, False, Calls(n, lambda model: reset_by_hand(model, world))),
        interrupt,
        raise_error,
        lambda n: model.set_env(world.normalized() if model.get_vec_normalize_env() else world.envs()),
        lambda n: visit(model, world),
        lambda n: reset_by_hand(model, world),
        lambda n: add_by_hand(model, world),
        lambda n: reload(model),
    ]
    add_by_hand(model, world)
    learn(3)
    for what in rng.permutation(whats * 2):  # type: ignore[arg-type]
        what(int(rng.integers(1, 9)))
        learn(int(rng.integers(1, 9)))


CASES: dict[str, dict[str, Any]] = {
    "one step": {},
    "3 steps": {"n_steps": 3},
    "3 steps of Dicts stored once": {"n_steps": 3, "optimize_memory_usage": True, "as_dict": True},
    "one step, stored once": {"optimize_memory_usage": True},
    "time limits as terminations": {"n_steps": 3, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
    "terminal copies": {"n_steps": 2, "replay_buffer_kwargs": {"terminal_copies": 3}},
    "prioritized": {"n_steps": 3, "replay_buffer_kwargs": {"sampler": "prioritized"}},
    "rows": {"n_steps": 3, "replay_buffer_kwargs": {"sampler": "vector_steps"}},
    "VecNormalize": {"n_steps": 3, "normalize": True},
    "realised": {"replay_buffer_kwargs": {"monte_carlo": 1.0}},
    "the latest": {"replay_buffer_kwargs": {"keep_episodes": 7}, "optimize_memory_usage": True},
    "rows of the latest": {"replay_buffer_kwargs": {"keep_episodes": 9, "sampler": "vector_steps"}, "n_steps": 2},
}


def runs_of(rows: list[list[tuple[int, int]]], world: World) -> list[tuple[int, int, int, bool]]:
    """
    Find the episodes in stored rows, and the parts of episodes that were interrupted by others.

    :param rows: (n_envs,) episodes and steps of each row
    :return: (environment, first row, last row, whether it has ended) of each; those that have ended come first, in order
    """
    found = []
    for env in range(world.n_envs):
        first = 0
        for i, (episode, step) in enumerate(row[env] for row in rows):
            if i + 1 == len(rows) or rows[i + 1][env] != (episode, step + 1):
                by_itself = step + 1 == world.length(episode)
                found.append((not by_itself and i + 1 == len(rows), i, not by_itself, env, first))
                first = i + 1
    return [(env, first, last, not is_open) for is_open, last, _, env, first in sorted(found)]


@pytest.mark.filterwarnings("ignore:The last trajectory in the replay buffer will be truncated")  # as SB3 warns
@pytest.mark.parametrize(("n_envs", "n_rows"), [(1, 1000), (2, 40)], ids=["", "two environments, overwritten"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_reaches_over_a_seam_and_nothing_is_lost(case: str, n_envs: int, n_rows: int) -> None:
    kwargs = dict(CASES[case])
    world = World(n_envs, kwargs.pop("as_dict", False))
    envs = world.normalized() if kwargs.pop("normalize", False) else world.envs()
    policy = "MultiInputPolicy" if world.as_dict else "MlpPolicy"
    model = small(envs, policy, train_freq=5, buffer_size=n_rows * n_envs, batch_size=4, **kwargs)
    one_seam_after_another(model, world, np.random.default_rng(n_envs))

    memory: Any = model.replay_buffer
    rows = [world.steps[i : i + n_envs] for i in range(0, len(world.steps), n_envs)]
    assert memory.n_added == len(rows), "nothing is lost"
    runs = runs_of(rows, world)
    ends = {(env, i): last for env, first, last, _ in runs for i in range(first, last + 1)}
    over = [run for run in runs if run[3]]
    latest = over[-(memory.keep_episodes or HUGE) :] + ([] if memory.monte_carlo else [run for run in runs if not run[3]])
    oldest = len(rows) - n_rows + memory.optimize_memory_usage
    replayed = {(i, env) for env, first, last, _ in latest for i in range(max(first, oldest), last + 1)}
    if memory.sampler.draws_whole_rows:
        replayed = {(i, env) for i, env in replayed if all((i, other) in replayed for other in range(n_envs))}

    counts = Counter(memory.sample_batch(12 * len(world.steps) + 1200).indices.tolist())
    cells = np.array(sorted(counts))
    batch = memory.read(cells)
    drawn = pairs(batch.observations)
    assert set(drawn) == {rows[i][env] for i, env in replayed}
    places = {rows[i][env]: (env, i) for env, i in ends}
    found = zip(drawn, batch.rewards.tolist(), batch.discounts.tolist(), pairs(batch.next_observations), strict=True)
    for (episode, step), reward, discount, after in found:
        env, i = places[episode, step]
        n = min(HUGE if memory.monte_carlo else memory.n_steps, ends[env, i] - i + 1)
        is_over = step + n == world.length(episode)
        is_terminal = is_over and (world.terminates(episode) or not memory.handle_timeout_termination)
        assert after == (episode, step + n) or (memory.monte_carlo and is_terminal)
        assert reward == pytest.approx(sum(GAMMA**k * world.reward(episode, step + k) for k in range(n)), rel=1e-5)
        assert discount == pytest.approx(0 if is_terminal else GAMMA**n)
    if memory.terminal_copies > 1:
        copies = Counter(memory.all_indices().tolist())
        for cell, (episode, step) in zip(cells.tolist(), drawn, strict=True):
            is_terminal = step + 1 == world.length(episode) and world.terminates(episode)
            assert copies[cell] == (memory.terminal_copies if is_terminal else 1)


@pytest.mark.parametrize("of_the_model", [False, True], ids=["the same environment", "the same vector environment"])
def test_an_evaluation_in_the_training_environment_is_a_seam(of_the_model: bool) -> None:
    world = World(1, as_dict=False)

    class Evaluation(EvalCallback):
        def _on_step(self) -> bool:
            world.trains = False
            goes_on = super()._on_step()
            world.trains = True
            return goes_on

    env = Numbered(world)
    model = small(env, n_steps=3)
    callback = Evaluation(model.get_env() if of_the_model else env, n_eval_episodes=1, eval_freq=5, verbose=0, warn=False)
    model.learn(20, callback=callback)
    memory = model.replay_buffer
    assert pairs(memory.observations[:20, 0]) == world.steps
    assert pairs(memory.next_observations[:20, 0]) == [(episode, step + 1) for episode, step in world.steps]
    assert len({episode for episode, _ in world.steps}) >= 4
    batch = memory.sample_batch(200)
    assert np.array_equal(batch.observations[:, 0], batch.next_observations[:, 0])


class Unchanging(gym.Env[Any, Any]):
    """An environment with constant observations and endless episodes; the reward of step n is n."""

    observation_space = spaces.Discrete(1)
    action_space = spaces.Discrete(2)
    n = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return 0, {}

    def step(self, action: Any) -> Any:
        self.n += 1
        return 0, float(self.n), False, False, {}


def test_a_reset_is_a_seam_where_observations_do_not_show_it() -> None:
    class Resets(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 12:
                self.training_env.reset()
            return True

    model = small(Unchanging(), n_steps=3)
    model.learn(5)
    model.learn(5)
    model.set_env(model.get_env())
    model.learn(10, reset_num_timesteps=False, callback=Resets())
    batch = model.replay_buffer.read(np.arange(20))
    left = [5, 4, 3, 2, 1] * 2 + [7, 6, 5, 4, 3, 2, 1] + [3, 2, 1]
    assert batch.discounts.tolist() == [GAMMA ** min(3, n) for n in left]
    assert batch.rewards.tolist() == [sum(GAMMA**k * (i + 1 + k) for k in range(min(3, n))) for i, n in enumerate(left)]


@pytest.mark.parametrize(
    "kwargs",
    [{"n_steps": 3}, {"n_steps": 2, "optimize_memory_usage": True}, {"replay_buffer_kwargs": {"monte_carlo": 1.0}}],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:The last trajectory in the replay buffer will be truncated")
def test_a_seam_after_saved_rows_is_part_of_the_next_checkpoint(kwargs: Any, tmp_path: Path) -> None:
    def make() -> Any:
        return small(make_resumable(DummyVecEnv([lambda: gym.make("MountainCar-v0")] * 2)), **kwargs)

    def drawn(model: Any) -> Batch:
        cells = np.arange(72) if "n_steps" in kwargs else np.sort(model.replay_buffer.all_indices())
        batch: Batch = model.replay_buffer.read(cells)
        return batch

    model, again = make(), make()
    model.learn(36)
    model.save_checkpoint(tmp_path)
    rows = set(tmp_path.glob("segment_*"))
    model.set_env(model.get_env())
    model.learn(36, reset_num_timesteps=False)
    model.save_checkpoint(tmp_path)
    assert rows
    assert rows <= set(tmp_path.glob("segment_*")), "they are not written again"
    again.resume(tmp_path)
    assert_same(tuple(drawn(again)), tuple(drawn(model)), "batch")
    n_steps = kwargs.get("n_steps", HUGE)
    assert drawn(again).discounts[:36:2].tolist() == [GAMMA ** min(n_steps, 18 - row) for row in range(18)]


def test_environments_with_next_step_autoreset_have_seams_too() -> None:
    env = make_fast_vec_env("CartPole-v1", 4, seed=0, env_kwargs={"max_episode_steps": 9})
    model = small(env, buffer_size=800, replay_buffer_kwargs={"keep_episodes": 1000}, n_steps=3)
    for _ in range(4):
        model.learn(50)
        env.reset()
        model.learn(50, reset_num_timesteps=False)
    memory = model.replay_buffer
    obs, after, dones = memory.observations, memory.next_observations, memory.dones
    batch = memory.sample_batch(2000)
    assert len(np.unique(batch.indices)) > 350
    for cell, discount, last in zip(
        batch.indices.tolist(), batch.discounts.tolist(), batch.next_observations.numpy(), strict=True
    ):
        (row, env_id), n = divmod(cell, 4), 1
        while n < 3 and not dones[row, env_id] and np.array_equal(after[row, env_id], obs[row + 1, env_id]):
            row, n = row + 1, n + 1
        assert np.array_equal(last, after[row, env_id])
        assert discount in (0, pytest.approx(GAMMA**n))
    lengths = [end - first for first, end, _ in memory.episodes.ended]
    assert min(lengths) >= 1
    assert max(lengths) <= 9


@pytest.mark.parametrize("handles", [False, True], ids=["", "handle_timeout_termination"])
def test_a_seam_in_the_n_step_buffer_of_sb3_is_an_end(handles: bool) -> None:
    world = World(2, as_dict=False)
    kwargs = {"n_steps": 3, "gamma": GAMMA, "handle_timeout_termination": handles}
    model = small(world.envs(), replay_buffer_class=NStepReplayBuffer, replay_buffer_kwargs=kwargs)
    model.learn(10)
    model.learn(10)
    samples = model.replay_buffer.sample(300)
    assert np.array_equal(samples.observations[:, 0], samples.next_observations[:, 0])
    assert len(world.steps) == 20


class Goals(Numbered):
    """A goal environment whose achieved goal is the number of the episode and of the step."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.observation_space = spaces.Dict(
            dict.fromkeys(("observation", "achieved_goal", "desired_goal"), self.observation_space)
        )

    def _seen(self) -> Any:
        return dict.fromkeys(("observation", "achieved_goal", "desired_goal"), super()._seen())

    def compute_reward(self, achieved: Any, desired: Any, infos: Any) -> Any:
        return np.zeros(len(achieved))


def test_hindsight_takes_no_goal_from_behind_a_seam() -> None:
    world = World(1, as_dict=False)
    model = small(Goals(world), policy="MultiInputPolicy", replay_buffer_class=HerReplayBuffer)
    for _ in range(6):
        model.learn(10)
    samples = model.replay_buffer.sample(600).observations
    assert np.array_equal(samples["observation"][:, 0], samples["desired_goal"][:, 0])
    assert set(world.steps[:50]) <= set(pairs(samples["observation"])), "nothing is lost"


def test_in_a_stock_algorithm_a_seam_is_where_observations_do_not_follow_each_other() -> None:
    world = World(2, as_dict=False)
    kwargs = {"n_steps": 3, "gamma": GAMMA}
    model = small(world.envs(), algorithm=DQN, replay_buffer_class=DQNReplayBuffer, replay_buffer_kwargs=kwargs)
    for _ in range(4):
        model.learn(10)
    batch = model.replay_buffer.sample_batch(400)
    assert np.array_equal(batch.observations[:, 0], batch.next_observations[:, 0])


def test_longer_returns_set_later_end_at_earlier_resets() -> None:
    models = []
    for n_steps in (1, 3):
        world = World(2, as_dict=False)
        model = DQNExt("MlpPolicy", world.envs(), n_steps=n_steps, gamma=0.9, learning_starts=HUGE, buffer_size=100, seed=0)
        for _ in range(3):
            model.learn(14)
        models.append(model)
    first, second = (model.replay_buffer for model in models)
    assert isinstance(first, DQNReplayBuffer)
    assert isinstance(second, DQNReplayBuffer)
    first.set_multistep(3, 0.9)
    batches = []
    for buffer in (first, second):
        np.random.seed(0)
        batches.append(buffer.sample_batch(300))
    assert_same(tuple(batches[0]), tuple(batches[1]), "batch")


class OfAnotherLibrary:
    """A vector environment with only those methods that SB3 requires, as in SuperSuit."""

    def __init__(self) -> None:
        poles = several_cartpoles(2)
        self.num_envs, self.observation_space, self.action_space = 2, poles.observation_space, poles.action_space
        self.reset, self.step_async, self.step_wait = poles.reset, poles.step_async, poles.step_wait
        self.unwrapped, self.seed = self, poles.seed


class Adapted(VecEnvWrapper):
    """A VecEnv of SB3 around such a vector environment."""

    def __init__(self, venv: Any) -> None:
        self.venv, self.num_envs, self.render_mode = venv, venv.num_envs, None
        self.observation_space, self.action_space = venv.observation_space, venv.action_space

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()


def test_a_vector_environment_of_another_library_is_learned_from_as_any_other() -> None:
    def learned(env: VecEnv) -> DQNExt:
        arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}
        return DQNExt("MlpPolicy", env, learning_starts=20, **arguments).learn(80)

    adapted, own = learned(Adapted(OfAnotherLibrary())), learned(several_cartpoles(2))
    assert n_updates_of(adapted) > 0
    assert_same(adapted.get_parameters(), own.get_parameters(), "parameters")
