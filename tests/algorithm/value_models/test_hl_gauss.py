"""HL-Gauss compared with numerical integrals, and its bounds with sums over an episode."""

import math
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.predictions import Prediction
from sb3_dqn_ext.algorithm.value_models import HLGaussReturns
from sb3_dqn_ext.errors import ArgumentError
from tests.algorithm.value_models.helpers import DISCOUNTS, REWARDS, A, B, K, numbers, policies
from tests.parity import short_cartpole

Array = np.ndarray[Any, Any]

V_MIN, V_MAX = -3.0, 4.0
WIDTH = (V_MAX - V_MIN) / K


def integrated(y: float, sigma: float, n: int = 20_000) -> Array:
    """Integrate the density of N(y, sigma**2) over each of the K bins by the midpoint rule, and normalise the masses."""
    masses = []
    for i in range(K):
        x = V_MIN + WIDTH * (i + (np.arange(n) + 0.5) / n)
        masses.append(np.exp(-0.5 * ((x - y) / sigma) ** 2).mean() * WIDTH)
    found: Array = np.array(masses) / np.sum(masses)
    return found


@pytest.mark.parametrize("sigma_ratio", [0.75, 0.2, 3.0])
@pytest.mark.parametrize("policy", ["greedy", "soft"])
def test_the_target_is_the_integral_of_the_normal_distribution_over_each_bin(policy: str, sigma_ratio: float) -> None:
    model = HLGaussReturns(n_bins=K, v_min=V_MIN, v_max=V_MAX, sigma_ratio=sigma_ratio)
    logits, pi = numbers(B, A, K), policies()[policy]
    target = model.target(Prediction(logits), pi, REWARDS, DISCOUNTS).values
    centers = [V_MIN + WIDTH * (i + 0.5) for i in range(K)]
    clipped = 0
    for b in range(B):
        value = 0.0
        for a in range(A):
            exps = np.exp(logits[b, a].double().numpy())
            value += float(pi[b, a]) * sum(p * z for p, z in zip(exps / exps.sum(), centers, strict=True))
        y = float(REWARDS[b]) + float(DISCOUNTS[b]) * value
        clipped += not V_MIN <= y <= V_MAX
        np.testing.assert_allclose(target[b], integrated(min(max(y, V_MIN), V_MAX), sigma_ratio * WIDTH), atol=2e-5)
    assert 0 < clipped < B


def test_the_gradient_is_that_of_the_cross_entropy_to_the_integrals() -> None:
    model = HLGaussReturns(n_bins=K, v_min=V_MIN, v_max=V_MAX).double()
    logits = numbers(1, K).double().requires_grad_()
    target = model.target(Prediction(th.zeros(1, 1, K).double()), th.ones(1, 1), th.tensor([1.3]), th.zeros(1))
    (gradient,) = th.autograd.grad(model.loss(Prediction(logits), target).sum(), logits)

    def loss(values: Array) -> float:
        return -float(integrated(1.3, 0.75 * WIDTH) @ (values - math.log(np.exp(values).sum())))

    start = logits.detach().numpy()[0]
    slopes = [(loss(start + step) - loss(start - step)) / 2e-4 for step in 1e-4 * np.eye(K)]
    np.testing.assert_allclose(gradient[0], slopes, atol=1e-5)


def test_the_td_error_is_the_target_minus_the_q_value() -> None:
    model = HLGaussReturns(v_min=-10, v_max=10)
    logits, rewards = numbers(B, 101), th.tensor([-9.0, -1.55, 0.0, 0.33, 2.71, 8.0])
    target = model.target(Prediction(th.zeros(B, 1, 101)), th.ones(B, 1), rewards, th.zeros(B))
    centers = np.linspace(-10, 10, 203)[1::2]
    q_values = logits.softmax(dim=1).numpy() @ centers
    errors = model.td_errors(Prediction(logits), target, th.zeros(B))
    np.testing.assert_allclose(errors, rewards.numpy() - q_values, atol=1e-4)


@pytest.mark.parametrize("rewards", [(-1.0, 2.0), (1.0, 3.0), (-3.0, -1.0)], ids=str)
@pytest.mark.parametrize(("gamma", "max_episode_length"), [(0.9, 20), (1.0, 20), (0.9, None)])
def test_the_bounds_contain_the_returns_of_all_episodes(
    rewards: tuple[float, float], gamma: float, max_episode_length: int | None
) -> None:
    model = HLGaussReturns(reward_range=list(rewards), gamma=gamma, max_episode_length=max_episode_length)
    lengths = range(1, (max_episode_length or 400) + 1)
    returns = [sum(gamma**k * reward for k in range(length)) for length in lengths for reward in rewards]
    np.testing.assert_allclose([float(model.edges[0]), float(model.edges[-1])], [min(returns), max(returns)], rtol=1e-5)


BOUNDS = {"v_min": 0, "v_max": 1}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "needs the lowest and the highest discounted return"),
        ({"v_min": 0}, "needs the lowest and the highest discounted return"),
        ({"reward_range": [0, 1]}, "needs the lowest and the highest discounted return"),
        ({**BOUNDS, "reward_range": [0, 1], "gamma": 0.9}, "not both"),
        ({"v_min": 0, "reward_range": [0, 1], "gamma": 0.9}, "not both"),
        ({**BOUNDS, "reward_range": [0, 1]}, "not both"),
        ({**BOUNDS, "gamma": 0.9}, "not both"),
        ({**BOUNDS, "max_episode_length": 9}, "not both"),
        ({"reward_range": [1, 0], "gamma": 0.9}, r"reward_range=\[1, 0\] must be the lowest and then the highest"),
        ({"reward_range": [0, 0], "gamma": 0.9}, r"reward_range=\[0, 0\] must be .* not both 0"),
        ({"v_min": 1, "v_max": 0}, "v_min=1 must be below v_max=0"),
        ({**BOUNDS, "n_bins": 1}, "n_bins=1"),
        ({**BOUNDS, "sigma_ratio": 0}, "sigma_ratio=0"),
        ({"reward_range": 1, "gamma": 0.9}, "reward_range=1 must be the lowest and the highest reward"),
        ({"reward_range": [0, 1], "gamma": 1.5}, "gamma=1.5"),
        ({"reward_range": [0, 1], "gamma": 1}, "give max_episode_length"),
        ({"reward_range": [0, 1], "gamma": 1, "max_episode_length": 0}, "max_episode_length=0"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        HLGaussReturns(**kwargs)


def test_bounds_for_a_smaller_discount_than_that_of_the_model_are_refused() -> None:
    kwargs = {"returns": "hl_gauss", "returns_kwargs": {"reward_range": [0, 1], "gamma": 0.95}}
    with pytest.raises(ArgumentError, match=r"returns_kwargs\['gamma'\]=0.95 is below gamma=0.99"):
        DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=kwargs, gamma=0.99, device="cpu")
    assert DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=kwargs, gamma=0.95, device="cpu").gamma == 0.95


@pytest.mark.parametrize("name", ["hlgauss", "hl-gauss", "HL_Gauss", "two_hot"])
def test_other_names_lead_to_it(name: str) -> None:
    with pytest.raises(ArgumentError, match="'hl_gauss'"):
        DQNExt("MlpPolicy", short_cartpole(), policy_kwargs={"returns": name}, device="cpu")
