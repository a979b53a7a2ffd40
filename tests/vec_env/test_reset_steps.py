"""Environments that reset in a step of their own: what DQNExt stores and counts of them, against CartPole's own dynamics."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.vec_env import FastVecEnv, make_fast_vec_env
from tests.parity import assert_same, learn

N_ENVS = 4
Array = np.ndarray[Any, Any]


def cartpoles(n_envs: int = N_ENVS, limit: int = 30) -> FastVecEnv:
    env = make_fast_vec_env("CartPole-v1", n_envs, seed=0, env_kwargs={"max_episode_steps": limit})
    assert env.marks_reset_steps
    return env


def make(env: Any = None, **kwargs: Any) -> DQNExt:
    arguments: dict[str, Any] = {"buffer_size": 2000, "learning_starts": 200, "batch_size": 32, "seed": 0, "device": "cpu"}
    return DQNExt("MlpPolicy", env or cartpoles(), **arguments | kwargs)


def memory(model: DQNExt) -> DQNReplayBuffer:
    assert isinstance(model.replay_buffer, DQNReplayBuffer)
    return model.replay_buffer


class Story(BaseCallback):
    """Writes down what the environments say at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Array, Array, list[bool]]] = []

    def _on_step(self) -> bool:
        resets = ["reset_step" in info for info in self.locals["infos"]]
        self.steps.append((self.locals["actions"].copy(), self.locals["dones"].copy(), resets))
        return True


def after(state: Array, action: int) -> Array:
    """CartPole's next state, by a single environment."""
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
        {"sampler_kwargs": {"replace": False}},
        {"keep_episodes": 12},
    ],
    ids=str,
)
@pytest.mark.parametrize("compact", [False, True], ids=["", "optimize_memory_usage"])
def test_what_is_drawn_are_steps_of_cartpole_and_no_resets(replay_buffer_kwargs: dict[str, Any], compact: bool) -> None:
    model = make(replay_buffer_kwargs=replay_buffer_kwargs, optimize_memory_usage=compact, learning_starts=10**6)
    learn(model, 1500)
    np.random.seed(0)
    batch = memory(model).sample_batch(150)
    for obs, action, next_obs in zip(batch.observations, batch.actions, batch.next_observations, strict=True):
        np.testing.assert_allclose(next_obs, after(obs.numpy(), int(action)), rtol=1e-4, atol=1e-5)
    assert (batch.rewards == 1).all()


def test_steps_are_counted_without_the_resets_and_all_of_them_can_be_drawn() -> None:
    model, story = make(learning_starts=10**6, buffer_size=100_000), Story()
    learn(model, 1000, callback=story)
    n_resets = sum(sum(resets) for _, _, resets in story.steps)
    assert n_resets > 20
    assert model.num_timesteps == len(story.steps) * N_ENVS - n_resets
    happened = {
        row * N_ENVS + env for row, (_, _, resets) in enumerate(story.steps) for env in range(N_ENVS) if not resets[env]
    }
    np.random.seed(0)
    drawn = {int(cell) for _ in range(40) for cell in memory(model).sample_batch(1000).indices}
    assert drawn == happened
    assert model._episode_num == sum(int(dones.sum()) for _, dones, _ in story.steps)


@pytest.mark.parametrize("monte_carlo", [0.0, 1.0])
def test_returns_over_several_steps_end_where_episodes_end(monte_carlo: float) -> None:
    gamma, n_steps = 0.9, 1 if monte_carlo else 4
    buffer_kwargs = {"monte_carlo": monte_carlo, "handle_timeout_termination": False}
    model, story = make(learning_starts=10**6, n_steps=n_steps, gamma=gamma, replay_buffer_kwargs=buffer_kwargs), Story()
    learn(model, 1000, callback=story)
    batch = memory(model).sample_batch(300)
    for cell, reward in zip(batch.indices, batch.rewards, strict=True):
        row, env = divmod(int(cell), N_ENVS)
        left = next((i for i in range(len(story.steps) - row) if story.steps[row + i][1][env]), 10**6) + 1
        n_folded = left if monte_carlo else min(left, n_steps, len(story.steps) - row)
        assert float(reward) == pytest.approx(sum(gamma**k for k in range(n_folded)), rel=1e-5)


def test_with_minus_one_there_are_as_many_gradient_steps_as_steps_without_the_resets() -> None:
    model, story = make(gradient_steps=-1, train_freq=1, learning_starts=0), Story()
    learn(model, 300, callback=story)
    assert model._n_updates == model.num_timesteps


def test_learning_from_them_is_reproducible_and_can_be_saved_and_continued(tmp_path: Any) -> None:
    models = []
    for _ in range(2):
        models.append(make(cartpoles()))
        learn(models[-1], 600)
    assert models[0]._n_updates > 0
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")
    models[0].save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=cartpoles())
    learn(loaded, 600, reset_num_timesteps=False)
    assert memory(loaded).reset_steps
    assert loaded._n_updates > models[0]._n_updates


def test_a_memory_that_would_store_them_is_an_error() -> None:
    from stable_baselines3.common.buffers import ReplayBuffer

    with pytest.raises(ArgumentError, match="ReplayBuffer would store"):
        make(replay_buffer_class=ReplayBuffer)
    with pytest.raises(ArgumentError, match="sampler='rows' needs whole rows"):
        make(replay_buffer_kwargs={"sampler": "rows"})
    model = make(make_fast_vec_env("CartPole-v1", N_ENVS, vectorization_mode="sync"))
    model.set_env(cartpoles())
    with pytest.raises(ArgumentError, match="build the model with these environments"):
        model.learn(100)
    with pytest.raises(ArgumentError, match="'reset_steps'"):
        make(replay_buffer_kwargs={"reset_steps": True})


def test_observations_may_be_normalized() -> None:
    model = make(VecNormalize(cartpoles(), norm_reward=False))
    learn(model, 400)
    assert model._n_updates > 0


def test_a_stock_algorithm_gets_an_error() -> None:
    with pytest.raises(ArgumentError, match="sync"):
        DQN("MlpPolicy", cartpoles(), learning_starts=0).learn(100)
