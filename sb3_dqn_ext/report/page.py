"""Render the page on a run."""

import datetime
import functools
from collections.abc import Callable, Iterable
from pathlib import Path

import jinja2

from sb3_dqn_ext.plot.models import N_EPISODES
from sb3_dqn_ext.plot.run_files import lifetime
from sb3_dqn_ext.report.blocks import Block, Section
from sb3_dqn_ext.report.run_data import RunData, read_run_data, value_or_none
from sb3_dqn_ext.report.sections import calibration_blocks, curve_blocks, video_blocks
from sb3_dqn_ext.report.tables import command_blocks, configuration_blocks, summary_blocks, version_blocks
from sb3_dqn_ext.versions import versions

__all__ = ["render_page", "report"]

SECTIONS: dict[str, Callable[[RunData], Iterable[Block]]] = {
    "summary": summary_blocks,
    "command": command_blocks,
    "curves": curve_blocks,
    "calibration": calibration_blocks,
    "video": video_blocks,
    "configuration": configuration_blocks,
    "versions": version_blocks,
}
CLASSES = {"dqn_ext": "DQNExt", "dqn": "DQN", "qrdqn": "QRDQN"}


def report(
    folder: Path | str,
    tensorboard: Path | str | None = None,
    n_episodes: int = N_EPISODES,
    model: str | None = None,
    trust: bool = False,
) -> str:
    """
    Return a report on a run as one HTML page: summary, command, curves, calibration, video, configuration and versions.

    Parts that cannot be shown are replaced by the reason. Files are not trusted: no code in them is run, and their content is
    shown as text.

    :param folder: a run folder of the zoo or of SB3
    :param tensorboard: the folder of the TensorBoard logs, if the run folder does not name it
    :param n_episodes: the number of episodes that are played to compare predicted with realised values; 0: none
    :param model: the file name of the model; None (default): the best model, otherwise the final, otherwise the newest one
    :param trust: whether pickles are opened, such as models of ``QRDQN``, and your own classes are imported from the directory
        where the run was started
    :return: the page
    :raises ArgumentError: if the run has no model of the name ``model``
    """
    return render_page(
        read_run_data(Path(folder), None if tensorboard is None else Path(tensorboard), model, n_episodes, trust)
    )


def render_page(data: RunData) -> str:
    """
    Render the page on a run.

    :param data: the data of the run
    """
    run = data.run
    period = value_or_none(data.problems, "date", lambda: lifetime(run.folder))
    now = datetime.datetime.now().timestamp()
    return _template().render(
        title=" · ".join(filter(None, [run.env_id or run.name, CLASSES.get(run.algo or "", run.algo)])),
        subtitle=f"{run.folder}{'' if period is None else f', started on {_date(period[0])}'}",
        sections=[Section(name, data.blocks(name, functools.partial(make, data))) for name, make in SECTIONS.items()],
        footer=f"Written by sb3_dqn_ext {versions()['sb3_dqn_ext']} on {_date(now)}",
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sb3_dqn_ext", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2")


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
