"""Pictures of the tutorials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

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
from sb3_dqn_ext.sweep import select_rows

Array = npt.NDArray[Any]

DPI = 120
WINDOW = 10


def returns_picture(tutorial: Tutorial, rows: Rows) -> Figure:
    """
    Draw the training returns of all seeds of both variants.

    :param tutorial: the tutorial
    :param rows: its rows
    """
    curves = {
        variant: returns_curve(tutorial, of_variant)
        for variant in VARIANTS
        if (of_variant := select_rows(rows, variant=variant))
    }
    x_label = "episodes of training" if tutorial.in_episodes else "environment steps"
    threshold = None if tutorial.counts_trials else tutorial.threshold
    return plot_seeds(curves, f"{tutorial.title} ({tutorial.env_id})", x_label, "return of a training episode", threshold)


def returns_curve(tutorial: Tutorial, rows: Rows) -> Curve:
    """
    Return the mean training returns of all seeds at the middles of P parts of the longest run.

    :param tutorial: the tutorial
    :param rows: the rows of one variant
    :return: (P,) middles, and (S, P) mean returns; a shorter run keeps its last value
    """
    lengths = np.array([float(row["episodes" if tutorial.in_episodes else "steps"]) for row in rows])  # (S,)
    parts = np.array([[float(number) for number in row["returns"].split()] for row in rows])  # (S, P)
    middles = (np.arange(N_PARTS) + 0.5) / N_PARTS  # (P,) of the whole run
    at = middles * lengths.max()
    return Curve(at, np.array([np.interp(at, middles * length, part) for length, part in zip(lengths, parts, strict=True)]))


def values_picture(runs: Mapping[str, tuple[Array, Array, Calibration]]) -> Figure:
    """
    Draw the three plots of the tutorial on realised returns, a row of plots for each run.

    :param runs: for each label (E,) logged losses, (E,) returns of games, and predicted and realised values
    """
    return plot_panels(runs, WINDOW)


def best_keys(rows: Rows, places: Places) -> dict[str, Key]:
    """
    Return for each variant the run with the best greedy return among those whose run folders are on this machine.

    :param rows: the rows of one tutorial
    :param places: the folders of the runs
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
    Draw the picture of single runs that a tutorial has; None if it has none, or no run folder is on this machine.

    :param tutorial: the tutorial
    :param rows: its rows
    :param places: the folders of the runs
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
    panels = {}
    for key, run in folders.items():
        model = "best_model.zip" if (run / "best_model.zip").is_file() else f"{tutorial.env_id}.zip"
        found = measure_calibration(run, tutorial.env_id, model, key.seed)
        log = event_folder(read_run(run, places.runs / key.folder / "tensorboard"))
        loss = scalars(log)["train/loss"].values if log is not None else np.empty(0)
        panels[labels[key]] = (loss, training_episodes(run).returns[:, 0], found)
    return values_picture(panels)


def save_pictures(rows: Rows, places: Places, results: Path) -> None:
    """
    Save all pictures. Pictures of single runs whose folders are missing are left unchanged.

    :param rows: the rows of all tutorials
    :param places: the folders of the runs
    :param results: the folder of results, whose folder ``tutorials`` gets the pictures
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
