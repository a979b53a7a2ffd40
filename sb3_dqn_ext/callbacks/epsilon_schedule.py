"""A callback that lets epsilon follow any schedule."""

from typing import Any

from sb3_dqn_ext.algorithm.schedule_specs import ScheduleSpec, check_range, make_schedule
from sb3_dqn_ext.algorithm.schedules import ProgressSchedule
from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.errors import ArgumentError


class EpsilonScheduleCallback(RunCallback):
    """
    A callback that lets the model's epsilon follow a schedule, in place of the linear schedule of SB3's DQN.

    During the run, it replaces ``model.exploration_schedule``. For other callbacks, and in a model that is saved in the middle
    of the run, the attribute has its original value.

    :param schedule: a schedule, a number, or a mapping such as
        ``{"name": "exponential", "start": 1.0, "end": 0.05, "rate": 1e-4}``; see :mod:`sb3_dqn_ext.algorithm.schedules`.
        Your own schedule is an object, a class or a dotted name
    :raises ArgumentError: if there is no such schedule; at the start of the run, if the model does not explore by a schedule
    """

    def __init__(self, schedule: ScheduleSpec) -> None:
        super().__init__()
        self.schedule = make_schedule(schedule)
        check_range("schedule", self.schedule, low=0)

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        if not hasattr(model, "exploration_schedule"):
            raise ArgumentError(f"{type(model).__name__} has no exploration schedule that could be replaced.")
        self.run.replaced.add("exploration_schedule", ProgressSchedule(self.schedule, model._total_timesteps))
        model.exploration_rate = self.schedule.value(model.num_timesteps, model._total_timesteps)
