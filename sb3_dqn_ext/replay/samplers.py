"""
Samplers: which stored transitions are replayed.

A *cell* is one stored transition: ``row * n_envs + env``.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.choices import ArgumentError

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

    def add(self, cells: Cells) -> None:
        """:param cells: the new members; those that are members already stay"""
        for cell in cells.tolist():
            if cell in self._place:
                continue
            if len(self) == len(self._cells):
                self._cells = np.concatenate([self._cells, np.empty_like(self._cells)])
            self._cells[len(self)] = cell
            self._place[cell] = len(self)

    def discard(self, cells: Cells) -> None:
        """:param cells: what are no longer members, if they were; the last member takes the place of each"""
        for cell in cells.tolist():
            place = self._place.pop(cell, None)
            if place is not None and place != len(self):
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
        if self.terminal_copies > 1:
            self._terminal.discard(cells)
            self._terminal.add(cells[terminal])

    def removed(self, cells: Cells) -> None:
        self._terminal.discard(cells)

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


class UniformOfMembers(Uniform):
    """
    :class:`Uniform` where not every stored row can be replayed: only the cells that were added and not removed.

    :param buffer_size: see :class:`Uniform`
    :param n_envs: see :class:`Uniform`
    :param terminal_copies: see :class:`Uniform`
    """

    def __init__(self, buffer_size: int, n_envs: int, terminal_copies: int = 1) -> None:
        super().__init__(buffer_size, n_envs, terminal_copies)
        self._members = CellSet()

    def added(self, cells: Cells, terminal: npt.NDArray[np.bool_]) -> None:
        super().added(cells, terminal)
        self._members.add(cells)

    def removed(self, cells: Cells) -> None:
        super().removed(cells)
        self._members.discard(cells)

    def draw(self, first_row: int, n_rows: int, batch_size: int) -> tuple[Cells, npt.NDArray[np.float32]]:
        members, terminal = self._members.array, self._terminal.array
        if len(members) == 0:
            raise ArgumentError(
                "no episode has ended that could be replayed; with monte_carlo, learning_starts must outlast an episode."
            )
        index = np.random.randint(0, len(members) + (self.terminal_copies - 1) * len(terminal), size=batch_size)  # (B,)
        cells = members[index % len(members)]  # (B,)
        if len(terminal):
            cells = np.where(index < len(members), cells, terminal[(index - len(members)) % len(terminal)])
        return cells, np.ones(batch_size, dtype=np.float32)


SAMPLERS: dict[str, Callable[..., Sampler]] = {"uniform": Uniform}
MEMBER_SAMPLERS: dict[str, Callable[..., Sampler]] = {"uniform": UniformOfMembers}
"""the same, for memories in which not every stored row can be replayed"""
