"""A callback that holds all diagnostics."""

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
"""whether a part is there, or its arguments; None: the default of the part"""
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
"""the parts that measure numbers only, at the rate ``every``"""
OPTIONAL_PARTS = ("calibration", "summary")
"""the parts that are decided when the run begins, if their argument is None"""


class DiagnosticsCallback(RunCallback, CallbackList):
    """
    All diagnostics together, at rates that cost little, TensorBoard's charts of them, and a summary at the end. Training ends
    with the same bits as without them.

    Without arguments, a run of any length has 10 to 40 measurements and 2 to 8 comparisons of values with returns.

    Each argument of a part is True, False, or a mapping of its arguments, such as ``calibration={"every": 10_000}``.

    :param every: environment steps between two measurements of the first five parts, unless the arguments of a part contain
        another number. None (default): about 40 measurements in a run, at most one in 10,000 steps, but 10 in any run
    :param values: :class:`~sb3_dqn_ext.callbacks.QValuesCallback`
    :param errors: :class:`~sb3_dqn_ext.callbacks.TDErrorsCallback`
    :param replay: :class:`~sb3_dqn_ext.callbacks.ReplayHealthCallback`
    :param network: :class:`~sb3_dqn_ext.callbacks.NetworkHealthCallback`
    :param exploration: :class:`~sb3_dqn_ext.callbacks.ExplorationCallback`
    :param calibration: :class:`~sb3_dqn_ext.callbacks.ValueCalibrationCallback`. None (default): it is left out, with a
        warning, where no environments like those of training can be made
    :param video: :class:`~sb3_dqn_ext.callbacks.EpisodeVideoCallback`, which takes more time than all other parts
    :param tensorboard: :class:`~sb3_dqn_ext.callbacks.TensorBoardCallback`
    :param summary: :class:`~sb3_dqn_ext.callbacks.SummaryCallback`. None (default): it prints if the model has
        ``verbose >= 1``
    :raises ArgumentError: if an argument is out of its range; at the start of the run, if a part does not support the model
        or its environments
    """

    def __init__(
        self,
        every: int | None = None,
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
        if every is not None:
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
                arguments = dict(choice) if isinstance(choice, Mapping) else {}
                check_keys(name, arguments, parameters_of(PARTS[name]))
                defaults = {"every": every} if name in METRIC_PARTS else {}
                parts.append(PARTS[name](**defaults | arguments))
        super().__init__(parts)
        self._undecided = tuple(PARTS[name] for name in OPTIONAL_PARTS if given[name] is None)
        for part in parts:
            if isinstance(part, ValueCalibrationCallback) and isinstance(part, self._undecided):
                part.is_optional = True
        self._due = 0

    def _on_run_start(self, continues: bool) -> None:
        for part in self.callbacks:  # their own _on_run_start was called before
            if isinstance(part, SummaryCallback) and isinstance(part, self._undecided):
                part.verbose = self.model.verbose
        self._due = min((part.due for part in self._diagnostics()), default=NEVER)

    def _diagnostics(self) -> Iterator[Diagnostic]:
        """Return the parts that have something to do in the middle of a run."""
        return (part for part in self.callbacks if isinstance(part, Diagnostic))

    # Passing each step to each part would take as long as the measurements do, and so would the methods in between. Therefore
    # this class overrides the methods that SB3 calls, not those with an underscore that they call.

    def on_step(self) -> bool:
        """
        Let the parts measure that are due.

        :return: True: training continues
        """
        self.n_calls += 1
        self.num_timesteps = self.model.num_timesteps
        if self.num_timesteps >= self._due:
            for part in self._diagnostics():
                if self.num_timesteps >= part.due:
                    part.on_step()
            self._due = min(part.due for part in self._diagnostics())
        return True

    def on_rollout_start(self) -> None:
        """Do nothing, as no part has anything to do."""

    def on_rollout_end(self) -> None:
        """Do nothing, as no part has anything to do."""
