"""Subclasses of the replay buffer, and replay buffers that other models have saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import DQN

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from tests.internals import drawn_batch
from tests.parity import assert_same, dict_cartpole, several_cartpoles, short_cartpole
from tests.replay.scripts import (
    filled,
    scripted,
)
from tests.replay.test_buffer import SMALL


class DoublesRewards(DQNReplayBuffer):
    def _get_samples(self, batch_inds: Any, env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return samples._replace(rewards=2 * samples.rewards)


class DoublesRewardsOfSamples(DQNReplayBuffer):
    def sample(self, batch_size: int, env: Any = None) -> Any:
        samples = super().sample(batch_size, env)
        return samples._replace(rewards=2 * samples.rewards)


@pytest.mark.parametrize("subclass", [DoublesRewards, DoublesRewardsOfSamples])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"sampler": "prioritized"},
        {"sampler": "prioritized", "terminal_copies": 3, "n_steps": 3},
        {"monte_carlo": 0.5, "optimize_memory_usage": True},
    ],
    ids=str,
)
def test_samples_that_a_subclass_changes_are_learned_from(subclass: Any, n_envs: int, kwargs: dict[str, Any]) -> None:
    batches = []
    for kind in (DQNReplayBuffer, subclass):
        buffer = filled(scripted(15, n_envs), kind=kind, gamma=0.9, **kwargs)
        np.random.seed(0)
        n_batches = 1 if "monte_carlo" in kwargs else 2  # reading draws random numbers, too
        batches.append(buffer.sample_batch(16, progress=0.5, n_batches=n_batches))
    plain, doubled = batches
    assert_same(tuple(doubled), tuple(plain._replace(rewards=2 * plain.rewards)), "batch")


def test_epochs_use_rewards_that_a_subclass_changes_and_refuse_an_overridden_sample() -> None:
    buffer = filled(scripted(15, 1), kind=DoublesRewards, gamma=0.9)
    assert {float(reward) for batch, _ in buffer.epoch(buffer.all_indices(), 4) for reward in batch.rewards} == {
        2 * float(reward) for reward in buffer.rewards[:15].flat
    }
    with pytest.raises(ArgumentError, match=r"sample\(\) of DoublesRewardsOfSamples would never be called"):
        DQNExt("MlpPolicy", short_cartpole(), replay_buffer_class=DoublesRewardsOfSamples, n_epochs=1, **SMALL)


def saved_by(tmp_path: Path, make: Callable[..., DQN], **kwargs: Any) -> Path:
    model = make("MlpPolicy", short_cartpole(), **(SMALL | {"learning_starts": 100}), **kwargs)
    model.learn(30)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    return tmp_path / "buffer.pkl"


PRIORITIZED: dict[str, Any] = {"replay_buffer_kwargs": {"sampler": "prioritized"}}


MISFITS: dict[str, tuple[Callable[..., DQN], dict[str, Any], dict[str, Any], str]] = {
    "SB3's, prioritized": (DQN, {}, PRIORITIZED, "sampler='uniform' in the place of 'prioritized'"),
    "SB3's, 3 steps": (DQN, {}, {"n_steps": 3}, "n_step_returns=False"),
    "SB3's, epochs": (DQN, {}, {"n_epochs": 1}, "no support for n_epochs=1"),
    "prioritized": (DQNExt, PRIORITIZED, {}, "sampler='prioritized' in the place of 'uniform'"),
    "copies": (DQNExt, {"replay_buffer_kwargs": {"terminal_copies": 3}}, {}, "terminal_copies=3 in the place of 1"),
    "Monte-Carlo": (DQNExt, {}, {"replay_buffer_kwargs": {"monte_carlo": 1.0}}, "monte_carlo=0.0 in the place of 1.0"),
    "Monte-Carlo, gamma": (
        *(DQNExt, {"gamma": 0.5, "replay_buffer_kwargs": {"monte_carlo": 1.0}}),
        *({"gamma": 0.9, "replay_buffer_kwargs": {"monte_carlo": 1.0}}, "gamma=0.9 does not fit"),
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_replay_buffer_that_does_not_fit_is_refused_and_the_own_one_is_kept(name: str, tmp_path: Path) -> None:
    make, theirs, ours, message = MISFITS[name]
    path = saved_by(tmp_path, make, **theirs)
    model = DQNExt("MlpPolicy", short_cartpole(), **SMALL, **ours)
    own = model.replay_buffer
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        model.load_replay_buffer(path)
    assert model.replay_buffer is own
    loaded = make("MlpPolicy", short_cartpole(), **SMALL, **theirs)
    loaded.load_replay_buffer(path)
    model.replay_buffer = loaded.replay_buffer
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(")):
        model.learn(10)


def test_a_replay_buffer_of_other_environments_is_refused(tmp_path: Path) -> None:
    path = saved_by(tmp_path, DQNExt)
    two = DQNExt("MlpPolicy", several_cartpoles(2), **SMALL)
    with pytest.raises(ArgumentError, match="n_envs=1 in the place of 2"):
        two.load_replay_buffer(path)
    with pytest.raises(ArgumentError, match="observation_space"):
        DQNExt("MultiInputPolicy", dict_cartpole(), **SMALL).load_replay_buffer(path)


@pytest.mark.parametrize("make", [DQN, DQNExt])
def test_a_replay_buffer_that_fits_is_read_with_the_gamma_and_the_steps_of_the_model(make: Any, tmp_path: Path) -> None:
    path = saved_by(tmp_path, make, gamma=0.5, n_steps=2)
    model = DQNExt("MlpPolicy", short_cartpole(), gamma=0.9, n_steps=3, **SMALL)
    model.load_replay_buffer(path)
    discounts = {round(float(discount), 6) for discount in drawn_batch(model, 300).discounts}
    assert {0.729} <= discounts <= {0.0, 0.9, 0.81, 0.729}
