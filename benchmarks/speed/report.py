"""Tables and charts of the measurements."""

import os
import platform
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.rows import Row, read_rows
from benchmarks.speed.stopwatch import Parts
from benchmarks.speed.workloads import AXES, BY_NAME, IMPLEMENTATION, LABELS, WORKLOADS, Comparison, Workload
from sb3_dqn_ext.plot import COLORS, LINES

Array = npt.NDArray[Any]
PACKAGES = ("stable-baselines3", "sb3-contrib", "sbx-rl", "torch", "jax", "numpy", "gymnasium")

NOTES = """\
One thread, and one core that it keeps to; each measurement in a process of its own, peers and ours in turns. Costs and
ratios are medians of the repeats, with the least and the greatest; a ratio is that of the same repeat. All have the same
environment, network, batch size, number of updates, exploration and defaults of logging. Compiled, ours steps CartPole as one
array; eager, and in LunarLander, it has the same environments as SB3. SBX does not clip gradients; the loop keeps neither
statistics of episodes nor clips, and fits one stored vector step instead of 32 transitions.
"""
START_UP_NOTES = """\
From the start of Python's imports to the end of the warm-up, less what the updates of the warm-up cost later. Cold: nothing
compiled is kept on the disk; warm: what the repeat before has compiled is. After the break-even, the faster has made up for
a cold start.
"""
PARTS_NOTES = """\
Microseconds per environment step, from a run of its own in which the methods are wrapped in clocks: `env.step`,
`_sample_action` (act), `_store_transition`, the buffer's `sample`, and `train` without it (update). The rest is what is in
none of them: the comparison network, the exploration rate, statistics of episodes, logging, callbacks, and about a microsecond
for each clock.
"""
SCALING_NOTES = """\
Microseconds per environment step. CartPole, an update of 32 transitions per vector step, with 32 environments, two layers
of 64 and a full memory of 100,000 where nothing else is said.
"""


class Spread(NamedTuple):
    """A median between the least and the greatest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Array) -> "Spread":
        """
        :param numbers: (R,) of the repeats
        :return: their spread
        """
        return cls(float(np.median(numbers)), float(np.min(numbers)), float(np.max(numbers)))

    def text(self, digits: int) -> str:
        """
        :param digits: after the point
        :return: the median, and the others in brackets
        """
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


class Results:
    """
    The rows, by what they answer.

    :param rows: of speed.csv
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows: defaultdict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
        for row in rows:
            self.rows[row["workload"], row[IMPLEMENTATION]][int(row["repeat"])] = row

    def cost(self, workload: Workload, implementation: str, clock: str = "wall_s") -> dict[int, float]:
        """
        :param workload: what was trained
        :param implementation: its name
        :param clock: ``"wall_s"`` or ``"cpu_s"``
        :return: microseconds of each repeat, per environment step of those who have as many updates as the workload says
        """
        rows = self.rows.get((workload.name, implementation), {})
        return {
            repeat: 1e6 * float(row[clock]) / float(row["updates"]) * workload.updates_per_step for repeat, row in rows.items()
        }

    def ratio(self, workload: Workload, comparison: Comparison, clock: str = "wall_s") -> Spread | None:
        """
        :param workload: what was trained
        :param comparison: who is compared
        :param clock: ``"wall_s"`` or ``"cpu_s"``
        :return: how many times as fast as the peer we are, if both have been measured
        """
        ours, peer = self.cost(workload, comparison.ours, clock), self.cost(workload, comparison.peer, clock)
        both = sorted(ours.keys() & peer.keys())
        return Spread.of(np.array([peer[repeat] / ours[repeat] for repeat in both])) if both else None

    def start_up(self, workload: Workload, implementation: str, cold: bool | None = None) -> float:
        """
        :param workload: what was trained
        :param implementation: its name
        :param cold: whether nothing compiled was on the disk; None where nothing is ever kept there
        :return: seconds, the median of these repeats; NaN if there are none
        """
        rows = self.rows.get((workload.name, implementation), {}).values()
        seconds = [float(row["start_up_s"]) for row in rows if cold is None or row["cold"] == str(int(cold))]
        return float(np.median(seconds)) if seconds else float("nan")


