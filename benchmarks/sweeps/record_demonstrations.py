"""
Record ten demonstrations of MountainCar, by a car that always accelerates in its direction of motion.

``python -m benchmarks.sweeps.record_demonstrations`` writes them to the file that demonstrations.yml names.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_dqn_ext.demonstrations import Transitions, from_episode, join, write_npz

__all__ = ["PATH", "play", "pump_energy", "record"]

PATH = Path("runs/demonstrations/mountain_car.npz")


def pump_energy(observation: Any) -> int:
    """Return the action that accelerates the car in its direction of motion."""
    return 2 if observation[1] >= 0 else 0


def play(env: gym.Env[Any, Any], policy: Any, seed: int) -> Transitions:
    """
    Play an episode.

    :param env: the environment
    :param policy: a function from observations to actions
    :param seed: the seed of the episode
    :return: its transitions
    """
    observation, _ = env.reset(seed=seed)
    observations, actions, rewards, ends = [observation], [], [], [(False, False)]
    while not any(ends[-1]):
        actions.append(policy(observation))
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        ends.append((terminated, truncated))
    return from_episode(observations, actions, rewards, *zip(*ends[1:], strict=True))


def record(path: Path = PATH, n_episodes: int = 10) -> Transitions:
    """
    Record episodes of MountainCar.

    :param path: the file to write
    :param n_episodes: the number of episodes
    :return: their transitions
    """
    env = gym.make("MountainCar-v0")
    transitions = join(play(env, pump_energy, seed) for seed in range(n_episodes))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, transitions)
    return transitions


if __name__ == "__main__":
    recorded = record()
    print(f"{PATH}: {len(recorded)} steps, mean return {recorded.rewards.sum() / 10:.1f}")
