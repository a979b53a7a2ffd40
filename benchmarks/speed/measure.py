"""
Makes one measurement, in the process that asks for it, and prints it as JSON:
``python -m benchmarks.speed.measure WORKLOAD IMPLEMENTATION REPEAT``.

Nothing heavy is imported before the clock runs: what a library needs to get ready is part of the answer.
"""

import argparse
import json
import os
import time
from collections import defaultdict
from dataclasses import replace

from benchmarks.speed.stopwatch import Parts, Stopwatch
from benchmarks.speed.workloads import BY_NAME, LABELS, Workload


def measure(workload: Workload, implementation: str, seed: int) -> dict[str, float]:
    """
    :param workload: what to train
    :param implementation: its name
    :param seed: of the networks and environments
    :return: seconds of wall and of processor time in the timed part, its steps and updates, and the seconds that came
        before it, less what the updates among them cost later
    """
    start = time.perf_counter()
    # Not at the top of the module: what a library needs to get ready, its import included, is part of the answer.
    from benchmarks.speed.implementations import train

    stopwatch = Stopwatch.of(workload)
    train(workload, implementation, seed, stopwatch)
    begin, end = stopwatch.laps
    wall, updates = end.wall - begin.wall, end.updates - begin.updates
    return {
        "start_up_s": begin.wall - start - wall * begin.updates / updates,
        "wall_s": wall,
        "cpu_s": end.cpu - begin.cpu,
        "steps": end.steps - begin.steps,
        "updates": updates,
    }


def measure_parts(workload: Workload, implementation: str, seed: int) -> dict[str, float]:
    """
    :param workload: what to train
    :param implementation: its name
    :param seed: of the networks and environments
    :return: microseconds per environment step of each part, over half the steps; what is in none of the methods is the rest
    """
    from benchmarks.speed.implementations import learn  # as above

    workload = replace(workload, steps=workload.steps // 2)
    model = make(workload, implementation, seed)
    parts = Parts(model)
    looks: list[defaultdict[str, float]] = []
    stopwatch = Stopwatch.of(workload, lambda: looks.append(parts.seconds.copy()))
    learn(model, workload, stopwatch)
    begin, end = stopwatch.laps
    seconds = {name: looks[1][name] - looks[0][name] for name in Parts.NAMES}
    seconds["rest"] = end.wall - begin.wall - sum(seconds.values())
    return {name: 1e6 * value / (end.steps - begin.steps) for name, value in seconds.items()}


def _pin(threads: int) -> None:
    """Stay on as many cores as there are threads. The last ones: the first has the most to do for the system."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.measure", description=__doc__)
    parser.add_argument("workload", choices=BY_NAME)
    parser.add_argument("implementation", choices=LABELS)
    parser.add_argument("repeat", type=int, help="its number, which is the seed")
    parser.add_argument("--steps", type=int, help="environment steps to time, for a trial")
    parser.add_argument("--parts", action="store_true", help="where the time goes, in microseconds per step")
    args = parser.parse_args()
    workload = BY_NAME[args.workload]
    if args.steps is not None:
        workload = replace(workload, steps=args.steps)
    _pin(workload.threads)
    print(json.dumps((measure_parts if args.parts else measure)(workload, args.implementation, args.repeat)))


if __name__ == "__main__":
    main()
