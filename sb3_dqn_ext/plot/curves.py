"""
Pictures of returns: of one run in the course of training, of many, and of what they came to.

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
"""of a learning curve of several seeds"""


def plot_run(run_folder: Path | str, window: int = 20) -> Figure:
    """
    One run: the returns of its training episodes with their rolling mean, and its evaluations.

    :param run_folder: a run folder of the zoo
    :param window: number of episodes in the rolling mean
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
    Returns of the training episodes of all environments of a run: their rolling mean, and their standard deviation around it.

    :param runs: for each label (E,) steps and (E, 1) returns, see :func:`training_episodes`
    :param title: stands above the figure
    :param window: number of episodes in a mean
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
    Several runs of several algorithms: interquartile means with their 95 % bootstrap intervals.

    :param curves: for each label (E,) steps and (S, E) mean returns
    :param title: stands above the figure
    :param x_label: what is counted in ``Curve.steps``
    :param y_label: what is in ``Curve.returns``
    :param goal: gets a line, if there is one
    """
    figure, axes = new_axes(title, y_label, x_label)
    if goal is not None:
        axes.axhline(goal, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(f"{goal:g}", (1, goal), xycoords=("axes fraction", "data"), va="bottom", ha="right", color="0.4")
    for i, (label, curve) in enumerate(curves.items()):
        style = curve_style(i)
        if len(curve.returns) > 1:
            low, high = bootstrap_interval(curve.returns)
            axes.fill_between(curve.steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(curve.steps, interquartile_mean(curve.returns), **style, linewidth=2, label=label)
    axes.legend(edgecolor="none", framealpha=0.7, title=_of_seeds([len(curve.returns) for curve in curves.values()]))
    return figure


def _of_seeds(numbers: Sequence[int]) -> str | None:
    """What a mean of so many runs is called; None where each is alone."""
    low, high = min(numbers), max(numbers)
    if high == 1:
        return None
    return f"interquartile mean of {high if low == high else f'{low} to {high}'} seeds, 95 % interval"


def plot_learning(groups: Mapping[str, Sequence[Run]], title: str, window: int = 20) -> Figure:
    """
    Returns of training episodes: the rolling mean of each run, and their interquartile mean with its 95 % bootstrap interval.
    A curve ends where the first of its runs did.

    :param groups: for each label some runs, see :func:`~sb3_dqn_ext.plot.group_runs`
    :param title: stands above the figure
    :param window: number of episodes in the rolling mean
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
    Mean returns of evaluations of several runs: their interquartile mean with its 95 % bootstrap interval. A curve ends where
    the first of its runs did.

    :param groups: for each label some runs, see :func:`~sb3_dqn_ext.plot.group_runs`
    :param title: stands above the figure
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
    :param groups: for each label S runs
    :return: for each label (S,) final scores, and what they are: returns of the last evaluation if all runs were evaluated,
        else of the last 100 training episodes
    :raises ArgumentError: if a run has neither
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
    What runs came to: interquartile means with their 95 % bootstrap intervals, and each run as a point.

    :param found: for each label (S,) scores, see :func:`scores`
    :param title: stands above the figure
    :param x_label: what they are
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
    axes.invert_yaxis()  # the first is on top
    if (what := _of_seeds([len(of_label) for of_label in found.values()])) is not None:
        figure.supxlabel(f"{what}; each point is a run", fontsize="small", color="0.3")
    return figure


def has_evaluations(run: Run) -> bool:
    """
    :param run: a run
    :return: whether it was evaluated
    """
    return (run.folder / "evaluations.npz").is_file()


def require_episodes(folder: Path) -> Curve:
    """:raises ArgumentError: if there are none"""
    if not any(folder.glob("*monitor.csv")):
        raise ArgumentError(f"{folder} has no *monitor.csv.")
    found = training_episodes(folder)
    if len(found.steps) == 0:
        raise ArgumentError(f"{folder} has no training episode that came to its end.")
    return found
