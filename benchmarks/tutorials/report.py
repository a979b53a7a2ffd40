"""Tables of the tutorials, for the page of results and for the pages of the tutorials."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.tutorials.play import random_return
from benchmarks.tutorials.row_statistics import (
    FAITHFUL,
    IMPROVED,
    VARIANTS,
    Rows,
    count_solved,
    format_number,
    fractions_of_loop_time,
    median_and_range,
    numbers,
)
from benchmarks.tutorials.specs import TUTORIALS, Quantity, Tutorial
from sb3_dqn_ext.sweep import Row, select_rows
from sb3_dqn_ext.sweep.report import difference_interval, median

MODELS = {"greedy_last": "last", "greedy_best": "best checkpoint"}
LABELS = {"greedy_last": "last model", "greedy_best": "best checkpoint"}
GOOD_RETURN = 150
"""The greedy return above which a policy's values are compared with realised returns."""
CALIBRATION = (
    Quantity("of these: correlation of predicted and realised values", "calibration_r", 2),
    Quantity("of these: mean of predicted less realised values", "calibration_bias", 2),
)

NOTES = """\
Each run is a command of the RL Zoo with hyperparameters of zoo_configs/tutorials: *faithful* are those of the tutorial,
*improved* has the same environment and network. A greedy return is the mean of 50 fresh episodes. The best checkpoint is the
one with the highest return in evaluations of 10 other episodes during training. Returns are the environment's own, whatever
reward is learned from. A seed has *solved* an environment if its greedy return is at least the threshold that gymnasium
registers for the environment. The last two columns are the result that the tutorial reports, and that of a port of its code,
line by line, with ten seeds.
"""


def rows_of_tutorial(rows: Iterable[Row], tutorial: Tutorial) -> list[Row]:
    """
    Return the rows of a tutorial, sorted by seed.

    :param rows: the rows of all tutorials
    :param tutorial: the tutorial
    """
    return sorted(select_rows(rows, tutorial=tutorial.name), key=lambda row: int(row["seed"]))


