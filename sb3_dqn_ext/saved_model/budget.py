"""A memory limit for building networks, in proportion to the size of the file that describes them."""

import math
from typing import Any

import torch as th
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Budget", "TooLargeError"]

_BASE_BYTES = 2**28  # bytes that a small network may take while it is built
_PER_BYTE = 16  # two networks, two moments of each, and what initialisation takes on the way
_PER_CALL = 2**12  # bytes of Python for each small tensor


class TooLargeError(MemoryError):
    """An error that is raised before too much memory is allocated. Policies do not translate it into an argument error."""


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """
    A context in which only as many tensor elements can be created as networks with the file's parameters need.

    Without it, layer sizes in a file could exhaust memory before the parameters turn out not to fit.

    :param n_bytes: the size of the file in bytes
    """

    def __init__(self, n_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = _BASE_BYTES + _PER_BYTE * n_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # what has no tensor to work on makes one of its sizes
        if func.__name__.startswith("new_") or not any(isinstance(argument, th.Tensor) for argument in args):
            size = max((_n_elements(argument) for argument in (*args, *kwargs.values())), default=0)
            self._left -= 4 * size + _PER_CALL
            if self._left < 0:
                raise TooLargeError("it describes networks that are far larger than the parameters it holds")
        return func(*args, **kwargs)


def _n_elements(argument: Any) -> int:
    """Return the number of elements of a tensor for which the argument is a length or the shape."""
    if isinstance(argument, list | tuple) and all(isinstance(length, int) for length in argument):
        return math.prod(argument)
    return argument if isinstance(argument, int) else 0
