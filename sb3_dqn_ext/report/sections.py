"""The sections with figures: curves, calibration and video."""

from collections.abc import Iterator

from gymnasium import spaces

from sb3_dqn_ext.errors import ArgumentError
from sb3_dqn_ext.plot import curves
from sb3_dqn_ext.plot.models import check_env_is_known
from sb3_dqn_ext.plot.value_maps import plot_value_map
from sb3_dqn_ext.plot.values import plot_calibration
from sb3_dqn_ext.report.blocks import Block, Charts, Heading, Missing, Picture, Text
from sb3_dqn_ext.report.pictures import draw_chart, figure_image, group_charts, logged_image, newest_video, read_video
from sb3_dqn_ext.report.run_data import CALIBRATION, EPISODES, EVALUATIONS, LOG, MODEL, RunData
from sb3_dqn_ext.report.tables import return_facts

__all__ = ["calibration_blocks", "curve_blocks", "video_blocks"]

SCATTER, EPISODE = "calibration/scatter", "video/episode"


def curve_blocks(data: RunData) -> Iterator[Block]:
    """Make the section on curves: returns, and all logged numbers."""
    yield data.attempt("learning curve", lambda: _returns(data))
    for what in (EPISODES, EVALUATIONS):
        if what in data.problems:
            yield data.missing(what)
    if data.log is None:
        yield data.missing(LOG)
        return
    logged = data.log.scalars
    groups, of_calibration = group_charts(logged)
    for group, charts in groups.items():
        yield Heading(group.capitalize())
        yield Charts([draw_chart(logged, title, names) for title, names in charts.items()])
    images = {name: content for name, content in data.log.images.items() if name not in (SCATTER, EPISODE)}
    if images:
        yield Heading("Images")
        yield Charts([_logged(data, name, content) for name, content in images.items()])
    charted = {name for charts in [*groups.values(), of_calibration] for names in charts.values() for name in names}
    others = sorted(logged.keys() - charted)
    if others:
        yield Text(f"Also logged: {', '.join(others)}.", is_note=True)


def _returns(data: RunData) -> Picture:
    run = data.run
    if data.episodes is None and data.evaluations is None:
        raise ArgumentError(f"{run.folder} has neither training episodes nor evaluations.")
    if data.episodes is None:
        figure = curves.plot_evaluations({run.name: [run]}, run.name)
    elif data.evaluations is None:
        figure = curves.plot_learning({run.name: [run]}, run.name)
    else:
        figure = curves.plot_run(run.folder)
    description = "; ".join(f"{name}: {value}, {note}" for name, value, note in return_facts(data))
    return Picture(figure_image(figure, f"Returns over environment steps. {description}."), layout="wide")


def _logged(data: RunData, name: str, content: bytes) -> Picture | Missing:
    return data.attempt(name, lambda: Picture(logged_image(content, name), f"{name}, the last entry of the log"))


def calibration_blocks(data: RunData) -> Iterator[Block]:
    """
    Make the section on calibration.

    The first block shows the predicted and realised values of the episodes in ``data.calibration``. If there are none, the
    last scatter plot of the log follows. The next blocks show the calibration metrics of the log and a map of values. A part
    without data is a block that gives the reason.

    :param data: the data of the run
    :return: the blocks, in their order in the section
    """
    yield data.attempt(CALIBRATION, lambda: _scatter(data)) if data.calibration is not None else data.missing(CALIBRATION)
    log = data.log
    if data.calibration is None and log is not None and SCATTER in log.images:
        yield _logged(data, SCATTER, log.images[SCATTER])
    yield Heading("During training")
    charts = {} if log is None else group_charts(log.scalars)[1]
    if log is not None and charts:
        yield Charts([draw_chart(log.scalars, title, names) for title, names in charts.items()])
    else:
        yield Missing(
            "calibration in the log",
            "none was logged. ValueCalibrationCallback and DiagnosticsCallback log it at intervals.",
        )
    yield Heading("Values of states")
    yield data.attempt("map of values", lambda: _map(data))


def _scatter(data: RunData) -> Picture:
    found, path = data.calibration, data.model_file
    assert found is not None
    assert path is not None
    predicted, realised = found.predicted.mean(), found.realised.mean()
    episodes = f"{data.n_episodes} episode{'s' * (data.n_episodes != 1)}"
    caption = (
        f"{path.name} has played {episodes}, each after some random actions. The mean predicted return of "
        f"{len(found.predicted):,} actions is {predicted:.4g}, the mean realised return {realised:.4g}: values are "
        f"{'over' if found.bias > 0 else 'under'}estimated by {abs(found.bias):.3g}. "
        f"The correlation is {found.correlation:.2f}."
    )
    figure = plot_calibration(found, data.run.name)
    return Picture(figure_image(figure, "Predicted over realised values, a point for each action."), caption, "wide")


def _map(data: RunData) -> Picture:
    run, model, path = data.run, data.model, data.model_file
    if model is None or path is None:
        raise ArgumentError(data.problems[MODEL])
    space = model.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"observations are not vectors, but elements of {space}.")
    check_env_is_known(run, "sb3_dqn_ext.plot.plot_value_map() draws it.")
    try:
        figure = plot_value_map(model, run.name, run.env_id or "")
    except ArgumentError as error:
        if space.shape[0] == 2:
            raise
        command = f"python -m sb3_dqn_ext.plot {run.folder} --kind map --slice X Y"
        raise ArgumentError(
            f"observations have {space.shape[0]} components. `{command}` draws it over two of them."
        ) from error
    caption = f"The value of the best action, and the best action, of {path.name}. Components that are not axes are 0."
    return Picture(figure_image(figure, caption), caption, "wide")


def video_blocks(data: RunData) -> Iterator[Block]:
    """Make the section with the newest video."""
    path = newest_video(data.run.folder)
    if path is not None:
        yield Picture(read_video(path), f"{path.parent.name}/{path.name}")
    elif data.log is not None and EPISODE in data.log.images:
        yield Picture(logged_image(data.log.images[EPISODE], EPISODE), "The last video of the log.")
    else:
        raise ArgumentError(f"{data.run.folder / 'videos'} contains no mp4 file. {_recording_hint(data)}.")


def _recording_hint(data: RunData) -> str:
    hint = "EpisodeVideoCallback records videos during training"
    if not data.run.arguments:
        return hint
    logs = data.run.arguments.get("log_folder", "logs")
    return f"{hint}, `python -m rl_zoo3.record_video --algo {data.run.algo} --env {data.run.env_id} -f {logs}` after training"
