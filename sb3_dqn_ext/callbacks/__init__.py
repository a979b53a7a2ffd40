"""Callbacks for DQNExt, SB3's DQN and sb3-contrib's QRDQN."""

from sb3_dqn_ext.callbacks.diagnostics import (
    DiagnosticsCallback,
    EpisodeVideoCallback,
    ExplorationCallback,
    NetworkHealthCallback,
    QValuesCallback,
    ReplayHealthCallback,
    TDErrorsCallback,
    ValueCalibrationCallback,
)
from sb3_dqn_ext.callbacks.epsilon_schedule import EpsilonScheduleCallback
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.callbacks.non_finite_guard import NonFiniteGuardCallback
from sb3_dqn_ext.callbacks.plasticity import MultistepScheduleCallback, ReDoCallback, ResetCallback
from sb3_dqn_ext.callbacks.soft_target_update import SoftTargetUpdateCallback
from sb3_dqn_ext.callbacks.stop_training_on_episode import StopTrainingOnEpisode
from sb3_dqn_ext.callbacks.stop_training_on_mean_return import StopTrainingOnMeanReturn
from sb3_dqn_ext.callbacks.summary import SummaryCallback
from sb3_dqn_ext.callbacks.tensorboard import TensorBoardCallback

__all__ = [
    "DiagnosticsCallback",
    "EpisodeVideoCallback",
    "EpsilonScheduleCallback",
    "ExactCheckpointCallback",
    "ExplorationCallback",
    "MultistepScheduleCallback",
    "NetworkHealthCallback",
    "NonFiniteGuardCallback",
    "QValuesCallback",
    "ReDoCallback",
    "ReplayHealthCallback",
    "ResetCallback",
    "SoftTargetUpdateCallback",
    "StopTrainingOnEpisode",
    "StopTrainingOnMeanReturn",
    "SummaryCallback",
    "TDErrorsCallback",
    "TensorBoardCallback",
    "ValueCalibrationCallback",
]
