"""Rows of results in CSV files. Each row is written as soon as its run has finished, and no run is repeated."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from sb3_dqn_ext.storage.atomic import make_folder, write_atomically

__all__ = ["COLUMNS", "Row", "add_row", "read_rows", "select_rows"]

Row = dict[str, str]

COLUMNS = (
    *("env", "variant", "seed", "config"),
    *("score", "worst_episode", "train_return", "steps", "eval_steps", "eval_returns"),
    *("wall_s", "cpu_s", "machine", "versions", "command"),
)
"""
the columns of each finished run: those that identify it, its results, and how it was made; a user's ``measure`` adds others
"""


def read_rows(path: Path) -> list[Row]:
    """
    Read the rows of a file.

    :param path: the CSV file
    :return: its rows; none if the file is missing
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def select_rows(rows: Iterable[Row], **values: str) -> list[Row]:
    """
    Return the rows that have given values in given columns.

    :param rows: the rows
    :param values: the value of each column
    """
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def add_row(path: Path, row: Row) -> None:
    """
    Add one row to a file. At every moment, also after a kill, the file contains whole rows only. A column that the file does
    not have yet is added, with empty cells in the earlier rows. Only one process at a time may add rows.

    :param path: the CSV file, which is made if it is missing
    :param row: the cells by column
    """
    rows = [*read_rows(path), row]
    columns = list(dict.fromkeys(column for one in rows for column in one))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    make_folder(path.parent)
    write_atomically(path, text.getvalue().encode())
