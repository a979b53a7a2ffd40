"""Which transitions are replayed, how often, and with which weight."""

import math
import pickle
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer, Prioritized, Sampler
from sb3_dqn_ext.replay.samplers import distinct
from sb3_dqn_ext.replay.sum_tree import PriorityTree
from tests.parity import assert_same, dict_cartpole, learn, several_cartpoles, short_cartpole
from tests.replay.test_buffer import ACTIONS, BOX, ROWS, filled, scripted

SMALL: dict[str, Any] = {
    "buffer_size": 120,
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 1,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 1,
    "device": "cpu",
}
ALPHA, EPS, COPIES = 0.7, 0.05, 4


# the tree

CHANGES = st.tuples(
    st.lists(st.integers(0, 99), min_size=1, max_size=8), st.integers(0, 5), st.sampled_from(["priorities", "copies"])
)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(size=st.integers(1, 100), changes=st.lists(CHANGES, max_size=8), whole=st.integers(0, 5))
def test_the_tree_finds_what_a_plain_list_of_all_copies_holds(size: int, changes: list[Any], whole: int) -> None:
    tree = PriorityTree(size)
    priorities, copies = np.full(size, whole), np.ones(size, dtype=np.int64)
    tree[np.arange(size)] = float(whole)
    for places, number, what in changes:
        cells = np.array(places) % size
        numbers = (number + np.arange(len(cells))) % 6  # 0 to 5; the last one of a cell counts
        if what == "priorities":
            tree[cells] = numbers.astype(float)
            priorities[cells] = numbers
        else:
            tree.set_copies(cells, numbers + 1)
            copies[cells] = numbers + 1
        shares = priorities * copies  # whole numbers: sums of them are exact
        assert tree.total == shares.sum()
        if tree.total:
            assert tree.lowest == priorities[priorities > 0].min()
            for within in (0.0, 0.5):
                found = tree.find(np.arange(shares.sum()) + within)
                np.testing.assert_array_equal(found, np.repeat(np.arange(size), shares))


@pytest.mark.parametrize("seed", range(10))
def test_rounding_leads_to_no_cell_that_cannot_be_replayed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 3000))
    priorities = 10.0 ** rng.uniform(-12, 12, size=size) * (rng.random(size) < 0.3)
    priorities[rng.integers(size)] = 1.0
    tree = PriorityTree(size)
    tree[np.arange(size)] = priorities
    ends = np.cumsum(priorities)
    points = np.concatenate([ends, np.nextafter(ends, 0), [0.0, tree.total, 2 * tree.total]])
    assert (priorities[tree.find(points)] > 0).all()


def refresh(tree: PriorityTree) -> None:
    """Compute the sums of the changed blocks."""
    assert tree.total >= 0


def test_the_sums_do_not_drift_over_a_hundred_thousand_updates() -> None:
    rng = np.random.default_rng(0)
    size, now = 500, np.zeros(500)
    tree = PriorityTree(size)
    cells, values = rng.integers(size, size=(100_000, 1)), 10.0 ** rng.uniform(-8, 8, size=(100_000, 1))
    for i in range(100_000):
        tree[cells[i]] = values[i]
        refresh(tree)
        now[cells[i]] = values[i]
    assert tree.total == pytest.approx(math.fsum(now), rel=1e-14)
    assert tree.lowest == now[now > 0].min()
    tree[np.arange(1, size)] = 0.0
    assert tree.total == now[0]


# prioritized


