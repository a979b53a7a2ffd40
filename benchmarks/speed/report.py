"""Tables and charts of the measurements."""

import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from benchmarks.speed.stopwatch import Parts
from benchmarks.speed.workloads import AXES, BY_NAME, LABELS, WORKLOADS, Comparison, Workload
from sb3_dqn_ext.plot import COLORS, LINES
from sb3_dqn_ext.sweep import Row, read_rows

Array = npt.NDArray[Any]
PACKAGES = ("stable-baselines3", "sb3-contrib", "sbx-rl", "torch", "jax", "numpy", "gymnasium", "ale-py", "MinAtar")

NOTES = """\
Each measurement runs in its own process with one thread on one core; DQNExt and its peers take turns. Times and ratios are
medians of the repeats, with the smallest and the largest; a ratio compares measurements of the same repeat. All
implementations have the same environment, network, batch size, number of updates, exploration and defaults of logging.
Compiled DQNExt steps CartPole as one array; in eager mode and in LunarLander, it has the same environments as SB3. SBX does
not clip gradients. The tutorial's loop does not clip gradients either, keeps no statistics of episodes, and fits one stored
vector step instead of 32 transitions. CleanRL's loop does not clip gradients and keeps no statistics for the log; its
environments are those of gymnasium's SyncVectorEnv.
"""
START_UP_NOTES = """\
The time from the start of Python's imports to the end of the warm-up, minus the time that the updates of the warm-up take once
everything is compiled. Cold: no compiled code is on the disk; warm: the code that the previous repeat has compiled is on the
disk. After the break-even number of steps, the faster implementation has made up for a cold start.
"""
PARTS_NOTES = """\
Microseconds per environment step, from a separate run in which clocks wrap the methods: `env.step`, `_sample_action` (act),
`_store_transition`, the buffer's `sample`, and `train` without it (update). The rest is the time outside these methods: the
target network, the exploration rate, statistics of episodes, logging, callbacks, and about a microsecond for each clock. The
floor is a part of the others: the environments' own steps and the compiled function.
"""
SCALING_NOTES = """\
Microseconds per environment step in CartPole, with one update of 32 transitions per vector step. Default: 32 environments, two
hidden layers of 64 units and a full replay buffer of 100,000 transitions.
"""


class Spread(NamedTuple):
    """The median, the smallest and the largest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: Array) -> "Spread":
        """
        Return the spread of some numbers.

        :param numbers: (R,) a number of each repeat
        """
        return cls(float(np.median(numbers)), float(np.min(numbers)), float(np.max(numbers)))

    def text(self, digits: int) -> str:
        """
        Return the median with the smallest and the largest number in brackets.

        :param digits: the number of decimal places
        """
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


class Results:
    """
    The measurements of the speed, by workload and implementation.

    :param rows: the rows of speed.csv
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows: defaultdict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
        for row in rows:
            self.rows[row["workload"], row["implementation"]][int(row["repeat"])] = row

    def cost(self, workload: Workload, implementation: str, clock: str = "wall_s") -> dict[int, float]:
        """
        Return the microseconds per environment step of each repeat, for as many updates per step as the workload has.

        :param workload: the workload
        :param implementation: the name of the implementation
        :param clock: ``"wall_s"`` or ``"cpu_s"``
        """
        rows = self.rows.get((workload.name, implementation), {})
        return {
            repeat: 1e6 * float(row[clock]) / float(row["updates"]) * workload.updates_per_step for repeat, row in rows.items()
        }

    def ratio(self, workload: Workload, comparison: Comparison, clock: str = "wall_s") -> Spread | None:
        """
        Return the ratio of the peer's time to that of DQNExt, None if one of them was not measured.

        :param workload: the workload
        :param comparison: the two implementations
        :param clock: ``"wall_s"`` or ``"cpu_s"``
        """
        ours, peer = self.cost(workload, comparison.ours, clock), self.cost(workload, comparison.peer, clock)
        both = sorted(ours.keys() & peer.keys())
        return Spread.of(np.array([peer[repeat] / ours[repeat] for repeat in both])) if both else None

    def start_up(self, workload: Workload, implementation: str, cold: bool | None = None) -> float:
        """
        Return the median of the start-up seconds, NaN if there is no such repeat.

        :param workload: the workload
        :param implementation: the name of the implementation
        :param cold: whether to take the repeats without compiled code on the disk or those with it; None: all repeats
        """
        rows = self.rows.get((workload.name, implementation), {}).values()
        seconds = [float(row["start_up_s"]) for row in rows if cold is None or row["cold"] == str(int(cold))]
        return float(np.median(seconds)) if seconds else float("nan")


