"""
A replay buffer as plain data: the rows, which never change once they are written, but for ``timeouts``, and all that is made
of them.

Shapes: R rows, N environments.
"""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.episodes import EpisodeSpan
from sb3_dqn_ext.replay.observations import arrays_by_key

__all__ = [
    "check_replay_buffer",
    "read_rows",
    "replay_buffer_state",
    "restore_replay_buffer",
    "restore_rows",
    "restore_timeouts",
    "stored_row_range",
]

Array = npt.NDArray[Any]
State = dict[str, Any]

SB3_BUFFERS = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)
ROW_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def check_replay_buffer(memory: ReplayBuffer) -> None:
    """
    :param memory: a replay buffer
    :raises ArgumentError: if its class may have a state beside that of the classes that are known here
    """
    if not isinstance(memory, DQNReplayBuffer) and type(memory) not in SB3_BUFFERS:
        raise ArgumentError(
            f"replay_buffer_class={type(memory).__name__} cannot be part of a checkpoint, which knows DQNReplayBuffer and "
            f"{', '.join(known.__name__ for known in SB3_BUFFERS)}."
        )


def stored_row_range(memory: ReplayBuffer) -> tuple[int, int]:
    """
    :param memory: a replay buffer
    :return: the first and the end of the rows that it holds, counted since it was made
    """
    end = memory.n_added if isinstance(memory, DQNReplayBuffer) else memory.size()
    return end - memory.size(), end


def read_rows(memory: ReplayBuffer, first: int, end: int) -> dict[str, Array]:
    """
    :param memory: a replay buffer
    :param first: a row, counted since it was made
    :param end: the row behind the last
    :return: (R, N, \\*shape) arrays by their names
    """
    places = _places(memory, first, end)
    return {name: array[places] for name, array in _arrays(memory).items()}


def restore_rows(memory: ReplayBuffer, first: int, rows: dict[str, Array]) -> None:
    """
    :param memory: a replay buffer, made as the other was, whose state is restored already
    :param first: the first of the rows, counted since the other was made
    :param rows: what :func:`read_rows` returned; those that the buffer no longer holds are left out
    """
    arrays = _arrays(memory)
    kept_from = stored_row_range(memory)[0]
    for name, of_rows in rows.items():
        kept = of_rows[max(kept_from - first, 0) :]
        arrays[name][_places(memory, first + len(of_rows) - len(kept), first + len(of_rows))] = kept


def replay_buffer_state(memory: ReplayBuffer) -> State:
    """
    :param memory: a replay buffer
    :return: all of it but the rows
    """
    state: State = {"pos": memory.pos, "full": memory.full}
    if not isinstance(memory, DQNReplayBuffer):
        return state
    state["n_added"] = memory.n_added
    state["_open_steps"] = memory.episodes.open_steps
    state["_ended"] = deque(map(tuple, memory.episodes.ended))
    state["_last_observations"] = memory.observation_ring.final_observations
    held = memory.size()
    if memory.n_added:  # an episode may be truncated when its last row is on the disk already
        state["timeouts"] = np.flatnonzero(memory.timeouts[:held])
    state["sampler"] = memory.sampler.state_dict()
    if memory.monte_carlo > 0:
        state["of_episodes"] = {"returns": memory.returns[:held], "ends": memory.ends[:held]}
    if memory.optimize_memory_usage and memory.n_added:
        # the next observations of the newest row, where those of the next one will be
        state["newest"] = {key: array[memory.pos] for key, array in arrays_by_key(memory.observations).items()}
    return state


def restore_replay_buffer(memory: ReplayBuffer, state: State) -> None:
    """
    :param memory: a replay buffer, made as the other was
    :param state: what :func:`memory_state` returned
    """
    memory.pos, memory.full = state["pos"], state["full"]
    if not isinstance(memory, DQNReplayBuffer):
        return
    memory.n_added = state["n_added"]
    memory.episodes.open_steps = state["_open_steps"]
    memory.episodes.ended = deque(EpisodeSpan(*episode) for episode in state["_ended"])
    memory.observation_ring.final_observations = state["_last_observations"]
    memory.sampler.load_state_dict(state["sampler"])
    for name, of_episodes in state.get("of_episodes", {}).items():  # written into rows that were stored before
        getattr(memory, name)[: len(of_episodes)] = of_episodes
    for key, newest in state.get("newest", {}).items():
        arrays_by_key(memory.observations)[key][memory.pos] = newest


def restore_timeouts(memory: ReplayBuffer, state: State) -> None:
    """
    :param memory: a replay buffer, whose rows and state are restored already
    :param state: what :func:`memory_state` returned; in older checkpoints there are no timeouts beside those of the rows
    """
    if "timeouts" in state:
        memory.timeouts.reshape(-1)[state["timeouts"]] = 1


def _places(memory: ReplayBuffer, first: int, end: int) -> npt.NDArray[np.int64]:
    return np.arange(first, end) % memory.buffer_size


def _arrays(memory: ReplayBuffer) -> dict[str, Array]:
    """(rows, N, \\*shape) arrays by their names; with optimize_memory_usage there are no next observations."""
    names = [name for name in ROW_ARRAYS if not (memory.optimize_memory_usage and name == "next_observations")]
    return {
        f"{name}/{key}" if key else name: array
        for name in names
        for key, array in arrays_by_key(getattr(memory, name)).items()
    }
