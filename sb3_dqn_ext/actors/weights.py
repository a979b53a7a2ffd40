"""The weights of a network as one flat array."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from torch import nn

from sb3_dqn_ext.networks.flat_storage import views_like

__all__ = ["load_weights", "read_weights"]

Array = npt.NDArray[np.floating[Any]]


def _tensors(net: nn.Module) -> list[th.Tensor]:
    """Return the tensors on which the outputs of a network depend: parameters, and buffers such as running averages."""
    return [*net.parameters(), *(buffer for buffer in net.buffers() if buffer.is_floating_point())]


def read_weights(net: nn.Module) -> Array:
    """
    Copy the weights of a network into one array.

    :param net: the network, on any device
    :return: (P,) the parameters, then the buffers
    """
    flat = th.cat([tensor.detach().reshape(-1) for tensor in _tensors(net)])
    return np.array(flat.cpu().numpy())


def load_weights(net: nn.Module, weights: Array) -> None:
    """
    Load the weights of a network. Its tensors keep their storage.

    :param net: a network on the CPU
    :param weights: the result of :func:`read_weights` for a network of the same form
    """
    tensors = _tensors(net)
    with th.no_grad():
        for tensor, values in zip(tensors, views_like(th.from_numpy(np.array(weights)), tensors), strict=True):
            tensor.copy_(values)
