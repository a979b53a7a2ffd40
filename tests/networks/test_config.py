"""The configuration of a network."""

import inspect
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.config import NetworkConfig
from sb3_dqn_ext.networks.policies import CnnPolicy, MlpPolicy, MultiHeadPolicy
from sb3_dqn_ext.networks.q_network import QNetwork
from tests.networks.helpers import RETURNS, make, observations
from tests.parity import assert_same, learn, short_cartpole


def test_the_signature_of_a_policy_contains_every_choice_with_its_default() -> None:
    shown = inspect.signature(MlpPolicy).parameters
    assert {name: shown[name].default for name in asdict(NetworkConfig())} == asdict(NetworkConfig())
    assert [*shown][:3] == ["observation_space", "action_space", "lr_schedule"]
    assert "config" not in shown


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"head": "duel"}, "Did you mean 'dueling'"),
        ({"noisy": 1}, "noisy=1 must be True or False"),
        ({"returns_kwargs": [2]}, r"returns_kwargs=\[2\] must be a mapping"),
        ({"optimizer_per_head": True, "head": "dueling"}, "needs head='multi_head'"),
        ({"optimizer_per_head": True, "head": "multi_head", "batch_norm": True}, "without batch normalisation"),
        ({"optimizer_per_head": True, "head": "multi_head", "norm": "batch"}, "without batch normalisation"),
        ({"fitted_actions": "all", "returns": "quantile"}, "needs returns='expected'"),
    ],
)
def test_an_invalid_config_raises_an_error_before_a_network_is_built(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        NetworkConfig(**kwargs)


def test_a_policy_has_an_attribute_for_each_choice() -> None:
    model = DQNExt(
        MultiHeadPolicy, short_cartpole(), policy_kwargs={"dtype": "float64", "noisy": True, "noisy_kwargs": {"sigma0": 0.1}}
    )
    config: NetworkConfig = model.policy.config  # type: ignore[assignment]
    assert {field.name: getattr(model.policy, field.name) for field in fields(config)} == asdict(config)
    assert (config.head, config.head_arch, config.sigma0, config.torch_dtype) == ("multi_head", [64], 0.1, th.float64)


def test_the_defaults_of_a_policy_can_be_changed_one_by_one() -> None:
    kwargs: dict[str, Any] = {"features_extractor_class": "flatten", "head_arch": [8]}
    model = DQNExt(CnnPolicy, short_cartpole(), policy_kwargs=kwargs | {"head": "dueling"})
    assert model.policy.features_extractor_class.__name__ == "FlattenExtractor"
    assert DQNExt(MultiHeadPolicy, short_cartpole(), policy_kwargs=kwargs).policy.head_arch == [8]


def test_a_network_can_be_saved_and_loaded_without_its_policy(tmp_path: Path) -> None:
    policy_kwargs = {"head": "dueling", "head_arch": [6], "returns": "quantile", "noisy": True, "dtype": "float64"}
    net = DQNExt("MlpPolicy", short_cartpole(), policy_kwargs=policy_kwargs, device="cpu").q_net
    net.save(str(tmp_path / "network.pt"))
    loaded = QNetwork.load(str(tmp_path / "network.pt"), device="cpu")
    observations = th.as_tensor(np.random.default_rng(0).normal(size=(5, 4)))
    assert_same(loaded(observations).detach(), net(observations).detach(), "Q-values")


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
