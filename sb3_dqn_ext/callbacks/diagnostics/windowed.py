"""Diagnostics of what goes on in training between two looks."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFrequencyUnit

from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic

__all__ = ["WindowedDiagnostic"]


class WindowedDiagnostic(Diagnostic):
    """
    A diagnostic of what goes on in training. It watches in the last fiftieth of the time between two looks, or as long as from
    one training to the next, if that is longer; if nothing happens then, until something does. At most steps there is nothing
    to be done.

    :meth:`_begin` forgets what was seen, and :meth:`_put_back` watches no longer.

    :param every: environment steps between two looks
    """

    def _next_observation(self) -> int:
        """The environment step from which on it watches."""
        model: Any = self.model
        rounds: int = model.train_freq.frequency if model.train_freq.unit == TrainFrequencyUnit.STEP else 1
        return self._log_at - max(self.every // 50, rounds * self.training_env.num_envs)

    def _on_run_step(self, seen: Mapping[str, Any]) -> None:
        self._watch()
        if self._has_seen() and self.num_timesteps < self._next_observation():
            self._put_back()
            self._due = self._next_observation()

    def _after_look(self) -> None:
        if self._has_seen():
            self._begin()
            self._due = self._next_observation()

    def _watch(self) -> None:
        """Watch from now on; it may do so already."""
        raise NotImplementedError

    def _has_seen(self) -> bool:
        """Whether there is something to be logged."""
        raise NotImplementedError
