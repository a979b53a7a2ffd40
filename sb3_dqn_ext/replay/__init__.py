"""The replay buffer: what is stored, which of it is replayed (samplers), and over how many steps (multi-step returns)."""

from sb3_dqn_ext.replay.buffer import DQNReplayBuffer
from sb3_dqn_ext.replay.multistep import MonteCarlo, MultistepReturn, NStep, NStepTransitions, OneStep
from sb3_dqn_ext.replay.prioritized import Prioritized
from sb3_dqn_ext.replay.sampler_base import Sampler
from sb3_dqn_ext.replay.samplers import Uniform, VectorSteps

__all__ = [
    "DQNReplayBuffer",
    "MonteCarlo",
    "MultistepReturn",
    "NStep",
    "NStepTransitions",
    "OneStep",
    "Prioritized",
    "Sampler",
    "Uniform",
    "VectorSteps",
]
