"""Methods of a user's policy, network or replay buffer are called."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.networks.q_network import QNetwork
from tests.internals import drawn_batch
from tests.networks.small_models import make
from tests.parity import learn


class MasksAction0(QNetwork):
    def forward(self, obs: Any) -> th.Tensor:
        values = super().forward(obs).clone()
        values[:, 0] = -1e6
        return values


class MaskedPolicy(MlpPolicy):
    def make_q_net(self) -> QNetwork:
        return MasksAction0(**self._update_features_extractor(self.net_args))


@pytest.mark.parametrize("target_policy", ["greedy", "double", "munchausen"])
@pytest.mark.parametrize("returns", ["expected", "quantile"])
def test_a_forward_that_masks_an_action_affects_every_target(returns: str, target_policy: str) -> None:
    returns_kwargs = {"n_quantiles": 3} if returns == "quantile" else {}
    kwargs: dict[str, Any] = {
        "policy_kwargs": {"returns": returns, "returns_kwargs": returns_kwargs},
        "target_policy": target_policy,
    }
    model = make(DQNExt, MaskedPolicy, gamma=0.9, **kwargs)
    learn(model, 19)
    with th.no_grad():
        for net in (model.q_net, model.q_net_target):
            net.q_net[-1].bias.view(-1, 2)[:, 0] = 50.0  # (quantiles, actions); action 0 would be the best one
    batch: Any = drawn_batch(model, 64)
    with th.no_grad():
        target = model.updater.loss.target(batch).values  # (B, K)
        features = model.q_net_target.q_net(batch.next_observations.float())  # (B, A, K)
    rewards = batch.rewards
    if target_policy == "munchausen":  # action 1 has probability 1: its log-probability is 0, that of action 0 is clipped
        rewards = rewards + 0.9 * th.where(batch.actions == 0, -1.0, 0.0)
    right = rewards.unsqueeze(1) + batch.discounts.unsqueeze(1) * features[:, 1]
    np.testing.assert_allclose(target, right, rtol=1e-5, atol=1e-5)


class TakesAction1(MlpPolicy):
    def _predict(self, observation: Any, deterministic: bool = True) -> th.Tensor:
        return th.ones(len(observation), 1, dtype=th.long)


class MirrorsObservations(MlpPolicy):
    def obs_to_tensor(self, observation: Any) -> Any:
        tensor: Any
        tensor, is_batch = super().obs_to_tensor(observation)
        return -tensor, is_batch


@pytest.mark.parametrize("where", ["policy", "network"])
def test_a_method_that_is_assigned_later_chooses_actions_in_compiled_training_too(where: str) -> None:
    model = make(DQNExt, exploration="none", learning_starts=0, train_freq=4, compile={"unroll": 1})
    learn(model, 24)
    assert model.updater.numpy_q_values is not None

    def one(observation: Any, deterministic: bool = True) -> th.Tensor:
        return th.ones(len(observation), dtype=th.long)

    (model.policy if where == "policy" else model.q_net)._predict = one
    learn(model, 40, reset_num_timesteps=False)
    assert model.updater.compiled is not None
    assert set(model.replay_buffer.actions[24:64].flat) == {1}


@pytest.mark.parametrize("compile", [False, True])
def test_a_set_training_mode_that_is_assigned_later_is_called(compile: bool) -> None:
    model = make(DQNExt, learning_starts=0, train_freq=4, compile=compile)
    learn(model, 24)
    modes: list[bool] = []
    model.policy.set_training_mode = modes.append
    learn(model, 40, reset_num_timesteps=False)
    assert modes.count(True) == 10, "once for each training"
    assert modes.count(False) >= 10, "once for each rollout"


def test_methods_of_a_users_policy_choose_the_actions() -> None:
    model = make(DQNExt, TakesAction1, exploration="none", learning_starts=0)
    learn(model, 30)
    assert set(model.replay_buffer.actions[:30].flat) == {1}
    plain, mirrored = make(DQNExt), make(DQNExt, MirrorsObservations)
    observations = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    expected = plain.predict(-observations, deterministic=True)[0]
    np.testing.assert_array_equal(mirrored.predict(observations, deterministic=True)[0], expected)
    assert (expected != plain.predict(observations, deterministic=True)[0]).any()


def another_to_torch(model: Any, counter: Counter[str]) -> None:
    inner = model.replay_buffer.to_torch

    def to_torch(array: Any, copy: bool = True) -> Any:
        counter["called"] = 1  # SB3 makes one tensor more, for dones
        return inner(array, copy)

    model.replay_buffer.to_torch = to_torch


def test_a_to_torch_that_returns_floats_does_not_change_the_type_of_actions() -> None:
    model = DQNExt("MlpPolicy", "CartPole-v1", learning_starts=20, seed=0, device="cpu")
    model.learn(60)
    buffer: Any = model.replay_buffer
    inner = buffer.to_torch
    buffer.to_torch = lambda array, copy=True: inner(array, copy).float()
    batch = drawn_batch(model, 8)
    assert batch.rewards.dtype == th.float32
    assert batch.actions.dtype == th.int64
    model.train(2, 8)


def test_a_to_torch_that_is_assigned_to_a_replay_buffer_is_called() -> None:
    model, counter = make(DQNExt), Counter[str]()
    learn(model, 30)
    another_to_torch(model, counter)
    model.train(1, 8)
    assert counter["called"]
