"""Rows of results in CSV files. Each row is written as soon as its run has finished, and no run is repeated."""

import csv
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from benchmarks.processes import ROOT

Row = dict[str, str]
Key = TypeVar("Key", bound=tuple[object, ...])

RESULTS = ROOT / "docs" / "results"


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file, none if the file is missing."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def select_rows(rows: Iterable[Row], **values: str) -> list[Row]:
    """Return the rows that have given values in given columns."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def append_row(path: Path, row: Row) -> None:
    """Append one row to a file, which gets a header if it is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def missing_keys(keys: Iterable[Key], rows: Iterable[Row], columns: Sequence[str]) -> list[Key]:
    """
    Return the keys that have no row.

    :param keys: the keys of runs, each a tuple of the values that identify the run
    :param rows: the rows of finished runs
    :param columns: the columns of a row that contain these values
    """
    done = {tuple(row[column] for column in columns) for row in rows}
    return [key for key in keys if tuple(map(str, key)) not in done]


def run_missing(path: Path, columns: Sequence[str], keys: Iterable[Key], run: Callable[[Key], Row], jobs: int) -> list[Row]:
    """
    Run the benchmarks that have no row, several at the same time, and return all rows. A row is written as soon as its run has
    finished, even if other runs fail.

    :param path: the file of the rows
    :param columns: the columns of a row that contain the values of its key
    :param keys: the keys of the runs
    :param run: a function that runs the benchmark of a key and returns its row
    :param jobs: the number of runs at the same time
    :raises Exception: the first exception of a run, after all runs have ended
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(jobs)
    try:
        futures: list[Future[Row]] = [pool.submit(run, key) for key in missing_keys(keys, read_rows(path), columns)]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run", disable=not futures):
            if future.exception() is None:
                append_row(path, future.result())
        for future in futures:
            future.result()
    finally:  # after an interrupt, no further run starts
        pool.shutdown(cancel_futures=True)
    return read_rows(path)
