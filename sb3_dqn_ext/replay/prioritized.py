"""
Prioritized replay: the larger its latest TD error, the more often a transition is replayed.

Shapes: B batch, N indices.
"""

import math
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.errors import EmptyReplayError
from sb3_dqn_ext.replay.index_set import Indices
from sb3_dqn_ext.replay.sampler_base import Bools, Priorities, Sampler, Weights
from sb3_dqn_ext.replay.sum_tree import SumTree

__all__ = ["Prioritized"]


class Prioritized(Sampler):
    """
    Proportional prioritization (https://arxiv.org/abs/1511.05952, section 3.3).

    A transition i has the priority p_i = (|error_i| + eps)^alpha, and a new one the highest that any has had. With b_i its
    number of copies (``terminal_copies`` or 1), it is drawn with P(i) = b_i p_i / sum_j b_j p_j, as from a list that holds the
    copies. Points are drawn one from each of B equal parts of the line, as in the paper's appendix B.2.1.

    The importance weights make up for the priorities and not for the copies: (b_i / sum_j b_j / P(i))^beta, which is
    proportional to p_i^-beta. They are divided by the largest weight in the *replay buffer*, so they are at most 1, as in the
    paper. The largest in the batch would be another divisor for each batch, one that depends on what was drawn: even at
    beta = 1 the expected gradient would not be that of the list.

    :param n_rows: number of rows
    :param n_envs: number of transitions in a row
    :param terminal_copies: how often a transition that ended an episode counts
    :param only_added: has no effect; what can be replayed is what has a priority
    :param alpha: how much the errors matter; 0 is uniform
    :param beta: how much of the priorities the weights make up for, at the start
    :param beta_end: and at the end of the run, with a straight line between; at 1, for all
    :param eps: what is added to every error, so that none is forgotten; the smallest weight is about
        ``(eps / largest error) ** (alpha * beta)``
    """

    def __init__(
        self,
        n_rows: int,
        n_envs: int,
        terminal_copies: int,
        only_added: bool,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_end: float = 1.0,
        eps: float = 0.01,
    ) -> None:
        check_number("alpha", alpha, low=0, high=1)
        check_number("beta", beta, low=0, high=1)
        check_number("beta_end", beta_end, low=0, high=1)
        check_number("eps", eps, low=1e-10, high=1e10)
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.alpha = alpha
        self.beta_start = beta
        self.beta_end = beta_end
        self.eps = eps
        self._highest = 1.0

    @cached_property
    def _tree(self) -> SumTree:
        """p_i, and 0 for what cannot be replayed; made when the first transition is stored"""
        return SumTree(self.n_rows * self.n_envs)

    def add(self, indices: Indices, terminal: Bools) -> None:
        self._tree[indices] = self._highest
        if self.terminal_copies > 1:
            self._tree.set_copies(indices, np.where(terminal, self.terminal_copies, 1))

    def remove(self, indices: Indices) -> None:
        self._tree[indices] = 0.0

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, Weights]:
        tree = self._tree
        total = tree.total
        if total == 0:
            raise EmptyReplayError
        points = (np.arange(batch_size) + np.random.rand(batch_size)) * (total / batch_size)  # (B,)
        indices = tree.find(points)  # (B,)
        return indices, ((tree.min_priority / tree[indices]) ** self.beta(progress)).astype(np.float32)

    def update_priorities(self, indices: Indices, td_errors: npt.NDArray[Any]) -> None:
        priorities = (td_errors + self.eps) ** self.alpha  # (B,)
        highest = float(priorities.max())
        if not math.isfinite(highest):
            raise FloatingPointError("an error of the batch is not a finite number: learning has diverged.")
        self._highest = max(self._highest, highest)
        stored = self._tree[indices] > 0  # (B,)
        self._tree[indices[stored]] = priorities[stored]

    def replayable(self) -> Indices:
        return np.flatnonzero(self._tree.priorities)

    def beta(self, progress: float) -> float:
        return self.beta_start + (self.beta_end - self.beta_start) * min(max(progress, 0.0), 1.0)

    def priorities(self) -> Priorities:
        indices, copies = self.replayable(), self._tree.copies
        values = self._tree[indices]
        return Priorities(indices, values, np.ones_like(values) if copies is None else copies[indices])

    def state_dict(self) -> dict[str, Any]:
        end = int(self.replayable().max(initial=-1)) + 1
        copies = self._tree.copies
        return {
            "highest": self._highest,
            "priorities": self._tree.priorities[:end].copy(),
            "copies": None if copies is None else copies[:end].copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._highest = state["highest"]
        self._tree = SumTree(self.n_rows * self.n_envs)
        indices = np.arange(len(state["priorities"]))
        self._tree[indices] = state["priorities"]
        if state["copies"] is not None:
            self._tree.set_copies(indices, state["copies"])
