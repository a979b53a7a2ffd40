"""Further measurements of the runs of sweeps."""

from pathlib import Path

import numpy as np

from sb3_dqn_ext.plot import evaluations
from sb3_dqn_ext.sweep import Task
from sb3_dqn_ext.sweep.evaluation import play

THRESHOLD = 475


def learning(run: Path, task: Task) -> dict[str, str]:
    """
    Measure how a run learns.

    :param run: the zoo's run folder
    :param task: the run
    :return: the mean return of the best model in fresh episodes; the step of the first evaluation whose mean return is at
        least 475, infinity if there is none; the mean return of all evaluations
    """
    curve = evaluations(run)
    means = curve.returns.mean(axis=1)  # (E,)
    best = play(run, task.algo, task.env, task.seed, task.evaluation.last_episodes, "best_model.zip")
    return {
        "best_model": f"{best.mean():.2f}",
        f"steps_to_{THRESHOLD}": f"{min(curve.steps[means >= THRESHOLD], default=np.inf):.0f}",
        "mean_return": f"{means.mean():.2f}",
    }
