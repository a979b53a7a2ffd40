"""
Train many runs and compare them: ``python -m sb3_dqn_ext.sweep SPEC.yml``.

Each finished run becomes a row of the CSV file that the specification names. Runs that have a row are not repeated; runs that
were interrupted continue from their newest checkpoint. At the end, a table and learning curves are written beside that file.
"""

import argparse
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sb3_dqn_ext._validation import check_number, choose
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.storage.lock import Lock
from sb3_dqn_ext.sweep.carried import unpack_stored
from sb3_dqn_ext.sweep.driver import Outcome, run_all
from sb3_dqn_ext.sweep.engine import Engine
from sb3_dqn_ext.sweep.engines import ENGINE
from sb3_dqn_ext.sweep.progress_view import ProgressView
from sb3_dqn_ext.sweep.results import KEY, add_row, read_rows
from sb3_dqn_ext.sweep.run_files import read_row, write_task
from sb3_dqn_ext.sweep.spec import Spec, Task, parse_seeds, read_spec

COMMAND = "python -m sb3_dqn_ext.sweep"
EXAMPLE = """\
title: Multi-step returns in CartPole
envs: [CartPole-v1]
seeds: 0-4
hyperparameters: {policy: MlpPolicy, n_timesteps: 3000, learning_rate: 0.002, target_update_interval: 100}
evaluation: {every: 500, episodes: 5, last_episodes: 20}
variants:
  one step: {}
  three steps: {hyperparameters: {n_steps: 3}}
"""


def main(arguments: list[str], program: str = COMMAND) -> None:
    """
    Run the command.

    :param arguments: the arguments of its command line
    :param program: the name of the command in help and errors
    """
    args = parse(arguments, program)
    try:
        if args.jobs is not None:
            check_number("--jobs", args.jobs, low=1, integer=True)
        engine = make_engine(args.engine, args.engine_kwargs, args.address)
        spec = select_tasks(read_spec(args.spec), env=args.envs, variant=args.variants, seed=args.seeds)
        runs = args.runs or Path("runs") / spec.path.stem
        failures = {} if args.report_only else run_missing(spec, runs, engine, args.jobs)
        from sb3_dqn_ext.sweep.report import write_report

        print(write_report(spec))
    except (ArgumentError, CheckpointError, OSError) as error:
        sys.exit(f"{program}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\n{program}: interrupted. The same command continues the runs.")
    if failures:
        sys.exit(f"{len(failures)} of the runs failed: {', '.join(failures)}.")


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """
    Parse the command line.

    :param arguments: the arguments
    :param program: the name of the command
    """
    parser = argparse.ArgumentParser(
        program,
        description="Train each variant with each seed in each environment, and compare them.",
        epilog=f"examples:\n  {program} --example > my_sweep.yml\n  {program} my_sweep.yml --seeds 0 --jobs 2",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", metavar="SPEC.yml", type=Path, help="the environments, seeds and variants")
    parser.add_argument("--example", action="version", version=EXAMPLE, help="print an example of SPEC.yml")
    parser.add_argument("--jobs", type=int, help="the number of runs at the same time; default: 1 with processes, else all")
    parser.add_argument("--engine", default="processes", help="processes, ray, submitit, or a dotted name")
    parser.add_argument("--address", help="the address of a Ray cluster, such as auto; default: one is started here")
    parser.add_argument("--engine-kwargs", type=yaml_mapping, default={}, help="arguments of the engine: '{num_gpus: 0.5}'")
    parser.add_argument("--runs", type=Path, help="the folder of the runs; default: runs/SPEC")
    parser.add_argument("--envs", nargs="+", help="train in these environments only")
    parser.add_argument("--variants", nargs="+", help="train these variants only")
    parser.add_argument("--seeds", type=seed_texts, help="train with these seeds only, such as 0-4")
    parser.add_argument("--report-only", action="store_true", help="write the table and the curves without training")
    return parser.parse_args(arguments)


def make_engine(engine: str, kwargs: dict[str, Any], address: str | None) -> Engine:
    """
    Make the engine that a user has chosen.

    :param engine: its name, or the dotted name of a class or object
    :param kwargs: its arguments
    :param address: its argument ``address``; None: none was given
    :raises ArgumentError: if there is no such engine or argument
    :raises UnsupportedError: if the engine needs an extra that is not installed
    """
    return ENGINE.build(engine, kwargs | ({} if address is None else {"address": address}), place="--engine-kwargs")


def yaml_mapping(text: str) -> dict[str, Any]:
    """
    Parse a mapping in YAML.

    :param text: the text, such as ``{num_gpus: 0.5}``
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} must be a mapping in YAML, such as '{{num_gpus: 0.5}}'")
    return value


def select_tasks(spec: Spec, **wanted: Collection[str] | None) -> Spec:
    """
    Leave out runs of a sweep.

    :param spec: the sweep
    :param wanted: the values of ``env``, ``variant`` and ``seed``; None: all
    :raises ArgumentError: if the sweep has no runs with one of these values
    """
    tasks = spec.tasks
    for name, values in wanted.items():
        if values is not None:
            there = {str(getattr(task, name)): task for task in tasks}
            for value in values:
                choose(f"--{name}s", value, there)
            tasks = tuple(task for task in tasks if str(getattr(task, name)) in values)
    return replace(spec, tasks=tasks)


def seed_texts(text: str) -> list[str]:
    """
    Parse seeds, as in the file.

    :param text: the seeds, such as ``0-4``
    :return: a text for each seed
    """
    try:
        return [str(seed) for seed in parse_seeds(text)]
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_missing(spec: Spec, runs: Path, engine: Engine, jobs: int | None = None) -> dict[str, str]:
    """
    Train the runs that have no row, and add their rows.

    :param spec: the sweep
    :param runs: the folder of the runs
    :param engine: the engine that runs them
    :param jobs: the number of runs at the same time; None: the default of the engine
    :return: the errors of the runs that failed, by the names of the runs
    """
    failures: dict[str, str] = {}
    with Lock(runs), ProgressView(spec.tasks, runs) as view:
        for task in spec.tasks:
            unpack_stored(runs / task.folder)
        collect_rows(spec, runs)
        rows = read_rows(spec.results, KEY)
        missing = [task for task in spec.tasks if not task.is_in(rows)]
        by_folder = {runs / task.folder: task for task in missing}
        for folder, task in by_folder.items():
            write_task(folder, task, row_command(spec, task))

        def on_end(outcome: Outcome) -> None:
            task = by_folder[outcome.folder]
            if outcome.error:
                failures[task.name] = outcome.error
                view.print(f"{task.name} failed: {outcome.error}")
            else:
                collect_rows(replace(spec, tasks=(task,)), runs)

        view.begin(missing)
        if missing:
            engine.start(runs)
            run_all(by_folder, engine, jobs or engine.jobs, on_end, view.update)
    return failures


def row_command(spec: Spec, task: Task) -> str:
    """
    Return the command that makes the row of a run.

    :param spec: the sweep
    :param task: the run
    """
    words = [*COMMAND.split(), str(spec.path), "--envs", task.env, "--variants", task.variant, "--seeds", str(task.seed)]
    return shlex.join(words)


def collect_rows(spec: Spec, runs: Path) -> None:
    """
    Add the rows that finished runs have written to the CSV file, unless it contains them.

    :param spec: the sweep
    :param runs: the folder of the runs
    """
    rows = read_rows(spec.results, KEY)
    for task in spec.tasks:
        row = read_row(runs / task.folder, task)
        if row is not None and not task.is_in(rows):
            add_row(spec.results, row, KEY)


if __name__ == "__main__":
    main(sys.argv[1:])
