"""
Pictures of diagnostics, drawn by matplotlib without a window and without its global state.

Import this module where a picture is drawn: matplotlib takes half a second to import, and need not be installed.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_calibration", "heat_map_image", "scatter_image"]

Array = npt.NDArray[Any]
Frame = npt.NDArray[np.uint8]

BLUE = "#0072B2"  # readable in black and white, and for colour-blind readers (Okabe and Ito)
SIDE, DPI = 464, 100  # pixels of a picture, and pixels of an inch


def draw_calibration(axes: Axes, predicted: Array, realised: Array, size: float) -> None:
    """
    Draw predicted over realised values: on the dashed line, both are equal.

    :param axes: to draw on
    :param predicted: (N,); what is not finite is left out
    :param realised: (N,)
    :param size: of a point
    """
    finite = np.isfinite(predicted) & np.isfinite(realised)
    predicted, realised = predicted[finite], realised[finite]
    both = np.concatenate([predicted, realised]) if len(predicted) else np.array([0.0, 1.0])
    ends = [both.min(), both.max()]
    axes.plot(realised, predicted, ".", color=BLUE, markersize=size, alpha=0.3, rasterized=True, label="an action")
    axes.plot(ends, ends, "--", color="black", linewidth=1, label="as predicted")
    axes.set(xlabel="realised discounted return", ylabel="predicted Q-value")


def scatter_image(predicted: Array, realised: Array, title: str) -> Frame:
    """
    :param predicted: (N,)
    :param realised: (N,)
    :param title: stands above the picture
    :return: (H, W, 3) a point for each pair, see :func:`draw_calibration`
    """
    figure, axes = _new_axes(title)
    draw_calibration(axes, predicted, realised, size=4)
    return _pixels(figure)


def heat_map_image(counts: Array, low: Array, high: Array, title: str) -> Frame:
    """
    :param counts: (G, G) how often each cell was visited: the first axis is that of the first number of an observation
    :param low: (2,) where the cells begin
    :param high: (2,) where they end
    :param title: stands above the picture
    :return: (H, W, 3) the brighter, the more often, on a logarithmic scale; white: never
    """
    figure, axes = _new_axes(title)
    logs = np.log1p(np.ma.masked_equal(counts, 0)).T
    axes.imshow(logs, origin="lower", extent=(low[0], high[0], low[1], high[1]), aspect="auto", interpolation="nearest")
    axes.set(xlabel="first number of the observation", ylabel="second number")
    return _pixels(figure)


def _new_axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIDE / DPI, SIDE / DPI), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize="medium")
    return figure, axes


def _pixels(figure: Figure) -> Frame:
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    pixels: Frame = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return pixels
