"""Benchmarks that are no trainings of a sweep, each of which becomes a row of a CSV file."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from benchmarks.processes import ROOT
from sb3_dqn_ext.sweep import Row, add_row, read_rows

Key = TypeVar("Key", bound=tuple[object, ...])

RESULTS = ROOT / "docs" / "results"


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
    pool = ThreadPoolExecutor(jobs)
    try:
        futures: list[Future[Row]] = [pool.submit(run, key) for key in missing_keys(keys, read_rows(path), columns)]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run", disable=not futures):
            if future.exception() is None:
                add_row(path, future.result())
        for future in futures:
            future.result()
    finally:  # after an interrupt, no further run starts
        pool.shutdown(cancel_futures=True)
    return read_rows(path)
