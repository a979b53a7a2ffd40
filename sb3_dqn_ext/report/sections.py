"""What the page shows: curves, values, a film."""

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
    """Returns, and what else was logged."""
    yield data.attempt("learning curve", lambda: _returns(data))
    for what in (EPISODES, EVALUATIONS):
        if what in data.problems:
            yield data.missing(what)
    if data.log is None:
        yield data.missing(LOG)
        return
    logged = data.log.scalars
    shown, of_calibration = group_charts(logged)
    for group, charts in shown.items():
        yield Heading(group.capitalize())
        yield Charts([draw_chart(logged, title, names) for title, names in charts.items()])
    images = {name: content for name, content in data.log.images.items() if name not in (SCATTER, EPISODE)}
    if images:
        yield Heading("Pictures")
        yield Charts([_logged(data, name, content) for name, content in images.items()])
    groups = [*shown.values(), of_calibration]
    others = sorted(logged.keys() - {name for charts in groups for names in charts.values() for name in names})
    if others:
        yield Text(f"Logged, too: {', '.join(others)}.", is_note=True)


def _returns(data: RunData) -> Picture:
    run = data.run
    if data.episodes is None and data.evaluations is None:
        raise ArgumentError(f"{run.folder} has neither training episodes nor evaluations.")
    if data.episodes is None:
        drawn = curves.plot_evaluations({run.name: [run]}, run.name)
    elif data.evaluations is None:
        drawn = curves.plot_learning({run.name: [run]}, run.name)
    else:
        drawn = curves.plot_run(run.folder)
    told = "; ".join(f"{name}: {value}, {note}" for name, value, note in return_facts(data))
    return Picture(figure_image(drawn, f"Returns over environment steps. {told}."), layout="wide")


def _logged(data: RunData, name: str, content: bytes) -> Picture | Missing:
    return data.attempt(name, lambda: Picture(logged_image(content, name), f"{name}, the last of the log"))


def calibration_blocks(data: RunData) -> Iterator[Block]:
    """Predicted beside realised values, now and in the course of training, and the values of states."""
    yield data.attempt(CALIBRATION, lambda: _scatter(data)) if data.calibration is not None else data.missing(CALIBRATION)
    log = data.log
    if data.calibration is None and log is not None and SCATTER in log.images:
        yield _logged(data, SCATTER, log.images[SCATTER])
    yield Heading("In the course of training")
    charts = {} if log is None else group_charts(log.scalars)[1]
    if log is not None and charts:
        yield Charts([draw_chart(log.scalars, title, names) for title, names in charts.items()])
    else:
        yield Missing(
            "calibration in the log",
            "none was logged. ValueCalibrationCallback, or DiagnosticsCallback, does it every so often.",
        )
    yield Heading("Values of states")
    yield data.attempt("map of values", lambda: _map(data))


def _scatter(data: RunData) -> Picture:
    found, path = data.calibration, data.model_file
    assert found is not None
    assert path is not None
    predicted, realised = found.predicted.mean(), found.realised.mean()
    told = (
        f"{data.n_episodes} episodes that {path.name} has just played, each after some random actions. Of "
        f"{len(found.predicted):,} actions, a return of {predicted:.4g} was predicted and one of {realised:.4g} realised, on "
        f"average: values are {'over' if found.bias > 0 else 'under'}estimated by {abs(found.bias):.3g}. The correlation is "
        f"{found.correlation:.2f}."
    )
    drawn = plot_calibration(found, data.run.name)
    return Picture(figure_image(drawn, "Predicted over realised values, a point for each action."), told, "wide")


def _map(data: RunData) -> Picture:
    run, model, path = data.run, data.model, data.model_file
    if model is None or path is None:
        raise ArgumentError(data.problems[MODEL])
    space = model.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ArgumentError(f"observations are no vectors, but of {space}.")
    check_env_is_known(run, "sb3_dqn_ext.plot.plot_value_map() draws it.")
    try:
        drawn = plot_value_map(model, run.name, run.env_id or "")
    except ArgumentError as error:
        if space.shape[0] == 2:
            raise
        command = f"python -m sb3_dqn_ext.plot {run.folder} --kind map --slice X Y"
        raise ArgumentError(f"observations have {space.shape[0]} numbers. `{command}` draws it over two of them.") from error
    told = f"The value of the best action, and which one it is, as {path.name} says; observations that are no axis are 0."
    return Picture(figure_image(drawn, told), told, "wide")


def video_blocks(data: RunData) -> Iterator[Block]:
    """The newest film."""
    path = newest_video(data.run.folder)
    if path is not None:
        yield Picture(read_video(path), f"{path.parent.name}/{path.name}")
    elif data.log is not None and EPISODE in data.log.images:
        yield Picture(logged_image(data.log.images[EPISODE], EPISODE), "The last film of the log.")
    else:
        raise ArgumentError(f"{data.run.folder / 'videos'} holds no mp4 file. {_how_to_film(data)}.")


def _how_to_film(data: RunData) -> str:
    how = "EpisodeVideoCallback films in the course of training"
    if not data.run.arguments:
        return how
    logs = data.run.arguments.get("log_folder", "logs")
    return f"{how}, `python -m rl_zoo3.record_video --algo {data.run.algo} --env {data.run.env_id} -f {logs}` afterwards"
