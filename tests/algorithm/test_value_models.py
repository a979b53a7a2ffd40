"""Return models, against loops that are written as the papers write them."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN
from sb3_contrib.common.utils import quantile_huber_loss

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.fitted_actions import fit_all
from sb3_dqn_ext.algorithm.predictions import Params
from sb3_dqn_ext.algorithm.value_models import (
    CategoricalReturns,
    ExpectedReturns,
    ImplicitQuantileReturns,
    QuantileReturns,
    ReturnModel,
)
from sb3_dqn_ext.algorithm.value_models.categorical import project
from sb3_dqn_ext.algorithm.value_models.quantile import CosineEmbedding, huber_beyond
from tests.parity import assert_same, learn, short_cartpole

B, A, K = 6, 3, 7


def numbers(*shape: int, seed: int = 0) -> th.Tensor:
    return th.as_tensor(np.random.default_rng(seed).normal(size=shape), dtype=th.float32)


def policies() -> dict[str, th.Tensor]:
    greedy = th.nn.functional.one_hot(th.arange(B) % A, A).float()
    return {"greedy": greedy, "soft": numbers(B, A, seed=5).softmax(dim=1)}


REWARDS = numbers(B, seed=1) * 3
DISCOUNTS = th.tensor([0.9, 0.0, 1.0, 0.5, 0.0, 0.97])  # two of the transitions are terminal


# categorical


def projected_by_a_double_loop(atoms: list[float], places: list[float], probabilities: list[float]) -> list[float]:
    """Algorithm 1 of https://arxiv.org/abs/1707.06887, for one transition."""
    v_min, v_max, n = atoms[0], atoms[-1], len(atoms)
    width = (v_max - v_min) / (n - 1)
    m = [0.0] * n
    for place, probability in zip(places, probabilities, strict=True):
        b = (min(max(place, v_min), v_max) - v_min) / width
        b = round(b, 5)  # a place on an atom lies on it
        lower, upper = math.floor(b), math.ceil(b)
        if lower == upper:
            m[lower] += probability
        else:
            m[lower] += probability * (upper - b)
            m[upper] += probability * (b - lower)
    return m


