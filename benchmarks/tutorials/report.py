"""Tables of the tutorials, also inside their pages."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, select_rows
from benchmarks.tutorials.play import random_return
from benchmarks.tutorials.row_statistics import (
    FAITHFUL,
    IMPROVED,
    VARIANTS,
    Answer,
    Rows,
    format_number,
    fractions_of_loop_time,
    median_and_range,
    numbers,
)
from benchmarks.tutorials.specs import TUTORIALS, Quantity, Tutorial

MODELS = {"greedy_last": "last", "greedy_best": "best checkpoint"}
GOOD = 150  # the greedy return of a policy whose values are looked at
CALIBRATION = (
    Quantity("of these: correlation of predicted and realised values", "calibration_r", 2),
    Quantity("of these: mean of predicted less realised values", "calibration_bias", 2),
)

NOTES = """\
Each run is a command of the RL Zoo, with the hyperparameters in zoo_configs/tutorials: *faithful* as the tutorial has it,
*improved* with the same environment and network. A greedy return is the mean of 50 fresh episodes; the best checkpoint is the
one that 10 other episodes found best in the course of training. Returns are the environment's own, whatever reward is learned
from.
"""


def rows_of_tutorial(rows: Iterable[Row], tutorial: Tutorial) -> list[Row]:
    """
    :param rows: of all tutorials
    :param tutorial: one of them
    :return: its rows, by seed
    """
    return sorted(select_rows(rows, tutorial=tutorial.name), key=lambda row: int(row["seed"]))


def overview(rows: Rows) -> str:
    """
    :param rows: of all tutorials
    :return: a Markdown table of the greedy returns, and of what was claimed and asked
    """
    lines = [
        "| tutorial | variant | model | median greedy return | interquartile range | worst | best | seeds | claimed | asked |",
        "|---|---|---|---|---|---|---|---|---|---|",
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
                    str(len(values)),
                ]
                remarks = [_remark(tutorial, rows_of_tutorial(rows, tutorial), variant, what) for what in ("claimed", "asked")]
                remarks = remarks if column == "greedy_last" else ["", ""]
                lines.append(f"| {' | '.join([tutorial.title, variant, model, *cells, *remarks])} |")
    return "\n".join(lines) + "\n"


def _remark(tutorial: Tutorial, rows: Rows, variant: str, what: str) -> str:
    if what == "claimed":
        return f"{tutorial.reported}; a port of it: {tutorial.port_result}" if variant == FAITHFUL else ""
    answers = answered(tutorial, rows) if variant == IMPROVED else []
    return "; ".join(f"{text}: **{answer.verdict}** ({answer.measured})" for text, answer in answers)


def answered(tutorial: Tutorial, rows: Rows) -> list[tuple[str, Answer]]:
    """
    :param tutorial: which
    :param rows: its rows
    :return: what is asked of it, with the answers that the rows give
    """
    found = [(asked.text, asked.find(rows)) for asked in tutorial.asked]
    return [(text, answer) for text, answer in found if answer is not None]


def tutorial_block(tutorial: Tutorial, rows: Rows) -> str:
    """
    :param tutorial: which
    :param rows: its rows
    :return: its numbers in Markdown
    """
    seeds = {variant: len(select_rows(rows, variant=variant)) for variant in VARIANTS}
    there = [variant for variant in VARIANTS if seeds[variant]]
    heads = " | ".join(f"{variant}, {seeds[variant]} seed{'s' * (seeds[variant] > 1)}" for variant in there)
    lines = [f"| median (range) | {heads} |", "|---|" + "---|" * len(there)]
    for quantity in tutorial.quantities:
        cells = [median_and_range(numbers(rows, variant, quantity.column), quantity.digits) for variant in there]
        if any(cells):
            lines.append(f"| {quantity.label} | {' | '.join(cells)} |")
    if tutorial.timed:
        lines += loop_lines(rows, there)
    if tutorial.records_video:
        lines.append(f"| return of random actions | {' | '.join([f'{random_return(tutorial.env_id):.1f}'] * len(there))} |")
    if tutorial.measures_values:
        lines += calibration_lines(rows, there)
    lines += ["", f"Claimed: {tutorial.reported}. A port of it, line by line: {tutorial.port_result}."]
    answers = answered(tutorial, rows)
    if answers:
        lines += ["", "| asked of the improved | measured | |", "|---|---|---|"]
        lines += [f"| {text} | {answer.measured} | {answer.verdict} |" for text, answer in answers]
    return "\n".join(lines) + "\n"


def loop_lines(rows: Rows, there: list[str]) -> list[str]:
    """
    :param rows: of one tutorial
    :param there: its variants
    :return: lines on the time beside that of the plain loop, which is run with the improved variant only
    """
    labels = {"train_s": "part of the plain loop's time, compilation included", "train_again_s": "the same, compiled before"}
    parts = {label: median_and_range(fractions_of_loop_time(rows, column), 2) for column, label in labels.items()}
    return [
        f"| {label} | {' | '.join(part if variant == IMPROVED else '' for variant in there)} |"
        for label, part in parts.items()
        if part
    ]


def calibration_lines(rows: Rows, there: list[str]) -> list[str]:
    """
    :param rows: of one tutorial
    :param there: its variants
    :return: lines on predicted and realised values of the policies that are good
    """
    good = [row for row in rows if float(row["greedy_best"] or row["greedy_last"]) > GOOD]
    counts = " | ".join(str(len(select_rows(good, variant=variant))) for variant in there)
    lines = [f"| seeds with a greedy return above {GOOD} | {counts} |"]
    for quantity in CALIBRATION if good else ():
        cells = [median_and_range(numbers(good, variant, quantity.column), quantity.digits) for variant in there]
        lines.append(f"| {quantity.label} | {' | '.join(cells)} |")
    return lines


def fill_page(page: str, measured: str) -> str:
    """
    :param page: of a tutorial
    :param measured: what belongs between its markers
    :return: the page with it
    """
    return re.sub(
        r"(<!-- measured -->\n).*?(<!-- /measured -->)", lambda found: found[1] + measured + found[2], page, flags=re.DOTALL
    )


def write(rows: Rows, results: Path, pages: Path) -> str:
    """
    :param rows: of all tutorials
    :param results: the folder that gets tutorials.md
    :param pages: the folder of the pages, in which the numbers are filled in
    :return: the overview
    """
    table = overview(rows)
    sections = [f"# Tutorials\n\n{NOTES}\n{table}"]
    for tutorial in TUTORIALS:
        if not rows_of_tutorial(rows, tutorial):
            continue
        measured = tutorial_block(tutorial, rows_of_tutorial(rows, tutorial))
        pictures = [f"tutorials/{tutorial.name}{of_what}.png" for of_what in ("", "_run")]
        shown_pictures = "\n".join(f"![{tutorial.title}]({path})" for path in pictures if (results / path).is_file())
        sections.append(f"## {tutorial.title}\n\n{measured}\n{shown_pictures}\n")
        page = pages / f"{tutorial.name}.md"
        if page.is_file():
            page.write_text(fill_page(page.read_text(), measured))
    (results / "tutorials.md").write_text("\n".join(sections))
    return table
