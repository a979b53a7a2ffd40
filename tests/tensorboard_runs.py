"""
Runs that log to TensorBoard all there is to see: ``python -m tests.tensorboard_runs FOLDER STEPS`` trains DQNExt and SB3's own
DQN for that many steps on CartPole.
"""

import sys
from pathlib import Path
from typing import Any

from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import DiagnosticsCallback

NAMES = ("DQN_1", "DQNExt_1")
OURS: dict[str, Any] = {
    "n_steps": 3,
    "target_policy": "double",
    "target_update_unit": "gradient_steps",
    "target_update_interval": 1,
    "tau": 0.01,
}


def train(algorithm: type[DQN], folder: Path, steps: int, **arguments: Any) -> None:
    """
    :param algorithm: the algorithm
    :param folder: the folder of the TensorBoard logs
    :param steps: the number of steps
    :param arguments: the arguments of the model
    """
    diagnostics = DiagnosticsCallback(
        every=steps // 16,
        calibration={"every": steps // 8, "n_episodes": 3},
        video={"every": steps // 2, "folder": folder / "films" / algorithm.__name__, "max_steps": 100},
        summary=True,
    )
    evaluation = EvalCallback(make_vec_env("CartPole-v1", seed=1), eval_freq=steps // 16, n_eval_episodes=5, verbose=0)
    model = algorithm(
        "MlpPolicy",
        make_vec_env("CartPole-v1", seed=0),
        learning_rate=1e-3,
        learning_starts=min(1000, steps // 10),
        batch_size=64,
        train_freq=4,
        gradient_steps=2,
        exploration_fraction=0.3,
        policy_kwargs={"net_arch": [128, 128]},
        tensorboard_log=str(folder / "logs"),
        seed=0,
        device="cpu",
        **arguments,
    )
    model.learn(steps, callback=[diagnostics, evaluation])


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    train(DQN, folder, steps, target_update_interval=250)
    train(DQNExt, folder, steps, **OURS)


if __name__ == "__main__":
    main()
