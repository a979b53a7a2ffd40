"""What is known of a run."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dqn_ext.callbacks.diagnostics.evaluation import Calibration
from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot import curves, models
from sb3_dqn_ext.plot.logs import log_folder
from sb3_dqn_ext.plot.run_files import Curve, Log, evaluations, read_log
from sb3_dqn_ext.plot.runs import Run, read_run
from sb3_dqn_ext.report.blocks import Block, Missing

__all__ = [
    "CALIBRATION",
    "CONFIGURATION",
    "EPISODES",
    "EVALUATIONS",
    "LOG",
    "MODEL",
    "RunData",
    "read_run_data",
    "value_or_none",
]

T = TypeVar("T")
B = TypeVar("B", bound=Block)

CONFIGURATION, EPISODES, EVALUATIONS = "configuration of the zoo", "training episodes", "evaluations"
LOG, MODEL, CALIBRATION = "curves of the log", "model", "predicted beside realised values"


@dataclass(frozen=True)
class RunData:
    """What is known of a run. What is None could not be had, and :attr:`problems` says why."""

    run: Run
    episodes: Curve | None
    evaluations: Curve | None
    log: Log | None
    model: BaseAlgorithm | None
    model_file: Path | None
    calibration: Calibration | None
    n_episodes: int
    problems: dict[str, str]
    """by what is not in the page: why"""

    def attempt(self, what: str, make: Callable[[], B]) -> B | Missing:
        """
        :param what: a part of the page
        :param make: what makes it
        :return: the part, or a line that says why there is none
        """
        made = value_or_none(self.problems, what, make)
        return self.missing(what) if made is None else made

    def blocks(self, what: str, make: Callable[[], Iterable[Block]]) -> Sequence[Block]:
        """
        :param what: a part of the page
        :param make: makes the blocks of that part
        :return: the blocks, or a line with the reason why there are none
        """
        made = value_or_none(self.problems, what, lambda: list(make()))
        return [self.missing(what)] if made is None else made

    def missing(self, what: str) -> Missing:
        """
        :param what: is not there
        :return: a line that says why
        """
        return Missing(what, self.problems[what])


def value_or_none(problems: dict[str, str], what: str, make: Callable[[], T]) -> T | None:
    """
    :param problems: where to say why it cannot be had
    :param what: is made
    :param make: what makes it, of files of whatever origin
    """
    try:
        return make()
    except ArgumentError as error:
        problems[what] = str(error)
    except Exception as error:  # whatever libraries make of a damaged file: all else of the page is worth having
        problems[what] = f"{type(error).__name__}: {error}"
    return None


def read_run_data(folder: Path, tensorboard: Path | None, model: str | None, n_episodes: int, trust: bool) -> RunData:
    """
    :param folder: of the run
    :param tensorboard: where TensorBoard's logs are, if the run does not tell
    :param model: the name of its file; None: the best, or else the final, or else the newest one
    :param n_episodes: how many are played to see what the values are worth; 0: none
    :param trust: whether pickles are opened, and classes of one's own imported from wherever the run was started
    """
    problems: dict[str, str] = {}
    run = value_or_none(problems, CONFIGURATION, lambda: read_run(folder, tensorboard))
    run = run or Run(folder, logs=(folder,) if tensorboard is None else (folder, tensorboard))
    path = value_or_none(problems, MODEL, lambda: models.model_file(run, model))
    learner = None if path is None else value_or_none(problems, MODEL, lambda: _loaded(run, path, trust))
    return RunData(
        run=run,
        episodes=value_or_none(problems, EPISODES, lambda: curves.require_episodes(folder)),
        evaluations=value_or_none(problems, EVALUATIONS, lambda: _evaluations(run)),
        log=value_or_none(problems, LOG, lambda: read_log(log_folder(run))),
        model=learner,
        model_file=path,
        calibration=value_or_none(problems, CALIBRATION, lambda: _played(run, learner, n_episodes, problems)),
        n_episodes=n_episodes,
        problems=problems,
    )


def _evaluations(run: Run) -> Curve:
    if not curves.has_evaluations(run):
        raise ArgumentError(f"{run.folder} has no evaluations.npz, which EvalCallback writes.")
    return evaluations(run.folder)


def _loaded(run: Run, path: Path, trust: bool) -> BaseAlgorithm:
    if run.algo == "qrdqn" and not trust:
        raise ArgumentError(f"{path} is for QRDQN, which runs whatever code is in it: say --trust if it is of your own.")
    # the files of DQN are read by DQNExt, which runs nothing of what is in them
    return models.load_model(dataclasses.replace(run, algo=None) if run.algo == "dqn" else run, path.name, trust)


def _played(run: Run, model: BaseAlgorithm | None, n_episodes: int, problems: dict[str, str]) -> Calibration:
    if model is None:
        raise ArgumentError(problems[MODEL])
    if n_episodes == 0:
        raise ArgumentError("no episode was to be played.")
    env = models.make_env(run)
    try:
        return models.measure_calibration(model, env, n_episodes)
    finally:
        env.close()
