"""Let epsilon follow any schedule."""

from typing import Any

from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.choices import ArgumentError
from sb3_dqn_ext.schedules import ProgressSchedule, ScheduleSpec, check_range, make_schedule


class EpsilonScheduleCallback(RunCallback):
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
        self._own: Any = None

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        if not hasattr(model, "exploration_schedule"):
            raise ArgumentError(f"{type(model).__name__} has no exploration schedule that could be replaced.")
        self._own, self._followed = model.exploration_schedule, ProgressSchedule(self.schedule, model._total_timesteps)
        model.exploration_schedule = self._followed
        model.exploration_rate = self.schedule.value(model.num_timesteps, model._total_timesteps)

    def _put_back(self) -> None:
        model: Any = self.model
        if self._followed is not None and model.exploration_schedule is self._followed:
            model.exploration_schedule = self._own
        self._own = self._followed = None
