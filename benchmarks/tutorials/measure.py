"""Train one run of a tutorial and measure its row."""

import json
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.processes import run_command
from benchmarks.runs import run_number, train
from benchmarks.tutorials import plain_loop
from benchmarks.tutorials.calibration import ALGO, measure_calibration
from benchmarks.tutorials.row_statistics import IMPROVED
from benchmarks.tutorials.specs import BY_NAME, Tutorial
from sb3_dqn_ext.plot import rolling_mean, training_episodes
from sb3_dqn_ext.sweep import Row
from sb3_dqn_ext.sweep.evaluation import play
from sb3_dqn_ext.sweep.processes import ONE_THREAD

EVAL_EPISODES = 10
GREEDY_EPISODES = 50
N_PARTS = 50

Array = npt.NDArray[Any]


class Key(NamedTuple):
    """The key of a row: a run."""

    tutorial: str
    variant: str
    seed: int

    @property
    def config(self) -> str:
        """The file with its hyperparameters."""
        return f"{self.tutorial}.yml" if self.variant != IMPROVED else f"{self.tutorial}_{IMPROVED}.yml"

    @property
    def folder(self) -> str:
        """The ``-f`` of the zoo, below that of all runs."""
        return f"{self.tutorial}_{self.variant}_{self.seed}"


class Places(NamedTuple):
    """The folders of configurations and runs."""

    configs: Path
    runs: Path

    def run(self, key: Key) -> Path | None:
        """
        Return the newest run folder with a trained model, None if there is none on this machine.

        :param key: the run
        """
        env_id = BY_NAME[key.tutorial].env_id
        finished = [model.parent for model in (self.runs / key.folder).glob(f"{ALGO}/{env_id}_*/{env_id}.zip")]
        return max(finished, key=run_number, default=None)


def measure_run(key: Key, places: Places, steps: int | None) -> Row:
    """
    Train and evaluate one model, and return its row.

    :param key: the run
    :param places: the folders of its configuration and of its run folder
    :param steps: the number of environment steps; None: that of the configuration
    """
    tutorial = BY_NAME[key.tutorial]
    folder, times = places.runs / key.folder, {"train_s": "", "loop_s": ""}
    arguments = ["-conf", str(places.configs / key.config), *_arguments(tutorial, folder, steps)]
    run = train(ALGO, tutorial.env_id, key.seed, folder, *arguments, **ONE_THREAD)
    times["train_s"] = f"{train_seconds(run, tutorial.env_id):.2f}"
    if tutorial.timed and key.variant == IMPROVED:
        times["loop_s"] = f"{loop_seconds(key.seed, steps or plain_loop.STEPS):.2f}"
    return {**key._asdict(), "seed": str(key.seed), **times, **evaluate_run(tutorial, run, key.seed)}


def _arguments(tutorial: Tutorial, folder: Path, steps: int | None) -> list[str]:
    """Return the arguments of the zoo's command except for the configuration."""
    eval_freq = tutorial.eval_freq
    if steps is not None and eval_freq is not None:
        eval_freq = min(eval_freq, steps // 2)
    arguments = ["--eval-freq", str(eval_freq or -1), "--eval-episodes", str(EVAL_EPISODES)]
    arguments += [] if steps is None else ["-n", str(steps)]
    logs = ["--tensorboard-log", str(folder / "tensorboard"), "--log-interval", "1"]
    return arguments + (logs if tutorial.measures_values else [])


def evaluate_run(tutorial: Tutorial, run: Path, seed: int) -> Row:
    """
    Return the columns of a row that are measured from the run folder.

    :param tutorial: the tutorial
    :param run: the run folder
    :param seed: the seed of the training
    """
    last, best = f"{tutorial.env_id}.zip", "best_model.zip"
    curve = training_episodes(run)
    returns, n_steps = curve.returns[:, 0], trained_steps(run / last)
    has_best = (run / best).is_file()
    ends = np.arange(1, len(returns) + 1) if tutorial.in_episodes else curve.steps
    found = measure_calibration(run, tutorial.env_id, best if has_best else last, seed) if tutorial.measures_values else None
    return {
        "steps": str(n_steps),
        "episodes": str(len(returns)),
        "greedy_last": f"{play(run, ALGO, tutorial.env_id, seed, GREEDY_EPISODES, last).mean():.2f}",
        "greedy_best": f"{play(run, ALGO, tutorial.env_id, seed, GREEDY_EPISODES, best).mean():.2f}" if has_best else "",
        "last_100": f"{returns[-100:].mean():.2f}",
        "first_at_threshold": f"{first_at_threshold(returns, tutorial.threshold, tutorial.window):g}",
        "completed_100": str(int(np.sum(returns[:100] >= tutorial.threshold))) if tutorial.counts_trials else "",
        "calibration_r": f"{found.correlation:.3f}" if found else "",
        "calibration_bias": f"{found.bias:.3f}" if found else "",
        "returns": " ".join(f"{part:.2f}" for part in means_of_parts(returns, ends, N_PARTS)),
    }


def first_at_threshold(returns: Array, threshold: float, window: int) -> float:
    """
    Return the number of the first episode at which a rolling mean is at least a threshold, infinity if there is none.

    :param returns: (E,) returns of the episodes of training
    :param threshold: the smallest mean return
    :param window: the number of successive episodes in the mean
    :return: the number; that of the first episode is 1
    """
    means = rolling_mean(returns, window)
    means[: window - 1] = -np.inf
    # no tolerance: returns are whole numbers, whose sums are exact
    return float(min(np.flatnonzero(means >= threshold) + 1, default=np.inf))


def means_of_parts(returns: Array, ends: Array, n_parts: int) -> Array:
    """
    Divide a training into parts of equal length, and return the mean return of the episodes that overlap with each part.

    :param returns: (E,) returns of the episodes of training
    :param ends: (E,) the end of each episode, in episodes or in steps
    :param n_parts: the number of parts
    :return: (n_parts,) mean returns
    """
    edges = np.linspace(0, ends[-1], n_parts + 1)
    starts = np.concatenate([[0], ends[:-1]])
    inside = (starts < edges[1:, None]) & (ends > edges[:-1, None])  # (n_parts, E)
    means: Array = (inside * returns).sum(axis=1) / inside.sum(axis=1)
    return means


def trained_steps(model: Path) -> int:
    """
    Return the number of environment steps that a saved model was trained for.

    :param model: a file that SB3 has saved
    """
    with zipfile.ZipFile(model) as file:
        return int(json.loads(file.read("data"))["num_timesteps"])


def train_seconds(run: Path, env_id: str) -> float:
    """
    Return the seconds from the creation of the first environment, the start of its Monitor, to the saving of the model.

    :param run: the run folder
    :param env_id: the id of the environment
    """
    headers = [json.loads(path.read_text().splitlines()[0][1:]) for path in run.glob("*monitor.csv")]
    return (run / f"{env_id}.zip").stat().st_mtime - min(float(header["t_start"]) for header in headers)


def loop_seconds(seed: int, steps: int) -> float:
    """
    Return the seconds that the plain loop takes.

    :param seed: the seed of the network, the environments and the random draws
    :param steps: the number of environment steps
    """
    return float(run_command([sys.executable, "-m", plain_loop.__name__, str(seed), str(steps)], ONE_THREAD))
