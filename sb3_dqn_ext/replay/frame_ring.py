"""Storage of observations that are stacks of frames, or dictionaries with such stacks: each frame is stored once."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_dqn_ext._validation import check_keys, choose
from sb3_dqn_ext.algorithm.batches import map_observation
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.device_frames import to_array, zero_frames
from sb3_dqn_ext.replay.index_set import Indices
from sb3_dqn_ext.replay.observations import (
    Obs,
    ObservationRing,
    arrays_by_key,
    differing_envs,
    observation_bytes,
    spaces_by_key,
)
from sb3_dqn_ext.replay.stacked_frames import StackedFrames, stack_axes

__all__ = ["FrameRing", "make_observation_ring"]

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

STORAGES = {"plain": False, "frames": True}
"""The values of ``storage``: whether frames are stored."""
SYNONYMS = {"frame": "frames", "frame_stack": "frames", "lazy_frames": "frames", "lazyframes": "frames", "dense": "plain"}
REMEDY = "Stack frames, for example with SB3's VecFrameStack or gymnasium's FrameStackObservation, or use"


class FrameRing:
    """
    A ring buffer of the observations before and after each step, which are rebuilt from frames when they are read.

    :param space: the observation space; a Dict without nested Dicts
    :param n_rows: the number of rows
    :param n_envs: the number of environments N
    :param required: the keys of the parts that have to be stacks; a space that is no Dict has the key ""
    :param optional: the keys of the parts that are stored as frames if the first step shifts them, and plainly otherwise
    """

    shares_rows = True
    device: th.device | None = None
    """The device on which frames are stored, see :meth:`move_to`; None: they are arrays."""
    _newest_next: Obs | None = None

    def __init__(
        self, space: spaces.Space[Any], n_rows: int, n_envs: int, required: frozenset[str], optional: frozenset[str]
    ) -> None:
        self._space = space
        self._parts = spaces_by_key(space)
        self._required = required
        self._optional = optional
        self.n_rows = n_rows
        self.n_envs = n_envs
        # until a step shows which axis is the stack axis, the frames along both are stored
        self._stacks: dict[str, list[StackedFrames]] = {}
        self.plain: ObservationRing | None = None
        """The other parts of a Dict, if there are any."""

    @property
    def observations(self) -> Obs:
        """Not available: there is no such array."""
        raise AttributeError("storage='frames' has no arrays of whole observations: read transitions with read(indices).")

    next_observations = observations

    @property
    def transition_bytes(self) -> float:
        """The bytes for the observations of one transition, if a step has one new frame."""
        return sum(
            observation_bytes(part) * (1 / _likely_n_frames(part) if key in self._required | self._optional else 2)
            for key, part in self._parts.items()
        )

    @property
    def stacks(self) -> dict[str, StackedFrames]:
        """The parts that are stored as frames, by their keys; empty until the first step is stored."""
        return {key: stacks[0] for key, stacks in self._stacks.items()}

    def clear(self) -> None:
        """Remove all observations."""
        self._set_stacks({})

    def write(self, row: int, obs: Obs, next_obs: Obs, done: Bools, discontinued: Bools | None) -> None:
        """
        Store one step of every environment.

        :param row: the row to write
        :param obs: the (N, \\*shape) observations before the step
        :param next_obs: the (N, \\*shape) observations after the step
        :param done: (N,) whether each episode ended at this step
        :param discontinued: the result of :meth:`discontinued_envs`
        :raises ArgumentError: if an observation is no stack; nothing is stored then
        """
        before, after = arrays_by_key(obs), arrays_by_key(next_obs)
        new_envs = (
            range(self.n_envs) if not self._stacks else [] if discontinued is None else discontinued.nonzero()[0].tolist()
        )
        if not self._stacks:
            self._allocate(before, after)
        steps = {}
        for key, stacks in self._stacks.items():
            found = [(stack, stack.make_step(before[key], after[key])) for stack in stacks]
            steps[key] = [(stack, step) for stack, step in found if step is not None]
            if not steps[key]:
                raise self._not_stacked_error([key])
        for key, consistent in steps.items():
            self._stacks[key] = [stack for stack, _ in consistent]
            if len(consistent) == 1:
                consistent[0][0].make_certain()
            for stack, step in consistent:
                stack.write(row, step, new_envs)
        if self.plain is not None:
            self.plain.write(row, obs, next_obs, done, discontinued)
        # kept for the comparison with the next step, which would wait for a device
        self._newest_next = self._joined({key: np.array(after[key], part.dtype) for key, part in self._parts.items()})

    def _allocate(self, before: dict[str, Array], after: dict[str, Array]) -> None:
        """Find the parts that the first step shifts, and allocate the storage of all parts."""
        layout = {}
        for key in filter((self._required | self._optional).__contains__, self._parts):
            stacks = [self._make_stack(key, axis, is_certain=False) for axis in stack_axes(self._parts[key])]
            layout[key] = [stack for stack in stacks if stack.make_step(before[key], after[key]) is not None]
        missing = sorted(key for key, stacks in layout.items() if not stacks)
        if not self._required.isdisjoint(missing) or len(missing) == len(layout):
            raise self._not_stacked_error(missing)
        self._set_stacks({key: stacks for key, stacks in layout.items() if stacks})

    def _not_stacked_error(self, keys: list[str]) -> ArgumentError:
        found = ", ".join(f"{f'of {key!r} ' if key else ''}of shape {self._parts[key].shape}" for key in keys)
        plain = {key: "plain" if key in keys else "frames" for key in self.stacks}
        instead = (
            f"storage={plain}" if isinstance(self._space, spaces.Dict) and "frames" in plain.values() else "storage='plain'"
        )
        return ArgumentError(
            f"storage='frames' needs observations that are stacks of frames. The observation {found} after a step does not "
            f"contain the newer frames of the observation before it. {REMEDY} {instead}."
        )

    @property
    def axes(self) -> dict[str, int]:
        """The stack axis of each part that is stored as frames."""
        return {key: stack.axis for key, stack in self.stacks.items()}

    def set_axes(self, axes: dict[str, int]) -> None:
        """
        Allocate empty storage.

        :param axes: the result of :attr:`axes`
        """
        self._set_stacks({key: [self._make_stack(key, axis)] for key, axis in axes.items()})

    def _make_stack(self, key: str, axis: int, is_certain: bool = True) -> StackedFrames:
        return StackedFrames(self._parts[key], axis, self.n_rows, self.n_envs, self.device, is_certain)

    def move_to(self, device: th.device | None) -> None:
        """
        Move the frames, and store those of later steps there.

        :param device: the device; None: they become arrays
        :raises ArgumentError: if it cannot store one of the parts
        """
        if device is not None:
            for key in self._required | self._optional:
                _check_dtype(device, self._parts[key].dtype)
        self.device = device
        for stacks in self._stacks.values():
            for stack in stacks:
                stack.move_to(device)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"device": None}  # the frames in a file are arrays

    @property
    def required(self) -> frozenset[str]:
        """The keys of the parts that have to be stacks."""
        return self._required

    def _set_stacks(self, stacks: dict[str, list[StackedFrames]]) -> None:
        rest = {key: part for key, part in self._parts.items() if key not in stacks}
        self._stacks = stacks
        self._newest_next = None
        self.plain = ObservationRing(spaces.Dict(rest), self.n_rows, self.n_envs, False) if stacks and rest else None

    def plain_array(self, name: str) -> Obs:
        """
        Return the arrays of the parts that are not stored as frames.

        :param name: "observations" or "next_observations"
        :return: the (rows, N, \\*shape) arrays, by their keys
        """
        return {} if self.plain is None else getattr(self.plain, name)

    def keep_final_observation(self, row: int, env: int) -> None:
        """Do nothing: each step has its own positions of the frames after it."""

    def gather_observations(self, indices: Indices) -> Obs:
        """
        Rebuild the observations before steps.

        :param indices: the (B,) indices of the steps
        :return: the (B, \\*shape) observations, as copies; frames on :attr:`device` are tensors there
        """
        plain = {} if self.plain is None else arrays_by_key(self.plain.gather_observations(indices))
        return self._joined({key: stack.gather(stack.before, indices) for key, stack in self.stacks.items()} | plain)

    def gather_next(self, indices: Indices) -> Obs:
        """
        Rebuild the observations after steps.

        :param indices: the (B,) indices of the steps
        :return: the (B, \\*shape) observations, as copies; frames on :attr:`device` are tensors there
        """
        plain = {} if self.plain is None else arrays_by_key(self.plain.gather_next(indices))
        return self._joined({key: stack.gather(stack.after, indices) for key, stack in self.stacks.items()} | plain)

    def _joined(self, arrays: dict[str, Any]) -> Obs:
        return arrays[""] if "" in arrays else {key: arrays[key] for key in self._parts}

    def discontinued_envs(self, row: int, obs: Obs) -> Bools | None:
        """
        Find environments whose new observation is not the next observation of the newest stored step.

        :param row: the row that will be written next
        :param obs: the (N, \\*shape) observations that will be written there
        :return: (N,) whether they differ; None if none does
        """
        newest = self._arrays_after(row - 1) if self._newest_next is None else self._newest_next
        return differing_envs(newest, obs)

    def stored_discontinuities(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, Bools]]:
        """
        Compare the next observations of stored rows with the observations of the rows that follow them.

        :param rows: the stored rows, oldest first
        :return: each row but the last, and (N,) in which environments the two differ
        """
        for row, following in pairwise(rows.tolist()):
            before = map_observation(to_array, self.gather_observations(self._row_indices(following)))
            differing = differing_envs(self._arrays_after(row), before)
            yield row, np.zeros(self.n_envs, dtype=bool) if differing is None else differing

    def _arrays_after(self, row: int) -> Obs:
        """Return the (N, \\*shape) observations after a step."""
        return cast(Obs, map_observation(to_array, self.gather_next(self._row_indices(row))))

    def _row_indices(self, row: int) -> Indices:
        return row % self.n_rows * self.n_envs + np.arange(self.n_envs)


def make_observation_ring(
    storage: str | Mapping[str, str], space: spaces.Space[Any], n_rows: int, n_envs: int, optimize_memory_usage: bool
) -> ObservationRing | FrameRing:
    """
    Make the storage of observations that an argument selects.

    :param storage: ``"plain"``, ``"frames"``, or for a Dict one of them for each key; other keys are plain
    :param space: the observation space
    :param n_rows: the number of rows
    :param n_envs: the number of environments
    :param optimize_memory_usage: see :class:`~sb3_dqn_ext.replay.DQNReplayBuffer`
    :raises ArgumentError: if there is no such storage, or the space or another argument does not allow it
    """
    parts = spaces_by_key(space)
    can_be_stacks = frozenset(key for key, part in parts.items() if stack_axes(part))
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    if isinstance(storage, Mapping):
        if not isinstance(space, spaces.Dict):
            raise ArgumentError(
                f"storage={storage!r} names parts of a Dict, and the observation space is {space}: use 'frames'."
            )
        check_keys("storage", storage, parts)
        required = frozenset(key for key, each in storage.items() if choose(f"storage[{key!r}]", each, STORAGES, SYNONYMS))
    elif choose("storage", storage, STORAGES, SYNONYMS):
        required, optional = (
            (frozenset(), can_be_stacks) if isinstance(space, spaces.Dict) else (frozenset(parts), frozenset())
        )
        if not can_be_stacks:
            raise ArgumentError(
                f"storage='frames' needs stacks of frames, and the observation space is {space}: {REMEDY} storage='plain'."
            )
    if vectors := sorted(required - can_be_stacks):
        raise ArgumentError(f"storage={storage!r} needs a stack of frames at {vectors[0]!r}, which is {parts[vectors[0]]}.")
    if not required | optional:
        return ObservationRing(space, n_rows, n_envs, optimize_memory_usage)
    if optimize_memory_usage:
        raise ArgumentError(
            f"optimize_memory_usage=True has no use with storage={storage!r}, which stores each frame once: leave it False."
        )
    return FrameRing(space, n_rows, n_envs, required, optional)


def _check_dtype(device: th.device, dtype: Any) -> None:
    """:raises ArgumentError: if a device cannot store numbers of a type; torch has some types for few operations only"""
    try:
        zero_frames((1,), dtype, device)[np.zeros(1, np.int64)] = np.zeros(1, dtype)
    except (RuntimeError, TypeError) as error:
        raise ArgumentError(f"observations of {dtype} cannot be stored on the device {str(device)!r}: {error}.") from error


def _likely_n_frames(space: spaces.Space[Any]) -> int:
    return cast(tuple[int, ...], space.shape)[stack_axes(space)[0]]
