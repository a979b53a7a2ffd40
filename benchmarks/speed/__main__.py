"""
Measure the time of a training step, of DQNExt and of its peers in turns, each measurement in its own process.

Each measurement becomes a row of docs/results/speed.csv or speed_parts.csv. Measurements that have a row are not repeated:
delete the rows that are out of date. Use an idle machine.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.processes import ROOT, run_command
from benchmarks.rows import RESULTS, missing_keys, run_missing
from benchmarks.speed.report import write
from benchmarks.speed.workloads import BY_NAME, LABELS, SCALING, WORKLOADS, WORKLOADS_WITH_PARTS
from sb3_dqn_ext.sweep import Row, read_rows

SPEED, PARTS = "speed.csv", "speed_parts.csv"
COLUMNS = ("workload", "implementation", "repeat")


class Measurement(NamedTuple):
    """The key of a row: one measurement of an implementation with a workload."""

    workload: str
    implementation: str
    repeat: int


def plan(workloads: Sequence[str], implementations: Sequence[str], repeats: int, scaling_repeats: int) -> list[Measurement]:
    """
    List the measurements of the speed. The implementations take turns: a repeat of all of them, then the next one.

    :param workloads: the names of the workloads
    :param implementations: the names of the implementations
    :param repeats: the number of measurements of each workload
    :param scaling_repeats: the number of measurements of each workload of the scaling table
    """
    return [
        Measurement(name, implementation, repeat)
        for name in workloads
        for repeat in range(scaling_repeats if name in SCALING else repeats)
        for implementation in BY_NAME[name].implementations
        if implementation in implementations
    ]


def plan_parts(workloads: Sequence[str], implementations: Sequence[str]) -> list[Measurement]:
    """
    List the measurements of the parts of a step.

    :param workloads: the names of the workloads
    :param implementations: the names of the implementations
    """
    return [
        Measurement(name, implementation, 0)
        for name in workloads
        if name in WORKLOADS_WITH_PARTS
        for implementation in ("sb3", "ours_eager", "ours")
        if implementation in implementations
    ]


def run(measurement: Measurement, parts: bool, steps: int | None, caches: Path) -> Row:
    """
    Measure in a new process, on as many cores as the workload has threads.

    :param measurement: the key of the row
    :param parts: whether to measure the parts of a step instead of the speed
    :param steps: the number of timed environment steps; None: that of the workload
    :param caches: the folder of compiled code, which repeats reuse; the workloads of the scaling table share one cache
    :return: the row
    """
    workload = BY_NAME[measurement.workload]
    cache = caches / measurement.implementation / ("scaling" if workload.name in SCALING else workload.name)
    cold = not cache.exists()
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.speed.measure", *map(str, measurement)]
    command += (["--parts"] if parts else []) + ([] if steps is None else ["--steps", str(steps)])
    output = run_command(command, _threads(workload.threads) | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}, ROOT)
    numbers = json.loads(output.splitlines()[-1])
    key = dict(zip(COLUMNS, map(str, measurement), strict=True))
    return {**key, "cold": str(int(cold)), **{name: f"{number:.6g}" for name, number in numbers.items()}}


def _threads(threads: int) -> dict[str, str]:
    """Return the environment variables that limit the threads of the libraries. JAX starts a thread for each allowed core."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    return {**dict.fromkeys(names, str(threads)), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def measure_all(args: argparse.Namespace) -> None:
    """
    Make all measurements that have no row, then write tables and charts.

    :param args: the arguments of the command line
    """
    speed = plan(args.workloads, args.implementations, args.repeats, args.scaling_repeats)
    planned = {SPEED: speed, PARTS: plan_parts(args.workloads, args.implementations)}
    todo = [key for name, keys in planned.items() for key in missing_keys(keys, read_rows(args.results / name), COLUMNS)]
    minutes = sum(BY_NAME[measurement.workload].seconds for measurement in todo) / 60
    load = os.getloadavg()[0]
    print(
        f"{len(todo)} measurements, about {minutes:.0f} minutes. The load of the machine is {load:.1f}: it should be near 0."
    )
    with tempfile.TemporaryDirectory() as caches:
        for name, keys in planned.items():
            measure = partial(run, parts=name == PARTS, steps=args.steps, caches=Path(caches))
            run_missing(args.results / name, COLUMNS, keys, measure, jobs=1)
    print(write(args.results))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse the command line.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=BY_NAME, metavar="NAME", help=", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--no-scaling", action="store_true", help="without the workloads of the scaling table")
    parser.add_argument("--implementations", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scaling-repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, help="timed environment steps, for a short trial")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if args.workloads is None:
        args.workloads = [w.name for w in WORKLOADS] + ([] if args.no_scaling else list(SCALING))
    return args


if __name__ == "__main__":
    measure_all(parse())
