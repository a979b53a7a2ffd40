"""What is measured: environments, networks, numbers, and which implementations take part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

LABELS = {
    "sb3": "SB3 DQN",
    "sbx": "SBX DQN",
    "tutorial": "tutorial's loop",
    "qrdqn": "sb3-contrib QRDQN",
    "ours_eager": "ours, eager",
    "ours": "ours, compiled",
}

IMPLEMENTATION = "implementation"
"""the column of speed.csv and speed_parts.csv that names the implementation"""


class Comparison(NamedTuple):
    """A comparison with a peer."""

    ours: str
    """``"ours"`` (compiled) or ``"ours_eager"``"""
    peer: str


@dataclass(frozen=True)
class Workload:
    """
    One thing to train, the same for all who take part.

    :param name: on the command line and in the rows
    :param title: in tables and charts
    :param arguments: of SB3's DQN, by its names
    :param comparisons: the comparisons of the implementations that take part
    :param steps: environment steps that are timed
    :param warm_up: environment steps before them: learning has started, and what is compiled was called a few times
    :param env_id: the environment
    :param n_envs: how many of it
    :param width: units of each of the two hidden layers
    :param n_quantiles: of the returns' distribution; expected returns if None
    :param threads: for all libraries, and cores to run on
    :param fill: whether the replay memory is full from the start
    :param seconds: a guess of how long one measurement takes, imports included, with nothing else running
    """

    name: str
    title: str
    arguments: Mapping[str, Any]
    comparisons: tuple[Comparison, ...]
    steps: int
    warm_up: int
    env_id: str = "CartPole-v1"
    n_envs: int = 1
    width: int = 64
    n_quantiles: int | None = None
    threads: int = 1
    fill: bool = False
    seconds: float = 8.0

    @property
    def updates_per_step(self) -> float:
        """Updates for each environment step."""
        steps = self.arguments["train_freq"] * self.n_envs
        updates = self.arguments["gradient_steps"]
        return 1.0 if updates < 0 else float(updates / steps)

    @property
    def implementations(self) -> list[str]:
        """Peers first."""
        taking_part = {name for comparison in self.comparisons for name in (comparison.ours, comparison.peer)}
        return [name for name in LABELS if name in taking_part]


# One update after each step of the 32 environments; numbers of the tutorial on vectorised environments.
VECTORISED = {
    "learning_rate": 1e-3,
    "buffer_size": 1_000_000,
    "learning_starts": 1024,  # environment steps: 32 of the vector
    "batch_size": 32,
    "gamma": 0.95,
    "train_freq": 1,  # steps of the vector
    "gradient_steps": 1,
    "target_update_interval": 3200,  # environment steps: 100 of the vector
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.0,
}
# SB3's defaults, but for the buffer.
SINGLE = {
    "learning_rate": 1e-4,
    "buffer_size": 100_000,
    "learning_starts": 100,
    "batch_size": 32,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 10_000,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.05,
}
# hyperparams/dqn.yml of rl_zoo3 2.9.2, CartPole-v1
ZOO_CARTPOLE = {
    "learning_rate": 2.3e-3,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "batch_size": 64,
    "gamma": 0.99,
    "train_freq": 256,
    "gradient_steps": 128,
    "target_update_interval": 10,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
}
# hyperparams/dqn.yml of rl_zoo3 2.9.2, LunarLander-v3
ZOO_LUNAR_LANDER = {
    "learning_rate": 6.3e-4,
    "buffer_size": 50_000,
    "learning_starts": 0,
    "batch_size": 128,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": -1,  # as many as steps
    "target_update_interval": 250,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
}

WORKLOADS = [
    Workload(
        "cartpole-32",
        "CartPole, 32 envs, 24-24, batch 32, an update per vector step",
        VECTORISED,
        (Comparison("ours", "sb3"), Comparison("ours", "sbx"), Comparison("ours", "tutorial")),
        n_envs=32,
        width=24,
        steps=48_000,
        warm_up=6_400,
    ),
    Workload(
        "cartpole-1",
        "CartPole, 1 env, 64-64, batch 32, an update every 4 steps",
        SINGLE,
        (Comparison("ours", "sb3"), Comparison("ours", "sbx"), Comparison("ours_eager", "sb3")),
        width=64,
        steps=6_000,
        warm_up=1_000,
    ),
    Workload(
        "cartpole-1-narrow",
        "CartPole, 1 env, 24-24, batch 32, an update every 4 steps",
        SINGLE,
        (Comparison("ours_eager", "sb3"),),
        width=24,
        steps=6_000,
        warm_up=1_000,
    ),
    Workload(
        "zoo-cartpole",
        "CartPole, zoo block: 256-256, batch 64, 128 updates per 256 steps",
        ZOO_CARTPOLE,
        (Comparison("ours", "sb3"), Comparison("ours", "sbx"), Comparison("ours_eager", "sb3")),
        width=256,
        steps=12 * 256,
        warm_up=8 * 256,  # the first training is after step 1024
    ),
    Workload(
        "zoo-lunarlander",
        "LunarLander, zoo block: 256-256, batch 128, 4 updates per 4 steps",
        ZOO_LUNAR_LANDER,
        (Comparison("ours", "sb3"), Comparison("ours", "sbx")),
        env_id="LunarLander-v3",
        width=256,
        steps=20_000,
        warm_up=400,
        seconds=40.0,
    ),
    Workload(
        "quantile",
        "50 quantiles, CartPole, zoo block",
        ZOO_CARTPOLE,
        (Comparison("ours", "qrdqn"),),
        width=256,
        n_quantiles=50,
        steps=8 * 256,
        warm_up=8 * 256,
    ),
]

# Where the time goes is told for these.
WORKLOADS_WITH_PARTS = ["cartpole-32", "cartpole-1", "zoo-cartpole", "zoo-lunarlander"]


class Axis(NamedTuple):
    """Workloads that differ in one number."""

    title: str
    numbers: list[int]
    workloads: list[Workload]


# Filled by hand: when the memory is full, no draw finds it in the processor's cache only because it is new.
_BASE = Workload(
    "scaling",
    "CartPole, 32 envs, 64-64, batch 32, an update per vector step, a full memory of 100,000",
    {**VECTORISED, "buffer_size": 100_000},
    (Comparison("ours", "sb3"),),
    n_envs=32,
    fill=True,
    steps=32_000,
    warm_up=3_200,
    seconds=7.0,
)


def _envs(n_envs: int) -> Workload:
    # as many steps of the vector as the time of a few seconds allows
    n_vector_steps = {1: 4000, 8: 2500, 32: 1000, 128: 400}[n_envs]
    return replace(
        _BASE, name=f"scaling-envs-{n_envs}", n_envs=n_envs, steps=n_vector_steps * n_envs, warm_up=1024 + 100 * n_envs
    )


def _width(width: int, threads: int = 1) -> Workload:
    name = f"scaling-width-{width}" + ("" if threads == 1 else f"-threads-{threads}")
    n_vector_steps = 1000 if width < 1024 else 300
    return replace(_BASE, name=name, width=width, threads=threads, steps=n_vector_steps * 32)


def _memory(size: int) -> Workload:
    return replace(_BASE, name=f"scaling-memory-{size}", arguments={**VECTORISED, "buffer_size": size})


_ENVS, _WIDTHS, _MEMORY, _THREADS = [1, 8, 32, 128], [64, 256, 1024], [10_000, 100_000, 1_000_000], [1, 2]
AXES = [
    Axis("environments", _ENVS, [_envs(n_envs) for n_envs in _ENVS]),
    Axis("units of a hidden layer", _WIDTHS, [_width(width) for width in _WIDTHS]),
    Axis("transitions in the memory", _MEMORY, [_memory(size) for size in _MEMORY]),
    Axis("threads, 1024-1024", _THREADS, [_width(1024, threads) for threads in _THREADS]),
]
SCALING = {workload.name: workload for axis in AXES for workload in axis.workloads}
BY_NAME = {workload.name: workload for workload in WORKLOADS} | SCALING
