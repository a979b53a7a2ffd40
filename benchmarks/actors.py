"""
Measure the environment steps per second with 1, 2 and 4 actors, and without: docs/results/actors.csv and actors.md.

One environment waits in each step, as a simulator or a robot in another process does. The other one computes. Each is trained
with a small network and a gradient step for every four steps. The time begins when each actor has sent two blocks.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.rows import RESULTS
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.sweep import Row, add_row, read_rows, select_rows

SECONDS = 0.005
"""The time of a step of both environments."""
BLOCK = 100
"""The transitions of a block."""
N_ACTORS = (0, 1, 2, 4)
"""The numbers of actors; 0: this process steps the environment."""


class SlowEnv(gym.Env[Any, Any]):
    """
    An environment whose steps take time.

    :param computes: whether a step occupies a processor; otherwise, it waits
    """

    observation_space: Any = spaces.Box(-1, 1, (4,), np.float32)
    action_space: Any = spaces.Discrete(2)

    def __init__(self, computes: bool) -> None:
        self.computes = computes
        self.n_steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.computes:
            end = time.thread_time() + SECONDS
            while time.thread_time() < end:
                pass
        else:
            time.sleep(SECONDS)
        self.n_steps += 1
        return self.observation_space.sample(), 1.0, self.n_steps % 50 == 0, False, {}


ENVS = {"waits": "benchmarks/Waits-v0", "computes": "benchmarks/Computes-v0"}
for _kind, _id in ENVS.items():
    if _id not in gym.registry:  # this module is imported twice if it is the program
        gym.register(_id, "benchmarks.actors:SlowEnv", kwargs={"computes": _kind == "computes"})


class Clock(BaseCallback):
    """
    A callback that measures the steps per second, and then ends the run. With actors, it measures at the ends of blocks.

    :param n_before: the steps before the time begins
    :param seconds: the time
    """

    def __init__(self, n_before: int, seconds: float) -> None:
        super().__init__()
        self.n_before, self.seconds, self.n_blocks = n_before, seconds, 0
        self.begin: tuple[float, int] | None = None
        self.end: tuple[float, int] = (0.0, 0)

    def _on_step(self) -> bool:
        pool = self.model.run_state.actor_pool  # type: ignore[attr-defined]
        n_blocks = self.n_calls if pool is None else sum(pool.acknowledged.values())
        if n_blocks > self.n_blocks and self.num_timesteps > self.n_before:
            self.n_blocks, self.end = n_blocks, (time.monotonic(), self.num_timesteps)
            self.begin = self.begin or self.end
        return self.begin is None or self.end[0] < self.begin[0] + self.seconds

    @property
    def rate(self) -> float:
        """The steps per second."""
        assert self.begin is not None
        return (self.end[1] - self.begin[1]) / (self.end[0] - self.begin[0])


def steps_per_second(kind: str, n_actors: int, seconds: float) -> float:
    """
    Measure a training.

    :param kind: the environment, a key of ``ENVS``
    :param n_actors: the number of actors; 0: none
    :param seconds: the time
    :return: environment steps per second
    """
    actors: dict[str, Any] | None = {"n_actors": n_actors, "block_size": BLOCK} if n_actors else None
    clock = Clock(BLOCK * max(2 * n_actors, 1), seconds)
    model = DQNExt(
        "MlpPolicy",
        gym.make(ENVS[kind]),
        learning_starts=50,
        device="cpu",
        policy_kwargs={"net_arch": [64, 64]},
        actors=actors,
    )
    model.learn(10**9, clock)
    return clock.rate


def table(rows: Sequence[Row]) -> str:
    """
    Describe the measurements.

    :param rows: the rows
    :return: a table, with the median of each
    """
    lines = ["| | the environment waits 5 ms | the environment computes 5 ms |", "|---|---|---|"]
    medians = {
        (kind, n): statistics.median(float(row["steps_per_second"]) for row in select_rows(rows, env=kind, actors=str(n)))
        for kind in ENVS
        for n in N_ACTORS
    }
    for n in N_ACTORS:
        name = f"{n} actor{'s' if n > 1 else ''}" if n else "without actors"
        cells = [f"{medians[kind, n]:.0f} ({medians[kind, n] / medians[kind, 0]:.2f} x)" for kind in ENVS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def page(rows: Sequence[Row]) -> str:
    """
    Make the page of the measurements.

    :param rows: the rows
    """
    n = len(rows) // (len(ENVS) * len(N_ACTORS))
    return (
        "# Throughput with actors\n\n"
        f"Environment steps per second on two processor cores, medians of {n} measurements, with a gradient step for every "
        f"four steps, blocks of {BLOCK} transitions and one environment in each actor: `python -m benchmarks.actors`.\n\n"
        f"{table(rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="time of a measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    th.set_num_threads(1)

    path = args.results / "actors.csv"
    path.unlink(missing_ok=True)
    for repeat in range(args.repeats):
        for kind in ENVS:
            for n in N_ACTORS:
                rate = steps_per_second(kind, n, args.seconds)
                print(f"{kind}, {n} actors: {rate:.0f} steps per second", flush=True)
                add_row(path, {"env": kind, "actors": str(n), "repeat": str(repeat), "steps_per_second": f"{rate:.1f}"})
    text = page(read_rows(path))
    (args.results / "actors.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
