"""The base class of diagnostics that observe training between two measurements."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.type_aliases import TrainFrequencyUnit

from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic

__all__ = ["WindowedDiagnostic"]


class WindowedDiagnostic(Diagnostic):
    """
    A diagnostic that observes training in a window before each measurement, so that most steps cost nothing.

    The window is the last fiftieth of the interval, or as long as the steps from one training to the next, if those are more.
    If nothing happens in the window, it lasts until something does.

    :meth:`_prepare` discards the observations of the last window, and :meth:`_restore_model` ends the observation.

    :param every: environment steps between two measurements; None (default): see :class:`Diagnostic`
    """

    def _next_observation(self) -> int:
        """Return the environment step at which the window begins."""
        model: Any = self.model
        steps_per_env: int = model.train_freq.frequency if model.train_freq.unit == TrainFrequencyUnit.STEP else 1
        return self._measurement_due - max(self.interval // 50, steps_per_env * self.training_env.num_envs)

    def _on_run_step(self, locals_: Mapping[str, Any]) -> None:
        self._start_observing()
        if self._has_observations() and self.num_timesteps < self._next_observation():
            self._restore_model()
            self._observation_due = self._next_observation()

    def _after_measurement(self) -> None:
        if self._has_observations():
            self._prepare()
            self._observation_due = self._next_observation()

    def _start_observing(self) -> None:
        """Observe training from now on. Further calls have no effect."""
        raise NotImplementedError

    def _has_observations(self) -> bool:
        """Return whether there is something to log."""
        raise NotImplementedError
