"""Scripted episodes in a replay buffer, and their returns by definition."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from sb3_dqn_ext.replay import DQNReplayBuffer

BOX = spaces.Box(-np.inf, np.inf, (1,), np.float64)


DICT = spaces.Dict(name=BOX, twice=BOX)


ACTIONS = spaces.Discrete(5)


ROWS = 24


class Step(NamedTuple):
    """One transition; ``name`` is its observation, and ``after`` is its next observation."""

    name: float
    after: float
    action: int
    reward: float
    terminated: bool
    truncated: bool


def scripted(n_steps: int, n_envs: int, seed: int = 0) -> list[list[Step]]:
    """Make episodes of random lengths that end by termination or at a time limit. All observations are distinct."""
    rng = np.random.default_rng(seed)
    fresh = iter(np.arange(1.0, 10.0 * n_steps * n_envs))
    now = [next(fresh) for _ in range(n_envs)]
    script = []
    for _ in range(n_steps):
        row = []
        for env in range(n_envs):
            end = rng.random()
            step = Step(now[env], next(fresh), int(rng.integers(5)), float(rng.normal()), end < 0.15, 0.15 <= end < 0.3)
            now[env] = next(fresh) if step.terminated or step.truncated else step.after
            row.append(step)
        script.append(row)
    return script


def observation(names: list[float], space: spaces.Space[Any]) -> Any:
    array = np.array(names)[:, None]
    return {"name": array, "twice": 2 * array} if isinstance(space, spaces.Dict) else array


def name_of(obs: Any) -> Any:
    if isinstance(obs, dict):
        np.testing.assert_array_equal(obs["twice"], 2 * obs["name"])
        obs = obs["name"]
    return obs[:, 0].numpy()


def filled(
    script: list[list[Step]], space: spaces.Space[Any] = BOX, kind: type[DQNReplayBuffer] = DQNReplayBuffer, **kwargs: Any
) -> DQNReplayBuffer:
    n_envs = len(script[0])
    buffer = kind(ROWS * n_envs, space, ACTIONS, device="cpu", n_envs=n_envs, **kwargs)
    names = [step.name for step in script[0]]
    for i, row in enumerate(script):
        following = [step.name for step in script[i + 1]] if i + 1 < len(script) else [step.after for step in row]
        buffer.add(
            observation(names, space),
            observation([step.after for step in row], space),
            np.array([step.action for step in row]),
            np.array([step.reward for step in row]),
            np.array([step.terminated or step.truncated for step in row]),
            [{"TimeLimit.truncated": step.truncated} for step in row],
        )
        names = following
    return buffer


ENDS: dict[str, Callable[[Step], bool]] = {
    "terminated": lambda step: step.terminated,
    "truncated": lambda step: step.truncated,
    "done": lambda step: step.terminated or step.truncated,
}


def brute_force(
    kept: list[list[Step]], i: int, env: int, n_steps: int, gamma: float, timeouts: bool
) -> tuple[float, float, float]:
    """Compute an n-step return by its definition: (sum of rewards, discount, name of the next observation)."""
    reward, discount = 0.0, 1.0
    for row in kept[i : i + n_steps]:
        step = row[env]
        reward += discount * step.reward
        discount *= gamma
        if step.terminated or (step.truncated and not timeouts):
            return reward, 0.0, step.after
        if step.truncated:
            break
    return reward, discount, step.after


def ended_rows(script: list[list[Step]], env: int) -> list[tuple[int, int]]:
    """List the first and last row of each ended episode of an environment."""
    ends = [i for i, row in enumerate(script) if row[env].terminated or row[env].truncated]
    return list(zip([0, *(end + 1 for end in ends)], ends, strict=False))
