"""Print the results of a run of the RL Zoo and the locations of its files."""

import argparse
from pathlib import Path

from benchmarks.runs import mean_return, newest_run
from sb3_dqn_ext.plot import plot_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the -f of the zoo")
    parser.add_argument("--algo", default="dqn_ext")
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the training run")
    args = parser.parse_args()

    run = newest_run(args.folder, args.algo, args.env)
    last = f"{args.env.replace('/', '-')}.zip"
    print(f"\nPlaying {args.episodes} fresh episodes with each model ...", flush=True)
    best_return, last_return = (
        mean_return(run, args.algo, args.env, model, args.episodes, args.seed) for model in ("best_model.zip", last)
    )
    figure = run / "learning_curve.png"
    plot_run(run).savefig(figure, dpi=120)

    zoo = f"--algo {args.algo} --env {args.env} -f {args.folder}"
    print(f"""
Mean return over {args.episodes} fresh episodes
  best model   {best_return:6.1f}   {run / "best_model.zip"}
  last model   {last_return:6.1f}   {run / last}

learning curve       {figure}
logs                 {run}
TensorBoard logs     {args.folder / "tensorboard"}

Next:
  .venv/bin/tensorboard --logdir {args.folder / "tensorboard"}
  .venv/bin/python -m sb3_dqn_ext.report {run}
  .venv/bin/python -m rl_zoo3.enjoy {zoo} --load-best
  .venv/bin/python -m rl_zoo3.train --algo {args.algo} --env LunarLander-v3 -f {args.folder} --progress
""")


if __name__ == "__main__":
    main()
