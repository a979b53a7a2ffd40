"""The Q-network: device, precision, and batch normalisation."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.algorithm.predictions import select_actions, stochastic_predictions
from tests.internals import drawn_batch, losses_of, update_target_network
from tests.networks.helpers import HEADS, RETURNS, arrays, layer, make, network, observations, relu
from tests.parity import assert_same, learn, short_cartpole


@pytest.mark.parametrize("returns", RETURNS)
def test_every_number_is_made_on_the_device_of_the_network(returns: str) -> None:
    """Tensors of the device "meta" refuse to meet those of another."""
    model = make(returns=returns, returns_kwargs=RETURNS[returns], noisy=True, head="action_input", head_arch=[4])
    net, returns_model = network(model).to("meta"), model.updater.loss.returns
    obs = th.zeros(8, 4, device="meta")
    numbers = th.zeros(8, device="meta")
    for scope in (stochastic_predictions(net), stochastic_predictions()):
        with scope:
            params = net.compute_prediction(obs, "online")
            target = returns_model.target(
                net.compute_prediction(obs, "target"), th.zeros(8, 2, device="meta"), numbers, numbers
            )
            losses = returns_model.loss(select_actions(params, numbers.long()), target)
    assert losses.shape == (8,)
    assert losses.device.type == "meta"


@pytest.mark.parametrize("returns", RETURNS)
def test_everything_is_computed_in_float64_if_asked_for(returns: str) -> None:
    model = make(returns=returns, returns_kwargs=RETURNS[returns], dtype="float64", noisy=True)
    learn(model, 20)
    assert {parameter.dtype for parameter in model.policy.parameters()} == {th.float64}
    assert model.q_net(th.as_tensor(observations())).dtype == th.float64
    errors = losses_of(model, drawn_batch(model, 8))
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


@pytest.mark.parametrize("head", HEADS)
def test_batch_normalisation_learns_its_statistics_and_hands_them_to_the_target(head: str, tmp_path: Path) -> None:
    model = make(batch_norm=True, head=head, head_arch=HEADS[head])
    means = {key for key in model.q_net.state_dict() if key.endswith("running_mean")}
    assert means == {"q_net.1.running_mean" if head == "shared" else "q_net.trunk.1.running_mean"}
    (mean,) = means
    learn(model, 30)
    assert float(model.q_net.state_dict()[mean].abs().max()) > 0
    assert float(model.q_net_target.state_dict()[mean].abs().max()) == 0
    update_target_network(model)
    assert_same(model.q_net_target.state_dict()[mean], model.q_net.state_dict()[mean], "statistics")
    before = model.predict(observations(), deterministic=True)[0]
    model.save(tmp_path / "model")
    loaded = DQNExt.load(tmp_path / "model", env=short_cartpole())
    assert_same(loaded.predict(observations(), deterministic=True)[0], before, "actions")
    # what is predicted for one observation does not depend on the others
    assert_same(model.predict(observations()[:3], deterministic=True)[0], before[:3], "actions")
