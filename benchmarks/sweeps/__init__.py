"""Sweeps of ``python -m sb3_dqn_ext.sweep``, and measurements of their runs."""
