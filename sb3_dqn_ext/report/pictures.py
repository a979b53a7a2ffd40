"""Pictures and films as they are in the page: each is a ``data:`` URL."""

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
"""by title, the names of what is in a chart"""

CHART_SIZE = (4.6, 2.7)
"""inches of a chart"""
MAX_LEGEND_LINES = 8
"""that a legend could not tell apart"""
MAX_SVG_BYTES = 400_000
"""bytes; a picture with more of them is made of pixels"""
DPI = 160
IMAGE_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"GIF8": "image/gif", b"\xff\xd8\xff": "image/jpeg"}


def figure_image(drawn: Figure, alt: str) -> Image:
    """
    :param drawn: a figure
    :param alt: what there is to see
    """
    with mpl.rc_context({"svg.hashsalt": "sb3_dqn_ext"}):  # the same picture is the same text
        content, kind = _saved(drawn, "svg"), "image/svg+xml"
    if len(content) > MAX_SVG_BYTES:
        content, kind = _saved(drawn, "png"), "image/png"
    return Image(data_url(kind, content), alt)


def _saved(drawn: Figure, file_format: str) -> bytes:
    file = io.BytesIO()
    drawn.savefig(file, format=file_format, dpi=DPI, metadata={"Date": None} if file_format == "svg" else None)
    return file.getvalue()


def group_charts(logged: Mapping[str, Series]) -> tuple[Layout, Charts]:
    """
    :param logged: by name
    :return: the charts of Custom Scalars, by group and title the names of what is in them; and apart from these, by title,
        those of calibration
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
    """Numbers in a name by their size."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def draw_chart(logged: Mapping[str, Series], title: str, names: Sequence[str]) -> Picture:
    """
    :param logged: by name
    :param title: of the chart
    :param names: of what is in it
    """
    drawn, axes = new_axes("", "")
    drawn.set_size_inches(*CHART_SIZE)
    axes.locator_params(axis="x", nbins=5)
    draw_log(axes, logged, names)
    if 1 < len(names) <= MAX_LEGEND_LINES:
        drawn.legend(
            axes.get_lines()[: len(names)], _labels(names), loc="outside upper left", ncols=3, frameon=False, fontsize="small"
        )
    caption = title if len(names) <= MAX_LEGEND_LINES else f"{title}: {len(names)} lines, {names[0]} to {names[-1]}"
    return Picture(figure_image(drawn, f"{title}, over environment steps. {_told(logged, names)}"), caption, "chart")


def _labels(names: Sequence[str]) -> list[str]:
    """What they are called beside each other."""
    groups = {name.rpartition("/")[0] for name in names}
    return [name if len(groups) > 1 else name.rpartition("/")[2] for name in names]


def _told(logged: Mapping[str, Series], names: Sequence[str]) -> str:
    """What a chart shows, in words."""
    lines = []
    for name in names[:MAX_LEGEND_LINES]:
        steps, values = logged[name]
        finite = values[np.isfinite(values)]
        between = f", between {finite.min():.4g} and {finite.max():.4g}" if len(finite) > 1 else ""
        lines.append(f"{name}: {values[-1]:.4g} at step {steps[-1]:,}{between}.")
    return " ".join(lines)


def logged_image(content: bytes, name: str) -> Image:
    """
    :param content: of a file
    :param name: under which it was logged
    :raises ArgumentError: if it is no picture that browsers show
    """
    kind = next((kind for start, kind in IMAGE_TYPES.items() if content.startswith(start)), None)
    if kind is None:
        raise ArgumentError(f"What was logged as {name} is neither PNG nor GIF nor JPEG.")
    return Image(data_url(kind, content), f"{name}, as it was logged last")


def newest_video(folder: Path) -> Path | None:
    """
    :param folder: of a run
    :return: the film of its latest step, or else the newest one, if there is one
    """
    films = [path for path in (folder / "videos").glob("*.mp4") if path.is_file() and not path.stem.endswith(".part")]
    return max(films, key=_age, default=None)


def _age(path: Path) -> tuple[int, float]:
    step = re.fullmatch(r"step_(\d+)", path.stem)
    return int(step[1]) if step else -1, path.stat().st_mtime


def read_video(path: Path) -> Video:
    """
    :param path: of a film
    :raises ArgumentError: if it is none
    """
    content = path.read_bytes()
    if content[4:8] != b"ftyp":
        raise ArgumentError(f"{path} is no mp4 file.")
    return Video(data_url("video/mp4", content), f"film of an episode: {path.name}")
