"""
Samplers: which stored transitions are replayed.

A *cell* is one stored transition: ``row * n_envs + env``.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

Cells = npt.NDArray[np.int64]


class Sampler(Protocol):
    """Knows which cells there are by being told, and draws some of them."""

    def added(self, cells: Cells, terminal: npt.NDArray[np.bool_]) -> None:
        """
        :param cells: (n_envs,) the cells just written, over older ones perhaps
        :param terminal: (n_envs,) which of them ended an episode by their own step
        """
        ...

    def removed(self, cells: Cells) -> None:
        """
        :param cells: cells that can no longer be replayed
        """
        ...

    def draw(self, first_row: int, n_rows: int, batch_size: int) -> tuple[Cells, npt.NDArray[np.float32]]:
        """
        :param first_row: the first row of the ring that can be replayed
        :param n_rows: how many rows from there on can be
        :param batch_size: B
        :return: (B,) cells, (B,) importance weights
        """
        ...


class CellSet:
    """A set of cells that lies in an array, so that members can be drawn at random."""

    def __init__(self) -> None:
        self._cells: Cells = np.empty(16, dtype=np.int64)
        self._place: dict[int, int] = {}  # cell -> its index in the array

    def __len__(self) -> int:
        return len(self._place)

    @property
    def array(self) -> Cells:
        """(len,) the members, in no order."""
        return self._cells[: len(self)]

    def add(self, cell: int) -> None:
        """:param cell: the new member"""
        if cell in self._place:
            return
        if len(self) == len(self._cells):
            self._cells = np.concatenate([self._cells, np.empty_like(self._cells)])
        self._cells[len(self)] = cell
        self._place[cell] = len(self)

    def discard(self, cell: int) -> None:
        """:param cell: what is no longer a member, if it was one; the last member takes its place"""
        place = self._place.pop(cell, None)
        if place is None or place == len(self):
            return
        last = int(self._cells[len(self)])
        self._cells[place] = last
        self._place[last] = place


class Uniform:
    """
    Every cell with the same probability; those that ended an episode as if they were stored several times.

    :param buffer_size: number of rows
    :param n_envs: number of cells in a row
    :param terminal_copies: how often a cell that ended an episode stands in the memory
    """

    def __init__(self, buffer_size: int, n_envs: int, terminal_copies: int = 1) -> None:
        self.buffer_size = buffer_size
        self.n_envs = n_envs
        self.terminal_copies = terminal_copies
        self._terminal = CellSet()

    def added(self, cells: Cells, terminal: npt.NDArray[np.bool_]) -> None:
        if self.terminal_copies == 1:
            return
        self.removed(cells)
        for cell in cells[terminal].tolist():
            self._terminal.add(cell)

    def removed(self, cells: Cells) -> None:
        for cell in cells.tolist():
            self._terminal.discard(cell)

    def draw(self, first_row: int, n_rows: int, batch_size: int) -> tuple[Cells, npt.NDArray[np.float32]]:
        weights = np.ones(batch_size, dtype=np.float32)
        if len(self._terminal) == 0:
            # SB3 draws rows, then environments: the same calls keep its random stream
            rows = (first_row + np.random.randint(0, n_rows, size=batch_size)) % self.buffer_size
            return rows * self.n_envs + np.random.randint(0, self.n_envs, size=batch_size), weights
        # a list of all cells, followed by the further copies of the terminal ones
        n_cells, terminal = n_rows * self.n_envs, self._terminal.array
        index = np.random.randint(0, n_cells + (self.terminal_copies - 1) * len(terminal), size=batch_size)  # (B,)
        cells = (first_row * self.n_envs + index) % (self.buffer_size * self.n_envs)  # (B,)
        copies = terminal[(index - n_cells) % len(terminal)]  # (B,)
        return np.where(index < n_cells, cells, copies), weights


SAMPLERS: dict[str, Callable[..., Sampler]] = {"uniform": Uniform}