@pytest.mark.parametrize("policy", ["greedy", "soft"])
def test_the_categorical_target_is_the_projection_of_the_textbook(policy: str) -> None:
    model = CategoricalReturns(n_atoms=K, v_min=-2, v_max=4)
    logits, pi = numbers(B, A, K), policies()[policy]
    target = model.target(Params(logits), pi, REWARDS, DISCOUNTS).values
    atoms = [-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    for b in range(B):
        expected = np.zeros(K)
        places = [float(REWARDS[b]) + float(DISCOUNTS[b]) * atom for atom in atoms]
        for a in range(A):
            exps = np.exp(logits[b, a].double().numpy())
            expected += float(pi[b, a]) * np.array(projected_by_a_double_loop(atoms, places, list(exps / exps.sum())))
        np.testing.assert_allclose(target[b].numpy(), expected, atol=2e-5)
        assert float(target[b].sum()) == pytest.approx(1, abs=1e-5)


def test_a_projection_keeps_what_lies_on_an_atom_and_cuts_off_what_lies_beyond() -> None:
    atoms = th.tensor([-1.0, 0.0, 1.0])
    places = th.tensor([[-1.0, 0.0, 1.0], [-5.0, 0.25, 9.0]])
    probabilities = th.tensor([[0.2, 0.3, 0.5], [0.2, 0.4, 0.4]])
    th.testing.assert_close(project(atoms, places, probabilities), th.tensor([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]))


def test_the_categorical_loss_is_the_cross_entropy_and_the_mean_that_of_the_atoms() -> None:
    model = CategoricalReturns(n_atoms=K, v_min=-2, v_max=4)
    logits, target = numbers(B, K), numbers(B, K, seed=2).softmax(dim=1)
    losses, means = model.loss(Params(logits), Params(target)), model.mean(Params(logits.unsqueeze(1)))
    for b in range(B):
        exps = [math.exp(logit) for logit in logits[b].tolist()]
        p = [e / sum(exps) for e in exps]
        cross_entropy = -sum(t * math.log(q) for t, q in zip(target[b].tolist(), p, strict=True))
        assert float(losses[b]) == pytest.approx(cross_entropy, rel=1e-5)
        assert float(means[b, 0]) == pytest.approx(sum(q * (i - 2) for i, q in enumerate(p)), rel=1e-4, abs=1e-5)


# quantiles


def test_the_quantile_loss_is_that_of_sb3_contrib() -> None:
    model = QuantileReturns(n_quantiles=K)
    quantiles, targets = numbers(B, K) * 2, numbers(B, K, seed=3) * 2
    expected = quantile_huber_loss(quantiles, targets, sum_over_quantiles=True)
    th.testing.assert_close(model.loss(Params(quantiles), Params(targets)).mean(), expected)
    one_by_one = th.stack([quantile_huber_loss(quantiles[b : b + 1], targets[b : b + 1]) for b in range(B)])
    th.testing.assert_close(model.loss(Params(quantiles), Params(targets)), one_by_one)


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
    losses = model.loss(Params(quantiles, fractions), Params(targets))
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
    np.testing.assert_allclose(huber_beyond(errors, 0.5).numpy(), expected, rtol=1e-5)


def test_quantile_regression_finds_the_quantiles_of_its_target() -> None:
    model = QuantileReturns(n_quantiles=5, kappa=0)
    quantiles = th.zeros(1, 5, requires_grad=True)
    samples = th.linspace(0, 10, 1001).unsqueeze(0)
    optimizer = th.optim.SGD([quantiles], lr=1.0)
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 2.0 if step < 300 else 0.1
        optimizer.zero_grad()
        model.loss(Params(quantiles), Params(samples)).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    np.testing.assert_allclose(quantiles.detach().numpy()[0], [1, 3, 5, 7, 9], atol=0.1)


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_the_td_error_of_a_value_is_the_target_minus_the_prediction(loss: str) -> None:
    model, errors = ExpectedReturns(loss), th.linspace(-20, 20, 401, dtype=th.float64)
    prediction, target = Params(th.full((401, 1), 3.0, dtype=th.float64)), Params((3 + errors).unsqueeze(1))
    found = model.td_errors(prediction, target, model.loss(prediction, target))
    np.testing.assert_allclose(found, errors, rtol=1e-12, atol=1e-12)


def test_a_distribution_is_prioritized_by_its_loss() -> None:
    losses = numbers(B).abs()
    parameters = Params(numbers(B, 5))
    assert th.equal(CategoricalReturns(5, 0, 1).td_errors(parameters, parameters, losses), losses)


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
    target = model.target(Params(values), pi, REWARDS, DISCOUNTS).values
    for b in range(B):
        for k in range(K):
            average = sum(float(pi[b, a]) * float(values[b, a, k]) for a in range(A))
            assert float(target[b, k]) == pytest.approx(float(REWARDS[b]) + float(DISCOUNTS[b]) * average, abs=1e-5)


MODELS: dict[str, ReturnModel] = {
    "expected": ExpectedReturns(),
    "categorical": CategoricalReturns(n_atoms=K, v_min=-40, v_max=40),
    "quantile": QuantileReturns(n_quantiles=K),
    "implicit_quantile": ImplicitQuantileReturns(),
}


@pytest.mark.parametrize("policy", ["greedy", "soft"])
@pytest.mark.parametrize("name", MODELS)
def test_the_mean_of_every_target_is_that_of_the_bellman_equation(name: str, policy: str) -> None:
    model, pi = MODELS[name], policies()[policy]
    params = Params(numbers(B, A, 1 if name == "expected" else K))
    if name == "categorical":
        params.values[:, :, [0, -1]] = -30.0  # nothing lies where a reward would push it over the edge
    target = model.target(params, pi, REWARDS, DISCOUNTS)
    if name == "categorical":
        target = Params(target.values.log())
    found = model.mean(Params(target.values.unsqueeze(1))).squeeze(1)
    expected = REWARDS + DISCOUNTS * (pi * model.mean(params)).sum(dim=1)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-4)