def overview(rows: Rows) -> str:
    """
    Return a Markdown table of the greedy returns of all tutorials.

    :param rows: the rows of all tutorials
    """
    lines = [
        "| tutorial | variant | model | median greedy return | interquartile range | worst | best | threshold | solved "
        "| the tutorial reports | port of its code |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for tutorial in TUTORIALS:
        for variant in VARIANTS:
            for column, model in MODELS.items():
                values = numbers(rows_of_tutorial(rows, tutorial), variant, column)
                if not len(values):
                    continue
                low, middle, high = np.percentile(values, [25, 50, 75])
                cells = [
                    format_number(middle),
                    f"{low:,.1f} to {high:,.1f}",
                    format_number(values.min()),
                    format_number(values.max()),
                    f"{tutorial.solved_return:g}",
                    count_solved(values, tutorial.solved_return),
                ]
                is_first = variant == FAITHFUL and column == "greedy_last"
                cells += [tutorial.reported, tutorial.port_result] if is_first else ["", ""]
                lines.append(f"| {' | '.join([tutorial.title, variant, model, *cells])} |")
    return "\n".join(lines) + "\n"


def tutorial_block(tutorial: Tutorial, rows: Rows) -> str:
    """
    Return the results of a tutorial in Markdown.

    :param tutorial: the tutorial
    :param rows: its rows
    """
    seeds = {variant: len(select_rows(rows, variant=variant)) for variant in VARIANTS}
    there = [variant for variant in VARIANTS if seeds[variant]]
    heads = " | ".join(f"{variant}, {seeds[variant]} seed{'s' * (seeds[variant] > 1)}" for variant in there)
    lines = [f"| median (range) | {heads} |", "|---|" + "---|" * len(there)]
    for quantity in tutorial.quantities:
        cells = [median_and_range(numbers(rows, variant, quantity.column), quantity.digits) for variant in there]
        lines += _line(quantity.label, cells)
    lines += solved_lines(tutorial, rows, there)
    if tutorial.timed:
        lines += loop_lines(rows, there)
    if tutorial.records_video:
        lines += _line("return of random actions", [f"{random_return(tutorial.env_id):.1f}"] * len(there))
    if tutorial.measures_values:
        lines += calibration_lines(rows, there)
    lines += difference_lines(rows)
    lines += ["", f"The tutorial reports: {tutorial.reported}. A port of its code, line by line: {tutorial.port_result}."]
    return "\n".join(lines) + "\n"


def _line(label: str, cells: list[str]) -> list[str]:
    """Return a line of a table, none if all of its cells are empty."""
    return [f"| {label} | {' | '.join(cells)} |"] if any(cells) else []


def solved_lines(tutorial: Tutorial, rows: Rows, there: list[str]) -> list[str]:
    """
    Return lines with the numbers of seeds that solve the environment.

    :param tutorial: the tutorial
    :param rows: its rows
    :param there: the variants that have rows
    """
    threshold, lines = tutorial.solved_return, []
    for column, model in LABELS.items():
        cells = [count_solved(numbers(rows, variant, column), threshold) for variant in there]
        lines += _line(f"solved: seeds with a greedy return of at least {threshold:g}, {model}", cells)
    return lines


def difference_lines(rows: Rows) -> list[str]:
    """
    Return a table with the differences of the variants' median greedy returns.

    :param rows: the rows of one tutorial
    """
    lines = []
    for column, model in LABELS.items():
        improved, faithful = (numbers(rows, variant, column) for variant in (IMPROVED, FAITHFUL))
        if min(len(improved), len(faithful)) > 1:
            low, high = difference_interval(improved, faithful, median)
            cells = [f"{median(improved) - median(faithful):,.1f}", f"{low:,.1f} to {high:,.1f}"]
            lines += _line(f"greedy return, {model}", cells)
    head = ["", "| improved less faithful | difference of the medians | 95 % bootstrap interval |", "|---|---|---|"]
    return [*head, *lines] if lines else []


def loop_lines(rows: Rows, there: list[str]) -> list[str]:
    """
    Return the line that compares the training time with that of the plain loop, which runs with the improved variant only.

    :param rows: the rows of one tutorial
    :param there: the variants that have rows
    """
    fraction = median_and_range(fractions_of_loop_time(rows), 2)
    return _line("fraction of the plain loop's time", [fraction if variant == IMPROVED else "" for variant in there])


def calibration_lines(rows: Rows, there: list[str]) -> list[str]:
    """
    Return lines on the predicted and realised values of good policies.

    :param rows: the rows of one tutorial
    :param there: the variants that have rows
    """
    good = [row for row in rows if float(row["greedy_best"] or row["greedy_last"]) > GOOD_RETURN]
    counts = [str(len(select_rows(good, variant=variant))) for variant in there]
    lines = _line(f"seeds with a greedy return above {GOOD_RETURN}", counts)
    for quantity in CALIBRATION if good else ():
        cells = [median_and_range(numbers(good, variant, quantity.column), quantity.digits) for variant in there]
        lines.append(f"| {quantity.label} | {' | '.join(cells)} |")
    return lines


def fill_page(page: str, measured: str) -> str:
    """
    Return a page with new text between its markers ``<!-- measured -->`` and ``<!-- /measured -->``.

    :param page: the page of a tutorial
    :param measured: the text
    """
    return re.sub(
        r"(<!-- measured -->\n).*?(<!-- /measured -->)", lambda found: found[1] + measured + found[2], page, flags=re.DOTALL
    )


def write(rows: Rows, results: Path, pages: Path) -> str:
    """
    Write the page of results, fill in the pages of the tutorials, and return the overview.

    :param rows: the rows of all tutorials
    :param results: the folder that gets tutorials.md
    :param pages: the folder of the pages of the tutorials
    """
    table = overview(rows)
    sections = [f"# Tutorials\n\n{NOTES}\n{table}"]
    for tutorial in TUTORIALS:
        if not rows_of_tutorial(rows, tutorial):
            continue
        measured = tutorial_block(tutorial, rows_of_tutorial(rows, tutorial))
        pictures = [f"tutorials/{tutorial.name}{suffix}.png" for suffix in ("", "_run")]
        shown_pictures = "\n".join(f"![{tutorial.title}]({path})" for path in pictures if (results / path).is_file())
        sections.append(f"## {tutorial.title}\n\n{measured}\n{shown_pictures}\n")
        page = pages / f"{tutorial.name}.md"
        if page.is_file():
            page.write_text(fill_page(page.read_text(), measured))
    (results / "tutorials.md").write_text("\n".join(sections))
    return table
