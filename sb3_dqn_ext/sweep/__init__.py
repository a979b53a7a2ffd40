"""
Train many runs and compare them: ``python -m sb3_dqn_ext.sweep SPEC.yml``.

A sweep trains each variant of the hyperparameters with each seed in each environment. Each run is trained by the RL Zoo in its
own process, and becomes a row of a CSV file when it has finished.
"""

from sb3_dqn_ext.sweep.results import Row, add_row, read_rows, select_rows
from sb3_dqn_ext.sweep.spec import Spec, Task, read_spec

__all__ = ["Row", "Spec", "Task", "add_row", "read_rows", "read_spec", "select_rows"]
