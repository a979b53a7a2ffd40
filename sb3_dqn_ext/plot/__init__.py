"""
Pictures of runs, as matplotlib figures, from what the RL Zoo, SB3's ``Monitor``, its ``EvalCallback`` and its logger leave in
folders. ``python -m sb3_dqn_ext.plot RUN_FOLDERS`` draws all that can be drawn.
"""

from sb3_dqn_ext.callbacks.diagnostics.evaluation import Calibration
from sb3_dqn_ext.plot.curves import (
    final_scores,
    plot_evaluations,
    plot_learning,
    plot_rolling,
    plot_run,
    plot_scores,
    plot_seeds,
)
from sb3_dqn_ext.plot.groups import group_runs
from sb3_dqn_ext.plot.intervals import align_curves, bootstrap_interval, interquartile_mean, rolling_mean
from sb3_dqn_ext.plot.logs import event_folder
from sb3_dqn_ext.plot.models import load_model, make_env, measure_calibration, predict_q_values
from sb3_dqn_ext.plot.run_files import Curve, Series, evaluations, scalars, training_episodes
from sb3_dqn_ext.plot.runs import Run, find_runs, read_run
from sb3_dqn_ext.plot.style import COLORS, HATCHES, LINES
from sb3_dqn_ext.plot.value_maps import ValueMap, plot_value_map, value_map
from sb3_dqn_ext.plot.values import plot_calibration, plot_log, plot_panels

__all__ = [
    "COLORS",
    "HATCHES",
    "LINES",
    "Calibration",
    "Curve",
    "Run",
    "Series",
    "ValueMap",
    "align_curves",
    "bootstrap_interval",
    "evaluations",
    "event_folder",
    "final_scores",
    "find_runs",
    "group_runs",
    "interquartile_mean",
    "load_model",
    "make_env",
    "measure_calibration",
    "plot_calibration",
    "plot_evaluations",
    "plot_learning",
    "plot_log",
    "plot_panels",
    "plot_rolling",
    "plot_run",
    "plot_scores",
    "plot_seeds",
    "plot_value_map",
    "predict_q_values",
    "read_run",
    "rolling_mean",
    "scalars",
    "training_episodes",
    "value_map",
]
