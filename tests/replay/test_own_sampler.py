"""A sampler that a user defines: training, saving, exact resuming, and diagnostics."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import DiagnosticsCallback, ExactCheckpointCallback
from sb3_dqn_ext.errors import ArgumentError, EmptyReplayError
from sb3_dqn_ext.replay import DQNReplayBuffer, Sampler
from sb3_dqn_ext.replay.sampler_base import Priorities
from tests.internals import drawn_batch, n_updates_of
from tests.parity import assert_same_model, learn, short_cartpole
from tests.replay.scripts import ROWS, filled, scripted


class ByError(Sampler):
    """A sampler that draws in proportion to the latest TD errors. It overrides all methods except those of the state."""

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int, only_added: bool, floor: float = 0.1) -> None:
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.floor = floor
        self.sizes = np.zeros(n_rows * n_envs)

    def add(self, indices: npt.NDArray[np.int64], terminal: npt.NDArray[np.bool_]) -> None:
        self.sizes[indices] = np.where(terminal, 2.0, 1.0)

    def remove(self, indices: npt.NDArray[np.int64]) -> None:
        self.sizes[indices] = 0

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> Any:
        indices = np.random.choice(len(self.sizes), size=batch_size, p=self.sizes / self.sizes.sum())
        return indices, (self.sizes[self.sizes > 0].min() / self.sizes[indices]).astype(np.float32)

    def update_priorities(self, indices: npt.NDArray[np.int64], td_errors: npt.NDArray[Any]) -> None:
        there = self.sizes[indices] > 0
        self.sizes[indices[there]] = td_errors[there] + self.floor

    def replayable(self) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.sizes)

    def priorities(self) -> Priorities:
        indices = self.replayable()
        return Priorities(indices, self.sizes[indices], np.ones(len(indices)))

    def beta(self, progress: float) -> float:
        return 1.0


class Passing(ByError):
    """Passes on all arguments but its own."""

    def __init__(self, *sizes: Any, offset: float = 0.0) -> None:
        super().__init__(*sizes)
        self.offset = offset


class Newest(Sampler):
    """A sampler that draws the newest row only: the smallest subclass."""

    tracks_indices = False

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> Any:
        return np.full(batch_size, (first_row + n_rows - 1) % self.n_rows * self.n_envs), None


def make(sampler: Any = ByError, **kwargs: Any) -> DQNExt:
    return DQNExt(
        "MlpPolicy",
        DummyVecEnv([short_cartpole] * 2),
        buffer_size=120,
        learning_starts=20,
        batch_size=8,
        train_freq=1,
        policy_kwargs={"net_arch": [8]},
        replay_buffer_kwargs={"sampler": sampler, **kwargs},
        seed=1,
        device="cpu",
    )


def sampler_of(model: DQN) -> Any:
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    return model.replay_buffer.sampler


@pytest.mark.parametrize("sampler", [ByError, Newest])
def test_a_model_trains_with_it(sampler: type[Sampler]) -> None:
    model = make(sampler)
    before = [parameter.detach().clone() for parameter in model.q_net.parameters()]
    learn(model, 80)
    assert type(sampler_of(model)) is sampler
    assert any((a != b).any() for a, b in zip(before, model.q_net.parameters(), strict=True))


def test_it_gets_the_td_errors_and_its_weights_are_in_the_batch() -> None:
    model = make(sampler_kwargs={"floor": 0.5})
    learn(model, 80)
    sampler = sampler_of(model)
    sizes = sampler.sizes[sampler.sizes > 0]
    assert len(set(sizes.tolist())) > 20
    assert sizes.min() >= 0.5
    batch = drawn_batch(model, 50)
    assert batch.weights is not None
    np.testing.assert_allclose(batch.weights, sizes.min() / sampler.sizes[batch.indices], rtol=1e-6)


def test_td_errors_are_computed_only_if_it_uses_them() -> None:
    assert not sampler_of(make(Newest)).uses_td_errors
    assert sampler_of(make()).uses_td_errors


@pytest.mark.parametrize("kwargs", [{}, {"monte_carlo": 0.5}, {"keep_episodes": 4}], ids=str)
def test_it_draws_the_transitions_that_can_be_replayed(kwargs: dict[str, Any]) -> None:
    drawn = []
    for sampler in ("uniform", ByError):
        buffer = filled(scripted(3 * ROWS + 5, 2), sampler=sampler, gamma=0.9, **kwargs)
        drawn.append(set(buffer.sample_batch(3000).indices.tolist()))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("include", [(), ("replay_buffer",)], ids=str)
def test_it_is_saved_and_loaded(include: tuple[str, ...], tmp_path: Path) -> None:
    model = make()
    learn(model, 60)
    model.save(tmp_path / "model", include=include)
    loaded = DQNExt.load(tmp_path / "model", env=DummyVecEnv([short_cartpole] * 2), trust=True)
    assert isinstance(sampler_of(loaded), ByError)
    if include:
        np.testing.assert_array_equal(sampler_of(loaded).sizes, sampler_of(model).sizes)
    learn(loaded, 40)


def test_a_saved_replay_buffer_is_loaded_with_it(tmp_path: Path) -> None:
    model, other = make(), make()
    learn(model, 60)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    np.testing.assert_array_equal(sampler_of(other).sizes, sampler_of(model).sizes)


def test_it_continues_from_a_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    model = make()
    learn(model, 100, callback=ExactCheckpointCallback(10**6, tmp_path))
    model.save_checkpoint(tmp_path)
    saved = sampler_of(model).sizes.copy()
    learn(model, 60, reset_num_timesteps=False)
    resumed = make().resume(tmp_path)
    np.testing.assert_array_equal(sampler_of(resumed).sizes, saved)
    learn(resumed, 160, callback=ExactCheckpointCallback(10**6, tmp_path))
    assert_same_model(resumed, model)
    np.testing.assert_array_equal(sampler_of(resumed).sizes, sampler_of(model).sizes)
    assert (sampler_of(model).sizes != saved).any()


def test_diagnostics_read_it_and_change_nothing() -> None:
    plain = make()
    learn(plain, 160)
    diagnosed = make()  # seeds all generators again
    rows = learn(diagnosed, 160, callback=DiagnosticsCallback(every=50, calibration={"every": 100, "n_episodes": 1})).rows
    assert_same_model(diagnosed, plain)
    logged = {key: value for row in rows for key, value in row.items()}
    assert logged["errors/beta"] == 1.0
    assert 1 < logged["errors/effective_sample_size"] < 120
    assert 0 < logged["replay/age_mean"] < 120


def test_sample_hooks_get_the_indices_of_each_batch() -> None:
    seen: list[npt.NDArray[np.int64]] = []
    model = make()
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    model.replay_buffer.sample_hooks.append(seen.append)
    learn(model, 60)
    assert [len(indices) for indices in seen] == [8] * n_updates_of(model)
    model.replay_buffer.read(seen[0])
    assert len(seen) == n_updates_of(model), "read() calls no hooks"


def test_a_stock_algorithm_and_epochs_refuse_it() -> None:
    kwargs: dict[str, Any] = {"replay_buffer_class": DQNReplayBuffer, "replay_buffer_kwargs": {"sampler": ByError}}
    model = DQN("MlpPolicy", short_cartpole(), learning_starts=10, device="cpu", **kwargs)
    with pytest.raises(ArgumentError, match=r"ByError.*weights its transitions, which a stock algorithm ignores"):
        model.learn(40)
    with pytest.raises(ArgumentError, match="n_epochs=2 needs sampler='uniform'"):
        DQNExt("MlpPolicy", short_cartpole(), n_epochs=2, replay_buffer_kwargs={"sampler": ByError}, device="cpu")


def test_a_sampler_may_pass_on_the_arguments_of_its_base_class() -> None:
    assert sampler_of(make(Passing, sampler_kwargs={"offset": 2.0})).offset == 2.0
    with pytest.raises(ArgumentError, match="Did you mean 'offset'"):
        make(Passing, sampler_kwargs={"ofset": 2.0})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sampler": ByError, "sampler_kwargs": {"flor": 1}}, "sampler_kwargs has no argument 'flor'.*Did you mean 'floor'"),
        (
            {"sampler": int},
            "sampler=<class 'int'> is no Sampler: it has no sample.*one of: prioritized, uniform, vector_steps",
        ),
        ({"sampler": Newest(4, 1)}, "has n_rows=4, n_envs=1, and the replay buffer needs n_rows=60, n_envs=2"),
        ({"sampler": Newest(60, 2), "sampler_kwargs": {"floor": 1}}, "has no effect on sampler=.*an object that is already"),
    ],
    ids=["an unknown argument", "another class", "an object of another size", "an object with arguments"],
)
def test_an_invalid_sampler_is_reported(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(**kwargs)


def test_an_empty_buffer_raises_its_own_error() -> None:
    buffer = filled(scripted(2, 1), monte_carlo=1.0, gamma=0.9)
    buffer.reset()
    with pytest.raises(EmptyReplayError, match="no transition that can be replayed"):
        buffer.all_indices()
