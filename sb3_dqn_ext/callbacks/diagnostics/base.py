"""The base class of diagnostics: the steps at which they measure, and their access to SB3's logger."""

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, state_preserved
from sb3_dqn_ext.callbacks.run_callback import NEVER, RunCallback

__all__ = ["TEXT_FORMATS", "DefaultRate", "Diagnostic"]

Array = npt.NDArray[Any]

TEXT_FORMATS = ("stdout", "log", "json", "csv")
"""the output formats of SB3's logger that show neither histograms nor pictures"""
HISTOGRAM_PERIOD = 4
"""measurements from one logged histogram to the next: TensorBoard takes longest to write histograms"""
MAX_TIMESTEPS = 10_000_000
"""the longest run for which the interval grows: a run that a callback stops may have any ``total_timesteps``"""


class DefaultRate(NamedTuple):
    """
    The number of measurements in a run of any length, where a user chooses no interval.

    Intervals depend on ``total_timesteps`` only, so that runs of the same length, and resumed runs, measure at the same steps.
    """

    n_measurements: int
    """the number of measurements in a long run"""
    min_measurements: int
    """the number of measurements in a short run, although they take a larger share of its time"""
    min_interval: int
    """the number of environment steps between two measurements that cost less than 5 % of the training time"""

    def interval(self, total_timesteps: int) -> int:
        """
        Compute the number of environment steps between two measurements.

        :param total_timesteps: the length of the run in environment steps; 0 if it is unknown
        :return: the interval for ``n_measurements``, or ``min_interval`` if that is longer, but never so long that there would
            be fewer than ``min_measurements``; ``min_interval`` if the length is unknown
        """
        if total_timesteps <= 0:
            return self.min_interval
        longest = max(total_timesteps // self.min_measurements, 1)
        return max(min(total_timesteps, MAX_TIMESTEPS) // self.n_measurements, min(self.min_interval, longest))


class Diagnostic(RunCallback):
    """
    A callback that measures something about the model at regular steps and logs it. It draws no random number that training
    would draw, and changes no state that training depends on.

    SB3 writes its log every ``log_interval`` episodes. Of several measurements in between, the last one is logged. Histograms
    are logged with the first measurement, the fifth, the ninth ...

    If an event callback such as ``EveryNTimesteps`` holds a diagnostic, it measures at the first event after each interval. A
    diagnostic that overrides ``_on_run_step`` observes training between two measurements as well.

    Several calls of ``learn`` with ``reset_num_timesteps=False`` are one run.

    :param every: environment steps between two measurements. None (default): the interval follows from the
        ``total_timesteps`` of ``learn``, see :class:`DefaultRate`, and what was measured last is logged at the end of the run
    :raises ArgumentError: if ``every`` is no whole number of at least 1; at the start of the run, if the model is no DQN
    """

    group = ""
    """the part of all log keys before the slash"""
    default_rate = DefaultRate(n_measurements=40, min_measurements=10, min_interval=10_000)
    """the rate of measurements if ``every`` is None"""

    def __init__(self, every: int | None = None) -> None:
        super().__init__()
        if every is not None:
            check_number("every", every, low=1, integer=True)
        self.every = every
        self._measurement_due = 0  # the step of the next measurement
        self._observation_due = NEVER  # the step of the next observation
        self._networks: Any = None  # the online and the target network of the run
        self._histograms_due: dict[str, int] = {}  # for each histogram, the first step at which it is logged again

    @property
    def interval(self) -> int:
        """The number of environment steps between two measurements of the current run."""
        return self.default_rate.interval(self.model._total_timesteps) if self.every is None else self.every

    @property
    def due(self) -> int:
        """The environment step from which on ``on_step`` has something to do."""
        return self._measurement_due

    @property
    def _observes_from(self) -> int:
        return self._observation_due

    def _on_run_start(self, continues: bool) -> None:
        before, self._networks = self._networks, find_networks(self.model, type(self).__name__)
        if not continues or self._networks != before:
            self._reset()
            self._histograms_due = {}
        self._prepare()
        self._measurement_due = self._next_measurement()
        self._observation_due = self._next_observation()
        n_steps = self.model._total_timesteps
        if n_steps < self.interval and self._measurement_due < NEVER:
            warnings.warn(
                f"{type(self).__name__} measures every {self.interval} environment steps, and the run ends after {n_steps}: "
                "give it a smaller every, or None for an interval that fits the run.",
                stacklevel=2,
            )

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._measurement_due:
            # a network that has diverged is measured without warnings
            with state_preserved(self.model), th.no_grad(), np.errstate(invalid="ignore", over="ignore"):
                self._measure()
            self._measurement_due = self._next_measurement()
            self._after_measurement()
        return True

    def _on_training_end(self) -> None:
        n_steps = self.model.num_timesteps
        is_complete = n_steps >= self.model._total_timesteps
        # SB3 writes no log after the last episode, and a short run may have measured nothing before it
        if self.every is None and is_complete and any(key.startswith(f"{self.group}/") for key in self.logger.name_to_value):
            self.logger.dump(n_steps)

    # methods that subclasses override, beside ``_restore_model``

    def _reset(self) -> None:
        """Discard what was recorded in another run."""

    def _prepare(self) -> None:
        """Prepare the measurements of a run, or of the next interval."""

    def _next_observation(self) -> int:
        """Return the environment step from which on ``_on_run_step`` is called."""
        return NEVER

    def _measure(self) -> None:
        """Measure, and pass the results to the logger."""
        raise NotImplementedError

    def _after_measurement(self) -> None:
        """Plan the next observation."""

    def _next_measurement(self) -> int:
        """Return the step of the next measurement: the next multiple of the interval."""
        return (self.num_timesteps // self.interval + 1) * self.interval

    # methods with which subclasses log

    def _generator(self) -> np.random.Generator:
        """Return a generator that is seeded by the step, so that a checkpoint need not store its state."""
        return np.random.default_rng(self.num_timesteps)

    def _record(self, metrics: Mapping[str, float | None], in_table: bool = True) -> None:
        """
        Pass metrics to the logger.

        :param metrics: numbers by their names; None is left out
        :param in_table: whether the table in the terminal shows them, too
        """
        for name, number in metrics.items():
            if number is not None:
                self.logger.record(f"{self.group}/{name}", number, exclude=None if in_table else ("stdout", "log"))

    def _record_histogram(self, name: str, numbers: Array) -> None:
        """
        Pass a histogram to the logger, if it is due.

        :param name: the name of the histogram
        :param numbers: (N,) the numbers; those that are not finite are left out
        """
        if self.num_timesteps < self._histograms_due.get(name, 0):
            return
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            self._histograms_due[name] = (self.num_timesteps // self.interval + HISTOGRAM_PERIOD) * self.interval
            self.logger.record(f"{self.group}/{name}", th.from_numpy(finite.astype(np.float32)), exclude=TEXT_FORMATS)
