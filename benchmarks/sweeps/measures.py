"""Further measurements of the runs of sweeps."""

from pathlib import Path

import numpy as np

from sb3_dqn_ext.plot import evaluations
from sb3_dqn_ext.sweep import Task
from sb3_dqn_ext.sweep.evaluation import play
from sb3_dqn_ext.sweep.run_files import read_progress

THRESHOLD = 475
TIME_LIMIT_RETURN = -200
"""the return of an episode of MountainCar in which the goal is not reached"""
SCORES = {"CartPole-v1": (THRESHOLD,), "dqn_ext/MinAtar-Breakout-v1": (10, 20)}
"""the scores for which the time is measured, by environment"""


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


def first_goal(run: Path, task: Task) -> dict[str, str]:
    """
    Measure when a run in MountainCar reaches the goal.

    :param run: the zoo's run folder
    :param task: the run
    :return: the step of the first evaluation in which an episode reaches the goal, and of the first in which all do; infinity
        if there is none
    """
    curve = evaluations(run)
    is_goal = curve.returns > TIME_LIMIT_RETURN  # (E, episodes)
    return {
        "steps_to_goal": f"{min(curve.steps[is_goal.any(axis=1)], default=np.inf):.0f}",
        "steps_to_all_goals": f"{min(curve.steps[is_goal.all(axis=1)], default=np.inf):.0f}",
    }


def time_to_score(run: Path, task: Task) -> dict[str, str]:
    """
    Measure how fast a run reaches a score, in seconds of processor time, which other load on the machine does not change.

    :param run: the zoo's run folder
    :param task: the run
    :return: for each score, the time until the first evaluation whose mean return is at least as high, infinity if there is
        none; the environment steps per second. Compilation and evaluations are included
    """
    curve, progress = evaluations(run), read_progress(run.parents[2] / "progress.json")
    means, speed = curve.returns.mean(axis=1), progress.steps / progress.cpu
    times = {score: min(curve.steps[means >= score], default=np.inf) / speed for score in SCORES[task.env]}
    return {f"seconds_to_{score}": f"{seconds:.1f}" for score, seconds in times.items()} | {"steps_per_s": f"{speed:.0f}"}
