"""
Trains DQNExt and stock SB3 DQN on CartPole-v1 with seeds 0 to 9, through the RL Zoo, each with its own default block.

Each finished run is a row of docs/results/cartpole_seeds.csv; runs that have a row are not run again.
"""

import argparse
import csv
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.runs import mean_return, newest_run
from sb3_dqn_ext.plot import Curve, evaluations, interquartile_mean, plot_seeds

RESULTS = Path(__file__).parent.parent / "docs" / "results"
ENV = "CartPole-v1"
N_STEPS, EVAL_FREQ, EVAL_EPISODES = 50_000, 2_500, 10
LABELS = {"dqn_ext": "sb3_dqn_ext", "dqn": "stock SB3 DQN"}
CURVE = [f"eval@{step}" for step in range(EVAL_FREQ, N_STEPS + 1, EVAL_FREQ)]
FIELDS = ["algo", "seed", "best_model", "last_model", *CURVE]

Row = dict[str, str]


def run(algo: str, seed: int, folder: Path) -> Row:
    """Train one model through the zoo's own command, judge it, and give its row."""
    folder = folder / f"{algo}_{seed}"
    command = [sys.executable, "-m", "rl_zoo3.train", "--algo", algo, "--env", ENV, "--seed", str(seed), "-f", str(folder)]
    command += ["-n", str(N_STEPS), "--eval-freq", str(EVAL_FREQ), "--eval-episodes", str(EVAL_EPISODES)]
    command += ["--num-threads", "1", "--verbose", "0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
    run_folder = newest_run(folder, algo, ENV)
    returns = {
        name: f"{mean_return(run_folder, algo, ENV, model, seed=seed):.2f}"
        for name, model in (("best_model", "best_model.zip"), ("last_model", f"{ENV}.zip"))
    }
    curve = evaluations(run_folder).returns.mean(axis=1)
    return {"algo": algo, "seed": str(seed), **returns, **{key: f"{x:.1f}" for key, x in zip(CURVE, curve, strict=True)}}


def read(path: Path) -> list[Row]:
    """The rows there are."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Row) -> None:
    """Write one row, below a header if it is the first."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, one line for each algorithm."""
    lines = [
        "| after 50,000 steps | seeds | best model at least 475 | best, median | last model, median | last, worst |",
        "|---|---|---|---|---|---|",
    ]
    for algo, label in LABELS.items():
        of_algo = [row for row in rows if row["algo"] == algo]
        best, last = (np.array([float(row[key]) for row in of_algo]) for key in ("best_model", "last_model"))
        if len(of_algo):
            lines.append(
                f"| {label} | {len(of_algo)} | {np.sum(best >= 475)} of {len(best)} | {np.median(best):.1f} "
                f"| {np.median(last):.1f} | {last.min():.1f} |"
            )
    return "\n".join(lines) + "\n"


def curves(rows: list[Row]) -> dict[str, Curve]:
    """(E,) steps and (S, E) mean evaluation returns of each algorithm."""
    steps = np.array([int(key.partition("@")[2]) for key in CURVE])
    return {
        label: Curve(steps, np.array([[float(row[key]) for key in CURVE] for row in rows if row["algo"] == algo]))
        for algo, label in LABELS.items()
        if any(row["algo"] == algo for row in rows)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--runs", type=Path, default=Path("runs/seeds"), help="where the zoo writes its run folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at once")
    args = parser.parse_args()

    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / "cartpole_seeds.csv"
    done = {(row["algo"], int(row["seed"])) for row in read(path)}
    todo = [(algo, seed) for seed in args.seeds for algo in LABELS if (algo, seed) not in done]
    with ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(run, algo, seed, args.runs) for algo, seed in todo]
        for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
            append(path, future.result())

    rows = read(path)
    (args.results / "cartpole_seeds.md").write_text(table(rows))
    plot_seeds(curves(rows), f"{ENV}, evaluated every {EVAL_FREQ:,} steps").savefig(
        args.results / "cartpole_seeds.png", dpi=120
    )
    print(table(rows))
    for label, curve in curves(rows).items():
        print(f"{label}: interquartile mean of the last evaluation {interquartile_mean(curve.returns)[-1]:.1f}")


if __name__ == "__main__":
    main()
