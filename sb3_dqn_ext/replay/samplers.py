"""The samplers by name, and the samplers that draw with equal probabilities."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import OpenChoice, check_type, is_dotted
from sb3_dqn_ext.errors import ArgumentError, EmptyReplayError
from sb3_dqn_ext.replay.index_set import IndexSet, Indices
from sb3_dqn_ext.replay.prioritized import Prioritized
from sb3_dqn_ext.replay.sampler_base import Bools, Sampler, Weights

__all__ = ["SAMPLER", "SAMPLERS", "Uniform", "VectorSteps", "make_sampler"]


def draw_distinct(n: int, size: int) -> npt.NDArray[np.int64]:
    """Draw (size,) distinct whole numbers below n. Every such set has the same probability."""
    if size > n // 2:
        return np.random.permutation(n)[:size]
    drawn = np.unique(np.random.randint(0, n, size=size))
    while len(drawn) < size:
        drawn = np.union1d(drawn, np.random.randint(0, n, size=size - len(drawn)))
    return drawn


class Uniform(Sampler):
    """
    A sampler that draws every transition with the same probability.

    It draws from a list of all transitions in which each terminal transition appears ``terminal_copies`` times.

    :param n_rows: the number of rows
    :param n_envs: the number of transitions in a row
    :param terminal_copies: the number of times that a terminal transition counts
    :param only_added: whether only transitions that were added and not removed can be replayed; otherwise, all stored ones
    :param replace: whether a batch is drawn with replacement; if not, it contains each item of the list at most once
    """

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int, only_added: bool, replace: bool = True) -> None:
        check_type("replace", replace, bool, "True or False")
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.replace = replace
        self.order_is_random = replace
        self.tracks_indices = only_added or terminal_copies > 1
        self._members = IndexSet(n_rows * n_envs) if only_added else None
        self._terminal = IndexSet(n_rows * n_envs)

    def check_epochs(self, n_epochs: int) -> None:
        if not self.replace:
            raise ArgumentError("sampler_kwargs['replace'] has no effect beside n_epochs; leave one out.")

    def add(self, indices: Indices, terminal: Bools) -> None:
        if self._members is not None:
            self._members.add(indices)
        if self.terminal_copies > 1:
            self._terminal.discard(indices)
            self._terminal.add(indices[terminal])

    def remove(self, indices: Indices) -> None:
        if self._members is not None:
            self._members.discard(indices)
        self._terminal.discard(indices)

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, None]:
        if self._members is None and self.replace and len(self._terminal) == 0:
            # the same calls as in SB3, first for rows and then for environments, so that the random stream is the same
            rows = np.random.randint(first_row, first_row + n_rows, size=batch_size)
            if first_row + n_rows > self.n_rows:
                rows %= self.n_rows
            if self.n_envs == 1:  # drawing numbers below 1 does not advance the stream
                return rows, None
            return rows * self.n_envs + np.random.randint(0, self.n_envs, size=batch_size), None
        positions = self._draw_positions(self._list_length(n_rows), batch_size)  # (B,)
        return self._indices_at(positions, first_row, n_rows), None

    def epoch(self, first_row: int, n_rows: int) -> Indices:
        return self._indices_at(np.arange(self._list_length(n_rows)), first_row, n_rows)

    def replayable(self) -> Indices | None:
        return None if self._members is None else self._members.array

    def state_dict(self) -> dict[str, Any]:
        members = None if self._members is None else self._members.array.copy()
        return {"members": members, "terminal": self._terminal.array.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # the order of the members is restored, too: random positions in it are drawn
        size = self.n_rows * self.n_envs
        if self._members is not None:
            self._members = IndexSet(size, state["members"])
        self._terminal = IndexSet(size, state["terminal"])

    def _list_length(self, n_rows: int) -> int:
        """Return the length of the list of all indices, followed by the further copies of terminal ones."""
        n_indices = n_rows * self.n_envs if self._members is None else len(self._members)
        return n_indices + (self.terminal_copies - 1) * len(self._terminal)

    def _indices_at(self, positions: npt.NDArray[np.int64], first_row: int, n_rows: int) -> Indices:
        """Return the (B,) indices at (B,) positions in that list."""
        terminal = self._terminal.array
        n_indices = self._list_length(n_rows) - (self.terminal_copies - 1) * len(terminal)
        if self._members is None:
            indices = (first_row * self.n_envs + positions) % (self.n_rows * self.n_envs)  # (B,)
        else:
            indices = self._members.array[positions % n_indices]  # (B,)
        if len(terminal):
            indices = np.where(positions < n_indices, indices, terminal[(positions - n_indices) % len(terminal)])  # (B,)
        return indices

    def _draw_positions(self, n: int, batch_size: int) -> npt.NDArray[np.int64]:
        """
        Draw positions in a list uniformly, with replacement if ``self.replace``. NumPy's global random generator is used.

        :param n: the length of the list
        :param batch_size: the number B of positions
        :return: (B,) whole numbers below n
        :raises EmptyReplayError: if the list is empty
        :raises ArgumentError: without replacement, if B is greater than n
        """
        if n == 0:
            raise EmptyReplayError
        if self.replace:
            return np.random.randint(0, n, size=batch_size)
        if batch_size > n:
            raise ArgumentError(
                f"{batch_size} of {n} cannot be drawn with sampler_kwargs['replace']=False: learning_starts is too small."
            )
        return draw_distinct(n, batch_size)


class VectorSteps(Sampler):
    """
    A sampler that draws vector steps: whole time steps with the transitions of all environments.

    Every time step has the same probability, and a batch has ``batch_size / n_envs`` of them. A copy of one transition would
    also copy the transitions of the other environments. So terminal transitions are not copied but weighted: with c =
    ``terminal_copies``, a terminal transition has the weight c / m and any other one 1 / m, where m is the mean of c and 1
    over all transitions that can be replayed.

    :param n_rows: the number of rows, one for each time step
    :param n_envs: the number of transitions in a row
    :param terminal_copies: the weight of a terminal transition, relative to other transitions
    :param only_added: whether only rows can be replayed that were added and not removed in all environments
    :param replace: whether a batch can contain the same row twice
    """

    draws_whole_rows = True

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int, only_added: bool, replace: bool = True) -> None:
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.tracks_indices = only_added or terminal_copies > 1
        self._rows = Uniform(n_rows, 1, 1, only_added, replace)
        shape = (n_rows if self.tracks_indices else 0, n_envs)
        self._present = np.zeros(shape, dtype=np.bool_)  # (rows, n_envs)
        self._terminal = np.zeros(shape, dtype=np.bool_)  # (rows, n_envs)
        self._n_complete = 0  # number of rows that are present in all environments ...
        self._n_terminal = 0  # ... and the terminal transitions in them

    def check(self, batch_size: int) -> None:
        if batch_size % self.n_envs:
            raise ArgumentError(
                f"batch_size={batch_size} must be a multiple of n_envs={self.n_envs} with sampler='vector_steps', "
                "which draws time steps of all environments."
            )

    def add(self, indices: Indices, terminal: Bools) -> None:
        self._update(indices, True, terminal)

    def remove(self, indices: Indices) -> None:
        self._update(indices, False, np.zeros(len(indices), dtype=np.bool_))

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, Weights | None]:
        self.check(batch_size)
        rows, _ = self._rows.sample(first_row, n_rows, batch_size // self.n_envs)  # (B / n_envs,)
        indices = self._indices_of(rows)  # (B,)
        if self.terminal_copies == 1:
            return indices, None
        mean = 1 + (self.terminal_copies - 1) * self._n_terminal / (self._n_complete * self.n_envs)
        copies = np.where(self._terminal.reshape(-1)[indices], self.terminal_copies, 1)  # (B,)
        return indices, (copies / mean).astype(np.float32)

    def replayable(self) -> Indices | None:
        rows = self._rows.replayable()
        return None if rows is None else self._indices_of(rows)

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self._rows.state_dict(),
            "present": self._present,
            "terminal": self._terminal,
            "n_whole": self._n_complete,
            "n_terminal": self._n_terminal,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.load_state_dict(state["rows"])
        self._present[:], self._terminal[:] = state["present"], state["terminal"]
        self._n_complete, self._n_terminal = state["n_whole"], state["n_terminal"]

    def _indices_of(self, rows: npt.NDArray[np.int64]) -> Indices:
        """Return the (n * n_envs,) indices of the transitions in (n,) rows."""
        return (rows[:, None] * self.n_envs + np.arange(self.n_envs)).reshape(-1)

    def _update(self, indices: Indices, present: bool, terminal: Bools) -> None:
        if not self.tracks_indices:
            return
        rows = np.unique(indices // self.n_envs)
        before = self._present[rows].all(axis=1)  # (rows,)
        self._n_terminal -= int(self._terminal[rows[before]].sum())
        self._present.reshape(-1)[indices] = present
        self._terminal.reshape(-1)[indices] = terminal
        after = self._present[rows].all(axis=1)  # (rows,)
        self._n_terminal += int(self._terminal[rows[after]].sum())
        self._n_complete += int(after.sum()) - int(before.sum())
        self._rows.remove(rows[before & ~after])
        complete = rows[after & ~before]
        self._rows.add(complete, np.zeros(len(complete), dtype=np.bool_))


SAMPLERS: dict[str, type[Sampler]] = {"uniform": Uniform, "prioritized": Prioritized, "vector_steps": VectorSteps}
_SYNONYMS = {
    "per": "prioritized",
    "prioritised": "prioritized",
    "priority": "prioritized",
    "proportional": "prioritized",
    "random": "uniform",
    "rows": "vector_steps",
}


SAMPLER = OpenChoice("sampler", Sampler, ("sample",), SAMPLERS, _SYNONYMS)


def make_sampler(
    choice: object, kwargs: Mapping[str, Any], n_rows: int, n_envs: int, terminal_copies: int, only_added: bool
) -> Sampler:
    """
    Make the sampler of a replay buffer. A sampler that is given as an object, or by the dotted name of an object, is copied.

    :param choice: the name of a sampler, a subclass of Sampler, an object, or the dotted name of a class or an object
    :param kwargs: the arguments that only this sampler has; an object takes none
    :param n_rows: the number of rows of the replay buffer
    :param n_envs: the number of transitions in a row
    :param terminal_copies: the number of times that a terminal transition counts
    :param only_added: True: the sampler draws only transitions that were added to it and not removed; False: it draws all
        stored transitions
    :return: the sampler
    :raises ArgumentError: if no sampler has this name, the arguments do not fit its constructor, or an object lacks a method
        or was made with other values of the last four arguments
    """
    given = {"n_rows": n_rows, "n_envs": n_envs, "terminal_copies": terminal_copies, "only_added": only_added}
    sampler = SAMPLER.build(choice, kwargs, given)
    differ = [name for name, value in given.items() if getattr(sampler, name, value) != value]
    if differ:
        has = ", ".join(f"{name}={getattr(sampler, name)!r}" for name in differ)
        needs = ", ".join(f"{name}={given[name]!r}" for name in differ)
        raise ArgumentError(f"sampler={choice!r} has {has}, and the replay buffer needs {needs}: give the class instead.")
    return copy.deepcopy(sampler) if sampler is choice or is_dotted(choice) else sampler
