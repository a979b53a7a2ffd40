"""
Diagnostics: what can be seen of learning while it goes on, on DQNExt, SB3's DQN and sb3-contrib's QRDQN.

They write to SB3's logger, and so to TensorBoard, CSV files, or wherever it writes to. Switched on, they change no bit of
training.
"""

from sb3_dqn_ext.callbacks.diagnostics.bundle import DiagnosticsCallback
from sb3_dqn_ext.callbacks.diagnostics.calibration import ValueCalibrationCallback
from sb3_dqn_ext.callbacks.diagnostics.errors import TDErrorsCallback
from sb3_dqn_ext.callbacks.diagnostics.exploration import ExplorationCallback
from sb3_dqn_ext.callbacks.diagnostics.network import NetworkHealthCallback
from sb3_dqn_ext.callbacks.diagnostics.replay import ReplayHealthCallback
from sb3_dqn_ext.callbacks.diagnostics.values import QValuesCallback
from sb3_dqn_ext.callbacks.diagnostics.video import EpisodeVideoCallback

__all__ = [
    "DiagnosticsCallback",
    "EpisodeVideoCallback",
    "ExplorationCallback",
    "NetworkHealthCallback",
    "QValuesCallback",
    "ReplayHealthCallback",
    "TDErrorsCallback",
    "ValueCalibrationCallback",
]
