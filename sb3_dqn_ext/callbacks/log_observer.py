"""The base class of callbacks that observe SB3's log, and the mean returns that are logged."""

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
"""the log keys of the mean returns of evaluations, and of training episodes with their exploration"""

LoggedValues = Mapping[str, Any]
"""logged values by their keys"""
ExcludedFormats = Mapping[str, tuple[str, ...]]
"""for each key, the output formats that do not write it"""


class Score(NamedTuple):
    """The last and the best mean return of a run."""

    last: float
    best: float
    best_at: int
    """the environment step of the best mean return"""


class CallbackOutputFormat(KVWriter):
    """An output format that a callback adds to the logger for the duration of its run."""

    logger: Logger | None = None
    """the logger that it was added to"""

    def join(self, logger: Logger, is_first: bool = False) -> None:
        """
        Add the format to a logger, and remove it from its previous one.

        :param logger: the logger
        :param is_first: whether the format is called before the other formats; False (default): after them
        """
        self.leave()
        self.logger = logger
        logger.output_formats.insert(0 if is_first else len(logger.output_formats), self)

    def leave(self) -> None:
        """Remove the format from its logger."""
        if self.logger is not None and self in self.logger.output_formats:
            self.logger.output_formats.remove(self)
        self.logger = None

    def close(self) -> None:
        pass


def logger_without_callbacks(logger: Logger) -> Logger:
    """
    Return a logger without the output formats of callbacks.

    :param logger: the logger of a run
    :return: a shallow copy without these formats, which shares the recorded values; the logger itself, if it has none of them
    """
    formats = [output for output in logger.output_formats if not isinstance(output, CallbackOutputFormat)]
    if len(formats) == len(logger.output_formats):
        return logger
    other = copy.copy(logger)
    other.output_formats = formats
    return other


class ObserverOutputFormat(CallbackOutputFormat):
    """
    An output format that passes logged values to a function.

    :param function: called with the values, the excluded formats, and the step
    """

    def __init__(self, function: Callable[[LoggedValues, ExcludedFormats, int], None]) -> None:
        self._function = function

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._function(key_values, key_excluded, step)


class LogObserver(RunCallback):
    """
    The base class of callbacks that observe the log of a run and record its mean returns. It acts at the beginning and the
    end of a run, and when values are logged, but not at environment steps.

    :param verbose: the verbosity level of the callback
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.evaluation_returns: list[float] = []  # the fields of a Score, as plain data for checkpoints; or empty
        self.training_returns: list[float] = []
        self._output_format = ObserverOutputFormat(self._observe)

    def _on_run_start(self, continues: bool) -> None:
        if not continues:
            self.evaluation_returns, self.training_returns = [], []
        self._output_format.join(self.logger)

    def _on_training_end(self) -> None:
        self._output_format.leave()
        self._finish()

    def _on_run_end(self) -> None:
        self._output_format.leave()

    def _observe(self, values: LoggedValues, excluded: ExcludedFormats, step: int) -> None:
        """
        Record the mean returns among logged values.

        :param values: the values
        :param excluded: the output formats that do not write them
        :param step: the environment step
        """
        if EVALUATION_KEY in values:
            self.evaluation_returns = update_score(self.evaluation_returns, float(values[EVALUATION_KEY]), step)
        if TRAINING_KEY in values and has_full_window(self.model):  # the mean of a few episodes is high by chance
            self.training_returns = update_score(self.training_returns, float(values[TRAINING_KEY]), step)

    def _finish(self) -> None:
        """Finish the work of the callback, once, at the end of the run."""
        raise NotImplementedError


def update_score(score: list[float], value: float, step: int) -> list[float]:
    """
    Update a score by a newer mean return.

    :param score: the last and the best mean return, and the step of the best; or empty
    :param value: the newer mean return
    :param step: its step
    :return: the updated score
    """
    return [value, *score[1:]] if score and score[1] >= value else [value, value, step]


def has_full_window(model: BaseAlgorithm) -> bool:
    """Return whether SB3 averages over its whole window of training episodes."""
    episodes = model.ep_info_buffer
    return episodes is not None and len(episodes) == episodes.maxlen


def evaluation_score(callback: LogObserver) -> Score | None:
    """
    Return the score of the evaluations of a run.

    :param callback: the observer of the run
    :return: the score; None if there were no evaluations
    """
    return (
        Score(callback.evaluation_returns[0], callback.evaluation_returns[1], int(callback.evaluation_returns[2]))
        if callback.evaluation_returns
        else None
    )


def training_score(callback: LogObserver) -> Score | None:
    """
    Return the score of the training episodes of a run: of their mean returns over SB3's window.

    :param callback: the observer of the run
    :return: the score; None if no episode has ended
    """
    model = callback.model
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    if not returns:
        return None
    last, best, step = update_score(
        callback.training_returns, float(np.mean(returns)), model.num_timesteps
    )  # after the last logged one
    return Score(last, best, int(step))


def run_score(callback: LogObserver) -> Score | None:
    """
    Return the score of a run.

    :param callback: the observer of the run
    :return: the score of its evaluations, or, if there are none, of its training episodes
    """
    return evaluation_score(callback) or training_score(callback)
