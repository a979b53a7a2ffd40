"""Multi-step returns, compared with loops over the episodes."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.replay.scripts import ACTIONS, BOX, DICT, ROWS, brute_force, ended_rows, filled, name_of, scripted


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 2, 5])
@pytest.mark.parametrize("space", [BOX, DICT], ids=["Box", "Dict"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
@pytest.mark.parametrize("timeouts", [False, True], ids=["", "handle_timeout_termination"])
def test_n_step_transitions_equal_a_loop_over_the_episodes(
    length: int, n_envs: int, n_steps: int, space: spaces.Space[Any], compact: bool, timeouts: bool
) -> None:
    gamma = 0.9
    script = scripted(length, n_envs)
    buffer = filled(
        script, space, n_steps=n_steps, gamma=gamma, optimize_memory_usage=compact, handle_timeout_termination=timeouts
    )
    kept = script[-(ROWS - 1 if compact and length > ROWS else ROWS) :]
    expected = {
        step.name: (step.action, *brute_force(kept, i, env, n_steps, gamma, timeouts))
        for i, row in enumerate(kept)
        for env, step in enumerate(row)
    }
    np.random.seed(0)
    batch = buffer.sample_batch(2000)
    names = name_of(batch.observations)
    assert set(names) == set(expected)
    found = zip(batch.actions, batch.rewards, batch.discounts, name_of(batch.next_observations), strict=True)
    for name, (action, reward, discount, after) in zip(names, found, strict=True):
        assert action == expected[name][0]
        np.testing.assert_allclose([reward, discount], expected[name][1:3], rtol=1e-5, atol=1e-6)
        assert after == expected[name][3]
    assert batch.weights is None


@pytest.mark.parametrize("arguments", [{}, {"n_steps": 3}, {"monte_carlo": 1.0}, {"monte_carlo": 0.5, "n_steps": 2}], ids=str)
def test_the_precision_of_gamma_does_not_change_that_of_a_batch(arguments: dict[str, Any]) -> None:
    script = scripted(ROWS, 2)
    batches = []
    for gamma in (np.float64(0.875), 0.875):
        np.random.seed(0)
        batches.append(filled(script, gamma=gamma, **arguments).sample_batch(50))
        assert {batches[-1].rewards.dtype, batches[-1].discounts.dtype} == {th.float32}
    assert batches[0].rewards.equal(batches[1].rewards)


def test_with_optimize_memory_usage_a_truncated_episode_bootstraps_from_its_final_observation() -> None:
    script = scripted(20, 1, seed=0)
    truncated = {row[0].name: row[0].after for row in script if row[0].truncated}
    assert truncated
    buffer = filled(script, optimize_memory_usage=True, gamma=0.9)
    batch = buffer.sample_batch(500)
    after = dict(zip(name_of(batch.observations), name_of(batch.next_observations), strict=True))
    assert {name: after[name] for name in truncated} == truncated


def test_monte_carlo_returns_equal_hand_computed_ones() -> None:
    rewards = [1.0, 1.0, 1.0, 0.0]
    buffer = DQNReplayBuffer(10, BOX, ACTIONS, device="cpu", gamma=0.9, monte_carlo=1.0)
    for i, reward in enumerate(rewards):
        with pytest.raises(ArgumentError, match="no complete episode is stored"):
            buffer.sample_batch(1)
        arrays = (np.array([[float(i)]]), np.array([[i + 1.0]]), np.array([0]), np.array([reward]), np.array([i == 3]))
        buffer.add(*arrays, [{}])
    batch = buffer.sample_batch(100)
    found = dict(zip(name_of(batch.observations).tolist(), batch.rewards.tolist(), strict=True))
    assert found == pytest.approx({0.0: 2.71, 1.0: 1.9, 2.0: 1.0, 3.0: 0.0})
    assert not batch.discounts.any()


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("share", [0.25, 1.0])
@pytest.mark.parametrize("timeouts", [False, True], ids=["", "handle_timeout_termination"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
def test_monte_carlo_returns_of_ended_episodes_are_mixed_with_n_step_returns(
    length: int, n_envs: int, share: float, timeouts: bool, compact: bool
) -> None:
    gamma, n_steps = 0.9, 2
    script = scripted(length, n_envs)
    buffer = filled(
        script,
        DICT,
        n_steps=n_steps,
        gamma=gamma,
        monte_carlo=share,
        handle_timeout_termination=timeouts,
        optimize_memory_usage=compact,
    )
    oldest = max(0, length - (ROWS - compact))
    expected: dict[float, list[tuple[float, float, float]]] = {}
    for env in range(n_envs):
        for first, last in ended_rows(script, env):
            for i in range(max(first, oldest), last + 1):
                n_step = brute_force(script, i, env, n_steps, gamma, timeouts)
                monte_carlo = brute_force(script, i, env, last - i + 1, gamma, timeouts)
                if monte_carlo[1] > 0:  # truncated: one or the other
                    expected[script[i][env].name] = [monte_carlo] if share == 1 else [n_step, monte_carlo]
                else:
                    reward, discount = ((1 - share) * a + share * b for a, b in zip(n_step[:2], monte_carlo[:2], strict=True))
                    expected[script[i][env].name] = [(reward, discount, n_step[2])]
    np.random.seed(0)
    batch = buffer.sample_batch(4000)
    names = name_of(batch.observations)
    assert set(names) == set(expected), "exactly the rows of ended episodes are replayed"
    seen: dict[float, set[int]] = {name: set() for name in expected}
    found = zip(batch.rewards.tolist(), batch.discounts.tolist(), name_of(batch.next_observations), strict=True)
    for name, transition in zip(names, found, strict=True):
        close = [np.allclose(transition[:2], candidate[:2], atol=1e-5) for candidate in expected[name]]
        assert any(close), (name, transition, expected[name])
        if transition[1] > 0:
            assert any(transition[2] == candidate[2] for candidate in expected[name])
        seen[name] |= {i for i, is_close in enumerate(close) if is_close}
    assert all(len(seen[name]) == len(expected[name]) for name in expected), "both returns of truncated episodes are drawn"


def test_a_truncated_episode_gets_its_monte_carlo_return_with_the_probability_of_the_share() -> None:
    buffer = DQNReplayBuffer(10, BOX, ACTIONS, device="cpu", gamma=0.5, monte_carlo=0.25)
    for i in range(3):
        arrays = (np.array([[float(i)]]), np.array([[i + 1.0]]), np.array([0]), np.array([1.0]), np.array([i == 2]))
        buffer.add(*arrays, [{"TimeLimit.truncated": i == 2}])
    np.random.seed(0)
    batch = buffer.sample_batch(20_000)
    first = batch.discounts.numpy()[name_of(batch.observations) == 0.0]
    assert set(first.tolist()) == {0.5, 0.125}
    assert np.mean(first == 0.125) == pytest.approx(0.25, abs=0.02)
