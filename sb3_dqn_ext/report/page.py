"""A run, as a page."""

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
    A run as one HTML page: what it was, how it learned, what its values are worth, a film. What cannot be shown is named
    there, with the reason. Files are not trusted: no code in them is run, and all they say is shown as text.

    :param folder: a run folder of the zoo or of SB3
    :param tensorboard: where TensorBoard's logs are, if the run does not tell
    :param n_episodes: how many are played to see what the values are worth; 0: none
    :param model: file in the run folder; None: the best, or else the final, or else the newest one
    :param trust: whether pickles are opened, which the models of ``QRDQN`` are, and classes of your own are imported from
        wherever the run was started
    :return: the page
    """
    return render_page(
        read_run_data(Path(folder), None if tensorboard is None else Path(tensorboard), model, n_episodes, trust)
    )


def render_page(data: RunData) -> str:
    """
    :param data: what is known of a run
    :return: the page
    """
    run = data.run
    began = value_or_none(data.problems, "date", lambda: lifetime(run.folder))
    now = datetime.datetime.now().timestamp()
    return _template().render(
        title=" · ".join(filter(None, [run.env_id or run.name, CLASSES.get(run.algo or "", run.algo)])),
        subtitle=f"{run.folder}{'' if began is None else f', begun on {_date(began[0])}'}",
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
