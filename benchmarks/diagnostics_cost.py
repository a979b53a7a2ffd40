"""
Measure the cost of diagnostics: time trainings with all diagnostics at their defaults, and without, in pairs. Each finished
pair becomes a row of docs/results/diagnostics_cost.csv. Pairs that have a row are not repeated.

The two trainings of a pair run in their own processes and take turns of some hundred steps, so that other load of the machine
slows down both. Diagnostics change no bit of a training, so both trainings do the same work.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sb3_contrib import QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.lunar_lander import import_box2d
from benchmarks.processes import ROOT
from benchmarks.rows import RESULTS, run_missing
from benchmarks.speed.workloads import ZOO_LUNAR_LANDER
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import DiagnosticsCallback
from sb3_dqn_ext.sweep import Row, select_rows
from sb3_dqn_ext.sweep.processes import ONE_THREAD

RATES: dict[str, Any] = {"every": 10_000, "calibration": {"every": 50_000}, "video": {"every": 1_000_000}}
"""The shortest default intervals of long runs, in environment steps."""
CLOCKS = ("wall", "cpu")


class Variant(NamedTuple):
    """A training that is timed."""

    title: str
    algorithm: type[OffPolicyAlgorithm]
    env: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str] = {}
    """The environment variables of its processes."""


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
# By default, some processes return the memory of each update to the system and others keep it, by chance. With the large
# batches of quantiles, this makes a greater difference than diagnostics do.
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
VARIANTS = {
    "cartpole_dqn": Variant("CartPole, 1 env, 64-64, SB3 DQN", DQN, "CartPole-v1", CARTPOLE),
    "cartpole_qrdqn": Variant("CartPole, 1 env, 64-64, sb3-contrib QRDQN", QRDQN, "CartPole-v1", CARTPOLE, KEEP_MEMORY),
    "cartpole_ours": Variant("CartPole, 1 env, 64-64, DQNExt", DQNExt, "CartPole-v1", CARTPOLE),
    "cartpole_compiled": Variant(
        "CartPole, 1 env, 64-64, DQNExt compiled", DQNExt, "CartPole-v1", {**CARTPOLE, "compile": True}
    ),
    "lunar_dqn": Variant("LunarLander, 1 env, 256-256, SB3 DQN", DQN, "LunarLander-v3", LUNAR),
    "lunar_ours": Variant("LunarLander, 1 env, 256-256, DQNExt", DQNExt, "LunarLander-v3", LUNAR),
}


class Sizes(NamedTuple):
    """The sizes of a timed training."""

    begin: int = 5_000
    """The step at which the clock starts."""
    timed: int = 1_000_000
    """The number of timed steps."""
    turn: int = 500
    """The number of steps of a turn."""


def measure_pair(variant: str, number: int, sizes: Sizes) -> Row:
    """
    Time a pair of trainings, and return its row.

    :param variant: the name of the variant
    :param number: the number of the pair, which is the seed
    :param sizes: the sizes of the trainings
    """
    sums = {(which, clock): 0.0 for clock in CLOCKS for which in ("without", "with")}
    with ExitStack() as stack:
        started = {which: stack.enter_context(start_training(variant, which, number, sizes)) for which in ("without", "with")}
        for which in started:
            _line(started[which])  # the step at which the clock starts
        for i in range(sizes.timed // sizes.turn):
            for which in sorted(started, reverse=(i + number) % 2 == 0):
                process = started[which]
                assert process.stdin is not None
                print(file=process.stdin, flush=True)
                for clock, seconds in zip(CLOCKS, _line(process).split(), strict=True):
                    sums[which, clock] += float(seconds)
    totals = {f"{which}_{clock}_s": f"{total:.4g}" for (which, clock), total in sums.items()}
    return {"variant": variant, "number": str(number), "steps": str(sizes.timed), **totals}


@contextmanager
def start_training(variant: str, which: str, number: int, sizes: Sizes) -> Iterator["subprocess.Popen[str]"]:
    """Start one training of a pair. It waits for a line before each turn, and prints the seconds of the turn."""
    command = [sys.executable, "-m", "benchmarks.diagnostics_cost", "--measure", variant, which, str(number)]
    process = subprocess.Popen(
        [*command, "--sizes", *map(str, sizes)],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD, **VARIANTS[variant].environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("A training has ended early.")
    return line


class Turns(BaseCallback):
    """
    A callback that waits for a line of standard input before each turn, and prints the seconds of the turn.

    :param sizes: the sizes of the training
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.began = 0.0, 0.0

    def _on_step(self) -> bool:
        done = self.num_timesteps - self.sizes.begin
        if done >= 0 and done % self.sizes.turn == 0:
            now = time.perf_counter(), time.process_time()
            print(*(f"{end - begin:.6f}" for begin, end in zip(self.began, now, strict=True)), flush=True)
            if done < self.sizes.timed:
                sys.stdin.readline()
            self.began = time.perf_counter(), time.process_time()
        return True


