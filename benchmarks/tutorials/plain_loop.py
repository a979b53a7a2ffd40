"""
Time the plain loop of the tutorial on vectorised environments.

``python -m benchmarks.tutorials.plain_loop SEED STEPS`` prints the seconds from the creation of the environments to the last
step.
"""

import sys
import time
from dataclasses import replace

import torch as th

from benchmarks.speed.stopwatch import Stopwatch
from benchmarks.speed.tutorial_loop import train_tutorial
from benchmarks.speed.workloads import BY_NAME

STEPS = 640_000  # environment steps: 20,000 of the 32 environments


def seconds(seed: int, steps: int) -> float:
    """
    Return the seconds that the plain loop takes.

    :param seed: the seed of the network, the environments and the random draws
    :param steps: the number of environment steps
    """
    th.set_num_threads(1)
    workload = replace(BY_NAME["cartpole-32"], env_id="CartPole-v0", warm_up=0, steps=steps)
    start = time.perf_counter()
    train_tutorial(workload, seed, Stopwatch((steps, steps)))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(seconds(*map(int, sys.argv[1:])))
