"""
Pictures of runs, as matplotlib figures, from what the RL Zoo, SB3's ``Monitor`` and its ``EvalCallback`` leave in a folder.

Shapes: S seeds, E evaluations, N episodes in each.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from stable_baselines3.common.monitor import load_results

__all__ = [
    "Curve",
    "bootstrap_interval",
    "evaluations",
    "interquartile_mean",
    "plot_rolling",
    "plot_run",
    "plot_seeds",
    "rolling_mean",
    "training_episodes",
]

Array = npt.NDArray[Any]

# readable in black and white, and for colour-blind readers (Okabe and Ito)
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
LINES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1))]


class Curve(NamedTuple):
    """Evaluations in the course of training."""

    steps: Array
    """(E,) environment steps"""
    returns: Array
    """(E, N) returns of the evaluation episodes, or (S, E) mean returns of several runs"""


def evaluations(run_folder: Path | str) -> Curve:
    """
    :param run_folder: holds the ``evaluations.npz`` of SB3's ``EvalCallback``
    :return: (E,) steps and (E, N) returns
    """
    with np.load(Path(run_folder) / "evaluations.npz") as file:
        return Curve(file["timesteps"], file["results"])


def training_episodes(run_folder: Path | str) -> Curve:
    """
    :param run_folder: holds the ``monitor.csv`` files of SB3's ``Monitor``, one for each environment
    :return: (E,) environment steps at which the training episodes ended, and (E, 1) their returns
    """
    episodes = load_results(str(run_folder))
    return Curve(np.cumsum(episodes["l"].to_numpy()), episodes["r"].to_numpy()[:, None])


def rolling_mean(values: Array, window: int) -> Array:
    """(E,) values -> (E,) the mean of each and the ``window - 1`` before it, of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    means: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def interquartile_mean(values: Array, axis: int = 0) -> Array:
    """The mean of the middle half along an axis (https://arxiv.org/abs/2108.13264)."""
    mean: Array = stats.trim_mean(values, proportiontocut=0.25, axis=axis)
    return mean


def bootstrap_interval(returns: Array, confidence: float = 0.95) -> tuple[Array, Array]:
    """
    :param returns: (S, E) mean returns of S runs
    :param confidence: how much the interval holds
    :return: (E,) lower and (E,) upper bounds of the interquartile mean, by the percentile bootstrap over seeds
    """
    drawn = np.random.default_rng(0).integers(len(returns), size=(2000, len(returns)))  # (draws, S)
    means = interquartile_mean(returns[drawn], axis=1)  # (draws, E)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(means, [tail, 100 - tail], axis=0)
    return low, high


def _axes(title: str, y_label: str = "return of an episode", x_label: str = "environment steps") -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plot_run(run_folder: Path | str, window: int = 20) -> Figure:
    """
    One run: the returns of its training episodes with their rolling mean, and its evaluations.

    :param run_folder: a run folder of the zoo
    :param window: number of episodes in the rolling mean
    """
    run_folder = Path(run_folder)
    figure, axes = _axes(run_folder.name)
    training = training_episodes(run_folder)
    returns = training.returns[:, 0]
    axes.plot(training.steps, returns, ".", color="0.75", markersize=3, label="training episode (explores)")
    axes.plot(
        training.steps, rolling_mean(returns, window), LINES[1], color=COLORS[1], label=f"mean of {window} training episodes"
    )
    if (run_folder / "evaluations.npz").is_file():
        evaluated = evaluations(run_folder)
        means = evaluated.returns.mean(axis=1)
        axes.plot(evaluated.steps, means, LINES[0], color=COLORS[0], marker="o", markersize=4, label="evaluation (greedy)")
        best = int(means.argmax())
        axes.plot(evaluated.steps[best], means[best], "*", color="black", markersize=14, label="best_model.zip")
    axes.legend(frameon=False)
    return figure


def plot_rolling(runs: Mapping[str, Curve], title: str, window: int = 10) -> Figure:
    """
    Returns of the training episodes of all environments of a run: their rolling mean, and their standard deviation around it.

    :param runs: for each label (E,) steps and (E, 1) returns, see :func:`training_episodes`
    :param title: stands above the figure
    :param window: number of episodes in a mean
    """
    figure, axes = _axes(title)
    for i, (label, run) in enumerate(runs.items()):
        color, line = COLORS[i % len(COLORS)], LINES[i % len(LINES)]
        returns = run.returns[:, 0]
        means = rolling_mean(returns, window)
        deviations = np.sqrt(np.maximum(rolling_mean(returns**2, window) - means**2, 0))
        axes.fill_between(run.steps, means - deviations, means + deviations, color=color, alpha=0.2, linewidth=0)
        axes.plot(run.steps, means, linestyle=line, color=color, linewidth=1, label=label)
    axes.legend(frameon=False, title=f"mean of {window} episodes, standard deviation")
    return figure


def plot_seeds(
    curves: Mapping[str, Curve],
    title: str,
    x_label: str = "environment steps",
    y_label: str = "evaluation return",
    goal: float | None = None,
) -> Figure:
    """
    Several runs of several algorithms: interquartile means with their 95 % bootstrap intervals.

    :param curves: for each label (E,) steps and (S, E) mean returns
    :param title: stands above the figure
    :param x_label: what is counted in ``Curve.steps``
    :param y_label: what is in ``Curve.returns``
    :param goal: gets a line, if there is one
    """
    figure, axes = _axes(title, y_label, x_label)
    if goal is not None:
        axes.axhline(goal, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(f"{goal:g}", (1, goal), xycoords=("axes fraction", "data"), va="bottom", ha="right", color="0.4")
    for i, (label, curve) in enumerate(curves.items()):
        color, line = COLORS[i % len(COLORS)], LINES[i % len(LINES)]
        low, high = bootstrap_interval(curve.returns)
        axes.fill_between(curve.steps, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(curve.steps, interquartile_mean(curve.returns), linestyle=line, color=color, linewidth=2, label=label)
    axes.legend(
        frameon=False, title=f"interquartile mean of {min(len(c.returns) for c in curves.values())} seeds, 95 % interval"
    )
    return figure
