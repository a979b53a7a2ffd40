"""Parameters that lie side by side in one tensor, so that one call is for all of them."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from threading import RLock
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch as th
from torch import nn

__all__ = ["StorageOwner", "flatten_parameters", "register_owner", "separate_parameters", "views_like"]


class StorageOwner(Protocol):
    """An object that updates parameters that lie side by side."""

    @property
    def lock(self) -> RLock:
        """The lock that it holds while it changes them."""
        ...


_updaters: WeakValueDictionary[int, StorageOwner] = WeakValueDictionary()
"""the updater of a tensor, by the address of the tensor"""


def register_owner(flat: th.Tensor, updater: StorageOwner, address_before: int) -> None:
    """
    Note which object updates a tensor.

    :param flat: parameters side by side
    :param updater: the object
    :param address_before: the address of the tensor that it updated before; 0 if there was none
    """
    _updaters.pop(address_before, None)
    _updaters[flat.data_ptr()] = updater


def views_like(flat: th.Tensor, like: Sequence[th.Tensor]) -> list[th.Tensor]:
    """(P,) numbers -> views of them in the shapes of tensors that have P elements together"""
    ends = accumulate((tensor.numel() for tensor in like), initial=0)
    return [flat[start:end].view(tensor.shape) for (start, end), tensor in zip(pairwise(ends), like, strict=True)]


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> th.Tensor:
    """
    Move parameters into one tensor, of which each is a view from then on.

    :param parameters: of one precision, on one device
    :return: (P,)
    """
    flat = th.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, view in zip(parameters, views_like(flat, parameters), strict=True):
        parameter.data = view
    return flat


def separate_parameters(parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer | None = None) -> None:
    """
    Give each parameter storage of its own again, with the same numbers: a view would be pickled with the whole tensor.

    :param parameters: the parameters
    :param optimizer: an optimizer, whose state of each is treated alike
    """
    updaters = (_updaters.get(parameter.untyped_storage().data_ptr()) for parameter in parameters)
    updater = next((found for found in updaters if found is not None), None)
    if updater is None:
        return
    states: Mapping[Any, dict[str, Any]] = getattr(optimizer, "state", {})
    with updater.lock:  # another thread may train
        for parameter in parameters:
            for tensor in (parameter, *states.get(parameter, {}).values()):
                if isinstance(tensor, th.Tensor) and tensor.untyped_storage().nbytes() > tensor.nbytes:
                    tensor.data = tensor.data.clone()
