"""DQN for Stable-Baselines3 whose exploration, replay, targets, heads and return models are chosen by name."""

import os

from sb3_dqn_ext._version import __version__

# In a checkout, envs/ and zoo_configs/ are beside this package; in a wheel, they are inside it.
_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(_root, "pyproject.toml")):
    __path__.append(_root)

import sb3_dqn_ext.envs as envs  # noqa: E402  registers the environment ids
from sb3_dqn_ext.dqn_ext import DQNExt  # noqa: E402
from sb3_dqn_ext.errors import ArgumentError  # noqa: E402

__all__ = ["ArgumentError", "DQNExt", "__version__", "envs"]
