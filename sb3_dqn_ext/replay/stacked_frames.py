"""
Storage of a stack of frames, each frame once.

A *frame* is one slice of an observation along its stack axis: a gray image, one channel of a colour image, or one vector. Each
step shifts the older frames of a stack towards its begin and appends new ones.

Shapes: B batch, K frames of a stack, N environments.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_dqn_ext.replay.device_frames import FrameMemory, move_frames, read_frames, zero_frames
from sb3_dqn_ext.replay.index_set import Indices
from sb3_dqn_ext.replay.observations import with_shape

__all__ = ["StackedFrames", "stack_axes"]

Array = npt.NDArray[Any]

SPARE = 24
"""A new ring has room for one frame of each transition, and for one part in this number more, where episodes begin."""
UNCERTAIN_ROWS = 64
"""The number of rows for which there is room in a new ring while its axis is not certain."""
GROWTH = 8
"""A ring that is too small grows by one part in this number."""


def stack_axes(space: spaces.Space[Any]) -> list[int]:
    """
    List the axes along which an observation can be a stack of frames: its first and its last one.

    :param space: the space of the observation, no Dict
    :return: the axes, the more likely one first. None for vectors: a table of their frames would be larger than they are
    """
    shape: Any = get_obs_shape(space)
    axes = [axis for axis in (0, len(shape) - 1) if len(shape) >= 2 and shape[axis] >= 2]
    return sorted(axes, key=lambda axis: shape[axis]) if len(shape) == 3 else axes  # images have fewer channels than columns


class FrameStep(NamedTuple):
    """The stacks of all environments before and after a step."""

    frames: Array
    """(N, K, \\*frame) the stacks before the step."""
    next_frames: Array
    """(N, K, \\*frame) the stacks after the step."""
    shift: int
    """The number of new frames, which is smaller than K."""


class StackedFrames:
    """
    A ring of the frames of all environments, and for each step the positions of its stacks before and after it.

    The ring grows if the stored steps need more frames than it has: each episode begins with up to K further ones.

    :param space: the space of one observation, no Dict
    :param axis: its stack axis
    :param n_rows: the number of rows
    :param n_envs: the number of environments N
    :param device: the device of the frames; None (default): an array
    :param is_certain: whether the stack axis is known. Otherwise the first frames have room for a few rows only, until
        :meth:`make_certain` is called: along a wrong axis, a step can have as many new frames as an image has columns
    """

    shift = 1
    """The number of new frames in the newest step."""
    _device: th.device | None = None
    _is_certain = True

    def __init__(
        self,
        space: spaces.Space[Any],
        axis: int,
        n_rows: int,
        n_envs: int,
        device: th.device | None = None,
        is_certain: bool = True,
    ) -> None:
        self.axis = axis
        self._device = device
        self._is_certain = is_certain
        self._dtype = space.dtype
        self._shape: tuple[int, ...] = get_obs_shape(space)  # type: ignore[assignment]
        self.n_frames = self._shape[axis]
        table = n_rows, n_envs, self.n_frames
        dtype = np.int32 if 4 * math.prod(table) < 2**31 else np.int64  # the ring has at most twice as many frames
        self.before = np.zeros(table, dtype)
        """The (rows, N, K) positions of the frames before each step."""
        self.after = np.zeros(table, dtype)
        """The (rows, N, K) positions of the frames after each step."""
        self._head = 0  # the position of the next frame
        self._n_used = 0  # the number of positions before the head that steps can refer to

    @cached_property
    def _frames(self) -> FrameMemory:
        """The (F, \\*frame) frames. Allocated at first use."""
        n_rows = len(self.before)
        n = self._n_needed(n_rows if self._is_certain else min(n_rows, UNCERTAIN_ROWS))
        return zero_frames((n, *self._shape[: self.axis], *self._shape[self.axis + 1 :]), self._dtype, self._device)

    def _n_needed(self, n_rows: int) -> int:
        """Return the number of frames of some rows if each step has as many new ones as the newest one."""
        _, n_envs, n_frames = self.before.shape
        n_new = n_rows * min(max(self.shift, 1), n_frames)
        return n_envs * (n_new + n_new // SPARE + n_frames)

    def make_certain(self) -> None:
        """Make room for the frames of all rows: there is no other stack axis."""
        if not self._is_certain:
            self._is_certain = True
            if "_frames" in vars(self) and (missing := self._n_needed(len(self.before)) - len(self._frames)) > 0:
                self._grow(missing)

    def move_to(self, device: th.device | None) -> None:
        """
        Move the frames.

        :param device: the device; None: they become an array
        """
        self._device = device
        if "_frames" in vars(self):
            self._frames = move_frames(self._frames, device)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_device": None}

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        return self._frames.nbytes + self.before.nbytes + self.after.nbytes

    def gather(self, positions: Array, indices: Indices) -> Array | th.Tensor:
        """
        Rebuild observations.

        :param positions: :attr:`before` or :attr:`after`
        :param indices: the (B,) indices of the steps
        :return: the (B, \\*shape) observations, as copies; with a device, a tensor on it
        """
        stacks = self._frames.take(positions.reshape(-1, self.n_frames).take(indices, axis=0), axis=0)  # (B, K, *frame)
        # compiled functions need the same order in memory as that of whole observations
        if isinstance(stacks, np.ndarray):
            return np.ascontiguousarray(np.moveaxis(stacks, 1, self.axis + 1))
        return stacks.movedim(1, self.axis + 1).contiguous()

    def make_step(self, obs: Array, next_obs: Array) -> FrameStep | None:
        """
        Find the number of frames by which a step has shifted the stacks.

        :param obs: the (N, \\*shape) observations before the step, or without axes of length 1
        :param next_obs: the (N, \\*shape) observations after the step
        :return: the step; None if these observations are no stacks along this axis
        """
        frames, next_frames = self._with_stack_axis_first(obs), self._with_stack_axis_first(next_obs)
        before, after = frames.view(np.uint8), next_frames.view(np.uint8)  # bits are compared, so that nan equals nan
        for shift in (self.shift, *range(1, self.n_frames), 0):
            if np.array_equal(after[:, : self.n_frames - shift], before[:, shift:]):
                return FrameStep(frames, next_frames, shift)
        return None

    def _with_stack_axis_first(self, obs: Array) -> Array:
        """Return (N, \\*shape) observations as contiguous (N, K, \\*frame) frames."""
        array = np.asarray(obs, self._dtype)
        return np.ascontiguousarray(np.moveaxis(with_shape(array, (len(array), *self._shape)), self.axis + 1, 1))

    def write(self, row: int, step: FrameStep, new_envs: Sequence[int]) -> None:
        """
        Store one step of every environment.

        :param row: the row to write
        :param step: the result of :meth:`make_step`
        :param new_envs: the environments whose stacks before the step are not those after the previous row
        """
        frames, next_frames, shift = step
        self.shift, n_old, n_envs = shift, self.n_frames - shift, len(frames)
        self._reserve(len(new_envs) * self.n_frames + n_envs * shift, row)
        self.before[row] = self.after[row - 1]
        for env in new_envs:
            self.before[row, env] = self._append_distinct(frames[env])
        self.after[row, :, :n_old] = self.before[row, :, shift:]
        newest = next_frames[:, n_old:].reshape(-1, *next_frames.shape[2:])  # (N * shift, *frame)
        self.after[row, :, n_old:] = self._append(newest).reshape(n_envs, shift)

    def _append(self, frames: Array) -> Array:
        """Store (F, \\*frame) frames, for which there is room. Return their (F,) positions."""
        n, size = len(frames), len(self._frames)
        positions = (self._head + np.arange(n)) % size
        self._frames[positions] = frames
        self._head = (self._head + n) % size
        self._n_used += n
        return positions

    def _append_distinct(self, frames: Array) -> Array:
        """Store the (K, \\*frame) frames that an episode begins with, equal ones once. Return their (K,) positions."""
        first_equal: dict[bytes, int] = {}
        numbers = [first_equal.setdefault(frame.tobytes(), len(first_equal)) for frame in frames]
        _, where = np.unique(numbers, return_index=True)
        return self._append(frames[where])[numbers]

    def _reserve(self, n: int, row: int) -> None:
        """Make room for n frames. The frames that only a row needs are removed: it will be overwritten."""
        if self._n_used + n > len(self._frames):
            self._release(row)
        if self._n_used + n > len(self._frames):
            self._grow(n)

    def _release(self, row: int) -> None:
        """Remove the frames that are older than those of the row after a row: the oldest row, if all rows are stored."""
        size = len(self._frames)
        tail = (self._head - self._n_used) % size
        oldest = self.before[(row + 1) % len(self.before)]  # 0 until all rows are stored, as the tail
        self._n_used -= int(((oldest - tail) % size).min())

    def _grow(self, n: int) -> None:
        """Make a ring that is larger by at least n frames, with free positions before the oldest frame."""
        size = len(self._frames)
        added, tail = max(n, size // GROWTH), (self._head - self._n_used) % size
        frames: Any = zero_frames((size + added, *self._frames.shape[1:]), self._dtype, self._device)
        frames[:tail] = self._frames[:tail]
        frames[tail + added :] = self._frames[tail:]
        self._frames = frames
        for positions in (self.before, self.after):
            positions[positions >= tail] += added
        self._head = (tail + added + self._n_used) % len(frames)

    def read_rows(self, rows: Indices) -> dict[str, Array]:
        """
        Copy the frames of rows.

        :param rows: the (R,) rows, oldest first
        :return: (F, \\*frame) ``frames``, oldest first; (R, N, K) positions in them ``before`` and ``after`` the steps
        """
        size = len(self._frames)
        tail = (self._head - self._n_used) % size
        ages = (np.stack([self.before[rows], self.after[rows]]) - tail) % size  # (2, R, N, K)
        used, positions = np.unique(ages, return_inverse=True)
        before, after = positions.reshape(ages.shape).astype(self.before.dtype)
        return {"frames": read_frames(self._frames, (used + tail) % size), "before": before, "after": after}

    def restore_rows(self, rows: Indices, stored: dict[str, Array]) -> None:
        """
        Store rows of a checkpoint. Earlier rows have been restored already.

        :param rows: the (R,) rows
        :param stored: the result of :meth:`read_rows` for at least R rows, of which the last ones are restored
        """
        before, after = (stored[name][len(stored[name]) - len(rows) :] for name in ("before", "after"))
        used, positions = np.unique(np.stack([before, after]), return_inverse=True)
        frames = stored["frames"][used]
        if self._n_used + len(frames) > len(self._frames):
            self._grow(len(frames))
        self.before[rows], self.after[rows] = self._append(frames)[positions.reshape(2, *before.shape)]
