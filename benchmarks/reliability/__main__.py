"""
Inject faults into trainings that write checkpoints, and measure the cost of checkpoints.

Each finished trial becomes a row of docs/results/reliability.csv, each finished pair of timed trainings a row of
docs/results/overhead.csv. Trials and pairs that have a row are not run again: delete the rows that are out of date. At the end
the page docs/results/reliability.md is written. Pairs are timed in one process after the other: use an idle machine.
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
from benchmarks.rows import RESULTS, run_missing
from sb3_dqn_ext.sweep import Row, read_rows

PARTS = ("faults", "overhead")


class Key(NamedTuple):
    """A trial of a fault, or a pair of a variant."""

    name: str
    number: int


def plan(faults: Sequence[str], at_most: int | None) -> list[Key]:
    """
    List the trials, the first trial of every fault before the second of any.

    :param faults: the names of the faults
    :param at_most: the largest number of trials of each fault; None: all
    """
    trials = [Key(name, i) for name in faults for i in range(FAULTS[name].trials)[:at_most]]
    return sorted(trials, key=lambda key: key.number)


def trial(key: Key, runs: Runs) -> Row:
    """
    Run a trial and return its row.

    :param key: the fault and the number of the trial
    :param runs: the runs that faults are injected into
    """
    return FAULTS[key.name].inject(runs, key.name, key.number).row(key.name, key.number)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse the command line.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME", help=", ".join(FAULTS))
    parser.add_argument("--trials", type=int, help="at most so many trials of each fault")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each run with a fault")
    parser.add_argument("--kills", type=int, default=10, help="kills of each run of the fault sigkill")
    parser.add_argument("--jobs", type=int, default=2, help="trials that run at the same time")
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="variants of the timed training"
    )
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs of each variant")
    add_sizes(parser)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/reliability"), help="folder of the checkpoints, which is emptied"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :param arguments: the command line; None: that of this process
    """
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
