"""
Offline training on mixed data of CartPole: conservative Q-learning beside plain DQN.

A third of the data is random play, a third that of a half-trained policy, and a third that of a good one.
``python -m benchmarks.offline`` writes a row for each variant and seed; rows that are there are not computed again.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from benchmarks.sweeps.record_demonstrations import play
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.demonstrations import Transitions, join, write_npz

ENV = "CartPole-v1"
COLUMNS = ("variant", "seed", "updates", "mean_return")
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
    :param n_training: the environment steps in which the good policy is trained; the half-trained one has a tenth of them
    """
    arguments = SETTINGS | {"target_update_interval": 100, "train_freq": 4, "gradient_steps": 4, "learning_starts": 500}
    model = DQNExt("MlpPolicy", ENV, exploration_fraction=0.2, seed=0, **arguments)
    parts = [record(Player(None, 1.0, 0), n_steps, 0)]
    for total, is_first in ((n_training // 10, True), (n_training - n_training // 10, False)):
        model.learn(total, reset_num_timesteps=is_first)
        parts.append(record(Player(model, 0.1, 1), n_steps, 10_000))
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


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows that are there already."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Record the data if there are none, and train all variants with all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("runs/offline/cartpole.npz"))
    parser.add_argument("--results", type=Path, default=Path("docs/results/offline.csv"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=10_000, help="steps of each third of the data")
    parser.add_argument("--training", type=int, default=50_000, help="steps in which the good policy is trained")
    parser.add_argument("--episodes", type=int, default=50, help="episodes by which a model is judged")
    args = parser.parse_args()
    if not args.data.exists():
        make_data(args.data, args.steps, args.training)
    rows = read(args.results)
    done = {(row["variant"], row["seed"], row["updates"]) for row in rows}
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for variant in VARIANTS:
            key = variant, str(seed), str(args.updates)
            if key in done:
                continue
            mean = train(args.data, variant, seed, args.updates, args.episodes)
            rows.append(dict(zip(COLUMNS, (*key, f"{mean:.2f}"), strict=True)))
            with args.results.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
            print(*key, f"{mean:.2f}", flush=True)
    for variant in VARIANTS:
        means = [float(row["mean_return"]) for row in rows if row["variant"] == variant]
        print(f"{variant}: median {np.median(means):.1f}, lowest {min(means):.1f}, {len(means)} seeds")


if __name__ == "__main__":
    main()
