"""The forward pass of small networks in numpy: for a few observations, torch's overhead is longer than the computation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_dqn_ext.algorithm.action_masks import mask_values, without_mask
from sb3_dqn_ext.algorithm.value_models import ExpectedReturns, QuantileReturns
from sb3_dqn_ext.networks.heads import SharedHead
from sb3_dqn_ext.networks.policies import MlpPolicy
from sb3_dqn_ext.networks.q_network import QNetwork

__all__ = ["FORWARD_METHODS", "QValues", "chooses_greedy_actions", "has_replaced_methods", "make_numpy_q_values", "masked"]

Array = npt.NDArray[Any]
QValues = Callable[[Any], Array]
"""A function from (N, \\*obs) observations, a dictionary if there are action masks, to (N, A) Q-values."""

ACTIVATIONS: dict[type[nn.Module], Callable[[Array], Array]] = {
    nn.ReLU: lambda x: np.maximum(x, 0, out=x),
    nn.Tanh: lambda x: np.tanh(x, out=x),
}


FORWARD_METHODS = ("forward", "compute_prediction", "extract_features")
"""The methods of a Q-network in which it computes Q-values."""
POLICY_METHODS = ("predict", "_predict", "obs_to_tensor")
"""The methods of a policy in which it chooses actions."""
ACTION_METHODS = frozenset({*POLICY_METHODS, *FORWARD_METHODS, "_predict"})


def _linear(layer: nn.Linear) -> Callable[[Array], Array]:
    # views, so that later updates of the parameters apply
    weight, bias = layer.weight.detach().numpy().T, layer.bias.detach().numpy()

    def linear(x: Array) -> Array:
        y: Array = x.dot(weight)  # takes two thirds of the time of x @ weight
        y += bias
        return y

    return linear


# numpy's BLAS distributes larger matrix products over threads. These threads and those of torch wait for each other, so that a
# step takes milliseconds.
MAX_MULTIPLICATIONS = 2**18


def make_numpy_q_values(net: nn.Module, n_envs: int) -> QValues | None:
    """
    Make a numpy function that computes a network's Q-values, equal up to rounding.

    It is valid as long as the network's parameters keep their storage. Hooks are not detected.

    :param net: the network
    :param n_envs: N, the number of observations
    :return: the function; None if the network is not on the CPU, is too large, or is not a sequence of linear layers and
        activations for vector observations
    """
    if any(getattr(type(net), name, None) is not getattr(QNetwork, name) for name in FORWARD_METHODS):
        return None  # a subclass overrides a computation
    if not (isinstance(net, QNetwork) and type(net.q_net) is SharedHead and type(net.features_extractor) is FlattenExtractor):
        return None
    space, returns, layers = net.input_space, net.return_model, list(net.q_net)
    plain = all(type(layer) in {nn.Linear, *ACTIVATIONS} for layer in layers)
    if not plain or not isinstance(space, spaces.Box) or len(space.shape) != 1:
        return None
    # a subclass may override the mean
    if type(returns) not in (ExpectedReturns, QuantileReturns) or next(net.parameters()).device.type != "cpu":
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

    return masked(values) if net.action_masks else values


def masked(values: QValues) -> QValues:
    """
    Return a function of observations with action masks.

    :param values: a function from the other parts of the observations to (N, A) Q-values
    """
    return lambda observations: mask_values(values(without_mask(observations)), observations)


def chooses_greedy_actions(policy_class: Any, net_class: Any) -> bool:
    """
    Return whether policies of a class choose the greedy action of their network, with no method that a user's class overrides.

    :param policy_class: the class of a policy
    :param net_class: the class of its online network
    """
    is_plain = all(getattr(policy_class, name, None) is getattr(MlpPolicy, name) for name in POLICY_METHODS)
    return is_plain and net_class._predict is QNetwork._predict


def has_replaced_methods(policy: Any, q_net: Any) -> bool:
    """
    Return whether a user has assigned a method with which actions are chosen to a policy or its network.

    :param policy: the policy
    :param q_net: its online network
    """
    return not (vars(policy).keys().isdisjoint(ACTION_METHODS) and vars(q_net).keys().isdisjoint(ACTION_METHODS))
