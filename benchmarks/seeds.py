"""
Trains DQNExt and stock SB3 DQN on CartPole-v1 with seeds 0 to 9, through the RL Zoo, each with its own default block.

Each finished run is a row of docs/results/cartpole_seeds.csv; runs that have a row are not run again.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.rows import RESULTS, Row, run_missing
from benchmarks.runs import mean_return, train
from sb3_dqn_ext.plot import Curve, evaluations, plot_seeds

ENV = "CartPole-v1"
EVAL_EPISODES = 10
LABELS = {"dqn_ext": "sb3_dqn_ext", "dqn": "stock SB3 DQN"}


def run(algo: str, seed: int, folder: Path, n_steps: int, eval_freq: int) -> Row:
    """Train one model, judge it, and give its row."""
    arguments = ("-n", str(n_steps), "--eval-freq", str(eval_freq), "--eval-episodes", str(EVAL_EPISODES))
    run_folder = train(algo, ENV, seed, folder / f"{algo}_{seed}", *arguments)
    returns = {
        name: f"{mean_return(run_folder, algo, ENV, model, seed=seed):.2f}"
        for name, model in (("best_model", "best_model.zip"), ("last_model", f"{ENV}.zip"))
    }
    curve = evaluations(run_folder)
    means = zip(curve.steps, curve.returns.mean(axis=1), strict=True)
    return {"algo": algo, "seed": str(seed), **returns, **{f"eval@{step}": f"{mean:.1f}" for step, mean in means}}


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, one line for each algorithm."""
    lines = [
        "| 50 fresh episodes each | best model at least 475 | best model, median | last model, median (worst) "
        "| first evaluation at 475, median |",
        "|---|---|---|---|---|",
    ]
    for label, curve in curves(rows).items():
        of_algo = [row for row in rows if LABELS[row["algo"]] == label]
        best, last = (np.array([float(row[key]) for row in of_algo]) for key in ("best_model", "last_model"))
        # (S,) the step of the first evaluation that is good enough, infinity where there is none
        first = [min(curve.steps[means >= 475], default=np.inf) for means in curve.returns]
        lines.append(
            f"| {label} | {np.sum(best >= 475)} of {len(best)} seeds | {np.median(best):.1f} "
            f"| {np.median(last):.1f} ({last.min():.1f}) | {np.median(first):,.0f} steps |"
        )
    return "\n".join(lines) + "\n"


def curves(rows: list[Row]) -> dict[str, Curve]:
    """(E,) steps and (S, E) mean evaluation returns of each algorithm."""
    keys = [key for key in rows[0] if key.startswith("eval@")]
    steps = np.array([int(key.removeprefix("eval@")) for key in keys])
    return {
        label: Curve(steps, np.array([[float(row[key]) for key in keys] for row in rows if row["algo"] == algo]))
        for algo, label in LABELS.items()
        if any(row["algo"] == algo for row in rows)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of each run")
    parser.add_argument("--eval-freq", type=int, default=2_500, help="environment steps between evaluations")
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="where the zoo writes its run folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at once")
    args = parser.parse_args()

    rows = run_missing(
        args.results / "cartpole_seeds.csv",
        ("algo", "seed"),
        [(algo, seed) for seed in args.seeds for algo in LABELS],
        lambda key: run(*key, args.runs, args.steps, args.eval_freq),
        args.jobs,
    )
    (args.results / "cartpole_seeds.md").write_text(table(rows))
    figure = plot_seeds(curves(rows), f"{ENV}, evaluated every {args.eval_freq:,} steps")
    figure.savefig(args.results / "cartpole_seeds.png", dpi=120)
    print(table(rows))


if __name__ == "__main__":
    main()
