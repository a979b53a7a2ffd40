"""
Means, and how sure they are.

Shapes: S seeds, E points in the course of training.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from sb3_dqn_ext.plot.run_files import Curve

__all__ = ["align_curves", "bootstrap_interval", "interquartile_mean", "rolling_mean"]

Array = npt.NDArray[Any]

N_RESAMPLES = 2000
RESAMPLES_AT_ONCE = 500  # of draws at once, for the memory


def rolling_mean(values: Array, window: int) -> Array:
    """(E,) values -> (E,) the mean of each and the ``window - 1`` before it, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def interquartile_mean(values: Array, axis: int = 0) -> Array:
    """The mean of the middle half along an axis (https://arxiv.org/abs/2108.13264)."""
    mean: Array = stats.trim_mean(values, proportiontocut=0.25, axis=axis)
    return mean


def bootstrap_interval(returns: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """
    :param returns: (S, E) mean returns of S runs
    :param confidence: how much the interval holds
    :return: (E,) lower and (E,) upper bounds of the interquartile mean, by the percentile bootstrap over seeds; a single run
        says nothing of others, and is its own bounds
    """
    if len(returns) == 1:
        return returns[0], returns[0]
    interval = stats.bootstrap(
        (returns,),
        interquartile_mean,
        n_resamples=N_RESAMPLES,
        batch=RESAMPLES_AT_ONCE,
        vectorized=True,
        axis=0,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return interval.low, interval.high


def align_curves(curves: Sequence[tuple[Array, Array]], n_points: int | None = None) -> Curve:
    """
    Several runs at the same steps, which are those that all of them have reached: a run that ended early ends the curve.

    :param curves: for each of S runs (E_s,) steps and (E_s,) values
    :param n_points: E, how many steps, at equal distances; None: those of the first run
    :return: (E,) steps, and (S, E) values, between those of a run on the straight line from one to the next
    """
    start, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    first = curves[0][0]
    at = first[(first >= start) & (first <= end)] if n_points is None else np.empty(0)
    if len(at) == 0:
        at = np.linspace(min(start, end), end, n_points or len(first))
    return Curve(at, np.array([np.interp(at, steps, values) for steps, values in curves]))
