"""How every picture looks: colours, lines, hatches and axes."""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

__all__ = ["COLORS", "HATCHES", "LINES", "clean_axes", "curve_style", "log_scale", "new_axes"]

# readable in black and white, and for colour-blind readers (Okabe and Ito)
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
LINES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))]
HATCHES = ["//", "..", "\\\\", "xx", "--", "oo"]

FIGURE_SIZE = (8.0, 4.5)
"""inches"""


def curve_style(i: int) -> dict[str, Any]:
    """
    :param i: which of the curves of a picture
    :return: its colour and its line
    """
    return {"color": COLORS[i % len(COLORS)], "linestyle": LINES[i % len(LINES)]}


def clean_axes(axes: Axes) -> None:
    """
    :param axes: get a faint grid, and no frame
    """
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


class PlainLogFormatter(LogFormatter):
    """Names as many numbers as LogFormatter would, but as 0.2, not as 2e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(axes: Axes, values: npt.NDArray[Any]) -> None:
    """
    :param axes: get a logarithmic y-axis with plain numbers
    :param values: what is drawn there; if none of it is above 0, the axis stays linear
    """
    if not np.any(values > 0):
        return
    axes.set_yscale("log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(PlainLogFormatter(minor_thresholds=(2, 0.4)))


def new_axes(title: str, y_label: str = "return of an episode", x_label: str = "environment steps") -> tuple[Figure, Axes]:
    """
    :param title: stands above the figure
    :param y_label: what is drawn
    :param x_label: over what
    :return: a new figure and its only axes
    """
    figure = Figure(figsize=FIGURE_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    clean_axes(axes)
    return figure, axes
