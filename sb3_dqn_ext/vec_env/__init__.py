"""
gymnasium's vector environments as an environment of Stable-Baselines3.

- :func:`make_fast_vec_env`: from an id, as SB3's ``make_vec_env``
- :class:`FastVecEnv`: in place of a DummyVecEnv or a SubprocVecEnv, as the RL Zoo's ``vec_env_wrapper``
"""

from sb3_dqn_ext.vec_env.fast_vec_env import FastVecEnv, make_fast_vec_env

__all__ = ["FastVecEnv", "make_fast_vec_env"]
