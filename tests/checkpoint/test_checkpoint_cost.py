"""What a checkpoint writes grows with what was added since the last one, and not with the memory."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.checkpoint.envs import make_resumable

ROWS = 1_000_000
NEW_ROWS = 10_000


def filled(sampler: str) -> DQNExt:
    """A model whose memory is full of transitions like CartPole's; what it learns is not looked at."""
    model = DQNExt(
        "MlpPolicy",
        make_resumable(DummyVecEnv([lambda: gym.make("CartPole-v1")])),
        buffer_size=ROWS,
        learning_starts=10 * ROWS,
        replay_buffer_kwargs={"sampler": sampler},
        seed=0,
        device="cpu",
    )
    memory: Any = model.replay_buffer
    rng = np.random.default_rng(0)
    for name in ("observations", "next_observations"):
        getattr(memory, name)[:] = rng.standard_normal((ROWS, 1, 4), np.float32)
    memory.actions[:] = rng.integers(2, size=(ROWS, 1, 1))
    memory.rewards[:] = 1
    memory.dones[:] = rng.random((ROWS, 1)) < 0.05
    memory.full, memory.n_added = True, ROWS
    memory.sampler.add(np.arange(ROWS), memory.dones[:, 0] > 0)
    return model


def written(folder: Path, before: dict[str, int]) -> int:
    """The bytes of the files that were not there before; ``before`` gets them all."""
    there = {path.name: path.stat().st_size for path in folder.iterdir()}
    new = sum(size for name, size in there.items() if name not in before)
    before.update(there)
    return new


@pytest.mark.parametrize(("sampler", "low", "high"), [("uniform", 0, 0.1), ("prioritized", 4, 8.1)])
def test_the_second_checkpoint_of_a_million_rows_is_small(sampler: str, low: float, high: float, tmp_path: Path) -> None:
    """Beside the new rows, there are at most ``high`` bytes for each stored row: priorities change everywhere."""
    model, seen = filled(sampler), dict[str, int]()
    model.save_checkpoint(tmp_path)
    first = written(tmp_path, seen)
    row = 4 * 4 + 4 * 4 + 8 + 4 + 4 + 4  # observations, action, reward, done, timeout
    assert ROWS * (row + low) < first < ROWS * (row + high)
    model.learn(NEW_ROWS)
    model.save_checkpoint(tmp_path)
    second = written(tmp_path, seen)
    of_each_row = (second - NEW_ROWS * row) / ROWS
    assert low <= of_each_row < high
    assert sampler != "uniform" or second < 0.05 * first
