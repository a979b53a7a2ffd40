"""Sets of indices of stored transitions, from which random members can be drawn."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["IndexSet", "Indices"]

Indices = npt.NDArray[np.int64]
"""(n,) indices of stored transitions. The index of a transition is ``row * n_envs + env``."""


class IndexSet:
    """
    A set of indices in an array, from which random members can be drawn.

    :param size: the bound of the indices: all are below it
    :param members: the (n,) distinct initial members, in the order that they get in the array; None (default): none
    """

    def __init__(self, size: int, members: Indices | None = None) -> None:
        self._size = size
        self._members: Indices = np.empty(16, dtype=np.int64)
        self._n = 0
        if members is not None:
            self.add(members)

    @cached_property
    def _positions(self) -> Indices:
        """The (size,) positions of the indices in the array; -1 for all that are no members. Allocated at first use."""
        return np.full(self._size, -1)

    def __len__(self) -> int:
        return self._n

    @property
    def array(self) -> Indices:
        """The (n,) members, in no defined order."""
        return self._members[: self._n]

    def add(self, indices: Indices) -> None:
        """
        Add members.

        :param indices: (n,) distinct indices; those that are members already keep their positions
        """
        new = indices[self._positions[indices] < 0]
        end = self._n + len(new)
        if end > len(self._members):
            self._members = np.concatenate([self._members, np.empty(max(end, len(self._members)), dtype=np.int64)])
        self._members[self._n : end] = new
        self._positions[new] = np.arange(self._n, end)
        self._n = end

    def discard(self, indices: Indices) -> None:
        """
        Remove members. The last member of the array moves to the position of each removed one.

        :param indices: (n,) indices; those that are no members are ignored
        """
        if self._n == 0:
            return
        for index in indices[self._positions[indices] >= 0].tolist():
            self._n -= 1
            position, last = self._positions[index], self._members[self._n]
            self._members[position] = last
            self._positions[last] = position
            self._positions[index] = -1
