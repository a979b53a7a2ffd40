"""The replay buffer, compared with lists, and used in stock algorithms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import QRDQN
from scipy.stats import chisquare
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.parity import assert_same, assert_same_replay_buffer, dict_cartpole, learn, short_cartpole
from tests.replay.scripts import ACTIONS, BOX, DICT, ENDS, ROWS, filled, name_of, scripted


@pytest.mark.parametrize("length", [ROWS // 2, 3 * ROWS + 5], ids=["half full", "overwritten"])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"terminal_on": "truncated"},
        {"terminal_on": "done"},
        {"terminal_on": "truncated", "handle_timeout_termination": False},
        {"n_steps": 3, "gamma": 0.9},
        {"space": DICT},
        {"optimize_memory_usage": True},
        {"optimize_memory_usage": True, "n_steps": 3, "gamma": 0.9, "space": DICT, "terminal_on": "done"},
    ],
    ids=str,
)
def test_terminal_copies_are_drawn_like_items_of_a_list(kwargs: dict[str, Any], n_envs: int, length: int) -> None:
    copies, draws = 4, 40_000
    script = scripted(length, n_envs)
    buffer = filled(script, terminal_copies=copies, **kwargs)
    # with optimize_memory_usage, a full buffer cannot replay its oldest row
    kept = script[-(ROWS - 1 if kwargs.get("optimize_memory_usage") and length > ROWS else ROWS) :]
    ended = ENDS[kwargs.get("terminal_on", "terminated")]
    stored = [step.name for row in kept for step in row for _ in range(copies if ended(step) else 1)]
    assert any(ended(step) for row in kept for step in row)

    np.random.seed(0)
    drawn = name_of(buffer.sample_batch(draws).observations)
    names, expected = np.unique(stored, return_counts=True)
    counts = np.array([np.sum(drawn == name) for name in names])
    assert counts.sum() == draws, "something was drawn that is not stored"
    assert chisquare(counts, expected / expected.sum() * draws).pvalue > 1e-3


def test_a_reset_removes_the_terminal_copies() -> None:
    buffer = filled(scripted(ROWS, 1), terminal_copies=50)
    buffer.reset()
    script = scripted(3, 1, seed=5)
    for step in (row[0] for row in script):
        buffer.add(
            np.array([[step.name]]),
            np.array([[step.after]]),
            np.array([0]),
            np.array([0.0]),
            np.array([False]),
            [{}],
        )
    assert set(name_of(buffer.sample_batch(300).observations)) == {row[0].name for row in script}


SMALL: dict[str, Any] = {
    "buffer_size": 128,
    "learning_starts": 20,
    "batch_size": 16,
    "train_freq": 4,
    "policy_kwargs": {"net_arch": [16]},
    "seed": 1,
    "device": "cpu",
}


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_stock_algorithm_trains_with_the_same_bits_as_with_the_stock_buffer(algorithm: type[Any], n_steps: int) -> None:
    with_ours: dict[str, Any] = {"replay_buffer_class": DQNReplayBuffer}
    if n_steps > 1:
        with_ours["replay_buffer_kwargs"] = {"n_steps": n_steps, "gamma": 0.99}
    models = []
    network = {"net_arch": [16]} | ({"n_quantiles": 5} if algorithm is QRDQN else {})
    for kwargs in (with_ours, {"n_steps": n_steps}):
        model = algorithm("MlpPolicy", short_cartpole(), **(SMALL | {"policy_kwargs": network}), **kwargs)
        learn(model, 300)
        models.append(model)
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")
    assert models[0].replay_buffer is not None
    assert models[1].replay_buffer is not None
    assert_same_replay_buffer(models[0].replay_buffer, models[1].replay_buffer)


def test_terminal_copies_work_inside_a_stock_algorithm() -> None:
    model = DQN(
        "MultiInputPolicy",
        dict_cartpole(),
        replay_buffer_class=DQNReplayBuffer,
        replay_buffer_kwargs={"terminal_copies": 8, "terminal_on": "done"},
        **SMALL,
    )
    learn(model, 200)
    buffer = model.replay_buffer
    assert isinstance(buffer, DQNReplayBuffer)
    ended = buffer.dones.sum()
    expected = 8 * ended / (buffer.size() + 7 * ended)
    rows, envs = np.divmod(buffer.sample_batch(20_000).indices, 1)
    assert buffer.dones[rows, envs].mean() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("make_env", [short_cartpole, dict_cartpole])
def test_a_saved_replay_buffer_is_loaded_with_its_sampler(make_env: Any, tmp_path: Path) -> None:
    policy = "MultiInputPolicy" if make_env is dict_cartpole else "MlpPolicy"
    kwargs: dict[str, Any] = {"replay_buffer_kwargs": {"terminal_copies": 5}, "optimize_memory_usage": True, "n_steps": 2}
    model = DQNExt(policy, make_env(), **SMALL, **kwargs)
    learn(model, 200)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = DQNExt(policy, make_env(), **SMALL, **kwargs)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    batches = []
    for buffer in (model.replay_buffer, other.replay_buffer):
        assert isinstance(buffer, DQNReplayBuffer)
        np.random.seed(0)
        batches.append(buffer.sample_batch(100))
    assert_same(tuple(batches[0]), tuple(batches[1]), "batch")


def is_allocated(buffer: Any) -> bool:
    """Return whether arrays of the buffer are allocated."""
    return bool(
        {"observations", "next_observations"} & vars(buffer.observation_ring).keys()
        or {"actions", "rewards"} & vars(buffer).keys()
    )


def test_arrays_are_allocated_at_the_first_transition(tmp_path: Path) -> None:
    model = DQNExt("MlpPolicy", short_cartpole(), **(SMALL | {"buffer_size": 1_000_000}))
    assert not is_allocated(model.replay_buffer)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert not is_allocated(loaded.replay_buffer)
    learn(loaded, 30)
    assert is_allocated(loaded.replay_buffer)
    assert isinstance(loaded.replay_buffer, DQNReplayBuffer)
    assert np.asarray(loaded.replay_buffer.observations).shape == (1_000_000, 1, 4)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"terminal_copies": 0}, r"terminal_copies=0 must be a whole number"),
        ({"terminal_copies": 1.5}, r"terminal_copies=1.5 must be a whole number"),
        ({"terminal_on": "terminal"}, r"terminal_on='terminal'.*done, terminated, truncated.*'terminated'"),
        ({"sampler": "unifrom"}, r"sampler='unifrom'.*uniform"),
        ({"sampler_kwargs": {"alpha": 0.6}}, r"sampler_kwargs has no argument 'alpha'.*'prioritized'"),
        ({"n_steps": 3}, r"n_steps=3.*need a gamma"),
        ({"n_steps": 0, "gamma": 0.9}, r"n_steps=0 must be a whole number"),
        ({"monte_carlo": 1.5, "gamma": 0.9}, r"monte_carlo=1.5 must be a finite number in \[0, 1\]"),
        ({"monte_carlo": 0.5}, r"monte_carlo=0.5 need a gamma"),
        ({"keep_episodes": 0}, r"keep_episodes=0 must be a whole number in \[1, inf\]"),
        ({"gamma": 1.5}, r"gamma=1.5 must be a finite number in \[0, 1\]"),
        ({"buffer_size": 4, "n_envs": 2, "n_steps": 3, "gamma": 0.9}, r"buffer_size=4 leaves 2 rows"),
    ],
)
def test_an_invalid_argument_is_reported_with_the_valid_ones(kwargs: dict[str, Any], message: str) -> None:
    required: dict[str, Any] = {"buffer_size": 100, "observation_space": BOX, "action_space": ACTIONS}
    with pytest.raises(ArgumentError, match=message):
        DQNReplayBuffer(**(required | kwargs))


def test_rows_that_can_never_be_complete_are_an_error_when_the_buffer_is_made() -> None:
    with pytest.raises(ArgumentError, match=r"keep_episodes=2 leaves sampler='vector_steps' no complete row.*n_envs=4"):
        DQNReplayBuffer(100, BOX, ACTIONS, device="cpu", n_envs=4, sampler="vector_steps", keep_episodes=2)
    DQNReplayBuffer(100, BOX, ACTIONS, device="cpu", n_envs=4, sampler="vector_steps", keep_episodes=4)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("storage", ["plain", "frames"])
def test_transitions_of_another_number_of_environments_are_refused(storage: str, n_envs: int) -> None:
    buffer = DQNReplayBuffer(100, spaces.Box(0, 1, (2, 3)), ACTIONS, device="cpu", n_envs=2, storage=storage)
    obs, numbers = np.zeros((n_envs, 2, 3), np.float32), np.zeros(n_envs)
    with pytest.raises(ArgumentError, match=f"stores transitions of 2 environments, and there are {n_envs}"):
        buffer.add(obs, obs, numbers, numbers, numbers, [{}] * n_envs)
    assert buffer.size() == 0


@pytest.mark.parametrize("storage", ["plain", "frames"])
def test_observations_with_their_axes_in_another_order_are_refused(storage: str) -> None:
    """SB3's buffer cannot store them either. An axis of length 1 may be missing, as with Discrete spaces."""
    buffer = DQNReplayBuffer(100, spaces.Box(0, 1, (1, 2, 3)), ACTIONS, device="cpu", storage=storage)
    numbers = np.zeros(1)
    ordered = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    buffer.add(ordered, ordered, numbers, numbers, numbers, [{}])
    np.testing.assert_array_equal(buffer.read_observations(np.array([0])), ordered[None])
    other = ordered.reshape(1, 3, 2, 1)
    with pytest.raises(
        ArgumentError, match=r"observations of shape \(1, 3, 2, 1\) do not fit the replay buffer, which stores \(1, 1, 2, 3\)"
    ):
        buffer.add(other, other, numbers, numbers, numbers, [{}])
