"""The data of a run that its report shows."""

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
LOG, MODEL, CALIBRATION = "curves of the log", "model", "comparison of predicted and realised values"


@dataclass(frozen=True)
class RunData:
    """The data of a run. Values that could not be read are None, and :attr:`problems` has the reasons."""

    run: Run
    episodes: Curve | None
    evaluations: Curve | None
    log: Log | None
    model: BaseAlgorithm | None
    model_file: Path | None
    calibration: Calibration | None
    n_episodes: int
    problems: dict[str, str]
    """The reason for each part that is missing in the page."""

    def attempt(self, what: str, make: Callable[[], B]) -> B | Missing:
        """
        Make a block of the page, or a line with the reason why it is missing.

        :param what: the name of the block
        :param make: a function that makes the block
        """
        made = value_or_none(self.problems, what, make)
        return self.missing(what) if made is None else made

    def blocks(self, what: str, make: Callable[[], Iterable[Block]]) -> Sequence[Block]:
        """
        Make blocks of the page, or a line with the reason why they are missing.

        :param what: the name of the part
        :param make: a function that makes the blocks
        """
        made = value_or_none(self.problems, what, lambda: list(make()))
        return [self.missing(what)] if made is None else made

    def missing(self, what: str) -> Missing:
        """
        Return a line with the reason why a part is missing.

        :param what: the name of the part, a key of :attr:`problems`
        """
        return Missing(what, self.problems[what])


def value_or_none(problems: dict[str, str], what: str, make: Callable[[], T]) -> T | None:
    """
    Return the value of a function, or None if it raises an exception. The error message is recorded.

    :param problems: the mapping that gets the error message
    :param what: the key of the error message
    :param make: a function that reads files, which may be damaged
    """
    try:
        return make()
    except ArgumentError as error:
        problems[what] = str(error)
    except Exception as error:  # libraries raise any exception for damaged files; other parts can still be shown
        problems[what] = f"{type(error).__name__}: {error}"
    return None


def read_run_data(folder: Path, tensorboard: Path | None, model: str | None, n_episodes: int, trust: bool) -> RunData:
    """
    Read the data of a run. Arguments: see :func:`~sb3_dqn_ext.report.report`.

    :param folder: the run folder
    :param tensorboard: the folder of the TensorBoard logs, if the run folder does not name it
    :param model: the file name of the model; None: the best model, otherwise the final, otherwise the newest one
    :param n_episodes: the number of episodes to play; 0: none
    :param trust: whether pickles are opened and classes are imported from the directory where the run was started
    :raises ArgumentError: if the run has no model of the name ``model``
    """
    problems: dict[str, str] = {}
    run = value_or_none(problems, CONFIGURATION, lambda: read_run(folder, tensorboard))
    run = run or Run(folder, logs=(folder,) if tensorboard is None else (folder, tensorboard))
    named = None if model is None else models.model_file(run, model)  # a wrong name is an error, and no missing part
    path = named or value_or_none(problems, MODEL, lambda: models.model_file(run))
    learner = None if path is None else value_or_none(problems, MODEL, lambda: _load_model(run, path, trust))
    return RunData(
        run=run,
        episodes=value_or_none(problems, EPISODES, lambda: curves.require_episodes(folder)),
        evaluations=value_or_none(problems, EVALUATIONS, lambda: _evaluations(run)),
        log=value_or_none(problems, LOG, lambda: read_log(log_folder(run))),
        model=learner,
        model_file=path,
        calibration=value_or_none(problems, CALIBRATION, lambda: _play(run, learner, n_episodes, problems)),
        n_episodes=n_episodes,
        problems=problems,
    )


def _evaluations(run: Run) -> Curve:
    if not curves.has_evaluations(run):
        raise ArgumentError(f"{run.folder} has no evaluations.npz, which EvalCallback writes.")
    return evaluations(run.folder)


def _load_model(run: Run, path: Path, trust: bool) -> BaseAlgorithm:
    if run.algo == "qrdqn" and not trust:
        raise ArgumentError(f"{path} is for QRDQN, which runs any code in it: use --trust for your own files.")
    # DQNExt reads the files of DQN without running code in them
    return models.load_model(dataclasses.replace(run, algo=None) if run.algo == "dqn" else run, path.name, trust)


def _play(run: Run, model: BaseAlgorithm | None, n_episodes: int, problems: dict[str, str]) -> Calibration:
    if model is None:
        raise ArgumentError(problems[MODEL])
    if n_episodes == 0:
        raise ArgumentError("the number of episodes is 0.")
    env = models.make_env(run)
    try:
        return models.measure_calibration(model, env, n_episodes)
    finally:
        env.close()
