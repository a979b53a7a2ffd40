"""
A sum tree of priorities (Schaul et al. 2016, https://arxiv.org/abs/1511.05952, appendix B.2.1).

Shapes: B batch, N priorities, L priorities in a block, C changed blocks.
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
    A sum tree of N priorities, with their total and their minimum.

    The share of transition i is b_i p_i^alpha: its priority times its number of copies. An inner node holds the sum of the
    shares below it. The tree is wide and has three levels: blocks of L = N^0.22 priorities, blocks of L blocks, and about
    N^0.56 of those (21, 21 and 2268 for a million). Summing a few thousand numbers costs as much as a few numpy calls, and a
    level costs more calls than that. Drawing and updating 32 priorities took a binary tree 2.6 times as long.

    A changed priority marks its block, and the sums of marked blocks are computed again when they are next read. No
    difference is ever added to a sum, so rounding errors do not accumulate.

    :param size: the number of priorities N
    """

    def __init__(self, size: int) -> None:
        self.width = math.ceil(size**0.22)  # L
        n_top = math.ceil(size / self.width**2)
        n_blocks = n_top * self.width
        self._priorities: Floats = np.zeros((n_blocks, self.width))  # (blocks, L), 0 where nothing can be drawn
        self._copies: Floats | None = None  # (blocks, L), allocated by set_copies
        self._changed: Bools = np.zeros(n_blocks, dtype=np.bool_)
        self._is_up_to_date = True  # whether no block is marked
        # the sums of the shares, and the minima of the positive priorities: of each block, and of each block of blocks
        self._sums: tuple[Floats, Floats] = np.zeros((n_top, self.width)), np.zeros(n_top)
        self._lowest: tuple[Floats, Floats] = np.full((n_top, self.width), np.inf), np.full(n_top, np.inf)

    def __getitem__(self, indices: Indices) -> Floats:
        """Return the (B,) priorities at (B,) indices."""
        return self._priorities.take(indices)

    def __setitem__(self, indices: Indices, priorities: Floats | float) -> None:
        """Set the priorities at (B,) indices. The last value counts for an index that appears several times."""
        self._priorities.reshape(-1)[indices] = priorities
        self._changed[indices // self.width] = True
        self._is_up_to_date = False

    def set_copies(self, indices: Indices, copies: npt.NDArray[np.int64]) -> None:
        """
        Set numbers of copies b_i, which are 1 by default.

        :param indices: the (B,) indices
        :param copies: the (B,) numbers of copies
        """
        if self._copies is None:
            self._copies = np.ones_like(self._priorities)
        self._copies.reshape(-1)[indices] = copies
        self._changed[indices // self.width] = True
        self._is_up_to_date = False

    @property
    def priorities(self) -> Floats:
        """All priorities by index, N or a few more. Priorities that were never set are 0."""
        return self._priorities.reshape(-1)

    @property
    def copies(self) -> Floats | None:
        """The numbers of copies by index, N or a few more; None if they were never set."""
        return None if self._copies is None else self._copies.reshape(-1)

    @property
    def total(self) -> float:
        """The sum of all shares, sum_k b_k p_k^alpha."""
        self._refresh()
        return float(self._sums[1].sum())

    @property
    def min_priority(self) -> float:
        """The smallest priority above 0."""
        self._refresh()
        return float(self._lowest[1].min())

    def find(self, points: Floats) -> Indices:
        """
        Find the indices at which the cumulative sums of the shares exceed given points.

        :param points: (B,) points in [0, total)
        :return: (B,) for each point u the index i with sum_{k<i} b_k p_k^alpha <= u < sum_{k<=i} b_k p_k^alpha
        """
        self._refresh()
        nodes, top = self._sums
        ends = top.cumsum()  # (n_top,)
        i = ends.searchsorted(np.minimum(points, np.nextafter(ends[-1], 0)), side="right")  # (B,)
        points = points - ends.take(i) + top.take(i)  # (B,) relative to the start of i
        shares = nodes.take(i, axis=0)  # (B, L)
        ends = shares.cumsum(axis=1)  # (B, L)
        j = _find_in_rows(points, ends)  # (B,)
        position = np.arange(0, ends.size, self.width) + j  # (B,) position of j in the flattened arrays
        points = points - ends.take(position) + shares.take(position)  # (B,) relative to the start of j
        block = i * self.width + j  # (B,)
        k = _find_in_rows(points, self._shares(block).cumsum(axis=1))  # (B,)
        indices: Indices = block * self.width + k  # (B,)
        return indices

    def _shares(self, blocks: npt.NDArray[np.int64]) -> Floats:
        """Return the (C, L) shares of (C,) blocks."""
        priorities = self._priorities.take(blocks, axis=0)
        return priorities if self._copies is None else priorities * self._copies.take(blocks, axis=0)

    def _refresh(self) -> None:
        """Compute the sums and minima of marked blocks, and of the blocks above them."""
        if self._is_up_to_date:
            return
        self._is_up_to_date = True
        blocks = self._changed.nonzero()[0]  # (C,)
        self._changed[blocks] = False
        priorities = self._priorities.take(blocks, axis=0)  # (C, L)
        self._sums[0].reshape(-1)[blocks] = self._shares(blocks).sum(axis=1)
        self._lowest[0].reshape(-1)[blocks] = np.where(priorities > 0, priorities, np.inf).min(axis=1)
        above = blocks // self.width  # (C,)
        self._sums[1][above] = self._sums[0].take(above, axis=0).sum(axis=1)
        self._lowest[1][above] = self._lowest[0].take(above, axis=0).min(axis=1)


def _find_in_rows(points: Floats, ends: Floats) -> npt.NDArray[np.int64]:
    """
    Find in each row the first cumulative sum that exceeds a point.

    :param points: (B,) one point for each row. By rounding, it can be slightly below 0 or not below the last sum.
    :param ends: (B, L) the cumulative sums of L shares, of which at least one is above 0
    :return: (B,) the positions of the shares; a share of 0 is never returned
    """
    inside = np.maximum(np.minimum(points, np.nextafter(ends[:, -1], 0)), 0)  # (B,)
    positions: npt.NDArray[np.int64] = (ends > inside[:, None]).argmax(axis=1)  # (B,)
    return positions
