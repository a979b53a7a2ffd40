"""
A replay memory as plain data: the rows, which never change once they are written, but for ``timeouts``, and all that is made
of them.

Shapes: R rows, N environments.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.index_set import CellSet
from sb3_dqn_ext.replay.prioritized import Prioritized, PriorityTree
from sb3_dqn_ext.replay.samplers import Rows, Sampler, Uniform

__all__ = ["check_memory", "memory_state", "restore_memory", "restore_rows", "restore_timeouts", "stored_rows", "take_rows"]

Array = npt.NDArray[Any]
State = dict[str, Any]

OF_SB3 = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)
ROWS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
# written when an episode ends, into rows that were stored before
OF_EPISODES = ("returns", "ends")
COUNTERS = ("pos", "full", "n_added", "_open_steps", "_ended", "_last_observations")


def check_memory(memory: ReplayBuffer) -> None:
    """
    :param memory: a replay memory
    :raises ArgumentError: if its class may remember more than those that are known here
    """
    if not isinstance(memory, DQNReplayBuffer) and type(memory) not in OF_SB3:
        raise ArgumentError(
            f"replay_buffer_class={type(memory).__name__} cannot be part of a checkpoint, which knows DQNReplayBuffer and "
            f"{', '.join(known.__name__ for known in OF_SB3)}."
        )


def stored_rows(memory: ReplayBuffer) -> tuple[int, int]:
    """
    :param memory: a replay memory
    :return: the first and the end of the rows that it holds, counted since it was made
    """
    held = memory.buffer_size if memory.full else memory.pos
    end = memory.n_added if isinstance(memory, DQNReplayBuffer) else held
    return end - held, end


def take_rows(memory: ReplayBuffer, first: int, end: int) -> dict[str, Array]:
    """
    :param memory: a replay memory
    :param first: a row, counted since it was made
    :param end: the row behind the last
    :return: (R, N, \\*shape) arrays by their names
    """
    places = _places(memory, first, end)
    return {name: array[places] for name, array in _arrays(memory).items()}


def restore_rows(memory: ReplayBuffer, first: int, rows: dict[str, Array]) -> None:
    """
    :param memory: a replay memory, made as the other was, whose state is restored already
    :param first: the first of the rows, counted since the other was made
    :param rows: what :func:`take_rows` gave; those that it no longer holds are left out
    """
    arrays = _arrays(memory)
    kept_from = stored_rows(memory)[0]
    for name, of_rows in rows.items():
        kept = of_rows[max(kept_from - first, 0) :]
        arrays[name][_places(memory, first + len(of_rows) - len(kept), first + len(of_rows))] = kept


def memory_state(memory: ReplayBuffer) -> State:
    """
    :param memory: a replay memory
    :return: all of it but the rows
    """
    state: State = {name: getattr(memory, name) for name in COUNTERS if hasattr(memory, name)}
    if isinstance(memory, DQNReplayBuffer):
        held = memory.buffer_size if memory.full else memory.pos
        if memory.n_added:  # an episode may be truncated when its last row lies on the disk already
            state["timeouts"] = np.flatnonzero(memory.timeouts[:held])
        state["sampler"] = _sampler_state(memory.sampler, held * memory.n_envs)
        if memory.monte_carlo > 0:
            state["of_episodes"] = {name: getattr(memory, name)[:held] for name in OF_EPISODES}
        if memory.optimize_memory_usage and memory.n_added:
            # the next observations of the newest row, where those of the next one will be
            state["newest"] = {key: array[memory.pos] for key, array in _named(memory.observations).items()}
    return state


def restore_memory(memory: ReplayBuffer, state: State) -> None:
    """
    :param memory: a replay memory, made as the other was
    :param state: what :func:`memory_state` gave
    """
    for name in COUNTERS:
        if name in state:
            setattr(memory, name, state[name])
    if not isinstance(memory, DQNReplayBuffer):
        return
    _restore_sampler(memory.sampler, state["sampler"])
    for name, of_episodes in state.get("of_episodes", {}).items():
        getattr(memory, name)[: len(of_episodes)] = of_episodes
    for key, newest in state.get("newest", {}).items():
        _named(memory.observations)[key][memory.pos] = newest


def restore_timeouts(memory: ReplayBuffer, state: State) -> None:
    """
    :param memory: a replay memory, whose rows and state are restored already
    :param state: what :func:`memory_state` gave; in older checkpoints there are no timeouts beside those of the rows
    """
    if "timeouts" in state:
        memory.timeouts.reshape(-1)[state["timeouts"]] = 1


def _places(memory: ReplayBuffer, first: int, end: int) -> npt.NDArray[np.int64]:
    return np.arange(first, end) % memory.buffer_size


def _named(stored: Any) -> dict[str, Array]:
    """Observations by their keys, "" where they are one array."""
    return stored if isinstance(stored, dict) else {"": stored}


def _arrays(memory: ReplayBuffer) -> dict[str, Array]:
    """(rows, N, \\*shape) arrays by their names; with optimize_memory_usage there are no next observations."""
    names = [name for name in ROWS if not (memory.optimize_memory_usage and name == "next_observations")]
    return {f"{name}/{key}" if key else name: array for name in names for key, array in _named(getattr(memory, name)).items()}


def _sampler_state(sampler: Sampler, n_cells: int) -> State:
    """:param n_cells: from there on, no cell has ever been written"""
    if isinstance(sampler, Uniform):
        members = None if sampler._members is None else sampler._members.array.copy()
        return {"members": members, "terminal": sampler._terminal.array.copy()}
    if isinstance(sampler, Rows):
        return {
            "rows": _sampler_state(sampler._rows, n_cells),
            "present": sampler._present,
            "terminal": sampler._terminal,
            "n_whole": sampler._n_whole,
            "n_terminal": sampler._n_terminal,
        }
    assert isinstance(sampler, Prioritized)
    tree = sampler._tree
    copies = None if tree._copies is None else tree._copies.reshape(-1)[:n_cells].copy()
    return {"highest": sampler._highest, "priorities": tree._priorities.reshape(-1)[:n_cells].copy(), "copies": copies}


def _restore_sampler(sampler: Sampler, state: State) -> None:
    if isinstance(sampler, Uniform):
        if sampler._members is not None:
            _restore_set(sampler._members, state["members"])
        _restore_set(sampler._terminal, state["terminal"])
    elif isinstance(sampler, Rows):
        _restore_sampler(sampler._rows, state["rows"])
        sampler._present[:], sampler._terminal[:] = state["present"], state["terminal"]
        sampler._n_whole, sampler._n_terminal = state["n_whole"], state["n_terminal"]
    else:
        assert isinstance(sampler, Prioritized)
        sampler._highest = state["highest"]
        sampler._tree = PriorityTree(sampler.n_cells)
        cells = np.arange(len(state["priorities"]))
        sampler._tree[cells] = state["priorities"]
        if state["copies"] is not None:
            sampler._tree.set_copies(cells, state["copies"])


def _restore_set(cells: CellSet, members: Array) -> None:
    """In the same order, by which members are drawn."""
    cells.discard(cells.array.copy())
    cells.add(members)
