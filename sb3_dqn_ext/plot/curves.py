"""
Figures of returns: of one run over time, of several runs, and of their final scores.

Shapes: S seeds, E evaluations, N episodes in each.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot.intervals import align_curves, bootstrap_interval, interquartile_mean, rolling_mean
from sb3_dqn_ext.plot.run_files import N_SCORED_EPISODES, Curve, evaluations, final_score, training_episodes
from sb3_dqn_ext.plot.runs import Run
from sb3_dqn_ext.plot.style import COLORS, HATCHES, LINES, clean_axes, curve_style, new_axes

__all__ = ["final_scores", "plot_evaluations", "plot_learning", "plot_rolling", "plot_run", "plot_scores", "plot_seeds"]

Array = npt.NDArray[Any]

N_POINTS = 200
"""The number of points of a learning curve of several seeds."""


def plot_run(run_folder: Path | str, window: int = 20) -> Figure:
    """
    Draw the training returns of one run with their rolling mean. If the run has evaluations, their mean returns are drawn as
    well, with a star at the best one.

    :param run_folder: the run folder
    :param window: the number of episodes in the rolling mean
    :raises ArgumentError: if the run has no training episode
    """
    run_folder = Path(run_folder)
    figure, axes = new_axes(run_folder.name)
    training = require_episodes(run_folder)
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
    Draw the rolling mean of the training returns of each run. A band around it reaches one standard deviation up and down.

    The mean and the standard deviation are those of the last ``window`` episodes, and of fewer episodes at the start.

    :param runs: label -> curve of E episodes: the (E,) environment steps at their ends and the (E, 1) returns, see
        :func:`~sb3_dqn_ext.plot.training_episodes`
    :param title: the title of the figure
    :param window: the number of episodes in the window
    """
    figure, axes = new_axes(title)
    for i, (label, run) in enumerate(runs.items()):
        style = curve_style(i)
        returns = run.returns[:, 0]
        means = rolling_mean(returns, window)
        deviations = np.sqrt(np.maximum(rolling_mean(returns**2, window) - means**2, 0))
        axes.fill_between(run.steps, means - deviations, means + deviations, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(run.steps, means, **style, linewidth=1, label=label)
    axes.legend(frameon=False, title=f"mean of {window} episodes, standard deviation")
    return figure


def plot_seeds(
    curves: Mapping[str, Curve],
    title: str,
    x_label: str = "environment steps",
    y_label: str = "evaluation return",
    threshold: float | None = None,
) -> Figure:
    """
    Draw interquartile means over seeds with their 95 % bootstrap intervals, a curve for each label.

    :param curves: for each label (E,) steps and (S, E) mean returns
    :param title: the title of the figure
    :param x_label: the label of the x-axis, the unit of ``Curve.steps``
    :param y_label: the label of the y-axis, the meaning of ``Curve.returns``
    :param threshold: a return that gets a line; None (default): no line
    """
    figure, axes = new_axes(title, y_label, x_label)
    if threshold is not None:
        axes.axhline(threshold, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{threshold:g}", (1, threshold), xycoords=("axes fraction", "data"), va="bottom", ha="right", color="0.4"
        )
    for i, (label, curve) in enumerate(curves.items()):
        style = curve_style(i)
        if len(curve.returns) > 1:
            low, high = bootstrap_interval(curve.returns)
            axes.fill_between(curve.steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(curve.steps, interquartile_mean(curve.returns), **style, linewidth=2, label=label)
    axes.legend(edgecolor="none", framealpha=0.7, title=_mean_label([len(curve.returns) for curve in curves.values()]))
    return figure


def _mean_label(n_seeds: Sequence[int]) -> str | None:
    """Return a label for means of given numbers of seeds, None if each label has a single run."""
    low, high = min(n_seeds), max(n_seeds)
    if high == 1:
        return None
    return f"interquartile mean of {high if low == high else f'{low} to {high}'} seeds, 95 % interval"


def plot_learning(groups: Mapping[str, Sequence[Run]], title: str, window: int = 20) -> Figure:
    """
    Draw training returns: the interquartile mean over the rolling means of the runs, with its 95 % bootstrap interval. A curve
    ends with the shortest of its runs.

    :param groups: the runs of each label, see :func:`~sb3_dqn_ext.plot.group_runs`
    :param title: the title of the figure
    :param window: the number of episodes in the rolling mean
    :raises ArgumentError: if a run has no training episode
    """
    curves = {}
    for label, runs in groups.items():
        episodes = [require_episodes(run.folder) for run in runs]
        means = [(steps, rolling_mean(returns[:, 0], window)) for steps, returns in episodes]
        curves[label] = align_curves(means, N_POINTS)
    return plot_seeds(curves, title, y_label=f"return of a training episode, mean of {window}")


def plot_evaluations(groups: Mapping[str, Sequence[Run]], title: str) -> Figure:
    """
    Draw the evaluation returns of each label: the interquartile mean over its runs, with a 95 % bootstrap interval if there
    are several runs. The value of a run is the mean over the episodes of an evaluation.

    A curve covers the environment steps that all runs of the label have reached: it begins with the last first evaluation and
    ends with the shortest run. Its points are the evaluations of the first run. The other runs are interpolated linearly.

    :param groups: label -> runs, see :func:`~sb3_dqn_ext.plot.group_runs`
    :param title: the title of the figure
    :raises ArgumentError: if a run has no evaluation
    """
    curves = {}
    for label, runs in groups.items():
        for run in runs:
            if not has_evaluations(run):
                raise ArgumentError(f"{run.folder} has no evaluations.npz.")
        evaluated = [evaluations(run.folder) for run in runs]
        curves[label] = align_curves([(steps, returns.mean(axis=1)) for steps, returns in evaluated])
    return plot_seeds(curves, title)


def final_scores(groups: Mapping[str, Sequence[Run]]) -> tuple[dict[str, Array], str]:
    """
    Return the final scores of runs: the mean return of the last evaluation if all runs were evaluated, otherwise that of the
    last 100 training episodes.

    :param groups: for each label S runs
    :return: for each label (S,) scores, and a description of the scores
    :raises ArgumentError: if a run has neither evaluations nor training episodes
    """
    runs = [run for group in groups.values() for run in group]
    evaluated = all(has_evaluations(run) for run in runs)
    if not evaluated:
        for run in runs:
            require_episodes(run.folder)
    found = {label: np.array([final_score(run.folder, evaluated) for run in group]) for label, group in groups.items()}
    return found, "return of the last evaluation" if evaluated else f"return of the last {N_SCORED_EPISODES} training episodes"


def plot_scores(found: Mapping[str, Array], title: str, x_label: str = "return") -> Figure:
    """
    Draw final scores: the interquartile mean of each label as a bar with its 95 % bootstrap interval, and each run as a point.

    :param found: for each label (S,) scores, see :func:`final_scores`
    :param title: the title of the figure
    :param x_label: the meaning of the scores
    """
    figure = Figure(figsize=(8, 1.5 + 0.7 * len(found)), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x_label)
    clean_axes(axes)
    axes.grid(visible=False, axis="y")
    for i, of_label in enumerate(found.values()):
        mean = float(interquartile_mean(of_label))
        color, hatch = COLORS[i % len(COLORS)], HATCHES[i % len(HATCHES)]
        axes.barh(i, mean, height=0.6, alpha=0.6, edgecolor="black", facecolor=color, hatch=hatch)
        axes.plot(of_label, np.full(len(of_label), i - 0.15), "o", markersize=4, color="white", markeredgecolor="black")
        if len(of_label) > 1:
            low, high = (float(bound[0]) for bound in bootstrap_interval(of_label[:, None]))
            axes.errorbar(mean, i + 0.1, xerr=[[mean - low], [high - mean]], color="black", linewidth=2, capsize=5)
    axes.set_yticks(range(len(found)), [f"{label} ({len(of_label)})" for label, of_label in found.items()])
    axes.invert_yaxis()  # the first label is on top
    if (label := _mean_label([len(of_label) for of_label in found.values()])) is not None:
        figure.supxlabel(f"{label}; each point is a run", fontsize="small", color="0.3")
    return figure


def has_evaluations(run: Run) -> bool:
    """
    Return whether a run has evaluations.

    :param run: the run
    """
    return (run.folder / "evaluations.npz").is_file()


def require_episodes(folder: Path) -> Curve:
    """
    Read the training episodes of a run.

    :param folder: the run folder
    :raises ArgumentError: if there are none
    """
    if not any(folder.glob("*monitor.csv")):
        raise ArgumentError(f"{folder} has no *monitor.csv.")
    found = training_episodes(folder)
    if len(found.steps) == 0:
        raise ArgumentError(f"{folder} has no finished training episode.")
    return found
