"""Predictions of networks, whichever they are, and the time in which they are random."""

from contextlib import suppress
from threading import Thread
from typing import Any

import torch as th
from torch import nn

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.predictions import Phase, Prediction, is_sampling, predict, stochastic_predictions
from sb3_dqn_ext.networks.noisy import NoisyLinear
from sb3_dqn_ext.networks.policies import MlpPolicy
from tests.parity import short_cartpole


class OwnPredictor(nn.Module):
    """A network that is no QNetwork, and has all that it needs to predict a distribution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = NoisyLinear(4, 6)
        self.is_stochastic, self.noisy_layers = True, [self.layer]
        self.purposes: list[Phase] = []

    def forward(self, obs: th.Tensor) -> th.Tensor:
        return self.predict_returns(obs, "policy").values.mean(dim=2)

    def predict_returns(self, obs: Any, purpose: Phase) -> Prediction:
        self.purposes.append(purpose)
        return Prediction(self.layer(obs).view(-1, 2, 3))

    def set_training_mode(self, mode: bool) -> None:
        self.train(mode)

    def _predict(self, obs: th.Tensor, deterministic: bool = True) -> th.Tensor:
        return self(obs).argmax(dim=1)  # type: ignore[no-any-return]


def test_a_network_that_predicts_parameters_is_used_by_its_methods() -> None:
    net, obs = OwnPredictor(), th.ones(5, 4)
    assert predict(net, obs, "target").values.shape == (5, 2, 3)
    assert net.purposes == ["target"]


def test_any_other_network_predicts_its_q_values() -> None:
    net, obs = nn.Linear(4, 2), th.ones(5, 4)
    params = predict(net, obs, "online")
    assert th.equal(params.values, net(obs).unsqueeze(2))
    assert params.taus is params.q_values is None


def test_predictions_are_random_within_sampled_and_in_its_thread_alone() -> None:
    net, other = OwnPredictor(), OwnPredictor()
    elsewhere: list[bool] = []
    with stochastic_predictions(net, nn.Linear(4, 2)):
        assert is_sampling(net)
        assert net.layer.noise is not None
        assert not is_sampling(other)
        thread = Thread(target=lambda: elsewhere.append(is_sampling(net)))
        thread.start()
        thread.join()
        with suppress(ZeroDivisionError), stochastic_predictions(other):
            assert is_sampling(net)
            assert is_sampling(other)
            raise ZeroDivisionError
        assert is_sampling(net)
        assert not is_sampling(other)
    assert elsewhere == [False]
    assert net.layer.noise is None
    assert not is_sampling(net)


class OwnPolicy(MlpPolicy):
    """Its networks are no QNetwork of this package."""

    def make_q_net(self) -> Any:
        return OwnPredictor()


def test_a_model_trains_a_network_of_a_users_own_by_these_methods() -> None:
    model = DQNExt(
        OwnPolicy,
        short_cartpole(),
        policy_kwargs={"returns": "quantile", "returns_kwargs": {"n_quantiles": 3}},
        learning_starts=10,
        batch_size=8,
        seed=0,
        device="cpu",
    )
    net: Any = model.q_net
    before = net.layer.weight_sigma.detach().clone()
    model.learn(30)
    assert "online" in net.purposes
    assert not th.equal(net.layer.weight_sigma, before), "the noise took part in the loss"
