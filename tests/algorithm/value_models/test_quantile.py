"""Quantile returns, against loops that are written as the papers write them, and against sb3-contrib."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from sb3_contrib.common.utils import quantile_huber_loss

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models import (
    ImplicitQuantileReturns,
    QuantileReturns,
    ReturnModel,
)
from sb3_dqn_ext.algorithm.value_models.quantile import CosineEmbedding, scaled_huber
from tests.algorithm.value_models.helpers import DISCOUNTS, REWARDS, A, B, K, numbers, policies
from tests.internals import n_updates_of
from tests.parity import assert_same, short_cartpole


def test_the_quantile_loss_is_that_of_sb3_contrib() -> None:
    model = QuantileReturns(n_quantiles=K)
    quantiles, targets = numbers(B, K) * 2, numbers(B, K, seed=3) * 2
    expected = quantile_huber_loss(quantiles, targets, sum_over_quantiles=True)
    th.testing.assert_close(model.loss(Prediction(quantiles), Prediction(targets)).mean(), expected)
    one_by_one = th.stack([quantile_huber_loss(quantiles[b : b + 1], targets[b : b + 1]) for b in range(B)])
    th.testing.assert_close(model.loss(Prediction(quantiles), Prediction(targets)), one_by_one)


def huber_by_hand(error: float, kappa: float) -> float:
    """Equations 8 and 10 of https://arxiv.org/abs/1710.10044: L_kappa(error) / kappa, and |error| at kappa = 0."""
    if abs(error) <= kappa:
        return 0.5 * error**2 / kappa if kappa > 0 else 0.0
    return (kappa * (abs(error) - 0.5 * kappa)) / kappa if kappa > 0 else abs(error)


@pytest.mark.parametrize("kappa", [0, 0.5, 1, 3])
def test_the_loss_of_implicit_quantiles_equals_a_loop_over_fractions_and_samples(kappa: float) -> None:
    n, m = 5, 4
    model = ImplicitQuantileReturns(n_quantiles=n, n_target_quantiles=m, kappa=kappa)
    quantiles, fractions, targets = numbers(B, n) * 2, th.rand(B, n), numbers(B, m, seed=3) * 2
    losses = model.loss(Prediction(quantiles, fractions), Prediction(targets))
    for b in range(B):
        expected = 0.0
        for quantile, fraction in zip(quantiles[b].tolist(), fractions[b].tolist(), strict=True):
            for target in targets[b].tolist():
                weight = abs(fraction - (1.0 if target < quantile else 0.0))
                expected += weight * huber_by_hand(target - quantile, kappa) / m
        assert float(losses[b]) == pytest.approx(expected, rel=1e-4)


def test_the_loss_of_an_error_is_smooth_where_it_turns_linear() -> None:
    errors = th.tensor([-2.0, -0.5, 0.0, 0.5, 0.5001, 2.0])
    expected = [huber_by_hand(error, 0.5) for error in errors.tolist()]
    np.testing.assert_allclose(scaled_huber(errors, 0.5).numpy(), expected, rtol=1e-5)


def test_quantile_regression_finds_the_quantiles_of_its_target() -> None:
    model = QuantileReturns(n_quantiles=5, kappa=0)
    quantiles = th.zeros(1, 5, requires_grad=True)
    samples = th.linspace(0, 10, 1001).unsqueeze(0)
    optimizer = th.optim.SGD([quantiles], lr=1.0)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 2.0 if step < 300 else 0.1
        optimizer.zero_grad()
        model.loss(Prediction(quantiles), Prediction(samples)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    np.testing.assert_allclose(quantiles.detach().numpy()[0], [1, 3, 5, 7, 9], atol=0.1)


def test_the_embedding_of_fractions_equals_a_loop_over_cosines() -> None:
    n, hidden_dim = 4, 3
    embedding = CosineEmbedding(n, hidden_dim)
    fractions = th.rand(B, 2)
    found = embedding(fractions).detach()
    weight, bias = embedding.linear.weight.tolist(), embedding.linear.bias.tolist()
    for b in range(B):
        for k in range(2):
            for j in range(hidden_dim):
                fraction = float(fractions[b, k])
                total = sum(math.cos(math.pi * i * fraction) * weight[j][i] for i in range(n)) + bias[j]
                assert float(found[b, k, j]) == pytest.approx(max(total, 0.0), abs=1e-5)


@pytest.mark.parametrize("policy", ["greedy", "soft"])
@pytest.mark.parametrize("model", [QuantileReturns(K), ImplicitQuantileReturns()], ids=["quantile", "implicit_quantile"])
def test_quantiles_of_equal_fractions_are_averaged_under_the_policy(model: ReturnModel, policy: str) -> None:
    values, pi = numbers(B, A, K), policies()[policy]
    target = model.target(Prediction(values), pi, REWARDS, DISCOUNTS).values
    for b in range(B):
        for k in range(K):
            average = sum(float(pi[b, a]) * float(values[b, a, k]) for a in range(A))
            assert float(target[b, k]) == pytest.approx(float(REWARDS[b]) + float(DISCOUNTS[b]) * average, abs=1e-5)


@pytest.mark.parametrize("n_quantiles", [10, 200])
def test_quantile_returns_with_the_settings_of_qrdqn_end_with_its_bits(n_quantiles: int) -> None:
    common: dict[str, Any] = {
        "learning_rate": 1e-3,
        "buffer_size": 300,
        "learning_starts": 20,
        "batch_size": 16,
        "target_update_interval": 25,
        "exploration_fraction": 0.3,
        "exploration_final_eps": 0.02,
        "seed": 4,
        "device": "cpu",
    }
    network: dict[str, Any] = {"net_arch": [16], "optimizer_kwargs": {"eps": 0.01 / 16}}
    theirs = QRDQN("MlpPolicy", short_cartpole(), policy_kwargs=network | {"n_quantiles": n_quantiles}, **common)
    start = {key.replace("quantile_net", "q_net"): value.clone() for key, value in theirs.policy.state_dict().items()}
    theirs.learn(400)
    own = network | {"returns": "quantile", "returns_kwargs": {"n_quantiles": n_quantiles}}
    ours = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=own, max_grad_norm=math.inf, **common)
    assert_same(dict(ours.policy.state_dict()), start, "initial weights")
    ours.learn(400)
    assert ours.replay_buffer is not None
    assert theirs.replay_buffer is not None
    assert_same(ours.replay_buffer.actions, theirs.replay_buffer.actions, "actions")
    assert n_updates_of(ours) == n_updates_of(theirs) > 90
    end = {key.replace("quantile_net", "q_net"): value for key, value in theirs.policy.state_dict().items()}
    assert_same(dict(ours.policy.state_dict()), end, "weights")
    assert_same(ours.policy.optimizer.state_dict(), theirs.policy.optimizer.state_dict(), "optimizer")


def test_each_use_of_implicit_quantiles_asks_as_many_fractions_as_it_was_told() -> None:
    counts = {"n_quantiles": 5, "n_target_quantiles": 6, "n_policy_quantiles": 7}
    kwargs = {"net_arch": [8], "returns": "implicit_quantile", "returns_kwargs": counts | {"embedding_dim": 4}}
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=kwargs, seed=0, device="cpu")
    obs = th.zeros(3, 4)
    for purpose, n in (("online", 5), ("target", 6), ("policy", 7)):
        params = model.q_net.compute_prediction(obs, purpose)  # type: ignore[operator]
        assert params.values.shape == (3, 2, n)
        np.testing.assert_allclose(params.taus[0].numpy(), [(i + 0.5) / n for i in range(n)], rtol=1e-6)
