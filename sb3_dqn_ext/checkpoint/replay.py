"""
The content of a replay buffer as plain data: its rows, and the rest of its state.

Rows do not change once they are written, so that checkpoints can store them incrementally. The exceptions are also part of the
state: ``timeouts``, which truncation can set later, and with ``optimize_memory_usage`` the observations in the row after the
newest one, which are the next observations of the newest row.

Shapes: R rows, N environments.
"""

import zlib
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.episodes import EpisodeSpan
from sb3_dqn_ext.replay.frame_ring import FrameRing
from sb3_dqn_ext.replay.observations import arrays_by_key
from sb3_dqn_ext.replay.stacked_frames import StackedFrames

__all__ = [
    "check_storable",
    "describe_buffer",
    "read_rows",
    "replay_buffer_state",
    "restore_replay_buffer",
    "stored_row_range",
    "stores_frames",
]

Array = npt.NDArray[Any]
State = dict[str, Any]

SB3_BUFFERS = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)
ROW_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def check_storable(buffer: ReplayBuffer) -> None:
    """
    Check that the content of a replay buffer can be stored completely.

    :param buffer: a replay buffer
    :raises ArgumentError: if its class may have state that is not stored
    """
    if not isinstance(buffer, DQNReplayBuffer) and type(buffer) not in SB3_BUFFERS:
        raise ArgumentError(
            f"replay_buffer_class={type(buffer).__name__} cannot be part of a checkpoint, which supports DQNReplayBuffer and "
            f"{', '.join(kind.__name__ for kind in SB3_BUFFERS)}."
        )


def stores_frames(buffer: ReplayBuffer) -> bool:
    """
    Return whether a replay buffer stores observations as frames.

    :param buffer: a replay buffer
    """
    return _frame_ring(buffer) is not None


def describe_buffer(buffer: ReplayBuffer) -> str:
    """
    Return the properties that must be equal in the replay buffer that is restored.

    :param buffer: a replay buffer
    """
    frames = " of frames" if stores_frames(buffer) else ""
    demonstrations = getattr(buffer, "demonstrations", None)
    beside = "" if demonstrations is None else f" and {demonstrations.size()} demonstrations ({_checksum(demonstrations)})"
    return f"{type(buffer).__name__} of {buffer.buffer_size} rows{frames}{beside}"


def _checksum(buffer: ReplayBuffer) -> str:
    """Return a checksum of the actions and rewards: checkpoints do not contain demonstrations."""
    return f"{zlib.crc32(buffer.actions.tobytes() + buffer.rewards.tobytes() + buffer.dones.tobytes()):08x}"


def stored_row_range(buffer: ReplayBuffer) -> tuple[int, int]:
    """
    Return the range of the stored rows.

    :param buffer: a replay buffer
    :return: the first row, and the row after the last one. The rows of a DQNReplayBuffer are numbered since it was made.
    """
    end = buffer.n_added if isinstance(buffer, DQNReplayBuffer) else buffer.size()
    return end - buffer.size(), end


def read_rows(buffer: ReplayBuffer, first: int, end: int) -> dict[str, Array]:
    """
    Copy a range of rows.

    :param buffer: a replay buffer
    :param first: the first row, numbered as by :func:`stored_row_range`
    :param end: the row after the last one
    :return: the (R, N, \\*shape) arrays by name. Stacks of frames are (R, N, K) positions in an array of (F, \\*frame) frames.
    """
    rows = _ring_rows(buffer, first, end)
    arrays = {name: array[rows] for name, array in _row_arrays(buffer).items()}
    for key, stack in _stacks(buffer).items():
        arrays |= {f"{name}/{key}": array for name, array in stack.read_rows(rows).items()}
    return arrays


def _restore_rows(buffer: ReplayBuffer, first: int, rows: dict[str, Array]) -> None:
    """
    Write stored rows into a replay buffer.

    :param buffer: a replay buffer that was made with the same arguments, and whose state is restored already
    :param first: the number of the first of the rows
    :param rows: the result of :func:`read_rows`; rows that have been overwritten since are skipped
    """
    end = first + len(rows["rewards"])
    kept_from = min(max(stored_row_range(buffer)[0], first), end)
    kept = _ring_rows(buffer, kept_from, end)
    for name, array in _row_arrays(buffer).items():
        array[kept] = rows[name][kept_from - first :]
    for key, stack in _stacks(buffer).items():
        stack.restore_rows(kept, {name: rows[f"{name}/{key}"] for name in ("frames", "before", "after")})


