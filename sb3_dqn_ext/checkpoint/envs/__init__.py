"""
The state of environments in the middle of an episode, as plain data, and back again bit for bit.

gymnasium's environments have no state that can be read, and copies of some are silently new ones (``EzPickle``). But an
environment is a function of its random generators and of what was done with it, so these two are kept: the generators as of
the last reset, and the resets and actions since. Done once more, they lead to the same place, which is checked.
"""

from sb3_dqn_ext.checkpoint.envs.replay_wrapper import ReplayWrapper, add_replay_wrapper
from sb3_dqn_ext.checkpoint.envs.resumable_envs import make_resumable

__all__ = ["ReplayWrapper", "add_replay_wrapper", "make_resumable"]
