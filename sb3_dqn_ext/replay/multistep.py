"""
Multi-step returns: the rewards and the next observation that belong to a stored transition.

Shapes: B batch, n steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class NStepTransitions(NamedTuple):
    """B transitions over several steps each."""

    rewards: Array
    """(B,) float32, the discounted sum of their rewards"""
    discounts: Array
    """(B,) float32, the factor of the value after the last step; 0 after a termination"""
    last_indices: Array
    """(B,) the index of the last step"""


class RingBuffer(Protocol):
    """A part of a replay buffer: (rows, n_envs) arrays that are written in a circle; the index is ``row * n_envs + env``."""

    buffer_size: int
    n_envs: int
    pos: int

    @property
    def rewards(self) -> Array: ...

    @property
    def dones(self) -> Array: ...

    @property
    def timeouts(self) -> Array: ...


class RingBufferWithReturns(RingBuffer, Protocol):
    """A ring with the realised returns of ended episodes."""

    @property
    def returns(self) -> Array:
        """(rows, n_envs) discounted sum of the rewards from this step to the last of its episode."""

    @property
    def ends(self) -> Array:
        """(rows, n_envs) the row of that last step."""


class MultistepReturn(Protocol):
    """A way to sum up rewards."""

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        """
        Sum up the rewards from some steps on.

        :param ring: the stored transitions
        :param indices: (B,) the steps to start from
        :param normalize: turns stored rewards into those that are learned from; shapes are kept
        """
        ...


def termination_mask(ring: RingBuffer, indices: Array) -> Array:
    """(B,) float32, 1 where the step ended its episode for good, 0 elsewhere and at a time limit."""
    ended: Array = ring.dones.take(indices) * (1 - ring.timeouts.take(indices))
    return ended


@dataclass(frozen=True)
class OneStep:
    """
    One reward and the state after it.

    :param gamma: the discount factor
    """

    gamma: float

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        return NStepTransitions(
            normalize(ring.rewards.take(indices)), self.gamma * (1 - termination_mask(ring, indices)), indices
        )


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

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        n_indices, steps = ring.buffer_size * ring.n_envs, np.arange(self.n_steps)
        window = (indices[:, None] + steps * ring.n_envs) % n_indices  # (B, n)
        newest = (ring.pos - 1) % ring.buffer_size
        ended = np.logical_or(ring.dones.take(window), ring.timeouts.take(window))  # (B, n)
        last = ended | (window // ring.n_envs == newest)  # (B, n)
        length = np.where(last.any(axis=1), last.argmax(axis=1) + 1, self.n_steps)  # (B,)
        discounting = self.gamma ** steps.astype(np.float32) * (steps < length[:, None])  # (B, n)
        rewards = normalize(ring.rewards.take(window)) * discounting  # (B, n)
        last_indices = (indices + (length - 1) * ring.n_envs) % n_indices  # (B,)
        discounts = self.gamma ** length.astype(np.float32) * (1 - termination_mask(ring, last_indices))  # (B,)
        return NStepTransitions(rewards.sum(axis=1), discounts, last_indices)


@dataclass(frozen=True)
class MonteCarlo:
    """
    A share of the realised return of the episode, and for the rest another return; 1 is every-visit Monte-Carlo control
    (http://incompleteideas.net/book/the-book-2nd.html, section 5.4).

    A terminated episode needs no bootstrap. One that was cut off bootstraps at its cut. As a batch holds one next state for
    each transition, such a transition is read as the realised return with probability ``share``, and else by the other
    return: this is the mixture in expectation.

    :param share: of the realised return, in (0, 1]
    :param gamma: the discount factor
    :param other: the return for the rest
    """

    share: float
    gamma: float
    other: MultistepReturn

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        episodes = cast(RingBufferWithReturns, ring)
        near = self.other(ring, indices, normalize)
        rows, envs = np.divmod(indices, ring.n_envs)  # (B,), (B,)
        ends = episodes.ends.take(indices)  # (B,) rows
        length = (ends - rows) % ring.buffer_size + 1  # (B,)
        last = ends * ring.n_envs + envs  # (B,)
        bootstrap = self.gamma ** length.astype(np.float32) * (1 - termination_mask(ring, last))  # (B,)
        realised = episodes.returns.take(indices)  # (B,)
        cut = bootstrap > 0
        whole = cut & (np.random.rand(len(indices)) < self.share) if cut.any() else cut
        mixture = np.where(cut, 0, np.float32(self.share))
        return NStepTransitions(
            np.where(whole, realised, (1 - mixture) * near.rewards + mixture * realised),
            np.where(whole, bootstrap, (1 - mixture) * near.discounts),
            np.where(whole, last, near.last_indices),
        )


def monte_carlo_returns(rewards: Array, gamma: float) -> Array:
    """
    Sum up the rewards of an episode from each of its steps to the end.

    :param rewards: (T,) of the steps in their order
    :param gamma: the discount factor
    :return: (T,) of the type of the rewards
    """
    returns, total = np.empty_like(rewards), 0.0
    for step in reversed(range(len(rewards))):
        total = rewards[step] + gamma * total
        returns[step] = total
    return returns


@lru_cache
def make_multistep_return(n_steps: int, gamma: float, monte_carlo: float) -> MultistepReturn:
    """
    Make the return that the arguments of a replay buffer describe.

    :param n_steps: n
    :param gamma: the discount factor
    :param monte_carlo: the share of the realised return
    """
    bootstrapped = OneStep(gamma) if n_steps == 1 else NStep(n_steps, gamma)
    return bootstrapped if monte_carlo == 0 else MonteCarlo(monte_carlo, gamma, bootstrapped)
