"""
Writes the files of a release that later versions must read: ``python -m tests.data.write tests/data/schema_1``.

To be run once for each version of a format, by the library that writes it; what lies in a folder of a released version is
never written again.
"""

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.checkpoint.envs import make_resumable

STEPS = 200


def two_cartpoles() -> VecEnv:
    return make_resumable(DummyVecEnv([lambda: gym.make("CartPole-v1", max_episode_steps=20)] * 2))


def made() -> DQNExt:
    """Something of each kind that is stored."""
    return DQNExt(
        "MlpPolicy",
        two_cartpoles(),
        learning_rate=LinearSchedule(1e-3, 1e-4, 0.5),
        buffer_size=100,
        learning_starts=20,
        batch_size=8,
        train_freq=2,
        n_steps=3,
        target_policy="double",
        exploration="ez_greedy",
        exploration_kwargs={"schedule": {"name": "linear", "start": 1.0, "end": 0.1}},
        replay_buffer_kwargs={"sampler": "prioritized", "terminal_copies": 2},
        policy_kwargs={
            "net_arch": [8],
            "activation_fn": "tanh",
            "noisy": True,
            "returns": "quantile",
            "returns_kwargs": {"n_quantiles": 4},
        },
        seed=0,
        device="cpu",
    )


def q_values(model: DQNExt, observations: Any) -> Any:
    """(N, A) of a model without noise."""
    tensor, _ = model.policy.obs_to_tensor(np.array(observations, np.float32))
    model.policy.set_training_mode(False)
    return model.q_net(tensor).detach().numpy().tolist()


def name_no_machine(path: Path) -> None:
    """Put another text in the place of the one that says where the file was written."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), b"- OS: one of ours\n" if name == "system_info.txt" else content)


def main(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    model = made()
    model.learn(STEPS)
    model.save(folder / "model")
    name_no_machine(folder / "model.zip")
    model.save_checkpoint(folder / "checkpoint")
    (folder / "checkpoint" / "writer.lock").unlink()
    observations = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32).tolist()
    actions, _ = model.predict(np.array(observations, np.float32), deterministic=True)
    expected = {
        "num_timesteps": model.num_timesteps,
        "observations": observations,
        "actions": actions.tolist(),
        "q_values": q_values(model, observations),
        "learning_rate": model.lr_schedule(0.75),
        "rewards": model.replay_buffer.rewards.sum().item() if model.replay_buffer else 0,
    }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
