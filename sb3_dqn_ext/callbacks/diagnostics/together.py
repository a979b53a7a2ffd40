"""All diagnostics in one line."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.callbacks import CallbackList

from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.calibration import ValueCalibrationCallback
from sb3_dqn_ext.callbacks.diagnostics.errors import TDErrorsCallback
from sb3_dqn_ext.callbacks.diagnostics.evaluation import CannotMake
from sb3_dqn_ext.callbacks.diagnostics.exploration import ExplorationCallback
from sb3_dqn_ext.callbacks.diagnostics.network import NetworkHealthCallback
from sb3_dqn_ext.callbacks.diagnostics.replay import ReplayHealthCallback
from sb3_dqn_ext.callbacks.diagnostics.values import QValuesCallback
from sb3_dqn_ext.callbacks.diagnostics.video import EpisodeVideoCallback
from sb3_dqn_ext.choices import check_keys, check_type, parameters_of

__all__ = ["DiagnosticsCallback"]

Choice = bool | Mapping[str, Any] | None
PARTS: dict[str, type[Diagnostic]] = {
    "values": QValuesCallback,
    "errors": TDErrorsCallback,
    "replay": ReplayHealthCallback,
    "network": NetworkHealthCallback,
    "exploration": ExplorationCallback,
    "calibration": ValueCalibrationCallback,
    "video": EpisodeVideoCallback,
}


class DiagnosticsCallback(CallbackList):
    """
    All diagnostics together, at rates that cost little. Training ends with the same bits as without.

    Each argument is True, False, or the arguments of that part, e.g. ``calibration={"every": 10_000}``, ``video=True``.

    :param values: :class:`~sb3_dqn_ext.callbacks.QValuesCallback`
    :param errors: :class:`~sb3_dqn_ext.callbacks.TDErrorsCallback`
    :param replay: :class:`~sb3_dqn_ext.callbacks.ReplayHealthCallback`
    :param network: :class:`~sb3_dqn_ext.callbacks.NetworkHealthCallback`
    :param exploration: :class:`~sb3_dqn_ext.callbacks.ExplorationCallback`
    :param calibration: :class:`~sb3_dqn_ext.callbacks.ValueCalibrationCallback`; by default (None) it is left out, with a
        warning, where no environments like those of training can be made
    :param video: :class:`~sb3_dqn_ext.callbacks.EpisodeVideoCallback`, which takes more time than all others
    :raises ArgumentError: if an argument cannot be; at the start of the run, if a part cannot do its work
    """

    callbacks: list[Diagnostic]  # type: ignore[assignment]

    def __init__(
        self,
        values: Choice = True,
        errors: Choice = True,
        replay: Choice = True,
        network: Choice = True,
        exploration: Choice = True,
        calibration: Choice = None,
        video: Choice = False,
    ) -> None:
        given = {
            "values": values,
            "errors": errors,
            "replay": replay,
            "network": network,
            "exploration": exploration,
            "calibration": calibration,
            "video": video,
        }
        parts = []
        for name, choice in given.items():
            check_type(name, choice, bool | Mapping | None, "True, False or a mapping of arguments")
            if choice is None and name != "calibration":
                check_type(name, choice, bool | Mapping, "True, False or a mapping of arguments")
            if choice is not False:
                kwargs = choice if isinstance(choice, Mapping) else {}
                check_keys(name, kwargs, parameters_of(PARTS[name]))
                parts.append(PARTS[name](**kwargs))
        super().__init__(parts)  # type: ignore[arg-type]
        self._may_be_left_out = calibration is None
        self._due = 0

    def _on_training_start(self) -> None:
        for part in self.callbacks:
            try:
                part.on_training_start(self.locals, self.globals)
            except CannotMake as error:
                if not (self._may_be_left_out and isinstance(part, ValueCalibrationCallback)):
                    raise
                part.on_training_end()
                part.rest()
                warnings.warn(f"Values are not compared with returns. {error}", stacklevel=2)
        self._due = min((part.due for part in self.callbacks), default=sys.maxsize)

    # To tell and ask each of them at every step would cost as much as what they do.

    def update_locals(self, locals_: dict[str, Any]) -> None:
        """
        :param locals_: the local variables of the rollout
        """
        self.locals = locals_

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._due:
            for part in self.callbacks:
                part.locals = self.locals
                part.on_step()
            self._due = min(part.due for part in self.callbacks)
        return True

    def _on_rollout_start(self) -> None:
        pass

    def _on_rollout_end(self) -> None:
        pass
