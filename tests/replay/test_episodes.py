"""The episodes of a replay buffer: which ones are kept, and which ones are truncated by resets."""

import numpy as np
import pytest

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.parity import learn, short_cartpole
from tests.replay.scripts import ROWS, ended_rows, filled, name_of, scripted
from tests.replay.test_buffer import SMALL


@pytest.mark.parametrize("monte_carlo", [0.0, 0.5])
@pytest.mark.parametrize("length", [ROWS - 2, 3 * ROWS + 5], ids=["not yet full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_only_the_latest_episodes_are_kept(monte_carlo: float, length: int, n_envs: int) -> None:
    keep = 3
    script = scripted(length, n_envs, seed=2)
    buffer = filled(script, gamma=0.9, monte_carlo=monte_carlo, keep_episodes=keep, terminal_copies=3)
    episodes = sorted(
        ((last, env, first) for env in range(n_envs) for first, last in ended_rows(script, env)), key=lambda e: e[:2]
    )
    rows = {(i, env) for last, env, first in episodes[-keep:] for i in range(first, last + 1)}
    if monte_carlo == 0:  # open episodes can be replayed, too
        opened = {env: max((last + 1 for last, e, _ in episodes if e == env), default=0) for env in range(n_envs)}
        rows |= {(i, env) for env in range(n_envs) for i in range(opened[env], length)}
    expected = {script[i][env].name for i, env in rows if i >= length - ROWS}
    assert len(episodes) > keep
    assert set(name_of(buffer.sample_batch(4000).observations)) == expected


def test_an_episode_that_is_truncated_by_a_reset_is_replayed_and_bootstraps_from_its_final_observation() -> None:
    model = DQNExt(
        "MlpPolicy",
        short_cartpole(),
        replay_buffer_kwargs={"monte_carlo": 1.0},
        **(SMALL | {"learning_starts": 60, "train_freq": 1}),
    )
    learn(model, 33)
    learn(model, 87)  # resets the environment
    buffer = model.replay_buffer
    assert isinstance(buffer, DQNReplayBuffer)
    np.testing.assert_array_less(0, buffer.rewards[:120])
    batch = buffer.sample_batch(3000)
    members = dict(zip(batch.indices.tolist(), batch.discounts.tolist(), strict=True))
    ends = np.flatnonzero(buffer.dones[:120, 0])
    assert set(members) == set(range(int(ends.max()) + 1))
    assert 32 not in ends
    ends = np.sort([*ends, 32])
    for index, discount in members.items():  # rewards are 1: the return gives the length of the episode
        steps = int(ends[ends >= index].min()) - index + 1
        assert buffer.returns[index, 0] == pytest.approx((1 - 0.99**steps) / (1 - 0.99), rel=1e-4)
        assert discount in ((0, pytest.approx(0.99**steps)) if index + steps - 1 != 32 else (pytest.approx(0.99**steps),))
