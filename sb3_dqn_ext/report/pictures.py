"""Images and videos of the page, each as a ``data:`` URL."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from sb3_dqn_ext.callbacks.charts import Layout, chart_layout
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.run_files import Series
from sb3_dqn_ext.plot.style import new_axes
from sb3_dqn_ext.plot.values import draw_log
from sb3_dqn_ext.report.blocks import Image, Picture, Video, data_url

__all__ = ["draw_chart", "figure_image", "group_charts", "logged_image", "newest_video", "read_video"]

Charts = dict[str, list[str]]
"""The names of the numbers in each chart, by its title."""

CHART_SIZE = (4.6, 2.7)
"""The width and height of a chart in inches."""
MAX_LEGEND_LINES = 8
"""The largest number of lines that a legend can distinguish."""
MAX_SVG_BYTES = 400_000
"""The size of an SVG file from which a PNG file is used."""
DPI = 160
IMAGE_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"GIF8": "image/gif", b"\xff\xd8\xff": "image/jpeg"}


def figure_image(figure: Figure, alt: str) -> Image:
    """
    Return an image of a figure.

    :param figure: the figure
    :param alt: a description of the figure
    """
    with mpl.rc_context({"svg.hashsalt": "sb3_dqn_ext"}):  # equal figures become equal files
        content, kind = _file_of(figure, "svg"), "image/svg+xml"
    if len(content) > MAX_SVG_BYTES:
        content, kind = _file_of(figure, "png"), "image/png"
    return Image(data_url(kind, content), alt)


def _file_of(figure: Figure, file_format: str) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=file_format, dpi=DPI, metadata={"Date": None} if file_format == "svg" else None)
    return file.getvalue()


def group_charts(logged: Mapping[str, Series]) -> tuple[Layout, Charts]:
    """
    Group logged numbers into the charts of TensorBoard's tab Custom Scalars.

    :param logged: the numbers of each name
    :return: the names of the numbers in each chart, by group and title; and those of the charts on calibration, by title
    """
    curves: Layout = {}
    calibration: Charts = {}
    for group, charts in chart_layout(logged).items():
        for title, patterns in charts.items():
            names = [name for pattern in patterns for name in sorted(logged, key=_natural) if re.fullmatch(pattern, name)]
            place = calibration if names[0].startswith("calibration/") else curves.setdefault(group, {})
            place[title] = names
    return curves, calibration


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names with numbers by the values of the numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def draw_chart(logged: Mapping[str, Series], title: str, names: Sequence[str]) -> Picture:
    """
    Draw a chart.

    :param logged: the numbers of each name
    :param title: the title of the chart
    :param names: the names of the numbers in the chart
    """
    figure, axes = new_axes("", "")
    figure.set_size_inches(*CHART_SIZE)
    axes.locator_params(axis="x", nbins=5)
    draw_log(axes, logged, names)
    if 1 < len(names) <= MAX_LEGEND_LINES:
        figure.legend(
            axes.get_lines()[: len(names)], _labels(names), loc="outside upper left", ncols=3, frameon=False, fontsize="small"
        )
    caption = title if len(names) <= MAX_LEGEND_LINES else f"{title}: {len(names)} lines, {names[0]} to {names[-1]}"
    return Picture(figure_image(figure, f"{title}, over environment steps. {_description(logged, names)}"), caption, "chart")


def _labels(names: Sequence[str]) -> list[str]:
    """Return the labels of lines, without their group if all have the same one."""
    groups = {name.rpartition("/")[0] for name in names}
    return [name if len(groups) > 1 else name.rpartition("/")[2] for name in names]


def _description(logged: Mapping[str, Series], names: Sequence[str]) -> str:
    """
    Describe a chart in words, for readers who do not see it: the last value, its step and the range of each series. At most
    ``MAX_LEGEND_LINES`` series are described.

    :param logged: name -> series of the log
    :param names: the names of the series in the chart
    :return: the description
    """
    lines = []
    for name in names[:MAX_LEGEND_LINES]:
        steps, values = logged[name]
        finite = values[np.isfinite(values)]
        between = f", between {finite.min():.4g} and {finite.max():.4g}" if len(finite) > 1 else ""
        lines.append(f"{name}: {values[-1]:.4g} at step {steps[-1]:,}{between}.")
    return " ".join(lines)


def logged_image(content: bytes, name: str) -> Image:
    """
    Return an image that was logged.

    :param content: the bytes of a file
    :param name: the name under which it was logged
    :raises ArgumentError: if browsers do not support its format
    """
    kind = next((kind for start, kind in IMAGE_TYPES.items() if content.startswith(start)), None)
    if kind is None:
        raise ArgumentError(f"The image {name} of the log is neither PNG nor GIF nor JPEG.")
    return Image(data_url(kind, content), f"{name}, as it was logged last")


def newest_video(folder: Path) -> Path | None:
    """
    Return the video of the latest step of a run, otherwise the newest file, None if there is none.

    :param folder: the run folder
    """
    videos = [path for path in (folder / "videos").glob("*.mp4") if path.is_file() and not path.stem.endswith(".part")]
    return max(videos, key=_age, default=None)


def _age(path: Path) -> tuple[int, float]:
    step = re.fullmatch(r"step_(\d+)", path.stem)
    return int(step[1]) if step else -1, path.stat().st_mtime


def read_video(path: Path) -> Video:
    """
    Read a video file.

    :param path: the file
    :raises ArgumentError: if it is not an mp4 file
    """
    content = path.read_bytes()
    if content[4:8] != b"ftyp":
        raise ArgumentError(f"{path} is not an mp4 file.")
    return Video(data_url("video/mp4", content), f"video of an episode: {path.name}")
