"""
Measures what a step of training costs, ours and the peers' in turns, each measurement in a process of its own.

Each is a row of docs/results/speed.csv or speed_parts.csv; what has a row is not measured again. Delete the rows of what
has changed. The machine should have nothing else to do.
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
from benchmarks.rows import RESULTS, Row, missing_keys, read_rows, run_missing
from benchmarks.speed.report import write
from benchmarks.speed.workloads import BY_NAME, IMPLEMENTATION, LABELS, SCALING, WORKLOADS, WORKLOADS_WITH_PARTS

SPEED, PARTS = "speed.csv", "speed_parts.csv"
COLUMNS = ("workload", IMPLEMENTATION, "repeat")


class Measurement(NamedTuple):
    """The question that a row of the results answers."""

    workload: str
    implementation: str
    repeat: int


def plan(workloads: Sequence[str], implementations: Sequence[str], repeats: int, scaling_repeats: int) -> list[Measurement]:
    """
    :param workloads: their names
    :param implementations: their names
    :param repeats: how often each workload is measured
    :param scaling_repeats: how often those are that show how the cost grows
    :return: the measurements of the speed, in this order: all implementations, then all of them again
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
    :param workloads: their names
    :param implementations: their names
    :return: the measurements of where the time goes
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

    :param measurement: what to measure
    :param parts: whether to measure where the time goes, and not the speed
    :param steps: environment steps to time, if not those of the workload
    :param caches: where what is compiled is kept for the repeats; scaling shares it
    :return: its row
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
    """The environment in which a library starts no more threads. JAX takes as many as it may use cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    return {**dict.fromkeys(names, str(threads)), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def measure_all(args: argparse.Namespace) -> None:
    """
    Measure what is missing, then write tables and charts.

    :param args: the arguments of the command line
    """
    speed = plan(args.workloads, args.implementations, args.repeats, args.scaling_repeats)
    planned = {SPEED: speed, PARTS: plan_parts(args.workloads, args.implementations)}
    todo = [key for name, keys in planned.items() for key in missing_keys(keys, read_rows(args.results / name), COLUMNS)]
    minutes = sum(BY_NAME[measurement.workload].seconds for measurement in todo) / 60
    load = os.getloadavg()[0]
    print(f"{len(todo)} measurements, about {minutes:.0f} minutes. The load is {load:.1f}, it should be near 0.")
    with tempfile.TemporaryDirectory() as caches:
        for name, keys in planned.items():
            measure = partial(run, parts=name == PARTS, steps=args.steps, caches=Path(caches))
            run_missing(args.results / name, COLUMNS, keys, measure, jobs=1)
    print(write(args.results))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: of the command line, those of this process if None
    :return: their values
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=BY_NAME, metavar="NAME", help=", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--no-scaling", action="store_true", help="leave out how the cost grows")
    parser.add_argument("--implementations", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scaling-repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, help="environment steps to time, for a trial")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args(arguments)
    if args.workloads is None:
        args.workloads = [w.name for w in WORKLOADS] + ([] if args.no_scaling else list(SCALING))
    return args


if __name__ == "__main__":
    measure_all(parse())
