"""What all diagnostics have in common: when they look, what they leave alone, and how they log."""

import importlib.util
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.logger import (
    CSVOutputFormat,
    HumanOutputFormat,
    Image,
    JSONOutputFormat,
    Logger,
)
from stable_baselines3.common.type_aliases import TrainFrequencyUnit

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.callbacks.diagnostics.reading import networks, undisturbed
from sb3_dqn_ext.callbacks.logged import OfCallback
from sb3_dqn_ext.callbacks.run_callback import NEVER, RunCallback

__all__ = ["Diagnostic", "Watching"]

Array = npt.NDArray[Any]

OF_TEXT = ("stdout", "log", "json", "csv")
"""formats that show neither histograms nor pictures"""
TEXTS = (HumanOutputFormat, JSONOutputFormat, CSVOutputFormat)
HISTOGRAMS = 4  # looks to one of them: nothing else takes TensorBoard as long to write


class Pictures(OfCallback):
    """
    Draws what pictures are waiting when the log is written, and adds them to it. So none is drawn that another one replaces,
    and in between there is plain data only, which a checkpoint can hold.

    :param owner: what they are of
    """

    def __init__(self, owner: "Diagnostic") -> None:
        self._owner = owner
        self._logger: Logger | None = None
        self._warned = False

    def join(self, logger: Logger) -> None:
        """:param logger: to add them to, before its formats write"""
        self._logger = logger
        logger.output_formats.insert(0, self)

    def leave(self) -> None:
        """Let the logger be."""
        if self._logger is not None and self in self._logger.output_formats:
            self._logger.output_formats.remove(self)
        self._logger = None

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        assert self._logger is not None
        waiting, self._owner._waiting = self._owner._waiting, {}
        if waiting and self._can_be_shown() and self._can_draw():
            for name, data in waiting.items():
                key = f"{self._owner.group}/{name}"
                key_values[key], key_excluded[key] = Image(self._owner._drawn(name, data), "HWC"), OF_TEXT

    def close(self) -> None:
        pass

    def _can_be_shown(self) -> bool:
        assert self._logger is not None
        return any(not isinstance(output, (*TEXTS, Pictures)) for output in self._logger.output_formats)

    def _can_draw(self) -> bool:
        if importlib.util.find_spec("matplotlib") is not None:
            return True
        if not self._warned:
            self._warned = True
            name = type(self._owner).__name__
            warnings.warn(
                f"{name} logs no pictures, as matplotlib is not installed: pip install 'sb3_dqn_ext[plots]'.", stacklevel=2
            )
        return False


class Diagnostic(RunCallback):
    """
    Looks at the model every so often and logs what it sees. It draws no random number that training would have drawn, and
    changes nothing that training depends on.

    What is logged is what was seen last when SB3 writes its log, every ``log_interval`` episodes: it is never written more
    often than that. Histograms are logged at the first look, the fifth, the ninth ...

    Held by an event callback such as ``EveryNTimesteps``, it looks at the first event after ``every`` steps.

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
        self._due = 0
        self._networks: Any = None  # of the run: the online and the target network
        self._histograms_due: dict[str, int] = {}  # by their names: the step from which on
        self._waiting: dict[str, Any] = {}  # pictures to be drawn, by their names: what they show
        self._pictures = Pictures(self)

    @property
    def due(self) -> int:
        """The environment step from which on ``on_step`` has something to do."""
        return self._due

    def _on_run_start(self, continues: bool) -> None:
        before, self._networks = self._networks, networks(self.model, type(self).__name__)
        if not continues or self._networks != before:
            self._forget()
            self._histograms_due = {}
        self._waiting = {}
        if type(self)._drawn is not Diagnostic._drawn:
            self._pictures.join(self.logger)
        self._begin()
        self._due = self._first_due()
        n_steps = self.model._total_timesteps
        if n_steps < self.every and self._due < NEVER:
            warnings.warn(
                f"{type(self).__name__} looks every {self.every} environment steps, and sees nothing of a run of {n_steps}: "
                "give it a smaller every.",
                stacklevel=2,
            )

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.due:
            self._attend()
        return True

    def _put_back(self) -> None:
        self._end()

    def _on_run_end(self) -> None:
        self._pictures.leave()

    # what others do differently

    def _forget(self) -> None:
        """Forget what was seen in another run."""

    def _begin(self) -> None:
        """Get ready to look."""

    def _end(self) -> None:
        """Undo what was done to get ready; it may be called twice."""

    def _first_due(self) -> int:
        return self._next_look()

    def _attend(self) -> None:
        """Do what is due, and set when it is due again."""
        self._look_undisturbing()
        self._due = self._next_look()

    def _look(self) -> None:
        """Log what is to be seen."""
        raise NotImplementedError

    def _drawn(self, name: str, data: Any) -> Array:
        """
        :param name: of a picture
        :param data: what was given to :meth:`_show`
        :return: (H, W, 3)
        """
        raise NotImplementedError

    # what they do it with

    def _look_undisturbing(self) -> None:
        # of a network that has diverged, too, something is to be seen
        with undisturbed(self.model), th.no_grad(), np.errstate(invalid="ignore", over="ignore"):
            self._look()

    def _next_look(self) -> int:
        """The next multiple of ``every``."""
        return (self.num_timesteps // self.every + 1) * self.every

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
            self._histograms_due[name] = (self.num_timesteps // self.every + HISTOGRAMS) * self.every
            self.logger.record(f"{self.group}/{name}", th.from_numpy(finite.astype(np.float32)), exclude=OF_TEXT)

    def _show(self, name: str, data: Any) -> None:
        """:param data: plain data, from which :meth:`_drawn` makes the picture"""
        self._waiting[name] = data


class Watching(Diagnostic):
    """
    A diagnostic of what goes on in training. It watches in the last fiftieth of the time between two looks, or as long as from
    one training to the next, if that is longer; if nothing happens then, until something does. At most steps there is nothing
    to be done.

    :meth:`_begin` forgets what was seen, and :meth:`_end` watches no longer.

    :param every: environment steps between two looks
    """

    def __init__(self, every: int) -> None:
        super().__init__(every)
        self._log_at = 0

    def _first_due(self) -> int:
        self._log_at = self._next_look()
        return self._watch_from()

    def _watch_from(self) -> int:
        model: Any = self.model
        rounds: int = model.train_freq.frequency if model.train_freq.unit == TrainFrequencyUnit.STEP else 1
        return self._log_at - max(self.every // 50, rounds * self.training_env.num_envs)

    @property
    def due(self) -> int:
        """The environment step of the next look."""
        return self._log_at

    @property
    def _observes_from(self) -> int:
        return self._due

    def _on_run_step(self, seen: Mapping[str, Any]) -> None:
        self._watch()
        if self._has_seen() and self.num_timesteps < self._watch_from():
            self._end()
            self._due = self._watch_from()

    def _attend(self) -> None:
        has_seen = self._has_seen()
        self._look_undisturbing()
        self._log_at = self._next_look()
        if has_seen:
            self._begin()
            self._due = self._watch_from()

    def _watch(self) -> None:
        """Watch from now on; it may do so already."""
        raise NotImplementedError

    def _has_seen(self) -> bool:
        """Whether there is something to be logged."""
        raise NotImplementedError
