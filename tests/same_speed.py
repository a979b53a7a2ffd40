"""
Compare the speed of two checkouts: ``python -m tests.same_speed OLD NEW [--pairs N] [--turns N]``.

Two processes, one for each checkout, run the same training and take turns, so that other load of the machine affects both
alike. Turns are short and many, because a busy machine changes its speed within a second. A turn is timed by the processor
time of its process. The median and the quartiles of the ratios NEW / OLD of all turns are printed for three workloads of
:mod:`benchmarks.speed`, and for the import of the package, which has a new process for each turn.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from benchmarks.speed.workloads import BY_NAME
from benchmarks.speed.workloads import Workload as Training
from tests.checkouts import PACKAGE, imported, report, results, start, two_checkouts

WARM_UP = 10
"""The number of uncounted turns of a pair, in which the replay buffer fills and compiled functions are called a few times."""


class Workload(NamedTuple):
    """A training and the length of a turn."""

    training: Training
    implementation: str
    """The implementation: ``"ours"`` (compiled, in a FastVecEnv) or ``"ours_eager"``."""
    steps: int
    """The number of environment steps of a turn."""


SINGLE = BY_NAME["cartpole-1"]
EVERY_STEP = replace(SINGLE, arguments={**SINGLE.arguments, "train_freq": 1})
WORKLOADS = {
    "1 CartPole, eager": Workload(EVERY_STEP, "ours_eager", 200),
    "1 CartPole, compiled": Workload(SINGLE, "ours", 800),
    "32 CartPoles, compiled": Workload(BY_NAME["cartpole-32"], "ours", 6_400),
}
IMPORT_TURNS = 10
IMPORTS = {"import": "", "import after SB3": "stable_baselines3"}


# in the process of one checkout; functions import heavy modules themselves, because imports are timed too


def run(name: str, turns: str) -> None:
    """Report the seconds of each turn. A turn begins after a line of standard input."""
    if name in IMPORTS:
        time_import(IMPORTS[name])
    else:
        time_training(WORKLOADS[name], int(turns))


def time_import(before: str) -> None:
    if before:
        __import__(before)
    sys.stdin.readline()
    begin = time.process_time()
    __import__(PACKAGE)
    report(time.process_time() - begin)


def time_training(workload: Workload, turns: int) -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    make_model = imported("make_model")

    class Turns(BaseCallback):
        """A callback that waits for the other process after each turn."""

        begin = 0.0

        def _on_training_start(self) -> None:
            self.wait()

        def _on_step(self) -> bool:
            if self.n_calls % (workload.steps // self.training_env.num_envs) == 0:
                report(time.process_time() - self.begin)
                self.wait()
            return True

        def wait(self) -> None:
            sys.stdin.readline()
            self.begin = time.process_time()

    make_model(workload.training, workload.implementation, seed=0).learn(turns * workload.steps, callback=Turns())


# in the process that compares


def ratios(checkouts: Sequence[Path], name: str, turns: int, first: int = 0) -> Iterator[float]:
    """
    Measure a pair of processes.

    :param checkouts: OLD and NEW
    :param name: the name of the workload
    :param turns: the number of turns of each process
    :param first: the process that begins; the order changes after each turn, as a falling speed would favour the first one
    :return: the ratio of the seconds of NEW and OLD for each turn
    """
    processes = [start(checkout, __spec__.name, name, turns) for checkout in checkouts]
    reports = [results(process) for process in processes]
    for turn in range(turns):
        seconds = [0.0, 0.0]
        for i in (0, 1) if (turn + first) % 2 == 0 else (1, 0):
            print(file=processes[i].stdin, flush=True)
            seconds[i] = next(reports[i])
        yield seconds[1] / seconds[0]
    for process, rest in zip(processes, reports, strict=True):
        assert process.stdin is not None
        process.stdin.close()
        assert not list(rest)


def measured(checkouts: Sequence[Path], name: str, pairs: int, turns: int) -> list[float]:
    """
    Measure several pairs of processes, and return the ratios of all turns.

    :param checkouts: OLD and NEW
    :param name: the name of the workload
    :param pairs: the number of pairs; two processes of the same code differ by a percent or two
    :param turns: the number of turns of each pair after its warm-up; an import has a pair for each turn
    """
    if name in IMPORTS:
        found = [ratio for i in range(1 + IMPORT_TURNS) for ratio in ratios(checkouts, name, 1, first=i)]
        return found[1:]  # the first import compiles the modules
    every = [islice(ratios(checkouts, name, WARM_UP + turns, first=i), WARM_UP, None) for i in range(pairs)]
    return [ratio for pair in every for ratio in pair]


def main() -> None:
    parser = two_checkouts(str(__doc__))
    parser.add_argument("-k", default="", help="only workloads with this in their name")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of processes for each training (3)")
    parser.add_argument("--turns", type=int, default=60, help="turns of a pair that are counted (60)")
    options = parser.parse_args()
    print(f"{'NEW / OLD':24} median  lower quartile  upper quartile")
    for name in [name for name in [*WORKLOADS, *IMPORTS] if options.k in name]:
        lower, median, upper = quantiles(measured([options.old, options.new], name, options.pairs, options.turns))
        print(f"{name:24} {median:6.3f}  {lower:14.3f}  {upper:14.3f}", flush=True)


if __name__ == "__main__":
    main()
