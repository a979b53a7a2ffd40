"""A callback that prepares TensorBoard for the comparison of runs."""

import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.logger import TensorBoardOutputFormat
from torch.utils.tensorboard import summary

from sb3_dqn_ext.callbacks.charts import Layout, chart_layout
from sb3_dqn_ext.callbacks.configuration import Data, describe_env, flatten, model_arguments
from sb3_dqn_ext.callbacks.log_observer import (
    EVALUATION_KEY,
    TRAINING_KEY,
    ExcludedFormats,
    LoggedValues,
    LogObserver,
    run_score,
)
from sb3_dqn_ext.versions import versions

__all__ = ["TensorBoardCallback"]

BEST, FINAL = "achieved/best_return", "achieved/final_return"
"""the tags of scores. TensorBoard sorts them by name and shows the first ones"""
N_SCORES = 100
"""the largest number of scores of training episodes that are written in a run"""


class LogSession:
    """The state of a TensorBoard log. Checkpoints do not contain it, as a run may continue in another log."""

    layout: Layout | None = None
    end: Any = None
    """the end of the session, which is written at the end of the run"""


class TensorBoardCallback(LogObserver):
    """
    A callback that writes the arguments and the score of a run, and a layout of charts, to TensorBoard. Without a TensorBoard
    log, it does nothing.

    - Custom Scalars: charts in the groups learning, values, errors, exploration, memory, network and speed. A chart is added
      when one of its values is logged
    - HParams: a row for each run with the arguments of the model. Arguments that differ between runs come first. The scores
      are ``achieved/best_return`` and ``achieved/final_return``: mean returns of evaluations, or of training episodes where
      there are none. All other logged numbers can be shown, too
    - Text: the arguments of the model, its environment, the command line, and versions of packages
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.score_due = 0  # the step from which on the next score of training episodes is written
        self._session = LogSession()

    def _on_run_start(self, continues: bool) -> None:
        super()._on_run_start(continues)
        if not continues:
            self.tags, self.score_due = [], 0
        self._session = LogSession()
        run_info = run_texts(self.model)
        for board in self._tensorboards():  # the other formats of the logger do not show texts
            board.write(dict(run_info), dict.fromkeys(run_info, ("",)), self.model.num_timesteps)
        self._begin_session()

    def _begin_session(self) -> None:
        """
        Begin a session, which is a row of HParams. SB3's HParam describes an experiment, too, and TensorBoard uses that of the
        first run for all runs: arguments that the first run does not have would have no column, and arguments that differ
        would not come first.
        """
        for board in self._tensorboards():
            to_summaries: Any = summary.hparams
            _, start, self._session.end = to_summaries(flatten(run_arguments(self.model)), {})
            board.writer.file_writer.add_summary(start)

    def _observe(self, values: LoggedValues, excluded: ExcludedFormats, step: int) -> None:
        super()._observe(values, excluded, step)
        if EVALUATION_KEY in values or (TRAINING_KEY in values and step >= self.score_due):
            self.score_due = step + self.model._total_timesteps // N_SCORES
            self._write_score(step)
        new = [key for key, value in values.items() if key not in self.tags and is_charted(value, excluded.get(key))]
        self.tags += new
        if new or self._session.layout is None:
            self._write_layout(chart_layout(self.tags))

    def _write_layout(self, charts: Layout) -> None:
        if charts != self._session.layout:
            self._session.layout = charts
            lines = {name: {title: ["Multiline", tags] for title, tags in group.items()} for name, group in charts.items()}
            for board in self._tensorboards():
                board.writer.add_custom_scalars(lines)

    def _finish(self) -> None:
        self._write_score(self.model.num_timesteps)
        for board in self._tensorboards():
            board.writer.file_writer.add_summary(self._session.end)
            board.writer.flush()

    def _write_score(self, step: int) -> None:
        score = run_score(self)
        if score is not None:
            for board in self._tensorboards():
                board.writer.add_scalar(BEST, score.best, step)
                board.writer.add_scalar(FINAL, score.last, step)

    def _tensorboards(self) -> Iterator[Any]:
        return (output for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat))


def is_charted(value: Any, excluded: tuple[str, ...] | None) -> bool:
    """
    Return whether TensorBoard draws a line for a logged value.

    :param value: the value
    :param excluded: the output formats that do not write it
    :return: whether it is a number that TensorBoard writes
    """
    return isinstance(value, np.ScalarType) and not isinstance(value, str | bytes) and "tensorboard" not in (excluded or ())


def run_arguments(model: Any) -> Data:
    """
    Return the arguments of a run.

    :param model: a model at the start of a run
    :return: the arguments of the model, its environment, and the length of the run, by name
    """
    arguments = {"algorithm": type(model).__name__, "env": describe_env(model.env)[0], "n_envs": model.n_envs}
    return {**arguments, "total_timesteps": model._total_timesteps, **model_arguments(model)}


def run_texts(model: Any) -> dict[str, str]:
    """
    Write the texts about a run.

    :param model: a model at the start of the run
    :return: Markdown, by tag
    """
    return {
        "run/arguments": markdown_table("argument", {**run_arguments(model), "environment": describe_env(model.env)[1]}),
        "run/command": f"    {shlex.join(sys.orig_argv)}",
        "run/versions": markdown_table("package", versions()),
    }


def markdown_table(heading: str, rows: Mapping[str, Any]) -> str:
    """
    Write a table of names and values.

    :param heading: the heading of the names
    :param rows: plain data by name
    :return: Markdown
    """
    lines = [f"| {name} | `{_cell(value)}` |" for name, value in rows.items()]
    return "\n".join([f"| {heading} | value |", "| --- | --- |", *lines])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("`", "'").replace("\n", " ")
