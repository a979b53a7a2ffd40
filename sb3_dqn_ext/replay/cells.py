"""
Cells: the places of stored transitions, ``row * n_envs + env``.
"""

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.choices import ArgumentError

__all__ = ["CellSet", "Cells", "nothing_to_replay"]

Cells = npt.NDArray[np.int64]


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


def nothing_to_replay() -> ArgumentError:
    """The error for a draw from a memory that has nothing to give."""
    return ArgumentError(
        "there is nothing that could be replayed. With monte_carlo, no episode has ended that could be replayed (of all "
        "environments at once for sampler='rows'): learning_starts must outlast an episode."
    )
