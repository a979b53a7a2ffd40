"""
Train the five tutorials with ten seeds: faithful, with the tutorial's hyperparameters, and improved, with the same environment
and network.

Each finished run becomes a row of docs/results/tutorials.csv. Runs that have a row are not repeated: delete the rows that are
out of date. At the end, tables and pictures are written. Timed runs run alone: use an idle machine.
"""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.rows import RESULTS, missing_keys, run_missing
from benchmarks.tutorials.measure import Key, Places, measure_run
from benchmarks.tutorials.pictures import best_keys, save_pictures
from benchmarks.tutorials.play import LENGTH, random_return, record_video
from benchmarks.tutorials.report import rows_of_tutorial, write
from benchmarks.tutorials.row_statistics import VARIANTS, Rows
from benchmarks.tutorials.specs import BY_NAME
from sb3_dqn_ext.sweep import read_rows, select_rows

CONFIGS = RESULTS.parent.parent / "zoo_configs" / "tutorials"


def plan(tutorials: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Key]:
    """
    List the runs, every tutorial with the first seed before any with the second.

    :param tutorials: the names of the tutorials
    :param variants: faithful, improved or both
    :param seeds: the seeds of the runs
    """
    return [Key(name, variant, seed) for seed in seeds for name in tutorials for variant in variants]


def with_configuration(keys: Iterable[Key], configs: Path) -> list[Key]:
    """
    Return the runs that have a configuration, and print the missing configurations.

    :param keys: the runs
    :param configs: the folder of the configurations
    """
    keys = list(keys)
    for name in sorted({key.config for key in keys if not (configs / key.config).is_file()}):
        print(f"There is no {configs / name}: left out.")
    return [key for key in keys if (configs / key.config).is_file()]


def record_videos(rows: Rows, places: Places, length: int) -> None:
    """
    Record the videos of the tutorials that have one, and print the returns of the trained model and of random actions.

    :param rows: the rows of all tutorials
    :param places: the folders of the runs; runs whose folder is missing have no video
    :param length: the number of steps of a video
    """
    for tutorial in BY_NAME.values():
        keys = best_keys(rows_of_tutorial(rows, tutorial), places) if tutorial.records_video else {}
        for variant, key in keys.items():
            (row,) = select_rows(rows, tutorial=key.tutorial, variant=variant, seed=str(key.seed))
            trained = row["greedy_best"] or row["greedy_last"]
            print(
                f"{tutorial.title}, {variant}, seed {key.seed}: {trained} (random actions: {random_return(tutorial.env_id)})"
            )
            print(f"  {record_video(places.runs / key.folder, tutorial.env_id, length)}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse the command line.

    :param arguments: the command line; None: that of this process
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials", description=__doc__)
    parser.add_argument(
        "--tutorials", nargs="+", choices=BY_NAME, default=list(BY_NAME), metavar="NAME", help=", ".join(BY_NAME)
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time; timed runs run alone")
    parser.add_argument("--steps", type=int, help="environment steps of each run, for a short trial")
    parser.add_argument("--configs", type=Path, default=CONFIGS, help="folder of NAME.yml and NAME_improved.yml")
    parser.add_argument("--runs", type=Path, default=Path("runs/tutorials"), help="folder of the zoo's run folders")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of the results, with the folder tutorials beside it"
    )
    parser.add_argument("--report-only", action="store_true", help="write tables and pictures without training")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    :param arguments: the command line; None: that of this process
    """
    args = parse(arguments)
    path, places = args.results / "tutorials.csv", Places(args.configs, args.runs)
    if not args.report_only:
        keys = plan(args.tutorials, args.variants, args.seeds)
        todo = with_configuration(missing_keys(keys, read_rows(path), Key._fields), args.configs)
        run = partial(measure_run, places=places, steps=args.steps)
        run_missing(path, Key._fields, (key for key in todo if not BY_NAME[key.tutorial].timed), run, args.jobs)
        run_missing(path, Key._fields, (key for key in todo if BY_NAME[key.tutorial].timed), run, jobs=1)
    rows = read_rows(path)
    save_pictures(rows, places, args.results)
    print(write(rows, args.results, pages=args.results.parent / "tutorials"))
    if not args.report_only:
        record_videos(rows, places, min(args.steps or LENGTH, LENGTH))


if __name__ == "__main__":
    main()
