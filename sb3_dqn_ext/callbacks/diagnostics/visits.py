"""How often each part of a plane of observations was visited: counts in a grid of G x G cells."""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

__all__ = ["count_visits", "empty_grid"]

Array = npt.NDArray[Any]
VisitGrid = tuple[Array, Array, Array]
"""(G, G) counts, (2,) where the grid begins, (2,) where it ends"""

MAX_BOUND = 1e6  # what reaches further has no bounds to speak of


def empty_grid(space: spaces.Box, points: Array, n_cells: int) -> VisitGrid:
    """
    :param space: of observations of two numbers
    :param points: (N, 2) the first observations, which lie near the grid where the space has no bounds
    :param n_cells: G, an even number
    :return: an empty grid
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    bounded = (np.abs(low) < MAX_BOUND) & (np.abs(high) < MAX_BOUND) & (high > low)
    middle = np.median(points, axis=0)
    low, high = np.where(bounded, low, middle - 1e-3), np.where(bounded, high, middle + 1e-3)
    return np.zeros((n_cells, n_cells), dtype=np.int64), low, high


def count_visits(counts: Array, low: Array, high: Array, points: Array) -> VisitGrid:
    """
    Count points in a grid, which grows to twice its size as often as need be, so that all lie in it: two cells become one.

    :param counts: (G, G) of the points before, G even
    :param low: (2,) where the grid begins
    :param high: (2,) where it ends
    :param points: (N, 2); those that are not finite are left out
    :return: the same three, with the points
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
    places = np.minimum((points - low) / (high - low) * n_cells, n_cells - 1).astype(np.int64)  # (N, 2)
    np.add.at(counts, (places[:, 0], places[:, 1]), 1)
    return counts, low, high