def speed_table(results: Results, workloads: Sequence[Workload] = WORKLOADS) -> str:
    """
    Return a Markdown table of the comparisons.

    :param results: the measurements
    :param workloads: the workloads to compare
    """
    lines = [
        "| workload | DQNExt | peer | DQNExt, µs per step | peer, µs per step | speed relative to peer | by processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    for workload, comparison, ratio in measured_comparisons(results, workloads):
        costs = (
            Spread.of(np.array(list(results.cost(workload, name).values()))).text(1)
            for name in (comparison.ours, comparison.peer)
        )
        cpu = results.ratio(workload, comparison, "cpu_s")
        assert cpu is not None
        cells = [workload.title, LABELS[comparison.ours], LABELS[comparison.peer], *costs, ratio.text(2), f"{cpu.median:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measured_comparisons(
    results: Results, workloads: Sequence[Workload] = WORKLOADS
) -> list[tuple[Workload, Comparison, Spread]]:
    """
    Return the comparisons of which both sides were measured, with their ratios.

    :param results: the measurements
    :param workloads: the workloads to compare
    """
    pairs = [(workload, comparison) for workload in workloads for comparison in workload.comparisons]
    ratios = [(workload, comparison, results.ratio(workload, comparison)) for workload, comparison in pairs]
    return [(workload, comparison, ratio) for workload, comparison, ratio in ratios if ratio is not None]


def start_up_table(results: Results) -> str:
    """
    Return a Markdown table of the start-up times and of the break-even numbers of steps.

    :param results: the measurements
    """
    lines = [
        "| workload | peer | peer, s | DQNExt cold, s | DQNExt warm, s | saved per step, µs | break-even, steps |",
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
    Return the number of steps after which a slower start is made up for.

    :param seconds: the seconds by which the start-up of DQNExt is longer
    :param saved: the microseconds that DQNExt saves per step
    """
    if np.isnan(seconds):
        return "-"
    if seconds <= 0 <= saved:
        return "0"
    return f"{1e6 * seconds / saved:,.0f}" if saved > 0 else "never"


def parts_table(rows: list[Row]) -> str:
    """
    Return a Markdown table of the parts of a step.

    :param rows: the rows of speed_parts.csv
    """
    lines = [f"| workload | | {' | '.join(Parts.NAMES)} | sum | floor |", "|---|---|" + "---|" * (len(Parts.NAMES) + 2)]
    for row in sorted(rows, key=lambda row: (list(BY_NAME).index(row["workload"]), list(LABELS).index(row["implementation"]))):
        parts = [float(row[name]) for name in Parts.NAMES]
        cells = " | ".join(f"{part:.1f}" for part in [*parts, sum(parts)])
        floor = f"{float(row[Parts.FLOOR]):.1f}" if row["implementation"] == "ours" else ""
        lines.append(f"| {BY_NAME[row['workload']].title} | {LABELS[row['implementation']]} | {cells} | {floor} |")
    return "\n".join(lines) + "\n"


def scaling_table(results: Results) -> str:
    """
    Return a Markdown table of the time per step for several sizes.

    :param results: the measurements
    """
    lines = ["| | | SB3 DQN | DQNExt, compiled | speed relative to SB3 |", "|---|---|---|---|---|"]
    for axis in AXES:
        for number, workload in zip(axis.numbers, axis.workloads, strict=True):
            ratio = results.ratio(workload, workload.comparisons[0])
            if ratio is not None:
                sb3, ours = (np.median(list(results.cost(workload, name).values())) for name in ("sb3", "ours"))
                lines.append(f"| {axis.title} | {number:,} | {sb3:.1f} | {ours:.1f} | {ratio.text(2)} |")
    return "\n".join(lines) + "\n"


def draw_speed(results: Results) -> Figure:
    """
    Draw a bar for each comparison.

    :param results: the measurements
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
    axes.set_xlabel("speed relative to the peer: median, smallest and largest of the repeats")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_scaling(results: Results) -> Figure:
    """
    Draw a panel for each axis of the scaling table.

    :param results: the measurements
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
    """Return the processor and the versions of the packages in one line."""
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
    Write speed.md, speed.png and speed_scaling.png, and return the text of the page.

    :param folder: the folder of speed.csv and speed_parts.csv, and of the written files
    """
    results, parts = Results(read_rows(folder / "speed.csv")), read_rows(folder / "speed_parts.csv")
    sections = [
        ("The time of a step", NOTES + "\n" + machine() + "\n", speed_table(results)),
        ("Start-up", START_UP_NOTES, start_up_table(results)),
        ("The parts of a step", PARTS_NOTES, parts_table(parts)),
        ("Scaling", SCALING_NOTES, scaling_table(results)),
    ]
    text = "\n".join(f"## {title}\n\n{notes}\n{table}" for title, notes, table in sections)
    (folder / "speed.md").write_text(text)
    draw_speed(results).savefig(folder / "speed.png", dpi=120)
    draw_scaling(results).savefig(folder / "speed_scaling.png", dpi=120)
    return text
