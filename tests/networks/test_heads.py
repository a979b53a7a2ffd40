"""Heads with every return model, and layer by layer."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from tests.internals import n_updates_of
from tests.networks.helpers import HEADS, RETURNS, arrays, layer, make, network, observations, relu
from tests.parity import assert_same, dict_cartpole, learn, short_cartpole

# every combination


@pytest.mark.parametrize(("returns", "head", "noisy"), list(product(RETURNS, HEADS, [False, True])))
def test_every_return_model_goes_with_every_head_and_with_noise(returns: str, head: str, noisy: bool, tmp_path: Path) -> None:
    model = make(returns=returns, returns_kwargs=RETURNS[returns], head=head, head_arch=HEADS[head], noisy=noisy)
    before = {key: value.clone() for key, value in model.q_net.named_parameters()}
    learn(model, 40)
    assert n_updates_of(model) == 30
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
        assert n_updates_of(model) == 3


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
    found = network(model).compute_prediction(th.as_tensor(observations())).values.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_head_with_the_action_as_input_is_asked_about_one_action_after_the_other() -> None:
    model = make(head="action_input", head_arch=[7], returns="quantile", returns_kwargs={"n_quantiles": 3})
    weights = arrays(model.q_net)
    hidden = relu(layer(weights, "q_net.trunk.0", observations()))
    found = network(model).compute_prediction(th.as_tensor(observations())).values.detach().numpy()
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
        params = net.compute_prediction(obs)
        assert params.taus is not None
        head_module: Any = net.q_net
        hidden = head_module.trunk(obs)
        weights = arrays(net)
        for k in range(5):
            cosines = np.array([math.cos(math.pi * i * (k + 0.5) / 5) for i in range(6)])
            embedded = relu(layer(weights, "embedding.linear", cosines)).astype(np.float32)
            answers = head_module.outputs(hidden * th.as_tensor(embedded))
            np.testing.assert_allclose(params.values[:, :, k].numpy(), answers[:, :, 0].numpy(), rtol=1e-3, atol=1e-5)
