"""
Measure the costs of actors and their learner, and draw the steps per second that follow for each number of actors:
docs/results/actor_costs.csv, the table of docs/scale.md and docs/results/actor_scale.png.

All times are those of one processor core, without the environments, whose observations are constant. Updates are eager.
"""

import argparse
import pickle
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.actors.actor import Actor, Orders
from sb3_dqn_ext.actors.collection import collect_from_actors, make_setup
from sb3_dqn_ext.actors.engine import Arrival
from sb3_dqn_ext.actors.pool import ActorPool, InsertRatio
from sb3_dqn_ext.actors.weights import read_weights
from sb3_dqn_ext.sweep import Row, add_row, read_rows

PAGE = ROOT / "docs" / "scale.md"
TABLE = re.compile(r"(?<=<!-- costs -->\n).*?(?=<!-- /costs -->)", flags=re.DOTALL)
ENVS_PER_ACTOR = 8
BATCH = 32
RATIO = 8.0
"""The samples per insert of the table: a gradient step on 32 transitions for every 4 that are stored."""
WEIGHTS_INTERVAL = 100
"""The gradient steps between two broadcasts."""
ENV_SECONDS = 0.005
"""The time of a step of the environment in the table."""
GIGABIT = 125e6
"""The bytes per second of a network of 1 Gbit/s."""


class Case(NamedTuple):
    """A network and its observations."""

    title: str
    space: Any
    policy: str
    policy_kwargs: Mapping[str, Any]


CASES = {
    "cartpole": Case("CartPole, 256-256", spaces.Box(-1, 1, (4,), np.float32), "MlpPolicy", {"net_arch": [256, 256]}),
    "minatar": Case("MinAtar Breakout", spaces.Box(0, 1, (10, 10, 4), bool), "CnnPolicy", {"encoder": "minatar"}),
    "atari": Case("Atari, 4 frames of 84 x 84", spaces.Box(0, 255, (4, 84, 84), np.uint8), "CnnPolicy", {"encoder": "nature"}),
}


class ConstantEnv(gym.Env[Any, Any]):
    """
    An environment with one observation.

    :param case: a key of ``CASES``
    """

    action_space: Any = spaces.Discrete(4)

    def __init__(self, case: str) -> None:
        self.observation_space: Any = CASES[case].space
        self.observation = self.observation_space.sample()
        self.n_steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.observation, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        return self.observation, 1.0, self.n_steps % 200 == 0, False, {}


class Costs(NamedTuple):
    """The measured costs of a case."""

    transition_bytes: float
    """The bytes of a transition in a block."""
    weights_bytes: float
    """The bytes of a broadcast."""
    act_us: float
    """The microseconds of an actor for a transition, without the environment."""
    store_us: float
    """The microseconds of the learner to receive and store a transition."""
    sample_us: float
    """The microseconds of a gradient step for each sample."""

    @property
    def samples_per_second(self) -> float:
        """The samples of the learner per second, if it does nothing else."""
        return 1e6 / self.sample_us

    @property
    def max_inserts(self) -> float:
        """The transitions per second that the learner stores and learns from, with the ratio of the table."""
        return 1e6 / (self.store_us + RATIO * self.sample_us)

    @property
    def broadcast_rate(self) -> float:
        """The bytes per second of the broadcasts to a node, at that rate."""
        return self.max_inserts * RATIO / BATCH / WEIGHTS_INTERVAL * self.weights_bytes

    def actor_rate(self, env_seconds: float) -> float:
        """Return the transitions of an actor per second."""
        return 1 / (env_seconds + self.act_us / 1e6)

    def network_inserts(self) -> float:
        """The transitions per second that fill a network of 1 Gbit/s."""
        return GIGABIT / self.transition_bytes


def core_seconds(function: Callable[[], Any], n: int) -> float:
    """
    Return the processor time of a call.

    :param function: the function
    :param n: the number of calls
    """
    function()
    begin = time.process_time()
    for _ in range(n):
        function()
    return (time.process_time() - begin) / n


