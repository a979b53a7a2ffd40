"""Functions of torch that ONNX or onnxruntime does not have, computed by others while a network is exported."""

from collections.abc import Callable
from typing import Any

import torch as th
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["OnnxFunctions"]


def in_single_precision(function: Callable[..., th.Tensor]) -> Callable[..., th.Tensor]:
    """
    Return a function that computes in float32, and returns a tensor of the precision of its input.

    :param function: a function whose first argument is its input
    """

    def compute(inputs: th.Tensor, *args: Any, **kwargs: Any) -> th.Tensor:
        rest = {name: to_single(value) for name, value in kwargs.items()}
        return function(to_single(inputs), *map(to_single, args), **rest).to(inputs.dtype)

    return compute


def to_single(value: Any) -> Any:
    """Return a tensor of float64 as float32, and any other value unchanged."""
    return value.float() if isinstance(value, th.Tensor) and value.dtype == th.float64 else value


def adaptive_max_pool2d(images: th.Tensor, size: Any, return_indices: bool = False) -> th.Tensor:
    """
    Pool images to a height and a width by slices.

    :param images: (B, C, height, width)
    :param size: the new height and width, or a number for both
    :param return_indices: False
    :return: (B, C, \\*size)
    """
    height, width = size if isinstance(size, tuple) else (size, size)
    return pool_axis(pool_axis(images, height, 2), width, 3)


def pool_axis(images: th.Tensor, size: int | None, axis: int) -> th.Tensor:
    """
    Pool one axis: output i is the maximum of the inputs from ``floor(i n / size)`` to ``ceil((i + 1) n / size) - 1``.

    :param images: (B, C, height, width)
    :param size: the size of the axis of the output; None: that of the input
    :param axis: the axis, of n numbers
    """
    n = int(images.shape[axis])
    bounds = [(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] if size else []
    parts = [images.narrow(axis, start, end - start).amax(axis) for start, end in bounds]
    return th.stack(parts, axis) if parts else images


REPLACEMENTS: dict[Any, Callable[..., th.Tensor]] = {
    F.adaptive_max_pool2d: adaptive_max_pool2d,  # ONNX has none; torch exports it if the new size divides the old one
    F.conv2d: in_single_precision(F.conv2d),  # onnxruntime has both in float32 only
    F.group_norm: in_single_precision(F.group_norm),
}


class OnnxFunctions(TorchFunctionMode):
    """A context in which the functions of ``REPLACEMENTS`` are replaced."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return REPLACEMENTS.get(func, func)(*args, **(kwargs or {}))
