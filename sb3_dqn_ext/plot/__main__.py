"""``python -m sb3_dqn_ext.plot RUN_FOLDERS``: pictures of runs as files."""

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

DPI = 120

Arguments = argparse.Namespace
Groups = Mapping[str, Sequence[Run]]


# -- pictures of one run ---------------------------------------------------------------------------------------------------


@functools.cache
def cached_calibration(run: Run, model: str | None, n_episodes: int) -> Calibration:
    """
    :param run: a run
    :param model: the name of its file
    :param n_episodes: how many are played
    """
    learner = models.load_model(run, model)
    env = models.make_env(run)
    try:
        return models.measure_calibration(learner, env, n_episodes)
    finally:
        env.close()


def logged_scalars(run: Run) -> dict[str, Series]:
    """
    :param run: a run
    :raises ArgumentError: if it has no TensorBoard log, or it is not known where
    """
    return scalars(log_folder(run))


def calibration_log_figure(run: Run, args: Arguments) -> Figure:
    """What ``ValueCalibrationCallback`` has logged in the course of training."""
    return values.plot_log(logged_scalars(run), run.name, values.CALIBRATION)


def panels_figure(run: Run, args: Arguments) -> Figure:
    """The three plots of the tutorial on realised returns."""
    losses = logged_scalars(run).get("train/loss")
    if losses is None:
        raise ArgumentError(f"The log of {run.folder} has no train/loss.")
    returns = curves.require_episodes(run.folder).returns[:, 0]
    return values.plot_panels({run.name: (losses.values, returns, cached_calibration(run, args.model, args.episodes))})


def value_map_figure(run: Run, args: Arguments) -> Figure:
    """Value and best action over two observations."""
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


# -- pictures of all runs of an environment --------------------------------------------------------------------------------


def scores_figure(groups: Groups, title: str, args: Arguments) -> Figure:
    """What runs came to."""
    found, what = curves.final_scores(groups)
    return curves.plot_scores(found, title, what)


GROUP_FIGURES: dict[str, Callable[[Groups, str, Arguments], Figure]] = {
    "learning": lambda groups, title, args: curves.plot_learning(groups, title, args.window),
    "evaluations": lambda groups, title, args: curves.plot_evaluations(groups, title),
    "scores": scores_figure,
}
KIND_DESCRIPTIONS = {
    "learning": "returns of training, interquartile mean and interval of all seeds",
    "evaluations": "the same of evaluations",
    "scores": "bars: what runs came to, with intervals",
    "run": "training episodes and evaluations of each run",
    "log": "epsilon, Q-values and loss over time, from TensorBoard's log",
    "calibration": "predicted beside realised values, of episodes that are played",
    "calibration_log": "the same over time, from TensorBoard's log",
    "panels": "loss, returns, predicted beside realised values",
    "map": "value and best action over two observations",
}


# -- the command -----------------------------------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """Of the command."""
    kinds = "\n".join(f"  {name:16} {what}" for name, what in KIND_DESCRIPTIONS.items())
    made = argparse.ArgumentParser(
        "python -m sb3_dqn_ext.plot",
        description="Pictures of runs. Runs of the same algorithm, environment and hyperparameters are seeds of one curve.",
        epilog=f"kinds of pictures:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "run_folders",
        metavar="[LABEL=]RUN_FOLDER",
        nargs="+",
        help="run folders of the RL Zoo or of SB3, or folders that hold some; the same label: seeds of one curve",
    )
    made.add_argument("--kind", action="append", help="may be given several times; default: all that can be drawn")
    made.add_argument("-o", "--output", type=Path, default=Path("pictures"), help="folder of the files (default: pictures)")
    made.add_argument("--format", choices=["png", "svg"], default="png", help="of the files (default: png)")
    made.add_argument("--tensorboard", type=Path, help="folder of TensorBoard's logs, if the runs do not tell")
    made.add_argument("--window", type=int, default=20, help="episodes in a rolling mean (default: 20)")
    made.add_argument("--episodes", type=int, default=models.N_EPISODES, help="how many are played (default: 20)")
    made.add_argument("--model", help="file in the run folder (default: best_model, or else the final one)")
    made.add_argument(
        "--slice", type=int, nargs=2, action="append", metavar=("X", "Y"), help="two observations that span a map"
    )
    made.add_argument(
        "--range", nargs=3, type=float, action="append", metavar=("INDEX", "LOW", "HIGH"), help="of an observation in a map"
    )
    made.add_argument("--gym-packages", nargs="+", default=[], help="modules to import, which register environments")
    return made


def find_labelled_runs(arguments: Iterable[str], tensorboard: Path | None) -> list[Run]:
    """
    :param arguments: ``FOLDER`` or ``LABEL=FOLDER``
    :param tensorboard: folder of logs
    :return: the runs there, each once
    :raises ArgumentError: if there are none
    """
    folders: dict[Path, str] = {}
    for argument in arguments:
        label, _, folder = ("", "", argument) if Path(argument).exists() else argument.rpartition("=")
        for path in find_runs(folder):
            folders.setdefault(path, label)
    return [read_run(folder, tensorboard, label) for folder, label in folders.items()]


def file_names(found: Sequence[Run]) -> dict[Run, str]:
    """For each run a name for its files that no other has: the last parts of its folder, as many as it takes."""
    parts = {run: run.folder.resolve().parts for run in found}
    n = next((n for n in range(2, 100) if len({of_run[-n:] for of_run in parts.values()}) == len(parts)), 0)
    return {run: "_".join(of_run[-n:]).strip("/") for run, of_run in parts.items()}


def figures(found: Sequence[Run], args: Arguments) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """
    :param found: runs
    :param args: of the command
    :return: for each file its name, and what draws it
    """
    kinds = args.kind or KIND_DESCRIPTIONS
    by_env: dict[str, list[Run]] = {}
    for run in found:
        by_env.setdefault(run.env_id or "unknown environment", []).append(run)
    names = file_names(found)
    for kind in kinds:
        if kind in GROUP_FIGURES:
            for env_id, of_env in by_env.items():
                if args.kind or len(of_env) > 1:  # of one run, there is a picture that shows more
                    name = env_id.replace("/", "-").replace(" ", "_")
                    yield f"{name}_{kind}", functools.partial(GROUP_FIGURES[kind], group_runs(of_env), env_id, args)
        else:
            for run in found:
                yield f"{names[run]}_{kind}", functools.partial(RUN_FIGURES[kind], run, args)


def save_figures(found: Sequence[Run], args: Arguments) -> tuple[list[Path], dict[str, Exception]]:
    """
    :param found: runs
    :param args: of the command
    :return: the files that were written, and by name what could not be drawn, and why
    """
    files: list[Path] = []
    problems: dict[str, Exception] = {}
    for name, draw in figures(found, args):
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


def main(arguments: list[str]) -> None:
    """
    :param arguments: of the command
    """
    args = make_parser().parse_args(arguments)
    try:
        for kind in args.kind or []:
            choose("--kind", kind, KIND_DESCRIPTIONS)
        for module in args.gym_packages:
            importlib.import_module(module)
        files, problems = save_figures(find_labelled_runs(args.run_folders, args.tensorboard), args)
    except (ArgumentError, CheckpointError, ImportError, OSError) as error:
        sys.exit(f"python -m sb3_dqn_ext.plot: {error}")
    for name, problem in problems.items():
        print(f"No {name}: {problem}", file=sys.stderr)
    if not files or (args.kind and problems):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
