"""Samplers by their names, and those that draw with equal probabilities."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import build, check_type
from sb3_dqn_ext.errors import ArgumentError, EmptyReplayError
from sb3_dqn_ext.replay.index_set import IndexSet, Indices
from sb3_dqn_ext.replay.prioritized import Prioritized
from sb3_dqn_ext.replay.sampler_base import Bools, Sampler, Weights

__all__ = ["SAMPLERS", "Uniform", "VectorSteps", "make_sampler"]


def draw_distinct(n: int, size: int) -> npt.NDArray[np.int64]:
    """Draw (size,) different whole numbers below n, each such set with the same probability."""
    if size > n // 2:
        return np.random.permutation(n)[:size]
    found = np.unique(np.random.randint(0, n, size=size))
    while len(found) < size:
        found = np.union1d(found, np.random.randint(0, n, size=size - len(found)))
    return found


class Uniform(Sampler):
    """
    Every transition with the same probability; those that ended an episode as if they were stored several times.

    :param n_rows: number of rows
    :param n_envs: number of transitions in a row
    :param terminal_copies: how often a transition that ended an episode counts
    :param only_added: whether only those stored transitions can be replayed that were added and not removed
    :param replace: whether a batch can hold the same transition twice; if not, no copy of one is in it more than once
    """

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int, only_added: bool, replace: bool = True) -> None:
        check_type("replace", replace, bool, "True or False")
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.replace = replace
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
            # SB3 draws rows, then environments: the same calls keep its random stream
            rows = (first_row + np.random.randint(0, n_rows, size=batch_size)) % self.n_rows
            if self.n_envs == 1:  # a number below 1 takes nothing from the stream
                return rows, None
            return rows * self.n_envs + np.random.randint(0, self.n_envs, size=batch_size), None
        places = self._places(self._length(n_rows), batch_size)  # (B,)
        return self._listed(places, first_row, n_rows), None

    def epoch(self, first_row: int, n_rows: int) -> Indices:
        return self._listed(np.arange(self._length(n_rows)), first_row, n_rows)

    def replayable(self) -> Indices | None:
        return None if self._members is None else self._members.array

    def state_dict(self) -> dict[str, Any]:
        members = None if self._members is None else self._members.array.copy()
        return {"members": members, "terminal": self._terminal.array.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # in the same order, by which members are drawn
        size = self.n_rows * self.n_envs
        if self._members is not None:
            self._members = IndexSet(size, state["members"])
        self._terminal = IndexSet(size, state["terminal"])

    def _length(self, n_rows: int) -> int:
        """Return the length of a list of all indices that is followed by the further copies of the terminal ones."""
        n_indices = n_rows * self.n_envs if self._members is None else len(self._members)
        return n_indices + (self.terminal_copies - 1) * len(self._terminal)

    def _listed(self, places: npt.NDArray[np.int64], first_row: int, n_rows: int) -> Indices:
        """(B,) places in that list -> (B,) indices"""
        terminal = self._terminal.array
        n_indices = self._length(n_rows) - (self.terminal_copies - 1) * len(terminal)
        if self._members is None:
            indices = (first_row * self.n_envs + places) % (self.n_rows * self.n_envs)  # (B,)
        else:
            indices = self._members.array[places % n_indices]  # (B,)
        if len(terminal):
            indices = np.where(places < n_indices, indices, terminal[(places - n_indices) % len(terminal)])  # (B,)
        return indices

    def _places(self, n: int, batch_size: int) -> npt.NDArray[np.int64]:
        """(B,) places in a list of n"""
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
    One time step with all its environments, for each ``n_envs`` transitions of the batch, every time step with the same
    probability. Copies of a transition would be copies of its neighbours, too: a terminal one is weighted instead.

    :param n_rows: number of rows
    :param n_envs: number of transitions in a row
    :param terminal_copies: how much more a transition weighs that ended an episode; the weights have a mean of 1
    :param only_added: whether only those rows can be replayed that were added and not removed in all environments
    :param replace: whether a batch can hold the same row twice
    """

    draws_whole_rows = True

    def __init__(self, n_rows: int, n_envs: int, terminal_copies: int, only_added: bool, replace: bool = True) -> None:
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.tracks_indices = only_added or terminal_copies > 1
        self._rows = Uniform(n_rows, 1, 1, only_added, replace)
        shape = (n_rows if self.tracks_indices else 0, n_envs)
        self._present = np.zeros(shape, dtype=np.bool_)  # (rows, n_envs)
        self._terminal = np.zeros(shape, dtype=np.bool_)  # (rows, n_envs)
        self._n_whole = 0  # rows that are present in all environments ...
        self._n_terminal = 0  # ... and the terminal transitions in them

    def check(self, batch_size: int) -> None:
        if batch_size % self.n_envs:
            raise ArgumentError(
                f"batch_size={batch_size} must be a multiple of n_envs={self.n_envs} with sampler='rows', "
                "which draws whole rows of environments."
            )

    def add(self, indices: Indices, terminal: Bools) -> None:
        self._write(indices, True, terminal)

    def remove(self, indices: Indices) -> None:
        self._write(indices, False, np.zeros(len(indices), dtype=np.bool_))

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, Weights | None]:
        self.check(batch_size)
        rows, _ = self._rows.sample(first_row, n_rows, batch_size // self.n_envs)  # (B / n_envs,)
        indices = self._indices_of(rows)  # (B,)
        if self.terminal_copies == 1:
            return indices, None
        mean = 1 + (self.terminal_copies - 1) * self._n_terminal / (self._n_whole * self.n_envs)
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
            "n_whole": self._n_whole,
            "n_terminal": self._n_terminal,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._rows.load_state_dict(state["rows"])
        self._present[:], self._terminal[:] = state["present"], state["terminal"]
        self._n_whole, self._n_terminal = state["n_whole"], state["n_terminal"]

    def _indices_of(self, rows: npt.NDArray[np.int64]) -> Indices:
        """(n,) rows -> (n * n_envs,) the indices in them"""
        return (rows[:, None] * self.n_envs + np.arange(self.n_envs)).reshape(-1)

    def _write(self, indices: Indices, present: bool, terminal: Bools) -> None:
        if not self.tracks_indices:
            return
        rows = np.unique(indices // self.n_envs)
        before = self._present[rows].all(axis=1)  # (rows,)
        self._n_terminal -= int(self._terminal[rows[before]].sum())
        self._present.reshape(-1)[indices] = present
        self._terminal.reshape(-1)[indices] = terminal
        after = self._present[rows].all(axis=1)  # (rows,)
        self._n_terminal += int(self._terminal[rows[after]].sum())
        self._n_whole += int(after.sum()) - int(before.sum())
        self._rows.remove(rows[before & ~after])
        whole = rows[after & ~before]
        self._rows.add(whole, np.zeros(len(whole), dtype=np.bool_))


SAMPLERS: dict[str, type[Sampler]] = {"uniform": Uniform, "prioritized": Prioritized, "rows": VectorSteps}
_SYNONYMS = {
    "per": "prioritized",
    "prioritised": "prioritized",
    "priority": "prioritized",
    "proportional": "prioritized",
    "random": "uniform",
}


def make_sampler(
    choice: str | type[Sampler], kwargs: Mapping[str, Any], n_rows: int, n_envs: int, terminal_copies: int, only_added: bool
) -> Sampler:
    """
    Make a sampler.

    :param choice: its name, or a subclass of Sampler
    :param kwargs: its own arguments
    :param n_rows: see :class:`Sampler`, as the following ones
    :raises ArgumentError: if there is no such sampler, or it has no such argument
    """
    is_class = isinstance(choice, type) and issubclass(choice, Sampler)
    options = {choice: cast(type[Sampler], choice)} if is_class else SAMPLERS
    factories: Any = {name: partial(kind, n_rows, n_envs, terminal_copies, only_added) for name, kind in options.items()}
    sampler: Sampler = build("sampler", cast(str, choice), factories, kwargs, _SYNONYMS)
    return sampler