def replay_buffer_state(buffer: ReplayBuffer) -> State:
    """
    Return the state of a replay buffer, except its rows.

    :param buffer: a replay buffer
    :return: nested plain data and arrays. Arrays can share memory with the buffer.
    """
    state: State = {"pos": buffer.pos, "full": buffer.full}
    if buffer.optimize_memory_usage and buffer.size():
        state["newest_next_observations"] = {
            key: array[buffer.pos] for key, array in arrays_by_key(buffer.observations).items()
        }
    if not isinstance(buffer, DQNReplayBuffer):
        return state
    state["n_added"] = buffer.n_added
    state["open_steps"] = buffer.episodes.open_steps
    state["ended_episodes"] = deque(map(tuple, buffer.episodes.ended))
    if isinstance(buffer.observation_ring, FrameRing):
        state["stack_axes"] = buffer.observation_ring.axes
    else:
        state["final_observations"] = buffer.observation_ring.final_observations
    n_rows = buffer.size()
    if buffer.n_added:  # an episode can be truncated after its last row was stored
        state["timeouts"] = np.flatnonzero(buffer.timeouts[:n_rows])
    state["sampler"] = buffer.sampler.state_dict()
    if buffer.monte_carlo > 0:
        state["episode_returns"] = {"returns": buffer.returns[:n_rows], "ends": buffer.ends[:n_rows]}
    return state


def restore_replay_buffer(buffer: ReplayBuffer, state: State, parts: Iterable[tuple[int, dict[str, Array]]]) -> None:
    """
    Restore a replay buffer.

    :param buffer: a replay buffer that was made with the same arguments
    :param state: the result of :func:`replay_buffer_state`
    :param parts: results of :func:`read_rows`, the older ones first, and the number of the first row of each
    """
    _restore_state(buffer, state)
    for first, rows in parts:
        _restore_rows(buffer, first, rows)
    # what has changed in rows after they were stored; the first checkpoints of schema 1 have no timeouts
    if "timeouts" in state:
        buffer.timeouts.reshape(-1)[state["timeouts"]] = 1
    for key, observation in state.get("newest_next_observations", {}).items():
        arrays_by_key(buffer.observations)[key][buffer.pos] = observation


def _restore_state(buffer: ReplayBuffer, state: State) -> None:
    buffer.pos, buffer.full = state["pos"], state["full"]
    if not isinstance(buffer, DQNReplayBuffer):
        return
    buffer.n_added = state["n_added"]
    buffer.episodes.open_steps = state["open_steps"]
    buffer.episodes.ended = deque(EpisodeSpan(*episode) for episode in state["ended_episodes"])
    if isinstance(buffer.observation_ring, FrameRing):
        buffer.observation_ring.set_axes(state["stack_axes"])
    else:
        buffer.observation_ring.final_observations = state["final_observations"]
    buffer.sampler.load_state_dict(state["sampler"])
    if buffer.lambda_returns is not None:
        buffer.lambda_returns.invalidate()
    for name, values in state.get("episode_returns", {}).items():  # they change in rows that are stored already
        getattr(buffer, name)[: len(values)] = values


def _ring_rows(buffer: ReplayBuffer, first: int, end: int) -> npt.NDArray[np.int64]:
    return np.arange(first, end) % buffer.buffer_size


def _row_arrays(buffer: ReplayBuffer) -> dict[str, Array]:
    """Return the (rows, N, \\*shape) arrays by name; without stacks of frames, and without next
    observations if optimize_memory_usage is set."""
    names = [name for name in ROW_ARRAYS if not (buffer.optimize_memory_usage and name == "next_observations")]
    lambda_returns = getattr(buffer, "lambda_returns", None)
    values = {} if lambda_returns is None else {"next_values": lambda_returns.next_values}
    ring = _frame_ring(buffer)
    parts = {
        name: ring.plain_array(name) if ring and name.endswith("observations") else getattr(buffer, name) for name in names
    }
    arrays = ((name, key, array) for name in names for key, array in arrays_by_key(parts[name]).items())
    return {f"{name}/{key}" if key else name: array for name, key, array in arrays} | values


def _frame_ring(buffer: ReplayBuffer) -> FrameRing | None:
    ring = buffer.observation_ring if isinstance(buffer, DQNReplayBuffer) else None
    return ring if isinstance(ring, FrameRing) else None


def _stacks(buffer: ReplayBuffer) -> dict[str, StackedFrames]:
    """Return the parts of the observations that are stored as frames."""
    ring = _frame_ring(buffer)
    return {} if ring is None else ring.stacks
