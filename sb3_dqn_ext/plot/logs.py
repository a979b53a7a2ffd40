"""Where the TensorBoard log of a run is, which may lie among those of others."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.run_files import Curve, Series, lifetime, scalars, training_episodes
from sb3_dqn_ext.plot.runs import EVENT_FILES, Run

__all__ = ["event_folder", "log_folder"]


def log_folder(run: Run) -> Path:
    """
    :param run: a run
    :return: the folder of its event files, see :func:`event_folder`
    :raises ArgumentError: if it has no TensorBoard log, or it is not known where
    """
    folder = event_folder(run)
    if folder is None:
        places = ", ".join(map(str, run.logs))
        raise ArgumentError(f"{run.folder} has no TensorBoard log of its time in {places}: say --tensorboard FOLDER.")
    return folder


def event_folder(run: Run) -> Path | None:
    """
    :param run: a run, whose log may lie among those of others
    :return: the folder of its event files: of those that were begun in the run's time the one whose returns are its own. The
        newest, if the run has no ``monitor.csv``. None if there is none
    """
    begun: dict[Path, float] = {}
    for place in run.logs:
        for path in place.rglob(EVENT_FILES):
            begun[path.parent] = min(begun.get(path.parent, math.inf), _time_in_name(path))
    lived = lifetime(run.folder)
    if lived is None:
        return max(begun, key=lambda folder: begun[folder], default=None)
    start, end = lived
    candidates = [folder for folder in begun if math.floor(start) <= begun[folder] <= end]
    # the zoo's logs lie in folders of their environments
    candidates = [folder for folder in candidates if folder.parent.name == run.env_id] or candidates
    if len(candidates) <= 1:
        return next(iter(candidates), None)
    episodes = training_episodes(run.folder)
    return min(candidates, key=lambda folder: _difference(scalars(folder), episodes))


def _time_in_name(path: Path) -> float:
    """When an event file was begun, in seconds."""
    part = path.name.split(".")[3]
    return float(part) if part.isdigit() else path.stat().st_mtime


def _difference(logged: Mapping[str, Series], episodes: Curve) -> float:
    """Between the mean returns that SB3 has logged and those of training episodes; infinite where none were."""
    if "rollout/ep_rew_mean" not in logged or len(episodes.steps) == 0:
        return math.inf
    steps, means = logged["rollout/ep_rew_mean"]
    ends = np.maximum(np.searchsorted(episodes.steps, steps, side="right"), 1)  # (E,) episodes that had ended
    own = [episodes.returns[max(0, end - 100) : end].mean() for end in ends]  # SB3 logs the mean of 100
    return float(np.mean(np.abs(means - own)))
