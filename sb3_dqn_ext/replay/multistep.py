"""
Multi-step returns: the return and the bootstrap state that belong to a stored step.

In the notation of Sutton & Barto, R_{t+1} is the reward of the step at time t, gamma the discount factor, T the time at which
the episode ends, and V the value estimate of the state from which a return bootstraps. A return has the form

    G = rewards + discounts * V(S_last)

with ``discounts`` = 0 after a termination. V is computed later, by the target policy.

Shapes: B batch, n steps, T steps of an episode.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class NStepTransitions(NamedTuple):
    """B n-step transitions."""

    rewards: Array
    """The (B,) float32 discounted sums of rewards."""
    discounts: Array
    """The (B,) float32 factors of the bootstrapped values: gamma^n, or 0 after a termination."""
    last_indices: Array
    """The (B,) indices of the last steps; the returns bootstrap from the observations after them."""


class RingBuffer(Protocol):
    """The arrays of a replay buffer that returns read: (rows, n_envs) each, written in a circle."""

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
    """A ring buffer that also holds the Monte-Carlo returns of ended episodes."""

    @property
    def returns(self) -> Array:
        """The (rows, n_envs) Monte-Carlo returns of the steps of ended episodes."""

    @property
    def ends(self) -> Array:
        """The (rows, n_envs) rows of the last steps of these episodes."""


class MultistepReturn(Protocol):
    """A return that can be computed from stored steps."""

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        """
        Compute the returns of steps.

        :param ring: the stored steps
        :param indices: the (B,) indices of the steps
        :param normalize: a function that normalizes stored rewards and keeps their shape
        :return: the n-step transitions that begin with these steps
        """
        ...


def termination_mask(ring: RingBuffer, indices: Array) -> Array:
    """Return (B,) float32: 1 where a step terminated its episode, 0 elsewhere and at time limits."""
    mask: Array = ring.dones.take(indices) * (1 - ring.timeouts.take(indices))
    return mask


@dataclass(frozen=True)
class OneStep:
    """
    The one-step return G_{t:t+1} = R_{t+1} + gamma V(S_{t+1}).

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
    The n-step return (http://incompleteideas.net/book/the-book-2nd.html, equation 7.1)::

        G_{t:t+n} = R_{t+1} + gamma R_{t+2} + ... + gamma^{n-1} R_{t+n} + gamma^n V(S_{t+n})

    It has fewer than n rewards where the episode ends or where the newest stored step is reached: it then bootstraps from the
    observation after that step, or not at all after a termination.

    :param n_steps: the number n of rewards
    :param gamma: the discount factor
    """

    n_steps: int
    gamma: float

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        n_indices, steps = ring.buffer_size * ring.n_envs, np.arange(self.n_steps)
        window = (indices[:, None] + steps * ring.n_envs) % n_indices  # (B, n)
        newest = (ring.pos - 1) % ring.buffer_size
        ended = np.logical_or(ring.dones.take(window), ring.timeouts.take(window))  # (B, n)
        is_last = ended | (window // ring.n_envs == newest)  # (B, n)
        length = np.where(is_last.any(axis=1), is_last.argmax(axis=1) + 1, self.n_steps)  # (B,)
        discounting = self.gamma ** steps.astype(np.float32) * (steps < length[:, None])  # (B, n)
        rewards = normalize(ring.rewards.take(window)) * discounting  # (B, n)
        last_indices = (indices + (length - 1) * ring.n_envs) % n_indices  # (B,)
        discounts = self.gamma ** length.astype(np.float32) * (1 - termination_mask(ring, last_indices))  # (B,)
        return NStepTransitions(rewards.sum(axis=1), discounts, last_indices)


@dataclass(frozen=True)
class MonteCarlo:
    """
    A mixture of the Monte-Carlo return and a bootstrapped return, with share w::

        w G_t + (1 - w) G_{t:t+n},   G_t = R_{t+1} + gamma R_{t+2} + ... + gamma^{T-t-1} R_T

    w = 1 is every-visit Monte-Carlo control (http://incompleteideas.net/book/the-book-2nd.html, sections 5.1 and 5.4).

    A Monte-Carlo return ends without bootstrapping at a termination. In a truncated episode, it bootstraps from the final
    observation. Both parts of the mixture then need their own next state, but a batch has one next state for each transition.
    So a transition of a truncated episode gets G_t with probability w and the bootstrapped return otherwise: in expectation,
    this is the same mixture.

    :param share: the share w of the Monte-Carlo return, in (0, 1]
    :param gamma: the discount factor
    :param bootstrapped_return: the other return
    """

    share: float
    gamma: float
    bootstrapped_return: MultistepReturn

    def __call__(self, ring: RingBuffer, indices: Array, normalize: Callable[[Array], Array]) -> NStepTransitions:
        episodes = cast(RingBufferWithReturns, ring)
        bootstrapped = self.bootstrapped_return(ring, indices, normalize)
        rows, envs = np.divmod(indices, ring.n_envs)  # (B,), (B,)
        ends = episodes.ends.take(indices)  # (B,) rows
        length = (ends - rows) % ring.buffer_size + 1  # (B,)
        last = ends * ring.n_envs + envs  # (B,)
        discounts = self.gamma ** length.astype(np.float32) * (1 - termination_mask(ring, last))  # (B,)
        returns = episodes.returns.take(indices)  # (B,)
        is_truncated = discounts > 0
        use_monte_carlo = is_truncated & (np.random.rand(len(indices)) < self.share) if is_truncated.any() else is_truncated
        share = np.where(is_truncated, 0, np.float32(self.share))
        return NStepTransitions(
            np.where(use_monte_carlo, returns, (1 - share) * bootstrapped.rewards + share * returns),
            np.where(use_monte_carlo, discounts, (1 - share) * bootstrapped.discounts),
            np.where(use_monte_carlo, last, bootstrapped.last_indices),
        )


def monte_carlo_returns(rewards: Array, gamma: float) -> Array:
    """
    Compute the Monte-Carlo returns of all steps of an episode, backwards: G_t = R_{t+1} + gamma G_{t+1}, with G_T = 0.

    :param rewards: the (T,) rewards in the order of the steps
    :param gamma: the discount factor
    :return: the (T,) returns, with the dtype of the rewards
    """
    returns, total = np.empty_like(rewards), 0.0
    for step in reversed(range(len(rewards))):
        total = rewards[step] + gamma * total
        returns[step] = total
    return returns


@lru_cache
def make_multistep_return(n_steps: int, gamma: float, monte_carlo: float) -> MultistepReturn:
    """
    Make the multi-step return that the arguments of a replay buffer define.

    :param n_steps: the number n of rewards
    :param gamma: the discount factor
    :param monte_carlo: the share of the Monte-Carlo return
    """
    bootstrapped = OneStep(gamma) if n_steps == 1 else NStep(n_steps, gamma)
    return bootstrapped if monte_carlo == 0 else MonteCarlo(monte_carlo, gamma, bootstrapped)
