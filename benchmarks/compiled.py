"""
Trains DQNExt on CartPole-v1 with the RL Zoo's own block of stock DQN, eagerly and compiled, with seeds 0 to 9: whether what is
quicker learns as soon. Each finished run is a row of docs/results/compiled_seeds.csv; runs that have a row are not run again.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from benchmarks.rows import RESULTS, Row, run_missing
from benchmarks.runs import train
from sb3_dqn_ext.plot import evaluations

Numbers = npt.NDArray[np.float64]

ENV = "CartPole-v1"
EVAL_EPISODES = 10
THRESHOLD = 475
STEPS, RETURN = f"steps_to_{THRESHOLD}", "mean_return"


def run(compiled: bool, seed: int, folder: Path, n_steps: int, eval_freq: int) -> Row:
    """Train one model; the step of its first evaluation that is good enough, and the mean return of all evaluations."""
    zoo = importlib.util.find_spec("rl_zoo3")  # not imported: that changes gymnasium
    assert zoo is not None
    assert zoo.origin is not None
    block = Path(zoo.origin).parent / "hyperparams" / "dqn.yml"
    arguments = ("-conf", str(block), "--hyperparams", f"compile:{compiled}", "-n", str(n_steps))
    evaluate = ("--eval-freq", str(eval_freq), "--eval-episodes", str(EVAL_EPISODES))
    curve = evaluations(train("dqn_ext", ENV, seed, folder / f"{compiled}_{seed}", *arguments, *evaluate))
    means = curve.returns.mean(axis=1)  # (E,)
    good = curve.steps[means >= THRESHOLD]
    first = str(good[0]) if len(good) else "inf"
    return {"compiled": str(compiled), "seed": str(seed), STEPS: first, RETURN: f"{means.mean():.2f}"}


def table(rows: list[Row]) -> str:
    """Medians, and the intervals of their differences, in Markdown."""
    lines = [
        "| median (range) | eager | compiled | difference | 95 % bootstrap interval | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, label in ((STEPS, f"steps to {THRESHOLD}"), (RETURN, "mean return of all evaluations")):
        eager, compiled = (
            np.array([float(row[name]) for row in rows if row["compiled"] == which]) for which in ("False", "True")
        )
        between = "needs two seeds"
        if min(len(eager), len(compiled)) > 1:
            between = "{:,.0f} to {:,.0f}".format(*interval(compiled, eager))
        shown = (f"{np.median(of):,.0f} ({of.min():,.0f} to {of.max():,.0f})" for of in (eager, compiled))
        lines.append(f"| {label} | {' | '.join(shown)} | {difference(compiled, eager):,.0f} | {between} | {len(eager)} |")
    return "\n".join(lines) + "\n"


def interval(first: Numbers, second: Numbers) -> tuple[float, float]:
    """The 95 % interval of the difference of their medians, by the percentile bootstrap."""
    found = bootstrap((first, second), difference, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    return float(found.low), float(found.high)


def difference(first: Numbers, second: Numbers, axis: int = 0) -> Any:
    """The median of the first minus that of the second."""
    return np.median(first, axis=axis) - np.median(second, axis=axis)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--steps", type=int, default=50_000, help="environment steps of each run")
    parser.add_argument("--eval-freq", type=int, default=1_000, help="environment steps between evaluations")
    parser.add_argument("--runs", type=Path, default=Path("runs/compiled"), help="where the zoo writes its run folders")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at once")
    args = parser.parse_args()

    rows = run_missing(
        args.results / "compiled_seeds.csv",
        ("compiled", "seed"),
        [(compiled, seed) for seed in args.seeds for compiled in (False, True)],
        lambda key: run(*key, args.runs, args.steps, args.eval_freq),
        args.jobs,
    )
    text = table(rows)
    (args.results / "compiled_seeds.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
