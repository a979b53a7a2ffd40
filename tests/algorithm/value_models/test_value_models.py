"""All return models: their targets, their TD errors, and the distribution that they learn."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models import (
    CategoricalReturns,
    ExpectedReturns,
    HLGaussReturns,
    ImplicitQuantileReturns,
    QuantileReturns,
    ReturnModel,
)
from tests.algorithm.value_models.helpers import DISCOUNTS, REWARDS, A, B, K, numbers, policies


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_the_td_error_of_a_value_is_the_target_minus_the_prediction(loss: str) -> None:
    model, errors = ExpectedReturns(loss), th.linspace(-20, 20, 401, dtype=th.float64)
    prediction, target = Prediction(th.full((401, 1), 3.0, dtype=th.float64)), Prediction((3 + errors).unsqueeze(1))
    found = model.td_errors(prediction, target, model.loss(prediction, target))
    np.testing.assert_allclose(found, errors, rtol=1e-12, atol=1e-12)


def test_a_distribution_is_prioritized_by_its_loss() -> None:
    losses = numbers(B).abs()
    parameters = Prediction(numbers(B, 5))
    assert th.equal(CategoricalReturns(5, 0, 1).td_errors(parameters, parameters, losses), losses)


MODELS: dict[str, ReturnModel] = {
    "expected": ExpectedReturns(),
    "categorical": CategoricalReturns(n_atoms=K, v_min=-40, v_max=40),
    "hl_gauss": HLGaussReturns(n_bins=K, v_min=-40, v_max=40),
    "quantile": QuantileReturns(n_quantiles=K),
    "implicit_quantile": ImplicitQuantileReturns(),
}


@pytest.mark.parametrize("policy", ["greedy", "soft"])
@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_every_target_is_that_of_the_bellman_equation(name: str, policy: str) -> None:
    model, pi = MODELS[name], policies()[policy]
    prediction = Prediction(numbers(B, A, 1 if name == "expected" else K))
    if name == "categorical":
        prediction.values[:, :, [0, -1]] = -30.0  # no probability near the bounds, where values would be clipped
    target = model.target(prediction, pi, REWARDS, DISCOUNTS)
    if name in ("categorical", "hl_gauss"):
        target = Prediction(target.values.log())
    found = model.mean(Prediction(target.values.unsqueeze(1))).squeeze(1)
    expected = REWARDS + DISCOUNTS * (pi * model.mean(prediction)).sum(dim=1)
    tolerance = 0.03 if name == "hl_gauss" else 1e-4  # of 7 wide bins, beyond which a little of the target's mass is cut off
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=tolerance)


class OneReward(gym.Env[Any, Any]):
    """An environment of one step: the reward of action 0 is 0 or 1 with equal probability, that of action 1 is 0.4."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        reward = float(self.np_random.random() < 0.5) if action == 0 else 0.4
        return np.ones(2, dtype=np.float32), reward, True, False, {}


@pytest.mark.parametrize("name", MODELS)
def test_every_return_model_learns_the_distribution_of_a_coin_toss(name: str) -> None:
    returns_kwargs: dict[str, dict[str, Any]] = {
        "categorical": {"n_atoms": 11, "v_min": 0, "v_max": 1},
        "hl_gauss": {"n_bins": 21, "v_min": -1, "v_max": 2},
        "quantile": {"n_quantiles": 10, "kappa": 0.1},
        "implicit_quantile": {"n_quantiles": 16, "n_target_quantiles": 16, "embedding_dim": 16, "kappa": 0.1},
    }
    network = {"net_arch": [16], "returns": name, "returns_kwargs": returns_kwargs.get(name, {})}
    model = DQNExt(
        "MlpPolicy",
        OneReward(),
        learning_rate=3e-3,
        learning_starts=50,
        train_freq=1,
        batch_size=64,
        exploration_initial_eps=1.0,
        exploration_final_eps=1.0,
        policy_kwargs=network,
        seed=0,
        device="cpu",
    )
    model.learn(600)
    obs = th.ones(1, 2)
    with th.no_grad():
        np.testing.assert_allclose(model.q_net(obs).numpy(), [[0.5, 0.4]], atol=0.1)
        values = model.q_net.compute_prediction(obs).values[0, 0].numpy()  # type: ignore[operator]
    if name == "categorical":
        probabilities = np.exp(values) / np.exp(values).sum()
        assert probabilities[0] + probabilities[-1] > 0.9
    elif name not in ("expected", "hl_gauss"):
        values.sort()
        assert values[: len(values) // 4].max() < 0.25
        assert values[-(len(values) // 4) :].min() > 0.75
