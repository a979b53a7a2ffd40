"""``python -m sb3_dqn_ext.plot RUN_FOLDERS``: save figures of runs as files."""

import argparse
import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from sb3_dqn_ext._validation import choose
from sb3_dqn_ext.callbacks.diagnostics.evaluation import Calibration
from sb3_dqn_ext.errors import ArgumentError, CheckpointError
from sb3_dqn_ext.plot import curves, models, values
from sb3_dqn_ext.plot.groups import group_runs
from sb3_dqn_ext.plot.logs import log_folder
from sb3_dqn_ext.plot.run_files import Series, scalars
from sb3_dqn_ext.plot.runs import Run, find_runs, read_run
from sb3_dqn_ext.plot.value_maps import plot_value_map

COMMAND = "python -m sb3_dqn_ext.plot"
EXAMPLES = """
  {program} logs/dqn_ext/CartPole-v1_1
  {program} logs/dqn_ext --kind learning --output pictures
"""
DPI = 120

Arguments = argparse.Namespace
Groups = Mapping[str, Sequence[Run]]


# -- figures of one run ----------------------------------------------------------------------------------------------------


@functools.cache
def cached_calibration(run: Run, model: str | None, n_episodes: int) -> Calibration:
    """
    Play episodes with the model of a run, and return predicted and realised values. Further calls return the same values.

    :param run: the run
    :param model: the file name of the model; None: see :func:`~sb3_dqn_ext.plot.load_model`
    :param n_episodes: the number of episodes
    """
    learner = models.load_model(run, model)
    env = models.make_env(run)
    try:
        return models.measure_calibration(learner, env, n_episodes)
    finally:
        env.close()


def logged_scalars(run: Run) -> dict[str, Series]:
    """
    Read the numbers that a run logged to TensorBoard.

    :param run: the run
    :raises ArgumentError: if no TensorBoard log of the run is found
    """
    return scalars(log_folder(run))


def calibration_log_figure(run: Run, args: Arguments) -> Figure:
    """Draw the numbers that ``ValueCalibrationCallback`` logged during training."""
    return values.plot_log(logged_scalars(run), run.name, values.CALIBRATION)


def panels_figure(run: Run, args: Arguments) -> Figure:
    """Draw loss, returns, and predicted against realised values."""
    losses = logged_scalars(run).get("train/loss")
    if losses is None:
        raise ArgumentError(f"The log of {run.folder} has no train/loss.")
    returns = curves.require_episodes(run.folder).returns[:, 0]
    return values.plot_panels({run.name: (losses.values, returns, cached_calibration(run, args.model, args.episodes))})


def value_map_figure(run: Run, args: Arguments) -> Figure:
    """
    Draw the value and the best action of a model on planes of the state space.

    :param run: the run whose model is loaded
    :param args: ``args.model``, the file of the model; ``args.slice``, pairs of indices of components of an observation, a row
        of the figure for each pair; ``args.range``, bounds of components
    :raises ArgumentError: if the environment of the run is unknown, the model cannot be loaded, or a pair or a bound is
        missing
    """
    models.check_env_is_known(run, "Give plot_value_map() the model.")
    ranges = {int(index): (float(low), float(high)) for index, low, high in args.range or []}
    model = models.load_model(run, args.model)
    return plot_value_map(model, run.name, run.env_id or "", args.slice, ranges)


RUN_FIGURES: dict[str, Callable[[Run, Arguments], Figure]] = {
    "run": lambda run, args: curves.plot_run(run.folder, args.window),
    "log": lambda run, args: values.plot_log(logged_scalars(run), run.name),
    "calibration": lambda run, args: values.plot_calibration(cached_calibration(run, args.model, args.episodes), run.name),
    "calibration_log": calibration_log_figure,
    "panels": panels_figure,
    "map": value_map_figure,
}


# -- figures of all runs of an environment - --------------------------------------------------------------------------------


def scores_figure(groups: Groups, title: str, args: Arguments) -> Figure:
    """Draw the final scores of groups of runs."""
    scores, label = curves.final_scores(groups)
    return curves.plot_scores(scores, title, label)


GROUP_FIGURES: dict[str, Callable[[Groups, str, Arguments], Figure]] = {
    "learning": lambda groups, title, args: curves.plot_learning(groups, title, args.window),
    "evaluations": lambda groups, title, args: curves.plot_evaluations(groups, title),
    "scores": scores_figure,
}
KIND_DESCRIPTIONS = {
    "learning": "training returns: interquartile mean and interval over seeds",
    "evaluations": "evaluation returns: interquartile mean and interval over seeds",
    "scores": "bars of the final returns, with intervals",
    "run": "training episodes and evaluations of each run",
    "log": "epsilon, Q-values and loss over time, from the TensorBoard log",
    "calibration": "predicted against realised values in new episodes",
    "calibration_log": "predicted against realised values over time, from the TensorBoard log",
    "panels": "loss, returns, and predicted against realised values",
    "map": "value and best action over two components of the observation",
}


# -- the command -----------------------------------------------------------------------------------------------------------


