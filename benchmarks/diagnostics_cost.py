"""
What diagnostics cost: trainings with all of them at their defaults, and without, in pairs. Each finished pair is a row
of docs/results/diagnostics_cost.csv; pairs that have a row are not run again.
"""

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rows import RESULTS, Row, complete, read, where
from benchmarks.speed.workloads import ZOO_LUNAR_LANDER

ROOT = Path(__file__).parent.parent
AT_MOST = 1.05
CLOCKS = ("wall", "cpu", "inside")
"""of the wall, of the processor, and of the processor within the diagnostics and what writes the log"""


class Variant(NamedTuple):
    """What is timed."""

    title: str
    algorithm: str
    env: str
    arguments: Mapping[str, Any]


CARTPOLE: dict[str, Any] = {
    "buffer_size": 100_000,
    "learning_rate": 1e-3,
    "learning_starts": 1000,
    "batch_size": 32,
    "train_freq": 4,
    "target_update_interval": 500,
    "exploration_fraction": 0.2,
    "policy_kwargs": {"net_arch": [64, 64]},
}
LUNAR: dict[str, Any] = {**ZOO_LUNAR_LANDER, "policy_kwargs": {"net_arch": [256, 256]}, "learning_starts": 1000}
VARIANTS = {
    "cartpole_dqn": Variant("CartPole, 1 env, 64-64, SB3 DQN", "DQN", "CartPole-v1", CARTPOLE),
    "cartpole_qrdqn": Variant("CartPole, 1 env, 64-64, sb3-contrib QRDQN", "QRDQN", "CartPole-v1", CARTPOLE),
    "cartpole_ours": Variant("CartPole, 1 env, 64-64, DQNExt", "DQNExt", "CartPole-v1", CARTPOLE),
    "cartpole_compiled": Variant(
        "CartPole, 1 env, 64-64, DQNExt compiled", "DQNExt", "CartPole-v1", {**CARTPOLE, "compile": True}
    ),
    "lunar_dqn": Variant("LunarLander, 1 env, 256-256, SB3 DQN", "DQN", "LunarLander-v3", LUNAR),
    "lunar_ours": Variant("LunarLander, 1 env, 256-256, DQNExt", "DQNExt", "LunarLander-v3", LUNAR),
}


class Sizes(NamedTuple):
    """How much is timed."""

    begin: int = 5_000
    """the step at which the clock starts"""
    timed: int = 200_000
    """steps"""


