"""Results as rows of CSV files. Each row is written as soon as its run has finished, and no run is repeated."""

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
    """The rows there are."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def select_rows(rows: Iterable[Row], **values: str) -> list[Row]:
    """Those rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def append_row(path: Path, row: Row) -> None:
    """Write one row, below a header if it is the first."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def missing_keys(keys: Iterable[Key], rows: Iterable[Row], columns: Sequence[str]) -> list[Key]:
    """
    :param keys: the runs that are wanted, each a tuple of the values that identify it
    :param rows: the rows of the runs that have finished
    :param columns: the columns of a row that hold these values
    :return: the keys that have no row
    """
    done = {tuple(row[column] for column in columns) for row in rows}
    return [key for key in keys if tuple(map(str, key)) not in done]


def run_missing(path: Path, columns: Sequence[str], keys: Iterable[Key], run: Callable[[Key], Row], jobs: int) -> list[Row]:
    """
    Run the benchmarks that have no row, several at once. A row is written as soon as its run has finished, whatever becomes of
    the others.

    :param path: the file of the rows
    :param columns: the columns of a row that hold the values of its key
    :param keys: the runs that are wanted
    :param run: the run of a key, which returns its row
    :param jobs: how many at once
    :return: all rows of the file afterwards
    :raises Exception: the first of those that runs have raised, once the others have finished
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
    finally:  # an interrupt starts no more
        pool.shutdown(cancel_futures=True)
    return read_rows(path)
