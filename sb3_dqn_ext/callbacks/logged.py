"""What is written to SB3's log, as it is written, and the mean returns among it."""

import copy
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_dqn_ext.callbacks.run_callback import RunCallback

__all__ = [
    "EVALUATED",
    "TRAINED",
    "Excluded",
    "Listener",
    "Listening",
    "OfCallback",
    "Score",
    "Values",
    "evaluated",
    "score_of",
    "trained",
    "without_callbacks",
]

EVALUATED, TRAINED = "eval/mean_reward", "rollout/ep_rew_mean"
"""keys under which SB3 logs mean returns of evaluations, and of training episodes with their exploration"""

Values = Mapping[str, Any]
"""what is logged, by its key"""
Excluded = Mapping[str, tuple[str, ...]]
"""the formats that are not told of a key"""


class Score(NamedTuple):
    """Mean returns in a run."""

    last: float
    best: float
    best_at: int
    """environment steps"""


class OfCallback(KVWriter):
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


def without_callbacks(logger: Logger) -> Logger:
    """
    :param logger: the logger of a run
    :return: one that writes the same, without the output formats of callbacks; the same one, if it has none of these
    """
    formats = [output for output in logger.output_formats if not isinstance(output, OfCallback)]
    if len(formats) == len(logger.output_formats):
        return logger
    other = copy.copy(logger)
    other.output_formats = formats
    return other


class Listener(OfCallback):
    """
    Hears what is logged.

    :param tell: called with it, with what is excluded, and the step
    """

    def __init__(self, tell: Callable[[Values, Excluded, int], None]) -> None:
        self._tell = tell

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self._tell(key_values, key_excluded, step)


class Listening(RunCallback):
    """
    Hears what is logged in a run, and keeps its mean returns. It has something to do where a run begins, where it ends and
    where something is logged: nothing at a step.

    :param verbose: as of every callback
    """

    def __init__(self, verbose: int = 0) -> None:
        super().__init__(verbose)
        self.evaluated: list[float] = []  # as a Score, once there is one: plain data, which a checkpoint holds
        self.trained: list[float] = []
        self._listener = Listener(self._heard)

    def _on_run_start(self, continues: bool) -> None:
        if not continues:
            self.evaluated, self.trained = [], []
        self._listener.join(self.logger)

    def _on_training_end(self) -> None:
        self._listener.leave()
        self._finish()

    def _on_run_end(self) -> None:
        self._listener.leave()

    def _heard(self, values: Values, excluded: Excluded, step: int) -> None:
        """
        :param values: that are logged
        :param excluded: what some formats are not told
        :param step: at which
        """
        if EVALUATED in values:
            self.evaluated = better(self.evaluated, float(values[EVALUATED]), step)
        if TRAINED in values and is_full(self.model):  # the mean of a few episodes is high by chance
            self.trained = better(self.trained, float(values[TRAINED]), step)

    def _finish(self) -> None:
        """Once, at the end of the run."""
        raise NotImplementedError


def better(score: list[float], value: float, step: int) -> list[float]:
    """
    :param score: last, best, and the step of the best; or empty
    :param value: a newer one
    :param step: at which
    :return: the same with it
    """
    return [value, *score[1:]] if score and score[1] >= value else [value, value, step]


def is_full(model: BaseAlgorithm) -> bool:
    """Whether SB3 has as many returns of training episodes as it averages."""
    episodes = model.ep_info_buffer
    return episodes is not None and len(episodes) == episodes.maxlen


def evaluated(callback: Listening) -> Score | None:
    """
    :param callback: that has heard of evaluations
    :return: their mean returns, if there were any
    """
    return Score(callback.evaluated[0], callback.evaluated[1], int(callback.evaluated[2])) if callback.evaluated else None


def trained(callback: Listening) -> Score | None:
    """
    :param callback: that has heard of training
    :return: mean returns of training episodes, those of SB3's average, if there were any
    """
    model = callback.model
    returns = [episode["r"] for episode in model.ep_info_buffer or ()]
    if not returns:
        return None
    last, best, step = better(callback.trained, float(np.mean(returns)), model.num_timesteps)  # of later than what was logged
    return Score(last, best, int(step))


def score_of(callback: Listening) -> Score | None:
    """
    :param callback: that has heard of a run
    :return: mean returns of evaluations, or, where there are none, of training episodes
    """
    return evaluated(callback) or trained(callback)
