"""The base class of diagnostics: when they look, what they leave alone, and how they log."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.model_access import find_networks, state_preserved
from sb3_dqn_ext.callbacks.run_callback import NEVER, RunCallback

__all__ = ["TEXT_FORMATS", "Diagnostic"]

Array = npt.NDArray[Any]

TEXT_FORMATS = ("stdout", "log", "json", "csv")
"""formats that show neither histograms nor pictures"""
HISTOGRAM_PERIOD = 4  # looks to one of them: nothing else takes TensorBoard as long to write


class Diagnostic(RunCallback):
    """
    Looks at the model every so often and logs what it sees. It draws no random number that training would have drawn, and
    changes nothing that training depends on.

    What is logged is what was seen last when SB3 writes its log, every ``log_interval`` episodes: it is never written more
    often than that. Histograms are logged at the first look, the fifth, the ninth ...

    Held by an event callback such as ``EveryNTimesteps``, it looks at the first event after ``every`` steps. A diagnostic that
    overrides ``_on_run_step`` observes training between two looks as well.

    Where ``learn`` is called several times with ``reset_num_timesteps=False``, that is one run.

    :param every: environment steps between two looks
    :raises ArgumentError: if it cannot be; at the start of the run, if the model is no DQN
    """

    group = ""
    """the part of all keys before the slash"""

    def __init__(self, every: int) -> None:
        super().__init__()
        check_number("every", every, low=1, integer=True)
        self.every = every
        self._log_at = 0  # the step of the next look
        self._due = NEVER  # the step of the next observation
        self._networks: Any = None  # of the run: the online and the target network
        self._histograms_due: dict[str, int] = {}  # by their names: the step from which on

    @property
    def due(self) -> int:
        """The environment step from which on ``on_step`` has something to do."""
        return self._log_at

    @property
    def _observes_from(self) -> int:
        return self._due

    def _on_run_start(self, continues: bool) -> None:
        before, self._networks = self._networks, find_networks(self.model, type(self).__name__)
        if not continues or self._networks != before:
            self._forget()
            self._histograms_due = {}
        self._begin()
        self._log_at = self._next_look()
        self._due = self._next_observation()
        n_steps = self.model._total_timesteps
        if n_steps < self.every and self._log_at < NEVER:
            warnings.warn(
                f"{type(self).__name__} looks every {self.every} environment steps, and sees nothing of a run of {n_steps}: "
                "give it a smaller every.",
                stacklevel=2,
            )

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._log_at:
            # of a network that has diverged, too, something is to be seen
            with state_preserved(self.model), th.no_grad(), np.errstate(invalid="ignore", over="ignore"):
                self._look()
            self._log_at = self._next_look()
            self._after_look()
        return True

    # what subclasses override, beside ``_put_back``

    def _forget(self) -> None:
        """Forget what was seen in another run."""

    def _begin(self) -> None:
        """Get ready to look."""

    def _next_observation(self) -> int:
        """The environment step from which on ``_on_run_step`` is called, as a run begins."""
        return NEVER

    def _look(self) -> None:
        """Log what is to be seen."""
        raise NotImplementedError

    def _after_look(self) -> None:
        """Plan the next observation."""

    def _next_look(self) -> int:
        """The next multiple of ``every``."""
        return (self.num_timesteps // self.every + 1) * self.every

    # what they log with

    def _generator(self) -> np.random.Generator:
        """One of its own, which has nothing to remember: it is another one at every step."""
        return np.random.default_rng(self.num_timesteps)

    def _record(self, numbers: Mapping[str, float | None], in_table: bool = True) -> None:
        """
        :param numbers: by their names; None is left out
        :param in_table: whether they are shown in the terminal, too
        """
        for name, number in numbers.items():
            if number is not None:
                self.logger.record(f"{self.group}/{name}", number, exclude=None if in_table else ("stdout", "log"))

    def _record_histogram(self, name: str, numbers: Array) -> None:
        if self.num_timesteps < self._histograms_due.get(name, 0):
            return
        finite = numbers[np.isfinite(numbers)]
        if len(finite):
            self._histograms_due[name] = (self.num_timesteps // self.every + HISTOGRAM_PERIOD) * self.every
            self.logger.record(f"{self.group}/{name}", th.from_numpy(finite.astype(np.float32)), exclude=TEXT_FORMATS)
