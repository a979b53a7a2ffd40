"""Policies and their heads."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.envs import FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.policies import MlpPolicy, MultiHeadPolicy
from tests.internals import drawn_batch, losses_of
from tests.parity import assert_same, dict_cartpole, learn, short_cartpole


class DoubledFeatures(FlattenExtractor):
    """An example of a user's features extractor."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return 2 * super().forward(observations)


def images() -> gym.Env[Any, Any]:
    return FakeImageEnv(action_dim=3, screen_height=36, screen_width=36, n_channels=1, discrete=True)


NETWORKS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "MultiHeadPolicy": ("MultiHeadPolicy", short_cartpole, {"net_arch": [10, 10], "head_arch": [7]}),
    "MlpPolicy": ("MlpPolicy", short_cartpole, {"head": "multi_head", "net_arch": [6], "head_arch": [8, 4]}),
    "no trunk": ("MlpPolicy", short_cartpole, {"head": "multi_head", "net_arch": [], "head_arch": [5]}),
    "CnnPolicy": (
        "CnnPolicy",
        images,
        {"head": "multi_head", "head_arch": [8], "features_extractor_kwargs": {"features_dim": 12}},
    ),
    "MultiInputPolicy": ("MultiInputPolicy", dict_cartpole, {"head": "multi_head", "net_arch": [9], "head_arch": [8]}),
}


def make(name: str, **kwargs: Any) -> DQNExt:
    policy, env, policy_kwargs = NETWORKS[name]
    small: dict[str, Any] = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8, "seed": 0, "device": "cpu"}
    return DQNExt(policy, env(), policy_kwargs=policy_kwargs, **small, **kwargs)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_action_has_its_own_layers_in_a_multi_head(name: str) -> None:
    model = make(name)
    policy_kwargs = NETWORKS[name][2]
    q_net = model.policy.q_net
    trunk_dim = (policy_kwargs.get("net_arch") or [q_net.features_dim])[-1] if name != "CnnPolicy" else q_net.features_dim
    sizes = [trunk_dim, *policy_kwargs["head_arch"], 1]
    expected: dict[str, tuple[int, ...]] = {}
    for action in range(int(q_net.action_space.n)):
        for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
            expected[f"q_net.heads.{action}.{2 * layer}.weight"] = (n_out, n_in)
            expected[f"q_net.heads.{action}.{2 * layer}.bias"] = (n_out,)
    found = {key: tuple(value.shape) for key, value in q_net.named_parameters() if ".heads." in key}
    assert found == expected


def test_the_multi_head_policy_has_a_hidden_layer_of_64_for_each_action_by_default() -> None:
    model = DQNExt("MultiHeadPolicy", short_cartpole(), device="cpu")
    # trunk 4-64-64, then for each of two actions 64-64-1
    expected = (4 * 64 + 64) + (64 * 64 + 64) + 2 * ((64 * 64 + 64) + (64 + 1))
    assert sum(parameter.numel() for parameter in model.q_net.parameters()) == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sample_of_one_action_leaves_the_gradient_of_every_other_head_exactly_zero(name: str) -> None:
    model = make(name)
    learn(model, 20)
    batch = drawn_batch(model, 8)
    head_module: Any = model.q_net.q_net
    for action in range(int(model.q_net.action_space.n)):
        model.policy.optimizer.zero_grad()
        losses_of(model, batch._replace(actions=th.full((8,), action))).sum().backward()  # type: ignore[no-untyped-call]
        for other, head in enumerate(head_module.heads):
            gradients = [parameter.grad for parameter in head.parameters()]
            if other == action:
                assert any(gradient.abs().max() > 0 for gradient in gradients)
            else:
                assert all(gradient is None or bool((gradient == 0).all()) for gradient in gradients)
        shared = [parameter.grad for key, parameter in model.q_net.named_parameters() if ".heads." not in key]
        if shared:
            assert any(gradient is not None and gradient.abs().max() > 0 for gradient in shared)


def test_the_outputs_of_a_multi_head_equal_those_of_its_layers_one_by_one() -> None:
    model = make("MlpPolicy")
    weights = {key: value.numpy() for key, value in model.q_net.state_dict().items()}
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

    def layer(x: Any, name: str) -> Any:
        return x @ weights[f"q_net.{name}.weight"].T + weights[f"q_net.{name}.bias"]

    trunk = np.maximum(layer(obs, "trunk.0"), 0)
    heads = []
    for action in range(2):
        hidden = np.maximum(layer(trunk, f"heads.{action}.0"), 0)
        hidden = np.maximum(layer(hidden, f"heads.{action}.2"), 0)
        heads.append(layer(hidden, f"heads.{action}.4"))
    found = model.q_net(th.as_tensor(obs)).detach().numpy()
    np.testing.assert_allclose(found, np.concatenate(heads, axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_multi_head_model_is_trained_saved_and_loaded_with_the_same_predictions(name: str, tmp_path: Path) -> None:
    model = make(name, train_freq=10)
    learn(model, 40)
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=NETWORKS[name][1]())
    assert_same(loaded.get_parameters(), model.get_parameters(), "parameters")
    assert model.env is not None
    obs: Any = model.env.reset()
    assert_same(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0], "actions")


def test_a_policy_can_be_saved_and_loaded_without_its_algorithm(tmp_path: Path) -> None:
    model = make("MultiHeadPolicy")
    model.policy.save(str(tmp_path / "policy.pt"))
    loaded = MultiHeadPolicy.load(str(tmp_path / "policy.pt"))
    assert_same(loaded.state_dict(), model.policy.state_dict(), "weights")


def test_classes_can_be_given_by_name() -> None:
    named = {
        "activation_fn": "tanh",
        "optimizer_class": "sgd",
        "optimizer_kwargs": {"momentum": 0.5},
        "features_extractor_class": "tests.networks.test_policies.DoubledFeatures",
    }
    classes = named | {
        "activation_fn": nn.Tanh,
        "optimizer_class": th.optim.SGD,
        "features_extractor_class": DoubledFeatures,
    }
    models = []
    for policy_kwargs in (named, classes):
        model = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=policy_kwargs, learning_starts=10, seed=0, device="cpu")
        learn(model, 50)
        models.append(model)
    assert_same(models[0].get_parameters(), models[1].get_parameters(), "parameters")
    assert isinstance(models[0].policy.optimizer, th.optim.SGD)
    assert isinstance(models[0].q_net.features_extractor, DoubledFeatures)


@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiHeadPolicy", MlpPolicy])
def test_a_policy_for_one_array_raises_an_error_for_dict_observations(policy: Any) -> None:
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        DQNExt(policy, SimpleMultiObsEnv())


def test_the_policy_aliases_of_sb3_exist() -> None:
    assert {"MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MultiHeadPolicy"} == set(DQNExt.policy_aliases)
    with pytest.raises(ArgumentError, match="head='two'"):
        DQNExt("MlpPolicy", short_cartpole(), policy_kwargs={"head": "two"})
