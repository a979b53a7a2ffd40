"""
What a run has left in the files of SB3's ``Monitor``, ``EvalCallback`` and logger. No pickle is opened.

Shapes: S seeds, E points in the course of training, N episodes in each.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.monitor import load_results

from sb3_dqn_ext.errors import ArgumentError

__all__ = [
    "N_SCORED_EPISODES",
    "Curve",
    "Log",
    "Series",
    "evaluations",
    "final_score",
    "lifetime",
    "monitor_header",
    "read_log",
    "scalars",
    "training_episodes",
]

Array = npt.NDArray[Any]

N_SCORED_EPISODES = 100
"""training episodes that are a score where nothing was evaluated"""


class Curve(NamedTuple):
    """Evaluations in the course of training."""

    steps: Array
    """(E,) environment steps"""
    returns: Array
    """(E, N) returns of the evaluation episodes, or (S, E) mean returns of several runs"""


class Series(NamedTuple):
    """What was logged under one name."""

    steps: Array
    """(E,) environment steps"""
    values: Array
    """(E,) numbers"""


class Log(NamedTuple):
    """What TensorBoard was told of a run."""

    scalars: dict[str, Series]
    """by name"""
    images: dict[str, bytes]
    """by name, the last of each: a file of whatever format"""
    texts: dict[str, str]
    """by name, the first of each: a run that is gone on with tells them again"""


def evaluations(run_folder: Path | str) -> Curve:
    """
    :param run_folder: holds the ``evaluations.npz`` of SB3's ``EvalCallback``
    :return: (E,) steps and (E, N) returns
    :raises ArgumentError: if the file is damaged
    """
    path = Path(run_folder) / "evaluations.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return Curve(file["timesteps"], file["results"])
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ArgumentError(f"{path} is damaged, or holds more than the numbers of EvalCallback.") from error


def training_episodes(run_folder: Path | str) -> Curve:
    """
    :param run_folder: holds the ``monitor.csv`` files of SB3's ``Monitor``, one for each environment
    :return: (E,) environment steps at which the training episodes ended, and (E, 1) their returns
    """
    episodes = _results(run_folder)
    return Curve(np.cumsum(episodes["l"].to_numpy(dtype=int)), episodes["r"].to_numpy(dtype=float)[:, None])


def _results(run_folder: Path | str) -> Any:
    """Of the monitors; a line may have been cut off."""
    return load_results(str(run_folder)).dropna(subset=["r", "l", "t"])


def scalars(folder: Path | str) -> dict[str, Series]:
    """
    :param folder: holds TensorBoard's event files of one run
    :return: the numbers that were logged, by name. Where a run went on from before its last entries, these are left out
    """
    return read_log(folder).scalars


def read_log(folder: Path | str) -> Log:
    """
    :param folder: holds TensorBoard's event files of one run
    :return: what is in them, but for histograms
    """
    from tensorboard.backend.event_processing.event_accumulator import (
        COMPRESSED_HISTOGRAMS,
        HISTOGRAMS,
        IMAGES,
        SCALARS,
        TENSORS,
        EventAccumulator,
    )

    # 0 is all of them, 1 the last
    events = EventAccumulator(str(folder), {SCALARS: 0, IMAGES: 1, HISTOGRAMS: 1, COMPRESSED_HISTOGRAMS: 1, TENSORS: 0})
    events.Reload()
    found = {}
    for name in sorted(events.Tags()["scalars"]):
        logged = events.Scalars(name)
        steps = np.array([entry.step for entry in logged])
        latest = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.inf)  # (E,) the first step of all that follow
        stays = steps < latest
        found[name] = Series(steps[stays], np.array([entry.value for entry in logged])[stays])
    images = {name: events.Images(name)[-1].encoded_image_string for name in events.Tags()["images"]}
    tensors = {name: events.Tensors(name)[0].tensor_proto.string_val for name in events.Tags()["tensors"]}
    texts = {
        name.removesuffix("/text_summary"): strings[0].decode("utf-8", "replace")
        for name, strings in tensors.items()
        if name.endswith("/text_summary") and len(strings) == 1
    }
    return Log(found, images, texts)


def final_score(run_folder: Path | str, of_evaluations: bool) -> float:
    """
    :param run_folder: of a run
    :param of_evaluations: whether the last evaluation counts, or the last 100 training episodes
    :return: the mean of their returns
    """
    if of_evaluations:
        return float(evaluations(run_folder).returns[-1].mean())
    return float(training_episodes(run_folder).returns[-N_SCORED_EPISODES:].mean())


def monitor_header(folder: Path) -> dict[str, Any]:
    """
    :param folder: of a run
    :return: the header of the ``monitor.csv`` of the environment that was made first; empty if there is none
    """
    headers = []
    for path in folder.glob("*monitor.csv"):
        with path.open() as file:
            line = file.readline()
        if line.startswith("#"):
            headers.append(json.loads(line[1:]))
    return min(headers, key=lambda header: float(header["t_start"]), default={})


def lifetime(folder: Path) -> tuple[float, float] | None:
    """
    :param folder: of a run
    :return: the time at which its environments were made, and that at which their last episode ended, which is infinite if
        none has; in seconds since 1970. None if it has no ``monitor.csv``
    """
    header = monitor_header(folder)
    if not header:
        return None
    start = float(header["t_start"])
    seconds = _results(folder)["t"].to_numpy(dtype=float)
    return start, start + seconds.max() if len(seconds) else math.inf