def prioritized_memory(**kwargs: Any) -> tuple[DQNReplayBuffer, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """
    A memory that has overwritten itself and has seen errors, the priority of each of its cells, and its copies.
    """
    script = scripted(3 * ROWS + 5, 2)
    sampler_kwargs = {"alpha": ALPHA, "eps": EPS} | kwargs.pop("sampler_kwargs", {})
    buffer = filled(script, sampler="prioritized", sampler_kwargs=sampler_kwargs, **({"terminal_copies": COPIES} | kwargs))
    errors = np.random.default_rng(1).exponential(size=2 * ROWS)
    for cells in np.array_split(np.arange(2 * ROWS), 5):
        buffer.sampler.update_priorities(cells, errors[cells])
    terminal = (buffer.dones * (1 - buffer.timeouts)).astype(bool).reshape(-1)
    assert 0 < terminal.sum() < 2 * ROWS
    return buffer, (errors + EPS) ** ALPHA, np.where(terminal, buffer.terminal_copies, 1)


@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
@pytest.mark.parametrize("copies", [1, COPIES])
def test_cells_are_drawn_in_proportion_to_their_priorities_and_copies(copies: int, compact: bool) -> None:
    buffer, priorities, copies_of = prioritized_memory(terminal_copies=copies, optimize_memory_usage=compact)
    shares = priorities * copies_of
    if compact:  # the oldest row cannot be replayed; an update must not bring it back
        shares.reshape(ROWS, 2)[buffer.pos] = 0
    np.random.seed(0)
    drawn = np.concatenate([buffer.sample_batch(32).indices for _ in range(1500)])
    counts = np.bincount(drawn, minlength=2 * ROWS)
    assert counts[shares == 0].sum() == 0
    stored = shares > 0
    assert chisquare(counts[stored], shares[stored] / shares.sum() * len(drawn)).pvalue > 1e-3


def test_at_beta_1_the_expected_weighted_gradient_is_that_of_a_list_that_holds_the_copies() -> None:
    buffer, priorities, copies = prioritized_memory()
    gradients = np.random.default_rng(2).normal(size=(2 * ROWS, 3))
    of_the_list = np.repeat(gradients, copies, axis=0).mean(axis=0)
    np.random.seed(0)
    batch = buffer.sample_batch(5000, progress=1.0)
    assert batch.weights is not None
    weights = dict(zip(batch.indices.tolist(), batch.weights.tolist(), strict=True))
    assert len(weights) == 2 * ROWS
    probabilities = priorities * copies / (priorities * copies).sum()  # as tested above
    expected = sum(probabilities[cell] * weights[cell] * gradients[cell] for cell in weights)
    direction = expected / np.linalg.norm(expected)
    np.testing.assert_allclose(direction, of_the_list / np.linalg.norm(of_the_list), rtol=1e-5)
    assert max(weights.values()) == 1.0


@pytest.mark.parametrize(("beta", "beta_end"), [(0.4, 1.0), (0.0, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("progress", [-0.1, 0.0, 0.25, 1.0, 1.1])
def test_beta_goes_from_its_start_to_its_end_along_a_straight_line(beta: float, beta_end: float, progress: float) -> None:
    buffer, priorities, copies = prioritized_memory(sampler_kwargs={"beta": beta, "beta_end": beta_end})
    batch = buffer.sample_batch(200, progress=progress)
    now = np.interp(progress, [0, 1], [beta, beta_end])
    # the weight as section 3.4 of the paper writes it, with b_i / sum b in place of 1 / N
    p = priorities * copies / (priorities * copies).sum()
    weights = (copies / copies.sum() / p) ** now
    assert batch.weights is not None
    np.testing.assert_allclose(batch.weights, (weights / weights.max())[batch.indices], rtol=1e-5)


def test_without_alpha_it_is_uniform() -> None:
    buffer, _, copies = prioritized_memory(sampler_kwargs={"alpha": 0.0})
    batch = buffer.sample_batch(20_000, progress=0.5)
    assert batch.weights is not None
    np.testing.assert_array_equal(batch.weights, 1.0)
    counts = np.bincount(batch.indices, minlength=2 * ROWS)
    np.testing.assert_allclose(counts / 20_000, copies / copies.sum(), atol=1e-3)


def some_cells(sampler: Prioritized, n: int) -> list[float]:
    """How often each of n cells is drawn, as a share of a batch that is large."""
    cells, _ = sampler.sample(0, n, 10_000)
    shares: list[float] = (np.bincount(cells, minlength=n) / 10_000).tolist()
    return shares


def test_a_new_transition_has_the_highest_priority_so_far() -> None:
    sampler = Prioritized(10, 1, 1, False, alpha=1.0, eps=0.5)
    no = np.array([False])
    sampler.add(np.array([0]), no)
    sampler.add(np.array([1]), no)
    assert some_cells(sampler, 2) == pytest.approx([0.5, 0.5], abs=1e-3)
    sampler.update_priorities(np.array([0, 1]), np.array([2.5, 0.0]))  # priorities 3, 0.5
    sampler.add(np.array([2]), no)
    assert some_cells(sampler, 3) == pytest.approx([3 / 6.5, 0.5 / 6.5, 3 / 6.5], abs=1e-3)
    sampler.update_priorities(np.array([0, 2]), np.array([0.0, 0.0]))
    sampler.add(np.array([0]), no)  # in the place of an older one
    assert some_cells(sampler, 3) == pytest.approx([3 / 4, 0.5 / 4, 0.5 / 4], abs=1e-3)


def test_of_a_cell_that_is_twice_in_a_batch_the_last_error_counts() -> None:
    sampler = Prioritized(10, 1, COPIES, False, alpha=1.0, eps=0.5)
    sampler.add(np.arange(2), np.array([True, False]))
    sampler.update_priorities(np.array([1, 0, 0, 1]), np.array([9.0, 9.0, 0.5, 0.0]))  # the last ones: priorities 1, 0.5
    assert some_cells(sampler, 2) == pytest.approx([4 / 4.5, 0.5 / 4.5], abs=1e-3)


def test_what_was_removed_is_not_drawn_and_no_update_brings_it_back() -> None:
    sampler = Prioritized(10, 1, 1, False)
    sampler.add(np.arange(3), np.zeros(3, dtype=bool))
    sampler.remove(np.array([1, 7]))
    sampler.update_priorities(np.arange(10), np.full(10, 5.0))
    assert np.flatnonzero(some_cells(sampler, 10)).tolist() == [0, 2]
    sampler.remove(np.arange(10))
    with pytest.raises(ArgumentError, match="nothing that could be replayed"):
        sampler.sample(0, 3, 1)


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_an_error_that_is_no_finite_number_is_reported(error: float) -> None:
    sampler = Prioritized(10, 1, 1, False)
    sampler.add(np.arange(3), np.zeros(3, dtype=bool))
    with pytest.raises(FloatingPointError, match="learning has diverged"):
        sampler.update_priorities(np.arange(2), np.array([1.0, error]))
    assert some_cells(sampler, 3) == pytest.approx([1 / 3] * 3, abs=1e-3)


# without replacement


@pytest.mark.parametrize(("n", "size"), [(6, 2), (6, 3), (6, 4), (6, 6), (6, 1)])
def test_each_set_of_distinct_numbers_comes_as_often(n: int, size: int) -> None:
    np.random.seed(0)
    counts = dict.fromkeys(combinations(range(n), size), 0)
    for _ in range(4000):
        counts[tuple(sorted(distinct(n, size).tolist()))] += 1
    assert len(counts) == 1 or chisquare(list(counts.values())).pvalue > 1e-3


def expected_copies(buffer: DQNReplayBuffer) -> np.ndarray[Any, Any]:
    """(cells,) how often each stands in the list of all copies."""
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


# rows


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
@pytest.mark.parametrize("replace", [True, False])
def test_rows_are_drawn_whole_and_each_as_often(length: int, compact: bool, replace: bool) -> None:
    buffer = filled(scripted(length, 3), sampler="rows", sampler_kwargs={"replace": replace}, optimize_memory_usage=compact)
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
def test_rows_weight_terminal_cells_as_a_list_that_holds_their_copies(length: int, compact: bool) -> None:
    buffer = filled(scripted(length, 3), sampler="rows", terminal_copies=COPIES, optimize_memory_usage=compact)
    there = np.arange(3 * min(length, ROWS))
    if compact and length > ROWS:
        there = np.setdiff1d(there, 3 * buffer.pos + np.arange(3))
    listed = expected_copies(buffer)[there]
    np.random.seed(0)
    batch = buffer.sample_batch(3000)
    assert batch.weights is not None
    weights = dict(zip(batch.indices.tolist(), batch.weights.tolist(), strict=True))
    np.testing.assert_allclose([weights[cell] for cell in there], listed / listed.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "kwargs", [{"monte_carlo": 0.5}, {"keep_episodes": 9}, {"monte_carlo": 0.5, "keep_episodes": 9}], ids=str
)
@pytest.mark.parametrize("copies", [1, COPIES])
@pytest.mark.parametrize("length", [ROWS - 2, 3 * ROWS + 5], ids=["not yet full", "overwritten"])
def test_with_gaps_every_sampler_draws_the_cells_that_uniform_draws(kwargs: dict[str, Any], copies: int, length: int) -> None:
    np.random.seed(0)
    drawn: dict[str, set[int]] = {}
    for sampler in ("uniform", "prioritized", "rows"):
        buffer = filled(scripted(length, 2), sampler=sampler, terminal_copies=copies, gamma=0.9, **kwargs)
        batch = buffer.sample_batch(4000, progress=1.0)
        drawn[sampler] = set(batch.indices.tolist())
        if sampler == "rows" and copies > 1:
            listed = expected_copies(buffer)
            mean = listed[sorted(drawn["rows"])].mean()
            assert batch.weights is not None
            np.testing.assert_allclose(batch.weights, listed[batch.indices] / mean, rtol=1e-6)
    assert drawn["prioritized"] == drawn["uniform"]
    assert 0 < len(drawn["uniform"]) < 2 * min(length, ROWS)
    assert drawn["rows"] == {cell for cell in drawn["uniform"] if cell ^ 1 in drawn["uniform"]}  # the other env's, too
    assert len(drawn["rows"]) > 0


# the algorithm

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
    "rows": {"sampler": "rows"},
    "rows without replacement": {"sampler": "rows", "sampler_kwargs": {"replace": False}},
}


def make(sampler: dict[str, Any], env: Callable[[], Any] = short_cartpole, **kwargs: Any) -> DQNExt:
    memory = sampler | kwargs.pop("replay_buffer_kwargs", {})
    policy = "MultiInputPolicy" if env is dict_cartpole else "MlpPolicy"
    return DQNExt(policy, env(), replay_buffer_kwargs=memory, **(SMALL | kwargs))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("twist", TWISTS)
def test_the_algorithm_trains_with_every_sampler(sampler: str, twist: str) -> None:
    model = make(SAMPLERS[sampler], **TWISTS[twist])
    before = [parameter.clone() for parameter in model.q_net.parameters()]
    model.learn(60)
    assert model._n_updates > 0
    assert any(not th.equal(a, b) for a, b in zip(before, model.q_net.parameters(), strict=True))


def test_the_priorities_are_the_absolute_td_errors() -> None:
    model = make(
        {"sampler": "prioritized", "sampler_kwargs": {"alpha": ALPHA, "eps": EPS}},
        learning_rate=1e-30,  # the network stays as it is, and the errors with it
        batch_size=32,
        gamma=0.9,
    )
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(4.0)  # errors above 1, too
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


def test_the_algorithm_tells_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    sample = Prioritized.sample

    def recording(self: Prioritized, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> Any:
        told.append(progress)
        return sample(self, first_row, n_rows, batch_size, progress)

    monkeypatch.setattr(Prioritized, "sample", recording)
    make({"sampler": "prioritized"}).learn(50)
    assert told == pytest.approx(np.arange(21, 51) / 50)


@pytest.mark.parametrize("sampler", ["uniform", "rows"])
def test_errors_are_fetched_only_for_a_sampler_that_wants_them(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def update_priorities(*_: Any) -> None:
        raise AssertionError("it was given errors")

    monkeypatch.setattr(Sampler, "update_priorities", update_priorities)
    make({"sampler": sampler}).learn(40)


@pytest.mark.parametrize("sampler", ["prioritized", "rows"])
@pytest.mark.parametrize("monte_carlo", [0.0, 0.5])
def test_a_saved_memory_draws_what_the_memory_would_have_drawn(sampler: str, monte_carlo: float, tmp_path: Path) -> None:
    memory = {"terminal_copies": 3, "monte_carlo": monte_carlo}
    # room and time enough for episodes that end in all environments
    size: dict[str, Any] = {"buffer_size": 400, "learning_starts": 200}
    model = make({"sampler": sampler}, env=several_cartpoles, replay_buffer_kwargs=memory, **size)
    learn(model, 500)
    model.save_replay_buffer(tmp_path / "memory.pkl")
    other = make({"sampler": sampler}, env=several_cartpoles, replay_buffer_kwargs=memory, **size)
    other.load_replay_buffer(tmp_path / "memory.pkl")
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


def test_a_sampler_takes_no_memory_before_the_first_transition() -> None:
    buffer = DQNReplayBuffer(10**8, BOX, ACTIONS, device="cpu", sampler="prioritized", terminal_copies=2)
    assert len(pickle.dumps(buffer.sampler)) < 1000


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({"sampler": "prioritized"}, r"sampler='prioritized' weights its transitions, which only DQNExt reads"),
        ({"sampler": "rows", "terminal_copies": 2}, r"sampler='rows' with terminal_copies=2 weights"),
    ],
)
def test_a_stock_algorithm_is_refused_what_it_would_learn_wrongly_from(memory: dict[str, Any], message: str) -> None:
    model = DQN("MlpPolicy", short_cartpole(), replay_buffer_class=DQNReplayBuffer, replay_buffer_kwargs=memory, **SMALL)
    with pytest.raises(ArgumentError, match=message):
        model.learn(40)


@pytest.mark.parametrize(
    "memory", [{"sampler": "rows"}, {"sampler_kwargs": {"replace": False}, "terminal_copies": 2}], ids=str
)
def test_a_stock_algorithm_is_given_what_it_can_use(memory: dict[str, Any]) -> None:
    DQN("MlpPolicy", several_cartpoles(), replay_buffer_class=DQNReplayBuffer, replay_buffer_kwargs=memory, **SMALL).learn(60)


def test_a_batch_of_rows_must_hold_whole_rows() -> None:
    message = r"batch_size=10 must be a multiple of n_envs=4 with sampler='rows'"
    with pytest.raises(ArgumentError, match=message):
        make({"sampler": "rows"}, env=several_cartpoles, batch_size=10)
    with pytest.raises(ArgumentError, match=message):
        filled(scripted(5, 4), sampler="rows").sample_batch(10)


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({"sampler": "per"}, r"sampler='per' is not known.*prioritized, rows, uniform.*Did you mean 'prioritized'"),
        ({"sampler": "prioritised"}, r"Did you mean 'prioritized'"),
        ({"sampler": "priority"}, r"Did you mean 'prioritized'"),
        ({"sampler": "random"}, r"Did you mean 'uniform'"),
        ({"sampler": "prioritized", "sampler_kwargs": {"alpha": -0.1}}, r"alpha=-0.1 must be a finite number in \[0, 1\]"),
        ({"sampler": "prioritized", "sampler_kwargs": {"beta": 2}}, r"beta=2 must be"),
        ({"sampler": "prioritized", "sampler_kwargs": {"beta_end": "1"}}, r"beta_end='1' must be"),
        ({"sampler": "prioritized", "sampler_kwargs": {"eps": 0.0}}, r"eps=0.0 must be a finite number in \[1e-10, 1e\+10\]"),
        ({"sampler": "prioritized", "sampler_kwargs": {"replace": False}}, r"sampler_kwargs has no argument 'replace'"),
        ({"sampler": "prioritized", "sampler_kwargs": {"gaps": True}}, r"a key of sampler_kwargs='gaps'"),
        ({"sampler": "rows", "sampler_kwargs": {"replace": 0}}, r"replace=0 must be True or False"),
        ({"sampler_kwargs": {"replace": "no"}}, r"replace='no' must be True or False"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_named_with_what_is_allowed(memory: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(memory)


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
