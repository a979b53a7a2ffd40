"""Environments that are reset in mid-episode: what is stored and drawn around such a seam, against the environment's own record."""

import io
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqn_ext import DQNExt

GAMMA = 0.5
HUGE = 10**6


class World:
    """Numbers all episodes of its environments, whose lengths, ends and rewards follow from the numbers."""

    def __init__(self, n_envs: int, as_dict: bool) -> None:
        self.n_envs, self.as_dict = n_envs, as_dict
        self.n_episodes = 0
        self.steps: list[tuple[int, int]] = []  # (episode, step) of each that was made for the training
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


class Numbered(gym.Env[Any, Any]):
    """Observes the number of the episode and of the step."""

    action_space = spaces.Discrete(2)

    def __init__(self, world: World) -> None:
        box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.observation_space = spaces.Dict(all=box, twice=box) if world.as_dict else box  # type: ignore[assignment]
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
    """Does something at a step; False ends the training."""

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


def visit(model: DQNExt, world: World, n_steps: int = 4) -> Any:
    """Use the training environments for something else."""
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
    """A transition of an episode of which nothing else is stored, as those of demonstrations."""
    episodes = np.arange(world.n_episodes, world.n_episodes + world.n_envs)
    world.n_episodes += world.n_envs
    obs = np.stack([episodes, np.ones(world.n_envs)], axis=1).astype(np.float64)
    world.steps += pairs(obs)
    rewards = np.array([world.reward(episode, 1) for episode in episodes.tolist()])
    after = obs + [0, 1]
    both = [{"all": one, "twice": 2 * one} if world.as_dict else one for one in (obs, after)]
    infos: list[dict[str, Any]] = [{} for _ in episodes]
    model.replay_buffer.add(*both, np.zeros(world.n_envs, int), rewards, np.zeros(world.n_envs, bool), infos)  # type: ignore[union-attr, arg-type]


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

    def set_env(n: int) -> None:
        model.set_env(
            VecNormalize(world.envs(), norm_reward=False, clip_obs=np.inf) if model.get_vec_normalize_env() else world.envs()
        )

    whats: list[Callable[[int], Any]] = [
        lambda n: learn(n, again=True),
        lambda n: learn(n + 3, False, Calls(n, lambda model: False)),
        lambda n: learn(n + 3, False, Calls(n, lambda model: visit(model, world))),
        lambda n: learn(n + 3, False, Calls(n, lambda model: reset_by_hand(model, world))),
        interrupt,
        raise_error,
        set_env,
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
    "rows": {"n_steps": 3, "replay_buffer_kwargs": {"sampler": "rows"}, "batch_size": 2},
    "VecNormalize": {"n_steps": 3, "normalize": True},
    "realised": {"replay_buffer_kwargs": {"monte_carlo": 1.0}},
    "the latest": {"replay_buffer_kwargs": {"keep_episodes": 7}, "optimize_memory_usage": True},
}


@pytest.mark.filterwarnings("ignore:The last trajectory in the replay buffer will be truncated")  # SB3 says so
@pytest.mark.parametrize("n_rows", [40, 1000], ids=["overwritten", ""])
@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_nothing_reaches_over_a_seam_and_nothing_is_lost(case: str, n_envs: int, n_rows: int) -> None:
    kwargs = dict(CASES[case])
    world = World(n_envs, kwargs.pop("as_dict", False))
    envs = VecNormalize(world.envs(), norm_reward=False, clip_obs=np.inf) if kwargs.pop("normalize", False) else world.envs()
    policy = "MultiInputPolicy" if world.as_dict else "MlpPolicy"
    defaults: dict[str, Any] = {"learning_starts": HUGE, "gamma": GAMMA, "buffer_size": n_rows * n_envs, "seed": 0}
    model = DQNExt(policy, envs, train_freq=5, device="cpu", policy_kwargs={"net_arch": [2]}, **defaults | kwargs)
    one_seam_after_another(
        model, world, np.random.default_rng(int(__import__("os").environ.get("SEED", "0")) + n_rows + n_envs)
    )

    memory: Any = model.replay_buffer
    assert memory.n_added * n_envs == len(world.steps), "nothing is lost"
    rows = [world.steps[i : i + n_envs] for i in range(0, len(world.steps), n_envs)]
    stored: dict[tuple[int, int], int] = {}  # how many steps of the same episode are stored one after the other, from here on
    for env in range(n_envs):
        n_left = 0
        for i in reversed(range(max(0, len(rows) - n_rows + memory.optimize_memory_usage), len(rows))):
            (episode, step), following = rows[i][env], rows[i + 1][env] if i + 1 < len(rows) else None
            n_left = n_left + 1 if following == (episode, step + 1) else 1
            stored[episode, step] = n_left

    cells = np.unique(memory.sample_batch(6000).cells)
    batch = memory._read(cells, np.ones(len(cells), np.float32), None)
    drawn = pairs(batch.observations)
    if not memory._by_episodes:
        assert set(drawn) == set(stored)
    found = zip(drawn, batch.rewards.tolist(), batch.discounts.tolist(), pairs(batch.next_observations), strict=True)
    for (episode, step), reward, discount, after in found:
        n = min(HUGE if memory.monte_carlo else memory.n_steps, stored[episode, step])
        is_over = step + n == world.length(episode)
        is_terminal = is_over and (world.terminates(episode) or not memory.handle_timeout_termination)
        assert after == (episode, step + n) or (memory.monte_carlo and is_terminal)
        assert reward == pytest.approx(sum(GAMMA**i * world.reward(episode, step + i) for i in range(n)), rel=1e-5)
        assert discount == pytest.approx(0 if is_terminal else GAMMA**n)
