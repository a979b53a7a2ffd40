"""Callbacks that keep a network able to learn: resets, shrink and perturb, recycled units, schedules of n and gamma."""

from sb3_dqn_ext.callbacks.plasticity.multistep_schedule import MultistepScheduleCallback
from sb3_dqn_ext.callbacks.plasticity.redo import ReDoCallback
from sb3_dqn_ext.callbacks.plasticity.reset import ResetCallback

__all__ = ["MultistepScheduleCallback", "ReDoCallback", "ResetCallback"]
