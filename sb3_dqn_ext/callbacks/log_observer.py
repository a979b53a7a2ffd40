"""What is written to SB3's log, as it is written, and the mean returns among it."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_dqn_ext.callbacks.run_callback import RunCallback

__all__ = [
    "EVALUATION_KEY",
    "TRAINING_KEY",
    "CallbackOutputFormat",
    "ExcludedFormats",
    "LogObserver",
    "LoggedValues",
    "ObserverOutputFormat",
    "Score",
    "evaluation_score",
    "logger_without_callbacks",
    "run_score",
    "training_score",
]

EVALUATION_KEY, TRAINING_KEY = "eval/mean_reward", "rollout/ep_rew_mean"
"""keys under which SB3 logs mean returns of evaluations, and of training episodes with their exploration"""

LoggedValues = Mapping[str, Any]
"""what is logged, by its key"""
ExcludedFormats = Mapping[str, tuple[str, ...]]
"""the formats that are not told of a key"""


class Score(NamedTuple):
    """Mean returns in a run."""

    last: float
    best: float
    best_at: int
    """environment steps"""


class CallbackOutputFormat(KVWriter):
    """An output format that a callback adds to the logger for the length of its run."""

    logger: Logger | None = None
    """the logger that it belongs to"""

    def join(self, logger: Logger, is_first: bool = False) -> None:
        """
        :param logger: the only logger that it belongs to from now on
        :param is_first: whether it is written before the other formats
        """
        self.leave()
        self.logger = logger
        logger.output_formats.insert(0 if is_first else len(logger.output_formats), self)

    def leave(self) -> None:
        """Leave the logger as it was."""
        if self.logger is not None and self in self.logger.output_formats:
            self.logger.output_formats.remove(self)
        self.logger = None

    def close(self) -> None:
        pass


def logger_without_callbacks(logger: Logger) -> Logger:
    """
    :param logger: the logger of a run
    :return: one that writes the same, without the output formats of callbacks; the same one, if it has none of these
    """
    formats = [output for output in logger.output_formats if not isinstance(output, CallbackOutputFormat)]
    if len(formats) == len(logger.output_formats):
        return logger
    other = copy.copy(logger)
    other.output_formats = formats
    return other


class ObserverOutputFormat(CallbackOutputFormat):
    """
    Hears what is logged.

    :param tell: called with it, with what is excluded, and the step
    """

    def __init__(self, tell: Callable[[LoggedValues, ExcludedFormats, int], None]) -> None:
        self._tell = tell

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._tell(key_values, key_excluded, step)


class LogObserver(RunCallback):
    """
    Hears what is logged in a run, and keeps its mean returns. It has something to do where a run begins, where it ends and
    where something is logged: nothing at a step.

    :param verbose: as of every callback
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.evaluation_returns: list[float] = []  # as a Score, once there is one: plain data, which a checkpoint holds
        self.training_returns: list[float] = []
        self._listener = ObserverOutputFormat(self._heard)

    def _on_run_start(self, continues: bool) -> None:
        if not continues:
            self.evaluation_returns, self.training_returns = [], []
        self._listener.join(self.logger)

    def _on_training_end(self) -> None:
        self._listener.leave()
        self._finish()

    def _on_run_end(self) -> None:
        self._listener.leave()

    def _heard(self, values: LoggedValues, excluded: ExcludedFormats, step: int) -> None:
        """
        :param values: that are logged
        :param excluded: what some formats are not told
        :param step: at which
        """
        if EVALUATION_KEY in values:
            self.evaluation_returns = update_score(self.evaluation_returns, float(values[EVALUATION_KEY]), step)
        if TRAINING_KEY in values and has_full_window(self.model):  # the mean of a few episodes is high by chance
            self.training_returns = update_score(self.training_returns, float(values[TRAINING_KEY]), step)

    def _finish(self) -> None:
        """Once, at the end of the run."""
        raise NotImplementedError


def update_score(score: list[float], value: float, step: int) -> list[float]:
    """
    :param score: last, best, and the step of the best; or empty
    :param value: a newer one
    :param step: at which
    :return: the same with it
    """
    return [value, *score[1:]] if score and score[1] >= value else [value, value, step]


def has_full_window(model: BaseAlgorithm) -> bool:
    """Whether SB3 has as many returns of training episodes as it averages."""
    episodes = model.ep_info_buffer
    return episodes is not None and len(episodes) == episodes.maxlen


def evaluation_score(callback: LogObserver) -> Score | None:
    """
    :param callback: that has heard of evaluations
    :return: their mean returns, if there were any
    """
    return (
        Score(callback.evaluation_returns[0], callback.evaluation_returns[1], int(callback.evaluation_returns[2]))
        if callback.evaluation_returns
        else None
    )


def training_score(callback: LogObserver) -> Score | None:
    """
    :param callback: that has heard of training
    :return: mean returns of training episodes, those of SB3's average, if there were any
    """
    model = callback.model
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    if not returns:
        return None
    last, best, step = update_score(
        callback.training_returns, float(np.mean(returns)), model.num_timesteps
    )  # of later than what was logged
    return Score(last, best, int(step))


def run_score(callback: LogObserver) -> Score | None:
    """
    :param callback: that has heard of a run
    :return: mean returns of evaluations, or, where there are none, of training episodes
    """
    return evaluation_score(callback) or training_score(callback)
