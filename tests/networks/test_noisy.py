"""Noisy layers, and predictions that are random."""

import math
from typing import Any

import numpy as np
import torch as th
from torch import nn

from sb3_dqn_ext.algorithm.predictions import stochastic_predictions
from sb3_dqn_ext.networks.noisy import NoisyLinear, noisy_layers
from tests.internals import drawn_batch, losses_of, update_target_network
from tests.networks.helpers import RETURNS, make, network, observations
from tests.parity import assert_same, learn


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
            noisy.resample_noise()
            answers.append(noisy(x))
        noisy.remove_noise()
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
    batch = drawn_batch(model, 8)
    losses = [losses_of(model, batch) for _ in range(2)]
    assert online.noise is None
    assert old.noise is None
    assert len({noise.numpy().tobytes() for noise in drawn}) == 4
    assert not th.equal(losses[0], losses[1])
    # the graph keeps the noise it was built with
    losses[0].sum().backward()  # type: ignore[no-untyped-call]
    assert online.weight_sigma.grad is not None


def test_the_gradient_of_a_noisy_layer_is_that_of_its_formula() -> None:
    noisy = NoisyLinear(3, 2)
    noisy.resample_noise()
    assert noisy.noise is not None
    weight_noise, bias_noise = noisy.noise
    x = th.tensor([[1.0, -2.0, 0.5]])
    out = noisy(x)
    noisy.remove_noise()
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
    with stochastic_predictions(model.q_net):
        state = model.q_net.state_dict()
        assert set(state) == {key for key, _ in model.q_net.named_parameters()}
        assert sorted(key.rpartition(".")[2] for key in state) == sorted(["bias", "bias_sigma", "weight", "weight_sigma"] * 2)
    model.tau = 0.25
    with th.no_grad():
        model.q_net.q_net[0].weight_sigma.add_(1.0)  # type: ignore[operator]
    update_target_network(model)
    start = 0.5 / math.sqrt(4)
    target: Any = model.q_net_target.q_net[0]
    np.testing.assert_allclose(target.weight_sigma.detach().numpy(), start + 0.25, rtol=1e-5)


def test_acting_draws_implicit_fractions_and_a_deterministic_prediction_does_not() -> None:
    model = make(returns="implicit_quantile", returns_kwargs=RETURNS["implicit_quantile"])
    net, obs = network(model), th.as_tensor(observations())
    with th.no_grad():
        assert_same(net(obs), net(obs), "midpoints")
        with stochastic_predictions(net):
            first, second = net.compute_prediction(obs), net.compute_prediction(obs)
        assert first.taus is not None
        assert second.taus is not None
        assert not th.equal(first.taus, second.taus)
        assert not th.equal(first.values, second.values)
        assert float(first.taus.min()) >= 0
        assert float(first.taus.max()) < 1
