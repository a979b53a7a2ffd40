"""Sets of indices of stored transitions."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["IndexSet", "Indices"]

Indices = npt.NDArray[np.int64]
"""(n,) indices of stored transitions, ``row * n_envs + env``"""


class IndexSet:
    """
    A set of indices in an array, so that members can be drawn at random.

    :param size: all indices are below this number
    :param members: (n,) different indices, in the order that they get in the array; none if None
    """

    def __init__(self, size: int, members: Indices | None = None) -> None:
        self._size = size
        self._members: Indices = np.empty(16, dtype=np.int64)
        self._n = 0
        if members is not None:
            self.add(members)

    @cached_property
    def _positions(self) -> Indices:
        """(size,) the position of each index in the array, -1 for those that are no members; made when there is a member"""
        return np.full(self._size, -1)

    def __len__(self) -> int:
        return self._n

    @property
    def array(self) -> Indices:
        """(len,) the members, in no order."""
        return self._members[: self._n]

    def add(self, indices: Indices) -> None:
        """
        Add members.

        :param indices: (n,) different indices; those that are members already stay where they are
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
        Remove members. The last member takes the position of each.

        :param indices: (n,) indices, which may be no members
        """
        if self._n == 0:
            return
        for index in indices[self._positions[indices] >= 0].tolist():
            self._n -= 1
            position, last = self._positions[index], self._members[self._n]
            self._members[position] = last
            self._positions[last] = position
            self._positions[index] = -1
