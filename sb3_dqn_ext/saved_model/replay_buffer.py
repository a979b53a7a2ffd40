"""Replay buffers inside the file of a model, for ``save(include=["replay_buffer"])``."""

from typing import Any, NamedTuple

from stable_baselines3.common.buffers import ReplayBuffer

from sb3_dqn_ext.checkpoint.replay import (
    check_storable,
    read_rows,
    replay_buffer_state,
    restore_replay_buffer,
    stored_row_range,
    stores_frames,
)
from sb3_dqn_ext.errors import ArgumentError

__all__ = ["StoredBuffer", "restore_buffer", "store_buffer"]


MAX_TRANSITIONS = 2**23
"""The largest capacity of a stored buffer in transitions. Samplers allocate memory for each."""


class StoredBuffer(NamedTuple):
    """The content of a replay buffer as plain data."""

    size: int
    """The capacity in rows."""
    n_envs: int
    first: int
    """The oldest stored row, counted since the buffer was created."""
    rows: dict[str, Any]
    """The (rows, n_envs, \\*shape) arrays, by name."""
    replay_buffer_state: dict[str, Any]
    """The state beside the rows."""


def store_buffer(buffer: ReplayBuffer) -> StoredBuffer | ReplayBuffer:
    """
    Return the content of a replay buffer as plain data.

    :param buffer: the replay buffer of a model
    :return: its content, or the buffer itself if its class is unsupported or it is too large
    """
    try:
        check_storable(buffer)
    except ArgumentError:
        return buffer
    if buffer.buffer_size * buffer.n_envs > MAX_TRANSITIONS:
        return buffer
    first, end = stored_row_range(buffer)
    return StoredBuffer(buffer.buffer_size, buffer.n_envs, first, read_rows(buffer, first, end), replay_buffer_state(buffer))


def restore_buffer(buffer: ReplayBuffer, content: StoredBuffer) -> str:
    """
    Fill a replay buffer with stored content.

    :param buffer: an empty replay buffer with the settings of the stored one
    :param content: the result of :func:`store_buffer`
    :return: the reason why the content does not fit into this buffer, or is larger than ``MAX_TRANSITIONS``. The buffer is
        then unchanged. "" if the content was restored
    :raises RuntimeError: if the content cannot be that of a replay buffer, which may then be filled in part
    """
    if (content.size, content.n_envs) != (buffer.buffer_size, buffer.n_envs):
        return f"has {content.size} rows of {content.n_envs} environments, not {buffer.buffer_size} of {buffer.n_envs}"
    if ("stack_axes" in content.replay_buffer_state) != stores_frames(buffer):
        return "has whole observations, not frames" if stores_frames(buffer) else "has frames, not whole observations"
    if buffer.buffer_size * buffer.n_envs > MAX_TRANSITIONS:
        return f"is for {buffer.buffer_size * buffer.n_envs} transitions, and up to {MAX_TRANSITIONS} are read"
    try:
        pos, full = content.replay_buffer_state["pos"], content.replay_buffer_state["full"]
        if not (type(pos) is int and 0 <= pos < buffer.buffer_size and type(full) is bool):
            raise ValueError(f"pos={pos!r}, full={full!r}")
        restore_replay_buffer(buffer, content.replay_buffer_state, [(content.first, content.rows)])
    except Exception as error:
        raise RuntimeError(f"its replay_buffer cannot be: {error!r}") from error
    return ""