def train(name: str, with_them: bool, seed: int, sizes: Sizes) -> None:
    """
    Train in turns: see :class:`Turns`.

    :param name: the name of the variant
    :param with_them: whether there are diagnostics
    :param seed: the seed of the run
    :param sizes: the sizes of the training
    """
    import_box2d()
    variant = VARIANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        model = variant.algorithm(
            "MlpPolicy",
            # render_mode as in the zoo: with SB3's default, LunarLander is so slow that the diagnostics do not matter
            make_vec_env(variant.env, seed=seed, env_kwargs={"render_mode": None}),
            tensorboard_log=folder,
            seed=seed,
            device="cpu",
            **variant.arguments,
        )
        diagnostics = [DiagnosticsCallback(**RATES)] if with_them else []
        model.learn(sizes.begin + sizes.timed, callback=[*diagnostics, Turns(sizes)])


def ratios(rows: Iterable[Row], clock: str) -> list[float]:
    """
    Return for each pair the time with diagnostics divided by that without.

    :param rows: the rows of the pairs
    :param clock: ``wall`` or ``cpu``
    """
    return [float(row[f"with_{clock}_s"]) / float(row[f"without_{clock}_s"]) for row in rows]


def _median_and_range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def table(rows: list[Row]) -> str:
    """
    Return the page in Markdown.

    :param rows: all rows
    """
    lines = [
        "# The cost of diagnostics",
        "",
        "Written by `make bench-diagnostics` (`python -m benchmarks.diagnostics_cost`) from the rows of diagnostics_cost.csv.",
        "",
        "Training time with `DiagnosticsCallback`, divided by that without diagnostics, at the shortest default intervals",
        "of long runs: 10,000 steps, 50,000 for calibrations and 1,000,000 for films. The two trainings of a pair take",
        "turns of some hundred steps, each in its own process with one thread; both log to TensorBoard. Cells are medians",
        "over pairs, with the smallest and the largest ratio. Trainings of less than a million steps have no video. A",
        "measurement of the diagnostics takes the same time whatever the speed of training is, so its share is largest",
        "where steps are fastest: CartPole with compiled code. The processes of QRDQN keep the memory of an update for the",
        "next one (`KEEP_MEMORY`), because the default varies by chance, with a larger effect than that of diagnostics.",
        "",
        f"{platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}.",
        "",
        "| training | steps | pairs | ratio of wall times | ratio of processor times |",
        "|---|---|---|---|---|",
    ]
    for name, variant in VARIANTS.items():
        of_variant = select_rows(rows, variant=name)
        if of_variant:
            steps = f"{int(of_variant[0]['steps']):,}"
            cells = [_median_and_range(ratios(of_variant, clock)) for clock in CLOCKS]
            lines.append(f"| {variant.title} | {steps} | {len(of_variant)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.diagnostics_cost", description=__doc__)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--sizes", nargs=3, type=int, default=list(Sizes()), metavar=("BEGIN", "TIMED", "TURN"), help="in steps"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--measure", nargs=3, metavar=("VARIANT", "with|without", "SEED"), help="run one training of a pair in this process"
    )
    args = parser.parse_args(arguments)
    sizes = Sizes(*args.sizes)
    if args.measure:
        variant, which, seed = args.measure
        train(variant, which == "with", int(seed), sizes)
        return
    rows = run_missing(
        args.results / "diagnostics_cost.csv",
        ("variant", "number"),
        [(variant, number) for number in range(args.pairs) for variant in args.variants],
        lambda key: measure_pair(*key, sizes),
        jobs=1,
    )
    text = table(rows)
    (args.results / "diagnostics_cost.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
