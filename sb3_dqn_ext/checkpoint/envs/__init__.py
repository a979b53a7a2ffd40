"""
The state of environments in the middle of an episode as plain data, restored bit for bit.

gymnasium defines no way to read an environment's state, and a copy of some environments is silently a new one (``EzPickle``).
But an environment's state is a function of its random generators, resets and actions. So :class:`ReplayWrapper` records the
generators' states at the last reset, and the resets and actions since. Another environment is brought to the same state by
replaying them. The result is checked.
"""

from sb3_dqn_ext.checkpoint.envs.replay_wrapper import ReplayWrapper, add_replay_wrapper
from sb3_dqn_ext.checkpoint.envs.resumable_envs import make_resumable

__all__ = ["ReplayWrapper", "add_replay_wrapper", "make_resumable"]
