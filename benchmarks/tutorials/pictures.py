"""Pictures of the tutorials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.rows import select_rows
from benchmarks.tutorials.calibration import measure_calibration
from benchmarks.tutorials.measure import N_PARTS, Key, Places
from benchmarks.tutorials.report import rows_of_tutorial
from benchmarks.tutorials.row_statistics import VARIANTS, Rows
from benchmarks.tutorials.specs import TUTORIALS, Tutorial
from sb3_dqn_ext.plot import (
    Calibration,
    Curve,
    event_folder,
    plot_panels,
    plot_rolling,
    plot_seeds,
    read_run,
    scalars,
    training_episodes,
)

Array = npt.NDArray[Any]

DPI = 120
WINDOW = 10


def returns_picture(tutorial: Tutorial, rows: Rows) -> Figure:
    """
    :param tutorial: which
    :param rows: its rows
    :return: the returns of training of all seeds, faithful and improved
    """
    curves = {
        variant: returns_curve(tutorial, of_variant)
        for variant in VARIANTS
        if (of_variant := select_rows(rows, variant=variant))
    }
    x_label = "episodes of training" if tutorial.in_episodes else "environment steps"
    goal = None if tutorial.counts_trials else tutorial.threshold
    return plot_seeds(curves, f"{tutorial.title} ({tutorial.env_id})", x_label, "return of a training episode", goal)


def returns_curve(tutorial: Tutorial, rows: Rows) -> Curve:
    """
    :param tutorial: which
    :param rows: of one variant
    :return: (P,) the middles of parts of the longest run, and (S, P) mean returns; those of shorter runs end as they are
    """
    lengths = np.array([float(row["episodes" if tutorial.in_episodes else "steps"]) for row in rows])  # (S,)
    parts = np.array([[float(number) for number in row["returns"].split()] for row in rows])  # (S, P)
    middles = (np.arange(N_PARTS) + 0.5) / N_PARTS  # (P,) of the whole run
    at = middles * lengths.max()
    return Curve(at, np.array([np.interp(at, middles * length, part) for length, part in zip(lengths, parts, strict=True)]))


def values_picture(runs: Mapping[str, tuple[Array, Array, Calibration]]) -> Figure:
    """
    The three plots of the tutorial on realised returns, one row of them for each run.

    :param runs: by label: (E,) loss of each training, (E,) return of each game, predicted and realised values
    """
    return plot_panels(runs, WINDOW)


def best_keys(rows: Rows, places: Places) -> dict[str, Key]:
    """
    :param rows: of one tutorial
    :param places: where runs are
    :return: for each variant the seed with the best greedy return, of those whose run folders are here
    """
    keys = {}
    for variant in VARIANTS:
        ranked = sorted(select_rows(rows, variant=variant), key=lambda row: -float(row["greedy_best"] or row["greedy_last"]))
        found = [Key(row["tutorial"], variant, int(row["seed"])) for row in ranked]
        here = [key for key in found if places.run(key) is not None]
        if here:
            keys[variant] = here[0]
    return keys


def runs_picture(tutorial: Tutorial, rows: Rows, places: Places) -> Figure | None:
    """
    :param tutorial: which
    :param rows: its rows
    :param places: where runs are
    :return: the picture that a tutorial draws of a single run; None if it does not, or no run folder is here
    """
    if not (tutorial.measures_values or tutorial.timed):
        return None
    folders = {key: run for key in best_keys(rows, places).values() if (run := places.run(key)) is not None}
    if not folders:
        return None
    labels = {key: f"{key.variant}, seed {key.seed}" for key in folders}
    if tutorial.timed:
        curves = {labels[key]: training_episodes(run) for key, run in folders.items()}
        return plot_rolling(curves, f"{tutorial.title} ({tutorial.env_id})", WINDOW)
    shown = {}
    for key, run in folders.items():
        model = "best_model.zip" if (run / "best_model.zip").is_file() else f"{tutorial.env_id}.zip"
        found = measure_calibration(run, tutorial.env_id, model, key.seed)
        log = event_folder(read_run(run, places.runs / key.folder / "tensorboard"))
        loss = scalars(log)["train/loss"].values if log is not None else np.empty(0)
        shown[labels[key]] = (loss, training_episodes(run).returns[:, 0], found)
    return values_picture(shown)


def save_pictures(rows: Rows, places: Places, results: Path) -> None:
    """
    :param rows: of all tutorials
    :param places: where runs are; pictures of single runs stay as they are where there are none
    :param results: the folder whose folder tutorials gets the pictures
    """
    folder = results / "tutorials"
    folder.mkdir(parents=True, exist_ok=True)
    for tutorial in TUTORIALS:
        of_tutorial = rows_of_tutorial(rows, tutorial)
        if not of_tutorial:
            continue
        returns_picture(tutorial, of_tutorial).savefig(folder / f"{tutorial.name}.png", dpi=DPI)
        picture = runs_picture(tutorial, of_tutorial, places)
        if picture is not None:
            picture.savefig(folder / f"{tutorial.name}_run.png", dpi=DPI)
