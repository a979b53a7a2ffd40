"""Statistics of the rows of tutorials, as text."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sb3_dqn_ext.sweep import Row, select_rows

FAITHFUL, IMPROVED = VARIANTS = ("faithful", "improved")

Rows = Sequence[Row]
Numbers = npt.NDArray[np.float64]


def numbers(rows: Rows, variant: str, column: str) -> Numbers:
    """
    Return the numbers of a column.

    :param rows: the rows of one tutorial
    :param variant: the variant of the tutorial
    :param column: the name of the column
    :return: (S,) a number for each seed; seeds without one are left out
    """
    return np.array([float(row[column]) for row in select_rows(rows, variant=variant) if row[column]])


def format_number(number: float, digits: int = 1) -> str:
    """
    Format a number; infinity, the time of what has not happened, becomes ``never``.

    :param number: the number
    :param digits: the number of decimal places
    """
    return "never" if np.isinf(number) else f"{number:,.{digits}f}"


def median_and_range(values: Numbers, digits: int) -> str:
    """
    Return the median with the range in brackets, empty if there are no numbers.

    :param values: (S,) numbers
    :param digits: the number of decimal places
    """
    if not len(values):
        return ""
    middle, low, high = (format_number(float(number), digits) for number in (np.median(values), values.min(), values.max()))
    return f"{middle} ({low} to {high})"


def count_solved(values: Numbers, threshold: float) -> str:
    """
    Return how many seeds solve an environment, empty if there are no numbers.

    :param values: (S,) mean returns
    :param threshold: the smallest mean return of a seed that solves the environment
    """
    return f"{np.sum(values >= threshold)} of {len(values)}" if len(values) else ""


def fractions_of_loop_time(rows: Rows) -> Numbers:
    """
    Return the training times of the improved variant as fractions of the plain loop's times.

    :param rows: the rows of one tutorial
    :return: (S,) fractions; the plain loop of each seed ran directly after its training
    """
    both = [row for row in select_rows(rows, variant=IMPROVED) if row["train_s"] and row["loop_s"]]
    return np.array([float(row["train_s"]) / float(row["loop_s"]) for row in both])
