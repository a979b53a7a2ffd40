"""Weights of an untrained network, and the optimizer's state of weights that are replaced by these."""

from collections.abc import Iterator
from typing import Any

import torch as th
from torch import nn

from sb3_dqn_ext.callbacks.diagnostics.model_access import reseed
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.networks.optimizer_per_head import OptimizerPerHead
from sb3_dqn_ext.rng import rng_preserved

__all__ = ["check_same_layers", "make_fresh_network", "moments"]


def make_fresh_network(model: Any, seed: int) -> nn.Module:
    """
    Make an untrained online network as the policy makes it, without an effect on the random numbers of training.

    :param model: a DQN of SB3, sb3-contrib or this package
    :param seed: the seed of the initial weights
    :return: the network
    """
    policy = model.policy
    make: Any = getattr(policy, "make_quantile_net", None) or policy.make_q_net
    with rng_preserved(model):
        reseed(model, seed)
        network: nn.Module = make()
        return network


def check_same_layers(network: nn.Module, fresh: nn.Module, owner: str) -> None:
    """
    Check that an online network has the layers that its policy makes.

    :param network: the online network
    :param fresh: a network that the policy has made
    :param owner: the name of the callback, for the message
    :raises ArgumentError: if a name or a shape differs
    """
    now, made = ({name: tuple(tensor.shape) for name, tensor in one.state_dict().items()} for one in (network, fresh))
    if now != made:
        differ = ", ".join(sorted(name for name in now.keys() | made.keys() if now.get(name) != made.get(name)))
        raise ArgumentError(
            f"{owner} takes initial weights from a network that the policy makes, and the online network has other layers "
            f"than that: {differ}. Make the layers in make_q_net of your policy, instead of replacing them afterwards."
        )


def moments(optimizer: th.optim.Optimizer, parameter: th.Tensor) -> Iterator[th.Tensor]:
    """
    Find the running averages that an optimizer keeps for a parameter, such as the moments m and v of Adam.

    The number of steps t is not among them: it is common to all parameters, in Adam on one flat tensor and in compiled
    updates, and ReDo's original code keeps it as well.

    :param optimizer: the optimizer of a policy
    :param parameter: a parameter
    :return: tensors of the shape of the parameter
    """
    for one in optimizer.optimizers if isinstance(optimizer, OptimizerPerHead) else [optimizer]:
        for name, value in one.state.get(parameter, {}).items():
            if name != "step" and isinstance(value, th.Tensor) and value.shape == parameter.shape:
                yield value
