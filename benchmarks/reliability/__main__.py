"""
Lets faults happen to trainings that write checkpoints, and measures what checkpoints cost.

Each finished trial is a row of docs/results/reliability.csv, each finished pair one of docs/results/overhead.csv; what has a
row is not run again. Delete the rows of what has changed. Then the table is written. Pairs are timed, one process after the
other: the machine should have nothing else to do then.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.reliability.fault_injection import FAULTS
from benchmarks.reliability.interrupted import Runs
from benchmarks.reliability.overhead import VARIANTS, Sizes, add_sizes, measure_pair
from benchmarks.reliability.report import write
from benchmarks.reliability.train import STEPS
from benchmarks.rows import RESULTS, Row, read_rows, run_missing

PARTS = ("faults", "overhead")


class Key(NamedTuple):
    """A trial of a fault, or a pair of a variant."""

    name: str
    number: int


def plan(faults: Sequence[str], at_most: int | None) -> list[Key]:
    """
    :param faults: their names
    :param at_most: how many trials of each, all if None
    :return: the trials, the first of every fault before the second of any
    """
    trials = [Key(name, i) for name in faults for i in range(FAULTS[name].trials)[:at_most]]
    return sorted(trials, key=lambda key: key.number)


def trial(key: Key, runs: Runs) -> Row:
    """
    :param key: of a fault
    :param runs: it happens to
    :return: its row
    """
    return FAULTS[key.name].inject(runs, key.name, key.number).row(key.name, key.number)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: of the command line, those of this process if None
    :return: their values
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--trials", type=int, help="of each fault at most, for a trial")
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run that a fault happens to")
    parser.add_argument("--kills", type=int, default=10, help="of each run that is killed again and again")
    parser.add_argument("--jobs", type=int, default=2, help="how many faults at once")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="of what is timed")
    parser.add_argument("--pairs", type=int, default=5, help="of each variant")
    add_sizes(parser)
    parser.add_argument("--runs", type=Path, default=Path("runs/reliability"), help="where checkpoints are; it is emptied")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """:param arguments: of the command line, those of this process if None"""
    args = parse(arguments)
    faults, pairs = args.results / "reliability.csv", args.results / "overhead.csv"
    if "faults" in args.parts:
        run = partial(trial, runs=Runs(args.runs, args.steps, args.kills))
        run_missing(faults, ("fault", "number"), plan(args.faults, args.trials), run, args.jobs)
    if "overhead" in args.parts:
        keys = [Key(name, i) for i in range(args.pairs) for name in args.variants]
        time_pair = partial(measure_pair, args.runs / "overhead", sizes=Sizes(*args.sizes))
        run_missing(pairs, ("variant", "number"), keys, lambda key: time_pair(*key), jobs=1)
    print(write(read_rows(faults), read_rows(pairs), args.results / "reliability.md"))


if __name__ == "__main__":
    main()
