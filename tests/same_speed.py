"""
Compare the speed of two checkouts: ``python -m tests.same_speed OLD NEW [--pairs N] [--turns N]``.

Two processes, one for each checkout, train the same and take turns, so that what else the machine does hits both alike. Turns
are short and many, as a busy machine changes its speed within a second. A turn is timed by the processor time of its process.
The median and the quartiles of the ratios NEW / OLD of all turns are printed for three workloads of
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
"""turns of a pair that are not counted: the replay buffer fills, and what is compiled was called a few times"""


class Workload(NamedTuple):
    """A training and the length of a turn."""

    training: Training
    implementation: str
    """``"ours"`` (compiled, in a FastVecEnv) or ``"ours_eager"``"""
    steps: int
    """environment steps of a turn"""


SINGLE = BY_NAME["cartpole-1"]
EVERY_STEP = replace(SINGLE, arguments={**SINGLE.arguments, "train_freq": 1})
WORKLOADS = {
    "1 CartPole, eager": Workload(EVERY_STEP, "ours_eager", 200),
    "1 CartPole, compiled": Workload(SINGLE, "ours", 800),
    "32 CartPoles, compiled": Workload(BY_NAME["cartpole-32"], "ours", 6_400),
}
IMPORT_TURNS = 10
IMPORTS = {"import": "", "import after SB3": "stable_baselines3"}


# in the process of one checkout. Heavy modules are imported by the functions that need them: imports are timed here, too.


def run(name: str, turns: str) -> None:
    """Report the seconds of each turn. A turn begins when a line comes in."""
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

    make = imported("make")

    class Turns(BaseCallback):
        """Wait for the other process after each turn."""

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

    make(workload.training, workload.implementation, seed=0).learn(turns * workload.steps, callback=Turns())


# in the process that compares


def ratios(checkouts: Sequence[Path], name: str, turns: int, first: int = 0) -> Iterator[float]:
    """
    :param checkouts: OLD and NEW
    :param name: the workload
    :param turns: how often each of the two processes has its turn
    :param first: which one begins; they change places after each turn, as a falling speed would favour the first
    :return: the seconds of NEW / those of OLD for each turn
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
    :param checkouts: OLD and NEW
    :param name: the workload
    :param pairs: pairs of processes; two processes of the same code differ by a percent or two
    :param turns: turns of each pair, beside those that warm it up; an import has a pair for each turn
    :return: the ratios of all turns
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
