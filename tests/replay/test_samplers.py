"""The samplers: which transitions they draw, how often, and with which importance weights."""

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from scipy.stats import chisquare
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer, Sampler
from sb3_dqn_ext.replay.samplers import draw_distinct
from tests.internals import n_updates_of
from tests.parity import assert_same, dict_cartpole, learn, several_cartpoles, short_cartpole
from tests.replay.scripts import ROWS, filled, scripted

SMALL: dict[str, Any] = {
    "buffer_size": 120,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 1,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 1,
    "device": "cpu",
}
COPIES = 4


@pytest.mark.parametrize(("n", "size"), [(6, 2), (6, 3), (6, 4), (6, 6), (6, 1)])
def test_every_set_of_distinct_numbers_has_the_same_probability(n: int, size: int) -> None:
    np.random.seed(0)
    counts = dict.fromkeys(combinations(range(n), size), 0)
    for _ in range(4000):
        counts[tuple(sorted(draw_distinct(n, size).tolist()))] += 1
    assert len(counts) == 1 or chisquare(list(counts.values())).pvalue > 1e-3


def expected_copies(buffer: DQNReplayBuffer) -> np.ndarray[Any, Any]:
    """Return (N,) the number of copies of each index."""
    terminal = (buffer.dones * (1 - buffer.timeouts)).reshape(-1) == 1
    return np.where(terminal, buffer.terminal_copies, 1)


@pytest.mark.parametrize("copies", [1, COPIES])
@pytest.mark.parametrize("keep_episodes", [None, 10_000], ids=["", "keep_episodes"])
def test_without_replacement_no_copy_is_drawn_twice(copies: int, keep_episodes: int | None) -> None:
    buffer = filled(
        scripted(2 * ROWS, 2), sampler_kwargs={"replace": False}, terminal_copies=copies, keep_episodes=keep_episodes
    )
    listed = expected_copies(buffer)
    np.random.seed(0)
    total = np.zeros(2 * ROWS)
    for _ in range(800):
        counts = np.bincount(buffer.sample_batch(20).indices, minlength=2 * ROWS)
        assert (counts <= listed).all()
        total += counts
    assert chisquare(total, listed / listed.sum() * 16_000).pvalue > 1e-3
    np.testing.assert_array_equal(np.bincount(buffer.sample_batch(listed.sum()).indices), listed)
    with pytest.raises(ArgumentError, match=rf"{listed.sum() + 1} of {listed.sum()} cannot be drawn.*learning_starts"):
        buffer.sample_batch(listed.sum() + 1)


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
@pytest.mark.parametrize("replace", [True, False])
def test_time_steps_are_drawn_with_all_environments_and_equal_probabilities(length: int, compact: bool, replace: bool) -> None:
    buffer = filled(
        scripted(length, 3), sampler="vector_steps", sampler_kwargs={"replace": replace}, optimize_memory_usage=compact
    )
    rows = np.arange(min(length, ROWS))
    if compact and length > ROWS:
        rows = np.delete(rows, buffer.pos)
    np.random.seed(0)
    drawn = []
    for _ in range(800):
        batch = buffer.sample_batch(15)
        moments, envs = np.divmod(batch.indices.reshape(5, 3), 3)
        np.testing.assert_array_equal(envs, [[0, 1, 2]] * 5)
        np.testing.assert_array_equal(moments, moments[:, :1] + [0, 0, 0])
        assert batch.weights is None
        assert replace or len(set(moments[:, 0])) == 5
        drawn += moments[:, 0].tolist()
    assert set(drawn) == set(rows)
    assert chisquare(np.bincount(drawn, minlength=ROWS)[rows]).pvalue > 1e-3


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
def test_vector_steps_weight_terminal_transitions_like_copies(length: int, compact: bool) -> None:
    buffer = filled(scripted(length, 3), sampler="vector_steps", terminal_copies=COPIES, optimize_memory_usage=compact)
    there = np.arange(3 * min(length, ROWS))
    if compact and length > ROWS:
        there = np.setdiff1d(there, 3 * buffer.pos + np.arange(3))
    listed = expected_copies(buffer)[there]
    np.random.seed(0)
    batch = buffer.sample_batch(3000)
    assert batch.weights is not None
    weights = dict(zip(batch.indices.tolist(), batch.weights.tolist(), strict=True))
    np.testing.assert_allclose([weights[index] for index in there], listed / listed.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "kwargs", [{"monte_carlo": 0.5}, {"keep_episodes": 9}, {"monte_carlo": 0.5, "keep_episodes": 9}], ids=str
)
@pytest.mark.parametrize("copies", [1, COPIES])
@pytest.mark.parametrize("length", [ROWS - 2, 3 * ROWS + 5], ids=["not yet full", "overwritten"])
def test_with_unreplayable_rows_every_sampler_draws_from_the_same_transitions(
    kwargs: dict[str, Any], copies: int, length: int
) -> None:
    np.random.seed(0)
    drawn: dict[str, set[int]] = {}
    for sampler in ("uniform", "prioritized", "vector_steps"):
        buffer = filled(scripted(length, 2), sampler=sampler, terminal_copies=copies, gamma=0.9, **kwargs)
        batch = buffer.sample_batch(4000, progress=1.0)
        drawn[sampler] = set(batch.indices.tolist())
        if sampler == "vector_steps" and copies > 1:
            listed = expected_copies(buffer)
            mean = listed[sorted(drawn["vector_steps"])].mean()
            assert batch.weights is not None
            np.testing.assert_allclose(batch.weights, listed[batch.indices] / mean, rtol=1e-6)
    assert drawn["prioritized"] == drawn["uniform"]
    assert 0 < len(drawn["uniform"]) < 2 * min(length, ROWS)
    assert drawn["vector_steps"] == {
        index for index in drawn["uniform"] if index ^ 1 in drawn["uniform"]
    }  # in both environments
    assert len(drawn["vector_steps"]) > 0


