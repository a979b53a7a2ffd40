"""
Readers of the files that SB3's ``Monitor``, ``EvalCallback`` and logger write. No pickle is opened.

Shapes: S seeds, E points in time, N episodes in each.
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
"""The number of training episodes whose mean return is the score of a run without evaluations."""


class Curve(NamedTuple):
    """Returns over time."""

    steps: Array
    """(E,) environment steps."""
    returns: Array
    """(E, N) returns of the evaluation episodes, or (S, E) mean returns of several runs."""


class Series(NamedTuple):
    """The numbers that were logged under one name."""

    steps: Array
    """(E,) environment steps."""
    values: Array
    """(E,) numbers."""


class Log(NamedTuple):
    """The TensorBoard log of a run."""

    scalars: dict[str, Series]
    """The numbers of each name."""
    images: dict[str, bytes]
    """The last image of each name, as the content of a file of any format."""
    texts: dict[str, str]
    """The first text of each name; a resumed run logs its texts again."""


def evaluations(run_folder: Path | str) -> Curve:
    """
    Read the evaluations of a run.

    :param run_folder: a folder with the ``evaluations.npz`` of SB3's ``EvalCallback``
    :return: (E,) steps and (E, N) returns
    :raises ArgumentError: if the file is damaged
    """
    path = Path(run_folder) / "evaluations.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return Curve(file["timesteps"], file["results"])
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ArgumentError(f"{path} is damaged, or contains more than the numbers of EvalCallback.") from error


def training_episodes(run_folder: Path | str) -> Curve:
    """
    Read the training episodes of a run.

    :param run_folder: a folder with the ``monitor.csv`` files of SB3's ``Monitor``, one for each environment
    :return: (E,) environment steps at which the training episodes ended, and (E, 1) their returns
    """
    episodes = _results(run_folder)
    return Curve(np.cumsum(episodes["l"].to_numpy(dtype=int)), episodes["r"].to_numpy(dtype=float)[:, None])


def _results(run_folder: Path | str) -> Any:
    """Read the rows of all monitors, without incomplete ones."""
    return load_results(str(run_folder)).dropna(subset=["r", "l", "t"])


def scalars(folder: Path | str) -> dict[str, Series]:
    """
    Read the numbers that a run logged to TensorBoard. Entries that a resumed run replaced are left out.

    :param folder: the folder of the run's event files
    :return: the numbers of each name
    """
    return read_log(folder).scalars


def read_log(folder: Path | str) -> Log:
    """
    Read the TensorBoard log of a run without its histograms.

    :param folder: the folder of the run's event files
    """
    from tensorboard.backend.event_processing.event_accumulator import (
        COMPRESSED_HISTOGRAMS,
        HISTOGRAMS,
        IMAGES,
        SCALARS,
        TENSORS,
        EventAccumulator,
    )

    # how many entries of each kind are kept: 0 is all, 1 the last one
    events = EventAccumulator(str(folder), {SCALARS: 0, IMAGES: 1, HISTOGRAMS: 1, COMPRESSED_HISTOGRAMS: 1, TENSORS: 0})
    events.Reload()
    found = {}
    for name in sorted(events.Tags()["scalars"]):
        logged = events.Scalars(name)
        steps = np.array([entry.step for entry in logged])
        latest = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.inf)  # (E,) the smallest step of all later entries
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
    Return the mean return at the end of a run.

    :param run_folder: the run folder
    :param of_evaluations: whether to take the last evaluation instead of the last 100 training episodes
    """
    if of_evaluations:
        return float(evaluations(run_folder).returns[-1].mean())
    return float(training_episodes(run_folder).returns[-N_SCORED_EPISODES:].mean())


def monitor_header(folder: Path) -> dict[str, Any]:
    """
    Return the header of the ``monitor.csv`` of the environment that was made first, empty if there is none.

    :param folder: the run folder
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
    Return the time at which the environments of a run were made and the time at which their last episode ended, in seconds
    since 1970. The second is infinite if no episode ended.

    :param folder: the run folder
    :return: the two times, None if there is no ``monitor.csv``
    """
    header = monitor_header(folder)
    if not header:
        return None
    start = float(header["t_start"])
    seconds = _results(folder)["t"].to_numpy(dtype=float)
    return start, start + seconds.max() if len(seconds) else math.inf
