"""One run of a tutorial, as a row."""

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.processes import ONE_THREAD, run_command
from benchmarks.rows import Row
from benchmarks.runs import mean_return, run_number, train
from benchmarks.tutorials import plain_loop
from benchmarks.tutorials.calibration import ALGO, measure_calibration
from benchmarks.tutorials.row_statistics import IMPROVED
from benchmarks.tutorials.specs import BY_NAME, Tutorial
from sb3_dqn_ext.plot import rolling_mean, training_episodes

EVAL_EPISODES = 10
N_PARTS = 50

Array = npt.NDArray[Any]


class Key(NamedTuple):
    """What a row answers."""

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
    """Where things are."""

    configs: Path
    runs: Path

    def run(self, key: Key) -> Path | None:
        """
        :param key: a run
        :return: its newest folder that holds a trained model, if one is on this machine
        """
        env_id = BY_NAME[key.tutorial].env_id
        finished = [model.parent for model in (self.runs / key.folder).glob(f"{ALGO}/{env_id}_*/{env_id}.zip")]
        return max(finished, key=run_number, default=None)


def measure_run(key: Key, places: Places, steps: int | None) -> Row:
    """
    Train and judge one model.

    :param key: which
    :param places: where its configuration is, and where its run folder is to be
    :param steps: environment steps, if not those of the configuration
    :return: its row
    """
    tutorial = BY_NAME[key.tutorial]
    folder, times = places.runs / key.folder, dict.fromkeys(("train_s", "train_again_s", "loop_s"), "")
    arguments = ["-conf", str(places.configs / key.config), *_arguments(tutorial, folder, steps)]
    with tempfile.TemporaryDirectory() as cache:  # what is compiled is compiled anew where time is taken
        environment = {**ONE_THREAD, **({"TORCHINDUCTOR_CACHE_DIR": cache} if tutorial.timed else {})}
        run = train(ALGO, tutorial.env_id, key.seed, folder, *arguments, **environment)
        times["train_s"] = f"{train_seconds(run, tutorial.env_id):.2f}"
        if tutorial.timed and key.variant == IMPROVED:
            times["loop_s"] = f"{loop_seconds(key.seed, steps or plain_loop.STEPS):.2f}"
            again = train(ALGO, tutorial.env_id, key.seed, folder / "again", *arguments, **environment)
            times["train_again_s"] = f"{train_seconds(again, tutorial.env_id):.2f}"
    return {**key._asdict(), "seed": str(key.seed), **times, **evaluate_run(tutorial, run, key.seed)}


def _arguments(tutorial: Tutorial, folder: Path, steps: int | None) -> list[str]:
    """Of the zoo's command, beside the configuration."""
    eval_freq = tutorial.eval_freq
    if steps is not None and eval_freq is not None:
        eval_freq = min(eval_freq, steps // 2)
    arguments = ["--eval-freq", str(eval_freq or -1), "--eval-episodes", str(EVAL_EPISODES)]
    arguments += [] if steps is None else ["-n", str(steps)]
    logs = ["--tensorboard-log", str(folder / "tensorboard"), "--log-interval", "1"]
    return arguments + (logs if tutorial.measures_values else [])


def evaluate_run(tutorial: Tutorial, run: Path, seed: int) -> Row:
    """
    :param tutorial: which
    :param run: a run folder
    :param seed: the seed it was trained with
    :return: what of its row is told by the run folder
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
        "greedy_last": f"{mean_return(run, ALGO, tutorial.env_id, last, seed=seed):.2f}",
        "greedy_best": f"{mean_return(run, ALGO, tutorial.env_id, best, seed=seed):.2f}" if has_best else "",
        "last_100": f"{returns[-100:].mean():.2f}",
        "first_at_threshold": f"{first_at_threshold(returns, tutorial.threshold, tutorial.window):g}",
        "completed_100": str(int(np.sum(returns[:100] >= tutorial.threshold))) if tutorial.counts_trials else "",
        "calibration_r": f"{found.correlation:.3f}" if found else "",
        "calibration_bias": f"{found.bias:.3f}" if found else "",
        "returns": " ".join(f"{part:.2f}" for part in means_of_parts(returns, ends, N_PARTS)),
    }


def first_at_threshold(returns: Array, goal: float, window: int) -> float:
    """
    :param returns: (E,) of the episodes of training
    :param goal: what is to be reached
    :param window: by the mean of so many in a row
    :return: the number of the episode at which it is, the first one is 1; infinity if there is none
    """
    means = rolling_mean(returns, window)
    means[: window - 1] = -np.inf
    # sums of whole numbers are exact, and so are those that a mean is made of here
    return float(min(np.flatnonzero(means >= goal) + 1, default=np.inf))


def means_of_parts(returns: Array, ends: Array, n_parts: int) -> Array:
    """
    :param returns: (E,) of the episodes of training
    :param ends: (E,) where each ends, in episodes or in steps; the next one begins there
    :param n_parts: how many parts of equal length there are
    :return: (n_parts,) the mean of those that are at least in part in each of them
    """
    edges = np.linspace(0, ends[-1], n_parts + 1)
    starts = np.concatenate([[0], ends[:-1]])
    inside = (starts < edges[1:, None]) & (ends > edges[:-1, None])  # (n_parts, E)
    means: Array = (inside * returns).sum(axis=1) / inside.sum(axis=1)
    return means


def trained_steps(model: Path) -> int:
    """
    :param model: a zip that SB3 has saved
    :return: the environment steps it was trained for
    """
    with zipfile.ZipFile(model) as file:
        return int(json.loads(file.read("data"))["num_timesteps"])


def train_seconds(run: Path, env_id: str) -> float:
    """
    :param run: a run folder
    :param env_id: the environment
    :return: from the making of the first environment, where its Monitor begins, to the end, where the model is saved
    """
    headers = [json.loads(path.read_text().splitlines()[0][1:]) for path in run.glob("*monitor.csv")]
    return (run / f"{env_id}.zip").stat().st_mtime - min(float(header["t_start"]) for header in headers)


def loop_seconds(seed: int, steps: int) -> float:
    """
    :param seed: of the network, the environments and the draws
    :param steps: environment steps
    :return: how long the plain loop takes for them
    """
    return float(run_command([sys.executable, "-m", plain_loop.__name__, str(seed), str(steps)], ONE_THREAD))
