"""Attributes of this package that are not public and that benchmarks read."""

from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.replay import DQNReplayBuffer
from sb3_dqn_ext.replay.prioritized import Prioritized


def random_number(model: DQNExt) -> float:
    """Draw a number from the generator of a model's exploration."""
    assert model._generator is not None
    return float(model._generator.random())


def priorities(memory: DQNReplayBuffer) -> npt.NDArray[Any]:
    """Return the priorities in the tree of a replay buffer with a prioritized sampler."""
    assert isinstance(memory.sampler, Prioritized)
    return memory.sampler._tree[np.arange(memory.buffer_size)]
