"""Rows of results in CSV files. Each row is written as soon as its run has finished, and no run is repeated."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from filelock import FileLock

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.storage.atomic import make_folder, write_atomically

__all__ = ["COLUMNS", "KEY", "Row", "add_row", "has_row", "read_rows", "select_rows"]

Row = dict[str, str]

KEY = ("env", "variant", "seed", "config")
"""the columns that identify a run of a sweep"""

COLUMNS = (
    *KEY,
    *("score", "worst_episode", "train_return", "steps", "eval_steps", "eval_returns"),
    *("wall_s", "cpu_s", "machine", "versions", "command"),
)
"""
the columns of each finished run: those that identify it, its results, and how it was made; a user's ``measure`` adds others
"""


def read_rows(path: Path, key: Sequence[str] = ()) -> list[Row]:
    """
    Read the rows of a file.

    :param path: the CSV file
    :param key: columns that the file has if it is not damaged
    :return: its rows; none if the file is missing or empty
    :raises ArgumentError: if the file is damaged
    """
    try:
        with path.open(newline="") as file:
            columns, *lines = list(csv.reader(file, strict=True)) or [[*key]]
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, str(error)) from error
    lines = [line for line in lines if line]
    wrong = next((i for i, line in enumerate(lines, start=1) if len(line) != len(columns)), None)
    if wrong:
        raise _damaged(path, f"row {wrong} has {len(lines[wrong - 1])} cells, and there are {len(columns)} columns")
    if not set(key) <= set(columns):
        raise _damaged(path, f"the first line must contain the columns {', '.join(key)}")
    return [dict(zip(columns, line, strict=True)) for line in lines]


def _damaged(path: Path, reason: str) -> ArgumentError:
    return ArgumentError(
        f"results={str(path)!r} cannot be read: {reason}. Repair the file, or rename it: the rows of the runs that are in the "
        "folder of runs are then written again."
    )


def has_row(rows: Iterable[Row], key: Row) -> bool:
    """
    Return whether a run has a row.

    :param rows: the rows of finished runs
    :param key: the cells that identify the run
    """
    return any(all(row[column] == cell for column, cell in key.items()) for row in rows)


def select_rows(rows: Iterable[Row], **values: str) -> list[Row]:
    """
    Return the rows that have given values in given columns.

    :param rows: the rows
    :param values: the value of each column
    """
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def add_row(path: Path, row: Row, key: Sequence[str] = ()) -> None:
    """
    Add one row to a file. At every moment, also after a kill, the file contains whole rows only. A column that the file does
    not have yet is added, with empty cells in the earlier rows. Several processes may add rows.

    :param path: the CSV file, which is made if it is missing
    :param row: the cells by column
    :param key: the columns that identify a run, which has one row; without them, the row is added in any case
    :raises ArgumentError: if the file is damaged
    """
    make_folder(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock")):
        rows = read_rows(path, key)
        if not (key and has_row(rows, {column: row[column] for column in key})):
            write_atomically(path, _csv_text([*rows, row]).encode())


def _csv_text(rows: list[Row]) -> str:
    text = io.StringIO(newline="")
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
