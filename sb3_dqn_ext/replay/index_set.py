"""
Cells: the places of stored transitions, ``row * n_envs + env``.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.errors import ArgumentError

__all__ = ["CellSet", "Cells", "nothing_to_replay"]

Cells = npt.NDArray[np.int64]


class CellSet:
    """
    A set of cells that lies in an array, so that members can be drawn at random.

    :param size: cells are below this number
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._cells: Cells = np.empty(16, dtype=np.int64)
        self._n = 0

    @cached_property
    def _places(self) -> Cells:
        """(size,) where in the array each cell is, -1 for those that are no members; made when there is one"""
        return np.full(self._size, -1)

    def __len__(self) -> int:
        return self._n

    @property
    def array(self) -> Cells:
        """(len,) the members, in no order."""
        return self._cells[: self._n]

    def add(self, cells: Cells) -> None:
        """:param cells: different ones, the new members; those that are members already stay"""
        new = cells[self._places[cells] < 0]
        end = self._n + len(new)
        if end > len(self._cells):
            self._cells = np.concatenate([self._cells, np.empty(max(end, len(self._cells)), dtype=np.int64)])
        self._cells[self._n : end] = new
        self._places[new] = np.arange(self._n, end)
        self._n = end

    def discard(self, cells: Cells) -> None:
        """:param cells: what are no longer members, if they were; the last member takes the place of each"""
        if self._n == 0:
            return
        for cell in cells[self._places[cells] >= 0].tolist():
            self._n -= 1
            place, last = self._places[cell], self._cells[self._n]
            self._cells[place] = last
            self._places[last] = place
            self._places[cell] = -1


def nothing_to_replay() -> ArgumentError:
    """The error for a draw from a memory that has nothing to give."""
    return ArgumentError(
        "there is nothing that could be replayed. With monte_carlo, no episode has ended that could be replayed (of all "
        "environments at once for sampler='rows'): learning_starts must outlast an episode."
    )