def speed_table(results: Results) -> str:
    """
    :param results: the rows
    :return: a Markdown table of the comparisons
    """
    lines = [
        "| workload | ours | peer | ours, µs per step | peer, µs per step | times as fast | processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload, comparison, ratio in measured_comparisons(results):
        costs = (
            Spread.of(np.array(list(results.cost(workload, name).values()))).text(1)
            for name in (comparison.ours, comparison.peer)
        )
        cpu = results.ratio(workload, comparison, "cpu_s")
        assert cpu is not None
        cells = [workload.title, LABELS[comparison.ours], LABELS[comparison.peer], *costs, ratio.text(2), f"{cpu.median:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measured_comparisons(results: Results) -> list[tuple[Workload, Comparison, Spread]]:
    """
    :param results: the rows
    :return: the comparisons of which both sides have been measured, with the ratio
    """
    pairs = [(workload, comparison) for workload in WORKLOADS for comparison in workload.comparisons]
    ratios = [(workload, comparison, results.ratio(workload, comparison)) for workload, comparison in pairs]
    return [(workload, comparison, ratio) for workload, comparison, ratio in ratios if ratio is not None]


def start_up_table(results: Results) -> str:
    """
    :param results: the rows
    :return: a Markdown table of what it takes to get ready, and after how many steps that is made up for
    """
    lines = [
        "| workload | peer | peer, s | ours cold, s | ours warm, s | saved per step, µs | break-even, steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload, comparison, _ in measured_comparisons(results):
        if comparison.ours != "ours":
            continue
        cold, warm = (results.start_up(workload, "ours", cold) for cold in (True, False))
        peer = results.start_up(workload, comparison.peer)
        costs = [np.median(list(results.cost(workload, name).values())) for name in (comparison.peer, "ours")]
        saved = float(costs[0] - costs[1])
        lines.append(
            f"| {workload.title} | {LABELS[comparison.peer]} | {peer:.1f} | {cold:.1f} | {warm:.1f} | {saved:.1f} "
            f"| {break_even(cold - peer, saved)} |"
        )
    return "\n".join(lines) + "\n"


def break_even(seconds: float, saved: float) -> str:
    """
    :param seconds: that ours takes longer to get ready
    :param saved: microseconds per step
    :return: the number of steps that make up for it
    """
    if np.isnan(seconds):
        return "-"
    if seconds <= 0 <= saved:
        return "0"
    return f"{1e6 * seconds / saved:,.0f}" if saved > 0 else "never"


def parts_table(rows: list[Row]) -> str:
    """
    :param rows: of speed_parts.csv
    :return: a Markdown table of where the time goes
    """
    lines = [f"| workload | | {' | '.join(Parts.NAMES)} | sum |", "|---|---|" + "---|" * (len(Parts.NAMES) + 1)]
    for row in sorted(rows, key=lambda row: (list(BY_NAME).index(row["workload"]), list(LABELS).index(row[IMPLEMENTATION]))):
        parts = [float(row[name]) for name in Parts.NAMES]
        cells = " | ".join(f"{part:.1f}" for part in [*parts, sum(parts)])
        lines.append(f"| {BY_NAME[row['workload']].title} | {LABELS[row[IMPLEMENTATION]]} | {cells} |")
    return "\n".join(lines) + "\n"


def scaling_table(results: Results) -> str:
    """
    :param results: the rows
    :return: a Markdown table of how the cost grows
    """
    lines = ["| | | SB3 DQN | ours, compiled | times as fast |", "|---|---|---|---|---|"]
    for axis in AXES:
        for number, workload in zip(axis.numbers, axis.workloads, strict=True):
            ratio = results.ratio(workload, workload.comparisons[0])
            if ratio is not None:
                sb3, ours = (np.median(list(results.cost(workload, name).values())) for name in ("sb3", "ours"))
                lines.append(f"| {axis.title} | {number:,} | {sb3:.1f} | {ours:.1f} | {ratio.text(2)} |")
    return "\n".join(lines) + "\n"


def draw_speed(results: Results) -> Figure:
    """
    :param results: the rows
    :return: a bar for each comparison
    """
    bars = measured_comparisons(results)[::-1]
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots()
    peers = list(LABELS)
    for y, (_, comparison, ratio) in enumerate(bars):
        spread = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.barh(y, ratio.median, xerr=spread, capsize=3, color=COLORS[peers.index(comparison.peer)], alpha=0.8)
        axes.annotate(f"{ratio.median:.1f}", (0, y), xytext=(4, 0), textcoords="offset points", va="center", color="white")
    axes.axvline(1, color="0.5", linewidth=0.8)
    labels = [f"{workload.title}\n{LABELS[comparison.ours]} / {LABELS[comparison.peer]}" for workload, comparison, _ in bars]
    axes.set_yticks(range(len(bars)), labels, fontsize=7)
    axes.set(xlim=(0, None), ylim=(-0.6, len(bars) - 0.4))
    axes.set_xlabel("times as fast, from least to greatest")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_scaling(results: Results) -> Figure:
    """
    :param results: the rows
    :return: a panel for each number that was changed
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(AXES))
    for panel, axis in zip(panels, AXES, strict=True):
        for i, name in enumerate(("sb3", "ours")):
            costs = [list(results.cost(workload, name).values()) for workload in axis.workloads]
            points = [(number, np.median(cost)) for number, cost in zip(axis.numbers, costs, strict=True) if cost]
            if points:
                panel.plot(*zip(*points, strict=True), LINES[i], color=COLORS[i], marker="o", label=LABELS[name])
        panel.set(xlabel=axis.title, xscale="log", yscale="log")
        panel.set_xticks(axis.numbers, [f"{number:,}" for number in axis.numbers])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("µs per environment step")
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(frameon=False)
    return figure


def machine() -> str:
    """The processor and the versions, in one line."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if (info.is_file())
        else []
    )
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {os.cpu_count()} cores; Python {platform.python_version()}, {', '.join(_versions())}."


def _versions() -> list[str]:
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return versions


def write(folder: Path) -> str:
    """
    :param folder: holds speed.csv and speed_parts.csv; gets speed.md, speed.png and speed_scaling.png
    :return: the tables
    """
    results, parts = Results(read_rows(folder / "speed.csv")), read_rows(folder / "speed_parts.csv")
    sections = [
        ("What a step costs", NOTES + "\n" + machine() + "\n", speed_table(results)),
        ("What it takes to get ready", START_UP_NOTES, start_up_table(results)),
        ("Where the time goes", PARTS_NOTES, parts_table(parts)),
        ("How the cost grows", SCALING_NOTES, scaling_table(results)),
    ]
    text = "\n".join(f"## {title}\n\n{notes}\n{table}" for title, notes, table in sections)
    (folder / "speed.md").write_text(text)
    draw_speed(results).savefig(folder / "speed.png", dpi=120)
    draw_scaling(results).savefig(folder / "speed_scaling.png", dpi=120)
    return text
