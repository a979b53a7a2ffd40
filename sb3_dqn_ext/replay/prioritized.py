"""
Prioritized experience replay: transitions with large TD errors are replayed more often.

Shapes: B batch, N transitions.
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
    Proportional prioritization (Schaul et al. 2016, https://arxiv.org/abs/1511.05952, section 3.3).

    With the TD error delta_i of transition i, its stored priority is p_i^alpha = (|delta_i| + eps)^alpha. A new transition
    gets the largest value that any transition has had. Without copies, it is drawn with the paper's equation 1::

        P(i) = p_i^alpha / sum_k p_k^alpha

    With b_i copies of transition i (``terminal_copies`` or 1), P(i) = b_i p_i^alpha / sum_k b_k p_k^alpha: the same as one
    draw from a list that holds the copies. A batch is a stratified sample: the total priority is divided into B equal ranges,
    and one point is drawn from each (appendix B.2.1).

    The importance weights are those of section 3.4, w_i = (1 / N / P(i))^beta. They correct for the priorities and not for
    the copies: with N = sum_k b_k, the b_i copies together are drawn uniformly with b_i / N, so that::

        w_i = (b_i / N / P(i))^beta, and w_i / max_k w_k = (min_k p_k^alpha / p_i^alpha)^beta

    The maximum is taken over the whole *replay buffer*. The maximum over a batch would depend on what was drawn, and even
    with beta = 1 the expected gradient would not be the gradient under uniform sampling.

    :param n_rows: the number of rows
    :param n_envs: the number of transitions in a row
    :param terminal_copies: the number of times that a terminal transition counts
    :param only_added: without effect; a transition can be replayed if it has a priority
    :param alpha: the exponent of the priorities; 0 is uniform sampling
    :param beta: the exponent of the importance weights at the start of the run
    :param beta_end: the exponent of the importance weights at the end of the run; it changes linearly in between
    :param eps: the constant that is added to each |TD error|, so that every transition can be drawn. The smallest
        weight is about ``(eps / largest TD error) ** (alpha * beta)``.
    :param eps_demonstrations: the constant that is added in its place for demonstrations: epsilon_d of DQfD (Hester et al.
        2018, https://arxiv.org/abs/1704.03732)
    :raises ArgumentError: if an argument is out of range
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
        eps_demonstrations: float = 1.0,
    ) -> None:
        check_number("alpha", alpha, low=0, high=1)
        check_number("beta", beta, low=0, high=1)
        check_number("beta_end", beta_end, low=0, high=1)
        check_number("eps", eps, low=1e-10, high=1e10)
        check_number("eps_demonstrations", eps_demonstrations, low=1e-10, high=1e10)
        super().__init__(n_rows, n_envs, terminal_copies, only_added)
        self.alpha = alpha
        self.beta_start = beta
        self.beta_end = beta_end
        self.eps = eps
        self.eps_demonstrations = eps_demonstrations
        self._first_demonstration: int | None = None
        self._max_priority = 1.0

    @cached_property
    def _tree(self) -> SumTree:
        """The sum tree of all p_i^alpha; 0 for what cannot be replayed. Allocated when the first transition is stored."""
        return SumTree(self.n_rows * self.n_envs)

    def add(self, indices: Indices, terminal: Bools) -> None:
        self._tree[indices] = self._max_priority
        if self.terminal_copies > 1:
            self._tree.set_copies(indices, np.where(terminal, self.terminal_copies, 1))

    def add_demonstrations(self, indices: Indices, terminal: Bools) -> None:
        self.add(indices, terminal)
        self._first_demonstration = int(indices.min())

    def remove(self, indices: Indices) -> None:
        self._tree[indices] = 0.0

    def sample(self, first_row: int, n_rows: int, batch_size: int, progress: float = 0.0) -> tuple[Indices, Weights]:
        tree = self._tree
        total = tree.total
        if total == 0:
            raise EmptyReplayError
        # one point u_j from each range [j, j + 1) * total / B, for j = 0 ... B - 1
        points = (np.arange(batch_size) + np.random.rand(batch_size)) * (total / batch_size)  # (B,)
        indices = tree.find(points)  # (B,)
        # w_i / max_k w_k = (min_k p_k^alpha / p_i^alpha)^beta
        return indices, ((tree.min_priority / tree[indices]) ** self.beta(progress)).astype(np.float32)

    def update_priorities(self, indices: Indices, td_errors: npt.NDArray[Any]) -> None:
        eps: Any = self.eps
        if self._first_demonstration is not None:
            eps = np.where(indices >= self._first_demonstration, self.eps_demonstrations, eps)  # (B,)
        priorities = (td_errors + eps) ** self.alpha  # (B,) p_i^alpha = (|delta_i| + eps)^alpha
        max_priority = float(priorities.max())
        if not math.isfinite(max_priority):
            raise FloatingPointError("a TD error of the batch is not finite: learning has diverged.")
        self._max_priority = max(self._max_priority, max_priority)
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
            "highest": self._max_priority,
            "priorities": self._tree.priorities[:end].copy(),
            "copies": None if copies is None else copies[:end].copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._max_priority = state["highest"]
        self._tree = SumTree(self.n_rows * self.n_envs)
        indices = np.arange(len(state["priorities"]))
        self._tree[indices] = state["priorities"]
        if state["copies"] is not None:
            self._tree.set_copies(indices, state["copies"])
