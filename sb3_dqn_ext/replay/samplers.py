"""
Samplers: which stored transitions are replayed.

A *cell* is one stored transition: ``row * n_envs + env``.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import check_type
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.index_set import Cells, CellSet, nothing_to_replay
from sb3_dqn_ext.replay.prioritized import Prioritized

__all__ = ["SAMPLERS", "SYNONYMS", "Prioritized", "Rows", "Sampler", "Uniform"]

Bools = npt.NDArray[np.bool_]
Weights = npt.NDArray[np.float32]


class Sampler(Protocol):
    """
    Knows which cells there are by being told, and draws some of them.

    It is built from the number of rows, the number of environments, ``terminal_copies``, and whether there are *gaps*: stored
    rows that cannot be replayed, as they were not added yet, or were removed.
    """

    @property
    def wants_errors(self) -> bool:
        """Whether :meth:`update` has to be called."""

    @property
    def told(self) -> bool:
        """Whether :meth:`added` and :meth:`removed` have to be called."""

    @property
    def weighted(self) -> bool:
        """Whether the weights matter; a learner that ignores them would learn something else."""

    def added(self, cells: Cells, terminal: Bools) -> None:
        """
        :param cells: (n,) the cells just written, over older ones perhaps
        :param terminal: (n,) which of them ended an episode by their own step
        """
        ...

    def removed(self, cells: Cells) -> None:
        """
        :param cells: cells that can no longer be replayed
        """
        ...

    def check(self, batch_size: int) -> None:
        """
        :param batch_size: B
        :raises ArgumentError: if no batch of this size can be drawn
        """
        ...

    def draw(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Cells, Weights]:
        """
        :param first_row: the first row of the ring that can be replayed
        :param n_rows: how many rows from there on can be
        :param batch_size: B
        :param progress: how much of the run is over, from 0 to 1
        :return: (B,) cells, (B,) importance weights
        """
        ...

    def update(self, cells: Cells, errors: npt.NDArray[Any]) -> None:
        """
        :param cells: (B,) the cells of a batch
        :param errors: (B,) how wrong the prediction of each was, see
            :meth:`~sb3_dqn_ext.algorithm.value_models.ReturnModel.td_errors`
        """
        ...


def distinct(n: int, size: int) -> npt.NDArray[np.int64]:
    """
    (size,) different whole numbers below n, each such set with the same probability.
    """
    if size > n // 2:
        return np.random.permutation(n)[:size]
    found = np.unique(np.random.randint(0, n, size=size))
    while len(found) < size:
        found = np.union1d(found, np.random.randint(0, n, size=size - len(found)))
    return found


class Uniform:
    """
    Every cell with the same probability; those that ended an episode as if they were stored several times.

    :param buffer_size: number of rows
    :param n_envs: number of cells in a row
    :param terminal_copies: how often a cell that ended an episode stands in the memory
    :param gaps: whether only those stored cells can be replayed that were added and not removed
    :param replace: whether a batch can hold the same cell twice; if not, no copy of one is in it more than once
    """

    wants_errors = False
    weighted = False

    def __init__(self, buffer_size: int, n_envs: int, terminal_copies: int, gaps: bool, replace: bool = True) -> None:
        check_type("replace", replace, bool, "True or False")
        self.buffer_size = buffer_size
        self.n_envs = n_envs
        self.terminal_copies = terminal_copies
        self.replace = replace
        self._members = CellSet(buffer_size * n_envs) if gaps else None
        self._terminal = CellSet(buffer_size * n_envs)
        self.told = gaps or terminal_copies > 1

    def added(self, cells: Cells, terminal: Bools) -> None:
        if self._members is not None:
            self._members.add(cells)
        if self.terminal_copies > 1:
            self._terminal.discard(cells)
            self._terminal.add(cells[terminal])

    def removed(self, cells: Cells) -> None:
        if self._members is not None:
            self._members.discard(cells)
        self._terminal.discard(cells)

    def check(self, batch_size: int) -> None:
        pass

    def draw(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Cells, Weights]:
        weights = np.ones(batch_size, dtype=np.float32)
        if self._members is None and self.replace and len(self._terminal) == 0:
            # SB3 draws rows, then environments: the same calls keep its random stream
            rows = (first_row + np.random.randint(0, n_rows, size=batch_size)) % self.buffer_size
            if self.n_envs == 1:  # a number below 1 takes nothing from the stream
                return rows, weights
            return rows * self.n_envs + np.random.randint(0, self.n_envs, size=batch_size), weights
        index = self._places(self._length(n_rows), batch_size)  # (B,)
        return self._listed(index, first_row, n_rows), weights

    def every(self, first_row: int, n_rows: int) -> Cells:
        """
        :param first_row: the first row of the ring that can be replayed
        :param n_rows: how many rows from there on can be
        :return: all cells, and as often as there are copies of each
        """
        return self._listed(np.arange(self._length(n_rows)), first_row, n_rows)

    def _length(self, n_rows: int) -> int:
        """How long a list of all cells is that is followed by the further copies of the terminal ones."""
        n_cells = n_rows * self.n_envs if self._members is None else len(self._members)
        return n_cells + (self.terminal_copies - 1) * len(self._terminal)

    def _listed(self, index: npt.NDArray[np.int64], first_row: int, n_rows: int) -> Cells:
        """(B,) places in that list -> (B,) cells"""
        terminal = self._terminal.array
        n_cells = self._length(n_rows) - (self.terminal_copies - 1) * len(terminal)
        if self._members is None:
            cells = (first_row * self.n_envs + index) % (self.buffer_size * self.n_envs)  # (B,)
        else:
            cells = self._members.array[index % n_cells]  # (B,)
        if len(terminal):
            cells = np.where(index < n_cells, cells, terminal[(index - n_cells) % len(terminal)])  # (B,)
        return cells

    def _places(self, n: int, batch_size: int) -> npt.NDArray[np.int64]:
        """(B,) places in a list of n"""
        if n == 0:
            raise nothing_to_replay()
        if self.replace:
            return np.random.randint(0, n, size=batch_size)
        if batch_size > n:
            raise ArgumentError(
                f"{batch_size} of {n} cannot be drawn with sampler_kwargs['replace']=False: learning_starts is too small."
            )
        return distinct(n, batch_size)

    def update(self, cells: Cells, errors: npt.NDArray[Any]) -> None:
        pass


class Rows:
    """
    One stored moment with all its environments, for each ``n_envs`` transitions of the batch, every moment with the same
    probability. Copies of a cell would be copies of its neighbours, too: a terminal cell is weighted instead.

    :param buffer_size: number of rows
    :param n_envs: number of cells in a row
    :param terminal_copies: how much more a cell weighs that ended an episode; the weights have a mean of 1
    :param gaps: whether only those rows can be replayed that were added and not removed in all environments
    :param replace: whether a batch can hold the same row twice
    """

    wants_errors = False

    def __init__(self, buffer_size: int, n_envs: int, terminal_copies: int, gaps: bool, replace: bool = True) -> None:
        self.n_envs = n_envs
        self.terminal_copies = terminal_copies
        self.weighted = terminal_copies > 1
        self._rows = Uniform(buffer_size, 1, 1, gaps, replace)
        self.told = gaps or self.weighted
        shape = (buffer_size, n_envs) if self.told else (0, n_envs)
        self._present = np.zeros(shape, dtype=np.bool_)  # (rows, n_envs)
        self._terminal = np.zeros(shape, dtype=np.bool_)  # (rows, n_envs)
        self._n_whole = 0  # rows that are present in all environments ...
        self._n_terminal = 0  # ... and the terminal cells in them

    def added(self, cells: Cells, terminal: Bools) -> None:
        self._write(cells, True, terminal)

    def removed(self, cells: Cells) -> None:
        self._write(cells, False, np.zeros(len(cells), dtype=np.bool_))

    def check(self, batch_size: int) -> None:
        if batch_size % self.n_envs:
            raise ArgumentError(
                f"batch_size={batch_size} must be a multiple of n_envs={self.n_envs} with sampler='rows', "
                "which draws whole rows of environments."
            )

    def draw(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Cells, Weights]:
        self.check(batch_size)
        rows, weights = self._rows.draw(first_row, n_rows, batch_size // self.n_envs)  # (B / n_envs,)
        cells = (rows[:, None] * self.n_envs + np.arange(self.n_envs)).reshape(-1)  # (B,)
        if not self.weighted:
            return cells, weights.repeat(self.n_envs)
        mean = 1 + (self.terminal_copies - 1) * self._n_terminal / (self._n_whole * self.n_envs)
        copies = np.where(self._terminal.reshape(-1)[cells], self.terminal_copies, 1)  # (B,)
        return cells, (copies / mean).astype(np.float32)

    def update(self, cells: Cells, errors: npt.NDArray[Any]) -> None:
        pass

    def _write(self, cells: Cells, present: bool, terminal: Bools) -> None:
        if not self.told:
            return
        rows = np.unique(cells // self.n_envs)
        before = self._present[rows].all(axis=1)  # (rows,)
        self._n_terminal -= int(self._terminal[rows[before]].sum())
        self._present.reshape(-1)[cells] = present
        self._terminal.reshape(-1)[cells] = terminal
        after = self._present[rows].all(axis=1)  # (rows,)
        self._n_terminal += int(self._terminal[rows[after]].sum())
        self._n_whole += int(after.sum()) - int(before.sum())
        self._rows.removed(rows[before & ~after])
        whole = rows[after & ~before]
        self._rows.added(whole, np.zeros(len(whole), dtype=np.bool_))


SAMPLERS: dict[str, Callable[..., Sampler]] = {"uniform": Uniform, "prioritized": Prioritized, "rows": Rows}
SYNONYMS = {
    "per": "prioritized",
    "prioritised": "prioritized",
    "priority": "prioritized",
    "proportional": "prioritized",
    "random": "uniform",
}
