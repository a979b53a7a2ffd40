"""The forward pass of networks for images as one compiled function, since torch's overhead is as long as the computation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from torch import nn
from torch.func import functional_call

from sb3_dqn_ext.algorithm.batches import copy_to_device
from sb3_dqn_ext.fast.compilation import compile_function
from sb3_dqn_ext.fast.numpy_forward import FORWARD_METHODS
from sb3_dqn_ext.networks.flat_storage import views_like
from sb3_dqn_ext.networks.policies import MODE_INDEPENDENT
from sb3_dqn_ext.networks.q_network import QNetwork
from sb3_dqn_ext.replay.observations import arrays_by_key, spaces_by_key

__all__ = ["QValuesOfParameters", "compile_q_values"]

Array = npt.NDArray[Any]
QValuesOfParameters = Callable[[th.Tensor, Any], Array]
"""
A function from the (P,) flat tensor of a network's parameters and (N, \\*obs) images, in a dictionary with masks, to (N, A)
Q-values.
"""


def compile_q_values(net: nn.Module, flat: th.Tensor, n_envs: int) -> QValuesOfParameters | None:
    """
    Compile a function that computes a network's Q-values, equal up to rounding. Hooks are not detected.

    :param net: the network
    :param flat: (P,) the flat tensor of its parameters
    :param n_envs: N, the number of observations
    :return: the function; None if the network is random, has another input than images, or contains layers of others, which
        may compute differently in training and in evaluation mode
    :raises CompilationError: if torch cannot compile it
    """
    if not isinstance(net, QNetwork):
        return None
    if any(getattr(type(net), name) is not getattr(QNetwork, name) for name in FORWARD_METHODS):
        return None  # a subclass overrides a computation
    space = net.input_space
    is_plain = not net.is_stochastic and all(type(layer) in MODE_INDEPENDENT for layer in net.modules())
    if not (is_plain and isinstance(space, spaces.Box) and len(space.shape) == 3):
        return None
    names, like = zip(*net.named_parameters(), strict=True)
    parts = spaces_by_key(net.observation_space)

    def q_values(flat: th.Tensor, *tensors: th.Tensor) -> tuple[th.Tensor]:
        obs = dict(zip(parts, tensors, strict=True)) if net.action_masks else tensors[0]
        result: th.Tensor = functional_call(net, dict(zip(names, views_like(flat, like), strict=True)), (obs,))
        return (result,)

    def as_tensors(obs: Any) -> list[th.Tensor]:
        arrays = arrays_by_key(obs)
        # the function is compiled for these types and this order in memory; SB3 transposes images without a copy
        return [copy_to_device(np.ascontiguousarray(arrays[key], part.dtype), flat.device) for key, part in parts.items()]

    zeros = {key: np.zeros((n_envs, *(part.shape or ()))) for key, part in parts.items()}
    with th.no_grad():
        compiled = compile_function(q_values, [flat, *as_tensors(zeros)])

    def compute(flat: th.Tensor, obs: Any) -> Array:
        result: Array = compiled(flat, *as_tensors(obs))[0].cpu().numpy()
        return result

    return compute
