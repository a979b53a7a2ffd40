"""
A sum tree of priorities.

Shapes: B batch, N indices, L priorities in a block, C changed blocks.
"""

import math

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.replay.index_set import Indices

__all__ = ["SumTree"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class SumTree:
    """
    N priorities in a wide tree of three levels, with their total and their smallest one.

    A share is a priority times the number of its copies. There are blocks of L = N^0.22 priorities, blocks of L blocks, and
    about N^0.56 of those (21, 21 and 2268 at a million): to sum up a few thousand numbers costs as much as a few calls of
    numpy, and each level costs more than a few. To draw 32 and change them, a binary tree took 2.6 times as long.

    A changed priority marks its block. The sums of the marked blocks are computed anew when they are next read. Nothing is
    ever added to a running total or taken from it, so rounding errors do not accumulate.

    :param size: N
    """

    def __init__(self, size: int) -> None:
        self.width = math.ceil(size**0.22)  # L
        n_top = math.ceil(size / self.width**2)
        n_blocks = n_top * self.width
        self._priorities: Floats = np.zeros((n_blocks, self.width))  # 0 where there is nothing to draw
        self._copies: Floats | None = None  # (blocks, L), once there are any
        self._changed: Bools = np.zeros(n_blocks, dtype=np.bool_)
        self._fresh = True  # whether none of them is
        # sums of the shares, and the smallest priorities that are not 0: of each block, and of each block of blocks
        self._sums: tuple[Floats, Floats] = np.zeros((n_top, self.width)), np.zeros(n_top)
        self._lowest: tuple[Floats, Floats] = np.full((n_top, self.width), np.inf), np.full(n_top, np.inf)

    def __getitem__(self, indices: Indices) -> Floats:
        """(B,) indices -> (B,) their priorities"""
        return self._priorities.take(indices)

    def __setitem__(self, indices: Indices, priorities: Floats | float) -> None:
        """:param indices: (B,); of one that stands there several times, the last priority counts"""
        self._priorities.reshape(-1)[indices] = priorities
        self._changed[indices // self.width] = True
        self._fresh = False

    def set_copies(self, indices: Indices, copies: npt.NDArray[np.int64]) -> None:
        """
        :param indices: (B,)
        :param copies: (B,) how many times each counts; it is once for those that were never set
        """
        if self._copies is None:
            self._copies = np.ones_like(self._priorities)
        self._copies.reshape(-1)[indices] = copies
        self._changed[indices // self.width] = True
        self._fresh = False

    @property
    def priorities(self) -> Floats:
        """(N or a few more,) all priorities by their indices; those that were never set are 0."""
        return self._priorities.reshape(-1)

    @property
    def copies(self) -> Floats | None:
        """(N or a few more,) the numbers of copies by their indices; None if they were never set."""
        return None if self._copies is None else self._copies.reshape(-1)

    @property
    def total(self) -> float:
        """The sum of all shares."""
        self._refresh()
        return float(self._sums[1].sum())

    @property
    def min_priority(self) -> float:
        """The smallest priority that is not 0."""
        self._refresh()
        return float(self._lowest[1].min())

    def find(self, points: Floats) -> Indices:
        """
        (B,) points in [0, total) -> (B,) the indices they fall into, when the shares lie on a line one after the other.
        """
        self._refresh()
        nodes, top = self._sums
        ends = top.cumsum()  # (n_top,)
        i = ends.searchsorted(np.minimum(points, np.nextafter(ends[-1], 0)), side="right")  # (B,)
        points = points - ends.take(i) + top.take(i)  # (B,) from the start of i on
        shares = nodes.take(i, axis=0)  # (B, L)
        ends = shares.cumsum(axis=1)  # (B, L)
        j = _first_end_behind(points, ends)  # (B,)
        place = np.arange(0, ends.size, self.width) + j  # (B,) of j in the flat arrays
        points = points - ends.take(place) + shares.take(place)  # (B,) from the start of j on
        block = i * self.width + j  # (B,)
        k = _first_end_behind(points, self._shares(block).cumsum(axis=1))  # (B,)
        indices: Indices = block * self.width + k  # (B,)
        return indices

    def _shares(self, blocks: npt.NDArray[np.int64]) -> Floats:
        """(C,) blocks -> (C, L) shares"""
        priorities = self._priorities.take(blocks, axis=0)
        return priorities if self._copies is None else priorities * self._copies.take(blocks, axis=0)

    def _refresh(self) -> None:
        if self._fresh:
            return
        self._fresh = True
        blocks = self._changed.nonzero()[0]  # (C,)
        self._changed[blocks] = False
        priorities = self._priorities.take(blocks, axis=0)  # (C, L)
        self._sums[0].reshape(-1)[blocks] = self._shares(blocks).sum(axis=1)
        self._lowest[0].reshape(-1)[blocks] = np.where(priorities > 0, priorities, np.inf).min(axis=1)
        above = blocks // self.width  # (C,)
        self._sums[1][above] = self._sums[0].take(above, axis=0).sum(axis=1)
        self._lowest[1][above] = self._lowest[0].take(above, axis=0).min(axis=1)


def _first_end_behind(points: Floats, ends: Floats) -> npt.NDArray[np.int64]:
    """
    :param points: (B,)
    :param ends: (B, L) where the shares of each of B lines end; not all 0
    :return: (B,) the share that each point falls into, never one that is 0, although by rounding a point can lie a little
        before the first or behind the last
    """
    inside = np.maximum(np.minimum(points, np.nextafter(ends[:, -1], 0)), 0)  # (B,)
    found: npt.NDArray[np.int64] = (ends > inside[:, None]).argmax(axis=1)  # (B,)
    return found
