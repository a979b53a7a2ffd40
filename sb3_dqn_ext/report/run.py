"""A run, as a page."""

import datetime
import functools
from collections.abc import Callable
from pathlib import Path

from sb3_dqn_ext.plot.models import N_EPISODES
from sb3_dqn_ext.plot.runs import lifetime
from sb3_dqn_ext.report import sections, tables
from sb3_dqn_ext.report.page import Html, Section, document, element
from sb3_dqn_ext.report.run_data import Known, attempted, read
from sb3_dqn_ext.versions import versions

__all__ = ["page_of", "report"]

SECTIONS: dict[str, Callable[[Known], Html]] = {
    "summary": tables.facts,
    "command": tables.commands,
    "curves": sections.learning,
    "calibration": sections.calibration,
    "video": sections.video,
    "configuration": tables.configuration,
    "versions": tables.packages,
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
    return page_of(read(Path(folder), None if tensorboard is None else Path(tensorboard), model, n_episodes, trust))


def page_of(known: Known) -> str:
    """
    :param known: of a run
    :return: the page
    """
    run = known.run
    title = " · ".join(filter(None, [run.env_id or run.name, CLASSES.get(run.algo or "", run.algo)]))
    lived = attempted(known.problems, "date", lambda: lifetime(run.folder))
    lines = [element("p", f"{run.folder}{'' if lived is None else f', begun on {_date(lived[0])}'}")]
    sections = [
        Section(name, name.capitalize(), known.attempt(name, functools.partial(make, known)))
        for name, make in SECTIONS.items()
    ]
    now = datetime.datetime.now().timestamp()
    return document(title, lines, sections, f"Written by sb3_dqn_ext {versions()['sb3_dqn_ext']} on {_date(now)}")


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
