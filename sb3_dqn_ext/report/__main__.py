"""``python -m sb3_dqn_ext.report RUN_FOLDER``: write a report on a run as one HTML page."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from sb3_dqn_ext._validation import check_number
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.plot.models import N_EPISODES
from sb3_dqn_ext.plot.runs import find_runs
from sb3_dqn_ext.report.page import render_page
from sb3_dqn_ext.report.run_data import read_run_data
from sb3_dqn_ext.storage.atomic import write_atomically

COMMAND = "python -m sb3_dqn_ext.report"
LARGE_PAGE_MB = 20
"""The size in megabytes from which a page is slow to open and to send."""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        COMMAND,
        description="Write a self-contained HTML page on a run: summary, command, curves, values, video and configuration.",
    )
    made.add_argument("run_folder", metavar="RUN_FOLDER", nargs="+", help="a run folder of the RL Zoo or of SB3")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="file of the page (default: RUN_FOLDER/report.html)")
    made.add_argument("--tensorboard", type=Path, help="folder of the TensorBoard logs, if the run folder does not name it")
    made.add_argument("--episodes", type=int, default=N_EPISODES, help="number of episodes to play, can be 0 (default: 20)")
    made.add_argument("--model", help="model file in the run folder (default: best_model, otherwise the final model)")
    made.add_argument(
        "--trust",
        action="store_true",
        help="open pickles, such as models of QRDQN, and import classes from where the run was started: for your own runs",
    )
    made.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    return made


def find_run(folders: Sequence[str]) -> Path:
    """
    Return the only run in some folders.

    :param folders: the folders
    :raises ArgumentError: if there is no run, or several
    """
    found = list(dict.fromkeys(path for folder in folders for path in find_runs(folder, "RUN_FOLDER")))
    if len(found) > 1:
        given = " ".join(folders)
        raise ArgumentError(
            f"RUN_FOLDER={given!r} contains {len(found)} runs, and a report is on one run, such as {found[0]}. "
            f"`python -m sb3_dqn_ext.plot {given}` compares them."
        )
    return found[0]


def main(arguments: list[str]) -> None:
    """
    Run the command.

    :param arguments: the command line
    """
    args = make_parser().parse_args(arguments)
    try:
        check_number("--episodes", args.episodes, low=0, integer=True)
        for module in args.gym_packages:
            importlib.import_module(module)
        folder = find_run(args.run_folder)
        data = read_run_data(folder, args.tensorboard, args.model, args.episodes, args.trust)
        page = render_page(data)
        output = args.output or folder / "report.html"
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, page.encode())
    except (ArgumentError, CheckpointError, ImportError, OSError) as error:
        sys.exit(f"{COMMAND}: {error}")
    print(output)
    for what, why in data.problems.items():
        print(f"No {what}: {why}", file=sys.stderr)
    if (size := output.stat().st_size / 1e6) > LARGE_PAGE_MB:
        print(f"{output} has {size:.0f} MB, which is large for a page. Most of it is the video.", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
