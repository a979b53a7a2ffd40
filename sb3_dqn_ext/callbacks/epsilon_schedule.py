"""Let epsilon follow any schedule."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback

from sb3_dqn_ext.choices import ArgumentError
from sb3_dqn_ext.schedules import ProgressSchedule, ScheduleSpec, check_range, make_schedule


class EpsilonScheduleCallback(BaseCallback):
    """
    Let the model's epsilon follow a schedule, in place of the straight line that is all that SB3's DQN offers.

    It is ``model.exploration_schedule`` from the start to the end of the run, when the model's own one is put back.

    :param schedule: a schedule, a number, or a mapping such as
        ``{"name": "exponential", "start": 1.0, "end": 0.05, "rate": 1e-4}``; see :mod:`sb3_dqn_ext.schedules`
    :raises ArgumentError: if there is no such schedule; at the start of the run, if the model does not explore by a schedule
    """

    def __init__(self, schedule: ScheduleSpec) -> None:
        super().__init__()
        self.schedule = make_schedule(schedule)
        check_range("schedule", self.schedule, low=0)
        self._followed: ProgressSchedule | None = None

    def _on_training_start(self) -> None:
        model: Any = self.model
        if not hasattr(model, "exploration_schedule"):
            raise ArgumentError(f"{type(model).__name__} has no exploration schedule that could be replaced.")
        if model.exploration_schedule is not self._followed:  # it is after a run that broke off
            self._own = model.exploration_schedule
        self._followed = ProgressSchedule(self.schedule, model._total_timesteps)
        model.exploration_schedule = self._followed
        model.exploration_rate = self.schedule.value(model.num_timesteps, model._total_timesteps)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        model: Any = self.model
        if self._followed is not None and model.exploration_schedule is self._followed:
            model.exploration_schedule = self._own
