"""
The process of one run: ``python -m sb3_dqn_ext.sweep.worker FOLDER``.

``FOLDER/task.json`` describes the run. If an earlier process has left an exact checkpoint, the run continues from there;
otherwise it begins at step 0. The last act is to write ``FOLDER/row.json``, the row of the run.
"""

import json
import os
import platform
import shutil
import signal
import sys
import threading
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import yaml

from sb3_dqn_ext._validation import check_type, import_dotted
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.run_folder import run_file
from sb3_dqn_ext.storage.atomic import write_atomically
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.sweep.evaluation import model_name, play
from sb3_dqn_ext.sweep.processes import END_WITH_PARENT, LOCKED
from sb3_dqn_ext.sweep.progress import ProgressCallback
from sb3_dqn_ext.sweep.results import COLUMNS, Row
from sb3_dqn_ext.sweep.run_files import PROGRESS, ROW, Progress, read_progress, read_row, read_task
from sb3_dqn_ext.sweep.spec import Task
from sb3_dqn_ext.versions import versions

CURVE_DIGITS = 3


def main(arguments: list[str]) -> None:
    """
    Train one run, and write its row, unless another process trains it.

    :param arguments: the folder of the run, and possibly :data:`END_WITH_PARENT`
    """
    folder = Path(arguments[0])
    if END_WITH_PARENT in arguments:
        end_with_parent()
    with ExitStack() as stack:
        try:
            stack.enter_context(Lock(folder))
        except CheckpointError as error:
            print(error, file=sys.stderr)
            # an error with a cause is one of the disk, which does not end by waiting
            sys.exit(LOCKED if error.__cause__ is None else 1)
        run_task(folder)


