"""The state of a model's current run, which is not part of the saved model."""

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
    The state of a model's current run.

    It is not saved with the model. A copy has only ``callback_states`` and ``resumed``, from which its next run continues.
    """

    callback_states: list[dict[str, Any]] = field(default_factory=list)
    """the states of the callbacks of the last run that wrote checkpoints"""
    resumed: dict[str, Any] | None = None
    """the state of a checkpoint that is still to be restored; None if there is none"""
    callback: BaseCallback | None = None
    """the callback of ``learn`` while it runs"""
    guard: UpdateGuard | None = None
    """the guard that checks the numbers of each update for nan and infinity, or None"""
    saved_rows: dict[str, Any] = field(default_factory=dict)
    """the part of the replay buffer that is saved in each folder of checkpoints"""
    deferred_signals: DeferredSignals = field(default_factory=DeferredSignals)
    """the handling of signals that interrupt the run"""
    last_step: LastStep | None = None
    """the step from which the next one continues"""
    defers_training: bool = False
    """whether the next training waits for the next step, with ``step_while_learning``"""
    due_training: tuple[int, int] | None = None
    """``gradient_steps`` and ``batch_size`` of the training to make during the next step, or None"""
    is_offline: bool = False
    """whether gradient steps take the place of the steps of the environments"""
    actor_pool: Any = None
    """the actors of the run, with ``actors``; None until it collects its first transition"""
    acting_values: Any = None
    """the (n_envs, A) Q-values of the latest observations; None if they are not computed"""
    stepped_envs: Sequence[VecEnv] = ()
    """the innermost training environments, and other vectorised environments that share some of them"""

    def __reduce__(self) -> tuple[Callable[..., "RunState"], tuple[Any, ...]]:
        return type(self), (self.callback_states, self.resumed)