TWISTS: dict[str, dict[str, Any]] = {
    "alone": {},
    "terminal_copies": {"replay_buffer_kwargs": {"terminal_copies": 3, "terminal_on": "done"}},
    "3-step returns": {"n_steps": 3, "gradient_steps": 2},
    "Dict observations": {"env": dict_cartpole},
    "4 environments": {"env": several_cartpoles},
    "4 environments, terminal_copies": {"env": several_cartpoles, "replay_buffer_kwargs": {"terminal_copies": 3}},
    "optimize_memory_usage": {"optimize_memory_usage": True, "buffer_size": 30, "n_steps": 2},
    "monte_carlo": {"replay_buffer_kwargs": {"monte_carlo": 0.5}},
    "monte_carlo, terminal_copies": {"replay_buffer_kwargs": {"monte_carlo": 1.0, "terminal_copies": 3}, "buffer_size": 30},
    "keep_episodes": {"replay_buffer_kwargs": {"keep_episodes": 2}},
}


SAMPLERS: dict[str, dict[str, Any]] = {
    "uniform": {},
    "uniform without replacement": {"sampler_kwargs": {"replace": False}},
    "prioritized": {"sampler": "prioritized"},
    "vector_steps": {"sampler": "vector_steps"},
    "vector_steps without replacement": {"sampler": "vector_steps", "sampler_kwargs": {"replace": False}},
}


def make(sampler: dict[str, Any], env: Callable[[], Any] = short_cartpole, **kwargs: Any) -> DQNExt:
    buffer_kwargs = sampler | kwargs.pop("replay_buffer_kwargs", {})
    policy = "MultiInputPolicy" if env is dict_cartpole else "MlpPolicy"
    return DQNExt(policy, env(), replay_buffer_kwargs=buffer_kwargs, **(SMALL | kwargs))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("twist", TWISTS)
def test_the_algorithm_trains_with_every_sampler(sampler: str, twist: str) -> None:
    model = make(SAMPLERS[sampler], **TWISTS[twist])
    before = [parameter.clone() for parameter in model.q_net.parameters()]
    model.learn(60)
    assert n_updates_of(model) > 0
    assert any(not th.equal(a, b) for a, b in zip(before, model.q_net.parameters(), strict=True))


