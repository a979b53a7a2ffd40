"""The transitions and counters of a training with a vector entry point, checked by CartPole's dynamics."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from sb3_dqn_ext.vec_env.vector_entry_point import copy_observations_of
from tests.internals import n_episodes_of, n_updates_of
from tests.parity import assert_same, learn

N_ENVS = 4
Array = np.ndarray[Any, Any]


def cartpoles(n_envs: int = N_ENVS, limit: int = 30) -> FastVecEnv:
    env = make_fast_vec_env("CartPole-v1", n_envs, seed=0, env_kwargs={"max_episode_steps": limit})
    assert env.vectorization_mode == "vector_entry_point"
    return env


def make(env: Any = None, **kwargs: Any) -> DQNExt:
    arguments: dict[str, Any] = {"buffer_size": 2000, "learning_starts": 200, "batch_size": 32, "seed": 0, "device": "cpu"}
    return DQNExt("MlpPolicy", env or cartpoles(), **arguments | kwargs)


def memory(model: DQNExt) -> DQNReplayBuffer:
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    return model.replay_buffer


class Story(BaseCallback):
    """A callback that records which episodes end at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.dones: list[Array] = []

    def _on_step(self) -> bool:
        self.dones.append(self.locals["dones"].copy())
        return True


def after(state: Array, action: int) -> Array:
    """Compute CartPole's next state by a single environment."""
    env: Any = gym.make("CartPole-v1").unwrapped
    env.reset()
    env.state = tuple(float(number) for number in state)
    observation: Array = env.step(int(action))[0]
    return observation


@pytest.mark.parametrize(
    "replay_buffer_kwargs",
    [
        {},
        {"terminal_copies": 3},
        {"sampler": "prioritized"},
        {"sampler": "vector_steps"},
        {"sampler_kwargs": {"replace": False}},
        {"keep_episodes": 12},
    ],
    ids=str,
)
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
def test_what_is_drawn_are_steps_of_cartpole(replay_buffer_kwargs: dict[str, Any], compact: bool) -> None:
    model = make(replay_buffer_kwargs=replay_buffer_kwargs, optimize_memory_usage=compact, learning_starts=10**6)
    learn(model, 1500)
    np.random.seed(0)
    assert_steps_of_cartpole(memory(model).sample_batch(152))


def assert_steps_of_cartpole(batch: Any) -> None:
    """
    Check each transition of a batch of DQNExt or SB3 by CartPole's dynamics.
    """
    for obs, action, next_obs in zip(batch.observations, batch.actions, batch.next_observations, strict=True):
        np.testing.assert_allclose(next_obs, after(obs.numpy(), int(action)), rtol=1e-4, atol=1e-5)
    assert (batch.rewards == 1).all()


def test_all_steps_are_counted_and_can_be_drawn() -> None:
    model, story = make(learning_starts=10**6, buffer_size=100_000), Story()
    learn(model, 1000, callback=story)
    assert model.num_timesteps == len(story.dones) * N_ENVS
    np.random.seed(0)
    drawn = {int(cell) for _ in range(40) for cell in memory(model).sample_batch(1000).indices}
    assert drawn == set(range(model.num_timesteps))
    assert n_episodes_of(model) == sum(int(dones.sum()) for dones in story.dones) > 20


@pytest.mark.parametrize("monte_carlo", [0.0, 1.0])
def test_returns_over_several_steps_end_where_episodes_end(monte_carlo: float) -> None:
    gamma, n_steps = 0.9, 1 if monte_carlo else 4
    buffer_kwargs = {"monte_carlo": monte_carlo, "handle_timeout_termination": False}
    model, story = make(learning_starts=10**6, n_steps=n_steps, gamma=gamma, replay_buffer_kwargs=buffer_kwargs), Story()
    learn(model, 1000, callback=story)
    batch = memory(model).sample_batch(300)
    for cell, reward in zip(batch.indices, batch.rewards, strict=True):
        row, env = divmod(int(cell), N_ENVS)
        left = next((i for i, dones in enumerate(story.dones[row:]) if dones[env]), 10**6) + 1
        n_folded = left if monte_carlo else min(left, n_steps, len(story.dones) - row)
        assert float(reward) == pytest.approx(sum(gamma**k for k in range(n_folded)), rel=1e-5)


def test_with_minus_one_there_are_as_many_gradient_steps_as_steps() -> None:
    model = make(gradient_steps=-1, train_freq=1, learning_starts=0)
    learn(model, 300)
    assert n_updates_of(model) == model.num_timesteps


def test_learning_from_them_is_reproducible_and_can_be_saved_and_continued(tmp_path: Any) -> None:
    models = []
    for _ in range(2):
        models.append(make(cartpoles()))
        learn(models[-1], 600)
    assert n_updates_of(models[0]) > 0
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")
    models[0].save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=cartpoles())
    learn(loaded, 600, reset_num_timesteps=False)
    assert n_updates_of(loaded) > n_updates_of(models[0])


def test_replay_buffers_and_algorithms_of_sb3_store_the_same_steps() -> None:
    ours = make(replay_buffer_class=ReplayBuffer, learning_starts=10**6)
    theirs = DQN("MlpPolicy", cartpoles(), learning_starts=10**6, buffer_size=2000, device="cpu")
    for model in (ours, theirs):
        learn(model, 1500)
        assert isinstance(model.replay_buffer, ReplayBuffer)
        np.random.seed(0)
        assert_steps_of_cartpole(model.replay_buffer.sample(150))


def test_environments_of_another_kind_can_follow() -> None:
    model = make(make_fast_vec_env("CartPole-v1", N_ENVS, vectorization_mode="sync"))
    learn(model, 200)
    model.set_env(cartpoles())
    learn(model, 1500, reset_num_timesteps=False)
    np.random.seed(0)
    assert_steps_of_cartpole(memory(model).sample_batch(152))


def test_observations_may_be_normalized() -> None:
    model = make(VecNormalize(cartpoles(), norm_reward=False))
    learn(model, 400)
    assert n_updates_of(model) > 0


def test_final_observations_of_a_transposed_array_are_contiguous_copies() -> None:
    observations = np.arange(24.0).reshape(4, 6).T  # six environments
    first, second = copy_observations_of(observations, [4, 1])
    assert first.tolist() == [4.0, 10.0, 16.0, 22.0]
    assert second.tolist() == [1.0, 7.0, 13.0, 19.0]
    assert first.flags.c_contiguous
    first[:] = 0
    assert observations[4].tolist() == [4.0, 10.0, 16.0, 22.0]
    assert second.tolist() == [1.0, 7.0, 13.0, 19.0]
