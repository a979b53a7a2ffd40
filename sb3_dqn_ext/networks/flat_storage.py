"""Parameters as views of one flat tensor, so that one call of torch changes all of them."""

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from threading import RLock
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch as th
from torch import nn

__all__ = ["StorageOwner", "addresses", "flatten_parameters", "register_owner", "separate_parameters", "views_like"]


class StorageOwner(Protocol):
    """An object that updates a flat tensor."""

    @property
    def lock(self) -> RLock:
        """The lock that it holds during an update."""
        ...


_owners: WeakValueDictionary[int, StorageOwner] = WeakValueDictionary()
"""The owner of each flat tensor, by the address of the tensor."""


def register_owner(flat: th.Tensor, owner: StorageOwner, address_before: int) -> None:
    """
    Register the object that updates a flat tensor.

    :param flat: the flat tensor
    :param owner: the object
    :param address_before: the address of the flat tensor that it has updated before; 0 if there was none
    """
    _owners.pop(address_before, None)
    _owners[flat.data_ptr()] = owner


def addresses(tensors: Sequence[th.Tensor]) -> list[int]:
    """
    Return the addresses of the memory of tensors.

    :param tensors: the tensors
    """
    return [*map(th.Tensor.data_ptr, tensors)]


def views_like(flat: th.Tensor, like: Sequence[th.Tensor]) -> list[th.Tensor]:
    """
    Split a flat tensor into views.

    :param flat: (P,) numbers
    :param like: tensors with P elements in total
    :return: a view for each tensor, in its shape
    """
    ends = accumulate((tensor.numel() for tensor in like), initial=0)
    return [flat[start:end].view(tensor.shape) for (start, end), tensor in zip(pairwise(ends), like, strict=True)]


def flatten_parameters(parameters: Sequence[nn.Parameter]) -> th.Tensor:
    """
    Move parameters into one flat tensor. Afterwards, each parameter is a view of it.

    :param parameters: parameters of the same precision, on the same device, with P elements in total
    :return: (P,) the flat tensor
    """
    flat = th.cat([parameter.detach().reshape(-1) for parameter in parameters])
    for parameter, view in zip(parameters, views_like(flat, parameters), strict=True):
        parameter.data = view
    return flat


def separate_parameters(parameters: Sequence[nn.Parameter], optimizer: th.optim.Optimizer | None = None) -> None:
    """
    Give each parameter its own storage again. Otherwise, each would be pickled together with the whole flat tensor.

    :param parameters: the parameters
    :param optimizer: their optimizer, whose state of each parameter gets its own storage, too; None (default): no state
    """
    updaters = (_owners.get(parameter.untyped_storage().data_ptr()) for parameter in parameters)
    owner = next((candidate for candidate in updaters if candidate is not None), None)
    if owner is None:
        return
    states: Mapping[Any, dict[str, Any]] = getattr(optimizer, "state", {})
    with owner.lock:  # another thread may be training
        for parameter in parameters:
            for tensor in (parameter, *states.get(parameter, {}).values()):
                if isinstance(tensor, th.Tensor) and tensor.untyped_storage().nbytes() > tensor.nbytes:
                    tensor.data = tensor.data.clone()
