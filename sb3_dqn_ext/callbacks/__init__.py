"""Callbacks for DQNExt, SB3's DQN and sb3-contrib's QRDQN."""

from sb3_dqn_ext.callbacks.epsilon_schedule import EpsilonScheduleCallback
from sb3_dqn_ext.callbacks.exact_checkpoint import ExactCheckpointCallback
from sb3_dqn_ext.callbacks.soft_target_update import SoftTargetUpdateCallback
from sb3_dqn_ext.callbacks.stop_training_on_episode import StopTrainingOnEpisode
from sb3_dqn_ext.callbacks.stop_training_on_mean_return import StopTrainingOnMeanReturn

__all__ = [
    "EpsilonScheduleCallback",
    "ExactCheckpointCallback",
    "SoftTargetUpdateCallback",
    "StopTrainingOnEpisode",
    "StopTrainingOnMeanReturn",
]