class RepeatingEngine:
    """
    An engine that sends the same block again and again.

    :param data: the pickled block
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.number = data, -1

    def receive(self, seconds: float) -> Arrival:
        self.number += 1
        return Arrival(0, 0, self.number, pickle.loads(self.data))

    def start(self, actor: int, life: int, seed: int) -> None: ...

    def broadcast(self, weights: Any, n_updates: int) -> None: ...

    def order(self, orders: Orders) -> None: ...

    def acknowledge(self, arrival: Arrival) -> None: ...

    def n_waiting(self) -> int:
        return 0

    def close(self) -> None: ...


def make_storing(model: DQNExt, data: bytes, n_steps: int) -> Callable[[], Any]:
    """
    Return a function that stores a block as the learner does.

    :param model: the learner
    :param data: the pickled block
    :param n_steps: the number of its steps
    """
    _, callback = model._setup_learn(10**9)
    pool = ActorPool(RepeatingEngine(data), 1, 0, InsertRatio(None), [0])
    pool.weights_interval, model.run_state.actor_pool = 10**9, pool
    frequency = TrainFreq(n_steps, TrainFrequencyUnit.STEP)
    buffer: Any = model.replay_buffer
    return lambda: collect_from_actors(model, model.env, callback, frequency, buffer, None)  # type: ignore[arg-type]


def measure(name: str, n: int) -> Costs:
    """
    Measure the costs of a case.

    :param name: a key of ``CASES``
    :param n: the number of repetitions
    """
    case = CASES[name]
    model = DQNExt(
        case.policy,
        gym.make(f"benchmarks/Constant-{name}-v0"),
        buffer_size=4_000,
        batch_size=BATCH,
        learning_starts=0,
        device="cpu",
        policy_kwargs=dict(case.policy_kwargs),
        actors={"n_actors": 1, "envs_per_actor": ENVS_PER_ACTOR, "block_size": 200},
    )
    model.set_logger(configure(None, []))
    actor = Actor(make_setup(model), 0, seed=0)
    actor.load(read_weights(model.q_net), 0)
    actor.obey(Orders(0.05, False))
    act = core_seconds(actor.make_block, n)
    block = actor.make_block()
    n_transitions = block.n_own * ENVS_PER_ACTOR
    data = pickle.dumps(block, protocol=5)
    stored = core_seconds(make_storing(model, data, block.n_own), n)
    update = core_seconds(lambda: model.train(10, BATCH), n) / 10
    return Costs(
        len(data) / n_transitions,
        read_weights(model.q_net).nbytes,
        act / n_transitions * 1e6,
        stored / n_transitions * 1e6,
        update / BATCH * 1e6,
    )


def costs_of(rows: Sequence[Row]) -> dict[str, Costs]:
    """
    Return the costs of each case.

    :param rows: the measurements
    """
    return {row["case"]: Costs(*(float(row[field]) for field in Costs._fields)) for row in rows}


def table(rows: Sequence[Row]) -> str:
    """
    Describe the costs, and what follows from them.

    :param rows: the measurements
    """
    costs = list(costs_of(rows).items())
    megabytes = [(each.max_inserts * each.transition_bytes / 1e6, each.broadcast_rate / 1e6) for _, each in costs]
    lines: list[tuple[str, list[str]]] = [
        ("bytes of a transition in a block", [f"{each.transition_bytes:,.0f}" for _, each in costs]),
        ("bytes of a broadcast", [f"{each.weights_bytes:,.0f}" for _, each in costs]),
        ("acting, µs for a transition", [f"{each.act_us:,.0f}" for _, each in costs]),
        ("storing, µs for a transition", [f"{each.store_us:,.1f}" for _, each in costs]),
        ("learning, µs for a sample", [f"{each.sample_us:,.0f}" for _, each in costs]),
        ("**samples per second** of the learner", [f"{each.samples_per_second:,.0f}" for _, each in costs]),
        ("**inserts per second** at most", [f"{each.max_inserts:,.0f}" for _, each in costs]),
        ("blocks, MB per second at that rate", [f"{blocks:,.2f}" for blocks, _ in megabytes]),
        ("broadcasts, MB per second to each node", [f"{broadcasts:,.2f}" for _, broadcasts in megabytes]),
        ("inserts per second that fill 1 Gbit/s", [f"{each.network_inserts():,.0f}" for _, each in costs]),
        ("**actors** that the learner keeps up with", [f"{useful_actors(each):,.1f}" for _, each in costs]),
    ]
    head = "| | " + " | ".join(CASES[name].title for name, _ in costs) + " |"
    rule = "|---|" + "---|" * len(costs)
    return "\n".join([head, rule, *(f"| {name} | {' | '.join(cells)} |" for name, cells in lines), ""])


def useful_actors(costs: Costs) -> float:
    """
    Return the number of actors beyond which the learner is the limit.

    :param costs: the costs of a case
    """
    return costs.max_inserts / costs.actor_rate(ENV_SECONDS)


def predicted_rate(costs: Costs, n_actors: int, env_seconds: float) -> float:
    """
    Predict the environment steps per second.

    :param costs: the costs of a case
    :param n_actors: the number of actors
    :param env_seconds: the time of a step of the environment
    """
    return min(n_actors * costs.actor_rate(env_seconds), costs.max_inserts)


def draw(costs: Mapping[str, Costs], measured: Sequence[Row], path: Path) -> None:
    """
    Draw the predicted steps per second over the number of actors, with measured points.

    :param costs: the costs of each case
    :param measured: the rows of docs/results/actors.csv, measured with a network of 64-64 and the same ratio
    :param path: the file of the picture
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    numbers = range(1, 1025)
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=120)
    for name, each in costs.items():
        rates = [predicted_rate(each, n, ENV_SECONDS) for n in numbers]
        axes.plot(numbers, rates, label=f"{CASES[name].title}, predicted")
    points = [row for row in measured if row["env"] == "waits" and row["actors"] != "0"]
    axes.plot(
        [int(row["actors"]) for row in points],
        [float(row["steps_per_second"]) for row in points],
        "k.",
        label="measured: vectors of 4 numbers, 64-64",
    )
    axes.set(xscale="log", yscale="log", xlabel="actors", ylabel="environment steps per second")
    axes.set_title("An environment that waits 5 ms in each step, 8 samples per insert")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20, help="repetitions of each measurement")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args()
    th.set_num_threads(1)

    path = args.results / "actor_costs.csv"
    path.unlink(missing_ok=True)
    for name in CASES:
        costs = measure(name, args.repeats)
        add_row(path, {"case": name, **{field: f"{value:.2f}" for field, value in costs._asdict().items()}})
        print(name, costs, flush=True)
    rows = read_rows(path)
    text = table(rows)
    args.page.write_text(TABLE.sub(lambda _: text, args.page.read_text()))
    draw(costs_of(rows), read_rows(RESULTS / "actors.csv"), args.results / "actor_scale.png")
    print(text)


for _case in CASES:
    if f"benchmarks/Constant-{_case}-v0" not in gym.registry:  # this module is imported twice if it is the program
        _kwargs = {"case": _case}
        gym.register(
            f"benchmarks/Constant-{_case}-v0", "benchmarks.actor_costs:ConstantEnv", kwargs=_kwargs, disable_env_checker=True
        )

if __name__ == "__main__":
    main()
