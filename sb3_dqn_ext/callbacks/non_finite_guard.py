"""A callback that ends a run before a number that is nan or infinite is stored or trained on."""

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
    A callback that ends the run by a :class:`~sb3_dqn_ext.errors.NonFiniteError` before a number that is nan or infinite
    enters the replay buffer or the networks. The message names the cause: the entries of an observation, or the reward, and
    their environment; the loss, or the parameters of the gradient, and the number of the update.

    The networks, the optimizer, the replay buffer and the statistics of a VecNormalize are then as they were before. So is the
    newest checkpoint of an :class:`~sb3_dqn_ext.callbacks.ExactCheckpointCallback`, which the message names. The next
    ``learn`` begins new episodes.

    Each step is checked before any callback gets it, also if an event callback such as ``EveryNTimesteps`` holds this one.

    ``DQNExt(..., check_finite=True)`` adds this callback to each run, before the other callbacks.

    :raises ArgumentError: at the start of the run, if the model does not have exactly one optimizer, as DQN and QRDQN do
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
            self._updates.attach(optimizer)
        self._steps.check_start()

    def _on_run_step(self, locals_: Mapping[str, Any]) -> None:
        assert self._steps is not None
        # environments may return lists, and 0 and 1 as dones
        rewards, dones = np.asarray(locals_["rewards"]), np.asarray(locals_["dones"], dtype=bool)
        self._steps.check_step(locals_["new_obs"], rewards.ravel(), dones.ravel(), locals_["infos"])

    def _restore_model(self) -> None:
        model: Any = self.model
        if self._updates is not None:
            self._updates.detach()
            if hasattr(model, "run_state") and model.run_state.guard is self._updates:
                model.run_state.guard = None
        self._steps = self._updates = None


def add_guard(callback: MaybeCallback) -> MaybeCallback:
    """
    Put a :class:`NonFiniteGuardCallback` before the callbacks of a run, unless they include one already.

    :param callback: the ``callback`` of ``learn``
    :return: a list of the guard and the callbacks; ``callback`` itself if it includes a guard
    """
    if any(isinstance(one, NonFiniteGuardCallback) for one in all_callbacks(callback)):
        return callback
    others = callback if isinstance(callback, list) else [] if callback is None else [callback]
    return [NonFiniteGuardCallback(), *(one if isinstance(one, BaseCallback) else ConvertCallback(one) for one in others)]