@pytest.mark.parametrize("sampler", ["uniform", "vector_steps"])
def test_td_errors_are_computed_only_for_a_sampler_that_uses_them(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def update_priorities(*_: Any) -> None:
        raise AssertionError("TD errors were computed")

    monkeypatch.setattr(Sampler, "update_priorities", update_priorities)
    make({"sampler": sampler}).learn(40)


@pytest.mark.parametrize("sampler", ["prioritized", "vector_steps"])
@pytest.mark.parametrize("monte_carlo", [0.0, 0.5])
def test_a_saved_replay_buffer_draws_the_same_batches(sampler: str, monte_carlo: float, tmp_path: Path) -> None:
    buffer_kwargs = {"terminal_copies": 3, "monte_carlo": monte_carlo}
    # large enough for ended episodes in all environments
    size: dict[str, Any] = {"buffer_size": 400, "learning_starts": 200}
    model = make({"sampler": sampler}, env=several_cartpoles, replay_buffer_kwargs=buffer_kwargs, **size)
    learn(model, 500)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make({"sampler": sampler}, env=several_cartpoles, replay_buffer_kwargs=buffer_kwargs, **size)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    batches: list[Any] = []
    for buffer in (model.replay_buffer, other.replay_buffer):
        assert isinstance(buffer, DQNReplayBuffer)
        np.random.seed(0)
        batches.append([])
        for progress in (0.0, 0.5):
            batch = buffer.sample_batch(200, progress=progress)
            batches[-1].append(tuple(batch))
            buffer.sampler.update_priorities(batch.indices, np.linspace(0, 1, 200))
            buffer.sampler.remove(batch.indices[:4])
    assert_same(batches[0], batches[1], "batches")
    learn(other, 50, reset_num_timesteps=False)


@pytest.mark.parametrize(
    ("buffer_kwargs", "message"),
    [
        ({"sampler": "prioritized"}, r"sampler='prioritized' weights its transitions, which a stock algorithm ignores"),
        ({"sampler": "vector_steps", "terminal_copies": 2}, r"sampler='vector_steps' with terminal_copies=2 weights"),
    ],
)
def test_a_stock_algorithm_refuses_samplers_with_importance_weights(buffer_kwargs: dict[str, Any], message: str) -> None:
    model = DQN(
        "MlpPolicy", short_cartpole(), replay_buffer_class=DQNReplayBuffer, replay_buffer_kwargs=buffer_kwargs, **SMALL
    )
    with pytest.raises(ArgumentError, match=message):
        model.learn(40)


@pytest.mark.parametrize(
    "buffer_kwargs", [{"sampler": "vector_steps"}, {"sampler_kwargs": {"replace": False}, "terminal_copies": 2}], ids=str
)
def test_a_stock_algorithm_uses_samplers_without_importance_weights(buffer_kwargs: dict[str, Any]) -> None:
    DQN(
        "MlpPolicy", several_cartpoles(), replay_buffer_class=DQNReplayBuffer, replay_buffer_kwargs=buffer_kwargs, **SMALL
    ).learn(60)


def test_a_batch_of_vector_steps_must_be_a_multiple_of_n_envs() -> None:
    message = r"batch_size=10 must be a multiple of n_envs=4 with sampler='vector_steps'"
    with pytest.raises(ArgumentError, match=message):
        make({"sampler": "vector_steps"}, env=several_cartpoles, batch_size=10)
    with pytest.raises(ArgumentError, match=message):
        filled(scripted(5, 4), sampler="vector_steps").sample_batch(10)


@pytest.mark.parametrize(
    ("buffer_kwargs", "message"),
    [
        ({"sampler": "per"}, r"sampler='per' is not known.*prioritized, uniform, vector_steps.*Did you mean 'prioritized'"),
        ({"sampler": "rows"}, r"sampler='rows' is not known.*Did you mean 'vector_steps'"),
        ({"sampler": "prioritised"}, r"Did you mean 'prioritized'"),
        ({"sampler": "priority"}, r"Did you mean 'prioritized'"),
        ({"sampler": "random"}, r"Did you mean 'uniform'"),
        ({"sampler": "prioritized", "sampler_kwargs": {"alpha": -0.1}}, r"alpha=-0.1 must be a finite number in \[0, 1\]"),
        ({"sampler": "prioritized", "sampler_kwargs": {"beta": 2}}, r"beta=2 must be"),
        ({"sampler": "prioritized", "sampler_kwargs": {"beta_end": "1"}}, r"beta_end='1' must be"),
        ({"sampler": "prioritized", "sampler_kwargs": {"eps": 0.0}}, r"eps=0.0 must be a finite number in \[1e-10, 1e\+10\]"),
        ({"sampler": "prioritized", "sampler_kwargs": {"replace": False}}, r"sampler_kwargs has no argument 'replace'"),
        ({"sampler": "prioritized", "sampler_kwargs": {"gaps": True}}, "sampler_kwargs has no argument 'gaps'"),
        ({"sampler": "vector_steps", "sampler_kwargs": {"replace": 0}}, r"replace=0 must be True or False"),
        ({"sampler_kwargs": {"replace": "no"}}, r"replace='no' must be True or False"),
    ],
    ids=str,
)
def test_an_invalid_argument_is_reported_with_the_valid_ones(buffer_kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(buffer_kwargs)
