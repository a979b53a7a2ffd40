"""
Compare the speed of DQNExt and of SB3's DQN on a GPU, with images, and write docs/results/speed_cuda.md.

    python -m benchmarks.speed.cuda

The implementations take turns in one process. No measurement begins later than :data:`SECONDS` after the start.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch as th

from benchmarks.rows import RESULTS
from benchmarks.speed.measure import measure
from benchmarks.speed.report import Results, machine, speed_table
from benchmarks.speed.workloads import BY_NAME, Comparison, Workload
from sb3_dqn_ext.sweep import Row

SECONDS = 420.0
REPEATS = 3
NO_GPU = "This benchmark needs a GPU, and torch finds no CUDA device: nothing was measured."
NOTES = """\
Written by `make bench-cuda` (`python -m benchmarks.speed.cuda`). The networks are on the GPU; environments and replay buffers
are on the CPU, except where the frames are on the GPU. PQN learns from the latest 32 vector steps, twice from each, without
replay. Implementations take turns in one process. Times are those of a whole training step per environment step. Times and
ratios are medians of the repeats, with the smallest and the largest.
"""
IMAGES = Comparison("ours_frames", "sb3")
COMPARISONS = Comparison("ours_graphs", "sb3"), Comparison("ours", "sb3"), Comparison("ours_eager", "sb3")


def _workload(
    base: str, title: str, n_updates: int, comparisons: tuple[Comparison, ...] = COMPARISONS, **changes: int
) -> Workload:
    """
    Return a workload on the GPU, with a few updates.

    :param base: the name of the workload on the CPU
    :param title: its title in the table
    :param n_updates: the number of timed updates
    :param comparisons: the comparisons to make
    :param changes: ``n_envs``, or arguments of SB3's DQN
    """
    workload = BY_NAME[base]
    n_envs = changes.pop("n_envs", workload.n_envs)
    arguments = {**workload.arguments, **changes}
    return replace(
        workload,
        name=title,
        title=title,
        arguments=arguments,
        comparisons=comparisons,
        n_envs=n_envs,
        steps=n_updates // arguments["gradient_steps"] * arguments["train_freq"] * n_envs,
        warm_up=arguments["learning_starts"] + 20 * arguments["train_freq"] * n_envs,
        device="cuda",
    )


WORKLOADS = [
    _workload("nature-1", "Pong, NatureCNN, batch 32", 100, (IMAGES, *COMPARISONS)),
    _workload("nature-1", "Pong, NatureCNN, batch 256", 100, (IMAGES, *COMPARISONS), batch_size=256),
    _workload("minatar-32", "MinAtar Breakout, 32 envs, batch 32", 300),
    _workload("minatar-32", "MinAtar Breakout, 128 envs, batch 32", 300, n_envs=128),
    # ten trainings of PQN
    _workload(
        "minatar-32",
        "MinAtar Breakout, 128 envs, two updates of batch 128 per vector step",
        640,
        (Comparison("pqn", "sb3"), Comparison("ours", "sb3")),
        learning_starts=3 * 32 * 128,  # so that PQN has been compiled when the measurement begins
        n_envs=128,
        batch_size=128,
        gradient_steps=2,
    ),
]


def measure_in_turns(workloads: Sequence[Workload], repeats: int, seconds: float) -> list[Row]:
    """
    Measure each workload with each implementation.

    :param workloads: the workloads
    :param repeats: the number of measurements of each
    :param seconds: the seconds after which no measurement begins
    :return: a row for each measurement
    """
    rows: list[Row] = []
    end = time.monotonic() + seconds
    for repeat in range(repeats):
        for workload in workloads:
            for implementation in workload.implementations:
                if time.monotonic() < end:
                    numbers = measure(workload, implementation, seed=repeat)
                    key = {"workload": workload.name, "implementation": implementation, "repeat": str(repeat)}
                    rows.append(key | {name: str(number) for name, number in numbers.items()})
    return rows


def page(rows: list[Row], workloads: Sequence[Workload], card: str) -> str:
    """
    Return the page of the results.

    :param rows: the measurements
    :param workloads: their workloads
    :param card: the name of the GPU
    """
    return f"## The time of a step on a GPU\n\n{NOTES}\n{card}; {machine()}\n\n{speed_table(Results(rows), workloads)}"


def main(path: Path = RESULTS / "speed_cuda.md") -> None:
    """
    Measure and write the page.

    :param path: the file of the page
    :raises SystemExit: if there is no GPU
    """
    if not th.cuda.is_available():
        raise SystemExit(NO_GPU)
    text = page(measure_in_turns(WORKLOADS, REPEATS, SECONDS), WORKLOADS, th.cuda.get_device_name())
    path.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
