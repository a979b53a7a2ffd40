"""
Runs the five tutorials with ten seeds: faithful, as they are told, and improved, with the same environment and network.

Each finished run is a row of docs/results/tutorials.csv; what has a row is not run again. Delete the rows of what has changed.
Then tables and pictures are written. What is timed is run with no other run beside it; the machine should have nothing else to
do then.
"""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.rows import RESULTS, missing_keys, read_rows, run_missing, select_rows
from benchmarks.tutorials.measure import Key, Places, measure_run
from benchmarks.tutorials.pictures import best_keys, save_pictures
from benchmarks.tutorials.play import LENGTH, random_return, record_video
from benchmarks.tutorials.report import rows_of_tutorial, write
from benchmarks.tutorials.row_statistics import VARIANTS, Rows
from benchmarks.tutorials.specs import BY_NAME

CONFIGS = RESULTS.parent.parent / "zoo_configs" / "tutorials"


def plan(tutorials: Sequence[str], variants: Sequence[str], seeds: Sequence[int]) -> list[Key]:
    """
    :param tutorials: their names
    :param variants: faithful, improved or both
    :param seeds: of the runs
    :return: all runs, every tutorial with the first seed before any with the second
    """
    return [Key(name, variant, seed) for seed in seeds for name in tutorials for variant in variants]


def with_configuration(keys: Iterable[Key], configs: Path) -> list[Key]:
    """
    :param keys: runs
    :param configs: where configurations are
    :return: those that have a configuration; the others are named
    """
    keys = list(keys)
    for name in sorted({key.config for key in keys if not (configs / key.config).is_file()}):
        print(f"There is no {configs / name}: left out.")
    return [key for key in keys if (configs / key.config).is_file()]


def record_videos(rows: Rows, places: Places, length: int) -> None:
    """
    Film what is to be filmed, and say what random actions reach.

    :param rows: of all tutorials
    :param places: where runs are; others are not filmed
    :param length: steps of a video
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
    :param arguments: of the command line, those of this process if None
    :return: their values
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tutorials", description=__doc__)
    parser.add_argument(
        "--tutorials", nargs="+", choices=BY_NAME, default=list(BY_NAME), metavar="NAME", help=", ".join(BY_NAME)
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--jobs", type=int, default=2, help="how many runs at once, of those that are not timed")
    parser.add_argument("--steps", type=int, help="environment steps of each run, for a trial")
    parser.add_argument("--configs", type=Path, default=CONFIGS, help="where NAME.yml and NAME_improved.yml are")
    parser.add_argument("--runs", type=Path, default=Path("runs/tutorials"), help="where the zoo writes its run folders")
    parser.add_argument("--results", type=Path, default=RESULTS, help="pages are in the folder tutorials beside it")
    parser.add_argument("--report-only", action="store_true", help="run nothing: tables and pictures of the rows there are")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """:param arguments: of the command line, those of this process if None"""
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
