"""
Pictures of predicted values: beside what came of them, and as they were logged.

Shapes: E entries of a log, N steps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sb3_dqn_ext.callbacks.diagnostics.evaluation import Calibration
from sb3_dqn_ext.callbacks.diagnostics.figures import draw_calibration
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.intervals import rolling_mean
from sb3_dqn_ext.plot.run_files import Series
from sb3_dqn_ext.plot.style import COLORS, LINES, clean_axes, curve_style, log_scale, new_axes

__all__ = ["draw_log", "plot_calibration", "plot_log", "plot_panels"]

Array = npt.NDArray[Any]

WINDOW = 10


# -- predicted and realised ------------------------------------------------------------------------------------------------


def plot_calibration(found: Calibration, title: str) -> Figure:
    """
    Predicted beside realised values: on the diagonal, they are the same.

    :param found: see :func:`~sb3_dqn_ext.plot.measure_calibration`
    :param title: stands above the figure
    """
    figure, axes = new_axes(title)
    draw_calibration(axes, *found, size=4)
    axes.legend(frameon=False, title=f"correlation {found.correlation:.2f}, bias {found.bias:.2f}", markerscale=2)
    return figure


def plot_panels(runs: Mapping[str, tuple[Array, Array, tuple[Array, Array]]], window: int = WINDOW) -> Figure:
    """
    Loss, returns, and predicted beside realised values: a row of three plots for each run.

    :param runs: by label: (E,) losses of trainings, (E,) returns of games, (N,) predicted and (N,) realised values
    :param window: number of games in the rolling mean
    """
    figure = Figure(figsize=(12, 0.5 + 3.4 * len(runs)), layout="constrained")
    panels: Any = figure.subplots(len(runs), 3, squeeze=False)
    for row, (label, (loss, returns, pairs)) in zip(panels, runs.items(), strict=True):
        found = Calibration(*pairs)
        row[0].plot(np.arange(1, len(loss) + 1), loss, LINES[0], color=COLORS[0])
        row[0].set(xlabel="training batch that was logged", ylabel="loss", title=label)
        log_scale(row[0], loss)
        games = np.arange(1, len(returns) + 1)
        row[1].plot(games, returns, ".", color="0.75", markersize=3, label="game")
        row[1].plot(games, rolling_mean(returns, window), LINES[1], color=COLORS[1], label=f"mean of {window}")
        row[1].set(xlabel="game", ylabel="return")
        row[1].legend(frameon=False)
        draw_calibration(row[2], *found, size=2)
        row[2].set_title(f"correlation {found.correlation:.2f}, bias {found.bias:.2f}", fontsize="medium")
        for axes in row:
            clean_axes(axes)
    return figure


# -- what was logged -------------------------------------------------------------------------------------------------------

EXPLORATION = ("rollout/exploration_rate", "rollout/temperature")
VALUES = ("values/mean", "values/min", "values/max")
ACTION_GAPS = ("values/spread", "values/action_gap")
LOSS = ("train/loss",)
CALIBRATION = [
    ("calibration/predicted", "calibration/realised"),
    ("calibration/bias",),
    ("calibration/slope",),
    ("calibration/correlation",),
    ("calibration/mean_return",),
]
REFERENCE_VALUES = {"calibration/bias": 0.0, "calibration/slope": 1.0}
Y_LABELS = {
    "rollout/exploration_rate": "epsilon",
    "rollout/temperature": "temperature",
    "values/mean": "Q-values",
    "values/spread": "between actions",
    "values/churn": "policy churn",
    "values/target_outputs": "distance of the\ntarget's outputs",
    "values/target_parameters": "distance of the\ntarget's parameters",
    "train/loss": "loss",
    "calibration/predicted": "value",
}


def plot_log(logged: Mapping[str, Series], title: str, panels: Sequence[Sequence[str]] | None = None) -> Figure:
    """
    Numbers of a log over time, one plot above the other.

    :param logged: by name, see :func:`~sb3_dqn_ext.plot.scalars`
    :param title: stands above the figure
    :param panels: names of what goes into each of the plots; those that were not logged are left out. None: epsilon, mean,
        smallest and largest Q-values, the loss, and what else :class:`~sb3_dqn_ext.callbacks.QValuesCallback` logs
    :raises ArgumentError: if nothing of that was logged
    """
    if panels is None:
        others = [(name,) for name in logged if name.startswith("values/") and name not in VALUES + ACTION_GAPS]
        panels = [EXPLORATION, VALUES, LOSS, ACTION_GAPS, *others]
    shown = [names for panel in panels if (names := [name for name in panel if name in logged])]
    if not shown:
        looked_for = ", ".join(name for panel in panels for name in panel)
        raise ArgumentError(f"The log of {title} has none of {looked_for}.")
    figure = Figure(figsize=(8, 0.8 + 1.9 * len(shown)), layout="constrained")
    figure.suptitle(title)
    all_axes: Any = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axes, names in zip(all_axes, shown, strict=True):
        draw_log(axes, logged, names)
        axes.set_ylabel(Y_LABELS.get(names[0], names[0].rpartition("/")[2].replace("_", " ")))
        if len(names) > 1:
            axes.legend(frameon=False, ncols=len(names), fontsize="small")
        clean_axes(axes)
    all_axes[-1].set_xlabel("environment steps")
    return figure


def draw_log(axes: Axes, logged: Mapping[str, Series], names: Sequence[str]) -> None:
    """
    :param axes: to draw on
    :param logged: by name, see :func:`~sb3_dqn_ext.plot.scalars`
    :param names: of what is drawn, a line each
    """
    for i, name in enumerate(names):
        marker = "o" if len(logged[name].steps) == 1 else None  # which is no line
        axes.plot(*logged[name], **curve_style(i), marker=marker, linewidth=1.5, label=name.rpartition("/")[2])
    if names[0] in REFERENCE_VALUES:
        axes.axhline(REFERENCE_VALUES[names[0]], color="black", linewidth=0.8, linestyle=":")
    if tuple(names) == LOSS:
        log_scale(axes, logged[names[0]].values)
