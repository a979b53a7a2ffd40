"""Results as rows of CSV files, each written as soon as it is there."""

import csv
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

Row = dict[str, str]
Key = TypeVar("Key")

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def read(path: Path) -> list[Row]:
    """The rows there are."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def where(rows: Iterable[Row], **values: str) -> list[Row]:
    """Those rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def append(path: Path, row: Row) -> None:
    """Write one row, below a header if it is the first."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def complete(path: Path, missing: Iterable[Key], run: Callable[[Key], Row], jobs: int) -> list[Row]:
    """
    Run what has no row, several at once. A row is written as soon as its run has finished, whatever becomes of the others.

    :param path: the file of the rows
    :param missing: what has none yet
    :param run: gives its row
    :param jobs: how many at once
    :return: all rows there are then
    :raises Exception: the first of those that runs have raised, once the others have finished
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pool = ThreadPoolExecutor(jobs)
    try:
        futures: list[Future[Row]] = [pool.submit(run, key) for key in missing]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run", disable=not futures):
            if future.exception() is None:
                append(path, future.result())
        for future in futures:
            future.result()
    finally:  # an interrupt starts no more
        pool.shutdown(cancel_futures=True)
    return read(path)
