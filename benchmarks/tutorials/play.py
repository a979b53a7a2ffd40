"""Videos of trained agents, and the returns of random actions."""

import sys
from pathlib import Path

import gymnasium as gym

from benchmarks.processes import run_command
from benchmarks.tutorials.calibration import ALGO

LENGTH = 500  # steps of a video


def random_return(env_id: str, n_episodes: int = 50) -> float:
    """
    Return the mean return of episodes with random actions.

    :param env_id: the id of the environment
    :param n_episodes: the number of episodes
    """
    env = gym.make(env_id)
    env.action_space.seed(0)
    env.reset(seed=0)
    total = 0.0
    for _ in range(n_episodes):
        env.reset()
        done = False
        while not done:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            done = terminated or truncated
    env.close()
    return total / n_episodes


def record_video(folder: Path, env_id: str, length: int = LENGTH) -> Path:
    """
    Record a video of the best model of the newest run, or of the last model if there is no best one, with the zoo's command.

    :param folder: the ``-f`` of the zoo
    :param env_id: the id of the environment
    :param length: the number of steps of the video
    :return: the file of the video; an existing video is not recorded again
    """
    output = folder / "video"
    if not any(output.glob("*.mp4")):
        command = [sys.executable, "-m", "rl_zoo3.record_video", "--algo", ALGO, "--env", env_id, "-f", str(folder)]
        best = ["--load-best"] if any(folder.glob(f"{ALGO}/*/best_model.zip")) else []
        run_command([*command, "-n", str(length), "-o", str(output), *best], {})
    return next(output.glob("*.mp4"))
