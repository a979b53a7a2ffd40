"""Prioritized replay: probabilities, importance weights and priorities, compared with their definitions."""

import math
import pickle
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from scipy.stats import chisquare
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer, Prioritized
from tests.replay.scripts import (
    ACTIONS,
    BOX,
    ROWS,
    filled,
    scripted,
)
from tests.replay.test_samplers import COPIES, make

ALPHA, EPS = 0.7, 0.05


def prioritized_buffer(**kwargs: Any) -> tuple[DQNReplayBuffer, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a buffer with overwritten rows and updated priorities, and the expected priorities and copies by index."""
    script = scripted(3 * ROWS + 5, 2)
    sampler_kwargs = {"alpha": ALPHA, "eps": EPS} | kwargs.pop("sampler_kwargs", {})
    buffer = filled(script, sampler="prioritized", sampler_kwargs=sampler_kwargs, **({"terminal_copies": COPIES} | kwargs))
    errors = np.random.default_rng(1).exponential(size=2 * ROWS)
    for indices in np.array_split(np.arange(2 * ROWS), 5):
        buffer.sampler.update_priorities(indices, errors[indices])
    terminal = (buffer.dones * (1 - buffer.timeouts)).astype(bool).reshape(-1)
    assert 0 < terminal.sum() < 2 * ROWS
    return buffer, (errors + EPS) ** ALPHA, np.where(terminal, buffer.terminal_copies, 1)


@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
@pytest.mark.parametrize("copies", [1, COPIES])
def test_transitions_are_drawn_in_proportion_to_priorities_and_copies(copies: int, compact: bool) -> None:
    buffer, priorities, copies_of = prioritized_buffer(terminal_copies=copies, optimize_memory_usage=compact)
    shares = priorities * copies_of
    if compact:  # the oldest row cannot be replayed; an update must not bring it back
        shares.reshape(ROWS, 2)[buffer.pos] = 0
    np.random.seed(0)
    drawn = np.concatenate([buffer.sample_batch(32).indices for _ in range(1500)])
    counts = np.bincount(drawn, minlength=2 * ROWS)
    assert counts[shares == 0].sum() == 0
    stored = shares > 0
    assert chisquare(counts[stored], shares[stored] / shares.sum() * len(drawn)).pvalue > 1e-3


def test_with_beta_1_the_expected_weighted_gradient_is_that_of_uniform_draws_from_the_copies() -> None:
    buffer, priorities, copies = prioritized_buffer()
    gradients = np.random.default_rng(2).normal(size=(2 * ROWS, 3))
    uniform_gradient = np.repeat(gradients, copies, axis=0).mean(axis=0)
    np.random.seed(0)
    batch = buffer.sample_batch(5000, progress=1.0)
    assert batch.weights is not None
    weights = dict(zip(batch.indices.tolist(), batch.weights.tolist(), strict=True))
    assert len(weights) == 2 * ROWS
    probabilities = priorities * copies / (priorities * copies).sum()  # as tested above
    expected = sum(probabilities[index] * weights[index] * gradients[index] for index in weights)
    direction = expected / np.linalg.norm(expected)
    np.testing.assert_allclose(direction, uniform_gradient / np.linalg.norm(uniform_gradient), rtol=1e-5)
    assert max(weights.values()) == 1.0


@pytest.mark.parametrize(("beta", "beta_end"), [(0.4, 1.0), (0.0, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("progress", [-0.1, 0.0, 0.25, 1.0, 1.1])
def test_beta_changes_linearly_from_its_start_to_its_end(beta: float, beta_end: float, progress: float) -> None:
    buffer, priorities, copies = prioritized_buffer(sampler_kwargs={"beta": beta, "beta_end": beta_end})
    batch = buffer.sample_batch(200, progress=progress)
    expected_beta = np.interp(progress, [0, 1], [beta, beta_end])
    # section 3.4 of the paper, with b_i / sum_k b_k instead of 1 / N
    p = priorities * copies / (priorities * copies).sum()
    weights = (copies / copies.sum() / p) ** expected_beta
    assert batch.weights is not None
    np.testing.assert_allclose(batch.weights, (weights / weights.max())[batch.indices], rtol=1e-5)


def test_alpha_0_draws_uniformly() -> None:
    buffer, _, copies = prioritized_buffer(sampler_kwargs={"alpha": 0.0})
    batch = buffer.sample_batch(20_000, progress=0.5)
    assert batch.weights is not None
    np.testing.assert_array_equal(batch.weights, 1.0)
    counts = np.bincount(batch.indices, minlength=2 * ROWS)
    np.testing.assert_allclose(counts / 20_000, copies / copies.sum(), atol=1e-3)


def drawn_shares(sampler: Prioritized, n: int) -> list[float]:
    """Return (n,) the share of each index in a large batch."""
    indices, _ = sampler.sample(0, n, 10_000)
    shares: list[float] = (np.bincount(indices, minlength=n) / 10_000).tolist()
    return shares


def test_a_new_transition_has_the_largest_priority_so_far() -> None:
    sampler = Prioritized(10, 1, 1, False, alpha=1.0, eps=0.5)
    not_terminal = np.array([False])
    sampler.add(np.array([0]), not_terminal)
    sampler.add(np.array([1]), not_terminal)
    assert drawn_shares(sampler, 2) == pytest.approx([0.5, 0.5], abs=1e-3)
    sampler.update_priorities(np.array([0, 1]), np.array([2.5, 0.0]))  # priorities 3, 0.5
    sampler.add(np.array([2]), not_terminal)
    assert drawn_shares(sampler, 3) == pytest.approx([3 / 6.5, 0.5 / 6.5, 3 / 6.5], abs=1e-3)
    sampler.update_priorities(np.array([0, 2]), np.array([0.0, 0.0]))
    sampler.add(np.array([0]), not_terminal)  # overwrites an older one
    assert drawn_shares(sampler, 3) == pytest.approx([3 / 4, 0.5 / 4, 0.5 / 4], abs=1e-3)


def test_the_last_td_error_counts_for_an_index_that_is_twice_in_a_batch() -> None:
    sampler = Prioritized(10, 1, COPIES, False, alpha=1.0, eps=0.5)
    sampler.add(np.arange(2), np.array([True, False]))
    sampler.update_priorities(
        np.array([1, 0, 0, 1]), np.array([9.0, 9.0, 0.5, 0.0])
    )  # the last values give the priorities 1 and 0.5
    assert drawn_shares(sampler, 2) == pytest.approx([4 / 4.5, 0.5 / 4.5], abs=1e-3)


def test_a_removed_transition_is_not_drawn_and_no_update_adds_it_again() -> None:
    sampler = Prioritized(10, 1, 1, False)
    sampler.add(np.arange(3), np.zeros(3, dtype=bool))
    sampler.remove(np.array([1, 7]))
    sampler.update_priorities(np.arange(10), np.full(10, 5.0))
    assert np.flatnonzero(drawn_shares(sampler, 10)).tolist() == [0, 2]
    sampler.remove(np.arange(10))
    with pytest.raises(ArgumentError, match="no transition that can be replayed"):
        sampler.sample(0, 3, 1)


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_a_td_error_that_is_not_finite_is_reported(error: float) -> None:
    sampler = Prioritized(10, 1, 1, False)
    sampler.add(np.arange(3), np.zeros(3, dtype=bool))
    with pytest.raises(FloatingPointError, match="learning has diverged"):
        sampler.update_priorities(np.arange(2), np.array([1.0, error]))
    assert drawn_shares(sampler, 3) == pytest.approx([1 / 3] * 3, abs=1e-3)


def test_the_priorities_are_the_absolute_td_errors() -> None:
    model = make(
        {"sampler": "prioritized", "sampler_kwargs": {"alpha": ALPHA, "eps": EPS}},
        learning_rate=1e-30,  # the network does not change, so neither do the TD errors
        batch_size=32,
        gamma=0.9,
    )
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(4.0)  # so that some errors are above 1
    model.learn(80)
    buffer = model.replay_buffer
    assert isinstance(buffer, DQNReplayBuffer)
    assert isinstance(buffer.sampler, Prioritized)
    obs, next_obs = (th.as_tensor(np.asarray(array)[:80, 0]) for array in (buffer.observations, buffer.next_observations))
    with th.no_grad():
        q = model.q_net(obs).gather(1, th.as_tensor(buffer.actions[:80, 0])).flatten().numpy()
        following = model.q_net_target(next_obs).max(dim=1).values.numpy()
    ended = (buffer.dones * (1 - buffer.timeouts))[:80, 0]
    errors = np.abs(buffer.rewards[:80, 0] + 0.9 * (1 - ended) * following - q)
    assert errors.min() < 1 < errors.max()
    found = buffer.sampler.priorities().values[:80]
    priorities = (errors + EPS) ** ALPHA
    seen = np.isclose(found, priorities, rtol=1e-4)
    assert seen.sum() > 70
    new = np.isclose(found, max(1.0, priorities.max()), rtol=0.2)
    assert (seen | new).all()


def test_the_algorithm_passes_its_progress_to_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[float] = []
    sample = Prioritized.sample

    def recording(self: Prioritized, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> Any:
        reported.append(progress)
        return sample(self, first_row, n_rows, batch_size, progress)

    monkeypatch.setattr(Prioritized, "sample", recording)
    make({"sampler": "prioritized"}).learn(50)
    assert reported == pytest.approx(np.arange(21, 51) / 50)


def test_the_tree_is_not_allocated_before_the_first_transition() -> None:
    buffer = DQNReplayBuffer(10**8, BOX, ACTIONS, device="cpu", sampler="prioritized", terminal_copies=2)
    assert len(pickle.dumps(buffer.sampler)) < 1000


@pytest.mark.slow
def test_prioritized_draws_and_updates_at_a_million_rows_cost_at_most_three_draws_of_sb3() -> None:
    rows, batch_size, n = 1_000_000, 32, 200
    space = spaces.Box(-1, 1, (4,), np.float32)
    theirs = ReplayBuffer(rows, space, spaces.Discrete(2), device="cpu")
    ours = DQNReplayBuffer(rows, space, spaces.Discrete(2), device="cpu", sampler="prioritized")
    for buffer in (theirs, ours):
        buffer.full = True
        for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
            getattr(buffer, name)[:] = 0
    rng = np.random.default_rng(0)
    ours.sampler.add(np.arange(rows), np.zeros(rows, dtype=bool))
    ours.sampler.update_priorities(np.arange(rows), rng.exponential(size=rows))
    losses = rng.exponential(size=batch_size)

    def draw_and_update() -> None:
        ours.sampler.update_priorities(ours.sample_batch(batch_size, progress=0.5).indices, losses)

    def cost(function: Callable[[], Any]) -> float:
        start = time.process_time()
        for _ in range(n):
            function()
        return time.process_time() - start

    pairs = [(cost(draw_and_update), cost(lambda: theirs.sample(batch_size))) for _ in range(21)]
    ratio = np.median([pair[0] for pair in pairs]) / np.median([pair[1] for pair in pairs])
    print(f"prioritized draw and update over SB3's draw: {ratio:.2f}")
    assert ratio <= 3
