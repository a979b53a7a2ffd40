"""Counts of visits of a plane of observations, in a grid of G x G cells."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

__all__ = ["count_visits", "empty_grid"]

Array = npt.NDArray[Any]
VisitGrid = tuple[Array, Array, Array]
"""(G, G) counts, (2,) lower bounds of the grid, (2,) upper bounds"""

MAX_BOUND = 1e6
"""the largest bound of a space that is used as a bound of the grid"""


def empty_grid(space: spaces.Box, points: Array, n_cells: int) -> VisitGrid:
    """
    Make a grid without visits.

    :param space: the space of observations with two components
    :param points: (N, 2) the first observations. Along an axis without bounds, the grid begins as a small interval around
        their median
    :param n_cells: G, the number of cells along each axis, an even number
    :return: the (G, G) counts, and the (2,) lower and (2,) upper bounds
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = (np.abs(low) < MAX_BOUND) & (np.abs(high) < MAX_BOUND) & (high > low)
    middle = np.median(points, axis=0)
    low, high = np.where(bounded, low, middle - 1e-3), np.where(bounded, high, middle + 1e-3)
    return np.zeros((n_cells, n_cells), dtype=np.int64), low, high


def count_visits(counts: Array, low: Array, high: Array, points: Array) -> VisitGrid:
    """
    Count points in a grid. Where points are outside, the grid grows to twice its size, and two cells become one.

    :param counts: (G, G) counts of earlier points, G even
    :param low: (2,) the lower bounds of the grid
    :param high: (2,) its upper bounds
    :param points: (N, 2) the points; those that are not finite are left out
    :return: the grid with the points
    """
    counts, low, high = counts.copy(), low.astype(np.float64), high.astype(np.float64)
    points = points[np.isfinite(points).all(axis=1)].astype(np.float64)
    n_cells = len(counts)
    for axis in range(2) if len(points) else ():
        first, last = points[:, axis].min(), points[:, axis].max()
        while first < low[axis] or last > high[axis]:
            downwards = first < low[axis]
            pairs = np.moveaxis(counts, axis, 0).reshape(n_cells // 2, 2, n_cells).sum(axis=1)  # (G / 2, G)
            empty = np.zeros_like(pairs)
            counts = np.moveaxis(np.concatenate([empty, pairs] if downwards else [pairs, empty]), 0, axis)
            size = high[axis] - low[axis]
            low[axis], high[axis] = (low[axis] - size, high[axis]) if downwards else (low[axis], high[axis] + size)
    cells = np.minimum((points - low) / (high - low) * n_cells, n_cells - 1).astype(np.int64)  # (N, 2)
    np.add.at(counts, (cells[:, 0], cells[:, 1]), 1)
    return counts, low, high
