"""Heads and layers: dueling, the action as an input, noise, precision, initial weights, batch normalisation."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.predictions import sampled, taken
from sb3_dqn_ext.networks.noisy import NoisyLinear, noisy_layers
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.networks.q_network import QNetwork
from tests.parity import assert_same, dict_cartpole, learn, short_cartpole

RETURNS: dict[str, dict[str, Any]] = {
    "expected": {},
    "categorical": {"n_atoms": 5, "v_min": 0, "v_max": 20},
    "quantile": {"n_quantiles": 4},
    "implicit_quantile": {"n_quantiles": 3, "n_target_quantiles": 4, "n_policy_quantiles": 5, "embedding_dim": 6},
}
HEADS: dict[str, list[int]] = {"shared": [], "multi_head": [5], "dueling": [6], "action_input": [7]}


def make(policy: str = "MlpPolicy", env: Any = None, **policy_kwargs: Any) -> DQNExt:
    return DQNExt(
        policy,
        env or short_cartpole(),
        learning_rate=1e-3,
        buffer_size=100,
        learning_starts=10,
        train_freq=1,
        batch_size=8,
        policy_kwargs={"net_arch": [8]} | policy_kwargs,
        seed=0,
        device="cpu",
    )


def network(model: DQNExt) -> QNetwork:
    assert isinstance(model.q_net, QNetwork)
    return model.q_net


def observations(n: int = 20) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)


def arrays(net: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {key: value.double().numpy() for key, value in net.state_dict().items()}


def layer(weights: dict[str, np.ndarray[Any, Any]], name: str, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def relu(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(np.maximum(x, 0))


# every combination


@pytest.mark.parametrize(("returns", "head", "noisy"), list(product(RETURNS, HEADS, [False, True])))
def test_every_return_model_goes_with_every_head_and_with_noise(returns: str, head: str, noisy: bool, tmp_path: Path) -> None:
    model = make(returns=returns, returns_kwargs=RETURNS[returns], head=head, head_arch=HEADS[head], noisy=noisy)
    before = {key: value.clone() for key, value in model.q_net.named_parameters()}
    learn(model, 40)
    assert model._n_updates == 30
    unchanged = [key for key, value in model.q_net.named_parameters() if th.equal(value, before[key])]
    assert unchanged == []
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")
    obs = th.as_tensor(observations())
    with th.no_grad():
        assert model.q_net(obs).shape == (20, 2)
        assert_same(loaded.q_net(obs), model.q_net(obs), "Q-values")
    for deterministic in (True, False):
        answers = []
        for each in (model, loaded):
            each.exploration_rate = 0.0
            each.set_random_seed(3)
            answers.append(each.predict(observations(), deterministic=deterministic)[0])
        assert_same(answers[0], answers[1], "actions")


def test_a_policy_with_every_choice_is_saved_and_loaded_without_its_algorithm(tmp_path: Path) -> None:
    choices: dict[str, Any] = {
        "head": "dueling",
        "head_arch": [6],
        "returns": "implicit_quantile",
        "returns_kwargs": RETURNS["implicit_quantile"],
        "noisy": True,
        "noisy_kwargs": {"sigma0": 0.3},
        "dtype": "float64",
        "init": "keras",
        "batch_norm": True,
    }
    for kwargs in (choices, {"fitted_actions": "all", "loss": "mse"}):
        model = make(**kwargs)
        learn(model, 20)
        model.policy.save(str(tmp_path / "policy.pt"))
        loaded = MlpPolicy.load(str(tmp_path / "policy.pt"))
        for name, value in kwargs.items():
            assert getattr(loaded, name) == value, name
        assert_same(loaded.state_dict(), model.policy.state_dict(), "weights")
        model.policy.set_training_mode(False)
        loaded.set_training_mode(False)
        obs = th.as_tensor(observations())
        assert_same(loaded.q_net(obs).detach(), model.q_net(obs).detach(), "Q-values")


@pytest.mark.parametrize("head", HEADS)
def test_images_and_dictionaries_go_with_every_head(head: str) -> None:
    from stable_baselines3.common.envs import FakeImageEnv

    images = FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)
    kwargs: dict[str, Any] = {"head": head, "head_arch": HEADS[head], "returns": "implicit_quantile", "noisy": True}
    kwargs |= {"returns_kwargs": RETURNS["implicit_quantile"], "dtype": "float64", "init": "keras"}
    for model in (
        make("CnnPolicy", images, net_arch=[], features_extractor_kwargs={"features_dim": 6}, **kwargs),
        make("MultiInputPolicy", dict_cartpole(), batch_norm=True, **kwargs),
    ):
        learn(model, 13)
        assert model._n_updates == 3


# heads, layer by layer


@pytest.mark.parametrize("head_arch", [[6], []])
def test_a_dueling_head_adds_the_centred_advantages_to_the_value(head_arch: list[int]) -> None:
    model = make(head="dueling", head_arch=head_arch, returns="quantile", returns_kwargs={"n_quantiles": 3})
    weights = arrays(model.q_net)
    hidden = relu(layer(weights, "q_net.trunk.0", observations()))

    def stream(name: str) -> np.ndarray[Any, Any]:
        x = hidden
        for i in range(len(head_arch)):
            x = relu(layer(weights, f"q_net.{name}.{2 * i}", x))
        return layer(weights, f"q_net.{name}.{2 * len(head_arch)}", x)

    value, advantage = stream("value"), stream("advantage").reshape(20, 2, 3)
    expected = np.empty((20, 2, 3))
    for b, a, k in np.ndindex(20, 2, 3):
        expected[b, a, k] = value[b, k] + advantage[b, a, k] - sum(advantage[b, :, k]) / 2
    found = network(model).params(th.as_tensor(observations())).values.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_head_with_the_action_as_input_is_asked_about_one_action_after_the_other() -> None:
    model = make(head="action_input", head_arch=[7], returns="quantile", returns_kwargs={"n_quantiles": 3})
    weights = arrays(model.q_net)
    hidden = relu(layer(weights, "q_net.trunk.0", observations()))
    found = network(model).params(th.as_tensor(observations())).values.detach().numpy()
    for b, a in np.ndindex(20, 2):
        told = np.concatenate([hidden[b], [1.0, 0.0] if a == 0 else [0.0, 1.0]])
        expected = layer(weights, "q_net.joint.2", relu(layer(weights, "q_net.joint.0", told)))
        np.testing.assert_allclose(found[b, a], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_implicit_quantiles_are_asked_about_one_fraction_after_the_other(head: str) -> None:
    model = make(
        head=head,
        head_arch=HEADS[head] or [5],
        returns="implicit_quantile",
        returns_kwargs=RETURNS["implicit_quantile"],
    )
    net = network(model)
    obs = th.as_tensor(observations())
    with th.no_grad():
        params = net.params(obs)
        assert params.fractions is not None
        head_module: Any = net.q_net
        hidden = head_module.trunk(obs)
        weights = arrays(net)
        for k in range(5):
            cosines = np.array([math.cos(math.pi * i * (k + 0.5) / 5) for i in range(6)])
            embedded = relu(layer(weights, "embedding.linear", cosines)).astype(np.float32)
            answers = head_module.answers(hidden * th.as_tensor(embedded))
            np.testing.assert_allclose(params.values[:, :, k].numpy(), answers[:, :, 0].numpy(), rtol=1e-3, atol=1e-5)


# noise


def test_the_noise_of_a_layer_has_the_mean_and_the_variance_of_the_formula() -> None:
    """With f(e) = sgn(e) sqrt(|e|) of independent normals, E f = 0 and E f^2 = E|e| = sqrt(2 / pi)."""
    th.manual_seed(0)
    n_in, n_out, sigma0 = 3, 2, 0.5
    noisy = NoisyLinear(n_in, n_out, sigma0)
    x = th.tensor([[1.0, -2.0, 0.5]])
    answers = []
    with th.no_grad():
        mean = noisy(x)
        assert_same(mean, nn.functional.linear(x, noisy.weight, noisy.bias), "without noise")
        for _ in range(20_000):
            noisy.draw()
            answers.append(noisy(x))
        noisy.silence()
        assert_same(noisy(x), mean, "without noise")
    found = th.cat(answers).double()
    sigma, m = sigma0 / math.sqrt(n_in), math.sqrt(2 / math.pi)
    # y - mean = sigma f(e_out) (sum_i f(e_in_i) x_i + 1)
    variance = sigma**2 * m * (m * float((x**2).sum()) + 1)
    np.testing.assert_allclose(found.mean(dim=0), mean[0], atol=4 * math.sqrt(variance / 20_000))
    np.testing.assert_allclose(found.var(dim=0), [variance] * n_out, rtol=0.06)


def test_noisy_layers_start_as_the_paper_says() -> None:
    model = make(noisy=True, net_arch=[100], head="dueling", head_arch=[100], noisy_kwargs={"sigma0": 0.3})
    layers = noisy_layers(model.q_net)
    assert len(layers) == 5
    assert not any(type(module) is nn.Linear for module in model.q_net.modules())
    for each in layers:
        bound = 1 / math.sqrt(each.in_features)
        assert 0.8 * bound < float(each.weight.detach().abs().max()) <= bound
        for sigma in (each.weight_sigma, each.bias_sigma):
            np.testing.assert_allclose(sigma.detach().numpy(), 0.3 / math.sqrt(each.in_features), rtol=1e-6)


def test_deterministic_predictions_never_change_and_others_do() -> None:
    model = make(noisy=True, noisy_kwargs={"sigma0": 5.0})
    model.exploration_rate = 0.0
    before = model.predict(observations(), deterministic=True)[0]
    other = [model.predict(observations())[0] for _ in range(10)]
    assert len({actions.tobytes() for actions in other}) > 1
    for mode in (True, False):
        model.policy.set_training_mode(mode)
        for _ in range(3):
            assert_same(model.predict(observations(), deterministic=True)[0], before, "actions")
        model.policy.set_training_mode(mode)
        others = {model.predict(observations())[0].tobytes() for _ in range(10)}
        assert len(others) > 1
    batch_of_q = model.q_net(th.as_tensor(observations()))
    learn(model, 12)
    model.q_net.load_state_dict(model.q_net_target.state_dict())  # as it started: no target update so far
    assert_same(model.q_net(th.as_tensor(observations())).detach(), batch_of_q.detach(), "Q-values")


def test_noise_is_drawn_anew_for_each_batch_and_for_each_network() -> None:
    model = make(noisy=True)
    learn(model, 20)
    drawn: list[th.Tensor] = []
    online, old = noisy_layers(model.q_net)[0], noisy_layers(model.q_net_target)[0]
    inner = model.updater.loss.target_policy

    def spy(*args: Any, **kwargs: Any) -> Any:
        assert online.noise is not None
        assert old.noise is not None
        drawn.extend([online.noise[0], old.noise[0]])
        return inner(*args, **kwargs)

    model.updater.loss.target_policy = spy  # type: ignore[assignment]
    batch = model._sample_batch(8)
    losses = [model.updater.loss(batch)[0] for _ in range(2)]
    assert online.noise is None
    assert old.noise is None
    assert len({noise.numpy().tobytes() for noise in drawn}) == 4
    assert not th.equal(losses[0], losses[1])
    # the graph keeps the noise it was built with
    losses[0].sum().backward()
    assert online.weight_sigma.grad is not None


def test_the_gradient_of_a_noisy_layer_is_that_of_its_formula() -> None:
    noisy = NoisyLinear(3, 2)
    noisy.draw()
    assert noisy.noise is not None
    weight_noise, bias_noise = noisy.noise
    x = th.tensor([[1.0, -2.0, 0.5]])
    out = noisy(x)
    noisy.silence()
    out.sum().backward()
    for gradient, expected in (
        (noisy.weight.grad, x.expand(2, 3)),
        (noisy.weight_sigma.grad, x.expand(2, 3) * weight_noise),
        (noisy.bias.grad, th.ones(2)),
        (noisy.bias_sigma.grad, bias_noise),
    ):
        th.testing.assert_close(gradient, expected)


def test_the_same_seed_gives_the_same_noisy_run() -> None:
    models = [make(noisy=True, returns="implicit_quantile", returns_kwargs=RETURNS["implicit_quantile"]) for _ in range(2)]
    for model in models:
        model.set_random_seed(5)
        learn(model, 60)
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")


def test_noise_is_neither_saved_nor_averaged_into_the_target() -> None:
    model = make(noisy=True)
    with sampled(model.q_net):
        state = model.q_net.state_dict()
        assert set(state) == {key for key, _ in model.q_net.named_parameters()}
        assert sorted(key.rpartition(".")[2] for key in state) == sorted(["bias", "bias_sigma", "weight", "weight_sigma"] * 2)
    model.tau = 0.25
    with th.no_grad():
        model.q_net.q_net[0].weight_sigma.add_(1.0)  # type: ignore[operator]
    model._update_target_network()
    start = 0.5 / math.sqrt(4)
    target: Any = model.q_net_target.q_net[0]
    np.testing.assert_allclose(target.weight_sigma.detach().numpy(), start + 0.25, rtol=1e-5)


def test_acting_draws_implicit_fractions_and_a_deterministic_prediction_does_not() -> None:
    model = make(returns="implicit_quantile", returns_kwargs=RETURNS["implicit_quantile"])
    net, obs = network(model), th.as_tensor(observations())
    with th.no_grad():
        assert_same(net(obs), net(obs), "midpoints")
        with sampled(net):
            first, second = net.params(obs), net.params(obs)
        assert first.fractions is not None
        assert second.fractions is not None
        assert not th.equal(first.fractions, second.fractions)
        assert not th.equal(first.values, second.values)
        assert float(first.fractions.min()) >= 0
        assert float(first.fractions.max()) < 1


@pytest.mark.parametrize("returns", RETURNS)
def test_every_number_is_made_on_the_device_of_the_network(returns: str) -> None:
    """Tensors of the device "meta" refuse to meet those of another."""
    model = make(returns=returns, returns_kwargs=RETURNS[returns], noisy=True, head="action_input", head_arch=[4])
    net, returns_model = network(model).to("meta"), model.updater.loss.returns
    obs = th.zeros(8, 4, device="meta")
    numbers = th.zeros(8, device="meta")
    for scope in (sampled(net), sampled()):
        with scope:
            params = net.params(obs, "online")
            target = returns_model.target(net.params(obs, "target"), th.zeros(8, 2, device="meta"), numbers, numbers)
            losses = returns_model.loss(taken(params, numbers.long()), target)
    assert losses.shape == (8,)
    assert losses.device.type == "meta"


# precision, initial weights, batch normalisation


@pytest.mark.parametrize("returns", RETURNS)
def test_everything_is_computed_in_float64_if_asked_for(returns: str) -> None:
    model = make(returns=returns, returns_kwargs=RETURNS[returns], dtype="float64", noisy=True)
    learn(model, 20)
    assert {parameter.dtype for parameter in model.policy.parameters()} == {th.float64}
    assert model.q_net(th.as_tensor(observations())).dtype == th.float64
    errors = model.updater.loss(model._sample_batch(8))[0]
    assert errors.dtype == th.float64
    state: Any = model.policy.optimizer.state_dict()["state"]
    assert {entry["exp_avg"].dtype for entry in state.values()} == {th.float64}


def test_observations_of_float64_keep_their_digits() -> None:
    class Precise(gym.ObservationWrapper[Any, Any, Any]):
        def __init__(self, env: gym.Env[Any, Any]) -> None:
            super().__init__(env)
            self.observation_space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float64)

        def observation(self, observation: Any) -> Any:
            return np.asarray(observation, dtype=np.float64)

    model = make(env=Precise(short_cartpole()), dtype="float64")
    obs = observations().astype(np.float64) + 1e-12
    weights = arrays(model.q_net)
    expected = layer(weights, "q_net.2", relu(layer(weights, "q_net.0", obs)))
    np.testing.assert_allclose(model.q_net(th.as_tensor(obs)).detach().numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize("noisy", [False, True])
def test_weights_start_as_keras_starts_them_if_asked_for(noisy: bool) -> None:
    model = make(init="keras", net_arch=[200, 100], noisy=noisy)
    for net in (model.q_net, model.q_net_target):
        layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
        assert len(layers) == 3
        for each in layers:
            limit = math.sqrt(6 / (each.in_features + each.out_features))
            largest = float(each.weight.detach().abs().max())
            assert 0.9 * limit < largest <= limit
            assert float(each.weight.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.1)
            assert float(each.bias.detach().abs().max()) == 0
    assert_same(dict(model.q_net_target.state_dict()), dict(model.q_net.state_dict()), "target")


@pytest.mark.parametrize("head", HEADS)
def test_batch_normalisation_learns_its_statistics_and_hands_them_to_the_target(head: str, tmp_path: Path) -> None:
    model = make(batch_norm=True, head=head, head_arch=HEADS[head])
    means = {key for key in model.q_net.state_dict() if key.endswith("running_mean")}
    assert means == {"q_net.1.running_mean" if head == "shared" else "q_net.trunk.1.running_mean"}
    (mean,) = means
    learn(model, 30)
    assert float(model.q_net.state_dict()[mean].abs().max()) > 0
    assert float(model.q_net_target.state_dict()[mean].abs().max()) == 0
    model._update_target_network()
    assert_same(model.q_net_target.state_dict()[mean], model.q_net.state_dict()[mean], "statistics")
    before = model.predict(observations(), deterministic=True)[0]
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert_same(loaded.predict(observations(), deterministic=True)[0], before, "actions")
    # what is predicted for one observation does not depend on the others
    assert_same(model.predict(observations()[:3], deterministic=True)[0], before[:3], "actions")