# which entries are fitted


def test_with_all_actions_fitted_the_others_are_held_where_the_target_network_sees_them() -> None:
    predicted, kept, target = numbers(B, A, 1), numbers(B, A, 1, seed=8), numbers(B, 1, seed=9)
    actions = th.arange(B) % A
    losses = fit_all(ExpectedReturns("mse"), Params(predicted), actions, Params(target), lambda: Params(kept))
    for b in range(B):
        total = 0.0
        for a in range(A):
            goal = float(target[b, 0]) if a == int(actions[b]) else float(kept[b, a, 0])
            total += (float(predicted[b, a, 0]) - goal) ** 2
        assert float(losses[b]) == pytest.approx(total / A, rel=1e-5)


def test_fitting_all_actions_is_what_the_loss_of_a_batch_does() -> None:
    kwargs = {"net_arch": [8], "loss": "mse", "fitted_actions": "all"}
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=kwargs, learning_starts=10, seed=0, device="cpu")
    learn(model, 100)
    with th.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(th.randn_like(parameter))
    batch = model._sample_batch(16)
    assert isinstance(batch.observations, th.Tensor)
    assert isinstance(batch.next_observations, th.Tensor)
    with th.no_grad():
        table = model.q_net_target(batch.observations)
        best = model.q_net_target(batch.next_observations).max(dim=1).values
        table[th.arange(16), batch.actions] = batch.rewards + batch.discounts * best
        expected = ((model.q_net(batch.observations) - table) ** 2).mean(dim=1)
    th.testing.assert_close(model.updater.loss(batch)[0].detach(), expected)


# whole runs


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
    assert ours._n_updates == theirs._n_updates > 90
    end = {key.replace("quantile_net", "q_net"): value for key, value in theirs.policy.state_dict().items()}
    assert_same(dict(ours.policy.state_dict()), end, "weights")
    assert_same(ours.policy.optimizer.state_dict(), theirs.policy.optimizer.state_dict(), "optimizer")


def test_each_use_of_implicit_quantiles_asks_as_many_fractions_as_it_was_told() -> None:
    counts = {"n_quantiles": 5, "n_target_quantiles": 6, "n_policy_quantiles": 7}
    kwargs = {"net_arch": [8], "returns": "implicit_quantile", "returns_kwargs": counts | {"embedding_dim": 4}}
    model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=kwargs, seed=0, device="cpu")
    obs = th.zeros(3, 4)
    for purpose, n in (("online", 5), ("target", 6), ("policy", 7)):
        params = model.q_net.params(obs, purpose)  # type: ignore[operator]
        assert params.values.shape == (3, 2, n)
        np.testing.assert_allclose(params.fractions[0].numpy(), [(i + 0.5) / n for i in range(n)], rtol=1e-6)


class OneReward(gym.Env[Any, Any]):
    """Action 0 is rewarded with 0 or 1 by a coin, action 1 with 0.4; an episode is one step."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        reward = float(self.np_random.random() < 0.5) if action == 0 else 0.4
        return np.ones(2, dtype=np.float32), reward, True, False, {}


@pytest.mark.parametrize("name", MODELS)
def test_every_return_model_learns_the_distribution_of_a_coin(name: str) -> None:
    returns_kwargs: dict[str, dict[str, Any]] = {
        "categorical": {"n_atoms": 11, "v_min": 0, "v_max": 1},
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
        values = model.q_net.params(obs).values[0, 0].numpy()  # type: ignore[operator]
    if name == "categorical":
        probabilities = np.exp(values) / np.exp(values).sum()
        assert probabilities[0] + probabilities[-1] > 0.9
    elif name != "expected":
        values.sort()
        assert values[: len(values) // 4].max() < 0.25
        assert values[-(len(values) // 4) :].min() > 0.75
