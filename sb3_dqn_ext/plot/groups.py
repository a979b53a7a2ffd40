"""Groups of runs that differ only in their seeds."""

from collections.abc import Sequence
from typing import Any

from sb3_dqn_ext.plot.runs import Run

__all__ = ["group_runs"]

MAX_LABEL_LENGTH = 60


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """
    Group runs that have the same label, or otherwise the same algorithm, hyperparameters and arguments of the environment. A
    run whose configuration is unknown is the only one in its group.

    :param runs: the runs of one environment
    :return: label -> the runs of the group. Groups without a label get one from what distinguishes them; if another group has
        it already, the folder of the first run is added
    """
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        key = run.label or ((run.algo, run.config) if run.config else run.folder)
        groups.setdefault(key, []).append(run)
    labels: dict[str, list[Run]] = {}
    for group in groups.values():
        others = [other[0] for other in groups.values() if other[0].algo == group[0].algo and other is not group]
        label = group[0].label or _label(group[0], others)
        labels[label if label not in labels else f"{label} ({group[0].folder})"] = group
    return labels


def _label(run: Run, others: Sequence[Run]) -> str:
    """Return a label: the algorithm, and the hyperparameters in which a run differs from others."""
    if not run.config:
        return run.name
    algo = run.algo or "?"
    if not others:
        return algo
    settings = [{**one.hyperparameters, **one.env_kwargs} for one in (run, *others)]
    names = sorted({name for one in settings for name in one if any(name not in o or o[name] != one[name] for o in settings)})
    text = ", ".join([algo, *(f"{name}={settings[0][name]}" for name in names if name in settings[0])])
    return text if len(text) <= MAX_LABEL_LENGTH else f"{algo}, as {run.folder.name}"
