"""Stored and drawn transitions of replay buffers."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import (
    NetworkHealthCallback,
    ReplayHealthCallback,
    TDErrorsCallback,
)
from sb3_dqn_ext.callbacks.diagnostics import replay
from sb3_dqn_ext.callbacks.diagnostics.replay import SampleMethodHook
from tests.callbacks.diagnostics.helpers import At, build, everything, is_observed, ours, poles
from tests.parity import assert_same, learn


class Noted(ReplayBuffer):
    """A replay buffer that records the rows that are drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.noted: list[tuple[list[int], int, list[float]]] = []

    def sample(self, batch_size: int, env: Any = None) -> Any:
        state = np.random.get_state()
        rows = np.random.randint(0, self.buffer_size if self.full else self.pos, size=batch_size)
        np.random.set_state(state)
        samples = super().sample(batch_size, env)
        self.noted.append((rows.tolist(), self.pos, samples.dones.flatten().tolist()))
        return samples


@pytest.mark.parametrize("n_envs", [1, 3])
def test_ages_are_those_of_what_was_drawn(n_envs: int) -> None:
    model = build(DQN, poles(n_envs), replay_buffer_class=Noted, train_freq=1)
    upto: list[Any] = []

    def inspect(model: Any) -> None:
        upto.extend(model.replay_buffer.noted[-6 // n_envs :])  # from step 294 on

    found = ours(learn(model, 390, callback=[ReplayHealthCallback(300), At(300, inspect)]).rows)
    n_rows = model.replay_buffer.buffer_size
    ages = [n_envs * ((pos - 1 - row) % n_rows) for rows, pos, _ in upto for row in rows]
    assert found["replay/age_mean"] == pytest.approx(np.mean(ages))
    assert found["replay/age_median"] == np.median(ages)
    assert found["replay/age_max"] == max(ages)
    assert found["replay/terminal_sampled"] == pytest.approx(np.mean([dones for *_, dones in upto]))
    assert found["replay/size"] == n_rows * n_envs
    assert found["replay/fill"] == 1


def test_a_draw_from_one_training_to_the_next_is_seen() -> None:
    """A measurement at 240, and trainings after 100, 200 and 300."""
    model = build(DQN, replay_buffer_class=Noted, train_freq=100, learning_starts=0)
    found = ours(learn(model, 300, callback=ReplayHealthCallback(240)).rows)
    _, (rows, pos, dones), _ = model.replay_buffer.noted
    ages = [(pos - 1 - row) % model.replay_buffer.buffer_size for row in rows]
    assert found["replay/age_mean"] == np.mean(ages)
    assert found["replay/terminal_sampled"] == np.mean(dones)


def test_draws_are_observed_near_a_measurement_only(algorithm: Any) -> None:
    seen: dict[int, bool] = {}

    def inspect(model: Any) -> None:
        seen[model.num_timesteps] = is_observed(model.replay_buffer)

    learn(
        build(algorithm), 310, callback=[ReplayHealthCallback(300), *(At(step, inspect) for step in (150, 292, 294, 299, 302))]
    )
    assert seen == {150: False, 292: False, 294: True, 299: True, 302: False}


def test_what_other_diagnostics_read_is_not_taken_for_training(algorithm: Any) -> None:
    found = []
    for others in ([], [TDErrorsCallback(10), NetworkHealthCallback(10)]):
        rows = learn(build(algorithm), 150, callback=[*others, ReplayHealthCallback(100)]).rows
        found.append({key: value for key, value in ours(rows).items() if key.startswith("replay/")})
    assert_same(found[1], found[0], "replay")


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_buffer_of_this_library_is_observed_as_well_as_that_of_sb3(n_envs: int) -> None:
    stock, same = (
        ours(learn(build(algorithm, poles(n_envs)), 230, callback=ReplayHealthCallback(100)).rows)
        for algorithm in (DQN, DQNExt)
    )
    assert stock.keys() == same.keys()
    for key in stock if n_envs == 1 else ("replay/ages", "replay/age_mean", "replay/size"):
        if key != "replay/terminal_sampled":  # where rows were written over since, it sees what is there now
            assert_same(same[key], stock[key], key)
    assert same["replay/terminal_sampled"] == pytest.approx(stock["replay/terminal_sampled"], abs=0.1)


def test_the_share_of_ends_and_the_rewards_are_those_that_are_stored(algorithm: Any) -> None:
    model = build(algorithm, poles(2))
    stored: list[Any] = []

    def inspect(model: Any) -> None:
        buffer = model.replay_buffer
        ends = [bool(d and not t) for d, t in zip(buffer.dones.flat, buffer.timeouts.flat, strict=True)]
        stored.append((sum(ends[: 2 * buffer.size()]) / (2 * buffer.size()), buffer.rewards[: buffer.size()].copy()))

    found = ours(learn(model, 100, callback=[ReplayHealthCallback(80), At(80, inspect)]).rows)
    share, rewards = stored[0]
    assert found["replay/terminal_stored"] == pytest.approx(share)
    assert found["replay/reward_mean"] == pytest.approx(rewards.mean())
    np.testing.assert_array_equal(found["replay/rewards"].numpy(), rewards.ravel())


def test_a_buffer_that_is_saved_meanwhile_has_no_hook(algorithm: Any, tmp_path: Path) -> None:
    model = build(algorithm)

    def save(model: Any) -> None:
        model.save_replay_buffer(tmp_path / "buffer.pkl")
        model.save(tmp_path / "model.zip")

    learn(model, 100, callback=[everything(), At(89, save)])  # while it is watched
    with open(tmp_path / "buffer.pkl", "rb") as file:
        buffer = pickle.load(file)
    for of in (buffer, model.replay_buffer):
        np.random.seed(0)
        of.sample(5)
    assert not is_observed(model.replay_buffer), "the run is over"
    assert buffer._get_samples.__self__ is buffer
    assert not getattr(buffer, "sample_hooks", [])
    assert algorithm.load(tmp_path / "model.zip").num_timesteps == 89


def test_two_that_observe_the_same_buffer_restore_it() -> None:
    model = build(DQN)
    rows = learn(model, 100, callback=[ReplayHealthCallback(50), ReplayHealthCallback(50)]).rows
    assert ours(rows)["replay/age_mean"] > 0
    buffer, called = model.replay_buffer, []
    assert "_get_samples" not in vars(buffer)
    first, second = (
        SampleMethodHook(buffer, "_get_samples", lambda *_, name=name: called.append(name)) for name in ("first", "second")
    )
    first.remove()
    buffer.sample(1)
    assert called == ["second"]
    second.remove()
    assert "_get_samples" not in vars(buffer)


def test_the_rewards_of_some_rows_of_a_large_buffer_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_REWARD_ROWS", 30)

    def number(model: Any) -> None:
        model.replay_buffer.rewards[:, 0] = np.arange(120)

    rewards = ours(learn(build(DQN), 180, callback=[At(140, number), ReplayHealthCallback(150)]).rows)["replay/rewards"]
    assert len(rewards) == 30
    assert rewards.max() > 60, "anywhere"
