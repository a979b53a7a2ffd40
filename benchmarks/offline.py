"""
Offline training on mixed data of CartPole: conservative Q-learning beside plain DQN.

A third of the data is random play, a third that of a half-trained policy, and a third that of a good one.
``python -m benchmarks.offline`` writes a row for each variant and seed, and their table.
Rows that are there are not computed again.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import yaml
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule

from benchmarks.rows import RESULTS
from benchmarks.sweeps.record_demonstrations import play
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.demonstrations import Transitions, join, write_npz
from sb3_dqn_ext.sweep import Row, read_rows, select_rows
from sb3_dqn_ext.sweep.report import difference_interval, iqm, stratified_interval, table_head
from sb3_dqn_ext.sweep.results import add_row
from sb3_dqn_ext.zoo.config import default_config

ENV = "CartPole-v1"
KEY = "variant", "seed", "updates"
VARIANTS: dict[str, dict[str, Any]] = {
    "DQN": {},
    "CQL, alpha=0.1": {"auxiliary_loss": "cql", "auxiliary_loss_kwargs": {"alpha": 0.1}},
    "CQL, alpha=1": {"auxiliary_loss": "cql", "auxiliary_loss_kwargs": {"alpha": 1.0}},
    "CQL, alpha=1, quantile": {"auxiliary_loss": "cql", "returns": "quantile", "returns_kwargs": {"n_quantiles": 50}},
}
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": 64,
    "gamma": 0.99,
    "target_policy": "double",
    "target_update_interval": 500,
    "device": "cpu",
}


HEAD = """\
# Offline training on mixed data of CartPole

`python -m benchmarks.offline`
"""


class Player:
    """
    A policy that takes a random action with the probability epsilon.

    :param model: the model that chooses the other actions; None: all actions are random
    :param epsilon: the probability
    :param seed: the seed of the random numbers
    """

    def __init__(self, model: DQNExt | None, epsilon: float, seed: int) -> None:
        self.model = model
        self.epsilon = epsilon
        self.generator = np.random.default_rng(seed)

    def __call__(self, observation: Any) -> int:
        """Choose an action."""
        if self.model is None or self.generator.random() < self.epsilon:
            return int(self.generator.integers(2))
        return int(self.model.predict(observation, deterministic=True)[0])


def record(policy: Player, n_steps: int, seed: int) -> Transitions:
    """Record whole episodes with at least a number of steps."""
    env, n = gym.make(ENV), 0
    episodes: list[Transitions] = []
    while n < n_steps:
        episodes.append(play(env, policy, seed + len(episodes)))
        n += len(episodes[-1])
    return join(episodes)


def make_data(path: Path, n_steps: int, n_training: int) -> None:
    """
    Record the mixed data.

    :param path: the file to write
    :param n_steps: the number of steps of each of the three parts
    :param n_training: the environment steps in which the good policy is trained, with the default hyperparameters; the
        half-trained one has a twentieth of them
    """
    arguments = yaml.safe_load(Path(default_config()).read_text())[ENV]
    rate = float(arguments.pop("learning_rate").removeprefix("lin_"))
    del arguments["n_timesteps"]
    model = DQNExt(env=ENV, learning_rate=LinearSchedule(rate, 0.0, 1.0), seed=0, device="cpu", **arguments)
    parts = [record(Player(None, 1.0, 0), n_steps, 0)]
    for total, is_first in ((n_training // 20, True), (n_training - n_training // 20, False)):
        model.learn(total, reset_num_timesteps=is_first)
        parts.append(record(Player(model, 0.1, 1), n_steps, 10_000))
    for name, part in zip(("random", "half-trained", "good"), parts, strict=True):
        print(f"{name}: {len(part) / np.count_nonzero(part.terminated | part.truncated):.0f} steps per episode", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, join(parts))


def train(data: Path, variant: str, seed: int, n_updates: int, n_episodes: int) -> float:
    """Train a model from data alone, and return its mean return."""
    model = DQNExt(
        "MlpPolicy",
        ENV,
        buffer_size=64,
        replay_buffer_kwargs={"demonstrations": str(data)},
        policy_kwargs=VARIANTS[variant],
        seed=seed,
        **SETTINGS,
    )
    model.learn_offline(n_updates)
    mean, _ = evaluate_policy(model, Monitor(gym.make(ENV)), n_episodes, warn=False)
    return float(mean)  # type: ignore[arg-type]


def page(rows: Sequence[Row]) -> str:
    """
    Return the page of the mean returns: interquartile means over seeds, and the differences from plain DQN.

    :param rows: the rows
    """

    def lines() -> Iterator[str]:
        yield from table_head("variant | seeds | return (IQM) | 95 % interval | range | difference from DQN | 95 % interval")
        for variant in VARIANTS:
            returns, of_dqn = (
                np.array([float(row["mean_return"]) for row in select_rows(rows, variant=name)]) for name in (variant, "DQN")
            )
            middle, middle_of_dqn = float(iqm(returns)), float(iqm(of_dqn))
            low, high = stratified_interval([returns], iqm, np.random.default_rng(0))
            shown = [f"{middle:.1f}", f"{low:.1f} to {high:.1f}", f"{returns.min():.1f} to {returns.max():.1f}", "", ""]
            if variant != "DQN":
                low, high = difference_interval(returns, of_dqn)
                shown[-2:] = f"{middle - middle_of_dqn:.1f}", f"{low:.1f} to {high:.1f}"
            yield f"| {variant} | {len(returns)} | {' | '.join(shown)} |"

    return HEAD + "\n".join(["", *lines(), ""])


def main() -> None:
    """Record the data if there are none, and train all variants with all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/offline/cartpole.npz"))
    parser.add_argument("--results", type=Path, default=RESULTS / "offline.csv")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=10_000, help="steps of each third of the data")
    parser.add_argument("--training", type=int, default=50_000, help="steps in which the good policy is trained")
    parser.add_argument("--episodes", type=int, default=50, help="episodes by which a model is judged")
    args = parser.parse_args()
    if not args.data.exists():
        make_data(args.data, args.steps, args.training)
    for seed in range(args.seeds):
        for variant in VARIANTS:
            key = dict(zip(KEY, (variant, str(seed), str(args.updates)), strict=True))
            if select_rows(read_rows(args.results, KEY), **key):
                continue
            mean = train(args.data, variant, seed, args.updates, args.episodes)
            add_row(args.results, key | {"mean_return": f"{mean:.2f}"}, KEY)
            print(*key.values(), f"{mean:.2f}", flush=True)
    text = page(read_rows(args.results, KEY))
    args.results.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
