"""The replay memory: what is stored, which of it is replayed (samplers), and what a stored row says (folds)."""

from sb3_dqn_ext.replay.buffer import DQNReplayBuffer
from sb3_dqn_ext.replay.multistep import Fold, Folded, MonteCarlo, NStep, OneStep
from sb3_dqn_ext.replay.samplers import Prioritized, Rows, Sampler, Uniform

__all__ = ["DQNReplayBuffer", "Fold", "Folded", "MonteCarlo", "NStep", "OneStep", "Prioritized", "Rows", "Sampler", "Uniform"]
