"""The workloads: environments, networks, hyperparameters, and the implementations that are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

LABELS = {
    "sb3": "SB3 DQN",
    "sbx": "SBX DQN",
    "tutorial": "tutorial's loop",
    "cleanrl": "CleanRL's loop",
    "qrdqn": "sb3-contrib QRDQN",
    "ours_eager": "DQNExt, eager",
    "ours": "DQNExt, compiled",
    "ours_graphs": "DQNExt, CUDA graphs",
    "ours_frames": "DQNExt, CUDA graphs, frames on the GPU",
    "pqn": "DQNExt, PQN, compiled",
}
"""The label of each implementation in tables and charts."""
CHANNELS = 16
"""The output channels of the convolution of the MinAtar network."""


class Comparison(NamedTuple):
    """A comparison of DQNExt with a peer."""

    ours: str
    """``"ours"`` (compiled), ``"ours_eager"``, ``"ours_graphs"``, ``"ours_frames"`` or ``"pqn"``"""
    peer: str


@dataclass(frozen=True)
class Workload:
    """
    A training that is the same for all implementations.

    :param name: the name on the command line and in the rows
    :param title: the name in tables and charts
    :param arguments: arguments of SB3's DQN
    :param comparisons: the comparisons to make
    :param steps: the number of timed environment steps
    :param warm_up: the number of environment steps before them, after which learning has started and compiled functions were
        called a few times
    :param env_id: the id of the environment
    :param registered_by: the package that registers this id; None: gymnasium
    :param n_envs: the number of environments
    :param network: ``"mlp"``: two hidden layers; ``"minatar"``: a convolution of 16 filters and a hidden layer; ``"nature"``:
        SB3's NatureCNN and no further hidden layer
    :param width: the number of units of each hidden layer
    :param atari: whether the environment is a game of Atari, with SB3's preprocessing and stacks of four frames
    :param n_quantiles: the number of quantiles of the return distribution; None: expected returns
    :param threads: the number of threads of all libraries, and of cores
    :param device: the device of the networks
    :param fill: whether the replay buffer is full from the start
    :param seconds: an estimate of the time of one measurement on an idle machine, imports included
    """

    name: str
    title: str
    arguments: Mapping[str, Any]
    comparisons: tuple[Comparison, ...]
    steps: int
    warm_up: int
    env_id: str = "CartPole-v1"
    registered_by: str | None = None
    n_envs: int = 1
    network: str = "mlp"
    width: int = 64
    atari: bool = False
    n_quantiles: int | None = None
    threads: int = 1
    device: str = "cpu"
    fill: bool = False
    seconds: float = 8.0

    @property
    def updates_per_step(self) -> float:
        """The number of updates for each environment step."""
        steps = self.arguments["train_freq"] * self.n_envs
        updates = self.arguments["gradient_steps"]
        return 1.0 if updates < 0 else float(updates / steps)

    @property
    def implementations(self) -> list[str]:
        """The implementations that are compared, peers first."""
        taking_part = {name for comparison in self.comparisons for name in (comparison.ours, comparison.peer)}
        return [name for name in LABELS if name in taking_part]


# one update after each vector step of 32 environments; hyperparameters of the tutorial on vectorised environments
VECTORISED = {
    "learning_rate": 1e-3,
    "buffer_size": 1_000_000,
    "learning_starts": 1024,  # environment steps, which are 32 vector steps
    "batch_size": 32,
    "gamma": 0.95,
    "train_freq": 1,  # vector steps
    "gradient_steps": 1,
    "target_update_interval": 3200,  # environment steps, which are 100 vector steps
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.0,
}
# SB3's defaults except for the size of the replay buffer
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
    "gradient_steps": -1,  # as many as environment steps
    "target_update_interval": 250,
    "exploration_fraction": 0.12,
    "exploration_final_eps": 0.1,
}
# the first steps of hyperparams/dqn.yml of rl_zoo3 2.9.2, atari, with a smaller replay buffer and warm-up
ZOO_ATARI = {
    "learning_rate": 1e-4,
    "buffer_size": 10_000,
    "learning_starts": 100,
    "batch_size": 32,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 1000,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
}
PQN = {
    "buffer_size": 128 * 32,  # 32 vector steps
    "learning_starts": 0,
    "train_freq": 32,
    "n_epochs": 2,
    "target_network": False,
    "replay_buffer_kwargs": {"td_lambda": 0.65},
}
"""The arguments of PQN with 128 environments, in place of those of replay. It makes two updates per vector step."""
OTHERS = ("sb3", "sbx", "cleanrl")
"""The implementations with which DQNExt is compared on images."""

QUANTILE = Workload(
    "quantile",
    "50 quantiles, CartPole, zoo block",
    ZOO_CARTPOLE,
    (Comparison("ours", "qrdqn"),),
    width=256,
    n_quantiles=50,
    steps=8 * 256,
    warm_up=8 * 256,
)
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
    QUANTILE,
    replace(
        QUANTILE,
        name="quantile-200",
        title="200 quantiles, CartPole, zoo block",
        n_quantiles=200,
        steps=2 * 256,
        warm_up=6 * 256,
        seconds=30.0,
    ),
    Workload(
        "minatar-32",
        "MinAtar Breakout, 32 envs, conv 16 + 128, batch 32, an update per vector step",
        {**VECTORISED, "buffer_size": 100_000, "gamma": 0.99, "exploration_final_eps": 0.05},
        tuple(Comparison("ours", peer) for peer in OTHERS),
        env_id="dqn_ext/MinAtar-Breakout-v1",
        registered_by="sb3_dqn_ext",
        n_envs=32,
        network="minatar",
        width=128,
        steps=32_000,
        warm_up=3_200,
    ),
    Workload(
        "minatar-1",
        "MinAtar Breakout, 1 env, conv 16 + 128, batch 32, an update every 4 steps",
        SINGLE,
        tuple(Comparison("ours", peer) for peer in OTHERS),
        env_id="dqn_ext/MinAtar-Breakout-v1",
        registered_by="sb3_dqn_ext",
        network="minatar",
        width=128,
        steps=4_000,
        warm_up=1_000,
    ),
    Workload(
        "nature-1",
        "Pong, 1 env, 84 x 84, NatureCNN, batch 32, an update every 4 steps",
        ZOO_ATARI,
        tuple(Comparison("ours", peer) for peer in OTHERS),
        env_id="PongNoFrameskip-v4",
        registered_by="ale_py",
        network="nature",
        width=512,
        atari=True,
        steps=160,
        warm_up=144,
        seconds=12.0,
    ),
]

WORKLOADS_WITH_PARTS = ["cartpole-32", "cartpole-1", "zoo-cartpole", "zoo-lunarlander", "minatar-32", "minatar-1", "nature-1"]


class Axis(NamedTuple):
    """Workloads that differ in one number: an axis of the scaling table."""

    title: str
    numbers: list[int]
    workloads: list[Workload]


# The replay buffer is full from the start. A small filled part would fit into the cache of the processor.
_BASE = Workload(
    "scaling",
    "CartPole, 32 envs, 64-64, batch 32, an update per vector step, a full replay buffer of 100,000",
    {**VECTORISED, "buffer_size": 100_000},
    (Comparison("ours", "sb3"),),
    n_envs=32,
    fill=True,
    steps=32_000,
    warm_up=3_200,
    seconds=7.0,
)


def _envs(n_envs: int) -> Workload:
    # as many vector steps as fit into a few seconds
    n_vector_steps = {1: 4000, 8: 2500, 32: 1000, 128: 400}[n_envs]
    return replace(
        _BASE, name=f"scaling-envs-{n_envs}", n_envs=n_envs, steps=n_vector_steps * n_envs, warm_up=1024 + 100 * n_envs
    )


def _width(width: int, threads: int = 1) -> Workload:
    name = f"scaling-width-{width}" + ("" if threads == 1 else f"-threads-{threads}")
    n_vector_steps = 1000 if width < 1024 else 300
    return replace(_BASE, name=name, width=width, threads=threads, steps=n_vector_steps * 32)


def _buffer_size(size: int) -> Workload:
    return replace(_BASE, name=f"scaling-memory-{size}", arguments={**VECTORISED, "buffer_size": size})


_ENVS, _WIDTHS, _BUFFER_SIZES, _THREADS = [1, 8, 32, 128], [64, 256, 1024], [10_000, 100_000, 1_000_000], [1, 2]
AXES = [
    Axis("environments", _ENVS, [_envs(n_envs) for n_envs in _ENVS]),
    Axis("units of a hidden layer", _WIDTHS, [_width(width) for width in _WIDTHS]),
    Axis("transitions in the replay buffer", _BUFFER_SIZES, [_buffer_size(size) for size in _BUFFER_SIZES]),
    Axis("threads, 1024-1024", _THREADS, [_width(1024, threads) for threads in _THREADS]),
]
SCALING = {workload.name: workload for axis in AXES for workload in axis.workloads}
BY_NAME = {workload.name: workload for workload in WORKLOADS} | SCALING
