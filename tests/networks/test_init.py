"""Initialisation of the weights."""

import math

import pytest
from torch import nn

from tests.networks.helpers import make
from tests.parity import assert_same


@pytest.mark.parametrize("noisy", [False, True])
def test_init_keras_draws_the_initial_weights_of_keras(noisy: bool) -> None:
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
