"""Networks that are no larger than the file they are of."""

import math
from typing import Any

import torch as th
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Budget", "TooLargeError"]

_SPARE = 2**28  # bytes that a small network may take while it is built
_PER_BYTE = 16  # two networks, two moments of each, and what initialisation takes on the way
_PER_CALL = 2**12  # bytes of Python for each small tensor


class TooLargeError(MemoryError):
    """Raised before memory is taken. It is not among the errors that policies turn into errors of arguments."""


class Budget(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """
    While it is entered, no more tensors are made than a network whose parameters are in the file can need: what a file says of
    layers takes memory before its parameters are seen not to fit.

    :param n_bytes: of the file
    """

    def __init__(self, n_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = _SPARE + _PER_BYTE * n_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # what has no tensor to work on makes one of its sizes
        if func.__name__.startswith("new_") or not any(isinstance(argument, th.Tensor) for argument in args):
            size = max((_numbers(argument) for argument in (*args, *kwargs.values())), default=0)
            self._left -= 4 * size + _PER_CALL
            if self._left < 0:
                raise TooLargeError("it describes networks that are far larger than the parameters it holds")
        return func(*args, **kwargs)


def _numbers(argument: Any) -> int:
    """How many numbers a tensor has of which a size, or all sizes, are the argument."""
    if isinstance(argument, list | tuple) and all(isinstance(length, int) for length in argument):
        return math.prod(argument)
    return argument if isinstance(argument, int) else 0
