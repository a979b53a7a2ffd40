"""What belongs to the running run of a model, and not to the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqn_ext.checkpoint.deferred_signals import DeferredSignals
from sb3_dqn_ext.last_step import LastStep
from sb3_dqn_ext.updates import UpdateGuard

__all__ = ["RunState"]


@dataclass(eq=False)
class RunState:
    """
    The state of a model's run. It is not saved with the model. A copy has only what the next run of the copy continues from.
    """

    callback_states: list[dict[str, Any]] = field(default_factory=list)
    """the states of the callbacks of the last run that wrote checkpoints"""
    resumed: dict[str, Any] | None = None
    """what is still to be restored of a run that continues"""
    callback: BaseCallback | None = None
    """the callback of ``learn``, while it runs"""
    guard: UpdateGuard | None = None
    """checks the numbers of each update"""
    saved_rows: dict[str, Any] = field(default_factory=dict)
    """the checkpoints of the model, by their folder"""
    deferred_signals: DeferredSignals = field(default_factory=DeferredSignals)
    last_step: LastStep | None = None
    """the step from which the next one continues"""
    stepped_envs: Sequence[VecEnv] = ()
    """the training environments, and others that step some of them, too"""

    def __reduce__(self) -> tuple[Callable[..., "RunState"], tuple[Any, ...]]:
        return type(self), (self.callback_states, self.resumed)