def pair(variant: str, number: int, sizes: Sizes) -> Row:
    """
    :param variant: what is timed
    :param number: which pair, and the seed
    :param sizes: how much of it
    :return: its row
    """
    seconds: dict[str, str] = {}
    for which in ("without", "with") if number % 2 == 0 else ("with", "without"):
        command = [sys.executable, "-m", "benchmarks.diagnostics_cost", "--measure", variant, which, str(number)]
        done = subprocess.run(
            [*command, "--sizes", *map(str, sizes)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        of_clocks = json.loads(done.stdout.splitlines()[-1])
        seconds |= {f"{which}_{clock}_s": f"{value:.4g}" for clock, value in of_clocks.items()}
    names = [f"{which}_{clock}_s" for clock in CLOCKS for which in ("without", "with")]
    return {"variant": variant, "number": str(number), "steps": str(sizes.timed)} | {name: seconds[name] for name in names}


def train(name: str, with_them: bool, seed: int, sizes: Sizes) -> dict[str, float]:
    """
    :param name: of the variant
    :param with_them: whether there are diagnostics
    :param seed: of the run
    :param sizes: how much of it is timed
    :return: seconds of the clocks
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Box2D's
        importlib.import_module("Box2D")
    from sb3_contrib import QRDQN
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    from sb3_dqn_ext import DQNExt
    from sb3_dqn_ext.callbacks import DiagnosticsCallback
    from sb3_dqn_ext.callbacks.diagnostics.base import Diagnostic

    laps: list[tuple[float, ...]] = []
    inside = [0.0]

    def look() -> None:
        laps.append((time.perf_counter(), time.process_time(), inside[0]))

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def with_clock(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            result = function(*args, **kwargs)
            inside[0] += time.process_time() - start
            return result

        return with_clock

    class Stopwatch(BaseCallback):
        """Looks at the clocks when it starts to count."""

        def _on_training_start(self) -> None:
            self.logger.dump = timed(self.logger.dump)  # type: ignore[method-assign]

        def _on_step(self) -> bool:
            if self.num_timesteps == sizes.begin:
                look()
            return True

    diagnostics = DiagnosticsCallback(video=True)
    for part in diagnostics.callbacks:
        if isinstance(part, Diagnostic):
            part._attend = timed(part._attend)  # type: ignore[method-assign]

    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        model = {"DQN": DQN, "QRDQN": QRDQN, "DQNExt": DQNExt}[variant.algorithm](
            "MlpPolicy",
            # without pictures, as the zoo makes it: with them, LunarLander is so slow that nothing beside it counts
            make_vec_env(variant.env, seed=seed, env_kwargs={"render_mode": None}),
            tensorboard_log=folder,
            seed=seed,
            device="cpu",
            **variant.arguments,
        )
        model.learn(sizes.begin + sizes.timed, callback=[Stopwatch(), *([diagnostics] if with_them else [])])
        look()
    return {clock: end - begin for clock, begin, end in zip(CLOCKS, *laps, strict=True)}


def ratios(rows: Iterable[Row], clock: str) -> list[float]:
    """
    :param rows: of pairs
    :param clock: ``wall`` or ``cpu``
    :return: the time with diagnostics over that without, of each pair
    """
    return [float(row[f"with_{clock}_s"]) / float(row[f"without_{clock}_s"]) for row in rows]


def parts(rows: Iterable[Row]) -> list[float]:
    """
    :param rows: of pairs
    :return: the processor time that can be told to be that of diagnostics, over that of the training without, of each pair
    """
    more = ((float(row["with_inside_s"]) - float(row["without_inside_s"])) / float(row["without_cpu_s"]) for row in rows)
    return [1 + share for share in more]


def _shown(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def table(rows: list[Row]) -> str:
    """
    :param rows: all of them
    :return: the page, in Markdown
    """
    lines = [
        "## What diagnostics cost",
        "",
        "Trainings with `DiagnosticsCallback(video=True)`, all at their defaults, and without, in turns, each in a process of",
        "its own with one thread; both log to TensorBoard. A ratio is that of a pair: medians, with the least and the",
        "greatest. The last one counts the time within the callback and the writing of the log only, which other work on the",
        "machine changes less.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}.",
        "",
        "| training | steps | pairs | wall time | processor time | within diagnostics | at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        of_variant = where(rows, variant=name)
        if of_variant:
            steps = f"{int(of_variant[0]['steps']):,}"
            shown = [_shown(of) for of in (ratios(of_variant, "wall"), ratios(of_variant, "cpu"), parts(of_variant))]
            lines.append(f"| {variant.title} | {steps} | {len(of_variant)} | {' | '.join(shown)} | {AT_MOST} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """:param arguments: of the command line, those of this process if None"""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnostics_cost", description=__doc__)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sizes", nargs=2, type=int, default=list(Sizes()), metavar=("BEGIN", "TIMED"), help="in steps")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--measure", nargs=3, metavar=("VARIANT", "with|without", "SEED"), help="one training, in this process"
    )
    args = parser.parse_args(arguments)
    sizes = Sizes(*args.sizes)
    if args.measure:
        variant, which, seed = args.measure
        print(json.dumps(train(variant, which == "with", int(seed), sizes)))
        return
    path = args.results / "diagnostics_cost.csv"
    done = {(row["variant"], int(row["number"])) for row in read(path)}
    todo = [(variant, number) for number in range(args.pairs) for variant in args.variants if (variant, number) not in done]
    rows = complete(path, todo, lambda key: pair(*key, sizes), jobs=1)
    text = table(rows)
    (args.results / "diagnostics_cost.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
