"""
The time that the plain loop takes for the tutorial on vectorised environments, in a process of its own.

``python -m benchmarks.tutorials.plain_loop SEED STEPS`` prints seconds, from the making of the environments to the last step.
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
    :param seed: of the network, the environments and the draws
    :param steps: environment steps
    :return: how long it takes
    """
    th.set_num_threads(1)
    workload = replace(BY_NAME["cartpole-32"], env_id="CartPole-v0", warm_up=0, steps=steps)
    start = time.perf_counter()
    train_tutorial(workload, seed, Stopwatch((steps, steps)))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(seconds(*map(int, sys.argv[1:])))
