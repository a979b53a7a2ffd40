"""
Write docs/results/benchmark.md and benchmark.png from the published rows of sweeps: ``python -m benchmarks.benchmark_page``.

Nothing is trained. A sweep without rows does not appear.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS
from sb3_dqn_ext.sweep import Row, Spec, read_spec, select_rows
from sb3_dqn_ext.sweep.__main__ import COMMAND
from sb3_dqn_ext.sweep.report import (
    SCORE_HEAD,
    comparison_table,
    curve_panels,
    rows_of,
    save_panels,
    score_lines,
    table_head,
)

SWEEPS = (
    "classic",
    "lunarlander_qrdqn",
    "cartpole",
    "default",
    "pqn",
    "minatar",
    "minatar_games",
    "pqn_minatar",
    "btr",
    "pong",
)
"""the names of the files in benchmarks/sweeps"""

PAGE = RESULTS / "benchmark.md"
PICTURE = PAGE.with_suffix(".png")

HEAD = f"""\
# Benchmark

Written by `make benchmark-page` (`python -m benchmarks.benchmark_page`) from the rows of sweeps in `docs/results`.

The score of a run is the mean return of fresh greedy episodes with the last model, not with the best one. The table has the
interquartile mean (IQM) of the seeds, its 95 % bootstrap interval, the range of the seeds, the environment steps, and the mean
minutes of a run on one thread, evaluations included: those of the clock, and those of the processor. Empty cells were not
measured. The variants of a sweep had the same evaluations; those of two sweeps can differ in them. With one or two seeds, an
interval has little meaning. [Sweeps](../sweeps.md#the-comparison) describes the method. The command of a line trains its runs,
unless the CSV file has their rows.

![Learning curves]({PICTURE.name})"""


class Sweep(NamedTuple):
    """A sweep with its rows."""

    spec: Spec
    rows: list[Row]


def published_sweeps() -> list[Sweep]:
    """Return the sweeps that have rows with a score."""
    specs = [read_spec(ROOT / "benchmarks" / "sweeps" / f"{name}.yml") for name in SWEEPS]
    sweeps = [Sweep(replace(spec, path=spec.path.relative_to(ROOT)), rows_of(spec)) for spec in specs]
    return [sweep for sweep in sweeps if any(row["score"] for row in sweep.rows)]


def describe_sweeps(sweeps: Sequence[Sweep]) -> str:
    """
    Return the page: a table of the scores, and a table of the differences between the variants of each sweep.

    :param sweeps: the sweeps
    """
    scores = "\n".join([*table_head(f"{SCORE_HEAD} | command"), *(line for sweep in sweeps for line in scores_of(sweep))])
    differences = [text for sweep in sweeps if (text := differences_of(sweep))]
    return "\n\n".join([HEAD, scores, "## Differences", *differences]) + "\n"


def scores_of(sweep: Sweep) -> Iterator[str]:
    """
    Write the lines of a sweep in the table of scores.

    :param sweep: the sweep
    """
    spec, rows = sweep
    for line in score_lines(spec, rows):
        runs = select_rows(rows, env=line[0], variant=line[1])
        yield f"| {' | '.join(line)} | `{command(spec, runs)}` |"


def differences_of(sweep: Sweep) -> str:
    """
    Return the differences between each two variants of a sweep, with a title.

    :param sweep: the sweep
    :return: a title and a table; "" for a sweep of one variant
    """
    spec, rows = sweep
    table = list(comparison_table(spec, rows))
    title = f"### [{spec.title}]({spec.results.with_suffix('.md').name})"
    return "\n".join([title, "", *table]) if len(table) > 2 else ""


def command(spec: Spec, rows: Sequence[Row]) -> str:
    """
    Return the command that trains some runs of a sweep.

    :param spec: the sweep
    :param rows: the rows of the runs, of one variant in one environment
    """
    numbers = sorted(int(row["seed"]) for row in rows)
    is_range = numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1
    seeds = f"{numbers[0]}-{numbers[-1]}" if is_range else ",".join(map(str, numbers))
    words = ["--envs", rows[0]["env"], "--variants", rows[0]["variant"], "--seeds", seeds]
    return shlex.join([*COMMAND.split(), str(spec.path), *words])


def main() -> None:
    sweeps = published_sweeps()
    text = describe_sweeps(sweeps)
    PAGE.write_text(text)
    panels = [
        panel._replace(title=f"{panel.title}\n{spec.title}") for spec, rows in sweeps for panel in curve_panels(spec, rows)
    ]
    save_panels(panels, PICTURE)
    print(text)


if __name__ == "__main__":
    main()
