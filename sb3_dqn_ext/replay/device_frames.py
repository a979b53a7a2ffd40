"""Frames in the memory of a GPU. Shapes: F frames, B batch, K frames of a stack."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.algorithm.batches import copy_to_device

__all__ = ["DeviceFrames", "FrameMemory", "move_frames", "read_frames", "to_array", "zero_frames"]

Array = npt.NDArray[Any]

PIECE = 10_000
"""The number of frames that are copied between a device and the CPU at a time, since a copy needs as much memory again."""


class DeviceFrames:
    """
    Frames on a device, with the operations of an array that a ring of frames needs. A copy of it, and what is read from a
    file, is an array.

    :param frames: the (F, \\*frame) frames
    """

    def __init__(self, frames: th.Tensor) -> None:
        self._frames = frames

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the frames."""
        return tuple(self._frames.shape)

    @property
    def nbytes(self) -> int:
        """Their size in bytes."""
        return self._frames.nbytes

    def __len__(self) -> int:
        return len(self._frames)

    def take(self, positions: Array, axis: int) -> th.Tensor:
        """
        Read frames.

        :param positions: their (B, K) positions
        :param axis: 0
        :return: the (B, K, \\*frame) frames, on the device
        """
        flat = self._frames.index_select(axis, self._moved(positions.reshape(-1)))
        return flat.reshape(*positions.shape, *self.shape[1:])

    def __getitem__(self, where: slice) -> th.Tensor:
        return self._frames[where]

    def __setitem__(self, where: slice | Array, frames: Array | th.Tensor) -> None:
        if isinstance(where, slice):
            self._frames[where] = self._moved(frames)
        else:
            for start in range(0, len(where), PIECE):
                piece = slice(start, start + PIECE)
                self._frames[self._moved(where[piece])] = self._moved(frames[piece])

    def _moved(self, value: Array | th.Tensor) -> th.Tensor:
        """Return an array as a tensor on the device; a tensor unchanged."""
        if isinstance(value, th.Tensor):
            return value
        # torch warns of arrays that cannot be written
        return copy_to_device(value if value.flags.writeable else value.copy(), self._frames.device)

    def __reduce__(self) -> tuple[Callable[[Array], Array], tuple[Array]]:
        return _array, (to_array(self._frames),)


FrameMemory = Array | DeviceFrames
"""The frames of a ring: in the memory of the computer or of a device."""


def _array(frames: Array) -> Array:
    return frames


def zero_frames(shape: tuple[int, ...], dtype: npt.DTypeLike | None, device: th.device | None) -> FrameMemory:
    """
    Allocate frames of zeros.

    :param shape: (F, \\*frame)
    :param dtype: their data type
    :param device: the device; None: an array
    :return: the frames
    """
    if device is None:
        return np.zeros(shape, dtype)
    return DeviceFrames(th.zeros(shape, dtype=th.from_numpy(np.zeros(0, dtype)).dtype, device=device))


def move_frames(frames: FrameMemory, device: th.device | None) -> FrameMemory:
    """
    Move frames to another memory.

    :param frames: the frames
    :param device: the device; None: an array
    :return: the frames there
    """
    array = frames if isinstance(frames, np.ndarray) else to_array(frames[:])
    return array if device is None else DeviceFrames(th.from_numpy(array).to(device))


def read_frames(frames: FrameMemory, positions: Array) -> Array:
    """
    Read frames as an array.

    :param frames: the frames
    :param positions: their (N,) positions
    :return: the (N, \\*frame) frames
    """
    if isinstance(frames, np.ndarray):
        return frames[positions]
    starts = range(0, max(len(positions), 1), PIECE)
    return np.concatenate([to_array(frames.take(positions[start : start + PIECE], axis=0)) for start in starts])


def to_array(frames: Array | th.Tensor) -> Array:
    """
    Convert frames on any device to an array.

    :param frames: an array or a tensor
    :return: the array
    """
    return frames if isinstance(frames, np.ndarray) else frames.cpu().numpy()
