"""All diagnostics in one line."""

from collections.abc import Iterator, Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from sb3_dqn_ext._validation import check_keys, check_number, check_type, parameters_of
from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic
from sb3_dqn_ext.callbacks.diagnostics.calibration import ValueCalibrationCallback
from sb3_dqn_ext.callbacks.diagnostics.errors import TDErrorsCallback
from sb3_dqn_ext.callbacks.diagnostics.exploration import ExplorationCallback
from sb3_dqn_ext.callbacks.diagnostics.network import NetworkHealthCallback
from sb3_dqn_ext.callbacks.diagnostics.replay import ReplayHealthCallback
from sb3_dqn_ext.callbacks.diagnostics.values import QValuesCallback
from sb3_dqn_ext.callbacks.diagnostics.video import EpisodeVideoCallback
from sb3_dqn_ext.callbacks.run_callback import NEVER, RunCallback
from sb3_dqn_ext.callbacks.summary import SummaryCallback
from sb3_dqn_ext.callbacks.tensorboard import TensorBoardCallback

__all__ = ["DiagnosticsCallback"]

PartArguments = bool | Mapping[str, Any] | None
PARTS: dict[str, type[BaseCallback]] = {
    "values": QValuesCallback,
    "errors": TDErrorsCallback,
    "replay": ReplayHealthCallback,
    "network": NetworkHealthCallback,
    "exploration": ExplorationCallback,
    "calibration": ValueCalibrationCallback,
    "video": EpisodeVideoCallback,
    "tensorboard": TensorBoardCallback,
    "summary": SummaryCallback,
}
METRIC_PARTS = ("values", "errors", "replay", "network", "exploration")
OPTIONAL_PARTS = ("calibration", "summary")


class DiagnosticsCallback(RunCallback, CallbackList):
    """
    All diagnostics together, at rates that cost little, TensorBoard's charts of them, and a summary at the end. Training ends
    with the same bits as without.

    Each argument is True, False, or the arguments of that part, e.g. ``calibration={"every": 10_000}``, ``video=True``.

    :param every: environment steps between two looks of the first five parts, where they are told no other; a short run wants
        more of them
    :param values: :class:`~sb3_dqn_ext.callbacks.QValuesCallback`
    :param errors: :class:`~sb3_dqn_ext.callbacks.TDErrorsCallback`
    :param replay: :class:`~sb3_dqn_ext.callbacks.ReplayHealthCallback`
    :param network: :class:`~sb3_dqn_ext.callbacks.NetworkHealthCallback`
    :param exploration: :class:`~sb3_dqn_ext.callbacks.ExplorationCallback`
    :param calibration: :class:`~sb3_dqn_ext.callbacks.ValueCalibrationCallback`; by default (None) it is left out, with a
        warning, where no environments like those of training can be made
    :param video: :class:`~sb3_dqn_ext.callbacks.EpisodeVideoCallback`, which takes more time than all others
    :param tensorboard: :class:`~sb3_dqn_ext.callbacks.TensorBoardCallback`
    :param summary: :class:`~sb3_dqn_ext.callbacks.SummaryCallback`; by default (None) it speaks if the model does, with
        ``verbose=1``
    :raises ArgumentError: if an argument cannot be; at the start of the run, if a part cannot do its work
    """

    def __init__(
        self,
        every: int = 10_000,
        values: PartArguments = True,
        errors: PartArguments = True,
        replay: PartArguments = True,
        network: PartArguments = True,
        exploration: PartArguments = True,
        calibration: PartArguments = None,
        video: PartArguments = False,
        tensorboard: PartArguments = True,
        summary: PartArguments = None,
    ) -> None:
        check_number("every", every, low=1, integer=True)
        given = {
            "values": values,
            "errors": errors,
            "replay": replay,
            "network": network,
            "exploration": exploration,
            "calibration": calibration,
            "video": video,
            "tensorboard": tensorboard,
            "summary": summary,
        }
        parts: list[BaseCallback] = []
        for name, choice in given.items():
            if choice is not None or name not in OPTIONAL_PARTS:
                check_type(name, choice, bool | Mapping, "True, False or a mapping of arguments")
            if choice is not False:
                told = dict(choice) if isinstance(choice, Mapping) else {}
                check_keys(name, told, parameters_of(PARTS[name]))
                usual = {"every": every} if name in METRIC_PARTS else {}
                parts.append(PARTS[name](**usual | told))
        super().__init__(parts)
        self._undecided = tuple(PARTS[name] for name in OPTIONAL_PARTS if given[name] is None)
        for part in parts:
            if isinstance(part, ValueCalibrationCallback) and isinstance(part, self._undecided):
                part.is_optional = True
        self._due = 0

    def _on_run_start(self, continues: bool) -> None:
        for part in self.callbacks:  # which have joined the run before, and have begun it
            if isinstance(part, SummaryCallback) and isinstance(part, self._undecided):
                part.verbose = self.model.verbose
        self._due = min((part.due for part in self._looking()), default=NEVER)

    def _looking(self) -> Iterator[Diagnostic]:
        """Those that have something to do in the middle of a run."""
        return (part for part in self.callbacks if isinstance(part, Diagnostic))

    # To tell and ask each of them at every step would cost as much as what they do. So would the calls that come between: what
    # SB3 calls is overridden, not the methods with an underscore that it calls in turn.

    def on_step(self) -> bool:
        """
        :return: True: training goes on
        """
        self.n_calls += 1
        self.num_timesteps = self.model.num_timesteps
        if self.num_timesteps >= self._due:
            for part in self._looking():
                if self.num_timesteps >= part.due:
                    part.on_step()
            self._due = min(part.due for part in self._looking())
        return True

    def on_rollout_start(self) -> None:
        """None of them has anything to do."""

    def on_rollout_end(self) -> None:
        """None of them has anything to do."""