def make_parser(program: str) -> argparse.ArgumentParser:
    """
    Return the parser of the command line.

    :param program: the name of the command in the help
    """
    kinds = "\n".join(f"  {name:16} {what}" for name, what in KIND_DESCRIPTIONS.items())
    made = argparse.ArgumentParser(
        program,
        description="Save figures of runs. Runs of one algorithm, environment and configuration become seeds of one curve.",
        epilog=f"kinds of figures:\n{kinds}\n\nexamples:{EXAMPLES.format(program=program)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "run_folders",
        metavar="[LABEL=]RUN_FOLDER",
        nargs="+",
        help="run folders of the RL Zoo or of SB3, or folders of run folders; runs of one label are seeds of one curve",
    )
    made.add_argument(
        "--kind", action="append", help="kind of figure, may be given several times (default: all for which there is data)"
    )
    made.add_argument("-o", "--output", type=Path, default=Path("pictures"), help="folder of the figures (default: pictures)")
    made.add_argument("--format", choices=["png", "svg"], default="png", help="format of the figures (default: png)")
    made.add_argument("--tensorboard", type=Path, help="folder of the TensorBoard logs, if the run folders do not name it")
    made.add_argument("--window", type=int, default=20, help="number of episodes in a rolling mean (default: 20)")
    made.add_argument("--episodes", type=int, default=models.N_EPISODES, help="number of episodes to play (default: 20)")
    made.add_argument("--model", help="model file in the run folder (default: best_model, otherwise the final model)")
    made.add_argument(
        "--slice",
        type=int,
        nargs=2,
        action="append",
        metavar=("X", "Y"),
        help="indices of the two components of the observation that are the axes of a map",
    )
    made.add_argument(
        "--range",
        nargs=3,
        type=float,
        action="append",
        metavar=("INDEX", "LOW", "HIGH"),
        help="range of a component of the observation in a map",
    )
    made.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    return made


def find_labelled_runs(arguments: Iterable[str], tensorboard: Path | None) -> list[Run]:
    """
    Find the runs in folders, each once.

    :param arguments: ``FOLDER`` or ``LABEL=FOLDER``
    :param tensorboard: the folder of TensorBoard logs; None: the one that a run folder names
    :raises ArgumentError: if a folder has no run
    """
    folders: dict[Path, str] = {}
    for argument in arguments:
        label, _, folder = ("", "", argument) if Path(argument).exists() else argument.rpartition("=")
        for path in find_runs(folder):
            folders.setdefault(path, label)
    return [read_run(folder, tensorboard, label) for folder, label in folders.items()]


def file_names(runs: Sequence[Run]) -> dict[Run, str]:
    """Return a unique file name for each run: as many of the last parts of its folder as are needed."""
    parts = {run: run.folder.resolve().parts for run in runs}
    n = next((n for n in range(2, 100) if len({folder_parts[-n:] for folder_parts in parts.values()}) == len(parts)), 0)
    return {run: "_".join(folder_parts[-n:]).strip("/") for run, folder_parts in parts.items()}


def figures(runs: Sequence[Run], args: Arguments) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """
    List the figures to draw: for each a file name and a function that draws it.

    :param runs: the runs
    :param args: the arguments of the command
    """
    kinds = args.kind or KIND_DESCRIPTIONS
    by_env: dict[str, list[Run]] = {}
    for run in runs:
        by_env.setdefault(run.env_id or "unknown environment", []).append(run)
    names = file_names(runs)
    for kind in kinds:
        if kind in GROUP_FIGURES:
            for env_id, env_runs in by_env.items():
                if args.kind or len(env_runs) > 1:  # of a single run, the kind "run" shows more
                    name = env_id.replace("/", "-").replace(" ", "_")
                    yield f"{name}_{kind}", functools.partial(GROUP_FIGURES[kind], group_runs(env_runs), env_id, args)
        else:
            for run in runs:
                yield f"{names[run]}_{kind}", functools.partial(RUN_FIGURES[kind], run, args)


def save_figures(runs: Sequence[Run], args: Arguments) -> tuple[list[Path], dict[str, Exception]]:
    """
    Draw the figures and save them.

    :param runs: the runs
    :param args: the arguments of the command
    :return: the files, and for each figure that was not drawn its name and the error
    """
    files: list[Path] = []
    problems: dict[str, Exception] = {}
    for name, draw in figures(runs, args):
        try:
            figure = draw()
        except (ArgumentError, CheckpointError) as error:
            problems[name] = error
            continue
        args.output.mkdir(parents=True, exist_ok=True)
        path = args.output / f"{name}.{args.format}"
        figure.savefig(path, dpi=DPI)
        print(path)
        files.append(path)
    return files, problems


def main(arguments: list[str], program: str = COMMAND) -> None:
    """
    Save the figures that a command line requests.

    :param arguments: the arguments of the command line
    :param program: the name of the command in help and errors
    """
    args = make_parser(program).parse_args(arguments)
    try:
        for kind in args.kind or []:
            choose("--kind", kind, KIND_DESCRIPTIONS)
        for module in args.gym_packages:
            importlib.import_module(module)
        files, problems = save_figures(find_labelled_runs(args.run_folders, args.tensorboard), args)
    except (ArgumentError, CheckpointError, ImportError, OSError) as error:
        sys.exit(f"{program}: {error}")
    for name, problem in problems.items():
        print(f"No {name}: {problem}", file=sys.stderr)
    if not files or (args.kind and problems):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
