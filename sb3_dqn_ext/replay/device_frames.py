"""Frames in the memory of a GPU. Shapes: F frames, B batch, K frames of a stack."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext.algorithm.batches import copy_to_device

__all__ = ["DeviceFrames", "to_array", "zero_frames"]

Array = npt.NDArray[Any]


class DeviceFrames:
    """
    Frames on a device, with the operations of an array that a ring of frames needs.

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

    def __getitem__(self, where: slice | Array) -> th.Tensor:
        return self._frames[self._moved(where)]

    def __setitem__(self, where: slice | Array, frames: Array | th.Tensor) -> None:
        self._frames[self._moved(where)] = self._moved(frames)

    def _moved(self, value: Any) -> Any:
        """Return an array as a tensor on the device; anything else unchanged."""
        return copy_to_device(value, self._frames.device) if isinstance(value, np.ndarray) else value

    def __getstate__(self) -> dict[str, Any]:
        return {"frames": to_array(self._frames), "device": str(self._frames.device)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # a machine without the device keeps them in its own memory
        is_missing = state["device"].startswith("cuda") and not th.cuda.is_available()
        self._frames = th.from_numpy(state["frames"]).to("cpu" if is_missing else state["device"])


def zero_frames(shape: tuple[int, ...], dtype: npt.DTypeLike | None, device: th.device | None) -> Array | DeviceFrames:
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


def to_array(frames: Array | th.Tensor) -> Array:
    """
    Convert frames on any device to an array.

    :param frames: an array or a tensor
    :return: the array
    """
    return frames if isinstance(frames, np.ndarray) else frames.cpu().numpy()
