"""Checks of the arguments of the replay buffer."""

import warnings

import numpy as np

from sb3_dqn_ext._validation import check_number, check_type
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.replay.sampler_base import Sampler

__all__ = [
    "check_counts",
    "check_discounting",
    "check_draw",
    "check_flags",
    "check_keep_episodes",
    "check_rows",
    "warn_if_too_large",
]


def check_counts(**counts: int) -> None:
    """
    Check that arguments are whole numbers of at least 1.

    :param counts: the values by the names of their arguments
    :raises ArgumentError: if one is not
    """
    for name, count in counts.items():
        check_number(name, count, low=1, integer=True)


def check_flags(**flags: bool) -> None:
    """
    Check that arguments are True or False.

    :param flags: the values by the names of their arguments
    :raises ArgumentError: if one is neither
    """
    for name, flag in flags.items():
        check_type(name, flag, bool, "True or False")


def check_discounting(n_steps: int, gamma: float | None, monte_carlo: float, td_lambda: float | None) -> None:
    """
    Check the arguments of the multi-step return.

    :param n_steps: the number n of rewards
    :param gamma: the discount factor, if there is one
    :param monte_carlo: the share of the Monte-Carlo return
    :param td_lambda: lambda of lambda returns, if they are used
    :raises ArgumentError: if a value is out of range, gamma is missing, or lambda returns are mixed with other returns
    """
    check_number("monte_carlo", monte_carlo, low=0, high=1)
    if td_lambda is not None:
        check_number("td_lambda", td_lambda, low=0, high=1)
        if n_steps > 1 or monte_carlo > 0:
            other = f"n_steps={n_steps}" if n_steps > 1 else f"monte_carlo={monte_carlo}"
            raise ArgumentError(f"{other} and td_lambda={td_lambda} define two returns; leave one out.")
    if gamma is not None:
        check_number("gamma", gamma, low=0, high=1)
    elif n_steps > 1 or monte_carlo > 0 or td_lambda is not None:
        given = f"n_steps={n_steps}, monte_carlo={monte_carlo}" if td_lambda is None else f"td_lambda={td_lambda}"
        raise ArgumentError(f"{given} need a gamma, too, for example gamma=0.99.")


def check_rows(n_rows: int, buffer_size: int, n_envs: int, n_steps: int, optimize_memory_usage: bool) -> None:
    """
    Check that the rows of a replay buffer can hold one n-step transition.

    :param n_rows: the number of rows
    :param buffer_size: the argument of that name, for the message
    :param n_envs: the number of environments
    :param n_steps: the number n of rewards
    :param optimize_memory_usage: whether one row is needed for the next observation of the newest row
    :raises ArgumentError: if they cannot
    """
    if n_rows < n_steps + optimize_memory_usage:
        raise ArgumentError(
            f"buffer_size={buffer_size} leaves {n_rows} rows for each of {n_envs} environments, "
            f"too few for n_steps={n_steps} and optimize_memory_usage={optimize_memory_usage}."
        )


def check_draw(sampler: str, drawn: object, batch_size: int, stored: tuple[int, int], sizes: tuple[int, int]) -> None:
    """
    Check the result of a user's own sampler, which numpy and torch might wrap around or broadcast.

    :param sampler: the name of its class, for the message
    :param drawn: the result of its :meth:`~sb3_dqn_ext.replay.Sampler.sample`
    :param batch_size: the batch size B
    :param stored: the first of the stored rows, and their number
    :param sizes: the number of rows of the replay buffer, and of transitions in a row
    :raises ArgumentError: if the result is not a pair of indices and weights, or an index is not that of a stored transition
    """
    indices, weights = drawn if isinstance(drawn, tuple) and len(drawn) == 2 else (None, None)
    if not isinstance(indices, np.ndarray) or indices.shape != (batch_size,) or indices.dtype.kind not in "iu":
        raise ArgumentError(
            f"{sampler}.sample must return an array of {batch_size} indices, which are whole numbers, and weights or None. "
            f"It has returned {drawn!r}."
        )
    if weights is not None and (not isinstance(weights, np.ndarray) or weights.shape != (batch_size,)):
        raise ArgumentError(
            f"{sampler}.sample must return an array of {batch_size} weights, or None. It has returned {weights!r}."
        )
    (first_row, n_rows), (size, n_envs) = stored, sizes
    is_stored = (indices // n_envs - first_row) % size < n_rows
    if not (is_stored & (indices >= 0) & (indices < size * n_envs)).all():
        raise ArgumentError(
            f"{sampler}.sample must return indices row * {n_envs} + env of stored transitions; {n_rows} of {size} rows are "
            f"stored, from row {first_row} on. It has returned {indices!r}."
        )


def check_keep_episodes(keep_episodes: int | None, n_envs: int, sampler: Sampler, choice: object) -> None:
    """
    Check the number of kept episodes.

    :param keep_episodes: the number; None: all episodes
    :param n_envs: the number of environments
    :param sampler: the sampler
    :param choice: the argument that named the sampler, for the message
    :raises ArgumentError: if no transition could ever be replayed
    """
    if keep_episodes is None:
        return
    check_counts(keep_episodes=keep_episodes)
    if sampler.draws_whole_rows and keep_episodes < n_envs:
        raise ArgumentError(
            f"keep_episodes={keep_episodes} leaves sampler={choice!r} no complete row: it must be at least n_envs={n_envs}."
        )


def warn_if_too_large(n_transitions: int, observation_bytes: float, action_dim: int) -> None:
    """
    Warn, as SB3 does, if the transitions do not fit into the available memory. Without psutil, do nothing.

    :param n_transitions: the number of transitions
    :param observation_bytes: the bytes for the observations of one transition
    :param action_dim: the number of components of an action
    """
    try:
        import psutil  # an optional dependency of SB3
    except ImportError:
        return
    needed = n_transitions * (observation_bytes + action_dim * 8 + 3 * 4)
    available = psutil.virtual_memory().available
    if needed > available:
        warnings.warn(
            "This system does not have apparently enough memory to store the complete "
            f"replay buffer {needed / 1e9:.2f}GB > {available / 1e9:.2f}GB",
            stacklevel=3,
        )
