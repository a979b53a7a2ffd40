"""What makes TensorBoard a place to compare runs."""

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

# TensorBoard orders scores by name and shows the first ones
BEST, FINAL = "achieved/best_return", "achieved/final_return"
N_SCORES = 100  # in a run: each line of SB3's log would be one, where there are no evaluations


class LogSession:
    """What is in a log of TensorBoard already, which no checkpoint remembers: a run may go on in another log."""

    layout: Layout | None = None
    end: Any = None
    """of the session, to be written there"""
    score_due = 0
    """the step from which on the score of training episodes is written anew"""


class TensorBoardCallback(LogObserver):
    """
    Tell TensorBoard what the run is, and how to show it. Where nothing is logged to TensorBoard, it does nothing.

    - Custom Scalars: charts in the groups learning, values, errors, exploration, memory, network and speed, each as soon as
      there is something to see in it
    - HParams: a row for each run with the arguments of the model; those in which the runs differ come first. Its scores are
      ``achieved/best_return`` and ``achieved/final_return``, mean returns of evaluations, or of training episodes where there
      are none; every other number that is logged can be shown, too
    - Text: the arguments of the model, its environment, the command that was given, and versions
    """

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self._begun = LogSession()

    def _on_run_start(self, continues: bool) -> None:
        super()._on_run_start(continues)
        if not continues:
            self.tags = []
        self._begun = LogSession()
        told = run_texts(self.model)
        for board in self._boards():  # the logger's other formats could not show it
            board.write(dict(told), dict.fromkeys(told, ("",)), self.model.num_timesteps)
        self._begin_session()

    def _begin_session(self) -> None:
        """
        What HParams calls a run. SB3's HParam describes an experiment, too, and TensorBoard takes that of the first run for
        that of all: arguments that the first run does not have would be in no column, and those that differ not in front.
        """
        for board in self._boards():
            to_summaries: Any = summary.hparams
            _, start, self._begun.end = to_summaries(flatten(run_arguments(self.model)), {})
            board.writer.file_writer.add_summary(start)

    def _heard(self, values: LoggedValues, excluded: ExcludedFormats, step: int) -> None:
        super()._heard(values, excluded, step)
        if EVALUATION_KEY in values or (TRAINING_KEY in values and step >= self._begun.score_due):
            self._begun.score_due = step + self.model._total_timesteps // N_SCORES
            self._write_score(step)
        new = [key for key, value in values.items() if key not in self.tags and is_charted(value, excluded.get(key))]
        self.tags += new
        if new or self._begun.layout is None:
            self._write_layout(chart_layout(self.tags))

    def _write_layout(self, charts: Layout) -> None:
        if charts != self._begun.layout:
            self._begun.layout = charts
            lines = {name: {title: ["Multiline", tags] for title, tags in group.items()} for name, group in charts.items()}
            for board in self._boards():
                board.writer.add_custom_scalars(lines)

    def _finish(self) -> None:
        self._write_score(self.model.num_timesteps)
        for board in self._boards():
            board.writer.file_writer.add_summary(self._begun.end)
            board.writer.flush()

    def _write_score(self, step: int) -> None:
        score = run_score(self)
        if score is not None:
            for board in self._boards():
                board.writer.add_scalar(BEST, score.best, step)
                board.writer.add_scalar(FINAL, score.last, step)

    def _boards(self) -> Iterator[Any]:
        return (output for output in self.logger.output_formats if isinstance(output, TensorBoardOutputFormat))


def is_charted(value: Any, excluded: tuple[str, ...] | None) -> bool:
    """
    :param value: that is logged
    :param excluded: the formats that are not told
    :return: whether TensorBoard draws a line of it
    """
    return isinstance(value, np.ScalarType) and not isinstance(value, str | bytes) and "tensorboard" not in (excluded or ())


def run_arguments(model: Any) -> Data:
    """
    :param model: at the start of a run
    :return: all that was chosen, by name
    """
    shown = {"algorithm": type(model).__name__, "env": describe_env(model.env)[0], "n_envs": model.n_envs}
    return {**shown, "total_timesteps": model._total_timesteps, **model_arguments(model)}


def run_texts(model: Any) -> dict[str, str]:
    """
    :param model: at the start of a run
    :return: Markdown, by tag
    """
    return {
        "run/arguments": markdown_table("argument", {**run_arguments(model), "environment": describe_env(model.env)[1]}),
        "run/command": f"    {shlex.join(sys.orig_argv)}",
        "run/versions": markdown_table("package", versions()),
    }


def markdown_table(of: str, rows: Mapping[str, Any]) -> str:
    """
    :param of: what the names are
    :param rows: plain data by name
    :return: Markdown
    """
    lines = [f"| {name} | `{_cell(value)}` |" for name, value in rows.items()]
    return "\n".join([f"| {of} | value |", "| --- | --- |", *lines])


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("`", "'").replace("\n", " ")
