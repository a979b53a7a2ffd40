"""
The golden curves: short trainings, their recorded results with ten seeds, and the bound for the results of other seeds.

A golden curve is an environment and a variant of a sweep of this folder. Its result is the mean return of the last 100
episodes of training, which varies less between seeds than the returns of a few greedy episodes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.sweep import Row, Spec, Task, read_rows, read_spec, select_rows
from sb3_dqn_ext.sweep.__main__ import run_missing
from sb3_dqn_ext.sweep.processes import ProcessEngine
from sb3_dqn_ext.sweep.report import rows_of
from tests.paths import ROOT

SPECS = sorted(Path(__file__).parent.glob("*.yml"))
N_RUNS = 3
"""the number of other seeds, whose mean is compared"""

Array = npt.NDArray[Any]


class Golden(NamedTuple):
    """A golden curve."""

    spec: Spec
    task: Task
    """its run with the first seed"""

    @property
    def name(self) -> str:
        return f"{self.task.env} {self.task.variant}"

    @property
    def returns(self) -> Array:
        """The (S,) recorded results of the seeds of the sweep, without those of other hyperparameters."""
        rows = select_rows(rows_of(self.spec), env=self.task.env, variant=self.task.variant)
        return training_returns(rows)


def training_returns(rows: Iterable[Row]) -> Array:
    """
    Return the results of runs.

    :param rows: (S,) rows
    :return: (S,) mean returns of the last 100 episodes of training
    """
    return np.array([float(row["train_return"]) for row in rows])


def golden_curves(paths: Iterable[Path] = SPECS) -> list[Golden]:
    """
    Return the golden curves of sweeps.

    :param paths: the YAML files of the sweeps
    """
    specs = [replace(read_spec(path), path=path.relative_to(ROOT)) for path in paths]
    return [Golden(spec, task) for spec in specs for task in spec.tasks if task.seed == spec.tasks[0].seed]


def lowest_mean(returns: Array, n_runs: int = N_RUNS) -> float:
    """
    Return the bound for the mean of a few runs: the mean of the recorded runs less three standard errors of a mean of so few.

    :param returns: (S,) recorded results
    :param n_runs: the number of runs, of which the mean is taken
    """
    return float(returns.mean() - 3 * returns.std(ddof=1) / np.sqrt(n_runs))


def train(task: Task, seeds: Sequence[int], folder: Path) -> Array:
    """
    Train a golden curve with other seeds, one after the other.

    :param task: the run, whose hyperparameters may have been changed
    :param seeds: the seeds
    :param folder: an empty folder
    :return: (S,) results in the order in which the runs have finished
    :raises RuntimeError: if a run fails
    """
    tasks = tuple(replace(task, seed=seed) for seed in seeds)
    spec = Spec(folder / "spec.yml", task.variant, folder / "rows.csv", tasks)
    failures = run_missing(spec, folder / "runs", ProcessEngine(), jobs=1)
    if failures:
        raise RuntimeError("\n".join(failures.values()))
    return training_returns(read_rows(spec.results))
