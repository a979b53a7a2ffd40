"""
Figures of predicted values over the state space.

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
"""Spaces whose bounds are larger count as unbounded."""


@dataclass(frozen=True)
class EnvLabels:
    """
    The names of the components of an environment's observations and of its actions, and the planes of its state space that are
    drawn by default.
    """

    observations: tuple[str, ...]
    actions: tuple[str, ...]
    slices: tuple[tuple[int, int], ...]
    ranges: Ranges
    """Ranges of components that have no bounds, or whose bounds are far from the values in episodes."""


ENV_LABELS = {
    "MountainCar": EnvLabels(("position", "velocity"), ("push left", "no push", "push right"), ((0, 1),), {}),
    "CartPole": EnvLabels(
        ("position of the cart", "velocity of the cart", "angle of the pole", "angular velocity of the pole"),
        ("push left", "push right"),
        ((2, 3), (0, 1)),  # the two ways in which an episode ends
        {0: (-2.4, 2.4), 1: (-3.0, 3.0), 2: (-0.2095, 0.2095), 3: (-3.5, 3.5)},  # an episode ends at 2.4 and at 12 degrees
    ),
}


class ValueMap(NamedTuple):
    """The Q-values of a model on a plane of the state space."""

    x: Array
    """(G,) values of the component on the x-axis."""
    y: Array
    """(G,) values of the component on the y-axis."""
    values: Array
    """(G, G, A) Q-values; [j, i] are those at (x_i, y_j)."""


def value_map(model: BaseAlgorithm, x_index: int, y_index: int, ranges: Ranges | None = None, n_points: int = 101) -> ValueMap:
    """
    Compute the Q-values of a model on a plane of the state space.

    :param model: a model whose observations are vectors
    :param x_index: the index of the component of the observation on the x-axis
    :param y_index: the index of the component on the y-axis; all other components are 0, or their bound nearest to 0
    :param ranges: index -> the smallest and the largest value of the component, in place of its bounds
    :param n_points: G, the number of points along each axis
    :raises ArgumentError: if the observations are no vectors, a component does not exist, or it has neither bounds nor a range
    """
    space = model.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"The observations of a map must be vectors. The observation space of the model is {space}.")
    n = space.shape[0]
    if x_index == y_index or not {x_index, y_index} <= set(range(n)):
        raise ArgumentError(
            f"slices={[(x_index, y_index)]} must be of two different components of an observation among 0 to {n - 1}."
        )
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
        raise ArgumentError(
            f"ranges={dict(ranges)!r} must contain a range for component {index} of the observation, which has no bounds."
        )
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
    Draw the value of the best action, and the best action itself, over two components of the observation.

    :param model: a model whose observations are vectors
    :param title: the title of the figure
    :param env_id: the id of the environment; the figures of MountainCar and CartPole name components and actions
    :param slices: pairs of indices of components, a row of the figure for each pair; all other components are 0, or their
        bound nearest to 0. None (default): both components if there are two; for CartPole angle and angular velocity, then
        position and velocity
    :param ranges: index -> the smallest and the largest value of the component, in place of its bounds
    :param n_points: the number of states along each axis
    :raises ArgumentError: if ``slices`` or ``ranges`` are needed and not given
    """
    labels = _env_labels(env_id, model)
    pairs = labels.slices if slices is None else slices
    if not pairs:
        n = len(labels.observations)
        raise ArgumentError(
            f"slices={slices!r} must be pairs of the {n} components of an observation of {title}, for example [(0, 1)]."
        )
    maps = [value_map(model, *pair, {**labels.ranges, **(ranges or {})}, n_points) for pair in pairs]
    figure = Figure(figsize=(10, 1 + 3.6 * len(maps)), layout="constrained")
    figure.suptitle(title)
    rows: Any = figure.subplots(len(maps), 2, squeeze=False)
    for row, (x_index, y_index), found in zip(rows, pairs, maps, strict=True):
        _draw_values(figure, row[0], found)
        _draw_policy(row[1], found)
        for axes in row:
            axes.set(xlabel=labels.observations[x_index], ylabel=labels.observations[y_index])
            axes.locator_params(axis="x", nbins=6)
    rows[0, 0].set_title("value of the best action", fontsize="medium")
    rows[0, 1].set_title("best action", fontsize="medium")
    patches = [
        Patch(facecolor=_shade(a), hatch=_hatch(a), edgecolor="black", label=name) for a, name in enumerate(labels.actions)
    ]
    figure.legend(handles=patches, loc="outside lower right", ncols=min(len(patches), 6), frameon=False)
    return figure


def _env_labels(env_id: str, model: BaseAlgorithm) -> EnvLabels:
    """
    Return the labels of an environment whose name is in :data:`ENV_LABELS`. For any other, and for another number of
    components or actions, the labels contain numbers.
    """
    n_observations, n_actions = int(np.prod(model.observation_space.shape or ())), int(getattr(model.action_space, "n", 0))
    for name, labels in ENV_LABELS.items():
        if name in env_id and (len(labels.observations), len(labels.actions)) == (n_observations, n_actions):
            return labels
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
