"""
Measures what a step of training costs, ours and the peers' in turns, each measurement in a process of its own.

Each is a row of docs/results/speed.csv or speed_parts.csv; what has a row is not measured again. Delete the rows of what
has changed. The machine should have nothing else to do.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from benchmarks.rows import Row, append, read
from benchmarks.speed.measure import measure, measure_parts
from benchmarks.speed.workloads import BY_NAME, LABELS, PARTED, SCALING, WORKLOADS, Workload

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "docs" / "results"


class Measurement(NamedTuple):
    """What a row of the results answers."""

    workload: str
    contestant: str
    repeat: int
    parts: bool = False

    @property
    def file(self) -> str:
        return "speed_parts.csv" if self.parts else "speed.csv"


def plan(workloads: Sequence[str], contestants: Sequence[str], repeats: int, scaling_repeats: int) -> list[Measurement]:
    """
    :param workloads: their names
    :param contestants: their names
    :param repeats: how often each workload is measured
    :param scaling_repeats: how often those are that show how the cost grows
    :return: what to measure, in this order: all contestants, then all of them again
    """
    speed = [
        Measurement(name, contestant, repeat)
        for name in workloads
        for repeat in range(scaling_repeats if name in SCALING else repeats)
        for contestant in BY_NAME[name].contestants
        if contestant in contestants
    ]
    parts = [
        Measurement(name, contestant, 0, parts=True)
        for name in workloads
        if name in PARTED
        for contestant in ("sb3", "ours_eager", "ours")
        if contestant in contestants
    ]
    return speed + parts


def measured(results: Path) -> set[Measurement]:
    """
    :param results: the folder of the results
    :return: what has a row
    """
    return {
        Measurement(row["workload"], row["contestant"], int(row["repeat"]), parts)
        for parts in (False, True)
        for row in read(results / Measurement("", "", 0, parts).file)
    }


def run(measurement: Measurement, steps: int | None, caches: Path) -> Row:
    """
    Measure in a new process, on as many cores as the workload has threads.

    :param measurement: what to measure
    :param steps: environment steps to time, if not those of the workload
    :param caches: where what is compiled is kept for the repeats; scaling shares it
    :return: its row
    """
    workload = BY_NAME[measurement.workload]
    cache = caches / measurement.contestant / ("scaling" if workload.name in SCALING else workload.name)
    cold = not cache.exists()
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.speed", "--measure", measurement.workload, measurement.contestant]
    command += ["--repeat", str(measurement.repeat), *(["--parts"] if measurement.parts else [])]
    command += [] if steps is None else ["--steps", str(steps)]
    environment = {**os.environ, **_threads(workload.threads), "TORCHINDUCTOR_CACHE_DIR": str(cache)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    numbers = json.loads(result.stdout.splitlines()[-1])
    key = {"workload": measurement.workload, "contestant": measurement.contestant, "repeat": str(measurement.repeat)}
    return {**key, "cold": str(int(cold)), **{name: f"{number:.6g}" for name, number in numbers.items()}}


def _threads(threads: int) -> dict[str, str]:
    """The environment in which a library starts no more threads. JAX takes as many as it may use cores."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    flags = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    return {**dict.fromkeys(names, str(threads)), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}


def _pin(threads: int) -> None:
    """Stay on as many cores as there are threads. The last ones: the first has the most to do for the system."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def _with_steps(workload: Workload, steps: int | None) -> Workload:
    return workload if steps is None else replace(workload, steps=steps)


def measure_here(args: argparse.Namespace) -> None:
    """:param args: of the command line; its measurement is printed as JSON"""
    name, contestant = args.measure
    workload = _with_steps(BY_NAME[name], args.steps)
    _pin(workload.threads)
    numbers = (measure_parts if args.parts else measure)(workload, contestant, args.repeat)
    print(json.dumps(numbers))


def measure_all(args: argparse.Namespace) -> None:
    """:param args: of the command line; what is missing is measured, then tables and charts are written"""
    # These import all of torch, which a process that measures must not have done before.
    from benchmarks.speed.report import write

    args.results.mkdir(parents=True, exist_ok=True)
    done = measured(args.results)
    todo = [m for m in plan(args.workloads, args.contestants, args.repeats, args.scaling_repeats) if m not in done]
    minutes = sum(BY_NAME[m.workload].seconds for m in todo) / 60
    load = os.getloadavg()[0]
    print(f"{len(todo)} measurements, about {minutes:.0f} minutes. The load is {load:.1f}, it should be near 0.")
    with tempfile.TemporaryDirectory() as caches:
        bar = tqdm(todo, unit="run")
        for measurement in bar:
            bar.set_postfix_str(f"{measurement.workload}, {LABELS[measurement.contestant]}")
            append(args.results / measurement.file, run(measurement, args.steps, Path(caches)))
    print(write(args.results))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: of the command line, those of this process if None
    :return: their values
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--workloads", nargs="+", choices=BY_NAME, metavar="NAME", help=", ".join(w.name for w in WORKLOADS))
    parser.add_argument("--no-scaling", action="store_true", help="leave out how the cost grows")
    parser.add_argument("--contestants", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scaling-repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, help="environment steps to time, for a trial")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=2, metavar=("WORKLOAD", "CONTESTANT"), help="one measurement, printed as JSON")
    parser.add_argument("--repeat", type=int, default=0, help="with --measure: its number, which is the seed")
    parser.add_argument("--parts", action="store_true", help="with --measure: where the time goes, in microseconds per step")
    args = parser.parse_args(arguments)
    if args.workloads is None:
        args.workloads = [w.name for w in WORKLOADS] + ([] if args.no_scaling else list(SCALING))
    return args


def main() -> None:
    args = parse()
    if args.measure:
        measure_here(args)
    else:
        measure_all(args)


if __name__ == "__main__":
    main()
