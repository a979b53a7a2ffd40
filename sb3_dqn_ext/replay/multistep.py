"""
Folds: what a stored row says, seen over the steps that follow it.

Shapes: B batch, n steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Folded(NamedTuple):
    """B transitions, each folded into one."""

    rewards: Array
    """(B,) float32, the discounted sum of the folded rewards"""
    discounts: Array
    """(B,) float32, what the value after the last folded step is worth; 0 after a termination"""
    last: Array
    """(B,) the cell of the last folded step"""


class Ring(Protocol):
    """What a fold reads of the memory: (rows, n_envs) arrays that are written in a circle, row * n_envs + env being a cell."""

    buffer_size: int
    n_envs: int
    pos: int

    @property
    def rewards(self) -> Array: ...

    @property
    def dones(self) -> Array: ...

    @property
    def timeouts(self) -> Array: ...


class EpisodeRing(Ring, Protocol):
    """A ring that knows how its episodes went on."""

    @property
    def returns(self) -> Array:
        """(rows, n_envs) discounted sum of the rewards from this step to the last of its episode."""

    @property
    def ends(self) -> Array:
        """(rows, n_envs) the row of that last step."""


class Fold(Protocol):
    """Folds cells of a ring."""

    def __call__(self, ring: Ring, cells: Array, normalize: Callable[[Array], Array]) -> Folded:
        """
        :param ring: the memory
        :param cells: (B,) the steps to start from
        :param normalize: what turns stored rewards into those that are learned from; shapes are kept
        """
        ...


def terminated(ring: Ring, cells: Array) -> Array:
    """(B,) float32, 1 where the step ended its episode for good, 0 elsewhere and at a time limit."""
    ended: Array = ring.dones.take(cells) * (1 - ring.timeouts.take(cells))
    return ended


@dataclass(frozen=True)
class OneStep:
    """
    One reward and the state after it.

    :param gamma: the discount factor
    """

    gamma: float

    def __call__(self, ring: Ring, cells: Array, normalize: Callable[[Array], Array]) -> Folded:
        return Folded(normalize(ring.rewards.take(cells)), self.gamma * (1 - terminated(ring, cells)), cells)


@dataclass(frozen=True)
class NStep:
    """
    Up to n rewards and the state after them: never across the end of an episode, nor across the ring's write position
    (http://incompleteideas.net/book/the-book-2nd.html, section 7.1).

    :param n_steps: n
    :param gamma: the discount factor
    """

    n_steps: int
    gamma: float

    def __call__(self, ring: Ring, cells: Array, normalize: Callable[[Array], Array]) -> Folded:
        n_cells, steps = ring.buffer_size * ring.n_envs, np.arange(self.n_steps)
        window = (cells[:, None] + steps * ring.n_envs) % n_cells  # (B, n)
        newest = (ring.pos - 1) % ring.buffer_size
        ended = np.logical_or(ring.dones.take(window), ring.timeouts.take(window))  # (B, n)
        last = ended | (window // ring.n_envs == newest)  # (B, n)
        n_folded = np.where(last.any(axis=1), last.argmax(axis=1) + 1, self.n_steps)  # (B,)
        discounting = self.gamma ** steps.astype(np.float32) * (steps < n_folded[:, None])  # (B, n)
        rewards = normalize(ring.rewards.take(window)) * discounting  # (B, n)
        last_cells = (cells + (n_folded - 1) * ring.n_envs) % n_cells  # (B,)
        discounts = self.gamma ** n_folded.astype(np.float32) * (1 - terminated(ring, last_cells))  # (B,)
        return Folded(rewards.sum(axis=1), discounts, last_cells)


@dataclass(frozen=True)
class MonteCarlo:
    """
    A share of the realised return of the episode, the rest of another fold; 1 is every-visit Monte-Carlo control
    (http://incompleteideas.net/book/the-book-2nd.html, section 5.4).

    A terminated episode needs no bootstrap. One that was cut off bootstraps at its cut. As a batch holds one next state for
    each transition, such a transition is read as the realised return with probability ``share``, and else through the other
    fold: this is the mixture in expectation.

    :param share: of the realised return, in (0, 1]
    :param gamma: the discount factor
    :param other: the fold of the rest
    """

    share: float
    gamma: float
    other: Fold

    def __call__(self, ring: Ring, cells: Array, normalize: Callable[[Array], Array]) -> Folded:
        episodes = cast(EpisodeRing, ring)
        near = self.other(ring, cells, normalize)
        rows, envs = np.divmod(cells, ring.n_envs)  # (B,), (B,)
        ends = episodes.ends.take(cells)  # (B,) rows
        n_folded = (ends - rows) % ring.buffer_size + 1  # (B,)
        last = ends * ring.n_envs + envs  # (B,)
        bootstrap = self.gamma ** n_folded.astype(np.float32) * (1 - terminated(ring, last))  # (B,)
        realised = episodes.returns.take(cells)  # (B,)
        cut = bootstrap > 0
        whole = cut & (np.random.rand(len(cells)) < self.share) if cut.any() else cut
        mixture = np.where(cut, 0, np.float32(self.share))
        return Folded(
            np.where(whole, realised, (1 - mixture) * near.rewards + mixture * realised),
            np.where(whole, bootstrap, (1 - mixture) * near.discounts),
            np.where(whole, last, near.last),
        )
