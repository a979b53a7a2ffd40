"""Stop before numbers that are nan or infinite are remembered or learned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback

from sb3_dqn_ext.callback_tree import all_callbacks
from sb3_dqn_ext.callbacks.finite_checks import StepCheck, UpdateCheck
from sb3_dqn_ext.callbacks.run_callback import RunCallback
from sb3_dqn_ext.errors import ArgumentError


class NonFiniteGuardCallback(RunCallback):
    """
    End the run by a :class:`~sb3_dqn_ext.errors.NonFiniteError` before a number that is nan or infinite enters the replay
    memory or the networks. The message names what is at fault: which entries of an observation, or the reward, of which
    environment; the loss, or the gradient of which parameters, in which update.

    The networks, the optimizer, the replay memory and the statistics of a VecNormalize are then as they were before, and so is
    the newest checkpoint of an :class:`~sb3_dqn_ext.callbacks.ExactCheckpointCallback`, which the message names. A next
    ``learn`` begins new episodes.

    Each step is checked before any callback gets it, also where an event callback such as ``EveryNTimesteps`` holds this one.

    ``DQNExt(..., check_finite=True)`` puts one before the callbacks of each run.

    :raises ArgumentError: at the start of the run, if the model has not one optimizer, as DQN and QRDQN have
    """

    _steps: StepCheck | None = None
    _updates: UpdateCheck | None = None

    @property
    def _observes_from(self) -> int:
        return 0

    def _on_run_start(self, continues: bool) -> None:
        model: Any = self.model
        optimizer = getattr(model.policy, "optimizer", None)
        if not isinstance(optimizer, th.optim.Optimizer):
            raise ArgumentError(f"NonFiniteGuardCallback needs a DQN or QRDQN, not {type(model).__name__}.")
        self._steps, self._updates = StepCheck(model), UpdateCheck(model)
        if hasattr(model, "check_finite"):
            model.run_state.guard = self._updates
        else:
            self._updates.follow(optimizer)
        self._steps.check_start()

    def _on_run_step(self, seen: Mapping[str, Any]) -> None:
        assert self._steps is not None
        # environments may have lists, and 0 and 1 as ends
        rewards, dones = np.asarray(seen["rewards"]), np.asarray(seen["dones"], dtype=bool)
        self._steps.check_step(seen["new_obs"], rewards.ravel(), dones.ravel(), seen["infos"])

    def _put_back(self) -> None:
        model: Any = self.model
        if self._updates is not None:
            self._updates.leave()
            if hasattr(model, "run_state") and model.run_state.guard is self._updates:
                model.run_state.guard = None
        self._steps = self._updates = None


def add_guard(callback: MaybeCallback) -> MaybeCallback:
    """
    :param callback: what ``learn`` takes
    :return: the same with a :class:`NonFiniteGuardCallback` before it, if there is none
    """
    if any(isinstance(one, NonFiniteGuardCallback) for one in all_callbacks(callback)):
        return callback
    others = callback if isinstance(callback, list) else [] if callback is None else [callback]
    return [NonFiniteGuardCallback(), *(one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in others)]
