"""
Lambda returns of stored steps, from the values that the acting network has predicted.

Shapes: R rows, N environments.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.errors import UnsupportedError
from sb3_dqn_ext.replay.multistep import RingBuffer

__all__ = ["LambdaReturns"]

Array = npt.NDArray[Any]

CHUNK = 64
"""The number of rows that are swept between two checks whether older returns change."""


class LambdaReturns:
    """
    The lambda returns of all stored steps (Sutton and Barto, 2018, http://incompleteideas.net/book/the-book-2nd.html, section
    12.1) of greedy values, as in Peng's Q(lambda) and in PQN (Gallici et al., 2025, https://arxiv.org/abs/2407.04811)::

        G_t = R_{t+1} + gamma * ((1 - lambda) * V(S_{t+1}) + lambda * G_{t+1}),   V(s) = max_a Q(s, a)

    G_t is R_{t+1} if the step has terminated its episode, and R_{t+1} + gamma * V(S_{t+1}) if the episode was truncated after
    the step or if it is the newest step of its environment. V(S_{t+1}) is the value at the time of the step.

    A backward sweep computes the returns of new steps. It continues into older rows as long as their returns change.

    :param td_lambda: lambda, in [0, 1]
    :param n_rows: R, the number of rows of the replay buffer
    :param n_envs: N, the number of environments
    """

    def __init__(self, td_lambda: float, n_rows: int, n_envs: int) -> None:
        self.td_lambda = td_lambda
        self.next_values = np.zeros((n_rows, n_envs), dtype=np.float32)
        """The (R, N) values V(S_{t+1})."""
        self._returns = np.zeros((n_rows, n_envs))  # in double precision, since rounding errors add up over the steps
        self._values_of_step: Array | None = None
        self._n_swept = 0
        self._gamma: float | None = None

    def expect(self, values: Array) -> None:
        """
        Set the values of the step that is stored next.

        :param values: the (N,) values V(S_{t+1}); the final observation has one where the episode is truncated
        """
        self._values_of_step = values

    def write(self, row: int) -> None:
        """
        Store the values of a step.

        :param row: the row of the step
        :raises UnsupportedError: if no values were set for this step
        """
        if self._values_of_step is None:
            raise UnsupportedError(
                f"td_lambda={self.td_lambda!r} needs the values that the network predicts when it acts, which DQNExt stores: "
                "the algorithm that fills this replay buffer does not."
            )
        self.next_values[row], self._values_of_step = self._values_of_step, None

    def invalidate(self) -> None:
        """Compute all returns again when they are read next, after stored steps or values have been replaced."""
        self._n_swept = 0

    def take(self, ring: RingBuffer, indices: Array, gamma: float, n_added: int) -> Array:
        """
        Compute the returns of steps.

        :param ring: the stored steps
        :param indices: the (B,) indices of the steps
        :param gamma: the discount factor
        :param n_added: the number of rows that were stored since the buffer was made
        :return: the (B,) float32 returns
        """
        if gamma != self._gamma:
            self.invalidate()
            self._gamma = gamma
        if n_added > self._n_swept:
            n_rows = len(self._returns)
            self._sweep(ring, (ring.pos - 1) % n_rows, min(n_added, n_rows), min(n_added - self._n_swept, n_rows), gamma)
            self._n_swept = n_added
        return self._returns.take(indices).astype(np.float32)

    def _sweep(self, ring: RingBuffer, newest: int, n_stored: int, n_new: int, gamma: float) -> None:
        """
        Compute the returns backwards from the newest row.

        :param ring: the stored steps
        :param newest: the newest row
        :param n_stored: the number of stored rows
        :param n_new: the number of rows without a return
        :param gamma: the discount factor
        """
        later: Array | None = None
        for start in range(0, n_stored, CHUNK):
            rows = (newest - np.arange(start, min(start + CHUNK, n_stored))) % len(self._returns)  # newest first
            before = self._returns[rows[-1]].copy()
            later = self._sweep_rows(ring, rows, later, gamma)
            if start + len(rows) >= n_new and np.array_equal(before, later):
                return  # so are all older returns

    def _sweep_rows(self, ring: RingBuffer, rows: Array, later: Array | None, gamma: float) -> Array:
        """
        Compute the returns of some rows.

        :param ring: the stored steps
        :param rows: the rows, newest first
        :param later: the (N,) returns of the steps after them; None if the first row is the newest one
        :param gamma: the discount factor
        :return: the (N,) returns of the last of the rows
        """
        dones, timeouts, values = ring.dones[rows], ring.timeouts[rows], self.next_values[rows].astype(np.float64)
        continues = 1.0 - np.logical_or(dones, timeouts)
        if later is None:
            continues[0] = 0
        discounts = gamma * (1.0 - np.logical_and(dones, 1 - timeouts))  # 0 after a termination
        share = self.td_lambda * continues
        bootstrapped = ring.rewards[rows] + discounts * (1 - share) * values
        decay = discounts * share
        for row, constant, factor in zip(rows, bootstrapped, decay, strict=True):
            self._returns[row] = constant if later is None else constant + factor * later
            later = self._returns[row]
        assert later is not None
        return later
