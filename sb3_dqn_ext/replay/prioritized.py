"""
Prioritized replay: the larger its latest error, the more often a transition is replayed.

Shapes: B batch, N cells, L priorities in a block, C changed blocks.
"""

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.replay.index_set import Cells, nothing_to_replay

__all__ = ["Prioritized", "PriorityTree"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class PriorityTree:
    """
    N priorities in a wide tree of three levels, which knows their smallest and draws in proportion to their shares.

    A share is a priority times the number of its copies. There are blocks of L = N^0.22 priorities, blocks of L blocks, and
    about N^0.56 of those (21, 21 and 2268 at a million): to sum up a few thousand numbers costs as much as a few calls of
    numpy, and each level costs more than a few. To draw 32 and change them, a binary tree took 2.6 times as long.

    Changing a priority marks its block; what the marked blocks amount to is computed anew when it is asked for. Nothing is
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

    def __getitem__(self, cells: Cells) -> Floats:
        """(B,) cells -> (B,) their priorities"""
        return self._priorities.take(cells)

    def __setitem__(self, cells: Cells, priorities: Floats | float) -> None:
        """:param cells: (B,); of one that stands there several times, the last priority counts"""
        self._priorities.reshape(-1)[cells] = priorities
        self._changed[cells // self.width] = True
        self._fresh = False

    def set_copies(self, cells: Cells, copies: npt.NDArray[np.int64]) -> None:
        """
        :param cells: (B,)
        :param copies: (B,) how many times each counts; it is once for those that were never set
        """
        if self._copies is None:
            self._copies = np.ones_like(self._priorities)
        self._copies.reshape(-1)[cells] = copies
        self._changed[cells // self.width] = True
        self._fresh = False

    @property
    def total(self) -> float:
        """The sum of all shares."""
        self._refresh()
        return float(self._sums[1].sum())

    @property
    def lowest(self) -> float:
        """The smallest priority that is not 0."""
        self._refresh()
        return float(self._lowest[1].min())

    def find(self, points: Floats) -> Cells:
        """
        (B,) points in [0, total) -> (B,) the cells they fall into, when the shares lie on a line one after the other.
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
        cells: Cells = block * self.width + k  # (B,)
        return cells

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


class Prioritized:
    """
    Proportional prioritization (https://arxiv.org/abs/1511.05952, section 3.3).

    A cell i has the priority p_i = (|error_i| + eps)^alpha, and a new one the highest that any has had. With b_i its number
    of copies (``terminal_copies`` or 1), it is drawn with P(i) = b_i p_i / sum_j b_j p_j, as from a list that holds the
    copies. Points are drawn one from each of B equal parts of the line, as in the paper's appendix B.2.1.

    The importance weights make up for the priorities and not for the copies: (b_i / sum_j b_j / P(i))^beta, which is
    proportional to p_i^-beta. They are divided by the largest weight in the *memory*, so they are at most 1, as in the paper.
    The largest in the batch would be another divisor for each batch, one that depends on what was drawn: even at
    beta = 1 the expected gradient would not be that of the list.

    :param buffer_size: number of rows
    :param n_envs: number of cells in a row
    :param terminal_copies: how often a cell that ended an episode stands in the memory
    :param gaps: has no effect; what can be replayed is what has a priority
    :param alpha: how much the errors matter; 0 is uniform
    :param beta: how much of the priorities the weights make up for, at the start
    :param beta_end: and at the end of the run, with a straight line between; at 1, for all
    :param eps: what is added to every error, so that none is forgotten; the smallest weight is about
        ``(eps / largest error) ** (alpha * beta)``
    """

    wants_errors = True
    weighted = True
    told = True

    def __init__(
        self,
        buffer_size: int,
        n_envs: int,
        terminal_copies: int,
        gaps: bool,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_end: float = 1.0,
        eps: float = 0.01,
    ) -> None:
        check_number("alpha", alpha, low=0, high=1)
        check_number("beta", beta, low=0, high=1)
        check_number("beta_end", beta_end, low=0, high=1)
        check_number("eps", eps, low=1e-10, high=1e10)
        self.n_cells = buffer_size * n_envs
        self.terminal_copies = terminal_copies
        self.alpha = alpha
        self.beta = beta
        self.beta_end = beta_end
        self.eps = eps
        self._highest = 1.0

    @cached_property
    def _tree(self) -> PriorityTree:
        """p_i, and 0 for what cannot be replayed; made when the first transition is stored"""
        return PriorityTree(self.n_cells)

    def added(self, cells: Cells, terminal: Bools) -> None:
        self._tree[cells] = self._highest
        if self.terminal_copies > 1:
            self._tree.set_copies(cells, np.where(terminal, self.terminal_copies, 1))

    def removed(self, cells: Cells) -> None:
        self._tree[cells] = 0.0

    def check(self, batch_size: int) -> None:
        pass

    def draw(
        self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0
    ) -> tuple[Cells, npt.NDArray[np.float32]]:
        total = self._tree.total
        if total == 0:
            raise nothing_to_replay()
        points = (np.arange(batch_size) + np.random.rand(batch_size)) * (total / batch_size)  # (B,)
        cells = self._tree.find(points)  # (B,)
        beta = self.beta + (self.beta_end - self.beta) * min(max(progress, 0.0), 1.0)
        return cells, ((self._tree.lowest / self._tree[cells]) ** beta).astype(np.float32)

    def update(self, cells: Cells, errors: npt.NDArray[Any]) -> None:
        priorities = (errors + self.eps) ** self.alpha  # (B,)
        highest = float(priorities.max())
        if not math.isfinite(highest):
            raise FloatingPointError("an error of the batch is not a finite number: learning has diverged.")
        self._highest = max(self._highest, highest)
        stored = self._tree[cells] > 0  # (B,)
        self._tree[cells[stored]] = priorities[stored]