def end_with_parent() -> None:
    """Begin to wait for the end of the standard input, and send SIGTERM to this process then."""
    pipe = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # for children of this process, which must not read from the pipe

    def wait() -> None:
        os.read(pipe, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def run_task(folder: Path) -> None:
    """
    Train the run of a folder, and write its row, unless another process has written it meanwhile.

    :param folder: the folder of the run
    """
    task, command = read_task(folder)
    if read_row(folder, task) is not None:
        return
    ProgressCallback.folder = folder.resolve()
    run = find_run(folder, task)
    # SB3 writes models in place: that of a process which was killed meanwhile is no zip file
    if run is None or not zipfile.is_zipfile(run / f"{model_name(task.env)}.zip"):
        train(folder, task, run)
        run = find_run(folder, task)
    assert run is not None
    progress = read_progress(folder / PROGRESS)
    steps = progress.steps or task.n_timesteps  # fewer than n_timesteps if a callback has stopped the training
    row = {**task.key, **measure_run(run, task, steps), **describe_run(progress, command)}
    write_atomically(folder / ROW, json.dumps(row).encode())


def find_run(folder: Path, task: Task) -> Path | None:
    """
    Find the run folder of the zoo.

    :param folder: the folder of the run
    :param task: the run
    :return: the zoo's run folder; None if there is none
    """
    found = sorted((folder / "logs" / task.algo).glob(f"{model_name(task.env)}_*"))
    return found[-1] if found else None


def train(folder: Path, task: Task, run: Path | None) -> None:
    """
    Train a run to its end, from its newest checkpoint if there is one.

    :param folder: the folder of the run
    :param task: the run
    :param run: the zoo's run folder of an earlier process, if there is one
    """
    if run is not None and is_resumable(run):
        from sb3_dqn_ext.zoo import resume

        resume.main([str(run), "--trust"])
        return
    shutil.rmtree(folder / "logs", ignore_errors=True)  # a run without a checkpoint begins at step 0
    from sb3_dqn_ext.zoo import commands

    commands.main(["train", *train_arguments(folder, task)], "train")


def is_resumable(run: Path) -> bool:
    """
    Return whether a run can be continued from an exact checkpoint.

    :param run: the zoo's run folder
    """
    if not (run / "run.json").is_file():
        return False
    data = run_file.read(run)
    return data.obstacle is None and any((run / (data.checkpoints or "")).glob("checkpoint_*.json"))


def train_arguments(folder: Path, task: Task) -> list[str]:
    """
    Write the hyperparameters of a run as a file of the zoo's form, and return the arguments of the zoo's command.

    :param folder: the folder of the run
    :param task: the run
    """
    progress = {f"{ProgressCallback.__module__}.{ProgressCallback.__qualname__}": {"path": PROGRESS}}
    own = task.hyperparameters.get("callback") or []
    block = {**task.hyperparameters, "callback": [*(own if isinstance(own, list) else [own]), progress]}
    conf = folder / "hyperparameters.yml"
    conf.write_text(yaml.safe_dump({task.env: block}))
    save = ["--save-freq", str(task.save_freq)] if task.algo == "dqn_ext" else []
    evaluation = ["--eval-freq", str(task.evaluation.every), "--eval-episodes", str(task.evaluation.episodes)]
    run = ["--algo", task.algo, "--env", task.env, "--seed", str(task.seed), "-f", str(folder / "logs"), "-conf", str(conf)]
    return [*run, *evaluation, *save, "--num-threads", "1", "--verbose", "0", *task.train_arguments]


def measure_run(run: Path, task: Task, steps: int) -> Row:
    """
    Measure the results of a finished run.

    :param run: the zoo's run folder
    :param task: the run
    :param steps: the environment steps of training
    :return: the cells: the score, the mean return of the last training episodes, the curve of the evaluations, and those of
        the function that the user gave
    :raises ArgumentError: if that function returns no mapping, or a column that each row has
    """
    from sb3_dqn_ext.plot import Curve, evaluations, training_episodes

    scores = play(run, task.algo, task.env, task.seed, task.evaluation.last_episodes)
    has_evaluations = (run / "evaluations.npz").is_file()  # a short run can end before the first one
    curve = evaluations(run) if has_evaluations else Curve(np.empty(0), np.empty((0, 1)))
    returns = training_episodes(run).returns[:, 0]
    row = {
        "score": f"{scores.mean():.{CURVE_DIGITS}f}",
        "worst_episode": f"{scores.min():g}",
        "train_return": f"{returns[-100:].mean():.{CURVE_DIGITS}f}",
        "steps": str(steps),
        "eval_steps": " ".join(f"{step:.0f}" for step in curve.steps),
        "eval_returns": " ".join(f"{mean:.{CURVE_DIGITS}f}" for mean in curve.returns.mean(axis=1)),
    }
    return row | (measure_own(task.measure, run, task) if task.measure else {})


def measure_own(name: str, run: Path, task: Task) -> Row:
    """
    Return the cells of a user's function.

    :param name: its dotted name
    :param run: the zoo's run folder
    :param task: the run
    :raises ArgumentError: if it returns no mapping, or a column that each row has
    """
    cells = import_dotted("measure", name)(run, task)
    check_type(f"the result of {name}", cells, Mapping, "a mapping of columns to cells")
    taken = [column for column in cells if column in COLUMNS]
    if taken:
        raise ArgumentError(f"measure={name!r} returns {taken[0]!r}, which is a column of each row: give it another name.")
    return {str(column): str(cell) for column, cell in cells.items()}


def describe_run(progress: Progress, command: str) -> Row:
    """
    Return the cells that describe how a run was made.

    :param progress: the progress of the run
    :param command: the command that makes the row of this run
    """
    packages = versions()
    return {
        "wall_s": f"{progress.wall:.1f}",
        "cpu_s": f"{progress.cpu:.1f}",
        "machine": f"{platform.system()} {platform.machine()}",
        "versions": " ".join(f"{name}={version}" for name, version in sorted(packages.items())),
        "command": command,
    }


if __name__ == "__main__":
    # at a KeyboardInterrupt, the zoo saves the model as if the training had ended
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))
    main(sys.argv[1:])
