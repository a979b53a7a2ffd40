"""Wrappers of environments, imported as ``sb3_dqn_ext.envs``. The import registers the environment ids."""

from sb3_dqn_ext.envs.action_masks import ActionMaskInObservation
from sb3_dqn_ext.envs.random_first_step import RandomFirstStep
from sb3_dqn_ext.envs.registry import register
from sb3_dqn_ext.envs.terminal_penalty import TerminalPenalty, VectorTerminalPenalty

__all__ = ["ActionMaskInObservation", "RandomFirstStep", "TerminalPenalty", "VectorTerminalPenalty"]

register()
