"""
Measure the time of a step of the small games, and make a film of each: docs/results/games.csv and games.md, docs/images/games.

Each game is played by a DQN that the RL Zoo has trained with the hyperparameters of zoo_configs/dqn_ext.yml and few steps.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS
from benchmarks.runs import train
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks.diagnostics.film import encode_animation
from sb3_dqn_ext.envs.registry import MINATAR_GAMES
from sb3_dqn_ext.sweep import Row, add_row, read_rows

CART_POLE, CATCH = "CartPole-v1", "dqn_ext/Catch-v0"
GAMES = (CATCH, *(f"dqn_ext/MinAtar-{name}-v1" for name in MINATAR_GAMES))
FILMS = ROOT / "docs" / "images" / "games"

Frame = npt.NDArray[np.uint8]


def step_time(env: gym.Env[Any, Any], n_steps: int) -> float:
    """
    Return the processor time of a step with a random action, resets included.

    :param env: the environment
    :param n_steps: the number of steps
    :return: microseconds
    """
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=n_steps)  # type: ignore[attr-defined]
    start = time.process_time()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return (time.process_time() - start) / n_steps * 1e6


def step_times(n_repeats: int, n_steps: int) -> list[Row]:
    """
    Measure the games and CartPole in turns.

    :param n_repeats: the number of measurements of each
    :param n_steps: the number of steps of a measurement
    :return: a row for each environment, with the median time and the median of its ratios to CartPole
    """
    envs = {env_id: gym.make(env_id) for env_id in (CART_POLE, *GAMES)}
    times = np.array([[step_time(env, n_steps) for env in envs.values()] for _ in range(n_repeats)])  # (repeats, envs)
    ratios = times / times[:, :1]
    return [
        {
            "env": env_id,
            "us_per_step": f"{np.median(times[:, i]):.2f}",
            "relative_to_cartpole": f"{np.median(ratios[:, i]):.2f}",
        }
        for i, env_id in enumerate(envs)
    ]


def table(rows: Sequence[Row]) -> str:
    """
    Return the step times as a Markdown table.

    :param rows: the rows of :func:`step_times`
    """
    lines = ["| environment | µs per step | relative to CartPole-v1 |", "|---|---|---|"]
    lines += [f"| `{row['env']}` | {float(row['us_per_step']):.1f} | {row['relative_to_cartpole']} |" for row in rows]
    return "\n".join(lines) + "\n"


def play(env_id: str, run: Path, n_frames: int) -> list[Frame]:
    """
    Let the last model of a run play with greedy actions.

    :param env_id: the id of the game
    :param run: the run folder
    :param n_frames: the number of frames
    :return: the frames, (H, W, 3) each
    """
    model = DQNExt.load(run / f"{env_id.replace('/', '-')}.zip", device="cpu")
    env = gym.make(env_id, render_mode="rgb_array")
    observation, _ = env.reset(seed=0)
    frames: list[Any] = [env.render()]
    while len(frames) < n_frames:
        action, _ = model.predict(observation, deterministic=True)
        observation, _, terminated, truncated, _ = env.step(int(action))
        frames.append(env.render())
        if terminated or truncated:
            observation, _ = env.reset()
            frames.append(env.render())
    return frames


def film(env_id: str, runs: Path, n_steps: int, n_frames: int, folder: Path) -> None:
    """
    Train a model briefly and write a film of it.

    :param env_id: the id of the game
    :param runs: the folder of the zoo's run folders
    :param n_steps: the number of steps of the training
    :param n_frames: the number of frames of the film
    :param folder: the folder of the film
    """
    run = train("dqn_ext", env_id, 0, runs, "-n", str(n_steps), "--eval-freq", "-1")
    fps = gym.make(env_id).metadata["render_fps"]
    folder.mkdir(parents=True, exist_ok=True)
    name = env_id.removeprefix("dqn_ext/").removeprefix("MinAtar-").rpartition("-")[0].lower()
    (folder / f"{name}.gif").write_bytes(encode_animation(play(env_id, run, n_frames), fps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", nargs="+", choices=GAMES, default=GAMES, help="the games of which films are made")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of the training before a film of MinAtar")
    parser.add_argument("--frames", type=int, default=150, help="frames of a film")
    parser.add_argument("--repeats", type=int, default=50, help="measurements of each step time")
    parser.add_argument("--runs", type=Path, default=Path("runs/games"), help="folder of the zoo's run folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--films", type=Path, default=FILMS)
    args = parser.parse_args()

    rows_file = args.results / "games.csv"
    rows_file.unlink(missing_ok=True)
    for row in step_times(args.repeats, n_steps=500):
        add_row(rows_file, row)
    text = table(read_rows(rows_file))
    (args.results / "games.md").write_text(text)
    print(text, flush=True)
    for env_id in args.games:
        film(env_id, args.runs, min(args.steps, 10_000) if env_id == CATCH else args.steps, args.frames, args.films)


if __name__ == "__main__":
    main()
