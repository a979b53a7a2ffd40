"""
Measure the cost of checkpoints: ``python -m benchmarks.reliability.overhead VARIANT SEED [--folder FOLDER]`` times a training,
with checkpoints if a folder is given.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.lunar_lander import import_box2d
from benchmarks.processes import ROOT, run_command
from benchmarks.speed.workloads import ZOO_LUNAR_LANDER
from sb3_dqn_ext import DQNExt
from sb3_dqn_ext.callbacks import ExactCheckpointCallback
from sb3_dqn_ext.checkpoint import session
from sb3_dqn_ext.sweep import Row
from sb3_dqn_ext.sweep.processes import ONE_THREAD


class Sizes(NamedTuple):
    """The sizes of a timed training."""

    full: int = 100_000
    """The size of the replay buffer, which is full when the clock starts."""
    every: int = 10_000
    """The number of environment steps between two checkpoints."""
    timed: int = 50_000
    """The number of environment steps that are timed."""


class Variant(NamedTuple):
    """A variant of the timed training."""

    title: str
    arguments: Mapping[str, Any]


VARIANTS = {
    "eager": Variant("eager", {}),
    "compiled": Variant("compiled", {"compile": True}),
    "prioritized": Variant("compiled, prioritized", {"compile": True, "replay_buffer_kwargs": {"sampler": "prioritized"}}),
}


def measure_pair(folder: Path, variant: str, number: int, sizes: Sizes) -> Row:
    """
    Time a training without checkpoints and one with checkpoints, and return the row of the pair.

    :param folder: the folder of the checkpoints
    :param variant: the name of the variant
    :param number: the number of the pair, which is the seed
    :param sizes: the sizes of the training
    """
    timings: dict[bool, dict[str, float]] = {}
    for with_them in (False, True) if number % 2 == 0 else (True, False):
        shutil.rmtree(folder, ignore_errors=True)
        command = [sys.executable, "-m", "benchmarks.reliability.overhead", variant, str(number)]
        command += ["--sizes", *map(str, sizes)]
        output = run_command([*command, *(["--folder", str(folder)] if with_them else [])], ONE_THREAD, ROOT)
        timings[with_them] = json.loads(output.splitlines()[-1])
    shutil.rmtree(folder, ignore_errors=True)
    seconds = {"without_s": timings[False].pop("train"), "with_s": timings[True].pop("train")}
    parts = {f"{name}_ms": 1000 * value for name, value in timings[True].items()}
    values = {name: f"{value:.4g}" for name, value in (seconds | parts).items()}
    return {"variant": variant, "number": str(number), "checkpoints": str(sizes.timed // sizes.every), **values}


def parts_of(row: Row) -> list[str]:
    """
    Return the names of the parts of a checkpoint whose times are in a row.

    :param row: the row of a pair
    """
    return [name.removesuffix("_ms") for name in row if name.endswith("_ms")]


class Clocks:
    """Clocks that sum the seconds spent in functions."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def watch(self, owner: Any, name: str, part: str) -> None:
        """
        Replace a function by one that also measures its time.

        :param owner: the module or the object that has the function
        :param name: the name of the function
        :param part: the part of a checkpoint to which the time is added
        """
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.perf_counter() - start

        setattr(owner, name, timed)


class Stopwatch(BaseCallback):
    """
    A callback that starts the clocks when the replay buffer is full.

    :param clocks: the clocks of functions, which are reset to 0
    :param full: the step at which the replay buffer is full
    """

    def __init__(self, clocks: Clocks, full: int) -> None:
        super().__init__()
        self.clocks, self.full = clocks, full
        self.began = 0.0

    def _on_step(self) -> bool:
        if self.num_timesteps == self.full:
            self.clocks.seconds.clear()
            self.began = time.perf_counter()
        return True


def train(variant: str, seed: int, sizes: Sizes, folder: Path | None) -> dict[str, float]:
    """
    Train, and return the seconds of the timed steps, the seconds of a checkpoint, and those of its parts.

    :param variant: the name of the variant
    :param seed: the seed of the run
    :param sizes: the sizes of the training
    :param folder: the folder of the checkpoints; None: no checkpoints
    """
    import_box2d()
    clocks = Clocks()
    stopwatch = Stopwatch(clocks, sizes.full)
    arguments: dict[str, Any] = {**ZOO_LUNAR_LANDER, "buffer_size": sizes.full, "learning_starts": sizes.full * 99 // 100}
    model = DQNExt(
        "MlpPolicy",
        make_vec_env("LunarLander-v3", seed=seed, env_kwargs={"render_mode": None}),
        policy_kwargs={"net_arch": [256, 256]},
        seed=seed,
        device="cpu",
        **arguments,
        **VARIANTS[variant].arguments,
    )
    clocks.watch(model, "save_checkpoint", "all")
    clocks.watch(session, "environments_state", "environments")
    clocks.watch(session, "training_state", "training")
    clocks.watch(session, "read_rows", "rows")
    clocks.watch(session, "write", "write")
    clocks.watch(os, "fsync", "fsync")
    callbacks: list[BaseCallback] = [stopwatch]
    if folder is not None:
        callbacks.append(ExactCheckpointCallback(sizes.every, folder))
    model.learn(sizes.full + sizes.timed, callback=callbacks)
    seconds = {"train": time.perf_counter() - stopwatch.began}
    if folder is None:
        return seconds
    n = sizes.timed // sizes.every
    return seconds | {name: value / n for name, value in sorted(clocks.seconds.items(), key=lambda part: -part[1])}


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """
    Add the option ``--sizes``.

    :param parser: the parser of a command
    """
    what = "size of the replay buffer, steps between two checkpoints, steps that are timed"
    parser.add_argument("--sizes", nargs=3, type=int, default=list(Sizes()), metavar=("FULL", "EVERY", "TIMED"), help=what)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.overhead", description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("seed", type=int)
    add_sizes(parser)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args(arguments)
    print(json.dumps(train(args.variant, args.seed, Sizes(*args.sizes), args.folder)))


if __name__ == "__main__":
    main()
