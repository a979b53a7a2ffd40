"""
Make one measurement in this process and print it as JSON:
``python -m benchmarks.speed.measure WORKLOAD IMPLEMENTATION REPEAT``.

No heavy module is imported before the clock starts, because the imports of a library are a part of its start-up time.
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
    Measure the speed of an implementation.

    :param workload: the workload
    :param implementation: the name of the implementation
    :param seed: the seed of the networks and environments
    :return: seconds of wall and of processor time in the timed part, its steps and updates, and the start-up time: the seconds
        before the timed part, minus the time that its updates take once everything is warm
    """
    start = time.perf_counter()
    # not at the top of the module, as imports are a part of the start-up time
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
    Measure the parts of a step, over half of the steps of the workload.

    :param workload: the workload
    :param implementation: the name of the implementation
    :param seed: the seed of the networks and environments
    :return: microseconds per environment step of each part; the time outside all measured methods is the rest. The floor is a
        part of the others, see :class:`~benchmarks.speed.stopwatch.Parts`
    """
    from benchmarks.speed.implementations import learn, make_model  # as above

    workload = replace(workload, steps=workload.steps // 2)
    model = make_model(workload, implementation, seed)
    parts = Parts(model)
    totals: list[defaultdict[str, float]] = []
    stopwatch = Stopwatch.of(workload, lambda: totals.append(parts.seconds.copy()))
    learn(model, workload, stopwatch)
    begin, end = stopwatch.laps
    seconds = {name: totals[1][name] - totals[0][name] for name in Parts.NAMES}
    seconds["rest"] = end.wall - begin.wall - sum(seconds.values())
    seconds[Parts.FLOOR] = totals[1][Parts.FLOOR] - totals[0][Parts.FLOOR]
    return {name: 1e6 * value / (end.steps - begin.steps) for name, value in seconds.items()}


def _pin(threads: int) -> None:
    """Restrict this process to as many cores as it has threads: the last ones, as the first does most work of the system."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.measure", description=__doc__)
    parser.add_argument("workload", choices=BY_NAME)
    parser.add_argument("implementation", choices=LABELS)
    parser.add_argument("repeat", type=int, help="its number, which is the seed")
    parser.add_argument("--steps", type=int, help="timed environment steps, for a short trial")
    parser.add_argument("--parts", action="store_true", help="measure the parts of a step, in microseconds per step")
    args = parser.parse_args()
    workload = BY_NAME[args.workload]
    if args.steps is not None:
        workload = replace(workload, steps=args.steps)
    _pin(workload.threads)
    print(json.dumps((measure_parts if args.parts else measure)(workload, args.implementation, args.repeat)))


if __name__ == "__main__":
    main()
