"""Print the results of a run of the RL Zoo: its score, its learning curve, and three commands to continue with."""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from benchmarks.runs import newest_run
from benchmarks.text_chart import text_chart
from sb3_dqn_ext.plot import plot_run
from sb3_dqn_ext.sweep.evaluation import play

COLUMNS = 80
Scores = Mapping[str, tuple[float, Path]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the -f of the zoo")
    parser.add_argument("--algo", default="dqn_ext")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the training run")
    args = parser.parse_args()

    run = newest_run(args.folder, args.algo, args.env)
    models = {"best model": "best_model.zip", "last model": f"{args.env.replace('/', '-')}.zip"}
    print(f"\nPlaying {args.episodes} new episodes with each model ...", flush=True)
    scores = {
        name: (float(play(run, args.algo, args.env, args.seed, args.episodes, model).mean()), run / model)
        for name, model in models.items()
    }
    plot_run(run).savefig(run / "learning_curve.png", dpi=120)
    print("\n".join(screen(args.folder, run, args.algo, args.env, args.episodes, scores)))


def screen(folder: Path, run: Path, algo: str, env: str, n_episodes: int, scores: Scores) -> Iterator[str]:
    """
    Write the last screen of a training.

    :param folder: the ``-f`` of the zoo
    :param run: the folder of the run
    :param algo: the ``--algo``
    :param env: the ``--env``
    :param n_episodes: the number of episodes that were played with each model
    :param scores: the mean return and the file of each model, by its name
    :return: its lines
    """
    yield from _chart(run)
    yield ""
    yield f"{env}: mean return over {n_episodes} new episodes"
    for name, (score, path) in scores.items():
        yield f"  {name:<12}{score:8.1f}   {_relative(path)}"
    yield f"  {'picture':<23}{_relative(run / 'learning_curve.png')}"
    yield ""
    yield "Next:"
    python = _relative(Path(sys.executable))
    tensorboard = _relative(Path(sys.executable).with_name("tensorboard"))
    zoo = ["--algo", algo, "--env", env, "-f", _relative(folder)]
    # the vector form of a game of ALE has no window
    watch = "rl_zoo3.record_video" if env.startswith("ALE/") else "rl_zoo3.enjoy"
    yield from command([python, "-m", watch, *zoo, "--load-best"])
    yield from command([tensorboard, "--logdir", _relative(folder / "tensorboard")])
    yield from command([python, "-m", "sb3_dqn_ext.report", _relative(run)])


def _chart(run: Path) -> Iterator[str]:
    """Draw the mean returns of the evaluations of a run, if there are any."""
    path = run / "evaluations.npz"
    if path.is_file():
        with np.load(path) as evaluations:
            means = evaluations["results"].mean(axis=1)  # (N,)
            finite = np.isfinite(means)
            steps, means = evaluations["timesteps"][finite].tolist(), means[finite].tolist()
        if steps:
            yield ""
            yield "Mean return of the evaluations during training"
            yield from text_chart(steps, means)


def command(words: list[str]) -> Iterator[str]:
    """
    Format a command that can be pasted into a shell.

    :param words: the program and its arguments
    :return: lines of at most 80 characters, unless a word is longer
    """
    line = " "
    for word in map(shlex.quote, words):
        if len(line) + 1 + len(word) > COLUMNS - 2 and line.strip():  # two columns for the end of the line
            yield f"{line} \\"
            line = "     "
        line = f"{line} {word}"
    yield line


def _relative(path: Path) -> str:
    """Return a path relative to the current folder, if it is below."""
    relative = os.path.relpath(path.absolute())
    return str(path) if relative.startswith(os.pardir) else relative


if __name__ == "__main__":
    main()
