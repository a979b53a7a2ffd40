"""
Access to attributes of Stable-Baselines3 that are not public and that benchmarks read.

This module imports nothing of ``sb3_dqn_ext``, because the imports of a process that measures SB3 are a part of its time.
"""

from stable_baselines3.common.base_class import BaseAlgorithm


def n_updates(model: BaseAlgorithm) -> int:
    """Return the number of updates of a model's networks."""
    return model._n_updates


def n_episodes(model: BaseAlgorithm) -> int:
    """Return the number of episodes that a model has been trained on."""
    return model._episode_num
