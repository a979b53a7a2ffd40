"""
gymnasium's vector environments as a ``VecEnv`` of Stable-Baselines3.

- :func:`make_fast_vec_env`: makes environments from an id, like SB3's ``make_vec_env``
- :class:`FastVecEnv`: replaces a DummyVecEnv or a SubprocVecEnv, for example as the RL Zoo's ``vec_env_wrapper``
"""

from sb3_dqn_ext.vec_env.fast_vec_env import FastVecEnv, make_fast_vec_env

__all__ = ["FastVecEnv", "make_fast_vec_env"]
