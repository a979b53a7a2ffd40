"""What is asked of the tutorials, and whether it was reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.compiled import interval
from benchmarks.rows import Row, select_rows

FAITHFUL, IMPROVED = VARIANTS = ("faithful", "improved")

Rows = Sequence[Row]
Numbers = npt.NDArray[np.float64]


class Answer(NamedTuple):
    """What was found."""

    measured: str
    reached: bool

    @property
    def verdict(self) -> str:
        return "reached" if self.reached else "missed"


@dataclass(frozen=True)
class Asked:
    """
    One thing that is asked of the improved variant of a tutorial.

    :param text: what it is
    :param find: the answer, from the rows of the tutorial; None while they do not tell
    """

    text: str
    find: Callable[[Rows], Answer | None]


def numbers(rows: Rows, variant: str, column: str) -> Numbers:
    """
    :param rows: of one tutorial
    :param variant: which of them
    :param column: what of them
    :return: (S,) where it was measured
    """
    return np.array([float(row[column]) for row in select_rows(rows, variant=variant) if row[column]])


def format_number(number: float, digits: int = 1) -> str:
    """
    :param number: one that may be infinite: what never happened
    :param digits: behind the point
    :return: how it is written
    """
    return "never" if np.isinf(number) else f"{number:,.{digits}f}"


def median_and_range(values: Numbers, digits: int) -> str:
    """
    :param values: (S,) numbers
    :param digits: behind the point
    :return: their median and their range, nothing if there are none
    """
    if not len(values):
        return ""
    middle, low, high = (format_number(float(number), digits) for number in (np.median(values), values.min(), values.max()))
    return f"{middle} ({low} to {high})"


def median(column: str, at_least: float = -np.inf, at_most: float = np.inf) -> Callable[[Rows], Answer | None]:
    """
    :param column: whose median
    :param at_least: what it must not be below
    :param at_most: what it must not be above
    """

    def find(rows: Rows) -> Answer | None:
        values = numbers(rows, IMPROVED, column)
        if not len(values):
            return None
        middle = float(np.median(values))
        return Answer(format_number(middle), at_least <= middle <= at_most)

    return find


def in_tenths(columns: Sequence[str], tenths: int, good: Callable[[float], bool]) -> Callable[[Rows], Answer | None]:
    """
    :param columns: what is looked at; the largest of them counts
    :param tenths: of how many seeds in ten it must be good
    :param good: whether it is
    """

    def find(rows: Rows) -> Answer | None:
        filled = [[float(row[column]) for column in columns if row[column]] for row in select_rows(rows, variant=IMPROVED)]
        best = [max(values) for values in filled if values]
        if not best:
            return None
        n_good = sum(map(good, best))
        return Answer(f"{n_good} of {len(best)}", 10 * n_good >= tenths * len(best))

    return find


def more_than_faithful(column: str) -> Callable[[Rows], Answer | None]:
    """
    :param column: the difference of whose medians must be above 0, with all of its 95 % interval
    """

    def find(rows: Rows) -> Answer | None:
        improved, faithful = (numbers(rows, variant, column) for variant in (IMPROVED, FAITHFUL))
        if min(len(improved), len(faithful)) < 2:
            return None
        low, high = interval(improved, faithful)
        return Answer(f"{low:,.1f} to {high:,.1f}", low > 0)

    return find


def fractions_of_loop_time(rows: Rows, column: str = "train_s") -> Numbers:
    """
    :param rows: of one tutorial
    :param column: the seconds of the improved variant
    :return: (S,) what part they are of those of the plain loop, which was run right after
    """
    both = [row for row in select_rows(rows, variant=IMPROVED) if row[column] and row["loop_s"]]
    return np.array([float(row[column]) / float(row["loop_s"]) for row in both])


def part_of_the_loop(at_most: float) -> Callable[[Rows], Answer | None]:
    """
    :param at_most: of the plain loop's seconds, for the median
    """

    def find(rows: Rows) -> Answer | None:
        parts = fractions_of_loop_time(rows)
        return Answer(median_and_range(parts, 2), bool(np.median(parts) <= at_most)) if len(parts) else None

    return find
