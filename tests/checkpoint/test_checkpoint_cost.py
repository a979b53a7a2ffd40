"""The size of a checkpoint grows with the rows that were added since the last one, not with the replay buffer."""

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
    """Make a model whose replay buffer is full of transitions like CartPole's."""
    model = DQNExt(
        "MlpPolicy",
        make_resumable(DummyVecEnv([lambda: gym.make("CartPole-v1")])),
        buffer_size=ROWS,
        learning_starts=10 * ROWS,
        replay_buffer_kwargs={"sampler": sampler},
        seed=0,
        device="cpu",
    )
    buffer: Any = model.replay_buffer
    rng = np.random.default_rng(0)
    for name in ("observations", "next_observations"):
        getattr(buffer, name)[:] = rng.standard_normal((ROWS, 1, 4), np.float32)
    buffer.actions[:] = rng.integers(2, size=(ROWS, 1, 1))
    buffer.rewards[:] = 1
    buffer.dones[:] = rng.random((ROWS, 1)) < 0.05
    buffer.full, buffer.n_added = True, ROWS
    buffer.sampler.add(np.arange(ROWS), buffer.dones[:, 0] > 0)
    return model


def written(folder: Path, before: dict[str, int]) -> int:
    """Return the bytes of the files that are not in ``before``, and add them to it."""
    there = {path.name: path.stat().st_size for path in folder.iterdir()}
    new = sum(size for name, size in there.items() if name not in before)
    before.update(there)
    return new


@pytest.mark.parametrize(("sampler", "low", "high"), [("uniform", 0, 0.1), ("prioritized", 4, 8.1)])
def test_the_second_checkpoint_of_a_million_rows_is_small(sampler: str, low: float, high: float, tmp_path: Path) -> None:
    """Check the bytes for each stored row in addition to the new rows: priorities of old rows change, too."""
    model, seen = filled(sampler), dict[str, int]()
    model.save_checkpoint(tmp_path)
    first = written(tmp_path, seen)
    row = 4 * 4 + 4 * 4 + 8 + 4 + 4 + 4  # observations, action, reward, done, timeout
    assert ROWS * (row + low) < first < ROWS * (row + high)
    model.learn(NEW_ROWS)
    model.save_checkpoint(tmp_path)
    second = written(tmp_path, seen)
    for_each_row = (second - NEW_ROWS * row) / ROWS
    assert low <= for_each_row < high
    assert sampler != "uniform" or second < 0.05 * first
