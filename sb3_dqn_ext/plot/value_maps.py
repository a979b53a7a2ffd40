"""
Pictures of what models predict over the states.

Shapes: A actions, G points of a grid along each axis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.models import predict_q_values
from sb3_dqn_ext.plot.style import COLORS, HATCHES

__all__ = ["ValueMap", "plot_value_map", "value_map"]

Array = npt.NDArray[Any]
Ranges = Mapping[int, tuple[float, float]]

MAX_BOUND = 1e6
"""bounds beyond it are no bounds"""


@dataclass(frozen=True)
class EnvLabels:
    """What the numbers of an environment mean, and what of them is worth a look."""

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    slices: tuple[tuple[int, int], ...]
    ranges: Ranges
    """of observations that have no bounds, or are far from their bounds in every episode"""


ENV_LABELS = {
    "MountainCar": EnvLabels(("position", "velocity"), ("push left", "no push", "push right"), ((0, 1),), {}),
    "CartPole": EnvLabels(
        ("position of the cart", "velocity of the cart", "angle of the pole", "angular velocity of the pole"),
        ("push left", "push right"),
        ((2, 3), (0, 1)),  # the pole falls; the cart leaves
        {0: (-2.4, 2.4), 1: (-3.0, 3.0), 2: (-0.2095, 0.2095), 3: (-3.5, 3.5)},  # an episode ends at 2.4 and at 12 degrees
    ),
}


class ValueMap(NamedTuple):
    """What a model says of the states of a plane."""

    x: Array
    """(G,)"""
    y: Array
    """(G,)"""
    values: Array
    """(G, G, A) Q-values: [j, i] is at (x_i, y_j)"""


def value_map(model: BaseAlgorithm, x_index: int, y_index: int, ranges: Ranges | None = None, n_points: int = 101) -> ValueMap:
    """
    :param model: of observations that are vectors
    :param x_index: the observation that grows to the right
    :param y_index: the observation that grows upwards. All others are 0, or the bound that is nearest to it
    :param ranges: by observation: from where to where, instead of its bounds
    :param n_points: G
    :raises ArgumentError: if there are no such observations, or one has neither bounds nor a range
    """
    space = model.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"The observations of a map must be vectors, and these are of {space}.")
    n = space.shape[0]
    if x_index == y_index or not {x_index, y_index} <= set(range(n)):
        raise ArgumentError(f"slices={[(x_index, y_index)]} must be of two different observations among 0 to {n - 1}.")
    x, y = (np.linspace(*_range(space, index, ranges or {}), n_points) for index in (x_index, y_index))
    low, high = space.low.astype(float), space.high.astype(float)
    observations = np.tile(np.clip(np.zeros(n), low, high), (n_points, n_points, 1))
    observations[:, :, x_index] = x
    observations[:, :, y_index] = y[:, None]
    values = predict_q_values(model, observations.reshape(-1, n).astype(space.dtype))
    return ValueMap(x, y, values.reshape(n_points, n_points, -1))


def _range(space: spaces.Box, index: int, ranges: Ranges) -> tuple[float, float]:
    if index in ranges:
        return ranges[index]
    low, high = float(space.low[index]), float(space.high[index])
    if max(abs(low), abs(high)) > MAX_BOUND:
        raise ArgumentError(f"ranges={dict(ranges)!r} must hold a range of observation {index}, which has no bounds.")
    return low, high


def plot_value_map(
    model: BaseAlgorithm,
    title: str,
    env_id: str = "",
    slices: Sequence[tuple[int, int]] | None = None,
    ranges: Ranges | None = None,
    n_points: int = 101,
) -> Figure:
    """
    The value of states, which is that of the best action, and the best action: over two observations.

    :param model: of observations that are vectors
    :param title: stands above the figure
    :param env_id: whose observations and actions have names, if it is a MountainCar or a CartPole
    :param slices: pairs of observations, of which each gets a row; the others are 0. None: both, if there are two; for
        CartPole angle and angular velocity, then position and velocity
    :param ranges: by observation: from where to where, instead of its bounds
    :param n_points: how many states along each axis
    :raises ArgumentError: if it must be said which observations, or in which ranges
    """
    known = _known(env_id, model)
    pairs = known.slices if slices is None else slices
    if not pairs:
        n = len(known.observations)
        raise ArgumentError(f"slices={slices!r} must be pairs of the {n} observations of {title}, for example [(0, 1)].")
    maps = [value_map(model, *pair, {**known.ranges, **(ranges or {})}, n_points) for pair in pairs]
    figure = Figure(figsize=(10, 1 + 3.6 * len(maps)), layout="constrained")
    figure.suptitle(title)
    rows: Any = figure.subplots(len(maps), 2, squeeze=False)
    for row, (x_index, y_index), found in zip(rows, pairs, maps, strict=True):
        _draw_values(figure, row[0], found)
        _draw_policy(row[1], found)
        for axes in row:
            axes.set(xlabel=known.observations[x_index], ylabel=known.observations[y_index])
            axes.locator_params(axis="x", nbins=6)
    rows[0, 0].set_title("value of the best action", fontsize="medium")
    rows[0, 1].set_title("best action", fontsize="medium")
    patches = [
        Patch(facecolor=_shade(a), hatch=_hatch(a), edgecolor="black", label=name) for a, name in enumerate(known.actions)
    ]
    figure.legend(handles=patches, loc="outside lower right", ncols=min(len(patches), 6), frameon=False)
    return figure


def _known(env_id: str, model: BaseAlgorithm) -> EnvLabels:
    """What has names, or else numbers."""
    n_observations, n_actions = int(np.prod(model.observation_space.shape or ())), int(getattr(model.action_space, "n", 0))
    for name, known in ENV_LABELS.items():
        if name in env_id and (len(known.observations), len(known.actions)) == (n_observations, n_actions):
            return known
    observations = tuple(f"observation {i}" for i in range(n_observations))
    actions = tuple(f"action {action}" for action in range(n_actions))
    return EnvLabels(observations, actions, ((0, 1),) if n_observations == 2 else (), {})


def _draw_values(figure: Figure, axes: Axes, found: ValueMap) -> None:
    best = found.values.max(axis=2)
    mesh = axes.pcolormesh(found.x, found.y, best, cmap="cividis", shading="nearest", rasterized=True)
    figure.colorbar(mesh, ax=axes, label="Q")
    if np.ptp(best) > 0:
        lines = axes.contour(found.x, found.y, best, levels=6, colors="white", linewidths=0.8, linestyles="-")
        outline: list[AbstractPathEffect] = [withStroke(linewidth=2, foreground="black")]
        lines.set(path_effects=outline)
        for label in axes.clabel(lines, fontsize="small"):
            label.set_path_effects(outline)


def _draw_policy(axes: Axes, found: ValueMap) -> None:
    greedy, n_actions = found.values.argmax(axis=2), found.values.shape[2]
    colors = ListedColormap([_shade(a) for a in range(n_actions)])
    axes.pcolormesh(found.x, found.y, greedy, cmap=colors, vmin=-0.5, vmax=n_actions - 0.5, shading="nearest", rasterized=True)
    for action in np.unique(greedy):
        here = (greedy == action).astype(float)
        axes.contourf(found.x, found.y, here, levels=[0.5, 1.5], colors="none", hatches=[_hatch(action)])


def _shade(action: int) -> str:
    return COLORS[action % len(COLORS)]


def _hatch(action: int) -> str:
    return HATCHES[action % len(HATCHES)]
