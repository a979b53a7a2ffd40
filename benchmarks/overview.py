"""Draw the figure of the README from the published rows: ``python -m benchmarks.overview``."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.speed.report import Results
from benchmarks.speed.workloads import BY_NAME, LABELS, Comparison
from sb3_dqn_ext.plot import COLORS, bootstrap_interval, interquartile_mean
from sb3_dqn_ext.plot.style import clean_axes, curve_style
from sb3_dqn_ext.sweep import Row, read_rows, select_rows
from sb3_dqn_ext.sweep.report import curve

DOCS = Path(__file__).parents[1] / "docs"
VARIANTS = {"sb3_dqn_ext": "DQNExt", "stock SB3 DQN": "SB3 DQN"}
"""The variants of cartpole_seeds.csv, and their labels."""
WORKLOADS = {
    "cartpole-1": "CartPole",
    "cartpole-32": "32 CartPoles",
    "zoo-cartpole": "CartPole, as in the zoo",
    "zoo-lunarlander": "LunarLander, as in the zoo",
    "minatar-1": "MinAtar Breakout",
    "minatar-32": "32 MinAtar Breakouts",
    "nature-1": "Pong, 84 x 84",
}
"""All workloads in which compiled DQNExt was compared with SB3 and with SBX, and their labels."""
PEERS = {"sb3": COLORS[1], "sbx": COLORS[4]}
"""The peers, and the colours of their bars."""


def draw_learning(axes: Axes, rows: list[Row]) -> None:
    """
    Draw the learning curves of CartPole-v1: interquartile means over the seeds with their 95 % intervals.

    :param axes: the axes
    :param rows: the rows of cartpole_seeds.csv
    """
    for i, (variant, label) in enumerate(VARIANTS.items()):
        steps, returns = curve(select_rows(rows, variant=variant))
        style = curve_style(i)
        axes.plot(steps, interquartile_mean(returns), label=label, **style)
        axes.fill_between(steps, *bootstrap_interval(returns), alpha=0.2, color=style["color"], linewidth=0)
    n_seeds = len(select_rows(rows, variant="sb3_dqn_ext"))
    axes.set(title=f"CartPole-v1, {n_seeds} seeds", xlabel="environment steps", ylabel="return of the evaluations")
    axes.legend(frameon=False, loc="lower right")
    clean_axes(axes)


def draw_speed(axes: Axes, results: Results) -> None:
    """
    Draw a pair of bars for each workload: the times of the peers, relative to that of compiled DQNExt.

    :param axes: the axes
    :param results: the rows of speed.csv
    """
    for i, (peer, color) in enumerate(PEERS.items()):
        for y, name in enumerate(reversed(WORKLOADS)):
            ratio = results.ratio(BY_NAME[name], Comparison("ours", peer))
            assert ratio is not None
            label = LABELS[peer] if y == 0 else None
            bar = axes.barh(y + 0.2 - 0.4 * i, ratio.median, height=0.38, color=color, label=label)
            axes.bar_label(bar, [f"{ratio.median:.1f}"], padding=2, fontsize=8)
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.set_yticks(range(len(WORKLOADS)), list(reversed(WORKLOADS.values())))
    axes.set(title="compiled DQNExt: times as fast as", xlabel="time of an environment step, relative to DQNExt")
    axes.legend(frameon=False, loc="center right")
    clean_axes(axes)


def draw_overview(results: Path) -> Figure:
    """
    Draw the learning curves beside the speed.

    :param results: the folder of cartpole_seeds.csv and speed.csv
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    draw_learning(panels[0], read_rows(results / "cartpole_seeds.csv"))
    draw_speed(panels[1], Results(read_rows(results / "speed.csv")))
    return figure


if __name__ == "__main__":
    draw_overview(DOCS / "results").savefig(DOCS / "images/overview.png", dpi=120)
