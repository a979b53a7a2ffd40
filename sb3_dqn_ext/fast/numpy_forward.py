"""Small networks in numpy: for a few observations, torch takes longer to begin than to compute."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_dqn_ext.algorithm.value_models import ExpectedReturns, QuantileReturns
from sb3_dqn_ext.networks.heads import SharedHead
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["FORWARD_METHODS", "QValues", "chooses_greedy_actions", "has_replaced_methods", "make_numpy_q_values"]

Array = npt.NDArray[Any]
QValues = Callable[[Array], Array]
"""(N, F) observations -> (N, A) Q-values"""

ACTIVATIONS: dict[type[nn.Module], Callable[[Array], Array]] = {
    nn.ReLU: lambda x: np.maximum(x, 0, out=x),
    nn.Tanh: lambda x: np.tanh(x, out=x),
}


FORWARD_METHODS = ("forward", "compute_prediction", "extract_features")
"""the methods of a Q-network by which it computes Q-values"""
POLICY_METHODS = ("predict", "_predict", "obs_to_tensor")
"""the methods of a policy by which it chooses actions"""
ACTION_METHODS = frozenset({*POLICY_METHODS, *FORWARD_METHODS, "_predict"})


def _linear(layer: nn.Linear) -> Callable[[Array], Array]:
    # views: what is learned is seen
    weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
    return lambda x: x @ weight + bias


# Products of matrices with more multiplications than this are split among threads by the BLAS that numpy comes with. Its
# threads and those of torch keep each other waiting: a step then takes milliseconds.
MAX_MULTIPLICATIONS = 2**18


def make_numpy_q_values(net: nn.Module, n_envs: int) -> QValues | None:
    """
    :param net: a network on the CPU
    :param n_envs: N
    :return: the same in numpy, up to rounding, as long as its parameters stay where they are; None if it is more than linear
        layers and activations that answer for all actions of a vector of observations, or too large to be quicker. Hooks are
        not looked for
    """
    if any(getattr(type(net), name, None) is not getattr(QNetwork, name) for name in FORWARD_METHODS):
        return None  # a subclass computes in its own way
    if not (
        isinstance(net, QNetwork) and isinstance(net.q_net, SharedHead) and type(net.features_extractor) is FlattenExtractor
    ):
        return None
    space, returns, layers = net.observation_space, net.return_model, list(net.q_net)
    plain = all(type(layer) in {nn.Linear, *ACTIVATIONS} for layer in layers)
    if not plain or not isinstance(space, spaces.Box) or len(space.shape) != 1:
        return None
    if not isinstance(returns, ExpectedReturns | QuantileReturns) or next(net.parameters()).device.type != "cpu":
        return None
    if any(n_envs * layer.weight.numel() > MAX_MULTIPLICATIONS for layer in layers if isinstance(layer, nn.Linear)):
        return None
    steps = [_linear(layer) if isinstance(layer, nn.Linear) else ACTIVATIONS[type(layer)] for layer in layers]
    dtype = np.float64 if net.dtype == th.float64 else np.float32
    shape = -1, returns.n_params, net.n_actions

    def values(observations: Array) -> Array:
        x = observations.astype(dtype, copy=False)
        for step in steps:
            x = step(x)
        return x if returns.n_params == 1 else x.reshape(shape).mean(axis=1)

    return values


def chooses_greedy_actions(policy_class: Any, net_class: Any) -> bool:
    """
    :param policy_class: the class of a policy
    :param net_class: the class of its online network
    :return: whether such policies take the best action of their network, by no method of a user's own class
    """
    is_plain = all(getattr(policy_class, name, None) is getattr(MlpPolicy, name) for name in POLICY_METHODS)
    return is_plain and net_class._predict is QNetwork._predict


def has_replaced_methods(policy: Any, q_net: Any) -> bool:
    """
    :param policy: a policy
    :param q_net: its online network
    :return: whether a method by which they choose actions was assigned to one of these objects
    """
    return not (vars(policy).keys().isdisjoint(ACTION_METHODS) and vars(q_net).keys().isdisjoint(ACTION_METHODS))
