"""Results as rows of CSV files, each written as soon as it is there."""

import csv
from pathlib import Path

Row = dict[str, str]

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def read(path: Path) -> list[Row]:
    """The rows there are."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Row) -> None:
    """Write one row, below a header if it is the first."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
