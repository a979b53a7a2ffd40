"""The trained agent in a video, and how much better than chance it is."""

import sys
from pathlib import Path

import gymnasium as gym

from benchmarks.processes import run_command
from benchmarks.tutorials.calibration import ALGO

LENGTH = 500  # steps of a video


def random_return(env_id: str, n_episodes: int = 50) -> float:
    """
    :param env_id: an environment
    :param n_episodes: how many episodes to play
    :return: the mean of their returns where all actions are random
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
    Film the best model of the newest run, or the last one if none was chosen, by the zoo's own command.

    :param folder: the ``-f`` of the zoo
    :param env_id: the environment
    :param length: steps of the video
    :return: the video, which is left as it is if it is there
    """
    output = folder / "video"
    if not any(output.glob("*.mp4")):
        command = [sys.executable, "-m", "rl_zoo3.record_video", "--algo", ALGO, "--env", env_id, "-f", str(folder)]
        best = ["--load-best"] if any(folder.glob(f"{ALGO}/*/best_model.zip")) else []
        run_command([*command, "-n", str(length), "-o", str(output), *best], {})
    return next(output.glob("*.mp4"))
